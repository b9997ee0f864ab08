"""Partitions: CreatePartitions v0–3, AlterPartition v2–3."""

from __future__ import annotations

from collections import Counter

from odradek.controller.partition_change import Election
from odradek.controller.replicas import partition_change
from odradek.controller.settings import RECORDS_PER_REQUEST_MAX, TOO_LARGE
from odradek.controller.state import ControllerState, Decision
from odradek.controller.topics import check_assignment, check_some_active, new_partitions, placed
from odradek.metadata.delta import merge
from odradek.metadata.image import PartitionImage, TopicImage
from odradek.metadata.records import RECOVERED, RECOVERING, PartitionChangeRecord, Record
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.alter_partition import (
    AlterPartitionRequest,
    AlterPartitionRequestPartitionData,
    AlterPartitionResponse,
    AlterPartitionResponsePartitionData,
    AlterPartitionResponseTopicData,
    BrokerState,
)
from odradek.wire.messages.create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopic,
    CreatePartitionsTopicResult,
)

# -- CreatePartitions --------------------------------------------------------------------------------------


def create_partitions(state: ControllerState, request: CreatePartitionsRequest, version: int) -> Decision:
    """Give topics more partitions. POLICY_VIOLATION for the whole request if it is too large."""
    counts = Counter(topic.name for topic in request.topics)
    wanted = [topic for topic in request.topics if counts[topic.name] == 1]
    records: list[Record] = []
    results = []
    for topic in wanted:
        error = KafkaError(ErrorCode.NONE)
        try:
            records += _additional(state, topic, RECORDS_PER_REQUEST_MAX - len(records))
        except KafkaError as refusal:
            if refusal.code is ErrorCode.POLICY_VIOLATION:
                raise
            error = refusal
        results.append(_partitions_result(topic.name, error))
    duplicate = KafkaError(ErrorCode.INVALID_REQUEST, "Duplicate topic name.")
    results += [_partitions_result(name, duplicate) for name, count in counts.items() if count > 1]
    return Decision([] if request.validate_only else records, CreatePartitionsResponse(results=results))


def _partitions_result(name: str, error: KafkaError) -> CreatePartitionsTopicResult:
    message = None if error.code is ErrorCode.NONE else error.message or error.code.message
    return CreatePartitionsTopicResult(name, error.code, message)


def _additional(state: ControllerState, wanted: CreatePartitionsTopic, room: int) -> list[Record]:
    """Records of the partitions that a topic gets more, at most `room`."""
    topic = state.image.topics.get(wanted.name)
    if topic is None:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    present = len(topic.partitions)
    if wanted.count == present:
        raise KafkaError(ErrorCode.INVALID_PARTITIONS, f"Topic already has {present} partition(s).")
    if wanted.count < present:
        why = (
            f"The topic {wanted.name} currently has {present} partition(s); "
            f"{wanted.count} would not be an increase."
        )
        raise KafkaError(ErrorCode.INVALID_PARTITIONS, why)
    additional = wanted.count - present
    if wanted.assignments is not None and len(wanted.assignments) != additional:
        why = (
            f"Attempted to add {additional} additional partition(s), but only {len(wanted.assignments)} "
            "assignment(s) were specified."
        )
        raise KafkaError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, why)
    if additional > room:
        raise KafkaError(ErrorCode.POLICY_VIOLATION, TOO_LARGE)
    factor = len(topic.partitions[0].replicas)
    if wanted.assignments is None:
        assignments = placed(state, additional, factor)
    else:
        assignments = [tuple(assignment.broker_ids) for assignment in wanted.assignments]
        for partition_id, replicas in enumerate(assignments, present):
            check_assignment(state, replicas, factor)
            check_some_active(state, replicas, partition_id)
    return new_partitions(state, topic.id, present, assignments)


# -- AlterPartition ----------------------------------------------------------------------------------------


def alter_partition(state: ControllerState, request: AlterPartitionRequest, version: int) -> Decision:
    """A leader proposes another ISR. Refused as a whole with STALE_BROKER_EPOCH, else partition by partition.

    What a refusal proves: with FENCED_LEADER_EPOCH, INVALID_UPDATE_VERSION or INVALID_REQUEST this proposal
    is not applied now or later, by whatever copy of it; with INELIGIBLE_REPLICA neither, as that refusal
    raises the partition epoch: whether a replica is eligible changes back and forth, and a delayed copy must
    not find it eligible after the leader has given the proposal up. NOT_CONTROLLER (an epoch ahead of ours:
    this controller is not the newest), and no answer, prove nothing.
    """
    state.check_broker_epoch(request.broker_id, request.broker_epoch)
    records: list[Record] = []
    topics = []
    seen: set[tuple[bytes, int]] = set()
    for wanted in request.topics:
        topic = state.image.topic_by_id(wanted.topic_id)
        outcomes = []
        for each in wanted.partitions:
            partition = (wanted.topic_id, each.partition_index)
            if topic is None or partition in seen:
                code = ErrorCode.UNKNOWN_TOPIC_ID if topic is None else ErrorCode.INVALID_REQUEST
                outcomes.append(AlterPartitionResponsePartitionData(each.partition_index, code))
            else:
                outcomes.append(_alter_isr(state, request.broker_id, topic, each, version, records))
            seen.add(partition)
        topics.append(AlterPartitionResponseTopicData(wanted.topic_id, outcomes))
    return Decision(records, AlterPartitionResponse(topics=topics), atomic=False)


def _alter_isr(
    state: ControllerState,
    broker_id: int,
    topic: TopicImage,
    wanted: AlterPartitionRequestPartitionData,
    version: int,
    records: list[Record],
) -> AlterPartitionResponsePartitionData:
    if version < 3:
        wanted.new_isr_with_epochs = [BrokerState(replica) for replica in wanted.new_isr]
    partition = topic.partitions.get(wanted.partition_index)
    error = _isr_error(state, broker_id, partition, wanted)
    if error is ErrorCode.INELIGIBLE_REPLICA:
        records.append(PartitionChangeRecord(topic.id, wanted.partition_index))
    if error is not None or partition is None:
        return AlterPartitionResponsePartitionData(wanted.partition_index, error or 0)
    change = partition_change(state, topic, wanted.partition_index)
    if state.unclean_election(topic):
        change.election = Election.UNCLEAN
    change.isr = tuple(replica.broker_id for replica in wanted.new_isr_with_epochs)
    change.leader_recovery_state = wanted.leader_recovery_state
    record = change.build()
    if record is not None:
        records.append(record)
        partition = merge(partition, record)
        if partition.leader != broker_id:
            return AlterPartitionResponsePartitionData(wanted.partition_index, ErrorCode.NEW_LEADER_ELECTED)
    return AlterPartitionResponsePartitionData(
        partition_index=wanted.partition_index,
        leader_id=partition.leader,
        leader_epoch=partition.leader_epoch,
        isr=list(partition.isr),
        leader_recovery_state=partition.leader_recovery_state,
        partition_epoch=partition.partition_epoch,
    )


def _isr_error(
    state: ControllerState,
    broker_id: int,
    partition: PartitionImage | None,
    wanted: AlterPartitionRequestPartitionData,
) -> ErrorCode | None:
    """Why a proposal is not to be followed."""
    if partition is None:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if wanted.leader_epoch > partition.leader_epoch or wanted.partition_epoch > partition.partition_epoch:
        return ErrorCode.NOT_CONTROLLER
    if wanted.leader_epoch < partition.leader_epoch:
        return ErrorCode.FENCED_LEADER_EPOCH
    if broker_id != partition.leader:
        return ErrorCode.INVALID_REQUEST
    if wanted.partition_epoch < partition.partition_epoch:
        return ErrorCode.INVALID_UPDATE_VERSION
    isr = [replica.broker_id for replica in wanted.new_isr_with_epochs]
    if len(set(isr)) != len(isr) or not set(isr) <= set(partition.replicas) or broker_id not in isr:
        return ErrorCode.INVALID_REQUEST
    recovering = wanted.leader_recovery_state == RECOVERING
    if recovering and (len(isr) > 1 or partition.leader_recovery_state == RECOVERED):
        return ErrorCode.INVALID_REQUEST
    if not all(_may_join(state, replica) for replica in wanted.new_isr_with_epochs):
        return ErrorCode.INELIGIBLE_REPLICA
    return None


def _may_join(state: ControllerState, replica: BrokerState) -> bool:
    broker = state.image.brokers.get(replica.broker_id)
    return broker is not None and broker.active and replica.broker_epoch in (-1, broker.epoch)
