"""Small or cheap requests that would cost much: each is refused, or answered within its means."""

from __future__ import annotations

import tracemalloc
from struct import pack

import pytest

from odradek.broker.dispatch import ELEMENTS_MAX
from odradek.wire.apis import ApiKey
from odradek.wire.frame import encode_request
from odradek.wire.messages.describe_configs import DescribeConfigsRequest, DescribeConfigsResource
from odradek.wire.messages.describe_groups import DescribeGroupsRequest
from odradek.wire.messages.describe_producers import DescribeProducersRequest, TopicRequest
from odradek.wire.messages.find_coordinator import FindCoordinatorRequest
from odradek.wire.messages.metadata import MetadataRequest, MetadataRequestTopic
from odradek.wire.messages.offset_fetch import OffsetFetchRequest, OffsetFetchRequestGroup
from odradek.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from support.node_harness import NodeHarness

MIB = 1 << 20


@pytest.fixture(scope="module")
def node() -> NodeHarness:
    harness = NodeHarness()
    harness.create_topic("t", 2)
    harness.client().ask(FindCoordinatorRequest(coordinator_keys=["g"]), 4)
    return harness


def refused(node: NodeHarness, data: bytes) -> None:
    """The connection is closed after one log line, and little memory was taken."""
    client = node.client()
    node.log.lines.clear()
    tracemalloc.start()
    client.deliver(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert client.closed
    assert [line[0] for line in node.log.lines] == ["limited_warning"]
    assert peak < 4 * len(data) + 8 * MIB, f"{peak / MIB:.0f} MiB"


def uvarint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def produce(version: int, body: bytes, header_tags: bytes = b"\0") -> bytes:
    head = pack(">hhih", ApiKey.PRODUCE, version, 1, -1) + (header_tags if version >= 9 else b"") + body
    return pack(">i", len(head)) + head


COUNT = MIB
EMPTY_TOPICS = b"\0" + pack(">hi", 1, 1000) + uvarint(COUNT + 1) + b"\1\1\0" * COUNT + b"\0"
EMPTY_PARTITIONS = b"\0" + pack(">hi", 1, 1000) + b"\2\1" + uvarint(COUNT + 1) + bytes(6) * COUNT + b"\0\0"
TAGS = b"".join(uvarint(tag) + b"\0" for tag in range(COUNT))
MANY_TAGS = b"\0" + pack(">hi", 1, 1000) + b"\1" + uvarint(COUNT) + TAGS
OLD_TOPICS = pack(">hhii", -1, 1, 1000, COUNT) + bytes(6) * COUNT
OLD_NEGATIVE = pack(">hhii", -1, 1, 1000, COUNT) + pack(">hi", -1, -(2**31)) + bytes(6) * COUNT


@pytest.mark.parametrize(
    ("version", "body"),
    [
        (9, EMPTY_TOPICS),
        (9, EMPTY_PARTITIONS),
        (9, MANY_TAGS),
        (13, b"\0" + pack(">hi", 1, 1000) + uvarint(COUNT + 1) + bytes(18) * COUNT + b"\0"),
        (3, OLD_TOPICS),
        (3, OLD_NEGATIVE),
        (8, pack(">hhii", -1, 1, 1000, 1) + pack(">hi", 0, COUNT) + bytes(8) * COUNT),
        (0, pack(">hii", 1, 1000, COUNT) + bytes(6) * COUNT),
        (2, pack(">hii", 1, 1000, 1) + pack(">hi", 0, COUNT) + bytes(8) * COUNT),
    ],
)
def test_a_large_produce_request_full_of_nothing(node: NodeHarness, version: int, body: bytes) -> None:
    refused(node, produce(version, body))


def test_a_request_header_full_of_tagged_fields(node: NodeHarness) -> None:
    refused(node, produce(9, bytes(8), header_tags=uvarint(COUNT) + TAGS))


def test_the_oldest_produce_layout_with_a_negative_name_length_ends(node: NodeHarness) -> None:
    """The length once moved the position backwards, for as many topics as were announced."""
    client = node.client()
    for length in range(-12, 0):
        body = pack(">hii", 1, 0, 0x7FFFFFFF) + pack(">hi", length, 0) * 4
        client = node.client()
        client.deliver(produce(0, body))
        assert client.closed


def test_a_produce_request_with_many_real_partitions_is_taken(node: NodeHarness) -> None:
    batch = node.batch(b"x" * 200)
    data = [PartitionProduceData(index=index % 2, records=batch) for index in range(1000)]
    for version in (3, 8, 9, 12):
        request = ProduceRequest(
            acks=1, timeout_ms=1000, topic_data=[TopicProduceData(name="t", partition_data=data)]
        )
        assert len(request.encode(version)) > 200_000
        answers = node.client().ask(request, version).responses[0].partition_responses
        assert [answer.error_code for answer in answers] == [0] * 1000


@pytest.mark.parametrize("version", [3, 8, 9, 12])
def test_a_produce_request_cut_after_its_partition_index(node: NodeHarness, version: int) -> None:
    """The way that looks up instead of parsing, at the end of a buffer of exactly the frame's size."""
    data = [PartitionProduceData(index=0, records=node.batch(b"x" * 300))]
    request = ProduceRequest(
        acks=1, timeout_ms=1000, topic_data=[TopicProduceData(name="t", partition_data=data)]
    )
    whole = encode_request(ApiKey.PRODUCE, version, 1, None, request.encode(version))
    for end in range(14, 60):
        client = node.client()
        node.log.lines.clear()
        client.deliver(whole)
        client.take_frame()
        cut = pack(">i", end - 4) + whole[4:end]
        client.deliver(cut[:-1])
        client.deliver(cut[-1:])
        assert client.closed or client.take_frame() is not None
        assert node.log.of_level("error") == []


@pytest.mark.parametrize(
    ("key", "version", "body"),
    [
        (ApiKey.DESCRIBE_GROUPS, 5, uvarint(ELEMENTS_MAX + 2) + b"\1" * (ELEMENTS_MAX + 1) + b"\0\0"),
        (ApiKey.METADATA, 9, uvarint(ELEMENTS_MAX + 2) + b"\1\0" * (ELEMENTS_MAX + 1) + b"\0\0\0\0"),
        (
            ApiKey.OFFSET_FETCH,
            5,
            b"\0\1g" + pack(">i", 10) + (b"\0\1t" + pack(">i", 6000) + bytes(24000)) * 10,
        ),
        (
            ApiKey.FETCH,
            12,
            bytes(4 * 4 + 1 + 8) + uvarint(ELEMENTS_MAX + 2) + b"\1\1\0" * (ELEMENTS_MAX + 1) + b"\1\1\0",
        ),
    ],
)
def test_a_request_that_names_too_much(node: NodeHarness, key: int, version: int, body: bytes) -> None:
    flexible = key != ApiKey.OFFSET_FETCH
    head = pack(">hhih", key, version, 1, -1) + (b"\0" if flexible else b"") + body
    client = node.client()
    node.log.lines.clear()
    client.deliver(pack(">i", len(head)) + head)
    assert client.closed
    assert "names more than" in node.log.lines[0][2]["reason"]


def test_what_is_asked_for_a_thousand_times_is_answered_once(node: NodeHarness) -> None:
    client = node.client()
    topic = MetadataRequestTopic(name="t")
    assert len(client.ask(MetadataRequest(topics=[topic] * 1000), 12).topics) == 1
    resource = DescribeConfigsResource(resource_type=2, resource_name="t")
    other = DescribeConfigsResource(resource_type=4, resource_name="1")
    results = client.ask(DescribeConfigsRequest(resources=[resource, other] * 1000), 4).results
    assert [(each.resource_type, each.error_code) for each in results] == [(2, 0), (4, 0)]
    assert len(client.ask(DescribeGroupsRequest(groups=["g"] * 1000), 5).groups) == 1
    every = OffsetFetchRequestGroup(group_id="g", topics=None)
    assert len(client.ask(OffsetFetchRequest(groups=[every] * 1000), 8).groups) == 1
    producers = client.ask(DescribeProducersRequest(topics=[TopicRequest("t", [0, 1] * 500)] * 2), 0).topics
    assert [len(each.partitions) for each in producers] == [2, 0]


def test_requests_other_than_produce_are_short(node: NodeHarness) -> None:
    client = node.client()
    client.deliver(pack(">ihhih", MIB + 1, ApiKey.METADATA, 9, 1, -1))
    assert client.closed


def test_what_a_connection_learns_about_requests_is_bounded(node: NodeHarness) -> None:
    """Client ids of 32 KB, each another one, were remembered with what they asked for."""
    client = node.client()
    data = [PartitionProduceData(index=0, records=node.batch(b"x"))]
    request = ProduceRequest(
        acks=1, timeout_ms=1000, topic_data=[TopicProduceData(name="t", partition_data=data)]
    )
    for number in range(600):
        client.ask(request, 9, client_id=f"{number:x}")
        client.ask(request, 9, client_id=f"{number:x}" * 5000)
    assert len(client.connection.produce_cache) <= 256
    assert max(map(len, client.connection.produce_cache)) <= 512
