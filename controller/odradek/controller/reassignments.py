"""Moving replicas: AlterPartitionReassignments v0–1, ListPartitionReassignments v0 (KIP-455, KIP-860).

A reassignment first adds the new replicas to the partition, in the order of the target, with those to be
removed behind them; when the new ones are in sync, the change that says so (an AlterPartition, usually)
completes it: partition_change.py. What needs no new replica is completed at once. Throttles are topic
configurations, which tools set and clear; nothing here touches them.
"""

from __future__ import annotations

from odradek.controller.partition_change import Election
from odradek.controller.replicas import partition_change
from odradek.controller.settings import RECORDS_PER_REQUEST_MAX, TOO_LARGE
from odradek.controller.state import ControllerState, Decision
from odradek.controller.topics import check_assignment
from odradek.metadata.image import PartitionImage, TopicImage
from odradek.metadata.records import PartitionChangeRecord, Record
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse,
    ReassignablePartitionResponse,
    ReassignableTopicResponse,
)
from odradek.wire.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
    OngoingPartitionReassignment,
    OngoingTopicReassignment,
)


def alter_partition_reassignments(
    state: ControllerState, request: AlterPartitionReassignmentsRequest, version: int
) -> Decision:
    """Begin, change or (`replicas` null) cancel reassignments, each partition for itself.

    Errors: UNKNOWN_TOPIC_OR_PARTITION, INVALID_REPLICA_ASSIGNMENT, INVALID_REPLICATION_FACTOR if the number
    of replicas changes and must not, NO_REASSIGNMENT_IN_PROGRESS, INVALID_REQUEST for a partition named
    twice; POLICY_VIOLATION for the whole of a request that is too large.
    """
    records: list[Record] = []
    response = AlterPartitionReassignmentsResponse(
        error_message=None, allow_replication_factor_change=request.allow_replication_factor_change
    )
    seen: set[tuple[str, int]] = set()
    for topic in request.topics:
        results = []
        for wanted in topic.partitions:
            result = ReassignablePartitionResponse(wanted.partition_index, error_message=None)
            try:
                if (topic.name, wanted.partition_index) in seen:
                    raise KafkaError(ErrorCode.INVALID_REQUEST, "The request names the partition twice.")
                seen.add((topic.name, wanted.partition_index))
                record = _alter(state, topic.name, wanted.partition_index, wanted.replicas, request)
                records += [record] if record is not None else []
            except KafkaError as error:
                result.error_code = error.code
                result.error_message = error.message
            results.append(result)
        response.responses.append(ReassignableTopicResponse(topic.name, results))
    if len(records) > RECORDS_PER_REQUEST_MAX:
        raise KafkaError(ErrorCode.POLICY_VIOLATION, TOO_LARGE)
    return Decision(records, response)


def _alter(
    state: ControllerState,
    name: str,
    partition_id: int,
    target: list[int] | None,
    request: AlterPartitionReassignmentsRequest,
) -> PartitionChangeRecord | None:
    topic = state.image.topics.get(name)
    if topic is None:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"Unable to find a topic named {name}.")
    partition = topic.partitions.get(partition_id)
    if partition is None:
        why = f"Unable to find partition {name}:{partition_id}."
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, why)
    if target is None:
        return _cancel(state, topic, partition_id, partition)
    check_assignment(state, tuple(target), None)
    if not request.allow_replication_factor_change:
        _check_same_factor(partition, target)
    return _change(state, topic, partition_id, partition, target)


def _check_same_factor(partition: PartitionImage, target: list[int]) -> None:
    """The number of replicas that a reassignment under way leads to is what the new target is held to."""
    present = len({*partition.replicas, *partition.adding} - set(partition.removing))
    if present != len(target):
        why = f"The replication factor is changed from {present} to {len(target)}"
        raise KafkaError(ErrorCode.INVALID_REPLICATION_FACTOR, why)


def _change(
    state: ControllerState, topic: TopicImage, partition_id: int, partition: PartitionImage, target: list[int]
) -> PartitionChangeRecord | None:
    change = partition_change(state, topic, partition_id)
    change.removing = tuple(sorted(set(partition.replicas) - set(target)))
    change.adding = tuple(sorted(set(target) - set(partition.replicas)))
    change.replicas = (*target, *change.removing)
    return change.build()


def _cancel(
    state: ControllerState, topic: TopicImage, partition_id: int, partition: PartitionImage
) -> PartitionChangeRecord | None:
    """Back to the replicas from before, without those being added; an ISR of nothing else needs the topic to
    allow unclean elections.
    """
    if not partition.adding and not partition.removing:
        raise KafkaError(ErrorCode.NO_REASSIGNMENT_IN_PROGRESS)
    change = partition_change(state, topic, partition_id)
    change.replicas = tuple(each for each in partition.replicas if each not in partition.adding)
    change.isr = tuple(each for each in partition.isr if each not in partition.adding)
    change.adding = change.removing = ()
    if not change.replicas:
        why = "Invalid replica assignment: addingReplicas contains all replicas."
        raise KafkaError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, why)
    if state.unclean_election(topic):
        change.election = Election.UNCLEAN
    elif not change.isr:
        why = (
            f"Unable to revert partition assignment for {topic.name}:{partition_id} because it would require "
            "an unclean leader election."
        )
        raise KafkaError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, why)
    return change.build()


def list_partition_reassignments(
    state: ControllerState, request: ListPartitionReassignmentsRequest, version: int
) -> Decision:
    """Reassignments under way, of the partitions named or of all; others are left out."""
    topics = state.image.topics
    if request.topics is None:
        wanted = [(topic, list(topic.partitions)) for topic in topics.values()]
    else:
        wanted = [
            (topics[each.name], each.partition_indexes) for each in request.topics if each.name in topics
        ]
    response = ListPartitionReassignmentsResponse(error_message=None)
    for topic, partition_ids in wanted:
        ongoing = [each for number in partition_ids if (each := _ongoing(topic, number)) is not None]
        if ongoing:
            response.topics.append(OngoingTopicReassignment(topic.name, ongoing))
    return Decision([], response)


def _ongoing(topic: TopicImage, partition_id: int) -> OngoingPartitionReassignment | None:
    partition = topic.partitions.get(partition_id)
    if partition is None or not (partition.adding or partition.removing):
        return None
    return OngoingPartitionReassignment(
        partition_index=partition_id,
        replicas=list(partition.replicas),
        adding_replicas=list(partition.adding),
        removing_replicas=list(partition.removing),
    )
