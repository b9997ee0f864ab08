"""Who is at the addresses of `controller.quorum.bootstrap.servers`: asked until each has said so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from odradek.rpc.identity import Mismatch
from odradek.rpc.peers import Peers, Unreachable
from odradek.rpc.streams import LocalNode, spawn

PAUSE_S_MIN = 0.05
PAUSE_S_MAX = 1.0


class Discovery:
    """Create on the running loop; `on_found(node_id, host, port)` is called once for each address that is another node.

    `on_mismatch(address, text or None)` is told what is wrong with who answers there, or that nothing is.
    """

    def __init__(
        self,
        node: LocalNode,
        peers: Peers,
        addresses: Iterable[tuple[str, int]],
        on_found: Callable[[int, str, int], object],
        on_mismatch: Callable[[str, str | None], object],
    ) -> None:
        self._node = node
        self._peers = peers
        self._on_found = on_found
        self._on_mismatch = on_mismatch
        self._tasks = [spawn(self._find(address)) for address in dict.fromkeys(addresses)]

    async def _find(self, address: tuple[str, int]) -> None:
        pause_s, said = PAUSE_S_MIN, ""
        where = f"{address[0]}:{address[1]}"
        while True:
            try:
                peer = await self._peers.greet(address)
                break
            except Mismatch as mismatch:
                if str(mismatch) != said:
                    said = str(mismatch)
                    self._node.warn("another node is not who it should be", address=where, reason=said)
                self._node.deliver(self._on_mismatch, where, said)
            except Unreachable:
                pass  # it may come later; what is missing, the node itself says
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)
        self._node.deliver(self._on_mismatch, where, None)
        if peer.incarnation != self._node.me.incarnation:
            self._node.deliver(self._on_found, peer.node_id, *address)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
