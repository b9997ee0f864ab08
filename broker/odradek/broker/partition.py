"""One partition as its leader serves it: log, leader epoch, high watermark, and who waits for it.

The replication rules proper (ISR, followers) are the business of the replication component; a partition whose only
replica is this node has a high watermark that follows its own log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from odradek.wire.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    from odradek.broker.metrics import TopicMetrics
    from odradek.storage.log import AppendResult, Log


class DirtySet:
    """The partitions with staged appends, in order; the node flushes them once per event."""

    __slots__ = ("partitions",)

    def __init__(self) -> None:
        self.partitions: list[Partition] = []


class Partition:
    """Attributes are plain: the produce and fetch handlers read them per request."""

    __slots__ = (
        "_commit_waiters",
        "_data_waiters",
        "_dirty_set",
        "_metrics_offset",
        "_staged_bytes",
        "_sync",
        "bytes_appended",
        "dirty",
        "high_watermark",
        "index",
        "is_leader",
        "leader_epoch",
        "log",
        "metrics",
        "sync_before_ack",
        "synced_end_offset",
        "topic",
        "topic_id",
    )

    def __init__(
        self,
        topic: str,
        topic_id: bytes,
        index: int,
        log: Log,
        metrics: TopicMetrics,
        dirty_set: DirtySet,
        sync: Callable[[Partition], None],
    ) -> None:
        self.topic = topic
        self.topic_id = topic_id
        self.index = index
        self.log = log
        self.metrics = metrics
        self.leader_epoch = -1
        self.is_leader = False
        self.dirty = False
        self.high_watermark = log.log_end_offset
        self.synced_end_offset = log.log_end_offset
        self._metrics_offset = log.log_end_offset
        self._staged_bytes = 0
        self.bytes_appended = 0
        self._dirty_set = dirty_set
        self._sync = sync
        self._commit_waiters: deque[tuple[int, Callable[[ErrorCode], None]]] = deque()
        self._data_waiters: dict[object, Callable[[Partition], None]] = {}
        self.configured()

    def configured(self) -> None:
        """Take over what the log's configuration says about acknowledging."""
        self.sync_before_ack = self.log.config.flush_messages == 1

    def become_leader(self, leader_epoch: int) -> None:
        """Serve as leader. The caller has noted the epoch's start in the log (KIP-101)."""
        self.leader_epoch = leader_epoch
        self.is_leader = True
        self.high_watermark = self.log.written_end_offset

    def resign(self, error: ErrorCode) -> None:
        """Stop serving: what waits is answered with `error`."""
        self.is_leader = False
        waiters, self._commit_waiters = self._commit_waiters, deque()
        for _, done in waiters:
            done(error)
        self._wake_readers()

    @property
    def last_stable_offset(self) -> int:
        """Readers of committed data see up to here (exclusive)."""
        return self.log.last_stable_offset(self.high_watermark)

    def append(self, batches: memoryview, wall_ms: int) -> AppendResult:
        """Stage batches for the flush at the end of this event. KafkaError refuses; nothing is staged then."""
        result = self.log.append_as_leader(batches, self.leader_epoch, wall_ms)
        self._staged_bytes += len(batches)
        if not self.dirty:
            self.dirty = True
            self._dirty_set.partitions.append(self)
        return result

    def flush(self) -> bool:
        """Write what is staged, move the high watermark, wake who waited. False if the append failed."""
        self.dirty = False
        log = self.log
        try:
            log.write_staged()
        except OSError:
            self.resign(ErrorCode.KAFKA_STORAGE_ERROR)
            return False
        end = log.written_end_offset
        metrics = self.metrics
        metrics.bytes_in += self._staged_bytes
        self.bytes_appended += self._staged_bytes
        metrics.messages_in += end - self._metrics_offset
        self._metrics_offset = end
        self._staged_bytes = 0
        if self.sync_before_ack:
            self._sync(self)
        else:
            self.advance(end)
            if log.must_flush:
                self._sync(self)
        return True

    def synced(self, end_offset: int) -> None:
        """Everything below `end_offset` is on the medium."""
        self.synced_end_offset = max(self.synced_end_offset, end_offset)
        if self.sync_before_ack:
            self.advance(self.synced_end_offset)

    def advance(self, offset: int) -> None:
        """Move the high watermark to `offset` if that is forward."""
        if offset <= self.high_watermark:
            return
        self.high_watermark = offset
        waiters = self._commit_waiters
        while waiters and waiters[0][0] <= offset:
            waiters.popleft()[1](ErrorCode.NONE)
        if self._data_waiters:
            self._wake_readers()

    def when_committed(self, end_offset: int, done: Callable[[ErrorCode], None]) -> None:
        """Call `done` once the high watermark reaches `end_offset` (exclusive end of what was appended)."""
        if end_offset <= self.high_watermark:
            done(ErrorCode.NONE)
        else:
            self._commit_waiters.append((end_offset, done))

    def watch_data(self, key: object, wake: Callable[[Partition], None]) -> None:
        """Call `wake(self)` at every advance of the high watermark until `unwatch_data(key)`."""
        self._data_waiters[key] = wake

    def unwatch_data(self, key: object) -> None:
        self._data_waiters.pop(key, None)

    def check_leader_epoch(self, current_leader_epoch: int) -> None:
        """A client that knows another epoch is told so (KIP-320); -1 means it does not say."""
        if not self.is_leader:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        if current_leader_epoch < 0 or current_leader_epoch == self.leader_epoch:
            return
        if current_leader_epoch < self.leader_epoch:
            raise KafkaError(ErrorCode.FENCED_LEADER_EPOCH)
        raise KafkaError(ErrorCode.UNKNOWN_LEADER_EPOCH)

    def _wake_readers(self) -> None:
        for wake in list(self._data_waiters.values()):
            wake(self)
