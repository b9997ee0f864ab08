"""A node: everything a broker does, without sockets, event loop or clock of its own.

`server.py` drives one with real ports; the simulator drives many with simulated ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from odradek.broker.api import routes
from odradek.broker.backpressure import RequestMemory, ResponseMemory
from odradek.broker.between_brokers import BetweenBrokers
from odradek.broker.broker_lifecycle import BrokerLifecycle
from odradek.broker.coordinators import Coordinators
from odradek.broker.doubts import HOLD_MS, Doubts
from odradek.broker.fetch_session import FetchSessions
from odradek.broker.health import missing_of_broker
from odradek.broker.log_compaction import LogCompaction
from odradek.broker.metadata_quorum import metadata_quorum
from odradek.broker.open_connections import OpenConnections
from odradek.broker.producer_ids import ProducerIds
from odradek.broker.refusals import others_remembered
from odradek.broker.replica_manager import ReplicaManager
from odradek.broker.topic_creation import INTERNAL_TOPICS, TopicCreation
from odradek.controller.settings import GROUP_VERSION
from odradek.replication.config import ReplicationConfig
from odradek.replication.driver import ReplicationDriver
from odradek.wire.apis import ApiKey

if TYPE_CHECKING:
    import random

    from odradek.broker.config import BrokerConfig
    from odradek.broker.connection import Connection
    from odradek.broker.metrics import BrokerMetrics, TopicMetrics
    from odradek.broker.partition import Partition
    from odradek.controller.gateway import NodeChannel
    from odradek.metadata.delta import MetadataDelta
    from odradek.metadata.image import MetadataImage
    from odradek.ports.clock import Clock
    from odradek.ports.disk import Disk, Syncer
    from odradek.ports.timers import TimerQueue
    from odradek.raft.raft_driver import Transport
    from odradek.replication.ports import ReplicationTransport, Stream, StreamEvents
    from odradek.storage.log_cleaner import Workers
    from odradek.storage.manager import LogManager
    from odradek.wire.messages.alter_partition import AlterPartitionRequest, AlterPartitionResponse

UNSENT_BYTES_MAX = 256 << 20
"""Responses of all connections that their peers have not taken; above it, fetches find nothing until they have."""
EVENT_NS_MAX = 2_000_000
"""How long one connection's pipelined requests are handled before the others get their turn."""
AUTO_CREATE_WAIT_MS = 1_000
"""How long a request waits for a topic that it makes come into being. Longer, and a client whose other requests
follow on the same connection would read nothing while the controllers have no majority.
"""
ASSIGN_AGAIN_MS = 100
SAVE_EPOCHS_MS = 100
NAMED_MS = 9_000
"""So long Kafka takes to notice, by its default session."""
SAVE_EPOCHS = 8
"""Leader epoch checkpoints written at once: each is a rename, which can take a millisecond or two."""
AWAKE_CHECK_MS = 250
CHECKPOINTS = (
    "log.flush.start.offset.checkpoint.interval.ms",
    "replica.high.watermark.checkpoint.interval.ms",
)
NEVER_NS = 1 << 63
EXPIRATION_CHECK_MS = 600_000
"""Between looks for idle producer ids, as in Kafka."""
FORGET_CHECKS_MS = 300_000
"""How long bytes of a log are believed after their CRC was checked (storage/trust.py)."""
SHARED_BUFFER_BYTES = 256 * 1024
"""What all connections read into: small enough to stay in a core's cache, large enough for 200 requests of 1 KB."""


@dataclass(frozen=True, slots=True)
class Ports:
    """What a node needs of the world."""

    disk: Disk
    syncer: Syncer
    metadata_syncer: Syncer
    """The metadata log's own: a vote must not wait behind the unlink of a large segment."""
    clock: Clock
    timers: TimerQueue
    rng: random.Random
    log: Any
    """A structlog logger; never called per request."""
    disk_space: Callable[[str], tuple[int, int]]
    """Total and usable bytes of the file system a directory is on."""
    peers: PeerPorts | None = None
    """The ways to other nodes; None for a node without any."""
    cleaners: Callable[[], Workers] | None = None
    """Makes those who compact logs; None: the syncer's thread, in this process."""


@dataclass(frozen=True, slots=True)
class PeerPorts:
    """What leads to other nodes: gRPC, or a simulated network."""

    raft: Transport
    controller: NodeChannel
    replication: ReplicationTransport
    brokers: NodeChannel
    """Requests from broker to broker: `between_brokers`."""
    port: int
    """Where this node serves them; told to other brokers as its listener REPLICATION."""


class Endpoint(NamedTuple):
    """A live broker as clients of one listener reach it."""

    id: int
    host: str
    port: int
    rack: str | None


class NoPeers:
    """The replication transport of a node without other nodes."""

    def connect(self, leader_id: int, events: StreamEvents) -> Stream:
        raise AssertionError(f"a lone node has nobody to follow, least of all {leader_id}")


class ProposalsToController:
    """AlterPartition, asked once: a second attempt would make the answer to the first one ambiguous."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def alter_partition(
        self,
        request: AlterPartitionRequest,
        version: int,
        done: Callable[[AlterPartitionResponse | None], None],
    ) -> None:
        request.broker_epoch = self._node.broker_epoch
        self._node.quorum.ask_once(request, version, done)


def _replication(config: BrokerConfig, ports: Ports, controller: ProposalsToController) -> ReplicationDriver:
    return ReplicationDriver(
        config.node_id,
        ReplicationConfig(replica_lag_time_max_ms=config.replica_lag_time_max_ms),
        transport=ports.peers.replication if ports.peers is not None else NoPeers(),
        controller=controller,
        syncer=ports.syncer,
        clock=ports.clock,
        timers=ports.timers,
        rng=ports.rng,
    )


class Node:
    """Owns the parts and wires them; implements `connection.Host`."""

    def __init__(
        self, config: BrokerConfig, ports: Ports, logs: LogManager, metrics: BrokerMetrics, metadata_dir: str
    ) -> None:
        """`logs` has its directories locked and its logs open; `metadata_dir` is an absolute path, taken as well."""
        self.config = config
        self.ports = ports
        self.clock = ports.clock
        self.timers = ports.timers
        self.metrics = metrics
        self.monotonic_ms = ports.clock.monotonic_ms
        self.wall_ms = ports.clock.wall_ms()
        self.logs = logs
        self.internal_topics = INTERNAL_TOPICS
        self.auto_create_topics = config.auto_create_topics_enable
        self.stopping = False
        self.on_ready: Callable[[], None] = lambda: None
        self.on_drained: Callable[[], None] = lambda: None
        """Called when the last connection has gone."""
        self.on_fatal: Callable[[str], None] = lambda reason: None
        self._make_connections()
        self._make_metadata(metadata_dir)
        self._make_replicas()
        self._make_coordinators()
        self.supported_features = self.quorum.supported_features
        self.advertised, self.handlers = routes.build(self)
        self._produce_metrics = metrics.api(ApiKey.PRODUCE)
        self._event_began_ns = 0
        kept_ms = max(1, config.broker_session_timeout_ms - config.broker_heartbeat_interval_ms)
        self._pause_ns_max = NEVER_NS if ports.peers is None else kept_ms * 1_000_000
        self._awake_until_ns = NEVER_NS
        """A process that has not run until then may have lost its session meanwhile."""

    def _make_connections(self) -> None:
        """Who is connected, and what all of them together may hold."""
        config = self.config
        self.request_bytes_max = config.socket_request_max_bytes
        self.fetch_bytes_max = config.fetch_max_bytes
        self.unsent_bytes_max = config.odradek_connection_max_unsent_bytes
        self.shared_buffer = memoryview(bytearray(SHARED_BUFFER_BYTES))
        self.request_memory = RequestMemory(config.queued_max_request_bytes, self.monotonic_ms)
        self.response_memory = ResponseMemory(UNSENT_BYTES_MAX, self.monotonic_ms)
        self._open = OpenConnections(config, self.monotonic_ms, self.ports.log)
        self.connections: set[Connection] = self._open.all
        self.ready: deque[Connection] = deque()
        self._later: list[Connection] = []
        self._running_ready = False
        self.listening = True
        """Set False by a driver that lets clients in later."""

    def _make_metadata(self, metadata_dir: str) -> None:
        """The metadata quorum, this broker's place in it, and what metadata does not know yet."""
        config, ports = self.config, self.ports
        self._endpoints: dict[str, list[Endpoint]] = {}
        self._gone: dict[int, int] = {}
        """Brokers that were fenced a moment ago, and until when (monotonic ms) clients may be told of them."""
        self._dead: set[int] = set()
        """Brokers whose process has gone: nobody listens where they were. All others may be cut off, and alive."""
        self.quorum = metadata_quorum(config, ports, self.logs, metadata_dir)
        self.quorum.stop_node = self._stop_node
        self.image: MetadataImage = self.quorum.image
        self.lifecycle = BrokerLifecycle(
            config,
            ports,
            self.logs,
            self.quorum,
            metadata_offset=lambda: self.replicas.applied_offset,
            on_registered=self._registered,
            on_unfenced=self._unfenced,
            on_refused=self._stop_node,
            on_trusted=self._trusted,
        )
        self.doubts = Doubts(
            lambda: self.image, ports.clock, ports.timers, HOLD_MS if ports.peers is not None else 0
        )
        self.producer_ids = ProducerIds(self._ask_controller)
        self.topic_creation = TopicCreation(config, self._ask_controller)

    def _make_replicas(self) -> None:
        """Partitions, and what happens to their logs."""
        config, ports = self.config, self.ports
        self.replication = _replication(config, ports, ProposalsToController(self))
        self.replicas = ReplicaManager(
            config.node_id,
            config.static,
            self.logs,
            ports.syncer,
            ports.clock,
            self.metrics,
            ports.log,
            self.replication,
        )
        self.partitions = self.replicas.partitions
        self.leader_of = self.replicas.leader_of
        self.fetch_sessions = FetchSessions(config.max_incremental_fetch_session_cache_slots, ports.rng)
        self.compaction = LogCompaction(
            config, ports, self.logs, self.partitions, lambda: config.layers(self.image.configs)
        )

    def _make_coordinators(self) -> None:
        """Groups and transactions; then replicas know whom to tell what."""
        config, ports = self.config, self.ports
        others = ports.peers.brokers if ports.peers is not None else None
        self.between_brokers = BetweenBrokers(config.node_id, others, ports.log.limited_warning)
        self.coordinators = Coordinators(self)
        self.groups = self.coordinators.groups
        self.transactions = self.coordinators.transactions
        self.txn_markers = self.coordinators.markers
        self.txn_verification = self.coordinators.verification
        protocols = config.static.get("group.coordinator.rebalance.protocols", "consumer").split(",")
        self._consumer_protocol = "consumer" in {name.strip() for name in protocols}
        self._wire_replicas()

    def _wire_replicas(self) -> None:
        """What replicas tell others, and ask of them."""
        replicas = self.replicas
        replicas.on_leadership = self.coordinators.leadership_changed
        replicas.on_directory_failed = self._directory_failed
        replicas.on_cordoned = self.lifecycle.directories_changed
        replicas.assignments.ask = self._ask_controller
        replicas.assignments.again = self._assign_again
        replicas.moves.timers = self.timers
        replicas.is_cleaning = replicas.moves.is_cleaning = self.compaction.is_cleaning

    # -- life ----------------------------------------------------------------------------------------------------

    def start(self, bound_ports: dict[str, int]) -> None:
        """Load metadata, then register with the controller; `on_ready` follows once this broker is unfenced."""
        self.quorum.add_publisher(self)
        self.quorum.start(self.monotonic_ms())
        self.lifecycle.start(bound_ports)
        self.logs.on_unsaved_epochs = self._save_epochs_soon
        self._save_epochs_soon()
        self._every(self.config.log_retention_check_interval_ms, self.replicas.delete_old_segments)
        self.compaction.start()
        self._every(self._checkpoint_ms(), self._checkpoint)
        if self.ports.peers is not None:
            self._stay_awake()
            self._every(AWAKE_CHECK_MS, self._stay_awake)
        self._every(1000, self.replicas.tick)
        expiration_ms = self.config.producer_id_expiration_ms
        self._every(EXPIRATION_CHECK_MS, lambda: self.replicas.expire_producers(expiration_ms))
        self._every(1000, self._close_slow)
        self._every(10_000, self._open.close_idle)
        self._every(FORGET_CHECKS_MS, self.logs.forget_checks)

    def stop(self) -> None:
        """Everything durable and marked clean. Connections are closed by the driver before."""
        self.stopping = True
        self.lifecycle.stop()
        self.compaction.stop()
        self.replicas.close()
        self.flush()
        self.replication.close()
        self.quorum.close()
        for directory, reason in self.logs.close(
            self.replicas.high_watermarks(), broker_epoch=self.broker_epoch
        ):
            self.ports.log.warning("not closed cleanly", directory=directory, reason=reason)

    def _stop_node(self, reason: str) -> None:
        """Without its metadata log a node must not go on: it would serve what it no longer knows to be true."""
        self.stopping = True
        self.lifecycle.stop()
        self.on_fatal(reason)

    def _directory_failed(self) -> None:
        """Without any directory a broker is of no use to anybody: it makes room for others, as Kafka's does."""
        if any(online for _, online in self.log_directories()):
            self.lifecycle.directories_changed()
        elif not self.stopping:
            failed = ", ".join(path for path, _ in self.log_directories())
            self._stop_node(f"Shutdown broker because all log dirs in {failed} have failed")

    def readiness(self) -> tuple[bool, list[str]]:
        """Whether this broker does all that it should, and if not, what is missing (health.py)."""
        reasons = list(missing_of_broker(self))
        return not reasons, reasons

    def _every(self, interval_ms: int, work: Callable[[], None]) -> None:
        def run(now_ms: int) -> None:
            if not self.stopping:
                self.timers.at(now_ms + interval_ms, run)
                work()

        self.timers.at(self.monotonic_ms() + interval_ms, run)

    def _stay_awake(self) -> None:
        now_ns = self.clock.monotonic_ns()
        if now_ns > self._awake_until_ns:
            self._overslept()
        self._awake_until_ns = now_ns + self._pause_ns_max

    def _overslept(self) -> None:
        """This process was stopped (SIGSTOP, a machine that was suspended) for so long that others may lead what it
        led: a leader of the past acknowledges nothing. It is not the silence of controllers that counts, without
        whose majority data flows on, but that this process did not run. Checked before anything that came meanwhile.
        """
        self._awake_until_ns = self.clock.monotonic_ns() + self._pause_ns_max
        self.ports.log.limited_warning("this process did not run for longer than its session lasts")
        self.replicas.suspend()
        self.lifecycle.doubt()

    def _trusted(self) -> None:
        self.replicas.resume()
        self.coordinators.trusted()

    def _save_epochs_soon(self) -> None:
        self.timers.at(self.monotonic_ms() + SAVE_EPOCHS_MS, self._save_epochs)

    def _save_epochs(self, _now_ms: int) -> None:
        if not self.stopping and self.logs.save_epochs(SAVE_EPOCHS):
            self._save_epochs_soon()

    def _checkpoint_ms(self) -> int:
        """All checkpoints are written together, as often as the most frequent of those that somebody has set."""
        every = [int(self.config.static[key]) for key in CHECKPOINTS if key in self.config.static]
        return min([self.config.log_flush_offset_checkpoint_interval_ms, *every])

    def _checkpoint(self) -> None:
        self.logs.checkpoint(self.replicas.high_watermarks())

    def _close_slow(self) -> None:
        """Who holds memory that others wait for, and does not use it."""
        now_ms = self.monotonic_ms()
        for connection in self.request_memory.slow(now_ms):
            self.bad_input(connection, "it announced a request and does not send it while others wait")
            connection.abort()
        self.response_memory.look_again(now_ms)
        for connection in self.response_memory.slow(now_ms):
            self.bad_input(connection, "it does not take its responses while others wait")
            connection.abort()
        if not self.response_memory.is_full:
            for connection in self.response_memory.holding():
                connection.proceed()
        self.run_ready()

    # -- the broker's life with the controller -------------------------------------------------------------------

    def _ask_controller(self, request: Any, done: Callable[[Any], None]) -> None:
        self.quorum.handle(request, request.MAX_VERSION, self.monotonic_ms(), done)

    @property
    def broker_epoch(self) -> int:
        """Of the registration; -1 before."""
        return self.lifecycle.broker_epoch

    @property
    def unfenced(self) -> bool:
        return self.lifecycle.unfenced

    def _assign_again(self) -> None:
        self.timers.at(self.monotonic_ms() + ASSIGN_AGAIN_MS, lambda _now: self.replicas.assignments.send())

    def _registered(self, broker_epoch: int) -> None:
        self.replicas.registration_answered(broker_epoch)
        self.producer_ids.broker_id = self.config.node_id
        self.producer_ids.broker_epoch = broker_epoch

    def _unfenced(self) -> None:
        self.replicas.later = self._soon
        self.on_ready()

    def leave(self, done: Callable[[], None]) -> None:
        """Controlled shutdown: `done` when this broker may stop."""
        self.lifecycle.leave(done)

    # -- metadata publisher --------------------------------------------------------------------------------------

    def on_metadata(self, delta: MetadataDelta, image: MetadataImage) -> None:
        if self.config.alone and len(image.brokers) > 1:
            if not self.stopping:
                self._stop_node(others_remembered(self.config.metadata_dir, sorted(image.brokers)))
            return
        if delta.brokers_changed:
            self._endpoints.clear()
            self._note_gone(delta.brokers_changed, image)
        self.image = image
        self.replicas.on_metadata(delta, image)
        if self.doubts:
            self.doubts.image_changed()
        self.coordinators.on_metadata(delta)
        for name in delta.topics_deleted:
            if name not in image.topics:
                self.metrics.drop_topic(name)
        self.flush()

    # -- asked by handlers ---------------------------------------------------------------------------------------

    @property
    def serves_consumer_protocol(self) -> bool:
        """KIP-848: by the finalized feature, and unless this broker's configuration leaves it out."""
        return self._consumer_protocol and self.image.features.get(GROUP_VERSION, 0) >= 1

    def topic_name(self, topic_id: bytes) -> str | None:
        return self.image.topic_names.get(topic_id)

    def topic_metrics_of(self, topic: str | bytes) -> TopicMetrics | None:
        name = self.topic_name(topic) if isinstance(topic, bytes) else topic
        return self.metrics.topic(name) if name is not None and name in self.image.topics else None

    def brokers_on(self, listener: str) -> list[Endpoint]:
        """Live brokers that have this listener, by id."""
        known = self._endpoints.get(listener)
        if known is None:
            known = self._endpoints[listener] = [
                Endpoint(broker.id, *broker.listeners[listener][:2], broker.rack)
                for broker in sorted(self.image.brokers.values(), key=lambda each: each.id)
                if listener in broker.listeners and not broker.fenced
            ]
        return known

    def _note_gone(self, changed: Iterable[int], image: MetadataImage) -> None:
        until_ms = self.monotonic_ms() + NAMED_MS
        for broker_id in changed:
            before, now = self.image.brokers.get(broker_id), image.brokers.get(broker_id)
            if now is None or not now.fenced:
                self._gone.pop(broker_id, None)
                self._dead.discard(broker_id)
            elif before is not None and not before.fenced and not before.in_controlled_shutdown:
                self._gone[broker_id] = until_ms

    def found_dead(self, broker_id: int) -> None:
        """Nobody listens any more where this broker was. May be told often."""
        self._dead.add(broker_id)

    @property
    def somebody_has_gone(self) -> bool:
        """Whom clients are told of may change, and the image does not."""
        return bool(self._gone)

    def just_gone(self, listener: str) -> list[Endpoint]:
        """Brokers that died a moment ago. Clients are still told of them, as by Kafka, which takes seconds to notice:
        librdkafka loses what it is about to ask of a broker that is not named any more (its issue 5511).
        Who is only cut off is not named: a client gives up its connection then, on which a write may wait for followers
        that do not come, and goes to the next leader.
        """
        now_ms = self.monotonic_ms()
        self._gone = {broker_id: until_ms for broker_id, until_ms in self._gone.items() if until_ms > now_ms}
        brokers = (self.image.brokers[broker_id] for broker_id in self._gone if broker_id in self._dead)
        return [
            Endpoint(each.id, *each.listeners[listener][:2], each.rack)
            for each in brokers
            if listener in each.listeners
        ]

    def controller_to_tell(self, brokers: list[Endpoint]) -> int:
        """Which broker clients shall take for the controller: admin requests go to any, so the first is as good."""
        return brokers[0].id if brokers else -1

    def leader_hint(self, topic: str, index: int, listener: str) -> tuple[Endpoint, int] | None:
        """The leader elsewhere, as clients of `listener` reach it, and its epoch (KIP-951)."""
        known = self.image.topics.get(topic)
        partition = known.partitions.get(index) if known is not None else None
        if partition is None:
            return None
        for endpoint in self.brokers_on(listener):
            if endpoint.id == partition.leader:
                return endpoint, partition.leader_epoch
        return None

    def create_topics_automatically(self, names: list[str], done: Callable[[], None]) -> None:
        waiting = [done]

        def answer(_now_ms: int = 0) -> None:
            if waiting:
                waiting.pop()()

        timer = self.timers.at(self.monotonic_ms() + AUTO_CREATE_WAIT_MS, answer)

        def created() -> None:
            timer.cancel()
            answer()

        self.topic_creation.create(names, created)

    def log_start_moved(self, partition: Partition) -> None:
        """After DeleteRecords: remembered before the answer leaves. Segments go with the next retention check, as in
        Kafka.
        """
        self.logs.checkpoint()
        if partition.replica is not None:
            self.replication.log_start_moved(partition.replica)

    def log_directories(self) -> list[tuple[str, bool]]:
        return [(data_dir.path, not data_dir.offline) for data_dir in self.logs.dirs]

    def disk_space(self, directory: str) -> tuple[int, int]:
        return self.ports.disk_space(directory)

    def warm(self, cold: list[Callable[[], None]], done: Callable[[], None]) -> None:
        """Run reads that wait for the medium on the disk thread, then go on here."""

        def work() -> None:
            for read in cold:
                read()

        self.ports.syncer.run(work, lambda _error: done())

    # -- connection.Host -----------------------------------------------------------------------------------------

    def begin_event(self, connection: Connection) -> None:
        self.wall_ms = self.clock.wall_ms()
        now_ns = self._event_began_ns = self.clock.monotonic_ns()
        if now_ns > self._awake_until_ns:
            self._overslept()
        connection.last_active_ms = now_ns // 1_000_000

    def end_event(self, produced: int) -> None:
        """All Produce requests of one event take the same time: from its bytes' arrival to its responses' leaving."""
        self._produce_metrics.observe(self.clock.monotonic_ns() - self._event_began_ns, produced)

    def response_room(self, connection: Connection, wanted: int) -> int:
        """How much of `wanted` bytes may be read for this connection now."""
        if connection.unsent > self.unsent_bytes_max:
            return 0
        return self.response_memory.room(wanted)

    def flush(self) -> bool:
        """Write everything staged. False if an append failed: no answer may rely on it."""
        return self.replicas.flush()

    def settle(self) -> None:
        """After a timer or a completed disk operation: write what it staged, then answer whoever it woke."""
        self.replicas.flush()
        self.run_ready()

    def lasts_too_long(self) -> bool:
        return self.clock.monotonic_ns() - self._event_began_ns > EVENT_NS_MAX

    def run_later(self, connection: Connection) -> None:
        """Go on with it after everybody else's turn."""
        if not self._later:
            self.timers.at(self.monotonic_ms(), self._later_is_now)
        self._later.append(connection)

    def _soon(self, work: Callable[[], None]) -> None:
        self.timers.at(self.monotonic_ms(), lambda _now: work())

    def _later_is_now(self, _now_ms: int) -> None:
        later, self._later = self._later, []
        self.ready.extend(later)

    def run_ready(self) -> None:
        """Go on with connections that can, one after the other: an event of one never runs inside another's."""
        if self._running_ready or not self.ready:
            return
        if self.clock.monotonic_ns() > self._awake_until_ns:
            self._overslept()
        self._running_ready = True
        try:
            while self.ready:
                self.ready.popleft().proceed()
        finally:
            self._running_ready = False

    def connection_opened(self, connection: Connection) -> bool:
        if not self._open.add(connection):
            return False
        self.metrics.connections_opened += 1
        return True

    def connection_closed(self, connection: Connection) -> None:
        if self._open.remove(connection):
            self.on_drained()

    def bad_input(self, connection: Connection, reason: str) -> None:
        self.metrics.bad_requests += 1
        self.ports.log.limited_warning("closed a connection", peer=connection.peer, reason=reason)

    def send_failed(self, connection: Connection, error: OSError) -> None:
        self.ports.log.limited_warning(
            "an answer could not be sent whole", peer=connection.peer, reason=str(error)
        )

    def handler_failed(self, connection: Connection, api_key: int, version: int, error: Exception) -> None:
        self.ports.log.limited_error(
            "a request failed in the node",
            peer=connection.peer,
            api_key=api_key,
            version=version,
            exc_info=error,
        )
