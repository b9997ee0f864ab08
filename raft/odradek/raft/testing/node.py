"""Drivers on disks of memory: one node, or a cluster whose messages pass through a queue. Time moves when
told to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from random import Random

from odradek.ports.timers import TimerQueue
from odradek.raft.config import RaftConfig
from odradek.raft.messages import Message
from odradek.raft.raft_driver import CommittedBatch, RaftDriver
from odradek.raft.voters import ReplicaKey, Voter, VoterSet
from odradek.storage.memory_disk import MemoryDisk, StepSyncer

METADATA_DIR = "/data"
WALL_START_MS = 1_700_000_000_000


def static_voters(*ids: int) -> VoterSet:
    """Of `controller.quorum.voters`: nobody knows their directory ids yet."""
    return VoterSet.of(Voter(ReplicaKey(replica_id)) for replica_id in ids)


class VirtualClock:
    """Both clocks, moving together."""

    def __init__(self) -> None:
        self.now_ms = 1000

    def monotonic_ms(self) -> int:
        return self.now_ms

    def monotonic_ns(self) -> int:
        return self.now_ms * 1_000_000

    def wall_ms(self) -> int:
        return WALL_START_MS + self.now_ms


class RecordingListener:
    """A state machine that is the list of all records, and a diary of what it was told."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.next_offset = 0
        self.epoch = 0
        self.leads = False
        self.leader_id = -1
        self.fatal: str | None = None
        self.diary: list[str] = []

    def on_commit(self, batches: list[CommittedBatch]) -> None:
        for batch in batches:
            assert batch.base_offset >= self.next_offset, f"{batch} again"
            assert batch.epoch >= self.epoch, f"{batch} after epoch {self.epoch}"
            self.next_offset, self.epoch = batch.base_offset + len(batch.records), batch.epoch
            self.records += batch.records
        self.diary.append(f"commit {self.next_offset}")

    def on_snapshot(self, end_offset: int, epoch: int, records: Sequence[bytes]) -> None:
        assert end_offset >= self.next_offset
        self.next_offset, self.epoch, self.records = end_offset, epoch, list(records)
        self.diary.append(f"snapshot {end_offset}-{epoch}")

    def on_leader(self, epoch: int) -> None:
        assert not self.leads
        self.leads = True
        self.diary.append(f"leader {epoch}")

    def on_resign(self, epoch: int) -> None:
        assert self.leads
        self.leads = False
        self.diary.append(f"resign {epoch}")

    def on_leader_change(self, leader_id: int, epoch: int) -> None:
        self.leader_id = leader_id

    def on_fatal(self, reason: str) -> None:
        assert self.fatal is None
        self.fatal = reason


class DriverNode:
    """A driver with everything it needs. `crash` and `kill` end it; `start` begins the next life on the
    same disk.
    """

    def __init__(
        self,
        me: ReplicaKey,
        voters: VoterSet,
        *,
        seed: int = 0,
        clock: VirtualClock | None = None,
        config: RaftConfig | None = None,
        network: Network | None = None,
        disk: MemoryDisk | None = None,
    ) -> None:
        self.me = me
        self.voters = voters
        self.config = config
        self.clock = clock or VirtualClock()
        self.network = network
        self.disk = disk or MemoryDisk(seed)
        if not self.disk.isdir(METADATA_DIR):
            self.disk.makedirs(METADATA_DIR)
            self.disk.sync_dir("/")
        self.rng = Random(seed)
        self.running = False

    def start(self) -> None:
        self.syncer = StepSyncer()
        self.timers = TimerQueue()
        self.listener = RecordingListener()
        self.driver = RaftDriver(
            self.disk,
            METADATA_DIR,
            self.syncer,
            self.clock,
            self.timers,
            self.rng,
            self.me,
            self.voters,
            self.listener,
            config=self.config,
            transport=self.network,
        )
        self.running = True
        self.driver.start(self.clock.now_ms)

    def settle(self) -> None:
        """All disk work that is queued, and what follows from it."""
        self.syncer.drain()

    def append(self, *records: bytes) -> int:
        return self.driver.append(records)

    def snapshot(self) -> bool:
        """Of everything applied, at the end of the last data batch."""
        listener = self.listener
        return self.driver.create_snapshot(listener.next_offset, listener.epoch, tuple(listener.records))

    def stop(self) -> None:
        self.driver.close()
        self.settle()
        self.running = False

    def kill(self) -> None:
        """The process ends; the page cache survives."""
        self.disk.kill()
        self._end()

    def crash(self) -> None:
        """Power loss."""
        self.disk.crash()
        self._end()

    def _end(self) -> None:
        self.syncer.forget()
        self.running = False


def single_node(
    seed: int = 0, *, config: RaftConfig | None = None, disk: MemoryDisk | None = None
) -> DriverNode:
    """A quorum of one, not started."""
    me = ReplicaKey(1, b"\x01" * 16)
    return DriverNode(me, VoterSet.of([Voter(me)]), seed=seed, config=config, disk=disk)


class Network:
    """A transport that keeps messages until `DriverCluster` delivers them."""

    def __init__(self) -> None:
        self.queue: deque[tuple[int, Message]] = deque()
        self.cut_off: set[int] = set()

    def send(self, to: ReplicaKey, message: Message) -> None:
        if to.id not in self.cut_off and message.sender.id not in self.cut_off:
            self.queue.append((to.id, message))


class DriverCluster:
    """Voters 1 to `voters`, then observers, with one clock."""

    def __init__(self, voters: int, observers: int = 0, *, config: RaftConfig | None = None) -> None:
        self.clock = VirtualClock()
        self.network = Network()
        keys = [ReplicaKey(i, bytes([i]) * 16) for i in range(1, voters + observers + 1)]
        first = VoterSet.of(Voter(key) for key in keys[:voters])
        self.nodes = {
            key.id: DriverNode(key, first, seed=key.id, clock=self.clock, config=config, network=self.network)
            for key in keys
        }

    def start(self) -> None:
        for node in self.nodes.values():
            node.start()

    def run(self, duration_ms: int, step_ms: int = 10) -> None:
        """Deliver messages, do disk work, let time pass."""
        end_ms = self.clock.now_ms + duration_ms
        while self.clock.now_ms < end_ms:
            self.clock.now_ms += step_ms
            for node in self.running():
                node.timers.advance(self.clock.now_ms)
            self._settle()

    def _settle(self) -> None:
        for _ in range(100):
            for node in self.running():
                node.settle()
            if not self.network.queue:
                return
            to, message = self.network.queue.popleft()
            if self.nodes[to].running:
                self.nodes[to].driver.receive(message)

    def running(self) -> list[DriverNode]:
        return [node for node in self.nodes.values() if node.running]

    def leader(self) -> DriverNode:
        (leader,) = (node for node in self.running() if node.driver.is_leader)
        return leader
