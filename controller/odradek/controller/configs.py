"""Dynamic configuration: IncrementalAlterConfigs v0–1, AlterConfigs v0–2; and the configuration of a new
topic.

Behaviour and texts are Kafka 4.3's (ConfigAdminManager, ConfigurationControlManager): a resource changes as
a whole or not at all, a value of a broker is written even if it is the present one, and with eligible
leader replicas on (they always are) min.insync.replicas is set for the cluster or for topics, never for one
broker. Left out: that a change for one broker must come to that broker is for the broker to say;
BROKER_LOGGER and CLIENT_METRICS are not served.

What definitions and rules there are is in odradek.metadata.configs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from typing import NamedTuple, TypeVar

from odradek.controller.elections import ELECTIONS_PER_ROUND_MAX, leaderless_elections
from odradek.controller.replicas import clear_needless_elrs
from odradek.controller.settings import RECORDS_PER_REQUEST_MAX, TOO_LARGE
from odradek.controller.state import ControllerState, Decision
from odradek.controller.topic_names import topic_name_error
from odradek.metadata.configs import (
    BROKERS,
    TOPICS,
    BrokerLayers,
    ConfigSource,
    ResourceType,
    is_list,
    topic_config,
    topic_synonyms,
    validate_broker_configs,
    validate_topic_configs,
)
from odradek.metadata.group_configs import GROUPS, validate_group_configs
from odradek.metadata.records import ConfigRecord, PartitionChangeRecord, Record
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages import alter_configs as legacy
from odradek.wire.messages import incremental_alter_configs as incremental
from odradek.wire.messages.create_topics import CreatableTopicConfigs

MIN_ISR = "min.insync.replicas"
UNCLEAN_ELECTION = "unclean.leader.election.enable"
VALUE_BYTES_MAX = 32_767
_INTEGER = re.compile(r"[+-]?[0-9]{1,10}", re.ASCII)

Changes = dict[str, str | None]
"""New values by name; None takes a value away."""


class Operation(IntEnum):
    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


class Resource(NamedTuple):
    type: int
    name: str

    @property
    def is_topic(self) -> bool:
        return self.type == ResourceType.TOPIC


AnyResource = TypeVar("AnyResource", incremental.AlterConfigsResource, legacy.AlterConfigsResource)


def validate_new_topic(state: ControllerState, overrides: Mapping[str, str]) -> None:
    """KafkaError(INVALID_CONFIG) unless a topic may be created with these values."""
    for value in overrides.values():
        _check_length(value)
    if overrides:
        validate_topic_configs(overrides, state.layers())


def describe_new_topic(state: ControllerState, overrides: Mapping[str, str]) -> list[CreatableTopicConfigs]:
    """Every configuration a new topic has and where it comes from, by name (KIP-525)."""
    fallbacks = state.fallbacks()
    if fallbacks.described is None:
        names = sorted(name for name, definition in TOPICS.items() if not definition.internal)
        fallbacks.described = {name: _described(name, {}, fallbacks.layers) for name in names}
    described: dict[str, CreatableTopicConfigs] = dict(fallbacks.described)
    described |= {
        name: _described(name, overrides, fallbacks.layers) for name in overrides if name in described
    }
    return list(described.values())


def _described(name: str, overrides: Mapping[str, str], fallback: BrokerLayers) -> CreatableTopicConfigs:
    synonyms = topic_synonyms(name, overrides, fallback)
    return CreatableTopicConfigs(
        name=name,
        value=topic_config(name, overrides, fallback),
        config_source=synonyms[0].source if synonyms else ConfigSource.DEFAULT,
        is_sensitive=False,
    )


def incremental_alter_configs(
    state: ControllerState, request: incremental.IncrementalAlterConfigsRequest, version: int
) -> Decision:
    """Set, delete, append to and subtract from single values."""

    def changes_of(resource: incremental.AlterConfigsResource) -> Changes:
        _check_named_once(config.name for config in resource.configs)
        valued = [config for config in resource.configs if config.config_operation != Operation.DELETE]
        _check_no_nulls(config.name for config in valued if config.value is None)
        present = state.image.config(resource.resource_type, resource.resource_name)
        return {config.name: _result(resource.resource_type, config, present) for config in resource.configs}

    records, errors = _alter(state, request.resources, changes_of)
    response = incremental.IncrementalAlterConfigsResponse(
        responses=[
            incremental.AlterConfigsResourceResponse(
                code, why, resource.resource_type, resource.resource_name
            )
            for resource, (code, why) in zip(request.resources, errors, strict=True)
        ]
    )
    return _decision(state, records, response, request.validate_only)


def alter_configs(state: ControllerState, request: legacy.AlterConfigsRequest, version: int) -> Decision:
    """Replace all values of a resource by those given."""

    def changes_of(resource: legacy.AlterConfigsResource) -> Changes:
        _check_named_once(config.name for config in resource.configs)
        _check_no_nulls(config.name for config in resource.configs if config.value is None)
        present = state.image.config(resource.resource_type, resource.resource_name)
        changes: Changes = {config.name: config.value for config in resource.configs}
        return changes | {name: None for name in present if name not in changes}

    records, errors = _alter(state, request.resources, changes_of)
    response = legacy.AlterConfigsResponse(
        responses=[
            legacy.AlterConfigsResourceResponse(code, message, resource.resource_type, resource.resource_name)
            for resource, (code, message) in zip(request.resources, errors, strict=True)
        ]
    )
    return _decision(state, records, response, request.validate_only)


def _decision(
    state: ControllerState,
    records: list[Record],
    response: incremental.IncrementalAlterConfigsResponse | legacy.AlterConfigsResponse,
    validate_only: bool,
) -> Decision:
    if validate_only:
        return Decision([], response)
    if len(records) > RECORDS_PER_REQUEST_MAX:
        raise KafkaError(ErrorCode.POLICY_VIOLATION, TOO_LARGE)
    # ELRs go before the configuration that makes them needless: M3 holds in between, and a leader does not
    # go by the smaller number before those who might follow it are out of question.
    freed = _freed_elrs(state, records)
    follow_up = [*_raised_epochs(state, records), *_unclean_elections(state, records)]
    return Decision([*freed, *records, *follow_up], response, atomic=not freed and not follow_up)


def _freed_elrs(state: ControllerState, records: list[Record]) -> list[Record]:
    if not _touch(records, MIN_ISR):
        return []
    return clear_needless_elrs(state, state.after(records).min_isr)


def _raised_epochs(state: ControllerState, records: list[Record]) -> list[Record]:
    """Where min.insync.replicas grows, partition epochs do too.

    A leader that shrinks its ISR hears of it by the answer to its proposal, which may overtake the metadata
    with the new value. Going by the old one it would acknowledge records that those who now stay eligible
    have not. A proposal that names the new epoch comes from a leader that knows the new value as well.
    """
    if not _touch(records, MIN_ISR):
        return []
    after = state.after(records)
    return [
        PartitionChangeRecord(topic.id, partition_id)
        for topic in state.image.topics.values()
        if after.min_isr(topic) > state.min_isr(topic)
        for partition_id in topic.partitions
    ]


def _unclean_elections(state: ControllerState, records: list[Record]) -> list[Record]:
    """Leaders for the topics that begin to allow unclean elections."""
    if not _touch(records, UNCLEAN_ELECTION):
        return []
    return leaderless_elections(state.after(records), ELECTIONS_PER_ROUND_MAX)


def _touch(records: list[Record], name: str) -> bool:
    return any(isinstance(record, ConfigRecord) and record.name == name for record in records)


def _alter(
    state: ControllerState, resources: list[AnyResource], changes_of: Callable[[AnyResource], Changes]
) -> tuple[list[Record], list[tuple[int, str | None]]]:
    """Records of all resources that may change as they ask, and (error code, message) of each resource."""
    counts = Counter((resource.resource_type, resource.resource_name) for resource in resources)
    records: list[Record] = []
    errors: list[tuple[int, str | None]] = []
    for each in resources:
        resource = Resource(each.resource_type, each.resource_name)
        try:
            if counts[resource] > 1:
                raise KafkaError(ErrorCode.INVALID_REQUEST, "Each resource must appear at most once.")
            if resource.type not in (ResourceType.TOPIC, ResourceType.BROKER, ResourceType.GROUP):
                raise KafkaError(ErrorCode.INVALID_REQUEST, f"Unknown resource type {resource.type}")
            records += _change(state, resource, changes_of(each))
            errors.append((ErrorCode.NONE, None))
        except KafkaError as error:
            errors.append((error.code, error.message or error.code.message))
    return records, errors


def _change(state: ControllerState, resource: Resource, changes: Changes) -> list[Record]:
    """The records of one resource, or KafkaError."""
    present = state.image.config(*resource)
    for name, value in changes.items():
        _check_length(value)
        if resource.type == ResourceType.BROKER and name == MIN_ISR:
            _check_broker_min_isr(resource, value)
    after = {name: value for name, value in ({**present, **changes}).items() if value is not None}
    if resource.is_topic:
        _check_topic(state, resource.name, after)
    elif resource.type == ResourceType.GROUP:
        if not resource.name:
            raise KafkaError(ErrorCode.INVALID_REQUEST, "Default group resources are not allowed.")
        validate_group_configs(after, state.layers())
    else:
        _check_broker(state, resource.name, after)
    return [
        ConfigRecord(resource.type, resource.name, name, value)
        for name, value in changes.items()
        if value != present.get(name) or resource.type == ResourceType.BROKER
    ]


def _check_topic(state: ControllerState, name: str, after: Mapping[str, str]) -> None:
    if not name:
        raise KafkaError(ErrorCode.INVALID_REQUEST, "Default topic resources are not allowed.")
    error = topic_name_error(name)
    if error is not None:
        raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, error)
    validate_topic_configs(after, state.layers())
    if name not in state.image.topics:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{name}' does not exist.")


def _check_broker(state: ControllerState, name: str, after: Mapping[str, str]) -> None:
    if name:
        if not _INTEGER.fullmatch(name):
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"Node id must be an integer, but it is: {name}")
        node_id = state.config.node_id
        if int(name) not in state.image.brokers and int(name) != node_id:
            why = f"Unexpected broker id, expected {node_id}, but received {name}"
            raise KafkaError(ErrorCode.INVALID_REQUEST, why)
    validate_broker_configs(after, per_broker=bool(name))


def _check_broker_min_isr(resource: Resource, value: str | None) -> None:
    if resource.name:
        why = "Broker-level min.insync.replicas cannot be altered while ELR is enabled."
        raise KafkaError(ErrorCode.INVALID_CONFIG, why)
    if value is None:
        why = "Cluster-level min.insync.replicas cannot be removed while ELR is enabled."
        raise KafkaError(ErrorCode.INVALID_CONFIG, why)


def _check_length(value: str | None) -> None:
    if value is not None and len(value.encode()) > VALUE_BYTES_MAX:
        raise KafkaError(
            ErrorCode.INVALID_CONFIG,
            "The configuration value cannot be added because it exceeds the maximum value size of "
            f"{VALUE_BYTES_MAX} bytes.",
        )


def _check_named_once(names: Iterable[str]) -> None:
    if any(count > 1 for count in Counter(names).values()):
        raise KafkaError(ErrorCode.INVALID_REQUEST, "Error due to duplicate config keys")


def _check_no_nulls(names: Iterable[str]) -> None:
    listed = ", ".join(names)
    if listed:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Null value not supported for : {listed}")


def _result(type_: int, config: incremental.AlterableConfig, present: Mapping[str, str]) -> str | None:
    """The value after one operation."""
    if config.config_operation not in Operation._value2member_map_:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Unknown operations type {config.config_operation}")
    operation = Operation(config.config_operation)
    if operation is Operation.DELETE:
        return None
    if operation is Operation.SET:
        return config.value
    if type_ == ResourceType.GROUP or not is_list(config.name, type_):
        raise KafkaError(ErrorCode.INVALID_CONFIG, _not_a_list(type_, operation, config.name))
    definition = (TOPICS if type_ == ResourceType.TOPIC else BROKERS)[config.name]
    items = _items(present.get(config.name, definition.default))
    given = _items(config.value)
    if operation is Operation.APPEND:
        return ",".join(items + [item for item in dict.fromkeys(given) if item not in items])
    return ",".join(item for item in items if item not in given)


def _items(value: str | None) -> list[str]:
    return [item.strip() for item in (value or "").split(",") if item.strip()]


def _not_a_list(type_: int, operation: Operation, name: str) -> str:
    if type_ == ResourceType.TOPIC or (type_ == ResourceType.GROUP and name in GROUPS):
        return f"Can't {operation.name} to key {name} because its type is not LIST."
    if name not in BROKERS:
        return f"Unknown config name: {name}"
    return f"Config value {operation.name.lower()} is not allowed for config key: {name}"
