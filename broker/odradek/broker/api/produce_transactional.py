"""Produce within transactions: a batch is taken when its transaction is known to be open (KIP-890).

While a transaction of this producer and epoch is under way in the partition, that is known. Else its coordinator is
asked first (`txn_verification`), and the batch, copied out of the connection's buffer, waits for the answer. If a
marker of the producer has come meanwhile, what was answered is of the past: the coordinator is asked again.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from odradek.broker.txn_verification import Support, produce_error
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.records import ATTRIBUTES_AT, HEADER_SIZE, PRODUCER_ID_AT, TRANSACTIONAL_FLAG

if TYPE_CHECKING:
    from collections.abc import Callable

    from odradek.broker.node import Node
    from odradek.broker.partition import Partition
    from odradek.storage.log import AppendResult

ASKS_MAX = 3
"""A marker may come more than once; beyond, INVALID_TXN_STATE."""

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
    _Waiting(
        node, partition, transactional_id, producer_id, epoch, sequence, support, bytearray(batch), later
    ).ask()
    return None


class _Waiting:
    """A batch whose transaction is being asked about."""

    __slots__ = ("_asked", "_batch", "_epoch", "_guard", "_later", "_node", "_partition", "_producer_id", "_sequence",
                 "_support", "_transactional_id")  # fmt: skip

    def __init__(
        self,
        node: Node,
        partition: Partition,
        transactional_id: str,
        producer_id: int,
        epoch: int,
        sequence: int,
        support: Support,
        batch: bytearray,
        later: Callable[[AppendResult | KafkaError], None],
    ) -> None:
        self._node = node
        self._partition = partition
        self._transactional_id = transactional_id
        self._producer_id = producer_id
        self._epoch = epoch
        self._sequence = sequence
        self._support = support
        self._batch = batch
        self._later = later
        self._asked = 0

    def ask(self) -> None:
        self._asked += 1
        partition = self._partition
        self._guard = partition.log.producers.begin_verification(self._producer_id, self._sequence)
        self._node.txn_verification.ask(
            self._transactional_id,
            self._producer_id,
            self._epoch,
            (partition.topic, partition.index),
            self._support,
            self._answered,
        )

    def _answered(self, code: ErrorCode) -> None:
        if code is ErrorCode.NONE and self._is_overtaken and self._asked < ASKS_MAX:
            self.ask()
            return
        self._node.txn_verification.release(len(self._batch))
        try:
            result: AppendResult | KafkaError = self._append(code)
        except KafkaError as error:
            result = error
        self._later(result)

    @property
    def _is_overtaken(self) -> bool:
        """By the marker of the last transaction, which a producer does not wait for before it begins the next one."""
        log = self._partition.log
        current = log.producers.verifying.get(self._producer_id) is self._guard
        return not current and not log.in_transaction(self._producer_id, self._epoch)

    def _append(self, code: ErrorCode) -> AppendResult:
        partition = self._partition
        producers = partition.log.producers
        current = producers.verifying.get(self._producer_id) is self._guard
        if code is not ErrorCode.NONE:
            if current:
                del producers.verifying[self._producer_id]
            raise produce_error(code)
        if self._node.leader_of(partition.topic, partition.index) is not partition:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        if not current and not partition.log.in_transaction(self._producer_id, self._epoch):
            raise KafkaError(ErrorCode.INVALID_TXN_STATE, "Record was not part of an ongoing transaction")
        self._check_first_sequence()
        partition.refuse_if_too_few_in_sync()
        return partition.append_transactional(memoryview(self._batch), self._node.clock.wall_ms())

    def _check_first_sequence(self) -> None:
        """What waits with others is taken in order: none before the first of them. Clients of transaction version 2
        begin every epoch with 0, and lose no state that would explain another.
        """
        partition = self._partition
        known = partition.log.producers.entries.get(self._producer_id)
        *_, sequence = _producer(self._batch, PRODUCER_ID_AT)
        where = f"at offset {partition.log.log_end_offset} in partition {partition.topic}-{partition.index}"
        waits = partition.log.producers.verifying.get(self._producer_id) is self._guard
        if waits and sequence > self._guard.lowest_sequence:
            raise KafkaError(
                ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
                f"Out of order sequence number for producer {self._producer_id} {where}: {sequence} (incoming seq. "
                f"number), {self._guard.lowest_sequence} (earliest seen sequence)",
            )
        if self._support is Support.IMPLICIT and sequence != 0 and (known is None or not known.batches):
            raise KafkaError(
                ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
                f"Invalid sequence number for producer {self._producer_id} {where}: {sequence} (incoming seq. number). "
                f"Expected sequence 0 for transactions v2 idempotent producer with no existing state.",
            )
