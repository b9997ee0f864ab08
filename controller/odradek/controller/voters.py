"""Changing the quorum: AddRaftVoter v0–1, RemoveRaftVoter v0, UpdateRaftVoter v0 (KIP-853).

The Raft core decides and writes; here requests become its events. One change at a time: another meanwhile is
REQUEST_TIMED_OUT, as is a joiner that has not caught up with the log. Voters named by
controller.quorum.voters are static, and their quorum cannot be changed (UNSUPPORTED_VERSION).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from odradek.controller.responses import error_response
from odradek.raft.effects import AddVoter, RemoveVoter
from odradek.raft.voters import Endpoint, ReplicaKey, Voter
from odradek.wire.apis import ApiKey
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.primitives import Message

Done = Callable[[Message | None], None]


@runtime_checkable
class VoterChanges(Protocol):
    """What the leader of the quorum offers."""

    def change_voters(self, change: AddVoter | RemoveVoter, done: Callable[[ErrorCode, str], None]) -> None:
        """`done` once: (NONE, "") when the change is committed, or why it was refused or given up;
        NOT_LEADER_OR_FOLLOWER if leadership was lost before its fate was known.
        """
        ...


def change_voters(raft: object, cluster_id: str, request: Message, version: int, done: Done) -> None:
    """Have the leader of the quorum change it; None if it is not the leader, or not any more."""

    def ended(error: ErrorCode, reason: str) -> None:
        if error is ErrorCode.NOT_LEADER_OR_FOLLOWER:
            done(None)
        else:
            done(_response(request, version, error, reason))

    try:
        change = _change(request, cluster_id)
    except KafkaError as error:
        ended(error.code, error.message or "")
        return
    if isinstance(raft, VoterChanges):
        raft.change_voters(change, ended)
    else:
        ended(ErrorCode.UNSUPPORTED_VERSION, "The voters of this quorum cannot be changed.")


def _change(request: Any, cluster_id: str) -> AddVoter | RemoveVoter:
    if request.cluster_id is not None and request.cluster_id != cluster_id:
        raise KafkaError(ErrorCode.INCONSISTENT_CLUSTER_ID)
    key = ReplicaKey(request.voter_id, request.voter_directory_id)
    if request.API_KEY == ApiKey.REMOVE_RAFT_VOTER:
        return RemoveVoter(key)
    if request.API_KEY == ApiKey.UPDATE_RAFT_VOTER:
        why = "A voter cannot move to another address: remove it and add it anew."
        raise KafkaError(ErrorCode.UNSUPPORTED_VERSION, why)
    endpoints = tuple(Endpoint(each.name, each.host, each.port) for each in request.listeners)
    if not endpoints:
        why = "Add voter request didn't include the endpoint of the voter."
        raise KafkaError(ErrorCode.INVALID_REQUEST, why)
    return AddVoter(Voter(key, endpoints))


def _response(request: Message, version: int, error: ErrorCode, reason: str) -> Message:
    response: Any = error_response(request, version, error, reason or None)
    if error is ErrorCode.NONE and hasattr(response, "error_message"):
        response.error_message = None
    return response  # type: ignore[no-any-return]
