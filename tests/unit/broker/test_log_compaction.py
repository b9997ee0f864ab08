"""A node that compacts: which topics, by which settings, and how it goes together with retention."""

from __future__ import annotations

import re

import pytest

from odradek.broker.metrics_export import render, snapshot
from odradek.storage.cleaner import CleaningJob, Outcome
from odradek.storage.log import Log
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.find_coordinator import FindCoordinatorRequest
from odradek.wire.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    AlterConfigsResourceResponse,
    IncrementalAlterConfigsRequest,
)
from odradek.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from odradek.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from odradek.wire.records import iter_batches, read_records
from support.node_harness import NodeHarness

TOPIC, BROKER = 2, 4
BACKOFF_MS = 15_000
"""log.cleaner.backoff.ms."""
RETENTION_CHECK_MS = 300_000


def with_topic(policy: str = "compact", **settings: str) -> NodeHarness:
    node = NodeHarness(**settings)
    node.create_topic("t", cleanup__policy=policy, segment__bytes=str(1 << 20))
    return node


def write(node: NodeHarness, key: str, value: str, *, size: int = 300_000, topic: str = "t") -> ErrorCode:
    records = node.batch(value.encode() + bytes(size), key=key.encode() or None)
    data = PartitionProduceData(index=0, records=records)
    request = ProduceRequest(
        acks=1, timeout_ms=1000, topic_data=[TopicProduceData(name=topic, partition_data=[data])]
    )
    return ErrorCode(node.client().ask(request, 9).responses[0].partition_responses[0].error_code)


def fill(node: NodeHarness, rounds: int = 4) -> None:
    """Closed segments with `rounds` values of three keys, and an open one."""
    for at in range(rounds):
        for key in "abc":
            assert write(node, key, f"{key}{at}") is ErrorCode.NONE
    for _ in range(4):
        assert write(node, "last", "last") is ErrorCode.NONE


def log_of(node: NodeHarness, topic: str = "t") -> Log:
    return node.node.partitions[topic, 0].log


def values(log: Log) -> list[str]:
    found: list[str] = []
    offset = log.log_start_offset
    while offset < log.written_end_offset:
        result = log.read(offset, 1 << 24, end_offset=log.written_end_offset)
        view = memoryview(result.data)
        for position, header in iter_batches(view):
            batch = view[position : position + header.size]
            found += [
                (record.value or b"").rstrip(b"\0").decode() for record in read_records(batch, limit=1 << 24)
            ]
        offset = result.next_offset
    return [value for value in found if value != "last"]


def ask_to_alter(
    node: NodeHarness, kind: int, name: str, **configs: str | None
) -> AlterConfigsResourceResponse:
    """None takes a value away."""
    changes = [
        AlterableConfig(name=key.replace("__", "."), config_operation=int(value is None), value=value)
        for key, value in configs.items()
    ]
    resource = AlterConfigsResource(resource_type=kind, resource_name=name, configs=changes)
    return node.client().ask(IncrementalAlterConfigsRequest(resources=[resource])).responses[0]


def alter(node: NodeHarness, kind: int, name: str, **configs: str | None) -> None:
    answer = ask_to_alter(node, kind, name, **configs)
    assert answer.error_code == ErrorCode.NONE, answer.error_message


def test_a_compacted_topic_keeps_the_last_value_of_each_key() -> None:
    node = with_topic()
    fill(node)
    assert len(values(log_of(node))) == 12
    node.advance(BACKOFF_MS)
    assert values(log_of(node)) == ["a3", "b3", "c3"]
    assert node.node.logs.clean_below(log_of(node)) > 0
    assert "compacted a log" in str(node.log.lines)


def test_it_is_compacted_again_when_it_is_dirty_again_and_after_a_restart() -> None:
    node = with_topic()
    fill(node)
    node.advance(BACKOFF_MS)
    fill(node)
    node.restart(clean=False)
    node.advance(2 * BACKOFF_MS)  # what a crash left unsynced is synced first
    assert values(log_of(node)) == ["a3", "b3", "c3"]


def test_not_without_the_cleaner() -> None:
    node = with_topic(log__cleaner__enable="false")
    fill(node)
    node.advance(4 * BACKOFF_MS)
    assert len(values(log_of(node))) == 12


def test_not_what_is_hardly_dirty_until_the_longest_lag_is_over() -> None:
    node = with_topic()
    alter(node, TOPIC, "t", min__cleanable__dirty__ratio="1", max__compaction__lag__ms="3600000")
    fill(node)
    node.advance(3_000_000)
    assert len(values(log_of(node))) == 12
    node.advance(700_000)
    assert values(log_of(node)) == ["a3", "b3", "c3"]


def test_the_longest_lag_closes_segments() -> None:
    """KIP-354: with the next write, as `segment.ms` does."""
    node = with_topic()
    alter(node, TOPIC, "t", max__compaction__lag__ms="60000")
    write(node, "a", "a0", size=10)
    write(node, "a", "a1", size=10)
    node.advance(61_000)
    write(node, "last", "last", size=10)
    node.advance(BACKOFF_MS)
    assert values(log_of(node)) == ["a1"]


def test_not_before_the_shortest_lag_is_over() -> None:
    node = with_topic()
    alter(node, TOPIC, "t", min__compaction__lag__ms="3600000")
    fill(node)
    node.advance(3_000_000)
    assert len(values(log_of(node))) == 12
    node.advance(700_000)
    assert values(log_of(node)) == ["a3", "b3", "c3"]


def test_the_policy_is_changed_while_it_runs() -> None:
    node = with_topic("delete")
    fill(node)
    node.advance(BACKOFF_MS)
    assert len(values(log_of(node))) == 12
    alter(node, TOPIC, "t", cleanup__policy="compact")
    node.advance(BACKOFF_MS)
    assert values(log_of(node)) == ["a3", "b3", "c3"]
    alter(node, TOPIC, "t", cleanup__policy="delete")
    fill(node)
    node.advance(BACKOFF_MS)
    assert len(values(log_of(node))) == 15


def test_a_topic_can_be_compacted_and_grow_old() -> None:
    node = with_topic("compact,delete")
    alter(node, TOPIC, "t", retention__ms="3600000")
    fill(node)
    node.advance(BACKOFF_MS)
    assert values(log_of(node)) == ["a3", "b3", "c3"]
    node.advance(3_600_000 + RETENTION_CHECK_MS)
    assert values(log_of(node)) == []
    assert log_of(node).log_start_offset > 0


def test_records_without_a_key_are_refused_as_long_as_it_is_compacted() -> None:
    node = with_topic()
    assert write(node, "", "x") is ErrorCode.INVALID_RECORD
    alter(node, TOPIC, "t", cleanup__policy="delete")
    assert write(node, "", "x") is ErrorCode.NONE


def test_how_often_it_looks_is_changed_while_it_runs() -> None:
    node = with_topic()
    alter(node, BROKER, "", log__cleaner__backoff__ms="100")
    node.advance(BACKOFF_MS)
    fill(node)
    node.advance(150)
    assert values(log_of(node)) == ["a3", "b3", "c3"]


def test_what_is_not_committed_is_not_compacted() -> None:
    node = with_topic()
    fill(node)
    node.node.partitions["t", 0].high_watermark = 2
    node.advance(BACKOFF_MS)
    assert len(values(log_of(node))) == 12


def test_committed_offsets_are_compacted() -> None:
    node = NodeHarness(offsets__topic__num__partitions="1", offsets__topic__segment__bytes=str(1 << 20))
    node.create_topic("t")
    client = node.client()
    client.ask(FindCoordinatorRequest(coordinator_keys=["g"]), 4)
    for offset in range(300):
        entry = OffsetCommitRequestPartition(
            partition_index=0, committed_offset=offset, committed_metadata="m" * 4000
        )
        topic = OffsetCommitRequestTopic(name="t", partitions=[entry])
        request = OffsetCommitRequest(group_id="g", generation_id_or_member_epoch=-1, topics=[topic])
        assert client.ask(request, 8).topics[0].partitions[0].error_code == 0
    log = log_of(node, "__consumer_offsets")
    before = log.size_bytes
    node.advance(2 * BACKOFF_MS)
    assert log.size_bytes < before / 2


def test_metrics_tell_of_the_cleaner_by_the_names_of_kafkas_exporters() -> None:
    node = with_topic()
    before = snapshot(node.node).gauges
    assert {before[name][1] for name in before if "logcleaner" in name} == {0}
    fill(node)
    node.advance(BACKOFF_MS)
    found = snapshot(node.node)
    assert found.gauges["kafka_log_logcleaner_cleaner_recopy_percent"][1] == 100 * 300_000 // 4_500_000
    assert found.gauges["kafka_log_logcleaner_deadthreadcount"][1] == 0
    assert "kafka_log_logcleaner_max_clean_time_secs" in found.gauges
    assert found.gauges["kafka_log_logcleanermanager_max_dirty_percent"][1] == 0
    node.disk.flip_bit(f"/data/t-0/{15:020d}.log", 80, 1)
    fill(node, rounds=9)
    node.advance(BACKOFF_MS)
    body = render(snapshot(node.node))[0].decode()
    assert 'kafka_log_logcleanermanager_uncleanable_partitions_count{logDirectory="/data"} 1.0' in body
    dirty = re.search(r'uncleanable_bytes\{logDirectory="/data"\} (\S+)', body)
    assert dirty is not None
    assert float(dirty[1]) > 1_000_000


class SlowWorkers:
    """They finish when told to."""

    def __init__(self) -> None:
        self.jobs: list[CleaningJob] = []
        self.limits: list[float] = []
        self.done: list[object] = []

    def clean(self, job: CleaningJob, done: object) -> None:
        self.jobs.append(job)
        self.done.append(done)

    def limit(self, bytes_per_second: float) -> None:
        self.limits.append(bytes_per_second)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowWorkers:
    workers = SlowWorkers()
    monkeypatch.setattr("odradek.storage.log_cleaner.WorkersHere", lambda run, disk: workers)
    return workers


def test_retention_waits_for_a_cleaning_and_others_do_not(slow: SlowWorkers) -> None:
    node = with_topic("compact,delete")
    node.create_topic("other", segment__bytes=str(1 << 20), retention__ms="1000")
    alter(node, TOPIC, "t", retention__ms="1000")
    fill(node)
    assert write(node, "k", "v", topic="other") is ErrorCode.NONE
    start = log_of(node).log_start_offset
    node.advance(RETENTION_CHECK_MS + BACKOFF_MS)
    assert len(slow.jobs) == 1
    assert log_of(node).log_start_offset == start
    assert log_of(node, "other").log_start_offset > 0
    alter(node, BROKER, "", log__cleaner__backoff__ms=str(1 << 40))
    node.advance(BACKOFF_MS)
    finish = slow.done[0]
    assert callable(finish)
    finish(Outcome(died="signal 9"))
    node.settle()
    node.advance(RETENTION_CHECK_MS)
    assert log_of(node).log_start_offset > start


def test_threads_and_rate_are_shared_out(slow: SlowWorkers) -> None:
    node = NodeHarness(log__cleaner__threads="2", log__cleaner__dedupe__buffer__size="4000000")
    for name in ("t", "u", "v"):
        node.create_topic(name, cleanup__policy="compact", segment__bytes=str(1 << 20))
        log = log_of(node, name)
        for _ in range(5):
            batch = memoryview(bytearray(node.batch(bytes(500_000), key=b"k")))
            log.append_as_leader(batch, 0, node.clock.wall_ms())
            log.write_staged()
        node.node.partitions[name, 0].high_watermark = log.written_end_offset
    node.advance(BACKOFF_MS)
    assert [job.directory.rpartition("/")[2] for job in slow.jobs] == ["t-0", "u-0"]
    assert {job.keys_max for job in slow.jobs} == {4_000_000 // 2 * 9 // 10 // 200}
    assert slow.limits[-1] == float("inf")
    alter(node, BROKER, "", log__cleaner__io__max__bytes__per__second="3000000")
    node.advance(BACKOFF_MS)
    assert slow.limits[-1] == 1_500_000


THREADS_REFUSED = (
    "Invalid value org.apache.kafka.common.config.ConfigException: Log cleaner threads cannot be {} for configuration "
    "Invalid dynamic configuration"
)
TABLE_REFUSED = "requirement failed: log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread."


@pytest.mark.parametrize("broker", ["1", ""])
@pytest.mark.parametrize(
    ("threads", "table", "text"),
    [
        ("1", None, THREADS_REFUSED.format("reduced to less than half the current value 4")),
        ("9", None, THREADS_REFUSED.format("increased to more than double the current value 4")),
        ("0", None, "/ by zero"),
        (None, "1000", TABLE_REFUSED),
        (None, "4194304", TABLE_REFUSED),
        ("2", "2097152", TABLE_REFUSED),
        ("x", None, "Invalid value x for configuration log.cleaner.threads: Not a number of type INT"),
    ],
)
def test_what_the_cleaner_cannot_become_is_refused_in_kafkas_words(
    broker: str, threads: str | None, table: str | None, text: str
) -> None:
    node = NodeHarness(log__cleaner__threads="4")
    given = {"log__cleaner__threads": threads, "log__cleaner__dedupe__buffer__size": table}
    changes = {name: value for name, value in given.items() if value is not None}
    before = node.node.image.configs.copy()
    answer = ask_to_alter(node, BROKER, broker, **changes)
    assert (answer.error_code, answer.error_message) == (ErrorCode.INVALID_REQUEST, text)
    assert node.node.image.configs == before


def test_threads_may_be_halved_and_doubled_again_and_again() -> None:
    node = NodeHarness(log__cleaner__threads="4")
    for threads in ("8", "16", "8", "4", "2", "1"):
        alter(node, BROKER, "1", log__cleaner__threads=threads)
    refused = ask_to_alter(node, BROKER, "1", log__cleaner__threads=None)
    assert "increased to more than double the current value 1 " in (refused.error_message or "")
    alter(node, BROKER, "1", log__cleaner__dedupe__buffer__size="1048577")
    refused = ask_to_alter(node, BROKER, "1", log__cleaner__threads="2")
    assert refused.error_message == TABLE_REFUSED
