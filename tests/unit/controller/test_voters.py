"""Requests that change the quorum: what Raft is asked, and what becomes of its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from odradek.controller.voters import VoterChanges, change_voters
from odradek.raft.effects import AddVoter, RemoveVoter
from odradek.raft.voters import Endpoint, ReplicaKey, Voter
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.add_raft_voter import AddRaftVoterRequest, Listener
from odradek.wire.messages.remove_raft_voter import RemoveRaftVoterRequest
from odradek.wire.messages.update_raft_voter import UpdateRaftVoterRequest
from unit.controller.controller_harness import CLUSTER
from unit.controller.test_metadata_quorum import MetadataNode

DIRECTORY = bytes(15) + b"\x07"
ADD = AddRaftVoterRequest(CLUSTER, 1_000, 4, DIRECTORY, [Listener("CONTROLLER", "host4", 9093)])
REMOVE = RemoveRaftVoterRequest(CLUSTER, 4, DIRECTORY)


class Raft:
    """Answers what it was made to."""

    def __init__(self, code: ErrorCode = ErrorCode.NONE, reason: str = "") -> None:
        self.answer = code, reason
        self.changes: list[AddVoter | RemoveVoter] = []

    def change_voters(self, change: AddVoter | RemoveVoter, done: Callable[[ErrorCode, str], None]) -> None:
        self.changes.append(change)
        done(*self.answer)


def ask(raft: object, request: Any) -> Any:
    answers: list[Any] = []
    change_voters(raft, CLUSTER, request, request.MAX_VERSION, answers.append)
    [answer] = answers
    if answer is not None:
        answer.encode(request.MAX_VERSION)
    return answer


def test_voters_are_added_and_removed_by_raft() -> None:
    raft = Raft()
    assert isinstance(raft, VoterChanges)
    for request in (ADD, REMOVE):
        answer = ask(raft, request)
        assert (answer.error_code, answer.error_message) == (ErrorCode.NONE, None)
    key = ReplicaKey(4, DIRECTORY)
    voter = Voter(key, (Endpoint("CONTROLLER", "host4", 9093),))
    assert raft.changes == [AddVoter(voter), RemoveVoter(key)]


def test_what_raft_refuses_is_told_with_its_reason() -> None:
    answer = ask(Raft(ErrorCode.DUPLICATE_VOTER, "4 is a voter already"), ADD)
    assert (answer.error_code, answer.error_message) == (ErrorCode.DUPLICATE_VOTER, "4 is a voter already")


def test_when_leadership_is_lost_meanwhile_the_next_leader_is_to_be_asked() -> None:
    assert ask(Raft(ErrorCode.NOT_LEADER_OR_FOLLOWER), ADD) is None


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (AddRaftVoterRequest("another", 1_000, 4, DIRECTORY), ErrorCode.INCONSISTENT_CLUSTER_ID),
        (AddRaftVoterRequest(None, 1_000, 4, DIRECTORY), ErrorCode.INVALID_REQUEST),
        (RemoveRaftVoterRequest("another", 4, DIRECTORY), ErrorCode.INCONSISTENT_CLUSTER_ID),
        (UpdateRaftVoterRequest(CLUSTER, 1, 4, DIRECTORY), ErrorCode.UNSUPPORTED_VERSION),
    ],
)
def test_what_cannot_be_is_refused_without_asking_raft(request_: Any, code: ErrorCode) -> None:
    raft = Raft()
    assert ask(raft, request_).error_code == code
    assert raft.changes == []


def test_static_voters_cannot_be_changed() -> None:
    node = MetadataNode().start()
    answer = node.call(ADD)
    assert answer.error_code == ErrorCode.UNSUPPORTED_VERSION
    assert answer.error_message
