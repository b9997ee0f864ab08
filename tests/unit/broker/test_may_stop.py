"""Whether the others can do without a node."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from odradek.broker.may_stop import may_stop
from odradek.metadata.image import PartitionImage
from odradek.raft.voters import ReplicaKey, Voter, VoterSet
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.describe_quorum import (
    DescribeQuorumResponse,
    DescribeQuorumResponsePartitionData,
    DescribeQuorumResponseTopicData,
    ReplicaState,
)

ME = 1
FETCH_MS = 1_000
NOW_MS = 1_700_000_000_000


def quorum_of(*fetched_ms_ago: int, error: ErrorCode = ErrorCode.NONE) -> DescribeQuorumResponse:
    """Voters 1, 2, … and how long ago each has fetched."""
    voters = [
        ReplicaState(replica_id=number, last_fetch_timestamp=NOW_MS - ago if ago >= 0 else -1)
        for number, ago in enumerate(fetched_ms_ago, 1)
    ]
    partition = DescribeQuorumResponsePartitionData(partition_index=0, current_voters=voters)
    return DescribeQuorumResponse(
        error_code=error, topics=[DescribeQuorumResponseTopicData("__cluster_metadata", [partition])]
    )


def asked(
    *isr: int,
    replicas: int = 3,
    min_isr: int = 2,
    voters: int = 3,
    answer: DescribeQuorumResponse | None = None,
) -> list[str]:
    """What node 1 of a cluster with the partition t-0 says."""
    state = PartitionImage(replicas=tuple(range(1, replicas + 1)), isr=isr, leader=isr[0] if isr else -1)
    told: list[Any] = []
    quorum = SimpleNamespace(
        raft=SimpleNamespace(
            me=ReplicaKey(ME), voters=VoterSet.of([Voter(ReplicaKey(each)) for each in range(1, voters + 1)])
        ),
        handle=lambda request, version, now_ms, done, timeout_ms: done(answer or quorum_of(*[0] * voters)),
    )
    node: Any = SimpleNamespace(
        config=SimpleNamespace(node_id=ME, controller_quorum_fetch_timeout_ms=FETCH_MS),
        ports=SimpleNamespace(clock=SimpleNamespace(monotonic_ms=lambda: 0)),
        quorum=quorum,
        image=SimpleNamespace(topics={"t": SimpleNamespace(partitions={0: state})}),
        partitions={("t", 0): SimpleNamespace(replica=SimpleNamespace(min_isr=min_isr))},
    )
    may_stop(node, told.append)
    (found,) = told
    assert found.ok is found.body["may_stop"] is (not found.body["reasons"])
    return list(found.body["reasons"])


IN_NEED = ["partitions that would have fewer in-sync replicas than min.insync.replicas: t-0 (1)"]


@pytest.mark.parametrize(
    ("isr", "settings", "reasons"),
    [
        ((1, 2, 3), {}, []),
        ((1, 2), {}, IN_NEED),
        ((1,), {}, IN_NEED),
        # It is not one of those that are in sync.
        ((2, 3), {}, []),
        ((), {}, []),
        # Waiting would not help: there are no other replicas.
        ((1,), {"replicas": 1, "min_isr": 1}, []),
        ((1, 2), {"replicas": 2}, []),
        ((1,), {"replicas": 2, "min_isr": 1}, IN_NEED),
    ],
)
def test_partitions_keep_min_insync_replicas(
    isr: tuple[int, ...], settings: dict[str, int], reasons: list[str]
) -> None:
    assert asked(*isr, **settings) == reasons


@pytest.mark.parametrize(
    ("answer", "reasons"),
    [
        (quorum_of(0, 10, 400), []),
        (quorum_of(0, 10, -1), ["only 1 of 3 controllers would be left, which is no majority"]),
        (quorum_of(0, 10, 2_001), ["only 1 of 3 controllers would be left, which is no majority"]),
        (quorum_of(-1, 10, 0), []),
        (quorum_of(0, 0, 0, 0, -1), []),
        (quorum_of(error=ErrorCode.REQUEST_TIMED_OUT), ["no active controller answers"]),
        (DescribeQuorumResponse(), ["no active controller answers"]),
    ],
)
def test_a_majority_of_the_controllers_goes_on(answer: DescribeQuorumResponse, reasons: list[str]) -> None:
    assert asked(1, 2, 3, answer=answer) == reasons


def test_a_broker_that_is_no_controller_and_the_only_controller_ask_nobody() -> None:
    nobody = DescribeQuorumResponse()
    assert asked(1, 2, 3, voters=1, answer=nobody) == []
    assert asked(1, 2, 3, voters=0, answer=nobody) == []
