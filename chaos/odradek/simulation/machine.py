"""A machine with its disk and clocks, and the process on it: a real Node, whose every event comes from the scheduler.

An event belongs to a life of the process. When that life is over (kill -9, power loss, a fatal error) what is left of
it never happens; while the process is stopped (SIGSTOP) its events pile up, and come in their order when it goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from odradek.broker.config import StartupError
from odradek.broker.config_builder import build_config, settings_of, zero_config
from odradek.broker.controller_process import ControllerProcess
from odradek.broker.metrics import BrokerMetrics
from odradek.broker.node import Node, Ports
from odradek.ports.timers import TimerQueue
from odradek.raft.metadata_log import CorruptMetadata
from odradek.simulation import disk_faults
from odradek.simulation.compaction import LeftInTheMiddle, SimWorkers, left_in_the_middle
from odradek.simulation.determinism import put_in_order
from odradek.simulation.disk import DiskSpeed, SimSyncer
from odradek.simulation.kafka_port import KafkaPort
from odradek.simulation.peers import Peers
from odradek.simulation.scheduler import MS, MachineClock
from odradek.simulation.trace import InvariantViolation
from odradek.storage.data_dir import DataDirError
from odradek.storage.manager import LogManager
from odradek.storage.memory_disk import MemoryDisk
from odradek.wire.errors import KafkaError

if TYPE_CHECKING:
    from odradek.simulation.cluster import Cluster

DATA = "/data"
DIRECTORIES = (DATA, "/second")
LISTENER = "PLAINTEXT"


class Process:
    """One life of a node."""

    def __init__(self, machine: Machine, rng: Random) -> None:
        self.machine = machine
        self.rng = rng
        self.alive = True
        self.paused = False
        self.stopping = False
        self._piled_up: deque[tuple[str, Callable[[], None]]] = deque()
        self._armed_us = -1
        self.timers = TimerQueue()
        self.syncer = SimSyncer(self.later, rng, machine.speed)
        self.metadata_syncer = SimSyncer(self.later, rng, machine.speed)
        self.fatal: str | None = None
        self.replicates = True
        """Whether it is a broker."""
        self.node: Node = None  # type: ignore[assignment]  # set by `boot`, before anything can happen

    def boot(self) -> None:
        """Recover and start. StartupError, DataDirError, CorruptMetadata, OSError, KafkaError: it does not."""
        machine, cluster = self.machine, self.machine.cluster
        config = build_config(
            zero_config(data=DATA),
            settings_of(machine.settings, "scenario"),
            cluster_id=cluster.cluster_id,
        )
        logs = LogManager(machine.disk, self.syncer, list(config.log_dirs), rng=self.rng)
        boot_id = f"boot-{machine.boots}"
        logs.start(node_id=config.node_id, cluster_id=config.cluster_id, boot_id=boot_id, needed=DATA)
        logs.open_all(machine.clock.wall_ms())
        peers = None if config.alone else Peers(self)
        ports = Ports(
            machine.disk,
            self.syncer,
            self.metadata_syncer,
            machine.clock,
            self.timers,
            self.rng,
            NodeLog(self),
            lambda _directory: (1 << 40, 1 << 39),
            peers.ports if peers is not None else None,
            (lambda: SimWorkers(self)) if cluster.scenario.compaction else None,
        )
        self.replicates = "broker" in config.roles
        kind: Any = Node if self.replicates else ControllerProcess
        self.node = kind(config, ports, logs, BrokerMetrics(), DATA)
        self.node.on_fatal = self._on_fatal
        self.node.on_ready = self._on_ready
        put_in_order(self)
        cluster.invariants.attach(self)
        if peers is not None:
            peers.serve()
        self.node.start({listener.name: listener.port for listener in config.listeners})
        self.node.settle()
        self.timers.on_earlier = lambda _deadline: self._arm()
        self._arm()

    # -- events --------------------------------------------------------------------------------------------------

    def later(self, delay_us: int, name: str, action: Callable[[], None]) -> None:
        """An event of this life, after a while."""
        self.machine.cluster.scheduler.after(delay_us, lambda: self.happen(name, action))

    def happen(self, name: str, action: Callable[[], None]) -> None:
        """An event of this life, now, if it still lives."""
        if not self.alive:
            return
        if self.paused:
            self._piled_up.append((name, action))
            return
        cluster = self.machine.cluster
        cluster.trace.note(self.machine.host, name)
        try:
            action()
            if self.alive:
                self.node.settle()
        except InvariantViolation:
            raise
        except disk_faults.Ends as end:
            cluster.invariants.after_step(self, failed=True)
            self.machine.ends(str(end))
            return
        except Exception as error:
            raise InvariantViolation(f"crash: {self.machine.host} failed in '{name}': {error!r}") from error
        if not self.alive:
            return  # it has stopped
        # What it did before it failed in the same event, it did.
        cluster.invariants.after_step(self, failed=self.fatal is not None)
        if self.fatal is not None:
            self.machine.stopped_itself(self.fatal)
            return
        self._arm()

    def _arm(self) -> None:
        """One event of the scheduler for the earliest timer."""
        deadline = self.timers.next_deadline_ms()
        if deadline is None:
            return
        at_us = self.machine.clock.when_us(deadline)
        if 0 <= self._armed_us <= at_us:
            return
        self._armed_us = at_us
        self.machine.cluster.scheduler.at(at_us, lambda: self._timer(at_us))

    def _timer(self, at_us: int) -> None:
        if self._armed_us == at_us and self.alive:
            self._armed_us = -1
            self.happen("timer", lambda: self._advance_timers())

    def _advance_timers(self) -> None:
        self.timers.advance(self.machine.clock.monotonic_ms())

    def pause(self) -> None:
        self.paused = True
        self.machine.cluster.network.went_silent(self.machine.host, lambda: self.alive and self.paused)

    def resume(self) -> None:
        """Everything that piled up happens now, in its order."""
        self.paused = False
        while self._piled_up and self.alive and not self.paused:
            name, action = self._piled_up.popleft()
            self.happen(name, action)
        if self.alive:
            self.happen("resumed", lambda: None)

    # -- what the node tells -------------------------------------------------------------------------------------

    def _on_ready(self) -> None:
        """As server.py does: Kafka clients are accepted from now on."""
        if not self.replicates:
            return
        self.machine.cluster.trace.note(self.machine.host, "ready", self.node.broker_epoch)
        self.machine.cluster.network.listen(self.machine.host, "kafka", self._accept)

    def _accept(self, stream: Any) -> KafkaPort | None:
        return KafkaPort(self, stream, LISTENER) if self.alive and not self.stopping else None

    def _on_fatal(self, reason: str) -> None:
        self.fatal = reason


class Machine:
    """`process` is None while nothing runs on it."""

    def __init__(self, cluster: Cluster, node_id: int, settings: dict[str, str], rng: Random) -> None:
        self.cluster = cluster
        self.id = node_id
        self.host = f"n{node_id}"
        self.settings = settings
        self.rng = rng
        self.speed = DiskSpeed()
        self.disk = MemoryDisk(rng.getrandbits(32))
        drift = rng.choice((1_000, 1_000, 990, 1_010))
        self.clock = MachineClock(cluster.scheduler, offset_ms=rng.randrange(1_000, 100_000), rate=drift)
        self.process: Process | None = None
        self.powered = True
        self.boots = 1
        self.lives = 0
        self.stops = 0
        """Clean ones."""
        self.disk_faults = 0
        """Injected into this life: the process may stop itself, or not start."""
        self.disk.makedirs(DATA)
        self.disk.sync_dir("/")

    @property
    def node(self) -> Node | None:
        return self.process.node if self.process is not None else None

    @property
    def running(self) -> bool:
        return self.process is not None and not self.process.paused

    def start(self) -> None:
        """Start the process, unless there is one."""
        if self.process is not None or self.cluster.ending:
            return
        cluster = self.cluster
        if not self.powered:
            self.powered = True
            self.boots += 1
            self.clock.reboot(self.rng.randrange(500, 60_000))
            cluster.network.power_back(self.host)
        self.lives += 1
        self.disk_faults = 0
        cluster.trace.note(self.host, "starts", self.lives)
        process = Process(self, Random(self.rng.getrandbits(64)))
        self.process = process
        before = self._left_in_the_middle()
        try:
            process.boot()
        except disk_faults.Ends as end:
            self.ends(str(end))
            return
        except (StartupError, DataDirError, CorruptMetadata, OSError, KafkaError) as error:
            self._did_not_start(process, error)
            return
        if process.fatal is not None:
            self.stopped_itself(process.fatal)
            return
        self._check_finished(process, before)
        cluster.invariants.after_start(process)

    def _left_in_the_middle(self) -> LeftInTheMiddle:
        """What the last process has left of compactions."""
        directories = DIRECTORIES if self.cluster.scenario.compaction else ()
        return left_in_the_middle(self.disk, directories)

    def _check_finished(self, process: Process, before: LeftInTheMiddle) -> None:
        """What was begun is undone or completed by the start."""
        for what in before.after_start(self.disk):
            self.cluster.trace.count(f"compaction: {what}")
        left = self._left_in_the_middle()
        if left and not any(data_dir.offline for data_dir in process.node.logs.dirs):
            raise InvariantViolation(f"C7: {self.host} has started and left {left}")

    def _did_not_start(self, process: Process, error: Exception) -> None:
        self.cluster.trace.note(self.host, "does not start", str(error))
        if not self.cluster.expects_refusal(self, error):
            raise InvariantViolation(f"crash: {self.host} does not start: {error!r}") from error
        self._end(process)

    def stopped_itself(self, reason: str) -> None:
        """The node called for its own end, which only a failing disk excuses."""
        assert self.process is not None
        self.cluster.trace.note(self.host, "stopped itself", reason)
        self.cluster.trace.count("node stopped itself")
        if not self.disk_faults:
            raise InvariantViolation(f"crash: {self.host} stopped itself: {reason}")
        self.kill()
        self.cluster.scheduler.after(self.rng.randrange(200, 3_000) * MS, self.start)

    # -- faults --------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """kill -9: the page cache stays."""
        if self.process is None:
            return
        self.cluster.trace.note(self.host, "killed")
        self._end(self.process)
        self.cluster.network.process_died(self.host)

    def lose_power(self) -> None:
        """The machine goes off. What was not synced is lost, in part or in whole."""
        self.cluster.trace.note(self.host, "loses power")
        if self.process is not None:
            self._end(self.process)
        self.cluster.invariants.power_lost(self)
        self.disk.crash()
        self.powered = False
        self.cluster.network.power_lost(self.host)

    def ends(self, where: str) -> None:
        """In the middle of what it does: killed, or the power has gone where the promises allow that."""
        self.cluster.trace.note(self.host, "ends", where)
        if self.rng.random() < 0.5 and self.cluster.may_lose_power(self):
            self.lose_power()
        else:
            self.kill()
        self.cluster.nemesis.ended(self)

    def stop(self) -> None:
        """SIGTERM: leadership is handed over, responses leave, everything durable, marked clean."""
        process = self.process
        if process is None or process.paused or process.stopping:
            return
        self.cluster.trace.note(self.host, "leaves")
        process.stopping = True

        def left() -> None:
            process.later(1, "stops", lambda: self._stop(process))

        process.happen("asked to stop", lambda: process.node.leave(left))

    def _stop(self, process: Process) -> None:
        node = process.node
        node.stopping = True
        for connection in sorted(node.connections, key=lambda each: each.peer):
            connection.close()
        try:
            node.stop()
        except OSError as error:
            if not self.disk_faults:
                raise InvariantViolation(f"crash: {self.host} fails to stop: {error!r}") from error
        self._end(process)
        self.cluster.network.process_died(self.host)
        self.stops += 1

    def wipe(self) -> None:
        """Another disk is put into the machine."""
        assert self.process is None
        self.cluster.trace.note(self.host, "wiped")
        self.disk = MemoryDisk(self.rng.getrandbits(32))
        self.disk.makedirs(DATA)
        self.disk.sync_dir("/")

    def _end(self, process: Process) -> None:
        process.alive = False
        self.cluster.invariants.detach(process)
        self.process = None
        self.disk.kill()
        disk_faults.mend(self)


class NodeLog:
    """What the node logs goes into the trace; an error that only a bug explains is a violation."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def debug(self, event: str, **values: Any) -> None:
        """Not for people, not for the trace."""

    def info(self, event: str, **values: Any) -> None:
        self._note(event, values)

    def warning(self, event: str, **values: Any) -> None:
        self._note(event, values)

    limited_info = info
    limited_warning = warning

    def error(self, event: str, *, exc_info: BaseException | None = None, **values: Any) -> None:
        self._note(event, values)
        if exc_info is not None:
            raise InvariantViolation(
                f"crash: {self._process.machine.host}: {event} {values}: {exc_info!r}"
            ) from exc_info

    limited_error = error

    def _note(self, event: str, values: dict[str, Any]) -> None:
        told = " ".join(f"{key}={value}" for key, value in sorted(values.items()))
        self._process.machine.cluster.trace.note(self._process.machine.host, f"log: {event}", told)
