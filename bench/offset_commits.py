"""Commits of offsets at a fixed rate, open loop (`raw_latency`): each of many groups commits one partition of a topic.

Groups without members, as of consumers that assign partitions themselves; a connection for each of them.
"""

from __future__ import annotations

import time

from bench.raw_client import Admin, BenchError, check
from bench.raw_frames import AnswerShape, first_difference
from bench.raw_latency import LatencyResult, TimedPipe, pace
from odradek.wire.errors import ErrorCode
from odradek.wire.frame import encode_request, encode_response
from odradek.wire.messages.find_coordinator import FindCoordinatorRequest, FindCoordinatorResponse
from odradek.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)

COMMIT_VERSION, FIND_VERSION = 9, 4
GROUP_KEY = 0
GROUPS = 50
PATIENCE_S = 60.0
CLIENT = "bench"


def commit_request(group: str, topic: str, partitions: range, offset: int = 1) -> OffsetCommitRequest:
    """Of a group without members."""
    parts = [OffsetCommitRequestPartition(index, offset, -1, "") for index in partitions]
    return OffsetCommitRequest(group, -1, "", None, -1, [OffsetCommitRequestTopic(topic, partitions=parts)])


def commit_error(admin: Admin, request: OffsetCommitRequest) -> int:
    """0, or the first error of a partition."""
    answer = admin.ask(request, COMMIT_VERSION, OffsetCommitResponse)
    return next((one.error_code for each in answer.topics for one in each.partitions if one.error_code), 0)


def coordinator_port(admin: Admin, group: str) -> tuple[int, int]:
    """(error code, port) of a group's coordinator."""
    request = FindCoordinatorRequest(key_type=GROUP_KEY, coordinator_keys=[group])
    found = admin.ask(request, FIND_VERSION, FindCoordinatorResponse).coordinators[0]
    return found.error_code, found.port


def commit_patiently(admin: Admin, request: OffsetCommitRequest) -> None:
    """Until it is taken: a new coordinator may still be loading."""
    deadline = time.monotonic() + PATIENCE_S
    while error := commit_error(admin, request):
        if time.monotonic() > deadline:
            check(error, "OffsetCommit")
        time.sleep(0.02)


def wait_for_coordinator(admin: Admin, group: str) -> int:
    """Its port. The first to ask makes the offsets topic."""
    deadline = time.monotonic() + PATIENCE_S
    while (found := coordinator_port(admin, group))[0] != ErrorCode.NONE:
        if time.monotonic() > deadline:
            raise BenchError(f"no coordinator after {PATIENCE_S:.0f} s")
        time.sleep(0.05)
    return found[1]


class CommitLoad:
    """Connections of groups that commit in turn, all to one node."""

    def __init__(self, port: int, topic: str) -> None:
        shape = answer_shape(topic)
        self._pipes: list[TimedPipe] = []
        with Admin(port) as admin:
            for number in range(GROUPS):
                request = commit_request(f"{topic}-{number:02}", topic, range(1))
                wait_for_coordinator(admin, request.group_id)
                commit_patiently(admin, request)
                body = request.encode(COMMIT_VERSION)
                frame = encode_request(request.API_KEY, COMMIT_VERSION, 1, CLIENT, body)
                self._pipes.append(TimedPipe(port, frame, shape))

    def run(self, rate: int, seconds: float, *, spin: bool) -> LatencyResult:
        return pace(self._pipes, rate, seconds, spin=spin)

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.sock.close()


def answer_shape(topic: str) -> AnswerShape:
    good = answer(topic, 0)
    return AnswerShape(len(good), first_difference(good, answer(topic, 0x0101)))


def answer(topic: str, error_code: int) -> bytes:
    parts = [OffsetCommitResponsePartition(0, error_code)]
    response = OffsetCommitResponse(topics=[OffsetCommitResponseTopic(topic, partitions=parts)])
    body = response.encode(COMMIT_VERSION)
    return encode_response(response.API_KEY, COMMIT_VERSION, 1, body)
