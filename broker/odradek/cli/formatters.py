"""How `kafka-console-consumer` prints a record: Kafka's DefaultMessageFormatter and its deserializers.

A formatter is a function from a record of kafka-python to the bytes of its line, so that what producers wrote is
printed as it is, text or not.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from odradek.cli.options import ToolError

Formatter = Callable[[Any], bytes]
Deserializer = Callable[[bytes], bytes]

TIMESTAMP_TYPES = {0: b"CreateTime:", 1: b"LogAppendTime:"}


def formatter(java_class: str, properties: Mapping[str, str]) -> Formatter:
    """The formatter that stands for one of Kafka's classes; ToolError for a class that is not there."""
    simple = java_class.rpartition(".")[2]
    if simple == "DefaultMessageFormatter":
        return default_formatter(properties)
    if simple == "LoggingMessageFormatter":
        return logging_formatter(default_formatter(properties))
    if simple == "NoOpMessageFormatter":
        return lambda record: b""
    raise ToolError(
        f"--formatter {java_class}: there are DefaultMessageFormatter, LoggingMessageFormatter and NoOpMessageFormatter"
    )


def default_formatter(properties: Mapping[str, str]) -> Formatter:
    """Columns by `print.*`, in Kafka's order, between `key.separator`; values only is a path of its own."""

    def on(name: str, default: str = "false") -> bool:
        return properties.get(name, default).strip().lower() == "true"

    def text(name: str, default: str) -> bytes:
        return properties.get(name, default).encode()

    separator, end, null = (
        text("key.separator", "\t"),
        text("line.separator", "\n"),
        text("null.literal", "null"),
    )
    key_of = deserializer(properties.get("key.deserializer"))
    value_of = deserializer(properties.get("value.deserializer"))
    header_of = deserializer(properties.get("headers.deserializer"))
    header_separator = text("headers.separator", ",")

    def headers(record: Any) -> bytes:
        if not record.headers:
            return b"NO_HEADERS"
        return header_separator.join(
            name.encode() + b":" + (null if value is None else header_of(value))
            for name, value in record.headers
        )

    columns: list[Formatter] = []
    if on("print.timestamp"):
        columns.append(
            lambda record: (
                TIMESTAMP_TYPES[record.timestamp_type] + b"%d" % record.timestamp
                if record.timestamp >= 0
                else b"NO_TIMESTAMP"
            )
        )
    if on("print.partition"):
        columns.append(lambda record: b"Partition:%d" % record.partition)
    if on("print.offset"):
        columns.append(lambda record: b"Offset:%d" % record.offset)
    if on("print.delivery"):
        columns.append(lambda record: b"Delivery:NOT_PRESENT")
    if on("print.epoch"):
        columns.append(lambda record: b"Epoch:NOT_PRESENT")
    if on("print.headers"):
        columns.append(headers)
    if on("print.key"):
        columns.append(lambda record: null if record.key is None else key_of(record.key))
    if not on("print.value", "true"):
        # Kafka ends such a line with the separator of lines after its last column.
        return lambda record: (
            separator.join([column(record) for column in columns]) + (end if columns else b"")
        )
    if not columns:
        return lambda record: (null if record.value is None else value_of(record.value)) + end
    columns.append(lambda record: null if record.value is None else value_of(record.value))
    return lambda record: separator.join([column(record) for column in columns]) + end


def logging_formatter(inner: Formatter) -> Formatter:
    """The record's line, and one on standard error with its numbers, as Kafka's LoggingMessageFormatter logs."""
    from odradek.cli.options import warn

    def write(record: Any) -> bytes:
        line = inner(record)
        key = "null" if record.key is None else record.key.decode("utf-8", "replace")
        value = "null" if record.value is None else record.value.decode("utf-8", "replace")
        kind = TIMESTAMP_TYPES[record.timestamp_type].decode()
        warn(f"INFO {kind}{record.timestamp}, key:{key}, value:{value}")
        return line

    return write


def deserializer(java_class: str | None) -> Deserializer:
    """The text of a serialized Java value. Without a class the bytes are the text."""
    if not java_class:
        return lambda raw: raw
    simple = java_class.rpartition(".")[2]
    if simple in (
        "ByteArrayDeserializer",
        "BytesDeserializer",
        "ByteBufferDeserializer",
        "StringDeserializer",
        "UUIDDeserializer",
    ):
        return lambda raw: raw
    if simple == "BooleanDeserializer":
        return lambda raw: b"true" if _sized(simple, raw, 1) != b"\0" else b"false"
    if simple == "VoidDeserializer":
        return lambda raw: b"null"
    if simple in _NUMBERS:
        packed = struct.Struct(_NUMBERS[simple])
        return lambda raw: str(packed.unpack(_sized(simple, raw, packed.size))[0]).encode()
    raise ToolError(
        f"Class {java_class} could not be found: there are the deserializers of org.apache.kafka.common.serialization"
    )


_NUMBERS = {
    "ShortDeserializer": ">h",
    "IntegerDeserializer": ">i",
    "LongDeserializer": ">q",
    "FloatDeserializer": ">f",
    "DoubleDeserializer": ">d",
}


def _sized(simple: str, raw: bytes, size: int) -> bytes:
    if len(raw) != size:
        raise ValueError(f"Size of data received by {simple} is not {size}")
    return raw
