"""The rebalance of a classic group, from the first reason to the last sync, and the sessions of its members.

    join phase   prepare ──all joined, or rebalance timeout (initial delay for an empty group)──► complete_join
    sync phase   complete_join ──leader's assignments stored (`sync`)──► Stable
                               ──not all synced within the rebalance timeout──► prepare, without the missing

Steps return an Outcome: at most one record, that of a group which has become empty (`replay=False`: the group
itself is changed already). Timers run their step as an operation of their own.
"""

from __future__ import annotations

from functools import partial

from odradek.coordinator.errors import client_error
from odradek.coordinator.group.classic.group import (
    COMPLETING_REBALANCE,
    DEAD,
    EMPTY,
    MAY_COME_FROM,
    PREPARING_REBALANCE,
    STABLE,
    ClassicGroup,
)
from odradek.coordinator.group.classic.member import Member
from odradek.coordinator.group.classic.records import group_record
from odradek.coordinator.group.state import ShardState, nothing
from odradek.coordinator.runtime import Outcome
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.join_group import JoinGroupResponse, JoinGroupResponseMember
from odradek.wire.messages.sync_group import SyncGroupResponse

AWAITED_JOIN_MS = 10
"""A group with no members before waits this long for those that were given an id and are to come back with it, and as
long again when some did, even where group.initial.rebalance.delay.ms is less. Who came at the same moment is then in
one generation; else the first one has only the quickest, and all wait until these hear of the next at their heartbeats.
"""

# -- the join phase ----------------------------------------------------------------------------------------------


def prepare_or_complete(shard: ShardState, group: ClassicGroup, reason: str) -> Outcome[None]:
    """Start a rebalance if none is under way, else see whether this was the last member it waited for."""
    if group.state in MAY_COME_FROM[PREPARING_REBALANCE]:
        return prepare(shard, group, reason)
    return complete_if_all_joined(shard, group)


def prepare(shard: ShardState, group: ClassicGroup, reason: str) -> Outcome[None]:
    """Call all members to join again. An empty group waits a while for its first members instead."""
    if group.state is COMPLETING_REBALANCE:
        reset_assignments(shard, group, ErrorCode.REBALANCE_IN_PROGRESS)
    stop_sync_timer(group)
    group.pending_syncs.clear()
    initial = group.state is EMPTY
    group.transition_to(PREPARING_REBALANCE, shard.wall_ms())
    shard.log.limited_info(
        "group rebalances", group=group.group_id, generation=group.generation, reason=reason
    )
    if initial:
        delay = _initial_delay_ms(shard, group)
        _wait_for_joins(shard, group, delay, max(group.rebalance_timeout_ms - delay, 0))
        return nothing()
    if group.has_all_joined():
        return complete_join(shard, group)
    _set_join_timeout(shard, group)
    return nothing()


def complete_if_all_joined(shard: ShardState, group: ClassicGroup) -> Outcome[None]:
    """End the join phase early; never the initial one, which waits for members nobody has heard of."""
    if group.state is PREPARING_REBALANCE and group.previous_state is not EMPTY and group.has_all_joined():
        return complete_join(shard, group)
    return nothing()


def complete_join(shard: ShardState, group: ClassicGroup) -> Outcome[None]:
    """Start the next generation with those that joined. Static members stay though they did not (KIP-345)."""
    _stop_join_timer(group)
    for member in group.not_rejoined():
        if not member.is_static:
            group.remove(member.member_id)
    if not group.elect_joined_leader() and group.members:
        # Only static members that are away: wait until their sessions end, or one of them is back.
        _set_join_timeout(shard, group)
        return nothing()
    group.start_generation(shard.wall_ms())
    shard.log.limited_info(
        "group complete" if group.members else "group empty",
        group=group.group_id,
        generation=group.generation,
        members=len(group.members),
    )
    if group.state is EMPTY:
        return Outcome(
            None, [group_record(group, {})], replay=False, written=partial(_warn_unwritten, shard, group)
        )
    for member in group.members.values():
        group.finish_join(member, join_response(group, member))
        keep_session(shard, group, member)
        member.is_new = False
        group.pending_syncs[member.member_id] = None
    _set_sync_timeout(shard, group)
    return nothing()


def join_response(group: ClassicGroup, member: Member) -> JoinGroupResponse:
    """The current generation as a member sees it; the leader sees everybody."""
    return JoinGroupResponse(
        generation_id=group.generation,
        protocol_type=group.protocol_type,
        protocol_name=group.protocol,
        leader=group.leader_id or "",
        member_id=member.member_id,
        members=members_for_leader(group) if group.is_leader(member.member_id) else [],
    )


def members_for_leader(group: ClassicGroup) -> list[JoinGroupResponseMember]:
    return [
        JoinGroupResponseMember(member.member_id, member.instance_id, member.metadata_of(group.protocol))
        for member in group.members.values()
    ]


def _initial_delay_ms(shard: ShardState, group: ClassicGroup) -> int:
    configured = shard.config.group_initial_rebalance_delay_ms
    return max(configured, AWAITED_JOIN_MS) if group.pending_joins else configured


def _wait_for_joins(shard: ShardState, group: ClassicGroup, delay_ms: int, remaining_ms: int) -> None:
    """The initial delay: `delay_ms` now, and up to `remaining_ms` more while new members keep coming."""
    _stop_join_timer(group)
    step = partial(_on_initial_delay, group=group, delay_ms=delay_ms, remaining_ms=remaining_ms)
    group.join_timer = shard.after(delay_ms, step)


def _on_initial_delay(
    shard: ShardState, group: ClassicGroup, delay_ms: int, remaining_ms: int
) -> Outcome[None]:
    if shard.groups.get(group.group_id) is not group or group.state is not PREPARING_REBALANCE:
        return nothing()
    if group.new_member_added and remaining_ms != 0:
        group.new_member_added = False
        longest = _initial_delay_ms(shard, group)
        _wait_for_joins(shard, group, min(longest, remaining_ms), max(remaining_ms - delay_ms, 0))
        return nothing()
    return complete_join(shard, group)


def _set_join_timeout(shard: ShardState, group: ClassicGroup) -> None:
    _stop_join_timer(group)
    group.join_timer = shard.after(group.rebalance_timeout_ms, partial(_on_join_timeout, group=group))


def _on_join_timeout(shard: ShardState, group: ClassicGroup) -> Outcome[None]:
    if shard.groups.get(group.group_id) is not group or group.state is not PREPARING_REBALANCE:
        return nothing()
    return complete_join(shard, group)


def _stop_join_timer(group: ClassicGroup) -> None:
    if group.join_timer is not None:
        group.join_timer.cancel()
        group.join_timer = None


def _warn_unwritten(shard: ShardState, group: ClassicGroup, error: ErrorCode) -> None:
    """Harmless: should this broker fail now, the generation before comes back and its members time out."""
    if error is not ErrorCode.NONE:
        shard.log.warning("empty group not written", group=group.group_id, error=client_error(error).name)


# -- the sync phase ----------------------------------------------------------------------------------------------


def _set_sync_timeout(shard: ShardState, group: ClassicGroup) -> None:
    stop_sync_timer(group)
    step = partial(_on_sync_timeout, group=group, generation=group.generation)
    group.sync_timer = shard.after(group.rebalance_timeout_ms, step)


def stop_sync_timer(group: ClassicGroup) -> None:
    if group.sync_timer is not None:
        group.sync_timer.cancel()
        group.sync_timer = None


def _on_sync_timeout(shard: ShardState, group: ClassicGroup, generation: int) -> Outcome[None]:
    if shard.groups.get(group.group_id) is not group or group.generation != generation:
        return nothing()
    if group.state not in (COMPLETING_REBALANCE, STABLE) or not group.pending_syncs:
        return nothing()
    missing = list(group.pending_syncs)
    for member_id in missing:
        group.remove(member_id)
    return prepare(shard, group, f"no sync from {', '.join(missing)} within the rebalance timeout")


def assign(shard: ShardState, group: ClassicGroup, assignments: dict[str, bytes]) -> None:
    """The leader's assignments are stored: everybody may have its own, nothing where the leader gave none."""
    assert group.state is COMPLETING_REBALANCE
    for member in group.members.values():
        member.assignment = assignments.get(member.member_id, b"")
        response = SyncGroupResponse(
            protocol_type=group.protocol_type, protocol_name=group.protocol, assignment=member.assignment
        )
        if group.finish_sync(member, response):
            keep_session(shard, group, member)
    group.transition_to(STABLE, shard.wall_ms())
    shard.metrics.completed_rebalances += 1


def reset_assignments(shard: ShardState, group: ClassicGroup, error: ErrorCode) -> None:
    """The assignments of this generation will not come: tell whoever waits."""
    assert group.state is COMPLETING_REBALANCE
    for member in group.members.values():
        member.assignment = b""
        if group.finish_sync(member, SyncGroupResponse(error_code=error)):
            keep_session(shard, group, member)


# -- sessions ----------------------------------------------------------------------------------------------------


def keep_session(
    shard: ShardState, group: ClassicGroup, member: Member, timeout_ms: int | None = None
) -> None:
    """A sign of life. Only the deadline moves; the timer looks at it when it fires, and waits on if it was early."""
    timeout = member.session_timeout_ms if timeout_ms is None else timeout_ms
    member.session_deadline_ms = shard.now_ms() + timeout
    timer = member.session_timer
    if timer is not None and timer.active:
        if timer.deadline_ms <= member.session_deadline_ms:
            return
        timer.cancel()
    _watch_session(shard, group, member)


def _watch_session(shard: ShardState, group: ClassicGroup, member: Member) -> None:
    def on_timer(now_ms: int) -> None:
        if now_ms < member.session_deadline_ms:
            _watch_session(shard, group, member)
        else:
            shard.submit(partial(_on_session_timeout, group=group, member=member))

    member.session_timer = shard.at(member.session_deadline_ms, on_timer)


def _on_session_timeout(shard: ShardState, group: ClassicGroup, member: Member) -> Outcome[None]:
    if shard.groups.get(group.group_id) is not group or group.members.get(member.member_id) is not member:
        return nothing()
    if member.is_held_by_request():
        return nothing()
    return remove_member(shard, group, member, f"session of {member.member_id} timed out")


def remove_member(shard: ShardState, group: ClassicGroup, member: Member, reason: str) -> Outcome[None]:
    """Take a member out, and rebalance the others. If it waits for its first join, it may try again from scratch."""
    expel(group, member)
    if group.state in (STABLE, COMPLETING_REBALANCE):
        return prepare_or_complete(shard, group, reason)
    if group.state is PREPARING_REBALANCE and group.has_all_joined():
        return complete_join(shard, group)
    return nothing()


def expel(group: ClassicGroup, member: Member) -> None:
    """Take a member out; a join that waits is answered."""
    group.finish_join(member, JoinGroupResponse(error_code=ErrorCode.UNKNOWN_MEMBER_ID))
    group.finish_sync(member, SyncGroupResponse(error_code=ErrorCode.UNKNOWN_MEMBER_ID))
    group.remove(member.member_id)


def await_pending_join(shard: ShardState, group: ClassicGroup, member_id: str, timeout_ms: int) -> None:
    """Remember a member id given out with MEMBER_ID_REQUIRED (KIP-394) for one session timeout."""
    assert member_id not in group.members
    step = partial(_on_pending_timeout, group=group, member_id=member_id)
    group.pending_joins[member_id] = shard.after(timeout_ms, step)


def _on_pending_timeout(shard: ShardState, group: ClassicGroup, member_id: str) -> Outcome[None]:
    if shard.groups.get(group.group_id) is not group or member_id not in group.pending_joins:
        return nothing()
    group.remove(member_id)
    if group.state is PREPARING_REBALANCE and group.has_all_joined():
        return complete_join(shard, group)
    return nothing()


# -- the end and the beginning -----------------------------------------------------------------------------------


def resume(shard: ShardState, group: ClassicGroup) -> None:
    """After loading: its members have one session to be heard of. A group that has become too large rebalances."""
    for member in group.members.values():
        keep_session(shard, group, member)
    if len(group.members) > shard.config.group_max_size:
        prepare(shard, group, "larger than group.max.size")


def abandon(shard: ShardState, group: ClassicGroup, error: ErrorCode) -> None:
    """This coordinator has the group no more: no timer may act on it, and nobody may wait."""
    for timer in group.timers():
        timer.cancel()
    for member in group.members.values():
        group.finish_join(member, JoinGroupResponse(member_id=member.member_id, error_code=error))
        group.finish_sync(member, SyncGroupResponse(error_code=error))
    group.transition_to(DEAD, shard.wall_ms())
