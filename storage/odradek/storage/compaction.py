"""How far a log may be compacted, whether that is worth it, and the swap that puts new segments in place of old ones.

Called by the owner of the log. What is heavy is the job of a `Compaction`, which touches neither the log nor its files
and is done elsewhere; `begin` and `swap_next` look at names and headers.

The swap: `.cleaned` files (durable already) become `.swap`, the replaced ones `.deleted`, `.swap` files get their
names, the `.log` of a segment as the last that becomes `.swap` and the first that loses it. A crash between any two of
these leaves what recovery takes for not begun (a `.cleaned` is there) or completes (recovery.py). Whoever notes how far
the log is clean does so when the directory has been synced: cleaned twice is right, noted too early is not.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from odradek.storage import layout
from odradek.storage.batch import Damage, walk_headers
from odradek.storage.cleaner import (
    KEY_BYTES,
    Cleaned,
    CleanedGroup,
    CleaningJob,
    LastOfProducer,
    SourceSegment,
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
    delay_ms: int
    """For how long `max.compaction.lag.ms` has been over for something dirty; 0 if it is not."""

    @property
    def ratio(self) -> float:
        total = self.clean_bytes + self.dirty_bytes
        return self.dirty_bytes / total if total else 0.0

    def is_worth_it(self, min_ratio: float) -> bool:
        """`min.cleanable.dirty.ratio`, unless it cannot wait."""
        return self.dirty_bytes > 0 and (self.delay_ms > 0 or self.ratio > min_ratio)


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
    limit = min(
        last_stable_offset, log.recovery_point, log.epochs.unsaved_from
    )  # what can be noted as recovered
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
    delay_ms = max(0, wall_ms - earliest - log.config.max_compaction_lag_ms)
    return Dirty(first_dirty, end, count, clean_bytes, dirty_bytes, delay_ms)


def _is_young(log: Log, segment: Segment, wall_ms: int) -> bool:
    lag = log.config.min_compaction_lag_ms
    return lag > 0 and segment.written > 0 and log._max_timestamp(segment) > wall_ms - lag


def _first_timestamp(log: Log, segment: Segment, wall_ms: int) -> int:
    """Of the first batch, as Kafka has it; read only where something depends on it, and once."""
    if log.config.max_compaction_lag_ms >= UNLIMITED or segment.written == 0:
        return wall_ms
    if segment.first_timestamp is None:
        file = segment.file or log._pool.open(segment)
        try:
            _, header = next(walk_headers(file, 0, segment.written, chunk=64))
        except Damage:
            return wall_ms
        segment.first_timestamp = header.max_timestamp
    return segment.first_timestamp if segment.first_timestamp >= 0 else wall_ms


class Compaction:
    """One cleaning of one log: begin, the job, `prepare_swap`, `swap_next` until there is nothing left."""

    __slots__ = ("_groups", "_log", "_sources", "_truncations", "job")

    def __init__(self, log: Log, sources: tuple[Segment, ...], job: CleaningJob) -> None:
        self._log = log
        self._sources = sources
        self._truncations = log.truncations
        self._groups: deque[CleanedGroup] = deque()
        self.job = job

    @classmethod
    def begin(cls, log: Log, dirty: Dirty, wall_ms: int, table_bytes: int) -> Compaction:
        """`table_bytes`: what this one cleaning may take for its table. KafkaError for damage."""
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
            # What a producer has written since, nobody looks for in these segments.
            producers={
                entry.producer_id: LastOfProducer(entry.epoch, entry.last_offset)
                for entry in log.active_producers()
                if entry.last_offset < dirty.end_offset
            },
            now_ms=wall_ms,
            delete_retention_ms=log.config.delete_retention_ms,
            segment_bytes=log.config.segment_bytes,
            index_interval_bytes=log.config.index_interval_bytes,
            keys_max=max(1, table_bytes // KEY_BYTES),
        )
        return cls(log, sources, job)

    @property
    def is_of_use(self) -> bool:
        """Whether the log is still as the job has it, and still to be compacted."""
        log = self._log
        return (
            not log.offline
            and log.config.cleanup_compact
            and log.truncations == self._truncations
            and tuple(log._segments[: len(self._sources)]) == self._sources
        )

    @property
    def is_done(self) -> bool:
        """Nothing is left to be swapped."""
        return not self._groups

    def prepare_swap(self, cleaned: Cleaned) -> bool:
        """Before the first `swap_next`; False if the result is of no use any more."""
        if not self.is_of_use:
            return False
        self._log.compacted_below = max(self._log.compacted_below, cleaned.end_offset)
        self._groups.extend(cleaned.groups)
        return True

    def swap_next(self) -> bool:
        """Put one new segment in place; whether there are more, and the log has not been cut since the last.

        The directory entries become durable with the next `sync` of the log. OSError takes the log offline.
        """
        log, groups = self._log, self._groups
        if not groups or log.offline or log.truncations != self._truncations:
            return False
        try:
            _swap(log, groups.popleft())
        except OSError as error:
            log.fail(error)
            raise
        return bool(groups)


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
