"""A transactional producer: init, records to several partitions, offsets of a group, commit or abort; then the next.

It speaks either as clients before KIP-890 do (they add partitions themselves, the epoch stays) or as those since
(brokers add them, each end of a transaction brings a new epoch). Several clients may share a transactional id: whoever
came last fences the others. A client gives up and begins anew as an application does that was restarted; now and then
it goes silent beyond its timeout, or dies with requests under way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from odradek.simulation.client import Client, error_of
from odradek.simulation.compaction import keyed, without_keys
from odradek.simulation.history import Fate, Sent
from odradek.simulation.scheduler import SECOND
from odradek.simulation.transaction_history import End, Transaction
from odradek.storage.batch import HEADER
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
from odradek.wire.messages.add_partitions_to_txn import AddPartitionsToTxnRequest, AddPartitionsToTxnTopic
from odradek.wire.messages.end_txn import EndTxnRequest
from odradek.wire.messages.find_coordinator import FindCoordinatorRequest
from odradek.wire.messages.init_producer_id import InitProducerIdRequest
from odradek.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from odradek.wire.messages.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)
from odradek.wire.records import simple_batch

if TYPE_CHECKING:
    from odradek.simulation.cluster import Cluster

GROUP, TRANSACTION = 0, 1
"""Kinds of coordinators."""
GIVE_UP_US = 2 * SECOND
"""How long one step of a transaction is tried before the transaction is aborted."""
AGAIN_MS = (20, 120)
_FENCED = frozenset(
    {
        ErrorCode.PRODUCER_FENCED,
        ErrorCode.INVALID_PRODUCER_EPOCH,
        ErrorCode.INVALID_PRODUCER_ID_MAPPING,
        ErrorCode.INVALID_TXN_STATE,
        ErrorCode.TRANSACTIONAL_ID_NOT_FOUND,
        ErrorCode.FENCED_INSTANCE_ID,
    }
)
_NOT_DONE = _FENCED | {ErrorCode.CONCURRENT_TRANSACTIONS, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS}
"""Answers to EndTxn that prove that this try did nothing."""
_SURELY_NOT_WRITTEN = _NOT_DONE | {
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    ErrorCode.NOT_ENOUGH_REPLICAS,
    ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
    ErrorCode.TRANSACTION_ABORTABLE,
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
}
Step = Callable[[], None]
Judge = Callable[[Any], "ErrorCode | None"]
"""The error in a response; None to take it as unanswered."""


class TransactionalProducer(Client):
    """Lives until `stopped`; `done` once it has committed a transaction that began after `finish`."""

    request_timeout_us = SECOND

    def __init__(
        self, cluster: Cluster, name: str, rng: Random, transactional_id: str, *, adds_itself: bool
    ) -> None:
        super().__init__(cluster, name, rng)
        self.transactional_id = transactional_id
        self.group = f"g-{transactional_id}"
        self._adds_itself = adds_itself
        self._timeout_ms = rng.choice((1_500, 4_000))
        self._coordinators: dict[int, str] = {}
        self._life = 0
        self._producer = (-1, -1)
        self._sequences: Counter[tuple[str, int]] = Counter()
        self._numbers: Counter[tuple[str, int]] = Counter()
        self._sent = 0
        self._added: set[tuple[str, int]] = set()
        self._transaction: Transaction | None = None
        self._steps: list[Step] = []
        self._in_doubt = False
        """Something of this transaction may be on its way still."""
        self._finishing = False
        self._last_one = False
        self.done = False

    def start(self) -> None:
        self.refresh()
        self._begin_life()

    def finish(self) -> None:
        self._finishing = True

    # -- lives ---------------------------------------------------------------------------------------------------

    def _begin_life(self) -> None:
        """As a process that was just started."""
        self._life += 1
        self._producer = (-1, -1)
        self._again(self._init)

    def _again(self, step: Step, low_ms: int = AGAIN_MS[0], high_ms: int = AGAIN_MS[1]) -> None:
        """Later, if this life is not over by then."""
        life = self._life

        def act() -> None:
            if life == self._life and not self.stopped:
                step()

        self.after(self.between(low_ms, high_ms), act)

    def _end(self, end: End) -> None:
        """The transaction under way is over, as far as this client will ever know."""
        transaction, self._transaction = self._transaction, None
        if transaction is None:
            return
        transaction.end = end
        self.cluster.trace.count(f"transaction: {end.value}")
        self.cluster.trace.note(self.name, f"transaction {end.value}", str(transaction))

    def _die(self, why: str, end: End = End.ABORTED) -> None:
        """This life is over: fenced, or a crash."""
        self.cluster.trace.count(f"transactional producer: {why}")
        for sent in self._transaction.batches if self._transaction is not None else ():
            if sent.fate is Fate.PENDING:
                self._settle(sent, Fate.UNKNOWN)
        self._end(end)
        self._life += 1
        low_ms = 200 if self._finishing else 500
        self.after(self.between(low_ms, 2_500), self._revive)

    def _revive(self) -> None:
        if not self.stopped:
            self._begin_life()

    # -- asking --------------------------------------------------------------------------------------------------

    def _ask_coordinator(
        self, kind: int, request: Any, version: int, judge: Judge, took: Callable[[Any], None], retry: Step,
        refused: Callable[[ErrorCode], bool],
    ) -> None:  # fmt: skip
        """`took(response)`; on an error `refused(error)` says whether it has dealt with it, else `retry` follows."""
        host = self._coordinators.get(kind)
        if host is None:
            self._find(kind, lambda: self._again(retry))
            return
        life = self._life

        def done(response: Any) -> None:
            if life != self._life or self.stopped:
                return
            code = ErrorCode.UNKNOWN_SERVER_ERROR if response is None else judge(response)
            if code is ErrorCode.NONE:
                took(response)
                return
            if response is not None and code is not None:
                self.cluster.trace.count(f"transaction: {code.name}")
            lost = response is None or code in (
                ErrorCode.NOT_COORDINATOR,
                ErrorCode.COORDINATOR_NOT_AVAILABLE,
            )
            if lost:
                self._coordinators.pop(kind, None)
            assert code is not None
            if not refused(code):
                self._again(retry)

        self.ask(host, request, version, done)

    def _find(self, kind: int, then: Step) -> None:
        life = self._life
        key = self.transactional_id if kind == TRANSACTION else self.group

        def done(response: Any) -> None:
            if response is not None and response.coordinators[0].error_code == 0:
                self._coordinators[kind] = response.coordinators[0].host
            if life == self._life and not self.stopped:
                then()

        self.ask(self.any_host(), FindCoordinatorRequest(key_type=kind, coordinator_keys=[key]), 4, done)

    # -- producer id ---------------------------------------------------------------------------------------------

    def _init(self) -> None:
        """Fences whoever had this transactional id; with a producer id, only takes the next epoch (KIP-360)."""
        request = InitProducerIdRequest(
            transactional_id=self.transactional_id,
            transaction_timeout_ms=self._timeout_ms,
            producer_id=self._producer[0],
            producer_epoch=self._producer[1],
        )

        def took(response: Any) -> None:
            self._set_producer(response.producer_id, response.producer_epoch)
            self._again(self._begin, 1, 200)

        self._ask_coordinator(
            TRANSACTION, request, self.rng.choice((3, 4, 5)), _top_error, took, self._init, self._fenced
        )

    def _set_producer(self, producer_id: int, epoch: int) -> None:
        if (producer_id, epoch) != self._producer:
            self._producer = (producer_id, epoch)
            self._sequences.clear()

    def _fenced(self, code: ErrorCode) -> bool:
        if code not in _FENCED:
            return False
        self._die(f"fenced: {code.name}")
        return True

    # -- a transaction -------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if not all(topic in self.topic_ids for topic in self.topics):
            self.refresh()
            self._again(self._begin)
            return
        self._last_one = self._finishing
        self._added.clear()
        self._in_doubt = False
        self._transaction = self.cluster.transactions.begin(self.transactional_id, self.name, self._producer)
        self._steps = [self._produce for _ in range(self.rng.choice((1, 2, 2, 3, 6)))]
        if self.rng.random() < 0.4:
            self._steps.insert(self.rng.randrange(1, len(self._steps) + 1), self._commit_offsets)
        self._next()

    def _next(self) -> None:
        """The next step, or the end."""
        if not self._finishing and self.rng.random() < 0.02:
            self._die("crashed")
            return
        if not self._finishing and self.rng.random() < 0.02:
            self.cluster.trace.count("transactional producer: silent beyond its timeout")
            self._again(self._next, self._timeout_ms, self._timeout_ms + 3_000)
            return
        if self._steps:
            self._again(self._steps.pop(0), 1, 40)
        else:
            commit = self._finishing or self.rng.random() < 0.75
            self._again(lambda: self._end_transaction(commit), 1, 60)

    def _give_up(self) -> None:
        """This transaction cannot be committed any more."""
        self._steps = []
        self._end_transaction(False)

    # -- records -------------------------------------------------------------------------------------------------

    def _produce(self) -> None:
        transaction = self._transaction
        assert transaction is not None
        topic = self.rng.choice(self.topics)
        unit = topic, self.rng.randrange(self.cluster.partitions_of(topic))
        give_up_us = self.now_us + GIVE_UP_US
        if self._adds_itself and unit not in self._added:
            self._add(unit, give_up_us)
            return
        self._make_batch(unit, give_up_us)

    def _add(self, unit: tuple[str, int], give_up_us: int) -> None:
        """AddPartitionsToTxn, as clients before KIP-890."""
        request = AddPartitionsToTxnRequest(
            v3_and_below_transactional_id=self.transactional_id,
            v3_and_below_producer_id=self._producer[0],
            v3_and_below_producer_epoch=self._producer[1],
            v3_and_below_topics=[AddPartitionsToTxnTopic(name=unit[0], partitions=[unit[1]])],
        )

        def judge(response: Any) -> ErrorCode:
            partitions = response.results_by_topic_v3_and_below[0].results_by_partition
            return error_of(partitions[0].partition_error_code)

        def took(_response: Any) -> None:
            self._added.add(unit)
            self._make_batch(unit, give_up_us)

        self._ask_coordinator(
            TRANSACTION, request, 3, judge, took, lambda: self._add(unit, give_up_us),
            lambda code: self._stop_trying(code, give_up_us),
        )  # fmt: skip

    def _stop_trying(self, code: ErrorCode, give_up_us: int) -> bool:
        """Whether a step ends the life, or the transaction."""
        if self._fenced(code):
            return True
        if code is ErrorCode.TRANSACTION_ABORTABLE or self.now_us >= give_up_us:
            self._in_doubt = True
            self._give_up()
            return True
        return False

    def _make_batch(self, unit: tuple[str, int], give_up_us: int) -> None:
        assert self._transaction is not None
        self._sent += 1
        count = self.rng.choice((1, 1, 2, 4))
        values = [f"{self.name}/{self._sent}/{i}".encode() for i in range(count)]
        compacted = self.cluster.compacts(unit[0])
        encoded = simple_batch(
            keyed(values, self.rng, True) if compacted else without_keys(values),
            base_offset=0,
            timestamp=self.cluster.true_wall_ms(),
            producer_id=self._producer[0],
            producer_epoch=self._producer[1],
            base_sequence=self._sequences[unit],
            transactional=True,
        )
        key = self.topic_ids[unit[0]], unit[1]
        crc = HEADER.unpack_from(encoded)[4]
        sent = Sent(self.name, self._numbers[unit], key, count, crc, -1, True)
        self._numbers[unit] += 1
        self._sequences[unit] += count
        self.cluster.history.send(sent)
        self._transaction.batches.append(sent)
        self._send(unit, sent, bytes(encoded), give_up_us)

    def _send(self, unit: tuple[str, int], sent: Sent, encoded: bytes, give_up_us: int) -> None:
        leader = self.leaders.get(unit)

        def retry() -> None:
            if self.now_us < give_up_us:
                self._send(unit, sent, encoded, give_up_us)
                return
            self._in_doubt = True
            self._settle(sent, Fate.UNKNOWN if sent.doubts else Fate.FAILED)
            self._give_up()

        if leader is None:
            self.refresh()
            self._again(retry)
            return
        data = PartitionProduceData(index=unit[1], records=encoded)
        request = ProduceRequest(
            transactional_id=self.transactional_id,
            acks=-1,
            timeout_ms=1_500,
            topic_data=[TopicProduceData(name=unit[0], partition_data=[data])],
        )
        life, host = self._life, leader[0]

        def done(response: Any) -> None:
            if life == self._life and not self.stopped:
                self._sent_to(host, sent, response, retry)

        self.ask(host, request, 11 if self._adds_itself else 12, done)

    def _sent_to(self, host: str, sent: Sent, response: Any, retry: Step) -> None:
        if response is None:
            sent.doubts += 1
            self.refresh()
            self._again(retry)
            return
        answer = response.responses[0].partition_responses[0]
        code = error_of(answer.error_code)
        if code in (ErrorCode.NONE, ErrorCode.DUPLICATE_SEQUENCE_NUMBER):
            self._settle(sent, Fate.ACKED, answer.base_offset if code is ErrorCode.NONE else -1, host)
            self._next()
            return
        self.cluster.trace.count(f"transactional produce: {code.name}")
        if code not in _SURELY_NOT_WRITTEN:
            sent.doubts += 1
        if code in _FENCED:
            self._settle(sent, Fate.UNKNOWN if sent.doubts else Fate.FAILED)
            self._fenced(code)
        elif code.retriable or code is ErrorCode.CONCURRENT_TRANSACTIONS:
            self.refresh()
            self._again(retry)
        else:
            self._in_doubt = True
            self._settle(sent, Fate.UNKNOWN if sent.doubts else Fate.FAILED)
            self._give_up()

    def _settle(self, sent: Sent, fate: Fate, base: int = -1, by: str = "") -> None:
        self.cluster.history.settle(sent, fate, base, self.cluster.invariants.models.get(sent.key), by)

    # -- offsets -------------------------------------------------------------------------------------------------

    def _commit_offsets(self) -> None:
        assert self._transaction is not None
        give_up_us = self.now_us + GIVE_UP_US
        if not self._adds_itself:
            self._send_offsets(self.cluster.transactions.next_offset(self.transactional_id), give_up_us)
            return
        request = AddOffsetsToTxnRequest(
            transactional_id=self.transactional_id,
            producer_id=self._producer[0],
            producer_epoch=self._producer[1],
            group_id=self.group,
        )

        def took(_response: Any) -> None:
            self._send_offsets(self.cluster.transactions.next_offset(self.transactional_id), give_up_us)

        self._ask_coordinator(
            TRANSACTION, request, 3, _top_error, took, self._commit_offsets,
            lambda code: self._stop_trying(code, give_up_us),
        )  # fmt: skip

    def _send_offsets(self, offset: int, give_up_us: int) -> None:
        transaction = self._transaction
        assert transaction is not None
        partition = TxnOffsetCommitRequestPartition(partition_index=0, committed_offset=offset)
        request = TxnOffsetCommitRequest(
            transactional_id=self.transactional_id,
            group_id=self.group,
            producer_id=self._producer[0],
            producer_epoch=self._producer[1],
            topics=[TxnOffsetCommitRequestTopic(name=self.topics[0], partitions=[partition])],
        )

        def took(_response: Any) -> None:
            transaction.offset = offset
            self._next()

        self._ask_coordinator(
            GROUP, request, 3 if self._adds_itself else 5, _offset_error, took,
            lambda: self._send_offsets(offset, give_up_us), lambda code: self._stop_trying(code, give_up_us),
        )  # fmt: skip

    # -- the end -------------------------------------------------------------------------------------------------

    def _end_transaction(self, commit: bool, *, doubts: bool = False) -> None:
        """Asked until it is answered. `doubts`: an earlier try may have been carried out."""
        assert self._transaction is not None
        if commit:
            self._transaction.end = End.UNKNOWN
        request = EndTxnRequest(
            transactional_id=self.transactional_id,
            producer_id=self._producer[0],
            producer_epoch=self._producer[1],
            committed=commit,
        )
        doubtful = doubts

        def took(response: Any) -> None:
            self._end(End.COMMITTED if commit else End.ABORTED)
            self.done |= self._last_one and commit
            if not self._adds_itself and response.producer_id >= 0:
                self._set_producer(response.producer_id, response.producer_epoch)
            self._again(self._init if self._adds_itself and self._in_doubt else self._begin, 1, 150)

        def refused(code: ErrorCode) -> bool:
            nonlocal doubtful
            if code in _FENCED:
                self._die(f"fenced: {code.name}", End.UNKNOWN if commit and doubtful else End.ABORTED)
                return True
            doubtful |= code not in _NOT_DONE
            return False

        self._ask_coordinator(
            TRANSACTION, request, 3 if self._adds_itself else 5, _top_error, took,
            lambda: self._end_transaction(commit, doubts=doubtful), refused,
        )  # fmt: skip


def _top_error(response: Any) -> ErrorCode:
    return error_of(response.error_code)


def _offset_error(response: Any) -> ErrorCode:
    return error_of(response.topics[0].partitions[0].error_code)
