"""What all connections together may hold in memory: requests on their way in, responses on their way out.

Kafka bounds the first by `queued.max.request.bytes` and leaves the second to its heap. A peer that announces much and
sends little, or asks for much and reads nothing, costs others nothing here: what counts is what it really holds, and
once somebody waits for that, `slow` names who does not get on with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from odradek.broker.connection import Connection

SMALL_FRAME = 64 * 1024
"""Frames up to this size are received without asking."""
ORDINARY_FRAME = 2 << 20
"""Larger frames have a budget of their own, so that a few giants do not hold up everybody's batches."""
SPARE_BUFFERS_MAX = 8
"""Frame buffers of up to ORDINARY_FRAME bytes kept for the next frame of any connection."""
SLOW_BYTES_PER_S = 16 * 1024
"""A peer moves at least this much while others wait for the memory it holds."""
SLOW_AFTER_MS = 5000


class Budget:
    """Bytes of buffers for frames being received. Buffers grow as bytes arrive; who finds no room waits in line.

    If everybody who holds something waits, the first in line may go on with its frame whatever the limit says: frames
    get finished, one after the other.
    """

    def __init__(self, limit: int) -> None:
        """A limit that is not positive is none."""
        self.limit = limit
        self.used = 0
        self._held: dict[Connection, int] = {}
        self._moving: dict[Connection, tuple[int, int]] = {}
        """Holders that do not wait: since when (ms), and what had arrived of the frame then."""
        self._waiting: dict[Connection, int] = {}
        """How much more each wants, in the order of asking."""
        self._first: Connection | None = None
        """The one that goes on whatever the limit says, until its frame is done."""

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def grow(self, connection: Connection, more: int, now_ms: int) -> bool:
        """Whether the connection may hold `more` bytes; if not, `memory_granted` follows, and it reads no more."""
        if not self._waiting and not self._fits(more) and not (self._moving.keys() - {connection}):
            self._first = connection
        if connection is self._first or (not self._waiting and self._fits(more)):
            self._take(connection, more, now_ms)
            return True
        self._moving.pop(connection, None)
        self._waiting[connection] = more
        self._admit(now_ms, before=connection)
        return False

    def release(self, connection: Connection, now_ms: int) -> None:
        """The frame was handled, or its connection is gone, waiting or not."""
        self.used -= self._held.pop(connection, 0)
        self._moving.pop(connection, None)
        self._waiting.pop(connection, None)
        if connection is self._first:
            self._first = None
        self._admit(now_ms)

    def slow(self, now_ms: int) -> list[Connection]:
        """Who holds what others wait for and does not get on with it."""
        found = []
        for connection, (since_ms, received_then) in list(self._moving.items()):
            lasted_ms = now_ms - since_ms
            if lasted_ms < SLOW_AFTER_MS:
                continue
            received = connection.received_bytes
            if (received - received_then) * 1000 < SLOW_BYTES_PER_S * lasted_ms:
                found.append(connection)
            else:
                self._moving[connection] = now_ms, received
        return found if self._waiting else []

    def _admit(self, now_ms: int, before: Connection | None = None) -> None:
        while self._waiting:
            connection, more = next(iter(self._waiting.items()))
            if connection is before or (self._moving and not self._fits(more)):
                return
            if not self._fits(more):
                self._first = connection
            del self._waiting[connection]
            self._take(connection, more, now_ms)
            connection.memory_granted()

    def _fits(self, more: int) -> bool:
        return self.limit <= 0 or self.used + more <= self.limit

    def _take(self, connection: Connection, more: int, now_ms: int) -> None:
        self.used += more
        self._held[connection] = self._held.get(connection, 0) + more
        self._moving[connection] = now_ms, connection.received_bytes


class RequestMemory:
    """Budgets for frames being received, and buffers to receive them into."""

    def __init__(self, limit: int, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self.ordinary = Budget(limit // 4)
        self.giant = Budget(limit - limit // 4)
        self._spare: list[bytearray] = []

    def grow(self, connection: Connection, frame: int, more: int) -> bool:
        """For a frame of `frame` bytes. False: the connection waits for `memory_granted`, without reading."""
        return self._budget(frame).grow(connection, more, self._clock_ms())

    def release(self, connection: Connection, frame: int) -> None:
        self._budget(frame).release(connection, self._clock_ms())

    def _budget(self, frame: int) -> Budget:
        return self.ordinary if frame <= ORDINARY_FRAME else self.giant

    def buffer(self, size: int) -> bytearray:
        """A buffer of at least `size` bytes with anything in it."""
        if size >= SMALL_FRAME and self._spare and len(self._spare[-1]) >= size:
            return self._spare.pop()  # the largest: the frame need not grow out of it
        return bytearray(size)

    def give_back(self, buffer: bytearray) -> None:
        """The caller uses it no more. Idle connections own no buffer."""
        if SMALL_FRAME <= len(buffer) <= ORDINARY_FRAME and len(self._spare) < SPARE_BUFFERS_MAX:
            self._spare.append(buffer)
            self._spare.sort(key=len)

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
