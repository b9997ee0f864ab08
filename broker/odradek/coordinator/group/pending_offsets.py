"""Offsets committed in transactions that have no marker yet (KIP-98, KIP-447).

They become the group's offsets with the marker, unless the transaction aborts, or something later in the log has
committed another offset meanwhile. Until then OffsetFetch with `require_stable` is told UNSTABLE_OFFSET_COMMIT.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from odradek.coordinator.timeline import Timeline, TimelineDict
from odradek.wire.messages.offset_commit_value import OffsetCommitValue

TopicPartition: TypeAlias = tuple[str, int]
Key: TypeAlias = tuple[str, TopicPartition]
"""Group and partition."""
Pending: TypeAlias = tuple[int, OffsetCommitValue | None]
"""(place in the log, value); no value: something later has been committed, and the marker will not change it."""


class PendingOffsets:
    """Of one partition of `__consumer_offsets`."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._by_producer: dict[int, TimelineDict[Key, Pending]] = {}
        self._open: dict[str, TimelineDict[TopicPartition, frozenset[int]]] = {}
        """By group: the producers whose transactions hold an offset of a partition. Entries may be void."""
        self._place = 0

    def __len__(self) -> int:
        """How many transactions are open (void ones included until `drop_void`)."""
        return len(self._by_producer)

    # -- replay --------------------------------------------------------------------------------------------------

    def add(self, producer_id: int, group_id: str, where: TopicPartition, value: OffsetCommitValue) -> None:
        self._place += 1
        table = self._by_producer.get(producer_id)
        if table is None:
            table = self._by_producer[producer_id] = TimelineDict(self._timeline)
        table[group_id, where] = self._place, value
        opened = self._open.get(group_id)
        if opened is None:
            opened = self._open[group_id] = TimelineDict(self._timeline)
        opened[where] = (opened.get(where) or frozenset()) | {producer_id}

    def superseded(self, group_id: str, where: TopicPartition, place: int | None = None) -> None:
        """An offset was committed outside of transactions, or by one that had it pending since `place`."""
        opened = self._open.get(group_id)
        producers = opened.get(where) if opened is not None else None
        for producer_id in sorted(producers or ()):
            table = self._by_producer[producer_id]
            pending = table.get((group_id, where))
            if pending is not None and pending[1] is not None and (place is None or pending[0] < place):
                table[group_id, where] = pending[0], None

    def deleted(self, group_id: str, where: TopicPartition) -> None:
        """A tombstone takes what is pending with it."""
        opened = self._open.get(group_id)
        producers = opened.get(where) if opened is not None else None
        if opened is not None and producers:
            opened.remove(where)
            for producer_id in sorted(producers):
                self._by_producer[producer_id].remove((group_id, where))

    def end(self, producer_id: int, commit: bool) -> list[tuple[str, TopicPartition, OffsetCommitValue]]:
        """The transaction is over; what it has committed, to be applied."""
        table = self._by_producer.get(producer_id)
        if table is None:
            return []
        applied: list[tuple[str, TopicPartition, OffsetCommitValue]] = []
        for (group_id, where), (place, value) in list(table.items()):
            table.remove((group_id, where))
            opened = self._open[group_id]
            left = (opened.get(where) or frozenset()) - {producer_id}
            if left:
                opened[where] = left
            else:
                opened.remove(where)
            if commit and value is not None:
                self.superseded(group_id, where, place)
                applied.append((group_id, where, value))
        return applied

    # -- asked ---------------------------------------------------------------------------------------------------

    def is_open(self, group_id: str, where: TopicPartition, *, latest: bool = True) -> bool:
        """Whether a transaction under way holds an offset of this partition."""
        opened = self._open.get(group_id)
        if opened is None:
            return False
        return (opened.get(where) if latest else opened.get_committed(where)) is not None

    def of_group(self, group_id: str) -> Iterator[TopicPartition]:
        """Every partition of which an offset is pending. Nothing may change meanwhile."""
        opened = self._open.get(group_id)
        if opened is not None:
            yield from (where for where, _ in opened.items())

    def drop_void(self) -> None:
        """Forget the empty tables of what is over."""
        for producer_id in [key for key, table in self._by_producer.items() if table.is_void()]:
            del self._by_producer[producer_id]
        for group_id in [key for key, table in self._open.items() if table.is_void()]:
            del self._open[group_id]
