"""The end of one transaction: a marker to every partition of it, then the record that says so.

    PrepareCommit or PrepareAbort is committed ──► markers ──► CompleteCommit or CompleteAbort
                                                    ▲    │
                                                    └────┘ again for what failed, with backoff, for as long as it takes

There is no way out but the end: what is durable as prepared ends that way (T4). When this broker coordinates it no
more, the next coordinator finds the same record and starts over; a marker written twice changes nothing.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from odradek.coordinator.errors import UNKNOWN_FATE
from odradek.coordinator.runtime import Marker, Outcome, Producer
from odradek.coordinator.transaction.decisions import complete
from odradek.coordinator.transaction.state import TopicPartition, Transaction
from odradek.ports.timers import Timer
from odradek.wire.errors import ErrorCode

if TYPE_CHECKING:
    from odradek.coordinator.transaction.shard import TransactionShard

RETRY_MIN_MS = 20
RETRY_MAX_MS = 1_000
"""Between two tries: the first wait, and the longest, to which it doubles."""

WRITTEN = frozenset(
    {
        ErrorCode.NONE,
        # The partition cannot have records of a transaction.
        ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT,
        ErrorCode.UNSUPPORTED_VERSION,
    }
)
FENCED = ErrorCode.INVALID_PRODUCER_EPOCH
"""The partition knows a newer epoch of the producer, so this transaction is over there, and no marker of it will ever
be taken. Kafka gives up on the whole transaction then, which blocks its id until the coordinator changes."""


class Completion:
    """See the module."""

    __slots__ = ("_asked", "_retry_ms", "_shard", "_timer", "left", "transaction", "transactional_id")

    def __init__(self, shard: TransactionShard, transactional_id: str, transaction: Transaction) -> None:
        self.transactional_id = transactional_id
        self.transaction = transaction
        """As the record has it that is to be completed."""
        self.left: dict[TopicPartition, None] = dict(transaction.partitions)
        """Partitions without a marker yet."""
        self._shard = shard
        self._retry_ms = RETRY_MIN_MS
        self._timer: Timer | None = None
        self._asked = False
        """Markers are under way."""

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    @property
    def _is_over(self) -> bool:
        return self._shard.completions.get(self.transactional_id) is not self

    def proceed(self, _now_ms: int = 0) -> None:
        """The next step: markers for what is left, or the last record."""
        self._timer = None
        shard = self._shard
        if self._is_over:
            return
        if shard.is_pending(self.transactional_id):
            self._again()  # the record of the Prepare state itself took too long: it may be committed yet
            return
        if shard.known(self.transactional_id) is not self.transaction:
            del shard.completions[self.transactional_id]
            return
        host = shard.host
        for topic, index in list(self.left):
            if not host.topics.has_partition(topic, index):
                del self.left[topic, index]  # deleted with its topic
        if not self.left:
            host.write(shard.partition, self._complete, self._not_completed)
            return
        transaction = self.transaction
        marker = Marker(
            Producer(transaction.producer_id, transaction.producer_epoch),
            host.coordinator_epoch(shard.partition),
            transaction.commits,
            transaction.client_version,
        )
        self._asked = True
        host.markers.write(marker, list(self.left), self._answered)

    def _answered(self, results: dict[TopicPartition, ErrorCode]) -> None:
        if self._is_over or not self._asked:
            return
        self._asked = False
        shard = self._shard
        for partition, error in results.items():
            if error in WRITTEN:
                self.left.pop(partition, None)
            elif error is FENCED:
                shard.host.log.warning(
                    "a partition refuses the marker of a transaction for its epoch: it goes on without",
                    transactional_id=self.transactional_id,
                    topic=partition[0],
                    partition=partition[1],
                )
                self.left.pop(partition, None)
        if self.left:
            self._again()
        else:
            # Through the queue of answers: never inside another step.
            shard.host.answer(self._finish, None)

    def _finish(self, _: None) -> None:
        self.proceed()

    def _again(self) -> None:
        now_ms = self._shard.host.clock.monotonic_ms()
        self._timer = self._shard.host.timers.at(now_ms + self._retry_ms, self.proceed)
        self._retry_ms = min(self._retry_ms * 2, RETRY_MAX_MS)

    def _complete(self, shard: TransactionShard) -> Outcome[None]:
        completed = complete(self.transaction, shard.host.clock.wall_ms())
        record = shard.record(self.transactional_id, completed)
        return Outcome(None, [record], written=partial(self._written, shard))

    def _written(self, shard: TransactionShard, error: ErrorCode) -> None:
        if error is ErrorCode.NONE:
            shard.completed(self.transactional_id)
        elif error in UNKNOWN_FATE:
            # It is in the log: committed some day, or the partition is loaded again.
            shard.completions.pop(self.transactional_id, None)

    def _not_completed(self, _error: ErrorCode) -> None:
        """The log refused the last record, or was never asked."""
        if not self._is_over:
            self._again()
