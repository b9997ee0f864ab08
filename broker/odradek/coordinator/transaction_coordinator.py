"""The transaction coordinator as the broker sees it: one method per API. What loads its partitions calls its `runtime`.

Requests and responses are the generated messages; `done(response)` is called once, at once or later. What Kafka checks
before it looks at a transactional id is checked here; the rules are in `transaction/decisions.py`; what they decide is
written and then replayed by `CoordinatorRuntime`, in the shard of the id's partition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar

from odradek.coordinator.errors import client_error
from odradek.coordinator.partitioning import partition_for
from odradek.coordinator.runtime import CoordinatorRuntime, EventLog, NullLog, Outcome, PartitionWriter
from odradek.coordinator.transaction import decisions
from odradek.coordinator.transaction.add_partitions import AddPartitions
from odradek.coordinator.transaction.admin import Filter, describe, list_transactions
from odradek.coordinator.transaction.config import TransactionConfig
from odradek.coordinator.transaction.decisions import Decision, NeedsProducerId
from odradek.coordinator.transaction.ports import Markers, ProducerIds, TopicPartitions
from odradek.coordinator.transaction.shard import TransactionShard
from odradek.coordinator.transaction.state import (
    NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID,
    ONGOING,
    PREPARED,
    TopicPartition,
    Transaction,
)
from odradek.ports.clock import Clock
from odradek.ports.timers import TimerQueue
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.add_offsets_to_txn import AddOffsetsToTxnRequest, AddOffsetsToTxnResponse
from odradek.wire.messages.add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse,
)
from odradek.wire.messages.describe_transactions import (
    DescribeTransactionsRequest,
    DescribeTransactionsResponse,
)
from odradek.wire.messages.describe_transactions import TransactionState as Described
from odradek.wire.messages.end_txn import EndTxnRequest, EndTxnResponse
from odradek.wire.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from odradek.wire.messages.list_transactions import ListTransactionsRequest, ListTransactionsResponse

R = TypeVar("R")
Decide: TypeAlias = Callable[[Transaction | None, bool, int | None], Decision]
"""(what is committed of the id, whether more is on its way, a fresh producer id) → what it becomes."""

END_BUMPS_FROM = 5
"""The version of EndTxn that bumps the epoch and tells it (KIP-890)."""
FENCED_KNOWN_FROM = {"init": 4, "add": 2, "end": 2}
"""Before these versions clients do not know PRODUCER_FENCED: they are told INVALID_PRODUCER_EPOCH (KIP-588)."""
LOG_VERSION = 1
HOLD_MS = 50
"""How long a request for the next transaction waits for the end of the last one (its markers are being written)."""

__all__ = ["TransactionConfig", "TransactionCoordinator"]


class TransactionCoordinator:
    """See the module. All times are the clock's; all calls come from one thread."""

    def __init__(
        self,
        config: TransactionConfig,
        timers: TimerQueue,
        clock: Clock,
        writer: PartitionWriter,
        partition_count: int,
        *,
        producer_ids: ProducerIds,
        markers: Markers,
        topics: TopicPartitions,
        offsets_partition_for: Callable[[str], TopicPartition],
        transaction_version: Callable[[], int],
        log: EventLog | None = None,
        on_failed: Callable[[int], None] | None = None,
    ) -> None:
        """`offsets_partition_for(group)`: where its offsets are. `transaction_version()`: the finalized level.
        `on_failed(partition)`: a write was lost, the partition must be loaded again.
        """
        self.config = config
        self.timers = timers
        self.clock = clock
        self.partition_count = partition_count
        self.markers = markers
        self.topics = topics
        self.log: EventLog = log or NullLog()
        self._producer_ids = producer_ids
        self._offsets_partition_for = offsets_partition_for
        self._transaction_version = transaction_version
        self.runtime: CoordinatorRuntime[TransactionShard] = CoordinatorRuntime(
            lambda partition: TransactionShard(partition, self),
            writer,
            timers,
            clock,
            write_timeout_ms=config.write_timeout_ms,
            log=self.log,
            on_failed=on_failed,
        )

    # -- partitions ----------------------------------------------------------------------------------------------

    def partition_for(self, transactional_id: str) -> int:
        """The partition of `__transaction_state` that an id belongs to, whoever leads it."""
        return partition_for(transactional_id, self.partition_count)

    # -- producers -----------------------------------------------------------------------------------------------

    def init_producer_id(
        self, version: int, request: InitProducerIdRequest, done: Callable[[InitProducerIdResponse], None]
    ) -> None:
        """Answered when the record of the id is committed; without a transactional id, at once."""
        transactional_id = request.transactional_id
        timeout_ms = request.transaction_timeout_ms

        def failed(code: ErrorCode) -> None:
            error = _older(code, version, "init")
            done(InitProducerIdResponse(0, error, NO_PRODUCER_ID, NO_PRODUCER_EPOCH))

        def changed(known: Transaction) -> None:
            if known.state in PREPARED:
                failed(ErrorCode.CONCURRENT_TRANSACTIONS)  # what was open is ended first: come again
            else:
                done(InitProducerIdResponse(0, 0, known.producer_id, known.producer_epoch))

        expected: tuple[int, int] | None = (request.producer_id, request.producer_epoch)
        if expected == (NO_PRODUCER_ID, NO_PRODUCER_EPOCH):
            expected = None
        elif request.producer_id == NO_PRODUCER_ID or request.producer_epoch == NO_PRODUCER_EPOCH:
            failed(ErrorCode.INVALID_REQUEST)
            return
        if transactional_id is None:
            self._producer_ids.next(partial(_idempotent, done))
            return
        if not transactional_id:
            failed(ErrorCode.INVALID_REQUEST)
            return
        if not 0 < timeout_ms <= self.config.max_timeout_ms:
            failed(ErrorCode.INVALID_TRANSACTION_TIMEOUT)
            return

        def decide(known: Transaction | None, pending: bool, fresh: int | None) -> Decision:
            level = self._transaction_version()
            now_ms = self.clock.wall_ms()
            return decisions.init_producer_id(known, pending, expected, timeout_ms, level, now_ms, fresh)

        self._change(transactional_id, decide, changed, failed)

    # -- transactions --------------------------------------------------------------------------------------------

    def add_partitions_to_txn(
        self,
        version: int,
        request: AddPartitionsToTxnRequest,
        done: Callable[[AddPartitionsToTxnResponse], None],
    ) -> None:
        """Several transactions at once from version 4 on, which only brokers send. See `add_partitions.py`."""
        AddPartitions(self, version, request, done).run()

    def add_partitions(
        self,
        transactional_id: str,
        producer_id: int,
        producer_epoch: int,
        partitions: Sequence[TopicPartition],
        client_version: int,
        done: Callable[[ErrorCode], None],
        hold_ms: int = HOLD_MS,
    ) -> None:
        """One transaction's. Nothing is asked of the partitions. `hold_ms`: how long the end of the producer's last
        transaction is waited for before it is told to come again.
        """
        if not transactional_id:
            done(ErrorCode.INVALID_REQUEST)
            return

        def decide(known: Transaction | None, pending: bool, fresh: int | None) -> Decision:
            return decisions.add_partitions(
                known,
                pending,
                producer_id,
                producer_epoch,
                partitions,
                client_version,
                self.clock.wall_ms(),
            )

        self._change(transactional_id, decide, lambda _: done(ErrorCode.NONE), done, hold_ms=hold_ms)

    def verify_partitions(
        self,
        transactional_id: str,
        producer_id: int,
        producer_epoch: int,
        partitions: Sequence[TopicPartition],
    ) -> dict[TopicPartition, ErrorCode]:
        """Whether they are in the transaction (KIP-890), at once."""
        if not transactional_id:
            return dict.fromkeys(partitions, ErrorCode.INVALID_REQUEST)
        index = self.partition_for(transactional_id)
        error = client_error(self.runtime.error_of(index))
        if error is ErrorCode.NONE:
            known = self.runtime.read(index).known(transactional_id)
            error = decisions.verify(known, producer_id, producer_epoch)
            if error is ErrorCode.NONE and known is not None:
                added = known.partitions
                return {
                    each: ErrorCode.NONE if each in added else ErrorCode.TRANSACTION_ABORTABLE
                    for each in partitions
                }
        return dict.fromkeys(partitions, error)

    def add_offsets_to_txn(
        self,
        version: int,
        request: AddOffsetsToTxnRequest,
        done: Callable[[AddOffsetsToTxnResponse], None],
    ) -> None:
        """The group's partition of `__consumer_offsets` joins the transaction."""
        self.add_partitions(
            request.transactional_id,
            request.producer_id,
            request.producer_epoch,
            [self._offsets_partition_for(request.group_id)],
            0,
            lambda code: done(AddOffsetsToTxnResponse(0, _older(code, version, "add"))),
        )

    def end_txn(self, version: int, request: EndTxnRequest, done: Callable[[EndTxnResponse], None]) -> None:
        """Answered when it is certain how the transaction ends; the markers follow."""
        transactional_id = request.transactional_id
        producer_id, epoch, commit = request.producer_id, request.producer_epoch, request.committed
        bumps = version >= END_BUMPS_FROM

        def changed(prepared: Transaction) -> None:
            if bumps:
                then = decisions.complete(prepared, 0)
                done(EndTxnResponse(0, 0, then.producer_id, then.producer_epoch))
            else:
                done(EndTxnResponse())

        def refused(code: ErrorCode) -> None:
            if code is ErrorCode.NONE and bumps:
                # It has ended before, just so: a repeated request gets the id and epoch again.
                known = self.runtime.read(self.partition_for(transactional_id)).known(transactional_id)
                assert known is not None
                done(EndTxnResponse(0, 0, known.producer_id, known.producer_epoch))
            else:
                done(EndTxnResponse(0, _older(code, version, "end")))

        def decide(known: Transaction | None, pending: bool, fresh: int | None) -> Decision:
            now_ms = self.clock.wall_ms()
            if bumps:
                return decisions.end_transaction_and_bump(
                    known, pending, producer_id, epoch, commit, now_ms, fresh
                )
            return decisions.end_transaction(known, pending, producer_id, epoch, commit, now_ms)

        if not transactional_id:
            refused(ErrorCode.INVALID_REQUEST)
            return
        self._change(transactional_id, decide, changed, refused)

    # -- seen from outside ---------------------------------------------------------------------------------------

    def describe_transactions(
        self,
        version: int,
        request: DescribeTransactionsRequest,
        done: Callable[[DescribeTransactionsResponse], None],
    ) -> None:
        """At once; an id asked for twice is answered once: its answer may be a thousand times as long."""
        states = [self._describe(each) for each in dict.fromkeys(request.transactional_ids)]
        done(DescribeTransactionsResponse(transaction_states=states))

    def _describe(self, transactional_id: str) -> Described:
        index = self.partition_for(transactional_id)
        error = client_error(self.runtime.error_of(index)) if transactional_id else ErrorCode.INVALID_REQUEST
        if error is not ErrorCode.NONE:
            return Described(error_code=error, transactional_id=transactional_id)
        return describe(self.runtime.read(index), transactional_id)

    def list_transactions(
        self,
        version: int,
        request: ListTransactionsRequest,
        done: Callable[[ListTransactionsResponse], None],
    ) -> None:
        """Those of the partitions led here, at once; an error without any while one of them loads."""
        try:
            wanted, unknown = Filter.of(request)
        except KafkaError as error:
            done(ListTransactionsResponse(error_code=error.code))
            return
        response = ListTransactionsResponse(unknown_state_filters=unknown)
        wall_ms = self.clock.wall_ms()
        for index in self.runtime.partitions():
            code = self.runtime.error_of(index)
            if code is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS:
                done(ListTransactionsResponse(error_code=code))
                return
            if code is ErrorCode.NONE:
                shard = self.runtime.read(index)
                response.transaction_states += list_transactions(shard, wanted, wall_ms)
        done(response)

    # -- for the shards (ShardHost) ------------------------------------------------------------------------------

    def answer(self, done: Callable[[R], None], response: R) -> None:
        self.runtime.answer(done, response)

    def coordinator_epoch(self, partition: int) -> int:
        return self.runtime.epoch_of(partition)

    def log_version(self) -> int:
        return LOG_VERSION if self._transaction_version() >= 1 else 0

    def write(
        self,
        partition: int,
        operation: Callable[[Any], Outcome[None]],
        failed: Callable[[ErrorCode], None],
    ) -> None:
        self.runtime.write(partition, operation, _ignore, failed)

    def abort_timed_out(self, partition: int, transactional_id: str) -> None:
        def decide(known: Transaction | None, pending: bool, fresh: int | None) -> Decision:
            if known is None or pending or known.state is not ONGOING:
                return ErrorCode.CONCURRENT_TRANSACTIONS
            return decisions.fence(known, self._transaction_version(), self.clock.wall_ms(), fresh)

        def changed(_: Transaction) -> None:
            self.log.limited_info("aborted a transaction past its timeout", transactional_id=transactional_id)

        self._change(transactional_id, decide, changed, _ignore)

    # -- inside --------------------------------------------------------------------------------------------------

    def _change(
        self,
        transactional_id: str,
        decide: Decide,
        changed: Callable[[Transaction], None],
        refused: Callable[[ErrorCode], None],
        fresh: int | None = None,
        hold_ms: int = 0,
    ) -> None:
        """Decide, write, and then `changed` with what the id has become; or `refused`, also with NONE where nothing
        is to be done."""
        index = self.partition_for(transactional_id)
        error = self.runtime.error_of(index)
        if error is not ErrorCode.NONE:
            refused(client_error(error))
            return
        shard = self.runtime.read(index)
        try:
            decided = decide(shard.known(transactional_id), shard.is_pending(transactional_id), fresh)
        except NeedsProducerId:

            def allocated(code: ErrorCode, producer_id: int) -> None:
                if code is not ErrorCode.NONE:
                    refused(code)
                else:
                    self._change(transactional_id, decide, changed, refused, producer_id)

            self._producer_ids.next(allocated)
            return
        if isinstance(decided, ErrorCode):
            again = partial(self._change, transactional_id, decide, changed, refused, fresh)
            if not (
                decided is ErrorCode.CONCURRENT_TRANSACTIONS
                and hold_ms
                and shard.hold(transactional_id, hold_ms, again)
            ):
                refused(decided)
            return
        outcome = Outcome(decided, [shard.record(transactional_id, decided)])
        if decided.state in PREPARED:
            outcome.written = partial(shard.prepared, transactional_id, decided)
        self.runtime.write(index, lambda _: outcome, changed, lambda code: refused(client_error(code)))


def _older(code: ErrorCode, version: int, api: str) -> ErrorCode:
    if code is ErrorCode.PRODUCER_FENCED and version < FENCED_KNOWN_FROM[api]:
        return ErrorCode.INVALID_PRODUCER_EPOCH
    return code


def _idempotent(done: Callable[[InitProducerIdResponse], None], code: ErrorCode, producer_id: int) -> None:
    epoch = 0 if code is ErrorCode.NONE else NO_PRODUCER_EPOCH
    done(InitProducerIdResponse(0, code, producer_id, epoch))


def _ignore(_: object) -> None:
    """Nobody asked."""
