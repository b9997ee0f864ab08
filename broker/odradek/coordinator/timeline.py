"""State that is ahead of its log: dictionaries that know which of their entries are committed.

A coordinator decides on its latest state, which already holds what it has appended but what is not committed yet.
Others may read only what is committed. And an append that fails takes back what it changed. Kafka's coordinators do
this with timeline data structures; here every change is kept, oldest first, beside the committed dictionary until
the write it belongs to is committed (`commit`) or refused (`revert`). Where nothing is pending, which is nearly
always, this is one plain dictionary and one empty one.

Writes are numbered in log order by their owner (`CoordinatorRuntime`). A timeline that has never written
(`REPLAYING`) commits changes at once: that is how a log is loaded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

REPLAYING = 0
"""`Timeline.writing` while the log is loaded: every change is committed."""
IDLE = -1
"""`Timeline.writing` between two writes: nothing may change."""


class Timeline:
    """The journal of all uncommitted changes of one partition's state, in log order."""

    __slots__ = ("_journal", "writing")

    def __init__(self) -> None:
        self.writing: int = REPLAYING
        """The number of the write that changes belong to (1 and up), or REPLAYING, or IDLE."""
        self._journal: deque[tuple[int, TimelineDict[Any, Any], Any]] = deque()

    def __len__(self) -> int:
        return len(self._journal)

    def touched(self, write: int) -> bool:
        """Whether `write` (the newest one) has changed anything."""
        return bool(self._journal) and self._journal[-1][0] == write

    def commit(self, write: int) -> None:
        """Everything up to and including `write` is committed."""
        journal = self._journal
        while journal and journal[0][0] <= write:
            _, table, key = journal.popleft()
            table._commit_oldest(key)

    def revert(self, write: int) -> None:
        """Take back everything that `write` and later ones changed, newest first."""
        journal = self._journal
        while journal and journal[-1][0] >= write:
            _, table, key = journal.pop()
            table._revert_newest(key)


class TimelineDict(Generic[K, V]):
    """A dictionary with a latest and a committed view. Values are replaced, never changed in place (or, where they
    are objects with a life of their own, like a classic group, only their presence is versioned)."""

    __slots__ = ("_committed", "_observer", "_pending", "_timeline")

    def __init__(
        self, timeline: Timeline, observer: Callable[[K, V | None, V | None], None] | None = None
    ) -> None:
        """`observer(key, old, new)` hears of every change of the latest view, and of every change that is taken
        back: what is derived from the entries stays true in both directions.
        """
        self._timeline = timeline
        self._observer = observer
        self._committed: dict[K, V] = {}
        self._pending: dict[K, deque[V | None]] = {}

    def get(self, key: K) -> V | None:
        """The latest value, committed or not."""
        changes = self._pending.get(key)
        return self._committed.get(key) if changes is None else changes[-1]

    def get_committed(self, key: K) -> V | None:
        return self._committed.get(key)

    def is_pending(self, key: K) -> bool:
        """Whether the latest value is not committed yet."""
        return key in self._pending

    def __len__(self) -> int:
        """How many entries are committed."""
        return len(self._committed)

    def __contains__(self, key: K) -> bool:
        return self.get(key) is not None

    def __setitem__(self, key: K, value: V) -> None:
        self._change(key, value)

    def remove(self, key: K) -> None:
        """Absent keys are no error: a tombstone may come twice."""
        self._change(key, None)

    def items(self) -> Iterator[tuple[K, V]]:
        """The latest entries. The dictionary must not change meanwhile."""
        if not self._pending:
            yield from self._committed.items()
            return
        for key, committed in self._committed.items():
            if key not in self._pending:
                yield key, committed
        for key, changes in self._pending.items():
            if (value := changes[-1]) is not None:
                yield key, value

    def values(self) -> Iterator[V]:
        return (value for _, value in self.items())

    def committed_items(self) -> Iterator[tuple[K, V]]:
        return iter(self._committed.items())

    def is_void(self) -> bool:
        """Neither committed nor pending entries: nothing refers to this dictionary any more."""
        return not self._committed and not self._pending

    def _change(self, key: K, value: V | None) -> None:
        write = self._timeline.writing
        if self._observer is not None:
            self._observer(key, self.get(key), value)
        if write == REPLAYING:
            self._put_committed(key, value)
            return
        assert write > 0, "coordinator state changed outside of a write"
        self._pending.setdefault(key, deque()).append(value)
        self._timeline._journal.append((write, self, key))

    def _put_committed(self, key: K, value: V | None) -> None:
        if value is None:
            self._committed.pop(key, None)
        else:
            self._committed[key] = value

    def _commit_oldest(self, key: K) -> None:
        changes = self._pending[key]
        self._put_committed(key, changes.popleft())
        if not changes:
            del self._pending[key]

    def _revert_newest(self, key: K) -> None:
        changes = self._pending[key]
        taken_back = changes.pop()
        if not changes:
            del self._pending[key]
        if self._observer is not None:
            self._observer(key, taken_back, self.get(key))
