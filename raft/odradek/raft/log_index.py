"""What the core knows of its log without reading it: offsets, epochs, snapshots (KIP-595, KIP-630).

A mirror of a few integers. The core changes it in the same step in which it emits the effect that changes
the real log, so that every decision is taken on data; the driver checks after each effect that both agree.
No record bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import NamedTuple


class OffsetAndEpoch(NamedTuple):
    """An exclusive end offset and the epoch of the record just below it."""

    offset: int
    epoch: int


ORIGIN = OffsetAndEpoch(0, 0)
"""Where an empty log starts: no record below it."""


class SnapshotId(NamedTuple):
    """A snapshot holds the effect of all records below `offset`, the last of which has `epoch`."""

    offset: int
    epoch: int

    @property
    def file_name(self) -> str:
        return f"{self.offset:020d}-{self.epoch:010d}.checkpoint"

    def __repr__(self) -> str:
        return f"{self.offset}-{self.epoch}"


@dataclass(slots=True, eq=False)
class LogIndex:
    """Start, end, fsynced end, epochs with their first offsets, retained snapshots (oldest first)."""

    start: OffsetAndEpoch = ORIGIN
    end_offset: int = 0
    synced_end: int = 0
    epochs: list[OffsetAndEpoch] = field(default_factory=list)
    """(first offset, epoch), both ascending; only epochs at or above the start."""
    snapshots: list[SnapshotId] = field(default_factory=list)
    generation: int = 0
    """Counts truncations: an fsync asked for before one says nothing about the bytes written after it."""

    @property
    def last_epoch(self) -> int:
        return self.epochs[-1].epoch if self.epochs else self.start.epoch

    @property
    def latest_snapshot(self) -> SnapshotId | None:
        return self.snapshots[-1] if self.snapshots else None

    @property
    def is_synced(self) -> bool:
        return self.synced_end == self.end_offset

    def append(self, base_offset: int, count: int, epoch: int) -> None:
        assert base_offset == self.end_offset, f"batch at {base_offset} does not follow {self.end_offset}"
        assert count > 0 and epoch >= self.last_epoch, f"epoch {epoch} after epoch {self.last_epoch}"
        if not self.epochs or self.epochs[-1].epoch != epoch:
            self.epochs.append(OffsetAndEpoch(base_offset, epoch))
        self.end_offset = base_offset + count

    def truncate_to(self, offset: int) -> None:
        assert self.start.offset <= offset <= self.end_offset, f"cannot truncate {self} to {offset}"
        self.end_offset = offset
        self.synced_end = min(self.synced_end, offset)
        self.generation += 1
        while self.epochs and self.epochs[-1].offset >= offset:
            self.epochs.pop()

    def mark_synced(self, generation: int, end_offset: int) -> bool:
        """An fsync that was asked for at (generation, end) is done; whether it proved anything new."""
        if generation != self.generation or end_offset <= self.synced_end:
            return False
        assert end_offset <= self.end_offset
        self.synced_end = end_offset
        return True

    def restart_at(self, snapshot: SnapshotId) -> None:
        """An installed snapshot replaces the log, which now starts, empty, at its end."""
        self.start = OffsetAndEpoch(*snapshot)
        self.end_offset = self.synced_end = snapshot.offset
        self.epochs.clear()
        self.snapshots = [snapshot]
        self.generation += 1

    def advance_start(self, snapshot: SnapshotId) -> None:
        assert self.start.offset <= snapshot.offset <= self.end_offset
        self.start = OffsetAndEpoch(*snapshot)
        while len(self.epochs) > 1 and self.epochs[1].offset <= snapshot.offset:
            del self.epochs[0]
        if self.epochs and snapshot.offset >= self.end_offset:
            self.epochs.clear()
        elif self.epochs and self.epochs[0].offset < snapshot.offset:
            self.epochs[0] = OffsetAndEpoch(snapshot.offset, self.epochs[0].epoch)

    def epoch_below(self, end_offset: int) -> int:
        """The epoch of the record at `end_offset - 1`; of the snapshot if that is where the log starts."""
        assert self.start.offset <= end_offset <= self.end_offset
        if end_offset == self.start.offset:
            return self.start.epoch
        return self.epochs[bisect_right(self.epochs, (end_offset - 1, 1 << 62)) - 1].epoch

    def end_offset_for_epoch(self, epoch: int) -> OffsetAndEpoch:
        """The largest known epoch ≤ `epoch` and where it ends (KIP-101); the log's start if all are newer."""
        end = self.end_offset
        for first_offset, known in reversed(self.epochs):
            if known <= epoch:
                return OffsetAndEpoch(end, known)
            end = first_offset
        return self.start

    def check_position(self, offset: int, last_epoch: int) -> OffsetAndEpoch | SnapshotId | None:
        """Whether a follower that ends at (offset, last epoch) may fetch from here.

        None: yes. A SnapshotId: it must load that first. An OffsetAndEpoch: its log diverges, and this is
        the end of the largest epoch not above its own.
        """
        newest = self.latest_snapshot
        below_start = offset < self.start.offset or last_epoch < self.start.epoch
        wrong_start = offset == self.start.offset and offset > 0 and last_epoch != self.start.epoch
        if newest is not None and self.start.offset > 0 and (below_start or wrong_start):
            return newest
        end = self.end_offset_for_epoch(last_epoch)
        return None if end.epoch == last_epoch and offset <= end.offset else end
