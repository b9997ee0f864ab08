"""A TCP proxy that hurts what passes: silence, delay, loss, a thin line. For machines whose kernel cannot (no netem).

A `Wire` is one direction between two machines; any number of connections share it. What a proxy cannot do as a network
does: a connection is accepted although the first packet would have been lost (then nothing is said on it), and bytes
are late, not packets. What it does as a network does: silence hides the end of a process, and what was sent before the
silence arrives after it. Who refuses connections is refused for: nobody listens at a proxy whose target has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

LOCAL = "127.0.0.1"
CHUNK = 64 * 1024
CHUNKS_HELD_MAX = 16
"""Per connection and direction: then the sender has to wait, as for a full window."""
PACKET = 1_448
RETRANSMISSION_S = 0.2
"""Least time until TCP sends a lost packet again; doubled each time it is lost again."""
RETRANSMISSIONS_MAX = 6
BREAKS = 0.01
"""Of losses: how many end the connection."""
PROBE_S = 0.03
LISTEN_TRIES_S = 5.0


_Held = asyncio.Queue[tuple[float, bytes]]
_Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Wire:
    """One direction. Change it on the proxies' loop only (`Proxies.change`)."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.jitter_s = 0.0
        self.loss = 0.0
        self.bytes_per_s = 0.0
        """0: as fast as it goes."""
        self._free_at = 0.0
        self._open = asyncio.Event()
        self._open.set()

    @property
    def silent(self) -> bool:
        return not self._open.is_set()

    def silence(self) -> None:
        self._open.clear()

    def heal(self) -> None:
        self.delay_s = self.jitter_s = self.loss = self.bytes_per_s = self._free_at = 0.0
        self._open.set()

    async def until_open(self) -> None:
        await self._open.wait()

    def due(self, length: int, now: float, rng: random.Random) -> float | None:
        """When bytes that were sent now arrive; None: the connection breaks."""
        if self.bytes_per_s:
            self._free_at = max(now, self._free_at) + length / self.bytes_per_s
            now = self._free_at
        now += self.delay_s + rng.uniform(-1, 1) * min(self.jitter_s, self.delay_s)
        if self.loss:
            for _ in range(-(-length // PACKET)):
                tries = 0
                while tries < RETRANSMISSIONS_MAX and rng.random() < self.loss:
                    if rng.random() < BREAKS:
                        return None
                    now += RETRANSMISSION_S * 2**tries
                    tries += 1
                if tries:
                    break  # what is lost besides is sent again meanwhile
        return now


class Proxies:
    """A thread with a loop, on which all proxies run. `close` when done."""

    def __init__(self, seed: int = 0) -> None:
        self._loop = asyncio.new_event_loop()
        self._rng = random.Random(f"{seed} proxies")
        self._proxies: list[_Proxy] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="odradek-proxies", daemon=True)
        self._thread.start()

    def add(
        self,
        port: int,
        target: Callable[[], int | None],
        forth: Wire,
        back: Wire,
        *,
        listens: str = LOCAL,
        host: str = LOCAL,
    ) -> None:
        """Connections to `listens`:`port` go on to the port of `host` that `target` names, as soon as it names one."""
        proxy = _Proxy((listens, port), host, target, forth, back, self._rng)
        self._proxies.append(proxy)
        self._wait(proxy.start())

    def change(self, step: Callable[[], object]) -> None:
        """Do something to wires, all at one moment."""

        async def now() -> None:
            step()

        self._wait(now())

    def close(self) -> None:
        if self._loop.is_closed():
            return
        for proxy in self._proxies:
            self._wait(proxy.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        done: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        done.result(30)


class _Proxy:
    def __init__(
        self,
        address: tuple[str, int],
        host: str,
        target: Callable[[], int | None],
        forth: Wire,
        back: Wire,
        rng: random.Random,
    ) -> None:
        self._address = address
        self._host = host
        self._target = target
        self._forth = forth
        self._back = back
        self._rng = rng
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch: asyncio.Task[None] | None = None
        self._refused = asyncio.Event()

    async def start(self) -> None:
        self._watch = asyncio.get_running_loop().create_task(self._listen_while_there())

    async def close(self) -> None:
        tasks = [*self._tasks, *([self._watch] if self._watch is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._stop_listening()

    async def _listen_while_there(self) -> None:
        """Listens as long as the target does."""
        while True:
            while not await self._is_there():  # noqa: ASYNC110 - another process: nothing tells when it is there
                await asyncio.sleep(PROBE_S)
            self._refused.clear()
            self._listener = await _listen(self._address)
            accepting = asyncio.get_running_loop().create_task(self._accept(self._listener))
            try:
                await self._refused.wait()
            finally:
                accepting.cancel()
                await asyncio.gather(accepting, return_exceptions=True)
                self._stop_listening()

    async def _is_there(self) -> bool:
        port = self._target()
        if port is None:
            return False
        try:
            _, writer = await asyncio.open_connection(self._host, port)
        except OSError:
            return False
        writer.close()
        return True

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            accepted, _ = await loop.sock_accept(listener)
            task = loop.create_task(self._serve(accepted))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, accepted: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=accepted)
        try:
            await self._forth.until_open()
            port = self._target()
            try:
                other_reader, other_writer = await asyncio.open_connection(self._host, port or 1)
            except OSError:
                self._refused.set()
                _break(writer)
                return
            try:
                await self._carry_both((reader, other_writer), (other_reader, writer))
            finally:
                _break(other_writer)
        finally:
            _break(writer)

    async def _carry_both(self, forth: _Pair, back: _Pair) -> None:
        """Until both ends have ended, or one breaks."""
        try:
            async with asyncio.TaskGroup() as group:
                for (reader, writer), wire in ((forth, self._forth), (back, self._back)):
                    held: _Held = asyncio.Queue(CHUNKS_HELD_MAX)
                    group.create_task(self._receive(reader, held, wire))
                    group.create_task(_send(held, writer, wire))
            for _, writer in (forth, back):
                writer.close()
                await writer.wait_closed()  # what the kernel has not taken yet still arrives
        except* OSError:
            pass  # how connections end

    async def _receive(self, reader: asyncio.StreamReader, held: _Held, wire: Wire) -> None:
        """The end comes in its turn: b"" is the last chunk."""
        last = 0.0
        while True:
            chunk = await reader.read(CHUNK)
            due = wire.due(len(chunk), time.monotonic(), self._rng)
            if due is None:
                raise ConnectionResetError("lost")
            last = max(last, due)  # bytes of one connection stay in order
            await held.put((last, chunk))
            if not chunk:
                return


async def _send(held: _Held, writer: asyncio.StreamWriter, wire: Wire) -> None:
    while True:
        due, chunk = await held.get()
        if (left := due - time.monotonic()) > 0:
            await asyncio.sleep(left)
        await wire.until_open()
        if not chunk:
            writer.write_eof()
            return
        writer.write(chunk)
        await writer.drain()


async def _listen(address: tuple[str, int]) -> socket.socket:
    """OSError where the port is somebody else's."""
    deadline = time.monotonic() + LISTEN_TRIES_S
    while True:
        listener = socket.socket(socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError:
            listener.close()
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(PROBE_S)
            continue
        listener.listen(128)
        listener.setblocking(False)
        return listener


def _break(writer: asyncio.StreamWriter) -> None:
    """At once; what was not read is answered with a reset."""
    raw = writer.get_extra_info("socket")
    if raw is not None and writer.can_write_eof() and not writer.transport.is_closing():
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
