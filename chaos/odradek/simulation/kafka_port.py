"""The server's end of a client connection: what server.py's sockets do for `Connection`."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from odradek.broker.connection import Connection
from odradek.ports.disk import Buffer

if TYPE_CHECKING:
    from odradek.simulation.machine import Process
    from odradek.simulation.network import Stream

SEND_BUFFER_BYTES = 128 * 1024
"""What the system takes of responses that the network does not carry."""
SPLIT_CHANCE = 0.05


class KafkaPort:
    """Implements `connection.Transport` and `network.Receiver`."""

    def __init__(self, process: Process, stream: Stream, listener: str) -> None:
        self._process = process
        self._stream = stream
        self._paused = False
        self._held: deque[bytes] = deque()
        self._closed = False
        self._ended: str | None = None
        self.connection = Connection(process.node, listener)
        process.happen("accept", lambda: self.connection.opened(self, f"{stream.hosts[0]}:{stream.id}"))

    # -- from the network ----------------------------------------------------------------------------------------

    def received(self, item: object) -> None:
        assert isinstance(item, bytes)
        self._process.happen("request", lambda: self._take(item))

    def closed(self, reason: str) -> None:
        self._process.happen("connection lost", self._lost)

    def _take(self, data: bytes) -> None:
        if self._paused or self._held:
            self._held.append(data)
            return
        if len(data) > 2 and self._process.rng.random() < SPLIT_CHANCE:
            cut = self._process.rng.randrange(1, len(data))
            self._feed(data[:cut])
            data = data[cut:]
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        while data and not self._closed and not self.connection.closed:
            if self._paused:
                self._held.appendleft(data)
                return
            buffer = self.connection.get_buffer(-1)
            taken = min(len(buffer), len(data))
            buffer[:taken] = data[:taken]
            data = data[taken:]
            self.connection.buffer_updated(taken)

    def _lost(self) -> None:
        self._closed = True
        self.connection.lost()

    # -- Transport -----------------------------------------------------------------------------------------------

    def write(self, data: Buffer) -> None:
        if not self._closed:
            self._stream.send(1, bytes(data))

    def writelines(self, data: Sequence[Buffer]) -> None:
        self.write(b"".join(data))

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        if self._held:
            self._process.later(1, "reading resumes", self._feed_held)

    def _feed_held(self) -> None:
        while self._held and not self._paused:
            self._feed(self._held.popleft())

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._stream.close(1)
            self._process.later(1, "connection closed", self.connection.lost)

    def abort(self) -> None:
        if not self._closed:
            self._closed = True
            self._stream.reset("reset by the peer", skip=1)
            self._process.later(1, "connection aborted", self.connection.lost)

    def get_write_buffer_size(self) -> int:
        return max(0, self._stream.stalled_bytes(1) - SEND_BUFFER_BYTES)
