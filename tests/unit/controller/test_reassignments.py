"""Moving replicas: growth, shrinking, exchange, cancelling; and what the ISR, ELR and leader do meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from odradek.controller import reassignments
from odradek.metadata.image import UNASSIGNED_DIRECTORY, PartitionImage
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    ReassignablePartition,
    ReassignableTopic,
)
from odradek.wire.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsTopics,
)
from unit.controller.controller_harness import Harness, alter_isr, directory, set_config, violations

NONE = ErrorCode.NONE
THROTTLE = "leader.replication.throttled.replicas"


@pytest.fixture
def harness() -> Harness:
    harness = Harness()
    harness.start_brokers(1, 2, 3, 4, 5)
    return harness


def reassign(
    harness: Harness, name: str, target: list[int] | None, partition_id: int = 0, **options: Any
) -> tuple[int, str | None]:
    topic = ReassignableTopic(name, [ReassignablePartition(partition_id, target)])
    response = harness.call(AlterPartitionReassignmentsRequest(topics=[topic], **options))
    assert response.error_code == NONE
    assert list(violations(harness.state)) == []
    [result] = response.responses[0].partitions
    return result.error_code, result.error_message


def placement(partition: PartitionImage) -> tuple[Any, ...]:
    return partition.replicas, partition.isr, partition.adding, partition.removing


def ongoing(harness: Harness, topics: Any = None) -> list[tuple[str, int, list[int], list[int], list[int]]]:
    response = harness.call(ListPartitionReassignmentsRequest(topics=topics))
    return [
        (topic.name, each.partition_index, each.replicas, each.adding_replicas, each.removing_replicas)
        for topic in response.topics
        for each in topic.partitions
    ]


def test_growth_adds_replicas_and_is_complete_when_they_are_in_sync(harness: Harness) -> None:
    harness.create("a", [1])
    assert reassign(harness, "a", [1, 2, 3]) == (NONE, None)
    partition = harness.partition("a")
    assert placement(partition) == ((1, 2, 3), (1,), (2, 3), ())
    assert (partition.leader, partition.leader_epoch) == (1, 0)
    assert partition.directories == (directory(1), directory(2), directory(3))
    assert ongoing(harness) == [("a", 0, [1, 2, 3], [2, 3], [])]
    alter_isr(harness, "a", 1, [1, 3])
    assert placement(harness.partition("a")) == ((1, 2, 3), (1, 3), (2, 3), ())
    alter_isr(harness, "a", 1, [1, 3, 2])
    assert placement(harness.partition("a")) == ((1, 2, 3), (1, 3, 2), (), ())
    assert ongoing(harness) == []


def test_shrinking_is_complete_at_once_if_those_that_stay_are_in_sync(harness: Harness) -> None:
    harness.create("a", [1, 2, 3])
    assert reassign(harness, "a", [3, 1]) == (NONE, None)
    partition = harness.partition("a")
    assert placement(partition) == ((3, 1), (1, 3), (), ())
    assert partition.leader == 1
    assert partition.leader_epoch == 1, "a replica that is taken away must not follow any more"
    assert partition.directories == (directory(3), directory(1))


def test_shrinking_waits_for_those_that_stay(harness: Harness) -> None:
    harness.create("a", [1, 2, 3])
    alter_isr(harness, "a", 1, [1, 2])
    reassign(harness, "a", [1, 3])
    assert placement(harness.partition("a")) == ((1, 3, 2), (1, 2), (), (2,))
    alter_isr(harness, "a", 1, [1, 2, 3])
    assert placement(harness.partition("a")) == ((1, 3), (1, 3), (), ())


def test_the_leader_that_is_moved_away_hands_over_when_it_is_done(harness: Harness) -> None:
    harness.create("a", [1, 2])
    reassign(harness, "a", [3, 4])
    assert placement(harness.partition("a")) == ((3, 4, 1, 2), (1, 2), (3, 4), (1, 2))
    assert harness.partition("a").leader == 1
    alter_isr(harness, "a", 1, [1, 2, 3])
    last = alter_isr(harness, "a", 1, [1, 2, 3, 4])
    assert last.error_code == ErrorCode.NEW_LEADER_ELECTED
    partition = harness.partition("a")
    assert placement(partition) == ((3, 4), (3, 4), (), ())
    assert (partition.leader, partition.leader_epoch) == (3, 1)


def test_another_order_is_no_move(harness: Harness) -> None:
    harness.create("a", [1, 2, 3])
    reassign(harness, "a", [3, 2, 1])
    partition = harness.partition("a")
    assert placement(partition) == ((3, 2, 1), (1, 2, 3), (), ())
    assert (partition.leader, partition.leader_epoch) == (1, 0)
    offset = harness.log.end_offset
    reassign(harness, "a", [3, 2, 1])
    assert harness.log.end_offset == offset, "nothing to do"


def test_a_reassignment_under_way_can_be_given_another_target(harness: Harness) -> None:
    harness.create("a", [1, 2])
    reassign(harness, "a", [3, 4])
    reassign(harness, "a", [1, 5])
    assert placement(harness.partition("a")) == ((1, 5, 2, 3, 4), (1, 2), (5,), (2, 3, 4))
    alter_isr(harness, "a", 1, [1, 2, 5])
    assert placement(harness.partition("a")) == ((1, 5), (1, 5), (), ())


def test_back_to_where_it_came_from(harness: Harness) -> None:
    harness.create("a", [1, 2])
    reassign(harness, "a", [2, 3])
    assert placement(harness.partition("a")) == ((2, 3, 1), (1, 2), (3,), (1,))
    reassign(harness, "a", [1, 2])
    assert placement(harness.partition("a")) == ((1, 2), (1, 2), (), ())


def test_cancelling_takes_the_new_replicas_away_again(harness: Harness) -> None:
    harness.create("a", [1, 2])
    reassign(harness, "a", [3, 4])
    alter_isr(harness, "a", 1, [1, 2, 3])
    assert reassign(harness, "a", None) == (NONE, None)
    partition = harness.partition("a")
    assert placement(partition) == ((1, 2), (1, 2), (), ())
    assert partition.leader_epoch == 1
    assert reassign(harness, "a", None) == (ErrorCode.NO_REASSIGNMENT_IN_PROGRESS, None)


@pytest.mark.parametrize("unclean", [False, True])
def test_cancelling_when_only_new_replicas_are_in_sync_may_lose_records(
    harness: Harness, unclean: bool
) -> None:
    harness.create("a", [1], configs={"unclean.leader.election.enable": str(unclean).lower()})
    reassign(harness, "a", [2, 3])
    alter_isr(harness, "a", 1, [1, 2])
    harness.fence(1)
    assert placement(harness.partition("a")) == ((2, 3, 1), (2,), (2, 3), (1,))
    code, message = reassign(harness, "a", None)
    if unclean:
        assert code == NONE
        assert placement(harness.partition("a")) == ((1,), (), (), ())
        harness.heartbeat(1)
        assert harness.partition("a").leader == 1
    else:
        assert code == ErrorCode.INVALID_REPLICA_ASSIGNMENT
        assert message == (
            "Unable to revert partition assignment for a:0 because it would require an unclean leader election."
        )
        assert placement(harness.partition("a")) == ((2, 3, 1), (2,), (2, 3), (1,))


def test_a_partition_of_one_replica_needs_no_more_while_it_moves(harness: Harness) -> None:
    harness.create("a", [1], configs={"min.insync.replicas": "2"})
    reassign(harness, "a", [2])
    alter_isr(harness, "a", 1, [1])
    assert harness.partition("a").elr == ()
    alter_isr(harness, "a", 1, [1, 2])
    partition = harness.partition("a")
    assert (placement(partition), partition.leader, partition.elr) == (((2,), (2,), (), ()), 2, ())


def test_after_growth_min_insync_replicas_counts_in_full(harness: Harness) -> None:
    harness.create("a", [1], configs={"min.insync.replicas": "2"})
    reassign(harness, "a", [1, 2, 3])
    alter_isr(harness, "a", 1, [1, 2, 3])
    harness.fence(2)
    assert harness.partition("a").elr == ()
    harness.fence(3)
    partition = harness.partition("a")
    assert (partition.isr, partition.elr) == ((1,), (3,))
    assert reassign(harness, "a", [1])[0] == NONE
    assert harness.partition("a").elr == (), "one is enough now"


def test_where_a_new_replica_will_be_is_known_of_brokers_with_one_directory(harness: Harness) -> None:
    harness.start_broker(6, log_dirs=[directory(6), directory(66)])
    harness.create("a", [1])
    reassign(harness, "a", [1, 6])
    assert harness.partition("a").directories == (directory(1), UNASSIGNED_DIRECTORY)


def test_throttles_stay_as_they_are(harness: Harness) -> None:
    harness.create("a", [1, 2])
    set_config(harness, "a", THROTTLE, "0:1,0:2")
    reassign(harness, "a", [3, 4])
    reassign(harness, "a", None)
    assert harness.image.config(2, "a")[THROTTLE] == "0:1,0:2"


@pytest.mark.parametrize(
    ("name", "partition_id", "target", "code", "text"),
    [
        ("b", 0, [1], ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "Unable to find a topic named b."),
        ("a", 7, [1], ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "Unable to find partition a:7."),
        (
            "a",
            0,
            [],
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "The manual partition assignment includes an empty replica list.",
        ),
        (
            "a",
            0,
            [1, 9],
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "The manual partition assignment includes broker 9, but no such broker is registered.",
        ),
        (
            "a",
            0,
            [2, 2],
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "The manual partition assignment includes the broker 2 more than once.",
        ),
    ],
)
def test_a_target_that_cannot_be_is_refused(
    harness: Harness, name: str, partition_id: int, target: list[int], code: ErrorCode, text: str
) -> None:
    harness.create("a", [1, 2])
    offset = harness.log.end_offset
    assert reassign(harness, name, target, partition_id) == (code, text)
    assert harness.log.end_offset == offset


def test_the_number_of_replicas_can_be_guarded(harness: Harness) -> None:
    harness.create("a", [1, 2])
    fixed = {"allow_replication_factor_change": False}
    code, text = reassign(harness, "a", [1, 2, 3], **fixed)
    assert (code, text) == (
        ErrorCode.INVALID_REPLICATION_FACTOR,
        "The replication factor is changed from 2 to 3",
    )
    assert reassign(harness, "a", [3, 4], **fixed) == (NONE, None)
    assert reassign(harness, "a", [3, 5], **fixed) == (NONE, None), "what counts is where it leads to"
    assert reassign(harness, "a", [1], **fixed)[0] == ErrorCode.INVALID_REPLICATION_FACTOR


def test_each_partition_succeeds_or_fails_for_itself_and_is_named_once(harness: Harness) -> None:
    harness.create("a", [1], [2])
    wanted = [
        ReassignablePartition(0, [3]),
        ReassignablePartition(9, [3]),
        ReassignablePartition(1, [4]),
        ReassignablePartition(0, [5]),
    ]
    request = AlterPartitionReassignmentsRequest(topics=[ReassignableTopic("a", wanted)])
    for version in range(2):
        AlterPartitionReassignmentsRequest.decode(request.encode(version), version)
    response = harness.call(request)
    assert [each.error_code for each in response.responses[0].partitions] == [
        NONE,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        NONE,
        ErrorCode.INVALID_REQUEST,
    ]
    assert [row[:2] for row in ongoing(harness)] == [("a", 0), ("a", 1)]
    named = [ListPartitionReassignmentsTopics("a", [1, 5]), ListPartitionReassignmentsTopics("zzz", [0])]
    assert ongoing(harness, named) == [("a", 1, [4, 2], [4], [2])]
    assert ongoing(harness, []) == []
    for version in range(2):
        response.encode(version)


def test_too_much_at_once_is_refused_as_a_whole(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reassignments, "RECORDS_PER_REQUEST_MAX", 1)
    harness.create("a", [1], [2])
    wanted = [ReassignablePartition(number, [3]) for number in range(2)]
    response = harness.call(AlterPartitionReassignmentsRequest(topics=[ReassignableTopic("a", wanted)]))
    assert response.error_code == ErrorCode.POLICY_VIOLATION
    assert ongoing(harness) == []


def test_brokers_that_come_and_go_do_not_disturb_a_reassignment(harness: Harness) -> None:
    harness.create("a", [1, 2], configs={"min.insync.replicas": "2"})
    reassign(harness, "a", [3, 4])
    harness.fence(3)
    harness.fence(1)
    partition = harness.partition("a")
    assert (partition.leader, partition.isr, partition.elr) == (2, (2,), (1,))
    harness.heartbeat(3)
    alter_isr(harness, "a", 2, [2, 3, 4])
    partition = harness.partition("a")
    assert (placement(partition), partition.leader, partition.elr) == (((3, 4), (3, 4), (), ()), 3, ())
    harness.heartbeat(1)
    assert list(violations(harness.state)) == []
