"""What the transaction coordinator of a node stands on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odradek.broker import txn_verification
from odradek.broker.api.produce_transactional import ASKS_MAX
from odradek.broker.topic_creation import OFFSETS_TOPIC, TRANSACTIONS_TOPIC
from odradek.broker.txn_verification import Support, TxnVerification
from odradek.coordinator.transaction_coordinator import TransactionConfig, TransactionCoordinator
from odradek.wire.apis import ApiKey
from odradek.wire.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    from collections.abc import Callable

    from odradek.broker.node import Node
    from odradek.coordinator.runtime import PartitionWriter, Producer
    from odradek.coordinator.transaction.ports import Markers, TopicPartitions
    from odradek.storage.producers import Verification

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


class OffsetsVerification:
    """The group coordinator's `Verification`: of the partition of `__consumer_offsets` that is led here."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def verify(
        self,
        transactional_id: str,
        producer: Producer,
        partition: int,
        api_version: int,
        done: Callable[[ErrorCode], None],
    ) -> None:
        """If a transaction has ended here while the coordinator was asked, it is asked again: a producer does not wait
        for the markers of one before it begins the next. In the end, INVALID_TXN_STATE.
        """
        support = Support.of_offset_commit(api_version)
        try:
            log = self._node.leader_of(OFFSETS_TOPIC, partition).log
        except KafkaError as error:
            done(error.code)
            return
        verification, producers = self._node.txn_verification, log.producers
        if log.in_transaction(*producer) or not verification.is_needed(support):
            done(ErrorCode.NONE)
            return
        where = OFFSETS_TOPIC, partition
        asked = 0

        def ask() -> None:
            nonlocal asked
            asked += 1
            guard = producers.begin_verification(producer.id, 0)
            verification.ask(transactional_id, *producer, where, support, lambda code: answered(code, guard))

        def answered(code: ErrorCode, guard: Verification) -> None:
            current = producers.verifying.get(producer.id) is guard
            if code is not ErrorCode.NONE:
                if current:
                    del producers.verifying[producer.id]
            elif not current and not log.in_transaction(*producer):
                if asked < ASKS_MAX:
                    ask()
                    return
                code = ErrorCode.INVALID_TXN_STATE
            done(code)

        ask()
