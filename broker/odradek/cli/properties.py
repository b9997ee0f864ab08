"""Java properties files and Java client settings, for the options that take them (`--command-config` and kin).

`load_properties` reads the format of `java.util.Properties`. `client_settings` turns the settings of the Java clients
(`acks`, `sasl.jaas.config`, …) into keyword arguments of kafka-python, whose names are the same with underscores, apart
from security. What the Python client has no counterpart for is named in one warning and left out, as Kafka's own
clients do with settings that they do not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from odradek.cli.options import ToolError, warn

_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


def load_properties(path: str) -> dict[str, str]:
    """The settings of a properties file; ToolError names the file, and the line where one is wrong."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise ToolError(f"Unable to read file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ToolError(f"Unable to read file {path}: it is not a text file") from error
    return dict(_parse_line(line, path, number) for number, line in _logical_lines(text))


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers: comments and blanks dropped, continuations joined."""
    pending, start = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.lstrip()
        if not pending and (not line or line[0] in "#!"):
            continue
        if not pending:
            start = number
        backslashes = len(line) - len(line.rstrip("\\"))
        if backslashes % 2:
            pending += line[:-1]
            continue
        yield start, pending + line
        pending = ""
    if pending:
        yield start, pending


def _parse_line(line: str, path: str, number: int) -> tuple[str, str]:
    match = re.match(r"((?:\\.|[^\\=:\s])*)\s*[=:]?\s*(.*)$", line, re.DOTALL)
    if match is None or not match.group(1):
        raise ToolError(f"{path}, line {number}: a setting needs a name before the '='")
    return _unescape(match.group(1)), _unescape(match.group(2))


def _unescape(text: str) -> str:
    def replace(match: re.Match[str]) -> str:
        token = match.group(1)
        if len(token) == 5:
            return chr(int(token[1:], 16))
        return _ESCAPES.get(token, token)

    return re.sub(r"\\(u[0-9a-fA-F]{4}|.)", replace, text)


_TEXT = frozenset(
    ("client_id", "client_rack", "compression_type", "group_id", "group_instance_id", "transactional_id",
     "sasl_mechanism", "client_dns_lookup")
)  # fmt: skip
_NUMBER = frozenset(("receive_buffer_bytes", "send_buffer_bytes", "retries"))
# Settings whose effect is the tool's own business, or that change nothing here: dropped in silence.
_DROPPED = frozenset(
    ("key.serializer", "value.serializer", "key.deserializer", "value.deserializer", "bootstrap.servers",
     "sasl.jaas.config", "socket.connection.setup.timeout.ms", "socket.connection.setup.timeout.max.ms",
     "default.api.timeout.ms", "enable.metrics.push")
)  # fmt: skip
_ASSIGNORS = {
    "RangeAssignor": ("range", "RangePartitionAssignor"),
    "RoundRobinAssignor": ("roundrobin", "RoundRobinPartitionAssignor"),
    "StickyAssignor": ("sticky.sticky_assignor", "StickyPartitionAssignor"),
    "CooperativeStickyAssignor": ("cooperative_sticky", "CooperativeStickyAssignor"),
}


def client_settings(properties: Mapping[str, str], known: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments for a kafka-python client whose `DEFAULT_CONFIG` is `known`."""
    settings: dict[str, Any] = {}
    unused = []
    for name, value in properties.items():
        key = name.replace(".", "_")
        if name in _DROPPED or name.startswith("ssl.") or name.startswith("sasl."):
            continue
        if name == "partition.assignment.strategy" and key in known:
            settings[key] = [_assignor(part.strip()) for part in value.split(",")]
        elif name == "acks" and key in known:
            settings[key] = "all" if value in ("all", "-1") else _number(name, value)
        elif key in known:
            settings[key] = _converted(name, value, known[key])
        else:
            unused.append(name)
    if unused:
        warn(f"WARN These configurations '[{', '.join(unused)}]' were supplied but are not used yet.")
    settings.update(_security(properties))
    return settings


def _converted(name: str, value: str, default: Any) -> Any:
    key = name.replace(".", "_")
    if isinstance(default, bool):
        if value.strip().lower() not in ("true", "false"):
            raise ToolError(f"Invalid value {value} for configuration {name}: Expected value to be either true or false")
        return value.strip().lower() == "true"
    if isinstance(default, int) or key in _NUMBER:
        return _number(name, value)
    if key == "compression_type":
        return None if value == "none" else value
    if isinstance(default, str) or key in _TEXT:
        return value
    raise ToolError(f"{name} cannot be set from a properties file for this tool")


def _number(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise ToolError(f"Invalid value {value} for configuration {name}: Not a number of type INT") from None


def _assignor(java_class: str) -> Any:
    from importlib import import_module

    simple = java_class.rpartition(".")[2]
    if simple not in _ASSIGNORS:
        raise ToolError(f"Invalid value {java_class} for configuration partition.assignment.strategy: Class could not be found.")
    module, name = _ASSIGNORS[simple]
    return getattr(import_module(f"kafka.coordinator.assignors.{module}"), name)


def _security(properties: Mapping[str, str]) -> dict[str, Any]:
    """TLS from PEM files, and the user and password that Java keeps in a JAAS line."""
    settings: dict[str, Any] = {}
    if "security.protocol" in properties:
        settings["security_protocol"] = properties["security.protocol"].upper()
    if "sasl.mechanism" in properties:
        settings["sasl_mechanism"] = properties["sasl.mechanism"]
    jaas = properties.get("sasl.jaas.config", "")
    for field in ("username", "password"):
        found = re.search(rf'{field}\s*=\s*"((?:\\.|[^"\\])*)"', jaas)
        if found:
            settings[f"sasl_plain_{field}"] = found.group(1)
    for store, key in (("truststore", "ssl_cafile"), ("keystore", "ssl_certfile")):
        location = properties.get(f"ssl.{store}.location")
        if location is None:
            continue
        if properties.get(f"ssl.{store}.type", "JKS").upper() != "PEM":
            raise ToolError(f"ssl.{store}.location={location}: only PEM files are read; set ssl.{store}.type=PEM and name one")
        settings[key] = location
        if store == "keystore":
            settings["ssl_keyfile"] = location
    if "ssl.key.password" in properties:
        settings["ssl_password"] = properties["ssl.key.password"]
    if properties.get("ssl.endpoint.identification.algorithm") == "":
        settings["ssl_check_hostname"] = False
    return settings
