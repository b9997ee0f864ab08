"""What read_committed readers see of transactions, in every version of Fetch and ListOffsets (T1, T2)."""

from __future__ import annotations

from typing import Any

import pytest

from odradek.coordinator.runtime import Marker, Producer
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.describe_producers import DescribeProducersRequest, TopicRequest
from odradek.wire.messages.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from odradek.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from odradek.wire.records import iter_batches, parse_end_txn_marker, read_records
from support.node_harness import NodeHarness
from unit.broker.test_fetch import VERSIONS, request

COMMITTED = 1


@pytest.fixture
def node() -> NodeHarness:
    harness = NodeHarness(transaction__partition__verification__enable="false")
    harness.create_topic("t", 2)
    return harness


class Writer:
    """A transactional producer without a coordinator."""

    def __init__(self, node: NodeHarness, producer_id: int) -> None:
        self.node = node
        self.id = producer_id
        self.sequence = 0

    def write(self, *values: bytes, index: int = 0) -> None:
        batch = self.node.batch(
            *values,
            producer_id=self.id,
            producer_epoch=0,
            base_sequence=self.sequence,
            transactional=True,
        )
        self.sequence += len(values)
        data = TopicProduceData(name="t", partition_data=[PartitionProduceData(index=index, records=batch)])
        asked = ProduceRequest(transactional_id="id", acks=-1, timeout_ms=1000, topic_data=[data])
        answer = self.node.client().ask(asked, 9).responses[0].partition_responses[0]
        assert answer.error_code == ErrorCode.NONE, answer.error_message

    def end(self, *, commit: bool, index: int = 0) -> None:
        outcomes: list[Any] = []
        self.node.node.txn_markers.write(
            Marker(Producer(self.id, 0), 0, commit, 1), [("t", index)], outcomes.append
        )
        self.node.settle()
        assert outcomes == [{("t", index): ErrorCode.NONE}]


def fetch(node: NodeHarness, version: int = 12, offset: int = 0, isolation_level: int = COMMITTED) -> Any:
    asked = request(node, {0: offset}, version, isolation_level=isolation_level, max_wait_ms=0)
    partition = node.client().ask(asked, version).responses[0].partitions[0]
    assert partition.error_code == ErrorCode.NONE
    assert partition.last_stable_offset <= partition.high_watermark, "T2"
    return partition


def seen(partition: Any) -> list[bytes]:
    """The values a consumer hands out: it leaves out what it was told was aborted."""
    aborted = sorted((each.first_offset, each.producer_id) for each in partition.aborted_transactions or ())
    out: set[int] = set()
    values: list[bytes] = []
    data = memoryview(partition.records or b"")
    for position, header in iter_batches(data):
        records = read_records(data[position : position + header.size], header, limit=1 << 20)
        while aborted and aborted[0][0] <= header.last_offset:
            out.add(aborted.pop(0)[1])
        if header.is_control:
            if not parse_end_txn_marker(records[0]).commit:
                out.discard(header.producer_id)
        elif not (header.is_transactional and header.producer_id in out):
            values += [record.value or b"" for record in records]
    return values


@pytest.mark.parametrize("version", VERSIONS)
def test_committed_is_seen_and_aborted_is_not(node: NodeHarness, version: int) -> None:
    one, two = Writer(node, 1), Writer(node, 2)
    one.write(b"a", b"b")
    two.write(b"lost")
    one.write(b"c")
    two.end(commit=False)
    one.end(commit=True)
    two.write(b"d")
    two.end(commit=True)
    partition = fetch(node, version)
    assert [(each.producer_id, each.first_offset) for each in partition.aborted_transactions] == [(2, 2)]
    assert seen(partition) == [b"a", b"b", b"c", b"d"]
    everything = fetch(node, version, isolation_level=0)
    assert everything.aborted_transactions is None
    assert seen(everything) == [b"a", b"b", b"lost", b"c", b"d"]


def test_nothing_of_an_open_transaction_is_seen_nor_what_comes_after_it(node: NodeHarness) -> None:
    open_one, quick = Writer(node, 1), Writer(node, 2)
    quick.write(b"before")
    quick.end(commit=True)
    open_one.write(b"undecided")
    quick.write(b"after")
    quick.end(commit=True)
    partition = fetch(node)
    assert (partition.last_stable_offset, partition.high_watermark) == (2, 5)
    assert seen(partition) == [b"before"]
    assert seen(fetch(node, isolation_level=0)) == [b"before", b"undecided", b"after"]
    open_one.end(commit=False)
    assert seen(fetch(node)) == [b"before", b"after"]
    assert seen(fetch(node, offset=3)) == [b"after"]


def test_a_waiting_reader_is_woken_by_the_marker_and_not_by_what_it_may_not_see(node: NodeHarness) -> None:
    writer = Writer(node, 1)
    client = node.client()
    number = client.send(request(node, {0: 0}, isolation_level=COMMITTED, max_wait_ms=10_000), 12)
    writer.write(b"a")
    writer.write(b"b")
    node.settle()
    assert client.take(1, 12, number) is None
    writer.end(commit=True)
    answer = client.take(1, 12, number)
    assert seen(answer.responses[0].partitions[0]) == [b"a", b"b"]


def test_aborted_transactions_are_told_after_a_restart_too(node: NodeHarness) -> None:
    one = Writer(node, 1)
    one.write(b"lost")
    one.end(commit=False)
    one.write(b"kept")
    one.end(commit=True)
    for clean in (True, False):
        node.restart(clean=clean)
        assert seen(fetch(node)) == [b"kept"]


def list_offset(node: NodeHarness, timestamp: int, isolation_level: int) -> int:
    wanted = ListOffsetsPartition(partition_index=0, current_leader_epoch=-1, timestamp=timestamp)
    topic = ListOffsetsTopic(name="t", partitions=[wanted])
    asked = ListOffsetsRequest(replica_id=-1, isolation_level=isolation_level, topics=[topic])
    found = node.client().ask(asked, 7).topics[0].partitions[0]
    assert found.error_code == ErrorCode.NONE
    offset: int = found.offset
    return offset


def test_the_latest_offset_of_a_read_committed_reader_is_the_last_stable_one(node: NodeHarness) -> None:
    writer = Writer(node, 1)
    writer.write(b"a")
    writer.end(commit=True)
    writer.write(b"b")
    latest, max_timestamp, from_the_start = -1, -3, 0
    assert list_offset(node, latest, 0) == 3
    assert list_offset(node, latest, COMMITTED) == 2
    assert list_offset(node, from_the_start, COMMITTED) == 0
    assert list_offset(node, max_timestamp, 0) >= 0
    assert list_offset(node, node.clock.wall_ms() + 1, COMMITTED) == -1


def test_describe_producers_tells_where_a_transaction_began(node: NodeHarness) -> None:
    writer = Writer(node, 1)
    writer.write(b"a")
    writer.end(commit=True)
    writer.write(b"b", b"c")
    asked = DescribeProducersRequest(topics=[TopicRequest("t", [0])])
    (producer,) = node.client().ask(asked, 0).topics[0].partitions[0].active_producers
    assert (producer.producer_id, producer.producer_epoch, producer.coordinator_epoch) == (1, 0, 0)
    assert (producer.last_sequence, producer.current_txn_start_offset) == (2, 2)


def test_a_follower_describes_the_producers_of_its_log_as_well(node: NodeHarness) -> None:
    Writer(node, 1).write(b"a")
    node.node.partitions["t", 0].is_leader = False
    asked = DescribeProducersRequest(topics=[TopicRequest("t", [0])])
    answer = node.client().ask(asked, 0).topics[0].partitions[0]
    assert (answer.error_code, [each.producer_id for each in answer.active_producers]) == (0, [1])


def test_a_leader_forgets_ended_transactions_though_nobody_reads(node: NodeHarness) -> None:
    writer = Writer(node, 1)
    for _ in range(20):
        writer.write(b"a")
        writer.end(commit=False)
    node.advance(60_000)
    assert node.node.partitions["t", 0].log.producers.completed == [], "the high watermark was noted"
