"""A consumer group after its partition was loaded."""

from __future__ import annotations

from odradek.coordinator.group.consumer.group import ConsumerGroup
from odradek.coordinator.group.consumer.member import MemberState
from odradek.coordinator.group.state import ShardState


def resume_consumer_group(shard: ShardState, group: ConsumerGroup) -> None:
    """Every member has a whole session to be heard of, and its time to give partitions up begins anew."""
    timers, group_id = shard.consumer_timers, group.group_id
    for member_id, member in group.members.items():
        timers.keep_session(group_id, member_id, shard.settings.session_timeout_ms(group_id))
        if member.state is MemberState.UNREVOKED_PARTITIONS and member.classic is None:
            timers.await_revocation(group_id, member_id, member.rebalance_timeout_ms, again=False)
