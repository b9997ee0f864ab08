"""What all connections together may hold in memory: requests on their way in, responses on their way out.

Kafka bounds the first by `queued.max.request.bytes` and leaves the second to its heap. A peer that announces much and
sends little, or asks for much and reads nothing, costs others nothing here: it waits, and once somebody waits for
what it holds, `close_slow` ends it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from odradek.broker.connection import Connection

SMALL_FRAME = 64 * 1024
"""Frames up to this size are received without a reservation."""
ORDINARY_FRAME = 2 << 20
"""Larger frames are reserved in a budget of their own, so that a few giants do not hold up everybody's batches."""
SPARE_BUFFERS_MAX = 8
"""Frame buffers of up to ORDINARY_FRAME bytes kept for the next frame of any connection."""
SLOW_BYTES_PER_S = 16 * 1024
"""A peer moves at least this much while others wait for the memory it holds."""
SLOW_AFTER_MS = 5000


class Budget:
    """Bytes of frames being received. Whole frames are reserved, so whoever is admitted can finish; FIFO."""

    def __init__(self, limit: int) -> None:
        """A limit that is not positive is none."""
        self.limit = limit
        self.used = 0
        self._holders: dict[Connection, tuple[int, int]] = {}
        """What is reserved, and since when (ms)."""
        self._waiting: deque[tuple[Connection, int]] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def reserve(self, connection: Connection, size: int, now_ms: int) -> bool:
        """Admit a frame, or remember who wants it: `memory_granted` follows. One frame alone is always admitted."""
        if self._waiting or not self._fits(size):
            self._waiting.append((connection, size))
            return False
        self._take(connection, size, now_ms)
        return True

    def release(self, connection: Connection, now_ms: int) -> None:
        """The frame was handled, or its connection is gone, waiting or not."""
        held = self._holders.pop(connection, None)
        if held is not None:
            self.used -= held[0]
        else:
            self._waiting = deque(entry for entry in self._waiting if entry[0] is not connection)
        while self._waiting and self._fits(self._waiting[0][1]):
            waiter, size = self._waiting.popleft()
            self._take(waiter, size, now_ms)
            waiter.memory_granted()

    def slow(self, now_ms: int) -> list[Connection]:
        """Who holds what others wait for and does not get on with it."""
        if not self._waiting:
            return []
        return [
            holder
            for holder, (_, since_ms) in self._holders.items()
            if now_ms - since_ms >= SLOW_AFTER_MS
            and holder.received_bytes * 1000 < SLOW_BYTES_PER_S * (now_ms - since_ms)
        ]

    def _fits(self, size: int) -> bool:
        return self.limit <= 0 or not self._holders or self.used + size <= self.limit

    def _take(self, connection: Connection, size: int, now_ms: int) -> None:
        self.used += size
        self._holders[connection] = size, now_ms


class RequestMemory:
    """Budgets for frames being received, and buffers to receive them into."""

    def __init__(self, limit: int, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self.ordinary = Budget(limit // 4)
        self.giant = Budget(limit - limit // 4)
        self._spare: list[bytearray] = []

    def reserve(self, connection: Connection, size: int) -> bool:
        """False: the connection waits for `memory_granted` and must not read until then."""
        budget = self.ordinary if size <= ORDINARY_FRAME else self.giant
        return budget.reserve(connection, size, self._clock_ms())

    def release(self, connection: Connection, size: int) -> None:
        budget = self.ordinary if size <= ORDINARY_FRAME else self.giant
        budget.release(connection, self._clock_ms())

    def buffer(self, size: int) -> bytearray:
        """A buffer of at least `size` bytes with anything in it."""
        if size >= SMALL_FRAME:
            for at, spare in enumerate(self._spare):
                if len(spare) >= size:
                    return self._spare.pop(at)
        return bytearray(size)

    def give_back(self, buffer: bytearray) -> None:
        """The caller uses it no more. Idle connections own no buffer."""
        if SMALL_FRAME <= len(buffer) <= ORDINARY_FRAME and len(self._spare) < SPARE_BUFFERS_MAX:
            self._spare.append(buffer)

    def slow(self, now_ms: int) -> list[Connection]:
        return self.ordinary.slow(now_ms) + self.giant.slow(now_ms)


class ResponseMemory:
    """Bytes of responses that peers have not taken yet.

    The system takes what it can at once, so only connections with something left are remembered. Their figures may be
    old by a second; `room` looks again before it turns anybody away.
    """

    LOOK_AGAIN_MS = 50

    def __init__(self, limit: int, clock_ms: Callable[[], int]) -> None:
        self.limit = limit
        self.unsent = 0
        self._clock_ms = clock_ms
        self._connections: dict[Connection, tuple[int, int]] = {}
        """Who has unsent bytes: when it was last found fast enough (ms), and what it had taken in all by then."""
        self._looked_ms = 0

    def moved(self, connection: Connection, change: int) -> None:
        """A connection's unsent bytes changed; it knows its own."""
        self.unsent += change
        if not connection.unsent:
            self._connections.pop(connection, None)
        elif connection not in self._connections:
            self._connections[connection] = self._clock_ms(), connection.taken_bytes

    def room(self, wanted: int) -> int:
        """How much of `wanted` bytes may be made ready for a peer now."""
        if self.unsent + wanted > self.limit:
            now_ms = self._clock_ms()
            if now_ms - self._looked_ms >= self.LOOK_AGAIN_MS:
                self.look_again(now_ms)
        return max(0, min(wanted, self.limit - self.unsent))

    @property
    def is_full(self) -> bool:
        return self.unsent >= self.limit

    def look_again(self, now_ms: int) -> None:
        self._looked_ms = now_ms
        for connection in list(self._connections):
            connection.count_unsent()

    def holding(self) -> list[Connection]:
        return list(self._connections)

    def slow(self, now_ms: int) -> list[Connection]:
        """Who does not take its responses while there is little room for those of others."""
        found = []
        for connection, (since_ms, taken_before) in list(self._connections.items()):
            if now_ms - since_ms < SLOW_AFTER_MS or connection.unsent < SMALL_FRAME:
                continue
            taken = connection.taken_bytes
            if (taken - taken_before) * 1000 < SLOW_BYTES_PER_S * (now_ms - since_ms):
                found.append(connection)
            else:
                self._connections[connection] = now_ms, taken
        return found if self.unsent * 4 >= self.limit * 3 else []
