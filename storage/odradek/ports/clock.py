"""Time as a port. Deadlines use the monotonic clock; the wall clock is only ever written into records."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    def monotonic_ms(self) -> int: ...

    def monotonic_ns(self) -> int:
        """For durations in metrics, never for decisions."""
        ...

    def wall_ms(self) -> int: ...
