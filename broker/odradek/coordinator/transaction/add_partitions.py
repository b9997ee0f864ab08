"""AddPartitionsToTxn (key 24): one transaction of a client up to version 3, several of a broker from version 4 on.

A partition that does not exist refuses its whole transaction: UNKNOWN_TOPIC_OR_PARTITION for it,
OPERATION_NOT_ATTEMPTED for the others; so does one of an internal topic, which no client writes (up to version 3):
TOPIC_AUTHORIZATION_FAILED. With `verify_only` (KIP-890) nothing is added, and each partition is told by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from odradek.coordinator.transaction.state import TopicPartition
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.add_partitions_to_txn import (
    AddPartitionsToTxnPartitionResult,
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse,
    AddPartitionsToTxnResult,
    AddPartitionsToTxnTopicResult,
    AddPartitionsToTxnTransaction,
)

if TYPE_CHECKING:
    from odradek.coordinator.transaction_coordinator import TransactionCoordinator

BATCHED_FROM = 4
INTERNAL_TOPICS = frozenset({"__consumer_offsets", "__transaction_state", "__share_group_state"})
FENCED_KNOWN_FROM = 2
"""Before it clients do not know PRODUCER_FENCED and are told INVALID_PRODUCER_EPOCH (KIP-588)."""
HOLD_ALONE_MS = 50
HOLD_TOGETHER_MS = 10
"""How long a transaction waits for the end of the last one of its producer: less where others would wait with it."""
SERVED_BY_BROKERS = 2
"""The transaction.version of clients whose partitions brokers add (version 4 and up)."""


class AddPartitions:
    """One request, until all its transactions are answered."""

    __slots__ = ("_alone", "_coordinator", "_done", "_request", "_response", "_version", "_waiting")

    def __init__(
        self,
        coordinator: TransactionCoordinator,
        version: int,
        request: AddPartitionsToTxnRequest,
        done: Callable[[AddPartitionsToTxnResponse], None],
    ) -> None:
        self._coordinator = coordinator
        self._version = version
        self._request = request
        self._done = done
        self._response = AddPartitionsToTxnResponse()
        self._waiting = 0
        self._alone = True

    def run(self) -> None:
        request = self._request
        if self._version >= BATCHED_FROM:
            transactions = request.transactions
        else:
            transactions = [
                AddPartitionsToTxnTransaction(
                    request.v3_and_below_transactional_id,
                    request.v3_and_below_producer_id,
                    request.v3_and_below_producer_epoch,
                    False,
                    request.v3_and_below_topics,
                )
            ]
        if not transactions:
            self._done(self._response)
            return
        self._waiting = len(transactions)
        self._alone = len(transactions) == 1
        for transaction in transactions:
            self._one(transaction)

    def _one(self, transaction: AddPartitionsToTxnTransaction) -> None:
        coordinator = self._coordinator
        partitions = [(topic.name, index) for topic in transaction.topics for index in topic.partitions]
        refused = {each: error for each in partitions if (error := self._refusal(*each))}
        ids = (transaction.transactional_id, transaction.producer_id, transaction.producer_epoch)
        if refused:
            others = dict.fromkeys(partitions, ErrorCode.OPERATION_NOT_ATTEMPTED)
            self._answered(transaction, (others | refused).items())
        elif transaction.verify_only:
            self._answered(transaction, coordinator.verify_partitions(*ids, partitions).items())
        else:
            client_version = SERVED_BY_BROKERS if self._version >= BATCHED_FROM else 0
            coordinator.add_partitions(
                *ids,
                partitions,
                client_version,
                partial(self._added, transaction, partitions),
                HOLD_ALONE_MS if self._alone else HOLD_TOGETHER_MS,
            )

    def _refusal(self, topic: str, index: int) -> ErrorCode:
        if self._version < BATCHED_FROM and topic in INTERNAL_TOPICS:
            return ErrorCode.TOPIC_AUTHORIZATION_FAILED
        if not self._coordinator.topics.has_partition(topic, index):
            return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        return ErrorCode.NONE

    def _added(
        self,
        transaction: AddPartitionsToTxnTransaction,
        partitions: Iterable[TopicPartition],
        code: ErrorCode,
    ) -> None:
        if code is ErrorCode.PRODUCER_FENCED and self._version < FENCED_KNOWN_FROM:
            code = ErrorCode.INVALID_PRODUCER_EPOCH
        self._answered(transaction, [(each, code) for each in partitions])

    def _answered(
        self,
        transaction: AddPartitionsToTxnTransaction,
        errors: Iterable[tuple[TopicPartition, ErrorCode]],
    ) -> None:
        topics: dict[str, AddPartitionsToTxnTopicResult] = {}
        for (topic, index), error in errors:
            result = AddPartitionsToTxnPartitionResult(index, error)
            topics.setdefault(topic, AddPartitionsToTxnTopicResult(topic)).results_by_partition.append(result)
        if self._version >= BATCHED_FROM:
            self._response.results_by_transaction.append(
                AddPartitionsToTxnResult(transaction.transactional_id, list(topics.values()))
            )
        else:
            self._response.results_by_topic_v3_and_below = list(topics.values())
        self._waiting -= 1
        if self._waiting == 0:
            self._done(self._response)
