"""Configuration, beyond what the recorded answers of Kafka cover (test_admin_answers.py)."""

import pytest

from odradek.controller.topic_names import topic_name_error
from odradek.metadata.configs import ResourceType
from odradek.metadata.image import BROKER_RESOURCE, TOPIC_RESOURCE
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.alter_configs import AlterableConfig as LegacyConfig
from odradek.wire.messages.alter_configs import AlterConfigsRequest
from odradek.wire.messages.alter_configs import AlterConfigsResource as LegacyResource
from odradek.wire.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    AlterConfigsResourceResponse,
    IncrementalAlterConfigsRequest,
)
from unit.controller.controller_harness import Harness, violations

TOPIC, BROKER = TOPIC_RESOURCE, BROKER_RESOURCE
SET, DELETE, APPEND, SUBTRACT = range(4)


@pytest.fixture
def harness() -> Harness:
    harness = Harness()
    harness.start_brokers(0, 1, 2)
    return harness


def alter(
    harness: Harness,
    type_: int,
    name: str,
    *changes: tuple[str, int, str | None],
    validate_only: bool = False,
) -> AlterConfigsResourceResponse:
    resource = AlterConfigsResource(type_, name, [AlterableConfig(*change) for change in changes])
    [result] = harness.call(IncrementalAlterConfigsRequest([resource], validate_only)).responses
    assert isinstance(result, AlterConfigsResourceResponse)
    return result


def test_the_image_and_the_definitions_number_resources_alike() -> None:
    assert (TOPIC, BROKER) == (ResourceType.TOPIC, ResourceType.BROKER)


def test_values_are_set_changed_and_taken_away(harness: Harness) -> None:
    harness.create("a")
    assert alter(harness, TOPIC, "a", ("retention.ms", SET, "5"), ("segment.ms", SET, "6")).error_code == 0
    assert harness.image.config(TOPIC, "a") == {"retention.ms": "5", "segment.ms": "6"}
    alter(harness, TOPIC, "a", ("retention.ms", SET, "7"), ("segment.ms", DELETE, None))
    assert harness.image.config(TOPIC, "a") == {"retention.ms": "7"}
    assert harness.publisher.deltas[-1].configs_changed == {(TOPIC, "a")}


def test_a_list_is_appended_to_and_subtracted_from(harness: Harness) -> None:
    harness.create("a")
    alter(harness, TOPIC, "a", ("cleanup.policy", APPEND, "compact"))
    assert harness.image.config(TOPIC, "a") == {"cleanup.policy": "delete,compact"}
    alter(harness, TOPIC, "a", ("cleanup.policy", APPEND, "compact,delete"))
    assert harness.image.config(TOPIC, "a") == {"cleanup.policy": "delete,compact"}
    alter(harness, TOPIC, "a", ("cleanup.policy", SUBTRACT, "delete"))
    assert harness.image.config(TOPIC, "a") == {"cleanup.policy": "compact"}


def test_one_bad_value_keeps_the_whole_resource_as_it_was(harness: Harness) -> None:
    harness.create("a")
    end = harness.log.end_offset
    result = alter(harness, TOPIC, "a", ("retention.ms", SET, "5"), ("segment.ms", SET, "never"))
    assert result.error_code == ErrorCode.INVALID_CONFIG
    assert harness.log.end_offset == end


def test_an_appended_value_may_not_grow_without_bound(harness: Harness) -> None:
    harness.create("a")
    key = "leader.replication.throttled.replicas"
    for start in range(0, 6_000, 3_000):
        part = ",".join(f"{number}:1000" for number in range(start, start + 3_000))
        result = alter(harness, TOPIC, "a", (key, APPEND, part))
    assert result.error_code == ErrorCode.INVALID_CONFIG
    assert result.error_message == (
        "The configuration value cannot be added because it exceeds the maximum value size of 32767 bytes."
    )


def test_a_value_of_a_topic_that_stays_the_same_is_not_written_but_one_of_a_broker_is(
    harness: Harness,
) -> None:
    harness.create("a", configs={"retention.ms": "5"})
    end = harness.log.end_offset
    alter(harness, TOPIC, "a", ("retention.ms", SET, "5"))
    assert harness.log.end_offset == end
    for _ in range(2):
        alter(harness, BROKER, "1", ("log.cleaner.threads", SET, "2"))
    assert harness.log.end_offset == end + 2, "brokers load files again that a path names (KAFKA-14136)"


def test_validate_only_checks_and_writes_nothing(harness: Harness) -> None:
    harness.create("a")
    end = harness.log.end_offset
    assert alter(harness, TOPIC, "a", ("retention.ms", SET, "5"), validate_only=True).error_code == 0
    bad = alter(harness, TOPIC, "a", ("retention.ms", SET, "x"), validate_only=True)
    assert bad.error_code == ErrorCode.INVALID_CONFIG
    assert harness.log.end_offset == end


def test_the_older_api_replaces_everything(harness: Harness) -> None:
    harness.create("a", configs={"retention.ms": "5", "segment.ms": "6"})
    resource = LegacyResource(TOPIC, "a", [LegacyConfig("retention.ms", "9")])
    assert harness.call(AlterConfigsRequest([resource])).responses[0].error_code == 0
    assert harness.image.config(TOPIC, "a") == {"retention.ms": "9"}


def test_kinds_of_resources_that_are_not_served_are_refused(harness: Harness) -> None:
    for type_ in (ResourceType.BROKER_LOGGER, ResourceType.CLIENT_METRICS, 0, -1):
        result = alter(harness, type_, "x", ("a", SET, "1"))
        assert (result.error_code, result.error_message) == (
            ErrorCode.INVALID_REQUEST,
            f"Unknown resource type {int(type_)}",
        )


def test_a_group_has_configurations_whether_it_exists_or_not(harness: Harness) -> None:
    key = "consumer.session.timeout.ms"
    assert alter(harness, ResourceType.GROUP, "g", (key, SET, "50000")).error_code == ErrorCode.NONE
    assert harness.image.config(ResourceType.GROUP, "g") == {key: "50000"}
    result = alter(harness, ResourceType.GROUP, "g", (key, SET, "1"))
    assert (result.error_code, result.error_message) == (
        ErrorCode.INVALID_CONFIG,
        f"{key} must be greater than or equal to group.consumer.min.session.timeout.ms",
    )
    result = alter(harness, ResourceType.GROUP, "", (key, SET, "50000"))
    assert (result.error_code, result.error_message) == (
        ErrorCode.INVALID_REQUEST,
        "Default group resources are not allowed.",
    )


def test_a_lower_min_isr_makes_needless_elrs_go_before_it_holds(harness: Harness) -> None:
    harness.create("a", [0, 1, 2], configs={"min.insync.replicas": "2"})
    harness.create("b", [0, 1, 2], configs={"min.insync.replicas": "3"})
    harness.fence(1)
    harness.fence(2)
    assert (harness.partition("a").elr, harness.partition("b").elr) == ((2,), (1, 2))
    harness.commits = False
    request = IncrementalAlterConfigsRequest(
        [AlterConfigsResource(TOPIC, "a", [AlterableConfig("min.insync.replicas", SET, "1")])]
    )
    answers = harness.send(request)
    assert list(violations(harness.state)) == []
    harness.commit()
    assert answers[0].responses[0].error_code == 0
    assert (harness.partition("a").elr, harness.partition("b").elr) == ((), (1, 2))
    assert harness.partition("a").partition_epoch == 3


def test_the_cluster_wide_min_isr_counts_for_topics_without_their_own(harness: Harness) -> None:
    alter(harness, BROKER, "", ("min.insync.replicas", SET, "2"))
    harness.create("a", [0, 1])
    harness.create("b", [0, 1], configs={"min.insync.replicas": "1"})
    harness.fence(1)
    assert (harness.partition("a").elr, harness.partition("b").elr) == ((1,), ())
    alter(harness, BROKER, "", ("min.insync.replicas", SET, "1"))
    assert harness.partition("a").elr == ()


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "x" * 249, "...", "-"])
def test_legal_names(name: str) -> None:
    assert topic_name_error(name) is None


@pytest.mark.parametrize(
    "name", ["", ".", "..", "x" * 250, "a/b", "a\\b", "a b", "a\0", "ä", "\u0663", "a\n"]
)
def test_illegal_names(name: str) -> None:
    error = topic_name_error(name)
    assert error is not None
    assert error.startswith("Topic name is invalid: ")
