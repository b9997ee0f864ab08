"""Leader epochs of a log: which epoch began at which offset (KIP-101, KIP-279), in `leader-epoch-checkpoint`."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable

from odradek.ports.disk import Disk
from odradek.storage import layout
from odradek.storage.checkpoints import CheckpointError, parse_pairs, render_pairs

UNKNOWN = (-1, -1)
ALL_SAVED = (1 << 63) - 1


class LeaderEpochCache:
    """Ascending (epoch, start offset) pairs. `latest` is -1 when there is none."""

    __slots__ = (
        "_dir", "_disk", "_epochs", "_starts", "is_complete", "latest", "on_unsaved", "unsaved_from",
    )  # fmt: skip

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._dir = directory
        self._epochs: list[int] = []
        self._starts: list[int] = []
        self.latest = -1
        self.is_complete = True
        """False if the checkpoint file is missing or damaged: then the batches must tell."""
        self.unsaved_from = ALL_SAVED
        """The file does not have what changed from this offset on. A recovery point may not pass it on disk: from there
        on the batches tell.
        """
        self.on_unsaved: Callable[[], None] | None = None
        """Told when something is to be written some time; without it everything is written at once."""

    @classmethod
    def load(cls, disk: Disk, directory: str) -> LeaderEpochCache:
        """From the checkpoint file; empty and not `is_complete` when that is missing or damaged."""
        cache = cls(disk, directory)
        path = f"{directory}/{layout.LEADER_EPOCH_CHECKPOINT}"
        try:
            pairs = parse_pairs(disk.read_file(path).decode("utf-8", "replace"))
        except (FileNotFoundError, CheckpointError):
            cache.is_complete = False
            return cache
        for epoch, start in pairs:
            cache._insert(epoch, start)
        return cache

    def __len__(self) -> int:
        return len(self._epochs)

    def moved(self, directory: str) -> None:
        """The directory of the log has another name now."""
        self._dir = directory

    @property
    def entries(self) -> list[tuple[int, int]]:
        return list(zip(self._epochs, self._starts, strict=True))

    def assign(self, epoch: int, start: int, *, durable: bool = True) -> bool:
        """Note that `epoch` begins at `start`; whether that was news.

        With `durable` it is fsynced before this returns, otherwise written some time. Entries that the new one
        contradicts (no later start, no smaller epoch) are dropped: their batches are not there.
        """
        assert epoch >= 0 <= start, f"epoch {epoch} at {start}"
        if self._epochs and self._epochs[-1] == epoch and self._starts[-1] <= start:
            return False
        self._insert(epoch, start)
        self._changed(start, durable)
        return True

    def _changed(self, start: int, durable: bool) -> None:
        if durable or self.on_unsaved is None:
            self.write(durable=durable)
            return
        if self.unsaved_from == ALL_SAVED:
            self.on_unsaved()
        self.unsaved_from = min(self.unsaved_from, start)

    def restore(self, epoch: int, start: int) -> bool:
        """As `note`, for an epoch between those that are known; whether it was missing and fits."""
        at = bisect_left(self._epochs, epoch)
        if at < len(self._epochs) and (self._epochs[at] == epoch or self._starts[at] <= start):
            return False
        if at > 0 and self._starts[at - 1] >= start:
            return False
        self._epochs.insert(at, epoch)
        self._starts.insert(at, start)
        self._remember()
        self.unsaved_from = min(self.unsaved_from, start)
        return True

    def note(self, epoch: int, start: int) -> None:
        """As `assign`, in memory only: recovery has it written once it is over."""
        if epoch >= 0 and epoch > self.latest:
            self._insert(epoch, start)
            self.unsaved_from = min(self.unsaved_from, start)

    def epoch_at(self, offset: int) -> int:
        """The epoch of the batch at `offset`, or -1."""
        at = bisect_right(self._starts, offset) - 1
        return self._epochs[at] if at >= 0 else -1

    def end_offset_for(self, epoch: int, log_end_offset: int) -> tuple[int, int]:
        """(largest epoch ≤ `epoch`, its end offset), or (-1, -1) if `epoch` is unknown or above the latest."""
        if epoch < 0 or not self._epochs or epoch > self._epochs[-1]:
            return UNKNOWN
        if epoch == self._epochs[-1]:
            return epoch, log_end_offset
        after = bisect_right(self._epochs, epoch)
        if after == 0:
            return epoch, self._starts[0]
        return self._epochs[after - 1], self._starts[after]

    def truncate_from_end(self, end: int, *, write: bool = True, durable: bool = True) -> None:
        """Drop the epochs that start at or after `end`: no batch of theirs is there. It need not be durable if there
        was none before either: the next start drops them again.
        """
        keep = bisect_left(self._starts, end)
        if keep < len(self._starts):
            del self._epochs[keep:], self._starts[keep:]
            self._remember()
            if write:
                self._changed(end, durable)

    def truncate_from_start(self, start: int, *, write: bool = True) -> None:
        """Drop the epochs that end at or before `start`; the one that holds it now begins there."""
        at = bisect_right(self._starts, start) - 1
        if at < 0 or (at == 0 and self._starts[0] == start):
            return
        del self._epochs[:at], self._starts[:at]
        self._starts[0] = start
        if write:
            self.write(durable=False)

    def copy_from(self, other: LeaderEpochCache) -> None:
        """Take over what another copy of this log knows. Not durable; OSError."""
        self._epochs, self._starts = list(other._epochs), list(other._starts)
        self._remember()
        self.write(durable=False)

    def clear(self) -> None:
        if self._epochs:
            self._epochs.clear()
            self._starts.clear()
            self._remember()
            self.write(durable=True)

    def write(self, *, durable: bool) -> None:
        """Rewrite the file. Blocking; OSError takes the directory offline."""
        text = render_pairs(zip(self._epochs, self._starts, strict=True))
        path = f"{self._dir}/{layout.LEADER_EPOCH_CHECKPOINT}"
        self._disk.write_file_atomic(path, text.encode(), durable=durable)
        self.unsaved_from = ALL_SAVED

    def _insert(self, epoch: int, start: int) -> None:
        while self._epochs and (self._epochs[-1] >= epoch or self._starts[-1] >= start):
            self._epochs.pop()
            self._starts.pop()
        self._epochs.append(epoch)
        self._starts.append(start)
        self._remember()

    def _remember(self) -> None:
        self.latest = self._epochs[-1] if self._epochs else -1
