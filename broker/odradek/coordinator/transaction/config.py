"""The configuration of the transaction coordinator: Kafka's names, defaults and bounds in one frozen object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from odradek.coordinator.config import INT_MAX, ConfigError


@dataclass(frozen=True, slots=True)
class TransactionConfig:
    """Times are milliseconds. The fields' keys are in `KEYS`."""

    max_timeout_ms: int = 900_000
    """The longest transaction timeout a producer may ask for (else INVALID_TRANSACTION_TIMEOUT)."""
    id_expiration_ms: int = 604_800_000
    """A transactional id that was not used for so long is forgotten."""
    abort_interval_ms: int = 10_000
    """How often each partition is searched for transactions past their timeout."""
    expiration_interval_ms: int = 3_600_000
    """How often each partition is searched for expired transactional ids."""
    write_timeout_ms: int = 30_000
    """How long an answer waits for its record to be committed (then COORDINATOR_NOT_AVAILABLE)."""

    def __post_init__(self) -> None:
        for name, key in KEYS.items():
            value: int = getattr(self, name)
            if value < 1:
                raise ConfigError(f"Invalid value {value} for configuration {key}: Value must be at least 1")

    @classmethod
    def from_configs(cls, configs: Mapping[str, str]) -> TransactionConfig:
        """Take Kafka's keys out of `configs`, leave the rest alone. ConfigError names the key."""
        return cls(**{name: _int(key, configs[key]) for name, key in KEYS.items() if key in configs})


KEYS = {
    "max_timeout_ms": "transaction.max.timeout.ms",
    "id_expiration_ms": "transactional.id.expiration.ms",
    "abort_interval_ms": "transaction.abort.timed.out.transaction.cleanup.interval.ms",
    "expiration_interval_ms": "transaction.remove.expired.transaction.cleanup.interval.ms",
    "write_timeout_ms": "request.timeout.ms",
}


def _int(key: str, text: str) -> int:
    try:
        value = int(text.strip())
    except ValueError:
        value = INT_MAX + 1
    if not -INT_MAX - 1 <= value <= INT_MAX:
        raise ConfigError(f"Invalid value {text} for configuration {key}: Not a number of type INT")
    return value
