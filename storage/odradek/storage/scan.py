"""The scan of one segment after a crash: every batch checked, and what only the batches can tell made anew.

Needs nothing but the segment's own file, so segments can be scanned in any order and in other processes
(scan_processes.py); recovery.py puts the findings together. The loop takes 1.6 µs a batch and 0.25 s per GB beside that
(CPython 3.11), which is why it is written out.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import NamedTuple

from crc32c import crc32c

from odradek.ports.disk import Disk, File
from odradek.storage.batch import CRC_START, HEADER, HEADER_SIZE, LOG_OVERHEAD, Damage
from odradek.storage.indexes import SegmentIndex
from odradek.wire.records import LENGTH_MIN

_CHUNK = 1 << 20
_unpack = HEADER.unpack_from


class ScanJob(NamedTuple):
    """A segment to be scanned."""

    path: str
    """Of its `.log` file."""
    size: int
    base_offset: int
    limit: int
    """No batch may reach this offset: the next segment begins there."""
    gaps_below: int
    """Below this offset, gaps are what compaction left."""
    index_interval: int
    """`index.interval.bytes`."""
    is_last: bool


class SegmentScan:
    """What a scan has found. Of a damaged segment, of the part before the damage."""

    __slots__ = (
        "damage", "end_offset", "epochs", "first_timestamp", "has_producers", "index", "max_timestamp",
        "max_timestamp_offset", "since_index",
    )  # fmt: skip

    def __init__(self, base_offset: int) -> None:
        self.end_offset = base_offset
        self.damage: Damage | None = None
        self.epochs: list[tuple[int, int]] = []
        """(leader epoch, offset of its first batch here), ascending."""
        self.has_producers = False
        """A batch of a producer with an id was seen."""
        self.first_timestamp: int | None = None
        """The largest timestamp of the first batch."""
        self.index = SegmentIndex()
        self.since_index = 0
        self.max_timestamp = self.max_timestamp_offset = -1


class _Doubt(NamedTuple):
    """A batch that is believed only if the next one agrees with it, and how things stood before it."""

    position: int
    end_offset: int
    since_index: int
    max_timestamp: int
    max_timestamp_offset: int


Finding = SegmentScan | OSError
Scan = Callable[[Sequence[ScanJob]], Generator[Finding]]
"""Does these jobs, wherever, and hands out what each has come to, in the order of the jobs."""


def scan_files(disk: Disk, jobs: Iterable[ScanJob]) -> Generator[Finding]:
    """One after the other, here and now."""
    for job in jobs:
        yield scan_file(disk, job)


def scan_file(disk: Disk, job: ScanJob) -> Finding:
    """An error is a finding too: there are other segments."""
    try:
        file = disk.open(job.path)
    except OSError as error:
        return error
    try:
        return scan_segment(file, job)
    except OSError as error:
        return error
    finally:
        file.close()


def scan_segment(file: File, job: ScanJob) -> SegmentScan:
    """Verify a segment batch by batch: frame, magic, CRC, order of offsets and epochs.

    No CRC covers base offsets and leader epochs: a gap in the ones or a rise of the others is believed only if the
    batch after it agrees.
    """
    found = SegmentScan(job.base_offset)
    index = found.index
    base_offset, limit, interval, end = job.base_offset, job.limit, job.index_interval, job.size
    expected = base_offset
    epoch = max_timestamp = max_timestamp_offset = -1
    since = position = start = have = 0
    producers = -1
    view = memoryview(b"")
    doubt: _Doubt | None = None
    gap: _Doubt | None = None
    try:
        while position < end:
            at = position - start
            if at + HEADER_SIZE > have:
                view, have, start, at = _window(file, position, end)
                if have < HEADER_SIZE:
                    raise Damage(position, f"{have} bytes are no header")
            (base, length, leader_epoch, magic, crc, _, delta, _, timestamp, producer_id, _, _, _) = _unpack(
                view, at
            )
            if magic != 2 or length < LENGTH_MIN or delta < 0:
                raise Damage(position, f"no batch header (magic {magic}, length {length})")
            size = length + LOG_OVERHEAD
            if position + size > end:
                raise Damage(position, f"a batch of {size} bytes with {end - position} left")
            if size > _CHUNK:
                actual = _crc_in_pieces(file, position + CRC_START, position + size)
            else:
                if at + size > have:
                    view, have, start, at = _window(file, position, end)
                actual = crc32c(view[at + CRC_START : at + size])
            if actual != crc:
                raise Damage(position, "the CRC does not match")
            last = base + delta
            if base != expected or leader_epoch != epoch or last >= limit:
                beyond = last >= limit
                if beyond or base < expected or leader_epoch < epoch:
                    if beyond:
                        doubt = None
                    reason = f"offset {base}, epoch {leader_epoch} out of order"
                    raise Damage(position if doubt is None else doubt.position, reason)
                doubt = _Doubt(position, expected, since, max_timestamp, max_timestamp_offset)
                gap = doubt if base > max(expected, job.gaps_below) else None
                if leader_epoch > epoch:
                    epoch = leader_epoch
                    found.epochs.append((epoch, base))
            else:
                doubt = gap = None
            if producer_id > producers:
                producers = producer_id
            if timestamp > max_timestamp:
                max_timestamp, max_timestamp_offset = timestamp, last
            if since > interval:
                index.add(last - base_offset, position)
                index.add_time(max_timestamp, max_timestamp_offset - base_offset)
                since = 0
            since += size
            expected = last + 1
            if position == 0:
                found.first_timestamp = timestamp
            position += size
        if gap is not None and job.is_last:
            doubt = gap
            raise Damage(gap.position, "the last batch leaves a gap before it")
    except Damage as damage:
        found.damage = damage
        if doubt is not None and damage.position == doubt.position:
            _, expected, since, max_timestamp, max_timestamp_offset = doubt
            index.truncate(expected - base_offset, doubt.position)
            found.epochs = [pair for pair in found.epochs if pair[1] < expected]
    found.end_offset = expected
    found.has_producers = producers >= 0
    found.since_index = since
    found.max_timestamp, found.max_timestamp_offset = max_timestamp, max_timestamp_offset
    return found


def _window(file: File, position: int, end: int) -> tuple[memoryview, int, int, int]:
    """What comes from `position` on, how much of it, where it starts, and where in it `position` is."""
    view = memoryview(file.pread(min(_CHUNK, end - position), position))
    return view, len(view), position, 0


def _crc_in_pieces(file: File, position: int, end: int) -> int:
    """Of a batch that is large, or has a damaged length: it does not have to fit into memory."""
    crc = 0
    while position < end:
        piece = file.pread(min(_CHUNK, end - position), position)
        if not piece:
            return -1
        crc = crc32c(piece, crc)
        position += len(piece)
    return crc
