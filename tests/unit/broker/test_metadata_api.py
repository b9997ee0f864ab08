"""Metadata, written by hand, beside the generated codec; ApiVersions; automatic creation of topics."""

from __future__ import annotations

import dataclasses
import random
from struct import pack

import pytest

from odradek.broker.api.metadata import encode_body
from odradek.broker.node import NAMED_MS
from odradek.metadata.delta import MetadataDelta
from odradek.metadata.image import BrokerImage, PartitionImage, TopicImage
from odradek.metadata.records import BrokerRegistrationChangeRecord
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from odradek.wire.messages.describe_cluster import DescribeClusterRequest
from odradek.wire.messages.describe_topic_partitions import (
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsRequestCursor,
    TopicRequest,
)
from odradek.wire.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponse
from support.node_harness import NodeHarness

VERSIONS = range(14)


@pytest.fixture
def node() -> NodeHarness:
    return NodeHarness()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_hand_written_encoding_is_the_generated_one(node: NodeHarness, version: int) -> None:
    """Random topics, with dead leaders and replicas, decoded and encoded again by the generated codec."""
    rng = random.Random(version)
    for name in ("a", "b" * 200):
        node.create_topic(name, 2)
    image = node.node.image
    for topic in list(image.topics.values()):
        for index in range(5):
            replicas = tuple(rng.sample(range(1, 6), rng.randint(1, 4)))
            isr = replicas[: rng.randint(0, len(replicas))]
            leader = rng.choice((1, *replicas)) if isr else -1
            topic.partitions[index] = PartitionImage(replicas, isr, leader, leader_epoch=rng.randint(0, 9))
    for include in (False, True):
        request = MetadataRequest(
            topics=None,
            include_topic_authorized_operations=include,
            include_cluster_authorized_operations=include,
        )
        body = encode_body(node.node, request, version, "PLAINTEXT")
        decoded, end = MetadataResponse.read(body, 0, version)
        assert end == len(body)
        assert decoded.encode(version) == body
        assert {topic.name for topic in decoded.topics} == {"a", "b" * 200}
        for topic in decoded.topics:
            for each in topic.partitions:
                known = image.topics[topic.name].partitions[each.partition_index]
                assert tuple(each.replica_nodes) == known.replicas
                assert tuple(each.isr_nodes) == known.isr
                alive = known.leader == 1
                assert each.leader_id == (1 if alive else -1)
                assert each.error_code == (0 if alive else ErrorCode.LEADER_NOT_AVAILABLE)
                if version >= 5:
                    assert each.offline_replicas == [replica for replica in known.replicas if replica != 1]


def test_topics_by_name_by_id_and_missing_ones(node: NodeHarness) -> None:
    node.create_topic("here")
    topics = [
        MetadataRequestTopic(topic_id=node.topic_id("here"), name=None),
        MetadataRequestTopic(topic_id=bytes(range(16)), name=None),
        MetadataRequestTopic(name="here"),
        MetadataRequestTopic(name="missing"),
        MetadataRequestTopic(name="../etc/passwd"),
    ]
    response = node.client().ask(MetadataRequest(topics=topics, allow_auto_topic_creation=False), 12)
    assert [(each.name, each.error_code) for each in response.topics] == [
        ("here", 0),
        (None, ErrorCode.UNKNOWN_TOPIC_ID),
        ("here", 0),
        ("missing", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ("../etc/passwd", ErrorCode.INVALID_TOPIC_EXCEPTION),
    ]


def test_an_empty_list_means_all_topics_in_version_0_and_none_later(node: NodeHarness) -> None:
    node.create_topic("here")
    assert [each.name for each in node.client().ask(MetadataRequest(topics=[]), 0).topics] == ["here"]
    assert node.client().ask(MetadataRequest(topics=[]), 1).topics == []


def test_asking_for_a_topic_creates_it_and_answers_when_it_is_there(node: NodeHarness) -> None:
    wanted = [
        MetadataRequestTopic(name="fresh"),
        MetadataRequestTopic(name="also"),
        MetadataRequestTopic(name="no/way"),
    ]
    response = node.client().ask(MetadataRequest(topics=wanted, allow_auto_topic_creation=True), 9)
    assert [(each.error_code, len(each.partitions)) for each in response.topics] == [
        (0, 1),
        (0, 1),
        (ErrorCode.INVALID_TOPIC_EXCEPTION, 0),
    ]
    assert node.node.partitions["fresh", 0].is_leader


def test_automatic_creation_can_be_turned_off_by_either_side() -> None:
    node = NodeHarness(auto__create__topics__enable="false")
    wanted = [MetadataRequestTopic(name="fresh")]
    response = node.client().ask(MetadataRequest(topics=wanted, allow_auto_topic_creation=True), 9)
    assert response.topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert "fresh" not in node.node.image.topics


def test_cached_answers_follow_the_image(node: NodeHarness) -> None:
    client = node.client()
    everything = MetadataRequest(topics=None)
    assert client.ask(everything, 9).topics == []
    node.create_topic("t")
    assert [each.name for each in client.ask(everything, 9).topics] == ["t"]


@pytest.mark.parametrize("version", range(5))
def test_api_versions_tells_what_is_served(node: NodeHarness, version: int) -> None:
    request = ApiVersionsRequest()
    if version >= 3:
        request = ApiVersionsRequest(client_software_name="test", client_software_version="1.0")
    response = node.client().ask(request, version)
    ranges = {each.api_key: (each.min_version, each.max_version) for each in response.api_keys}
    assert response.error_code == 0
    assert ranges[0] == (0, 13), "0-2 are told for librdkafka, KAFKA-18659"
    assert ranges[1] == (4, 18)
    assert 76 not in ranges, "what is not served is not told"
    assert set(ranges) == set(node.node.handlers)


def test_an_unknown_version_of_api_versions_is_answered_in_version_0(node: NodeHarness) -> None:
    client = node.client()
    client.deliver(pack(">ihhih", 10, 18, 99, 77, -1))
    frame = client.take_frame()
    assert frame is not None
    assert frame[:4] == pack(">i", 77)
    response, end = ApiVersionsResponse.read(frame, 4, 0)
    assert end == len(frame)
    assert response.error_code == ErrorCode.UNSUPPORTED_VERSION
    assert any(each.api_key == 18 for each in response.api_keys)


def test_a_client_software_name_of_odd_characters_is_refused(node: NodeHarness) -> None:
    bad = ApiVersionsRequest(client_software_name="-bad name-", client_software_version="1")
    assert node.client().ask(bad, 3).error_code == ErrorCode.INVALID_REQUEST


def test_describe_cluster(node: NodeHarness) -> None:
    response = node.client().ask(DescribeClusterRequest(endpoint_type=1), 2)
    assert [(each.broker_id, each.host, each.port) for each in response.brokers] == [(1, "localhost", 9092)]
    assert response.cluster_id == node.node.logs.cluster_id
    assert [broker.is_fenced for broker in response.brokers] == [False]
    fenced = dataclasses.replace(node.node.image.brokers[1], id=9, fenced=True)
    node.node.image.brokers[9] = fenced
    everybody = node.client().ask(DescribeClusterRequest(endpoint_type=1, include_fenced_brokers=True), 2)
    assert [(broker.broker_id, broker.is_fenced) for broker in everybody.brokers] == [(1, False), (9, True)]
    other = node.client().ask(DescribeClusterRequest(endpoint_type=2), 2)
    assert other.error_code == ErrorCode.MISMATCHED_ENDPOINT_TYPE


def test_topic_partitions_come_page_by_page(node: NodeHarness) -> None:
    node.create_topic("a", 3)
    node.create_topic("b", 3)
    cursor, seen, pages = None, [], 0
    while True:
        request = DescribeTopicPartitionsRequest(topics=[], response_partition_limit=2, cursor=cursor)
        response = node.client().ask(request)
        seen += [(topic.name, each.partition_index) for topic in response.topics for each in topic.partitions]
        pages += 1
        if response.next_cursor is None:
            break
        following = response.next_cursor
        cursor = DescribeTopicPartitionsRequestCursor(
            topic_name=following.topic_name, partition_index=following.partition_index
        )
    assert seen == [(name, index) for name in "ab" for index in range(3)]
    assert pages == 3
    missing = node.client().ask(DescribeTopicPartitionsRequest(topics=[TopicRequest(name="no")]))
    assert missing.topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_no_answer_describes_more_partitions_than_configured() -> None:
    node = NodeHarness(**{"max.request.partition.size.limit": "2"})
    node.create_topic("a", 3)
    response = node.client().ask(DescribeTopicPartitionsRequest(topics=[], response_partition_limit=2000))
    assert [each.partition_index for each in response.topics[0].partitions] == [0, 1]
    assert response.next_cursor.partition_index == 2


def test_a_topic_of_very_many_replicas_takes_the_general_layout(node: NodeHarness) -> None:
    node.create_topic("wide")
    replicas = tuple(range(1, 201))
    node.node.image.topics["wide"] = TopicImage("wide", bytes(16), {0: PartitionImage(replicas, replicas, 1)})
    body = encode_body(node.node, MetadataRequest(topics=None), 12, "PLAINTEXT")
    decoded, _ = MetadataResponse.read(body, 0, 12)
    assert len(decoded.topics[0].partitions[0].isr_nodes) == 200


def change(node: NodeHarness, **values: bool) -> None:
    """Of broker 2, as the controller's log tells it."""
    image = node.node.image
    delta = MetadataDelta(image)
    delta.replay(BrokerRegistrationChangeRecord(2, 7, **values))
    node.node.on_metadata(delta, delta.apply(image.offset + 1, image.epoch))


def named(node: NodeHarness) -> list[int]:
    response = node.client().ask(MetadataRequest(topics=[]), 12)
    return [broker.node_id for broker in response.brokers]


@pytest.fixture
def one_of_two() -> NodeHarness:
    harness = NodeHarness(listeners="PLAINTEXT://:9092,CONTROLLER://:9093")
    harness.node.image.brokers[2] = BrokerImage(
        2, 7, bytes(16), {"PLAINTEXT": ("other", 9092, 0)}, fenced=False
    )
    harness.node._endpoints.clear()
    return harness


def test_a_broker_that_has_just_died_is_named_for_as_long_as_kafka_would_not_have_noticed(
    one_of_two: NodeHarness,
) -> None:
    """librdkafka loses what it is about to ask of a broker that is not named any more, and waits for ever."""
    assert named(one_of_two) == [1, 2]
    change(one_of_two, fenced=True)
    one_of_two.node.found_dead(2)
    assert named(one_of_two) == [1, 2]
    one_of_two.advance(NAMED_MS - 1)
    assert named(one_of_two) == [1, 2]
    one_of_two.advance(1)
    assert named(one_of_two) == [1]
    change(one_of_two, fenced=False)
    assert named(one_of_two) == [1, 2]


def test_a_broker_that_may_be_cut_off_is_not_named(one_of_two: NodeHarness) -> None:
    """A client would wait there, for an answer that cannot come, in place of asking the next leader."""
    change(one_of_two, fenced=True)
    assert named(one_of_two) == [1]
    one_of_two.node.found_dead(2)
    assert named(one_of_two) == [1, 2], "and the answer before was not kept"
    change(one_of_two, fenced=False)
    change(one_of_two, fenced=True)
    assert named(one_of_two) == [1], "its next life has not been found dead"


def test_a_broker_that_has_left_in_order_is_not_named(one_of_two: NodeHarness) -> None:
    change(one_of_two, in_controlled_shutdown=True)
    change(one_of_two, fenced=True)
    assert named(one_of_two) == [1]
