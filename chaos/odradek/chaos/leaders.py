"""Leaders that move though nobody is broken: the replicas of a partition in another order, then the first one elected.

Any broker passes both requests on to the controller. Written on the wire: librdkafka has no way to ask for the first.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping, Sequence
from struct import unpack
from typing import Any

from odradek.chaos.target import TargetError
from odradek.wire.apis import response_class
from odradek.wire.errors import ErrorCode
from odradek.wire.frame import decode_response_header, encode_request
from odradek.wire.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    ReassignablePartition,
    ReassignableTopic,
)
from odradek.wire.messages.elect_leaders import ElectLeadersRequest, TopicPartitions
from odradek.wire.primitives import Message

TIMEOUT_S = 10.0
ATTEMPTS = 3
REASSIGNMENTS_VERSION, ELECTIONS_VERSION = 0, 2
PREFERRED = 0
NOTHING_TO_DO = (
    ErrorCode.NONE,
    ErrorCode.ELECTION_NOT_NEEDED,  # it leads already
    ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE,  # it is behind, and another one leads on
)

Replicas = Mapping[tuple[str, int], Sequence[int]]
"""By topic and partition, the brokers that have it."""


def move(bootstrap: str, replicas: Replicas, rng: random.Random) -> int:
    """Draw a leader for each of these partitions. How many have another one now. TargetError after some attempts."""
    drawn = {at: rng.sample(list(brokers), len(brokers)) for at, brokers in sorted(replicas.items())}
    addresses = bootstrap.split(",")
    problem = ""
    for attempt in range(ATTEMPTS):
        host, _, port = addresses[attempt % len(addresses)].rpartition(":")
        try:
            with socket.create_connection((host, int(port)), TIMEOUT_S) as connection:
                _order(connection, drawn)
                return _elect(connection, drawn)
        except (OSError, _RefusedError) as error:
            problem = str(error)
    raise TargetError(f"leaders were not moved: {problem}")


class _RefusedError(Exception):
    """An answer with an error that may be gone at the next attempt."""


def _order(connection: socket.socket, drawn: Replicas) -> None:
    topics: dict[str, ReassignableTopic] = {}
    for (name, index), brokers in drawn.items():
        topic = topics.setdefault(name, ReassignableTopic(name=name))
        topic.partitions.append(ReassignablePartition(partition_index=index, replicas=list(brokers)))
    request = AlterPartitionReassignmentsRequest(
        timeout_ms=int(TIMEOUT_S * 1000), topics=list(topics.values())
    )
    answer = _ask(connection, request, REASSIGNMENTS_VERSION)
    codes = [answer.error_code] + [each.error_code for of in answer.responses for each in of.partitions]
    for code in codes:
        if code:
            raise _RefusedError(ErrorCode.told(code).name)


def _elect(connection: socket.socket, drawn: Replicas) -> int:
    topics: dict[str, TopicPartitions] = {}
    for name, index in drawn:
        topics.setdefault(name, TopicPartitions(topic=name)).partitions.append(index)
    request = ElectLeadersRequest(
        election_type=PREFERRED, topic_partitions=list(topics.values()), timeout_ms=int(TIMEOUT_S * 1000)
    )
    answer = _ask(connection, request, ELECTIONS_VERSION)
    results = [each.error_code for of in answer.replica_election_results for each in of.partition_result]
    for code in (answer.error_code, *results):
        if code not in NOTHING_TO_DO:
            raise _RefusedError(ErrorCode.told(code).name)
    return results.count(ErrorCode.NONE)


def _ask(connection: socket.socket, request: Message, version: int) -> Any:
    key = request.API_KEY
    connection.sendall(encode_request(key, version, 1, "chaos", request.encode(version)))
    (size,) = unpack(">i", _read(connection, 4))
    frame = memoryview(_read(connection, size))
    _, start = decode_response_header(frame, key, version)
    return response_class(key).decode(frame, version, start)


def _read(connection: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        part = connection.recv(size - len(found))
        if not part:
            raise OSError("the connection was closed")
        found += part
    return bytes(found)
