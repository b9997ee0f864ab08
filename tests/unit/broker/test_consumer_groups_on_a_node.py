"""The consumer protocol through a whole node: metadata, configurations and the finalized feature reach the groups."""

from __future__ import annotations

from typing import Any

import pytest

from odradek.wire.errors import ErrorCode
from odradek.wire.messages.api_versions import ApiVersionsRequest
from odradek.wire.messages.consumer_group_describe import ConsumerGroupDescribeRequest
from odradek.wire.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatRequestTopicPartitions,
)
from odradek.wire.messages.create_partitions import CreatePartitionsRequest, CreatePartitionsTopic
from odradek.wire.messages.describe_configs import DescribeConfigsRequest, DescribeConfigsResource
from odradek.wire.messages.find_coordinator import FindCoordinatorRequest
from odradek.wire.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
)
from odradek.wire.messages.list_config_resources import ListConfigResourcesRequest
from odradek.wire.messages.update_features import FeatureUpdateKey, UpdateFeaturesRequest
from support.node_harness import NodeHarness

GROUP, BROKER, TOPIC = 32, 4, 2
INTERVAL = "consumer.heartbeat.interval.ms"


@pytest.fixture
def node() -> NodeHarness:
    harness = NodeHarness(offsets__topic__num__partitions="3")
    harness.create_topic("t", 2)
    found = harness.client().ask(FindCoordinatorRequest(coordinator_keys=["g"], key_type=0), 4)
    assert found.coordinators[0].error_code == 0
    return harness


class Member:
    """Joins, and then reports what it was assigned."""

    def __init__(self, node: NodeHarness, **subscription: Any) -> None:
        self.node, self.subscription = node, subscription
        self.epoch = 0
        self.owned: dict[bytes, list[int]] = {}

    def beat(self) -> Any:
        joins = self.epoch == 0
        response = self.node.client().ask(
            ConsumerGroupHeartbeatRequest(
                group_id="g",
                member_id="m",
                member_epoch=self.epoch,
                rebalance_timeout_ms=1_000 if joins else -1,
                topic_partitions=[
                    ConsumerGroupHeartbeatRequestTopicPartitions(*entry) for entry in self.owned.items()
                ],
                **(self.subscription if joins else {}),
            ),
            1,
        )
        if response.error_code == ErrorCode.NONE:
            self.epoch = response.member_epoch
            if response.assignment is not None:
                self.owned = {each.topic_id: each.partitions for each in response.assignment.topic_partitions}
        return response

    def settle(self) -> None:
        for _ in range(4):
            assert self.beat().error_code == ErrorCode.NONE
            self.node.advance(1_100)


def alter(node: NodeHarness, kind: int, name: str, key: str, value: str) -> None:
    config = AlterableConfig(name=key, config_operation=0, value=value)
    request = IncrementalAlterConfigsRequest(resources=[AlterConfigsResource(kind, name, [config])])
    assert node.client().ask(request, 1).responses[0].error_code == ErrorCode.NONE


def test_new_partitions_come_to_the_members(node: NodeHarness) -> None:
    member = Member(node, subscribed_topic_names=["t"])
    member.settle()
    assert member.owned == {node.topic_id("t"): [0, 1]}
    grown = CreatePartitionsRequest(
        topics=[CreatePartitionsTopic(name="t", count=4, assignments=None)], timeout_ms=1_000
    )
    assert node.client().ask(grown, 3).results[0].error_code == ErrorCode.NONE
    member.settle()
    assert {topic: sorted(parts) for topic, parts in member.owned.items()} == {
        node.topic_id("t"): [0, 1, 2, 3]
    }


def test_new_topics_come_to_members_with_an_expression(node: NodeHarness) -> None:
    member = Member(node, subscribed_topic_regex="t.*")
    member.settle()
    assert member.owned == {node.topic_id("t"): [0, 1]}
    node.create_topic("tt", 1)
    for _ in range(3):
        node.advance(4_000)
        member.settle()
    assert member.owned.keys() == {node.topic_id("t"), node.topic_id("tt")}


@pytest.mark.parametrize("clean", [True, False])
def test_members_go_on_after_a_restart(node: NodeHarness, clean: bool) -> None:
    member = Member(node, subscribed_topic_names=["t"])
    member.settle()
    epoch = member.epoch
    node.restart(clean=clean)
    member.settle()
    assert member.epoch == epoch
    described = node.client().ask(ConsumerGroupDescribeRequest(group_ids=["g", "g"]), 1)
    (group,) = described.groups
    assert (group.group_state, len(group.members)) == ("Stable", 1)


def test_a_group_is_configured_and_listed(node: NodeHarness) -> None:
    member = Member(node, subscribed_topic_names=["t"])
    assert member.beat().heartbeat_interval_ms == 5_000
    alter(node, GROUP, "g", INTERVAL, "7000")
    assert member.beat().heartbeat_interval_ms == 7_000
    described = node.client().ask(
        DescribeConfigsRequest(resources=[DescribeConfigsResource(GROUP, "g", [INTERVAL])]), 4
    )
    (entry,) = described.results[0].configs
    assert (entry.value, entry.config_source) == ("7000", 8)

    def listed(*kinds: int, version: int = 1) -> list[tuple[int, str]]:
        answer = node.client().ask(ListConfigResourcesRequest(resource_types=list(kinds)), version)
        assert answer.error_code == ErrorCode.NONE
        return [(each.resource_type, each.resource_name) for each in answer.config_resources]

    assert listed(GROUP) == [(GROUP, "g")]
    assert {(GROUP, "g"), (TOPIC, "t"), (BROKER, str(node.node.config.node_id))} <= set(listed())
    assert listed(version=0) == []
    answer = node.client().ask(ListConfigResourcesRequest(resource_types=[3]), 1)
    assert answer.error_code == ErrorCode.UNSUPPORTED_VERSION


def test_the_assignment_interval_of_all_groups_is_set_while_brokers_run(node: NodeHarness) -> None:
    alter(node, BROKER, "", "group.consumer.assignment.interval.ms", "0")
    assert node.node.groups.settings.assignment_interval_ms("g") == 0
    alter(node, BROKER, str(node.node.config.node_id), "group.consumer.assignment.interval.ms", "9")
    assert node.node.groups.settings.assignment_interval_ms("g") == 9


def test_the_protocol_is_served_while_its_feature_is_on(node: NodeHarness) -> None:
    def finalized() -> dict[str, int]:
        versions = node.client().ask(ApiVersionsRequest("test", "1"), 4)
        return {each.name: each.max_version_level for each in versions.finalized_features}

    assert finalized()["group.version"] == 1
    off = UpdateFeaturesRequest(feature_updates=[FeatureUpdateKey("group.version", 0, upgrade_type=2)])
    assert node.client().ask(off, 1).error_code == ErrorCode.NONE
    assert "group.version" not in finalized()
    member = Member(node, subscribed_topic_names=["t"])
    assert member.beat().error_code == ErrorCode.UNSUPPORTED_VERSION
    described = node.client().ask(ConsumerGroupDescribeRequest(group_ids=["g"]), 1)
    assert described.groups[0].error_code == ErrorCode.UNSUPPORTED_VERSION
