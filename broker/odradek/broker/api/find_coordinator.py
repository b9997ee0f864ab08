"""FindCoordinator (key 10), versions 0-6. Group coordinators are the leaders of `__consumer_offsets` partitions.

The internal topic is created on the first question. Transactions (key type 1) and share groups (2) are not served
yet and say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from odradek.wire.errors import ErrorCode
from odradek.wire.messages.find_coordinator import (
    Coordinator,
    FindCoordinatorRequest,
    FindCoordinatorResponse,
)

if TYPE_CHECKING:
    from odradek.broker.dispatch import Done, RequestContext
    from odradek.broker.node import Node

GROUP = 0
BATCHED_FROM = 4
OFFSETS_TOPIC = "__consumer_offsets"


def find_coordinator(
    node: Node, context: RequestContext, request: FindCoordinatorRequest, done: Done
) -> None:
    """Answers once the offsets topic exists."""
    keys = request.coordinator_keys if context.api_version >= BATCHED_FROM else [request.key]
    if request.key_type != GROUP:
        text = (
            f"Coordinators of type {request.key_type} are not served by this version: consumer groups (0) are"
        )
        _answer(context, [_refused(key, ErrorCode.INVALID_REQUEST, text) for key in keys], done)
        return

    def ready() -> None:
        _answer(context, [_find(node, key, context.listener) for key in keys], done)

    if OFFSETS_TOPIC in node.image.topics:
        ready()
    else:
        node.create_topics_automatically([OFFSETS_TOPIC], ready)


def _find(node: Node, group_id: str, listener: str) -> Coordinator:
    topic = node.image.topics.get(OFFSETS_TOPIC)
    partition = topic.partitions.get(node.coordinator.partition_for(group_id)) if topic is not None else None
    if partition is not None:
        for broker in node.brokers_on(listener):
            if broker.id == partition.leader:
                return Coordinator(
                    key=group_id, node_id=broker.id, host=broker.host, port=broker.port, error_message=None
                )
    code = ErrorCode.COORDINATOR_NOT_AVAILABLE
    return _refused(group_id, code, code.message)


def _refused(key: str, code: ErrorCode, text: str) -> Coordinator:
    return Coordinator(key=key, node_id=-1, host="", port=-1, error_code=code, error_message=text)


def _answer(context: RequestContext, found: list[Coordinator], done: Done) -> None:
    if context.api_version >= BATCHED_FROM:
        done(FindCoordinatorResponse(coordinators=found))
        return
    one = found[0]
    done(
        FindCoordinatorResponse(
            error_code=one.error_code,
            error_message=one.error_message if context.api_version >= 1 else "",
            node_id=one.node_id,
            host=one.host,
            port=one.port,
        )
    )
