"""Fetch against a whole node in memory."""

from __future__ import annotations

import pytest

from odradek.wire.errors import ErrorCode
from odradek.wire.messages.delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
)
from odradek.wire.messages.fetch import FetchPartition, FetchRequest, FetchResponse, FetchTopic
from odradek.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from odradek.wire.records import iter_batches, read_records
from support.node_harness import DATA, Client, NodeHarness

VERSIONS = range(4, 19)


@pytest.fixture
def node() -> NodeHarness:
    harness = NodeHarness()
    harness.create_topic("t", 2)
    return harness


def produce(harness: NodeHarness, *batches: bytes, index: int = 0, topic: str = "t") -> None:
    client = harness.client()
    for batch in batches:
        data = TopicProduceData(name=topic, partition_data=[PartitionProduceData(index=index, records=batch)])
        response = client.ask(ProduceRequest(acks=1, timeout_ms=1000, topic_data=[data]), 9)
        assert response.responses[0].partition_responses[0].error_code == 0


def request(
    harness: NodeHarness,
    offsets: dict[int, int],
    version: int = 12,
    *,
    topic: str = "t",
    max_wait_ms: int = 500,
    min_bytes: int = 1,
    max_bytes: int = 1 << 20,
    partition_max_bytes: int = 1 << 20,
    session: tuple[int, int] = (0, -1),
    epoch: int = -1,
    last_fetched_epoch: int = -1,
    isolation_level: int = 0,
) -> FetchRequest:
    partitions = [
        FetchPartition(
            partition=index,
            fetch_offset=offset,
            partition_max_bytes=partition_max_bytes,
            current_leader_epoch=epoch if version >= 9 else -1,
            last_fetched_epoch=last_fetched_epoch if version >= 12 else -1,
        )
        for index, offset in offsets.items()
    ]
    by_id = version >= 13
    known = harness.node.image.topics.get(topic)
    wanted = FetchTopic(
        topic="" if by_id else topic,
        topic_id=known.id if by_id and known is not None else bytes(16),
        partitions=partitions,
    )
    session_id, session_epoch = session if version >= 7 else (0, -1)
    return FetchRequest(
        max_wait_ms=max_wait_ms,
        min_bytes=min_bytes,
        max_bytes=max_bytes,
        isolation_level=isolation_level,
        session_id=session_id,
        session_epoch=session_epoch,
        topics=[wanted] if offsets else [],
    )


def values(response: FetchResponse) -> dict[int, list[bytes | None]]:
    found: dict[int, list[bytes | None]] = {}
    for topic in response.responses:
        for partition in topic.partitions:
            records = bytes(partition.records or b"")
            found[partition.partition_index] = [
                record.value
                for at, header in iter_batches(records)
                for record in read_records(memoryview(records)[at : at + header.size], limit=1 << 20)
            ]
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_returns_what_was_written(node: NodeHarness, version: int) -> None:
    produce(node, node.batch(b"a", b"b"), node.batch(b"c"))
    produce(node, node.batch(b"d"), index=1)
    response = node.client().ask(request(node, {0: 0, 1: 0}, version), version)
    assert values(response) == {0: [b"a", b"b", b"c"], 1: [b"d"]}
    topic = response.responses[0]
    assert (topic.topic_id == node.topic_id("t")) if version >= 13 else (topic.topic == "t")
    partition = topic.partitions[0]
    assert (partition.error_code, partition.high_watermark, partition.last_stable_offset) == (0, 3, 3)
    assert partition.log_start_offset == (0 if version >= 5 else -1)
    assert partition.aborted_transactions is None


def test_read_committed_gets_an_empty_list_of_aborted_transactions(node: NodeHarness) -> None:
    produce(node, node.batch(b"a"))
    for version in (4, 11, 12, 18):
        response = node.client().ask(request(node, {0: 0}, version, isolation_level=1), version)
        assert response.responses[0].partitions[0].aborted_transactions == []
        assert values(response) == {0: [b"a"]}


def test_a_fetch_at_the_end_waits_for_data(node: NodeHarness) -> None:
    client = node.client()
    correlation_id = client.send(request(node, {0: 0}, max_wait_ms=500), 12)
    node.advance(100)
    assert client.take_frame() is None
    produce(node, node.batch(b"late"))
    assert values(client.take(1, 12, correlation_id)) == {0: [b"late"]}
    assert not node.node.partitions["t", 0]._data_waiters


def test_a_fetch_at_the_end_is_answered_empty_after_max_wait(node: NodeHarness) -> None:
    client = node.client()
    correlation_id = client.send(request(node, {0: 0}, max_wait_ms=500), 12)
    node.advance(499)
    assert client.take_frame() is None
    node.advance(1)
    assert values(client.take(1, 12, correlation_id)) == {0: []}
    assert not node.node.partitions["t", 0]._data_waiters


def test_min_bytes_waits_for_that_many_over_all_partitions(node: NodeHarness) -> None:
    client = node.client()
    one = len(node.batch(b"x" * 100))
    correlation_id = client.send(request(node, {0: 0, 1: 0}, min_bytes=3 * one, max_wait_ms=10_000), 12)
    produce(node, node.batch(b"x" * 100))
    produce(node, node.batch(b"x" * 100), index=1)
    assert client.take_frame() is None
    produce(node, node.batch(b"x" * 100))
    found = values(client.take(1, 12, correlation_id))
    assert {index: len(each) for index, each in found.items()} == {0: 2, 1: 1}


def test_a_client_that_goes_away_leaves_nothing_waiting(node: NodeHarness) -> None:
    client = node.client()
    timers = len(node.timers)
    client.send(request(node, {0: 0}, max_wait_ms=60_000), 12)
    assert node.node.partitions["t", 0]._data_waiters
    client.connection.lost()
    assert not node.node.partitions["t", 0]._data_waiters
    assert len(node.timers) == timers


def test_sizes_limit_what_is_returned_but_never_to_nothing(node: NodeHarness) -> None:
    batches = [node.batch(b"%d" % i * 100) for i in range(10)]
    produce(node, *batches)
    size = len(batches[0])
    for limit, expected in ((1, 1), (size, 1), (size + 1, 1), (3 * size, 3), (3 * size - 1, 2)):
        by_partition = node.client().ask(request(node, {0: 0}, partition_max_bytes=limit), 12)
        assert len(values(by_partition)[0]) == expected
        by_response = node.client().ask(request(node, {0: 0}, max_bytes=limit), 12)
        assert len(values(by_response)[0]) == expected


def test_only_the_first_partition_may_exceed_the_limit(node: NodeHarness) -> None:
    produce(node, node.batch(b"a" * 100))
    produce(node, node.batch(b"b" * 100), index=1)
    found = values(node.client().ask(request(node, {0: 0, 1: 0}, max_bytes=10), 12))
    assert found == {0: [b"a" * 100], 1: []}


@pytest.mark.parametrize(
    ("offset", "expected"), [(4, ErrorCode.OFFSET_OUT_OF_RANGE), (-1, ErrorCode.OFFSET_OUT_OF_RANGE)]
)
def test_offsets_outside_the_log(node: NodeHarness, offset: int, expected: ErrorCode) -> None:
    produce(node, node.batch(b"a", b"b", b"c"))
    answer = node.client().ask(request(node, {0: offset}), 12).responses[0].partitions[0]
    assert answer.error_code == expected
    assert answer.high_watermark == -1


def test_an_error_answers_at_once_even_if_others_would_wait(node: NodeHarness) -> None:
    answer = node.client().ask(request(node, {0: 0, 9: 0}, max_wait_ms=60_000), 12)
    codes = {each.partition_index: each.error_code for each in answer.responses[0].partitions}
    assert codes == {0: 0, 9: ErrorCode.UNKNOWN_TOPIC_OR_PARTITION}


def test_leader_epochs_are_compared(node: NodeHarness) -> None:
    produce(node, node.batch(b"a"))
    epoch = node.node.partitions["t", 0].leader_epoch
    for given, expected in (
        (epoch, 0),
        (epoch + 1, ErrorCode.UNKNOWN_LEADER_EPOCH),
    ):
        answer = node.client().ask(request(node, {0: 0}, epoch=given), 12)
        assert answer.responses[0].partitions[0].error_code == expected
    node.restart()
    answer = node.client().ask(request(node, {0: 0}, epoch=epoch), 12)
    assert answer.responses[0].partitions[0].error_code == ErrorCode.FENCED_LEADER_EPOCH


def test_a_diverging_epoch_is_told_and_no_data_sent(node: NodeHarness) -> None:
    produce(node, node.batch(b"a", b"b"))
    node.restart()
    produce(node, node.batch(b"c"))
    answer = node.client().ask(request(node, {0: 3}, last_fetched_epoch=0), 12).responses[0].partitions[0]
    assert (answer.diverging_epoch.epoch, answer.diverging_epoch.end_offset) == (0, 2)
    assert not answer.records


def test_an_incremental_session_names_only_what_changed(node: NodeHarness) -> None:
    produce(node, node.batch(b"a"))
    client = node.client()
    opened = client.ask(request(node, {0: 0, 1: 0}, session=(0, 0)), 12)
    assert opened.session_id > 0
    assert set(values(opened)) == {0, 1}
    nothing = client.ask(request(node, {0: 1}, session=(opened.session_id, 1), max_wait_ms=0), 12)
    assert nothing.responses == []
    produce(node, node.batch(b"b"), index=1)
    news = client.ask(request(node, {}, session=(opened.session_id, 2)), 12)
    assert values(news) == {1: [b"b"]}
    refused = client.ask(request(node, {}, session=(opened.session_id, 9)), 12)
    assert (refused.error_code, refused.responses) == (ErrorCode.INVALID_FETCH_SESSION_EPOCH, [])
    unknown = client.ask(request(node, {}, session=(12345, 1)), 12)
    assert unknown.error_code == ErrorCode.FETCH_SESSION_ID_NOT_FOUND


def test_a_recreated_topic_answers_unknown_topic_id_to_the_old_one(node: NodeHarness) -> None:
    from odradek.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState

    old = request(node, {0: 0}, 13)
    node.client().ask(DeleteTopicsRequest(topics=[DeleteTopicState(name="t")], timeout_ms=1000), 6)
    node.create_topic("t", 1)
    answer = node.client().ask(old, 13).responses[0].partitions[0]
    assert answer.error_code == ErrorCode.UNKNOWN_TOPIC_ID


def test_deleting_a_topic_wakes_who_waits_for_its_data(node: NodeHarness) -> None:
    from odradek.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState

    client = node.client()
    correlation_id = client.send(request(node, {0: 0}, max_wait_ms=60_000), 12)
    node.client().ask(DeleteTopicsRequest(topics=[DeleteTopicState(name="t")], timeout_ms=1000), 6)
    answer = client.take(1, 12, correlation_id).responses[0].partitions[0]
    assert answer.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_deleted_records_are_out_of_range_and_stay_so_after_a_crash(node: NodeHarness) -> None:
    produce(node, *(node.batch(b"%d" % i) for i in range(5)))
    wanted = DeleteRecordsTopic(name="t", partitions=[DeleteRecordsPartition(partition_index=0, offset=3)])
    answer = node.client().ask(DeleteRecordsRequest(topics=[wanted], timeout_ms=1000))
    assert answer.topics[0].partitions[0].low_watermark == 3
    for _ in range(2):
        response = node.client().ask(request(node, {0: 2}), 12).responses[0].partitions[0]
        assert response.error_code == ErrorCode.OFFSET_OUT_OF_RANGE
        assert values(node.client().ask(request(node, {0: 3}), 12)) == {0: [b"3", b"4"]}
        node.restart(clean=False)


def test_a_flipped_bit_is_never_served(node: NodeHarness) -> None:
    batches = [node.batch(b"%d" % i * 50) for i in range(10)]
    produce(node, *batches)
    position = len(batches[0]) * 4 + 80
    node.disk.flip_bit(f"{DATA}/t-0/00000000000000000000.log", position, 3)
    before = node.client().ask(request(node, {0: 0}), 12)
    assert values(before)[0] == [b"%d" % i * 50 for i in range(4)]
    damaged = node.client().ask(request(node, {0: 4}), 12).responses[0].partitions[0]
    assert damaged.error_code in (ErrorCode.CORRUPT_MESSAGE, ErrorCode.KAFKA_STORAGE_ERROR)
    assert not damaged.records
    assert any("damaged at offset 4" in str(line) for line in node.log.of_level("limited_warning"))
    behind = node.client().ask(request(node, {0: 5}), 12)
    assert values(behind)[0] == [b"%d" % i * 50 for i in range(5, 10)]


def test_damage_in_the_middle_survives_no_restart_as_a_silent_cut(node: NodeHarness) -> None:
    batches = [node.batch(b"%d" % i * 50) for i in range(10)]
    produce(node, *batches)
    node.disk.flip_bit(f"{DATA}/t-0/00000000000000000000.log", len(batches[0]) * 4 + 80, 3)
    node.restart(clean=False)
    good = node.client().ask(request(node, {0: 0}), 12)
    assert values(good)[0] == [b"%d" % i * 50 for i in range(4)]
    answer = node.client().ask(request(node, {0: 4}), 12).responses[0].partitions[0]
    assert answer.error_code in (ErrorCode.CORRUPT_MESSAGE, ErrorCode.KAFKA_STORAGE_ERROR)


def test_records_survive_kill_and_restart(node: NodeHarness) -> None:
    produce(node, node.batch(b"a"), node.batch(b"b"))
    for clean in (True, False, False, True):
        node.restart(clean=clean)
        assert values(node.client().ask(request(node, {0: 0}), 12)) == {0: [b"a", b"b"]}


def test_cold_data_is_read_off_the_loop_first(node: NodeHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    from odradek.storage.memory_disk import MemoryFile

    produce(node, node.batch(b"a"))
    node.restart()
    warm: list[bool] = []
    monkeypatch.setattr(MemoryFile, "is_cached", lambda *_: bool(warm))
    client: Client = node.client()
    correlation_id = client.send(request(node, {0: 0}), 12)
    assert client.take_frame() is None, "the disk thread is asked first"
    warm.append(True)
    node.settle()
    assert values(client.take(1, 12, correlation_id)) == {0: [b"a"]}
