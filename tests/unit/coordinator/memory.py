"""Virtual time and a log in memory: what a coordinator stands on in its tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from odradek.ports.timers import TimerQueue
from odradek.wire.errors import ErrorCode

WALL_START_MS = 1_700_000_000_000


class VirtualClock:
    """Monotonic time starts at 0, wall time at WALL_START_MS and may be set."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.wall_offset_ms = WALL_START_MS

    def monotonic_ms(self) -> int:
        return self.now_ms

    def monotonic_ns(self) -> int:
        return self.now_ms * 1_000_000

    def wall_ms(self) -> int:
        return self.wall_offset_ms + self.now_ms

    def advance(self, timers: TimerQueue, ms: int) -> None:
        """Let time pass, stopping at every timer on the way."""
        end_ms = self.now_ms + ms
        while (deadline := timers.next_deadline_ms()) is not None and deadline <= end_ms:
            self.now_ms = max(self.now_ms, deadline)
            timers.advance(self.now_ms)
        self.now_ms = end_ms


class MemoryLog:
    """An internal topic. Commits at once, or when told to; or fails."""

    def __init__(self) -> None:
        self.logs: dict[int, list[tuple[bytes, bytes | None]]] = {}
        self.held: list[Callable[[int], None]] = []
        self.holding = False
        self.refuse_with = ErrorCode.NONE
        self.batches = 0

    def append(
        self, partition: int, records: list[tuple[bytes, bytes | None]], done: Callable[[int], None]
    ) -> None:
        if self.refuse_with is not ErrorCode.NONE:
            done(int(self.refuse_with))
            return
        self.batches += 1
        self.logs.setdefault(partition, []).extend(records)
        if self.holding:
            self.held.append(done)
        else:
            done(0)

    def append_transactional(self, *_: Any) -> None:
        raise AssertionError("nobody writes transactions into this topic")

    append_marker = append_transactional

    def release(self, error: ErrorCode = ErrorCode.NONE, count: int | None = None) -> None:
        """Commit (or fail) what is held, oldest first."""
        count = len(self.held) if count is None else count
        released, self.held = self.held[:count], self.held[count:]
        for done in released:
            done(int(error))


class Answer:
    """What a request got: nothing yet, or one response, and never two."""

    def __init__(self) -> None:
        self.response: Any = None

    def __call__(self, response: Any) -> None:
        assert self.response is None, "answered twice"
        self.response = response

    @property
    def waits(self) -> bool:
        return self.response is None

    @property
    def error(self) -> ErrorCode:
        assert self.response is not None, "not answered yet"
        return ErrorCode(self.response.error_code)
