"""Compaction and deletion in a simulated cluster: who cleans, what records look like, and a client that deletes some.

What is a process of its own in production is here a plain call on the machine's disk, some time after it was asked for;
its outcome comes later still, so that whatever happens to the log meanwhile happens beside a cleaning. Now and then the
worker dies in the middle, and leaves what it has written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from odradek.simulation.client import Client, error_of
from odradek.simulation.scheduler import MS
from odradek.simulation.trace import InvariantViolation
from odradek.storage import cleaner, layout
from odradek.storage.cleaner import CleaningJob, Outcome
from odradek.storage.log_cleaner import Workers
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
)

if TYPE_CHECKING:
    from odradek.simulation.machine import Process
    from odradek.storage.memory_disk import MemoryDisk, WritePoint

KEYS = 6
TOMBSTONES = 0.35
"""So many of the records of a compacted topic have no value."""
DEATHS = 0.05
"""So many cleanings do not live to finish."""
_WRITES_MAX = 40
"""Within so many changes to the disk a worker that dies does it."""

Records = Sequence[tuple[bytes | None, bytes | None]]


def keyed(values: Sequence[bytes], rng: Random, tombstones: bool) -> list[tuple[bytes | None, bytes | None]]:
    """Records of few keys, some without a value; the first has one, by which batches are known from one another."""
    return [
        (b"k%d" % rng.randrange(KEYS), None if tombstones and at and rng.random() < TOMBSTONES else value)
        for at, value in enumerate(values)
    ]


def without_keys(values: Sequence[bytes]) -> list[tuple[bytes | None, bytes | None]]:
    return [(None, value) for value in values]


# Who cleans ------------------------------------------------------------------------------------------------------


class _WorkerDied(BaseException):
    """In the middle of a cleaning."""


class SimWorkers(Workers):
    """The workers of one life of a node."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._rng = Random(process.rng.getrandbits(64))

    def clean(self, job: CleaningJob, done: Callable[[Outcome], None]) -> None:
        rng, process = self._rng, self._process

        def work() -> None:
            outcome = self._attempt(job)
            process.later(rng.randrange(1, 50 * MS), "cleaned", lambda: done(outcome))

        process.later(rng.randrange(100, 20 * MS), "cleans", work)

    def _attempt(self, job: CleaningJob) -> Outcome:
        machine, rng = self._process.machine, self._rng
        if rng.random() >= DEATHS:
            return cleaner.attempt(job, machine.disk)
        left, faults = rng.randrange(_WRITES_MAX), machine.disk.faults
        before = faults.watch

        def watch(point: WritePoint, path: str, partly: Callable[[float], None]) -> None:
            nonlocal left
            if left == 0:
                partly(rng.random())
                raise _WorkerDied
            left -= 1
            if before is not None:
                before(point, path, partly)

        faults.watch = watch
        try:
            return cleaner.attempt(job, machine.disk)
        except _WorkerDied:
            machine.cluster.trace.count("compaction: worker died")
            return Outcome(died="signal 9")
        finally:
            faults.watch = before

    def limit(self, bytes_per_second: float) -> None:
        """There is no time here to be slow in."""

    def close(self) -> None:
        """Events of a life are over with it."""


class LeftInTheMiddle(NamedTuple):
    """Files of compactions that a process did not live to finish."""

    cleaned: tuple[str, ...]
    swaps: tuple[tuple[str, int], ...]
    """`.log.swap` files and their sizes."""

    def __bool__(self) -> bool:
        return bool(self.cleaned or self.swaps)

    def after_start(self, disk: MemoryDisk) -> list[str]:
        """What the start has made of them, for counters."""
        found = ["cleaning found unfinished"] if self.cleaned else []
        for path, size in self.swaps:
            final = path.removesuffix(layout.SWAP_SUFFIX)
            completed = disk.exists(final) and disk.size(final) == size
            found.append("swap completed at start" if completed else "swap undone at start")
        return found


def left_in_the_middle(disk: MemoryDisk, directories: Sequence[str]) -> LeftInTheMiddle:
    found = [
        f"{directory}/{log}/{name}"
        for directory in directories
        if disk.isdir(directory)
        for log in disk.listdir(directory)
        if disk.isdir(f"{directory}/{log}") and not log.endswith(layout.DELETE_DIR_SUFFIX)
        for name in disk.listdir(f"{directory}/{log}")
    ]
    swapped = layout.LOG_SUFFIX + layout.SWAP_SUFFIX
    return LeftInTheMiddle(
        tuple(path for path in found if path.endswith(layout.CLEANED_SUFFIX)),
        tuple((path, disk.size(path)) for path in found if path.endswith(swapped)),
    )


# Who deletes -----------------------------------------------------------------------------------------------------


class RecordsDeleter(Client):
    """Asks for DeleteRecords of any partition, now and then."""

    def start(self) -> None:
        self.refresh()
        self.after(self.between(300, 800), self._delete)

    def _again(self) -> None:
        if not self.stopped:
            self.after(self.between(200, 900), self._delete)

    def _delete(self) -> None:
        topic = self.rng.choice(self.topics)
        index = self.rng.randrange(self.cluster.partitions_of(topic))
        leader, topic_id = self.leaders.get((topic, index)), self.topic_ids.get(topic)
        model = self.cluster.invariants.models.get((topic_id or b"", index))
        if leader is None or model is None:
            self.refresh()
            self._again()
            return
        offset = self.rng.randrange(model.log_start, model.high_watermark + 1)
        request = DeleteRecordsRequest(
            topics=[DeleteRecordsTopic(name=topic, partitions=[DeleteRecordsPartition(index, offset)])],
            timeout_ms=1_000,
        )
        self.ask(leader[0], request, 2, lambda response: self._deleted(topic, model, offset, response))

    def _deleted(self, topic: str, model: Any, offset: int, response: Any) -> None:
        self._again()
        if response is None:
            self.refresh()
            return
        answer = response.topics[0].partitions[0]
        code = error_of(answer.error_code)
        self.cluster.trace.count(f"records deleted: {code.name}")
        if code is ErrorCode.NOT_LEADER_OR_FOLLOWER:
            self.refresh()
        wrong = ErrorCode.POLICY_VIOLATION if self.cluster.deletes(topic) else ErrorCode.NONE
        if code is wrong:
            raise InvariantViolation(f"DeleteRecords of {model.name} is answered with {code.name}")
        if code is ErrorCode.NONE and not model.losses and answer.low_watermark < offset:
            raise InvariantViolation(
                f"C6: records of {model.name} below {offset} are deleted, and it still starts at {answer.low_watermark}"
            )
