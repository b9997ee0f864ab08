"""The disk of a simulated machine: MemoryDisk, and threads that take their time.

`MemoryDisk` decides what a crash keeps; here is when an fsync begins, takes effect and is told. Between its beginning
and its end the process goes on, so what is written meanwhile is not covered by it, and a crash may come at any time.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from odradek.ports.disk import File
from odradek.simulation.scheduler import MS

Done = Callable[[OSError | None], None]
Later = Callable[[int, str, Callable[[], None]], None]
"""(delay in µs, name for the trace, what to do as an event of the process)."""
Job = tuple[File | None, Callable[[], None], Done]


@dataclass(slots=True)
class DiskSpeed:
    """How long fsync takes just now, in microseconds. Shared by everything on one machine's disk."""

    sync_us: tuple[int, int] = (50, 3_000)
    work_us: tuple[int, int] = (10, 300)
    slow: float = 0.02
    slow_us: tuple[int, int] = (20 * MS, 300 * MS)


class SimSyncer:
    """Two threads, as the real one has: one that fsyncs in groups, one for other work. Implements `Syncer`."""

    def __init__(self, later: Later, rng: Random, speed: DiskSpeed) -> None:
        self._sync_thread = _Worker("fsync", later, rng, speed)
        self._work_thread = _Worker("disk-work", later, rng, speed)

    def sync(self, file: File, done: Done) -> None:
        self._sync_thread.add((file, file.sync, done))

    def run(self, work: Callable[[], None], done: Done) -> None:
        self._work_thread.add((None, work, done))

    @property
    def idle(self) -> bool:
        return self._sync_thread.idle and self._work_thread.idle


class _Worker:
    """One thread. Queued fsyncs that arrive while one runs are the next group; each file in it is synced once."""

    def __init__(self, name: str, later: Later, rng: Random, speed: DiskSpeed) -> None:
        self._name = name
        self._later = later
        self._rng = rng
        self._speed = speed
        self._queue: deque[Job] = deque()
        self._busy = False

    @property
    def idle(self) -> bool:
        return not self._busy and not self._queue

    def add(self, job: Job) -> None:
        self._queue.append(job)
        if not self._busy:
            self._busy = True
            # The thread wakes after the event that queued the job is over.
            self._later(self._rng.randrange(1, 20), f"{self._name} begins", self._begin)

    def _begin(self) -> None:
        group = self._take_group()
        early = group[0][0] is not None and self._rng.random() < 0.5
        results = _perform(group) if early else None

        def end() -> None:
            self._finish(group, _perform(group) if results is None else results)

        self._later(self._duration_us(group), self._name, end)

    def _take_group(self) -> list[Job]:
        first = self._queue.popleft()
        group = [first]
        if first[0] is not None:
            while self._queue:
                group.append(self._queue.popleft())
        return group

    def _duration_us(self, group: list[Job]) -> int:
        speed, rng = self._speed, self._rng
        if rng.random() < speed.slow:
            return rng.randrange(*speed.slow_us)
        return rng.randrange(*(speed.work_us if group[0][0] is None else speed.sync_us))

    def _finish(self, group: list[Job], results: list[OSError | None]) -> None:
        for (_, _, done), error in zip(group, results, strict=True):
            done(error)
        if self._queue:
            self._later(1, f"{self._name} begins", self._begin)
        else:
            self._busy = False


def _perform(group: list[Job]) -> list[OSError | None]:
    by_file: dict[int, OSError | None] = {}
    results = []
    for file, work, _ in group:
        key = id(file) if file is not None else -1
        if key not in by_file or file is None:
            by_file[key] = _attempt(work)
        results.append(by_file[key])
    return results


def _attempt(work: Callable[[], None]) -> OSError | None:
    try:
        work()
    except OSError as error:
        if error.errno == errno.EBADF:
            raise AssertionError(f"disk work on a closed file: {error}") from error
        return error
    return None
