"""Does this belong to an open transaction? Asked of the transaction's coordinator before the first write (KIP-890).

A write of a producer to a partition in which it has no transaction under way would, if its transaction had ended
already, begin one that nobody ends. So the coordinator is asked (AddPartitionsToTxn): whether the partition is in the
transaction, of clients that add partitions themselves; or to add it, for clients since transaction version 2, which
leave that to us. What is asked in one turn of the event loop goes to a coordinator in one request. Writes of one
producer to one partition that come meanwhile wait for the same answer and keep their order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTransaction,
)

if TYPE_CHECKING:
    from odradek.broker.between_brokers import BetweenBrokers
    from odradek.coordinator.runtime import Producer
    from odradek.ports.clock import Clock
    from odradek.ports.timers import TimerQueue
    from odradek.storage.log import Log
    from odradek.storage.producers import Verification

VERSION = 5
OLDEST_VERSION = 4
"""Of AddPartitionsToTxn between brokers: the first that can verify, and name several transactions."""
ASKS_MAX = 3
"""A marker may come more than once; beyond, INVALID_TXN_STATE."""
WAITING_MAX = 10_000
"""Writes that may wait for an answer; more are told to come back."""
WAITING_BYTES_MAX = 64 << 20
"""What they may hold in memory together, but for one that is larger."""
ENABLE = "transaction.partition.verification.enable"
RETRY_MS = "add.partitions.to.txn.retry.backoff.ms"
RETRY_MS_MAX = "add.partitions.to.txn.retry.backoff.max.ms"

NOT_KNOWN_YET = frozenset(
    {
        ErrorCode.CONCURRENT_TRANSACTIONS,
        ErrorCode.NETWORK_EXCEPTION,
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_COORDINATOR,
    }
)

Answered = Callable[[ErrorCode], None]
_Key: TypeAlias = "tuple[str, int, int, tuple[str, int], Support]"


class Support(Enum):
    """What a client's version of Produce or TxnOffsetCommit knows of this."""

    NOTHING = 0
    ABORTABLE = 1
    """The error TRANSACTION_ABORTABLE."""
    IMPLICIT = 2
    """It adds no partitions: writing to them does."""

    @classmethod
    def of_produce(cls, version: int) -> Support:
        return cls.IMPLICIT if version > 11 else cls.ABORTABLE if version > 10 else cls.NOTHING

    @classmethod
    def of_offset_commit(cls, version: int) -> Support:
        return cls.IMPLICIT if version > 4 else cls.ABORTABLE if version > 3 else cls.NOTHING


@dataclass(slots=True)
class _Question:
    """Whether one partition is in one transaction, and who wants to know."""

    transactional_id: str
    producer_id: int
    producer_epoch: int
    partition: tuple[str, int]
    support: Support
    began_ms: int
    waiting: list[Answered] = field(default_factory=list)

    @property
    def key(self) -> _Key:
        return self.transactional_id, self.producer_id, self.producer_epoch, self.partition, self.support

    @property
    def who(self) -> tuple[int, int, bool]:
        """What two questions about one transactional id must agree in to go in one request."""
        return self.producer_id, self.producer_epoch, self.support is Support.IMPLICIT


Round = dict[str, list[_Question]]
"""What one request asks, by transactional id: answers name no more than that."""


class TxnVerification:
    """See the module."""

    def __init__(
        self,
        between: BetweenBrokers,
        coordinator_of: Callable[[str], int],
        setting: Callable[[str], str | None],
        clock: Clock,
        timers: TimerQueue,
    ) -> None:
        """`coordinator_of(transactional id)`: the broker that leads its partition of `__transaction_state`, or -1."""
        self._between = between
        self._coordinator_of = coordinator_of
        self._setting = setting
        self._clock = clock
        self._timers = timers
        self._open: dict[_Key, _Question] = {}
        """Asked, or about to be. Who names another transactional id is answered for that one."""
        self._queued: list[_Question] = []
        self._waiting = self._held_bytes = 0
        self.answered = self.failed = self.waited_ms = 0
        """Writes since the start, and how long they have waited in all."""

    def is_needed(self, support: Support) -> bool:
        """`transaction.partition.verification.enable` spares the question; adding cannot be spared."""
        return support is Support.IMPLICIT or self._setting(ENABLE) == "true"

    def hold(self, size: int) -> bool:
        """Whether a batch of `size` bytes may wait in memory for its answer; then `release` follows. One that is larger
        than the bound waits alone.
        """
        if self._held_bytes and self._held_bytes + size > WAITING_BYTES_MAX:
            return False
        self._held_bytes += size
        return True

    def release(self, size: int) -> None:
        self._held_bytes -= size

    def ask_guarded(
        self, log: Log, transactional_id: str, producer: Producer, sequence: int, partition: tuple[str, int],
        support: Support, done: Callable[[ErrorCode, Verification], None],
    ) -> None:  # fmt: skip
        """`ask` under a guard of the partition's log, which a marker of the producer takes away: then what was answered
        is of the past, and the coordinator is asked again, ASKS_MAX times. A producer does not wait for the marker of
        its last transaction before it begins the next one. `done(error, guard)`; the guard of an error is gone.
        """
        asked = 0

        def ask() -> None:
            nonlocal asked
            asked += 1
            guard = log.producers.begin_verification(producer.id, sequence)
            self.ask(transactional_id, *producer, partition, support, lambda code: answered(code, guard))

        def answered(code: ErrorCode, guard: Verification) -> None:
            if code is ErrorCode.NONE and is_overtaken(log, producer, guard) and asked < ASKS_MAX:
                ask()
                return
            verifying = log.producers.verifying
            if code is not ErrorCode.NONE and verifying.get(producer.id) is guard:
                del verifying[producer.id]
            done(code, guard)

        ask()

    def ask(
        self,
        transactional_id: str,
        producer_id: int,
        producer_epoch: int,
        partition: tuple[str, int],
        support: Support,
        done: Answered,
    ) -> None:
        """`done(error)`, never from within: NONE if the partition is in this open transaction now.

        Else INVALID_TXN_STATE or, if the client knows it, TRANSACTION_ABORTABLE; INVALID_PRODUCER_EPOCH,
        INVALID_PRODUCER_ID_MAPPING. CONCURRENT_TRANSACTIONS, NETWORK_EXCEPTION, COORDINATOR_LOAD_IN_PROGRESS,
        COORDINATOR_NOT_AVAILABLE and NOT_COORDINATOR mean that it is not known yet.
        """
        if self._waiting >= WAITING_MAX:
            now_ms = self._clock.monotonic_ms()
            self._timers.at(now_ms, lambda _now: done(ErrorCode.COORDINATOR_NOT_AVAILABLE))
            return
        self._waiting += 1
        key = transactional_id, producer_id, producer_epoch, partition, support
        question = self._open.get(key)
        if question is None:
            question = self._open[key] = _Question(
                transactional_id, producer_id, producer_epoch, partition, support, self._clock.monotonic_ms()
            )
            self._queue(question)
        question.waiting.append(done)

    def _queue(self, question: _Question) -> None:
        if not self._queued:
            self._timers.at(self._clock.monotonic_ms(), self._send)
        self._queued.append(question)

    def _send(self, _now_ms: int) -> None:
        queued, self._queued = self._queued, []
        rounds: dict[int, list[Round]] = {}
        for question in queued:
            broker = self._coordinator_of(question.transactional_id)
            if broker < 0:
                self._settle(question, ErrorCode.COORDINATOR_NOT_AVAILABLE)
            else:
                _join(rounds.setdefault(broker, []), question)
        for broker, to_ask in rounds.items():
            for each in to_ask:
                request = AddPartitionsToTxnRequest(
                    transactions=[_transaction(questions) for questions in each.values()]
                )
                self._between.ask(broker, request, VERSION, partial(self._answered, each))

    def _answered(self, asked: Round, response: AddPartitionsToTxnResponse | None) -> None:
        told: dict[tuple[str, str, int], int] = {}
        missing = ErrorCode.NETWORK_EXCEPTION
        if response is not None:
            missing = ErrorCode.told(response.error_code or missing)
            for result in response.results_by_transaction:
                for topic in result.topic_results:
                    for one in topic.results_by_partition:
                        where = result.transactional_id, topic.name, one.partition_index
                        told[where] = one.partition_error_code
        for transactional_id, questions in asked.items():
            for question in questions:
                code = told.get((transactional_id, *question.partition), missing)
                self._take(question, ErrorCode.told(code))

    def _take(self, question: _Question, code: ErrorCode) -> None:
        """The end of the transaction before may still be under way: asked again, for a moment."""
        if code is ErrorCode.CONCURRENT_TRANSACTIONS and question.support is Support.IMPLICIT:
            now_ms = self._clock.monotonic_ms()
            pause_ms, patience_ms = (int(self._setting(key) or 0) for key in (RETRY_MS, RETRY_MS_MAX))
            if now_ms + pause_ms - question.began_ms <= patience_ms:
                self._timers.at(now_ms + pause_ms, lambda _now: self._queue(question))
                return
        if code is ErrorCode.PRODUCER_FENCED:
            code = ErrorCode.INVALID_PRODUCER_EPOCH
        elif code is ErrorCode.CLUSTER_AUTHORIZATION_FAILED or (
            code is ErrorCode.TRANSACTION_ABORTABLE and question.support is Support.NOTHING
        ):
            code = ErrorCode.INVALID_TXN_STATE
        self._settle(question, code)

    def _settle(self, question: _Question, code: ErrorCode) -> None:
        """In the order in which they came."""
        del self._open[question.key]
        count = len(question.waiting)
        self._waiting -= count
        self.answered += count
        self.failed += 0 if code is ErrorCode.NONE else count
        self.waited_ms += (self._clock.monotonic_ms() - question.began_ms) * count
        for done in question.waiting:
            done(code)


def is_overtaken(log: Log, producer: Producer, guard: Verification) -> bool:
    """Whether a marker came after the coordinator was asked, and no transaction is open here."""
    return log.producers.verifying.get(producer.id) is not guard and not log.in_transaction(*producer)


def produce_error(code: ErrorCode) -> KafkaError:
    """What a producer is told instead: errors that make clients of any age try again."""
    if code is ErrorCode.INVALID_TXN_STATE:
        return KafkaError(code, "Partition was not added to the transaction")
    if code in NOT_KNOWN_YET:
        return KafkaError(
            ErrorCode.NOT_ENOUGH_REPLICAS,
            f"Unable to verify the partition has been added to the transaction. Underlying error: {code.name}",
        )
    return KafkaError(code)


def _join(rounds: list[Round], question: _Question) -> None:
    for each in rounds:
        same = each.setdefault(question.transactional_id, [])
        if not same or same[0].who == question.who:
            same.append(question)
            return
    rounds.append({question.transactional_id: [question]})


def _transaction(questions: list[_Question]) -> AddPartitionsToTxnTransaction:
    first = questions[0]
    topics: dict[str, list[int]] = {}
    for question in questions:
        name, index = question.partition
        topics.setdefault(name, []).append(index)
    return AddPartitionsToTxnTransaction(
        first.transactional_id,
        first.producer_id,
        first.producer_epoch,
        first.support is not Support.IMPLICIT,
        [AddPartitionsToTxnTopic(name, indexes) for name, indexes in topics.items()],
    )
