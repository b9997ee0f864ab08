"""The coordinators of a node: of groups, of transactions, and what each of them stands on.

A coordinator serves what belongs to the partitions of its internal topic that this node leads: a partition is loaded
when its leadership begins, and let go when that ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from odradek.broker import txn_verification
from odradek.broker.coordinator_log import CoordinatorLog
from odradek.broker.offsets_verification import OffsetsVerification
from odradek.broker.topic_creation import OFFSETS_TOPIC, TRANSACTIONS_TOPIC
from odradek.broker.txn_markers import TxnMarkers
from odradek.broker.txn_verification import TxnVerification
from odradek.coordinator.config import GroupConfig
from odradek.coordinator.group_coordinator import GroupCoordinator
from odradek.coordinator.transaction_coordinator import TransactionConfig, TransactionCoordinator
from odradek.metadata.configs import ResourceType
from odradek.wire.apis import ApiKey

if TYPE_CHECKING:
    from odradek.broker.node import Node
    from odradek.broker.partition import Partition
    from odradek.coordinator.runtime import CoordinatorRuntime
    from odradek.metadata.delta import MetadataDelta

TRANSACTION_VERSION = "transaction.version"
UNHEARD_BEATS = 3
"""So many heartbeats without an answer, and another broker may lead soon: well before the session is over."""


class Topics:
    """What coordinators ask about topics."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def topic_id(self, name: str) -> bytes | None:
        topic = self._node.image.topics.get(name)
        return None if topic is None else topic.id

    def topic_name(self, topic_id: bytes) -> str | None:
        return self._node.image.topic_names.get(topic_id)

    def has_partition(self, name: str, partition: int) -> bool:
        topic = self._node.image.topics.get(name)
        return topic is not None and partition in topic.partitions

    def partition_count(self, name: str) -> int:
        topic = self._node.image.topics.get(name)
        return 0 if topic is None else len(topic.partitions)

    def partition_racks(self, name: str) -> list[list[str]]:
        image = self._node.image
        brokers = (
            [image.brokers[broker_id] for broker_id in partition.replicas if broker_id in image.brokers]
            for partition in image.topics[name].partitions.values()
        )
        return [[broker.rack for broker in each if broker.rack is not None] for each in brokers]

    def topic_names(self) -> Iterable[str]:
        return self._node.image.topics

    def metadata_version(self) -> int:
        return self._node.image.offset


class Coordinators:
    """Built by a node once it has its replicas, its producer ids and its way to other brokers."""

    def __init__(self, node: Node) -> None:
        ports, image = node.ports, lambda: node.image
        self._node = node
        topics = Topics(node)
        offsets_log, transactions_log = self._log(OFFSETS_TOPIC), self._log(TRANSACTIONS_TOPIC)
        self.groups = GroupCoordinator(
            config=GroupConfig.from_configs(node.config.static),
            timers=ports.timers,
            clock=ports.clock,
            writer=offsets_log,
            rng=ports.rng,
            partition_count=node.config.offsets_topic_num_partitions,
            topics=topics,
            group_configs=lambda group_id: node.image.config(ResourceType.GROUP, group_id),
            broker_config=self._dynamic_config,
            verification=OffsetsVerification(node),
            log=ports.log,
            on_failed=lambda index: self._reload(OFFSETS_TOPIC, index),
        )
        self.markers = TxnMarkers(
            node.between_brokers, node.replicas, self.groups, ports.clock, ports.timers, image
        )
        self.transactions = TransactionCoordinator(
            TransactionConfig.from_configs(node.config.static),
            ports.timers,
            ports.clock,
            transactions_log,
            node.config.transaction_state_log_num_partitions,
            producer_ids=node.producer_ids,
            markers=self.markers,
            topics=topics,
            offsets_partition_for=lambda group: (OFFSETS_TOPIC, self.groups.partition_for(group)),
            transaction_version=lambda: node.image.features.get(TRANSACTION_VERSION, 0),
            log=ports.log,
            on_failed=lambda index: self._reload(TRANSACTIONS_TOPIC, index),
        )
        node.between_brokers.serve(
            ApiKey.ADD_PARTITIONS_TO_TXN,
            txn_verification.OLDEST_VERSION,
            lambda request, version, done: self.transactions.add_partitions_to_txn(version, request, done),
        )
        self.verification = TxnVerification(
            node.between_brokers,
            self._leader_for_transactional_id,
            lambda key: node.config.layers(node.image.configs).get(key),
            ports.clock,
            ports.timers,
        )
        self.led: dict[str, tuple[CoordinatorLog, CoordinatorRuntime[Any]]] = {
            OFFSETS_TOPIC: (offsets_log, self.groups.runtime),
            TRANSACTIONS_TOPIC: (transactions_log, self.transactions.runtime),
        }
        """The internal topics whose leaders coordinate something, and who does it."""
        for topic, (_, runtime) in self.led.items():
            runtime.is_coming = partial(self._leads, topic)
            runtime.in_doubt = lambda: node.replicas.suspended
            runtime.must_prove = self._must_prove

    def leadership_changed(self, partition: Partition, leads: bool) -> None:
        if partition.topic not in self.led:
            return
        log, runtime = self.led[partition.topic]
        if leads:
            log.load(partition, runtime)
        else:
            runtime.unload(partition.index)

    def trusted(self) -> None:
        """The controller says that this broker leads what it led before it did not run for a while. As after a
        failover all is read again: members whose signs of life nobody heard meanwhile get a new session.
        """
        for topic, (_, runtime) in self.led.items():
            for index in runtime.partitions():
                runtime.unload(index)
                self._reload(topic, index)

    def on_metadata(self, delta: MetadataDelta) -> None:
        for name, coordinator in ((OFFSETS_TOPIC, self.groups), (TRANSACTIONS_TOPIC, self.transactions)):
            topic = self._node.image.topics.get(name) if name in delta.topics_created else None
            if topic is not None:
                # What is configured is for a topic that is still to be made; as in Kafka, one that is there counts,
                # with the partitions that it had when this node started.
                coordinator.partition_count = len(topic.partitions)
        changed = delta.topics_created | delta.topics_changed | delta.topics_deleted.keys()
        if changed:
            self.groups.on_topics_changed(changed, created=bool(delta.topics_created))
        if delta.topics_deleted:
            self.groups.on_topics_deleted(
                set(delta.topics_deleted), {name: topic.id for name, topic in delta.topics_deleted.items()}
            )

    def _log(self, topic: str) -> CoordinatorLog:
        ports = self._node.ports
        return CoordinatorLog(
            topic, self._node.replicas, ports.clock, ports.timers, ports.syncer, ports.log.warning
        )

    def _reload(self, topic: str, index: int) -> None:
        """A write of a coordinator was lost: its state is read again from the log."""
        partition = self._node.partitions.get((topic, index))
        if partition is not None and partition.leads:
            self.leadership_changed(partition, True)

    def _must_prove(self) -> bool:
        node = self._node
        unheard_ms = UNHEARD_BEATS * node.config.broker_heartbeat_interval_ms
        return node.ports.peers is not None and node.lifecycle.unanswered_ms() > unheard_ms

    def _leads(self, name: str, index: int) -> bool:
        topic = self._node.image.topics.get(name)
        partition = topic.partitions.get(index) if topic is not None else None
        return partition is not None and partition.leader == self._node.config.node_id

    def _leader_for_transactional_id(self, transactional_id: str) -> int:
        """The broker that leads its partition of `__transaction_state`; -1 without any."""
        topic = self._node.image.topics.get(TRANSACTIONS_TOPIC)
        index = self.transactions.partition_for(transactional_id)
        partition = topic.partitions.get(index) if topic is not None else None
        return partition.leader if partition is not None else -1

    def _dynamic_config(self, key: str) -> str | None:
        """What was set for this broker, or for all, while it runs."""
        for name in (str(self._node.config.node_id), ""):
            value = self._node.image.config(ResourceType.BROKER, name).get(key)
            if value is not None:
                return value
        return None
