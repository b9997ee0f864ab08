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
from dataclasses import dataclass
from functools import partial
from random import Random

from odradek.coordinator.errors import client_error
from odradek.coordinator.group.classic.group import (
    COMPLETING_REBALANCE,
    DEAD,
    EMPTY,
    PREPARING_REBALANCE,
    STABLE,
    ClassicGroup,
)
from odradek.coordinator.group.classic.member import Member, Protocols
from odradek.coordinator.group.classic.rebalance import (
    abandon,
    await_pending_join,
    complete_if_all_joined,
    join_response,
    keep_session,
    prepare,
    prepare_or_complete,
)
from odradek.coordinator.group.classic.records import group_record, new_group_record
from odradek.coordinator.group.consumer import classic_members
from odradek.coordinator.group.consumer.group import ConsumerGroup
from odradek.coordinator.group.context import GroupContext
from odradek.coordinator.group.offsets import tombstones_of
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


@dataclass(frozen=True, slots=True)
class _Joiner:
    """One join request: who comes, with what, and whom to answer."""

    context: GroupContext
    request: JoinGroupRequest
    protocols: Protocols
    """In the member's order; of two with one name the first counts."""
    done: JoinDone

    @property
    def rebalance_timeout_ms(self) -> int:
        """Version 0 has none: the session timeout serves."""
        request = self.request
        return request.session_timeout_ms if self.context.api_version == 0 else request.rebalance_timeout_ms

    @property
    def reason(self) -> str:
        """What the client gave as its reason (KIP-800), to follow a sentence."""
        return f": {self.request.reason}" if self.request.reason else ""


def join_group(
    shard: ShardState, context: GroupContext, request: JoinGroupRequest, done: JoinDone
) -> Outcome[JoinGroupResponse | None]:
    """Decide on a join. `done` is called now or when the join phase ends; or, for a consumer group with members, there
    is a response, for when what was decided is written.
    """
    group = shard.groups.get(request.group_id)
    if isinstance(group, ConsumerGroup) and not group.is_empty:
        return classic_members.join(shard, group, context, request)
    outcome = _join_classic(shard, context, request, done)
    return Outcome(None, outcome.records, outcome.replay, outcome.written)


def _join_classic(
    shard: ShardState, context: GroupContext, request: JoinGroupRequest, done: JoinDone
) -> Outcome[None]:
    protocols: dict[str, bytes] = {}
    for protocol in request.protocols:
        protocols.setdefault(protocol.name, protocol.metadata)
    joiner = _Joiner(context, request, list(protocols.items()), partial(shard.answer, done))
    known = shard.groups.get(request.group_id)
    if isinstance(known, ClassicGroup):
        return _join_known_group(shard, known, joiner)
    if request.member_id:
        return _refuse(joiner, ErrorCode.UNKNOWN_MEMBER_ID, request.member_id)
    # Also a consumer group without members: it becomes a classic one.
    former = [] if known is None else tombstones_of(known)
    group = ClassicGroup(request.group_id, EMPTY, shard.wall_ms())
    shard.groups[request.group_id] = group
    outcome = _join_known_group(shard, group, joiner)
    assert not outcome.records, "a first join writes nothing by itself"
    written = partial(_on_group_written, shard, group)
    return Outcome(None, [*former, new_group_record(group)], replay=False, written=written)


def _join_known_group(shard: ShardState, group: ClassicGroup, joiner: _Joiner) -> Outcome[None]:
    member_id = joiner.request.member_id
    if not _has_room(group, member_id, shard.config.group_max_size):
        group.remove(member_id)
        return _refuse(joiner, ErrorCode.GROUP_MAX_SIZE_REACHED)
    if not group.supports(joiner.request.protocol_type, joiner.protocols):
        return _refuse(joiner, ErrorCode.INCONSISTENT_GROUP_PROTOCOL, member_id)
    if not member_id:
        return _join_new(shard, group, joiner)
    if member_id not in group.pending_joins:
        return _join_again(shard, group, joiner)
    if joiner.request.group_instance_id is not None:
        # Ids are given out beforehand to dynamic members only; Kafka calls this an illegal state of its own.
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)
    return _add(shard, group, joiner, member_id)


def _refuse(joiner: _Joiner, error: ErrorCode, member_id: str = "") -> Outcome[None]:
    joiner.done(JoinGroupResponse(error_code=error, member_id=member_id))
    return nothing()


def _has_room(group: ClassicGroup, member_id: str, size_max: int) -> bool:
    """KIP-389. While a group gathers, those that have come count: if it is too large, the last ones stay outside."""
    if group.state in (EMPTY, DEAD):
        return True
    member = group.members.get(member_id)
    if group.state is PREPARING_REBALANCE:
        return (member is not None and member.awaiting_join is not None) or group.awaiting_joins < size_max
    return member is not None or len(group.members) < size_max


# -- a new member ------------------------------------------------------------------------------------------------


def _join_new(shard: ShardState, group: ClassicGroup, joiner: _Joiner) -> Outcome[None]:
    """It has no id: a static member may be known by its instance id, a dynamic one gets an id to come back with."""
    context, request = joiner.context, joiner.request
    instance_id = request.group_instance_id
    member_id = f"{context.client_id if instance_id is None else instance_id}-{_uuid4(shard.rng)}"
    if len(member_id.encode()) > STRING_LENGTH_MAX:
        # No response could carry it. Kafka finds out when it writes the response, and closes the connection.
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)
    if instance_id is not None:
        known_as = group.static_members.get(instance_id)
        if known_as is not None:
            return _replace_static(shard, group, joiner, known_as, member_id)
    elif context.api_version >= KNOWN_MEMBER_ID_FROM:
        await_pending_join(shard, group, member_id, request.session_timeout_ms)
        return _refuse(joiner, ErrorCode.MEMBER_ID_REQUIRED, member_id)
    return _add(shard, group, joiner, member_id)


def _add(shard: ShardState, group: ClassicGroup, joiner: _Joiner, member_id: str) -> Outcome[None]:
    request = joiner.request
    member = Member(
        member_id,
        request.group_instance_id,
        joiner.context.client_id,
        joiner.context.client_host,
        joiner.rebalance_timeout_ms,
        request.session_timeout_ms,
        request.protocol_type,
        joiner.protocols,
    )
    member.is_new = True
    if group.state is PREPARING_REBALANCE and group.previous_state is EMPTY:
        group.new_member_added = True
    group.add(member)
    group.park_join(member, joiner.done)
    keep_session(shard, group, member, NEW_MEMBER_JOIN_TIMEOUT_MS)
    return prepare_or_complete(shard, group, f"new member {member_id}{joiner.reason}")


def _on_group_written(shard: ShardState, group: ClassicGroup, error: ErrorCode) -> None:
    """If the first record of a group is refused, the group has never been."""
    if error is not ErrorCode.NONE and shard.groups.get(group.group_id) is not group:
        abandon(shard, group, client_error(error))


# -- a member with an id -----------------------------------------------------------------------------------------


def _join_again(shard: ShardState, group: ClassicGroup, joiner: _Joiner) -> Outcome[None]:
    request = joiner.request
    try:
        group.validate_member(request.member_id, request.group_instance_id)
    except KafkaError as error:
        return _refuse(joiner, error.code, request.member_id)
    member = group.members[request.member_id]
    if _needs_rebalance(group, member, joiner.protocols):
        group.update(member, joiner.protocols, joiner.rebalance_timeout_ms, request.session_timeout_ms)
        group.park_join(member, joiner.done)
        return prepare_or_complete(shard, group, f"{member.member_id} joins again{joiner.reason}")
    # It may have missed the answer to its join: the generation as it is lets it go on to its sync.
    joiner.done(join_response(group, member))
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
    shard: ShardState, group: ClassicGroup, joiner: _Joiner, old_id: str, new_id: str
) -> Outcome[None]:
    """A restarted static member takes its old place; a stable group need not notice."""
    request = joiner.request
    assert request.group_instance_id is not None
    leader_before = group.leader_id
    member = group.replace_static(request.group_instance_id, old_id, new_id)
    before = (member.protocols, member.rebalance_timeout_ms, member.session_timeout_ms)
    keep_session(shard, group, member)
    group.update(member, joiner.protocols, joiner.rebalance_timeout_ms, request.session_timeout_ms)
    group.park_join(member, joiner.done)
    reason = f"static member {request.group_instance_id} is back as {new_id}{joiner.reason}"
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
            response = _static_response(group, member, joiner.context.api_version, leader_before)
            group.finish_join(member, response)
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


def _uuid4(rng: Random) -> str:
    """A random UUID in its usual form, as Java's UUID.randomUUID() prints it."""
    number = rng.getrandbits(128) & ~(0xF << 76) & ~(0x3 << 62) | 4 << 76 | 2 << 62
    text = f"{number:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
