"""The other nodes as seen from here: where they are, one gRPC channel to each, and word of who is gone.

One instance is one lane: its channels share no connection with those of another instance, so that bulk data never
delays heartbeats.

A peer is tried with a plain connection first. The operating system's answer is exact: refused means that no process
listens there, now. That is reported at once, so that nobody has to wait for a session to expire; silence is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import grpc.aio

from odradek.rpc.identity import Mismatch, NodeIdentity, check_callee, check_caller
from odradek.rpc.settings import client_options
from odradek.rpc.streams import LocalNode, reason_of, spawn

Stream = grpc.aio.StreamStreamCall[bytes, bytes]

GREET = "/odradek.rpc.v1.Raft/Greet"

_WATCH_PAUSES_S = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
"""When a peer whose stream broke is looked at: a dying process closes its sockets within milliseconds, but not all in
one moment.
"""


class Unreachable(Exception):  # noqa: N818 - Kafka's word
    """No stream to the peer could be opened."""


class _Channel:
    __slots__ = ("grpc", "target")

    def __init__(self, target: str, channel: grpc.aio.Channel) -> None:
        self.target = target
        self.grpc = channel


class Peers:
    """Create on the running loop. `on_refused(node_id)` may be called any number of times for one peer."""

    def __init__(
        self, node: LocalNode, on_refused: Callable[[int], object] = lambda _id: None, *, bulk: bool = False
    ) -> None:
        self._node = node
        self._on_refused = on_refused
        self._options = client_options(node.settings, bulk=bulk)
        self._addresses: dict[int, tuple[str, int]] = {}
        self._channels: dict[int, _Channel] = {}
        self._watches: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.on_mismatch: Callable[[int, str | None], object] = lambda _id, _text: None
        """Told how the handshake with a peer went: what is wrong with it or with this node, or None."""
        self._said: dict[int, str] = {}
        """The last mismatch per peer that was logged: one line, not one per attempt."""
        self._closed = False

    # -- addresses -----------------------------------------------------------------------------------------

    def set_address(self, node_id: int, host: str, port: int) -> None:
        """Where node `node_id` serves other nodes. Streams that are open stay where they are."""
        self._addresses[node_id] = (host, port)

    def forget(self, node_id: int) -> None:
        self._addresses.pop(node_id, None)
        self._discard_channel(node_id)

    def knows(self, node_id: int) -> bool:
        return node_id in self._addresses

    def address(self, node_id: int) -> tuple[str, int] | None:
        return self._addresses.get(node_id)

    # -- streams -------------------------------------------------------------------------------------------

    async def open(self, node_id: int, method: str) -> tuple[Stream, NodeIdentity]:
        """A stream to a peer, and who the peer says it is. Unreachable; Mismatch if the peer or this node is wrong."""
        address = self._addresses.get(node_id)
        if address is None or self._closed:
            raise Unreachable(f"the address of node {node_id} is not known")
        try:
            target = await self._reach(node_id, address)
        except OSError as error:  # TimeoutError as well
            raise Unreachable(f"{address[0]}:{address[1]}: {error or 'no answer'}") from error
        stream: Stream = self._channel(node_id, target).stream_stream(method)(
            metadata=self._node.introduction(), wait_for_ready=True
        )
        try:
            peer = await self._shake_hands(node_id, stream)
        except Mismatch as mismatch:
            stream.cancel()
            self._say(node_id, str(mismatch))
            self._node.deliver(self.on_mismatch, node_id, str(mismatch))
            raise
        except BaseException:
            stream.cancel()
            raise
        self._said.pop(node_id, None)
        self._node.deliver(self.on_mismatch, node_id, None)
        self.seen(node_id)
        return stream, peer

    async def greet(self, address: tuple[str, int]) -> NodeIdentity:
        """Who is at an address, this node itself perhaps. Unreachable, Mismatch."""
        where = f"{address[0]}:{address[1]}"
        settings = self._node.settings
        try:
            async with asyncio.timeout(settings.connect_timeout_ms / 1000):
                target = await _connect(*address)
        except OSError as error:  # TimeoutError as well
            raise Unreachable(f"{where}: {error or 'no answer'}") from error
        async with grpc.aio.insecure_channel(target, options=self._options) as channel:
            stream: Stream = channel.stream_stream(GREET)(
                metadata=self._node.introduction(), wait_for_ready=True
            )
            try:
                peer = await self._identity(stream)
            except TimeoutError as error:
                raise Unreachable(f"{where} does not say who it is") from error
            except grpc.RpcError as error:
                raise Unreachable(reason_of(error)) from error
            finally:
                stream.cancel()
        if peer.incarnation != self._node.me.incarnation:
            check_caller(self._node.me, peer)
        return peer

    async def _identity(self, stream: Stream) -> NodeIdentity:
        """What the peer says of itself. TimeoutError, grpc.RpcError, Unreachable, Mismatch."""
        async with asyncio.timeout(self._node.settings.handshake_timeout_ms / 1000):
            metadata = await stream.initial_metadata()
            if len(metadata) == 0:  # a call that was refused has none, and its status may be a moment behind
                await _raise_outcome(stream)
        return self._node.meet(metadata)

    async def _shake_hands(self, node_id: int, stream: Stream) -> NodeIdentity:
        try:
            peer = await self._identity(stream)
        except TimeoutError as error:
            self._discard_channel(node_id)
            raise Unreachable(f"node {node_id} does not say who it is") from error
        except grpc.RpcError as error:
            self._discard_channel(node_id)
            raise Unreachable(reason_of(error)) from error
        check_callee(self._node.me, peer, node_id)
        return peer

    def _say(self, node_id: int, text: str) -> None:
        if self._said.get(node_id) != text:
            self._said[node_id] = text
            self._node.warn("another node is not who it should be", node=node_id, reason=text)

    def _channel(self, node_id: int, target: str) -> grpc.aio.Channel:
        known = self._channels.get(node_id)
        if known is not None and known.target == target:
            return known.grpc
        self._discard_channel(node_id)
        channel = grpc.aio.insecure_channel(target, options=self._options)
        self._channels[node_id] = _Channel(target, channel)
        return channel

    def _discard_channel(self, node_id: int) -> None:
        """The next stream gets a fresh one, which waits for no back-off; streams of this one end."""
        known = self._channels.pop(node_id, None)
        if known is not None:
            self._spawn(known.grpc.close())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = spawn(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- who is gone ---------------------------------------------------------------------------------------

    def watch(self, node_id: int) -> None:
        """A stream with this peer broke, or it is asked for: find out whether its process is gone."""
        if node_id in self._addresses and node_id not in self._watches and not self._closed:
            self._watches[node_id] = self._spawn(self._look_at(node_id))

    def seen(self, node_id: int) -> None:
        """The peer is there."""
        task = self._watches.pop(node_id, None)
        if task is not None:
            task.cancel()

    async def _look_at(self, node_id: int) -> None:
        try:
            for pause_s in _WATCH_PAUSES_S:
                await asyncio.sleep(pause_s)
                await self._reach(node_id, self._addresses[node_id])
        except (OSError, KeyError):
            pass  # refused and reported, or silent, or forgotten meanwhile
        finally:
            if self._watches.get(node_id) is asyncio.current_task():
                del self._watches[node_id]

    async def _reach(self, node_id: int, address: tuple[str, int]) -> str:
        """Connect and disconnect; the gRPC target of the address that answered. OSError."""
        try:
            async with asyncio.timeout(self._node.settings.connect_timeout_ms / 1000):
                return await _connect(*address)
        except ConnectionRefusedError:
            if not self._closed:
                self._node.deliver(self._on_refused, node_id)
            raise

    async def close(self) -> None:
        self._closed = True
        for node_id in list(self._channels):
            self._discard_channel(node_id)
        for task in self._watches.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _raise_outcome(stream: Stream) -> None:
    code = await stream.code()
    if code is grpc.StatusCode.FAILED_PRECONDITION:
        raise Mismatch(await stream.details())
    raise Unreachable(f"{code.name}: {await stream.details()}")


async def _connect(host: str, port: int) -> str:
    """ConnectionRefusedError only if every address of the host refuses."""
    loop = asyncio.get_running_loop()
    errors: list[OSError] = []
    for family, kind, protocol, _name, where in await _resolve(loop, host, port):
        with socket.socket(family, kind, protocol) as sock:
            sock.setblocking(False)
            try:
                await loop.sock_connect(sock, where)
                if sock.getsockname() == sock.getpeername():
                    raise ConnectionRefusedError("nobody listens; the socket found itself")
            except OSError as error:
                errors.append(error)
                continue
            literal = str(where[0])
            return f"ipv6:[{literal}]:{port}" if family == socket.AF_INET6 else f"ipv4:{literal}:{port}"
    worst = [error for error in errors if not isinstance(error, ConnectionRefusedError)]
    raise (worst or errors or [OSError(f"{host} has no address")])[0]


async def _resolve(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[Any]:
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            socket.inet_pton(family, host)
            return [(family, socket.SOCK_STREAM, 0, "", (host, port))]
    try:
        return list(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except ValueError as error:  # no name at all: too long, or with a null; a peer or an operator said so
        raise OSError(f"{host[:64]!r} is no name of a host") from error
