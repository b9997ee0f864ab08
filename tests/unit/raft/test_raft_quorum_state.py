"""The vote file against what Apache Kafka 4.3.1 (`FileQuorumStateStore`) wrote, and against what is none."""

from __future__ import annotations

import json

import pytest

from odradek.raft.quorum_state import CorruptQuorumState, QuorumState
from odradek.raft.voters import ReplicaKey
from odradek.wire.uuid import ZERO_UUID, uuid_from_string

DIRECTORY = uuid_from_string("O4NHk8dkSlC7mxCpVuYLJA")

KAFKA_1 = {
    b'{"leaderId":1,"leaderEpoch":5,"votedId":1,"votedDirectoryId":"O4NHk8dkSlC7mxCpVuYLJA","data_version":1}': (
        QuorumState(5, 1, ReplicaKey(1, DIRECTORY))
    ),
    b'{"leaderId":-1,"leaderEpoch":6,"votedId":2,"votedDirectoryId":"AAAAAAAAAAAAAAAAAAAAAA","data_version":1}': (
        QuorumState(6, -1, ReplicaKey(2, ZERO_UUID))
    ),
    b'{"leaderId":-1,"leaderEpoch":7,"votedId":-1,"votedDirectoryId":"AAAAAAAAAAAAAAAAAAAAAA","data_version":1}': (
        QuorumState(7, -1, None)
    ),
}
KAFKA_0 = (
    b'{"clusterId":"","leaderId":1,"leaderEpoch":5,"votedId":1,"appliedOffset":0,'
    b'"currentVoters":[{"voterId":1},{"voterId":2},{"voterId":3}],"data_version":0}'
)


@pytest.mark.parametrize(("text", "state"), KAFKA_1.items())
def test_it_reads_and_writes_kafkas_bytes(text: bytes, state: QuorumState) -> None:
    assert QuorumState.decode(text) == state
    assert state.encode() == text


def test_it_reads_the_file_of_a_static_quorum() -> None:
    assert QuorumState.decode(KAFKA_0) == QuorumState(5, 1, ReplicaKey(1))


@pytest.mark.parametrize("length", range(0, 100, 7))
def test_a_truncated_file_is_corrupt(length: int) -> None:
    text = next(iter(KAFKA_1))
    with pytest.raises(CorruptQuorumState):
        QuorumState.decode(text[:length])


@pytest.mark.parametrize(
    "change",
    [
        {"data_version": 2},
        {"data_version": None},
        {"leaderEpoch": -1},
        {"leaderEpoch": "5"},
        {"leaderEpoch": 5.0},
        {"leaderId": -2},
        {"votedId": -2},
        {"votedId": True},
        {"votedDirectoryId": 7},
        {"votedDirectoryId": "short"},
    ],
    ids=str,
)
def test_a_file_with_a_wrong_field_is_corrupt(change: dict[str, object]) -> None:
    fields = json.loads(next(iter(KAFKA_1))) | change
    with pytest.raises(CorruptQuorumState):
        QuorumState.decode(json.dumps(fields).encode())


@pytest.mark.parametrize("text", [b"[]", b"null", b"\xff\xfe", b"{}", b"[" * 100_000])
def test_what_is_no_vote_file_is_corrupt(text: bytes) -> None:
    with pytest.raises(CorruptQuorumState):
        QuorumState.decode(text)
