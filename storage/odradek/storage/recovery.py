"""Opening a log: what the last process left, made consistent again.

After a clean stop names and sizes suffice. After a crash the segments from the recovery point on are scanned. Bytes
that are no valid batch are either a torn tail (nothing valid follows: the write that the crash cut, never
acknowledged as durable, is removed) or damage in the middle (valid batches follow: removing them could remove what was
acknowledged, so everything is kept and the log leaves service from that offset on).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Set
from contextlib import suppress
from functools import partial

from crc32c import crc32c

from odradek.storage import layout
from odradek.storage.batch import (
    CRC_START,
    HEADER_SIZE,
    SEQUENCE_MAX,
    Damage,
    parse_header,
    scan_batches,
    walk_headers,
)
from odradek.storage.epoch_starts import Starts
from odradek.storage.epochs import LeaderEpochCache
from odradek.storage.log import Log, unlink_all
from odradek.storage.producers import ProducerStates, SnapshotError
from odradek.storage.scan import Finding, ScanJob, SegmentScan
from odradek.storage.segment import NEVER, Segment
from odradek.storage.state import NO_LIMIT
from odradek.storage.txn_index import AbortedTxn
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.records import CONTROL_FLAG, TRANSACTIONAL_FLAG, BatchHeader

_SEARCH_CHUNK = 1 << 20
_TAIL_BYTES_MAX = 64 << 20
"""How much of a cut tail is looked at."""
_OFFSET_BYTES = 8
_LEFTOVERS = (layout.DELETED_SUFFIX, layout.CLEANED_SUFFIX, layout.SWAP_SUFFIX, layout.TEMPORARY_SUFFIX)


class Opening:
    """A log between what lies in its directory and what can be used: `jobs` are done, by whom ever, then `finish`."""

    __slots__ = (
        "_epoch_starts", "_log_start_offset", "_names", "_recovery_point", "_scanned_from", "_wall_ms", "jobs", "log",
    )  # fmt: skip

    def __init__(
        self, log: Log, wall_ms: int, *, recovery_point: int, log_start_offset: int, clean: bool, epoch_starts: Starts
    ) -> None:  # fmt: skip
        """Look into the directory of `log`, creating it if it is not there; finish what was begun there. OSError."""
        disk = log._pool.disk
        self.log = log
        self._wall_ms = wall_ms
        self._log_start_offset = log_start_offset
        self._epoch_starts = epoch_starts
        self.jobs: list[ScanJob] = []
        """Segments to be scanned."""
        self._scanned_from: int | None = None
        log.last_flush_ms = wall_ms
        try:
            names = disk.listdir(log.dir)
        except FileNotFoundError:
            disk.makedirs(log.dir)
            names = []
        if not clean:  # what the last process created may never have been synced
            log._dirs_to_sync += [log.dir.rpartition("/")[0], log.dir]
        names = self._names = _clear_leftovers(log, names)
        log.foreign_files = [name for name in names if not _belongs(name)]
        log.epochs = LeaderEpochCache.load(disk, log.dir)
        _load_segments(log, names, wall_ms)
        if not log._segments:
            log.add_segment(log_start_offset, wall_ms)
            log.log_end_offset = log_start_offset
            recovery_point = max(recovery_point, log_start_offset)
        elif clean and _is_trustworthy(log, recovery_point, names):
            log.log_end_offset = recovery_point
        else:
            self._scanned_from = log._segment_index(recovery_point)
            self.jobs = _jobs(log, self._scanned_from, max(recovery_point, log.compacted_below))
        self._recovery_point = recovery_point

    def finish(self, findings: Iterator[Finding]) -> None:
        """`findings`: of the jobs, in their order; not all are taken if one has met damage. OSError."""
        log, recovery_point, log_start_offset = self.log, self._recovery_point, self._log_start_offset
        without_producers: set[Segment] = set()
        if self._scanned_from is not None:
            without_producers = _recover(log, recovery_point, self._scanned_from, findings)
        log.size_bytes = sum(segment.size for segment in log._segments)
        log.recovery_point = recovery_point
        if max(log.log_end_offset, log_start_offset) < recovery_point and log.readable_end == NO_LIMIT:
            # Synced once, gone now, without a trace of damage: files were cut at a batch, or removed.
            _close_for_service(log, log._segments[-1], log._segments[-1].written, log.log_end_offset)
            log.log_end_offset = recovery_point
        _set_log_start(log, log_start_offset, self._wall_ms)
        if not log.epochs.is_complete and log.size_bytes:
            _rebuild_epochs(log)
        _restore_epochs(log, self._epoch_starts)
        log.epochs.truncate_from_end(log.log_end_offset, write=False)
        log.epochs.truncate_from_start(log.log_start_offset, write=False)
        if self._scanned_from is None:
            rebuild_producers(log, self._names)
        else:
            _rebuild_after_scan(log, self._names, without_producers, log._segments[self._scanned_from :])
        log.has_aborted = log.has_aborted or log.producers.aborted > 0
        log.written_end_offset = log.log_end_offset
        log._refresh_fast_limit()


def activate(log: Log) -> None:
    """Make the active segment writable after a clean stop: its index in memory, its tail looked at.

    If the tail is not where the clean stop said it is, the log leaves service: KafkaError KAFKA_STORAGE_ERROR.
    """
    active = load_active_index(log)
    try:
        end = active.recount(log._pool)
        reason = f"{active} ends at offset {end}, the clean stop said {log.log_end_offset}"
    except Damage as damage:
        end = -1
        reason = f"{active} has no valid tail at {damage.position}: {damage.reason}"
    if end != log.log_end_offset and active.size > 0:
        _close_for_service(log, active, active.written, log.log_end_offset)
        log._refresh_fast_limit()
        raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, reason)


def load_active_index(log: Log) -> Segment:
    """The last segment with its index in memory and its time of rolling known."""
    active = log._segments[-1]
    if active.index is None and not active.load_saved_index(log._pool.disk):
        active.rebuild_index(log._pool, log._interval)
    if active.written and active.roll_after_timestamp == NEVER:
        file = active.file or log._pool.open(active)
        with suppress(Damage):  # then nothing is appended to it, or it is about to be cut
            _, header = next(walk_headers(file, 0, active.written, chunk=64))
            log._set_roll_time(active, header.max_timestamp)
    return active


def rebuild_producers(
    log: Log, names: list[str] | None = None, skip: Set[Segment] = frozenset(), replay_from: int = NO_LIMIT
) -> None:
    """Producer state at the log end: the latest good snapshot, and a replay of what follows it.

    Removes snapshots that no segment begins with, the latest excepted, as Kafka does. `skip`: segments known to
    hold no batch of a producer. `replay_from`: begin there or before, for the transaction indexes of what follows.
    """
    disk = log._pool.disk
    end = log.log_end_offset
    present: list[int] = []
    for name in names if names is not None else disk.listdir(log.dir):
        offset = layout.file_offset(name)
        if offset is not None and name.endswith(layout.SNAPSHOT_SUFFIX):
            present.append(offset)
    usable = [offset for offset in sorted(present) if offset <= end and offset >= log._bases[0]]
    log.producers.clear()
    start, latest = _load_snapshot(log, log.producers, usable, replay_from)
    keep = {*log._bases, latest}
    stray = [offset for offset in present if offset <= end and offset not in keep]
    unlink_all(disk, [_snapshot_path(log, offset) for offset in present if offset > end])
    _remove_later(log, [_snapshot_path(log, offset) for offset in stray])
    _replay_producers(log, log.producers, start, end, skip, log._note_aborted)


def _load_snapshot(log: Log, producers: ProducerStates, offsets: list[int], limit: int) -> tuple[int, int]:
    """(offset to replay from, offset of the latest good snapshot): of the latest at or below `limit`."""
    latest = -1
    for offset in reversed(offsets):
        try:
            producers.load_snapshot(log._pool.disk.read_file(_snapshot_path(log, offset)))
        except (SnapshotError, FileNotFoundError):
            continue
        latest = max(latest, offset)
        if offset <= limit:
            return offset, latest
    producers.clear()
    return log.log_start_offset, latest


def _rebuild_after_scan(log: Log, names: list[str], skip: Set[Segment], scanned: list[Segment]) -> None:
    """Transaction indexes are made anew with the producer state: what a marker ends, that state knows."""
    # Where the scan has ended in damage, the segments behind it are as they were.
    unsure = [segment for segment in scanned if segment.aborted is not None and segment not in skip]
    rebuild_producers(log, names, skip, unsure[0].base_offset if unsure else NO_LIMIT)
    for segment in scanned[:-1]:
        segment.save_aborted(log._pool.disk)


def misses_aborted(log: Log, segment: Segment, end: int) -> bool:
    """Whether a segment that has no transaction index had one: if so say the snapshots at both its ends. Kafka's do not
    tell; without the index, readers of what is committed would get what was aborted.
    """
    counts = []
    for offset in (segment.base_offset, end):
        producers = ProducerStates()
        try:
            producers.load_snapshot(log._pool.disk.read_file(_snapshot_path(log, offset)))
        except (SnapshotError, OSError):
            if offset > 0:
                return False
        counts.append(producers.aborted)
    return counts[0] < counts[1]


def rebuild_aborted(log: Log, segment: Segment) -> list[AbortedTxn]:
    """The transaction index of one segment, whose file is damaged. Blocks for a walk over its headers; rare."""
    producers = ProducerStates()
    found: list[AbortedTxn] = []
    offsets = [
        offset
        for name in log._pool.disk.listdir(log.dir)
        if name.endswith(layout.SNAPSHOT_SUFFIX) and (offset := layout.file_offset(name)) is not None
    ]
    start, _ = _load_snapshot(log, producers, sorted(offsets), segment.base_offset)
    at = log._bases.index(segment.base_offset) + 1
    end = log._bases[at] if at < len(log._bases) else log.log_end_offset

    def note(holder: Segment, aborted: AbortedTxn) -> None:
        if holder is segment:
            found.append(aborted)

    _replay_producers(log, producers, start, end, frozenset(), note)
    return found


def _snapshot_path(log: Log, offset: int) -> str:
    return f"{log.dir}/{layout.file_name(offset, layout.SNAPSHOT_SUFFIX)}"


def _remove_later(log: Log, paths: list[str]) -> None:
    """Unlink what is of no use any more, in the background where there is one: 1.5 ms each on ext4, for every log."""
    if paths and log._syncer is not None:
        log._syncer.run(partial(unlink_all, log._pool.disk, paths), lambda error: None)
    else:
        unlink_all(log._pool.disk, paths)


def _replay_producers(
    log: Log,
    producers: ProducerStates,
    start: int,
    end: int,
    skip: Set[Segment],
    note_aborted: Callable[[Segment, AbortedTxn], None],
) -> None:
    """Batches in [start, end) into the producer state. Headers only; damage ends it (reads will find it)."""
    for segment in log._segments[log._segment_index(start) :]:
        if segment.written == 0 or start >= end or segment.base_offset >= end or segment in skip:
            continue
        try:
            found = log._find(segment, start)
            if found is None:
                continue
            file = segment.file or log._pool.open(segment)
            known = producers.entries.get
            for position, header in walk_headers(file, found[0], segment.written, chunk=1 << 16):
                (base, _, _, _, _, attributes, delta, _, timestamp, producer_id, epoch, sequence, _) = header
                if producer_id < 0 or base < start:
                    continue
                entry = known(producer_id)
                if (
                    entry is not None
                    and sequence >= 0
                    and not attributes & (CONTROL_FLAG | TRANSACTIONAL_FLAG)
                ):
                    # Nearly all batches; two thirds of the time that `replay` takes.
                    entry.add(
                        epoch, sequence, (sequence + delta) & SEQUENCE_MAX, base, base + delta, timestamp
                    )
                    continue
                batch = file.pread(header.size, position) if header.is_control else b""
                aborted = producers.replay(header, base, batch)
                if aborted is not None:
                    note_aborted(segment, aborted)
        except Damage:
            return


def _rebuild_epochs(log: Log) -> None:
    """The checkpoint is lost or damaged: the batches say which epoch began where."""
    log.epochs = LeaderEpochCache(log._pool.disk, log.dir)
    for segment in log._segments:
        file = segment.file or log._pool.open(segment)
        try:
            for _, header in walk_headers(file, 0, segment.written, chunk=1 << 16):
                log.epochs.note(header.leader_epoch, header.base_offset)
        except Damage:
            break
    if log.epochs:
        log.epochs.write(durable=False)


def _restore_epochs(log: Log, starts: Starts) -> None:
    """What was noted durably of epochs, and is missing in the log's own file: if the batches agree."""
    for epoch, start in starts:
        if not log.log_start_offset <= start < log.log_end_offset or log.epochs.epoch_at(start) == epoch:
            continue
        segment = log._segments[log._segment_index(start)]
        try:
            found = log._find(segment, start)
            if found is None:
                continue
            file = segment.file or log._pool.open(segment)
            _, header = next(walk_headers(file, found[0], segment.written, chunk=64))
        except Damage:
            continue
        if (header.base_offset, header.leader_epoch) == (start, epoch):
            log.epochs.restore(epoch, start)


# What lies in the directory --------------------------------------------------------------------------------------


def _belongs(name: str) -> bool:
    if name in (layout.LEADER_EPOCH_CHECKPOINT, layout.PARTITION_METADATA, layout.MOVE):
        return True
    suffixes = (*layout.SEGMENT_SUFFIXES, layout.SNAPSHOT_SUFFIX)
    return layout.file_offset(name) is not None and name[20:] in suffixes


def _clear_leftovers(log: Log, names: list[str]) -> list[str]:
    """Finish deletions and swaps that the last process had begun; the names that remain.

    `.deleted` and `.cleaned` files go. `.swap` files are complete compacted segments about to replace others: the
    replaced segments go and they take their place, as Kafka does.
    """
    if not any(name.endswith(_LEFTOVERS) for name in names):
        return names
    disk = log._pool.disk
    ours = {name for name in names if layout.file_offset(name) is not None}
    temporary = {layout.LEADER_EPOCH_CHECKPOINT + layout.TEMPORARY_SUFFIX,
                 layout.PARTITION_METADATA + layout.TEMPORARY_SUFFIX}  # fmt: skip
    cleaned = [layout.file_offset(name) or 0 for name in ours if name.endswith(layout.CLEANED_SUFFIX)]
    least_cleaned = min(cleaned, default=1 << 63)
    swaps: list[str] = []
    doomed: set[str] = set()
    for name in names:
        if (
            name in ours
            and name.endswith(layout.SWAP_SUFFIX)
            and (layout.file_offset(name) or 0) < least_cleaned
        ):
            swaps.append(name)
        elif name in temporary or (name in ours and name.endswith(_LEFTOVERS)):
            doomed.add(name)
            disk.unlink(f"{log.dir}/{name}")
    if swaps:
        _finish_swaps(log, swaps)
        return disk.listdir(log.dir)
    return [name for name in names if name not in doomed]


def _finish_swaps(log: Log, swaps: list[str]) -> None:
    disk = log._pool.disk
    low, high = 1 << 63, -1
    for name in swaps:
        if name.endswith(layout.LOG_SUFFIX + layout.SWAP_SUFFIX):
            base = layout.file_offset(name) or 0
            low = min(low, base)
            file = disk.open(f"{log.dir}/{name}")
            try:
                for _, header in walk_headers(file, 0, file.size(), chunk=1 << 16):
                    high = max(high, header.last_offset + 1)
            except Damage:
                pass
            finally:
                file.close()
    for name in disk.listdir(log.dir):
        offset = layout.file_offset(name)
        if offset is not None and name[20:] in layout.SEGMENT_SUFFIXES and low <= offset < high:
            disk.unlink(f"{log.dir}/{name}")
    # The log first: as long as its .swap is there, a start takes files of its final name for those to be replaced.
    for name in sorted(swaps, key=lambda name: layout.LOG_SUFFIX + layout.SWAP_SUFFIX not in name):
        disk.rename(f"{log.dir}/{name}", f"{log.dir}/{name.removesuffix(layout.SWAP_SUFFIX)}")
    disk.sync_dir(log.dir)


def _load_segments(log: Log, names: list[str], wall_ms: int) -> None:
    """Segments by name and size; indexes without a log go, logs without an index get one."""
    disk = log._pool.disk
    present = set(names)
    for name in names:
        offset = layout.file_offset(name)
        if offset is None:
            continue
        log.has_aborted = log.has_aborted or name[20:] == layout.TXN_INDEX_SUFFIX
        if name[20:] == layout.LOG_SUFFIX:
            log._segments.append(Segment(log.dir, offset, disk.size(f"{log.dir}/{name}"), wall_ms))
            log._bases.append(offset)
        elif (
            name[20:] in layout.SEGMENT_SUFFIXES
            and layout.file_name(offset, layout.LOG_SUFFIX) not in present
        ):
            disk.unlink(f"{log.dir}/{name}")
    for segment in log._segments[:-1]:
        stem = layout.file_name(segment.base_offset, "")
        if stem + layout.INDEX_SUFFIX not in present or stem + layout.TIME_INDEX_SUFFIX not in present:
            log._rebuild(segment)


def _set_log_start(log: Log, log_start_offset: int, wall_ms: int) -> None:
    log.log_start_offset = max(log_start_offset, log._bases[0])
    if log.log_start_offset > log.log_end_offset and log.readable_end == NO_LIMIT:
        # Files vanished below a checkpoint: as Kafka, begin anew there rather than hand out offsets twice.
        log.start_anew(log.log_start_offset, wall_ms)


def _is_trustworthy(log: Log, recovery_point: int, names: list[str]) -> bool:
    """After a clean stop everything is flushed, so the recovery point is the log end; two witnesses say so.

    The stop wrote a producer snapshot of that very offset, or rolled there. Without one the log was put here by
    other means (a restored copy, a checkpoint lost) and is scanned.
    """
    active = log._segments[-1]
    if active.size == 0:
        return recovery_point == active.base_offset
    snapshot = layout.file_name(recovery_point, layout.SNAPSHOT_SUFFIX)
    return recovery_point > active.base_offset and snapshot in names


# The scan --------------------------------------------------------------------------------------------------------


def _jobs(log: Log, first: int, gaps_below: int) -> list[ScanJob]:
    """A scan of every segment from number `first` on."""
    last = len(log._segments) - 1
    return [
        ScanJob(
            path=segment.path(layout.LOG_SUFFIX),
            size=segment.written,
            base_offset=segment.base_offset,
            limit=log._bases[at + 1] if at < last else segment.offset_max + 1,
            gaps_below=gaps_below,
            index_interval=log._interval,
            is_last=at == last,
        )
        for at, segment in enumerate(log._segments[first:], first)
    ]


def _recover(log: Log, recovery_point: int, first: int, findings: Iterator[Finding]) -> set[Segment]:
    """Put together what the scans from segment number `first` on have found; sets the log end.

    The segments without any batch of a producer, for `rebuild_producers` to skip.
    """
    expected = log._bases[first]
    gaps_below = max(recovery_point, log.compacted_below)
    without_producers: set[Segment] = set()
    for at in range(first, len(log._segments)):
        segment = log._segments[at]
        if segment.base_offset > max(expected, gaps_below):
            # The segment before ends too early: the crash took its tail, though not what came after it.
            lost = Damage(log._segments[at - 1].size, "the tail is missing")
            _judge(log, at - 1, lost, expected, recovery_point)
            break
        scan = next(findings)
        if isinstance(scan, OSError):
            raise scan
        _take_over(log, segment, scan)
        expected = log.log_end_offset
        if not scan.has_producers:
            without_producers.add(segment)
        if scan.damage is not None:
            _judge(log, at, scan.damage, expected, recovery_point)
            break
        segment.dirty = True
        if at + 1 < len(log._segments):
            segment.save_index(log._pool.disk)
            segment.index = None
    if log._segments[-1].index is None and log.readable_end == NO_LIMIT:
        log.activate()
    return without_producers


def _take_over(log: Log, segment: Segment, scan: SegmentScan) -> None:
    segment.index = scan.index
    segment.aborted = []
    segment.since_index = scan.since_index
    segment.max_timestamp, segment.max_timestamp_offset = scan.max_timestamp, scan.max_timestamp_offset
    if scan.first_timestamp is not None and segment.roll_after_timestamp == NEVER:
        log._set_roll_time(segment, scan.first_timestamp)
    for epoch, start in scan.epochs:
        log.epochs.note(epoch, start)
    log.log_end_offset = scan.end_offset
    if scan.damage is not None:
        log.epochs.truncate_from_end(scan.end_offset, write=False)


def _judge(log: Log, at: int, damage: Damage, offset: int, recovery_point: int) -> None:
    """A torn tail or damage in the middle; the log is sound up to `offset`, in segment number `at`.

    What was synced cannot have been torn by the crash, so below the recovery point nothing is ever cut.
    """
    if offset < recovery_point or _valid_follows(log, at, damage.position, offset):
        _leave_service(log, at, damage.position, max(offset, log._bases[at]), recovery_point)
    else:
        _cut_tail(log, at, damage.position)


def _cut_tail(log: Log, at: int, position: int) -> None:
    """Remove the torn rest of a segment, and segments behind it (they hold no valid batch).

    Durably, and those first: a later power loss must not bring the rest back in front of new batches.
    """
    if not _interrupted(log, at, position):
        log.tail_was_lost = True
    disk = log._pool.disk
    for later in reversed(log._segments[at + 1 :]):
        log._pool.close(later)
        suffixes = (*layout.SEGMENT_SUFFIXES, layout.SNAPSHOT_SUFFIX)
        unlink_all(disk, [later.path(suffix) for suffix in suffixes])
    disk.sync_dir(log.dir)
    del log._segments[at + 1 :], log._bases[at + 1 :]
    segment = log._segments[at]
    file = segment.file or log._pool.open(segment)
    file.truncate(position)
    file.sync()
    segment.size = segment.written = position


def _interrupted(log: Log, at: int, position: int) -> bool:
    """Whether what lies behind the last valid batch is the beginning of the next one, and nothing else.

    That is what a write leaves whose process was killed in it: nobody was told of any of its bytes. Bytes that are no
    such beginning, or a batch that is all there but for its length, were once more than that.
    """
    segment = log._segments[at]
    if any(later.written for later in log._segments[at + 1 :]):
        return False
    file = segment.file or log._pool.open(segment)
    rest = file.pread(min(segment.written - position, _TAIL_BYTES_MAX), position)
    if len(rest) < HEADER_SIZE:
        return len(rest) < _OFFSET_BYTES or int.from_bytes(rest[:_OFFSET_BYTES], "big") >= log.log_end_offset
    header = parse_header(rest)
    return (
        header.magic == 2
        and header.base_offset >= log.log_end_offset
        and position + header.size > segment.written
        and crc32c(memoryview(rest)[CRC_START:]) != header.crc
    )


def _leave_service(log: Log, at: int, position: int, offset: int, recovery_point: int) -> None:
    """Damage in the middle: keep every byte, serve what is below, refuse the rest and all appends."""
    _close_for_service(log, log._segments[at], position, offset)
    end = max(log._bases[-1], recovery_point)
    for header in _valid_batches(log, log._segments[-1], position if at + 1 == len(log._segments) else 0):
        end = max(end, header.last_offset + 1)
    log.log_end_offset = max(end, offset)


def _close_for_service(log: Log, segment: Segment, position: int, offset: int) -> None:
    log.corrupt_offset = log.readable_end = offset
    log._damage = segment, position


def _valid_follows(log: Log, at: int, position: int, expected: int) -> bool:
    """Whether any batch with a right CRC and a plausible offset lies at a bad place or behind it."""
    if any(header.base_offset >= expected for header in _valid_batches(log, log._segments[at], position)):
        return True
    return any(
        header.base_offset >= later.base_offset
        for later in log._segments[at + 1 :]
        for header in _valid_batches(log, later, 0)
    )


def _valid_batches(log: Log, segment: Segment, position: int) -> Iterator[BatchHeader]:
    """Batches found by search from `position` on: bytes that look like a header of this segment and pass the CRC."""
    file = segment.file or log._pool.open(segment)
    # The upper half of a base offset is that of the segment's, give or take one carry; magic is 2.
    high = segment.base_offset >> 32
    heads = b"|".join(re.escape(value.to_bytes(4, "big")) for value in (high, high + 1))
    pattern = re.compile(b"(?=(?:" + heads + b").{12}\x02)", re.DOTALL)
    while position < segment.written:
        start = position
        data = file.pread(_SEARCH_CHUNK + 17, start)
        position += _SEARCH_CHUNK
        for match in pattern.finditer(data):
            if (after := start + match.start()) < start + _SEARCH_CHUNK:
                for at, header in _run(log, segment, after):
                    yield header
                    after = at + header.size
                if after > start + match.start():
                    position = after
                    break


def _run(log: Log, segment: Segment, position: int) -> Iterator[tuple[int, BatchHeader]]:
    """Valid batches in a row from `position` on."""
    file = segment.file or log._pool.open(segment)
    try:
        for at, header, _ in scan_batches(file, position, segment.written):
            if not segment.base_offset <= header.base_offset <= segment.offset_max:
                return
            yield at, header
    except Damage:
        return
