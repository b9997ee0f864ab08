"""Metadata waits while a broker is gone that the controller has not fenced yet."""

from __future__ import annotations

import pytest

from odradek.broker.doubts import DOUBT_MS_MAX, HOLD_MS
from odradek.metadata.image import BrokerImage
from odradek.wire.frame import encode_request
from odradek.wire.messages.metadata import MetadataRequest
from support.node_harness import Client, NodeHarness


@pytest.fixture
def node() -> NodeHarness:
    harness = NodeHarness(listeners="PLAINTEXT://:9092,CONTROLLER://:9093")
    harness.create_topic("t")
    harness.node.image.brokers[2] = BrokerImage(
        2, 7, bytes(16), {"PLAINTEXT": ("other", 9092, 0)}, fenced=False
    )
    harness.node.doubts.hold_ms = HOLD_MS  # as in a cluster
    return harness


def ask(node: NodeHarness) -> tuple[Client, int]:
    client = node.client()
    return client, client.send(MetadataRequest(topics=None), 12)


def test_without_doubt_metadata_is_held_for_a_moment_only(node: NodeHarness) -> None:
    client, _ = ask(node)
    node.advance(HOLD_MS - 1)
    assert client.take_frame() is None
    node.advance(1)
    assert client.take_frame() is not None


def test_a_lone_node_holds_nothing_back() -> None:
    client, _ = ask(NodeHarness())
    assert client.take_frame() is not None


def test_news_that_come_during_the_hold_count(node: NodeHarness) -> None:
    client, _ = ask(node)
    node.advance(HOLD_MS - 1)
    node.node.doubts.add(2)
    node.advance(100)
    assert client.take_frame() is None


def test_metadata_waits_until_the_controller_has_fenced_the_broker(node: NodeHarness) -> None:
    node.node.doubts.add(2)
    client, correlation_id = ask(node)
    node.advance(HOLD_MS)
    assert client.take_frame() is None
    node.node.image.brokers[2].fenced = True
    node.node._endpoints.clear()
    node.node.doubts.image_changed()
    node.settle()
    response = client.take(3, 12, correlation_id)
    assert [broker.node_id for broker in response.brokers] == [1]


def test_without_a_decision_the_old_answer_leaves_after_a_while_and_later_ones_at_once(
    node: NodeHarness,
) -> None:
    node.node.doubts.add(2)
    client, _ = ask(node)
    node.advance(DOUBT_MS_MAX - 1)
    assert client.take_frame() is None
    node.advance(1)
    assert client.take_frame() is not None
    node.node.doubts.add(2)
    client, _ = ask(node)
    node.advance(HOLD_MS)
    assert client.take_frame() is not None


def test_asking_for_a_new_topic_meanwhile_creates_it_afterwards(node: NodeHarness) -> None:
    from odradek.wire.messages.metadata import MetadataRequestTopic

    node.node.doubts.add(2)
    client = node.client()
    request = MetadataRequest(topics=[MetadataRequestTopic(name="new")], allow_auto_topic_creation=True)
    correlation_id = client.send(request, 12)
    node.advance(DOUBT_MS_MAX)
    assert client.take(3, 12, correlation_id).topics[0].error_code == 0


def test_what_cannot_be_read_costs_its_sender_the_connection_before_it_is_held(node: NodeHarness) -> None:
    client = node.client()
    body = MetadataRequest(topics=None).encode(8)
    client.deliver(encode_request(3, 8, 1, "c", b"\x00\x00\xf6\x42" + body[4:]))  # more topics than bytes
    assert client.closed
    node.advance(HOLD_MS)
    other, _ = ask(node)
    node.advance(HOLD_MS)
    assert other.take_frame() is not None
