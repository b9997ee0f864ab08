"""How far a log may be compacted, whether that is worth it, and the swap that puts new segments in place of old ones.

Called by the owner of the log. What is heavy is `Compaction.work`, which touches neither the log nor its files and runs
wherever a `Syncer` takes it; `begin` and `finish` look at names and headers.

The swap: `.cleaned` files (durable already) become `.swap`, the replaced ones `.deleted`, `.swap` files get their
names, the `.log` of a segment as the last that becomes `.swap` and the first that loses it. A crash between any two of
these leaves what recovery takes for not begun (a `.cleaned` is there) or completes (recovery.py). Whoever notes how far
the log is clean does so when the directory has been synced: cleaned twice is right, noted too early is not.
"""

from __future__ import annotations

from dataclasses import dataclass

from odradek.ports.disk import Disk
from odradek.storage import layout
from odradek.storage.batch import Damage, walk_headers
from odradek.storage.cleaner import (
    KEY_BYTES,
    Cleaned,
    CleanedGroup,
    CleaningError,
    CleaningJob,
    LastOfProducer,
    SourceSegment,
    remove_cleaned,
    run,
)
from odradek.storage.config import UNLIMITED
from odradek.storage.log import Log
from odradek.storage.segment import Segment
from odradek.storage.state import NO_LIMIT
from odradek.storage.txn_index import AbortedTxn

_SWAP_ORDER = (layout.INDEX_SUFFIX, layout.TIME_INDEX_SUFFIX, layout.TXN_INDEX_SUFFIX, layout.LOG_SUFFIX)


@dataclass(frozen=True, slots=True)
class Dirty:
    """What a cleaning of a log would be about, in bytes and segments."""

    first_dirty_offset: int
    end_offset: int
    segments: int
    """How many, from the first of the log, may be cleaned."""
    clean_bytes: int
    dirty_bytes: int
    is_overdue: bool
    """`max.compaction.lag.ms` is over for something dirty."""

    @property
    def ratio(self) -> float:
        total = self.clean_bytes + self.dirty_bytes
        return self.dirty_bytes / total if total else 0.0

    def is_worth_it(self, min_ratio: float) -> bool:
        """`min.cleanable.dirty.ratio`, unless it cannot wait."""
        return self.dirty_bytes > 0 and (self.is_overdue or self.ratio > min_ratio)


def measure(log: Log, clean_below: int, last_stable_offset: int, wall_ms: int) -> Dirty | None:
    """How dirty a log is; None if there is nothing to clean, or it must not be touched.

    Only closed segments are cleaned that lie below the last stable offset and the recovery point, and whose records are
    all older than `min.compaction.lag.ms`. `clean_below`: what the last cleaning came to. KafkaError for damage.
    """
    if log.offline or log.readable_end != NO_LIMIT or not log.config.cleanup_compact:
        return None
    first_dirty = clean_below
    if not log.log_start_offset <= first_dirty <= log.log_end_offset:
        first_dirty = log.log_start_offset
    limit = min(last_stable_offset, log.recovery_point)
    count = clean_bytes = dirty_bytes = 0
    end = log._bases[0]
    earliest = wall_ms
    for at, segment in enumerate(log._segments[:-1]):
        end_offset = log._bases[at + 1]
        is_dirty = end_offset > first_dirty
        if end_offset > limit or (is_dirty and _is_young(log, segment, wall_ms)):
            break
        if is_dirty:
            dirty_bytes += segment.size
            earliest = min(earliest, _first_timestamp(log, segment, wall_ms))
        else:
            clean_bytes += segment.size
        count, end = at + 1, end_offset
    if dirty_bytes == 0:
        return None
    overdue = wall_ms - earliest > log.config.max_compaction_lag_ms
    return Dirty(first_dirty, end, count, clean_bytes, dirty_bytes, overdue)


def _is_young(log: Log, segment: Segment, wall_ms: int) -> bool:
    lag = log.config.min_compaction_lag_ms
    return lag > 0 and segment.written > 0 and log._max_timestamp(segment) > wall_ms - lag


def _first_timestamp(log: Log, segment: Segment, wall_ms: int) -> int:
    """Of the first batch, as Kafka has it; read only where something depends on it."""
    if log.config.max_compaction_lag_ms >= UNLIMITED or segment.written == 0:
        return wall_ms
    file = segment.file or log._pool.open(segment)
    try:
        _, header = next(walk_headers(file, 0, segment.written, chunk=64))
    except Damage:
        return wall_ms
    return header.max_timestamp if header.max_timestamp >= 0 else wall_ms


class Compaction:
    """One cleaning of one log: begin, work, finish."""

    __slots__ = ("_log", "_sources", "cleaned", "job", "problem")

    def __init__(self, log: Log, sources: tuple[Segment, ...], job: CleaningJob) -> None:
        self._log = log
        self._sources = sources
        self.job = job
        self.cleaned: Cleaned | None = None
        self.problem: CleaningError | None = None
        """Why the log cannot be cleaned: nothing was changed."""

    @classmethod
    def begin(cls, log: Log, dirty: Dirty, wall_ms: int, table_bytes: int) -> Compaction:
        """`table_bytes`: `log.cleaner.dedupe.buffer.size`, of this one cleaning. KafkaError for damage."""
        sources = tuple(log._segments[: dirty.segments])
        ends = [*log._bases[1:], log.log_end_offset]
        aborted: list[AbortedTxn] = []
        if log.has_aborted:
            aborted = [entry for segment in log._segments for entry in log._aborted_of(segment)]
        job = CleaningJob(
            directory=log.dir,
            segments=tuple(
                SourceSegment(segment.base_offset, end, segment.written)
                for segment, end in zip(sources, ends, strict=False)
            ),
            first_dirty_offset=dirty.first_dirty_offset,
            aborted=tuple(aborted),
            producers={
                entry.producer_id: LastOfProducer(entry.epoch, entry.last_offset)
                for entry in log.active_producers()
            },
            now_ms=wall_ms,
            delete_retention_ms=log.config.delete_retention_ms,
            segment_bytes=log.config.segment_bytes,
            index_interval_bytes=log.config.index_interval_bytes,
            keys_max=max(1, table_bytes // KEY_BYTES),
        )
        return cls(log, sources, job)

    def work(self, disk: Disk) -> None:
        """The heavy part; elsewhere. OSError if the disk fails."""
        try:
            self.cleaned = run(self.job, disk)
        except CleaningError as error:
            self.problem = error

    def finish(self) -> bool:
        """Put the new segments in place; False if the log has changed meanwhile and they are of no use.

        The directory entries become durable with the next `sync` of the log. OSError takes the log offline.
        """
        log, cleaned = self._log, self.cleaned
        if cleaned is None or log.offline:
            return False
        try:
            if tuple(log._segments[: len(self._sources)]) != self._sources:
                remove_cleaned(log._pool.disk, log.dir)
                return False
            log.compacted_below = max(log.compacted_below, cleaned.end_offset)
            for group in cleaned.groups:
                _swap(log, group)
        except OSError as error:
            log.fail(error)
            raise
        return True


def _swap(log: Log, group: CleanedGroup) -> None:
    disk = log._pool.disk
    start = log._bases.index(group.sources[0].base_offset)
    old = log._segments[start : start + len(group.sources)]
    new = Segment(log.dir, old[0].base_offset, group.size, old[-1].created_ms)
    suffixes = [each for each in _SWAP_ORDER if disk.exists(new.path(each + layout.CLEANED_SUFFIX))]
    for suffix in suffixes:
        disk.rename(new.path(suffix + layout.CLEANED_SUFFIX), new.path(suffix + layout.SWAP_SUFFIX))
    log.replace_segments(start, old, new)
    for suffix in reversed(suffixes):
        disk.rename(new.path(suffix + layout.SWAP_SUFFIX), new.path(suffix))
