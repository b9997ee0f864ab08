"""Timers without a clock: a heap of deadlines that its driver advances.

A core schedules with absolute deadlines in monotonic milliseconds; the driver looks at `next_deadline_ms`, arms one
timer of the loop (or of the simulator) and calls `advance(now_ms)`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count


class Timer:
    """A scheduled call. `cancel()` is idempotent and frees what the callback holds."""

    __slots__ = ("_queue", "callback", "deadline_ms")

    def __init__(self, deadline_ms: int, callback: Callable[[int], None], queue: TimerQueue) -> None:
        self.deadline_ms = deadline_ms
        self.callback: Callable[[int], None] | None = callback
        self._queue = queue

    @property
    def active(self) -> bool:
        return self.callback is not None

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            self._queue._forget_one()


class TimerQueue:
    """Deadlines in order; ties run in the order they were scheduled, so that runs are reproducible."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Timer]] = []
        self._sequence = count()
        self._cancelled = 0
        self.on_earlier: Callable[[int], None] | None = None
        """Called with the new earliest deadline whenever it moves forward; the driver re-arms its timer."""

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def at(self, deadline_ms: int, callback: Callable[[int], None]) -> Timer:
        """Call `callback(now_ms)` once `now_ms >= deadline_ms`."""
        timer = Timer(deadline_ms, callback, self)
        first = self._heap[0][0] if self._heap else None
        heapq.heappush(self._heap, (deadline_ms, next(self._sequence), timer))
        if self.on_earlier is not None and (first is None or deadline_ms < first):
            self.on_earlier(deadline_ms)
        return timer

    def next_deadline_ms(self) -> int | None:
        """The earliest live deadline, or None."""
        heap = self._heap
        while heap and heap[0][2].callback is None:
            heapq.heappop(heap)
            self._cancelled -= 1
        return heap[0][0] if heap else None

    def advance(self, now_ms: int) -> int:
        """Run everything due at `now_ms`; how many callbacks ran."""
        ran = 0
        while (deadline := self.next_deadline_ms()) is not None and deadline <= now_ms:
            _, _, timer = heapq.heappop(self._heap)
            callback, timer.callback = timer.callback, None
            assert callback is not None
            callback(now_ms)
            ran += 1
        return ran

    def _forget_one(self) -> None:
        """Cancelled timers leave the heap lazily; rebuild once they are the majority, so it stays bounded."""
        self._cancelled += 1
        if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0
