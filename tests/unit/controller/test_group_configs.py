"""Configurations of groups: what may be set, what is in force, and Kafka's words for the rest."""

from __future__ import annotations

import pytest

from odradek.metadata.configs import BrokerLayers, ConfigSource
from odradek.metadata.group_configs import (
    GROUPS,
    effective_group_config,
    group_synonyms,
    validate_group_configs,
)
from odradek.wire.errors import ErrorCode, KafkaError

SESSION, HEARTBEAT = "consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"


def test_a_group_takes_the_values_of_the_broker_until_it_has_its_own() -> None:
    broker = BrokerLayers(static={f"group.{SESSION}": "50000"})
    assert effective_group_config(SESSION, {}, broker) == "50000"
    assert effective_group_config(SESSION, {SESSION: "55000"}, broker) == "55000"
    assert effective_group_config(HEARTBEAT, {}, broker) == "5000"


def test_synonyms_begin_with_what_is_in_force() -> None:
    broker = BrokerLayers(static={f"group.{SESSION}": "50000"})
    own, static, default = group_synonyms(SESSION, {SESSION: "55000"}, broker)
    assert own == (SESSION, "55000", ConfigSource.DYNAMIC_GROUP)
    assert static == (f"group.{SESSION}", "50000", ConfigSource.STATIC_BROKER)
    assert default == (f"group.{SESSION}", "45000", ConfigSource.DEFAULT)


@pytest.mark.parametrize(
    ("configs", "text"),
    [
        ({"consumer.colour": "red"}, "Unknown group config name: consumer.colour"),
        ({SESSION: "soon"}, f"Invalid value soon for configuration {SESSION}: Not a number of type INT"),
        ({SESSION: "1"}, f"{SESSION} must be greater than or equal to group.consumer.min.session.timeout.ms"),
        (
            {SESSION: "60001"},
            f"{SESSION} must be less than or equal to group.consumer.max.session.timeout.ms",
        ),
        (
            {HEARTBEAT: "15001"},
            f"{HEARTBEAT} must be less than or equal to group.consumer.max.heartbeat.interval.ms",
        ),
        ({HEARTBEAT: "0"}, f"Invalid value 0 for configuration {HEARTBEAT}: Value must be at least 1"),
    ],
)
def test_values_that_do_not_fit_are_refused(configs: dict[str, str], text: str) -> None:
    with pytest.raises(KafkaError) as caught:
        validate_group_configs(configs, BrokerLayers())
    assert caught.value.code is ErrorCode.INVALID_CONFIG
    assert caught.value.message == text


def test_a_session_is_longer_than_the_interval_of_heartbeats() -> None:
    broker = BrokerLayers(static={"group.consumer.min.session.timeout.ms": "100"})
    with pytest.raises(KafkaError, match=f"{SESSION} must be greater than {HEARTBEAT}"):
        validate_group_configs({SESSION: "5000"}, broker)
    validate_group_configs({SESSION: "5001"}, broker)


def test_every_key_has_a_counterpart_of_the_broker() -> None:
    for name in GROUPS:
        assert group_synonyms(name, {}, BrokerLayers())[0].name == f"group.{name}"
