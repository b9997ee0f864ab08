"""What strangers send. Everything costs its sender at most the connection, one log line, and nothing else."""

from __future__ import annotations

import random
from struct import pack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odradek.wire.apis import request_class
from odradek.wire.errors import ErrorCode
from odradek.wire.frame import encode_request
from odradek.wire.messages._schema import FieldInfo, MessageInfo
from odradek.wire.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    ReassignablePartition,
    ReassignableTopic,
)
from odradek.wire.messages.consumer_group_describe import ConsumerGroupDescribeRequest
from odradek.wire.messages.create_topics import CreatableTopic, CreateTopicsRequest
from odradek.wire.messages.find_coordinator import FindCoordinatorRequest
from odradek.wire.messages.metadata import MetadataRequest
from odradek.wire.primitives import Message
from support.examples import examples
from support.message_samples import Sampler
from support.node_harness import Client, NodeHarness


class Stranger(Sampler):
    """Random requests that now and then name what exists."""

    def value(self, info: MessageInfo, field: FieldInfo, version: int) -> Any:
        if field.type == "string" and self.rng.random() < 0.6:
            return self.rng.choice(
                ("t", "t", "g", "", "__consumer_offsets", "1", "range", "consumer", "../x")
            )
        if field.type in ("int8", "int16", "int32", "int64") and self.rng.random() < 0.5:
            return self.rng.choice((0, 1, -1, 2, 100))
        return super().value(info, field, version)


def sample(cls: type[Message], version: int, rng: random.Random) -> Any:
    return Stranger(rng).message(cls.__name__, version)


@pytest.fixture(scope="module")
def node() -> NodeHarness:
    harness = NodeHarness()
    harness.create_topic("t", 2)
    return harness


def still_serves(node: NodeHarness) -> None:
    assert node.client().ask(MetadataRequest(topics=None), 9).topics[0].name == "t"


def no_bug(node: NodeHarness) -> None:
    assert node.log.of_level("error", "exception") == []


@pytest.mark.parametrize("size", [-1, -(2**31), 0, 4, 104857601, 2**31 - 1])
def test_impossible_frame_sizes(node: NodeHarness, size: int) -> None:
    client = node.client()
    node.log.lines.clear()
    client.deliver(pack(">i", size) + bytes(64))
    assert client.closed
    assert len(node.log.lines) == 1
    still_serves(node)


@pytest.mark.parametrize(
    ("start", "guess"),
    [(b"GET /metrics HTTP/1.1\r\n\r\n", "HTTP"), (bytes.fromhex("1603010200010001fc0303"), "TLS")],
)
def test_a_client_of_another_protocol_is_told_apart_in_the_log(
    node: NodeHarness, start: bytes, guess: str
) -> None:
    client = node.client()
    node.log.lines.clear()
    client.deliver(start)
    assert client.closed
    (line,) = node.log.lines
    assert f"it looks like {guess}" in str(line)
    still_serves(node)


@pytest.mark.parametrize(
    ("key", "version"), [(999, 0), (-1, 0), (4, 1), (3, 99), (3, -1), (1, 3), (0, 14), (19, 1)]
)
def test_unknown_keys_and_versions(node: NodeHarness, key: int, version: int) -> None:
    client = node.client()
    node.log.lines.clear()
    client.deliver(pack(">ihhih", 10, key, version, 1, -1))
    assert client.closed
    assert client.take_frame() is None
    assert len(node.log.lines) == 1
    still_serves(node)


def test_every_prefix_of_every_request_is_survived(node: NodeHarness) -> None:
    """Requests cut at any byte but framed as if whole."""
    rng = random.Random(5)
    for key in sorted(node.node.handlers):
        version = node.node.advertised[key].stop - 1
        frame = encode_request(key, version, 1, "x", sample(request_class(key), version, rng).encode(version))
        for end in range(4, len(frame), max(1, len(frame) // 40)):
            client = node.client()
            client.deliver(pack(">i", end - 4) + frame[4:end])
            node.settle()
            client.connection.lost()
    no_bug(node)
    still_serves(node)


def test_random_but_well_formed_requests_find_no_bug() -> None:
    """Each API and version with values nobody would send: an answer or a closed connection, never an exception."""
    rng = random.Random(11)
    node = NodeHarness()
    node.create_topic("t", 2)
    for key in sorted(node.node.handlers):
        versions = node.node.advertised[key]
        for version in versions:
            cls = request_class(key)
            if not cls.MIN_VERSION <= version <= cls.MAX_VERSION:
                continue
            for _ in range(4):
                client = Client(node)
                client.deliver(
                    encode_request(key, version, 1, "x", sample(cls, version, rng).encode(version))
                )
                node.settle()
                client.connection.lost()
    no_bug(node)


@examples(200)
@given(data=st.binary(max_size=300), key=st.integers(0, 80), version=st.integers(-1, 20))
def test_random_bytes_behind_a_valid_head(node: NodeHarness, data: bytes, key: int, version: int) -> None:
    client = node.client()
    client.deliver(pack(">ihhi", 8 + len(data), key, version, 1) + data)
    node.settle()
    client.connection.lost()
    no_bug(node)


@examples(200)
@given(data=st.binary(max_size=600))
def test_random_bytes(node: NodeHarness, data: bytes) -> None:
    client = node.client()
    client.deliver(data)
    node.settle()
    client.connection.lost()
    no_bug(node)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../../etc", "a/b", "a\\b", "a\0b", "ü", "x" * 250, "a b", "~", "-" * 249 + "/"],
)
def test_topic_names_that_are_no_names(node: NodeHarness, name: str) -> None:
    before = set(node.disk.listdir("/data"))
    topic = CreatableTopic(name=name, num_partitions=1, replication_factor=1)
    response = node.client().ask(CreateTopicsRequest(topics=[topic], timeout_ms=1000))
    assert response.topics[0].error_code == ErrorCode.INVALID_TOPIC_EXCEPTION
    assert set(node.disk.listdir("/data")) == before


def test_connections_over_the_limit_are_closed_at_once() -> None:
    node = NodeHarness(max__connections="3")
    clients = [node.client() for _ in range(5)]
    assert [client.closed for client in clients] == [False, False, False, True, True]
    clients[0].connection.lost()
    assert not node.client().closed


def test_connections_of_one_address_have_a_limit_of_their_own() -> None:
    node = NodeHarness(max__connections__per__ip="2", max__connections__per__ip__overrides="127.0.0.1:3")
    clients = [node.client() for _ in range(4)]
    assert [client.closed for client in clients] == [False, False, False, True]
    for client in clients:
        client.connection.lost()
    assert not node.client().closed


def test_idle_connections_are_closed() -> None:
    node = NodeHarness(connections__max__idle__ms="60000")
    client = node.client()
    node.advance(50_000)
    assert not client.closed
    node.advance(30_000)
    assert client.closed


def test_a_name_that_no_error_message_can_quote_costs_nobody_anything(node: NodeHarness) -> None:
    node.log.lines.clear()
    request = AlterPartitionReassignmentsRequest(
        topics=[ReassignableTopic("x" * 32767, [ReassignablePartition(0, [1])])]
    )
    (topic,) = node.client().ask(request, 1).responses
    assert topic.name == "x" * 32767
    assert topic.partitions[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert topic.partitions[0].error_message.startswith("Unable to find a topic named xxx")
    node.client().ask(FindCoordinatorRequest("g"), 1)  # from here on, groups are served
    (group,) = node.client().ask(ConsumerGroupDescribeRequest(["g" * 32767]), 1).groups
    assert group.error_code == ErrorCode.GROUP_ID_NOT_FOUND
    assert group.error_message.startswith("Group ggg")
    no_bug(node)
    still_serves(node)
