"""DescribeCluster (key 60), versions 0-2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odradek.broker.api.metadata import ALL_CLUSTER_OPERATIONS, NOT_ASKED
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.describe_cluster import (
    DescribeClusterBroker,
    DescribeClusterRequest,
    DescribeClusterResponse,
)

if TYPE_CHECKING:
    from odradek.broker.dispatch import Done, RequestContext
    from odradek.broker.node import Node

BROKERS = 1


def _fenced(node: Node, listener: str) -> list[DescribeClusterBroker]:
    """Brokers that are registered and not served at present (KIP-1073)."""
    known = sorted(node.image.brokers.values(), key=lambda each: each.id)
    return [
        DescribeClusterBroker(
            broker_id=broker.id,
            host=broker.listeners[listener][0],
            port=broker.listeners[listener][1],
            rack=broker.rack,
            is_fenced=True,
        )
        for broker in known
        if broker.fenced and listener in broker.listeners
    ]


def describe_cluster(
    node: Node, context: RequestContext, request: DescribeClusterRequest, done: Done
) -> None:
    """Brokers on the listener the client came by; controllers are not reachable by clients (endpoint type 2)."""
    if context.api_version >= 1 and request.endpoint_type != BROKERS:
        done(
            DescribeClusterResponse(
                error_code=ErrorCode.MISMATCHED_ENDPOINT_TYPE,
                error_message="The request was sent to an endpoint of the wrong type: this is a broker",
                endpoint_type=BROKERS,
            )
        )
        return
    live = node.brokers_on(context.listener)
    brokers = [
        DescribeClusterBroker(broker_id=broker.id, host=broker.host, port=broker.port, rack=broker.rack)
        for broker in live
    ]
    if request.include_fenced_brokers:
        brokers += _fenced(node, context.listener)
    done(
        DescribeClusterResponse(
            cluster_id=node.image.cluster_id,
            controller_id=node.controller_to_tell(live),
            brokers=brokers,
            cluster_authorized_operations=(
                ALL_CLUSTER_OPERATIONS if request.include_cluster_authorized_operations else NOT_ASKED
            ),
        )
    )
