"""Several metadata nodes in one process, on real Raft logs: messages pass through queues, time moves when told to.

What travels takes no time, unless a link is cut. Brokers are driven by hand, from whichever node.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

from odradek.controller.controller_node import MetadataQuorum
from odradek.ports.timers import TimerQueue
from odradek.raft.messages import Message as RaftMessage
from odradek.raft.testing.node import VirtualClock
from odradek.raft.voters import Endpoint, ReplicaKey, Voter
from odradek.storage.memory_disk import MemoryDisk, StepSyncer
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.broker_heartbeat import BrokerHeartbeatRequest
from odradek.wire.primitives import Message
from unit.controller.controller_harness import CLUSTER, Publisher, registration
from unit.controller.test_metadata_quorum import DIR, Config

Reply = Callable[[bytes | None], None]


class Network:
    """Links between nodes, by id. `cut` and `gone` lose what is sent."""

    def __init__(self) -> None:
        self.queue: deque[Callable[[], None]] = deque()
        self.nodes: dict[int, ClusterNode] = {}
        self.cut: set[frozenset[int]] = set()
        self.asked: list[tuple[int, int, int]] = []
        """(from, to, api key) of every request to a controller."""

    def connected(self, one: int, other: int) -> bool:
        return frozenset((one, other)) not in self.cut and self.nodes[other].running

    def raft(self, sender: int, to: ReplicaKey, message: RaftMessage) -> None:
        def deliver() -> None:
            if self.connected(sender, to.id):
                self.nodes[to.id].quorum.raft.receive(message)

        self.queue.append(deliver)

    def ask(self, sender: int, to: int, api_key: int, version: int, body: bytes, done: Reply) -> None:
        self.asked.append((sender, to, api_key))

        def answered(response: bytes | None) -> None:
            arrives = response if self.connected(sender, to) else None
            self.queue.append(lambda: done(arrives) if self.nodes[sender].running else None)

        def deliver() -> None:
            if self.connected(sender, to):
                self.nodes[to].quorum.answer(api_key, version, body, answered)
            else:
                answered(None)

        self.queue.append(deliver)


class ClusterNode:
    """One process: its port to the others is itself."""

    def __init__(
        self, node_id: int, network: Network, clock: VirtualClock, voters: list[Voter], config: Config
    ) -> None:
        self.id = node_id
        self.network = network
        self.clock = clock
        self.voters = voters
        self.config = config
        self.disk = MemoryDisk(node_id)
        self.disk.makedirs(DIR)
        self.disk.sync_dir("/")
        self.running = False
        self.lives = 0
        self.epoch = -1

    def start(self) -> None:
        self.lives += 1
        self.syncer, self.timers = StepSyncer(), TimerQueue()
        self.fatal: list[str] = []
        self.warnings: list[str] = []
        self.quorum = MetadataQuorum(
            disk=self.disk,
            dir=DIR,
            syncer=self.syncer,
            clock=self.clock,
            timers=self.timers,
            rng=Random(100 * self.id + self.lives),
            node_id=self.id,
            cluster_id=CLUSTER,
            config=self.config,
            directory_id=bytes([self.id]) * 16,
            voters=self.voters,
            transport=self,
            channel=self,
            warn=lambda text, **details: self.warnings.append(text),
        )
        self.quorum.stop_node = self.fatal.append
        self.publisher = Publisher()
        self.quorum.add_publisher(self.publisher)
        self.running = True
        self.quorum.start(self.clock.now_ms)

    def kill(self) -> None:
        self.running = False
        self.epoch = -1
        self.syncer.forget()
        self.disk.kill()

    def send(self, to: ReplicaKey, message: RaftMessage) -> None:
        self.network.raft(self.id, to, message)

    def ask(
        self,
        controller_id: int,
        api_key: int,
        version: int,
        body: bytes,
        done: Reply,
        timeout_ms: int | None = None,
    ) -> None:
        self.network.ask(self.id, controller_id, api_key, version, body, done)

    def request(self, request: Message, version: int | None = None, **options: Any) -> list[Any]:
        """Send a request; the list gets the response."""
        answers: list[Any] = []
        wanted = request.MAX_VERSION if version is None else version
        self.quorum.handle(request, wanted, self.clock.now_ms, answers.append, **options)
        return answers


class MetadataCluster:
    """Controllers 1 to `voters`, then observers; every node is a broker as well, once it has joined."""

    def __init__(self, voters: int = 3, observers: int = 0, config: Config | None = None) -> None:
        self.clock = VirtualClock()
        self.network = Network()
        controllers = [
            Voter(ReplicaKey(number), (Endpoint("CONTROLLER", f"host{number}", 9093),))
            for number in range(1, voters + 1)
        ]
        for number in range(1, voters + observers + 1):
            node = ClusterNode(number, self.network, self.clock, controllers, config or Config())
            self.network.nodes[number] = node
            node.start()
        self.run(3_000)

    @property
    def nodes(self) -> dict[int, ClusterNode]:
        return self.network.nodes

    def running(self) -> list[ClusterNode]:
        return [node for node in self.nodes.values() if node.running]

    @property
    def leader(self) -> ClusterNode:
        [leader] = [node for node in self.running() if node.quorum.controller.active]
        return leader

    @property
    def follower(self) -> ClusterNode:
        return next(node for node in self.running() if not node.quorum.controller.active)

    def settle(self) -> None:
        """Everything that needs no time."""
        for _ in range(10_000):
            for node in self.running():
                node.syncer.drain()
            if not self.network.queue:
                return
            self.network.queue.popleft()()
        raise AssertionError("it does not settle")

    def run(self, ms: int, step_ms: int = 10, beating: bool = False) -> None:
        """Let time pass; `beating`: running brokers that have joined send heartbeats."""
        end_ms = self.clock.now_ms + ms
        while self.clock.now_ms < end_ms:
            self.clock.now_ms += step_ms
            for node in self.running():
                node.timers.advance(self.clock.now_ms)
            if beating and self.clock.now_ms % 500 < step_ms:
                self.beat()
            self.settle()

    def call(self, node: ClusterNode, request: Message, version: int | None = None) -> Any:
        answers = node.request(request, version)
        self.settle()
        [answer] = answers
        return answer

    def join(self, *nodes: ClusterNode) -> None:
        for node in nodes:
            response = self.call(node, registration(node.id, node.lives))
            assert response.error_code == ErrorCode.NONE
            node.epoch = response.broker_epoch
            self.run(50)  # the registration comes to every node
            assert not self.heartbeat(node).is_fenced
        self.run(50)

    def heartbeat(self, node: ClusterNode, **changes: Any) -> Any:
        return self.call(node, self._heartbeat(node, **changes))

    def _heartbeat(self, node: ClusterNode, **changes: Any) -> BrokerHeartbeatRequest:
        return BrokerHeartbeatRequest(node.id, node.epoch, node.quorum.image.offset, **changes)

    def beat(self) -> None:
        for node in self.running():
            if node.epoch >= 0:
                node.request(self._heartbeat(node))
