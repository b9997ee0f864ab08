"""Produce against a whole node in memory: every version, the hot path and the general one, and all refusals."""

from __future__ import annotations

import errno
from struct import pack

import pytest

from odradek.storage.memory_disk import MemoryDisk
from odradek.wire.compression import Codec
from odradek.wire.errors import ErrorCode
from odradek.wire.frame import encode_request
from odradek.wire.messages.init_producer_id import InitProducerIdRequest
from odradek.wire.messages.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from odradek.wire.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from odradek.wire.records import Record, build_batch, parse_header, read_records, seal
from support.node_harness import Client, NodeHarness

VERSIONS = range(3, 14)


@pytest.fixture
def node() -> NodeHarness:
    harness = NodeHarness()
    harness.create_topic("t", 3)
    return harness


def request(
    harness: NodeHarness, batches: dict[int, bytes | None], version: int, *, topic: str = "t", acks: int = 1
) -> ProduceRequest:
    known = harness.node.image.topics.get(topic)
    data = TopicProduceData(
        name=topic if version < 13 else "",
        topic_id=known.id if version >= 13 and known is not None else bytes(16),
        partition_data=[PartitionProduceData(index=index, records=batch) for index, batch in batches.items()],
    )
    return ProduceRequest(acks=acks, timeout_ms=1000, topic_data=[data])


def produce(
    harness: NodeHarness,
    client: Client,
    batches: dict[int, bytes | None],
    version: int = 9,
    **options: object,
) -> ProduceResponse:
    response = client.ask(request(harness, batches, version, **options), version)  # type: ignore[arg-type]
    assert isinstance(response, ProduceResponse)
    return response


def end_offset(harness: NodeHarness, index: int = 0, topic: str = "t") -> int:
    asked = ListOffsetsRequest(
        topics=[
            ListOffsetsTopic(
                name=topic, partitions=[ListOffsetsPartition(partition_index=index, timestamp=-1)]
            )
        ]
    )
    return int(harness.client().ask(asked).topics[0].partitions[0].offset)


@pytest.mark.parametrize("acks", [1, -1])
@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_is_answered_alike_on_the_hot_and_the_general_path(
    node: NodeHarness, version: int, acks: int
) -> None:
    client = node.client()
    for attempt in range(3):  # the first request of a shape is learned, the others take the hot path
        response = produce(node, client, {1: node.batch(b"a", b"b")}, version, acks=acks)
        answer = response.responses[0].partition_responses[0]
        assert (answer.error_code, answer.base_offset, answer.index) == (0, 2 * attempt, 1)
        assert answer.log_start_offset == (0 if version >= 5 else -1)
        assert answer.log_append_time_ms == -1
        if version >= 13:
            assert response.responses[0].topic_id == node.topic_id("t")
        else:
            assert response.responses[0].name == "t"
    many = produce(
        node, client, {0: node.batch(b"c"), 1: node.batch(b"d"), 2: node.batch(b"e")}, version, acks=acks
    )
    offsets = {each.index: each.base_offset for each in many.responses[0].partition_responses}
    assert offsets == {0: 0, 1: 6, 2: 0}
    assert end_offset(node, 1) == 7


def test_the_hot_path_was_taken(node: NodeHarness) -> None:
    client = node.client()
    produce(node, client, {0: node.batch(b"a")}, 9)
    assert len(client.connection.produce_cache) == 1
    for size in (1, 50, 200, 20_000):  # lengths of one, two and three varint bytes
        produce(node, client, {0: node.batch(b"x" * size)}, 9)
    assert len(client.connection.produce_cache) == 1
    assert node.node.metrics.api(0).requests == 5


def test_acks_0_is_not_answered_and_an_error_closes_the_connection(node: NodeHarness) -> None:
    client = node.client()
    for _ in range(3):
        client.send(request(node, {0: node.batch(b"a")}, 9, acks=0), 9)
    assert client.take_frame() is None
    assert end_offset(node) == 3
    client.send(request(node, {7: node.batch(b"a")}, 9, acks=0), 9)
    assert client.closed


def test_pipelined_requests_of_one_event_become_one_append(node: NodeHarness) -> None:
    client = node.client()
    produce(node, client, {0: node.batch(b"a")}, 9)
    frames = [
        encode_request(0, 9, 100 + i, "test", request(node, {0: node.batch(b"p%d" % i)}, 9).encode(9))
        for i in range(50)
    ]
    client.deliver(b"".join(frames))
    offsets = []
    for i in range(50):
        response = client.take(0, 9, 100 + i)
        offsets.append(response.responses[0].partition_responses[0].base_offset)
    assert offsets == list(range(1, 51))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda batch: batch[:-1], ErrorCode.CORRUPT_MESSAGE),
        (lambda batch: batch[:40], ErrorCode.CORRUPT_MESSAGE),
        (lambda batch: batch[:70] + bytes([batch[70] ^ 1]) + batch[71:], ErrorCode.CORRUPT_MESSAGE),
        (lambda batch: batch[:16] + b"\x01" + batch[17:], ErrorCode.INVALID_RECORD),
        (lambda batch: batch[:16] + b"\x00" + batch[17:], ErrorCode.INVALID_RECORD),
        (lambda batch: batch + batch, ErrorCode.INVALID_RECORD),
        (lambda batch: batch[:8] + pack(">i", -5) + batch[12:], ErrorCode.CORRUPT_MESSAGE),
        (lambda batch: batch[:8] + pack(">i", 2**31 - 1) + batch[12:], ErrorCode.CORRUPT_MESSAGE),
        (lambda batch: b"", ErrorCode.INVALID_RECORD),
        (lambda batch: None, ErrorCode.INVALID_RECORD),
        (lambda batch: _with(batch, 57, pack(">i", 99)), ErrorCode.INVALID_RECORD),
        (lambda batch: _with(batch, 57, pack(">i", -1)), ErrorCode.INVALID_RECORD),
        (lambda batch: _with(batch, 21, pack(">h", 0x20)), ErrorCode.INVALID_RECORD),
        (lambda batch: _with(batch, 21, pack(">h", 7)), ErrorCode.INVALID_RECORD),
    ],
)
def test_bad_batches_are_refused_and_nothing_is_written(
    node: NodeHarness, spoil: object, expected: ErrorCode
) -> None:
    client = node.client()
    produce(node, client, {0: node.batch(b"good")}, 9)
    spoiled = spoil(node.batch(b"a", b"b"))  # type: ignore[operator]
    response = produce(node, client, {0: spoiled}, 9)
    answer = response.responses[0].partition_responses[0]
    assert (ErrorCode(answer.error_code), answer.base_offset) == (expected, -1)
    assert (
        produce(node, client, {0: node.batch(b"good")}, 9).responses[0].partition_responses[0].base_offset
        == 1
    )
    assert not client.closed


def _with(batch: bytes, position: int, value: bytes) -> bytes:
    changed = bytearray(batch)
    changed[position : position + len(value)] = value
    seal(changed)
    return bytes(changed)


@pytest.mark.parametrize("version", [8, 9, 12])
def test_unknown_topics_and_partitions(node: NodeHarness, version: int) -> None:
    client = node.client()
    for index, topic in ((9, "t"), (-1, "t"), (0, "missing")):
        response = produce(node, client, {index: node.batch(b"a")}, version, topic=topic)
        assert response.responses[0].partition_responses[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_an_unknown_topic_id_is_told_so(node: NodeHarness) -> None:
    asked = request(node, {0: node.batch(b"a")}, 13, topic="missing")
    asked.topic_data[0].topic_id = bytes(range(16))
    answer = node.client().ask(asked, 13).responses[0].partition_responses[0]
    assert answer.error_code == ErrorCode.UNKNOWN_TOPIC_ID


@pytest.mark.parametrize("acks", [2, -2, 100])
def test_acks_other_than_0_1_all_are_refused(node: NodeHarness, acks: int) -> None:
    response = produce(node, node.client(), {0: node.batch(b"a")}, 9, acks=acks)
    assert response.responses[0].partition_responses[0].error_code == ErrorCode.INVALID_REQUIRED_ACKS
    assert end_offset(node) == 0


def test_messages_over_the_limit_of_the_topic_are_refused(node: NodeHarness) -> None:
    node.create_topic("small", max__message__bytes="1000")
    client = node.client()
    for size, expected in ((500, 0), (2000, ErrorCode.MESSAGE_TOO_LARGE), (500, 0)):
        response = produce(node, client, {0: node.batch(b"x" * size)}, 9, topic="small")
        assert response.responses[0].partition_responses[0].error_code == expected


def test_nobody_writes_to_internal_topics(node: NodeHarness) -> None:
    node.create_topic("__consumer_offsets")
    response = produce(node, node.client(), {0: node.batch(b"a")}, 9, topic="__consumer_offsets")
    assert response.responses[0].partition_responses[0].error_code == ErrorCode.INVALID_TOPIC_EXCEPTION


@pytest.mark.parametrize("version", [0, 1, 2])
def test_versions_told_for_librdkafka_are_refused_in_their_own_layout(
    node: NodeHarness, version: int
) -> None:
    body = pack(">hii", 1, 1000, 1) + pack(">h", 1) + b"t" + pack(">iii", 1, 0, 4) + b"oldy"
    client = node.client()
    client.deliver(pack(">ihhih", 10 + len(body), 0, version, 5, -1) + body)
    append_time = b"\xff" * 8 if version == 2 else b""
    throttle = bytes(4) if version >= 1 else b""
    expected = (
        pack(">ii", 5, 1)
        + pack(">h", 1)
        + b"t"
        + pack(">iih", 1, 0, 35)
        + b"\xff" * 8
        + append_time
        + throttle
    )
    assert client.take_frame() == expected


def test_log_append_time_is_the_brokers_and_told(node: NodeHarness) -> None:
    node.create_topic("stamped", message__timestamp__type="LogAppendTime")
    client = node.client()
    for _ in range(2):
        response = produce(node, client, {0: node.batch(b"a")}, 9, topic="stamped")
        assert response.responses[0].partition_responses[0].log_append_time_ms == node.clock.wall_ms()


@pytest.mark.parametrize("codec", list(Codec))
def test_compressed_batches_are_kept_as_they_are(node: NodeHarness, codec: Codec) -> None:
    records = [Record(i, node.clock.wall_ms(), b"k", b"v" * 100) for i in range(10)]
    batch = bytes(build_batch(records, codec=codec))
    answer = produce(node, node.client(), {0: batch}, 9).responses[0].partition_responses[0]
    assert (answer.error_code, answer.base_offset) == (0, 0)
    assert end_offset(node) == 10


def test_idempotent_producers_are_deduplicated_and_kept_in_order(node: NodeHarness) -> None:
    client = node.client()
    given = client.ask(InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=-1), 4)
    assert (given.error_code, given.producer_epoch) == (0, 0)

    def batch(sequence: int) -> bytes:
        return node.batch(
            b"s%d" % sequence, producer_id=given.producer_id, producer_epoch=0, base_sequence=sequence
        )

    def append(sequence: int) -> tuple[int, int]:
        answer = produce(node, client, {0: batch(sequence)}, 9).responses[0].partition_responses[0]
        return answer.error_code, answer.base_offset

    assert [append(i) for i in range(4)] == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert append(2) == (0, 2), "a retry gets the offset of the first try"
    assert append(9) == (ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1)
    assert append(4) == (0, 4)
    assert end_offset(node) == 5
    node.restart(clean=False)
    client = node.client()
    assert append(3) == (0, 3), "still known after kill -9"
    assert append(5) == (0, 5)


def test_transactional_ids_are_refused_until_there_is_a_coordinator_for_them(node: NodeHarness) -> None:
    answer = node.client().ask(InitProducerIdRequest(transactional_id="tx", transaction_timeout_ms=1000), 4)
    assert answer.error_code != 0


@pytest.mark.parametrize("acks", [1, -1])
def test_flush_messages_1_acknowledges_only_after_fsync(node: NodeHarness, acks: int) -> None:
    node.create_topic("safe", flush__messages="1")
    client = node.client()
    node.settle()
    for i in range(2):
        correlation_id = client.send(request(node, {0: node.batch(b"a")}, 9, topic="safe", acks=acks), 9)
        assert client.take_frame() is None, "not on the medium yet"
        node.settle()
        response = client.take(0, 9, correlation_id)
        assert response.responses[0].partition_responses[0].base_offset == i
    before = node.disk
    before.crash()  # power loss
    again = NodeHarness(before)
    assert end_offset(again, topic="safe") == 2


def test_a_full_disk_acknowledges_nothing_and_ends_a_node_that_has_no_other() -> None:
    disk = MemoryDisk(3)
    node = NodeHarness(disk)
    ends: list[str] = []
    node.node.on_fatal = ends.append
    node.create_topic("t", 2)
    client = node.client()
    produce(node, client, {0: node.batch(b"a")}, 9)
    disk.faults.error = errno.ENOSPC
    disk.faults.fail_change_at = disk.faults.changes
    client.send(request(node, {0: node.batch(b"b")}, 9), 9)
    assert client.take_frame() is None
    assert client.closed
    other = produce(node, node.client(), {0: node.batch(b"c"), 1: node.batch(b"d")}, 9)
    codes = {each.error_code for each in other.responses[0].partition_responses}
    assert codes == {ErrorCode.KAFKA_STORAGE_ERROR}
    assert not node.node.readiness()[0]
    assert ends == ["Shutdown broker because all log dirs in /data have failed"]


def test_a_deleted_and_recreated_topic_is_not_written_through_an_old_plan(node: NodeHarness) -> None:
    from odradek.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState

    client = node.client()
    produce(node, client, {0: node.batch(b"old")}, 9)
    produce(node, client, {0: node.batch(b"old")}, 9)
    deleted = node.client().ask(DeleteTopicsRequest(topics=[DeleteTopicState(name="t")], timeout_ms=1000), 6)
    assert deleted.responses[0].error_code == 0
    gone = produce(node, client, {0: node.batch(b"x")}, 9)
    assert gone.responses[0].partition_responses[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    node.create_topic("t", 1)
    for offset in range(2):
        fresh = produce(node, client, {0: node.batch(b"new")}, 9)
        assert fresh.responses[0].partition_responses[0].base_offset == offset
    (plan,) = client.connection.produce_cache.values()
    assert plan.partition is node.node.partitions["t", 0], "the hot path is taken again"


@pytest.mark.parametrize("version", [7, 8, 9, 13])
@pytest.mark.parametrize("partitions", [1, 2])
def test_the_records_that_were_refused_are_named(node: NodeHarness, version: int, partitions: int) -> None:
    """On the hot path (one partition) and on the general one; responses have a place for them since version 8."""
    now = node.clock.wall_ms()
    late = now + 3_600_001
    batch = bytes(build_batch([Record(0, now, b"k", b"v"), Record(1, late, b"k", b"v")]))
    good = bytes(build_batch([Record(0, now, b"k", b"v")]))
    client = node.client()
    produce(node, client, dict.fromkeys(range(partitions), good), version)
    answer = produce(node, client, dict.fromkeys(range(partitions), batch), version)
    for each in answer.responses[0].partition_responses:
        assert each.error_code == ErrorCode.INVALID_TIMESTAMP
        if version < 8:
            continue
        assert each.error_message == "One or more records have been rejected due to invalid timestamp"
        (error,) = each.record_errors
        assert error.batch_index == 1
        assert error.batch_index_error_message == (
            f"Timestamp {late} of message with offset 1 is out of range. "
            f"The timestamp should be within [{now - (2**63 - 1)}, {now + 3_600_000}]"
        )


def test_a_topic_s_compression_type_and_levels_reach_its_log(node: NodeHarness) -> None:
    node.create_topic("z", compression__type="gzip", compression__gzip__level="1")
    node.create_topic("best", compression__type="gzip", compression__gzip__level="9")
    text = " ".join(str(i * i * 2654435761 % 65521) for i in range(2000)).encode()
    sizes = []
    for topic in ("z", "best"):
        batch = bytes(build_batch([Record(0, node.clock.wall_ms(), b"k", text)], codec=Codec.LZ4))
        produce(node, node.client(), {0: batch}, topic=topic)
        log = node.node.partitions[(topic, 0)].log
        stored = log.read(0, 1 << 20, end_offset=1).data
        assert parse_header(stored).codec is Codec.GZIP
        assert read_records(stored, limit=1 << 20)[0].value == text
        sizes.append(log.size_bytes)
    assert sizes[0] > sizes[1]
