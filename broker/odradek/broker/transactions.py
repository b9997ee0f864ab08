"""What the transaction coordinator of a node stands on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odradek.broker.topic_creation import OFFSETS_TOPIC
from odradek.coordinator.transaction_coordinator import TransactionConfig, TransactionCoordinator

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
