"""Topics: CreateTopics v2–7, DeleteTopics v1–6.

Behaviour and texts are Kafka 4.3's (ControllerApis, ReplicationControlManager). A topic of the request
fails alone, unless the request asks for more partitions than one may (POLICY_VIOLATION for all). Responses
are in the order of the request; Kafka shuffles those of DeleteTopics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from odradek.controller import configs, placement
from odradek.controller.replicas import default_directories
from odradek.controller.settings import RECORDS_PER_REQUEST_MAX, TOO_LARGE
from odradek.controller.state import ControllerState, Decision
from odradek.controller.topic_names import topic_name_error
from odradek.metadata.image import TOPIC_RESOURCE
from odradek.metadata.records import (
    ConfigRecord,
    Ints,
    PartitionRecord,
    Record,
    RemoveTopicRecord,
    TopicRecord,
)
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.create_topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
    CreatableTopicResult,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from odradek.wire.messages.delete_topics import (
    DeletableTopicResult,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
)
from odradek.wire.uuid import ZERO_UUID, random_uuid

METADATA_TOPIC = "__cluster_metadata"


def create_topics(state: ControllerState, request: CreateTopicsRequest, version: int) -> Decision:
    """Create what can be created. POLICY_VIOLATION for the whole request if it is too large."""
    counts = Counter(topic.name for topic in request.topics)
    wanted = [topic for topic in request.topics if counts[topic.name] == 1 and topic.name != METADATA_TOPIC]
    _check_size(state, wanted)
    records: list[Record] = []
    results = [_create_or_refuse(state, topic, version, records) for topic in wanted]
    duplicates = [name for name, count in counts.items() if count > 1]
    results += [_refusal(name, ErrorCode.INVALID_REQUEST, "Duplicate topic name.") for name in duplicates]
    if counts[METADATA_TOPIC] == 1:
        why = f"Creation of internal topic {METADATA_TOPIC} is prohibited."
        results.append(_refusal(METADATA_TOPIC, ErrorCode.INVALID_REQUEST, why))
    return Decision([] if request.validate_only else records, CreateTopicsResponse(topics=results))


def check_topic_name(name: str) -> None:
    """KafkaError(INVALID_TOPIC_EXCEPTION) unless a topic may be called so."""
    error = topic_name_error(name)
    if error is not None:
        raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, error)


def _check_size(state: ControllerState, topics: Iterable[CreatableTopic]) -> None:
    total = 0
    for topic in topics:
        if topic.assignments:
            total += len(topic.assignments)
        elif topic.num_partitions == -1:
            total += state.config.num_partitions
        elif topic.num_partitions > 0:
            total += topic.num_partitions
    if total > RECORDS_PER_REQUEST_MAX:
        why = "Excessively large number of partitions per request."
        raise KafkaError(ErrorCode.POLICY_VIOLATION, why)


def _create_or_refuse(
    state: ControllerState, topic: CreatableTopic, version: int, records: list[Record]
) -> CreatableTopicResult:
    """The result for one topic; its records are added to `records` if it is created."""
    try:
        result, created = _create(state, topic, version)
    except KafkaError as error:
        return _refusal(topic.name, error.code, error.message or error.code.message)
    records += created
    if len(records) > RECORDS_PER_REQUEST_MAX:
        raise KafkaError(ErrorCode.POLICY_VIOLATION, TOO_LARGE)
    return result


def _create(
    state: ControllerState, topic: CreatableTopic, version: int
) -> tuple[CreatableTopicResult, list[Record]]:
    _check_new_name(state, topic.name)
    overrides = _overrides(topic.configs)
    configs.validate_new_topic(state, overrides)
    assignments = _manual(state, topic) if topic.assignments else _automatic(state, topic)
    topic_id = _new_id(state)
    records: list[Record] = [TopicRecord(topic.name, topic_id)]
    records += [ConfigRecord(TOPIC_RESOURCE, topic.name, name, value) for name, value in overrides.items()]
    records += new_partitions(state, topic_id, 0, assignments)
    result = CreatableTopicResult(
        name=topic.name,
        topic_id=topic_id,
        error_message=None,
        num_partitions=len(assignments),
        replication_factor=len(assignments[0]),
        configs=configs.describe_new_topic(state, overrides) if version >= 5 else [],
    )
    return result, records


def _new_id(state: ControllerState) -> bytes:
    """An id that no topic has: generators that start from the same seed repeat themselves."""
    while (topic_id := random_uuid(state.rng)) in state.image.topic_names:
        pass
    return topic_id


def _check_new_name(state: ControllerState, name: str) -> None:
    check_topic_name(name)
    if name in state.image.topics:
        raise KafkaError(ErrorCode.TOPIC_ALREADY_EXISTS, f"Topic '{name}' already exists.")
    collision = state.names.collision(name)
    if collision is not None:
        why = f"Topic '{name}' collides with existing topic: {collision}"
        raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, why)


def _overrides(given: Iterable[CreatableTopicConfig]) -> dict[str, str]:
    given = list(given)
    nulls = [config.name for config in given if config.value is None]
    if nulls:
        why = f"Null value not supported for topic configs: {','.join(nulls)}"
        raise KafkaError(ErrorCode.INVALID_CONFIG, why)
    return {config.name: config.value for config in given if config.value is not None}


def _manual(state: ControllerState, topic: CreatableTopic) -> list[Ints]:
    """The assignment that the request spells out, by partition."""
    for name, value in (
        ("replication factor", topic.replication_factor),
        ("numPartitions", topic.num_partitions),
    ):
        if value != -1:
            why = f"A manual partition assignment was specified, but {name} was not set to -1."
            raise KafkaError(ErrorCode.INVALID_REQUEST, why)
    assignments: dict[int, Ints] = {}
    replication_factor: int | None = None
    for assignment in topic.assignments:
        if assignment.partition_index in assignments:
            why = f"Found multiple manual partition assignments for partition {assignment.partition_index}"
            raise KafkaError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, why)
        assignments[assignment.partition_index] = _assignment(state, assignment, replication_factor)
        replication_factor = len(assignment.broker_ids)
    if sorted(assignments) != list(range(len(assignments))):
        why = "partitions should be a consecutive 0-based integer sequence"
        raise KafkaError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, why)
    return [assignments[partition_id] for partition_id in range(len(assignments))]


def _assignment(
    state: ControllerState, assignment: CreatableReplicaAssignment, replication_factor: int | None
) -> Ints:
    replicas = tuple(assignment.broker_ids)
    check_assignment(state, replicas, replication_factor)
    check_some_active(state, replicas, assignment.partition_index)
    return replicas


def check_assignment(state: ControllerState, replicas: Ints, replication_factor: int | None) -> None:
    """KafkaError(INVALID_REPLICA_ASSIGNMENT) unless these are distinct registered brokers, as many as
    elsewhere.
    """
    why = None
    if not replicas:
        why = "an empty replica list."
    previous = None
    for broker_id in sorted(replicas):
        if broker_id not in state.image.brokers:
            why = f"broker {broker_id}, but no such broker is registered."
            break
        if broker_id == previous:
            why = f"the broker {broker_id} more than once."
            break
        previous = broker_id
    if why is None and replication_factor is not None and len(replicas) != replication_factor:
        why = (
            f"a partition with {len(replicas)} replica(s), but this is not consistent with previous "
            f"partitions, which have {replication_factor} replica(s)."
        )
    if why is not None:
        raise KafkaError(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT, f"The manual partition assignment includes {why}"
        )


def check_some_active(state: ControllerState, replicas: Ints, partition_id: int) -> None:
    if not any(map(state.is_active, replicas)):
        why = (
            f"All brokers specified in the manual partition assignment for partition {partition_id} "
            "are fenced or in controlled shutdown."
        )
        raise KafkaError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, why)


def _automatic(state: ControllerState, topic: CreatableTopic) -> list[Ints]:
    """An assignment by placement."""
    if topic.replication_factor < -1 or topic.replication_factor == 0:
        why = "Replication factor must be larger than 0, or -1 to use the default value."
        raise KafkaError(ErrorCode.INVALID_REPLICATION_FACTOR, why)
    if topic.num_partitions < -1 or topic.num_partitions == 0:
        why = "Number of partitions was set to an invalid non-positive value."
        raise KafkaError(ErrorCode.INVALID_PARTITIONS, why)
    config = state.config
    partitions = config.num_partitions if topic.num_partitions == -1 else topic.num_partitions
    factor = config.default_replication_factor if topic.replication_factor == -1 else topic.replication_factor
    try:
        return placed(state, partitions, factor)
    except KafkaError as error:
        why = f"Unable to replicate the partition {factor} time(s): {error.message}"
        raise KafkaError(error.code, why) from error


def placed(state: ControllerState, partitions: int, replication_factor: int) -> list[Ints]:
    """Replicas of new partitions by placement. KafkaError(INVALID_REPLICATION_FACTOR)."""
    brokers = placement.usable_brokers(state.image.brokers.values())
    return placement.place(brokers, partitions, replication_factor, state.rng)


def new_partitions(
    state: ControllerState, topic_id: bytes, first: int, assignments: list[Ints]
) -> list[Record]:
    """Records of new partitions from number `first`: the ISR is whoever is active, the leader its first."""
    records: list[Record] = []
    for partition_id, replicas in enumerate(assignments, first):
        isr = tuple(filter(state.is_active, replicas))
        assert isr, "every assignment has an active broker"
        directories = default_directories(state, replicas)
        records.append(
            PartitionRecord(topic_id, partition_id, replicas, isr, isr[0], directories=directories)
        )
    return records


def _refusal(name: str, code: ErrorCode, message: str) -> CreatableTopicResult:
    return CreatableTopicResult(name=name, error_code=code, error_message=message)


def delete_topics(state: ControllerState, request: DeleteTopicsRequest, version: int) -> Decision:
    """Delete topics by name or, from v6 on, by id; whatever is named twice is not deleted."""
    if not state.config.delete_topic_enable:
        if version < 3:
            raise KafkaError(ErrorCode.INVALID_REQUEST, "Topic deletion is disabled.")
        raise KafkaError(ErrorCode.TOPIC_DELETION_DISABLED)
    names, ids, results = _named(request)
    found: dict[bytes, list[DeletableTopicResult]] = {}
    for topic_id in ids:
        topic = state.image.topic_by_id(topic_id)
        if topic is None:
            results.append(_undeleted(None, topic_id, ErrorCode.UNKNOWN_TOPIC_ID))
        else:
            found.setdefault(topic_id, []).append(DeletableTopicResult(topic.name, topic_id))
    for name in names:
        by_name = state.image.topics.get(name)
        if by_name is None:
            results.append(_undeleted(name, ZERO_UUID, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION))
        else:
            found.setdefault(by_name.id, []).append(DeletableTopicResult(name, by_name.id))
    records: list[Record] = []
    for topic_id, named in found.items():
        if len(named) > 1:
            why = "The provided topic name maps to an ID that was already supplied."
            results.append(_undeleted(named[0].name, topic_id, ErrorCode.INVALID_REQUEST, why))
        else:
            results += named
            records.append(RemoveTopicRecord(topic_id))
    if len(records) > RECORDS_PER_REQUEST_MAX:
        raise KafkaError(ErrorCode.POLICY_VIOLATION, TOO_LARGE)
    return Decision(records, DeleteTopicsResponse(responses=results))


def _named(request: DeleteTopicsRequest) -> tuple[list[str], list[bytes], list[DeletableTopicResult]]:
    """Names and ids that the request gives once each, and refusals of everything else in it."""
    results: list[DeletableTopicResult] = []
    names, ids = Counter(request.topic_names), Counter[bytes]()
    for topic in request.topics:
        if topic.name is not None and topic.topic_id != ZERO_UUID:
            why = "You may not specify both topic name and topic id."
            results.append(_undeleted(topic.name, topic.topic_id, ErrorCode.INVALID_REQUEST, why))
        elif topic.name is not None:
            names[topic.name] += 1
        elif topic.topic_id != ZERO_UUID:
            ids[topic.topic_id] += 1
        else:
            why = "Neither topic name nor id were specified."
            results.append(_undeleted(None, ZERO_UUID, ErrorCode.INVALID_REQUEST, why))
    for name, count in names.items():
        if count > 1:
            results.append(_undeleted(name, ZERO_UUID, ErrorCode.INVALID_REQUEST, "Duplicate topic name."))
    for topic_id, count in ids.items():
        if count > 1:
            results.append(_undeleted(None, topic_id, ErrorCode.INVALID_REQUEST, "Duplicate topic id."))
    once = [name for name, count in names.items() if count == 1]
    return once, [topic_id for topic_id, count in ids.items() if count == 1], results


def _undeleted(
    name: str | None, topic_id: bytes, code: ErrorCode, message: str | None = None
) -> DeletableTopicResult:
    return DeletableTopicResult(name, topic_id, code, message or code.message)
