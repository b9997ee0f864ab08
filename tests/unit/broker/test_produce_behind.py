"""A batch is not told that it is out of order while the one before it may be on its way: librdkafka would begin a new
epoch and write again what is in the logs of other partitions.
"""

from __future__ import annotations

import pytest

from odradek.broker.api import produce_behind
from odradek.broker.api.produce_behind import AFTER_MOVE_MAX, BEHIND_MAX, PARTITIONS_MAX, error_to_tell
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.init_producer_id import InitProducerIdRequest
from odradek.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from support.node_harness import Client, NodeHarness

NOT_LEADER = ErrorCode.NOT_LEADER_OR_FOLLOWER
OUT_OF_ORDER = ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
VERSION = 9


class Producer:
    """An idempotent one, of topic t."""

    def __init__(self, node: NodeHarness) -> None:
        self.node = node
        given = node.client().ask(InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=-1), 4)
        self.id = given.producer_id

    def batch(self, sequence: int) -> bytes:
        return self.node.batch(b"v", producer_id=self.id, producer_epoch=0, base_sequence=sequence)

    def produce(self, client: Client, sequence: int, *partitions: int, version: int = VERSION) -> ErrorCode:
        """`partitions`: 0 if none is named. What each of them is told."""
        data = [
            PartitionProduceData(index=index, records=self.batch(sequence)) for index in partitions or (0,)
        ]
        by_id = version >= 13
        topic = TopicProduceData(
            name="" if by_id else "t",
            topic_id=self.node.topic_id("t") if by_id else bytes(16),
            partition_data=data,
        )
        answer = client.ask(ProduceRequest(acks=-1, timeout_ms=1000, topic_data=[topic]), version)
        (code,) = {each.error_code for each in answer.responses[0].partition_responses}
        return ErrorCode(code)


@pytest.fixture
def node() -> NodeHarness:
    harness = NodeHarness()
    harness.create_topic("t", 2)
    return harness


def lead(node: NodeHarness, leads: bool) -> None:
    for partition in node.node.partitions.values():
        partition.is_leader = leads


@pytest.mark.parametrize("partitions", [(0,), (0, 1)])
@pytest.mark.parametrize("version", [9, 13])
def test_what_comes_behind_a_batch_that_came_before_the_leader_led_is_refused_alike(
    node: NodeHarness, version: int, partitions: tuple[int, ...]
) -> None:
    producer, client = Producer(node), node.client()

    def produce(sequence: int) -> ErrorCode:
        return producer.produce(client, sequence, *partitions, version=version)

    assert [produce(0), produce(1)] == [ErrorCode.NONE, ErrorCode.NONE]
    lead(node, False)
    assert produce(2) is NOT_LEADER
    lead(node, True)
    assert [produce(3), produce(4)] == [NOT_LEADER, NOT_LEADER], "two that were under way"
    assert [produce(2), produce(3), produce(4)] == [ErrorCode.NONE] * 3, "again, in their order"


def test_so_it_is_with_too_few_replicas_on_the_hot_path(
    node: NodeHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer, client = Producer(node), node.client()
    partition = node.node.partitions["t", 0]
    assert [producer.produce(client, each) for each in range(2)] == [ErrorCode.NONE] * 2
    partition.commits_at_once = False  # as with several replicas

    def refuse(_partition: object) -> None:
        raise KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS)

    with monkeypatch.context() as few:
        few.setattr(type(partition), "refuse_if_too_few_in_sync", refuse)
        assert producer.produce(client, 2) is ErrorCode.NOT_ENOUGH_REPLICAS
    partition.commits_at_once = True
    assert producer.produce(client, 3) is ErrorCode.NOT_ENOUGH_REPLICAS
    assert [producer.produce(client, each) for each in (2, 3)] == [ErrorCode.NONE] * 2


def test_a_gap_is_told_where_nothing_was_refused_before(node: NodeHarness) -> None:
    producer, other, client = Producer(node), Producer(node), node.client()
    assert producer.produce(client, 0) is ErrorCode.NONE
    assert producer.produce(client, 5) is OUT_OF_ORDER
    lead(node, False)
    assert [producer.produce(client, 1), other.produce(client, 0, 1)] == [NOT_LEADER] * 2
    lead(node, True)
    assert producer.produce(node.client(), 2) is OUT_OF_ORDER, (
        "another connection: nothing is under way there"
    )
    assert other.produce(client, 0) is ErrorCode.NONE
    assert other.produce(client, 2) is OUT_OF_ORDER, "another producer in this partition"
    assert producer.produce(client, 7, 1) is ErrorCode.NONE, "the first that this partition sees of it"
    assert producer.produce(client, 9, 1) is OUT_OF_ORDER, "another partition"


def test_a_gap_is_told_once_no_more_can_be_under_way(node: NodeHarness) -> None:
    producer, client = Producer(node), node.client()
    assert producer.produce(client, 0) is ErrorCode.NONE
    lead(node, False)
    assert producer.produce(client, 1) is NOT_LEADER
    lead(node, True)
    told = [producer.produce(client, sequence) for sequence in range(2, 8)]
    assert told == [NOT_LEADER] * BEHIND_MAX + [OUT_OF_ORDER] * (6 - BEHIND_MAX)


def new_leader(node: NodeHarness) -> None:
    """As if the partitions had just moved here, with all that is in their logs."""
    for partition in node.node.partitions.values():
        assert partition.replica is not None and partition.replica.leader is not None
        partition.replica.leader.epoch_start_offset = partition.log.log_end_offset
        partition.leading(partition.replica)


def test_after_a_move_the_batch_before_may_still_be_under_way_to_the_earlier_leader(
    node: NodeHarness,
) -> None:
    producer, client = Producer(node), node.client()
    assert [producer.produce(client, each) for each in range(3)] == [ErrorCode.NONE] * 3
    new_leader(node)
    assert [producer.produce(client, each) for each in (4, 5)] == [NOT_LEADER] * 2
    assert [producer.produce(client, each) for each in (3, 4, 5)] == [ErrorCode.NONE] * 3, "in their order"
    assert producer.produce(client, 7) is NOT_LEADER, "6 may have been the last of five under way"
    assert [producer.produce(client, each) for each in (6, 7)] == [ErrorCode.NONE] * 2
    assert producer.produce(client, 9) is OUT_OF_ORDER, "five were taken here: a gap is a gap"


def test_after_a_move_who_lost_a_batch_is_told_so_in_the_end(node: NodeHarness) -> None:
    producer, client = Producer(node), node.client()
    assert producer.produce(client, 0) is ErrorCode.NONE
    for _ in range(2):  # each new leader counts anew
        new_leader(node)
        told = [producer.produce(client, 2) for _ in range(AFTER_MOVE_MAX + 2)]
        assert told == [NOT_LEADER] * AFTER_MOVE_MAX + [OUT_OF_ORDER] * 2
    new_leader(node)
    assert producer.produce(client, 0) is ErrorCode.NONE, "a retry of what is there"


def test_after_a_move_what_is_behind_the_last_five_is_out_of_order(node: NodeHarness) -> None:
    producer, client = Producer(node), node.client()
    assert [producer.produce(client, each) for each in range(8)] == [ErrorCode.NONE] * 8
    new_leader(node)
    assert producer.produce(client, 1) is OUT_OF_ORDER, "nothing before it is missing"


def test_producers_that_are_counted_after_a_move_are_bounded(
    node: NodeHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(produce_behind, "PRODUCERS_MAX", 2)
    producers, client = [Producer(node) for _ in range(4)], node.client()
    for each in producers:
        assert each.produce(client, 0) is ErrorCode.NONE
    new_leader(node)
    for each in producers:
        assert each.produce(client, 2) is NOT_LEADER
    assert len(node.node.partitions["t", 0].gaps_after_move) <= 2


def test_sequences_begin_again_after_the_last_one(node: NodeHarness) -> None:
    refused: produce_behind.Refused = {}

    def told(sequence: int, code: ErrorCode, epoch: int = 0) -> ErrorCode:
        batch = node.batch(b"v", producer_id=1, producer_epoch=epoch, base_sequence=sequence)
        return error_to_tell(refused, node.node.partitions["t", 0], batch, KafkaError(code)).code

    assert told((1 << 31) - 1, NOT_LEADER) is NOT_LEADER
    assert told(3, OUT_OF_ORDER) is NOT_LEADER
    assert told((1 << 31) - 2, OUT_OF_ORDER) is OUT_OF_ORDER, "before it, not behind it"
    assert told(4, OUT_OF_ORDER, epoch=1) is OUT_OF_ORDER, "of another epoch"


@pytest.mark.parametrize("batch", [None, b"", b"short", bytes(61)])
def test_what_is_no_batch_is_not_remembered(node: NodeHarness, batch: bytes | None) -> None:
    refused: produce_behind.Refused = {}
    assert (
        error_to_tell(refused, node.node.partitions["t", 0], batch, KafkaError(NOT_LEADER)).code is NOT_LEADER
    )
    assert not refused


def test_only_idempotent_producers_and_so_many_partitions_are_remembered(node: NodeHarness) -> None:
    refused: produce_behind.Refused = {}
    error_to_tell(refused, node.node.partitions["t", 0], node.batch(b"v"), KafkaError(NOT_LEADER))
    assert not refused
    batch = node.batch(b"v", producer_id=1, producer_epoch=0, base_sequence=0)
    assert error_to_tell(refused, None, batch, KafkaError(NOT_LEADER)).code is NOT_LEADER
    assert not refused, "no replica here: a stranger may name what he likes"
    node.create_topic("many", PARTITIONS_MAX + 1)
    for index in range(PARTITIONS_MAX):
        for _ in range(2):
            error_to_tell(refused, node.node.partitions["many", index], batch, KafkaError(NOT_LEADER))
        assert len(refused) == index + 1
    error_to_tell(refused, node.node.partitions["many", PARTITIONS_MAX], batch, KafkaError(NOT_LEADER))
    assert len(refused) == 1
