"""Transactional batches on a whole node: nothing is taken that belongs to no open transaction (KIP-890)."""

from __future__ import annotations

from typing import Any

import pytest

from odradek.broker import txn_verification
from odradek.broker.metrics_export import snapshot
from odradek.broker.topic_creation import OFFSETS_TOPIC
from odradek.broker.txn_verification import ASKS_MAX
from odradek.coordinator.runtime import Marker
from odradek.coordinator.runtime import Producer as ProducerOfTransaction
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.add_partitions_to_txn import AddPartitionsToTxnRequest, AddPartitionsToTxnTopic
from odradek.wire.messages.end_txn import EndTxnRequest
from odradek.wire.messages.find_coordinator import FindCoordinatorRequest
from odradek.wire.messages.init_producer_id import InitProducerIdRequest
from odradek.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from support.node_harness import Client, NodeHarness

ID = "payments"
VERIFIED, IMPLICIT = 11, 12
"""Versions of Produce: of clients that add partitions themselves, and of those that leave it to us."""
TV1, TV2 = 4, 5
"""Versions of EndTxn."""


class Producer:
    """A transactional client that does only what it is told."""

    def __init__(self, node: NodeHarness) -> None:
        self.node = node
        self.client: Client = node.client()
        self.client.ask(FindCoordinatorRequest(key_type=1, coordinator_keys=[ID]), 4)
        node.settle()
        answer = self.client.ask(InitProducerIdRequest(ID, 60_000, -1, -1), 4)
        assert answer.error_code == ErrorCode.NONE
        self.id, self.epoch = answer.producer_id, answer.producer_epoch
        self.sequence = 0

    def add(self, *indexes: int) -> None:
        topic = AddPartitionsToTxnTopic("t", list(indexes))
        asked = AddPartitionsToTxnRequest(
            v3_and_below_transactional_id=ID,
            v3_and_below_producer_id=self.id,
            v3_and_below_producer_epoch=self.epoch,
            v3_and_below_topics=[topic],
        )
        for result in self.client.ask(asked, 3).results_by_topic_v3_and_below[0].results_by_partition:
            assert result.partition_error_code == ErrorCode.NONE

    def request(self, index: int = 0, sequence: int = 0, **options: Any) -> ProduceRequest:
        settings = {"producer_id": self.id, "producer_epoch": self.epoch, "transactional": True} | options
        value = settings.pop("value", b"value")
        batch = self.node.batch(value, base_sequence=sequence, **settings)
        data = TopicProduceData(name="t", partition_data=[PartitionProduceData(index=index, records=batch)])
        return ProduceRequest(transactional_id=ID, acks=-1, timeout_ms=1000, topic_data=[data])

    def produce(self, version: int, index: int = 0, sequence: int = 0, **options: Any) -> Any:
        asked = self.request(index, sequence, **options)
        return self.client.ask(asked, version).responses[0].partition_responses[0]

    def end(self, version: int, *, commit: bool = True) -> None:
        answer = self.client.ask(EndTxnRequest(ID, self.id, self.epoch, commit), version)
        assert answer.error_code == ErrorCode.NONE
        self.node.settle()
        if version >= TV2:
            self.id, self.epoch = answer.producer_id, answer.producer_epoch


@pytest.fixture
def node() -> NodeHarness:
    harness = NodeHarness()
    harness.create_topic("t", 3)
    return harness


@pytest.fixture
def producer(node: NodeHarness) -> Producer:
    return Producer(node)


def stable(node: NodeHarness, index: int = 0) -> tuple[int, int]:
    partition = node.node.partitions["t", index]
    return partition.last_stable_offset, partition.high_watermark


def test_a_batch_of_a_partition_in_the_transaction_is_taken(producer: Producer) -> None:
    producer.add(0)
    assert producer.produce(VERIFIED).error_code == ErrorCode.NONE
    assert stable(producer.node) == (0, 1)
    producer.end(TV1)
    assert stable(producer.node) == (2, 2)


@pytest.mark.parametrize(
    ("version", "error"),
    [(10, ErrorCode.INVALID_TXN_STATE), (VERIFIED, ErrorCode.TRANSACTION_ABORTABLE)],
)
def test_a_batch_of_a_partition_that_was_not_added_is_refused(
    producer: Producer, version: int, error: ErrorCode
) -> None:
    producer.add(1)
    assert producer.produce(version).error_code == error
    assert stable(producer.node) == (0, 0)


def test_a_batch_after_the_end_of_its_transaction_begins_no_other(producer: Producer) -> None:
    producer.add(0)
    assert producer.produce(VERIFIED).error_code == ErrorCode.NONE
    producer.end(TV1, commit=False)
    assert producer.produce(10, sequence=1).error_code == ErrorCode.INVALID_TXN_STATE
    assert stable(producer.node) == (2, 2)


def test_a_client_of_version_2_adds_partitions_by_writing_to_them(producer: Producer) -> None:
    assert producer.produce(IMPLICIT, 0).error_code == ErrorCode.NONE
    assert producer.produce(IMPLICIT, 1).error_code == ErrorCode.NONE
    assert producer.produce(IMPLICIT, 0, sequence=1).error_code == ErrorCode.NONE
    epoch = producer.epoch
    producer.end(TV2)
    assert producer.epoch == epoch + 1
    assert stable(producer.node, 0) == (3, 3)
    assert stable(producer.node, 1) == (2, 2)
    late = producer.produce(IMPLICIT, 0, sequence=2, producer_epoch=epoch)
    assert late.error_code == ErrorCode.INVALID_PRODUCER_EPOCH
    assert producer.produce(IMPLICIT, 0).error_code == ErrorCode.NONE


def test_a_client_of_version_2_that_nobody_knows_begins_with_sequence_0(producer: Producer) -> None:
    answer = producer.produce(IMPLICIT, sequence=5)
    assert answer.error_code == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert "Expected sequence 0 for transactions v2" in answer.error_message


def test_requests_that_come_while_the_coordinator_is_asked_keep_their_order(producer: Producer) -> None:
    """One connection may have five of them under way."""
    client = producer.client
    numbers = [client.send(producer.request(0, sequence), IMPLICIT) for sequence in range(5)]
    producer.node.settle()
    answers = [client.take(0, IMPLICIT, number) for number in numbers]
    found = [answer.responses[0].partition_responses[0] for answer in answers]
    assert [one.error_code for one in found] == [ErrorCode.NONE] * 5
    assert [one.base_offset for one in found] == list(range(5))


def test_of_several_batches_that_wait_none_is_taken_when_the_first_is_refused(producer: Producer) -> None:
    """Else what the first one held would be missing between the others, unnoticed."""
    producer.add(0)
    client = producer.client
    bad = producer.request(0, 0)
    records = bytearray(bad.topic_data[0].partition_data[0].records)
    records[-1] ^= 1
    bad.topic_data[0].partition_data[0].records = bytes(records)
    numbers = [client.send(bad, VERIFIED), client.send(producer.request(0, 1), VERIFIED)]
    producer.node.settle()
    answers = [client.take(0, VERIFIED, number) for number in numbers]
    assert [one.responses[0].partition_responses[0].error_code for one in answers] == [
        ErrorCode.CORRUPT_MESSAGE,
        ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
    ]
    states = producer.node.node.partitions["t", 0].log.producers
    assert len(states.verifying) == 1
    for _ in range(2):
        states.expire(producer.node.clock.wall_ms(), 1_000_000)
    assert not states.verifying, "what nobody waits for is forgotten"


class Overtaken:
    """A batch of the next transaction, under the epoch of the last one, whose marker comes while the coordinator is
    asked about it."""

    def __init__(self, producer: Producer) -> None:
        self.producer = producer
        producer.add(0)
        assert producer.produce(VERIFIED).error_code == ErrorCode.NONE
        producer.end(TV1)
        self.asked: list[Any] = []
        verification = producer.node.node.txn_verification
        verification.ask = lambda *question: self.asked.append(question)  # type: ignore[method-assign]
        self.number = producer.client.send(producer.request(sequence=1), VERIFIED)

    def marker(self) -> None:
        producer = self.producer
        node, outcomes = producer.node.node, list[Any]()
        marker = Marker(ProducerOfTransaction(producer.id, producer.epoch), 9, False, 1)
        node.txn_markers.write(marker, [("t", 0)], outcomes.append)
        producer.node.settle()

    def coordinator_says(self, code: ErrorCode) -> None:
        self.asked.pop()[-1](code)
        self.producer.node.settle()

    def answer(self) -> Any:
        taken = self.producer.client.take(0, VERIFIED, self.number)
        return taken and taken.responses[0].partition_responses[0]


def test_when_a_marker_comes_while_the_coordinator_is_asked_it_is_asked_again(producer: Producer) -> None:
    """A producer begins the next transaction before the markers of the last one have arrived everywhere."""
    batch = Overtaken(producer)
    batch.marker()
    batch.coordinator_says(ErrorCode.NONE)
    assert batch.answer() is None
    batch.coordinator_says(ErrorCode.NONE)
    assert batch.answer().error_code == ErrorCode.NONE
    assert producer.node.node.partitions["t", 0].log.producers.ongoing


def test_a_batch_that_a_marker_has_overtaken_may_belong_to_no_transaction(producer: Producer) -> None:
    """Or it would begin one that nobody ends."""
    batch = Overtaken(producer)
    batch.marker()
    batch.coordinator_says(ErrorCode.NONE)
    batch.coordinator_says(ErrorCode.TRANSACTION_ABORTABLE)
    assert batch.answer().error_code == ErrorCode.TRANSACTION_ABORTABLE
    producers = producer.node.node.partitions["t", 0].log.producers
    assert not producers.ongoing
    assert not producers.verifying


def test_a_batch_is_not_asked_about_forever(producer: Producer) -> None:
    batch = Overtaken(producer)
    for _ in range(ASKS_MAX):
        batch.marker()
        batch.coordinator_says(ErrorCode.NONE)
    answer = batch.answer()
    assert answer.error_code == ErrorCode.INVALID_TXN_STATE
    assert answer.error_message == "Record was not part of an ongoing transaction"
    assert not producer.node.node.partitions["t", 0].log.producers.ongoing


@pytest.mark.parametrize(
    "code",
    [
        ErrorCode.NETWORK_EXCEPTION,
        ErrorCode.NOT_COORDINATOR,
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.CONCURRENT_TRANSACTIONS,
    ],
)
def test_without_a_coordinator_the_client_comes_again(producer: Producer, code: ErrorCode) -> None:
    asked: list[Any] = []
    verification = producer.node.node.txn_verification
    verification.ask = lambda *question: asked.append(question)  # type: ignore[method-assign]
    number = producer.client.send(producer.request(), IMPLICIT)
    asked[0][-1](code)
    producer.node.settle()
    answer = producer.client.take(0, IMPLICIT, number).responses[0].partition_responses[0]
    assert answer.error_code == ErrorCode.NOT_ENOUGH_REPLICAS
    assert answer.error_message.endswith(f"Underlying error: {code.name}")
    assert not producer.node.node.partitions["t", 0].log.producers.verifying


def test_batches_that_wait_are_bounded_and_released(
    producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(txn_verification, "WAITING_BYTES_MAX", 100)
    asked: list[Any] = []
    verification = producer.node.node.txn_verification
    verification.ask = lambda *question: asked.append(question)  # type: ignore[method-assign]
    first = producer.client.send(producer.request(value=bytes(200)), IMPLICIT)
    answer = producer.node.client().ask(producer.request(1), IMPLICIT).responses[0].partition_responses[0]
    assert answer.error_code == ErrorCode.NOT_ENOUGH_REPLICAS
    assert len(asked) == 1
    asked[0][-1](ErrorCode.NOT_COORDINATOR)
    producer.node.settle()
    assert producer.client.take(0, IMPLICIT, first).responses[0].partition_responses[0].error_code
    producer.client.send(producer.request(1), IMPLICIT)
    assert len(asked) == 2


def test_a_client_does_not_wait_longer_than_it_wants(producer: Producer) -> None:
    asked: list[Any] = []
    verification = producer.node.node.txn_verification
    verification.ask = lambda *question: asked.append(question)  # type: ignore[method-assign]
    number = producer.client.send(producer.request(), IMPLICIT)
    producer.node.advance(1001)
    answer = producer.client.take(0, IMPLICIT, number).responses[0].partition_responses[0]
    assert answer.error_code == ErrorCode.REQUEST_TIMED_OUT
    asked[0][-1](ErrorCode.NONE)
    producer.node.settle()
    assert producer.client.take_frame() is None


def test_a_transactional_batch_without_a_transactional_id_is_refused(producer: Producer) -> None:
    for version in (9, VERIFIED, IMPLICIT):
        asked = producer.request()
        asked.transactional_id = None
        answer = producer.client.ask(asked, version).responses[0].partition_responses[0]
        assert answer.error_code == ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    assert stable(producer.node) == (0, 0)


def test_an_unfenced_twin_is_refused(producer: Producer) -> None:
    """F1: after the second InitProducerId the first one's epoch is over."""
    twin = Producer(producer.node)
    assert twin.epoch == producer.epoch + 1
    assert producer.produce(IMPLICIT).error_code == ErrorCode.INVALID_PRODUCER_EPOCH
    assert twin.produce(IMPLICIT).error_code == ErrorCode.NONE


def test_verification_can_be_turned_off() -> None:
    node = NodeHarness(transaction__partition__verification__enable="false")
    node.create_topic("t", 1)
    producer = Producer(node)
    assert producer.produce(VERIFIED).error_code == ErrorCode.NONE


def test_several_partitions_of_a_request_are_answered_together(producer: Producer) -> None:
    producer.add(0)
    asked = producer.request(0)
    asked.topic_data[0].partition_data += producer.request(1).topic_data[0].partition_data
    answers = producer.client.ask(asked, VERIFIED).responses[0].partition_responses
    assert [one.error_code for one in answers] == [ErrorCode.NONE, ErrorCode.TRANSACTION_ABORTABLE]
    assert answers[1].base_offset == -1


def test_transactions_are_seen_in_the_metrics(producer: Producer) -> None:
    node = producer.node.node
    producer.add(0)
    assert producer.produce(VERIFIED).error_code == ErrorCode.NONE
    assert producer.produce(VERIFIED, index=1).error_code == ErrorCode.TRANSACTION_ABORTABLE
    found = snapshot(node)
    manager = "kafka_server_addpartitionstotxnmanager_"
    assert found.counters[f"{manager}verification"][1] == 2
    assert found.counters[f"{manager}verificationfailure"][1] == 1
    assert found.gauges["kafka_server_replicamanager_produceridcount"][1] == 1
    late = "kafka_server_replicamanager_partitionswithlatetransactionscount"
    assert found.gauges[late][1] == 0
    producer.node.clock.now_ms += node.transactions.config.max_timeout_ms + 5 * 60_000 + 1
    assert snapshot(node).gauges[late][1] == 1


def test_offsets_of_the_next_transaction_may_be_faster_than_the_marker_of_the_last(
    producer: Producer,
) -> None:
    """As `test_when_a_marker_comes_…`, for what is committed to a group."""
    node = producer.node.node
    producer.client.ask(FindCoordinatorRequest(key_type=0, coordinator_keys=["group"]), 4)
    producer.node.settle()
    asked: list[Any] = []
    node.txn_verification.ask = lambda *question: asked.append(question)  # type: ignore[method-assign]
    partition = node.groups.partition_for("group")
    who = ProducerOfTransaction(producer.id, producer.epoch)
    answers: list[ErrorCode] = []
    node.groups.verification.verify(ID, who, partition, 5, 0, answers.append)
    node.txn_markers.write(Marker(who, 9, False, 1), [(OFFSETS_TOPIC, partition)], lambda _: None)
    producer.node.settle()
    asked.pop()[-1](ErrorCode.NONE)
    assert not answers, "asked again"
    asked.pop()[-1](ErrorCode.NONE)
    assert answers == [ErrorCode.NONE]
