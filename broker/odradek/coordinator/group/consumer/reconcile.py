"""One step of a member from what it has towards its target: never a partition that somebody else may still consume.

what has to go    told to the member; it stays at its epoch (UNREVOKED_PARTITIONS) until it no longer reports it
what is to come   given at the epoch of the target as soon as nobody else has it (UNRELEASED_PARTITIONS until then)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from odradek.coordinator.group.consumer.group import ConsumerGroup
from odradek.coordinator.group.consumer.member import (
    NO_PARTITIONS,
    ConsumerMember,
    MemberState,
    PartitionEpochs,
    Partitions,
)
from odradek.wire.errors import ErrorCode, KafkaError

OwnedPartitions = Sequence[tuple[bytes, Sequence[int]]]
"""What a member says it has, by topic id."""


@dataclass(frozen=True, slots=True)
class Goal:
    """Where the member is to come, and what it says of itself."""

    epoch: int
    target: Partitions
    topics: frozenset[bytes]
    """What it subscribes to now: it gets nothing else, whatever the target says."""
    subscription_changed: bool
    owned: OwnedPartitions | None
    """None if it did not say."""


def reconcile(group: ConsumerGroup, member: ConsumerMember, goal: Goal) -> ConsumerMember:
    """The member after the step; the same object if nothing is to do. KafkaError FENCED_MEMBER_EPOCH."""
    if member.is_reconciled_to(goal.epoch) and not goal.subscription_changed:
        return member
    match member.state:
        case MemberState.STABLE:
            if member.member_epoch != goal.epoch:
                return _next(group, member, goal, member.member_epoch)
            return _drop_unsubscribed(member, goal)
        case MemberState.UNREVOKED_PARTITIONS:
            if _owns(member.pending_revocation, goal):
                return _drop_unsubscribed(member, goal) if goal.subscription_changed else member
            return _next(group, member, goal, member.member_epoch)
        case MemberState.UNRELEASED_PARTITIONS:
            return _next(group, member, goal, member.member_epoch)
        case _:
            if goal.owned is None or goal.owned:
                text = (
                    "The consumer group member is in a unknown state. "
                    "The member must abandon all its partitions and rejoin."
                )
                raise KafkaError(ErrorCode.FENCED_MEMBER_EPOCH, text)
            return _next(group, member, goal, goal.epoch)


def _owns(partitions: PartitionEpochs, goal: Goal) -> bool:
    """Whether the member may still have any of these: it does if it does not say."""
    if goal.owned is None:
        return True
    return any(
        number in partitions.get(topic_id, NO_PARTITIONS)
        for topic_id, numbers in goal.owned
        for number in numbers
    )


def _drop_unsubscribed(member: ConsumerMember, goal: Goal) -> ConsumerMember:
    """Of the target only what it still wants: the next target comes later, its wishes count now."""
    assigned = {topic_id: epochs for topic_id, epochs in member.assigned.items() if topic_id in goal.topics}
    if len(assigned) == len(member.assigned):
        return member
    pending = {topic_id: dict(epochs) for topic_id, epochs in member.pending_revocation.items()}
    for topic_id, epochs in member.assigned.items():
        if topic_id not in assigned:
            pending[topic_id] = pending.get(topic_id, {}) | dict(epochs)
    unchanged = member.at_epoch(member.member_epoch)
    if _owns(pending, goal):
        return replace(
            unchanged, state=MemberState.UNREVOKED_PARTITIONS, assigned=assigned, pending_revocation=pending
        )
    return replace(unchanged, assigned=assigned)


def _next(group: ConsumerGroup, member: ConsumerMember, goal: Goal, epoch: int) -> ConsumerMember:
    stays: dict[bytes, dict[int, int]] = {}
    goes: dict[bytes, dict[int, int]] = {}
    comes: dict[bytes, list[int]] = {}
    unreleased = False
    for topic_id in dict.fromkeys((*member.assigned, *goal.target)):
        target = goal.target.get(topic_id, frozenset()) if topic_id in goal.topics else frozenset()
        present = member.assigned.get(topic_id, {})
        for number, since in present.items():
            (stays if number in target else goes).setdefault(topic_id, {})[number] = since
        for number in sorted(target):
            if number in present:
                continue
            if group.is_owned_by_others(member, topic_id, number):
                unreleased = True
            else:
                comes.setdefault(topic_id, []).append(number)
    if goes and _owns(goes, goal):
        return replace(
            member.at_epoch(epoch),
            state=MemberState.UNREVOKED_PARTITIONS,
            assigned=stays,
            pending_revocation=goes,
        )
    for topic_id, numbers in comes.items():
        stays.setdefault(topic_id, {}).update(dict.fromkeys(numbers, goal.epoch))
    return replace(
        member.at_epoch(goal.epoch),
        state=MemberState.UNRELEASED_PARTITIONS if unreleased else MemberState.STABLE,
        assigned=stays,
        pending_revocation=NO_PARTITIONS,
    )
