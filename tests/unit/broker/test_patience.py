"""What a node does not wait for: a controller that is not there."""

from __future__ import annotations

from odradek.broker.node import AUTO_CREATE_WAIT_MS
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.find_coordinator import FindCoordinatorRequest, FindCoordinatorResponse
from odradek.wire.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
)
from support.node_harness import NodeHarness


def test_a_request_waits_a_moment_for_the_topic_it_makes_and_then_lets_the_others_on_its_connection_pass() -> (
    None
):
    harness = NodeHarness()
    unanswered: list[object] = []
    harness.node.topic_creation._ask_controller = lambda request, _done: unanswered.append(request)
    client = harness.client()
    client.send(FindCoordinatorRequest(key_type=0, coordinator_keys=["group"]), 4)
    harness.advance(AUTO_CREATE_WAIT_MS - 1)
    assert client.take_frame() is None
    harness.advance(1)
    frame = client.take_frame()
    assert frame is not None
    answer = FindCoordinatorResponse.decode(frame, 4, 5)
    assert answer.coordinators[0].error_code == ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert len(unanswered) == 1


def test_a_debugging_consumer_is_told_where_the_log_of_a_replica_ends() -> None:
    harness = NodeHarness()
    harness.create_topic("t")
    partitions = [ListOffsetsPartition(partition_index=index, timestamp=-1) for index in (0, 9)]
    request = ListOffsetsRequest(replica_id=-2, topics=[ListOffsetsTopic(name="t", partitions=partitions)])
    harness.node.leader_of("t", 0).is_leader = False
    client = harness.client()
    client.send(request, 7)
    frame = client.take_frame()
    assert frame is not None
    found, missing = ListOffsetsResponse.decode(frame, 7, 5).topics[0].partitions
    assert (found.error_code, found.offset) == (0, 0)
    assert missing.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
