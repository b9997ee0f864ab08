"""A group changes its protocol while it has members (group.consumer.migration.policy).

Up: the first member of the consumer protocol joins a classic group. All others become members of the consumer group
that go on speaking the classic protocol (`classic_members`), with what they were assigned. Down: the last member of
the consumer protocol is gone, and the classic group has everything as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from odradek.coordinator.errors import client_error
from odradek.coordinator.group.classic.group import CONSUMER_PROTOCOL_TYPE, STABLE, ClassicGroup
from odradek.coordinator.group.classic.member import Member
from odradek.coordinator.group.classic.rebalance import abandon, keep_session, prepare
from odradek.coordinator.group.classic.records import group_record, group_tombstone
from odradek.coordinator.group.consumer.embedded import (
    assigned_partitions,
    read_assignment,
    read_subscription,
    write_assignment,
)
from odradek.coordinator.group.consumer.group import GROUP, TARGET, ConsumerGroup, Numbers
from odradek.coordinator.group.consumer.member import (
    ClassicMetadata,
    ConsumerMember,
    Partitions,
    with_epoch,
)
from odradek.coordinator.group.consumer.records import all_records, group_tombstones
from odradek.coordinator.group.record import GroupRecord
from odradek.coordinator.group.state import ShardState
from odradek.coordinator.timeline import Timeline
from odradek.wire.errors import ErrorCode, KafkaError, MalformedMessage
from odradek.wire.messages.join_group import JoinGroupResponse
from odradek.wire.messages.sync_group import SyncGroupResponse

# -- up ----------------------------------------------------------------------------------------------------------


def upgrade(shard: ShardState, group: ClassicGroup, records: list[GroupRecord]) -> ConsumerGroup:
    """The group as a consumer group, and the records that make it one. Who waits for the classic group is told to
    come again. KafkaError GROUP_ID_NOT_FOUND if it must stay classic.
    """
    converted = _converted(shard, group)
    for member in group.members.values():
        error = ErrorCode.REBALANCE_IN_PROGRESS
        group.finish_join(member, JoinGroupResponse(member_id=member.member_id, error_code=error))
        group.finish_sync(member, SyncGroupResponse(error_code=error))
        shard.consumer_timers.keep_session(group.group_id, member.member_id, member.session_timeout_ms)
    records.append(group_tombstone(group.group_id))
    records += all_records(converted)
    shard.log.limited_info("classic group becomes a consumer group", group=group.group_id)
    return converted


def _converted(shard: ShardState, group: ClassicGroup) -> ConsumerGroup:
    start = f"Cannot upgrade classic group {group.group_id} to consumer group because"
    problem = None
    if not shard.config.upgrade_allowed:
        problem = "online upgrade is disabled."
    elif group.protocol_type != CONSUMER_PROTOCOL_TYPE:
        problem = "the group does not use the consumer embedded protocol."
    elif len(group.members) > shard.config.group_consumer_max_size:
        problem = "the group size exceeds the consumer group maximum size."
    if problem is None:
        try:
            return _consumer_group(shard, group)
        except MalformedMessage:
            problem = "the embedded consumer protocol is malformed."
        except _CustomAssignorError:
            problem = (
                "an unsupported custom assignor is in use. Please refer to the documentation or switch to a "
                "default assignor before re-attempting the upgrade."
            )
    raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, f"{start} {problem}")


class _CustomAssignorError(Exception):
    """It keeps data of its own in assignments, which would be lost."""


def _consumer_group(shard: ShardState, group: ClassicGroup) -> ConsumerGroup:
    converted = ConsumerGroup(group.group_id, Timeline())
    generation = group.generation
    for member in group.members.values():
        assigned: Partitions = {}
        if member.assignment:
            assignment = read_assignment(member.assignment)
            if assignment.user_data:
                raise _CustomAssignorError
            assigned = assigned_partitions(assignment, shard.topics)
        subscription = read_subscription(_metadata(group, member))
        converted.targets[member.member_id] = assigned
        converted.members[member.member_id] = ConsumerMember(
            member.member_id,
            member_epoch=generation,
            previous_member_epoch=generation,
            instance_id=member.instance_id,
            rack_id=subscription.rack_id or None,
            rebalance_timeout_ms=member.rebalance_timeout_ms,
            client_id=member.client_id,
            client_host=member.client_host,
            topic_names=frozenset(subscription.topics),
            assigned=with_epoch(assigned, generation),
            classic=ClassicMetadata(member.session_timeout_ms, tuple(member.protocols)),
        )
    metadata_hash = shard.topics.hash_of(converted.subscriptions().topics())
    converted.set_numbers(GROUP, Numbers(generation, metadata_hash))
    converted.set_numbers(TARGET, Numbers(generation, 0))
    return converted


def _metadata(group: ClassicGroup, member: Member) -> bytes:
    """For the group's protocol, or before its first generation for the member's own first choice."""
    return member.protocols[0][1] if group.protocol is None else member.metadata_of(group.protocol)


# -- down --------------------------------------------------------------------------------------------------------


def can_downgrade(shard: ShardState, group: ConsumerGroup, leaving: Sequence[ConsumerMember]) -> bool:
    """Whether the group becomes a classic one when these members go."""
    left = group.size - len(leaving)
    return (
        left > 0
        and group.classic_members > 0
        and group.all_others_classic(leaving)
        and shard.config.downgrade_allowed
        and left <= shard.config.group_max_size
    )


def can_downgrade_for(shard: ShardState, group: ConsumerGroup, replaced: ConsumerMember) -> bool:
    """The same when a static member comes back with the classic protocol."""
    return (
        replaced.classic is None
        and group.all_others_classic([replaced])
        and shard.config.downgrade_allowed
        and group.size <= shard.config.group_max_size
    )


def downgrade(
    shard: ShardState,
    group: ConsumerGroup,
    *,
    leaving: Sequence[ConsumerMember] = (),
    joining: ConsumerMember | None = None,
    rebalance: bool = True,
) -> tuple[list[GroupRecord], Callable[[ErrorCode], None]]:
    """Records that make the group classic, without the leaving members, and with one (static) in the place of whom
    it replaces; and what is to be done when they are written. KafkaError GROUP_ID_NOT_FOUND if it cannot be.
    """
    replaced = None if joining is None else group.static_member(joining.instance_id)
    gone = {member.member_id for member in leaving}
    classic = ClassicGroup(group.group_id, STABLE, shard.wall_ms())
    classic.restore(group.epoch, CONSUMER_PROTOCOL_TYPE, None, None)
    targets: dict[str, Partitions] = {}
    for member_id, member in group.members.items():
        if member_id in gone or member is replaced:
            continue
        classic.add(_classic_member(member))
        targets[member_id] = group.target_of(member_id)
    tombstones = group_tombstones(group)
    if joining is not None:
        assert replaced is not None, "a static member takes the place of one"
        classic.add(_classic_member(joining))
        targets[joining.member_id] = group.target_of(replaced.member_id)
        ids = [joining.member_id if each == replaced.member_id else each for each, _ in group.members.items()]
        tombstones = group_tombstones(group, ids)
    protocol = classic.select_protocol()
    classic.restore(group.epoch, CONSUMER_PROTOCOL_TYPE, protocol, classic.leader_id)
    classic.learn_subscriptions()
    try:
        for member_id, classic_member in classic.members.items():
            metadata = classic_member.metadata_of(protocol)
            classic_member.assignment = write_assignment(targets[member_id], shard.topics, metadata)
    except MalformedMessage as error:
        text = f"Cannot downgrade the classic group {group.group_id}: {error}."
        raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, text) from error
    assignments = {member_id: member.assignment for member_id, member in classic.members.items()}
    record = group_record(classic, assignments)
    records = [*tombstones, GroupRecord(record.key, record.value, classic)]
    for classic_member in classic.members.values():
        keep_session(shard, classic, classic_member)
    if rebalance:
        outcome = prepare(shard, classic, "the last member of the consumer protocol is gone")
        assert not outcome.records, "nobody has joined yet"
    shard.log.limited_info("consumer group becomes a classic group", group=group.group_id)
    former = [member_id for member_id, _ in group.members.items()]

    def written(error: ErrorCode) -> None:
        if shard.groups.get(group.group_id) is not classic:
            abandon(shard, classic, client_error(error))
            return
        for member_id in former:
            shard.consumer_timers.forget(group.group_id, member_id)

    return records, written


def _classic_member(member: ConsumerMember) -> Member:
    assert member.classic is not None
    return Member(
        member.member_id,
        member.instance_id,
        member.client_id,
        member.client_host,
        member.rebalance_timeout_ms,
        member.classic.session_timeout_ms,
        CONSUMER_PROTOCOL_TYPE,
        list(member.classic.protocols),
    )
