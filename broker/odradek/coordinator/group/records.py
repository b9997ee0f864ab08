"""The records of `__consumer_offsets`, in Kafka's own formats.

A key is its type (int16) and the key message in version 0; a value is its version (int16) and the value message.
Written as Kafka 4.3 writes them: offsets in version 4 (version 1 when a client asked for its own retention, which
only version 1 can hold), group metadata in version 3, the records of consumer groups (`consumer/records.py`) in
version 0. Every version is read, the old type 0 of offset keys included; types of share and streams groups are
skipped, as Kafka skips types it does not know.
"""

from __future__ import annotations

import struct

from odradek.coordinator.group.consumer.records import KEYS
from odradek.coordinator.group.group import EMPTY, STABLE, ClassicGroup
from odradek.coordinator.group.member import Member
from odradek.coordinator.group.record import GroupRecord
from odradek.wire.errors import MalformedMessage
from odradek.wire.messages.group_metadata_key import GroupMetadataKey
from odradek.wire.messages.group_metadata_value import GroupMetadataValue, MemberMetadata
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


def offset_record(group_id: str, topic: str, partition: int, value: OffsetCommitValue) -> GroupRecord:
    return GroupRecord(OffsetCommitKey(group_id, topic, partition), value)


def offset_tombstone(group_id: str, topic: str, partition: int) -> GroupRecord:
    return GroupRecord(OffsetCommitKey(group_id, topic, partition), None)


def group_tombstone(group_id: str) -> GroupRecord:
    return GroupRecord(GroupMetadataKey(group_id), None)


def new_group_record(group: ClassicGroup) -> GroupRecord:
    """A group that was made for its first, not yet admitted member."""
    value = GroupMetadataValue(
        protocol=None, leader=None, current_state_timestamp=_timestamp(group.state_since_wall_ms)
    )
    return GroupRecord(GroupMetadataKey(group.group_id), value)


def group_record(group: ClassicGroup, assignments: dict[str, bytes]) -> GroupRecord:
    """The group with its generation and members. Members missing in `assignments` have an empty one."""
    value = GroupMetadataValue(
        protocol_type=group.protocol_type or "",
        generation=group.generation,
        protocol=group.protocol,
        leader=group.leader_id,
        current_state_timestamp=_timestamp(group.state_since_wall_ms),
        members=[
            MemberMetadata(
                member_id=member.member_id,
                group_instance_id=member.instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                rebalance_timeout=member.rebalance_timeout_ms,
                session_timeout=member.session_timeout_ms,
                subscription=member.metadata_of(group.protocol),
                assignment=assignments.get(member.member_id, b""),
            )
            for member in group.members.values()
        ],
    )
    return GroupRecord(GroupMetadataKey(group.group_id), value)


def group_from_record(group_id: str, value: GroupMetadataValue) -> ClassicGroup:
    """The group as the record has it: Stable if it has members, each supporting just the protocol chosen then."""
    timestamp = None if value.current_state_timestamp == -1 else value.current_state_timestamp
    group = ClassicGroup(group_id, STABLE if value.members else EMPTY, timestamp)
    group.restore(value.generation, value.protocol_type or None, value.protocol, value.leader)
    for stored in value.members:
        if value.protocol is None:
            raise MalformedMessage(f"group {group_id} has members but no protocol")
        rebalance_timeout = stored.rebalance_timeout
        member = Member(
            stored.member_id,
            stored.group_instance_id,
            stored.client_id,
            stored.client_host,
            stored.session_timeout if rebalance_timeout == -1 else rebalance_timeout,
            stored.session_timeout,
            value.protocol_type,
            [(value.protocol, stored.subscription)],
            stored.assignment,
        )
        if member.member_id in group.members or member.instance_id in group.static_members:
            raise MalformedMessage(f"group {group_id} has member {stored.member_id} twice")
        group.add(member)
    group.learn_subscriptions()
    return group


def _timestamp(wall_ms: int | None) -> int:
    return -1 if wall_ms is None else wall_ms


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
