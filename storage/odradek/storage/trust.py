"""What of a segment needs no second look: bytes whose CRC this process has checked and the page cache still holds.

A consumer that reads at the pace of the network leaves no time for a checksum per read, so each byte is checked once:
when it is produced (before the append), or when it is first read. That holds as long as the checked bytes are what
the next reader gets: pages that leave the page cache come back from the medium, which may have rotted. Hence

- a range is believed only while the page cache has all of it (`File.is_cached`), and the first page that is missing
  takes the belief from its whole segment: what the kernel reads ahead around it is not seen otherwise;
- belief ends after some minutes (`FilePool.forget_checks`), for what nobody sees: another process that reads
  pages back in, or writes to the file.
"""

from __future__ import annotations

from bisect import bisect_right

RANGES_MAX = 64
"""Disjoint checked ranges of a segment. Readers go forward, so each of them makes one that grows."""


class Checked:
    """Which bytes of one segment's file are known to be sound. Whole batches only."""

    __slots__ = ("_ends", "_era", "_starts", "written_from")

    def __init__(self, size: int) -> None:
        self.written_from = size
        """From here to the end of the file, everything was checked and written by this process."""
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._era = 0

    def forget(self, written: int) -> None:
        """Nothing of the `written` bytes is believed any more."""
        self.written_from = written
        self._starts.clear()
        self._ends.clear()

    def _enter(self, era: int, written: int) -> None:
        if era != self._era:
            self._era = era
            self.forget(written)

    def end(self, position: int, era: int, written: int) -> int:
        """How far everything from `position` on is sound; `position` itself if nothing is."""
        self._enter(era, written)
        if position >= self.written_from:
            return written
        at = bisect_right(self._starts, position) - 1
        if at < 0:
            return position
        end = self._ends[at]
        if end >= self.written_from:
            return written
        return max(position, end)

    def add(self, start: int, end: int, era: int, written: int) -> None:
        """These bytes have just been checked."""
        self._enter(era, written)
        if start >= self.written_from:
            return
        starts, ends = self._starts, self._ends
        first = bisect_right(ends, start - 1)  # the first that reaches `start`
        after = bisect_right(starts, end)  # the first that begins beyond `end`
        if first < after:
            start, end = min(start, starts[first]), max(end, ends[after - 1])
        starts[first:after] = [start]
        ends[first:after] = [end]
        if len(starts) > RANGES_MAX:  # the shortest is checked again one day
            shortest = min(range(len(starts)), key=lambda at: ends[at] - starts[at])
            del starts[shortest], ends[shortest]

    def cut(self, size: int) -> None:
        """The file was truncated; what is written next was checked before."""
        self.written_from = min(self.written_from, size)
        while self._starts and self._ends[-1] > size:
            if self._starts[-1] >= size:
                self._starts.pop()
                self._ends.pop()
            else:
                self._ends[-1] = size
