"""The configuration of the group coordinator: Kafka's names, defaults and bounds in one frozen object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

INT_MAX = 2**31 - 1
LONG_MAX = 2**63 - 1


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

    @property
    def offsets_retention_ms(self) -> int:
        return self.offsets_retention_minutes * 60_000

    @classmethod
    def from_configs(cls, configs: Mapping[str, str]) -> GroupConfig:
        """Take Kafka's keys out of `configs`, leave the rest alone. ConfigError names the key."""
        values: dict[str, int] = {}
        for field in fields(cls):
            key = field.name.replace("_", ".")
            text = configs.get(key)
            if text is None:
                continue
            values[field.name] = _number(key, text)
        return cls(**values)

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
