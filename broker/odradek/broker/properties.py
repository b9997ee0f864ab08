"""Java's properties files and the `KAFKA_*` environment, read as Kafka and its official image read them.

A setting keeps where it was made (`server.properties, line 12`), so that an error can say so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

FILE_BYTES_MAX = 1 << 20
"""A larger file is not a properties file."""

NOT_SERVER_PROPERTIES = frozenset(
    (
        "KAFKA_VERSION",
        "KAFKA_HEAP_OPTS",
        "KAFKA_LOG4J_OPTS",
        "KAFKA_OPTS",
        "KAFKA_JMX_OPTS",
        "KAFKA_JVM_PERFORMANCE_OPTS",
        "KAFKA_GC_LOG_OPTS",
        "KAFKA_LOG4J_ROOT_LOGLEVEL",
        "KAFKA_LOG4J_LOGGERS",
        "KAFKA_TOOLS_LOG4J_LOGLEVEL",
        "KAFKA_JMX_HOSTNAME",
        "KAFKA_JMX_PORT",
        "KAFKA_HOME",
        "KAFKA_DEBUG",
        "KAFKA_CLASSPATH",
    )
)
"""Variables that steer Kafka's scripts and its JVM; the official image leaves them out, and there is no
JVM here.
"""

_BLANK = " \t\f"
_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_KEY = re.compile(r"[!-~]+")
_ODD = re.compile(r"[<>{}\[\]()\"'`,;]")
_SERVICE_LINK = re.compile(r"KAFKA_(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?|PORT_\d+_(TCP|UDP)\w*)")


class Setting(NamedTuple):
    """One key's text and where it came from, in words for an error message."""

    value: str
    origin: str


class PropertiesError(ValueError):
    """The file cannot be read as properties; the text names the file, the line and the key."""


def parse_properties(text: str, name: str) -> dict[str, Setting]:
    """Read `text` by the rules of `java.util.Properties.load`; a later line for a key replaces an earlier
    one.

    Stricter than Java in one point: a key that no property could have (JSON, XML, a merge conflict, binary
    data) is an error instead of a setting that nobody reads.
    """
    found: dict[str, Setting] = {}
    for number, line in _logical_lines(text):
        origin = f"{name}, line {number}"
        raw_key, raw_value = _split(line)
        try:
            key = _unescape(raw_key)
        except ValueError:
            raise PropertiesError(
                f"{origin}: malformed \\uxxxx escape in the key {_shown(raw_key)}"
            ) from None
        if not _KEY.fullmatch(key) or _ODD.search(key):
            raise PropertiesError(f"{origin}: {_shown(key)} is not a key (is this a properties file?)")
        try:
            value = _unescape(raw_value)
        except ValueError:
            raise PropertiesError(f"{origin}: malformed \\uxxxx escape in the value of {key}") from None
        found[key] = Setting(value, origin)
    return found


def parse_overrides(pairs: Iterable[str]) -> dict[str, Setting]:
    """`--override key=value`, several times."""
    found: dict[str, Setting] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not _KEY.fullmatch(key.strip()):
            raise PropertiesError(f"--override {pair}: expected key=value")
        found[key.strip()] = Setting(value.strip(), f"--override {key.strip()}")
    return found


def from_environment(environment: Mapping[str, str]) -> dict[str, Setting]:
    """`KAFKA_LOG_RETENTION_MS=1` is `log.retention.ms=1`: `___` stands for a dash, `__` for an underscore.

    The rule and the exclusions are the official image's. What Kubernetes adds for a service called kafka
    (`KAFKA_PORT=tcp://…`) is left out as well.
    """
    found: dict[str, Setting] = {}
    for variable in sorted(environment):
        if not variable.startswith("KAFKA_") or variable in NOT_SERVER_PROPERTIES:
            continue
        if _SERVICE_LINK.fullmatch(variable) or environment[variable].startswith(("tcp://", "udp://")):
            continue
        key = variable.replace("KAFKA_", "").lower()
        key = key.replace("_", ".").replace("...", "-").replace("..", "_")
        if key:
            found[key] = Setting(_as_written(environment[variable]), f"environment variable {variable}")
    return found


def _as_written(text: str) -> str:
    """The image writes the variable into a properties file, where a backslash escapes."""
    try:
        return _unescape(text.strip())
    except ValueError:
        return text.strip()


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their number, continuations joined, blank lines and comments left out."""
    pending = ""
    start = 0
    for number, raw in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        line = raw.lstrip(_BLANK)
        if not start:
            if not line or line[0] in "#!":
                continue
            start = number
        backslashes = len(line) - len(line.rstrip("\\"))
        if backslashes % 2:
            pending += line[:-1]
            continue
        yield start, pending + line
        pending, start = "", 0
    if start and pending:
        yield start, pending


def _split(line: str) -> tuple[str, str]:
    """Key and value: the key ends at the first unescaped blank, `=` or `:`; one separator belongs to
    neither.
    """
    end = 0
    while end < len(line) and line[end] not in "=: \t\f":
        end += 2 if line[end] == "\\" else 1
    rest = line[end:].lstrip(_BLANK)
    if rest[:1] in ("=", ":"):
        rest = rest[1:].lstrip(_BLANK)
    return line[:end], rest


def _unescape(text: str) -> str:
    """ValueError for a malformed \\uxxxx."""
    if "\\" not in text:
        return text
    out: list[str] = []
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == "\\" and at < len(text):
            char = text[at]
            at += 1
            if char == "u":
                digits = text[at : at + 4]
                if not re.fullmatch(r"[0-9a-fA-F]{4}", digits):
                    raise ValueError(digits)
                char = chr(int(digits, 16))
                at += 4
            else:
                char = _ESCAPES.get(char, char)
        elif char == "\\":
            break
        out.append(char)
    return "".join(out)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")
