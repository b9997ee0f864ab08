"""LeaveGroup, versions 0 to 5 (key 13): members go, or an admin removes static ones by their instance id.

3+  several members at once, each with its own error (KIP-345)
5+  a reason for the log (KIP-800)
"""

from __future__ import annotations

from odradek.coordinator.group.classic.group import (
    COMPLETING_REBALANCE,
    PREPARING_REBALANCE,
    STABLE,
    ClassicGroup,
)
from odradek.coordinator.group.classic.rebalance import complete_if_all_joined, expel, prepare_or_complete
from odradek.coordinator.group.consumer import classic_members
from odradek.coordinator.group.consumer.group import ConsumerGroup
from odradek.coordinator.group.state import ShardState, nothing
from odradek.coordinator.runtime import Outcome
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.leave_group import (
    LeaveGroupRequest,
    LeaveGroupResponse,
    MemberIdentity,
    MemberResponse,
)


def leave_group(shard: ShardState, request: LeaveGroupRequest) -> Outcome[LeaveGroupResponse]:
    """Take the members of a request in the form of version 3 out of their group, and rebalance once."""
    group = shard.groups.get(request.group_id)
    if isinstance(group, ConsumerGroup):
        return classic_members.leave(shard, group, request)
    answers = [_remove(group, member) for member in request.members]
    response = LeaveGroupResponse(members=answers)
    gone = [answer.member_id for answer in answers if answer.error_code == ErrorCode.NONE]
    if group is None or not gone:
        return Outcome(response)
    reason = f"{', '.join(gone)} left"
    if group.state in (STABLE, COMPLETING_REBALANCE):
        outcome = prepare_or_complete(shard, group, reason)
    elif group.state is PREPARING_REBALANCE:
        outcome = complete_if_all_joined(shard, group)
    else:
        outcome = nothing()
    return Outcome(response, outcome.records, outcome.replay, outcome.written)


def _remove(group: ClassicGroup | None, member: MemberIdentity) -> MemberResponse:
    try:
        if group is None:
            raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID)
        _leave(group, member.member_id, member.group_instance_id)
        error = ErrorCode.NONE
    except KafkaError as refusal:
        error = refusal.code
    return MemberResponse(member.member_id, member.group_instance_id, error)


def _leave(group: ClassicGroup, member_id: str, instance_id: str | None) -> None:
    if not member_id:
        known_as = None if instance_id is None else group.static_members.get(instance_id)
        if known_as is None:
            raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID)
        member_id = known_as
    elif member_id in group.pending_joins:
        group.remove(member_id)
        return
    else:
        group.validate_member(member_id, instance_id)
    expel(group, group.members[member_id])
