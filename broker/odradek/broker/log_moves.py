"""Replicas on their way to another log directory of this broker (AlterReplicaLogDirs, KIP-113).

What is left to copy is copied in slices, one per turn of the event loop and never more than half of its time, moves
taking turns; reads that would wait for the medium are warmed on the disk thread first. How a move goes on:

    copying     until the copy has everything
    closing     fsyncs of the replica are held back, the copy is made durable; meanwhile copying goes on
    promoted    the copy is the replica, in the event in which it lacks nothing; what was held back is done there

The controller is told afterwards (`DirectoryAssignments`), as of any replica that is elsewhere than metadata has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from odradek.replication.throttle import UNLIMITED, TokenBucket
from odradek.storage.futures import copy_some
from odradek.wire.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from odradek.broker.partition import Partition
    from odradek.ports.clock import Clock
    from odradek.ports.disk import Syncer
    from odradek.ports.timers import Timer, TimerQueue
    from odradek.storage.log import Log
    from odradek.storage.manager import LogManager

Name = tuple[str, int]

SLICE_BYTES = 256 << 10
"""About a millisecond: checked, appended, written to the page cache."""
RETRY_MS = 5_000
"""How long a move rests whose log cannot be read."""
IDLE_MS = 1_000
CLOSING_MS_MAX = 1_000
"""A replica whose copy was not closed by then goes on fsyncing for as long again."""
DIRECTORY_NAMES_MAX = 10_000
"""Wishes for replicas that are not there yet."""


class Move:
    """One replica."""

    __slots__ = ("closing_since_ms", "covered", "not_before_ms", "partition", "waiting")

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.waiting = False
        """For the disk thread."""
        self.not_before_ms = 0
        self.closing_since_ms = -1
        self.covered = False
        """The copy has been made durable since the replica's fsyncs are held back."""

    @property
    def name(self) -> Name:
        return self.partition.topic, self.partition.index

    @property
    def is_closing(self) -> bool:
        return self.closing_since_ms >= 0


class LogMoves:
    """All moves of a broker. Told of partitions that go, come and fail by the replica manager."""

    def __init__(
        self,
        logs: LogManager,
        partitions: Mapping[Name, Partition],
        syncer: Syncer,
        clock: Clock,
        log: Any,
        on_moved: Callable[[Partition, Log], None],
    ) -> None:
        """`on_moved(partition, log)`: the replica is in that log from now on."""
        self.timers: TimerQueue | None = None
        self.is_cleaning: Callable[[Name], bool] = lambda name: False
        """A log whose compaction is under way is not replaced."""
        self.is_offline: Callable[[Name], bool] = lambda name: False
        """Whether there is a replica, in a directory that has failed."""
        self._logs = logs
        self._partitions = partitions
        self._syncer = syncer
        self._clock = clock
        self._log = log
        self._on_moved = on_moved
        self._moves: dict[Name, Move] = {}
        self._wishes: dict[Name, bytes] = {}
        self._timer: Timer | None = None
        self._bucket: TokenBucket | None = None

    # -- asked by AlterReplicaLogDirs ------------------------------------------------------------------------------

    def alter(self, name: Name, path: str) -> ErrorCode:
        """Move a replica to the directory `path`, or stop moving it if it is there. Kafka's error."""
        data_dir = next((each for each in self._logs.dirs if each.path == path), None)
        if data_dir is None:
            return ErrorCode.LOG_DIR_NOT_FOUND
        if data_dir.offline:
            return ErrorCode.KAFKA_STORAGE_ERROR
        if path in self._logs.cordoned:
            return ErrorCode.INVALID_REPLICA_ASSIGNMENT
        partition = self._partitions.get(name)
        if self.is_offline(name):
            return ErrorCode.KAFKA_STORAGE_ERROR
        if partition is None:
            if len(self._wishes) < DIRECTORY_NAMES_MAX or name in self._wishes:
                self._wishes[name] = data_dir.directory_id
            return ErrorCode.REPLICA_NOT_AVAILABLE
        if partition.log.offline:
            return ErrorCode.KAFKA_STORAGE_ERROR
        future = self._logs.futures.logs.get(name)
        if future is not None and future.dir_id == data_dir.directory_id:
            return ErrorCode.NONE
        self.cancel(name)
        if partition.log.dir_id == data_dir.directory_id:
            return ErrorCode.NONE
        try:
            self._logs.futures.create(name, data_dir, partition.topic_id)
        except KafkaError as error:
            return error.code
        self._begin(partition)
        return ErrorCode.NONE

    def wish(self, name: Name) -> bytes | None:
        """The id of the directory that somebody wants a new replica to be in."""
        return self._wishes.pop(name, None)

    def throttle(self, rate: int, now_ms: int) -> None:
        """replica.alter.log.dirs.io.max.bytes.per.second, of all moves together."""
        if rate >= UNLIMITED:
            self._bucket = None
        elif self._bucket is None or self._bucket.rate != rate:
            self._bucket = TokenBucket(rate, now_ms)
        self._go_on()

    # -- told by the replica manager -------------------------------------------------------------------------------

    def resume(self, partition: Partition) -> None:
        """The partition is there now: go on with what an earlier process had begun."""
        name = partition.topic, partition.index
        future = self._logs.futures.logs.get(name)
        if future is None or name in self._moves:
            return
        if partition.log.offline or future.topic_id != partition.topic_id:
            self._logs.futures.delete(name)
            return
        self._begin(partition)

    def cancel(self, name: Name) -> None:
        """The partition goes, or the move is not wanted any more: the copy is deleted."""
        move = self._moves.pop(name, None)
        if move is not None:
            move.partition.log.release_syncs(move.partition.log)
        self._logs.futures.delete(name)

    def directory_failed(self) -> None:
        """Moves from there, and to there, end. What there is of the copies stays for the next start."""
        for name, move in list(self._moves.items()):
            log = move.partition.log
            if log.offline or name not in self._logs.futures.logs:
                del self._moves[name]
                log.release_syncs(log)

    # -- copying ---------------------------------------------------------------------------------------------------

    def _begin(self, partition: Partition) -> None:
        move = Move(partition)
        self._moves[move.name] = move
        log = partition.log
        future = self._logs.futures.logs[move.name]
        self._log.info(
            "a replica moves to another log directory", topic=partition.topic, partition=partition.index,
            here=log.dir, there=future.dir, bytes=log.size_bytes,
        )  # fmt: skip
        self._go_on()

    def _go_on(self, delay_ms: int = 1) -> None:
        """The next slice, after other events have had their turn."""
        if self._moves and self.timers is not None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.timers.at(self._clock.monotonic_ms() + delay_ms, self._turn)

    def _turn(self, now_ms: int) -> None:
        self._timer = None
        wait_ms = self._bucket.wait_ms(now_ms) if self._bucket is not None else 0
        # What is about to be promoted is not throttled: its acknowledgements may wait for that.
        ready = [
            move for move in self._moves.values() if not move.waiting and (not wait_ms or move.is_closing)
        ]
        move = next((each for each in ready if each.not_before_ms <= now_ms), None)
        if move is None:
            due = [each.not_before_ms - now_ms for each in ready] + [wait_ms] * (wait_ms > 0)
            if due:
                self._go_on(max(1, min(due)))
            return
        del self._moves[move.name]  # the others come first, next time
        self._moves[move.name] = move
        self._step(move, now_ms)
        self._go_on(max(1, self._clock.monotonic_ms() - now_ms))

    def _step(self, move: Move, now_ms: int) -> None:
        current, future = move.partition.log, self._logs.futures.logs[move.name]
        try:
            where = current.locate(future.log_end_offset, self._slice_bytes, current.written_end_offset)
            if not where.cached:
                self._elsewhere(move, where.warm, self._warmed)
                return
            copied = copy_some(current, future, self._slice_bytes, self._clock.wall_ms())
        except OSError as error:
            future.fail(error)
            return
        except KafkaError as error:
            self._rest(move, now_ms, error)
            return
        future.producers.forget_completed(move.partition.high_watermark)
        if self._bucket is not None and copied:
            self._bucket.consume(copied, now_ms)
        if future.log_end_offset < current.log_end_offset:
            if not copied:  # what is missing is not there to be read, yet
                move.not_before_ms = now_ms + IDLE_MS
            return
        if not move.covered:
            self._close(move, now_ms)
        elif self._logs.futures.is_ready(move.name) and not self.is_cleaning(move.name):
            self._promote(move)
        elif now_ms - move.closing_since_ms > CLOSING_MS_MAX:
            self._reopen(move, now_ms)
        elif (
            future.recovery_point < current.recovery_point or future.epochs.entries != current.epochs.entries
        ):
            move.covered = False

    @property
    def _slice_bytes(self) -> int:
        return SLICE_BYTES if self._bucket is None else min(SLICE_BYTES, self._bucket.rate)

    def _elsewhere(self, move: Move, work: Callable[[], None], done: Callable[[Move], None]) -> None:
        move.waiting = True

        def worked(_error: OSError | None) -> None:
            move.waiting = False
            if self._moves.get(move.name) is move:
                done(move)
                self._go_on()

        self._syncer.run(work, worked)

    def _warmed(self, move: Move) -> None:
        """Once brought in, it is read, cached or not: the kernel may have no room for it."""
        current, future = move.partition.log, self._logs.futures.logs[move.name]
        try:
            copied = copy_some(current, future, self._slice_bytes, self._clock.wall_ms())
        except OSError as error:
            future.fail(error)
        except KafkaError as error:
            self._rest(move, self._clock.monotonic_ms(), error)
        else:
            if self._bucket is not None:
                self._bucket.consume(copied, self._clock.monotonic_ms())

    def _rest(self, move: Move, now_ms: int, error: KafkaError) -> None:
        log = move.partition.log
        if log.offline or move.name not in self._logs.futures.logs:
            return  # `directory_failed` has ended it
        move.not_before_ms = now_ms + RETRY_MS
        self._reopen(move, now_ms)
        self._log.limited_warning(
            "a replica that moves to another log directory cannot be read", topic=move.partition.topic,
            partition=move.partition.index, error=str(error),
        )  # fmt: skip

    # -- closing ---------------------------------------------------------------------------------------------------

    def _close(self, move: Move, now_ms: int) -> None:
        """Everything was copied a moment ago: make that durable, while nothing newer becomes so in the old place."""
        name, future = move.name, self._logs.futures.logs[move.name]
        move.partition.log.hold_syncs()
        if move.closing_since_ms < 0:
            move.closing_since_ms = now_ms
        move.waiting = True

        def synced(error: OSError | None) -> None:
            move.waiting = False
            move.covered = error is None
            if self._moves.get(name) is move:
                self._go_on()

        def prepared(error: OSError | None) -> None:
            if error is None and self._moves.get(name) is move:
                future.sync(self._syncer, synced)
            else:
                synced(error)

        self._logs.futures.prepare(name, prepared)

    def _reopen(self, move: Move, now_ms: int) -> None:
        """It takes too long: the replica goes on as before, and this is tried again."""
        log = move.partition.log
        move.covered, move.closing_since_ms = False, -1
        move.not_before_ms = max(move.not_before_ms, now_ms + CLOSING_MS_MAX)
        log.release_syncs(log)

    def _promote(self, move: Move) -> None:
        partition, before = move.partition, move.partition.log
        del self._moves[move.name]
        here = before.dir
        try:
            log = self._logs.futures.promote(move.name)
        except KafkaError:  # the directory has failed, and was told of
            before.release_syncs(before)
            return
        self._on_moved(partition, log)
        before.release_syncs(log)
        self._log.info(
            "a replica has moved to another log directory", topic=partition.topic, partition=partition.index,
            before=here, now=log.dir,
        )  # fmt: skip
