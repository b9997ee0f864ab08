"""What `dump-log` prints of keys and values: text, or the records of the internal topics as JSON with Kafka's names.

The JSON is that of Kafka's converters: fields in the order of the message's definition, tagged fields only where they
differ from their default, bytes in base64, ids as Kafka writes them. Metadata records are msgpack here, not Kafka's:
they are shown in the same shape, with our fields.
"""

from __future__ import annotations

import json
import struct
from base64 import b64encode
from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from typing import Any

from odradek.cli.options import ToolError
from odradek.metadata import records as metadata_records
from odradek.wire.errors import MalformedMessage
from odradek.wire.messages._schema import MESSAGES, FieldInfo
from odradek.wire.primitives import Message
from odradek.wire.records import Record
from odradek.wire.uuid import uuid_to_string

Decoder = Callable[[Record], tuple[str | None, str | None]]
"""From a record to what stands behind `key: ` and `payload: `; None: not even that word."""

GROUPS = "org.apache.kafka.coordinator.group.generated"
TRANSACTIONS = "org.apache.kafka.coordinator.transaction.generated"
SHARE_GROUP_STATE = "org.apache.kafka.coordinator.share.generated"
_INT16 = struct.Struct(">h")
_UUID_SIZE = 16
_ODD_WORDS = {"kraft": "kRaft"}


def text(record: Record) -> tuple[str | None, str | None]:
    """Bytes as UTF-8, what is none replaced."""
    key, value = record.key, record.value
    return (
        None if key is None else key.decode("utf-8", "replace"),
        None if value is None else value.decode("utf-8", "replace"),
    )


def cluster_metadata(record: Record) -> tuple[str | None, str | None]:
    """A record of the metadata log."""
    try:
        decoded = metadata_records.decode(record.value or b"")
    except metadata_records.BadRecord as error:
        return None, f"Error at {record.offset}, skipping. {error}"
    data = {_camel(each.name): _plain(getattr(decoded, each.name)) for each in fields(decoded)}  # type: ignore[arg-type]
    return None, to_json({"type": _upper(type(decoded).__name__), "version": decoded.VERSION, "data": data})


def coordinator(package: str) -> Decoder:
    """The decoder of a coordinator's topic: its types are those of the messages that Kafka generates in `package`."""
    kinds = _kinds(package)

    def decode(record: Record) -> tuple[str | None, str | None]:
        if record.key is None:
            raise ToolError(
                f"Failed to decode message at offset {record.offset} using the specified decoder "
                "(message had a missing key)"
            )
        try:
            number, key_bytes = _split(record.key)
            kind = kinds.get(number)
            if kind is None:
                return f"Unknown record type {number} at offset {record.offset}, skipping.", None
            key = kind[0].decode(key_bytes, 0)
            shown = to_json({"type": str(number), "data": message_json(key, 0)})
            if record.value is None:
                return shown, "<DELETE>"
            version, body = _split(record.value)
            value = kind[1].decode(body, version)
            return shown, to_json({"version": str(version), "data": message_json(value, version)})
        except MalformedMessage as error:
            raise ToolError(
                f"Failed to decode message at offset {record.offset} using the specified decoder ({error})"
            ) from None

    return decode


def message_json(message: Message, version: int) -> dict[str, Any]:
    """A generated message as Kafka's JSON converter has it."""
    return _structure(message, type(message).__name__, MESSAGES[type(message).__name__].structs, version)


def to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _structure(
    value: Any, name: str, structs: dict[str, tuple[FieldInfo, ...]], version: int
) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for each in structs[name]:
        content = getattr(value, each.name)
        is_tagged = each.tagged[0] <= version <= each.tagged[1]
        if not each.versions[0] <= version <= each.versions[1] or (is_tagged and content == each.default):
            continue
        if content is None:
            one: Any = None
        elif each.is_array:
            one = [_value(item, each, structs, version) for item in content]
        else:
            one = _value(content, each, structs, version)
        shown[_camel(each.name)] = one
    return shown


def _value(value: Any, field: FieldInfo, structs: dict[str, tuple[FieldInfo, ...]], version: int) -> Any:
    if field.is_struct:
        return _structure(value, field.type, structs, version)
    if field.type == "uuid":
        return uuid_to_string(value)
    return b64encode(value).decode() if isinstance(value, bytes | bytearray | memoryview) else value


def _kinds(package: str) -> dict[int, tuple[type[Message], type[Message]]]:
    """Key and value class by record type."""
    kinds: dict[int, tuple[type[Message], type[Message]]] = {}
    for name, info in MESSAGES.items():
        if info.kind == "coordinator-key" and info.java_class.startswith(f"{package}."):
            value_name = name.removesuffix("Key") + "Value"
            key, value = (_class(each) for each in (name, value_name))
            kinds[key.RECORD_TYPE] = key, value
    return kinds


def _class(name: str) -> type[Message]:
    module = import_module(f"odradek.wire.messages.{MESSAGES[name].module}")
    found: type[Message] = getattr(module, name)
    return found


def _split(data: bytes) -> tuple[int, bytes]:
    if len(data) < _INT16.size:
        raise MalformedMessage("a coordinator record begins with its version")
    (number,) = _INT16.unpack_from(data)
    return number, data[_INT16.size :]


def _plain(value: Any) -> Any:
    """A field of a metadata record; 16 bytes are an id there."""
    if isinstance(value, bytes):
        return uuid_to_string(value) if len(value) == _UUID_SIZE else b64encode(value).decode()
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value


def _camel(name: str) -> str:
    first, *others = name.split("_")
    first = _ODD_WORDS.get(first, first)
    return first + "".join(part[:1].upper() + part[1:] for part in others)


def _upper(name: str) -> str:
    """`RegisterBrokerRecord` as `REGISTER_BROKER_RECORD`."""
    return "".join(f"_{each}" if each.isupper() else each.upper() for each in name).lstrip("_")
