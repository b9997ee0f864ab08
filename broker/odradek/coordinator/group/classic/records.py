"""Kafka's record of a classic group (GroupMetadata, type 2), written and read."""

from __future__ import annotations

from odradek.coordinator.group.classic.group import EMPTY, STABLE, ClassicGroup
from odradek.coordinator.group.classic.member import Member
from odradek.coordinator.group.record import GroupRecord
from odradek.wire.errors import MalformedMessage
from odradek.wire.messages.group_metadata_key import GroupMetadataKey
from odradek.wire.messages.group_metadata_value import GroupMetadataValue, MemberMetadata


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
