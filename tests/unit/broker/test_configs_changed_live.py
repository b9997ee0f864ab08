"""Configurations of logs changed while a node runs: of a topic, and the brokers' defaults for all of them."""

from __future__ import annotations

import pytest

from odradek.wire.errors import ErrorCode
from odradek.wire.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
)
from odradek.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from odradek.wire.records import Codec, parse_header
from support.node_harness import NodeHarness

TOPIC, BROKER = 2, 4
HOUR = 3_600_000
CHECK_MS = 300_000
"""log.retention.check.interval.ms."""


@pytest.fixture
def node() -> NodeHarness:
    harness = NodeHarness()
    harness.create_topic("t")
    return harness


def alter(node: NodeHarness, kind: int, name: str, **configs: str) -> None:
    changes = [
        AlterableConfig(name=key.replace("__", "."), config_operation=0, value=value)
        for key, value in configs.items()
    ]
    request = IncrementalAlterConfigsRequest(
        resources=[AlterConfigsResource(resource_type=kind, resource_name=name, configs=changes)]
    )
    answer = node.client().ask(request).responses[0]
    assert answer.error_code == ErrorCode.NONE, answer.error_message


def write(node: NodeHarness, *values: bytes) -> None:
    data = PartitionProduceData(index=0, records=node.batch(*values))
    request = ProduceRequest(
        acks=1, timeout_ms=1000, topic_data=[TopicProduceData(name="t", partition_data=[data])]
    )
    answer = node.client().ask(request, 9)
    assert answer.responses[0].partition_responses[0].error_code == ErrorCode.NONE


@pytest.mark.parametrize(("kind", "name", "prefix"), [(TOPIC, "t", ""), (BROKER, "", "log.")])
def test_retention_by_time(node: NodeHarness, kind: int, name: str, prefix: str) -> None:
    log = node.node.partitions["t", 0].log
    write(node, b"a")
    node.advance(2 * HOUR)
    assert log.log_start_offset == 0
    alter(node, kind, name, **{f"{prefix}retention.ms": str(HOUR)})
    node.advance(CHECK_MS)
    assert (log.log_start_offset, log.log_end_offset) == (1, 1)


@pytest.mark.parametrize(("kind", "name", "prefix"), [(TOPIC, "t", ""), (BROKER, "", "log.")])
def test_retention_by_size(node: NodeHarness, kind: int, name: str, prefix: str) -> None:
    log = node.node.partitions["t", 0].log
    alter(node, TOPIC, "t", segment__bytes=str(1 << 20))
    for _ in range(5):
        write(node, bytes(700_000))
    assert len(log.segments) == 5
    alter(node, kind, name, **{f"{prefix}retention.bytes": "1500000"})
    node.advance(CHECK_MS)
    assert (log.log_start_offset, len(log.segments)) == (2, 3)


def test_the_time_of_a_segment(node: NodeHarness) -> None:
    log = node.node.partitions["t", 0].log
    write(node, b"a")
    node.advance(HOUR)
    alter(node, TOPIC, "t", segment__ms=str(HOUR // 2))
    write(node, b"b")
    assert [segment.base_offset for segment in log.segments] == [0, 1]


@pytest.mark.parametrize(("kind", "name"), [(TOPIC, "t"), (BROKER, "")])
def test_compression(node: NodeHarness, kind: int, name: str) -> None:
    log = node.node.partitions["t", 0].log
    write(node, b"a" * 100)
    alter(node, kind, name, compression__type="zstd")
    write(node, b"b" * 100)
    stored = log.read(0, 1 << 20, end_offset=2).data
    first = parse_header(stored)
    assert (first.codec, parse_header(stored, first.size).codec) == (Codec.NONE, Codec.ZSTD)
