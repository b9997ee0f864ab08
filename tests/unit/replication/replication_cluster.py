"""Three replicas of one partition under one seed: real drivers and logs on disks in memory, a bad network, crashes,
power losses, pauses, a controller that fences and elects, producers and readers. P1 to P7 are checked after every step.

Everything random comes from one generator and ties are broken by a counter, so a seed replays exactly.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from random import Random

from odradek.ports.timers import TimerQueue
from odradek.replication.config import ReplicationConfig
from odradek.replication.driver import ReplicationDriver
from odradek.replication.replica import Replica, Role
from odradek.storage.config import LogConfig
from odradek.storage.log import Log
from odradek.storage.memory_disk import MemoryDisk, StepSyncer
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.alter_partition import AlterPartitionRequest, AlterPartitionResponse
from odradek.wire.records import iter_batches, read_records, simple_batch
from unit.replication.replication_controller import TOPIC_ID, FakeController
from unit.replication.replication_network import Network

WALL_MS = 1_700_000_000_000
CONFIG = ReplicationConfig(
    replica_lag_time_max_ms=120,
    partition_window_bytes=500,
    stream_window_bytes=1500,
    high_watermark_linger_ms=2,
    fetch_backoff_ms=10,
    reconnect_backoff_ms=5,
    alter_backoff_ms=10,
    backoff_max_ms=80,
)
SESSION_MS = 250
ALTER_TIMEOUT_MS = 130


class Violation(AssertionError):  # noqa: N818 - of an invariant
    """A promise was broken; the text names it and where."""


@dataclass(frozen=True)
class Faults:
    """How often what goes wrong; times in virtual ms."""

    weights: dict[str, int]
    every_ms: int = 60
    length_ms: int = 2000
    produce_ms: int = 9
    alter_slow: float = 0.1
    """Chance that a question to the controller takes long, past its timeout even."""
    alter_lost: float = 0.1


MIXED = {
    "kill": 4, "power": 3, "pause": 2, "break": 6, "block": 3, "fence": 3, "elect": 3, "shut_down": 1, "trim": 2,
    "cut_off": 3,
}  # fmt: skip
PROFILES = (
    Faults(MIXED),
    Faults({"elect": 12, "break": 2, "block": 1, "kill": 1}, every_ms=20, produce_ms=3, length_ms=1200),
    Faults({"block": 8, "break": 1, "fence": 2}, every_ms=45, alter_slow=0.6),
    Faults({"power": 6, "kill": 2, "fence": 2, "break": 1}, every_ms=90, produce_ms=60, alter_slow=0.3),
)
"""Of one seed each: everything; leaders change all the time; the ISR does; machines fail while little is written."""


class Clock:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def monotonic_ms(self) -> int:
        return self._cluster.now_ms

    def monotonic_ns(self) -> int:
        return self._cluster.now_ms * 1_000_000

    def wall_ms(self) -> int:
        return WALL_MS + self._cluster.now_ms


class Link:
    """A node's way to the controller: slow at times, deaf at times. What timed out may still arrive."""

    def __init__(self, cluster: Cluster, node: Node) -> None:
        self._cluster = cluster
        self._node = node

    def alter_partition(
        self, request: AlterPartitionRequest, version: int, done: Callable[[AlterPartitionResponse | None], None]
    ) -> None:  # fmt: skip
        cluster, node = self._cluster, self._node
        life, waits = node.life, [True]

        def answer(response: AlterPartitionResponse | None) -> None:
            if waits and node.life == life:
                waits.clear()
                cluster.on_node(node, lambda: done(response))

        def arrive() -> None:
            response = cluster.controller.alter_partition(request)
            cluster.at(cluster.delay(), lambda: answer(response))

        fate, faults = cluster.rng.random(), cluster.faults
        if cluster.healthy:
            cluster.at(cluster.delay(), arrive)
        elif fate < faults.alter_slow:
            cluster.count("alter-slow")
            cluster.at(cluster.rng.randint(ALTER_TIMEOUT_MS // 2, 4 * ALTER_TIMEOUT_MS), arrive)
        elif fate > faults.alter_slow + faults.alter_lost and node.id not in cluster.cut_off:
            cluster.at(cluster.delay(), arrive)
        cluster.at(ALTER_TIMEOUT_MS, lambda: answer(None))


class Node:
    """One broker with its disk. It is `replication.replica.ReplicaEvents` of its replica."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.cluster = cluster
        self.id = number
        self.disk = MemoryDisk(cluster.rng.randrange(1 << 30))
        self.syncer = StepSyncer()
        self.life = 0
        self.alive = False
        self.paused = False
        self.backlog: list[Callable[[], None]] = []
        self.registered_epoch = -1
        self.applied = -1
        self.clean = True
        self.checkpoint = 0
        self.driver: ReplicationDriver
        self.replica: Replica
        self.log: Log
        self.timers = TimerQueue()
        self.ticks: set[tuple[int, int]] = set()
        self.steps_due = 0
        self.view: dict[int, bytes] = {}
        self.viewed = 0
        self.checked = 0
        self.waiters: list[tuple[int, int, dict[int, bytes]]] = []
        self.last_high_watermark: tuple[int, int] = (-1, -1)

    def start(self) -> None:
        """The process starts: the log is recovered, nothing is led or followed before it is registered."""
        cluster = self.cluster
        self.life += 1
        self.alive, self.paused = True, False
        self.registered_epoch = self.applied = -1
        self.syncer = StepSyncer()
        self.timers = TimerQueue()
        self.view.clear()
        self.viewed = self.checked = 0
        self.waiters = []
        self.backlog = []
        self.steps_due = 0
        self.last_high_watermark = (-1, -1)
        self.disk.makedirs("/d/t-0")
        self.disk.sync_dir("/")
        self.disk.sync_dir("/d")
        self.log = Log.open(self.disk, "/d/t-0", cluster.log_config, topic="t", partition=0, wall_ms=WALL_MS)
        self.log.on_truncated = self.on_truncated
        self.driver = cluster.driver_class(
            self.id,
            CONFIG,
            transport=cluster.network.transport(self.id),
            controller=Link(cluster, self),
            syncer=self.syncer,
            clock=Clock(cluster),
            timers=self.timers,
            rng=Random(cluster.rng.randrange(1 << 30)),
        )
        self.replica = self.driver.add(
            "t",
            TOPIC_ID,
            0,
            self.log,
            self,
            high_watermark=self.checkpoint,
            min_isr=cluster.controller.min_isr,
        )
        cluster.network.acceptors[self.id] = self.driver.accept

    def die(self, *, power: bool) -> None:
        self.alive = False
        self.life += 1
        self.syncer.forget()
        self.cluster.network.node_died(self.id)
        if power:
            self.disk.crash()
            self.clean = False
        else:
            self.disk.kill()

    # ReplicaEvents
    def leading(self, replica: Replica) -> None:
        self.cluster.count("leading")

    def high_watermark_moved(self, replica: Replica) -> None:
        self.cluster.consume(self)
        self._acknowledge()

    def isr_changed(self, replica: Replica) -> None:
        self.cluster.count("isr-changed")
        self._acknowledge()

    def failed(self, replica: Replica, error: OSError) -> None:
        raise Violation(f"node {self.id} failed: {error}")

    # Producing
    def produce(self, ids: list[bytes]) -> bool:
        leader = self.replica.leader
        if leader is None or leader.refusal() is not ErrorCode.NONE:
            return False
        batch = memoryview(simple_batch([(None, each) for each in ids], base_offset=0, timestamp=WALL_MS))
        result = self.log.append_as_leader(batch, leader.leader_epoch, WALL_MS)
        self.log.write_staged()
        offsets = dict(zip(range(result.base_offset, result.last_offset + 1), ids, strict=True))
        self.waiters.append((leader.leader_epoch, result.last_offset + 1, offsets))
        self.driver.appended(self.replica)
        if self.replica.sync_before_ack:
            end = self.log.written_end_offset
            self.log.sync(self.syncer, lambda error: self.driver.synced(self.replica, end))
        self._acknowledge()
        self.driver.flush()
        return True

    def _acknowledge(self) -> None:
        leader = self.replica.leader
        if leader is None:
            self.waiters.clear()
            return
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            epoch, end, offsets = waiter
            if epoch != leader.leader_epoch:
                continue
            answer = leader.acknowledgement(end)
            if answer is None:
                self.waiters.append(waiter)
            elif answer is ErrorCode.NONE:
                self.cluster.acknowledged(self, offsets)

    # What is in the log
    def on_truncated(self, _log: object) -> None:
        """Called before the cut: everything is looked at again after it."""
        self.cluster.count("truncated")
        self.view.clear()
        self.viewed = self.checked = 0

    def refresh(self) -> None:
        """Read what came since the last look."""
        log = self.log
        if self.viewed < log.log_start_offset:
            self.viewed = max(self.viewed, log.log_start_offset)
        while self.viewed < log.written_end_offset:
            result = log.read(self.viewed, 1 << 20, end_offset=log.written_end_offset)
            view = memoryview(result.data)
            for position, header in iter_batches(view):
                for record in read_records(view[position : position + header.size], limit=1 << 20):
                    self.view[record.offset] = record.value or b""
            self.viewed = result.next_offset


class Cluster:
    def __init__(
        self,
        seed: int,
        faults: Faults | None = None,
        driver_class: type[ReplicationDriver] = ReplicationDriver,
        nodes: int = 3,
    ) -> None:
        self.rng = Random(seed)
        self.faults = faults or PROFILES[seed % len(PROFILES)]
        self.driver_class = driver_class
        self.now_ms = 0
        self.steps = 0
        self.coverage: dict[str, int] = {}
        self.committed: dict[int, bytes] = {}
        """What was below a high watermark once, by offset. Nothing of it may ever change (P7)."""
        self.acked: dict[int, bytes] = {}
        self.true_high_watermark = 0
        self.cut_off: set[int] = set()
        self.healthy = False
        self.producing = True
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = count()
        self._ids = count()
        synced = seed // 4 % 4 == 3
        self.log_config = LogConfig(segment_bytes=1200, flush_messages=1 if synced else (1 << 63) - 1)
        self.controller = FakeController(tuple(range(1, nodes + 1)), 1 if seed % 7 == 6 else 2)
        self.network = Network(self.rng, self.at, lambda: self.now_ms)
        self.network.to_node = lambda number, call: self.on_node(self.nodes[number], call)
        self.network.life_of = lambda number: self.nodes[number].life
        self.nodes = {number: Node(self, number) for number in range(1, nodes + 1)}
        for node in self.nodes.values():
            node.start()
            node.registered_epoch = 0
            self.advance(node)

    # Running -----------------------------------------------------------------------------------------------------

    def at(self, delay_ms: int, call: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now_ms + delay_ms, next(self._sequence), call))

    def on_node(self, node: Node, call: Callable[[], None]) -> None:
        """Run something on a node: later if it is paused, never if it is dead."""
        if not node.alive:
            return
        if node.paused:
            node.backlog.append(call)
            return
        call()
        self.settle(node)

    def settle(self, node: Node) -> None:
        """After an event on a node: its timers and fsyncs are scheduled."""
        if not node.alive or node.paused:
            return
        node.timers.advance(self.now_ms)
        deadline = node.timers.next_deadline_ms()
        life = node.life
        if deadline is not None and (life, deadline) not in node.ticks:
            node.ticks.add((life, deadline))
            self.at(max(deadline - self.now_ms, 0), lambda: self._tick(node, life, deadline))
        while node.steps_due < len(node.syncer):
            node.steps_due += 1
            self.at(self.rng.randint(0, 6), lambda: self._step(node, life))

    def _tick(self, node: Node, life: int, deadline: int) -> None:
        node.ticks.discard((life, deadline))
        if node.life == life:
            self.on_node(node, lambda: None)

    def _step(self, node: Node, life: int) -> None:
        if node.life == life:
            node.steps_due -= 1
            self.on_node(node, lambda: node.syncer.step() and None)

    def delay(self) -> int:
        return self.rng.randint(0, 6) if self.rng.random() < 0.9 else self.rng.randint(0, 60)

    def count(self, what: str) -> None:
        self.coverage[what] = self.coverage.get(what, 0) + 1

    def run(self) -> None:
        """Faults, then calm: everybody comes back, and one leads with all in its ISR."""
        self.at(self.faults.every_ms, self._inject)
        self.at(self.faults.produce_ms, self._produce)
        for node in self.nodes.values():
            self.at(1, lambda node=node: self._heartbeat(node))
        self.run_until(self.faults.length_ms)
        self.heal()
        self.run_until(self.now_ms + 1200)
        self.require_progress()

    def run_until(self, end_ms: int) -> None:
        while self._queue and self._queue[0][0] <= end_ms:
            self.now_ms, _, call = heapq.heappop(self._queue)
            call()
            self.steps += 1
            self.check()
        self.now_ms = end_ms

    # Metadata ----------------------------------------------------------------------------------------------------

    def advance(self, node: Node) -> None:
        """A node reads one more entry of the metadata log; nothing from before its registration."""
        following = max(node.applied + 1, node.registered_epoch)
        if node.registered_epoch < 0 or following >= len(self.controller.log):
            return
        node.applied = following
        entry = self.controller.log[following]
        node.driver.registered(entry.peers[node.id].epoch, entry.peers)
        node.driver.apply(node.replica, entry.state)
        node.driver.peers_changed()
        node._acknowledge()
        node.driver.flush()

    def _heartbeat(self, node: Node) -> None:
        """Registration, metadata and liveness of one node; again and again."""
        self.at(self.rng.randint(1, 12) if not self.healthy else 3, lambda: self._heartbeat(node))
        if not node.alive or node.paused or node.id in self.cut_off:
            return
        broker = self.controller.brokers[node.id]
        if node.registered_epoch < 0:
            node.registered_epoch = self.controller.register(node.id, clean=node.clean)
            node.clean = True
            return
        self.on_node(node, lambda: self.advance(node))
        if (
            broker.fenced
            and node.applied >= node.registered_epoch == broker.epoch
            and (self.healthy or self.rng.random() < 0.5)
        ):
            self.controller.unfence(node.id)

    def session_over(self, node: Node, life: int) -> None:
        silent = not node.alive or node.paused or node.id in self.cut_off
        if silent and node.life == life:
            self.controller.fence(node.id)

    # Load --------------------------------------------------------------------------------------------------------

    def _produce(self) -> None:
        if not self.producing:
            return
        self.at(self.rng.randint(1, 2 * self.faults.produce_ms), self._produce)
        for node in self.nodes.values():
            if node.alive and not node.paused and node.replica.role is Role.LEADER:
                ids = [b"%d" % next(self._ids) for _ in range(self.rng.choice((1, 1, 1, 2, 5)))]
                self.on_node(node, lambda node=node, ids=ids: node.produce(ids) and None)

    def acknowledged(self, node: Node, offsets: dict[int, bytes]) -> None:
        self.count("acked")
        for offset, value in offsets.items():
            if self.committed.get(offset) != value:
                raise Violation(
                    f"P3: {value!r} acknowledged at {offset}, where {self.committed.get(offset)!r} is"
                )
        self.acked.update(offsets)

    def consume(self, node: Node) -> None:
        """Readers see everything below a high watermark, a leader's or a follower's."""
        node.refresh()
        replica = node.replica
        end = replica.high_watermark
        for offset in range(max(node.checked, node.log.log_start_offset), end):
            value = node.view.get(offset)
            if value is None:
                raise Violation(f"P4: node {node.id} has nothing at {offset} below its high watermark {end}")
            if self.committed.setdefault(offset, value) != value:
                raise Violation(
                    f"P7: {value!r} read at {offset} of {node.id}, once {self.committed[offset]!r}"
                )
        node.checked = max(node.checked, end)
        if replica.leader is not None and end > self.true_high_watermark:
            self.true_high_watermark = end

    # Faults ------------------------------------------------------------------------------------------------------

    def _inject(self) -> None:
        if self.healthy:
            return
        self.at(self.rng.randint(1, 2 * self.faults.every_ms), self._inject)
        names = list(self.faults.weights)
        what = self.rng.choices(names, [self.faults.weights[name] for name in names])[0]
        node = self.nodes[self.rng.choice(list(self.nodes))]
        if what in ("kill", "power") and node.alive:
            self.crash(node, power=what == "power")
        elif what == "pause" and node.alive and not node.paused:
            self.count("pause")
            node.paused = True
            life = node.life
            self.at(SESSION_MS, lambda: self.session_over(node, life))
            self.at(self.rng.randint(20, 2 * SESSION_MS), lambda: self.resume(node, life))
        elif what == "break" and self.network.pipes:
            self.count("break")
            self.rng.choice(self.network.pipes).break_now(follower_first=self.rng.random() < 0.5)
        elif what == "block":
            one, other = self.rng.sample(list(self.nodes), 2)
            self.network.block(one, other)
            self.at(self.rng.randint(5, 400), lambda: self.network.blocked.discard(frozenset((one, other))))
        elif what == "cut_off":
            self.cut_off.add(node.id)
            life = node.life
            self.at(self.rng.randint(1, SESSION_MS), lambda: self.session_over(node, life))
            self.at(self.rng.randint(20, 2 * SESSION_MS), lambda: self.cut_off.discard(node.id))
        elif what == "fence":
            self.controller.fence(node.id)
        elif what == "elect":
            self.controller.elect(node.id)
        elif what == "shut_down" and node.alive and not node.paused and node.registered_epoch >= 0:
            self.count("shut-down")
            self.controller.shut_down(node.id)
            life = node.life
            self.at(self.rng.randint(1, 40), lambda: self._stop(node, life))
        elif what == "trim":
            self._trim(node)

    def crash(self, node: Node, *, power: bool) -> None:
        """A process dies, or its machine; power only as far as D2 promises something."""
        if power:
            image = self.controller.partition
            lost = {each.id for each in self.nodes.values() if not each.clean}
            power = len(lost) < self.controller.min_isr - 1 and bool(
                {*image.isr, *image.elr} - lost - {node.id}
            )
        self.count("power" if power else "kill")
        node.checkpoint = node.replica.high_watermark if self.rng.random() < 0.3 else node.checkpoint
        node.die(power=power)
        life = node.life
        if self.rng.random() < 0.5:
            self.at(self.rng.randint(1, SESSION_MS), lambda: self.session_over(node, life))
        self.at(self.rng.randint(1, 2 * SESSION_MS), lambda: self._restart(node, life))

    def _stop(self, node: Node, life: int) -> None:
        if node.life == life and node.alive:
            self.crash(node, power=False)

    def _restart(self, node: Node, life: int) -> None:
        if node.life == life and not node.alive:
            node.start()

    def resume(self, node: Node, life: int) -> None:
        if node.life != life or not node.paused:
            return
        node.paused = False
        backlog, node.backlog = node.backlog, []
        for call in backlog:
            self.on_node(node, call)
        self.on_node(node, lambda: None)

    def _trim(self, node: Node) -> None:
        """DeleteRecords on whoever takes itself for the leader."""
        replica = node.replica
        if node.alive and not node.paused and replica.role is Role.LEADER:
            start = node.log.log_start_offset
            if replica.high_watermark > start:
                self.count("trim")
                node.log.advance_log_start(self.rng.randint(start, replica.high_watermark))
                node.log.delete_old_segments(WALL_MS, replica.high_watermark)
                node.driver.log_start_moved(replica)
                node.driver.flush()

    def heal(self) -> None:
        self.healthy = True
        self.network.blocked.clear()
        self.cut_off.clear()
        self.network.slow = 0.0
        for node in self.nodes.values():
            if node.paused:
                self.resume(node, node.life)
            if not node.alive:
                node.start()
        for broker in self.controller.brokers.values():
            broker.shutting_down = False

    # Checks ------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """P1 to P7 over the state of the whole cluster."""
        image = self.controller.partition
        truth = self.true_high_watermark
        members = {*image.isr, *image.elr}
        for node in self.nodes.values():
            if not node.alive or node.registered_epoch != self.controller.brokers[node.id].epoch:
                continue
            leader = node.replica.leader
            leads = leader is not None and leader.leader_epoch == image.leader_epoch
            if node.id in members or leads:
                self._check_has_all(node, truth, "P3" if leads else "P2")
            if leader is not None and leads:
                self._check_leader(node, members)
            if node.replica.high_watermark > node.log.log_end_offset:
                raise Violation(f"P4: high watermark of {node.id} above its log end")

    def _check_has_all(self, node: Node, truth: int, promise: str) -> None:
        log = node.log
        if log.log_end_offset < truth:
            raise Violation(f"{promise}: node {node.id} ends at {log.log_end_offset}, committed is {truth}")
        if node.checked < truth:
            node.refresh()
            for offset in range(max(node.checked, log.log_start_offset), truth):
                if node.view.get(offset) != self.committed.get(offset):
                    raise Violation(f"{promise}: node {node.id} differs at {offset}, committed up to {truth}")
            node.checked = truth

    def _check_leader(self, node: Node, members: set[int]) -> None:
        leader = node.replica.leader
        assert leader is not None
        enough = len(leader.isr.committed) >= leader.effective_min_isr
        if enough and not members <= leader.isr.maximal:
            raise Violation(f"P1: {sorted(members)} not in the maximal ISR {sorted(leader.isr.maximal)}")
        known = (leader.leader_epoch, leader.high_watermark)
        before, node.last_high_watermark = node.last_high_watermark, known
        if before[0] != known[0] or before[1] == known[1]:
            return
        if known[1] < before[1]:
            raise Violation(f"P6: the high watermark fell from {before[1]} to {known[1]}")
        for member in leader.isr.maximal - {node.id}:
            other = self.nodes[member]
            same = other.registered_epoch == leader.followers[member].broker_epoch
            if other.alive and same and other.log.log_end_offset < known[1]:
                raise Violation(f"P5: high watermark {known[1]} above the end of {member}")

    def trace(self) -> tuple[object, ...]:
        """A digest of where the cluster stands and how it came there; equal for equal seeds."""
        logs = [(node.replica.high_watermark, node.log.epochs.entries) for node in self.nodes.values()]
        return (self.steps, self.network.ups, self.network.downs, sorted(self.coverage.items()), logs)

    def require_progress(self) -> None:
        """After the calm: all in the ISR, all logs the same and committed to the end, and nobody says anything more."""
        self.producing = False
        self.run_until(self.now_ms + 100)
        said = self.network.ups + self.network.downs
        self.run_until(self.now_ms + 1000)
        if self.network.ups + self.network.downs != said:
            raise Violation(
                f"not quiet: {self.network.ups + self.network.downs - said} messages about nothing"
            )
        image = self.controller.partition
        if image.leader < 0 or len(image.isr) != len(self.nodes):
            raise Violation(f"no recovery: leader {image.leader}, ISR {image.isr}, ELR {image.elr}")
        for node in self.nodes.values():
            node.refresh()
            ends = (node.replica.high_watermark, node.log.log_end_offset)
            if ends != (self.true_high_watermark, self.true_high_watermark):
                raise Violation(f"no progress: {node.id} at {ends}, committed is {self.true_high_watermark}")
        if not self.acked:
            raise Violation("nothing was acknowledged")
