"""Kafka's configurations: which exist, whether a value is acceptable, and what is in force where.

Names, types, defaults, bounds, precedence and error texts are Kafka 4.3's (`LogConfig`,
`DynamicBrokerConfig`, `ServerTopicConfigSynonyms`, `ConfigHelper`). Values are text, as in a properties file
and in the metadata log, until `parse` gives them a type.

A value in force comes from the first of: the topic, the broker set dynamically, all brokers set dynamically,
the broker's properties, the default.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import NamedTuple

from odradek.metadata.config_def import ConfigDef, ConfigError, ConfigType, Update, canonical, parse
from odradek.metadata.config_defs_broker import BROKER_DEFS, CLUSTER_WIDE, DYNAMIC_ONLY_DEFS, PER_BROKER
from odradek.metadata.config_defs_topic import TOPIC_DEFS, TOPIC_SYNONYMS
from odradek.wire.errors import ErrorCode, KafkaError

TOPICS: dict[str, ConfigDef] = {definition.name: definition for definition in TOPIC_DEFS}
BROKERS: dict[str, ConfigDef] = {definition.name: definition for definition in BROKER_DEFS}

_DYNAMIC_ONLY = {definition.name: definition for definition in DYNAMIC_ONLY_DEFS}
_EMPTY: Mapping[str, str] = {}
_LISTENER_OVERRIDE = re.compile(r"listener\.name\.[^.]*\.(.*)", re.DOTALL)
_PER_LISTENER = ("ssl.keystore.", "ssl.truststore.", "ssl.key.")
_ROLL = ("log.roll.ms", "log.roll.hours")
_ROLL_JITTER = ("log.roll.jitter.ms", "log.roll.jitter.hours")
_RETENTION = ("log.retention.ms", "log.retention.minutes", "log.retention.hours")
_FLUSH = ("log.flush.interval.ms", "log.flush.scheduler.interval.ms")
_BROKER_SYNONYMS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_ROLL, _ROLL),
    **dict.fromkeys(_ROLL_JITTER, _ROLL_JITTER),
    **dict.fromkeys(_RETENTION, _RETENTION),
    "log.flush.interval.ms": _FLUSH,
}


class ResourceType(IntEnum):
    """Kafka's ConfigResource.Type."""

    TOPIC = 2
    BROKER = 4
    BROKER_LOGGER = 8
    CLIENT_METRICS = 16
    GROUP = 32


class ConfigSource(IntEnum):
    """Where a value comes from; numbers as in DescribeConfigs."""

    UNKNOWN = 0
    DYNAMIC_TOPIC = 1
    DYNAMIC_BROKER = 2
    DYNAMIC_DEFAULT_BROKER = 3
    STATIC_BROKER = 4
    DEFAULT = 5
    DYNAMIC_GROUP = 8


class Synonym(NamedTuple):
    name: str
    value: str | None
    source: ConfigSource


class BrokerLayers(NamedTuple):
    """What a broker has been told, strongest first. Only text that was set, no defaults."""

    dynamic_broker: Mapping[str, str] = _EMPTY
    dynamic_default: Mapping[str, str] = _EMPTY
    static: Mapping[str, str] = _EMPTY

    def get(self, name: str) -> str | None:
        """The value in force for one broker key, its own default included; no synonyms."""
        for layer in self:
            if (value := layer.get(name)) is not None:
                return value
        definition = BROKERS.get(name)
        return definition.default if definition is not None else None


NO_LAYERS = BrokerLayers()
"""A broker that has been told nothing: every value is a default."""


def broker_layers(
    image_configs: Mapping[tuple[int, str], Mapping[str, str]], node_id: int, static: Mapping[str, str]
) -> BrokerLayers:
    """The layers of broker `node_id` from the metadata image's configs and its own properties."""
    kind = int(ResourceType.BROKER)
    return BrokerLayers(
        image_configs.get((kind, str(node_id)), _EMPTY), image_configs.get((kind, ""), _EMPTY), static
    )


# --- Topics ---


def validate_topic_config(name: str, value: str) -> None:
    """KafkaError(INVALID_CONFIG) if no topic has such a configuration or the value is not acceptable."""
    definition = TOPICS.get(name)
    if definition is None:
        raise KafkaError(ErrorCode.INVALID_CONFIG, f"Unknown topic config name: {name}")
    try:
        parse(definition, value)
    except ConfigError as error:
        raise KafkaError(ErrorCode.INVALID_CONFIG, str(error)) from None


def validate_topic_configs(overrides: Mapping[str, str | None], broker: BrokerLayers = NO_LAYERS) -> None:
    """Judge all overrides a topic would have, together. KafkaError(INVALID_CONFIG) with Kafka's text.

    `broker` supplies the values that are not overridden, for the checks that compare two of them.
    """
    nulls = [name for name, value in overrides.items() if value is None]
    if nulls:
        raise KafkaError(
            ErrorCode.INVALID_CONFIG, f"Null value not supported for topic configs: {','.join(nulls)}"
        )
    given = {name: value for name, value in overrides.items() if value is not None}
    for name in given:  # names first, as Kafka does
        if name not in TOPICS:
            raise KafkaError(ErrorCode.INVALID_CONFIG, f"Unknown topic config name: {name}")
    for name, value in given.items():
        validate_topic_config(name, value)
    _validate_together(given, broker)


def _validate_together(given: Mapping[str, str], broker: BrokerLayers) -> None:
    low = int(given.get("min.compaction.lag.ms") or _topic_default("min.compaction.lag.ms", broker) or 0)
    high = int(given.get("max.compaction.lag.ms") or _topic_default("max.compaction.lag.ms", broker) or 0)
    if low > high:
        text = f"conflict topic config setting min.compaction.lag.ms ({low}) > max.compaction.lag.ms ({high})"
        raise KafkaError(ErrorCode.INVALID_CONFIG, text)
    if given.get("remote.storage.enable", "").strip().lower() == "true":
        text = (
            "Tiered Storage functionality is disabled in the broker. "
            "Topic cannot be configured with remote log storage."
        )
        raise KafkaError(ErrorCode.INVALID_CONFIG, text)


def is_list(name: str, resource_type: int = ResourceType.TOPIC) -> bool:
    """Whether APPEND and SUBTRACT apply to this key."""
    definition = (TOPICS if resource_type == ResourceType.TOPIC else BROKERS).get(name)
    return definition is not None and definition.type is ConfigType.LIST


def effective_topic_configs(overrides: Mapping[str, str], broker: BrokerLayers = NO_LAYERS) -> dict[str, str]:
    """Every topic configuration in force, canonical text by name. Keys without a value are left out.

    An override that does not parse (written by another version) is passed over for the default, as a broker
    that refused to load the topic would help nobody.
    """
    resolved: dict[str, str] = {}
    for name, definition in TOPICS.items():
        value = _usable(definition, overrides.get(name))
        if value is None:
            value = _topic_default(name, broker)
        if value is not None:
            resolved[name] = value
    return resolved


def resolve_topic_configs(
    topic: str,
    image_configs: Mapping[tuple[int, str], Mapping[str, str]],
    node_id: int,
    static: Mapping[str, str],
) -> dict[str, str]:
    """What is in force for `topic` on broker `node_id`, whose own properties are `static`."""
    overrides = image_configs.get((int(ResourceType.TOPIC), topic), _EMPTY)
    return effective_topic_configs(overrides, broker_layers(image_configs, node_id, static))


def topic_config(name: str, overrides: Mapping[str, str], broker: BrokerLayers = NO_LAYERS) -> str | None:
    """One value in force, e.g. min.insync.replicas."""
    value = _usable(TOPICS[name], overrides.get(name))
    return _topic_default(name, broker) if value is None else value


def _usable(definition: ConfigDef, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return canonical(definition, value)
    except ConfigError:
        return None


def _topic_default(name: str, broker: BrokerLayers) -> str | None:
    """What a topic without an override gets: the broker's setting, converted to the topic's unit."""
    for broker_name, factor in TOPIC_SYNONYMS.get(name, ()):
        value = broker.get(broker_name)
        if value is None:
            continue
        text = _usable(BROKERS[broker_name], value)
        if text is None:
            continue
        if factor != 1:
            text = str(int(text) * factor)
        return "-1" if name == "retention.ms" and int(text) < 0 else text
    return TOPICS[name].default


def topic_synonyms(name: str, overrides: Mapping[str, str], broker: BrokerLayers) -> list[Synonym]:
    """The places a topic's value could come from, the one in force first, as DescribeConfigs tells them."""
    broker_names = TOPIC_SYNONYMS.get(name, ())
    found = broker_synonyms(broker_names[0][0], broker) if broker_names else []
    value = overrides.get(name)
    if value is not None:
        shown = _usable(TOPICS[name], value)
        found.insert(0, Synonym(name, value if shown is None else shown, ConfigSource.DYNAMIC_TOPIC))
    return found


# --- Brokers ---


def broker_definition(name: str) -> ConfigDef | None:
    """What is known of a broker key, as it stands or after a listener's prefix."""
    matched = _LISTENER_OVERRIDE.fullmatch(name)
    base = matched[1] if matched else name
    return BROKERS.get(base) or _DYNAMIC_ONLY.get(base)


def update_mode(name: str) -> Update:
    """Whether a broker key can be changed while the broker runs."""
    if name in PER_BROKER or _LISTENER_OVERRIDE.fullmatch(name):
        return Update.PER_BROKER
    return Update.CLUSTER_WIDE if name in CLUSTER_WIDE else Update.READ_ONLY


def validate_broker_config(name: str, value: str) -> None:
    """KafkaError(INVALID_REQUEST, as Kafka answers) for a value that does not fit. Unknown names are let
    through.
    """
    definition = broker_definition(name)
    if definition is None:
        return
    try:
        parse(definition, value)
    except ConfigError as error:
        raise KafkaError(ErrorCode.INVALID_REQUEST, str(error)) from None


def validate_broker_configs(configs: Mapping[str, str], *, per_broker: bool) -> None:
    """Judge a dynamic change of broker keys; `per_broker` if one broker is named, else it is for all of
    them.
    """
    read_only = [name for name in configs if name in BROKERS and update_mode(name) is Update.READ_ONLY]
    _refuse(read_only, "Cannot update these configs dynamically")
    secured = [name for name in configs if name.startswith(_PER_LISTENER) and name in PER_BROKER]
    _refuse(
        secured,
        "These security configs can be dynamically updated only per-listener using the listener prefix",
    )
    for name, value in configs.items():
        validate_broker_config(name, value)
    if not per_broker:
        named = [name for name in configs if update_mode(name) is Update.PER_BROKER]
        _refuse(named, "Cannot update these configs at default cluster level, broker id must be specified")


def _refuse(names: Iterable[str], why: str) -> None:
    listed = ", ".join(sorted(names))
    if listed:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"{why}: [{listed}]")


def resolve_broker_configs(broker: BrokerLayers) -> dict[str, str | None]:
    """Every broker configuration in force, keys nobody knows included; None where there is neither value
    nor default.
    """
    resolved: dict[str, str | None] = {
        name: definition.default for name, definition in BROKERS.items() if not definition.internal
    }
    for layer in reversed(broker):
        resolved.update(layer)
    for name, value in resolved.items():
        definition = broker_definition(name)
        if definition is not None:
            resolved[name] = _usable(definition, value)
    return resolved


def broker_synonyms(name: str, broker: BrokerLayers) -> list[Synonym]:
    """The places a broker's value could come from, strongest first.

    As in Kafka, what precedes the key's own name is dropped, so a key whose value comes from a synonym alone
    (log.retention.ms from log.retention.hours) has none.
    """
    matched = _LISTENER_OVERRIDE.fullmatch(name)
    names = (name, matched[1]) if matched else _BROKER_SYNONYMS.get(name, (name,))
    hidden = is_sensitive(name)
    found: list[Synonym] = []
    for layer, source in zip(broker, _LAYER_SOURCES, strict=True):
        found += [Synonym(n, None if hidden else layer[n], source) for n in names if n in layer]
    for each in names:
        definition = BROKERS.get(each)
        if definition is not None and definition.default is not None:
            found.append(Synonym(each, None if hidden else definition.default, ConfigSource.DEFAULT))
    while found and found[0].name != name:
        del found[0]
    return found


_LAYER_SOURCES = (
    ConfigSource.DYNAMIC_BROKER,
    ConfigSource.DYNAMIC_DEFAULT_BROKER,
    ConfigSource.STATIC_BROKER,
)


def is_known_broker_config(name: str) -> bool:
    """Whether the key can stand in a broker's properties, with or without a listener's prefix."""
    matched = _LISTENER_OVERRIDE.fullmatch(name)
    return (matched[1] if matched else name) in BROKERS


def is_sensitive(name: str) -> bool:
    """A value never shown: passwords, and broker keys whose type nobody knows."""
    definition = broker_definition(name)
    return definition is None or definition.sensitive
