"""Requests that the active controller answers: a broker passes them on and returns its answer.

CreateTopics 19 (2-7), DeleteTopics 20 (1-6), CreatePartitions 37 (0-3), ElectLeaders 43 (0-2),
AlterPartitionReassignments 45 (0-1), ListPartitionReassignments 46 (0), UpdateFeatures 57 (0-2), DescribeQuorum 55
(0-2), UnregisterBroker 64 (0), AddRaftVoter 80 (0-1), RemoveRaftVoter 81 (0).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from odradek.wire.apis import ApiKey

if TYPE_CHECKING:
    from odradek.broker.dispatch import Done, RequestContext
    from odradek.broker.node import Node

KEYS = (
    ApiKey.CREATE_TOPICS,
    ApiKey.DELETE_TOPICS,
    ApiKey.CREATE_PARTITIONS,
    ApiKey.ELECT_LEADERS,
    ApiKey.ALTER_PARTITION_REASSIGNMENTS,
    ApiKey.LIST_PARTITION_REASSIGNMENTS,
    ApiKey.UPDATE_FEATURES,
    ApiKey.DESCRIBE_QUORUM,
    ApiKey.UNREGISTER_BROKER,
    ApiKey.ADD_RAFT_VOTER,
    ApiKey.REMOVE_RAFT_VOTER,
)


def to_controller(node: Node, context: RequestContext, request: Any, done: Done) -> None:
    """Answers when the controller's records are committed."""
    node.quorum.handle(request, context.api_version, node.monotonic_ms(), done)
