"""JoinGroup, versions 0 to 9 (key 11): a member comes, or comes again.

    4+  a dynamic member first gets an id with MEMBER_ID_REQUIRED and joins with it (KIP-394)
    5+  group.instance.id: static members (KIP-345)
    7+  protocol type and name in the response
    8+  the client's reason, for the log
    9+  skip_assignment: a static leader that came back keeps the assignments as they are (KIP-814)

Joins wait until the join phase of the rebalance is over. Nothing is written but a group seen for the first time, and
a static member's new id when its return does not need a rebalance.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from odradek.coordinator.errors import client_error
from odradek.coordinator.group.context import GroupContext
from odradek.coordinator.group.group import (
    COMPLETING_REBALANCE,
    DEAD,
    EMPTY,
    PREPARING_REBALANCE,
    STABLE,
    ClassicGroup,
)
from odradek.coordinator.group.member import Member, Protocols
from odradek.coordinator.group.rebalance import (
    abandon,
    await_pending_join,
    complete_if_all_joined,
    join_response,
    keep_session,
    prepare,
    prepare_or_complete,
)
from odradek.coordinator.group.records import group_record, new_group_record
from odradek.coordinator.group.state import ShardState, nothing
from odradek.coordinator.runtime import Outcome
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.join_group import JoinGroupRequest, JoinGroupResponse
from odradek.wire.primitives import STRING_LENGTH_MAX

NEW_MEMBER_JOIN_TIMEOUT_MS = 300_000
"""A member that joins for the first time cannot heartbeat while it waits; after this its join is given up."""

KNOWN_MEMBER_ID_FROM = 4
SKIP_ASSIGNMENT_FROM = 9

JoinDone = Callable[[JoinGroupResponse], None]


def join_group(
    shard: ShardState, context: GroupContext, request: JoinGroupRequest, done: JoinDone
) -> Outcome[None]:
    """Decide on a join. `done` is called now or when the join phase ends."""
    group = shard.groups.get(request.group_id)
    if group is not None:
        return _join_known_group(shard, group, context, request, done)
    if request.member_id:
        _refuse(shard, done, request.member_id, ErrorCode.UNKNOWN_MEMBER_ID)
        return nothing()
    group = ClassicGroup(request.group_id, EMPTY, shard.wall_ms())
    shard.groups[request.group_id] = group
    outcome = _join_known_group(shard, group, context, request, done)
    assert not outcome.records, "a first join writes nothing by itself"
    written = partial(_on_group_written, shard, group)
    return Outcome(None, [new_group_record(group)], replay=False, written=written)


def _join_known_group(
    shard: ShardState, group: ClassicGroup, context: GroupContext, request: JoinGroupRequest, done: JoinDone
) -> Outcome[None]:
    if not _has_room(group, request.member_id, shard.config.group_max_size):
        group.remove(request.member_id)
        _refuse(shard, done, "", ErrorCode.GROUP_MAX_SIZE_REACHED)
        return nothing()
    protocols = unique_protocols(request)
    if not group.supports(request.protocol_type, protocols):
        _refuse(shard, done, request.member_id, ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
        return nothing()
    if not request.member_id:
        return _join_new(shard, group, context, request, protocols, done)
    return _join_again(shard, group, context, request, protocols, done)


def _has_room(group: ClassicGroup, member_id: str, size_max: int) -> bool:
    """KIP-389. While a group gathers, those that have come count: if it is too large, the last ones stay outside."""
    if group.state in (EMPTY, DEAD):
        return True
    member = group.members.get(member_id)
    if group.state is PREPARING_REBALANCE:
        return (member is not None and member.awaiting_join is not None) or group.awaiting_joins < size_max
    return member is not None or len(group.members) < size_max


def unique_protocols(request: JoinGroupRequest) -> Protocols:
    """The member's protocols in its order; of two with one name the first counts."""
    seen: dict[str, bytes] = {}
    for protocol in request.protocols:
        seen.setdefault(protocol.name, protocol.metadata)
    return list(seen.items())


# -- a member without an id --------------------------------------------------------------------------------------


def _join_new(
    shard: ShardState,
    group: ClassicGroup,
    context: GroupContext,
    request: JoinGroupRequest,
    protocols: Protocols,
    done: JoinDone,
) -> Outcome[None]:
    instance_id = request.group_instance_id
    member_id = f"{context.client_id if instance_id is None else instance_id}-{_uuid4(shard.rng)}"
    if len(member_id.encode()) > STRING_LENGTH_MAX:
        # No response could carry it. Kafka finds out when it writes the response, and closes the connection.
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)
    if instance_id is not None:
        known_as = group.static_members.get(instance_id)
        if known_as is not None:
            return _replace_static(shard, group, context, request, protocols, known_as, member_id, done)
    elif context.api_version >= KNOWN_MEMBER_ID_FROM:
        await_pending_join(shard, group, member_id, request.session_timeout_ms)
        _refuse(shard, done, member_id, ErrorCode.MEMBER_ID_REQUIRED)
        return nothing()
    return _add(shard, group, context, request, protocols, member_id, done)


def _add(
    shard: ShardState,
    group: ClassicGroup,
    context: GroupContext,
    request: JoinGroupRequest,
    protocols: Protocols,
    member_id: str,
    done: JoinDone,
) -> Outcome[None]:
    member = Member(
        member_id,
        request.group_instance_id,
        context.client_id,
        context.client_host,
        _rebalance_timeout_ms(context, request),
        request.session_timeout_ms,
        request.protocol_type,
        protocols,
    )
    member.is_new = True
    if group.state is PREPARING_REBALANCE and group.previous_state is EMPTY:
        group.new_member_added = True
    group.add(member)
    group.park_join(member, partial(shard.answer, done))
    keep_session(shard, group, member, NEW_MEMBER_JOIN_TIMEOUT_MS)
    return prepare_or_complete(shard, group, f"new member {member_id}: {_reason(request)}")


def _on_group_written(shard: ShardState, group: ClassicGroup, error: ErrorCode) -> None:
    """If the first record of a group is refused, the group has never been."""
    if error is not ErrorCode.NONE and shard.groups.get(group.group_id) is not group:
        abandon(shard, group, client_error(error))


# -- a member with an id -----------------------------------------------------------------------------------------


def _join_again(
    shard: ShardState,
    group: ClassicGroup,
    context: GroupContext,
    request: JoinGroupRequest,
    protocols: Protocols,
    done: JoinDone,
) -> Outcome[None]:
    member_id = request.member_id
    if member_id in group.pending_joins:
        if request.group_instance_id is not None:
            # Ids are given out beforehand to dynamic members only; Kafka calls this an illegal state of its own.
            raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)
        return _add(shard, group, context, request, protocols, member_id, done)
    try:
        group.validate_member(member_id, request.group_instance_id)
    except KafkaError as error:
        _refuse(shard, done, member_id, error.code)
        return nothing()
    member = group.members[member_id]
    if _needs_rebalance(group, member, protocols):
        group.update(member, protocols, _rebalance_timeout_ms(context, request), request.session_timeout_ms)
        group.park_join(member, partial(shard.answer, done))
        return prepare_or_complete(shard, group, f"{member_id} joins again: {_reason(request)}")
    # It may have missed the answer to its join: the generation as it is lets it go on to its sync.
    shard.answer(done, join_response(group, member))
    return nothing()


def _needs_rebalance(group: ClassicGroup, member: Member, protocols: Protocols) -> bool:
    """A leader that joins a stable group has seen a change that members cannot see; anybody's new metadata is one."""
    if group.state is PREPARING_REBALANCE:
        return True
    assert group.state in (COMPLETING_REBALANCE, STABLE), "a group with members"
    if group.state is STABLE and group.is_leader(member.member_id):
        return True
    return list(member.protocols) != list(protocols)


# -- a static member that lost its id ----------------------------------------------------------------------------


def _replace_static(
    shard: ShardState,
    group: ClassicGroup,
    context: GroupContext,
    request: JoinGroupRequest,
    protocols: Protocols,
    old_id: str,
    new_id: str,
    done: JoinDone,
) -> Outcome[None]:
    """A restarted static member takes its old place; a stable group need not notice."""
    instance_id = request.group_instance_id
    assert instance_id is not None
    leader_before = group.leader_id
    member = group.replace_static(instance_id, old_id, new_id)
    before = (member.protocols, member.rebalance_timeout_ms, member.session_timeout_ms)
    keep_session(shard, group, member)
    group.update(member, protocols, _rebalance_timeout_ms(context, request), request.session_timeout_ms)
    group.park_join(member, partial(shard.answer, done))
    reason = f"static member {instance_id} is back as {new_id}: {_reason(request)}"
    if group.state is COMPLETING_REBALANCE:
        # The leader may be assigning to the old id at this moment.
        return prepare(shard, group, reason)
    if group.state is not STABLE:
        return complete_if_all_joined(shard, group)
    if group.select_protocol() != group.protocol:
        return prepare_or_complete(shard, group, reason)

    def written(error: ErrorCode) -> None:
        if group.members.get(new_id) is not member:
            return
        if error is not ErrorCode.NONE:
            _undo_replacement(shard, group, member, old_id, before, client_error(error))
        elif group.state is STABLE:
            group.finish_join(member, _static_response(group, member, context.api_version, leader_before))
        # Else a rebalance began meanwhile, and the waiting join is already part of it.

    assignments = {member.member_id: member.assignment for member in group.members.values()}
    return Outcome(None, [group_record(group, assignments)], replay=False, written=written)


def _static_response(
    group: ClassicGroup, member: Member, version: int, leader_before: str | None
) -> JoinGroupResponse:
    """Before version 9 a returning leader must not take itself for one, or it would assign anew: it is told its old
    id as the leader's."""
    response = join_response(group, member)
    if version >= SKIP_ASSIGNMENT_FROM:
        response.skip_assignment = group.is_leader(member.member_id)
        return response
    response.leader = leader_before or ""
    response.members = []
    return response


def _undo_replacement(
    shard: ShardState,
    group: ClassicGroup,
    member: Member,
    old_id: str,
    before: tuple[Protocols, int, int],
    error: ErrorCode,
) -> None:
    """The new id is not stored: the old one is the member again."""
    done = group.take_back_join(member)
    group.update(member, *before)
    assert member.instance_id is not None
    restored = group.replace_static(member.instance_id, member.member_id, old_id)
    keep_session(shard, group, restored)
    if done is not None:
        done(
            JoinGroupResponse(
                error_code=error,
                generation_id=group.generation,
                protocol_type=group.protocol_type,
                protocol_name=group.protocol,
                leader=group.leader_id or "",
            )
        )


# -- small things ------------------------------------------------------------------------------------------------


def _refuse(shard: ShardState, done: JoinDone, member_id: str, error: ErrorCode) -> None:
    shard.answer(done, JoinGroupResponse(member_id=member_id, error_code=error))


def _rebalance_timeout_ms(context: GroupContext, request: JoinGroupRequest) -> int:
    """Version 0 has none: the session timeout serves."""
    return request.session_timeout_ms if context.api_version == 0 else request.rebalance_timeout_ms


def _reason(request: JoinGroupRequest) -> str:
    return request.reason or "not provided"


def _uuid4(rng: Random) -> str:
    """A random UUID in its usual form, as Java's UUID.randomUUID() prints it."""
    number = rng.getrandbits(128) & ~(0xF << 76) & ~(0x3 << 62) | 4 << 76 | 2 << 62
    text = f"{number:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
