"""Elections: ElectLeaders v0–2, and those that the controller holds from time to time on its own.

On its own it gives leadership back to preferred replicas (auto.leader.rebalance.enable, every
leader.imbalance.check.interval.seconds), and finds leaders for partitions without one (every
unclean.leader.election.interval.ms, and at once when a topic begins to allow unclean elections). Both stop
at so many elections and go on in the next round, so that no round holds up the requests of brokers.
"""

from __future__ import annotations

from odradek.controller.partition_change import Election
from odradek.controller.replicas import partition_change, partition_changes
from odradek.controller.state import ControllerState, Decision
from odradek.metadata.image import PartitionImage
from odradek.metadata.records import NO_LEADER, PartitionChangeRecord, Record
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.elect_leaders import (
    ElectLeadersRequest,
    ElectLeadersResponse,
    PartitionResult,
    ReplicaElectionResult,
)

ELECTIONS_PER_ROUND_MAX = 1_000

_ELECTIONS = {0: Election.PREFERRED, 1: Election.UNCLEAN}


def elect_leaders(state: ControllerState, request: ElectLeadersRequest, version: int) -> Decision:
    """Elect the preferred leader (type 0), or any replica for partitions without a leader (type 1). For all
    partitions if none are named, and then those that need no election are not in the response. One named
    twice is elected once.
    """
    election = _ELECTIONS.get(request.election_type)
    if election is None:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Unknown election type {request.election_type}")
    everything = request.topic_partitions is None
    if request.topic_partitions is None:
        wanted = [(topic.name, list(topic.partitions)) for topic in state.image.topics.values()]
    else:
        merged: dict[str, list[int]] = {}
        for each in request.topic_partitions:
            merged.setdefault(each.topic, []).extend(each.partitions)
        wanted = list(merged.items())
    records: list[Record] = []
    results = []
    for name, partition_ids in wanted:
        outcomes = [_elect(state, name, number, election, records) for number in dict.fromkeys(partition_ids)]
        if everything:
            outcomes = [
                outcome for outcome in outcomes if outcome.error_code != ErrorCode.ELECTION_NOT_NEEDED
            ]
        results.append(ReplicaElectionResult(name, outcomes))
    return Decision(records, ElectLeadersResponse(replica_election_results=results), atomic=False)


def _elect(
    state: ControllerState, name: str, partition_id: int, election: Election, records: list[Record]
) -> PartitionResult:
    try:
        records.append(_election(state, name, partition_id, election))
    except KafkaError as error:
        return PartitionResult(partition_id, error.code, error.message or error.code.message)
    return PartitionResult(partition_id, ErrorCode.NONE, None)


def _election(
    state: ControllerState, name: str, partition_id: int, election: Election
) -> PartitionChangeRecord:
    topic = state.image.topics.get(name)
    if topic is None:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"No such topic as {name}")
    partition = topic.partitions.get(partition_id)
    if partition is None:
        why = f"No such partition as {name}-{partition_id}"
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, why)
    preferred = election is Election.PREFERRED
    if partition.leader == partition.replicas[0] if preferred else partition.has_leader:
        raise KafkaError(ErrorCode.ELECTION_NOT_NEEDED)
    change = partition_change(state, topic, partition_id)
    change.election = election
    record = change.build()
    if record is None:
        raise KafkaError(
            ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE
            if preferred
            else ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE
        )
    return record


def preferred_leaders(state: ControllerState) -> Decision:
    """Give leadership back to preferred replicas that are in sync, on brokers that are active."""
    records: list[Record] = []
    for topic in state.image.topics.values():
        for partition_id, partition in topic.partitions.items():
            if not _is_away(partition) or not state.is_active(partition.replicas[0]):
                continue
            change = partition_change(state, topic, partition_id)
            change.election = Election.PREFERRED
            record = change.build()
            if record is not None:
                records.append(record)
            if len(records) >= ELECTIONS_PER_ROUND_MAX:
                return Decision(records, atomic=False)
    return Decision(records, atomic=False)


def _is_away(partition: PartitionImage) -> bool:
    return partition.has_leader and partition.leader != partition.replicas[0]


def leaders_for_leaderless(state: ControllerState) -> Decision:
    """Elect leaders of partitions that have none, uncleanly where the topic allows it."""
    return Decision(leaderless_elections(state, ELECTIONS_PER_ROUND_MAX), atomic=False)


def leaderless_elections(state: ControllerState, most: int) -> list[Record]:
    return partition_changes(state, lambda partition: partition.leader == NO_LEADER, most=most)
