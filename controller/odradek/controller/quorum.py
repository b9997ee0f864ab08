"""The metadata quorum as tools see it: DescribeQuorum v0–2 (KIP-595, 836, 853)."""

from __future__ import annotations

from collections.abc import Iterable

from odradek.controller.topics import METADATA_TOPIC
from odradek.raft.raft_driver import QuorumStatus, ReplicaStatus
from odradek.raft.voters import VoterSet
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.describe_quorum import (
    DescribeQuorumRequest,
    DescribeQuorumResponse,
    DescribeQuorumResponsePartitionData,
    DescribeQuorumResponseTopicData,
    Listener,
    Node,
    ReplicaState,
)
from odradek.wire.uuid import ZERO_UUID


def describe_quorum(
    request: DescribeQuorumRequest, version: int, status: QuorumStatus, voters: VoterSet
) -> DescribeQuorumResponse:
    """What the leader of the quorum knows of it. It has one partition; any other is
    UNKNOWN_TOPIC_OR_PARTITION.
    """
    asked = [
        (topic.topic_name, [each.partition_index for each in topic.partitions]) for topic in request.topics
    ]
    if asked != [(METADATA_TOPIC, [0])]:
        return _unknown(request)
    partition = DescribeQuorumResponsePartitionData(
        partition_index=0,
        error_message=None,
        leader_id=status.leader_id,
        leader_epoch=status.epoch,
        high_watermark=status.high_watermark,
        current_voters=_states(status.voters, version),
        observers=_states(status.observers, version),
    )
    return DescribeQuorumResponse(
        error_message=None,
        topics=[DescribeQuorumResponseTopicData(METADATA_TOPIC, [partition])],
        nodes=_nodes(voters) if version >= 2 else [],
    )


def _nodes(voters: VoterSet) -> list[Node]:
    return [Node(voter.id, [Listener(*endpoint) for endpoint in voter.endpoints]) for voter in voters.voters]


def _states(replicas: Iterable[ReplicaStatus], version: int) -> list[ReplicaState]:
    return [
        ReplicaState(
            replica_id=replica.key.id,
            replica_directory_id=replica.key.directory_id if version >= 2 else ZERO_UUID,
            log_end_offset=replica.log_end_offset,
            last_fetch_timestamp=replica.last_fetch_ms,
            last_caught_up_timestamp=replica.last_caught_up_ms,
        )
        for replica in replicas
    ]


def _unknown(request: DescribeQuorumRequest) -> DescribeQuorumResponse:
    code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    topics = [
        DescribeQuorumResponseTopicData(
            topic.topic_name,
            [
                DescribeQuorumResponsePartitionData(each.partition_index, code, code.message)
                for each in topic.partitions
            ],
        )
        for topic in request.topics
    ]
    return DescribeQuorumResponse(error_message=None, topics=topics)
