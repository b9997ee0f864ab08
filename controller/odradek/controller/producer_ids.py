"""Producer ids: AllocateProducerIds v0. Blocks of 1,000, each handed out once (KIP-730)."""

from __future__ import annotations

from odradek.controller.settings import PRODUCER_ID_BLOCK
from odradek.controller.state import ControllerState, Decision
from odradek.metadata.records import ProducerIdsRecord
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.allocate_producer_ids import (
    AllocateProducerIdsRequest,
    AllocateProducerIdsResponse,
)

PRODUCER_ID_MAX = 2**63 - 1


def allocate_producer_ids(
    state: ControllerState, request: AllocateProducerIdsRequest, version: int
) -> Decision:
    """The next block for a broker. Errors: STALE_BROKER_EPOCH; UNKNOWN_SERVER_ERROR when all ids are used
    up.
    """
    state.check_broker_epoch(request.broker_id, request.broker_epoch)
    first = state.image.next_producer_id
    if first > PRODUCER_ID_MAX - PRODUCER_ID_BLOCK:
        why = "Exhausted all producerIds as the next block's end producerId has exceeded the int64 type limit"
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, why)
    record = ProducerIdsRecord(request.broker_id, request.broker_epoch, first + PRODUCER_ID_BLOCK)
    response = AllocateProducerIdsResponse(producer_id_start=first, producer_id_len=PRODUCER_ID_BLOCK)
    return Decision([record], response)
