"""Virtual time: one heap of events for the whole cluster. Ties run in the order in which they were scheduled.

Time is integer microseconds from 0. Machines see it through clocks of their own, which start anywhere, drift a little
and, the wall clock, jump.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

MS = 1_000
SECOND = 1_000_000
WALL_START_MS = 1_700_000_000_000
_RATE = 1_000


class Scheduler:
    """Events in order of their time."""

    def __init__(self) -> None:
        self.now_us = 0
        self.steps = 0
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = count()

    def at(self, time_us: int, action: Callable[[], None]) -> None:
        """Run `action` at a time that is not in the past."""
        heapq.heappush(self._heap, (max(time_us, self.now_us), next(self._sequence), action))

    def after(self, delay_us: int, action: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now_us + delay_us, next(self._sequence), action))

    def run_until(self, end_us: int, stop: Callable[[], bool] | None = None) -> bool:
        """Run events up to `end_us`; earlier, and True, as soon as `stop()` holds (looked at between events)."""
        heap = self._heap
        while heap and heap[0][0] <= end_us:
            if stop is not None and stop():
                return True
            self.now_us, _, action = heapq.heappop(heap)
            self.steps += 1
            action()
        self.now_us = max(self.now_us, end_us)
        return stop is not None and stop()


class MachineClock:
    """A machine's clocks. The monotonic one starts anew with the machine, not with a process."""

    def __init__(self, scheduler: Scheduler, *, offset_ms: int = 1_000, rate: int = _RATE) -> None:
        """`rate`: thousandths of real time at which both clocks run."""
        self._scheduler = scheduler
        self._rate = rate
        self._offset_us = offset_ms * 1_000
        self._wall_offset_ms = WALL_START_MS
        self.jumped_ms = 0
        """How far the wall clock is off."""

    def monotonic_ms(self) -> int:
        return (self._offset_us + self._scheduler.now_us * self._rate // _RATE) // 1_000

    def monotonic_ns(self) -> int:
        return (self._offset_us + self._scheduler.now_us * self._rate // _RATE) * 1_000

    def wall_ms(self) -> int:
        return self._wall_offset_ms + self._scheduler.now_us * self._rate // (_RATE * 1_000)

    def when_us(self, monotonic_ms: int) -> int:
        """The earliest virtual time at which the monotonic clock shows this."""
        own_us = monotonic_ms * 1_000 - self._offset_us
        return -(-own_us * _RATE // self._rate)

    def jump_wall(self, ms: int) -> None:
        self._wall_offset_ms += ms
        self.jumped_ms += ms

    def reboot(self, offset_ms: int) -> None:
        """The machine was switched on: its monotonic clock begins anew."""
        self._offset_us = offset_ms * 1_000 - self._scheduler.now_us * self._rate // _RATE
