"""FindCoordinator (key 10), versions 0-6: leaders of `__consumer_offsets` partitions coordinate groups, those of
`__transaction_state` partitions transactions.

The internal topic is created on the first question. Share groups (key type 2) are not served and say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from odradek.broker.topic_creation import OFFSETS_TOPIC, TRANSACTIONS_TOPIC
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
TRANSACTION = 1
BATCHED_FROM = 4
TOPICS = {GROUP: OFFSETS_TOPIC, TRANSACTION: TRANSACTIONS_TOPIC}


def find_coordinator(
    node: Node, context: RequestContext, request: FindCoordinatorRequest, done: Done
) -> None:
    """Answers once the internal topic exists."""
    keys = request.coordinator_keys if context.api_version >= BATCHED_FROM else [request.key]
    topic = TOPICS.get(request.key_type)
    if topic is None:
        text = (
            f"Coordinators of type {request.key_type} are not served by this version: consumer groups (0) and "
            "transactions (1) are"
        )
        _answer(context, [_refused(key, ErrorCode.INVALID_REQUEST, text) for key in keys], done)
        return

    def ready() -> None:
        _answer(context, [_find(node, topic, key, context.listener) for key in keys], done)

    if topic in node.image.topics:
        ready()
    else:
        node.create_topics_automatically([topic], ready)


def _find(node: Node, name: str, key: str, listener: str) -> Coordinator:
    coordinator = node.transactions if name == TRANSACTIONS_TOPIC else node.groups
    topic = node.image.topics.get(name)
    partition = topic.partitions.get(coordinator.partition_for(key)) if topic is not None else None
    if partition is not None:
        for broker in node.brokers_on(listener):
            if broker.id == partition.leader:
                return Coordinator(
                    key=key, node_id=broker.id, host=broker.host, port=broker.port, error_message=None
                )
    code = ErrorCode.COORDINATOR_NOT_AVAILABLE
    return _refused(key, code, code.message)


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
