"""DescribeConfigs against what Apache Kafka 4.3.1 answered (describe_configs_kafka.json).

That node had the properties below, a topic `t` with three overrides, log.cleaner.threads and log.retention.ms
set for all brokers and log.segment.bytes for broker 1. Each entry of the file: resource type, name, keys
asked for, synonyms asked for, error code, error message, and by key [value, read-only, source, sensitive,
synonyms, type].
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from odradek.broker.api.describe_configs import describe
from odradek.broker.config_builder import build_config, settings_of
from odradek.metadata.config_docs import documentation
from odradek.metadata.configs import BROKERS, TOPICS
from odradek.metadata.image import MetadataImage, TopicImage
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResponse,
    DescribeConfigsResult,
)

TOPIC, BROKER, LOGGER = 2, 4, 8
CONFIG = build_config(
    settings_of(
        {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": "1@localhost:29193",
            "controller.listener.names": "CONTROLLER",
            "listeners": "PLAINTEXT://localhost:29192,CONTROLLER://localhost:29193",
            "advertised.listeners": "PLAINTEXT://localhost:29192",
            "log.dirs": "/tmp/cfgk/data",
            "offsets.topic.replication.factor": "1",
            "log.retention.hours": "48",
            "log.segment.bytes": "2000000",
            "ssl.key.password": "secret",
            "some.unknown.key": "v",
        },
        "test",
    )
)
IMAGE = MetadataImage(
    topics={"t": TopicImage("t", bytes(16), {})},
    configs={
        (TOPIC, "t"): {
            "retention.ms": "+1000",
            "cleanup.policy": "compact , delete",
            "min.cleanable.dirty.ratio": "1e-4",
        },
        # Kafka's controller writes min.insync.replicas by itself when ELR (KIP-966) is switched on.
        (BROKER, ""): {"log.cleaner.threads": "2", "log.retention.ms": "7777777", "min.insync.replicas": "1"},
        (BROKER, "1"): {"log.segment.bytes": "3000000"},
    },
)
OURS = {
    "broker.heartbeat.interval.ms",
    "broker.session.timeout.ms",
    "controller.quorum.fetch.timeout.ms",
    "queued.max.request.bytes",
    "replica.lag.time.max.ms",
}
"""Defaults that are not Kafka's."""
KAFKA_QUIRKS = {"log.retention.hours"}
"""Kafka shows the default as the value (not as the synonym) once log.retention.ms was set dynamically."""
ANSWERS = json.loads(Path(__file__).with_name("describe_configs_kafka.json").read_text())


def ask(
    kind: int,
    name: str,
    keys: list[str] | None = None,
    *,
    synonyms: bool = True,
    docs: bool = False,
    version: int = 4,
) -> DescribeConfigsResult:
    resource = DescribeConfigsResource(resource_type=kind, resource_name=name, configuration_keys=keys)
    request = DescribeConfigsRequest(
        resources=[resource], include_synonyms=synonyms, include_documentation=docs
    )
    answer = DescribeConfigsResponse.decode(describe(request, IMAGE, CONFIG).encode(version), version)
    (result,) = answer.results
    return result


@pytest.mark.parametrize(
    "answer", ANSWERS, ids=lambda answer: f"{answer[0]}-{answer[1]}-{answer[2]}-{answer[3]}"
)
def test_the_answer_is_kafkas(answer: list[Any]) -> None:
    kind, name, keys, synonyms, code, message, theirs = answer
    result = ask(kind, name, keys, synonyms=synonyms)
    assert (result.error_code, result.error_message) == (code, message)
    ours = {
        entry.name: [
            entry.value,
            entry.read_only,
            entry.config_source,
            entry.is_sensitive,
            [[each.name, each.value, each.source] for each in entry.synonyms],
            entry.config_type,
        ]
        for entry in result.configs
        if not entry.name.startswith("odradek.")
    }
    assert set(ours) == set(theirs)
    different = {key for key in ours if ours[key] != theirs[key]}
    assert different <= OURS | KAFKA_QUIRKS


def test_the_fixture_holds_what_the_tests_above_are_for() -> None:
    sizes = {(kind, name): len(entries) for kind, name, _, _, _, _, entries in ANSWERS}
    assert sizes[BROKER, "1"] > 300
    assert len(ANSWERS) > 8


def test_our_own_keys_are_described() -> None:
    (entry,) = ask(BROKER, "1", ["odradek.metrics.port"]).configs
    assert (entry.value, entry.read_only) == ("-1", True)


def test_the_level_of_the_log_is_described_as_the_root_logger() -> None:
    (entry,) = ask(LOGGER, "1").configs
    assert (entry.name, entry.value, entry.config_source) == ("root", "INFO", 6)


@pytest.mark.parametrize("kind", [0, 16, 64, -1])
def test_other_resources_are_refused(kind: int) -> None:
    result = ask(kind, "x")
    assert result.error_code == ErrorCode.INVALID_REQUEST
    assert re.match("Unsupported resource type: ", result.error_message or "")
    assert result.configs == []


def test_a_group_shows_what_holds_for_it() -> None:
    result = ask(32, "g")
    entry = next(each for each in result.configs if each.name == "consumer.session.timeout.ms")
    assert (entry.value, entry.config_source, entry.read_only) == ("45000", 5, False)
    nameless = ask(32, "")
    assert (nameless.error_code, nameless.error_message) == (
        ErrorCode.INVALID_REQUEST,
        "Group name must not be empty",
    )


def test_a_huge_broker_id_is_an_answer_and_no_crash() -> None:
    assert ask(BROKER, "9" * 5000).error_code == ErrorCode.INVALID_REQUEST


def test_documentation_comes_when_it_is_asked_for() -> None:
    (entry,) = ask(TOPIC, "t", ["retention.ms"], docs=True).configs
    assert entry.documentation == "Age after which segments are deleted; -1 is no limit."
    (entry,) = ask(TOPIC, "t", ["retention.ms"]).configs
    assert entry.documentation is None


def test_the_oldest_version_carries_values_and_sources() -> None:
    (entry,) = ask(TOPIC, "t", ["retention.ms"], version=1).configs
    assert (entry.value, entry.config_source, entry.synonyms[0].value) == ("1000", 1, "1000")


def test_every_key_has_documentation() -> None:
    assert [name for name in TOPICS if not documentation(TOPIC, name)] == []
    assert [name for name in BROKERS if not documentation(BROKER, name)] == []
    assert documentation(BROKER, "listener.name.internal.ssl.key.password") == documentation(
        BROKER, "ssl.key.password"
    )
    assert documentation(BROKER, "what.is.this") is None
