"""The ways between nodes over the simulated network: what gRPC is in a real cluster (`PeerPorts` of a node).

Raft messages travel alone: they may be lost, doubled and reordered. Requests to the controller and replication travel
on streams that keep their order, stall, and are cut; one whose other end was silent for a keepalive is given up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from odradek.broker.node import PeerPorts
from odradek.raft.messages import Message
from odradek.raft.voters import ReplicaKey
from odradek.replication.messages import FetchDown, FetchUp
from odradek.replication.ports import StreamEvents, UpEvents
from odradek.simulation.scheduler import MS

if TYPE_CHECKING:
    from odradek.metadata.delta import MetadataDelta
    from odradek.metadata.image import MetadataImage
    from odradek.simulation.machine import Process
    from odradek.simulation.network import Network, Stream

INTERNAL_PORT = 9093
ASK_TIMEOUT_US = 5_000 * MS
RECONNECT_US = (50 * MS, 200 * MS)
UNDELIVERED_HIGH, UNDELIVERED_LOW = 6, 3
"""Messages under way above which a leader's stream is not writable, and from which on it is again."""


def host_of(node_id: int) -> str:
    return f"n{node_id}"


class Peers:
    """All of one life of a node. `serve` once the node is there."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._host = process.machine.host
        self._network: Network = process.machine.cluster.network
        self.raft = RaftPort(process, self._refused)
        self.controller = AskingPort(process, self.watch, "controller")
        self.brokers = AskingPort(process, self.watch, "broker")
        self.replication = ReplicationPort(process, self.watch)
        self.ports = PeerPorts(self.raft, self.controller, self.replication, self.brokers, INTERNAL_PORT)
        self._was_controller = False

    def serve(self) -> None:
        """Let the others in; before the node starts, as a process that is refused counts as dead."""
        network, host = self._network, self._host
        network.listen(host, "internal", lambda _stream: _Deaf())
        process = self._process
        network.listen(
            host, "controller", lambda stream: _Asker(process, stream, lambda: process.node.quorum.answer)
        )
        if process.replicates:
            network.listen(
                host,
                "broker",
                lambda stream: _Asker(process, stream, lambda: process.node.between_brokers.answer),
            )
            network.listen(host, "replication", lambda stream: _Down(self._process, stream))
        self._process.node.quorum.add_publisher(self)
        for node_id in self._process.machine.cluster.bootstrap_controllers(self._process.machine.id):
            self._discover(node_id)

    def _discover(self, node_id: int) -> None:
        """Ask a bootstrap server who it is until it has said so."""
        delay_us = self._process.rng.randrange(1_000, 100_000)
        self._process.later(delay_us, "discovery", lambda: self._greet(node_id))

    def _greet(self, node_id: int) -> None:
        there, network = self._process.machine.cluster.machines[node_id], self._network
        apart = network.is_blocked(self._host, there.host) or network.is_blocked(there.host, self._host)
        if there.running and not apart:
            self._process.node.quorum.raft.contact(node_id)
        else:
            self._discover(node_id)

    def on_metadata(self, delta: MetadataDelta, image: MetadataImage) -> None:
        """A new active controller finds out which brokers live, as `OtherNodes` does."""
        is_controller = image.controller_id == self._process.machine.id
        if is_controller and not self._was_controller:
            for node_id in sorted(image.brokers):
                if node_id != self._process.machine.id:
                    self.watch(node_id)
        self._was_controller = is_controller

    def watch(self, node_id: int) -> None:
        """Find out whether the process of a peer is gone."""
        self._network.connect(self._host, host_of(node_id), "internal", _Probe(self, node_id))

    def refused(self, node_id: int) -> None:
        self._process.happen("refused", lambda: self._refused(node_id))

    def _refused(self, node_id: int) -> None:
        quorum = self._process.node.quorum
        broker = quorum.image.brokers.get(node_id)
        if broker is not None and not broker.fenced:
            self._process.machine.cluster.trace.count("broker called unreachable")
            quorum.broker_unreachable(node_id, broker.epoch)


class _Deaf:
    """The accepting end of a probe."""

    def received(self, item: object) -> None:
        """Nothing is said on it."""

    def closed(self, reason: str) -> None:
        """Nobody waits for it."""


class _Probe:
    """Dials, and looks at how that fails."""

    def __init__(self, peers: Peers, node_id: int) -> None:
        self._peers = peers
        self._node_id = node_id

    def received(self, item: object) -> None:
        """Nothing is said on it."""

    def closed(self, reason: str) -> None:
        if reason == "refused":
            self._peers.refused(self._node_id)


class RaftPort:
    """Raft's `Transport`."""

    def __init__(self, process: Process, refused: Callable[[int], None]) -> None:
        self._process = process
        self._refused = refused

    def send(self, to: ReplicaKey, message: Message) -> None:
        process = self._process
        cluster = process.machine.cluster
        cluster.invariants.on_message(process, to, message)
        name = type(message).__name__

        def deliver() -> None:
            there = cluster.machines[to.id].process
            if there is not None and there.node is not None:
                there.happen(name, lambda: there.node.quorum.raft.receive(message))

        def refused() -> None:
            process.happen("refused", lambda: self._refused(to.id))

        cluster.network.send(process.machine.host, host_of(to.id), deliver, refused)


class AskingPort:
    """A `NodeChannel`: one stream to each node that is asked, dialled when needed."""

    def __init__(self, process: Process, watch: Callable[[int], None], service: str) -> None:
        self._process = process
        self._watch = watch
        self._service = service
        self._ways: dict[int, _Way] = {}

    def ask(
        self,
        node_id: int,
        api_key: int,
        version: int,
        body: bytes,
        done: Callable[[bytes | None], None],
        timeout_ms: int | None = None,
    ) -> None:
        """An answer is waited for as long as its stream lives."""
        way = self._ways.get(node_id)
        if way is None:
            way = self._ways[node_id] = _Way(self._process, node_id, self._service, self._ended)
        way.ask(api_key, version, body, done)

    def _ended(self, node_id: int, reason: str) -> None:
        del self._ways[node_id]
        if reason != "connecting timed out":
            self._watch(node_id)


class _Way:
    """The asking end. Implements `network.Receiver`."""

    def __init__(
        self, process: Process, node_id: int, service: str, ended: Callable[[int, str], None]
    ) -> None:
        self._process = process
        self._id = node_id
        self._service = service
        self._on_end = ended
        self._asked: dict[int, Callable[[bytes | None], None]] = {}
        self._next = 0
        cluster = process.machine.cluster
        self._stream: Stream = cluster.network.connect(process.machine.host, host_of(node_id), service, self)

    def ask(self, api_key: int, version: int, body: bytes, done: Callable[[bytes | None], None]) -> None:
        self._next += 1
        number = self._next
        self._asked[number] = done
        self._stream.send(0, (number, api_key, version, body))
        self._process.later(ASK_TIMEOUT_US, "asking timed out", lambda: self._answer(number, None))

    def _answer(self, number: int, body: bytes | None) -> None:
        done = self._asked.pop(number, None)
        if done is not None:
            done(body)

    def received(self, item: Any) -> None:
        number, body = item
        self._process.happen(f"{self._service} answer", lambda: self._answer(number, body))

    def closed(self, reason: str) -> None:
        self._process.happen(f"{self._service} lost", lambda: self._end(reason))

    def _end(self, reason: str) -> None:
        self._on_end(self._id, reason)
        asked, self._asked = self._asked, {}
        for done in asked.values():
            done(None)


class _Asker:
    """The answering end. Implements `network.Receiver`."""

    def __init__(self, process: Process, stream: Stream, answerer: Callable[[], Any]) -> None:
        self._process = process
        self._stream = stream
        self._answerer = answerer

    def received(self, item: Any) -> None:
        number, api_key, version, body = item

        def reply(response: bytes | None) -> None:
            network = self._process.machine.cluster.network
            if network.answers_lost and network.rng.random() < network.answers_lost:
                network.trace.count("net: answer lost")
                self._stream.reset("reset by the network")
            else:
                self._stream.send(1, (number, response))

        def answer() -> None:
            self._answerer()(api_key, version, body, reply)

        self._process.happen(f"asked {api_key}", answer)

    def closed(self, reason: str) -> None:
        """Answers go nowhere."""


class ReplicationPort:
    """`ReplicationTransport`."""

    def __init__(self, process: Process, watch: Callable[[int], None]) -> None:
        self._process = process
        self._watch = watch

    def connect(self, leader_id: int, events: StreamEvents) -> _Up:
        return _Up(self._process, leader_id, events, self._watch)


class _Up:
    """The follower's end: `replication.ports.Stream` and `network.Receiver`."""

    def __init__(
        self, process: Process, leader_id: int, events: StreamEvents, watch: Callable[[int], None]
    ) -> None:
        self._process = process
        self._leader_id = leader_id
        self._events = events
        self._watch = watch
        self._over = False
        network = process.machine.cluster.network
        self._stream: Stream = network.connect(process.machine.host, host_of(leader_id), "replication", self)

    def send(self, message: FetchUp) -> None:
        if not self._over:
            self._stream.send(0, message)

    def close(self) -> None:
        self._over = True
        self._stream.close(0)

    def received(self, item: object) -> None:
        self._process.happen("replication data", lambda: self._take(item))

    def _take(self, item: Any) -> None:
        message, delivered = item
        self._process.machine.cluster.scheduler.after(1, delivered)
        if not self._over:
            self._events.received(message)

    def closed(self, reason: str) -> None:
        self._process.happen("replication lost", lambda: self._end(reason))

    def _end(self, reason: str) -> None:
        if not self._over:
            self._over = True
            if reason != "connecting timed out":
                self._watch(self._leader_id)
            self._events.closed(reason)


class _Down:
    """The leader's end: `replication.ports.DownStream` and `network.Receiver`."""

    def __init__(self, process: Process, stream: Stream) -> None:
        self._process = process
        self._stream = stream
        self._over = False
        self._undelivered = 0
        self.writable = True
        self._events: UpEvents | None = None
        process.happen("replication accepted", self._accept)

    def _accept(self) -> None:
        self._events = self._process.node.replication.accept(self)

    def send(self, message: FetchDown) -> None:
        if self._over:
            return
        frozen = message._replace(
            data=tuple(each._replace(batches=bytes(each.batches)) for each in message.data)
        )
        self._undelivered += 1
        if self._undelivered >= UNDELIVERED_HIGH:
            self.writable = False
        self._stream.send(1, (frozen, self._delivered))

    def _delivered(self) -> None:
        """The network has taken one more message."""
        self._undelivered -= 1
        if not self.writable and self._undelivered <= UNDELIVERED_LOW and not self._over:
            self._process.happen("replication drained", self._drained)

    def _drained(self) -> None:
        if not self.writable and not self._over:
            self.writable = True
            assert self._events is not None
            self._events.drained()

    def close(self) -> None:
        self._over = True
        self._stream.close(1)

    def received(self, item: object) -> None:
        self._process.happen("replication state", lambda: self._take(item))

    def _take(self, item: Any) -> None:
        if not self._over:
            assert self._events is not None
            self._events.received(item)

    def closed(self, reason: str) -> None:
        self._process.happen("replication closed", self._end)

    def _end(self) -> None:
        if not self._over:
            self._over = True
            assert self._events is not None
            self._events.closed()
