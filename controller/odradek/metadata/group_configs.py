"""What one group may configure, and what is in force for it: its own value, or the broker's `group.` + name.

Texts are Kafka 4.3's (`GroupConfig`, `ConfigHelper`).
"""

from __future__ import annotations

from collections.abc import Mapping

from odradek.metadata.config_def import ConfigDef, ConfigError, canonical, parse
from odradek.metadata.config_defs_group import GROUP_DEFS
from odradek.metadata.configs import BrokerLayers, ConfigSource, Synonym, broker_synonyms
from odradek.wire.errors import ErrorCode, KafkaError

GROUPS: dict[str, ConfigDef] = {definition.name: definition for definition in GROUP_DEFS}


def validate_group_configs(configs: Mapping[str, str], broker: BrokerLayers) -> None:
    """KafkaError(INVALID_CONFIG) unless a group may have all of these together."""
    for name in configs:
        if name not in GROUPS:
            raise KafkaError(ErrorCode.INVALID_CONFIG, f"Unknown group config name: {name}")
    numbers: dict[str, int] = {}
    for name, definition in GROUPS.items():
        text = configs.get(name)
        if text is None:
            text = broker.get(f"group.{name}") or definition.default or "0"
        try:
            numbers[name] = int(str(parse(definition, text)))
        except ConfigError as error:
            raise KafkaError(ErrorCode.INVALID_CONFIG, str(error)) from None
    for name in configs:
        _check_bounds(name, numbers[name], broker)
    if numbers["consumer.session.timeout.ms"] <= numbers["consumer.heartbeat.interval.ms"]:
        text = "consumer.session.timeout.ms must be greater than consumer.heartbeat.interval.ms"
        raise KafkaError(ErrorCode.INVALID_CONFIG, text)


def _check_bounds(name: str, value: int, broker: BrokerLayers) -> None:
    rest = name.removeprefix("consumer.")
    low_name, high_name = f"group.consumer.min.{rest}", f"group.consumer.max.{rest}"
    low, high = broker.get(low_name), broker.get(high_name)
    if low is not None and value < int(low):
        raise KafkaError(ErrorCode.INVALID_CONFIG, f"{name} must be greater than or equal to {low_name}")
    if high is not None and value > int(high):
        raise KafkaError(ErrorCode.INVALID_CONFIG, f"{name} must be less than or equal to {high_name}")


def effective_group_config(name: str, own: Mapping[str, str], broker: BrokerLayers) -> str:
    """The value in force. One of its own that does not parse (of another version) counts as none."""
    definition = GROUPS[name]
    for text in (own.get(name), broker.get(f"group.{name}")):
        if text is not None:
            try:
                return canonical(definition, text)
            except ConfigError:
                continue
    assert definition.default is not None
    return definition.default


def group_synonyms(name: str, own: Mapping[str, str], broker: BrokerLayers) -> list[Synonym]:
    """The places the value could come from, the one in force first."""
    found = broker_synonyms(f"group.{name}", broker)
    if name in own:
        value = effective_group_config(name, own, broker)
        found.insert(0, Synonym(name, value, ConfigSource.DYNAMIC_GROUP))
    return found
