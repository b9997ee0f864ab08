"""What a member that comes, comes again or says something new does to its group: epochs, hashes, target assignments.

The steps of a heartbeat and of a classic member's join, in their order:

    1  the member's record, if anything it says is new
    2  the group epoch rises if its subscription is, or if the topics of the group have changed
    3  a target assignment for that epoch, if the last one is old enough (group.consumer.assignment.interval.ms)
    4  the member moves towards its target (`reconcile`)
"""

from __future__ import annotations

from dataclasses import dataclass, field

from odradek.coordinator.group.consumer.assignors import ASSIGNORS, MemberSpec
from odradek.coordinator.group.consumer.group import ConsumerGroup
from odradek.coordinator.group.consumer.member import ConsumerMember, MemberState, Partitions
from odradek.coordinator.group.consumer.reconcile import Goal, OwnedPartitions, reconcile
from odradek.coordinator.group.consumer.records import (
    current_record,
    epoch_record,
    legacy_tombstone,
    member_record,
    regex_tombstone,
    target_epoch_record,
    target_record,
)
from odradek.coordinator.group.consumer.regex import compiled, needs_refresh
from odradek.coordinator.group.record import GroupRecord
from odradek.coordinator.group.state import ShardState


@dataclass(slots=True)
class Change:
    """A decision in the making."""

    shard: ShardState
    group: ConsumerGroup
    old: ConsumerMember
    """The member as it was, or a blank one."""
    new: ConsumerMember
    records: list[GroupRecord] = field(default_factory=list)
    epoch: int = 0
    """The group's, as it will be."""
    target_epoch: int = -1
    target: Partitions = field(default_factory=dict)
    subscription_changed: bool = False
    refresh_regexes: bool = False
    """The group's expressions are to be looked up after this."""


def update(change: Change) -> None:
    """Steps 1 and 2."""
    group, old, new = change.group, change.old, change.new
    names_changed = False
    if new is not old and new != old:
        change.records.append(member_record(group.group_id, new))
        names_changed = new.topic_names != old.topic_names
    regex_changed, bump = _update_regex(change)
    bump |= names_changed
    change.subscription_changed = names_changed or regex_changed
    change.epoch = group.epoch
    topics = change.shard.topics
    seen, at_epoch = group.topics_seen
    if not bump and seen == topics.version and group.epoch >= at_epoch:
        return
    known = group.members.get(new.member_id) or group.static_member(new.instance_id)
    subscriptions = group.subscriptions_after([(known, new)])
    metadata_hash = topics.hash_of(subscriptions.topics())
    if bump or metadata_hash != group.metadata_hash:
        change.epoch += 1
        change.records.append(epoch_record(group.group_id, change.epoch, metadata_hash))
    # By the epoch a later look finds out that this one was taken back.
    group.topics_seen = topics.version, change.epoch
    if group.has_legacy_record:
        change.records.append(legacy_tombstone(group.group_id))


def _update_regex(change: Change) -> tuple[bool, bool]:
    """Whether the member's expression is another one, and whether what it means is known already."""
    group, old, new = change.group, change.old.topic_regex, change.new.topic_regex
    changed = old != new
    resolved = False
    asked = False
    if changed:
        if old and group.regex_counts.get(old) == 1:
            change.records.append(regex_tombstone(group.group_id, old))
        if new and new not in group.regex_counts:
            compiled(new)
            asked = True
        else:
            resolved = not new or new in group.regexes
    if (asked or group.regex_counts) and group.group_id not in change.shard.lookups:
        regexes = group.regex_counts
        if changed:
            regexes = group.subscriptions_after([(change.old, change.new)]).regexes
        interval_ms = change.shard.config.group_consumer_regex_refresh_interval_ms
        change.refresh_regexes = needs_refresh(
            group, regexes, change.shard.topics, change.shard.wall_ms(), interval_ms
        )
    return changed, resolved and changed


def assign(change: Change) -> None:
    """Step 3. Without a new target the last one holds."""
    shard, group, new = change.shard, change.group, change.new
    change.target_epoch = group.assignment_epoch
    change.target = group.target_for(new)
    now_ms, made_ms = shard.wall_ms(), group.assignment_timestamp_ms
    if group.assignment_epoch >= change.epoch:
        return
    interval_ms = shard.settings.assignment_interval_ms(group.group_id)
    # A clock that was set back must not hold the group up for longer than the interval.
    if made_ms and interval_ms and made_ms <= now_ms < made_ms + interval_ms:
        return
    targets = _targets(change)
    for member_id, partitions in targets.items():
        if partitions != group.targets.get(member_id):
            change.records.append(target_record(group.group_id, member_id, partitions))
    change.records.append(target_epoch_record(group.group_id, change.epoch, now_ms))
    change.target_epoch = change.epoch
    change.target = targets[new.member_id]


def _targets(change: Change) -> dict[str, Partitions]:
    shard, group, new = change.shard, change.group, change.new
    topics = shard.topics
    ids_of: dict[frozenset[str], frozenset[bytes]] = {}
    members: dict[str, MemberSpec] = {}
    replaced = group.static_member(new.instance_id)
    present = {member_id: member for member_id, member in group.members.items() if member is not replaced}
    present[new.member_id] = new
    for member_id, member in present.items():
        names = group.subscriptions_of(member)
        ids = ids_of.get(names)
        if ids is None:
            ids = ids_of[names] = topics.ids_of(names)
        assigned = change.target if member is new else group.target_of(member_id)
        members[member_id] = MemberSpec(member.instance_id, ids, assigned)
    counts = {each: topics.partitions_of(each) for ids in ids_of.values() for each in ids}
    known = group.members.get(new.member_id) or replaced
    homogeneous = group.subscriptions_after([(known, new)]).is_homogeneous(len(members))
    name = group.preferred_assignor(known, new, shard.config.group_consumer_assignors[0])
    assignor = ASSIGNORS.get(name) or ASSIGNORS[shard.config.group_consumer_assignors[0]]
    return assignor(members, counts, homogeneous and len(ids_of) == 1)


def move(change: Change, owned: OwnedPartitions | None) -> None:
    """Step 4; and the time that a member has to give partitions up runs, or is over."""
    shard, group, member = change.shard, change.group, change.new
    if not change.subscription_changed and member.is_reconciled_to(change.target_epoch):
        return
    names = group.subscriptions_of(member)
    goal = Goal(
        change.target_epoch,
        change.target,
        shard.topics.ids_of(names),
        change.subscription_changed,
        owned,
    )
    moved = reconcile(group, member, goal)
    if moved != member:
        change.records.append(current_record(group.group_id, moved))
    change.new = moved
    if moved.classic is not None:
        return
    if moved.state is MemberState.UNREVOKED_PARTITIONS:
        shard.consumer_timers.await_revocation(
            group.group_id, moved.member_id, moved.rebalance_timeout_ms, again=moved != member
        )
    else:
        shard.consumer_timers.revoked(group.group_id, moved.member_id)
