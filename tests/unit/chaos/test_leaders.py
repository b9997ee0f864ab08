"""Leaders are moved by two requests, which any broker passes on."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from struct import unpack
from typing import Any

import pytest

from odradek.chaos.leaders import move
from odradek.chaos.target import TargetError
from odradek.wire.apis import ApiKey, request_class
from odradek.wire.errors import ErrorCode
from odradek.wire.frame import encode_response
from odradek.wire.messages.alter_partition_reassignments import AlterPartitionReassignmentsResponse
from odradek.wire.messages.elect_leaders import (
    ElectLeadersResponse,
    PartitionResult,
    ReplicaElectionResult,
)

REPLICAS = {("t", 0): [1, 2, 3], ("t", 1): [1, 2, 3], ("u", 0): [2, 3, 4]}
HEADER = 4 + 4 + 2 + len("chaos") + 1
"""Key, version, correlation id, client id and no tags."""


def elected(*codes: ErrorCode) -> ElectLeadersResponse:
    results = [PartitionResult(partition_id=index, error_code=code) for index, code in enumerate(codes)]
    return ElectLeadersResponse(
        replica_election_results=[ReplicaElectionResult(topic="t", partition_result=results)]
    )


@contextmanager
def broker(*answers: Any) -> Iterator[tuple[str, list[Any]]]:
    """Gives these answers, one to a request; None hangs up. Yields its address and what it was asked."""
    asked: list[Any] = []
    left = list(answers)
    listener = socket.create_server(("localhost", 0))

    def serve() -> None:
        while left:
            connection, _ = listener.accept()
            with connection:
                while left and (answer := _answer(connection, left, asked)) is not None:
                    connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        yield f"localhost:{listener.getsockname()[1]}", asked
        thread.join(5)
        assert not thread.is_alive(), "not all of the answers were asked for"


def _answer(connection: socket.socket, left: list[Any], asked: list[Any]) -> bytes | None:
    head = connection.recv(4)
    if not head:
        return None
    frame = connection.recv(unpack(">i", head)[0], socket.MSG_WAITALL)
    key, version = unpack(">hh", frame[:4])
    asked.append(request_class(key).decode(memoryview(frame), version, HEADER))
    response = left.pop(0)
    if response is None:
        return None
    return encode_response(ApiKey(key), version, 1, response.encode(version))


def orders(request: Any) -> dict[tuple[str, int], Sequence[int]]:
    return {
        (topic.name, each.partition_index): each.replicas
        for topic in request.topics
        for each in topic.partitions
    }


def test_the_order_of_replicas_is_drawn_and_the_first_one_elected() -> None:
    answers = AlterPartitionReassignmentsResponse(), elected(ErrorCode.NONE, ErrorCode.ELECTION_NOT_NEEDED)
    with broker(*answers) as (address, asked):
        assert move(address, REPLICAS, random.Random(1)) == 1
    reassigned, election = asked
    drawn = orders(reassigned)
    assert {at: sorted(brokers) for at, brokers in drawn.items()} == REPLICAS
    assert drawn != REPLICAS
    wanted = {(topic.topic, index) for topic in election.topic_partitions for index in topic.partitions}
    assert wanted == set(REPLICAS) and election.election_type == 0


def test_what_is_drawn_comes_from_the_seed() -> None:
    seen = []
    for _ in range(2):
        with broker(AlterPartitionReassignmentsResponse(), elected()) as (address, asked):
            move(address, REPLICAS, random.Random(5))
            seen.append(orders(asked[0]))
    assert seen[0] == seen[1]


def test_a_controller_that_moves_is_asked_again() -> None:
    refused = AlterPartitionReassignmentsResponse(error_code=ErrorCode.NOT_CONTROLLER)
    done = AlterPartitionReassignmentsResponse(), elected(ErrorCode.NONE)
    with broker(None, refused, *done) as (address, asked):
        assert move(address, REPLICAS, random.Random(1)) == 1
    assert len(asked) == 4


def test_leaders_that_do_not_move_are_told() -> None:
    refused = [AlterPartitionReassignmentsResponse(error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED)] * 3
    with (
        broker(*refused) as (address, _),
        pytest.raises(TargetError, match=r"^leaders were not moved: CLUSTER_AUTHORIZATION_FAILED$"),
    ):
        move(address, REPLICAS, random.Random(1))


def test_an_election_that_fails_is_told() -> None:
    failing = AlterPartitionReassignmentsResponse(), elected(ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE)
    with (
        broker(*failing * 3) as (address, _),
        pytest.raises(TargetError, match="ELIGIBLE_LEADERS_NOT_AVAILABLE"),
    ):
        move(address, REPLICAS, random.Random(1))
