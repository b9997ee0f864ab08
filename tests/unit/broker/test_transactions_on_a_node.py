"""Transactions through a whole node, byte by byte: coordinator, partitions, markers, and what a restart brings back."""

from __future__ import annotations

from typing import Any

import pytest

from odradek.wire.errors import ErrorCode
from odradek.wire.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
from odradek.wire.messages.add_partitions_to_txn import AddPartitionsToTxnRequest, AddPartitionsToTxnTopic
from odradek.wire.messages.describe_configs import DescribeConfigsRequest, DescribeConfigsResource
from odradek.wire.messages.describe_transactions import DescribeTransactionsRequest
from odradek.wire.messages.end_txn import EndTxnRequest
from odradek.wire.messages.find_coordinator import FindCoordinatorRequest
from odradek.wire.messages.init_producer_id import InitProducerIdRequest
from odradek.wire.messages.list_transactions import ListTransactionsRequest
from odradek.wire.records import iter_batches
from support.node_harness import NodeHarness

TOPIC = "__transaction_state"
TRANSACTION = 1


@pytest.fixture
def node() -> NodeHarness:
    harness = NodeHarness(transaction__state__log__num__partitions="3", offsets__topic__num__partitions="3")
    harness.create_topic("t", 2)
    assert find(harness).error_code == 0
    return harness


def find(node: NodeHarness, name: str = "tx") -> Any:
    request = FindCoordinatorRequest(coordinator_keys=[name], key_type=TRANSACTION)
    return node.client().ask(request, 4).coordinators[0]


def init(node: NodeHarness, name: str | None = "tx", timeout_ms: int = 10_000) -> tuple[int, int]:
    response = node.client().ask(InitProducerIdRequest(name, timeout_ms), 5)
    assert response.error_code == 0, ErrorCode(response.error_code)
    return response.producer_id, response.producer_epoch


def add(node: NodeHarness, producer: tuple[int, int], *partitions: int, name: str = "tx") -> ErrorCode:
    request = AddPartitionsToTxnRequest(
        v3_and_below_transactional_id=name,
        v3_and_below_producer_id=producer[0],
        v3_and_below_producer_epoch=producer[1],
        v3_and_below_topics=[AddPartitionsToTxnTopic("t", list(partitions))],
    )
    (topic,) = node.client().ask(request, 3).results_by_topic_v3_and_below
    return ErrorCode(topic.results_by_partition[0].partition_error_code)


def end(
    node: NodeHarness, producer: tuple[int, int], commit: bool = True, name: str = "tx"
) -> tuple[int, int]:
    response = node.client().ask(EndTxnRequest(name, *producer, commit), 5)
    assert response.error_code == 0, ErrorCode(response.error_code)
    return response.producer_id, response.producer_epoch


def state(node: NodeHarness, name: str = "tx") -> Any:
    (described,) = node.client().ask(DescribeTransactionsRequest([name])).transaction_states
    return described


def whole(node: NodeHarness, names: list[str]) -> bytes:
    """The description of all of them, as bytes."""
    response = node.client().ask(DescribeTransactionsRequest(names))
    assert [each.error_code for each in response.transaction_states] == [0] * len(names)
    return bytes(response.encode(0))


def control_batches(node: NodeHarness, topic: str, index: int) -> int:
    log = node.node.partitions[topic, index].log
    data = log.read(0, 1 << 20, end_offset=log.written_end_offset, min_one=True).data
    return sum(header.is_control for _, header in iter_batches(memoryview(data)))


def test_the_first_question_creates_the_topic_as_configured() -> None:
    node = NodeHarness(
        transaction__state__log__num__partitions="3", transaction__state__log__segment__bytes="1048576"
    )
    found = find(node)
    assert (found.error_code, found.node_id, found.port) == (0, 1, 9092)
    assert len(node.node.image.topics[TOPIC].partitions) == 3
    request = DescribeConfigsRequest(
        resources=[DescribeConfigsResource(resource_type=2, resource_name=TOPIC)]
    )
    (result,) = node.client().ask(request).results
    configs = {each.name: each.value for each in result.configs}
    assert {
        name: configs[name]
        for name in (
            "cleanup.policy",
            "compression.type",
            "min.insync.replicas",
            "segment.bytes",
            "unclean.leader.election.enable",
        )
    } == {
        "cleanup.policy": "compact",
        "compression.type": "uncompressed",
        "min.insync.replicas": "1",
        "segment.bytes": "1048576",
        "unclean.leader.election.enable": "false",
    }


def test_before_the_topic_exists_nobody_coordinates() -> None:
    node = NodeHarness()
    response = node.client().ask(InitProducerIdRequest("tx", 10_000), 5)
    assert response.error_code == ErrorCode.NOT_COORDINATOR
    assert state(node).error_code == ErrorCode.NOT_COORDINATOR
    assert init(node, None) >= (0, 0)


@pytest.mark.parametrize("commit", [True, False])
def test_a_transaction_ends_with_a_marker_in_each_partition(node: NodeHarness, commit: bool) -> None:
    producer = init(node)
    assert add(node, producer, 0, 1) is ErrorCode.NONE
    assert state(node).transaction_state == "Ongoing"
    assert end(node, producer, commit) == (producer[0], producer[1] + 1)
    assert state(node).transaction_state == ("CompleteCommit" if commit else "CompleteAbort")
    assert [control_batches(node, "t", index) for index in (0, 1)] == [1, 1]


def test_offsets_take_part(node: NodeHarness) -> None:
    node.client().ask(FindCoordinatorRequest(coordinator_keys=["g"], key_type=0), 4)
    producer = init(node)
    response = node.client().ask(AddOffsetsToTxnRequest("tx", *producer, "g"))
    assert response.error_code == 0
    index = node.node.groups.partition_for("g")
    (topic,) = state(node).topics
    assert (topic.topic, topic.partitions) == ("__consumer_offsets", [index])
    end(node, producer)
    assert state(node).transaction_state == "CompleteCommit"
    assert control_batches(node, "__consumer_offsets", index) == 1


@pytest.mark.parametrize("clean", [True, False])
def test_a_restart_brings_every_id_back(node: NodeHarness, clean: bool) -> None:
    names = [f"tx-{number}" for number in range(20)]
    producers = {}
    for number, name in enumerate(names):
        producer = init(node, name)
        if number % 3:
            assert add(node, producer, number % 2, name=name) is ErrorCode.NONE
            if number % 3 == 2:
                producer = end(node, producer, name=name)
        producers[name] = producer
    before = whole(node, names)
    node.restart(clean=clean)
    assert whole(node, names) == before
    for number, name in enumerate(names):
        assert add(node, producers[name], 0, name=name) is ErrorCode.NONE, number
        assert end(node, producers[name], name=name)[1] == producers[name][1] + 1


def test_a_transaction_that_is_left_open_is_aborted_also_after_a_restart(node: NodeHarness) -> None:
    producer = init(node, timeout_ms=5_000)
    assert add(node, producer, 0) is ErrorCode.NONE
    node.restart(clean=False)
    node.advance(20_000)
    assert state(node).transaction_state == "CompleteAbort"
    assert control_batches(node, "t", 0) == 1
    response = node.client().ask(EndTxnRequest("tx", *producer, True), 4)
    assert response.error_code == ErrorCode.PRODUCER_FENCED


def test_the_marker_of_a_deleted_topic_holds_nobody(node: NodeHarness) -> None:
    from odradek.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState

    producer = init(node)
    assert add(node, producer, 0, 1) is ErrorCode.NONE
    node.client().ask(DeleteTopicsRequest(topics=[DeleteTopicState(name="t")], timeout_ms=1000), 6)
    end(node, producer)
    assert state(node).transaction_state == "CompleteCommit"


def test_transactions_are_listed(node: NodeHarness) -> None:
    for name in ("one", "two"):
        init(node, name)
    listed = node.client().ask(ListTransactionsRequest()).transaction_states
    assert {(each.transactional_id, each.transaction_state) for each in listed} == {
        ("one", "Empty"),
        ("two", "Empty"),
    }


def test_two_phase_commit_is_not_offered(node: NodeHarness) -> None:
    client = node.client()
    client.send(InitProducerIdRequest("tx", 10_000), 6)
    node.settle()
    assert client.closed
