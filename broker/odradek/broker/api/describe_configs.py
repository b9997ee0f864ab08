"""DescribeConfigs (key 32), versions 1-4: what is configured where, and where each value comes from (KIP-133,
KIP-226).

Synonyms are there from v1, types and documentation from v3; the codec drops what a version cannot carry.
Served are topics, brokers (this one by its id; "" for the defaults of all) and this broker's log level.
Deviations from Kafka: one logger, `root`, which cannot be changed; quota keys have no configurations of
their own yet; groups have those of consumer groups alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias

from odradek.controller.topic_names import topic_name_error
from odradek.metadata import configs, group_configs
from odradek.metadata.config_def import ConfigDef, Update
from odradek.metadata.configs import TOPICS, BrokerLayers, ConfigSource, ResourceType, Synonym
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResponse,
    DescribeConfigsResult,
    DescribeConfigsSynonym,
)

if TYPE_CHECKING:
    from odradek.broker.config import BrokerConfig
    from odradek.broker.dispatch import Done, RequestContext
    from odradek.broker.node import Node
    from odradek.metadata.image import MetadataImage

UNKNOWN_TYPE = 0
DYNAMIC_BROKER_LOGGER = 6
Entry = DescribeConfigsResourceResult
Plain: TypeAlias = dict[frozenset[str], list[Entry]]
"""By the keys asked for: what topics without settings of their own have, which is the same for all of them."""


def describe_configs(
    node: Node, context: RequestContext, request: DescribeConfigsRequest, done: Done
) -> None:
    done(describe(request, node.image, node.config))


def describe(
    request: DescribeConfigsRequest, image: MetadataImage, config: BrokerConfig
) -> DescribeConfigsResponse:
    """The answer of the broker whose own properties are `config`, given the metadata it has applied.

    A resource asked for twice is answered once: its answer is a hundred times as long as its name.
    """
    layers = config.layers(image.configs)
    plain: Plain = {}
    resources = {(each.resource_type, each.resource_name): each for each in reversed(request.resources)}
    return DescribeConfigsResponse(
        results=[
            _result(resource, request, image, config, layers, plain)
            for resource in reversed(resources.values())
        ]
    )


def _result(
    resource: DescribeConfigsResource,
    request: DescribeConfigsRequest,
    image: MetadataImage,
    config: BrokerConfig,
    layers: BrokerLayers,
    plain: Plain,
) -> DescribeConfigsResult:
    result = DescribeConfigsResult(resource_type=resource.resource_type, resource_name=resource.resource_name)
    try:
        result.configs = _entries(resource, image, config, layers, plain)
    except KafkaError as error:
        result.error_code = error.code
        result.error_message = error.code.message if error.message is None else error.message
        return result
    if request.include_documentation:
        from odradek.metadata.config_docs import documentation  # 60 KB of text that nothing else needs

        for entry in result.configs:
            entry.documentation = documentation(resource.resource_type, entry.name)
    if not request.include_synonyms:
        for entry in result.configs:
            entry.synonyms = []
    return result


def _entries(
    resource: DescribeConfigsResource,
    image: MetadataImage,
    config: BrokerConfig,
    layers: BrokerLayers,
    plain: Plain,
) -> list[Entry]:
    """What one resource has configured, synonyms included. KafkaError if there is no such resource."""
    name = resource.resource_name
    match resource.resource_type:
        case ResourceType.TOPIC:
            if image.config(ResourceType.TOPIC, name) or name not in image.topics:
                return _topic(name, _wanted(resource), image, layers)
            keys = frozenset(resource.configuration_keys or ())
            if keys not in plain:
                plain[keys] = _topic(name, _wanted(resource), image, layers)
            return plain[keys]
        case ResourceType.BROKER if not name:
            return _cluster_defaults(_wanted(resource), layers)
        case ResourceType.BROKER:
            _check_broker_id(name, config.node_id, " or empty string,")
            return _broker(_wanted(resource), layers)
        case ResourceType.BROKER_LOGGER:
            if not name:
                raise KafkaError(ErrorCode.INVALID_REQUEST, "Broker id must not be empty")
            _check_broker_id(name, config.node_id, "")
            return _loggers(_wanted(resource), config)
        case ResourceType.GROUP:
            if not name:
                raise KafkaError(ErrorCode.INVALID_REQUEST, "Group name must not be empty")
            return _group(name, _wanted(resource), image, layers)
        case other:
            known = ResourceType(other).name if other in list(ResourceType) else str(other)
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"Unsupported resource type: {known}")


def _wanted(resource: DescribeConfigsResource) -> Callable[[Iterable[str]], list[str]]:
    """Sorts names and keeps those that are asked for; none named means all."""
    keys = set(resource.configuration_keys or ())
    return lambda names: sorted(keys.intersection(names) if keys else names)


def _check_broker_id(name: str, node_id: int, alternative: str) -> None:
    try:
        asked = int(name) if len(name) < 12 else -1
    except ValueError:
        text = f"Broker id must be an integer, but it is: {name}"
        raise KafkaError(ErrorCode.INVALID_REQUEST, text) from None
    if asked != node_id:
        text = f"Unexpected broker id, expected {node_id}{alternative} but received {name}"
        raise KafkaError(ErrorCode.INVALID_REQUEST, text)


def _topic(
    name: str, wanted: Callable[[Iterable[str]], list[str]], image: MetadataImage, layers: BrokerLayers
) -> list[Entry]:
    problem = topic_name_error(name)
    if problem is not None:
        raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, problem)
    if name not in image.topics:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "")
    overrides = image.config(ResourceType.TOPIC, name)
    values = configs.effective_topic_configs(overrides, layers)
    return [
        _entry(key, values[key], TOPICS[key], configs.topic_synonyms(key, overrides, layers))
        for key in wanted(values)
    ]


def _group(
    name: str, wanted: Callable[[Iterable[str]], list[str]], image: MetadataImage, layers: BrokerLayers
) -> list[Entry]:
    """Of any group, whether it exists or not."""
    own = image.config(ResourceType.GROUP, name)
    return [
        _entry(
            key,
            group_configs.effective_group_config(key, own, layers),
            group_configs.GROUPS[key],
            group_configs.group_synonyms(key, own, layers),
        )
        for key in wanted(group_configs.GROUPS)
    ]


def _broker(wanted: Callable[[Iterable[str]], list[str]], layers: BrokerLayers) -> list[Entry]:
    values = configs.resolve_broker_configs(layers)
    entries = []
    for key in wanted(values):
        entry = _entry(key, values[key], configs.broker_definition(key), configs.broker_synonyms(key, layers))
        entry.read_only = configs.update_mode(key) is Update.READ_ONLY
        entries.append(entry)
    return entries


def _cluster_defaults(wanted: Callable[[Iterable[str]], list[str]], layers: BrokerLayers) -> list[Entry]:
    """Only what was set dynamically for all brokers, as it was written."""
    entries = []
    for key in wanted(layers.dynamic_default):
        source = ConfigSource.DYNAMIC_DEFAULT_BROKER
        synonyms = [each for each in configs.broker_synonyms(key, layers) if each.source is source]
        entry = _entry(key, layers.dynamic_default[key], configs.broker_definition(key), synonyms)
        entry.read_only = configs.update_mode(key) is Update.READ_ONLY
        entries.append(entry)
    return entries


def _loggers(wanted: Callable[[Iterable[str]], list[str]], config: BrokerConfig) -> list[Entry]:
    level = {"warning": "WARN"}.get(config.odradek_log_level, config.odradek_log_level.upper())
    return [
        Entry(name=name, value=level, read_only=True, config_source=DYNAMIC_BROKER_LOGGER, documentation=None)
        for name in wanted(("root",))
    ]


def _entry(name: str, value: str | None, definition: ConfigDef | None, synonyms: list[Synonym]) -> Entry:
    hidden = definition is None or definition.sensitive
    return Entry(
        name=name,
        value=None if hidden else value,
        config_source=synonyms[0].source if synonyms else ConfigSource.DEFAULT,
        is_sensitive=hidden,
        synonyms=[
            DescribeConfigsSynonym(name=each.name, value=each.value, source=each.source) for each in synonyms
        ],
        config_type=UNKNOWN_TYPE if definition is None else definition.type,
        documentation=None,
    )
