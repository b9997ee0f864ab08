"""How `kafka-console-producer` makes records of lines: Kafka's LineMessageReader, over bytes.

Lines stay bytes from the terminal to the topic, so that text which is not UTF-8 arrives as it was typed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from odradek.cli.options import ToolError


class Line(NamedTuple):
    """One record to be."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class LineReader:
    """Parses lines by the reader properties `parse.key`, `key.separator`, `parse.headers`, `null.marker` and so on."""

    def __init__(self, properties: Mapping[str, str]) -> None:
        def flag(name: str) -> bool:
            return properties.get(name, "").strip().lower() == "true"

        def text(name: str, default: str) -> bytes:
            return properties.get(name, default).encode()

        self.parse_key = flag("parse.key")
        self.parse_headers = flag("parse.headers")
        self.ignore_error = flag("ignore.error")
        self.key_separator = text("key.separator", "\t")
        self.headers_delimiter = text("headers.delimiter", "\t")
        self.headers_separator = text("headers.separator", ",")
        self.headers_key_separator = text("headers.key.separator", ":")
        self.null_marker = properties["null.marker"].encode() if "null.marker" in properties else None
        self.line_number = 0
        self._check()
        self._split = re.compile(self.headers_separator)

    def _check(self) -> None:
        names = {
            "headers.delimiter": self.headers_delimiter,
            "headers.separator": self.headers_separator,
            "headers.key.separator": self.headers_key_separator,
        }
        pairs = [(a, b) for index, a in enumerate(names) for b in list(names)[index + 1 :]]
        for first, second in pairs:
            if names[first] == names[second]:
                raise ToolError(f"{first} and {second} may not be equal")
        names["key.separator"] = self.key_separator
        for name, value in names.items():
            if value == self.null_marker:
                raise ToolError(f"null.marker and {name} may not be equal")

    def parse(self, line: bytes) -> Line:
        """One line without its line end; ToolError in Kafka's words where a separator is missing."""
        self.line_number += 1
        headers, rest = self._cut(self.parse_headers, line, self.headers_delimiter, "headers delimiter", line)
        key, value = self._cut(self.parse_key, rest, self.key_separator, "key separator", line)
        return Line(
            None if key is None or key == self.null_marker else key,
            None if value == self.null_marker else value,
            [] if headers is None or headers == self.null_marker else self._headers(headers),
        )

    def _cut(
        self, enabled: bool, text: bytes, separator: bytes, name: str, line: bytes
    ) -> tuple[bytes | None, bytes]:
        if not enabled:
            return None, text
        head, found, tail = text.partition(separator)
        if found:
            return head, tail
        if self.ignore_error:
            return None, text
        raise ToolError(f"No {name} found on line number {self.line_number}: '{_shown(line)}'")

    def _headers(self, text: bytes) -> list[tuple[str, bytes | None]]:
        headers: list[tuple[str, bytes | None]] = []
        for pair in self._split.split(text):
            name, found, value = pair.partition(self.headers_key_separator)
            if not found:
                if not self.ignore_error:
                    raise ToolError(
                        f"No header key separator found in pair '{_shown(pair)}' on line number {self.line_number}"
                    )
                headers.append((_shown(pair), None))
                continue
            if name == self.null_marker:
                raise ToolError(
                    f"Header keys should not be equal to the null marker '{_shown(name)}' as they can't be null"
                )
            headers.append((_shown(name), None if value == self.null_marker else value))
        return headers


def _shown(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
