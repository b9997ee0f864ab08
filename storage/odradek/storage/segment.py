"""One segment: a `.log` file with its two indexes. What it knows of itself, and how an offset is found in it."""

from __future__ import annotations

import errno
from typing import Final

from crc32c import crc32c

from odradek.ports.disk import Disk, File
from odradek.storage import layout
from odradek.storage.batch import CRC_START, Damage, walk_headers
from odradek.storage.indexes import (
    TIME_ENTRY,
    SegmentIndex,
    floor_in_file,
    floor_position_in_file,
    floor_time_in_file,
    load_index,
)
from odradek.storage.trust import Checked
from odradek.storage.txn_index import AbortedTxn
from odradek.storage.txn_index import encode as encode_aborted
from odradek.wire.records import BatchHeader

RELATIVE_OFFSET_MAX = 0x7FFFFFFF
NEVER: Final = -(1 << 63)
TIMESTAMP_MAX: Final = (1 << 63) - 1
_WALK_BYTES = 8192
_TAIL_BYTES = 5120
"""What lies behind the last index entry as a rule: `index.interval.bytes` and a batch."""
UNKNOWN_TIMESTAMP: Final = -2
"""The largest timestamp of a closed segment that nobody has asked for yet."""


class DamagedIndex(Exception):  # noqa: N818 - a finding about the disk, handled where it is found
    """An index entry does not name a batch of its segment: the index must be rebuilt."""


class FilePool:
    """Open segment files, at most `capacity` of them, so that thousands of logs fit a descriptor limit.

    Eviction is second chance: a file used since its last turn gets another, a pinned one (an fsync is under way) stays.
    """

    __slots__ = ("_open", "capacity", "disk", "era")

    def __init__(self, disk: Disk, capacity: int = 4096) -> None:
        self.disk = disk
        self.capacity = capacity
        self._open: dict[Segment, None] = {}
        self.era = 0
        """What was checked in an earlier era is checked again before it is believed (trust.py)."""

    def forget_checks(self) -> None:
        """To be called every few minutes."""
        self.era += 1

    def __len__(self) -> int:
        return len(self._open)

    def open(self, segment: Segment, *, create: bool = False) -> File:
        """The segment's file, opened now; kept until evicted or closed."""
        if len(self._open) >= self.capacity:
            self._evict()
        path = segment.path(layout.LOG_SUFFIX)
        try:
            file = self.disk.open(path, create=create, exclusive=create)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._open:
                raise
            # Connections have taken the descriptors: make do with fewer, rather than call the disk broken.
            self.capacity = max(1, len(self._open) * 3 // 4)
            while len(self._open) >= self.capacity and self._evict():
                pass
            file = self.disk.open(path, create=create, exclusive=create)
        segment.file = file
        self._open[segment] = None
        return file

    def close(self, segment: Segment) -> None:
        """Close now, or as soon as the last pin is gone."""
        if segment.pins:
            segment.close_when_unpinned = True
            return
        self._open.pop(segment, None)
        file, segment.file = segment.file, None
        if file is not None:
            file.close()

    def unpin(self, segment: Segment) -> None:
        segment.pins -= 1
        if segment.pins == 0 and segment.close_when_unpinned:
            segment.close_when_unpinned = False
            self.close(segment)

    def _evict(self) -> bool:
        for _ in range(2 * len(self._open)):
            segment = next(iter(self._open))
            if segment.used or segment.pins:
                segment.used = False
                del self._open[segment]
                self._open[segment] = None
            else:
                self.close(segment)
                return True
        return False


def _verify(file: File, position: int, header: BatchHeader) -> None:
    """Raises Damage if the batch at `position` does not pass its CRC."""
    batch = file.pread(header.size, position)
    if len(batch) < header.size or crc32c(memoryview(batch)[CRC_START:]) != header.crc:
        raise Damage(position, "the CRC does not match")


def overwrite(disk: Disk, path: str, data: bytes) -> None:
    """Write a file whose content nobody trusts: neither atomic nor durable, and therefore cheap.

    A rename over an old file makes ext4 write the data out at once: 0.4 ms, for thousands of logs at a stop.
    """
    file = disk.open(path, create=True)
    try:
        if file.size() == 0:
            file.append([data])
        else:
            file.pwrite(data, 0)
            if file.size() > len(data):
                file.truncate(len(data))
    finally:
        file.close()


class Segment:
    """A contiguous part of a log. `size` counts staged bytes too, `written` only what is in the file."""

    __slots__ = (
        "aborted", "base_offset", "checked", "close_when_unpinned", "created_ms", "dir", "dirty", "file",
        "first_timestamp", "index", "max_timestamp", "max_timestamp_offset", "offset_max", "pins",
        "roll_after_timestamp", "since_index", "size",
        "used", "written",
    )  # fmt: skip

    def __init__(self, directory: str, base_offset: int, size: int, created_ms: int) -> None:
        self.dir = directory
        self.base_offset = base_offset
        self.offset_max = base_offset + RELATIVE_OFFSET_MAX
        """Relative offsets in the index are 32 bits."""
        self.size = size
        self.written = size
        self.checked = Checked(size)
        self.created_ms = created_ms
        self.file: File | None = None
        self.used = False
        self.pins = 0
        self.close_when_unpinned = False
        self.dirty = False
        """Has bytes that no fsync has covered."""
        self.index: SegmentIndex | None = None
        """In memory while the segment is written to; None: look into the files."""
        self.aborted: list[AbortedTxn] | None = None
        """The transaction index; None: look into the file, if there is one."""
        self.since_index = 0
        """Bytes since the last index entry."""
        self.max_timestamp = UNKNOWN_TIMESTAMP
        self.max_timestamp_offset = -1
        self.first_timestamp: int | None = None
        """The largest timestamp of the first batch; `segment.ms` counts from it."""
        self.roll_after_timestamp = NEVER
        """A batch with a later timestamp opens a new segment; `NEVER` until the first batch has set it."""

    def __repr__(self) -> str:
        return f"Segment({self.dir}, base_offset={self.base_offset}, size={self.size})"

    def path(self, suffix: str) -> str:
        return f"{self.dir}/{layout.file_name(self.base_offset, suffix)}"

    def begin_index(self) -> None:
        """Empty, to be filled by a scan or by appends from the start."""
        self.index = SegmentIndex()
        self.since_index = 0
        self.max_timestamp = self.max_timestamp_offset = -1

    def note_batch(
        self, last_offset: int, max_timestamp: int, position: int, size: int, interval: int
    ) -> None:
        """Index bookkeeping of a batch at `position`: the one rule for appends, recovery and rebuilds."""
        if max_timestamp > self.max_timestamp:
            self.max_timestamp = max_timestamp
            self.max_timestamp_offset = last_offset
        if self.since_index > interval:
            self.add_index_entry(last_offset, position)
            self.since_index = 0
        self.since_index += size

    def add_index_entry(self, last_offset: int, position: int) -> None:
        index = self.index
        assert index is not None, "entries are added to the index in memory"
        index.add(last_offset - self.base_offset, position)
        if self.max_timestamp > (index.times[-1] if index.times else -1):
            index.add_time(self.max_timestamp, self.max_timestamp_offset - self.base_offset)

    def index_is_full(self, bytes_max: int) -> bool:
        """`segment.index.bytes`, by the larger of the two entry sizes."""
        return self.index is not None and (len(self.index.offsets) + 2) * TIME_ENTRY.size > bytes_max

    def recount(self, pool: FilePool) -> int:
        """Largest timestamp and bytes since the last entry, from the index in memory and the few headers after it.

        The offset at which the segment ends. Raises Damage.
        """
        index = self.index
        assert index is not None, "only a segment that is written to counts"
        position = index.positions[-1] if index.positions else 0
        self.max_timestamp = index.times[-1] if index.times else -1
        self.max_timestamp_offset = self.base_offset + index.time_offsets[-1] if index.times else -1
        self.since_index = 0
        end = self.base_offset
        file = self.file or pool.open(self)
        for _, header in walk_headers(file, position, self.written):
            self.since_index += header.size
            end = header.last_offset + 1
            if header.max_timestamp > self.max_timestamp:
                self.max_timestamp, self.max_timestamp_offset = header.max_timestamp, header.last_offset
        return end

    def save_index(self, disk: Disk) -> None:
        """Write both index files. Not fsynced: a lost index is rebuilt, and none is trusted."""
        index = self.index
        if index is None:
            return
        if self.max_timestamp >= 0:
            index.add_time(self.max_timestamp, self.max_timestamp_offset - self.base_offset)
        overwrite(disk, self.path(layout.INDEX_SUFFIX), index.encode_offsets())
        overwrite(disk, self.path(layout.TIME_INDEX_SUFFIX), index.encode_times())

    def save_aborted(self, disk: Disk) -> None:
        """Write the transaction index, if there is anything to write."""
        path = self.path(layout.TXN_INDEX_SUFFIX)
        if self.aborted or (self.aborted is not None and disk.exists(path)):
            overwrite(disk, path, encode_aborted(self.aborted))

    def load_saved_index(self, disk: Disk) -> bool:
        """Read the index files into memory to go on writing; False if they are missing or damaged."""
        try:
            offsets = disk.read_file(self.path(layout.INDEX_SUFFIX))
            times = disk.read_file(self.path(layout.TIME_INDEX_SUFFIX))
        except FileNotFoundError:
            return False
        self.index = load_index(offsets, times, self.written)
        return self.index is not None

    # Finding an offset ------------------------------------------------------------------------------------------

    def find(self, pool: FilePool, offset: int) -> tuple[int, int] | None:
        """(position, expected base offset) of the first batch whose last offset is at or above `offset`.

        Expected is where the batch before ends; -1 if the walk began at this very batch, so that nothing vouches for
        its base offset (the CRC does not). None past the end. Raises DamagedIndex or Damage.
        """
        file = self.file or pool.open(self)
        self.used = True
        position, floor = self._floor(pool.disk, file, offset - self.base_offset)
        if not file.is_cached(position, min(_WALK_BYTES, self.written - position)):
            self.checked.forget(self.written)  # the walk brings it back, and what follows it
        expected = self.base_offset if floor is None else -1
        before: tuple[int, BatchHeader] | None = None
        try:
            for at, header in walk_headers(file, position, self.written):
                if at == position and floor is not None and header.last_offset != floor + self.base_offset:
                    raise DamagedIndex
                if header.base_offset < expected:
                    raise Damage(at, f"base offset {header.base_offset} after {expected - 1}")
                if header.last_offset >= offset:
                    if header.base_offset > expected and before is not None:
                        _verify(file, *before)  # the gap may be a damaged last offset of the batch before
                    return at, expected
                expected = header.last_offset + 1
                before = at, header
        except Damage as damage:
            if floor is not None and damage.position == position:
                raise DamagedIndex from None  # the entry names no batch at all
            raise
        return None

    def _floor(self, disk: Disk, file: File, relative: int) -> tuple[int, int | None]:
        """(position to walk from, relative offset its index entry claims)."""
        if relative <= 0:
            return 0, None
        if self.index is not None:
            entry = self.index.floor(relative)
        else:
            try:
                index_file = disk.open(self.path(layout.INDEX_SUFFIX))
            except FileNotFoundError:
                if self.written > 0:
                    raise DamagedIndex from None
                return 0, None
            try:
                entry = floor_in_file(index_file, relative)
            finally:
                index_file.close()
        if entry is None:
            return 0, None
        if not 0 <= entry[1] < self.written:
            raise DamagedIndex
        return entry[1], entry[0]

    def floor_position(self, disk: Disk, position: int, offset: int) -> tuple[int, int] | None:
        """(position, last offset) of an indexed batch that begins before `position` and ends before `offset`.

        The last such batch, or one not long before. None if no entry says. Nothing vouches for it but the entry.
        """
        relative = min(offset - self.base_offset, RELATIVE_OFFSET_MAX)
        if self.index is not None:
            entry = self.index.floor_position(position, relative)
        else:
            try:
                index_file = disk.open(self.path(layout.INDEX_SUFFIX))
            except FileNotFoundError:
                return None
            try:
                entry = floor_position_in_file(index_file, position, self.written)
                if entry is not None and entry[0] >= relative:
                    entry = floor_in_file(index_file, relative - 1)
            finally:
                index_file.close()
        return None if entry is None else (entry[1], entry[0] + self.base_offset)

    def header_at(self, pool: FilePool, offset: int) -> tuple[int, BatchHeader] | None:
        """(position, header) of the batch that holds `offset`, or of the first after it."""
        found = self.find(pool, offset)
        if found is None:
            return None
        file = self.file or pool.open(self)
        return next(walk_headers(file, found[0], self.written, chunk=64), None)

    # Finding a time ---------------------------------------------------------------------------------------------

    def load_max_timestamp(self, pool: FilePool) -> None:
        """Fill in the largest timestamp of a closed segment from its time index, checked against the log.

        Retention goes by this number, so a damaged one would delete data. The last entry must name its batch, and no
        batch at the end of the segment may be later. Raises DamagedIndex, Damage.
        """
        if self.max_timestamp != UNKNOWN_TIMESTAMP:
            return
        was_open = self.file is not None
        try:
            self._load_max_timestamp(pool)
        finally:
            if not was_open:  # one lookup asks every segment: that must not cost others their open files
                pool.close(self)

    def _load_max_timestamp(self, pool: FilePool) -> None:
        timestamp, relative = self.floor_time(pool.disk, TIMESTAMP_MAX) or (-1, 0)
        named = self.base_offset + relative
        file = self.file or pool.open(self)
        position, claimed = self._floor(pool.disk, file, RELATIVE_OFFSET_MAX)
        is_right = timestamp < 0
        try:
            for at, header in walk_headers(file, position, self.written, chunk=_TAIL_BYTES):
                is_misled = at == position and claimed not in (None, header.last_offset - self.base_offset)
                if is_misled or header.max_timestamp > timestamp:
                    raise DamagedIndex
                if header.max_timestamp == timestamp and header.base_offset <= named <= header.last_offset:
                    is_right = True
        except Damage as damage:
            if claimed is not None and damage.position == position:
                raise DamagedIndex from None  # the entry names no batch at all
            raise
        if not is_right:  # no batch of the end has it: then the one that it names
            found = self.header_at(pool, named)
            if found is None or found[1].max_timestamp != timestamp:
                raise DamagedIndex
        self.max_timestamp = timestamp
        self.max_timestamp_offset = self.base_offset + relative if timestamp >= 0 else -1

    def floor_time(self, disk: Disk, timestamp: int) -> tuple[int, int] | None:
        """The time index entry at or before `timestamp`: (timestamp, relative offset)."""
        if self.index is not None:
            return self.index.floor_time(timestamp)
        try:
            file = disk.open(self.path(layout.TIME_INDEX_SUFFIX))
        except FileNotFoundError:
            if self.written > 0:
                raise DamagedIndex from None
            return None
        try:
            return floor_time_in_file(file, timestamp)
        finally:
            file.close()

    def find_time(self, pool: FilePool, timestamp: int, offset: int) -> tuple[int, BatchHeader, int] | None:
        """(position, header, expected base offset or -1) of the first batch from `offset` on that reaches `timestamp`.

        Raises DamagedIndex, Damage.
        """
        entry = self.floor_time(pool.disk, timestamp)
        claimed = self.base_offset + entry[1] if entry is not None else -1
        found = self.find(pool, max(claimed, offset))
        if found is None:
            if claimed >= offset:
                raise DamagedIndex
            return None
        start, expected = found
        file = self.file or pool.open(self)
        for at, header in walk_headers(file, start, self.written):
            if at == start and entry is not None and claimed >= offset and header.max_timestamp != entry[0]:
                raise DamagedIndex
            if header.base_offset < expected:
                raise Damage(at, f"base offset {header.base_offset} after {expected - 1}")
            if header.max_timestamp >= timestamp:
                return at, header, expected
            expected = header.last_offset + 1
        return None

    def rebuild_index(self, pool: FilePool, interval: int) -> None:
        """Both indexes anew from the headers of the log. Leaves out what is damaged; reads find that themselves."""
        file = self.file or pool.open(self)
        self.begin_index()
        expected = self.base_offset
        try:
            for position, header in walk_headers(file, 0, self.written, chunk=1 << 16):
                if expected <= header.base_offset and header.last_offset <= self.offset_max:
                    self.note_batch(header.last_offset, header.max_timestamp, position, header.size, interval)
                    expected = header.last_offset + 1
        except Damage:
            pass
