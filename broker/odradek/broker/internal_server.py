"""What a node is to other nodes, over gRPC: one server, and the ways to its peers.

Imported only by a node that has peers: gRPC takes about 100 ms and 20 MB.

Three lanes. Raft and requests to the controller share one connection per peer; replication has connections of its own,
and so have requests from broker to broker: behind neither bulk data nor anything that others wait for.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what it has to say comes as errors, and is logged here

from odradek.broker.broker_lifecycle import REPLICATION_LISTENER
from odradek.raft.grpc_transport import GrpcRaftTransport
from odradek.replication.grpc_transport import GrpcReplicationTransport
from odradek.rpc.asking import BROKER, CONTROLLER, GrpcAsking
from odradek.rpc.discovery import Discovery
from odradek.rpc.identity import NodeIdentity
from odradek.rpc.peers import Peers
from odradek.rpc.server import NodeServer
from odradek.rpc.settings import RpcSettings
from odradek.rpc.streams import LocalNode, Warn

if TYPE_CHECKING:
    from odradek.metadata.delta import MetadataDelta
    from odradek.metadata.image import MetadataImage

STOP_S_MAX = 0.9


class InternalServer:
    """Create on the running loop, `start`, set `raft.receive`, `controller.answer`, `brokers.answer` and
    `replication.accept`, `stop`.

    `after` is called after everything that has arrived from another node, and flushes the node. `on_refused(node_id)`
    is told of a peer whose process is gone: nobody listens at its address; it may be told often. `on_mismatch(peer,
    text)` is told how handshakes with controllers go: what is wrong, or None for nothing.
    """

    def __init__(
        self,
        me: NodeIdentity,
        *,
        warn: Warn,
        after: Callable[[], object],
        on_refused: Callable[[int], object],
        on_mismatch: Callable[[int | str, str | None], object] = lambda _peer, _text: None,
        settings: RpcSettings | None = None,
        secret: bytes = b"",
    ) -> None:
        self._me = me
        self._on_mismatch = on_mismatch
        self._discovery: Discovery | None = None
        node = self._local = LocalNode(me, warn, after, settings or RpcSettings(), secret)
        self._control = Peers(node, on_refused)
        self._control.on_mismatch = on_mismatch
        self._bulk = Peers(node, on_refused, bulk=True)
        self._brokers = Peers(node, on_refused)
        self.raft = GrpcRaftTransport(node, self._control)
        self.controller = GrpcAsking(node, self._control, CONTROLLER)
        self.replication = GrpcReplicationTransport(node, self._bulk)
        self.brokers = GrpcAsking(node, self._brokers, BROKER)
        services = (self.raft, self.controller, self.replication, self.brokers)
        methods = [service.method for service in services]
        self._server = NodeServer(node, methods, on_caller=self._seen, on_lost=self.watch)

    async def start(self, host: str, port: int) -> int:
        """Listen; the port. OSError. Do this before the node registers: who is refused counts as dead."""
        return await self._server.start(host, port)

    # -- where the others are ------------------------------------------------------------------------------

    def set_controller(self, node_id: int, host: str, port: int) -> None:
        """Of `controller.quorum.voters`, or as it becomes known."""
        self.raft.set_address(node_id, host, port)

    def discover(
        self, addresses: Iterable[tuple[str, int]], on_found: Callable[[int, str, int], object]
    ) -> None:
        """Find out who is at these addresses: those of `controller.quorum.bootstrap.servers`."""
        self._discovery = Discovery(self._local, self._control, addresses, on_found, self._on_mismatch)

    def on_metadata(self, delta: MetadataDelta, image: MetadataImage) -> None:
        """A MetadataPublisher: registrations say where brokers are."""
        for node_id in delta.brokers_changed:
            broker = image.brokers.get(node_id)
            listener = None if broker is None else broker.listeners.get(REPLICATION_LISTENER)
            if listener is None:
                self._bulk.forget(node_id)
                self._brokers.forget(node_id)
            elif node_id != self._me.node_id:
                self._bulk.set_address(node_id, listener[0], listener[1])
                self._brokers.set_address(node_id, listener[0], listener[1])

    # -- who is gone ---------------------------------------------------------------------------------------

    def watch(self, node_id: int) -> None:
        """Find out whether the process of a peer is gone. A new active controller asks this of every broker."""
        (self._control if self._control.knows(node_id) else self._bulk).watch(node_id)

    def _seen(self, node_id: int) -> None:
        self._control.seen(node_id)
        self._bulk.seen(node_id)
        self._brokers.seen(node_id)

    async def stop(self) -> None:
        """After the node: sends what it said last, then ends every stream. Takes less than a second."""
        try:
            async with asyncio.timeout(STOP_S_MAX):
                if self._discovery is not None:
                    await self._discovery.close()
                await asyncio.gather(
                    self.raft.close(), self.controller.close(), self.replication.close(), self.brokers.close()
                )
                await self._server.stop()
                await asyncio.gather(self._control.close(), self._bulk.close(), self._brokers.close())
        except TimeoutError:
            pass  # the process ends; the operating system closes what is left
