"""SyncGroup, versions 0 to 5 (key 14), and Heartbeat, versions 0 to 4 (key 12).

The leader's sync brings the assignments. They are written with the generation, and when they are committed the
group is Stable and every waiting sync is answered. From version 5 on a sync names the protocol it believes in.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from odradek.coordinator.errors import client_error
from odradek.coordinator.group.classic.group import (
    COMPLETING_REBALANCE,
    EMPTY,
    PREPARING_REBALANCE,
    STABLE,
    ClassicGroup,
)
from odradek.coordinator.group.classic.rebalance import (
    assign,
    keep_session,
    prepare_or_complete,
    reset_assignments,
    stop_sync_timer,
)
from odradek.coordinator.group.classic.records import group_record
from odradek.coordinator.group.consumer import classic_members
from odradek.coordinator.group.consumer.group import ConsumerGroup
from odradek.coordinator.group.state import ShardState, nothing
from odradek.coordinator.runtime import Outcome
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from odradek.wire.messages.sync_group import SyncGroupRequest, SyncGroupResponse

SyncDone = Callable[[SyncGroupResponse], None]


def sync_group(
    shard: ShardState, request: SyncGroupRequest, done: SyncDone
) -> Outcome[SyncGroupResponse | None]:
    """Decide on a sync. `done` is called now or when the leader's assignments are stored; or, for a consumer group,
    there is a response.
    """
    group = shard.groups.get(request.group_id)
    if isinstance(group, ConsumerGroup):
        return classic_members.sync(shard, group, request)
    outcome = _sync_classic(shard, group, request, done)
    return Outcome(None, outcome.records, outcome.replay, outcome.written)


def _sync_classic(
    shard: ShardState, group: ClassicGroup | None, request: SyncGroupRequest, done: SyncDone
) -> Outcome[None]:
    try:
        if group is None or group.state is EMPTY:
            raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID)
        _validate(group, request)
    except KafkaError as error:
        shard.answer(done, SyncGroupResponse(error_code=error.code))
        return nothing()
    member = group.members[request.member_id]
    if group.state is PREPARING_REBALANCE:
        shard.answer(done, SyncGroupResponse(error_code=ErrorCode.REBALANCE_IN_PROGRESS))
        return nothing()
    group.pending_syncs.pop(member.member_id, None)
    if not group.pending_syncs:
        stop_sync_timer(group)
    if group.state is STABLE:
        response = SyncGroupResponse(
            protocol_type=group.protocol_type, protocol_name=group.protocol, assignment=member.assignment
        )
        shard.answer(done, response)
        return nothing()
    assert group.state is COMPLETING_REBALANCE
    group.park_sync(member, partial(shard.answer, done))
    if not group.is_leader(member.member_id):
        return nothing()
    return _store(shard, group, {entry.member_id: entry.assignment for entry in request.assignments})


def _validate(group: ClassicGroup, request: SyncGroupRequest) -> None:
    group.validate_member(request.member_id, request.group_instance_id)
    if request.generation_id != group.generation:
        raise KafkaError(ErrorCode.ILLEGAL_GENERATION)
    if _differs(request.protocol_type, group.protocol_type) or _differs(
        request.protocol_name, group.protocol
    ):
        raise KafkaError(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)


def _differs(requested: str | None, actual: str | None) -> bool:
    """Older versions do not say, which is no contradiction."""
    return requested is not None and actual is not None and requested != actual


def _store(shard: ShardState, group: ClassicGroup, assignments: dict[str, bytes]) -> Outcome[None]:
    generation = group.generation

    def written(error: ErrorCode) -> None:
        if group.state is not COMPLETING_REBALANCE or group.generation != generation:
            return  # another rebalance began meanwhile
        if error is ErrorCode.NONE:
            assign(shard, group, assignments)
            return
        reset_assignments(shard, group, client_error(error))
        outcome = prepare_or_complete(shard, group, f"assignments not stored: {error.name}")
        assert not outcome.records, "a group with members, none of which has joined again"

    return Outcome(None, [group_record(group, assignments)], replay=False, written=written)


def heartbeat(shard: ShardState, request: HeartbeatRequest) -> Outcome[HeartbeatResponse]:
    """A sign of life; the answer tells of a rebalance under way. KafkaError for who is no member."""
    group = shard.groups.get(request.group_id)
    if group is None:
        raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID)
    if isinstance(group, ConsumerGroup):
        return classic_members.heartbeat(shard, group, request)
    group.validate_member(request.member_id, request.group_instance_id)
    if request.generation_id != group.generation:
        raise KafkaError(ErrorCode.ILLEGAL_GENERATION)
    keep_session(shard, group, group.members[request.member_id])
    rebalancing = group.state is PREPARING_REBALANCE
    return Outcome(
        HeartbeatResponse(error_code=ErrorCode.REBALANCE_IN_PROGRESS if rebalancing else ErrorCode.NONE)
    )
