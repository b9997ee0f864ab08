"""Drivers of some nodes, with real logs on disks in memory, and streams that deliver when told to. No chance."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from odradek.ports.timers import TimerQueue
from odradek.replication.config import ReplicationConfig
from odradek.replication.driver import ReplicationDriver
from odradek.replication.isr import PartitionState, Peer
from odradek.replication.leader import LeaderState
from odradek.replication.messages import FetchData, FetchDown, FetchState, FetchUp
from odradek.replication.replica import Replica
from odradek.storage.config import LogConfig
from odradek.storage.log import Log
from odradek.storage.memory_disk import MemoryDisk, StepSyncer
from odradek.wire.messages.alter_partition import AlterPartitionRequest, AlterPartitionResponse
from odradek.wire.records import iter_batches, read_records, simple_batch

TOPIC_ID = b"t" * 16
WALL_MS = 1_700_000_000_000


def state(
    leader: int, leader_epoch: int = 0, partition_epoch: int = 0, isr: Iterable[int] = (1, 2),
    replicas: Iterable[int] = (1, 2),
) -> PartitionState:  # fmt: skip
    return PartitionState(leader, leader_epoch, partition_epoch, tuple(isr), tuple(replicas))


class Events:
    """Notes what a replica says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def leading(self, replica: Replica) -> None:
        self.said.append("leading")

    def high_watermark_moved(self, replica: Replica) -> None:
        self.said.append(f"high watermark {replica.high_watermark}")

    def isr_changed(self, replica: Replica) -> None:
        assert replica.leader is not None
        self.said.append(f"isr {sorted(replica.leader.isr.committed)}")

    def failed(self, replica: Replica, error: OSError) -> None:
        self.said.append("failed")


class Controller:
    """Keeps the questions; tests answer them."""

    def __init__(self) -> None:
        self.asked: list[tuple[AlterPartitionRequest, Callable[[AlterPartitionResponse | None], None]]] = []

    def alter_partition(
        self, request: AlterPartitionRequest, version: int, done: Callable[[AlterPartitionResponse | None], None]
    ) -> None:  # fmt: skip
        assert version == 3
        AlterPartitionRequest.decode(request.encode(version), version)
        self.asked.append((request, done))

    def proposals(self) -> list[list[tuple[int, int]]]:
        return [
            [(member.broker_id, member.broker_epoch) for member in partition.new_isr_with_epochs]
            for request, _ in self.asked
            for topic in request.topics
            for partition in topic.partitions
        ]


class UpEnd:
    """The follower's end of a stream."""

    def __init__(self, lab: Lab, follower: int, leader: int, events: Any) -> None:
        self.lab, self.follower, self.leader = lab, follower, leader
        self.events = events
        self.closed = False
        self.peer: DownEnd | None = None

    def send(self, message: FetchUp) -> None:
        if not self.closed:
            self.lab.sent.append(message)
            if self.peer is not None:
                self.lab.queue.append((self.peer.take, message))

    def take(self, message: FetchDown) -> None:
        if not self.closed:
            self.events.received(message)

    def close(self) -> None:
        self.closed = True
        if self.peer is not None and not self.peer.closed:
            self.peer.closed = True
            self.lab.queue.append((lambda peer: peer.events.closed(), self.peer))

    def break_off(self) -> None:
        """The network ends it; both ends hear of it."""
        self.closed = True
        self.events.closed("broken")
        if self.peer is not None:
            self.peer.closed = True
            self.peer.events.closed()


class DownEnd:
    """The leader's end."""

    def __init__(self, up: UpEnd) -> None:
        self.up = up
        self.writable = True
        self.closed = False
        self.events: Any = None

    def send(self, message: FetchDown) -> None:
        if not self.closed:
            self.up.lab.sent.append(message)
            self.up.lab.queue.append((self.up.take, message))

    def take(self, message: FetchUp) -> None:
        if not self.closed:
            self.events.received(message)

    def close(self) -> None:
        self.closed = True
        if not self.up.closed:
            self.up.closed = True
            self.up.lab.queue.append((lambda up: up.events.closed("closed by the leader"), self.up))


class Transport:
    def __init__(self, lab: Lab, node: int) -> None:
        self.lab, self.node = lab, node

    def connect(self, leader_id: int, events: Any) -> UpEnd:
        up = UpEnd(self.lab, self.node, leader_id, events)
        self.lab.streams.append(up)
        if leader_id in self.lab.unreachable:
            self.lab.queue.append((lambda _: events.closed("refused"), None))
        else:
            up.peer = DownEnd(up)
            up.peer.events = self.lab.nodes[leader_id].driver.accept(up.peer)
        return up


class Node:
    """`log(partition)`, `replica(partition)` of one node."""

    def __init__(self, lab: Lab, number: int, partitions: int, config: LogConfig) -> None:
        self.lab = lab
        self.disk = MemoryDisk(number)
        self.syncer = StepSyncer()
        self.timers = TimerQueue()
        self.controller = Controller()
        self.events = [Events() for _ in range(partitions)]
        self.driver = ReplicationDriver(
            number, lab.config, transport=Transport(lab, number), controller=self.controller, syncer=self.syncer,
            clock=lab, timers=self.timers, rng=Random(number),
        )  # fmt: skip
        self.replicas = [self.add(partition, config) for partition in range(partitions)]

    def add(self, partition: int, config: LogConfig) -> Replica:
        path = f"/d/t-{partition}"
        self.disk.makedirs(path)
        self.disk.sync_dir("/")
        self.disk.sync_dir("/d")
        log = Log.open(self.disk, path, config, topic="t", partition=partition, wall_ms=WALL_MS)
        return self.driver.add(
            "t", TOPIC_ID, partition, log, self.events[partition], high_watermark=0, min_isr=self.lab.min_isr
        )

    def leader(self, partition: int = 0) -> LeaderState:
        leader = self.replicas[partition].leader
        assert leader is not None
        return leader

    def put(self, *values: bytes, partition: int = 0, epoch: int = 0) -> None:
        """Into the log, without a word to the driver."""
        log = self.replicas[partition].log
        for value in values:
            log.append_as_leader(
                memoryview(simple_batch([(None, value)], base_offset=0, timestamp=WALL_MS)), epoch, WALL_MS
            )
        log.write_staged()

    def produce(self, *values: bytes, partition: int = 0) -> None:
        self.put(*values, partition=partition, epoch=self.leader(partition).leader_epoch)
        self.driver.appended(self.replicas[partition])
        self.driver.flush()

    def values(self, partition: int = 0) -> list[bytes]:
        log = self.replicas[partition].log
        offset, values = log.log_start_offset, []
        while offset < log.written_end_offset:
            result = log.read(offset, 1 << 20, end_offset=log.written_end_offset)
            view = memoryview(result.data)
            for position, header in iter_batches(view):
                values += [
                    r.value or b""
                    for r in read_records(view[position : position + header.size], limit=1 << 20)
                ]
            offset = result.next_offset
        return values


class Lab:
    """Nodes 1, 2, …; all replicas of all partitions, all registered with broker epoch 10 + id."""

    def __init__(
        self, nodes: int = 2, partitions: int = 1, config: ReplicationConfig | None = None,
        log_config: LogConfig | None = None, min_isr: int = 1,
    ) -> None:  # fmt: skip
        self.config = config or ReplicationConfig()
        self.min_isr = min_isr
        self.now = 1000
        self.queue: deque[tuple[Callable[[Any], None], Any]] = deque()
        self.sent: list[FetchUp | FetchDown] = []
        self.streams: list[UpEnd] = []
        self.unreachable: set[int] = set()
        self.peers = {number: Peer(10 + number, False) for number in range(1, nodes + 1)}
        self.nodes: dict[int, Node] = {}
        for number in range(1, nodes + 1):
            self.nodes[number] = Node(self, number, partitions, log_config or LogConfig())
            self.nodes[number].driver.registered(10 + number, self.peers)

    def __getitem__(self, number: int) -> Node:
        return self.nodes[number]

    # Clock
    def monotonic_ms(self) -> int:
        return self.now

    def monotonic_ns(self) -> int:
        return self.now * 1_000_000

    def wall_ms(self) -> int:
        return WALL_MS + self.now

    # Events
    def apply(self, wanted: PartitionState, *nodes: int, partition: int | None = None) -> None:
        for number in nodes or self.nodes:
            node = self.nodes[number]
            for at, replica in enumerate(node.replicas):
                if partition is None or at == partition:
                    node.driver.apply(replica, wanted)
            node.driver.flush()
        self.run()

    def deliver(self, count: int = 1) -> None:
        for _ in range(count):
            call, message = self.queue.popleft()
            call(message)

    def run(self, *, sync: bool = True) -> None:
        """Everything that happens without time passing."""
        while True:
            if self.queue:
                self.deliver()
            elif sync and any(node.syncer.step() for node in self.nodes.values()):
                continue
            elif not any(node.timers.advance(self.now) for node in self.nodes.values()):
                return

    def wait(self, duration_ms: int) -> None:
        """Time passes, timer by timer."""
        end = self.now + duration_ms
        while True:
            deadlines = [node.timers.next_deadline_ms() for node in self.nodes.values()]
            due = min((deadline for deadline in deadlines if deadline is not None), default=end + 1)
            if due > end:
                break
            self.now = max(self.now, due)
            for node in self.nodes.values():
                node.timers.advance(self.now)
            self.run()
        self.now = end

    def downs(self) -> list[FetchDown]:
        return [message for message in self.sent if isinstance(message, FetchDown)]

    def ups(self) -> list[FetchUp]:
        return [message for message in self.sent if isinstance(message, FetchUp)]

    def data(self) -> list[FetchData]:
        return [data for down in self.downs() for data in down.data]

    def states(self) -> list[FetchState]:
        return [each for up in self.ups() for each in up.states]

    def forget(self) -> None:
        self.sent.clear()
