"""Opening all logs that were found: a look into each directory first, then the scans, wherever they are made.

So it is known how much there is to scan before the first byte is read: for who scans (a few processes, if that pays
off), and for whoever asks how far it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

from odradek.storage.data_dir import DataDir, DataDirError
from odradek.storage.layout import log_dir_name
from odradek.storage.log import Log
from odradek.storage.scan import Finding, Scan
from odradek.wire.errors import KafkaError

if TYPE_CHECKING:
    from odradek.storage.checkpoints import TopicPartition
    from odradek.storage.recovery import Opening


class OpenReport:
    """What the opening of all logs has met: for the log lines at start."""

    __slots__ = ("failed", "foreign", "opened", "recovered", "strays")

    def __init__(self) -> None:
        self.opened = 0
        self.recovered = 0
        """Logs that were not closed cleanly, and so were scanned."""
        self.foreign: list[str] = []
        """Paths that belong to no log; left alone."""
        self.strays: list[str] = []
        """Logs that an earlier process has set aside; left alone."""
        self.failed: list[tuple[str, str]] = []
        """(log directory, reason): these partitions are offline."""


class RecoveryStopped(Exception):  # noqa: N818 - somebody's wish, nothing that went wrong
    """`stop_asked` was set before all logs were open. Those that were scanned are scanned again next time."""


class RecoveryProgress:
    """How far the opening has come. Counts go down; one thread writes, any may read."""

    __slots__ = ("_logs", "logs_left", "on_log", "on_segment", "segments_left", "stop_asked")

    def __init__(self) -> None:
        self.logs_left: dict[str, int] = {}
        """By data directory: logs not opened yet (Kafka's remainingLogsToRecover)."""
        self.segments_left: dict[str, int] = {}
        """By data directory: segments not scanned yet (Kafka's remainingSegmentsToRecover)."""
        self.on_segment: Callable[[Log, int, int, int], None] = lambda log, base_offset, done, total: None
        """A segment was scanned: the log, base offset, how many of how many of this log."""
        self.on_log: Callable[[Log, int, int], None] = lambda log, done, total: None
        """A log is open, or cannot be: how many of how many of its data directory."""
        self.stop_asked = False
        """Set by whoever does not want the logs any more."""
        self._logs: dict[str, int] = {}

    @property
    def is_over(self) -> bool:
        return not any(self.logs_left.values())

    @property
    def totals(self) -> dict[str, int]:
        """By data directory: logs that were found."""
        return self._logs

    def expect(self, data_dir: str, logs: int, segments: int) -> None:
        self._logs[data_dir] = self.logs_left[data_dir] = logs
        self.segments_left[data_dir] = segments

    def segment_done(self, data_dir: str, log: Log, base_offset: int, done: int, total: int) -> None:
        self.segments_left[data_dir] -= 1
        self.on_segment(log, base_offset, done, total)

    def log_done(self, data_dir: str, log: Log) -> None:
        self.logs_left[data_dir] -= 1
        total = self._logs[data_dir]
        self.on_log(log, total - self.logs_left[data_dir], total)


Progress = Callable[[int, int, str], None]
"""(logs opened, logs in all, name of the last one)."""
Begin = Callable[[DataDir, "TopicPartition"], "Opening"]
Opened = Callable[[DataDir, Log], None]
Begun = tuple[DataDir, "Opening"]


class OpenAll:
    """One run. `begin` looks into the directory of a log, `opened` takes one that is open; both may raise what makes
    that log unusable, and nothing else: OSError, KafkaError, DataDirError.
    """

    def __init__(
        self, counts: RecoveryProgress, report: OpenReport, *, begin: Begin, opened: Opened, progress: Progress | None
    ) -> None:  # fmt: skip
        self._progress = counts
        self._report = report
        self._begin = begin
        self._opened = opened
        self._tell = progress
        self._done = self._total = 0

    def run(self, found: Sequence[tuple[DataDir, TopicPartition]], scan: Scan) -> None:
        """RecoveryStopped if that was asked for."""
        self._total = len(found)
        if self._tell is not None:
            self._tell(0, self._total, "")
        begun = self._begin_all(found)
        jobs = [job for _, opening in begun for job in opening.jobs]
        with closing(scan(jobs)) as findings:
            for data_dir, opening in begun:
                if self._progress.stop_asked:
                    raise RecoveryStopped
                self._finish(data_dir, opening, findings)

    def _begin_all(self, found: Sequence[tuple[DataDir, TopicPartition]]) -> list[Begun]:
        begun: dict[TopicPartition, Begun] = {}
        counts: dict[str, list[int]] = {}
        for data_dir, key in found:
            count = counts.setdefault(data_dir.path, [0, 0])
            try:
                if key in begun:
                    raise DataDirError(f"{key[0]}-{key[1]} is in {begun[key][1].log.dir} too")
                opening = self._begin(data_dir, key)
            except (OSError, KafkaError, DataDirError) as error:
                self._failed(data_dir, key, error)
                continue
            begun[key] = data_dir, opening
            count[0] += 1
            count[1] += len(opening.jobs)
        for path, (logs, segments) in counts.items():
            self._progress.expect(path, logs, segments)
        return list(begun.values())

    def _finish(self, data_dir: DataDir, opening: Opening, findings: Iterator[Finding]) -> None:
        log = opening.log
        mine = self._counted(data_dir, opening, islice(findings, len(opening.jobs)))
        try:
            opening.finish(mine)
            self._opened(data_dir, log)
        except (OSError, KafkaError, DataDirError) as error:
            self._failed(data_dir, log.key, error)
        else:
            self._report.opened += 1
            self._report.recovered += not data_dir.clean
            self._report.foreign.extend(f"{log.dir}/{name}" for name in log.foreign_files)
            self._told(log.key)
        deque(mine, maxlen=0)  # behind damage: the next finding is of the next log
        self._progress.log_done(data_dir.path, log)

    def _counted(self, data_dir: DataDir, opening: Opening, findings: Iterator[Finding]) -> Iterator[Finding]:
        for number, (job, finding) in enumerate(zip(opening.jobs, findings, strict=False), 1):
            self._progress.segment_done(
                data_dir.path, opening.log, job.base_offset, number, len(opening.jobs)
            )
            yield finding
            if self._progress.stop_asked:
                raise RecoveryStopped

    def _failed(self, data_dir: DataDir, key: TopicPartition, error: Exception) -> None:
        data_dir.unopened.add(key)
        self._report.failed.append((f"{data_dir.path}/{log_dir_name(*key)}", str(error)))
        self._told(key)

    def _told(self, key: TopicPartition) -> None:
        self._done += 1
        if self._tell is not None:
            self._tell(self._done, self._total, log_dir_name(*key))
