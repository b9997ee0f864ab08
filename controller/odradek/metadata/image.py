"""The metadata image: the state that the metadata log adds up to at one offset.

Images are persistent by convention: nobody changes one after it was published; delta.py builds the next one
by copying only what records touched. What a step costs: one shallow `dict.copy` of each *kind* of thing
touched (10,000 topics: some 100 µs), and one of the partitions of each touched topic. Everything else is
shared between images, so keeping an old one costs little.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from odradek.metadata.records import (
    NO_LEADER,
    RECOVERED,
    ConfigRecord,
    FeatureLevelRecord,
    FeatureRange,
    Ints,
    PartitionRecord,
    ProducerIdsRecord,
    Record,
    RegisterBrokerRecord,
    TopicRecord,
    Uuids,
)

TOPIC_RESOURCE = 2
BROKER_RESOURCE = 4
"""Resource types as configs.ResourceType has them; here so that an image does not load all configuration
definitions.
"""

MIGRATING_DIRECTORY = bytes(16)
"""The replica is from a time before directories had ids."""
UNASSIGNED_DIRECTORY = bytes(15) + b"\x01"
"""The broker has not said yet in which of its directories the replica lives (KIP-858)."""
LOST_DIRECTORY = bytes(15) + b"\x02"
"""In none that is online."""
RESERVED_DIRECTORIES = 100
"""Directory ids below this number (as an integer) are reserved."""


@dataclass(slots=True)
class PartitionImage:
    """One partition. `leader` is NO_LEADER or a member of `isr`; `elr` (KIP-966) is disjoint from `isr`."""

    replicas: Ints
    isr: Ints
    leader: int
    leader_epoch: int = 0
    partition_epoch: int = 0
    elr: Ints = ()
    last_known_elr: Ints = ()
    """The last leader of a partition that has lost ISR and ELR."""
    adding: Ints = ()
    removing: Ints = ()
    directories: Uuids = ()
    """Directory of each replica, in the order of `replicas`."""
    leader_recovery_state: int = RECOVERED

    @property
    def has_leader(self) -> bool:
        return self.leader != NO_LEADER

    def directory(self, broker_id: int) -> bytes:
        """The directory of a broker's replica; UNASSIGNED_DIRECTORY when it is not known. KeyError if it
        has none.
        """
        if broker_id not in self.replicas:
            raise KeyError(broker_id)
        return self.directories[self.replicas.index(broker_id)] if self.directories else UNASSIGNED_DIRECTORY


@dataclass(slots=True)
class TopicImage:
    """A topic; `partitions` is dense and in order: 0, 1, 2 …"""

    name: str
    id: bytes
    partitions: dict[int, PartitionImage] = field(default_factory=dict)


@dataclass(slots=True)
class BrokerImage:
    """A registered broker."""

    id: int
    epoch: int
    incarnation: bytes
    listeners: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    """Listener name → (host, port, security protocol)."""
    rack: str | None = None
    fenced: bool = True
    in_controlled_shutdown: bool = False
    features: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Supported levels, lowest and highest."""
    directories: Uuids = ()
    """Ids of the log directories that are online."""
    complete_epoch: int = -1
    """Earlier epoch for which its data is complete, as long as this incarnation has not been unfenced."""
    lost_directories: bool = False
    """A directory of this incarnation has failed, and left `directories`."""
    cordoned: Uuids = ()
    """Ids of the directories that are to get no new replicas (KIP-1066)."""

    @property
    def active(self) -> bool:
        """Whether it may lead and be in an ISR."""
        return not self.fenced and not self.in_controlled_shutdown

    @property
    def takes_replicas(self) -> bool:
        """Whether there is a directory for new replicas."""
        return any(directory not in self.cordoned for directory in self.directories)

    def has_online_directory(self, directory: bytes) -> bool:
        """Whether a replica in `directory` is usable. One whose directory is not known is taken to be."""
        return directory in self.directories or directory in (UNASSIGNED_DIRECTORY, MIGRATING_DIRECTORY)


@dataclass(slots=True)
class MetadataImage:
    """The whole cluster at `offset` (of the last applied record, -1: nothing yet) and the Raft `epoch` of
    that record.
    """

    cluster_id: str = ""
    controller_id: int = -1
    """Leader of the metadata quorum, -1 while there is none. Known from Raft, not from the log."""
    offset: int = -1
    epoch: int = -1
    topics: dict[str, TopicImage] = field(default_factory=dict)
    topic_names: dict[bytes, str] = field(default_factory=dict)
    brokers: dict[int, BrokerImage] = field(default_factory=dict)
    configs: dict[tuple[int, str], dict[str, str]] = field(default_factory=dict)
    """(resource type, resource name) → its own values. Broker "" holds the cluster-wide defaults."""
    features: dict[str, int] = field(default_factory=dict)
    """Finalized levels above 0."""
    next_producer_id: int = 0
    next_producer_broker: tuple[int, int] = (-1, -1)
    """(broker id, broker epoch) that got the last block of producer ids."""

    def topic_by_id(self, topic_id: bytes) -> TopicImage | None:
        name = self.topic_names.get(topic_id)
        return None if name is None else self.topics[name]

    def config(self, resource_type: int, name: str) -> dict[str, str]:
        """A resource's own values; not to be changed."""
        return self.configs.get((resource_type, name)) or {}

    def private_copy(self) -> MetadataImage:
        """An image to be changed in place: its dictionaries are new, what they hold is shared."""
        return replace(
            self,
            topics=self.topics.copy(),
            topic_names=self.topic_names.copy(),
            brokers=self.brokers.copy(),
            configs=self.configs.copy(),
            features=self.features.copy(),
        )

    def records(self) -> Iterator[Record]:
        """The records that build this image from an empty one: what a snapshot holds."""
        for name, level in self.features.items():
            yield FeatureLevelRecord(name, level)
        for broker in self.brokers.values():
            yield _broker_record(broker)
        for topic in self.topics.values():
            yield TopicRecord(topic.name, topic.id)
            for partition_id, partition in topic.partitions.items():
                yield partition_record(topic.id, partition_id, partition)
        for (resource_type, resource_name), values in self.configs.items():
            for name, value in values.items():
                yield ConfigRecord(resource_type, resource_name, name, value)
        if self.next_producer_id:
            yield ProducerIdsRecord(*self.next_producer_broker, self.next_producer_id)


def partition_record(topic_id: bytes, partition_id: int, partition: PartitionImage) -> PartitionRecord:
    """The record that creates a partition as it stands."""
    return PartitionRecord(
        topic_id=topic_id,
        partition_id=partition_id,
        replicas=partition.replicas,
        isr=partition.isr,
        leader=partition.leader,
        leader_epoch=partition.leader_epoch,
        partition_epoch=partition.partition_epoch,
        directories=partition.directories,
        adding_replicas=partition.adding,
        removing_replicas=partition.removing,
        elr=partition.elr,
        last_known_elr=partition.last_known_elr,
        leader_recovery_state=partition.leader_recovery_state,
    )


def _broker_record(broker: BrokerImage) -> RegisterBrokerRecord:
    features: list[FeatureRange] = [(name, low, high) for name, (low, high) in broker.features.items()]
    return RegisterBrokerRecord(
        broker_id=broker.id,
        incarnation_id=broker.incarnation,
        broker_epoch=broker.epoch,
        endpoints=tuple((name, *endpoint) for name, endpoint in broker.listeners.items()),
        features=tuple(features),
        rack=broker.rack,
        fenced=broker.fenced,
        in_controlled_shutdown=broker.in_controlled_shutdown,
        directories=broker.directories,
        complete_epoch=broker.complete_epoch,
        lost_directories=broker.lost_directories,
        cordoned=broker.cordoned,
    )
