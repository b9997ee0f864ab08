"""How a node of a cluster meets the others: gRPC around its ports. A lone node never imports gRPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from odradek.broker.config import BrokerConfig, StartupError
from odradek.broker.internal_secret import internal_secret
from odradek.broker.node import Node, PeerPorts
from odradek.broker.quorum_join import KEY as AUTO_JOIN
from odradek.broker.quorum_join import QuorumJoin
from odradek.broker.quorum_members import own_endpoints
from odradek.broker.refusals import Refusals

if TYPE_CHECKING:
    from random import Random

    from odradek.broker.controller_process import ControllerProcess
    from odradek.broker.internal_server import InternalServer
    from odradek.metadata.delta import MetadataDelta
    from odradek.metadata.image import MetadataImage
    from odradek.raft.voters import VoterSet
    from odradek.storage.manager import LogManager


class OtherNodes:
    """Create by `start`, before the node; `serve` it; `stop` after it."""

    def __init__(self, config: BrokerConfig, server: InternalServer, port: int, log: Any) -> None:
        self.on_expelled: Callable[[str], object] = lambda _reason: None
        """Told why this node cannot be one of this cluster."""
        self._config = config
        self._server = server
        self._log = log
        self._refusals = Refusals()
        self._was_voter = True
        self._join: QuorumJoin | None = None
        self._node: Node | ControllerProcess | None = None
        self._was_controller = False
        self.ports = PeerPorts(server.raft, server.controller, server.replication, server.brokers, port)

    @classmethod
    async def start(
        cls,
        config: BrokerConfig,
        logs: LogManager,
        metadata_dir: str,
        connections_max: int,
        rng: Random,
        log: Any,
    ) -> OtherNodes:
        """Listen for other nodes. StartupError if the address cannot be had."""
        from odradek.broker.internal_server import InternalServer
        from odradek.rpc.identity import NodeIdentity
        from odradek.rpc.settings import RpcSettings

        directory = next(each.directory_id for each in logs.dirs if each.path == metadata_dir)
        me = NodeIdentity(logs.cluster_id, config.node_id, directory, rng.randbytes(16))
        found: list[OtherNodes] = []
        server = InternalServer(
            me,
            warn=log.limited_warning,
            after=lambda: found[0]._settle(),
            on_refused=lambda node_id: found[0]._refused(node_id),
            on_mismatch=lambda peer, text: found[0]._mismatch(peer, text),
            settings=RpcSettings(connections_max=connections_max),
            secret=internal_secret(config),
        )
        host, port = config.internal_address
        try:
            port = await server.start(host, port)
        except OSError as error:
            raise StartupError(f"cannot listen for other nodes on {host or '*'}:{port}: {error}") from error
        for voter in config.voters:
            server.set_controller(voter.node_id, voter.host, voter.port)
        for listener in config.controller_advertised[:1]:
            server.raft.own_address = listener.host, listener.port or port
        found.append(cls(config, server, port, log))
        return found[0]

    def serve(self, node: Node | ControllerProcess) -> None:
        """From here on what other nodes say reaches `node`."""
        self._node = node
        self._server.raft.receive = node.quorum.raft.receive
        self._server.controller.answer = node.quorum.answer
        if isinstance(node, Node):
            self._server.replication.accept = node.replication.accept
            self._server.brokers.answer = node.between_brokers.answer
        node.quorum.add_publisher(self)
        node.quorum.raft.on_voters = self._on_voters
        if self._config.static.get(AUTO_JOIN, "false").strip().lower() == "true" and self._is_controller:
            endpoints = own_endpoints(self._config, self.ports.port)
            clock, timers = node.ports.clock, node.ports.timers
            self._join = QuorumJoin(node.quorum, node.logs.cluster_id, endpoints, clock, timers)
        if self._config.bootstrap_servers and not self._config.standalone:
            self._server.discover(self._config.bootstrap_servers, self._found)

    @property
    def _is_controller(self) -> bool:
        return "controller" in self._config.roles

    def on_metadata(self, delta: MetadataDelta, image: MetadataImage) -> None:
        """A metadata publisher: where the others are, and, for a new active controller, whether they live."""
        self._server.on_metadata(delta, image)
        is_controller = image.controller_id == self._config.node_id
        if is_controller and not self._was_controller:
            for node_id in image.brokers:
                if node_id != self._config.node_id:
                    self._server.watch(node_id)
        self._was_controller = is_controller

    def _found(self, node_id: int, host: str, port: int) -> None:
        """A bootstrap server: it may know who leads."""
        assert self._node is not None
        if node_id not in self._node.quorum.raft.voters.ids:  # where voters are, the log says
            self._server.set_controller(node_id, host, port)
        self._node.quorum.raft.contact(node_id)

    def _on_voters(self, voters: VoterSet) -> None:
        """Where the controllers are; and a person may have to know that this one is none of them."""
        assert self._node is not None
        for voter in voters.voters:
            for endpoint in voter.endpoints[:1]:
                self._server.set_controller(voter.id, endpoint.host, endpoint.port)
        me = self._node.quorum.raft.me
        is_voter = voters.contains(me)
        if self._join is not None:
            self._join.voters_changed()
        elif self._is_controller and len(voters) and self._was_voter and not is_voter:
            self._log.warning(
                "this controller is no voter, it only observes: kafka-metadata-quorum add-controller makes it one",
                controller=str(me),
                voters=str(voters),
            )
        self._was_voter = is_voter or not len(voters)

    def _mismatch(self, peer: int | str, text: str | None) -> None:
        """How the handshake with a controller went."""
        if self._node is None:
            return
        now_ms = self._node.ports.clock.monotonic_ms()
        self._refusals.heard(peer, text, now_ms)
        raft = self._node.quorum.raft
        reason = self._refusals.verdict(now_ms if raft.is_leader else raft.leader_heard_ms, now_ms)
        if reason is not None:
            self.on_expelled(f"this node cannot be one of the cluster: {reason}")

    def _settle(self) -> None:
        if self._node is not None:
            self._node.settle()

    def _refused(self, node_id: int) -> None:
        """Nobody listens at a broker's address: its process is gone, and the controller need not wait for its
        session to end.
        """
        if self._node is None:
            return
        self._node.quorum.raft.peer_unreachable(node_id)
        broker = self._node.quorum.image.brokers.get(node_id)
        if broker is not None and isinstance(self._node, Node):
            self._node.found_dead(node_id)
        if broker is not None and not broker.fenced:
            self._node.quorum.broker_unreachable(node_id, broker.epoch)
            if isinstance(self._node, Node):
                self._node.doubts.add(node_id)

    async def stop(self) -> None:
        await self._server.stop()
