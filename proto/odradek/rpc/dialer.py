"""A stream to one peer that is opened when there is something to say and opened again when it breaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from odradek.rpc.framing import MalformedFrame
from odradek.rpc.identity import Mismatch, NodeIdentity
from odradek.rpc.peers import Peers, Stream, Unreachable
from odradek.rpc.streams import LocalNode, Outbox, StreamBroken, converse, spawn


class Dialer:
    """Put frames into `outbox`; `begin(peer)` gives what takes the messages of one stream.

    `on_down(reason)` is called whenever the peer could not be reached or the stream broke. What waits in the outbox
    then is dropped before: nobody knows how old it will be when the peer is back.
    """

    def __init__(
        self,
        node: LocalNode,
        peers: Peers,
        node_id: int,
        method: str,
        begin: Callable[[NodeIdentity], Callable[[bytes], None]],
        on_down: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        self.outbox = Outbox(node.settings)
        self._node = node
        self._peers = peers
        self._node_id = node_id
        self._method = method
        self._begin = begin
        self._on_down = on_down
        self._talking = False
        self._task = spawn(self._run())

    async def close(self) -> None:
        """Send what waits, if there is a stream to send it on."""
        self.outbox.finish()
        if self._talking:
            await asyncio.wait((self._task,), timeout=self._node.settings.stop_ms / 1000)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        settings = self._node.settings
        pause_ms = settings.backoff_ms_min
        while not self.outbox.finished:
            await self.outbox.wait()
            try:
                stream, peer = await self._peers.open(self._node_id, self._method)
            except Mismatch as mismatch:
                self._down(str(mismatch))
                await asyncio.sleep(settings.mismatch_backoff_ms / 1000)
                continue
            except Unreachable as unreachable:
                self._down(str(unreachable))
                await asyncio.sleep(pause_ms / 1000)
                pause_ms = min(2 * pause_ms, settings.backoff_ms_max)
                continue
            began = asyncio.get_running_loop().time()
            self._down(await self._talk(stream, peer))
            self._peers.watch(self._node_id)
            lasted_ms = (asyncio.get_running_loop().time() - began) * 1000
            if lasted_ms > settings.backoff_ms_max:
                pause_ms = settings.backoff_ms_min
            else:  # a peer that hangs up at once is not called in a loop
                await asyncio.sleep(pause_ms / 1000)

    async def _talk(self, stream: Stream, peer: NodeIdentity) -> str:
        """Until the stream ends; why."""
        self._talking = True
        try:
            await converse(stream, self.outbox, self._begin(peer), finish=stream.done_writing)
        except StreamBroken as broken:
            return str(broken)
        except MalformedFrame as mistake:
            self._node.warn("another node sent what makes no sense", node=self._node_id, reason=str(mistake))
            return str(mistake)
        finally:
            self._talking = False
            stream.cancel()
        return "the peer ended the stream"

    def _down(self, reason: str) -> None:
        self.outbox.clear()
        self._node.deliver(self._on_down, reason)
