"""A topic of very many partitions: its logs are created in slices, and nobody else waits for all of them."""

from __future__ import annotations

import pytest

from odradek.broker.replica_manager import AT_ONCE
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.create_topics import CreatableTopic, CreateTopicsRequest
from odradek.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from odradek.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from support.node_harness import NodeHarness

COUNT = 3 * AT_ONCE


@pytest.fixture
def node() -> NodeHarness:
    harness = NodeHarness()
    create_log = harness.node.logs.create_log

    def slow(*arguments: object, **options: object) -> object:
        harness.clock.now_ms += 1
        return create_log(*arguments, **options)  # type: ignore[arg-type]

    harness.node.logs.create_log = slow  # type: ignore[assignment, method-assign]
    return harness


def create(node: NodeHarness, name: str) -> None:
    """Up to the moment when the controller has committed it."""
    topic = CreatableTopic(name=name, num_partitions=COUNT, replication_factor=1)
    node.client().send(CreateTopicsRequest(topics=[topic], timeout_ms=1000), 7)
    while name not in node.node.image.topics:
        assert node.syncer.step()
        node.node.settle()


def created(node: NodeHarness, name: str) -> int:
    return sum(key[0] == name for key in node.node.partitions)


def produce(node: NodeHarness, name: str, index: int) -> int:
    data = [PartitionProduceData(index=index, records=node.batch(b"x"))]
    request = ProduceRequest(
        acks=1, timeout_ms=1000, topic_data=[TopicProduceData(name=name, partition_data=data)]
    )
    client = node.client()
    client.send(request, 9)
    code: int = client.take(0, 9, 1).responses[0].partition_responses[0].error_code
    return code


def test_the_first_are_there_at_once_and_the_rest_soon(node: NodeHarness) -> None:
    create(node, "large")
    assert created(node, "large") == AT_ONCE
    assert produce(node, "large", 0) == 0
    assert produce(node, "large", COUNT - 1) == ErrorCode.NOT_LEADER_OR_FOLLOWER, "ask again, it says"
    before = node.clock.now_ms
    node.timers.advance(before)
    assert 1 <= created(node, "large") - AT_ONCE <= 20, "one slice"
    assert node.clock.now_ms - before <= 20
    node.advance(1000)
    assert created(node, "large") == COUNT
    assert produce(node, "large", COUNT - 1) == 0


def test_a_topic_deleted_and_created_anew_while_its_logs_come_into_being(node: NodeHarness) -> None:
    create(node, "large")
    request = DeleteTopicsRequest(topics=[DeleteTopicState(name="large")], timeout_ms=1000)
    node.client().send(request, 6)
    while "large" in node.node.image.topics:
        assert node.syncer.step()
        node.node.settle()
    assert created(node, "large") == 0
    create(node, "large")
    node.advance(1000)
    assert created(node, "large") == COUNT
    assert {partition.topic_id for partition in node.node.partitions.values()} == {node.topic_id("large")}
    assert produce(node, "large", COUNT - 1) == 0
    assert node.log.of_level("warning", "error") == []


def test_a_restart_in_between_creates_what_is_missing(node: NodeHarness) -> None:
    create(node, "large")
    node.restart(clean=False)
    assert created(node, "large") == COUNT
    assert produce(node, "large", COUNT - 1) == 0


def delete(node: NodeHarness, name: str) -> None:
    """Up to the moment when the controller has committed it."""
    request = DeleteTopicsRequest(topics=[DeleteTopicState(name=name)], timeout_ms=1000)
    node.client().send(request, 6)
    while name in node.node.image.topics:
        assert node.syncer.step()
        node.node.settle()


def test_a_deleted_topic_serves_nobody_at_once_and_leaves_the_disk_in_slices(node: NodeHarness) -> None:
    create(node, "large")
    node.advance(1000)
    delete(node, "large")
    assert created(node, "large") == 0
    assert produce(node, "large", COUNT - 1) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert len(node.node.logs.logs) == COUNT - AT_ONCE
    node.advance(1000)
    assert len(node.node.logs.logs) == 0
    assert len(node.node.replication.replicas) == 0


def test_a_stop_takes_what_is_deleted_off_the_disk(node: NodeHarness) -> None:
    create(node, "large")
    node.advance(1000)
    delete(node, "large")
    node.node.stop()
    assert not [name for name in node.disk.listdir(node.node.logs.dirs[0].path) if name.startswith("large-")
                and not name.endswith("-delete")]  # fmt: skip


def test_what_is_not_applied_yet_is_not_told_to_the_controller(node: NodeHarness) -> None:
    before = node.node.replicas.applied_offset
    create(node, "large")
    assert node.node.replicas.applied_offset == before < node.node.image.offset
    node.advance(1000)
    assert node.node.replicas.applied_offset == node.node.image.offset
