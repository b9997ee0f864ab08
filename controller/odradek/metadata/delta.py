"""Replay: the one place where metadata records become state, for controllers and brokers, live and in
recovery.

A `MetadataDelta` starts from an image, takes records by `replay` and gives the next image by `apply`; and
it remembers what changed, which is what publishers go by. It copies what it is about to change and nothing
else (see image.py for the cost), so the image it started from stays valid. The active controller, whose
image nobody else sees, has its delta change the dictionaries of the image in place: its requests cost the
same whatever the number of topics.

Epochs (M2): a change raises a partition's epoch by one, and its leader epoch by one when it names a leader.
A record that would make a broker epoch fall, or that refers to something that is not there, is a BadRecord.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

from odradek.metadata.image import (
    TOPIC_RESOURCE,
    BrokerImage,
    MetadataImage,
    PartitionImage,
    TopicImage,
)
from odradek.metadata.records import (
    NO_LEADER_CHANGE,
    BadRecord,
    BrokerRegistrationChangeRecord,
    ConfigRecord,
    FeatureLevelRecord,
    NoOpRecord,
    PartitionChangeRecord,
    PartitionRecord,
    ProducerIdsRecord,
    Record,
    RegisterBrokerRecord,
    RemoveTopicRecord,
    TopicRecord,
    UnregisterBrokerRecord,
)

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class MetadataDelta:
    """What changed between `base` and the image that `apply` gives."""

    __slots__ = (
        "_brokers",
        "_configs",
        "_features",
        "_in_place",
        "_next_producer_broker",
        "_next_producer_id",
        "_owned_configs",
        "_owned_topics",
        "_sealed",
        "_topic_names",
        "_topics",
        "base",
        "brokers_changed",
        "configs_changed",
        "controller_changed",
        "features_changed",
        "topics_changed",
        "topics_created",
        "topics_deleted",
    )

    def __init__(self, base: MetadataImage, *, in_place: bool = False) -> None:
        """`in_place`: `base` is the caller's own, and of no use to him afterwards."""
        self.base = base
        self._in_place = in_place
        self.topics_created: set[str] = set()
        self.topics_changed: set[str] = set()
        """Topics of `base` with new or changed partitions; never a created or deleted one."""
        self.topics_deleted: dict[str, TopicImage] = {}
        """Topics of `base` that are gone, as they last were. A name that was taken again is in
        `topics_created` too.
        """
        self.configs_changed: set[tuple[int, str]] = set()
        self.brokers_changed: set[int] = set()
        """Brokers registered, changed or unregistered."""
        self.features_changed: set[str] = set()
        self.controller_changed = False
        """Another node, or none, leads the metadata quorum."""
        self._topics = base.topics
        self._topic_names = base.topic_names
        self._brokers = base.brokers
        self._configs = base.configs
        self._features = base.features
        self._next_producer_id = base.next_producer_id
        self._next_producer_broker = base.next_producer_broker
        self._owned_topics: set[str] = set()
        self._owned_configs: set[tuple[int, str]] = set()
        self._sealed = False

    def __bool__(self) -> bool:
        """Whether anything changed that a publisher can see by name."""
        return bool(
            self.topics_created
            or self.topics_changed
            or self.topics_deleted
            or self.configs_changed
            or self.brokers_changed
            or self.features_changed
            or self.controller_changed
        )

    def replay(self, record: Record) -> None:
        """Apply one record. BadRecord when it contradicts the state; the delta must then be thrown away."""
        assert not self._sealed, "replay after apply would change a published image"
        _REPLAY[type(record)](self, record)

    def apply(self, offset: int, epoch: int) -> MetadataImage:
        """The image after everything replayed, at `offset`; the delta takes no more records."""
        self._sealed = True
        return MetadataImage(
            cluster_id=self.base.cluster_id,
            controller_id=self.base.controller_id,
            offset=offset,
            epoch=epoch,
            topics=self._topics,
            topic_names=self._topic_names,
            brokers=self._brokers,
            configs=self._configs,
            features=self._features,
            next_producer_id=self._next_producer_id,
            next_producer_broker=self._next_producer_broker,
        )

    @classmethod
    def between(cls, old: MetadataImage, new: MetadataImage) -> MetadataDelta:
        """What a publisher that knows `old` has to be told to know `new`: after a snapshot, or for one that
        comes late.
        """
        delta = cls(old)
        for name, topic in old.topics.items():
            successor = new.topics.get(name)
            if successor is None or successor.id != topic.id:
                delta.topics_deleted[name] = topic
            elif successor is not topic and successor != topic:
                delta.topics_changed.add(name)
        delta.topics_created = {
            name for name in new.topics if name not in old.topics or name in delta.topics_deleted
        }
        delta.configs_changed = _differences(old.configs, new.configs)
        delta.brokers_changed = _differences(old.brokers, new.brokers)
        delta.features_changed = _differences(old.features, new.features)
        delta.controller_changed = old.controller_id != new.controller_id
        return delta

    # -- copy before the first change ----------------------------------------------------------------------

    def _own_topics(self) -> dict[str, TopicImage]:
        if self._topics is self.base.topics and not self._in_place:
            self._topics = self.base.topics.copy()
            self._topic_names = self.base.topic_names.copy()
        return self._topics

    def _own_topic(self, topic_id: bytes) -> TopicImage:
        name = self._topic_names.get(topic_id)
        if name is None:
            raise BadRecord(f"there is no topic with id {topic_id.hex()}")
        if name not in self._owned_topics:
            topic = self._own_topics()[name]
            self._topics[name] = TopicImage(name, topic_id, topic.partitions.copy())
            self._owned_topics.add(name)
            self.topics_changed.add(name)
        return self._topics[name]

    def _own_brokers(self) -> dict[int, BrokerImage]:
        if self._brokers is self.base.brokers and not self._in_place:
            self._brokers = self.base.brokers.copy()
        return self._brokers

    def _own_configs(self) -> dict[tuple[int, str], dict[str, str]]:
        if self._configs is self.base.configs and not self._in_place:
            self._configs = self.base.configs.copy()
        return self._configs

    # -- one method per record type ------------------------------------------------------------------------

    def _topic(self, record: TopicRecord) -> None:
        if record.name in self._topics:
            raise BadRecord(f"topic '{record.name}' exists already")
        if record.topic_id in self._topic_names:
            raise BadRecord(
                f"topic id {record.topic_id.hex()} is taken by '{self._topic_names[record.topic_id]}'"
            )
        self._own_topics()[record.name] = TopicImage(record.name, record.topic_id)
        self._topic_names[record.topic_id] = record.name
        self._owned_topics.add(record.name)
        self.topics_created.add(record.name)

    def _remove_topic(self, record: RemoveTopicRecord) -> None:
        name = self._topic_names.get(record.topic_id)
        if name is None:
            raise BadRecord(f"there is no topic with id {record.topic_id.hex()} to remove")
        topic = self._own_topics().pop(name)
        del self._topic_names[record.topic_id]
        self._owned_topics.discard(name)
        self.topics_changed.discard(name)
        if name in self.topics_created:
            self.topics_created.discard(name)
        else:
            self.topics_deleted[name] = topic
        resource = (TOPIC_RESOURCE, name)
        if resource in self._configs:
            del self._own_configs()[resource]
            self._owned_configs.discard(resource)
            self.configs_changed.add(resource)

    def _partition(self, record: PartitionRecord) -> None:
        topic = self._own_topic(record.topic_id)
        if record.partition_id != len(topic.partitions):
            raise BadRecord(
                f"partition {record.partition_id} of '{topic.name}' where {len(topic.partitions)} is next"
            )
        topic.partitions[record.partition_id] = PartitionImage(
            replicas=record.replicas,
            isr=record.replicas if record.isr == record.replicas else record.isr,
            leader=record.leader,
            leader_epoch=record.leader_epoch,
            partition_epoch=record.partition_epoch,
            elr=record.elr,
            last_known_elr=record.last_known_elr,
            adding=record.adding_replicas,
            removing=record.removing_replicas,
            directories=record.directories,
            leader_recovery_state=record.leader_recovery_state,
        )

    def _partition_change(self, record: PartitionChangeRecord) -> None:
        topic = self._own_topic(record.topic_id)
        before = topic.partitions.get(record.partition_id)
        if before is None:
            raise BadRecord(f"there is no partition {record.partition_id} of '{topic.name}'")
        topic.partitions[record.partition_id] = merge(before, record)

    def _register_broker(self, record: RegisterBrokerRecord) -> None:
        before = self._brokers.get(record.broker_id)
        if before is not None:
            amended = before.incarnation == record.incarnation_id
            if record.broker_epoch < before.epoch or (record.broker_epoch == before.epoch and not amended):
                raise BadRecord(
                    f"broker {record.broker_id}: epoch {record.broker_epoch} after {before.epoch}"
                )
        self._own_brokers()[record.broker_id] = BrokerImage(
            id=record.broker_id,
            epoch=record.broker_epoch,
            incarnation=record.incarnation_id,
            listeners={name: (host, port, protocol) for name, host, port, protocol in record.endpoints},
            rack=record.rack,
            fenced=record.fenced,
            in_controlled_shutdown=record.in_controlled_shutdown,
            features={name: (low, high) for name, low, high in record.features},
            directories=record.directories,
            complete_epoch=record.complete_epoch,
            lost_directories=record.lost_directories,
            cordoned=record.cordoned,
        )
        self.brokers_changed.add(record.broker_id)

    def _change_broker(self, record: BrokerRegistrationChangeRecord) -> None:
        before = self._registered(record.broker_id, record.broker_epoch)
        self._own_brokers()[record.broker_id] = BrokerImage(
            id=before.id,
            epoch=before.epoch,
            incarnation=before.incarnation,
            listeners=before.listeners,
            rack=before.rack,
            fenced=before.fenced if record.fenced is None else record.fenced,
            in_controlled_shutdown=_or(record.in_controlled_shutdown, before.in_controlled_shutdown),
            features=before.features,
            directories=_or(record.directories, before.directories),
            complete_epoch=-1 if record.fenced is False else before.complete_epoch,
            lost_directories=before.lost_directories or record.directories is not None,
            cordoned=_or(record.cordoned, before.cordoned),
        )
        self.brokers_changed.add(record.broker_id)

    def _unregister_broker(self, record: UnregisterBrokerRecord) -> None:
        self._registered(record.broker_id, record.broker_epoch)
        del self._own_brokers()[record.broker_id]
        self.brokers_changed.add(record.broker_id)

    def _registered(self, broker_id: int, broker_epoch: int) -> BrokerImage:
        broker = self._brokers.get(broker_id)
        if broker is None:
            raise BadRecord(f"broker {broker_id} is not registered")
        if broker.epoch != broker_epoch:
            raise BadRecord(f"broker {broker_id} has epoch {broker.epoch}, not {broker_epoch}")
        return broker

    def _config(self, record: ConfigRecord) -> None:
        resource = (record.resource_type, record.resource_name)
        configs = self._own_configs()
        if resource not in self._owned_configs:
            configs[resource] = dict(configs.get(resource, ()))
            self._owned_configs.add(resource)
        values = configs[resource]
        if record.value is None:
            values.pop(record.name, None)
        else:
            values[record.name] = record.value
        if not values:
            del configs[resource]
            self._owned_configs.discard(resource)
        self.configs_changed.add(resource)

    def _feature_level(self, record: FeatureLevelRecord) -> None:
        if self._features is self.base.features and not self._in_place:
            self._features = self.base.features.copy()
        if record.level == 0:
            self._features.pop(record.name, None)
        else:
            self._features[record.name] = record.level
        self.features_changed.add(record.name)

    def _producer_ids(self, record: ProducerIdsRecord) -> None:
        if record.next_producer_id <= self._next_producer_id:
            raise BadRecord(f"next producer id {record.next_producer_id} after {self._next_producer_id}")
        self._next_producer_id = record.next_producer_id
        self._next_producer_broker = (record.broker_id, record.broker_epoch)

    def _no_op(self, record: NoOpRecord) -> None:
        pass


def merge(before: PartitionImage, change: PartitionChangeRecord) -> PartitionImage:
    """A partition after a change: one partition epoch later, one leader epoch later if the change names a
    leader.
    """
    elects = change.leader != NO_LEADER_CHANGE
    return PartitionImage(
        replicas=_or(change.replicas, before.replicas),
        isr=_or(change.isr, before.isr),
        leader=change.leader if elects else before.leader,
        leader_epoch=before.leader_epoch + 1 if elects else before.leader_epoch,
        partition_epoch=before.partition_epoch + 1,
        elr=_or(change.elr, before.elr),
        last_known_elr=_or(change.last_known_elr, before.last_known_elr),
        adding=_or(change.adding_replicas, before.adding),
        removing=_or(change.removing_replicas, before.removing),
        directories=_or(change.directories, before.directories),
        leader_recovery_state=_or(change.leader_recovery_state, before.leader_recovery_state),
    )


def _or(value: T | None, otherwise: T) -> T:
    return otherwise if value is None else value


def _differences(old: Mapping[K, object], new: Mapping[K, object]) -> set[K]:
    """Keys that are in one of the two only, or that differ."""
    return {
        name
        for name in old.keys() | new.keys()
        if name not in old or name not in new or old[name] != new[name]
    }


_REPLAY: dict[type[Record], Callable[[MetadataDelta, Any], None]] = {
    TopicRecord: MetadataDelta._topic,
    RemoveTopicRecord: MetadataDelta._remove_topic,
    PartitionRecord: MetadataDelta._partition,
    PartitionChangeRecord: MetadataDelta._partition_change,
    RegisterBrokerRecord: MetadataDelta._register_broker,
    BrokerRegistrationChangeRecord: MetadataDelta._change_broker,
    UnregisterBrokerRecord: MetadataDelta._unregister_broker,
    ConfigRecord: MetadataDelta._config,
    FeatureLevelRecord: MetadataDelta._feature_level,
    ProducerIdsRecord: MetadataDelta._producer_ids,
    NoOpRecord: MetadataDelta._no_op,
}
