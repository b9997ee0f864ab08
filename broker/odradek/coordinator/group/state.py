"""The groups of one partition of `__consumer_offsets`: what they are made of, and how records become state.

The steps of the protocols are functions over this object, one file each, in `classic/`, `consumer/`, `offsets.py` and
`admin.py`. Durable state is the two kinds of timeline dictionary, and `replay` is what changes it. Live, a
classic group is changed by the steps themselves, as in Kafka: members, timers and waiting requests are not in the
log, and a group's record is written when a generation is complete, so that the next coordinator finds the last one.
`groups` then versions a group's presence, not its inside.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from sys import intern
from typing import Any, Protocol, TypeAlias, TypeVar

from odradek.coordinator.config import GroupConfig
from odradek.coordinator.group.classic.group import EMPTY, ClassicGroup
from odradek.coordinator.group.classic.records import group_from_record
from odradek.coordinator.group.consumer import records as consumer_records
from odradek.coordinator.group.consumer.group import ConsumerGroup
from odradek.coordinator.group.consumer.regex import Lookup
from odradek.coordinator.group.consumer.settings import ConsumerSettings
from odradek.coordinator.group.consumer.timers import ConsumerTimers
from odradek.coordinator.group.consumer.topics import TopicCatalog
from odradek.coordinator.group.decode import decode
from odradek.coordinator.group.offset_codec import read_offset
from odradek.coordinator.group.pending_offsets import PendingOffsets
from odradek.coordinator.group.record import GroupRecord
from odradek.coordinator.runtime import EventLog, Outcome
from odradek.coordinator.timeline import Timeline, TimelineDict
from odradek.ports.clock import Clock
from odradek.ports.timers import Timer, TimerQueue
from odradek.wire.errors import MalformedMessage
from odradek.wire.messages.group_metadata_key import GroupMetadataKey
from odradek.wire.messages.group_metadata_value import GroupMetadataValue
from odradek.wire.messages.offset_commit_key import OffsetCommitKey
from odradek.wire.messages.offset_commit_value import OffsetCommitValue

R = TypeVar("R")
TopicPartition: TypeAlias = tuple[str, int]
Offsets: TypeAlias = TimelineDict[TopicPartition, OffsetCommitValue]
AnyGroup: TypeAlias = ClassicGroup | ConsumerGroup


def nothing() -> Outcome[None]:
    """No records, and answers that were or will be given elsewhere."""
    return Outcome(None)


@dataclass(slots=True)
class GroupMetrics:
    """Counters since the start, named as Kafka's sensors."""

    offset_commits: int = 0
    offset_expired: int = 0
    offset_deletions: int = 0
    completed_rebalances: int = 0


class ShardHost(Protocol):
    """What the coordinator does for every shard."""

    config: GroupConfig
    timers: TimerQueue
    clock: Clock
    rng: Random
    log: EventLog
    metrics: GroupMetrics
    catalog: TopicCatalog
    settings: ConsumerSettings

    def answer(self, done: Callable[[R], None], response: R) -> None:
        """Answer a request once the state machine is at rest."""
        ...

    def submit(self, partition: int, operation: Callable[[Any], Outcome[None]]) -> None:
        """Run an operation that no request asked for: a timer's."""
        ...


class ShardState(ABC):
    """See the module."""

    def __init__(self, partition: int, host: ShardHost) -> None:
        self.partition = partition
        self.config = host.config
        self.rng = host.rng
        self.log = host.log
        self.metrics = host.metrics
        self.timeline = Timeline()
        self.topics = host.catalog
        self.settings = host.settings
        self.consumer_timers = ConsumerTimers(self, self.fence)
        self.lookups: dict[str, Lookup] = {}
        """By group: expressions of members that are being looked up."""
        self.groups: TimelineDict[str, AnyGroup] = TimelineDict(self.timeline)
        self.offsets: dict[str, Offsets] = {}
        """By group id. An entry may be void (everything deleted); the retention sweep drops those."""
        self.pending = PendingOffsets(self.timeline)
        self._host = host

    # -- replay --------------------------------------------------------------------------------------------------

    def load(self, key: bytes, value: bytes | None) -> None:
        """One record of the log. MalformedMessage if it is damaged."""
        found = read_offset(key, value)
        if found is not None:
            group_id, topic, partition, offset = found
            self._put_offset(group_id, (intern(topic), partition), offset)
            return
        record = decode(key, value)
        if record is not None:
            self.replay(record)

    def replay(self, record: GroupRecord) -> None:
        """Apply one record."""
        key, value = record.key, record.value
        if isinstance(key, OffsetCommitKey):
            assert value is None or isinstance(value, OffsetCommitValue)
            self._replay_offset(key, value)
        elif not isinstance(key, GroupMetadataKey):
            self._replay_consumer(record)
        elif value is None:
            self.groups.remove(key.group)
        else:
            assert isinstance(value, GroupMetadataValue)
            self.groups[key.group] = record.live or group_from_record(key.group, value)

    def load_transactional(
        self, producer_id: int, producer_epoch: int, key: bytes, value: bytes | None
    ) -> None:
        """One record of a transaction in the log. MalformedMessage if it is damaged."""
        record = decode(key, value)
        if record is not None:
            self.replay_transactional(producer_id, producer_epoch, record)

    def replay_transactional(self, producer_id: int, producer_epoch: int, record: GroupRecord) -> None:
        """Keep an offset until the marker of its transaction comes."""
        key, value = record.key, record.value
        if isinstance(key, OffsetCommitKey) and isinstance(value, OffsetCommitValue):
            self._need_group(key.group)
            self.pending.add(producer_id, key.group, (intern(key.topic), key.partition), value)

    def replay_marker(self, producer_id: int, producer_epoch: int, commit: bool) -> None:
        """The transaction of a producer is over: its offsets count, or never were."""
        for group_id, where, value in self.pending.end(producer_id, commit):
            self._need_group(group_id)
            self._offsets_of(group_id)[where] = value

    def _replay_consumer(self, record: GroupRecord) -> None:
        """A record of a consumer group. The first one makes it, also where a commit has made a simple group before;
        tombstones of what is not there mean nothing.
        """
        group_id: str = record.key.group_id  # type: ignore[attr-defined]  # all their keys have it
        group = self.groups.get(group_id)
        if not isinstance(group, ConsumerGroup):
            if record.value is None:
                return
            if group is not None and not group.is_simple:
                raise MalformedMessage(f"group {group_id} is classic, and has a record of a consumer group")
            group = self.groups[group_id] = ConsumerGroup(group_id, self.timeline)
        consumer_records.apply(group, record)
        if consumer_records.is_group_tombstone(record):
            self.groups.remove(group_id)

    @abstractmethod
    def fence(self, group_id: str, member_id: str, reason: str) -> None:
        """Give up a member of a consumer group, as an operation of its own."""

    def _replay_offset(self, key: OffsetCommitKey, value: OffsetCommitValue | None) -> None:
        topic_partition = (intern(key.topic), key.partition)
        if value is None:
            offsets = self.offsets.get(key.group)
            if offsets is not None:
                offsets.remove(topic_partition)
            self.pending.deleted(key.group, topic_partition)
            return
        self._put_offset(key.group, topic_partition, value)

    def _put_offset(self, group_id: str, where: TopicPartition, value: OffsetCommitValue) -> None:
        self._need_group(group_id)
        offsets = self.offsets.get(group_id)
        if offsets is None:
            offsets = self._offsets_of(group_id)
        offsets[where] = value
        if len(self.pending):
            self.pending.superseded(group_id, where)

    def _need_group(self, group_id: str) -> None:
        """A commit without a group makes a simple one: of consumers that choose their partitions themselves."""
        if group_id not in self.groups:
            self.groups[group_id] = ClassicGroup(group_id, EMPTY, self.wall_ms())

    def _offsets_of(self, group_id: str) -> Offsets:
        offsets = self.offsets.get(group_id)
        if offsets is None:
            offsets = self.offsets[group_id] = TimelineDict(self.timeline)
        return offsets

    # -- time and answers for the steps --------------------------------------------------------------------------

    def now_ms(self) -> int:
        return self._host.clock.monotonic_ms()

    def wall_ms(self) -> int:
        return self._host.clock.wall_ms()

    def at(self, deadline_ms: int, callback: Callable[[int], None]) -> Timer:
        return self._host.timers.at(deadline_ms, callback)

    def after(self, delay_ms: int, operation: Callable[[ShardState], Outcome[None]]) -> Timer:
        """Run an operation `delay_ms` from now (a negative delay is none)."""
        deadline_ms = self.now_ms() + max(delay_ms, 0)
        return self._host.timers.at(deadline_ms, lambda _: self.submit(operation))

    def submit(self, operation: Callable[[ShardState], Outcome[None]]) -> None:
        self._host.submit(self.partition, operation)

    def answer(self, done: Callable[[R], None], response: R) -> None:
        self._host.answer(done, response)
