"""One partition as the request handlers see it: log, leader epoch, high watermark, and who waits for it.

What moves the high watermark and who is in sync is the business of the replication component (`Replica`), which tells
the partition; the partition tells those who wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.records import end_txn_marker

if TYPE_CHECKING:
    from odradek.broker.metrics import TopicMetrics
    from odradek.broker.pending import Pending
    from odradek.coordinator.runtime import Marker
    from odradek.replication.replica import Replica
    from odradek.storage.log import AppendResult, Log


WAITERS_UNCHECKED = 128
"""Waiters for a commit among which nobody looks for those that were answered already."""

CommitWaiter: TypeAlias = "tuple[int, Callable[[ErrorCode], None], Pending | None]"
"""(end offset, what to call, the request that waits if it may be answered before)"""

DeletionWaiter: TypeAlias = "tuple[int, Callable[[ErrorCode, int], None]]"
"""(offset below which no live replica shall have records, what to call with the low watermark)"""


class PartitionHost(Protocol):
    """What a partition needs of the replica manager."""

    dirty: list[Partition]
    """The partitions with staged appends, in order; flushed once per event."""

    def appended(self, partition: Partition) -> None: ...

    def sync(self, partition: Partition) -> None: ...

    def leading(self, partition: Partition) -> None: ...

    def failed(self, partition: Partition, error: OSError) -> None: ...


class Partition:
    """Attributes are plain: the produce and fetch handlers read them per request."""

    __slots__ = (
        "_commit_waiters",
        "_data_waiters",
        "_deletion_waiters",
        "_host",
        "_metrics_offset",
        "_staged_bytes",
        "bytes_appended",
        "commits_at_once",
        "dirty",
        "gaps_after_move",
        "high_watermark",
        "index",
        "is_leader",
        "leader_epoch",
        "log",
        "metrics",
        "replica",
        "suspended",
        "sync_before_ack",
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
        host: PartitionHost,
    ) -> None:
        self.topic = topic
        self.topic_id = topic_id
        self.index = index
        self.log = log
        self.metrics = metrics
        self.leader_epoch = -1
        self.is_leader = False
        self.suspended = False
        """It leads as far as metadata is known here, and serves nobody until that is known to be new."""
        self.dirty = False
        self.gaps_after_move: dict[int, int] = {}
        """By producer id, since this node leads: see `api/produce_behind.py`."""
        self.high_watermark = 0
        self.replica: Replica | None = None
        """What replication knows of it; set once, before anything else is asked of the partition."""
        self._metrics_offset = log.log_end_offset
        self._staged_bytes = 0
        self.bytes_appended = 0
        self._host = host
        self._commit_waiters: deque[CommitWaiter] = deque()
        self._data_waiters: dict[object, Callable[[Partition], None]] = {}
        self._deletion_waiters: dict[int, DeletionWaiter] = {}
        self.configured()

    def configured(self) -> None:
        """Take over what configuration and metadata say about acknowledging."""
        self.sync_before_ack = self.log.config.flush_messages == 1
        state = self.replica.state if self.replica is not None else None
        alone = state is not None and len(state.replicas) == 1
        self.commits_at_once = alone and not self.sync_before_ack
        """Whether what is appended is committed when its event is flushed: nothing else to wait for."""

    # -- told by replication (ReplicaEvents) ----------------------------------------------------------------------

    def leading(self, replica: Replica) -> None:
        """The start of the leader epoch is noted (KIP-101): serve."""
        assert replica.leader is not None
        self.leader_epoch = replica.leader.leader_epoch
        self.high_watermark = replica.high_watermark
        self.is_leader, self.suspended = True, False
        self.gaps_after_move.clear()
        self._metrics_offset = self.log.log_end_offset
        self._host.leading(self)

    def high_watermark_moved(self, replica: Replica) -> None:
        self.high_watermark = replica.high_watermark
        if self._commit_waiters:
            self._answer_committed()
        if self._data_waiters:
            self._wake_readers()

    def isr_changed(self, replica: Replica) -> None:
        self._answer_committed()
        self._answer_deletions()

    def failed(self, replica: Replica, error: OSError) -> None:
        self._host.failed(self, error)

    # -- serving --------------------------------------------------------------------------------------------------

    @property
    def leads(self) -> bool:
        return self.is_leader or self.suspended

    def suspend(self) -> None:
        """Clients hear NOT_LEADER_OR_FOLLOWER for a while. What waits for replicas goes on waiting."""
        if self.is_leader:
            self.is_leader, self.suspended = False, True

    def resume(self) -> None:
        if self.suspended:
            self.is_leader, self.suspended = True, False

    def resign(self, error: ErrorCode) -> None:
        """Stop serving: what waits is answered with `error`."""
        self.is_leader = self.suspended = False
        waiters, self._commit_waiters = self._commit_waiters, deque()
        for _, done, _ in waiters:
            done(error)
        for key, (_, deleted) in list(self._deletion_waiters.items()):
            self.forget_deletion(key)
            deleted(error, -1)
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
            self._host.dirty.append(self)
        return result

    def append_transactional(self, batch: memoryview, wall_ms: int) -> AppendResult:
        """The same for a client's batch of a transaction that is known to be open."""
        result = self.log.append_as_leader(batch, self.leader_epoch, wall_ms, transactional=True)
        return self._note_staged(batch, result)

    def append_internally(self, batches: memoryview, wall_ms: int) -> AppendResult:
        """The same for a coordinator's records, which have keys and no sequences."""
        return self._append_own(batches, wall_ms, 0)

    def append_marker(self, marker: Marker, wall_ms: int) -> AppendResult:
        """End a producer's transaction here. KafkaError INVALID_PRODUCER_EPOCH, TRANSACTION_COORDINATOR_FENCED."""
        batch = end_txn_marker(
            *marker.producer,
            commit=marker.commit,
            coordinator_epoch=marker.coordinator_epoch,
            base_offset=0,
            timestamp=wall_ms,
        )
        return self._append_own(memoryview(batch), wall_ms, marker.transaction_version)

    def _append_own(self, batches: memoryview, wall_ms: int, transaction_version: int) -> AppendResult:
        result = self.log.append_as_leader(
            batches,
            self.leader_epoch,
            wall_ms,
            allow_control=True,
            trusted=True,
            transaction_version=transaction_version,
        )
        return self._note_staged(batches, result)

    def _note_staged(self, batches: memoryview, result: AppendResult) -> AppendResult:
        self._staged_bytes += len(batches)
        if not self.dirty:
            self.dirty = True
            self._host.dirty.append(self)
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
        self._host.appended(self)
        if log.must_flush:
            self._host.sync(self)
        return True

    def refuse_if_too_few_in_sync(self) -> None:
        """Before an append with acks=all: KafkaError NOT_ENOUGH_REPLICAS."""
        leader = self.replica.leader if self.replica is not None else None
        if leader is not None and leader.under_min_isr:
            raise KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS)

    def refuse_if_latest_is_unknown(self) -> None:
        """KafkaError OFFSET_NOT_AVAILABLE until the high watermark has reached the start of this leader's epoch."""
        leader = self.replica.leader if self.replica is not None else None
        if leader is not None and (error := leader.latest_offset_error()) is not ErrorCode.NONE:
            raise KafkaError(error)

    def _answer_committed(self) -> None:
        """Leadership is checked in the same step: without a leader's state nothing is acknowledged."""
        leader = self.replica.leader if self.replica is not None else None
        waiters = self._commit_waiters
        while waiters and leader is not None:
            answer = leader.acknowledgement(waiters[0][0])
            if answer is None:
                break
            waiters.popleft()[1](answer)

    def when_committed(
        self, end_offset: int, done: Callable[[ErrorCode], None], request: Pending | None = None
    ) -> None:
        """Call `done` once everything below `end_offset` is committed (acks=all), or with why it is not; perhaps not
        at all if `request` is answered or abandoned before.
        """
        self._commit_waiters.append((end_offset, done, request))
        self._answer_committed()

    def when_deleted(self, key: int, offset: int, done: Callable[[ErrorCode, int], None]) -> None:
        """Call `done` once no live replica has records below `offset` (KIP-107), or with why nobody will know; not at
        all after `forget_deletion`.
        """
        self._deletion_waiters[key] = offset, done
        if self.replica is not None:
            self.replica.on_follower_told = self._answer_deletions
        self._answer_deletions()

    def forget_deletion(self, key: int) -> None:
        self._deletion_waiters.pop(key, None)
        if not self._deletion_waiters and self.replica is not None:
            self.replica.on_follower_told = None

    def _answer_deletions(self) -> None:
        if not self._deletion_waiters:
            return
        leader = self.replica.leader if self.replica is not None else None
        own = self.log.log_start_offset
        low = own if leader is None else leader.low_watermark(own)
        for key, (offset, done) in list(self._deletion_waiters.items()):
            if low >= offset:
                self.forget_deletion(key)
                done(ErrorCode.NONE, low)

    def forget_answered(self) -> None:
        """Once in a while: while nothing is committed, requests that timed out would pile up."""
        waiters = self._commit_waiters
        if len(waiters) > WAITERS_UNCHECKED:
            left = (each for each in waiters if each[2] is None or not each[2].done)
            self._commit_waiters = deque(left)

    def watch_data(self, key: object, wake: Callable[[Partition], None]) -> None:
        """Call `wake(self)` at every advance of the high watermark until `unwatch_data(key)`."""
        self._data_waiters[key] = wake

    def unwatch_data(self, key: object) -> None:
        self._data_waiters.pop(key, None)

    def check_leader_epoch(self, current_leader_epoch: int) -> None:
        """A client that knows another epoch is told so (KIP-320); -1 means it does not say."""
        if not self.is_leader:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        self._check_epoch(current_leader_epoch, self.leader_epoch)

    def check_replica_epoch(self, current_leader_epoch: int) -> None:
        """The same of a replica that may be a follower: the epoch is the one in which it follows."""
        if self.is_leader:
            self._check_epoch(current_leader_epoch, self.leader_epoch)
        elif self.replica is not None and self.replica.state is not None:
            self._check_epoch(current_leader_epoch, self.replica.state.leader_epoch)

    def _check_epoch(self, current_leader_epoch: int, leader_epoch: int) -> None:
        if current_leader_epoch < 0 or current_leader_epoch == leader_epoch:
            return
        if current_leader_epoch < leader_epoch:
            raise KafkaError(ErrorCode.FENCED_LEADER_EPOCH)
        raise KafkaError(ErrorCode.UNKNOWN_LEADER_EPOCH)

    def _wake_readers(self) -> None:
        for wake in list(self._data_waiters.values()):
            wake(self)
