"""InitProducerId (key 22), versions 0-5, for idempotent producers. Transactional ids are not served yet and say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odradek.wire.errors import ErrorCode
from odradek.wire.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse

if TYPE_CHECKING:
    from odradek.broker.dispatch import Done, RequestContext
    from odradek.broker.node import Node


def init_producer_id(node: Node, context: RequestContext, request: InitProducerIdRequest, done: Done) -> None:
    """Answers once the controller has committed a block of ids, if this node's block is used up."""
    if request.transactional_id is not None:
        code = (
            ErrorCode.INVALID_REQUEST
            if request.transactional_id == ""
            else ErrorCode.TRANSACTIONAL_ID_NOT_FOUND
        )
        done(InitProducerIdResponse(error_code=code, producer_id=-1, producer_epoch=-1))
        return

    def allocated(error: ErrorCode, producer_id: int) -> None:
        epoch = 0 if error is ErrorCode.NONE else -1
        done(InitProducerIdResponse(error_code=error, producer_id=producer_id, producer_epoch=epoch))

    node.producer_ids.next(allocated)
