"""Where replicas live: AssignReplicasToDirs v0 (KIP-858)."""

from __future__ import annotations

from odradek.controller.partition_change import Election, PartitionChange
from odradek.controller.replicas import acceptable_leader, partition_change, take_out
from odradek.controller.state import ControllerState, Decision
from odradek.metadata.image import BrokerImage, TopicImage
from odradek.metadata.records import Record
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.assign_replicas_to_dirs import (
    AssignReplicasToDirsRequest,
    AssignReplicasToDirsRequestTopicData,
    AssignReplicasToDirsResponse,
    AssignReplicasToDirsResponseDirectoryData,
    AssignReplicasToDirsResponsePartitionData,
    AssignReplicasToDirsResponseTopicData,
)


def assign_replicas_to_dirs(
    state: ControllerState, request: AssignReplicasToDirsRequest, version: int
) -> Decision:
    """A broker says in which of its directories replicas are. Refused as a whole with STALE_BROKER_EPOCH,
    else partition by partition: UNKNOWN_TOPIC_ID, UNKNOWN_TOPIC_OR_PARTITION, NOT_LEADER_OR_FOLLOWER if the
    broker has no replica of it, INVALID_REQUEST for one named twice.
    """
    state.check_broker_epoch(request.broker_id, request.broker_epoch)
    broker = state.image.brokers[request.broker_id]
    records: list[Record] = []
    seen: set[tuple[bytes, int]] = set()
    response = AssignReplicasToDirsResponse()
    for directory in request.directories:
        topics = [
            _assign_topic(state, broker, directory.id, each, records, seen) for each in directory.topics
        ]
        response.directories.append(AssignReplicasToDirsResponseDirectoryData(directory.id, topics))
    return Decision(records, response, atomic=False)


def _assign_topic(
    state: ControllerState,
    broker: BrokerImage,
    directory: bytes,
    wanted: AssignReplicasToDirsRequestTopicData,
    records: list[Record],
    seen: set[tuple[bytes, int]],
) -> AssignReplicasToDirsResponseTopicData:
    topic = state.image.topic_by_id(wanted.topic_id)
    response = AssignReplicasToDirsResponseTopicData(wanted.topic_id)
    for each in wanted.partitions:
        number = each.partition_index
        error = _refusal(broker, topic, number)
        if error is None and (wanted.topic_id, number) in seen:
            error = ErrorCode.INVALID_REQUEST
        if error is None and topic is not None:
            seen.add((wanted.topic_id, number))
            record = _move(state, broker, directory, topic, number).build()
            records += [record] if record is not None else []
        response.partitions.append(AssignReplicasToDirsResponsePartitionData(number, error or ErrorCode.NONE))
    return response


def _refusal(broker: BrokerImage, topic: TopicImage | None, partition_id: int) -> ErrorCode | None:
    if topic is None:
        return ErrorCode.UNKNOWN_TOPIC_ID
    partition = topic.partitions.get(partition_id)
    if partition is None:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    return None if broker.id in partition.replicas else ErrorCode.NOT_LEADER_OR_FOLLOWER


def _move(
    state: ControllerState, broker: BrokerImage, directory: bytes, topic: TopicImage, partition_id: int
) -> PartitionChange:
    """A replica that comes from a directory that is gone begins empty: it loses its standing, as does one
    that goes to such a directory.
    """
    partition = topic.partitions[partition_id]
    usable = broker.has_online_directory(directory)
    kept = usable and broker.has_online_directory(partition.directory(broker.id))
    otherwise = acceptable_leader(state, partition)

    def acceptable(broker_id: int) -> bool:
        if broker_id == broker.id:
            return usable and state.is_active(broker_id)
        return otherwise(broker_id)

    change = partition_change(state, topic, partition_id)
    change.acceptable = acceptable
    change.moved[broker.id] = directory
    if not kept:
        take_out(change, broker.id, unclean=True)
    if state.unclean_election(topic):
        change.election = Election.UNCLEAN
    return change
