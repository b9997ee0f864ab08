"""Any record of `__consumer_offsets` out of its bytes, in Kafka's own formats.

A key is its type (int16) and the key message in version 0; a value is its version (int16) and the value message.
Every version is read, the old type 0 of offset keys included; types of share and streams groups are skipped, as Kafka
skips types it does not know. Which versions are written stands in `record.py`.
"""

from __future__ import annotations

import struct

from odradek.coordinator.group.consumer.records import KEYS
from odradek.coordinator.group.record import GroupRecord
from odradek.wire.errors import MalformedMessage
from odradek.wire.messages.group_metadata_key import GroupMetadataKey
from odradek.wire.messages.group_metadata_value import GroupMetadataValue
from odradek.wire.messages.legacy_offset_commit_key import LegacyOffsetCommitKey
from odradek.wire.messages.legacy_offset_commit_value import LegacyOffsetCommitValue
from odradek.wire.messages.offset_commit_key import OffsetCommitKey
from odradek.wire.messages.offset_commit_value import OffsetCommitValue

_INT16 = struct.Struct(">h")


def decode(key: bytes, value: bytes | None) -> GroupRecord | None:
    """The record, or None if its type is of no group that is known here. MalformedMessage if it is damaged."""
    record_type, key_bytes = _split(key)
    if record_type == OffsetCommitKey.RECORD_TYPE:
        offset_key = OffsetCommitKey.decode(key_bytes, 0)
        return GroupRecord(offset_key, None if value is None else _read_offset(value))
    if record_type == LegacyOffsetCommitKey.RECORD_TYPE:
        legacy = LegacyOffsetCommitKey.decode(key_bytes, 0)
        legacy_key = OffsetCommitKey(legacy.group, legacy.topic, legacy.partition)
        return GroupRecord(legacy_key, None if value is None else _read_legacy_offset(value))
    if record_type == GroupMetadataKey.RECORD_TYPE:
        group_key = GroupMetadataKey.decode(key_bytes, 0)
        return GroupRecord(group_key, None if value is None else _read_group(value))
    kind = KEYS.get(record_type)
    if kind is None:
        return None
    decoded_key = kind[0].decode(key_bytes, 0)
    if value is None:
        return GroupRecord(decoded_key, None)
    version, body = _split(value)
    return GroupRecord(decoded_key, kind[1].decode(body, version))


def _split(data: bytes) -> tuple[int, bytes]:
    if len(data) < 2:
        raise MalformedMessage("a coordinator record begins with its version")
    (number,) = _INT16.unpack_from(data)
    return number, data[2:]


def _read_offset(data: bytes) -> OffsetCommitValue:
    version, body = _split(data)
    return OffsetCommitValue.decode(body, version)


def _read_legacy_offset(data: bytes) -> OffsetCommitValue:
    version, body = _split(data)
    legacy = LegacyOffsetCommitValue.decode(body, version)
    return OffsetCommitValue(
        offset=legacy.offset, metadata=legacy.metadata, commit_timestamp=legacy.commit_timestamp
    )


def _read_group(data: bytes) -> GroupMetadataValue:
    version, body = _split(data)
    return GroupMetadataValue.decode(body, version)
