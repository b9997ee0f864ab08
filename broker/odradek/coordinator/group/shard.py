"""The life of one partition's groups: what happens when it is loaded, while it is led, and when it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from itertools import islice

from odradek.coordinator.group.admin import on_groups_deleted
from odradek.coordinator.group.classic.group import ClassicGroup
from odradek.coordinator.group.classic.rebalance import abandon, resume
from odradek.coordinator.group.consumer.fence import fence
from odradek.coordinator.group.consumer.group import ConsumerGroup
from odradek.coordinator.group.consumer.loading import resume_consumer_group
from odradek.coordinator.group.offsets import drop_void, expired, tombstones_of_topics
from odradek.coordinator.group.record import GroupRecord
from odradek.coordinator.group.state import ShardState, nothing
from odradek.coordinator.runtime import Outcome
from odradek.ports.timers import Timer
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.group_metadata_key import GroupMetadataKey
from odradek.wire.messages.offset_commit_key import OffsetCommitKey

TOMBSTONES_MAX = 1_000
"""Tombstones written in one batch; more follow when it is committed."""

SWEEP_STAGGER_MS = 100
"""Partitions loaded together are not searched together: each search is a pause of the event loop."""


class GroupShard(ShardState):
    """See the module. The runtime calls everything here."""

    _sweep: Timer | None = None

    def on_loaded(self) -> None:
        for group in self.groups.values():
            if isinstance(group, ConsumerGroup):
                resume_consumer_group(self, group)
            else:
                resume(self, group)
        self._schedule_sweep(self.partition * SWEEP_STAGGER_MS)

    def on_unloaded(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        self.consumer_timers.close()
        for group in self.groups.values():
            if isinstance(group, ClassicGroup):
                abandon(self, group, ErrorCode.NOT_COORDINATOR)

    def fence(self, group_id: str, member_id: str, reason: str) -> None:
        self.submit(partial(fence, group_id=group_id, member_id=member_id, reason=reason))

    def on_topics_deleted(self, names: AbstractSet[str], topic_ids: Mapping[str, bytes]) -> None:
        """Forget what was committed for deleted topics."""
        self.submit(
            partial(_tombstones, source=partial(tombstones_of_topics, names=names, topic_ids=topic_ids))
        )

    def _schedule_sweep(self, more_ms: int = 0) -> None:
        interval_ms = self.config.offsets_retention_check_interval_ms
        self._sweep = self.at(self.now_ms() + interval_ms + more_ms, self._on_sweep)

    def _on_sweep(self, now_ms: int) -> None:
        self._schedule_sweep()
        drop_void(self)
        self.submit(partial(_tombstones, source=expired))


def _tombstones(shard: ShardState, source: Callable[[ShardState], Iterator[GroupRecord]]) -> Outcome[None]:
    """Write the first tombstones of `source`, and come again for the rest when they are committed."""
    records = list(islice(source(shard), TOMBSTONES_MAX))
    if not records:
        return nothing()
    deleted: list[ClassicGroup] = []
    for record in records:
        if isinstance(record.key, GroupMetadataKey):
            group = shard.groups.get(record.key.group)
            assert isinstance(group, ClassicGroup)
            deleted.append(group)

    def written(error: ErrorCode) -> None:
        on_groups_deleted(shard, deleted, error)
        if error is ErrorCode.NONE:
            if source is expired:
                offsets = sum(1 for record in records if isinstance(record.key, OffsetCommitKey))
                shard.metrics.offset_expired += offsets
            if len(records) == TOMBSTONES_MAX:
                # Through the queue of answers: after this step, not inside it.
                shard.answer(shard.submit, partial(_tombstones, source=source))

    return Outcome(None, records, written=written)
