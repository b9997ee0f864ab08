"""One stream between two nodes, the same at both ends: a bounded queue out, frames in."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
import grpc.aio

from odradek.rpc.framing import MalformedFrame
from odradek.rpc.identity import NodeIdentity, read_identity
from odradek.rpc.settings import RpcSettings


class Call(Protocol):
    """What a caller's stream and a callee's context have in common. `read` returns grpc.aio.EOF at the end."""

    async def read(self) -> object: ...

    async def write(self, message: bytes, /) -> None: ...


class Warn(Protocol):
    """Writes a log line; never floods: what strangers can cause goes through it."""

    def __call__(self, event: str, /, **values: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class LocalNode:
    """This node, as everything that talks to other nodes needs it.

    `after` is called when something that arrived has been dealt with, and flushes what it staged.
    """

    me: NodeIdentity
    warn: Warn
    after: Callable[[], object] = lambda: None
    settings: RpcSettings = field(default_factory=RpcSettings)
    secret: bytes = field(default=b"", repr=False)
    """What all nodes of the cluster know; empty: nothing."""

    def introduction(self) -> tuple[tuple[str, str | bytes], ...]:
        """The metadata of a stream, at either end."""
        return self.me.metadata(self.secret)

    def meet(self, metadata: Iterable[tuple[str, str | bytes]]) -> NodeIdentity:
        """Who a peer says it is. Mismatch."""
        return read_identity(metadata, self.secret)

    def deliver(self, handle: Callable[..., object], *arguments: object) -> None:
        """Hand over what a peer sent. MalformedFrame passes; any other exception is our bug, and the loop's handler
        decides what becomes of the node.
        """
        try:
            handle(*arguments)
            self.after()
        except MalformedFrame:
            raise
        except Exception as error:  # noqa: BLE001 - reported, with nothing known about the state behind it
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a message of another node was not dealt with", "exception": error}
            )


def spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task whose failure, which is our bug, reaches the loop's handler. The caller keeps it."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(_look_at_end)
    return task


def _look_at_end(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        task.get_loop().call_exception_handler({"message": "a task ended", "exception": error, "task": task})


class Outbox:
    """Encoded messages that wait for one stream, in order, bounded. One consumer.

    A frame is one message or several parts; parts are never separated.
    """

    def __init__(self, settings: RpcSettings) -> None:
        self._bytes_max = settings.outbox_bytes_max
        self._messages_max = settings.outbox_messages_max
        self._frames: deque[Sequence[bytes]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self.bytes = 0
        self.finished = False
        """Nothing will be added: when everything has been sent, the stream may end."""

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def full(self) -> bool:
        return self.bytes >= self._bytes_max or len(self._frames) >= self._messages_max

    def put(self, frame: Sequence[bytes]) -> None:
        """Append. The caller looks at `full` before; a frame is taken whole whatever its size."""
        self._frames.append(frame)
        self.bytes += sum(map(len, frame))
        self._wake()

    def finish(self) -> None:
        self.finished = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def drop_oldest(self) -> None:
        self.bytes -= sum(map(len, self._frames.popleft()))

    def clear(self) -> None:
        self._frames.clear()
        self.bytes = 0

    async def wait(self) -> None:
        """Until there is something to send, or never will be."""
        while not self._frames and not self.finished:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._waiter = None

    def pop(self) -> Sequence[bytes]:
        frame = self._frames.popleft()
        self.bytes -= sum(map(len, frame))
        return frame


class StreamBroken(Exception):  # noqa: N818 - what happened
    """The stream ended, and not because the peer had said everything."""


async def converse(
    call: Call,
    outbox: Outbox,
    arrived: Callable[[bytes], None],
    *,
    ready: Callable[[], Awaitable[object]] | None = None,
    sent: Callable[[], object] = lambda: None,
    finish: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """Send what is in `outbox` and hand over what arrives, until the peer ends the stream.

    `ready` is waited for before each read: the peer is slowed down by what this node has not dealt with. `sent` is
    called whenever the queue got shorter, `finish` when the outbox is finished and empty. StreamBroken when the
    connection broke, MalformedFrame when `arrived` raises it.
    """
    writer = spawn(_write(call, outbox, sent, finish))
    try:
        while True:
            if ready is not None:
                await ready()
            message = await call.read()
            if message is grpc.aio.EOF:
                return
            assert isinstance(message, bytes)
            arrived(message)
    except (grpc.RpcError, grpc.aio.BaseError) as error:
        raise StreamBroken(reason_of(error)) from error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or not task.cancelling():  # it was the call that was cancelled, not this task
            raise StreamBroken("the stream was closed") from None
        raise
    finally:
        writer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writer


class Served:
    """A stream that a peer opened, within the task that serves it: lets this node end it.

    A handler that is merely cancelled leaves its caller without a status, waiting.
    """

    __slots__ = ("_task", "closed")

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "create it in the handler"
        self._task = task
        self.closed = False

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._task.cancel()

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """StreamBroken once it was closed."""
        try:
            await work
        except asyncio.CancelledError:
            if not self.closed:
                raise
            self._task.uncancel()
            raise StreamBroken("this node ended the stream") from None
        finally:
            self.closed = True


async def _write(
    call: Call,
    outbox: Outbox,
    sent: Callable[[], object],
    finish: Callable[[], Awaitable[object]] | None,
) -> None:
    """A broken stream ends this and, with the reason, the reader."""
    with contextlib.suppress(grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError):
        await outbox.wait()
        while outbox:
            for message in outbox.pop():
                await call.write(message)
            sent()
            await outbox.wait()
        if finish is not None:
            await finish()


def reason_of(error: Exception) -> str:
    """What gRPC has to say about a broken stream, on one line."""
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {' '.join((error.details() or '').split())[:300]}"
    return repr(error)
