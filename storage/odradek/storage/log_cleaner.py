"""Which log is compacted next, and the steps of a cleaning in their order: the dirtiest first, one per worker.

look       on the owner's thread, some logs at a time: headers and names
work       in a worker: all reading and writing
cover      the recovery point above what is cleaned goes to the disk, and that there may be gaps below: a scan would
           take them for damage
swap       on the owner's thread, one new segment at a time
note       in cleaner-offset-checkpoint, when the swap is durable
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Protocol

from odradek.ports.disk import Disk
from odradek.storage.checkpoints import TopicPartition
from odradek.storage.cleaner import KEY_BYTES, Cleaned, CleaningJob, Outcome, attempt, remove_cleaned
from odradek.storage.compaction import Compaction, Dirty, measure
from odradek.storage.log import Log
from odradek.storage.manager import LogManager
from odradek.wire.errors import KafkaError

LOGS_AT_ONCE = 100
"""Compacted logs that are looked at before others get their turn: some 5 µs each."""
LOOK_MS = 2
"""The same where logs have many segments."""
DEATHS_MAX = 3
"""A log that has cost so many workers their lives, one after the other, is left alone."""
RETRY_MS = 15_000
"""How long a log waits whose cleaning was broken off."""
_FULL = (errno.ENOSPC, errno.EDQUOT)

Run = Callable[[Callable[[], None], Callable[[OSError | None], None]], None]
"""Does the first somewhere else and calls the second on the owner's thread; as `Syncer.run`."""


class Workers(Protocol):
    """Who does the heavy part of cleanings."""

    def clean(self, job: CleaningJob, done: Callable[[Outcome], None]) -> None:
        """`done` is called later, on the owner's thread. As many jobs at a time as the owner allows itself."""
        ...

    def limit(self, bytes_per_second: float) -> None:
        """What each may read and write from now on, `log.cleaner.io.max.bytes.per.second`; infinity: no limit."""
        ...

    def close(self) -> None:
        """Whatever they are at comes to nothing, and nobody is told."""
        ...


class WorkersHere(Workers):
    """In this process, wherever `run` takes it: for the simulator and for tests."""

    def __init__(self, run: Run, disk: Disk) -> None:
        self._run = run
        self._disk = disk

    def clean(self, job: CleaningJob, done: Callable[[Outcome], None]) -> None:
        outcomes: list[Outcome] = []
        self._run(
            lambda: outcomes.append(attempt(job, self._disk)),
            lambda error: done(outcomes[0] if outcomes else Outcome(error=error)),
        )

    def limit(self, bytes_per_second: float) -> None:
        """There is no time here to be slow in."""

    def close(self) -> None:
        """What `run` does is over with its owner."""


@dataclass(frozen=True, slots=True)
class CleanerSettings:
    """What may change while it runs."""

    threads: int = 1
    """`log.cleaner.threads`: how many logs at a time."""
    table_bytes: int = 128 << 20
    """`log.cleaner.dedupe.buffer.size`, of all of them together."""
    load_factor: float = 0.9
    """`log.cleaner.io.buffer.load.factor`."""

    @property
    def table_bytes_each(self) -> int:
        return int(self.table_bytes / max(1, self.threads) * self.load_factor)


@dataclass(frozen=True, slots=True)
class LastCleaning:
    """What a worker did last, for metrics."""

    elapsed_ms: int = 0
    table_use: float = 0.0
    """How full its table was, 0 to 1."""
    bytes_read: int = 0
    bytes_written: int = 0
    died: bool = False


@dataclass(slots=True)
class LastLook:
    """What the last complete look over the logs has found, for metrics."""

    at_ms: int
    """On the monotonic clock."""
    dirtiest: float = 0.0
    """The largest share of dirty bytes, 0 to 1."""
    delay_ms: int = 0
    """The longest that anything has been overdue by `max.compaction.lag.ms`."""


@dataclass(frozen=True, slots=True)
class Uncleanable:
    """A log that is not tried again before the next start, and why."""

    log: Log
    reason: str
    dirty_bytes: int


class Look(IntEnum):
    """What a `tick` has come to; true if another one is due at once."""

    NOTHING = 0
    """There is nothing to do now, or nobody to do it."""
    BEGUN = 1
    """A cleaning. Perhaps there is another one."""
    MORE = 2
    """Not all logs were looked at."""


@dataclass(slots=True, eq=False)
class _Task:
    """A cleaning under way."""

    slot: int
    log: Log
    compaction: Compaction
    dirty_bytes: int
    began_ms: int


class LogCleaner:
    """Compacts the logs of a manager."""

    def __init__(
        self,
        logs: LogManager,
        disk: Disk,
        run: Run,
        workers: Workers,
        last_stable_offset: Callable[[Log], int],
        monotonic_ms: Callable[[], int],
    ) -> None:
        """`run`: disk work that waits, as `Syncer.run`; `last_stable_offset`: of a log, as far as it is known here."""
        self._logs = logs
        self._disk = disk
        self._run = run
        self._workers = workers
        self._last_stable_offset = last_stable_offset
        self._monotonic_ms = monotonic_ms
        self._tasks: dict[TopicPartition, _Task] = {}
        self._left: Iterator[Log] | None = None
        """Of the look that is under way."""
        self._best: tuple[Log, Dirty] | None = None
        self._look = LastLook(monotonic_ms())
        self._stopped = False
        self._deaths: dict[TopicPartition, int] = {}
        self._retry_at: dict[TopicPartition, int] = {}
        self.settings = CleanerSettings()
        self.last_look = self._look
        self.last: dict[int, LastCleaning] = {}
        """By worker."""
        self.uncleanable: dict[TopicPartition, Uncleanable] = {}
        self.later: Callable[[Callable[[], None]], None] = lambda work: work()
        """Runs something after the present event."""
        self.on_cleaned: Callable[[Log, Cleaned, int], None] = lambda log, cleaned, elapsed_ms: None
        self.on_uncleanable: Callable[[Log, str], None] = lambda log, reason: None
        self.on_broken_off: Callable[[Log, str], None] = lambda log, reason: None
        """It will be tried again."""
        self.on_free: Callable[[], None] = lambda: None
        """A worker can take another log."""

    @property
    def is_busy(self) -> bool:
        """A cleaning is under way."""
        return bool(self._tasks)

    def is_cleaning(self, key: TopicPartition) -> bool:
        """Retention waits as long: what it deleted would make the cleaning useless."""
        return key in self._tasks

    def stop(self) -> None:
        """The node stops: what is under way comes to nothing. The next start removes what it leaves."""
        self._stopped = True

    # Which ------------------------------------------------------------------------------------------------------

    def tick(self, wall_ms: int) -> Look:
        """Look at some logs; when all have been looked at, begin the cleaning that is needed most."""
        if self._stopped or len(self._tasks) >= self.settings.threads:
            return Look.NOTHING
        if self._left is None:
            self._begin_look()
        if self._look_at_some(wall_ms):
            return Look.MORE
        self._left, self.last_look = None, self._look
        best, self._best = self._best, None
        if best is None or self._logs.logs.get(best[0].key) is not best[0] or not self._begin(*best, wall_ms):
            return Look.NOTHING
        return Look.BEGUN

    def _begin_look(self) -> None:
        logs = self._logs.logs
        for known in (self._deaths, self._retry_at, self.uncleanable):
            for key in [key for key in known if key not in logs]:
                del known[key]
        self._left = iter([log for log in logs.values() if log.config.cleanup_compact])
        self._best = None
        self._look = LastLook(self._monotonic_ms())

    def _look_at_some(self, wall_ms: int) -> bool:
        assert self._left is not None
        now_ms = self._monotonic_ms()
        for _ in range(LOGS_AT_ONCE):
            log = next(self._left, None)
            if log is None:
                return False
            if self._is_left_out(log, now_ms):
                continue
            self._logs.sync_closed(log)
            try:
                dirty = measure(log, self._logs.clean_below(log), self._last_stable_offset(log), wall_ms)
            except KafkaError as error:
                self._give_up(log, str(error), 0)
                continue
            if dirty is not None:
                self._found(log, dirty)
            if self._monotonic_ms() > now_ms + LOOK_MS:
                break
        return True

    def _found(self, log: Log, dirty: Dirty) -> None:
        look = self._look
        look.dirtiest = max(look.dirtiest, dirty.ratio)
        look.delay_ms = max(look.delay_ms, dirty.delay_ms)
        is_dirtier = self._best is None or dirty.ratio > self._best[1].ratio
        if is_dirtier and dirty.is_worth_it(log.config.min_cleanable_dirty_ratio):
            self._best = log, dirty

    def _is_left_out(self, log: Log, now_ms: int) -> bool:
        key = log.key
        refused = self.uncleanable.get(key)
        if refused is not None and refused.log is not log:
            del self.uncleanable[key]  # another one of that name
            refused = None
        if self._logs.logs.get(key) is not log or key in self._tasks or refused is not None:
            return True
        if key in self._logs.futures.logs:  # it moves to another directory, and is cleaned there, as in Kafka
            return True
        return self._retry_at.get(key, now_ms) > now_ms

    def _begin(self, log: Log, dirty: Dirty, wall_ms: int) -> bool:
        try:
            compaction = Compaction.begin(log, dirty, wall_ms, self.settings.table_bytes_each)
        except KafkaError as error:
            self._give_up(log, str(error), dirty.dirty_bytes)
            return False
        taken = {task.slot for task in self._tasks.values()}
        slot = next(number for number in range(len(taken) + 1) if number not in taken)
        task = _Task(slot, log, compaction, dirty.dirty_bytes, self._monotonic_ms())
        self._tasks[log.key] = task
        self._workers.clean(compaction.job, partial(self._worked, task))
        return True

    # One cleaning, step by step ---------------------------------------------------------------------------------

    def _worked(self, task: _Task, outcome: Outcome) -> None:
        if self._stopped:
            return
        self._note_last(task, outcome)
        log = task.log
        if outcome.died is None:
            self._deaths.pop(log.key, None)
        if not self._is_of_use(task):
            self._drop(task)
        elif outcome.cleaned is not None:
            cleaned = outcome.cleaned
            closed = task.compaction.job.segments[-1].end_offset
            point, work = self._logs.save_recovery_points(log, cleaned.end_offset, closed)
            self._run(work, partial(self._covered, task, cleaned, point))
        elif outcome.problem is not None:
            self._give_up(log, outcome.problem, task.dirty_bytes)
            self._drop(task)
        else:
            self._broken_off(task, outcome)

    def _is_of_use(self, task: _Task) -> bool:
        return self._logs.logs.get(task.log.key) is task.log and task.compaction.is_of_use

    def _broken_off(self, task: _Task, outcome: Outcome) -> None:
        """Nothing of the log was touched: a worker that died, or a full disk, is no reason not to try again."""
        log, error = task.log, outcome.error
        if error is not None and error.errno not in _FULL:
            log.fail(error)
            self._drop(task)
            return
        reason = outcome.died or str(error)
        if outcome.died is not None:
            deaths = self._deaths[log.key] = self._deaths.get(log.key, 0) + 1
            if deaths >= DEATHS_MAX:
                self._give_up(log, f"{deaths} workers have died of it: {reason}", task.dirty_bytes)
                self._drop(task)
                return
        self._retry_at[log.key] = self._monotonic_ms() + RETRY_MS
        self.on_broken_off(log, reason)
        self._drop(task)

    def _covered(self, task: _Task, cleaned: Cleaned, point: int, error: OSError | None) -> None:
        if self._stopped:
            return
        if error is not None:
            task.log.fail(error)
        covers = point >= task.compaction.job.segments[-1].end_offset
        if covers and self._is_of_use(task) and task.compaction.prepare_swap(cleaned):
            self._swap(task, cleaned)
        else:
            self._retry_at[task.log.key] = self._monotonic_ms() + RETRY_MS
            self._drop(task)

    def _swap(self, task: _Task, cleaned: Cleaned) -> None:
        """One new segment per event: the files of some dozens of old ones are renamed for each."""
        log = task.log
        if self._stopped:
            return
        if self._logs.logs.get(log.key) is not log:
            self._drop(task)
            return
        try:
            more = task.compaction.swap_next()
        except OSError:  # the log has gone offline and told so; the next start sorts the files out
            self._free(task)
            return
        if more:
            self.later(partial(self._swap, task, cleaned))
            return
        work = partial(self._disk.sync_dir, log.dir)
        self._run(work, partial(self._durable, task, cleaned, log.truncations))

    def _durable(self, task: _Task, cleaned: Cleaned, truncations: int, error: OSError | None) -> None:
        log = task.log
        if self._stopped:
            return
        if error is not None and self._logs.logs.get(log.key) is log:
            log.fail(error)
        if error is None and self._is_there(log) and task.compaction.is_done:
            if log.truncations == truncations:
                self._logs.note_clean(log, cleaned.end_offset)
            self.on_cleaned(log, cleaned, self._monotonic_ms() - task.began_ms)
            self._free(task)
        else:
            self._drop(task)

    def _is_there(self, log: Log) -> bool:
        return not log.offline and self._logs.logs.get(log.key) is log

    def _drop(self, task: _Task) -> None:
        """The result is of no use. The directory may be gone, or of another log of that name by now."""
        if task.log.offline and self._logs.logs.get(task.log.key) is task.log:
            self._free(task)  # nothing is changed there before the next start
            return
        work = partial(_remove_if_there, self._disk, task.compaction.job.directory)
        self._run(work, lambda error: self._free(task))

    def _free(self, task: _Task) -> None:
        del self._tasks[task.log.key]
        self.on_free()

    def _note_last(self, task: _Task, outcome: Outcome) -> None:
        done = outcome.cleaned or Cleaned(0)
        keys_max = self.settings.table_bytes / max(1, self.settings.threads) / KEY_BYTES
        self.last[task.slot] = LastCleaning(
            elapsed_ms=self._monotonic_ms() - task.began_ms,
            table_use=min(1.0, done.keys / max(1.0, keys_max)),
            bytes_read=done.bytes_read,
            bytes_written=done.bytes_written,
            died=outcome.died is not None,
        )

    def _give_up(self, log: Log, reason: str, dirty_bytes: int) -> None:
        self.uncleanable[log.key] = Uncleanable(log, reason, dirty_bytes)
        self.on_uncleanable(log, reason)


def _remove_if_there(disk: Disk, directory: str) -> None:
    if disk.isdir(directory):
        remove_cleaned(disk, directory)
