"""Whether a node may stop without taking away what the others need: asked before a pod or container is stopped. Pure.

    partitions   each that this broker is in the ISR of keeps `min.insync.replicas` without it
    quorum       a majority of the controllers goes on without this one

A partition whose replicas are too few in any case is not waited for: one replica, or as many as min.insync.replicas. It
is advice, which a moment later may be wrong: two nodes that ask at once both hear that they may go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from odradek.broker.health import some, verdict
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.describe_quorum import (
    DescribeQuorumRequest,
    DescribeQuorumRequestPartitionData,
    DescribeQuorumRequestTopicData,
)

if TYPE_CHECKING:
    from odradek.broker.controller_process import ControllerProcess
    from odradek.broker.health import Verdict
    from odradek.broker.node import Node

METADATA_TOPIC = "__cluster_metadata"
ANSWER_MS_MAX = 2_000
"""How long the active controller is waited for."""
FETCHES_MISSED_MAX = 2
"""Fetch timeouts after which a controller that has not fetched counts as gone."""


def may_stop(node: Node | ControllerProcess, done: Callable[[Verdict], None]) -> None:
    """Call `done` once, with what stands against stopping this node now."""
    partitions = list(partitions_in_need(node))
    voters = node.quorum.raft.voters
    if not voters.contains(node.quorum.raft.me) or len(voters) == 1:
        done(verdict("may_stop", partitions))
        return
    request = DescribeQuorumRequest(
        topics=[DescribeQuorumRequestTopicData(METADATA_TOPIC, [DescribeQuorumRequestPartitionData(0)])]
    )

    def described(response: Any) -> None:
        done(verdict("may_stop", [*partitions, *quorum_in_need(node, response)]))

    now_ms = node.ports.clock.monotonic_ms()
    node.quorum.handle(request, request.MAX_VERSION, now_ms, described, timeout_ms=ANSWER_MS_MAX)


def partitions_in_need(node: Node | ControllerProcess) -> Iterator[str]:
    """Partitions that would be below min.insync.replicas, and need not be, if others were in sync."""
    node_id = node.config.node_id
    found: list[str] = []
    for (topic, index), partition in node.partitions.items():
        known = node.image.topics.get(topic)
        state = known.partitions.get(index) if known is not None else None
        if state is None or partition.replica is None or node_id not in state.isr:
            continue
        if len(state.isr) <= partition.replica.min_isr < len(state.replicas):
            found.append(f"{topic}-{index}")
    if found:
        yield f"partitions that would have fewer in-sync replicas than min.insync.replicas: {some(found)}"


def quorum_in_need(node: Node | ControllerProcess, response: Any) -> Iterator[str]:
    """What the active controller knows of the others; that none answers is a reason, too."""
    topics = response.topics if response.error_code == ErrorCode.NONE else ()
    partition = topics[0].partitions[0] if topics and topics[0].partitions else None
    if partition is None or partition.error_code != ErrorCode.NONE:
        yield "no active controller answers"
        return
    voters = partition.current_voters
    newest_ms = max((voter.last_fetch_timestamp for voter in voters), default=-1)
    oldest_ms = newest_ms - FETCHES_MISSED_MAX * node.config.controller_quorum_fetch_timeout_ms
    left = sum(
        voter.replica_id != node.config.node_id and voter.last_fetch_timestamp >= oldest_ms
        for voter in voters
    )
    if left < len(voters) // 2 + 1:
        yield f"only {left} of {len(voters)} controllers would be left, which is no majority"
