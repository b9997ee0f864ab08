"""Members go: they leave, are given up, or are removed by an admin.

If nobody but members of the classic protocol is left, the group becomes a classic one (`convert`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from odradek.coordinator.group.consumer.convert import can_downgrade, downgrade
from odradek.coordinator.group.consumer.group import ConsumerGroup
from odradek.coordinator.group.consumer.member import ConsumerMember
from odradek.coordinator.group.consumer.records import epoch_record, member_tombstones, regex_tombstone
from odradek.coordinator.group.record import GroupRecord
from odradek.coordinator.group.state import ShardState, nothing
from odradek.coordinator.runtime import Outcome

R = TypeVar("R")


def remove_members(
    shard: ShardState, group: ConsumerGroup, members: Sequence[ConsumerMember], response: R, reason: str
) -> Outcome[R]:
    """Take them out; the epoch rises, and the others share what they had at their next heartbeats."""
    if not members:
        return Outcome(response)
    shard.log.limited_info("members leave a consumer group", group=group.group_id, reason=reason)
    if can_downgrade(shard, group, members):
        records, written = downgrade(shard, group, leaving=members)
        return Outcome(response, records, written=written)
    group_id = group.group_id
    tombstones: list[GroupRecord] = []
    for member in members:
        tombstones += member_tombstones(group_id, member.member_id)
        shard.consumer_timers.forget(group_id, member.member_id)
    after = group.subscriptions_after([(member, None) for member in members])
    gone = {member.topic_regex for member in members if member.topic_regex} - after.regexes.keys()
    tombstones += [regex_tombstone(group_id, regex) for regex in sorted(gone)]
    metadata_hash = shard.topics.hash_of(after.topics())
    return Outcome(response, [*tombstones, epoch_record(group_id, group.epoch + 1, metadata_hash)])


def fence(shard: ShardState, group_id: str, member_id: str, reason: str) -> Outcome[None]:
    """A timer's: nothing happens if the member has gone by itself."""
    group = shard.groups.get(group_id)
    member = group.members.get(member_id) if isinstance(group, ConsumerGroup) else None
    if not isinstance(group, ConsumerGroup) or member is None:
        shard.consumer_timers.forget(group_id, member_id)
        return nothing()
    return remove_members(shard, group, [member], None, f"{member_id} fenced because {reason}")
