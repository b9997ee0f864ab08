"""What the transaction coordinator of a node stands on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odradek.broker import txn_verification
from odradek.broker.topic_creation import OFFSETS_TOPIC, TRANSACTIONS_TOPIC
from odradek.broker.txn_verification import TxnVerification
from odradek.coordinator.transaction_coordinator import TransactionConfig, TransactionCoordinator
from odradek.wire.apis import ApiKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from odradek.broker.node import Node
    from odradek.coordinator.runtime import PartitionWriter
    from odradek.coordinator.transaction.ports import Markers, TopicPartitions

TRANSACTION_VERSION = "transaction.version"


def transaction_coordinator(
    node: Node,
    writer: PartitionWriter,
    markers: Markers,
    topics: TopicPartitions,
    on_failed: Callable[[int], None],
) -> TransactionCoordinator:
    """The coordinator of the transactional ids whose partitions of `__transaction_state` this node will lead."""
    groups = node.coordinator
    return TransactionCoordinator(
        TransactionConfig.from_configs(node.config.static),
        node.timers,
        node.clock,
        writer,
        node.config.transaction_state_log_num_partitions,
        producer_ids=node.producer_ids,
        markers=markers,
        topics=topics,
        offsets_partition_for=lambda group: (OFFSETS_TOPIC, groups.partition_for(group)),
        transaction_version=lambda: node.image.features.get(TRANSACTION_VERSION, 0),
        log=node.ports.log,
        on_failed=on_failed,
    )


def verification(node: Node) -> TxnVerification:
    """What asks coordinators before the first write of a transaction; and this node answers others."""

    def leader_of(transactional_id: str) -> int:
        topic = node.image.topics.get(TRANSACTIONS_TOPIC)
        index = node.transactions.partition_for(transactional_id)
        partition = topic.partitions.get(index) if topic is not None else None
        return partition.leader if partition is not None else -1

    node.between_brokers.serve(
        ApiKey.ADD_PARTITIONS_TO_TXN,
        txn_verification.OLDEST_VERSION,
        lambda request, version, done: node.transactions.add_partitions_to_txn(version, request, done),
    )
    return TxnVerification(
        node.between_brokers,
        leader_of,
        lambda key: node.config.layers(node.image.configs).get(key),
        node.clock,
        node.timers,
    )
