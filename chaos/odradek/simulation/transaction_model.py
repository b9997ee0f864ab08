"""The transactions of one partition, as its committed log tells them: what is open, what ended how (T2, T3)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING

from odradek.simulation.trace import InvariantViolation
from odradek.wire.records import CONTROL_FLAG, TRANSACTIONAL_FLAG

if TYPE_CHECKING:
    from odradek.simulation.partition_model import BatchInfo


class PartitionTransactions:
    """Fed with committed batches in order."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.outcome: dict[int, bool | None] = {}
        """Base offset of each transactional batch → whether its transaction was committed; None: it is open."""
        self._open: dict[int, list[BatchInfo]] = {}
        """By producer id."""
        self._ends: list[tuple[int, int]] = []
        """(offset of the marker, first offset of what it ended), in log order."""
        self._markers: dict[tuple[int, int], bool] = {}
        """(producer id, epoch of a marker that is above the epoch of what it ended) → what it said (KIP-890)."""
        self._epochs: dict[int, int] = {}
        self.markers: set[tuple[tuple[int, int], bool]] = set()
        """((producer id, epoch), whether it commits) of every marker."""
        self.ends: Counter[tuple[int, int]] = Counter()
        """How many transactions were ended here by markers of a producer id and epoch."""
        self.ended_last: list[tuple[int, int]] = []
        """Whose, since somebody has looked."""

    def add(self, batch: BatchInfo) -> None:
        if batch.producer_id < 0 or not batch.attributes & TRANSACTIONAL_FLAG:
            return
        if batch.attributes & CONTROL_FLAG:
            if batch.commits is not None:
                self._end(batch, batch.commits)
            return
        if batch.producer_epoch < self._epochs.get(batch.producer_id, -1):
            raise InvariantViolation(
                f"T3: {self._name}: the batch at {batch.base} of producer {batch.producer_id} epoch "
                f"{batch.producer_epoch} follows a marker of epoch {self._epochs[batch.producer_id]}"
            )
        self._epochs[batch.producer_id] = batch.producer_epoch
        self._open.setdefault(batch.producer_id, []).append(batch)
        self.outcome[batch.base] = None

    def _end(self, marker: BatchInfo, commits: bool) -> None:
        if marker.producer_epoch < self._epochs.get(marker.producer_id, -1):
            raise InvariantViolation(
                f"T3: {self._name}: the marker at {marker.base} of producer {marker.producer_id} epoch "
                f"{marker.producer_epoch} follows epoch {self._epochs[marker.producer_id]}"
            )
        self.markers.add(((marker.producer_id, marker.producer_epoch), commits))
        ended = self._open.pop(marker.producer_id, [])
        for batch in ended:
            self.outcome[batch.base] = commits
        if ended:
            self._ends.append((marker.base, ended[0].base))
            producer = marker.producer_id, marker.producer_epoch
            self.ends[producer] += 1
            self.ended_last.append(producer)
        key = marker.producer_id, marker.producer_epoch
        known = self._markers.get(key)
        if known is not None and known != commits:
            raise InvariantViolation(
                f"T3: {self._name}: the marker at {marker.base} of producer {marker.producer_id} epoch "
                f"{marker.producer_epoch} says {'commit' if commits else 'abort'}, an earlier one the opposite"
            )
        if ended and ended[-1].producer_epoch < marker.producer_epoch:
            self._markers[key] = commits
        self._epochs[marker.producer_id] = marker.producer_epoch

    def is_open(self, producer_id: int) -> bool:
        return producer_id in self._open

    def has_ended(self, producer_id: int) -> bool:
        """Some transaction of it."""
        return any(producer == producer_id for (producer, _), _ in self.markers)

    def open_since(self) -> int | None:
        """The offset at which the oldest open transaction begins."""
        return min((batches[0].base for batches in self._open.values()), default=None)

    def stable_end(self, high_watermark: int) -> int:
        """The last stable offset that belongs to a high watermark, which may be behind the true one."""
        first = high_watermark
        begun = self.open_since()
        if begun is not None:
            first = min(first, begun)
        for _, start in self._ends[bisect_left(self._ends, (high_watermark, -1)) :]:
            first = min(first, start)
        return first
