"""Replicas and their directories: where they are, where they come from, and what a lost disk costs them."""

from __future__ import annotations

from typing import Any

import pytest

from odradek.metadata.image import LOST_DIRECTORY, UNASSIGNED_DIRECTORY
from odradek.metadata.records import NO_LEADER
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.assign_replicas_to_dirs import (
    AssignReplicasToDirsRequest,
    AssignReplicasToDirsRequestDirectoryData,
    AssignReplicasToDirsRequestPartitionData,
    AssignReplicasToDirsRequestTopicData,
)
from unit.controller.controller_harness import Harness, directory, violations

NONE = ErrorCode.NONE
FIRST, SECOND, THIRD = directory(11), directory(12), directory(13)
MIN_2 = {"min.insync.replicas": "2"}


@pytest.fixture
def harness() -> Harness:
    """Broker 1 has two directories, 2 and 3 have one each."""
    harness = Harness()
    harness.start_broker(1, log_dirs=[FIRST, SECOND])
    harness.start_brokers(2, 3)
    return harness


def assign(
    harness: Harness, broker_id: int, *moves: tuple[bytes, bytes, int], epoch: int | None = None
) -> Any:
    """Moves are (directory, topic id, partition). The response, with error codes in the order of the moves."""
    directories = [
        AssignReplicasToDirsRequestDirectoryData(
            where,
            [
                AssignReplicasToDirsRequestTopicData(
                    topic_id, [AssignReplicasToDirsRequestPartitionData(partition_id)]
                )
            ],
        )
        for where, topic_id, partition_id in moves
    ]
    request = AssignReplicasToDirsRequest(
        broker_id, harness.epochs[broker_id] if epoch is None else epoch, directories
    )
    response = harness.call(AssignReplicasToDirsRequest.decode(request.encode(0), 0))
    response.encode(0)
    assert list(violations(harness.state)) == []
    return response


def codes(response: Any) -> list[int]:
    return [
        each.error_code
        for where in response.directories
        for topic in where.topics
        for each in topic.partitions
    ]


def place(harness: Harness, where: bytes, name: str = "a") -> None:
    """Broker 1 says where its replica is."""
    assert codes(assign(harness, 1, (where, harness.image.topics[name].id, 0))) == [NONE]


def test_a_broker_with_several_directories_says_where_its_replicas_are(harness: Harness) -> None:
    harness.create("a", [1, 2])
    before = harness.partition("a")
    assert before.directories == (UNASSIGNED_DIRECTORY, directory(2))
    place(harness, SECOND)
    after = harness.partition("a")
    assert after.directories == (SECOND, directory(2))
    assert (after.isr, after.leader, after.leader_epoch) == (before.isr, before.leader, before.leader_epoch)
    assert after.partition_epoch == before.partition_epoch + 1
    offset = harness.log.end_offset
    place(harness, SECOND)
    assert harness.log.end_offset == offset, "nothing new"


def test_what_is_not_there_is_refused_one_by_one(harness: Harness) -> None:
    harness.create("a", [1, 2])
    harness.create("b", [3])
    a, b = harness.image.topics["a"].id, harness.image.topics["b"].id
    response = assign(
        harness, 1, (FIRST, bytes(16), 0), (FIRST, a, 7), (FIRST, b, 0), (FIRST, a, 0), (SECOND, a, 0)
    )
    assert codes(response) == [
        ErrorCode.UNKNOWN_TOPIC_ID,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        NONE,
        ErrorCode.INVALID_REQUEST,
    ]
    assert harness.partition("a").directory(1) == FIRST
    stale = assign(harness, 1, (SECOND, a, 0), epoch=0)
    assert stale.error_code == ErrorCode.STALE_BROKER_EPOCH


def test_a_replica_assigned_to_a_directory_that_is_offline_loses_its_standing(harness: Harness) -> None:
    harness.create("a", [1, 2], configs=MIN_2)
    harness.heartbeat(1, offline_log_dirs=[SECOND])
    assert harness.partition("a").leader == 1, "it is not known where it is"
    place(harness, SECOND)
    partition = harness.partition("a")
    assert (partition.leader, partition.isr, partition.elr) == (2, (2,), ())


def test_replicas_on_a_disk_that_fails_are_not_relied_on(harness: Harness) -> None:
    harness.create("a", [1, 2], configs=MIN_2)
    harness.create("b", [1, 2], configs=MIN_2)
    place(harness, FIRST, "a")
    place(harness, SECOND, "b")
    assert harness.heartbeat(1, offline_log_dirs=[FIRST]).error_code == NONE
    partition = harness.partition("a")
    assert (partition.leader, partition.isr, partition.elr) == (2, (2,), ())
    assert (harness.partition("b").leader, harness.partition("b").isr) == (1, (1, 2))
    assert harness.image.brokers[1].directories == (SECOND,)


def test_a_replica_that_moves_from_a_lost_disk_begins_anew(harness: Harness) -> None:
    """It must not be elected with the empty log that it begins with."""
    harness.create("a", [1, 2], configs=MIN_2)
    place(harness, FIRST)
    harness.fence(1)
    harness.fence(2)
    assert harness.partition("a").elr == (1, 2)
    harness.register(1, incarnation=2, previous_broker_epoch=harness.epochs[1], log_dirs=[SECOND])
    assert harness.partition("a").elr == (2,)
    harness.heartbeat(1)
    place(harness, SECOND)
    assert harness.partition("a").leader == NO_LEADER
    harness.heartbeat(2)
    assert harness.partition("a").leader == 2


def test_a_replica_that_moves_between_disks_keeps_its_standing(harness: Harness) -> None:
    harness.create("a", [1, 2], configs=MIN_2)
    place(harness, FIRST)
    place(harness, SECOND)
    partition = harness.partition("a")
    assert (partition.leader, partition.isr, partition.directory(1)) == (1, (1, 2), SECOND)


def test_which_disk_was_lost_does_not_matter_where_it_is_not_known(harness: Harness) -> None:
    harness.create("a", [1, 2], configs=MIN_2)
    harness.fence(1)
    assert harness.partition("a").elr == (1,)
    harness.register(1, incarnation=2, previous_broker_epoch=harness.epochs[1], log_dirs=[SECOND, THIRD])
    assert harness.partition("a").elr == ()


def test_a_broker_that_comes_back_with_one_more_disk_keeps_its_standing(harness: Harness) -> None:
    harness.create("a", [1, 2], configs=MIN_2)
    harness.fence(1)
    directories = [FIRST, SECOND, THIRD]
    harness.register(1, incarnation=2, previous_broker_epoch=harness.epochs[1], log_dirs=directories)
    assert harness.partition("a").elr == (1,)


def test_an_amended_registration_without_a_disk_loses_what_was_on_it(harness: Harness) -> None:
    harness.create("a", [1, 2], configs=MIN_2)
    place(harness, FIRST)
    assert harness.register(1, log_dirs=[SECOND]).error_code == NONE
    assert (harness.partition("a").leader, harness.partition("a").isr) == (2, (2,))
    assert harness.image.brokers[1].active


def test_a_heartbeat_can_bring_a_broker_back_and_take_a_disk_away(harness: Harness) -> None:
    harness.create("a", [1, 2], configs=MIN_2)
    place(harness, FIRST)
    harness.fence(2)
    harness.fence(1)
    answer = harness.heartbeat(1, offline_log_dirs=[FIRST])
    assert not answer.is_fenced
    partition = harness.partition("a")
    assert (partition.leader, partition.isr, partition.elr) == (NO_LEADER, (), (2,))
    assert list(violations(harness.state)) == []


def test_a_broker_that_has_lost_all_its_disks_gets_no_replicas_and_leads_nothing(harness: Harness) -> None:
    harness.create("a", [2])
    harness.heartbeat(2, offline_log_dirs=[directory(2)])
    assert harness.partition("a").leader == NO_LEADER
    harness.heartbeat(2)
    assert harness.partition("a").leader == NO_LEADER
    assert harness.create("b", factor=3).error_code == ErrorCode.INVALID_REPLICATION_FACTOR
    assert harness.create("b", factor=2).error_code == NONE
    assert set(harness.partition("b").replicas) == {1, 3}


def test_a_directory_called_lost_is_lost(harness: Harness) -> None:
    harness.create("a", [1, 2], configs=MIN_2)
    place(harness, LOST_DIRECTORY)
    assert (harness.partition("a").leader, harness.partition("a").isr) == (2, (2,))
