"""DeleteRecords waits for the replicas that live, as in Kafka (KIP-107)."""

from __future__ import annotations

import pytest

from odradek.replication.leader import LeaderState
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
)
from odradek.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from support.node_harness import NodeHarness

KEY, VERSION = 21, 2


@pytest.fixture
def node() -> NodeHarness:
    harness = NodeHarness()
    harness.create_topic("t", 2)
    for index in (0, 1):
        data = PartitionProduceData(index=index, records=harness.batch(b"a", b"b", b"c"))
        topic = TopicProduceData(name="t", partition_data=[data])
        harness.client().ask(ProduceRequest(acks=1, timeout_ms=1000, topic_data=[topic]), 9)
    return harness


@pytest.fixture
def follower_start(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Where the log of a follower begins that every partition seems to have."""
    start = {"at": 0}
    monkeypatch.setattr(LeaderState, "low_watermark", lambda self, own: min(own, start["at"]))
    return start


def request(*offsets: tuple[int, int], timeout_ms: int = 1000) -> DeleteRecordsRequest:
    partitions = [DeleteRecordsPartition(partition_index=index, offset=offset) for index, offset in offsets]
    return DeleteRecordsRequest(
        topics=[DeleteRecordsTopic(name="t", partitions=partitions)], timeout_ms=timeout_ms
    )


def test_the_answer_comes_when_the_follower_has_followed(
    node: NodeHarness, follower_start: dict[str, int]
) -> None:
    client = node.client()
    asked = client.send(request((0, 2), (1, 99)), VERSION)
    assert client.take(KEY, VERSION, asked) is None
    follower_start["at"] = 2
    replica = node.node.partitions["t", 0].replica
    assert replica is not None
    assert replica.on_follower_told is not None
    replica.on_follower_told()
    node.settle()
    first, second = client.take(KEY, VERSION, asked).topics[0].partitions
    assert (first.error_code, first.low_watermark) == (ErrorCode.NONE, 2)
    assert (second.error_code, second.low_watermark) == (ErrorCode.OFFSET_OUT_OF_RANGE, -1)
    assert replica.on_follower_told is None


@pytest.mark.parametrize(("asked_ms", "waited_ms"), [(1000, 1000), (2**31 - 1, 300_000)])
def test_the_answer_comes_in_time_without_the_follower_and_the_records_are_gone_here(
    node: NodeHarness, follower_start: dict[str, int], asked_ms: int, waited_ms: int
) -> None:
    client = node.client()
    asked = client.send(request((0, -1), timeout_ms=asked_ms), VERSION)
    node.advance(waited_ms - 1)
    assert client.take(KEY, VERSION, asked) is None
    node.advance(1)
    (answer,) = client.take(KEY, VERSION, asked).topics[0].partitions
    assert (answer.error_code, answer.low_watermark) == (ErrorCode.REQUEST_TIMED_OUT, -1)
    partition = node.node.partitions["t", 0]
    assert partition.log.log_start_offset == 3
    assert partition.replica is not None
    assert partition.replica.on_follower_told is None


def test_a_leader_that_goes_answers_at_once(node: NodeHarness, follower_start: dict[str, int]) -> None:
    client = node.client()
    asked = client.send(request((0, 2)), VERSION)
    node.node.partitions["t", 0].resign(ErrorCode.NOT_LEADER_OR_FOLLOWER)
    node.settle()
    (answer,) = client.take(KEY, VERSION, asked).topics[0].partitions
    assert (answer.error_code, answer.low_watermark) == (ErrorCode.NOT_LEADER_OR_FOLLOWER, -1)
