"""The configuration of the group coordinator: Kafka's names, defaults and bounds in one frozen object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

INT_MAX = 2**31 - 1
LONG_MAX = 2**63 - 1
MIGRATION_POLICIES = ("disabled", "downgrade", "upgrade", "bidirectional")
CONSUMER_ASSIGNORS = ("uniform", "range")


class ConfigError(ValueError):
    """A value that Kafka would refuse; the text names the key."""


@dataclass(frozen=True, slots=True)
class GroupConfig:
    """Field names are Kafka's keys with `_` for `.`; times are milliseconds unless the name says otherwise."""

    group_min_session_timeout_ms: int = 6_000
    """Smallest session timeout a classic member may ask for (else INVALID_SESSION_TIMEOUT)."""
    group_max_session_timeout_ms: int = 1_800_000
    """Largest session timeout a classic member may ask for."""
    group_initial_rebalance_delay_ms: int = 3_000
    """How long the first rebalance of an empty group waits for more members, each time one more arrives."""
    group_max_size: int = INT_MAX
    """Members that one classic group may have (else GROUP_MAX_SIZE_REACHED, KIP-389)."""
    group_consumer_session_timeout_ms: int = 45_000
    """How long a member of a consumer group (KIP-848) may be silent; a group may have its own."""
    group_consumer_min_session_timeout_ms: int = 45_000
    group_consumer_max_session_timeout_ms: int = 60_000
    group_consumer_heartbeat_interval_ms: int = 5_000
    """What members of consumer groups are told; a group may have its own."""
    group_consumer_min_heartbeat_interval_ms: int = 5_000
    group_consumer_max_heartbeat_interval_ms: int = 15_000
    group_consumer_max_size: int = INT_MAX
    """Members that one consumer group may have (else GROUP_MAX_SIZE_REACHED)."""
    group_consumer_assignors: tuple[str, ...] = ("uniform", "range")
    """What members may ask for; the first serves those that do not ask."""
    group_consumer_migration_policy: str = "bidirectional"
    """Which groups may change their protocol while they have members: disabled, upgrade (to consumer), downgrade,
    bidirectional."""
    group_consumer_assignment_interval_ms: int = 1_000
    """Least time between two target assignments of one group: members that come together are assigned together."""
    group_consumer_min_assignment_interval_ms: int = 0
    group_consumer_max_assignment_interval_ms: int = 15_000
    group_consumer_regex_refresh_interval_ms: int = 600_000
    """How often the topics that an expression means are looked up without a reason."""
    offset_metadata_max_bytes: int = 4_096
    """Longest metadata string of a committed offset, in UTF-16 units as Kafka counts it."""
    offsets_retention_minutes: int = 7 * 24 * 60
    """How long offsets stay after the group became empty, or after the last commit of a simple group (KIP-211)."""
    offsets_retention_check_interval_ms: int = 600_000
    """How often each partition of the offsets topic is searched for expired offsets."""
    offsets_commit_timeout_ms: int = 5_000
    """How long an answer waits for its records to be committed (then COORDINATOR_NOT_AVAILABLE)."""

    def __post_init__(self) -> None:
        self._at_least("group_max_size", 1)
        self._at_least("offsets_retention_minutes", 1)
        self._at_least("offsets_retention_check_interval_ms", 1)
        self._at_least("offsets_commit_timeout_ms", 1)
        if self.group_min_session_timeout_ms > self.group_max_session_timeout_ms:
            raise ConfigError(
                "group.min.session.timeout.ms must be less than or equal to group.max.session.timeout.ms"
            )
        self._check_consumer_groups()

    @property
    def upgrade_allowed(self) -> bool:
        """Whether a classic group with members may become a consumer group."""
        return self.group_consumer_migration_policy in ("upgrade", "bidirectional")

    @property
    def downgrade_allowed(self) -> bool:
        return self.group_consumer_migration_policy in ("downgrade", "bidirectional")

    @property
    def offsets_retention_ms(self) -> int:
        return self.offsets_retention_minutes * 60_000

    @classmethod
    def from_configs(cls, configs: Mapping[str, str]) -> GroupConfig:
        """Take Kafka's keys out of `configs`, leave the rest alone. ConfigError names the key."""
        values: dict[str, Any] = {}
        for field in fields(cls):
            key = field.name.replace("_", ".")
            text = configs.get(key)
            if text is None:
                continue
            if field.name == "group_consumer_assignors":
                values[field.name] = tuple(name.strip() for name in text.split(",") if name.strip())
            elif field.name == "group_consumer_migration_policy":
                values[field.name] = text.strip().lower()
            else:
                values[field.name] = _number(key, text)
        return cls(**values)

    def _check_consumer_groups(self) -> None:
        self._at_least("group_consumer_max_size", 1)
        for what in ("heartbeat_interval_ms", "session_timeout_ms", "assignment_interval_ms"):
            self._check_range(what, 0 if what.startswith("assignment") else 1)
        if self.group_consumer_heartbeat_interval_ms >= self.group_consumer_session_timeout_ms:
            raise ConfigError(
                "group.consumer.heartbeat.interval.ms must be less than group.consumer.session.timeout.ms"
            )
        if self.group_consumer_migration_policy not in MIGRATION_POLICIES:
            raise ConfigError(
                f"Invalid value {self.group_consumer_migration_policy} for configuration "
                f"group.consumer.migration.policy: String must be one of (case insensitive): "
                f"{', '.join(name.upper() for name in MIGRATION_POLICIES)}"
            )
        unknown = [name for name in self.group_consumer_assignors if name not in CONSUMER_ASSIGNORS]
        if unknown or not self.group_consumer_assignors:
            raise ConfigError(
                f"Invalid value {unknown or '[]'} for configuration group.consumer.assignors: "
                f"only {' and '.join(CONSUMER_ASSIGNORS)} are there"
            )

    def _check_range(self, what: str, smallest: int) -> None:
        """A default lies between its bounds."""
        low, value, high = (f"group_consumer_{kind}{what}" for kind in ("min_", "", "max_"))
        for name in (low, value, high):
            self._at_least(name, smallest)
        low_key, key, high_key = (name.replace("_", ".") for name in (low, value, high))
        if getattr(self, high) < getattr(self, low):
            raise ConfigError(f"{high_key} must be greater than or equal to {low_key}")
        if getattr(self, value) < getattr(self, low):
            raise ConfigError(f"{key} must be greater than or equal to {low_key}")
        if getattr(self, value) > getattr(self, high):
            raise ConfigError(f"{key} must be less than or equal to {high_key}")

    def _at_least(self, name: str, smallest: int) -> None:
        value: int = getattr(self, name)
        if value < smallest:
            key = name.replace("_", ".")
            raise ConfigError(
                f"Invalid value {value} for configuration {key}: Value must be at least {smallest}"
            )


def _number(key: str, text: str) -> int:
    largest = LONG_MAX if key == "offsets.retention.check.interval.ms" else INT_MAX
    try:
        value = int(text.strip())
    except ValueError:
        value = largest + 1
    if not -largest - 1 <= value <= largest:
        kind = "LONG" if largest == LONG_MAX else "INT"
        raise ConfigError(f"Invalid value {text} for configuration {key}: Not a number of type {kind}")
    return value
