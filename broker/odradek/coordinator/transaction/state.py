"""What is known of one transactional id: its producer, and the transaction it has open or had last.

    Empty ──add partitions──► Ongoing ──EndTxn──► PrepareCommit ──markers──► CompleteCommit ┐
      ▲                        ▲   └──EndTxn, timeout, fence──► PrepareAbort ──markers──► CompleteAbort
      └──InitProducerId────────┴──────────────────add partitions──────────────────────────┴─┘

A transaction that has reached a Prepare state ends that way, whoever coordinates it: the markers are written until
every partition has one (KIP-98). With transaction.version 2 the producer epoch rises with every end (KIP-890).
"""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

TopicPartition: TypeAlias = tuple[str, int]
Partitions: TypeAlias = dict[TopicPartition, None]
"""A set that keeps its order: a run with one seed writes the same bytes. Never changed in place."""

NO_PRODUCER_ID = -1
NO_PRODUCER_EPOCH = -1
EPOCH_MAX = 32_767
"""The largest int16. The coordinator keeps it for itself, so that it can always fence a producer."""
TWO_PHASE_TIMEOUT_MS = 2**31 - 1
"""The timeout of a transaction that never times out (KIP-939); read from logs, never accepted."""


class TransactionState(Enum):
    """Value: the number in the log, and the name that tools show."""

    EMPTY = (0, "Empty")
    ONGOING = (1, "Ongoing")
    PREPARE_COMMIT = (2, "PrepareCommit")
    PREPARE_ABORT = (3, "PrepareAbort")
    COMPLETE_COMMIT = (4, "CompleteCommit")
    COMPLETE_ABORT = (5, "CompleteAbort")
    DEAD = (6, "Dead")
    """Expired: a tombstone in the log, and no state here."""
    PREPARE_EPOCH_FENCE = (7, "PrepareEpochFence")
    """Kafka's name for a fence under way; here fence and PrepareAbort are one decision, and this is never seen."""

    def __init__(self, number: int, text: str) -> None:
        self.number = number
        self.text = text


EMPTY = TransactionState.EMPTY
ONGOING = TransactionState.ONGOING
PREPARE_COMMIT = TransactionState.PREPARE_COMMIT
PREPARE_ABORT = TransactionState.PREPARE_ABORT
COMPLETE_COMMIT = TransactionState.COMPLETE_COMMIT
COMPLETE_ABORT = TransactionState.COMPLETE_ABORT
BY_NUMBER = {state.number: state for state in TransactionState}
BY_NAME = {state.text: state for state in TransactionState}

RESTING = frozenset({EMPTY, COMPLETE_COMMIT, COMPLETE_ABORT})
"""No transaction is open: the next may begin, and the id may expire."""
PREPARED = frozenset({PREPARE_COMMIT, PREPARE_ABORT})

PREVIOUS = {
    EMPTY: RESTING,
    ONGOING: RESTING | {ONGOING},
    PREPARE_COMMIT: frozenset({ONGOING}),
    PREPARE_ABORT: RESTING | {ONGOING},
    COMPLETE_COMMIT: frozenset({PREPARE_COMMIT}),
    COMPLETE_ABORT: frozenset({PREPARE_ABORT}),
}
"""From which states each may be reached. From a resting state to PrepareAbort: with transaction.version 2, where a
producer aborts to bump its epoch whether or not the coordinator has heard of its transaction."""


class Transaction:
    """One transactional id. Replaced by every record, never changed."""

    __slots__ = (
        "client_version",
        "last_epoch",
        "next_producer_id",
        "partitions",
        "previous_producer_id",
        "producer_epoch",
        "producer_id",
        "start_ms",
        "state",
        "timeout_ms",
        "update_ms",
    )

    def __init__(
        self,
        state: TransactionState,
        producer_id: int,
        producer_epoch: int,
        timeout_ms: int,
        update_ms: int,
        *,
        previous_producer_id: int = NO_PRODUCER_ID,
        next_producer_id: int = NO_PRODUCER_ID,
        last_epoch: int = NO_PRODUCER_EPOCH,
        partitions: Partitions | None = None,
        start_ms: int = -1,
        client_version: int = 0,
    ) -> None:
        self.state = state
        self.producer_id = producer_id
        self.producer_epoch = producer_epoch
        self.timeout_ms = timeout_ms
        self.update_ms = update_ms
        """Wall time of the last record."""
        self.previous_producer_id = previous_producer_id
        """The one before the last change, to know a retry that used the last epoch of it."""
        self.next_producer_id = next_producer_id
        """The one to go on with when the transaction is complete, because the epochs of this one are used up."""
        self.last_epoch = last_epoch
        """The epoch before the last bump, if the producer itself asked for it. Not in the log."""
        self.partitions: Partitions = {} if partitions is None else partitions
        self.start_ms = start_ms
        """Wall time at which the transaction began, or -1."""
        self.client_version = client_version
        """The transaction.version that the client used last."""

    def to(
        self,
        state: TransactionState,
        update_ms: int,
        *,
        producer_id: int | None = None,
        producer_epoch: int | None = None,
        last_epoch: int | None = None,
        next_producer_id: int | None = None,
        timeout_ms: int | None = None,
        partitions: Partitions | None = None,
        start_ms: int | None = None,
        client_version: int | None = None,
    ) -> Transaction:
        """The same with another state and what else is given."""
        assert self.state in PREVIOUS[state], f"no way from {self.state.text} to {state.text}"
        return Transaction(
            state,
            self.producer_id if producer_id is None else producer_id,
            self.producer_epoch if producer_epoch is None else producer_epoch,
            self.timeout_ms if timeout_ms is None else timeout_ms,
            update_ms,
            previous_producer_id=self.producer_id,
            next_producer_id=self.next_producer_id if next_producer_id is None else next_producer_id,
            last_epoch=self.last_epoch if last_epoch is None else last_epoch,
            partitions=self.partitions if partitions is None else partitions,
            start_ms=self.start_ms if start_ms is None else start_ms,
            client_version=self.client_version if client_version is None else client_version,
        )

    @property
    def is_exhausted(self) -> bool:
        """Whether the next epoch would be the one that no producer may have."""
        return self.producer_epoch >= EPOCH_MAX - 1

    @property
    def commits(self) -> bool:
        return self.state is PREPARE_COMMIT
