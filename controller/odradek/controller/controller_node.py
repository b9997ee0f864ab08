"""A node's place in the metadata quorum: Raft, loader, controller and snapshots put together.

What a broker in the same process uses: `handle` for requests, `image` and publishers for the state. Requests
find the active controller by themselves (gateway.py); those of other nodes come in by `answer`. A node that
is no voter has one as well: it observes the metadata log, and its controller never becomes active.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, cast

from odradek.controller.gateway import (
    ANSWER_MARGIN_MS_MAX,
    AUTHORIZED,
    ControllerGateway,
    Done,
    NodeChannel,
)
from odradek.controller.internal import BrokerUnreachableRequest, request_class
from odradek.controller.quorum_controller import QuorumController
from odradek.controller.settings import (
    PENDING_REQUESTS_MAX,
    SUPPORTED_FEATURES,
    ControllerConfig,
    NodeConfig,
    raft_config,
)
from odradek.metadata.image import MetadataImage
from odradek.metadata.publisher import CommittedBatch, MetadataFault, MetadataLoader, MetadataPublisher
from odradek.ports.timers import Timer
from odradek.raft import raft_driver
from odradek.raft.raft_driver import NotLeader, RaftDriver, Transport
from odradek.raft.voters import ReplicaKey, Voter, VoterSet
from odradek.wire.apis import ApiKey
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.frame import encode_answer
from odradek.wire.messages.broker_registration import Feature
from odradek.wire.primitives import Message
from odradek.wire.uuid import ZERO_UUID

if TYPE_CHECKING:
    from odradek.ports.clock import Clock
    from odradek.ports.disk import Disk, Syncer
    from odradek.ports.timers import TimerQueue
    from odradek.wire.messages.describe_quorum import DescribeQuorumRequest

VOTER_CHANGES = (ApiKey.ADD_RAFT_VOTER, ApiKey.REMOVE_RAFT_VOTER, ApiKey.UPDATE_RAFT_VOTER)
QUORUM_WAIT_MS_MAX = 5_000
"""Who asks how the quorum does need not wait long to hear that there is none."""
ACCUSATION_PAUSE_MS = 500
"""So often a node calls the same incarnation of a broker unreachable."""


class MetadataQuorum:
    """Create, add publishers, `start`; then `handle` requests until `close`.

    `dir` exists and is locked by the caller. `voters` are the first controllers, or their ids: by default this
    node alone, and none for a node that observes until the log names some. `directory_id` is that of `dir` in
    meta.properties. `transport` and `channel` lead to the other nodes: for Raft, and for requests to the active
    controller. `warn(text, **details)` is told of errors in callbacks of clients, which must not stop the node.
    `stop_node(reason)` is called when the node must stop: the metadata log failed, or a committed record cannot
    be applied; set it before `start`.
    """

    def __init__(
        self,
        *,
        disk: Disk,
        dir: str,
        syncer: Syncer,
        clock: Clock,
        timers: TimerQueue,
        rng: Random,
        node_id: int,
        cluster_id: str,
        config: NodeConfig,
        directory_id: bytes = ZERO_UUID,
        voters: Iterable[int | Voter] | None = None,
        transport: Transport | None = None,
        channel: NodeChannel | None = None,
        warn: Callable[..., None] | None = None,
    ) -> None:
        self.stop_node: Callable[[str], None] = _stop_loudly
        self.fatal_reason: str | None = None
        self._syncer = syncer
        self._clock = clock
        self._timers = timers
        self._config = ControllerConfig.of_node(node_id, cluster_id, config)
        self._loader = MetadataLoader(cluster_id)
        self._warn = warn
        first = [
            Voter(ReplicaKey(each)) if isinstance(each, int) else each
            for each in ([node_id] if voters is None else voters)
        ]
        self._raft = RaftDriver(
            disk,
            dir,
            syncer,
            clock,
            timers,
            rng,
            ReplicaKey(node_id, directory_id),
            VoterSet.of(first),
            self,
            config=raft_config(config),
            transport=transport,
        )
        log = _RaftLog(self._raft)
        self.controller = QuorumController(self._config, rng, self._loader, log, timers, warn)
        self._gateway = ControllerGateway(
            node_id, self._active_controller, self._serve, clock, timers, channel, warn
        )
        self._arrived: list[tuple[Message, int, Done]] = []
        """Requests that came between this node's election and its readiness."""
        self._accusations: dict[tuple[int, int], int] = {}
        """(broker id, broker epoch) called unreachable → when it may be again."""
        self._snapshot_timer: Timer | None = None
        self._snapshot_under_way = False
        self._closed = False

    # -- for the node --------------------------------------------------------------------------------------

    @property
    def image(self) -> MetadataImage:
        """The newest committed image."""
        return self._loader.image

    @property
    def has_leader(self) -> bool:
        return self.fatal_reason is None and self._raft.leader_id >= 0

    @property
    def raft(self) -> RaftDriver:
        return self._raft

    @property
    def supported_features(self) -> Mapping[str, tuple[int, int]]:
        return SUPPORTED_FEATURES

    def registration_features(self) -> list[Feature]:
        """What a broker of this version says it supports."""
        return [Feature(name, low, high) for name, (low, high) in SUPPORTED_FEATURES.items()]

    def add_publisher(self, publisher: MetadataPublisher) -> None:
        self._loader.add_publisher(publisher)

    def start(self, now_ms: int) -> None:
        """Recover the metadata log and take part. OSError, or CorruptMetadata with a text for people."""
        self._raft.start(now_ms)
        if self._config.snapshot_interval_ms:
            self._snapshot_timer = self._timers.at(
                now_ms + self._config.snapshot_interval_ms, self._snapshot_due
            )

    def handle(
        self,
        request: Message,
        version: int,
        now_ms: int,
        done: Done,
        *,
        timeout_ms: int | None = None,
        principal: str = AUTHORIZED,
    ) -> None:
        """Have the active controller answer, whichever node it is: `done(response)` once, at once or within
        the time that the request says, or `timeout_ms`. REQUEST_TIMED_OUT, or NOT_CONTROLLER, if that was
        not possible (see gateway.py).
        """
        wait_ms = self._timeout_ms(request) if timeout_ms is None else timeout_ms
        self._gateway.ask(request, version, wait_ms, done, principal)

    def ask_once(self, request: Message, version: int, done: Callable[[Any], None]) -> None:
        """Ask the active controller a single time: `done(response)`, or done(None) if there was no answer,
        and then nobody knows whether the request was, or will be, carried out.
        """
        self._gateway.ask_once(request, version, done)

    def answer(self, api_key: int, version: int, body: bytes, reply: Callable[[bytes | None], None]) -> None:
        """Another node asks: `reply(response)`, or None if this is not the active controller, or if the
        request cannot be read.
        """
        try:
            request = request_class(api_key).decode(body, version)
        except (KeyError, ValueError) as error:
            if self._warn is not None:
                self._warn("a request of another node cannot be read", api_key=api_key, error=str(error))
            reply(None)
            return

        def done(response: Message | None) -> None:
            reply(None if response is None else encode_answer(response, version))

        self._serve(request, version, self._clock.monotonic_ms(), done)

    def broker_unreachable(self, broker_id: int, broker_epoch: int) -> None:
        """A connection to this incarnation of a broker was refused: its process is gone. The active
        controller is told, now or as soon as there is one.
        """
        broker = self.image.brokers.get(broker_id)
        if self._closed or broker is None or broker.epoch != broker_epoch or broker.fenced:
            return
        accused, now_ms = (broker_id, broker_epoch), self._clock.monotonic_ms()
        if now_ms < self._accusations.get(accused, now_ms):
            return
        wait_ms = 2 * self._config.broker_session_timeout_ms
        self._accusations[accused] = now_ms + wait_ms

        def told(_response: Message) -> None:
            self._accusations = {
                other: until for other, until in self._accusations.items() if other[0] != broker_id
            }
            self._accusations[accused] = self._clock.monotonic_ms() + ACCUSATION_PAUSE_MS

        self._gateway.ask(BrokerUnreachableRequest(broker_id, broker_epoch), 0, wait_ms, told)

    def close(self) -> None:
        """Stop: waiting requests fail, files are flushed and closed."""
        self._closed = True
        self._serve_arrived()
        self._gateway.close()
        if self.controller.active:
            self.controller.on_resign()
        if self._snapshot_timer is not None:
            self._snapshot_timer.cancel()
        self._raft.close()

    # -- requests ------------------------------------------------------------------------------------------

    def _active_controller(self) -> int:
        """Who is to be asked, -1: nobody. This node only once it is ready to answer."""
        if self.controller.active:
            return self._config.node_id
        leader = self._raft.leader_id
        return -1 if leader == self._config.node_id or self.fatal_reason is not None else leader

    def _timeout_ms(self, request: Message) -> int:
        """How long a request may take: what it says, if that is less than request.timeout.ms."""
        if request.API_KEY == ApiKey.BROKER_HEARTBEAT:
            return self._config.broker_session_timeout_ms
        if request.API_KEY == ApiKey.DESCRIBE_QUORUM:
            return min(QUORUM_WAIT_MS_MAX, self._config.request_timeout_ms)
        own_ms = getattr(request, "timeout_ms", 0)
        limit_ms = (
            min(own_ms, self._config.request_timeout_ms) if own_ms > 0 else self._config.request_timeout_ms
        )
        return limit_ms - min(limit_ms // 10, ANSWER_MARGIN_MS_MAX)

    def _serve(self, request: Message, version: int, now_ms: int, done: Done) -> None:
        """Answer as the active controller; done(None) if this node is not that. If it is about to be, the
        request waits for that: others know of an election before the elected has applied the log.
        """
        if not self.controller.active:
            elected = self._raft.leader_id == self._config.node_id and not self._closed
            if elected and self.fatal_reason is None and len(self._arrived) < PENDING_REQUESTS_MAX:
                self._arrived.append((request, version, done))
            else:
                done(None)
        elif request.API_KEY == ApiKey.DESCRIBE_QUORUM:
            from odradek.controller import quorum

            asked = cast("DescribeQuorumRequest", request)
            done(quorum.describe_quorum(asked, version, self._raft.describe_quorum(), self._raft.voters))
        elif request.API_KEY in VOTER_CHANGES:
            from odradek.controller import voters

            voters.change_voters(self._raft, self._config.cluster_id, request, version, done)
        else:
            self.controller.handle(request, version, now_ms, done)

    def _serve_arrived(self) -> None:
        """The election is over, one way or the other."""
        arrived, self._arrived = self._arrived, []
        for request, version, done in arrived:
            self._serve(request, version, self._clock.monotonic_ms(), done)

    # -- Raft tells ----------------------------------------------------------------------------------------

    def on_commit(self, batches: list[raft_driver.CommittedBatch]) -> None:
        self.controller.on_commit([CommittedBatch(*batch) for batch in batches])
        self._check_features()
        if not self._loader.publishing and self._raft.applied_offset >= self._raft.high_watermark:
            self._loader.caught_up()
        if self._loader.bytes_since_snapshot >= self._config.snapshot_bytes_max:
            self._begin_snapshot()

    def on_snapshot(self, end_offset: int, epoch: int, records: Sequence[bytes]) -> None:
        self._loader.on_snapshot(end_offset, epoch, records)
        self._check_features()

    def _check_features(self) -> None:
        """MetadataFault, which stops the node, if the cluster works at a level that this version does not
        know.
        """
        for name, level in self.image.features.items():
            low, high = SUPPORTED_FEATURES.get(name, (0, 0))
            if not low <= level <= high:
                why = (
                    f"the cluster has finalized {name} {level}, this version of Odradek supports {low} to {high}: "
                    "start the version that wrote it, or a newer one"
                )
                raise MetadataFault(self.image.offset, why)

    def on_leader(self, epoch: int) -> None:
        self._loader.caught_up()
        self.controller.on_leader(epoch, self._clock.monotonic_ms())
        self._serve_arrived()
        self._gateway.leader_changed()

    def on_resign(self, epoch: int) -> None:
        self.controller.on_resign()

    def on_leader_change(self, leader_id: int, epoch: int) -> None:
        self._loader.on_controller(leader_id)
        if leader_id != self._config.node_id:
            self._serve_arrived()
        self._gateway.leader_changed()

    def on_fatal(self, reason: str) -> None:
        self.fatal_reason = reason
        self._serve_arrived()
        self._gateway.close()
        if self.controller.active:
            self.controller.on_resign()
        self.stop_node(reason)

    # -- snapshots -----------------------------------------------------------------------------------------

    def _snapshot_due(self, now_ms: int) -> None:
        self._snapshot_timer = self._timers.at(now_ms + self._config.snapshot_interval_ms, self._snapshot_due)
        if self._loader.bytes_since_snapshot:
            self._begin_snapshot()

    def _begin_snapshot(self) -> None:
        """Write the committed image as a snapshot. An image never changes: it is encoded off this thread."""
        if self._snapshot_under_way or self._closed:
            return
        self._snapshot_under_way = True
        self._loader.bytes_since_snapshot = 0
        image = self.image
        records: list[bytes] = []

        def encode() -> None:
            records.extend(record.encode() for record in image.records())

        def encoded(_error: OSError | None) -> None:
            self._snapshot_under_way = False
            if not self._closed:
                self._raft.create_snapshot(image.offset + 1, image.epoch, records)

        self._syncer.run(encode, encoded)


class _RaftLog:
    """Raft's log as the controller writes it."""

    def __init__(self, raft: RaftDriver) -> None:
        self._raft = raft

    @property
    def end_offset(self) -> int:
        return self._raft.end_offset

    def append(self, records: list[bytes]) -> int:
        try:
            return self._raft.append(records)
        except NotLeader as error:
            raise KafkaError(ErrorCode.NOT_CONTROLLER) from error

    def resign(self) -> None:
        self._raft.resign()


def _stop_loudly(reason: str) -> None:
    raise RuntimeError(reason)
