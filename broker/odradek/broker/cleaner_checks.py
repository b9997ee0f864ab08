"""What a broker refuses of dynamic changes of the log cleaner, in Kafka's words: each would be valid alone, and is not
beside what is there (`LogCleaner.validateReconfiguration`, `AbstractKafkaConfig.validateValues`).
"""

from __future__ import annotations

from collections.abc import Mapping

from odradek.metadata.config_def import ConfigError, parse
from odradek.metadata.configs import BROKERS, BrokerLayers

THREADS = "log.cleaner.threads"
TABLE = "log.cleaner.dedupe.buffer.size"
TABLE_BYTES_MIN = 1 << 20
_THREADS_REFUSED = (
    "Invalid value org.apache.kafka.common.config.ConfigException: Log cleaner threads cannot be {} the current value "
    "{} for configuration Invalid dynamic configuration"
)


def cleaner_refusal(
    present: BrokerLayers, changes: Mapping[str, str | None], *, for_all: bool, is_enabled: bool
) -> str | None:
    """Why not; None if nothing is wrong that only this broker can tell. `changes`: None takes a value away; `for_all`:
    they are of the default of all brokers. `is_enabled`: there is a cleaner, whose threads would change.
    """
    if THREADS not in changes and TABLE not in changes:
        return None
    after = _changed(present, changes, for_all=for_all)
    try:
        threads, table, current = _number(after, THREADS), _number(after, TABLE), _number(present, THREADS)
    except ConfigError:
        return None  # the controller says what is wrong with that
    if threads == 0:
        return "/ by zero"
    if table // threads <= TABLE_BYTES_MIN:
        return f"requirement failed: {TABLE} must be at least 1MB per cleaner thread."
    if not is_enabled:
        return None
    if threads < current // 2:
        return _THREADS_REFUSED.format("reduced to less than half", current)
    if threads > current * 2:
        return _THREADS_REFUSED.format("increased to more than double", current)
    return None


def _changed(layers: BrokerLayers, changes: Mapping[str, str | None], *, for_all: bool) -> BrokerLayers:
    layer = layers.dynamic_default if for_all else layers.dynamic_broker
    merged = {name: value for name, value in {**layer, **changes}.items() if value is not None}
    return layers._replace(dynamic_default=merged) if for_all else layers._replace(dynamic_broker=merged)


def _number(layers: BrokerLayers, name: str) -> int:
    value = parse(BROKERS[name], layers.get(name) or "")
    assert isinstance(value, int)
    return value
