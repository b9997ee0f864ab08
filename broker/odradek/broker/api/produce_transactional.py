"""Produce within transactions: a batch is taken when its transaction is known to be open (KIP-890).

While a transaction of this producer and epoch is under way in the partition, that is known. Else its coordinator is
asked first (`txn_verification`), and the batch, copied out of the connection's buffer, waits for the answer. If a
marker of the producer has come meanwhile, what was answered is of the past: the coordinator is asked again.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from odradek.broker.txn_verification import Support, is_overtaken, produce_error
from odradek.coordinator.runtime import Producer
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.records import ATTRIBUTES_AT, HEADER_SIZE, PRODUCER_ID_AT, TRANSACTIONAL_FLAG

if TYPE_CHECKING:
    from collections.abc import Callable

    from odradek.broker.node import Node
    from odradek.broker.partition import Partition
    from odradek.storage.log import AppendResult
    from odradek.storage.producers import Verification

_producer = Struct(">qhi").unpack_from
"""Producer id, epoch and first sequence, which stand side by side in a batch."""


def is_transactional(batch: memoryview) -> bool:
    return bool(batch[ATTRIBUTES_AT + 1] & TRANSACTIONAL_FLAG)


def is_open(partition: Partition, request: memoryview, at: int) -> bool:
    """Whether the batch at `at` of a request, of which nothing is known yet, is of a transaction under way here."""
    if len(request) - at < HEADER_SIZE or not request[at + ATTRIBUTES_AT + 1] & TRANSACTIONAL_FLAG:
        return False
    producer_id, epoch, _ = _producer(request, at + PRODUCER_ID_AT)
    return partition.log.in_transaction(producer_id, epoch)


def append(
    node: Node,
    transactional_id: str | None,
    partition: Partition,
    batch: memoryview,
    version: int,
    later: Callable[[AppendResult | KafkaError], None],
) -> AppendResult | None:
    """Append at once, or None: `later(result or error)` when the coordinator has answered. KafkaError refuses."""
    if transactional_id is None:
        raise KafkaError(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    producer_id, epoch, sequence = _producer(batch, PRODUCER_ID_AT)
    support = Support.of_produce(version)
    log = partition.log
    if log.in_transaction(producer_id, epoch) or not node.txn_verification.is_needed(support):
        return partition.append_transactional(batch, node.wall_ms)
    known = log.producers.entries.get(producer_id)
    if known is not None and epoch < known.epoch:
        raise KafkaError(
            ErrorCode.INVALID_PRODUCER_EPOCH,
            f"Epoch of producer {producer_id} is {epoch}, which is smaller than the last seen epoch {known.epoch}",
        )
    if not node.txn_verification.hold(len(batch)):
        log.producers.begin_verification(producer_id, sequence)  # what comes behind it does not go before it
        raise produce_error(ErrorCode.COORDINATOR_NOT_AVAILABLE)
    waiting = _Waiting(node, partition, Producer(producer_id, epoch), support, bytearray(batch), later)
    where = partition.topic, partition.index
    node.txn_verification.ask_guarded(
        log, transactional_id, waiting.producer, sequence, where, support, waiting.answered
    )
    return None


class _Waiting:
    """A batch whose transaction is being asked about."""

    __slots__ = ("_batch", "_later", "_node", "_partition", "_support", "producer")

    def __init__(
        self,
        node: Node,
        partition: Partition,
        producer: Producer,
        support: Support,
        batch: bytearray,
        later: Callable[[AppendResult | KafkaError], None],
    ) -> None:
        self._node = node
        self._partition = partition
        self.producer = producer
        self._support = support
        self._batch = batch
        self._later = later

    def answered(self, code: ErrorCode, guard: Verification) -> None:
        self._node.txn_verification.release(len(self._batch))
        try:
            result: AppendResult | KafkaError = self._append(code, guard)
        except KafkaError as error:
            result = error
        self._later(result)

    def _append(self, code: ErrorCode, guard: Verification) -> AppendResult:
        partition = self._partition
        if code is not ErrorCode.NONE:
            raise produce_error(code)
        if self._node.leader_of(partition.topic, partition.index) is not partition:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        if is_overtaken(partition.log, self.producer, guard):
            raise KafkaError(ErrorCode.INVALID_TXN_STATE, "Record was not part of an ongoing transaction")
        self._check_first_sequence(guard)
        partition.refuse_if_too_few_in_sync()
        return partition.append_transactional(memoryview(self._batch), self._node.clock.wall_ms())

    def _check_first_sequence(self, guard: Verification) -> None:
        """What waits with others is taken in order: none before the first of them. Clients of transaction version 2
        begin every epoch with 0, and lose no state that would explain another.
        """
        partition = self._partition
        known = partition.log.producers.entries.get(self.producer.id)
        *_, sequence = _producer(self._batch, PRODUCER_ID_AT)
        where = f"at offset {partition.log.log_end_offset} in partition {partition.topic}-{partition.index}"
        waits = partition.log.producers.verifying.get(self.producer.id) is guard
        if waits and sequence > guard.lowest_sequence:
            raise KafkaError(
                ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
                f"Out of order sequence number for producer {self.producer.id} {where}: {sequence} (incoming seq. "
                f"number), {guard.lowest_sequence} (earliest seen sequence)",
            )
        if self._support is Support.IMPLICIT and sequence != 0 and (known is None or not known.batches):
            raise KafkaError(
                ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
                f"Invalid sequence number for producer {self.producer.id} {where}: {sequence} (incoming seq. number). "
                f"Expected sequence 0 for transactions v2 idempotent producer with no existing state.",
            )
