"""One decoded record of `__consumer_offsets`, and how it is written: as Kafka 4.3 does.

Offsets in version 4 (version 1 when a client asked for its own retention, which only version 1 can hold), classic
groups in version 3, all else in version 0. Who makes which record: `offset_codec.py`, `classic/records.py`,
`consumer/records.py`; the way back is `decode.py`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

from odradek.wire.messages.group_metadata_value import GroupMetadataValue
from odradek.wire.messages.offset_commit_value import OffsetCommitValue
from odradek.wire.primitives import Message

GROUP_METADATA_VERSION = 3
OFFSET_VERSION = 4
OFFSET_VERSION_WITH_EXPIRY = 1

_INT16 = struct.Struct(">h")


@dataclass(slots=True)
class GroupRecord:
    """A None value is a tombstone. Never changed; frozen, it would take three times as long to make."""

    key: Message
    value: Message | None
    live: Any = field(default=None, compare=False)
    """A classic group that this record is of, with what no record holds: timers, waiting requests. Replayed at once,
    the record stands for this object; read from the log, for one made from the value.
    """

    def encode(self) -> tuple[bytes, bytes | None]:
        key = bytearray(_INT16.pack(record_type(self.key)))
        self.key.write(key, 0)
        if self.value is None:
            return bytes(key), None
        version = _version_of(self.value)
        value = bytearray(_INT16.pack(version))
        self.value.write(value, version)
        return bytes(key), bytes(value)


def record_type(key: Message) -> int:
    """The number that a key begins with."""
    return key.RECORD_TYPE


def _version_of(value: Message) -> int:
    """Everything has version 0 but the two oldest kinds."""
    if isinstance(value, GroupMetadataValue):
        return GROUP_METADATA_VERSION
    if isinstance(value, OffsetCommitValue):
        return OFFSET_VERSION if value.expire_timestamp == -1 else OFFSET_VERSION_WITH_EXPIRY
    return 0
