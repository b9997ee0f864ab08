"""Markers on their way to the leaders of a transaction's partitions, and what they do there."""

from __future__ import annotations

from typing import Any

import pytest

from odradek.broker import txn_markers
from odradek.coordinator.runtime import Marker, Producer
from odradek.wire.apis import ApiKey
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from odradek.wire.messages.write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerTopic,
    WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
)
from support.node_harness import NodeHarness

PRODUCER = 4000
EPOCH = 3
OK = ErrorCode.NONE


@pytest.fixture
def node() -> NodeHarness:
    harness = NodeHarness(transaction__partition__verification__enable="false")
    harness.create_topic("t", partitions=3)
    return harness


def produce(node: NodeHarness, index: int = 0, *values: bytes, epoch: int = EPOCH, sequence: int = 0) -> int:
    """A transactional batch; its error code."""
    batch = node.batch(
        *(values or (b"v",)),
        producer_id=PRODUCER,
        producer_epoch=epoch,
        base_sequence=sequence,
        transactional=True,
    )
    data = TopicProduceData(name="t", partition_data=[PartitionProduceData(index=index, records=batch)])
    request = ProduceRequest(transactional_id="id", acks=-1, timeout_ms=1000, topic_data=[data])
    code: int = node.client().ask(request, 11).responses[0].partition_responses[0].error_code
    return code


def watched(node: NodeHarness) -> list[WriteTxnMarkersRequest]:
    """The requests that leaders get from here on."""
    asked: list[WriteTxnMarkersRequest] = []
    serve = node.node.txn_markers.serve

    def watch(request: WriteTxnMarkersRequest, version: int, done: Any) -> None:
        asked.append(request)
        serve(request, version, done)

    node.node.between_brokers.serve(ApiKey.WRITE_TXN_MARKERS, 1, watch)
    return asked


def write(
    node: NodeHarness,
    *partitions: tuple[str, int],
    commit: bool = True,
    epoch: int = EPOCH,
    coordinator_epoch: int = 0,
    version: int = 0,
) -> dict[tuple[str, int], ErrorCode]:
    outcomes: list[Any] = []
    marker = Marker(Producer(PRODUCER, epoch), coordinator_epoch, commit, version)
    node.node.txn_markers.write(marker, list(partitions), outcomes.append)
    assert not outcomes, "answered from within"
    node.settle()
    (outcome,) = outcomes
    assert isinstance(outcome, dict)
    return outcome


def unstable(node: NodeHarness, index: int = 0) -> bool:
    partition = node.node.partitions["t", index]
    return partition.last_stable_offset < partition.high_watermark


def test_a_marker_ends_the_transaction_in_its_partitions(node: NodeHarness) -> None:
    for index in range(3):
        assert produce(node, index) == OK
        assert unstable(node, index)
    assert write(node, ("t", 0), ("t", 2)) == {("t", 0): OK, ("t", 2): OK}
    assert [unstable(node, index) for index in range(3)] == [False, True, False]


def test_partitions_that_are_unknown_are_told(node: NodeHarness) -> None:
    assert write(node, ("t", 9), ("gone", 0), ("t", 1)) == {
        ("t", 9): ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ("gone", 0): ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ("t", 1): OK,
    }


def test_markers_of_one_turn_go_in_one_request(node: NodeHarness) -> None:
    asked = watched(node)
    outcomes: list[Any] = []
    for producer_id in range(5):
        marker = Marker(Producer(producer_id, 0), 0, commit=False, transaction_version=2)
        node.node.txn_markers.write(marker, [("t", 0), ("t", 1)], outcomes.append)
    node.settle()
    assert len(asked) == 1
    assert outcomes == [{("t", 0): OK, ("t", 1): OK}] * 5


def test_a_stale_epoch_and_a_stale_coordinator_are_refused(node: NodeHarness) -> None:
    assert produce(node) == OK
    assert write(node, ("t", 0), epoch=EPOCH - 1) == {("t", 0): ErrorCode.INVALID_PRODUCER_EPOCH}
    assert unstable(node)
    assert write(node, ("t", 0), coordinator_epoch=5) == {("t", 0): OK}
    assert produce(node, sequence=1) == OK
    assert write(node, ("t", 0), coordinator_epoch=4) == {("t", 0): ErrorCode.TRANSACTION_COORDINATOR_FENCED}
    assert unstable(node)


def test_a_late_marker_of_version_2_does_not_end_the_next_transaction(node: NodeHarness) -> None:
    """T3: the marker has a higher epoch than its transaction, so an epoch that is in use already is an old one."""
    assert produce(node) == OK
    assert write(node, ("t", 0), epoch=EPOCH + 1, version=2) == {("t", 0): OK}
    assert write(node, ("t", 0), epoch=EPOCH + 1, version=2) == {("t", 0): OK}, "once more changes nothing"
    assert produce(node, epoch=EPOCH + 1) == OK
    refused = {("t", 0): ErrorCode.INVALID_PRODUCER_EPOCH}
    assert write(node, ("t", 0), epoch=EPOCH + 1, version=2, commit=False) == refused
    assert unstable(node)


def test_an_operator_writes_markers_too(node: NodeHarness) -> None:
    """kafka-transactions abort sends WriteTxnMarkers as a client."""
    assert produce(node) == OK
    marker = WritableTxnMarker(
        producer_id=PRODUCER,
        producer_epoch=EPOCH,
        transaction_result=False,
        topics=[WritableTxnMarkerTopic("t", [0, 7])],
        coordinator_epoch=-1,
    )
    answer: WriteTxnMarkersResponse = node.client().ask(WriteTxnMarkersRequest(markers=[marker]), 1)
    (result,) = answer.markers
    assert result.producer_id == PRODUCER
    found = {one.partition_index: one.error_code for one in result.topics[0].partitions}
    assert found == {0: OK, 7: ErrorCode.UNKNOWN_TOPIC_OR_PARTITION}
    assert not unstable(node)


def test_requests_that_brokers_do_not_serve_each_other_get_no_answer(node: NodeHarness) -> None:
    replies: list[bytes | None] = []
    answer = node.node.between_brokers.answer
    answer(ApiKey.METADATA, 9, b"", replies.append)
    answer(ApiKey.WRITE_TXN_MARKERS, 0, b"", replies.append)
    answer(ApiKey.WRITE_TXN_MARKERS, 1, b"\xff\xff", replies.append)
    assert replies == [None, None, None]


def test_a_transaction_of_more_partitions_than_one_request_carries(
    node: NodeHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(txn_markers, "PARTITIONS_MAX", 2)
    asked = watched(node)
    assert write(node, ("t", 0), ("t", 1), ("t", 2)) == {("t", 0): OK, ("t", 1): OK, ("t", 2): OK}
    assert [[topic.partition_indexes for topic in each.markers[0].topics] for each in asked] == [
        [[0, 1]],
        [[2]],
    ]
