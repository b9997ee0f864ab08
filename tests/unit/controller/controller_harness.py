"""A controller over a log in memory, with brokers that are driven by hand, and the metadata invariants."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from odradek.controller.partition_change import effective_min_isr
from odradek.controller.quorum_controller import QuorumController
from odradek.controller.settings import METADATA_VERSION, METADATA_VERSION_LEVEL, ControllerConfig
from odradek.controller.state import ControllerState
from odradek.metadata.delta import MetadataDelta
from odradek.metadata.image import MetadataImage, PartitionImage
from odradek.metadata.publisher import CommittedBatch, MetadataLoader
from odradek.ports.timers import TimerQueue
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.alter_partition import (
    AlterPartitionRequest,
    AlterPartitionRequestPartitionData,
    AlterPartitionRequestTopicData,
    AlterPartitionResponsePartitionData,
    BrokerState,
)
from odradek.wire.messages.broker_heartbeat import BrokerHeartbeatRequest
from odradek.wire.messages.broker_registration import BrokerRegistrationRequest, Feature, Listener
from odradek.wire.messages.create_topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
    CreatableTopicResult,
    CreateTopicsRequest,
)
from odradek.wire.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
)
from odradek.wire.primitives import Message

CLUSTER = "c1"


class MemoryLog:
    """What Raft does for its leader: epochs, offsets, and commits that come when the test says so."""

    def __init__(self) -> None:
        self.batches: list[CommittedBatch] = []
        self.end_offset = 0
        self.epoch = 0
        self.committed = 0
        """Batches that have been handed out as committed."""
        self.failure: Exception | None = None
        self.resigned = False

    def append(self, records: list[bytes]) -> int:
        if self.failure is not None:
            raise self.failure
        self.batches.append(CommittedBatch(self.end_offset, self.epoch, records))
        self.end_offset += len(records)
        return self.end_offset - 1

    def resign(self) -> None:
        self.resigned = True

    def begin_epoch(self) -> None:
        """A leader's first entry, a control record."""
        self.epoch += 1
        self.end_offset += 1

    def truncate(self, to_batch: int) -> None:
        """What another leader did not have is gone."""
        assert to_batch >= self.committed
        del self.batches[to_batch:]
        last = self.batches[-1].last_offset if self.batches else -1
        self.end_offset = last + 1


class Publisher:
    def __init__(self) -> None:
        self.images: list[MetadataImage] = []
        self.deltas: list[MetadataDelta] = []

    def on_metadata(self, delta: MetadataDelta, image: MetadataImage) -> None:
        self.deltas.append(delta)
        self.images.append(image)


class Harness:
    """One controller. `call` commits at once unless `commits` is off."""

    def __init__(
        self, *, seed: int = 1, lead: bool = True, node_id: int = 0, warn: Any = None, **config: Any
    ) -> None:
        self.log = MemoryLog()
        self.timers = TimerQueue()
        self.loader = MetadataLoader(CLUSTER)
        self.publisher = Publisher()
        self.loader.add_publisher(self.publisher)
        self.loader.caught_up()
        self.config = ControllerConfig(node_id=node_id, cluster_id=CLUSTER, **config)
        self.controller = QuorumController(
            self.config, Random(seed), self.loader, self.log, self.timers, warn
        )
        self.now_ms = 1_000
        self.commits = True
        self.epochs: dict[int, int] = {}
        if lead:
            self.become_leader()

    @property
    def state(self) -> ControllerState:
        return self.controller.state

    @property
    def image(self) -> MetadataImage:
        """The committed image."""
        return self.loader.image

    def become_leader(self) -> None:
        self.log.begin_epoch()
        self.controller.on_leader(self.log.epoch, self.now_ms)
        if self.commits:
            self.commit()

    def commit(self, batches: int | None = None) -> None:
        """Commit everything appended, or so many batches more."""
        appended = len(self.log.batches)
        end = appended if batches is None else min(appended, self.log.committed + batches)
        new = self.log.batches[self.log.committed : end]
        self.log.committed = end
        self.controller.on_commit(new)

    def send(self, request: Message, version: int | None = None) -> list[Any]:
        """Hand in a request; the list gets the response when it comes, None if this is not the controller."""
        answers: list[Any] = []
        wanted = request.MAX_VERSION if version is None else version
        self.controller.handle(request, wanted, self.now_ms, answers.append)
        if self.commits:
            self.commit()
        return answers

    def call(self, request: Message, version: int | None = None) -> Any:
        answers = self.send(request, version)
        assert len(answers) == 1, f"{len(answers)} responses to {request}"
        return answers[0]

    def pass_time(self, ms: int) -> None:
        self.now_ms += ms
        self.timers.advance(self.now_ms)
        if self.commits:
            self.commit()

    # -- brokers -------------------------------------------------------------------------------------------

    def register(self, broker_id: int, incarnation: int = 1, **changes: Any) -> Any:
        response = self.call(registration(broker_id, incarnation, **changes))
        if response.error_code == ErrorCode.NONE:
            self.epochs[broker_id] = response.broker_epoch
        return response

    def heartbeat(self, broker_id: int, **changes: Any) -> Any:
        request = BrokerHeartbeatRequest(
            broker_id=broker_id,
            broker_epoch=self.epochs[broker_id],
            current_metadata_offset=self.image.offset,
        )
        for name, value in changes.items():
            setattr(request, name, value)
        return self.call(request)

    def start_broker(self, broker_id: int, incarnation: int = 1, **changes: Any) -> None:
        """Register and unfence."""
        assert self.register(broker_id, incarnation, **changes).error_code == ErrorCode.NONE
        response = self.heartbeat(broker_id)
        assert (response.error_code, response.is_fenced) == (ErrorCode.NONE, False)

    def start_brokers(self, *broker_ids: int) -> None:
        for broker_id in broker_ids:
            self.start_broker(broker_id)

    def fence(self, broker_id: int) -> None:
        """The broker is fenced, and its process ends: another may take its id."""
        assert self.heartbeat(broker_id, want_fence=True).is_fenced
        self.state.sessions.ended(broker_id)

    # -- topics --------------------------------------------------------------------------------------------

    def create(self, name: str, *replicas: list[int], **options: Any) -> CreatableTopicResult:
        """Create one topic: with `replicas` as assignment, else one partition of one replica unless told otherwise."""
        response = self.call(CreateTopicsRequest(topics=[new_topic(name, *replicas, **options)]))
        [result] = response.topics
        assert isinstance(result, CreatableTopicResult)
        return result

    def partition(self, topic: str, partition_id: int = 0) -> PartitionImage:
        return self.image.topics[topic].partitions[partition_id]


def directory(broker_id: int) -> bytes:
    return (0xD0_0000 + broker_id).to_bytes(16, "big")


def registration(broker_id: int, incarnation: int = 1, **changes: Any) -> BrokerRegistrationRequest:
    request = BrokerRegistrationRequest(
        broker_id=broker_id,
        cluster_id=CLUSTER,
        incarnation_id=(1_000 * broker_id + incarnation).to_bytes(16, "big"),
        listeners=[Listener("PLAINTEXT", f"host{broker_id}", 9092, 0)],
        features=[
            Feature(METADATA_VERSION, 7, METADATA_VERSION_LEVEL),
            Feature("eligible.leader.replicas.version", 0, 1),
            Feature("group.version", 0, 1),
            Feature("transaction.version", 0, 2),
        ],
        rack=None,
        log_dirs=[directory(broker_id)],
    )
    for name, value in changes.items():
        setattr(request, name, value)
    return request


def new_topic(
    name: str,
    *replicas: list[int],
    partitions: int = 1,
    factor: int = 1,
    configs: dict[str, str | None] | None = None,
) -> CreatableTopic:
    return CreatableTopic(
        name=name,
        num_partitions=-1 if replicas else partitions,
        replication_factor=-1 if replicas else factor,
        assignments=[CreatableReplicaAssignment(number, brokers) for number, brokers in enumerate(replicas)],
        configs=[CreatableTopicConfig(key, value) for key, value in (configs or {}).items()],
    )


def alter_isr(
    harness: Harness, topic: str, leader: int, isr: list[int], partition_id: int = 0, **changes: int
) -> AlterPartitionResponsePartitionData:
    partition = harness.partition(topic, partition_id)
    data = AlterPartitionRequestPartitionData(
        partition_index=partition_id,
        leader_epoch=partition.leader_epoch,
        partition_epoch=partition.partition_epoch,
        new_isr_with_epochs=[BrokerState(broker_id, harness.epochs.get(broker_id, 0)) for broker_id in isr],
    )
    for name, value in changes.items():
        setattr(data, name, value)
    topics = [AlterPartitionRequestTopicData(harness.image.topics[topic].id, [data])]
    response = harness.call(AlterPartitionRequest(leader, harness.epochs[leader], topics))
    assert response.error_code == ErrorCode.NONE
    [result] = response.topics[0].partitions
    assert isinstance(result, AlterPartitionResponsePartitionData)
    return result


def set_config(harness: Harness, topic: str, name: str, value: str | None) -> None:
    """Set a topic's configuration, the cluster's if `topic` is empty; None takes it away."""
    operation = 0 if value is not None else 1
    resource = AlterConfigsResource(2 if topic else 4, topic, [AlterableConfig(name, operation, value)])
    [result] = harness.call(IncrementalAlterConfigsRequest([resource])).responses
    assert result.error_code == ErrorCode.NONE, result


def violations(state: ControllerState, before: MetadataImage | None = None) -> Iterator[str]:
    """Which of M2, M3 and M4 do not hold in the controller's image, and between `before` and it."""
    image = state.image
    for topic in image.topics.values():
        configured = state.min_isr(topic)
        for number, p in topic.partitions.items():
            min_isr = effective_min_isr(configured, len(p.replicas), len(p.adding))
            where = f"{topic.name}-{number} {p}"
            if not set(p.isr) <= set(p.replicas):
                yield f"M3: ISR outside replicas: {where}"
            if any(replica not in image.brokers or image.brokers[replica].fenced for replica in p.isr):
                yield f"M3: fenced broker in ISR: {where}"
            if set(p.isr) & set(p.elr):
                yield f"M3: ISR and ELR overlap: {where}"
            if len(p.isr) >= min_isr and p.elr:
                yield f"M3: ELR beside an ISR of min ISR {min_isr}: {where}"
            if p.leader != -1 and p.leader not in p.isr:
                yield f"M4: leader outside ISR: {where}"
            if len(set(p.replicas)) != len(p.replicas) or len(set(p.isr)) != len(p.isr):
                yield f"a replica twice: {where}"
            if not {*p.elr, *p.adding, *p.removing, *p.last_known_elr} <= set(p.replicas):
                yield f"what is no replica is eligible, added or removed: {where}"
            if set(p.adding) & set(p.removing) or not set(p.replicas) - set(p.adding):
                yield f"a reassignment that cannot be: {where}"
            if p.directories and len(p.directories) != len(p.replicas):
                yield f"not a directory for each replica: {where}"
    yield from _fallen_epochs(image, before) if before is not None else ()


def _fallen_epochs(image: MetadataImage, before: MetadataImage) -> Iterator[str]:
    for broker_id, old_broker in before.brokers.items():
        if broker_id in image.brokers and image.brokers[broker_id].epoch < old_broker.epoch:
            yield f"M2: epoch of broker {broker_id} fell"
    for name, old_topic in before.topics.items():
        topic = image.topics.get(name)
        if topic is None or topic.id != old_topic.id:
            continue
        for number, old in old_topic.partitions.items():
            new = topic.partitions[number]
            if new.leader_epoch < old.leader_epoch or new.partition_epoch < old.partition_epoch:
                yield f"M2: an epoch of {name}-{number} fell"
            if new != old and new.partition_epoch == old.partition_epoch:
                yield f"M2: {name}-{number} changed without a new partition epoch"
            if new.leader != old.leader and new.leader_epoch == old.leader_epoch:
                yield f"M2: {name}-{number} got another leader without a new leader epoch"
