"""Topics and partitions, beyond what the recorded answers of Kafka cover (test_admin_answers.py)."""

from collections import Counter
from dataclasses import replace

import pytest

from odradek.metadata.image import UNASSIGNED_DIRECTORY
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.create_partitions import (
    CreatePartitionsAssignment,
    CreatePartitionsRequest,
    CreatePartitionsTopic,
)
from odradek.wire.messages.create_topics import CreateTopicsRequest
from odradek.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from odradek.wire.messages.elect_leaders import ElectLeadersRequest, TopicPartitions
from unit.controller.controller_harness import (
    Harness,
    alter_isr,
    directory,
    new_topic,
    set_config,
    violations,
)


@pytest.fixture
def harness() -> Harness:
    harness = Harness(num_partitions=3, default_replication_factor=2)
    for broker_id in range(4):
        harness.start_broker(broker_id, rack=f"r{broker_id % 2}")
    return harness


def test_defaults_are_the_controllers(harness: Harness) -> None:
    result = harness.create("a", partitions=-1, factor=-1)
    assert (result.num_partitions, result.replication_factor) == (3, 2)
    assert [len(partition.replicas) for partition in harness.image.topics["a"].partitions.values()] == [
        2,
        2,
        2,
    ]


def test_replicas_are_placed_over_racks_and_leaders_over_brokers(harness: Harness) -> None:
    harness.create("a", partitions=8, factor=2)
    partitions = harness.image.topics["a"].partitions.values()
    assert all(len({replica % 2 for replica in partition.replicas}) == 2 for partition in partitions)
    assert set(Counter(partition.leader for partition in partitions).values()) == {2}


def test_a_new_partition_is_led_by_its_first_active_replica(harness: Harness) -> None:
    harness.fence(1)
    result = harness.create("a", [1, 2, 0])
    assert result.error_code == ErrorCode.NONE
    partition = harness.partition("a")
    assert (partition.replicas, partition.isr, partition.leader) == ((1, 2, 0), (2, 0), 2)
    assert (partition.leader_epoch, partition.partition_epoch) == (0, 0)
    assert partition.directories == (directory(1), directory(2), directory(0))


def test_a_broker_with_several_directories_chooses_itself(harness: Harness) -> None:
    harness.start_broker(4, log_dirs=[directory(4), directory(5)])
    harness.create("a", [4, 0])
    assert harness.partition("a").directories == (UNASSIGNED_DIRECTORY, directory(0))


def test_an_assignment_without_an_active_broker_is_refused(harness: Harness) -> None:
    harness.fence(1)
    result = harness.create("a", [1])
    assert result.error_code == ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert result.error_message == (
        "All brokers specified in the manual partition assignment for partition 0 are fenced or in controlled shutdown."
    )


def test_without_an_unfenced_broker_nothing_is_created(harness: Harness) -> None:
    for broker_id in range(4):
        harness.fence(broker_id)
    result = harness.create("a")
    assert result.error_code == ErrorCode.INVALID_REPLICATION_FACTOR
    assert (
        result.error_message
        == "Unable to replicate the partition 1 time(s): All brokers are currently fenced, or have all their log "
        "directories cordoned."
    )


def test_a_partly_refused_request_creates_the_rest(harness: Harness) -> None:
    request = CreateTopicsRequest([new_topic("a"), new_topic("b", factor=9), new_topic("c")])
    codes = [topic.error_code for topic in harness.call(request).topics]
    assert codes == [ErrorCode.NONE, ErrorCode.INVALID_REPLICATION_FACTOR, ErrorCode.NONE]
    assert set(harness.image.topics) == {"a", "c"}


def test_validate_only_writes_nothing(harness: Harness) -> None:
    end = harness.log.end_offset
    assert harness.call(CreateTopicsRequest([new_topic("a")], validate_only=True)).topics[0].error_code == 0
    grow = CreatePartitionsRequest([CreatePartitionsTopic("a", 9, None)], validate_only=True)
    assert harness.call(grow).results[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert harness.log.end_offset == end


def test_a_deleted_topic_can_be_created_again_with_another_id(harness: Harness) -> None:
    first = harness.create("a", configs={"retention.ms": "5"})
    deletion = harness.call(DeleteTopicsRequest([DeleteTopicState(None, first.topic_id)]))
    assert [(each.name, each.error_code) for each in deletion.responses] == [("a", ErrorCode.NONE)]
    second = harness.create("a")
    assert second.topic_id != first.topic_id
    assert harness.image.config(2, "a") == {}
    again = harness.call(DeleteTopicsRequest([DeleteTopicState(None, first.topic_id)]))
    assert again.responses[0].error_code == ErrorCode.UNKNOWN_TOPIC_ID
    assert "a" in harness.image.topics


def test_a_topic_named_by_id_and_by_name_is_not_deleted(harness: Harness) -> None:
    topic_id = harness.create("a").topic_id
    request = DeleteTopicsRequest([DeleteTopicState("a"), DeleteTopicState(None, topic_id)])
    [result] = harness.call(request).responses
    assert result.error_code == ErrorCode.INVALID_REQUEST
    assert result.error_message == "The provided topic name maps to an ID that was already supplied."
    assert "a" in harness.image.topics


def test_topics_cannot_be_deleted_where_that_is_forbidden() -> None:
    harness = Harness(delete_topic_enable=False)
    harness.start_broker(0)
    harness.create("a")
    request = DeleteTopicsRequest([DeleteTopicState("a")])
    assert harness.call(request, 6).responses[0].error_code == ErrorCode.TOPIC_DELETION_DISABLED
    old = DeleteTopicsRequest(topic_names=["a"])
    assert harness.call(old, 2).responses[0].error_code == ErrorCode.INVALID_REQUEST
    assert "a" in harness.image.topics


def test_new_partitions_have_as_many_replicas_as_the_old(harness: Harness) -> None:
    harness.create("a", [0, 1, 2])
    given = CreatePartitionsTopic(
        "a", 3, [CreatePartitionsAssignment([3, 2, 1]), CreatePartitionsAssignment([1, 0])]
    )
    [result] = harness.call(CreatePartitionsRequest([given])).results
    assert result.error_code == ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert len(harness.image.topics["a"].partitions) == 1
    given.assignments = given.assignments[:1]
    given.count = 2
    assert harness.call(CreatePartitionsRequest([given])).results[0].error_code == ErrorCode.NONE
    assert harness.partition("a", 1).replicas == (3, 2, 1)
    harness.call(CreatePartitionsRequest([CreatePartitionsTopic("a", 5, None)]))
    assert [len(partition.replicas) for partition in harness.image.topics["a"].partitions.values()] == [3] * 5


def test_a_request_for_too_many_partitions_creates_none(harness: Harness) -> None:
    harness.create("a")
    request = CreatePartitionsRequest(
        [CreatePartitionsTopic("a", 2, None), CreatePartitionsTopic("b", 20_001, None)]
    )
    harness.create("b")
    results = harness.call(request).results
    assert {result.error_code for result in results} == {ErrorCode.POLICY_VIOLATION}
    assert {result.error_message for result in results} == {
        "Unable to perform excessively large batch operation."
    }
    assert len(harness.image.topics["a"].partitions) == 1


def test_the_preferred_leader_is_elected_on_demand(harness: Harness) -> None:
    harness.create("a", [1, 2])
    harness.fence(1)
    harness.heartbeat(1)
    request = ElectLeadersRequest(0, [TopicPartitions("a", [0])])
    outcome = harness.call(request).replica_election_results[0].partition_result[0]
    assert outcome.error_code == ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE
    alter_isr(harness, "a", 2, [2, 1])
    outcome = harness.call(request).replica_election_results[0].partition_result[0]
    assert outcome.error_code == ErrorCode.NONE
    assert harness.partition("a").leader == 1


def test_an_election_of_everything_lists_only_what_was_to_be_elected(harness: Harness) -> None:
    harness.create("a", [1, 2], [2, 1])
    harness.fence(2)
    harness.heartbeat(2)
    alter_isr(harness, "a", 1, [1, 2], partition_id=1)
    [result] = harness.call(ElectLeadersRequest(0, None)).replica_election_results
    assert [(each.partition_id, each.error_code) for each in result.partition_result] == [(1, ErrorCode.NONE)]
    assert harness.partition("a", 1).leader == 2


def test_an_unclean_election_is_for_partitions_without_a_leader(harness: Harness) -> None:
    harness.create("a", [1, 2], configs={"min.insync.replicas": "1"})
    harness.fence(2)
    harness.fence(1)
    harness.heartbeat(2)
    request = ElectLeadersRequest(1, [TopicPartitions("a", [0, 0])])
    [outcome] = harness.call(request).replica_election_results[0].partition_result
    assert outcome.error_code == ErrorCode.NONE
    assert (harness.partition("a").leader, harness.partition("a").isr) == (2, (2,))
    [outcome] = harness.call(request).replica_election_results[0].partition_result
    assert outcome.error_code == ErrorCode.ELECTION_NOT_NEEDED


def test_a_leader_shrinks_and_grows_the_isr(harness: Harness) -> None:
    harness.create("a", [1, 2, 3], configs={"min.insync.replicas": "2"})
    result = alter_isr(harness, "a", 1, [1])
    assert (result.error_code, result.isr, result.leader_id, result.partition_epoch) == (0, [1], 1, 1)
    assert harness.partition("a").elr == (2, 3)
    assert harness.partition("a").leader_epoch == 0
    alter_isr(harness, "a", 1, [1, 3])
    assert (harness.partition("a").isr, harness.partition("a").elr) == ((1, 3), ())
    assert list(violations(harness.state)) == []


@pytest.mark.parametrize(
    ("leader", "isr", "changes", "code"),
    [
        (1, [1], {"leader_epoch": 5}, ErrorCode.NOT_CONTROLLER),
        (1, [1], {"partition_epoch": 5}, ErrorCode.NOT_CONTROLLER),
        (1, [1], {"leader_epoch": -1}, ErrorCode.FENCED_LEADER_EPOCH),
        (1, [1], {"partition_epoch": -1}, ErrorCode.INVALID_UPDATE_VERSION),
        (2, [2], {}, ErrorCode.INVALID_REQUEST),
        (1, [2, 3], {}, ErrorCode.INVALID_REQUEST),
        (1, [1, 0], {}, ErrorCode.INVALID_REQUEST),
        (1, [1, 1], {}, ErrorCode.INVALID_REQUEST),
        (1, [1], {"leader_recovery_state": 1}, ErrorCode.INVALID_REQUEST),
        (1, [1], {"partition_index": 9}, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    ],
)
def test_a_proposal_that_does_not_fit_changes_nothing(
    harness: Harness, leader: int, isr: list[int], changes: dict[str, int], code: ErrorCode
) -> None:
    harness.create("a", [1, 2, 3])
    harness.fence(3)
    before = harness.partition("a")
    if "leader_epoch" not in changes and "partition_epoch" not in changes:
        assert before.partition_epoch == 1
    assert alter_isr(harness, "a", leader, isr, **changes).error_code == code
    assert harness.partition("a") is before


def test_a_replica_is_taken_in_as_the_incarnation_that_the_leader_saw(harness: Harness) -> None:
    """What an earlier incarnation had fetched, this one may have lost."""
    harness.create("a", [1, 2, 3])
    seen = dict(harness.epochs)
    harness.fence(3)
    harness.start_broker(3, incarnation=2)
    current, harness.epochs = harness.epochs, seen
    assert alter_isr(harness, "a", 1, [1, 2, 3]).error_code == ErrorCode.INELIGIBLE_REPLICA
    harness.epochs = current
    assert alter_isr(harness, "a", 1, [1, 2, 3]).error_code == ErrorCode.NONE
    assert harness.partition("a").isr == (1, 2, 3)


def test_a_refused_replica_stays_refused_for_late_copies_of_the_proposal(harness: Harness) -> None:
    harness.create("a", [1, 2, 3])
    harness.fence(3)
    before = harness.partition("a")
    assert alter_isr(harness, "a", 1, [1, 3]).error_code == ErrorCode.INELIGIBLE_REPLICA
    after = harness.partition("a")
    assert after == replace(before, partition_epoch=before.partition_epoch + 1)
    harness.heartbeat(3)
    late = alter_isr(harness, "a", 1, [1, 3], partition_epoch=-1)
    assert late.error_code == ErrorCode.INVALID_UPDATE_VERSION
    assert alter_isr(harness, "a", 1, [1, 2, 3]).error_code == ErrorCode.NONE


def test_a_member_of_an_older_incarnation_does_not_join_the_isr(harness: Harness) -> None:
    harness.create("a", [1, 2])
    harness.fence(2)
    stale = harness.epochs[2]
    harness.start_broker(2, incarnation=2)
    harness.epochs[2] = stale
    assert alter_isr(harness, "a", 1, [1, 2]).error_code == ErrorCode.INELIGIBLE_REPLICA


def test_a_leader_that_has_recovered_says_so(harness: Harness) -> None:
    harness.create("a", [1])
    harness.fence(1)
    harness.start_broker(1, incarnation=2)
    assert harness.partition("a").leader_recovery_state == 1
    result = alter_isr(harness, "a", 1, [1])
    assert (result.error_code, result.leader_recovery_state) == (ErrorCode.NONE, 0)
    assert harness.partition("a").leader_recovery_state == 0
    assert harness.partition("a").leader_epoch == 2


def test_a_proposal_from_before_min_insync_replicas_grew_is_too_old(harness: Harness) -> None:
    """Its leader may not know that it must wait for more replicas, while those who leave stay eligible."""
    harness.create("a", [1, 2, 3], configs={"min.insync.replicas": "1"})
    harness.create("b", [1, 2, 3], configs={"min.insync.replicas": "1"})
    set_config(harness, "a", "min.insync.replicas", "2")
    assert (harness.partition("a").partition_epoch, harness.partition("b").partition_epoch) == (1, 0)
    late = alter_isr(harness, "a", 1, [1], partition_epoch=0)
    assert late.error_code == ErrorCode.INVALID_UPDATE_VERSION
    assert alter_isr(harness, "a", 1, [1]).error_code == ErrorCode.NONE
    assert harness.partition("a").elr == (2, 3)
    set_config(harness, "", "min.insync.replicas", "3")
    assert (harness.partition("a").partition_epoch, harness.partition("b").partition_epoch) == (2, 0)
    set_config(harness, "b", "min.insync.replicas", None)
    assert harness.partition("b").partition_epoch == 1
