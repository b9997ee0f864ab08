"""What was sent behind a batch that was refused for a moment only.

An idempotent producer has up to five requests under way. When one of them comes to a broker that does not lead yet, or
has too few replicas, it is refused, to be sent again; by the time the next one is looked at the moment may be over, and
that one is out of order. Kafka says so, OUT_OF_ORDER_SEQUENCE_NUMBER, and the Java client sends both again. librdkafka
(2.16) begins a new epoch instead, in which it sends everything again that is not acknowledged, whatever partition it is
for: also what a leader has written that died before it could say so, and no broker can know it again (chaos,
2026-11-20: six duplicates in thirty minutes).

So what comes behind a refused batch on its connection hears the same as that one, which is as true: it was not taken,
and may be after the batch before it. All clients send both again in their order. A deviation from Kafka in the code of
an error, of at most `BEHIND_MAX` requests; nothing is accepted that Kafka would refuse.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, TypeAlias

from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.records import HEADER_SIZE, MAGIC, MAGIC_AT, PRODUCER_ID_AT

if TYPE_CHECKING:
    from odradek.ports.disk import Buffer

BEHIND_MAX = 4
"""A producer has five requests under way (max.in.flight.requests.per.connection), the refused one is one of them."""
PARTITIONS_MAX = 1024
"""Of one connection; beyond, it is forgotten what was refused."""
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


def error_to_tell(
    refused: Refused, topic: str, index: int, batch: Buffer | None, error: KafkaError
) -> KafkaError:
    """What to answer for `batch`, which was refused with `error`."""
    out_of_order = error.code is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    if not (out_of_order or error.code.retriable) or batch is None:
        return error
    if len(batch) < HEADER_SIZE or batch[MAGIC_AT] != MAGIC:
        return error
    producer_id, epoch, sequence = _producer(batch, PRODUCER_ID_AT)
    if producer_id < 0:
        return error
    if not out_of_order:
        if len(refused) >= PARTITIONS_MAX:
            refused.clear()
        refused[topic, index] = _Refused(producer_id, epoch, sequence, error.code)
        return error
    first = refused.get((topic, index))
    if first is None or (producer_id, epoch) != (first.producer_id, first.epoch) or not first.left:
        return error
    if not 0 < (sequence - first.sequence) & _SEQUENCE_MASK < _HALF:
        return error
    first.left -= 1
    return KafkaError(first.code, f"The batch with sequence {first.sequence} before this one was refused.")
