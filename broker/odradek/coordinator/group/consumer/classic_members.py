"""Members of a consumer group that speak the classic protocol: JoinGroup, SyncGroup, Heartbeat and LeaveGroup.

A join is a heartbeat that says everything, and is answered at once; the generation is the member's epoch. The sync
brings what the coordinator has assigned. A heartbeat answers REBALANCE_IN_PROGRESS when there is something to join
for: a new target, partitions to give up (which a cooperative member says by joining without them), partitions that
have become free.
"""

from __future__ import annotations

from dataclasses import replace

from odradek.coordinator.group.classic.group import CONSUMER_PROTOCOL_TYPE
from odradek.coordinator.group.consumer.change import Change, assign, move, update
from odradek.coordinator.group.consumer.convert import can_downgrade_for, downgrade
from odradek.coordinator.group.consumer.embedded import (
    owned_partitions,
    read_subscription,
    write_assignment,
)
from odradek.coordinator.group.consumer.fence import remove_members
from odradek.coordinator.group.consumer.group import ConsumerGroup
from odradek.coordinator.group.consumer.heartbeat import check_instance, check_room, replace_static
from odradek.coordinator.group.consumer.member import (
    ClassicMetadata,
    ConsumerMember,
    MemberState,
    without_epochs,
)
from odradek.coordinator.group.context import GroupContext
from odradek.coordinator.group.record import GroupRecord
from odradek.coordinator.group.state import ShardState
from odradek.coordinator.runtime import Outcome
from odradek.wire.errors import ErrorCode, KafkaError, MalformedMessage
from odradek.wire.messages.consumer_protocol_subscription import ConsumerProtocolSubscription
from odradek.wire.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from odradek.wire.messages.join_group import JoinGroupRequest, JoinGroupResponse
from odradek.wire.messages.leave_group import (
    LeaveGroupRequest,
    LeaveGroupResponse,
    MemberIdentity,
    MemberResponse,
)
from odradek.wire.messages.sync_group import SyncGroupRequest, SyncGroupResponse
from odradek.wire.uuid import random_uuid, uuid_to_string

KNOWN_MEMBER_ID_FROM = 4

# -- join --------------------------------------------------------------------------------------------------------


def join(
    shard: ShardState, group: ConsumerGroup, context: GroupContext, request: JoinGroupRequest
) -> Outcome[JoinGroupResponse | None]:
    """Answered when what it changes is written."""
    try:
        return _join(shard, group, context, request)
    except KafkaError as error:
        return Outcome(JoinGroupResponse(error_code=error.code, member_id=request.member_id))


def _join(
    shard: ShardState, group: ConsumerGroup, context: GroupContext, request: JoinGroupRequest
) -> Outcome[JoinGroupResponse | None]:
    if shard.config.group_consumer_migration_policy == "disabled":
        raise KafkaError(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
    protocols: dict[str, bytes] = {}
    for protocol in request.protocols:
        protocols.setdefault(protocol.name, protocol.metadata)
    is_new = not request.member_id
    member_id = request.member_id or uuid_to_string(random_uuid(shard.rng))
    check_room(shard, group, member_id)
    _check_protocols(group, request.protocol_type, protocols)
    if is_new and request.group_instance_id is None and context.api_version >= KNOWN_MEMBER_ID_FROM:
        return Outcome(JoinGroupResponse(error_code=ErrorCode.MEMBER_ID_REQUIRED, member_id=member_id))
    records: list[GroupRecord] = []
    existing = group.static_member(request.group_instance_id)
    old = _member_of(group, request, member_id, records)
    try:
        subscription = read_subscription(next(iter(protocols.values())))
    except MalformedMessage:
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR) from None
    new = _updated(old, context, request, tuple(protocols.items()), subscription)
    change = Change(shard, group, old, new, records)
    update(change)
    written = None
    owned = owned_partitions(subscription, shard.topics)
    if existing is not None and can_downgrade_for(shard, group, existing):
        change.target_epoch = group.assignment_epoch
        change.target = group.target_for(new)
        rebalance = group.assignment_epoch < change.epoch
        if not rebalance:
            move(change, owned)
        more, written = downgrade(shard, group, joining=change.new, rebalance=rebalance)
        change.records += more
    else:
        assign(change)
        move(change, owned)
        timers, timeout_ms = shard.consumer_timers, change.new.rebalance_timeout_ms
        timers.joined(group.group_id, member_id, timeout_ms)
        timers.keep_session(group.group_id, member_id, request.session_timeout_ms)
    response = JoinGroupResponse(
        member_id=member_id,
        generation_id=change.new.member_epoch,
        protocol_type=CONSUMER_PROTOCOL_TYPE,
        protocol_name=next(iter(protocols)),
    )
    return Outcome(response, change.records, written=written)


def _check_protocols(group: ConsumerGroup, protocol_type: str, protocols: dict[str, bytes]) -> None:
    """One strategy that every classic member supports: though nobody will use it, the group may become classic."""
    supported = any(group.classic_protocols.get(name, 0) == group.classic_members for name in protocols)
    if protocol_type != CONSUMER_PROTOCOL_TYPE or not supported:
        raise KafkaError(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)


def _member_of(
    group: ConsumerGroup, request: JoinGroupRequest, member_id: str, records: list[GroupRecord]
) -> ConsumerMember:
    instance_id = request.group_instance_id
    if instance_id is None:
        return group.members.get(member_id) or ConsumerMember(member_id)
    existing = group.static_member(instance_id)
    if request.member_id:
        return check_instance(existing, member_id, instance_id)
    if existing is None:
        return ConsumerMember(member_id)
    return replace_static(group, existing, member_id, records)


def _updated(
    old: ConsumerMember,
    context: GroupContext,
    request: JoinGroupRequest,
    protocols: tuple[tuple[str, bytes], ...],
    subscription: ConsumerProtocolSubscription,
) -> ConsumerMember:
    timeout_ms = request.session_timeout_ms if context.api_version == 0 else request.rebalance_timeout_ms
    return replace(
        old,
        instance_id=old.instance_id if request.group_instance_id is None else request.group_instance_id,
        rack_id=subscription.rack_id or old.rack_id,
        rebalance_timeout_ms=old.rebalance_timeout_ms if timeout_ms == -1 else timeout_ms,
        topic_names=frozenset(subscription.topics),
        topic_regex="",
        client_id=context.client_id,
        client_host=context.client_host,
        classic=ClassicMetadata(request.session_timeout_ms, protocols),
    )


# -- sync and heartbeat ------------------------------------------------------------------------------------------


def sync(
    shard: ShardState, group: ConsumerGroup, request: SyncGroupRequest
) -> Outcome[SyncGroupResponse | None]:
    try:
        return _sync(shard, group, request)
    except KafkaError as error:
        return Outcome(SyncGroupResponse(error_code=error.code))


def _sync(
    shard: ShardState, group: ConsumerGroup, request: SyncGroupRequest
) -> Outcome[SyncGroupResponse | None]:
    member, classic = _classic_member(group, request.member_id, request.group_instance_id)
    if request.generation_id != member.member_epoch:
        raise KafkaError(ErrorCode.ILLEGAL_GENERATION)
    protocol, metadata = classic.protocols[0]
    if request.protocol_type not in (None, CONSUMER_PROTOCOL_TYPE) or request.protocol_name not in (
        None,
        protocol,
    ):
        raise KafkaError(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
    if group.assignment_epoch > member.member_epoch and member.state is not MemberState.UNREVOKED_PARTITIONS:
        shard.consumer_timers.await_join(group.group_id, member.member_id, member.rebalance_timeout_ms)
        raise KafkaError(ErrorCode.REBALANCE_IN_PROGRESS)
    try:
        assignment = write_assignment(without_epochs(member.assigned), shard.topics, metadata)
    except MalformedMessage as error:
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR) from error
    shard.consumer_timers.synced(group.group_id, member.member_id)
    shard.consumer_timers.keep_session(group.group_id, member.member_id, classic.session_timeout_ms)
    return Outcome(
        SyncGroupResponse(
            protocol_type=request.protocol_type, protocol_name=request.protocol_name, assignment=assignment
        )
    )


def heartbeat(
    shard: ShardState, group: ConsumerGroup, request: HeartbeatRequest
) -> Outcome[HeartbeatResponse]:
    """KafkaError for who is no member."""
    member, classic = _classic_member(group, request.member_id, request.group_instance_id)
    if request.generation_id != member.member_epoch:
        raise KafkaError(ErrorCode.ILLEGAL_GENERATION)
    timers, group_id = shard.consumer_timers, group.group_id
    timers.keep_session(group_id, member.member_id, classic.session_timeout_ms)
    if (
        member.member_epoch < group.assignment_epoch
        or member.state is MemberState.UNREVOKED_PARTITIONS
        or (member.state is MemberState.UNRELEASED_PARTITIONS and not _waits(group, member))
    ):
        timers.await_join(group_id, member.member_id, member.rebalance_timeout_ms)
        return Outcome(HeartbeatResponse(error_code=ErrorCode.REBALANCE_IN_PROGRESS))
    return Outcome(HeartbeatResponse())


def _waits(group: ConsumerGroup, member: ConsumerMember) -> bool:
    """Whether something it shall have is still another's."""
    return any(
        number not in member.assigned.get(topic_id, ()) and number in group.owners.get(topic_id, ())
        for topic_id, numbers in group.target_of(member.member_id).items()
        for number in numbers
    )


def _classic_member(
    group: ConsumerGroup, member_id: str, instance_id: str | None
) -> tuple[ConsumerMember, ClassicMetadata]:
    if instance_id is None:
        member = group.member(member_id)
    else:
        member = check_instance(group.static_member(instance_id), member_id, instance_id)
    if member.classic is None:
        text = f"Member {member_id} does not use the classic protocol."
        raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID, text)
    return member, member.classic


# -- leave -------------------------------------------------------------------------------------------------------


def leave(shard: ShardState, group: ConsumerGroup, request: LeaveGroupRequest) -> Outcome[LeaveGroupResponse]:
    """Members of either protocol: an admin removes whom it likes."""
    answers: list[MemberResponse] = []
    leaving: dict[str, ConsumerMember] = {}
    for identity in request.members:
        error = ErrorCode.NONE
        try:
            member = _leaving(group, identity)
            leaving[member.member_id] = member
        except KafkaError as refusal:
            error = refusal.code
        answers.append(MemberResponse(identity.member_id, identity.group_instance_id, error))
    response = LeaveGroupResponse(members=answers)
    return remove_members(shard, group, list(leaving.values()), response, f"{', '.join(leaving)} left")


def _leaving(group: ConsumerGroup, identity: MemberIdentity) -> ConsumerMember:
    if identity.group_instance_id is None:
        return group.member(identity.member_id)
    existing = group.static_member(identity.group_instance_id)
    member_id = identity.member_id or (existing.member_id if existing is not None else "")
    return check_instance(existing, member_id, identity.group_instance_id)
