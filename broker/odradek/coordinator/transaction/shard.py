"""The transactional ids of one partition of `__transaction_state`: replay, and the searches by time.

Durable state is one timeline dictionary. Beside it stand two things that only its coordinator has: until when each open
transaction may go on, and the transactions whose markers are being written (`completion.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any, Protocol, TypeVar

from odradek.coordinator.runtime import EventLog, Outcome
from odradek.coordinator.timeline import REPLAYING, Timeline, TimelineDict
from odradek.coordinator.transaction.completion import Completion
from odradek.coordinator.transaction.config import TransactionConfig
from odradek.coordinator.transaction.ports import Markers, TopicPartitions
from odradek.coordinator.transaction.records import TransactionRecord, decode
from odradek.coordinator.transaction.state import (
    ONGOING,
    PREPARED,
    RESTING,
    TWO_PHASE_TIMEOUT_MS,
    Transaction,
)
from odradek.ports.clock import Clock
from odradek.ports.timers import Timer, TimerQueue
from odradek.wire.errors import ErrorCode

R = TypeVar("R")

TOMBSTONES_MAX = 1_000
"""Tombstones written in one batch; more follow when it is committed."""
SWEEP_STAGGER_MS = 100
"""Partitions loaded together are not searched together: each search is a pause of the event loop."""


class ShardHost(Protocol):
    """What the coordinator does for every shard."""

    config: TransactionConfig
    timers: TimerQueue
    clock: Clock
    log: EventLog
    markers: Markers
    topics: TopicPartitions

    def answer(self, done: Callable[[R], None], response: R) -> None:
        """Once the state machine is at rest."""
        ...

    def coordinator_epoch(self, partition: int) -> int:
        """The leader epoch that this broker leads the partition of `__transaction_state` in."""
        ...

    def write(
        self,
        partition: int,
        operation: Callable[[Any], Outcome[None]],
        failed: Callable[[ErrorCode], None],
    ) -> None:
        """Run an operation that no request asked for."""
        ...

    def abort_timed_out(self, partition: int, transactional_id: str) -> None: ...

    def log_version(self) -> int:
        """The version of values in the log that the cluster's transaction.version allows."""
        ...


class TransactionShard:
    """See the module. The runtime calls `load` to `on_unloaded`."""

    def __init__(self, partition: int, host: ShardHost) -> None:
        self.partition = partition
        self.host = host
        self.timeline = Timeline()
        self.transactions: TimelineDict[str, Transaction] = TimelineDict(self.timeline)
        self.deadlines: dict[str, int] = {}
        """Monotonic ms until which a transaction may be open. Entries of ended ones go with the next search."""
        self.completions: dict[str, Completion] = {}
        self._held: dict[str, tuple[Timer, Callable[[], None]]] = {}
        """Requests that wait for the end of a transaction, one for each id at most."""
        self._timers: list[Timer] = []

    # -- durable state -------------------------------------------------------------------------------------------

    def load(self, key: bytes, value: bytes | None) -> None:
        record = decode(key, value)
        if record is not None:
            self.replay(record)

    def load_transactional(
        self, producer_id: int, producer_epoch: int, key: bytes, value: bytes | None
    ) -> None:
        """Nobody writes those into this topic; Kafka reads them like any other."""
        self.load(key, value)

    def replay_transactional(self, producer_id: int, producer_epoch: int, record: TransactionRecord) -> None:
        self.replay(record)

    def replay_marker(self, producer_id: int, producer_epoch: int, commit: bool) -> None:
        """Nobody writes those into this topic."""

    def replay(self, record: TransactionRecord) -> None:
        transactional_id, value = record.transactional_id, record.value
        if value is None:
            self.transactions.remove(transactional_id)
            return
        if value.state is ONGOING and self.timeline.writing != REPLAYING:
            before = self.transactions.get(transactional_id)
            if before is None or before.state is not ONGOING:
                self.deadlines[transactional_id] = self.host.clock.monotonic_ms() + value.timeout_ms
        self.transactions[transactional_id] = value

    def on_loaded(self) -> None:
        """Open transactions may go on for as long as they have left; those that have begun to end, end."""
        now_ms = self.host.clock.monotonic_ms()
        wall_ms = self.host.clock.wall_ms()
        for transactional_id, known in self.transactions.items():
            if known.state is ONGOING:
                left_ms = known.start_ms + known.timeout_ms - wall_ms
                # A clock that was set back must not keep it open for longer than its timeout.
                self.deadlines[transactional_id] = now_ms + min(max(left_ms, 0), known.timeout_ms)
            elif known.state in PREPARED:
                self.complete(transactional_id, known)
        config = self.host.config
        stagger_ms = self.partition * SWEEP_STAGGER_MS
        self._timers = [
            self._every(config.abort_interval_ms, 0, self._abort_timed_out),
            self._every(config.expiration_interval_ms, stagger_ms, self._expire),
        ]

    def on_unloaded(self) -> None:
        for timer in self._timers:
            timer.cancel()
        for completion in self.completions.values():
            completion.stop()
        self.completions.clear()
        for transactional_id in list(self._held):
            self._resume(transactional_id)

    # -- asked by the coordinator --------------------------------------------------------------------------------

    def known(self, transactional_id: str) -> Transaction | None:
        """What is committed."""
        return self.transactions.get_committed(transactional_id)

    def is_pending(self, transactional_id: str) -> bool:
        """Whether a record of it is on its way."""
        return self.transactions.is_pending(transactional_id)

    def record(self, transactional_id: str, value: Transaction | None) -> TransactionRecord:
        return TransactionRecord(transactional_id, value, self.host.log_version())

    def prepared(self, transactional_id: str, value: Transaction, error: ErrorCode) -> None:
        """The record of a Prepare state is committed, or nobody knows: then it may be yet."""
        if self.transactions.get(transactional_id) is value:
            self.host.answer(self._complete_now, (transactional_id, value))

    def _complete_now(self, prepared: tuple[str, Transaction]) -> None:
        self.complete(*prepared)

    def complete(self, transactional_id: str, value: Transaction) -> None:
        """Write the markers of a transaction that is in a Prepare state."""
        completion = self.completions[transactional_id] = Completion(self, transactional_id, value)
        completion.proceed()

    def completed(self, transactional_id: str) -> None:
        """The last record of a transaction is committed."""
        self.completions.pop(transactional_id, None)
        if transactional_id in self._held:
            self._resume(transactional_id)

    def hold(self, transactional_id: str, ms: int, resume: Callable[[], None]) -> bool:
        """Call `resume()` when the transaction that is about to end has ended, or after so long. False if none is,
        or if somebody waits for it already.

        The client would come again after 20 ms, and the end takes some milliseconds.
        """
        if transactional_id not in self.completions or transactional_id in self._held:
            return False
        timer = self.host.timers.at(
            self.host.clock.monotonic_ms() + ms, lambda _now: self._resume(transactional_id)
        )
        self._held[transactional_id] = (timer, resume)
        return True

    def _resume(self, transactional_id: str) -> None:
        timer, resume = self._held.pop(transactional_id)
        timer.cancel()
        self.host.answer(_call, resume)

    # -- searches ------------------------------------------------------------------------------------------------

    def _every(self, interval_ms: int, more_ms: int, work: Callable[[], None]) -> Timer:
        def run(now_ms: int) -> None:
            self._timers = [timer for timer in self._timers if timer.active]
            self._timers.append(self.host.timers.at(now_ms + interval_ms, run))
            work()

        return self.host.timers.at(self.host.clock.monotonic_ms() + interval_ms + more_ms, run)

    def _abort_timed_out(self) -> None:
        now_ms = self.host.clock.monotonic_ms()
        for transactional_id, deadline_ms in list(self.deadlines.items()):
            known = self.transactions.get(transactional_id)
            if known is None or (known.state is not ONGOING and not self.is_pending(transactional_id)):
                del self.deadlines[transactional_id]
            elif (
                deadline_ms < now_ms
                and not self.is_pending(transactional_id)
                and known.timeout_ms != TWO_PHASE_TIMEOUT_MS
            ):
                self.host.abort_timed_out(self.partition, transactional_id)

    def _expire(self) -> None:
        self.host.write(self.partition, expire, _ignore)


def expire(shard: TransactionShard) -> Outcome[None]:
    """Tombstones for ids that nobody uses any more, and again for the rest when they are committed."""
    host = shard.host
    oldest_ms = host.clock.wall_ms() - host.config.id_expiration_ms
    idle = (
        transactional_id
        for transactional_id, known in shard.transactions.committed_items()
        if known.update_ms <= oldest_ms and known.state in RESTING and not shard.is_pending(transactional_id)
    )
    records = [shard.record(transactional_id, None) for transactional_id in islice(idle, TOMBSTONES_MAX)]

    def written(error: ErrorCode) -> None:
        if error is ErrorCode.NONE and len(records) == TOMBSTONES_MAX:
            host.answer(lambda _: shard._expire(), None)

    return Outcome(None, list(records), written=written if records else None)


def _call(resume: Callable[[], None]) -> None:
    resume()


def _ignore(_: object) -> None:
    """The next search comes by itself."""
