"""The data directories at the start of a node: taken, and after a crash recovered, which may take minutes.

Scans go to processes (`num.recovery.threads.per.data.dir`) where that pays off. How far it is, is told by a line a
second in Kafka's words, by /startupz, and by Kafka's metrics of it.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from odradek.broker.config import BrokerConfig, StartupError
from odradek.broker.kafka_metadata import is_kafkas
from odradek.broker.quorum_members import require_formatted
from odradek.ports.disk import Syncer
from odradek.storage.batch import Damage
from odradek.storage.data_dir import DataDirError
from odradek.storage.manager import LogManager, OpenReport, Progress

if TYPE_CHECKING:
    from odradek.storage.log import Log
    from odradek.storage.real_disk import RealDisk

BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id"
LINE_S = 1.0
"""Between two lines of progress."""


class LogOpener:
    """`run` does it, in a thread of its own; `stop` asks it to give up."""

    def __init__(
        self, config: BrokerConfig, disk: RealDisk, syncer: Syncer, rng: random.Random, open_files_max: int, log: Any
    ) -> None:  # fmt: skip
        directories = [os.path.abspath(path) for path in config.log_dirs]
        self.logs = LogManager(disk, syncer, directories, rng=rng, open_files_max=open_files_max)
        self._config = config
        self._disk = disk
        self._log = log

    def stop(self) -> None:
        self.logs.recovery.stop_asked = True

    def run(self, wall_ms: int, progress: Progress) -> LogManager:
        """Take the data directories and recover what is in them. StartupError; RecoveryStopped."""
        config, logs = self._config, self.logs
        require_formatted(config, os.path.exists)
        self._refuse_kafkas()
        needed = os.path.abspath(config.metadata_dir)
        try:
            logs.start(node_id=config.node_id, cluster_id=config.cluster_id, boot_id=boot_id(), needed=needed)
        except DataDirError as error:
            raise StartupError(str(error)) from error
        try:
            self._open(wall_ms, progress)
        except DataDirError as error:
            raise StartupError(str(error)) from error
        return logs

    def _open(self, wall_ms: int, progress: Progress) -> None:
        config, logs = self._config, self.logs
        if logs.clean:
            tell(logs, logs.open_all(wall_ms, progress=progress), self._log)
            return
        from odradek.storage.scan_processes import scan_in_processes

        lines = RecoveryLines(logs, self._log)
        count = config.num_recovery_threads_per_data_dir * len(logs.dirs)
        scan = partial(scan_in_processes, self._disk, count)
        report = logs.open_all(wall_ms, progress=progress, scan=scan)
        tell(logs, report, self._log)
        lines.end()

    def _refuse_kafkas(self) -> None:
        """Its records mean nothing to us, and ours would be in its log."""
        try:
            kafkas = is_kafkas(self._disk, os.path.abspath(self._config.metadata_dir))
        except (OSError, ValueError, Damage):  # damaged: who opens it finds better words
            return
        if kafkas:
            raise StartupError(
                f"The metadata log in {self._config.metadata_dir} was written by Apache Kafka. `odradek storage adopt "
                "--config FILE` takes over the directories of a cluster of one node; else choose another directory."
            )


class RecoveryLines:
    """A recovery in Kafka's words: its end, and on the way a line a second at most."""

    def __init__(self, logs: LogManager, log: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._logs = logs
        self._log = log
        self._clock = clock
        self._began = clock()
        self._due = self._began + LINE_S
        self._begun = False
        logs.recovery.on_segment = self._segment
        logs.recovery.on_log = self._opened

    def _segment(self, log: Log, base_offset: int, done: int, total: int) -> None:
        if self._is_due():
            where = f"{log.topic}-{log.partition}"
            self._log.info(
                f"Recovering unflushed segment {base_offset}. {done}/{total} recovered for {where}."
            )

    def _opened(self, log: Log, done: int, total: int) -> None:
        if self._is_due():
            path, _, name = log.dir.rpartition("/")
            self._log.info(f"Completed load of {name} ({done}/{total} completed in {path})")

    def _is_due(self) -> bool:
        now = self._clock()
        if now < self._due:
            return False
        if not self._begun:
            self._begun = True
            for path in self._unclean():
                count = self._logs.recovery.totals.get(path, 0)
                self._log.info(f"Recovering {count} logs from {path} since no clean shutdown file was found")
        self._due = now + LINE_S
        return True

    def end(self) -> None:
        """Everything is open."""
        if not self._logs.logs:
            return
        elapsed_ms = (self._clock() - self._began) * 1000
        unclean = ", ".join(self._unclean())
        self._log.info(
            f"Loaded {len(self._logs.logs)} logs in {elapsed_ms:.0f}ms (unclean log dirs = {unclean})"
        )

    def _unclean(self) -> list[str]:
        return [data_dir.path for data_dir in self._logs.dirs if not data_dir.clean and not data_dir.offline]


def tell(logs: LogManager, report: OpenReport, log: Any) -> None:
    """What a person should know of what was found."""
    for path in report.foreign:
        log.warning("not a log, left alone", path=path)
    if report.strays:  # told of as a warning when that happened
        log.info("logs that were set aside are still there", count=len(report.strays), first=report.strays[0])
    for directory, reason in report.failed:
        log.error("a log cannot be opened: its partition is offline", directory=directory, reason=reason)
    for data_dir in logs.dirs:
        for note in data_dir.notes:
            if data_dir.offline:
                log.error("log directory offline", directory=data_dir.path, error=note)
            else:
                log.warning("not usable, made anew", what=note)
    for damaged in logs.logs.values():
        if damaged.corrupt_offset is not None:
            log.error(
                "a log is damaged in the middle: it is served up to there and takes no more",
                directory=damaged.dir,
                offset=damaged.corrupt_offset,
            )


def boot_id() -> str:
    """Another one after each start of the machine; "" where the system does not tell."""
    try:
        with open(BOOT_ID_FILE, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
