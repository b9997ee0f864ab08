"""What is out of order because the batch before it is still on its way.

An idempotent producer has up to five requests under way. A batch out of order is told so by Kafka:
OUT_OF_ORDER_SEQUENCE_NUMBER. The Java client sends it again if others were before it. librdkafka (2.16) begins a new
epoch, in which it sends everything again that is not acknowledged, whatever partition it is for: also what a leader has
written that moved or died before it could say so, and no broker can know that again. Duplicates of an idempotent
producer, then (chaos, 2026-11-20: six in thirty minutes). There are two ways to a gap that is none:

- One request is refused because this broker does not lead yet, or has too few replicas, and by the time the next one is
  looked at the moment is over. So what comes behind a refused batch on its connection hears the same as that one.
- The partition has moved here, and librdkafka's thread for this broker is quicker than its thread for the earlier
  leader, which has been told that a batch was refused and has not put it back into the queue yet. So a producer of
  whose last five batches some were written under an earlier leader hears NOT_LEADER_OR_FOLLOWER.

Both are true: the batch was not taken, and may be after the one before it. All clients send both again in their order.
A deviation from Kafka in the code of an error, for a bounded number of requests; nothing is accepted that Kafka would
refuse, and who really has lost a batch hears so after that.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, TypeAlias

from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.records import HEADER_SIZE, MAGIC, MAGIC_AT, PRODUCER_ID_AT

if TYPE_CHECKING:
    from odradek.broker.partition import Partition
    from odradek.ports.disk import Buffer

BEHIND_MAX = 4
"""A producer has five requests under way (max.in.flight.requests.per.connection), the refused one is one of them."""
AFTER_MOVE_MAX = 5
"""Of one producer, since this broker leads the partition."""
PARTITIONS_MAX = 256
"""Of one connection, with replicas here; beyond, it is forgotten what was refused."""
PRODUCERS_MAX = 1024
"""Of one partition; beyond, they are counted anew."""
_HALF = 1 << 30
"""Sequences go on with 0 after 2^31 - 1: what is less than this ahead is later."""
_SEQUENCE_MASK = (1 << 31) - 1

_producer = Struct(">qhi").unpack_from
"""Producer id, epoch and first sequence, which stand side by side in a batch."""

Refused: TypeAlias = "dict[tuple[str, int], _Refused]"
"""By topic and partition: what a connection's last refused batch was."""


class _Refused:
    __slots__ = ("code", "epoch", "left", "producer_id", "sequence")

    def __init__(self, producer_id: int, epoch: int, sequence: int, code: ErrorCode) -> None:
        self.producer_id = producer_id
        self.epoch = epoch
        self.sequence = sequence
        self.code = code
        self.left = BEHIND_MAX

    def is_before(self, producer_id: int, epoch: int, sequence: int) -> bool:
        same = (producer_id, epoch) == (self.producer_id, self.epoch)
        return same and _is_ahead(sequence, self.sequence)


def _is_ahead(sequence: int, of: int) -> bool:
    return 0 < (sequence - of) & _SEQUENCE_MASK < _HALF


def error_to_tell(
    refused: Refused, partition: Partition | None, batch: Buffer | None, error: KafkaError
) -> KafkaError:
    """What to answer for `batch`, which was refused with `error`. `refused` is of the connection it came on; without a
    replica here there is nothing that could be out of order, and nothing is remembered.
    """
    out_of_order = error.code is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    if not (out_of_order or error.code.retriable) or partition is None or batch is None:
        return error
    if len(batch) < HEADER_SIZE or batch[MAGIC_AT] != MAGIC:
        return error
    producer_id, epoch, sequence = _producer(batch, PRODUCER_ID_AT)
    if producer_id < 0:
        return error
    key = partition.topic, partition.index
    if not out_of_order:
        if len(refused) >= PARTITIONS_MAX and key not in refused:
            refused.clear()
        refused[key] = _Refused(producer_id, epoch, sequence, error.code)
        return error
    first = refused.get(key)
    if first is not None and first.left and first.is_before(producer_id, epoch, sequence):
        first.left -= 1
        return KafkaError(
            first.code, f"The batch with sequence {first.sequence} before this one was refused."
        )
    if _may_be_under_way_elsewhere(partition, producer_id, epoch, sequence):
        code = ErrorCode.NOT_LEADER_OR_FOLLOWER
        return KafkaError(
            code, "The batch before this one is not here yet, and may be under way to an earlier leader."
        )
    return error


def _may_be_under_way_elsewhere(partition: Partition, producer_id: int, epoch: int, sequence: int) -> bool:
    """What is missing before `sequence`. Counts how often that was said."""
    entry = partition.log.producers.entries.get(producer_id)
    leader = partition.replica.leader if partition.replica is not None else None
    if entry is None or leader is None:
        return False
    if entry.batches and entry.batches[0][2] >= leader.epoch_start_offset:
        return False
    if not _is_ahead(sequence, entry.next_sequence if entry.batches and entry.epoch == epoch else 0):
        return False
    counts = partition.gaps_after_move
    count = counts.get(producer_id, 0)
    if count >= AFTER_MOVE_MAX:
        return False
    if len(counts) >= PRODUCERS_MAX:
        counts.clear()
    counts[producer_id] = count + 1
    return True
