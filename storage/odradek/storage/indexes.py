"""Offset index (8-byte entries) and time index (12-byte entries) of a segment, in Kafka's formats.

The segment that is written to keeps both in memory as arrays and saves them when it is rolled, synced or closed.
A closed segment keeps nothing: a lookup is a binary search with a few small reads, which costs some 25 µs once per
consumer that seeks (sequential reads never come here) and no memory for the thousands of segments nobody reads.

An entry of the offset index is (last offset of a batch, position of that batch), one for about every
`index.interval.bytes`; of the time index (largest timestamp so far, last offset of the batch that has it). Offsets
are relative to the segment's base. Kafka preallocates these files with zeros, so a zero tail is not data. Nothing in
an index is trusted: who uses an entry checks it against the batch it names.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from struct import Struct

from odradek.ports.disk import File

OFFSET_ENTRY = Struct(">ii")
TIME_ENTRY = Struct(">qi")
_WINDOW = 512
"""Entries read at once where a position is looked for."""


class SegmentIndex:
    """Both indexes of a segment in memory. Entries only ever grow."""

    __slots__ = ("offsets", "positions", "time_offsets", "times")

    def __init__(self) -> None:
        self.offsets = array("i")
        self.positions = array("i")
        self.times = array("q")
        self.time_offsets = array("i")

    def add(self, relative: int, position: int) -> None:
        self.offsets.append(relative)
        self.positions.append(position)

    def add_time(self, timestamp: int, relative: int) -> None:
        """Kept only if it is later than the last entry, as Kafka does."""
        if timestamp > (self.times[-1] if self.times else -1):
            self.times.append(timestamp)
            self.time_offsets.append(relative)

    def floor(self, relative: int) -> tuple[int, int] | None:
        """The last (relative offset, position) at or below `relative`."""
        at = bisect_right(self.offsets, relative) - 1
        return (self.offsets[at], self.positions[at]) if at >= 0 else None

    def floor_position(self, position: int, relative: int) -> tuple[int, int] | None:
        """The last (relative offset, position) below both."""
        at = min(bisect_left(self.positions, position), bisect_left(self.offsets, relative)) - 1
        return (self.offsets[at], self.positions[at]) if at >= 0 else None

    def floor_time(self, timestamp: int) -> tuple[int, int] | None:
        """The last (timestamp, relative offset) at or before `timestamp`."""
        at = bisect_right(self.times, timestamp) - 1
        return (self.times[at], self.time_offsets[at]) if at >= 0 else None

    def truncate(self, relative: int, position: int) -> None:
        """Forget entries at or above a relative offset or a position."""
        while self.offsets and (self.offsets[-1] >= relative or self.positions[-1] >= position):
            self.offsets.pop()
            self.positions.pop()
        while self.times and self.time_offsets[-1] >= relative:
            self.times.pop()
            self.time_offsets.pop()

    def encode_offsets(self) -> bytes:
        pairs = array("i", bytes(8 * len(self.offsets)))
        pairs[0::2] = self.offsets
        pairs[1::2] = self.positions
        return _big_endian(pairs)

    def encode_times(self) -> bytes:
        return b"".join(map(TIME_ENTRY.pack, self.times, self.time_offsets))


def load_index(offset_data: bytes, time_data: bytes, segment_size: int) -> SegmentIndex | None:
    """An index read back from its two files; None if an entry is out of order or points outside the segment."""
    index = SegmentIndex()
    pairs = array("i")
    pairs.frombytes(offset_data[: len(offset_data) // 8 * 8])
    if sys.byteorder == "little":
        pairs.byteswap()
    index.offsets, index.positions = pairs[0::2], pairs[1::2]
    while index.positions and index.positions[-1] == 0:  # Kafka's preallocated tail
        index.offsets.pop()
        index.positions.pop()
    for timestamp, relative in TIME_ENTRY.iter_unpack(time_data[: len(time_data) // 12 * 12]):
        if timestamp == 0 and relative == 0 and index.times:
            break
        index.times.append(timestamp)
        index.time_offsets.append(relative)
    if not (_ascending(index.offsets) and _ascending(index.positions) and _ascending(index.times)):
        return None
    if index.positions and not 0 <= index.positions[-1] < segment_size:
        return None
    return index


def floor_in_file(file: File, relative: int) -> tuple[int, int] | None:
    """As `SegmentIndex.floor`, by a look at the last entry and binary search in the file."""
    found = None
    low, high = 0, file.size() // 8
    if high:
        offset, position = OFFSET_ENTRY.unpack(file.pread(8, high * 8 - 8))
        if position != 0 and offset <= relative:
            return offset, position
    while low < high:
        middle = (low + high) // 2
        offset, position = OFFSET_ENTRY.unpack(file.pread(8, middle * 8))
        if position == 0 or offset > relative:  # position 0 is never indexed: it is a zero tail
            high = middle
        else:
            found = (offset, position)
            low = middle + 1
    return found


def floor_position_in_file(file: File, position: int, written: int) -> tuple[int, int] | None:
    """(relative offset, position) of the last entry below `position`, or of one not far before it.

    Batches tend to be alike, so the entry stands where the proportion to the `written` bytes of the log says, or near:
    one small read instead of a search over the file.
    """
    count = file.size() // 8
    guess = count * position // max(1, written)
    first = max(0, min(guess - _WINDOW // 2, count - _WINDOW))
    pairs = array("i")
    data = file.pread(_WINDOW * 8, first * 8)
    pairs.frombytes(data[: len(data) // 8 * 8])
    if sys.byteorder == "little":
        pairs.byteswap()
    positions = pairs[1::2]
    at = bisect_left(positions, position) - 1
    if 0 <= at < len(positions) - 1 and 0 < positions[at] < position <= positions[at + 1]:
        return pairs[2 * at], positions[at]
    return _search_position(file, position, count)


def _search_position(file: File, position: int, count: int) -> tuple[int, int] | None:
    found = None
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        entry = OFFSET_ENTRY.unpack(file.pread(8, middle * 8))
        if entry[1] == 0 or entry[1] >= position:
            high = middle
        else:
            found = entry
            low = middle + 1
    return found


def floor_time_in_file(file: File, timestamp: int) -> tuple[int, int] | None:
    """As `SegmentIndex.floor_time`, by a look at the last entry and binary search in the file."""
    found = None
    low, high = 0, file.size() // 12
    if high:
        time, relative = TIME_ENTRY.unpack(file.pread(12, high * 12 - 12))
        if 0 < time <= timestamp:
            return time, relative
    while low < high:
        middle = (low + high) // 2
        time, relative = TIME_ENTRY.unpack(file.pread(12, middle * 12))
        if (time == 0 and relative == 0 and middle > 0) or time > timestamp:
            high = middle
        else:
            found = (time, relative)
            low = middle + 1
    return found


def _ascending(values: array[int]) -> bool:
    return all(map(int.__lt__, values, values[1:]))


def _big_endian(values: array[int]) -> bytes:
    if sys.byteorder == "little":
        values.byteswap()
    return values.tobytes()
