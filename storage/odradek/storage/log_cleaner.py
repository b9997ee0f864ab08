"""Which log is compacted next, and the steps of a cleaning in their order: one log at a time, the dirtiest first.

pick       on the owner's thread: headers and names
work       wherever `run` takes it: all reading and writing
swap       on the owner's thread, after the recovery point that covers it is on disk
note       in cleaner-offset-checkpoint, when the swap is durable
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from odradek.ports.disk import Disk
from odradek.storage.checkpoints import TopicPartition
from odradek.storage.cleaner import Cleaned, remove_cleaned
from odradek.storage.compaction import Compaction, Dirty, measure
from odradek.storage.log import Log
from odradek.storage.manager import LogManager
from odradek.wire.errors import KafkaError

Run = Callable[[Callable[[], None], Callable[[OSError | None], None]], None]
"""Does the first somewhere else and calls the second on the owner's thread; as `Syncer.run`."""


class LogCleaner:
    """Compacts the logs of a manager."""

    def __init__(
        self,
        logs: LogManager,
        disk: Disk,
        run: Run,
        last_stable_offset: Callable[[Log], int],
        *,
        table_bytes: int,
    ) -> None:
        """`table_bytes`: `log.cleaner.dedupe.buffer.size`."""
        self._logs = logs
        self._disk = disk
        self._run = run
        self._last_stable_offset = last_stable_offset
        self._table_bytes = table_bytes
        self._busy = False
        self.uncleanable: dict[TopicPartition, tuple[Log, str]] = {}
        """Logs whose cleaning failed, and why: not tried again before the next start."""
        self.on_cleaned: Callable[[Log, Cleaned], None] = lambda log, cleaned: None
        self.on_uncleanable: Callable[[Log, str], None] = lambda log, reason: None

    @property
    def is_busy(self) -> bool:
        """A cleaning is under way."""
        return self._busy

    def tick(self, wall_ms: int) -> bool:
        """Begin the cleaning that is needed most, if any is and none is under way; whether one was begun."""
        if self._busy:
            return False
        picked = self._dirtiest(wall_ms)
        if picked is None:
            return False
        log, dirty = picked
        try:
            compaction = Compaction.begin(log, dirty, wall_ms, self._table_bytes)
        except KafkaError as error:
            self._give_up(log, str(error))
            return False
        self._busy = True
        self._run(partial(compaction.work, self._disk), partial(self._worked, log, compaction))
        return True

    def _dirtiest(self, wall_ms: int) -> tuple[Log, Dirty] | None:
        best: tuple[Log, Dirty] | None = None
        logs = self._logs.logs
        for key in [key for key, (log, _) in self.uncleanable.items() if logs.get(key) is not log]:
            del self.uncleanable[key]
        for key, log in list(logs.items()):
            if not log.config.cleanup_compact or key in self.uncleanable:
                continue
            try:
                dirty = measure(log, self._logs.clean_below(log), self._last_stable_offset(log), wall_ms)
            except KafkaError as error:
                self._give_up(log, str(error))
                continue
            if dirty is None or not dirty.is_worth_it(log.config.min_cleanable_dirty_ratio):
                continue
            if best is None or dirty.ratio > best[1].ratio:
                best = log, dirty
        return best

    def _worked(self, log: Log, compaction: Compaction, error: OSError | None) -> None:
        cleaned = compaction.cleaned
        is_ours = self._logs.logs.get(log.key) is log
        if is_ours and error is not None:
            log.fail(error)
        if is_ours and compaction.problem is not None:
            self._give_up(log, str(compaction.problem))
        if not is_ours or log.offline or cleaned is None or not self._covered(log, compaction):
            self._drop(compaction)
            return
        try:
            swapped = compaction.finish()
        except OSError:  # the log has gone offline and told so
            swapped = False
        if not swapped:
            self._busy = False
            return
        work = partial(self._disk.sync_dir, log.dir)
        self._run(work, partial(self._durable, log, cleaned, log.truncations))

    def _covered(self, log: Log, compaction: Compaction) -> bool:
        """Whether the recovery point on disk lies above what is cleaned: a scan takes the gaps for damage."""
        return self._logs.note_recovery_point(log) >= compaction.job.segments[-1].end_offset

    def _drop(self, compaction: Compaction) -> None:
        """The log is gone, offline or has changed; a directory of that name may belong to another by now."""
        self._busy = False
        directory = compaction.job.directory
        self._run(partial(_remove_if_there, self._disk, directory), lambda error: None)

    def _durable(self, log: Log, cleaned: Cleaned, truncations: int, error: OSError | None) -> None:
        self._busy = False
        if error is not None:
            log.fail(error)
        if log.offline or self._logs.logs.get(log.key) is not log:
            return
        if log.truncations == truncations:
            self._logs.note_clean(log, cleaned.end_offset)
        self.on_cleaned(log, cleaned)

    def _give_up(self, log: Log, reason: str) -> None:
        self.uncleanable[log.key] = log, reason
        self.on_uncleanable(log, reason)


def _remove_if_there(disk: Disk, directory: str) -> None:
    if disk.isdir(directory):
        remove_cleaned(disk, directory)
