"""Coordinators' configurations: Kafka's keys, defaults and refusals."""

from __future__ import annotations

import pytest

from odradek.coordinator.config import ConfigError, GroupConfig
from odradek.coordinator.transaction.config import TransactionConfig


def test_defaults_are_kafkas() -> None:
    config = GroupConfig()
    assert config.group_initial_rebalance_delay_ms == 3_000
    assert config.group_min_session_timeout_ms == 6_000
    assert config.group_max_session_timeout_ms == 1_800_000
    assert config.group_max_size == 2_147_483_647
    assert config.offset_metadata_max_bytes == 4_096
    assert config.offsets_retention_ms == 7 * 24 * 3_600_000


def test_kafkas_keys_are_read_and_others_left_alone() -> None:
    config = GroupConfig.from_configs(
        {"group.max.size": " 5 ", "offsets.retention.check.interval.ms": "9999999999", "num.partitions": "x"}
    )
    assert config.group_max_size == 5
    assert config.offsets_retention_check_interval_ms == 9_999_999_999


def test_keys_of_consumer_groups() -> None:
    config = GroupConfig.from_configs(
        {"group.consumer.assignors": "range , uniform", "group.consumer.migration.policy": "UPGRADE"}
    )
    assert config.group_consumer_assignors == ("range", "uniform")
    assert (config.upgrade_allowed, config.downgrade_allowed) == (True, False)


@pytest.mark.parametrize(
    ("configs", "text"),
    [
        ({"group.max.size": "0"}, "Invalid value 0 for configuration group.max.size"),
        ({"group.max.size": "many"}, "Invalid value many for configuration group.max.size"),
        ({"group.max.size": "2147483648"}, "Not a number of type INT"),
        ({"offsets.retention.minutes": "0"}, "offsets.retention.minutes: Value must be at least 1"),
        ({"offsets.commit.timeout.ms": "0"}, "offsets.commit.timeout.ms: Value must be at least 1"),
        ({"group.min.session.timeout.ms": "1800001"}, "group.min.session.timeout.ms must be less than"),
        (
            {"group.consumer.heartbeat.interval.ms": "15001"},
            "heartbeat.interval.ms must be less than or equal to group.consumer.max.heartbeat",
        ),
        (
            {"group.consumer.max.assignment.interval.ms": "1"},
            "group.consumer.assignment.interval.ms must be less than or equal to",
        ),
        (
            {
                "group.consumer.min.session.timeout.ms": "1",
                "group.consumer.session.timeout.ms": "5000",
            },
            "group.consumer.heartbeat.interval.ms must be less than group.consumer.session.timeout.ms",
        ),
        ({"group.consumer.migration.policy": "some"}, "String must be one of"),
        ({"group.consumer.assignors": "uniform,fair"}, "only uniform and range are there"),
        ({"group.consumer.max.size": "0"}, "group.consumer.max.size: Value must be at least 1"),
    ],
)
def test_bad_values_name_their_key(configs: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        GroupConfig.from_configs(configs)


def test_keys_of_transactions() -> None:
    config = TransactionConfig.from_configs(
        {
            "transaction.max.timeout.ms": "1000",
            "transactional.id.expiration.ms": " 2000 ",
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "3000",
            "transaction.remove.expired.transaction.cleanup.interval.ms": "4000",
            "request.timeout.ms": "5000",
            "log.dirs": "/tmp",
        }
    )
    assert config == TransactionConfig(1_000, 2_000, 3_000, 4_000, 5_000)
    assert TransactionConfig() == TransactionConfig(900_000, 604_800_000, 10_000, 3_600_000, 30_000)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("0", "Invalid value 0 for configuration transaction.max.timeout.ms: Value must be at least 1"),
        ("x", "Invalid value x for configuration transaction.max.timeout.ms: Not a number of type INT"),
        (
            "2147483648",
            "Invalid value 2147483648 for configuration transaction.max.timeout.ms: Not a number of type INT",
        ),
    ],
)
def test_values_of_transactions_that_are_refused(value: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        TransactionConfig.from_configs({"transaction.max.timeout.ms": value})
    assert str(error.value) == says
