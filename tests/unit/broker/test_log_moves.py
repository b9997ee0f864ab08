"""Replicas that move to another log directory (AlterReplicaLogDirs), and directories that are cordoned or fail."""

from __future__ import annotations

from typing import Any

import pytest

from odradek.broker.log_moves import RETRY_MS, SLICE_BYTES
from odradek.broker.metrics_export import snapshot
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.alter_configs import AlterableConfig as OldConfig
from odradek.wire.messages.alter_configs import AlterConfigsRequest
from odradek.wire.messages.alter_configs import AlterConfigsResource as OldResource
from odradek.wire.messages.alter_replica_log_dirs import (
    AlterReplicaLogDir,
    AlterReplicaLogDirsRequest,
    AlterReplicaLogDirTopic,
)
from odradek.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from odradek.wire.messages.describe_log_dirs import DescribeLogDirsRequest
from odradek.wire.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
)
from odradek.wire.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
)
from odradek.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from support.node_harness import DATA, NodeHarness

SECOND = "/second"


@pytest.fixture
def harness() -> NodeHarness:
    """`t` has one partition, in the first directory."""
    harness = make()
    harness.create_topic("t", segment__bytes="1048576")
    here(harness, "t")
    return harness


def make(**settings: str) -> NodeHarness:
    return NodeHarness(log__dirs=f"{DATA},{SECOND}", metadata__log__dir=DATA, **settings)


def here(harness: NodeHarness, topic: str, directory: str = DATA) -> None:
    """Have the replica in that directory to begin with."""
    if directory_of(harness, topic) != directory:
        assert alter(harness, topic, directory) is ErrorCode.NONE
        harness.advance(2_000)
    assert directory_of(harness, topic) == directory


def directory_of(harness: NodeHarness, topic: str, index: int = 0) -> str:
    return str(harness.node.partitions[topic, index].log.dir.rpartition("/")[0])


def alter(harness: NodeHarness, topic: str, path: str, index: int = 0) -> ErrorCode:
    directory = AlterReplicaLogDir(path, [AlterReplicaLogDirTopic(topic, [index])])
    response = harness.client().ask(AlterReplicaLogDirsRequest([directory]))
    return ErrorCode(response.results[0].partitions[0].error_code)


def produce_request(harness: NodeHarness, values: list[bytes], topic: str) -> ProduceRequest:
    data = TopicProduceData(
        topic_id=harness.topic_id(topic),
        partition_data=[PartitionProduceData(records=harness.batch(*values))],
    )
    return ProduceRequest(acks=-1, timeout_ms=1_000, topic_data=[data])


def produce(harness: NodeHarness, values: list[bytes], topic: str = "t") -> int:
    response = harness.client().ask(produce_request(harness, values, topic))
    partition = response.responses[0].partition_responses[0]
    assert partition.error_code == 0
    return int(partition.base_offset)


def fill(harness: NodeHarness, count: int = 40) -> None:
    for number in range(count):
        produce(harness, [b"%d" % number + bytes(50_000)])


def described(harness: NodeHarness, topic: str = "t") -> dict[str, list[tuple[int, int, bool]]]:
    """(index, lag, future) by path."""
    response = harness.client().ask(DescribeLogDirsRequest(topics=None))
    return {
        result.log_dir: [
            (each.partition_index, each.offset_lag, each.is_future_key)
            for found in result.topics
            if found.name == topic
            for each in found.partitions
        ]
        for result in response.results
    }


def latest(harness: NodeHarness, topic: str = "t") -> int:
    request = ListOffsetsRequest(
        replica_id=-1, topics=[ListOffsetsTopic(topic, [ListOffsetsPartition(0, -1, -1)])]
    )
    return int(harness.client().ask(request, 9).topics[0].partitions[0].offset)


def bytes_of(harness: NodeHarness) -> bytes:
    log = harness.node.partitions["t", 0].log
    found, offset = b"", log.log_start_offset
    while offset < log.log_end_offset:
        result = log.read(offset, 1 << 20, end_offset=log.log_end_offset)
        found, offset = found + bytes(result.data), result.next_offset
    return found


def configure(harness: NodeHarness, name: str, value: str | None) -> int:
    config = AlterableConfig(name=name, config_operation=0 if value is not None else 1, value=value)
    request = IncrementalAlterConfigsRequest(
        resources=[AlterConfigsResource(4, str(harness.node.config.node_id), [config])]
    )
    return int(harness.client().ask(request).responses[0].error_code)


def put_a_file_in_its_place(harness: NodeHarness) -> None:
    harness.disk.rename(SECOND, "/elsewhere")
    harness.disk.open(SECOND, create=True).append([b"a file where the directory was"])


def metadata_directory(harness: NodeHarness, topic: str = "t") -> bytes:
    node = harness.node
    return node.image.topics[topic].partitions[0].directory(node.config.node_id)


def test_a_replica_moves_with_all_it_has_while_it_is_written_to(harness: NodeHarness) -> None:
    fill(harness)
    assert alter(harness, "t", SECOND) is ErrorCode.NONE
    [(_, lag, future)] = described(harness)[SECOND]
    assert (lag, future) == (40, True)
    assert described(harness)[DATA] == [(0, 0, False)]
    harness.advance(3)
    assert 0 < described(harness)[SECOND][0][1] < 40
    produce(harness, [b"meanwhile"])
    everything = bytes_of(harness)
    harness.advance(1_000)
    assert described(harness) == {DATA: [], SECOND: [(0, 0, False)]}
    assert bytes_of(harness) == everything
    assert produce(harness, [b"after"]) == 41 and latest(harness) == 42
    second = harness.node.logs.dirs[1]
    assert metadata_directory(harness) == second.directory_id
    harness.advance(61_000)
    assert [name for name in harness.disk.listdir(DATA) if name.startswith("t-0")] == []
    harness.restart()
    assert directory_of(harness, "t") == SECOND and latest(harness) == 42


def test_it_goes_on_after_kill_minus_nine(harness: NodeHarness) -> None:
    fill(harness)
    alter(harness, "t", SECOND)
    harness.advance(3)
    lag = described(harness)[SECOND][0][1]
    assert 0 < lag < 40
    harness.restart(clean=False)
    assert described(harness)[SECOND][0][1] <= lag
    harness.advance(1_000)
    assert described(harness) == {DATA: [], SECOND: [(0, 0, False)]}
    assert latest(harness) == 40


def test_moving_it_back_gives_the_move_up(harness: NodeHarness) -> None:
    fill(harness)
    alter(harness, "t", SECOND)
    harness.advance(3)
    assert alter(harness, "t", DATA) is ErrorCode.NONE
    assert described(harness)[SECOND] == []
    harness.advance(61_000)
    assert described(harness) == {DATA: [(0, 0, False)], SECOND: []}
    assert [name for name in harness.disk.listdir(SECOND) if name.startswith("t-0")] == []


def test_what_cannot_be_done_is_refused_in_kafkas_codes(harness: NodeHarness) -> None:
    assert alter(harness, "t", "/nowhere") is ErrorCode.LOG_DIR_NOT_FOUND
    assert alter(harness, "t", SECOND, index=7) is ErrorCode.REPLICA_NOT_AVAILABLE
    assert configure(harness, "cordoned.log.dirs", SECOND) == 0
    assert alter(harness, "t", SECOND) is ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert configure(harness, "cordoned.log.dirs", None) == 0
    long = "x" * 214
    harness.create_topic(long)
    other = SECOND if directory_of(harness, long) == DATA else DATA
    assert alter(harness, long, other) is ErrorCode.INVALID_TOPIC_EXCEPTION
    harness.node.logs.dir_failed(harness.node.logs.dirs[1], OSError(5, "EIO"))
    assert alter(harness, "t", SECOND) is ErrorCode.KAFKA_STORAGE_ERROR


def test_a_replica_that_is_not_there_yet_is_created_where_it_is_wanted(harness: NodeHarness) -> None:
    for name, path in (("one", DATA), ("two", DATA), ("three", DATA), ("four", SECOND)):
        assert alter(harness, name, path) is ErrorCode.REPLICA_NOT_AVAILABLE
        harness.create_topic(name)
        assert directory_of(harness, name) == path


def test_the_throttle_holds_it_back(harness: NodeHarness) -> None:
    fill(harness)
    assert configure(harness, "replica.alter.log.dirs.io.max.bytes.per.second", "100000") == 0
    alter(harness, "t", SECOND)
    harness.advance(5_000)
    copied = harness.node.logs.futures.logs["t", 0].size_bytes
    assert 300_000 < copied < 100_000 * 6 + SLICE_BYTES
    assert configure(harness, "replica.alter.log.dirs.io.max.bytes.per.second", None) == 0
    harness.advance(1_000)
    assert directory_of(harness, "t") == SECOND


def test_the_throttle_holds_up_no_acknowledgement(harness: NodeHarness) -> None:
    """Everything is copied, and the rate is overdrawn by far, when the fsyncs of the replica are held back."""
    harness.create_topic("f", flush__messages="1")
    here(harness, "f", DATA)
    assert configure(harness, "replica.alter.log.dirs.io.max.bytes.per.second", "2000") == 0
    produce(harness, [bytes(200_000)], "f")
    assert alter(harness, "f", SECOND) is ErrorCode.NONE
    log = harness.node.partitions["f", 0].log
    while not log.holds_syncs:
        harness.timers.advance(harness.clock.now_ms + 1)
    client = harness.client()
    number = client.send(produce_request(harness, [b"more"], "f"), ProduceRequest.MAX_VERSION)
    harness.advance(100)
    answer = client.take(ProduceRequest.API_KEY, ProduceRequest.MAX_VERSION, number)
    assert answer is not None and answer.responses[0].partition_responses[0].error_code == 0
    assert directory_of(harness, "f") == SECOND


def test_a_topic_that_acknowledges_what_is_on_the_medium_loses_nothing_to_a_power_cut(
    harness: NodeHarness,
) -> None:
    harness.create_topic("f", flush__messages="1")
    here(harness, "f", DATA)
    for number in range(20):
        produce(harness, [b"%d" % number], "f")
    assert alter(harness, "f", SECOND) is ErrorCode.NONE
    written = 20
    while directory_of(harness, "f") == DATA:
        client = harness.client()
        number = client.send(produce_request(harness, [b"more"], "f"), ProduceRequest.MAX_VERSION)
        while (answer := client.take(ProduceRequest.API_KEY, ProduceRequest.MAX_VERSION, number)) is None:
            harness.advance(1)
        written = answer.responses[0].partition_responses[0].base_offset + 1
        assert written < 1_000
    harness.disk.kill()
    harness.disk.crash()
    harness.clock.now_ms += 1_000
    harness._boot()
    assert latest(harness, "f") == written


def test_the_directory_it_goes_to_fails(harness: NodeHarness) -> None:
    fill(harness)
    alter(harness, "t", SECOND)
    harness.advance(3)
    harness.node.logs.dir_failed(harness.node.logs.dirs[1], OSError(5, "EIO"))
    harness.advance(2_000)
    assert produce(harness, [b"goes on"]) == 40
    response = harness.client().ask(DescribeLogDirsRequest(topics=None))
    codes = {result.log_dir: result.error_code for result in response.results}
    assert codes == {DATA: 0, SECOND: ErrorCode.KAFKA_STORAGE_ERROR}
    harness.restart()
    harness.advance(1_000)
    assert directory_of(harness, "t") == SECOND and latest(harness) == 41


def test_a_topic_deleted_on_the_way_leaves_nothing(harness: NodeHarness) -> None:
    fill(harness, 10)
    alter(harness, "t", SECOND)
    harness.advance(2)
    request = DeleteTopicsRequest(topics=[DeleteTopicState(name="t")], timeout_ms=1_000)
    assert harness.client().ask(request).responses[0].error_code == 0
    harness.advance(61_000)
    for directory in (DATA, SECOND):
        assert [name for name in harness.disk.listdir(directory) if name.startswith("t-")] == []


def test_a_log_that_cannot_be_read_is_tried_again_later(harness: NodeHarness) -> None:
    fill(harness, 10)
    log = harness.node.partitions["t", 0].log
    path = f"{log.dir}/{0:020d}.log"
    harness.disk.flip_bit(path, 200_000, 1)
    alter(harness, "t", SECOND)
    harness.advance(RETRY_MS * 2)
    assert directory_of(harness, "t") == DATA
    assert any("cannot be read" in event for _, event, _ in harness.log.lines)
    harness.disk.flip_bit(path, 200_000, 1)
    harness.advance(RETRY_MS)
    assert directory_of(harness, "t") == SECOND


def test_cordoned_directories_get_nothing_new_and_are_told_of() -> None:
    harness = make(cordoned__log__dirs=DATA)
    harness.create_topic("t", partitions=5)
    assert {directory_of(harness, "t", index) for index in range(5)} == {SECOND}

    def cordoned() -> dict[str, bool]:
        answer: Any = harness.client().ask(DescribeLogDirsRequest(topics=None), 5)
        return {result.log_dir: result.is_cordoned for result in answer.results}

    def known() -> set[bytes]:
        return set(harness.node.image.brokers[harness.node.config.node_id].cordoned)

    assert cordoned() == {DATA: True, SECOND: False}
    assert known() == {harness.node.logs.dirs[0].directory_id}
    assert configure(harness, "cordoned.log.dirs", "*") == 0
    assert cordoned() == {DATA: True, SECOND: True} and len(known()) == 2
    from odradek.wire.messages.create_topics import CreatableTopic, CreateTopicsRequest

    topic = CreatableTopic(name="u", num_partitions=1, replication_factor=1)
    refused = harness.client().ask(CreateTopicsRequest(topics=[topic], timeout_ms=1_000)).topics[0]
    assert refused.error_code == ErrorCode.INVALID_REPLICATION_FACTOR
    assert configure(harness, "cordoned.log.dirs", "") == 0
    assert cordoned() == {DATA: False, SECOND: False} and known() == set()
    harness.create_topic("u", partitions=2)


def test_directories_are_seen_from_outside(harness: NodeHarness) -> None:
    configure(harness, "cordoned.log.dirs", SECOND)
    harness.node.logs.dir_failed(harness.node.logs.dirs[1], OSError(5, "EIO"))
    found = snapshot(harness.node)
    manager = "kafka_log_logmanager_"
    assert found.gauges[f"{manager}offlinelogdirectorycount"][1] == 1
    assert found.gauges[f"{manager}cordonedlogdirectorycount"][1] == 1
    for name in ("offline", "cordoned"):
        assert found.by_directory[f"{manager}logdirectory{name}"][1] == {DATA: 0.0, SECOND: 1.0}


def test_only_own_log_directories_can_be_cordoned_and_the_rest_of_a_request_goes_on(
    harness: NodeHarness,
) -> None:
    def resource(name: str, value: str) -> AlterConfigsResource:
        return AlterConfigsResource(4, str(harness.node.config.node_id), [AlterableConfig(name, 0, value)])

    retention = AlterConfigsResource(2, "t", [AlterableConfig("retention.ms", 0, "1000")])
    request = IncrementalAlterConfigsRequest(resources=[retention, resource("cordoned.log.dirs", "/nowhere")])
    first, second = harness.client().ask(request).responses
    assert (first.error_code, first.resource_name) == (0, "t")
    assert (second.error_code, second.resource_name) == (ErrorCode.INVALID_REQUEST, "1")
    assert second.error_message == (
        "requirement failed: All entries in cordoned.log.dirs must be present in log.dirs or log.dir. Missing entries "
        ": /nowhere"
    )
    both = IncrementalAlterConfigsRequest(resources=[resource("cordoned.log.dirs", f"*,{DATA}")])
    assert "must not contain other values" in str(harness.client().ask(both).responses[0].error_message)
    legacy = AlterConfigsRequest(
        resources=[OldResource(4, "1", [OldConfig("cordoned.log.dirs", "/nowhere")])], validate_only=False
    )
    assert harness.client().ask(legacy).responses[0].error_code == ErrorCode.INVALID_REQUEST
    assert harness.node.logs.cordoned == frozenset()


def test_a_directory_that_fails_before_the_controller_knows_what_is_there(harness: NodeHarness) -> None:
    """What is there is named, so that it can be led elsewhere at once."""
    node = harness.node
    asked: list[Any] = []
    really = node.replicas.assignments.ask
    node.replicas.assignments.ask = lambda request, done: asked.append((request, done))
    harness.create_topic("u", partitions=4)
    assert len(asked) == 1
    node.logs.dir_failed(node.logs.dirs[1], OSError(5, "EIO"))
    node.replicas.assignments.ask = really
    lost = [index for index in range(4) if node.partitions["u", index].log.offline]
    assert lost
    request, done = asked[0]
    assert really is not None
    really(request, done)
    harness.settle()
    partitions = node.image.topics["u"].partitions
    assert {index for index, each in partitions.items() if each.leader < 0} == set(lost)


def test_a_log_that_cannot_be_created_is_told_of(harness: NodeHarness) -> None:
    here(harness, "t", DATA)
    put_a_file_in_its_place(harness)
    harness.create_topic("u", partitions=2)
    harness.settle()
    partitions = harness.node.image.topics["u"].partitions
    assert sorted(each.leader < 0 for each in partitions.values()) == [False, True]
    assert harness.log.of_level("error")[0][1] == "log directory offline"


def test_a_directory_that_is_removed_is_noticed_within_seconds(harness: NodeHarness) -> None:
    harness.disk.rename(SECOND, "/elsewhere")
    harness.advance(2_000)
    assert harness.node.log_directories() == [(DATA, True), (SECOND, False)]
    assert produce(harness, [b"goes on"]) == 0


def test_a_directory_that_cannot_be_used_at_the_start_takes_its_replicas_only(harness: NodeHarness) -> None:
    harness.create_topic("u", partitions=3)
    there = [index for index in range(3) if directory_of(harness, "u", index) == SECOND]
    assert 0 < len(there) < 3
    harness.stop()
    put_a_file_in_its_place(harness)
    harness.restart(clean=False)
    assert harness.node.log_directories() == [(DATA, True), (SECOND, False)]
    partitions = harness.node.image.topics["u"].partitions
    assert [index for index, each in partitions.items() if each.leader < 0] == there
    assert [index for index in range(3) if ("u", index) not in harness.node.partitions] == there
    assert produce(harness, [b"goes on"]) == 0
    assert alter(harness, "u", DATA, index=there[0]) is ErrorCode.KAFKA_STORAGE_ERROR
    harness.stop()
    harness.disk.unlink(SECOND)
    harness.disk.rename("/elsewhere", SECOND)
    harness.restart(clean=False)
    partitions = harness.node.image.topics["u"].partitions
    assert [each.leader < 0 for each in partitions.values()] == [False] * 3
