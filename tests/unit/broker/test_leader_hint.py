"""A partition that moved: the answer says where its leader is, so that the client need not ask (KIP-951)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from odradek.metadata.image import BrokerImage
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from odradek.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from support.node_harness import Client, NodeHarness

ELSEWHERE = 2
EPOCH = 7
PRODUCE_VERSION, FETCH_VERSION = 12, 17
ADDRESSES = {"PLAINTEXT": ("inside", 9092, 0), "EXTERNAL": ("outside", 19092, 0)}
INSIDE, OUTSIDE = (ELSEWHERE, "inside", 9092), (ELSEWHERE, "outside", 19092)


@pytest.fixture
def node() -> NodeHarness:
    """Acknowledgements wait for the disk."""
    harness = NodeHarness()
    harness.create_topic("t", partitions=2, flush__messages="1")
    return harness


def send(node: NodeHarness, client: Client, *partitions: int) -> int:
    data = [PartitionProduceData(index=index, records=node.batch(b"v")) for index in partitions]
    topic = TopicProduceData(name="t", partition_data=data)
    return client.send(ProduceRequest(acks=-1, timeout_ms=1000, topic_data=[topic]), PRODUCE_VERSION)


def move(node: NodeHarness, *partitions: int) -> None:
    """What metadata says of a leader elsewhere, and what it does to the partitions here."""
    image = node.node.image
    image.brokers[ELSEWHERE] = BrokerImage(ELSEWHERE, 1, bytes(16), ADDRESSES, fenced=False)
    node.node._endpoints.clear()
    known = image.topics["t"].partitions
    for index in partitions:
        known[index] = replace(known[index], leader=ELSEWHERE, leader_epoch=EPOCH)  # type: ignore[index]
        node.node.partitions["t", index].resign(ErrorCode.NOT_LEADER_OR_FOLLOWER)


def hints(answer: Any) -> tuple[list[tuple[int, int]], list[tuple[int, str, int]]]:
    partitions = answer.responses[0].partition_responses
    assert {each.error_code for each in partitions} == {ErrorCode.NOT_LEADER_OR_FOLLOWER}
    leaders = [(each.current_leader.leader_id, each.current_leader.leader_epoch) for each in partitions]
    return leaders, [(each.node_id, each.host, each.port) for each in answer.node_endpoints]


@pytest.mark.parametrize("partitions", [(0,), (0, 1)])
def test_who_waits_for_a_commit_when_the_leader_moves_finds_the_new_one_by_metadata(
    node: NodeHarness, partitions: tuple[int, ...]
) -> None:
    """Told at once it would come to the new leader before that leads: one of its requests may be refused and the next
    one be out of order, and then librdkafka sends again what is in the log (chaos, 2026-11-20: six duplicates)."""
    client = Client(node, "PLAINTEXT")
    request = send(node, client, *partitions)
    assert client.take_frame() is None
    move(node, *partitions)
    node.node.settle()
    answer = client.take(ProduceRequest.API_KEY, PRODUCE_VERSION, request)
    assert hints(answer) == ([(-1, -1)] * len(partitions), [])


@pytest.mark.parametrize(("listener", "endpoint"), [("PLAINTEXT", INSIDE), ("EXTERNAL", OUTSIDE)])
def test_who_comes_after_the_leader_has_moved_is_told_where_to(
    node: NodeHarness, listener: str, endpoint: tuple[int, str, int]
) -> None:
    move(node, 0)
    del node.node.partitions["t", 0]
    client = Client(node, listener)
    produced = client.take(ProduceRequest.API_KEY, PRODUCE_VERSION, send(node, client, 0))
    assert hints(produced) == ([(ELSEWHERE, EPOCH)], [endpoint])
    wanted = FetchPartition(partition=0, current_leader_epoch=-1, partition_max_bytes=1000)
    topic = FetchTopic(topic_id=node.topic_id("t"), partitions=[wanted])
    fetched = client.ask(FetchRequest(max_bytes=1000, topics=[topic]), FETCH_VERSION)
    (partition,) = fetched.responses[0].partitions
    assert partition.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert (partition.current_leader.leader_id, partition.current_leader.leader_epoch) == (ELSEWHERE, EPOCH)
    assert [(each.node_id, each.host, each.port) for each in fetched.node_endpoints] == [endpoint]
