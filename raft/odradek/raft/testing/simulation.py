"""A cluster of replicas under one seed: virtual time, a bad network, disks that forget, crashes, voter
changes.

Everything random comes from one generator and every tie is broken by a counter, so a seed replays exactly.
This is the small simulation of the core alone; the one of the whole product drives the same core through
its driver.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from random import Random

from odradek.raft.config import RaftConfig
from odradek.raft.core import RaftCore
from odradek.raft.effects import AddVoter, Event, PeerUnreachable, Propose, RemoveVoter, Resign, Sync, Tick
from odradek.raft.log_index import SnapshotId
from odradek.raft.messages import Message
from odradek.raft.testing.invariants import Invariants, InvariantViolation
from odradek.raft.testing.replica import DurableState, MemoryReplica, Snapshot
from odradek.raft.voters import ReplicaKey, Voter, VoterSet

CONFIG = RaftConfig(
    election_timeout_ms=300,
    fetch_timeout_ms=300,
    fetch_timeout_jitter_ms=100,
    fetch_max_wait_ms=100,
    request_timeout_ms=200,
    fetch_max_bytes=300,
    snapshot_chunk_bytes=8,
)
"""Short timeouts, so that much is decided in little virtual time; the same proportions as the defaults."""


@dataclass(frozen=True, slots=True)
class Faults:
    """Chances per event, and durations in virtual milliseconds."""

    drop: float = 0.05
    duplicate: float = 0.05
    slow: float = 0.05
    refuse: float = 0.3
    """That the sender hears that nobody listens."""
    fault_interval_ms: int = 300
    propose_interval_ms: int = 40
    length_ms: int = 8000


class Node:
    """A running replica, and which of its disk operations have been scheduled already."""

    def __init__(self, replica: MemoryReplica) -> None:
        self.replica = replica
        self.persists_scheduled = 0
        self.sync_scheduled: Sync | None = None
        self.install_scheduled: SnapshotId | None = None
        self.tick_at_ms = -1


class Cluster:
    """Replicas 1 to `voters + observers`; run a phase with faults, then heal and require progress."""

    def __init__(
        self,
        seed: int,
        voters: int,
        observers: int = 0,
        faults: Faults | None = None,
        core_class: type[RaftCore] = RaftCore,
    ) -> None:
        self.rng = Random(seed)
        self.faults = faults or Faults()
        self.now_ms = 0
        self.steps = 0
        self.keys = [ReplicaKey(i, bytes([i]) * 16) for i in range(1, voters + observers + 1)]
        self.bootstrap = VoterSet.of(Voter(key) for key in self.keys[:voters])
        self.disks = {key: DurableState() for key in self.keys}
        self.nodes: dict[ReplicaKey, Node] = {}
        self.invariants = Invariants(self.disks)
        self.coverage: dict[str, int] = {}
        """How often each kind of notice and fault happened: a simulation that never elects proves nothing."""
        self._core_class = core_class
        self._config = replace(CONFIG, snapshots_retained=1 + seed % 2)
        self._blocked: set[tuple[int, int]] = set()
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = count()
        self._snapshots: dict[SnapshotId, Snapshot] = {}
        self._healthy = False
        for key in self.keys:
            self._restart(key)

    # ---- running

    def run(self) -> None:
        """Faults, then calm: every replica comes back, one leads, and all hold what it commits."""
        self._at(self.faults.fault_interval_ms, self._inject)
        self._at(self.faults.propose_interval_ms, self._propose)
        self.run_until(self.faults.length_ms)
        self._heal()
        self.run_until(self.now_ms + 5000)
        self._require_progress()

    def run_until(self, end_ms: int) -> None:
        while self._queue and self._queue[0][0] <= end_ms:
            self.now_ms, _, action = heapq.heappop(self._queue)
            action()
        self.now_ms = end_ms

    def leader(self) -> Node | None:
        leading = [node for node in self.nodes.values() if node.replica.core.is_leader]
        return max(leading, key=lambda node: node.replica.core.epoch, default=None)

    def trace(self) -> tuple[int, ...]:
        """A digest of where the cluster stands; equal for equal seeds."""
        cores = [node.replica.core for node in self.nodes.values()]
        ends = [node.replica.end_digest for node in self.nodes.values()]
        return (self.steps, *(core.epoch for core in cores), *(core.high_watermark for core in cores), *ends)

    def _at(self, delay_ms: int, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now_ms + delay_ms, next(self._sequence), action))

    def _heal(self) -> None:
        self._healthy = True
        self._blocked.clear()
        for key in self.keys:
            if key not in self.nodes:
                self._restart(key)

    def _require_progress(self) -> None:
        before = self.invariants.committed_end
        leader = self.leader()
        if leader is None:
            raise InvariantViolation("A1: no leader after the faults ended")
        self._step(leader, Propose(1, self.rng.getrandbits(60)))
        self.run_until(self.now_ms + 1000)
        for node in self.nodes.values():
            if node.replica.core.high_watermark <= before:
                raise InvariantViolation(f"A1: {node.replica.me} learns of no commit after the faults ended")

    # ---- one step

    def _step(self, node: Node, event: Event) -> None:
        self._act(node, lambda: node.replica.step(event, self.now_ms))

    def _act(self, node: Node, action: Callable[[], object]) -> None:
        """Let a replica do something unless it has died meanwhile; check; schedule what it asked for."""
        replica = node.replica
        if self.nodes.get(replica.me) is not node:
            return
        action()
        self.steps += 1
        self.invariants.after_step(replica)
        for notice in replica.notices:
            self._count(type(notice).__name__)
        if replica.truncations:
            self._count("truncated")
            replica.truncations = 0
        replica.notices.clear()
        for send in replica.outbox:
            self._send(replica.me, send.to, send.message)
        replica.outbox.clear()
        self._schedule_disk(node)
        self._schedule_tick(node)

    def _schedule_disk(self, node: Node) -> None:
        replica = node.replica
        while node.persists_scheduled < len(replica.pending_persists):
            node.persists_scheduled += 1
            self._at(self.rng.randrange(1, 30), lambda: self._act(node, lambda: self._complete_persist(node)))
        if (sync := replica.pending_sync) is not None and sync is not node.sync_scheduled:
            node.sync_scheduled = sync
            delay_ms = self.rng.randrange(1, 30) if self.rng.random() < 0.9 else self.rng.randrange(30, 300)
            self._at(delay_ms, lambda: self._act(node, lambda: replica.complete_sync(self.now_ms)))
        if (install := replica.pending_install) is not None and install is not node.install_scheduled:
            node.install_scheduled = install
            self._at(self.rng.randrange(1, 60), lambda: self._act(node, lambda: self._complete_install(node)))

    def _complete_persist(self, node: Node) -> None:
        node.persists_scheduled -= 1
        node.replica.complete_persist(self.now_ms)

    def _complete_install(self, node: Node) -> None:
        node.install_scheduled = None
        node.replica.complete_install(self.now_ms)
        self._count("installed")

    def _schedule_tick(self, node: Node) -> None:
        deadline_ms = node.replica.core.next_deadline_ms()
        if deadline_ms is None or deadline_ms == node.tick_at_ms:
            return
        node.tick_at_ms = deadline_ms
        self._at(max(deadline_ms - self.now_ms, 0), lambda: self._tick(node, deadline_ms))

    def _tick(self, node: Node, deadline_ms: int) -> None:
        if node.tick_at_ms == deadline_ms:
            node.tick_at_ms = -1
            self._step(node, Tick())

    # ---- network

    def _send(self, sender: ReplicaKey, to: ReplicaKey, message: Message) -> None:
        rng, faults = self.rng, self.faults
        if (sender.id, to.id) in self._blocked or (not self._healthy and rng.random() < faults.drop):
            return
        copies = 2 if not self._healthy and rng.random() < faults.duplicate else 1
        for _ in range(copies):
            slow = not self._healthy and rng.random() < faults.slow
            self._at(rng.randrange(1, 600 if slow else 20), lambda: self._receive(to.id, message))

    def _receive(self, node_id: int, message: Message) -> None:
        """Messages are addressed by id: which directory answers there is for the receiver to say."""
        node = self.nodes.get(self.keys[node_id - 1])
        if node is not None:
            self._step(node, message)
        elif self.rng.random() < self.faults.refuse:
            self._refuse(message.sender, node_id)

    def _refuse(self, sender: ReplicaKey, node_id: int) -> None:
        """The machine of a dead process answers for it, perhaps after the process has come back."""
        node = self.nodes.get(sender)
        if node is not None:
            self._count("refused")
            self._at(self.rng.randrange(1, 20), lambda: self._step(node, PeerUnreachable(node_id)))

    # ---- workload and faults

    def _propose(self) -> None:
        if self._healthy:
            return
        for node in list(self.nodes.values()):
            if node.replica.core.is_leader and self.rng.random() < 0.8:
                self._step(node, Propose(self.rng.randrange(1, 4), self.rng.getrandbits(60)))
        self._at(self.rng.randrange(1, 2 * self.faults.propose_interval_ms), self._propose)

    def _inject(self) -> None:
        if self._healthy:
            return
        actions = (
            self._crash_one,
            self._crash_one,
            self._crash_while_writing,
            self._partition,
            self._partition,
            self._heal_partition,
            self._snapshot,
            self._snapshot,
            self._change_voters,
            self._resign_leader,
            self._crash_leader,
            self._crash_all,
        )
        weights = (3, 3, 6, 3, 3, 4, 8, 8, 4, 1, 3, 1)
        (action,) = self.rng.choices(actions, weights)
        action()
        self._at(self.rng.randrange(1, 2 * self.faults.fault_interval_ms), self._inject)

    def _running(self) -> list[Node]:
        return list(self.nodes.values())

    def _crash(self, node: Node) -> None:
        key = node.replica.me
        self._count("crash")
        keep = self.rng.randrange(4) if self.rng.random() < 0.3 else 0
        node.replica.crash(keep)
        del self.nodes[key]
        self._at(self.rng.randrange(1, 800), lambda: self._restart(key))

    def _restart(self, key: ReplicaKey) -> None:
        if key in self.nodes:
            return
        replica = MemoryReplica(
            key,
            self.bootstrap,
            self._config,
            self.disks[key],
            self.rng,
            self._find_snapshot,
            self._core_class,
        )
        node = self.nodes[key] = Node(replica)
        self.invariants.on_restart(replica)
        self._act(node, lambda: replica.start(self.now_ms))

    def _crash_one(self) -> None:
        if running := self._running():
            self._crash(self.rng.choice(running))

    def _crash_while_writing(self) -> None:
        """The moment that matters: something has been handed to the disk and is not durable."""
        for node in self._running():
            if node.replica.pending_persists or node.replica.pending_sync is not None:
                self._count("crash-while-writing")
                self._crash(node)
                return

    def _crash_leader(self) -> None:
        if (leader := self.leader()) is not None:
            self._crash(leader)

    def _crash_all(self) -> None:
        for node in self._running():
            self._crash(node)

    def _partition(self) -> None:
        """Cut a random group off, now and then in one direction only."""
        group = [key for key in self.keys if self.rng.random() < 0.5]
        rest = [key for key in self.keys if key not in group]
        both = self.rng.random() < 0.7
        self._blocked = {(a.id, b.id) for a in group for b in rest}
        if both:
            self._blocked |= {(b, a) for a, b in self._blocked}
        self._count("partition")

    def _heal_partition(self) -> None:
        self._blocked.clear()

    def _snapshot(self) -> None:
        if running := self._running():
            node = self.rng.choice(running)
            self._act(node, lambda: self._create_snapshot(node.replica))

    def _create_snapshot(self, replica: MemoryReplica) -> None:
        snapshot_id = replica.create_snapshot(self.now_ms)
        if snapshot_id is not None:
            made = replica.disk.snapshots[snapshot_id]
            known = self._snapshots.setdefault(snapshot_id, made)
            if known != made:
                raise InvariantViolation(f"R2: two different snapshots {snapshot_id}: {known} and {made}")
            self._count("snapshot")

    def _find_snapshot(self, snapshot_id: SnapshotId) -> Snapshot:
        return self._snapshots[snapshot_id]

    def _change_voters(self) -> None:
        leader = self.leader()
        if leader is None:
            return
        key, voters = self.rng.choice(self.keys), leader.replica.core.voters.current
        self._step(leader, RemoveVoter(key) if voters.contains(key) else AddVoter(Voter(key)))

    def _resign_leader(self) -> None:
        if (leader := self.leader()) is not None:
            self._step(leader, Resign())

    def _count(self, what: str) -> None:
        self.coverage[what] = self.coverage.get(what, 0) + 1
