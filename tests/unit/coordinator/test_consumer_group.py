"""Members of the consumer protocol: joining, reconciling, leaving, being given up, and Kafka's words for refusals."""

from __future__ import annotations

from typing import Any

import pytest

from odradek.coordinator.config import GroupConfig
from odradek.coordinator.group.consumer.member import MemberState
from odradek.coordinator.group.consumer.settings import ConsumerSettings
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatRequestTopicPartitions,
)
from unit.coordinator.consumer_harness import ConsumerHarness, heartbeat_response
from unit.coordinator.group_harness import GROUP, Answer, context, errors_of, subscription
from unit.coordinator.test_txn_offsets import Group


@pytest.fixture
def harness() -> ConsumerHarness:
    return ConsumerHarness()


# -- joining and reconciling -------------------------------------------------------------------------------------


def test_the_first_member_gets_everything_at_once(harness: ConsumerHarness) -> None:
    answer = harness.enter("a", "orders", "users")
    assert harness.assigned(answer) == {"orders": list(range(8)), "users": list(range(4))}
    response = heartbeat_response(answer)
    assert (response.member_id, response.member_epoch, response.heartbeat_interval_ms) == ("a", 2, 5_000)
    assert harness.group().state.value == "Stable"


def test_an_assignment_is_told_once_and_again_only_on_a_full_request(harness: ConsumerHarness) -> None:
    first = harness.enter("a", "other")
    assert harness.assigned(harness.beat("a", 2)) is None
    assert harness.assigned(harness.beat("a", 2, owned={"other": [0, 1]})) is None
    full = harness.beat("a", 2, owned={"other": [0, 1]}, topics=["other"], rebalance_ms=60_000)
    assert harness.assigned(full) == harness.assigned(first)


def test_nothing_is_assigned_before_its_owner_has_given_it_up(harness: ConsumerHarness) -> None:
    a, b = harness.client("a"), harness.client("b")
    a.join("orders")
    harness.advance(1_000)
    b.join("orders")
    assert (b.owned, b.epoch) == ({}, 3)
    assert harness.group().members.get("b").state is MemberState.UNRELEASED_PARTITIONS  # type: ignore[union-attr]
    told = harness.beat("a", 2)
    assert heartbeat_response(told).member_epoch == 2, "it stays at its epoch until it has revoked"
    kept = harness.assigned(told)
    assert kept is not None
    assert len(kept["orders"]) == 4
    assert harness.assigned(b.beat()) is None, "still nothing: a has not confirmed"
    confirmed = harness.beat("a", 2, owned=kept)
    assert heartbeat_response(confirmed).member_epoch == 3
    b.beat()
    assert sorted(kept["orders"] + b.owned["orders"]) == list(range(8))
    assert harness.group().state.value == "Stable"


def test_members_that_come_within_the_assignment_interval_are_assigned_together(
    harness: ConsumerHarness,
) -> None:
    clients = [harness.client(f"m{i}") for i in range(4)]
    for client in clients:
        client.join("orders")
    group = harness.group()
    assert (group.epoch, group.assignment_epoch) == (5, 2)
    assert group.state.value == "Assigning"
    harness.settle(*clients)
    assert group.assignment_epoch == 5
    assert [len(client.partitions()) for client in clients] == [2, 2, 2, 2]


def test_a_member_that_does_not_revoke_in_its_time_is_given_up(harness: ConsumerHarness) -> None:
    a, b = harness.client("a"), harness.client("b")
    a.join("orders", rebalance_ms=20_000)
    harness.advance(1_000)
    b.join("orders")
    for _ in range(6):
        harness.beat("a", a.epoch, owned={"orders": list(range(8))})
        b.beat()
        harness.advance(4_000)
    refused = harness.beat("a", a.epoch, owned={"orders": list(range(8))})
    assert refused.error is ErrorCode.UNKNOWN_MEMBER_ID
    assert heartbeat_response(refused).error_message == "Member a is not a member of group group."
    harness.settle(b)
    assert len(b.partitions()) == 8


def test_a_silent_member_is_given_up_and_the_others_take_over(harness: ConsumerHarness) -> None:
    a, b = harness.client("a"), harness.client("b")
    a.join("orders")
    harness.advance(1_000)
    b.join("orders")
    harness.settle(a, b)
    for _ in range(13):
        b.beat()
        harness.advance(4_000)
    assert "a" not in harness.group().members
    harness.settle(b)
    assert len(b.partitions()) == 8


def test_who_leaves_frees_its_partitions_at_once(harness: ConsumerHarness) -> None:
    a, b = harness.client("a"), harness.client("b")
    a.join("orders")
    harness.advance(1_000)
    b.join("orders")
    harness.settle(a, b)
    left = a.leave()
    assert heartbeat_response(left).member_epoch == -1
    b.beat()
    assert len(b.partitions()) == 8
    assert b.leave().error is ErrorCode.NONE
    assert harness.group().state.value == "Empty"
    assert harness.delete_groups("group") == {"group": ErrorCode.NONE}


def test_a_changed_subscription_moves_the_member_at_once(harness: ConsumerHarness) -> None:
    a = harness.client("a")
    a.join("orders", "users")
    answer = harness.beat("a", 2, owned=a.owned, topics=["users", "other"])
    assert harness.assigned(answer) == {"users": [0, 1, 2, 3]}, "orders goes before the next target is made"
    a.owned = {"users": [0, 1, 2, 3]}
    harness.settle(a)
    assert a.owned == {"users": [0, 1, 2, 3], "other": [0, 1]}


# -- topics that change ------------------------------------------------------------------------------------------


def test_new_partitions_and_topics_are_found_by_the_hash(harness: ConsumerHarness) -> None:
    a = harness.client("a")
    a.join("orders", "later")
    assert a.owned == {"orders": list(range(8))}
    harness.settle(a)
    epoch = harness.group().epoch
    harness.topics.add("later", 3)
    harness.coordinator.on_topics_changed({"later"}, created=True)
    harness.settle(a)
    assert a.owned == {"orders": list(range(8)), "later": [0, 1, 2]}
    harness.topics.partitions["later"] = 5
    harness.coordinator.on_topics_changed({"later"}, created=False)
    harness.settle(a)
    assert a.owned["later"] == [0, 1, 2, 3, 4]
    assert harness.group().epoch == epoch + 2


def test_changes_of_other_topics_move_nothing(harness: ConsumerHarness) -> None:
    a = harness.client("a")
    a.join("orders")
    harness.topics.partitions["users"] = 9
    harness.coordinator.on_topics_changed({"users"}, created=False)
    before = harness.writer.batches
    a.beat()
    assert harness.writer.batches == before


def test_a_deleted_topic_is_taken_away(harness: ConsumerHarness) -> None:
    a = harness.client("a")
    a.join("orders", "users")
    harness.topics.remove("users")
    harness.coordinator.on_topics_changed({"users"}, created=False)
    harness.advance(1_000)
    harness.beat("a", a.epoch, owned={"orders": list(range(8))})
    a.owned = {"orders": list(range(8))}
    harness.settle(a)
    assert a.owned == {"orders": list(range(8))}


# -- expressions -------------------------------------------------------------------------------------------------


def test_an_expression_is_looked_up_after_the_heartbeat_that_brought_it(harness: ConsumerHarness) -> None:
    a = harness.client("a")
    a.join(topics=None, regex="o.*")
    assert a.owned == {}
    harness.settle(a)
    assert a.owned == {"orders": list(range(8)), "other": [0, 1]}


def test_topics_that_come_into_being_join_an_expression(harness: ConsumerHarness) -> None:
    a = harness.client("a")
    a.join(topics=None, regex="o.*")
    harness.settle(a)
    harness.topics.add("oranges", 2)
    harness.coordinator.on_topics_changed({"oranges"}, created=True)
    harness.settle(a, rounds=14)
    assert a.owned["oranges"] == [0, 1]


def test_an_expression_and_names_add_up_and_may_be_given_up(harness: ConsumerHarness) -> None:
    a = harness.client("a")
    a.join("users", regex="other")
    harness.settle(a)
    assert a.owned == {"users": [0, 1, 2, 3], "other": [0, 1]}
    a.beat(regex="")
    harness.settle(a)
    assert a.owned == {"users": [0, 1, 2, 3]}
    assert not list(harness.group().regexes.items())


@pytest.mark.parametrize(
    ("regex", "reason"),
    [
        ("[", "missing closing ]"),
        ("(", "missing closing )"),
        ("*a", "missing argument to repetition operator"),
        ("a**", "invalid nested repetition operator"),
        ("(?=a)", "invalid or unsupported Perl syntax"),
        ("a{1001}", "invalid repeat count"),
    ],
)
def test_expressions_that_are_none_are_refused(harness: ConsumerHarness, regex: str, reason: str) -> None:
    answer = harness.enter("a", topics=None, regex=regex)
    assert answer.error is ErrorCode.INVALID_REGULAR_EXPRESSION
    text = f"SubscribedTopicRegex `{regex}` is not a valid regular expression: {reason}."
    assert heartbeat_response(answer).error_message == text


def test_many_expressions_are_looked_up_in_steps(harness: ConsumerHarness) -> None:
    """Each step is short, and what others ask comes in between."""
    for number in range(5_000):
        harness.topics.add(f"many-{number}", 1)
    harness.coordinator.on_topics_changed({"many-0"}, created=True)
    clients = [harness.client(f"m{number}") for number in range(4)]
    for number, client in enumerate(clients):
        client.join(topics=None, regex=f"many-.*{number}")
    assert not list(harness.group().regexes.items()), "5,000 topics are more than a step"
    harness.advance(1)
    assert len(list(harness.group().regexes.items())) == 1
    harness.settle(*clients, rounds=14)
    assert [len(client.partitions()) for client in clients] == [500] * 4


def test_an_expression_made_to_explode_takes_no_time(harness: ConsumerHarness) -> None:
    harness.topics.add("a" * 240, 1)
    harness.coordinator.on_topics_changed({"a" * 240}, created=True)
    a = harness.client("a")
    a.join(topics=None, regex="((a+)+)+b")
    harness.settle(a)
    assert a.owned == {}


# -- epochs ------------------------------------------------------------------------------------------------------


def test_epochs_of_the_future_and_of_the_past_are_fenced(harness: ConsumerHarness) -> None:
    a = harness.client("a")
    a.join("orders")
    newer = harness.beat("a", 3)
    assert newer.error is ErrorCode.FENCED_MEMBER_EPOCH
    assert heartbeat_response(newer).error_message == (
        "The consumer group member has a greater member epoch (3) than the one known by the group coordinator (2). "
        "The member must abandon all its partitions and rejoin."
    )
    a.join("orders", "users")
    harness.settle(a)
    assert a.epoch == 3
    older = harness.beat("a", 2)
    assert older.error is ErrorCode.FENCED_MEMBER_EPOCH
    assert "smaller member epoch (2)" in (heartbeat_response(older).error_message or "")


def test_the_previous_epoch_will_do_if_the_answer_with_the_new_one_was_lost(harness: ConsumerHarness) -> None:
    a, b = harness.client("a"), harness.client("b")
    a.join("orders")
    harness.advance(1_000)
    b.join("orders")
    kept = harness.assigned(harness.beat("a", 2))
    assert kept is not None
    assert heartbeat_response(harness.beat("a", 2, owned=kept)).member_epoch == 3
    again = harness.beat("a", 2, owned=kept)
    assert heartbeat_response(again).member_epoch == 3
    assert harness.beat("a", 2, owned={"orders": list(range(8))}).error is ErrorCode.FENCED_MEMBER_EPOCH


def test_a_fenced_member_starts_anew_with_epoch_zero(harness: ConsumerHarness) -> None:
    a = harness.client("a")
    a.join("orders")
    answer = a.join("orders")
    assert harness.assigned(answer) == {"orders": list(range(8))}


# -- static members ----------------------------------------------------------------------------------------------


def test_a_static_member_finds_its_partitions_where_it_left_them(harness: ConsumerHarness) -> None:
    a, b = harness.client("a", instance="i"), harness.client("b")
    a.join("orders")
    harness.advance(1_000)
    b.join("orders")
    harness.settle(a, b)
    had, epoch = a.partitions(), harness.group().epoch
    assert heartbeat_response(a.leave(-2)).member_epoch == -2
    b.beat()
    assert len(b.partitions()) == 4, "its partitions wait"
    again = harness.client("a2", instance="i")
    again.join("orders")
    assert again.partitions() == had
    assert harness.group().epoch == epoch, "nobody has to move"


def test_an_instance_id_that_is_in_use_is_refused(harness: ConsumerHarness) -> None:
    harness.client("a", instance="i").join("orders")
    answer = harness.enter("b", "orders", instance="i")
    assert answer.error is ErrorCode.UNRELEASED_INSTANCE_ID
    assert heartbeat_response(answer).error_message == (
        "Static member b with instance id i cannot join the group because the instance id is owned by a member."
    )


def test_a_static_member_that_was_replaced_is_fenced(harness: ConsumerHarness) -> None:
    a = harness.client("a", instance="i")
    a.join("orders")
    a.leave(-2)
    harness.client("b", instance="i").join("orders")
    answer = harness.beat("a", 2, instance="i")
    assert answer.error is ErrorCode.FENCED_INSTANCE_ID
    assert heartbeat_response(answer).error_message == (
        "Static member a with instance id i was fenced by member b."
    )


def test_a_static_member_that_stays_away_is_given_up(harness: ConsumerHarness) -> None:
    a = harness.client("a", instance="i")
    a.join("orders")
    a.leave(-2)
    harness.advance(45_000)
    assert harness.group().state.value == "Empty"


# -- offsets -----------------------------------------------------------------------------------------------------


def test_a_commit_of_an_older_epoch_counts_for_what_was_kept_since(harness: ConsumerHarness) -> None:
    a, b = harness.client("a"), harness.client("b")
    a.join("orders")
    harness.advance(1_000)
    b.join("orders")
    harness.settle(a, b)
    kept, new = a.owned["orders"][0], b.owned["orders"][0]
    assert harness.commit_errors({("orders", kept): 5}, member_id="a", generation=2) == [ErrorCode.NONE]
    answer = harness.commit({("orders", new): 5}, member_id="a", generation=2)
    assert errors_of(answer) == [ErrorCode.STALE_MEMBER_EPOCH]
    assert harness.commit_errors({("orders", new): 5}, member_id="a", generation=4) == [
        ErrorCode.STALE_MEMBER_EPOCH
    ]
    assert harness.commit_errors({("orders", kept): 6}, member_id="a", generation=3) == [ErrorCode.NONE]
    assert harness.commit_errors({("orders", kept): 6}) == [ErrorCode.UNKNOWN_MEMBER_ID]
    old_version = {"member_id": "a", "generation": 3, "version": 8}
    assert harness.commit_errors({("orders", kept): 7}, **old_version) == [ErrorCode.UNSUPPORTED_VERSION]  # type: ignore[arg-type]


def test_a_transaction_commits_for_members_by_the_same_rule() -> None:
    """The consumer's own epoch, or an older one for what it kept since; in the words of that API."""
    harness = Group()

    def beat(member_id: str, epoch: int, owned: list[int] | None = None) -> int:
        request = ConsumerGroupHeartbeatRequest(
            group_id=GROUP,
            member_id=member_id,
            member_epoch=epoch,
            rebalance_timeout_ms=1_000 if epoch == 0 else -1,
            subscribed_topic_names=["orders"] if epoch == 0 else None,
            topic_partitions=[
                ConsumerGroupHeartbeatRequestTopicPartitions(harness.topics.ids["orders"], owned)
            ]
            if owned
            else [],
        )
        answer = Answer()
        harness.coordinator.consumer_group_heartbeat(context(1), request, answer)
        return heartbeat_response(answer).member_epoch

    assert beat("m", 0) == 2
    harness.advance(1_000)
    beat("n", 0)
    assert beat("m", 2, [0, 1, 2, 3]) == 3
    stale = [ErrorCode.ILLEGAL_GENERATION]
    assert harness.txn_errors({("orders", 0): 1}, member_id="m", generation=2) == [ErrorCode.NONE]
    assert harness.txn_errors({("orders", 7): 1}, member_id="m", generation=2) == stale
    assert harness.txn_errors({("orders", 0): 1}, member_id="m", generation=4) == stale
    assert harness.txn_errors({("orders", 7): 1}, member_id="x", generation=3) == [
        ErrorCode.UNKNOWN_MEMBER_ID
    ]
    assert harness.txn_errors({("orders", 7): 1}) == [ErrorCode.NONE], "members need not be named"


def test_retention_runs_from_the_commit_whoever_coordinates() -> None:
    """Of topics that nobody wants; a living member keeps the offsets of its own."""
    harness = ConsumerHarness(offsets_retention_minutes=20, offsets_retention_check_interval_ms=30_000)
    harness.enter("a", "orders")
    harness.commit({("orders", 0): 1, ("users", 0): 1}, member_id="a", generation=2)
    for minutes in range(25):
        if minutes != 20:  # when the sweep comes by
            assert (("users", 0) in harness.committed()) is (minutes < 20)
        harness.successor()
        harness.enter("a", "orders")
        harness.advance(30_000)
        harness.enter("a", "orders")
        harness.advance(30_000)
    assert harness.committed() == {("orders", 0): 1}


def test_offsets_of_subscribed_topics_are_not_deleted(harness: ConsumerHarness) -> None:
    harness.enter("a", "orders")
    harness.commit({("orders", 0): 1, ("users", 0): 1}, member_id="a", generation=2)
    answer = harness.delete_offsets(("orders", 0), ("users", 0))
    errors = [p.error_code for topic in answer.response.topics for p in topic.partitions]
    assert errors == [ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC, ErrorCode.NONE]
    assert harness.committed() == {("orders", 0): 1}


def test_offsets_outlive_the_group_for_their_retention(harness: ConsumerHarness) -> None:
    harness.enter("a", "orders")
    harness.commit({("orders", 0): 1}, member_id="a", generation=2)
    harness.beat("a", -1)
    day = 24 * 3_600_000
    harness.advance(6 * day)
    assert harness.committed() == {("orders", 0): 1}
    harness.advance(day + 700_000)
    assert harness.committed() == {}
    assert harness.list().response.groups == []


# -- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "error", "text"),
    [
        ({"member_id": ""}, 42, "MemberId can't be empty."),
        ({"group": " "}, 42, "GroupId can't be empty."),
        ({"instance": ""}, 42, "InstanceId can't be empty."),
        ({"rack": ""}, 42, "RackId can't be empty."),
        ({"rebalance_ms": -1}, 42, "RebalanceTimeoutMs must be provided in first request."),
        ({"owned": None}, 42, "TopicPartitions must be empty when (re-)joining."),
        ({"owned": {"orders": [1]}}, 42, "TopicPartitions must be empty when (re-)joining."),
        (
            {"topics": None},
            42,
            "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
        ),
        ({"epoch": -2}, 42, "InstanceId can't be null."),
        ({"epoch": -3}, 42, "MemberEpoch is invalid."),
        (
            {"assignor": "fair"},
            112,
            "ServerAssignor fair is not supported. Supported assignors: uniform, range.",
        ),
        ({"epoch": 3}, 69, "Consumer group group not found."),
        ({"epoch": -1}, 69, "Group group not found."),
    ],
)
def test_refusals_in_kafkas_words(
    harness: ConsumerHarness, request_: dict[str, Any], error: int, text: str
) -> None:
    whole: dict[str, Any] = {
        "member_id": "a",
        "epoch": 0,
        "owned": {},
        "topics": ["orders"],
        "rebalance_ms": 1_000,
        **request_,
    }
    answer = harness.beat(whole.pop("member_id"), whole.pop("epoch"), **whole)
    assert (answer.error, heartbeat_response(answer).error_message) == (error, text)


def test_version_0_lets_the_coordinator_make_the_id(harness: ConsumerHarness) -> None:
    answer = harness.enter("", "orders", version=0)
    member_id = heartbeat_response(answer).member_id
    assert member_id is not None
    assert len(member_id) == 22
    assert harness.beat(member_id, 2, version=0).error is ErrorCode.NONE


def test_a_full_group_takes_nobody_else() -> None:
    harness = ConsumerHarness(group_consumer_max_size=1)
    harness.enter("a", "orders")
    assert harness.beat("a", 2).error is ErrorCode.NONE
    answer = harness.enter("b", "orders")
    assert answer.error is ErrorCode.GROUP_MAX_SIZE_REACHED
    text = "The consumer group has reached its maximum capacity of 1 members."
    assert heartbeat_response(answer).error_message == text


# -- settings ----------------------------------------------------------------------------------------------------


def test_a_group_may_have_its_own_timeouts_between_the_brokers_bounds(harness: ConsumerHarness) -> None:
    harness.group_configs["group"] = {
        "consumer.session.timeout.ms": "50000",
        "consumer.heartbeat.interval.ms": "99999",
    }
    assert heartbeat_response(harness.enter("a", "orders")).heartbeat_interval_ms == 15_000
    harness.advance(49_999)
    assert "a" in harness.group().members
    harness.advance(1)
    assert "a" not in harness.group().members


def test_without_a_migration_policy_groups_keep_their_protocol() -> None:
    harness = ConsumerHarness(group_consumer_migration_policy="disabled")
    harness.enter("a", "orders")
    member = (("range", subscription("orders")),)
    assert harness.join(protocols=member).error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    harness.beat("a", -1)
    harness.stable(protocols=member)
    answer = harness.enter("a", "orders")
    assert answer.error is ErrorCode.GROUP_ID_NOT_FOUND
    assert heartbeat_response(answer).error_message == (
        "Cannot upgrade classic group group to consumer group because online upgrade is disabled."
    )


def test_the_assignment_interval_can_be_set_while_the_broker_runs() -> None:
    values = {"group.consumer.assignment.interval.ms": "0"}
    settings = ConsumerSettings(GroupConfig(), lambda _group: {}, values.get)
    assert settings.assignment_interval_ms("g") == 0
    values["group.consumer.assignment.interval.ms"] = "99999"
    assert settings.assignment_interval_ms("g") == 15_000, "no more than the broker's bound"
    del values["group.consumer.assignment.interval.ms"]
    assert settings.assignment_interval_ms("g") == 1_000
    own = ConsumerSettings(GroupConfig(), lambda _group: {"consumer.assignment.interval.ms": "7"}, values.get)
    assert own.assignment_interval_ms("g") == 7


# -- described ---------------------------------------------------------------------------------------------------


def test_described_as_a_consumer_group_and_not_as_a_classic_one(harness: ConsumerHarness) -> None:
    harness.enter("a", "orders", assignor="range", rack="r1")
    described = harness.describe_consumer()
    assert (described.group_state, described.group_epoch, described.assignment_epoch) == ("Stable", 2, 2)
    assert described.assignor_name == "range"
    (member,) = described.members
    assert (member.member_id, member.member_epoch, member.rack_id, member.member_type) == ("a", 2, "r1", 1)
    assert [topic.topic_name for topic in member.assignment.topic_partitions] == ["orders"]
    classic = harness.describe()
    assert (classic.error_code, classic.group_state) == (ErrorCode.GROUP_ID_NOT_FOUND, "Dead")
    assert classic.error_message == "Group group is not a classic group."
    assert harness.describe_consumer("none").error_message == "Group none not found."
    (listed,) = harness.list(types=["Consumer"]).response.groups
    assert (listed.group_state, listed.group_type, listed.protocol_type) == ("Stable", "consumer", "consumer")
    assert harness.list(types=["classic"]).response.groups == []
    assert harness.list(states=["empty"]).response.groups == []


# -- the log -----------------------------------------------------------------------------------------------------


def test_what_the_log_refuses_has_not_been(harness: ConsumerHarness) -> None:
    a = harness.client("a")
    a.join("orders")
    harness.writer.refuse_with = ErrorCode.NOT_ENOUGH_REPLICAS
    assert harness.enter("b", "orders").error is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert a.leave().error is ErrorCode.COORDINATOR_NOT_AVAILABLE
    group = harness.group()
    assert (group.size, group.name_counts, group.epoch) == (1, {"orders": 1}, 2)
    assert sum(map(len, group.owners.values())) == 8
    harness.writer.refuse_with = ErrorCode.NONE
    assert harness.beat("a", 2).error is ErrorCode.NONE


def test_the_next_coordinator_has_what_this_one_had(harness: ConsumerHarness) -> None:
    a, b = harness.client("a", instance="i"), harness.client("b")
    a.join("orders", regex="oth.*")
    harness.advance(1_000)
    b.join("orders")
    a.beat()
    before = harness.describe_consumer()
    harness.successor()
    assert harness.describe_consumer() == before
    harness.settle(a, b)
    assert a.partitions().isdisjoint(b.partitions())


def test_a_lookup_ends_with_the_coordinator_that_began_it(harness: ConsumerHarness) -> None:
    for number in range(5_000):
        harness.topics.add(f"many-{number}", 1)
    harness.coordinator.on_topics_changed({"many-0"}, created=True)
    a = harness.client("a")
    a.join(topics=None, regex="many-1.*")
    partition = harness.coordinator.partition_for("group")
    harness.coordinator.runtime.unload(partition)
    harness.coordinator.runtime.load_begin(partition, 1)
    for key, value in harness.writer.logs[partition]:
        harness.coordinator.runtime.load_record(partition, key, value)
    harness.coordinator.runtime.load_end(partition)
    harness.advance(10)
    assert not list(harness.group().regexes.items())
    harness.settle(a)
    assert len(a.partitions()) == 1_111
