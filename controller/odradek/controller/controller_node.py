"""A node's place in the metadata quorum: Raft, loader, controller and snapshots put together.

What a broker in the same process uses: `handle` for requests, `image` and publishers for the state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, cast

from odradek.controller.quorum_controller import Done, QuorumController
from odradek.controller.responses import error_response
from odradek.controller.settings import (
    PENDING_REQUESTS_MAX,
    SUPPORTED_FEATURES,
    ControllerConfig,
    NodeConfig,
)
from odradek.metadata.image import MetadataImage
from odradek.metadata.publisher import CommittedBatch, MetadataFault, MetadataLoader, MetadataPublisher
from odradek.ports.timers import Timer
from odradek.raft import raft_driver
from odradek.raft.raft_driver import NotLeader, RaftDriver, Transport
from odradek.raft.voters import ReplicaKey, VoterSet
from odradek.wire.apis import ApiKey
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.broker_registration import Feature
from odradek.wire.primitives import Message
from odradek.wire.uuid import ZERO_UUID

if TYPE_CHECKING:
    from odradek.ports.clock import Clock
    from odradek.ports.disk import Disk, Syncer
    from odradek.ports.timers import TimerQueue
    from odradek.wire.messages.describe_quorum import DescribeQuorumRequest

LEADER_WAIT_MS_MAX = 2_000
"""How long a request waits for the quorum to have a leader before it is told that there is none."""


class MetadataQuorum:
    """Create, add publishers, `start`; then `handle` requests until `close`.

    `dir` exists and is locked by the caller. `voters` are ids of the controllers, this node alone by
    default. `directory_id` is that of `dir` in meta.properties. `warn(text, **details)` is told of errors
    in callbacks of clients, which must not stop the node. `stop_node(reason)` is called when the node must
    stop: the metadata log failed, or a committed record cannot be applied; set it before `start`.
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
        voters: Iterable[int] = (),
        transport: Transport | None = None,
        warn: Callable[..., None] | None = None,
    ) -> None:
        self.stop_node: Callable[[str], None] = _stop_loudly
        self.fatal_reason: str | None = None
        self._syncer = syncer
        self._clock = clock
        self._timers = timers
        self._config = ControllerConfig.of_node(node_id, cluster_id, config)
        self._loader = MetadataLoader(cluster_id)
        self._raft = RaftDriver(
            disk,
            dir,
            syncer,
            clock,
            timers,
            rng,
            ReplicaKey(node_id, directory_id),
            VoterSet.of_ids(tuple(voters) or (node_id,)),
            self,
            transport=transport,
        )
        log = _RaftLog(self._raft)
        self.controller = QuorumController(self._config, rng, self._loader, log, timers, warn)
        self._early: deque[tuple[Message, int, Done]] = deque()
        """Requests that came while the quorum had no leader."""
        self._early_timer: Timer | None = None
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

    def handle(self, request: Message, version: int, now_ms: int, done: Done) -> None:
        """Have the active controller answer. NOT_CONTROLLER if that is another node, or nobody for too
        long.
        """
        if request.API_KEY == ApiKey.DESCRIBE_QUORUM:
            done(self._describe_quorum(request, version))
        elif (
            self.controller.active
            or self._raft.leader_id >= 0
            or self._closed
            or self.fatal_reason is not None
        ):
            self.controller.handle(request, version, now_ms, done)
        elif len(self._early) >= PENDING_REQUESTS_MAX:
            done(error_response(request, version, ErrorCode.NOT_CONTROLLER))
        else:
            self._early.append((request, version, done))
            if self._early_timer is None:
                self._early_timer = self._timers.at(now_ms + LEADER_WAIT_MS_MAX, self._no_leader_came)

    def close(self) -> None:
        """Stop: waiting requests fail, files are flushed and closed."""
        self._closed = True
        self._release_early()
        if self.controller.active:
            self.controller.on_resign()
        for timer in (self._early_timer, self._snapshot_timer):
            if timer is not None:
                timer.cancel()
        self._raft.close()

    # -- requests without a leader -------------------------------------------------------------------------

    def _release_early(self) -> None:
        """Hand requests that waited for a leader to the controller, such as it is."""
        if self._early_timer is not None:
            self._early_timer.cancel()
            self._early_timer = None
        early, self._early = self._early, deque()
        for request, version, done in early:
            self.controller.handle(request, version, self._clock.monotonic_ms(), done)

    def _no_leader_came(self, _now_ms: int) -> None:
        self._early_timer = None
        self._release_early()

    def _describe_quorum(self, request: Message, version: int) -> Message:
        from odradek.controller import quorum

        asked = cast("DescribeQuorumRequest", request)
        if not self.controller.active:
            return quorum.not_leader(asked, version)
        return quorum.describe_quorum(asked, version, self._raft.describe_quorum())

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
        self._release_early()

    def on_resign(self, epoch: int) -> None:
        self.controller.on_resign()

    def on_leader_change(self, leader_id: int, epoch: int) -> None:
        self._loader.on_controller(leader_id)
        if leader_id not in (-1, self._config.node_id):
            self._release_early()

    def on_fatal(self, reason: str) -> None:
        self.fatal_reason = reason
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
