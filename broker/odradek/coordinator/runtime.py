"""The engine under every coordinator: one deterministic state machine per partition of an internal topic.

An operation looks at the state and decides: records to write, and a response. The records are replayed into the
state and appended to the log in one step; the response leaves when they are committed, in log order, and not before
everything that the operation has seen is committed too. Loading a partition is the same replay. Groups
(`__consumer_offsets`) and transactions (`__transaction_state`) bring their own shard, the state machine of one
partition; this file knows nothing of either.

    load_begin ──► LOADING ──load_end──► ACTIVE ──unload──► gone
                      └──damaged record──► FAILED ◄──lost write──┘      (FAILED: until unload or another load)

    LOADING  COORDINATOR_LOAD_IN_PROGRESS        FAILED, gone  NOT_COORDINATOR

A leader epoch fences: an older load or unload is ignored, and so is a write that completes after its partition was
unloaded. A failed write is one of three things, see `PartitionWriter`.

Answers are handed out only when the state machine is at rest, so a client that calls back at once (the simulator
does) never meets a half-done step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from odradek.coordinator.errors import UNKNOWN_FATE
from odradek.coordinator.timeline import IDLE, Timeline
from odradek.ports.clock import Clock
from odradek.ports.timers import Timer, TimerQueue
from odradek.wire.errors import ErrorCode, KafkaError

R = TypeVar("R")
S = TypeVar("S", bound="Shard")

WAITERS_MAX = 100_000
"""Answers that may wait for one partition's commits; beyond it requests are refused (COORDINATOR_NOT_AVAILABLE)."""


class Record(Protocol):
    """One decoded record of the internal topic."""

    def encode(self) -> tuple[bytes, bytes | None]:
        """Key and value as they stand in the log; a None value is a tombstone."""
        ...


class Shard(Protocol):
    """The state machine of one partition."""

    timeline: Timeline

    def load(self, key: bytes, value: bytes | None) -> None:
        """Replay one record of the log; ValueError if it is damaged."""
        ...

    def replay(self, record: Any) -> None:
        """Apply one record to the durable state: the only thing that changes it, but for those of transactions."""
        ...

    def on_loaded(self) -> None:
        """The log is replayed: set timers."""
        ...

    def on_unloaded(self) -> None:
        """Cancel timers, answer whoever waits with NOT_COORDINATOR."""
        ...

    def load_transactional(
        self, producer_id: int, producer_epoch: int, key: bytes, value: bytes | None
    ) -> None:
        """Replay one record of a transaction; ValueError if it is damaged."""
        ...

    def replay_transactional(self, producer_id: int, producer_epoch: int, record: Any) -> None:
        """Keep a record until the end of its transaction."""
        ...

    def replay_marker(self, producer_id: int, producer_epoch: int, commit: bool) -> None:
        """The end of a transaction: apply what it wrote, or forget it."""
        ...


class Producer(NamedTuple):
    """Whose transaction something is part of."""

    id: int
    epoch: int


class Marker(NamedTuple):
    """The end of a transaction in one partition."""

    producer: Producer
    coordinator_epoch: int
    commit: bool
    transaction_version: int = 0
    """From 2 on its epoch must be above that of the transaction (KIP-890)."""


class PartitionWriter(Protocol):
    """The log of the internal topic."""

    def append(
        self, partition: int, records: list[tuple[bytes, bytes | None]], done: Callable[[int], None]
    ) -> None:
        """Append one batch; `done(error code)`, in the order of the appends, when it is committed or failed.

        An error reported before `append` returns means that nothing was written: the state goes back. Later,
        REQUEST_TIMED_OUT and NOT_ENOUGH_REPLICAS_AFTER_APPEND mean that it is written and may yet be committed: the
        state stands, and `done` is called once more, without error, if it is; a later success covers it as well. Any
        other late error means that log and state may differ: the partition fails until it is loaded again.
        """
        ...

    def append_transactional(
        self,
        partition: int,
        producer_id: int,
        producer_epoch: int,
        records: list[tuple[bytes, bytes | None]],
        done: Callable[[int], None],
    ) -> None:
        """The same, as a batch of a transaction. Asked only by topics that take part in transactions."""
        ...

    def append_marker(self, partition: int, marker: Marker, done: Callable[[int], None]) -> None:
        """The same, of the marker that ends a transaction."""
        ...


class EventLog(Protocol):
    """Where the coordinators tell what they do. What clients cause as often as they like is `limited`."""

    def debug(self, event: str, **fields: Any) -> Any: ...

    def limited_info(self, event: str, **fields: Any) -> Any: ...

    def warning(self, event: str, **fields: Any) -> Any: ...


class NullLog:
    """Tells nobody."""

    def debug(self, event: str, **fields: Any) -> None: ...

    def limited_info(self, event: str, **fields: Any) -> None: ...

    def warning(self, event: str, **fields: Any) -> None: ...


@dataclass(slots=True)
class Outcome(Generic[R]):
    """What an operation decided."""

    response: R
    records: list[Any] = field(default_factory=list)
    replay: bool = True
    """False where the operation has changed the (volatile) state itself and the records only keep it."""
    written: Callable[[ErrorCode], None] | None = None
    """A step of the state machine to run when the records are committed or failed, before the answer leaves."""
    transaction: Producer | None = None
    """The records are pending until the marker of this producer comes."""
    marker: Marker | None = None
    """In place of records: a transaction ends."""


class PartitionState(Enum):
    LOADING = "loading"
    ACTIVE = "active"
    FAILED = "failed"


@dataclass(slots=True)
class _Waiter:
    """An answer that waits until `write` is committed."""

    write: int
    deadline_ms: int
    complete: Callable[[], None]
    failed: Callable[[ErrorCode], None]
    written: Callable[[ErrorCode], None] | None


@dataclass(slots=True)
class _Partition(Generic[S]):
    index: int
    epoch: int
    shard: S
    state: PartitionState = PartitionState.LOADING
    last_write: int = 0
    """Number of the newest write handed to the log; writes are numbered from 1 after each load."""
    committed: int = 0
    appending: int = 0
    """The write that is inside `PartitionWriter.append` right now, else 0."""
    waiters: deque[_Waiter] = field(default_factory=deque)
    """In log order, and so in the order of their deadlines."""
    timeout: Timer | None = None
    damage: str | None = None


class CoordinatorRuntime(Generic[S]):
    """See the module."""

    def __init__(
        self,
        make_shard: Callable[[int], S],
        writer: PartitionWriter,
        timers: TimerQueue,
        clock: Clock,
        *,
        write_timeout_ms: int,
        log: EventLog | None = None,
        on_failed: Callable[[int], None] | None = None,
    ) -> None:
        """`on_failed(partition)` tells the owner that a partition has to be loaded again to serve."""
        self._make_shard = make_shard
        self._writer = writer
        self._timers = timers
        self._clock = clock
        self._write_timeout_ms = write_timeout_ms
        self._log: EventLog = log or NullLog()
        self._on_failed = on_failed
        self.is_coming: Callable[[int], bool] = _nothing_is_coming
        """Whether this broker leads a partition already that it has not begun to load: its clients need not look for
        another coordinator, which there is not.
        """
        self.in_doubt: Callable[[], bool] = _never
        """Whether another broker may lead by now what this one believes to lead: its process did not run for a while.
        Until that is settled nothing is told of a state that may be of the past, and nothing is decided on it, by
        timers neither; then the owner loads everything again.
        """
        self.must_prove: Callable[[], bool] = _never
        """Whether no controller has been heard for so long that one may have named another leader: before anything is
        told of the state as it is, the replicas have to confirm a record, which they do for their leader only.
        """
        self._partitions: dict[int, _Partition[S]] = {}
        self._answers: deque[Callable[[], None]] = deque()
        self._depth = 0

    # -- loading -------------------------------------------------------------------------------------------------

    def load_begin(self, partition: int, epoch: int) -> bool:
        """This broker leads `partition` from `epoch` on; whether its records have to be fed in (`load_record`).

        Not so when the epoch is an old one, or when the partition is active: its log has not changed hands. A
        failed partition may be loaded again in the same epoch.
        """
        current = self._partitions.get(partition)
        if current is not None:
            failed = current.state is PartitionState.FAILED
            if epoch < current.epoch or (epoch == current.epoch and not failed):
                return False
            if current.state is PartitionState.ACTIVE:
                current.epoch = epoch
                return False
            self._close(current)
        self._partitions[partition] = _Partition(partition, epoch, self._make_shard(partition))
        self._log.debug("loading", partition=partition, epoch=epoch)
        return True

    def load_record(self, partition: int, key: bytes, value: bytes | None) -> None:
        """Replay the next record of the log; ignored unless the partition is loading."""
        context = self._partitions.get(partition)
        if context is None or context.state is not PartitionState.LOADING or context.damage is not None:
            return
        try:
            context.shard.load(key, value)
        except ValueError as error:
            context.damage = str(error)

    def load_transactional_record(
        self, partition: int, producer_id: int, producer_epoch: int, key: bytes, value: bytes | None
    ) -> None:
        """The same for a record of a transaction."""
        context = self._partitions.get(partition)
        if context is None or context.state is not PartitionState.LOADING or context.damage is not None:
            return
        try:
            context.shard.load_transactional(producer_id, producer_epoch, key, value)
        except ValueError as error:
            context.damage = str(error)

    def load_marker(self, partition: int, producer_id: int, producer_epoch: int, commit: bool) -> None:
        """The same for the end of a transaction."""
        context = self._partitions.get(partition)
        if context is not None and context.state is PartitionState.LOADING and context.damage is None:
            context.shard.replay_marker(producer_id, producer_epoch, commit)

    def load_end(self, partition: int) -> None:
        """The log is read to its end: serve."""
        context = self._partitions.get(partition)
        if context is None or context.state is not PartitionState.LOADING:
            return
        if context.damage is not None:
            self._log.warning("load failed", partition=partition, reason=context.damage)
            context.state = PartitionState.FAILED
            return
        context.state = PartitionState.ACTIVE
        context.shard.timeline.writing = IDLE
        self._log.debug("loaded", partition=partition, epoch=context.epoch)
        self._enter()
        context.shard.on_loaded()
        self._leave()

    def unload(self, partition: int, epoch: int | None = None) -> None:
        """This broker leads `partition` no more (from `epoch` on: an older notice than the last load is ignored)."""
        context = self._partitions.get(partition)
        if context is None or (epoch is not None and epoch <= context.epoch):
            return
        del self._partitions[partition]
        self._enter()
        self._close(context)
        self._leave()
        self._log.debug("unloaded", partition=partition, epoch=context.epoch)

    # -- operations ----------------------------------------------------------------------------------------------

    def error_of(self, partition: int) -> ErrorCode:
        """Why the partition cannot serve, or NONE."""
        context = self._partitions.get(partition)
        if context is None and self.is_coming(partition):
            return ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        if context is None or context.state is PartitionState.FAILED:
            return ErrorCode.NOT_COORDINATOR
        if context.state is PartitionState.LOADING or self.in_doubt():
            return ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        return ErrorCode.NONE

    def write(
        self,
        partition: int,
        operation: Callable[[S], Outcome[R]],
        done: Callable[[R], None],
        failed: Callable[[ErrorCode], None],
    ) -> None:
        """Run `operation` on the partition's latest state; answer when all it has seen and written is committed."""
        error = self.error_of(partition)
        if error is not ErrorCode.NONE:
            failed(error)
            return
        context = self._partitions[partition]
        if len(context.waiters) >= WAITERS_MAX:
            failed(ErrorCode.COORDINATOR_NOT_AVAILABLE)
            return
        self._enter()
        try:
            self._run(context, operation, done, failed)
        finally:
            self._leave()

    def complete_transaction(
        self,
        partition: int,
        marker: Marker,
        done: Callable[[None], None],
        failed: Callable[[ErrorCode], None],
    ) -> None:
        """Write the marker that ends a producer's transaction here, and apply or forget what the transaction wrote."""
        self.write(partition, lambda _shard: Outcome(None, marker=marker), done, failed)

    def read(self, partition: int) -> S:
        """The shard, for looking at its committed state at once. KafkaError if the partition cannot serve."""
        error = self.error_of(partition)
        if error is not ErrorCode.NONE:
            raise KafkaError(error)
        return self._partitions[partition].shard

    def partitions(self) -> list[int]:
        """The partitions that are led here, loading ones included, in order."""
        return sorted(self._partitions)

    def epoch_of(self, partition: int) -> int:
        """The leader epoch in which this broker leads the partition."""
        return self._partitions[partition].epoch

    def answer(self, done: Callable[[R], None], response: R) -> None:
        """Hand out an answer once the state machine is at rest."""
        self._enter()
        self._answers.append(partial(done, response))
        self._leave()

    # -- inside --------------------------------------------------------------------------------------------------

    def _run(
        self,
        context: _Partition[S],
        operation: Callable[[S], Outcome[R]],
        done: Callable[[R], None],
        failed: Callable[[ErrorCode], None],
    ) -> None:
        shard = context.shard
        timeline = shard.timeline
        write = context.last_write + 1
        timeline.writing = write
        try:
            outcome = operation(shard)
            if outcome.replay:
                _replay(shard, outcome)
        except KafkaError as error:
            timeline.revert(write)
            self._answers.append(partial(failed, error.code))
            return
        except BaseException:
            timeline.revert(write)
            raise
        finally:
            timeline.writing = IDLE
        complete: Callable[[], None] = partial(done, outcome.response)
        if outcome.records or outcome.marker is not None:
            self._append(context, write, outcome, complete, failed)
            return
        assert not timeline.touched(write), "state changed without a record"
        if context.committed == context.last_write:
            self._answers.append(complete)
        else:
            context.waiters.append(
                _Waiter(context.last_write, self._deadline(), complete, failed, outcome.written)
            )
            self._arm_timeout(context)

    def _append(
        self,
        context: _Partition[S],
        write: int,
        outcome: Outcome[R],
        complete: Callable[[], None],
        failed: Callable[[ErrorCode], None],
    ) -> None:
        context.last_write = write
        context.waiters.append(_Waiter(write, self._deadline(), complete, failed, outcome.written))
        context.appending = write
        try:
            records = [record.encode() for record in outcome.records]
        except ValueError:
            # A string or count beyond what the format can hold: nobody's log will ever take it.
            self._written(context, write, ErrorCode.UNKNOWN_SERVER_ERROR)
        else:
            self._hand_over(context.index, records, outcome, partial(self._written, context, write))
        context.appending = 0
        if context.waiters:
            self._arm_timeout(context)

    def _hand_over(
        self,
        partition: int,
        records: list[tuple[bytes, bytes | None]],
        outcome: Outcome[R],
        written: Callable[[int], None],
    ) -> None:
        marker, transaction = outcome.marker, outcome.transaction
        if marker is not None:
            assert not records, "a marker is a batch of its own"
            self._writer.append_marker(partition, marker, written)
        elif transaction is not None:
            self._writer.append_transactional(partition, *transaction, records, written)
        else:
            self._writer.append(partition, records, written)

    def _written(self, context: _Partition[S], write: int, code: int) -> None:
        """The log's verdict on one write."""
        if self._partitions.get(context.index) is not context or context.state is not PartitionState.ACTIVE:
            return
        error = ErrorCode(code)
        self._enter()
        try:
            if error is ErrorCode.NONE:
                self._commit(context, write)
            elif context.appending == write:
                context.shard.timeline.revert(write)
                context.last_write = write - 1
                self._fail_waiter(context.waiters.pop(), error)
            elif error in UNKNOWN_FATE:
                self._give_up(context, lambda waiter: waiter.write <= write, error)
            else:
                self._log.warning("write lost", partition=context.index, error=error.name)
                self._close(context)
                context.state = PartitionState.FAILED
                if self._on_failed is not None:
                    self._answers.append(partial(self._on_failed, context.index))
        finally:
            self._leave()

    def _commit(self, context: _Partition[S], write: int) -> None:
        context.committed = max(context.committed, write)
        context.shard.timeline.commit(write)
        waiters = context.waiters
        while waiters and waiters[0].write <= write:
            waiter = waiters.popleft()
            if waiter.written is not None:
                waiter.written(ErrorCode.NONE)
            self._answers.append(waiter.complete)

    def _give_up(self, context: _Partition[S], expired: Callable[[_Waiter], bool], error: ErrorCode) -> None:
        """Answer the oldest waiters without knowing what becomes of their records."""
        while context.waiters and expired(context.waiters[0]):
            self._fail_waiter(context.waiters.popleft(), error)

    def _fail_waiter(self, waiter: _Waiter, error: ErrorCode) -> None:
        if waiter.written is not None:
            waiter.written(error)
        self._answers.append(partial(waiter.failed, error))

    def _close(self, context: _Partition[S]) -> None:
        if context.timeout is not None:
            context.timeout.cancel()
            context.timeout = None
        while context.waiters:
            # Not `written`: the state machine ends here, and on_unloaded answers whoever waits inside it.
            self._answers.append(partial(context.waiters.popleft().failed, ErrorCode.NOT_COORDINATOR))
        if context.state is PartitionState.ACTIVE:
            context.shard.on_unloaded()

    def _deadline(self) -> int:
        return self._clock.monotonic_ms() + self._write_timeout_ms

    def _arm_timeout(self, context: _Partition[S]) -> None:
        if context.timeout is None:
            context.timeout = self._timers.at(
                context.waiters[0].deadline_ms, partial(self._on_timeout, context)
            )

    def _on_timeout(self, context: _Partition[S], now_ms: int) -> None:
        context.timeout = None
        self._enter()
        self._give_up(context, lambda waiter: waiter.deadline_ms <= now_ms, ErrorCode.REQUEST_TIMED_OUT)
        if context.waiters:
            self._arm_timeout(context)
        self._leave()

    def _enter(self) -> None:
        self._depth += 1

    def _leave(self) -> None:
        """At rest again: hand out the answers. Who calls back from one finds the depth taken, and queues."""
        try:
            while self._depth == 1 and self._answers:
                self._answers.popleft()()
        finally:
            self._depth -= 1


def _replay(shard: Shard, outcome: Outcome[Any]) -> None:
    if outcome.marker is not None:
        shard.replay_marker(*outcome.marker.producer, outcome.marker.commit)
    elif outcome.transaction is not None:
        for record in outcome.records:
            shard.replay_transactional(*outcome.transaction, record)
    else:
        for record in outcome.records:
            shard.replay(record)


def _never() -> bool:
    return False


def _nothing_is_coming(_partition: int) -> bool:
    return False
