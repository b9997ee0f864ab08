"""JoinGroup: who gets in, under which id, and when the join phase ends. What Kafka answers is in the transcripts;
here are timing and what no client can bring about against a real broker."""

from __future__ import annotations

import pytest

from odradek.wire.errors import ErrorCode
from unit.coordinator.group_harness import GROUP, Harness


def test_a_dynamic_member_first_gets_an_id_and_joins_with_it() -> None:
    h = Harness()
    first = h.join(client="reader")
    assert first.error is ErrorCode.MEMBER_ID_REQUIRED
    assert first.response.member_id.startswith("reader-")
    second = h.join(first.response.member_id)
    assert second.waits
    h.advance(3_000)
    assert second.response.generation_id == 1
    assert second.response.leader == second.response.member_id == first.response.member_id
    assert [member.member_id for member in second.response.members] == [first.response.member_id]
    h.finish([second])
    assert h.state() == "Stable"
    assert h.describe(GROUP).members[0].member_assignment == b"0"


def test_the_same_seed_gives_the_same_ids_and_another_one_others() -> None:
    ids = [Harness(seed=seed).join().response.member_id for seed in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2]


def test_member_ids_are_java_uuids_of_version_4() -> None:
    tail = Harness().join(client="c").response.member_id.removeprefix("c-")
    assert [len(part) for part in tail.split("-")] == [8, 4, 4, 4, 12]
    assert tail[14] == "4"
    assert tail[19] in "89ab"


@pytest.mark.parametrize("version", range(4))
def test_before_version_4_a_member_joins_at_once(version: int) -> None:
    h = Harness()
    joined = h.join(version=version)
    h.advance(3_000)
    assert joined.error is ErrorCode.NONE


def test_version_0_rebalances_within_its_session_timeout() -> None:
    h = Harness()
    first = h.join(version=0, session_ms=10_000, rebalance_ms=300_000)
    h.advance(3_000)
    h.finish([first])
    second = h.join_fully(session_ms=1_000_000, rebalance_ms=1)
    h.advance(9_999)
    assert second.waits
    h.advance(1)
    assert second.error is ErrorCode.NONE


def test_the_initial_delay_is_prolonged_while_members_come() -> None:
    h = Harness()
    first = h.join_fully()
    h.advance(2_999)
    second = h.join_fully()
    h.advance(2_999)
    third = h.join_fully()
    h.advance(2)
    assert [answer.waits for answer in (first, second, third)] == [True] * 3
    h.advance(3_000)
    assert [answer.response.generation_id for answer in (first, second, third)] == [1] * 3


def test_a_delay_in_which_nobody_came_is_the_last() -> None:
    h = Harness()
    first = h.join_fully()
    h.advance(3_000)
    assert not first.waits
    h.finish([first])
    late = h.join_fully()
    assert h.state() == "PreparingRebalance"
    assert late.waits


def test_the_initial_delay_ends_with_the_rebalance_timeout() -> None:
    h = Harness()
    answers = [h.join_fully(rebalance_ms=7_000)]
    for _ in range(6):
        h.advance(1_000)
        answers.append(h.join_fully(rebalance_ms=7_000))
    assert all(answer.waits for answer in answers)
    h.advance(1_000)
    assert all(answer.response.generation_id == 1 for answer in answers)


def test_without_a_delay_the_first_member_is_alone() -> None:
    h = Harness(group_initial_rebalance_delay_ms=0)
    first = h.join_fully()
    h.advance(0)
    assert first.response.generation_id == 1


def test_without_an_initial_delay_members_that_have_an_id_are_waited_for() -> None:
    h = Harness(group_initial_rebalance_delay_ms=0)
    first, second, third, never = (h.join().response.member_id for _ in range(4))
    joined = [h.join(first)]
    h.advance(9)
    joined.append(h.join(second))
    h.advance(1)
    h.advance(8)
    joined.append(h.join(third))
    h.advance(2)
    assert [each.response for each in joined] == [None] * 3
    h.advance(10)
    assert [each.response.generation_id for each in joined] == [1] * 3
    assert {each.member_id for each in joined[0].response.members} == {first, second, third}
    assert h.join(never).response is None  # a rebalance


def test_everybody_leaving_during_the_initial_delay_leaves_an_empty_group() -> None:
    h = Harness()
    first = h.join_fully()
    member_id = h.describe().members[0].member_id
    h.leave(member_id)
    assert first.error is ErrorCode.UNKNOWN_MEMBER_ID
    h.advance(3_000)
    assert h.state() == "Empty"


def test_a_first_join_is_given_up_after_five_minutes() -> None:
    h = Harness(group_initial_rebalance_delay_ms=10_000_000)
    joined = h.join_fully(rebalance_ms=100_000_000)
    h.advance(299_999)
    assert joined.waits
    h.advance(1)
    assert joined.error is ErrorCode.UNKNOWN_MEMBER_ID
    assert joined.response.member_id == ""
    assert h.describe().members == []


def test_an_id_that_is_not_used_is_forgotten_after_a_session_timeout() -> None:
    h = Harness()
    first = h.join(session_ms=10_000)
    h.advance(10_000)
    assert h.join(first.response.member_id).error is ErrorCode.UNKNOWN_MEMBER_ID


def test_an_unused_id_holds_a_rebalance_up_until_it_expires() -> None:
    h = Harness()
    (leader,) = h.stable()
    h.join(session_ms=10_000)
    rejoin = h.join(leader.member_id)
    h.advance(9_999)
    assert rejoin.waits
    h.advance(1)
    assert rejoin.response.generation_id == 2


def test_ids_given_out_beforehand_are_not_for_static_members() -> None:
    h = Harness()
    first = h.join()
    refused = h.join(first.response.member_id, instance="static")
    assert refused.error is ErrorCode.UNKNOWN_SERVER_ERROR


def test_a_second_join_of_the_same_member_takes_the_place_of_the_first() -> None:
    h = Harness()
    (leader,) = h.stable()
    other = h.join_fully()
    older = h.join(h.describe().members[1].member_id)
    assert other.error is ErrorCode.REBALANCE_IN_PROGRESS
    h.join(leader.member_id)
    assert older.response.generation_id == 2


def test_a_group_that_is_full_takes_nobody_else() -> None:
    h = Harness(group_max_size=2)
    leader, follower = h.stable(2)
    assert h.join().error is ErrorCode.GROUP_MAX_SIZE_REACHED
    assert h.join(leader.member_id).waits
    assert h.join().error is ErrorCode.MEMBER_ID_REQUIRED
    newcomer = h.join_fully()
    assert newcomer.waits
    refused = h.join(follower.member_id)
    assert refused.error is ErrorCode.GROUP_MAX_SIZE_REACHED
    assert refused.response.member_id == ""


def test_a_follower_that_missed_its_answer_gets_the_generation_again() -> None:
    h = Harness()
    answers = [h.join_fully() for _ in range(2)]
    h.advance(6_000)
    leader, follower = (answer.response for answer in answers)
    again = h.join(follower.member_id).response
    assert (again.generation_id, again.members) == (1, [])
    again = h.join(leader.member_id).response
    assert [member.member_id for member in again.members] == [leader.member_id, follower.member_id]
    assert h.state() == "CompletingRebalance"


def test_new_metadata_while_completing_starts_over() -> None:
    h = Harness()
    answers = [h.join_fully() for _ in range(2)]
    h.advance(6_000)
    leader, follower = (answer.response for answer in answers)
    sync = h.sync(leader, {})
    assert sync.error is ErrorCode.NONE  # the leader's assignments are stored at once here
    waiting = h.join(follower.member_id, protocols=[("range", b"other")])
    assert waiting.waits
    assert h.heartbeat(leader.member_id, 1).error is ErrorCode.REBALANCE_IN_PROGRESS


def test_joins_of_two_groups_do_not_touch_each_other() -> None:
    h = Harness()
    first, second = h.join_fully(group="a"), h.join_fully(group="b")
    h.advance(3_000)
    assert first.response.leader != second.response.leader
    assert len(first.response.members) == len(second.response.members) == 1


def test_group_ids_of_odd_characters_and_length_are_as_good_as_any() -> None:
    h = Harness()
    for group in ("ü😀\n/..", "x" * 10_000, " ", "\0"):
        (leader,) = h.stable(group=group)
        assert h.heartbeat(leader.member_id, 1, group=group).error is ErrorCode.NONE
        assert h.commit_errors({("orders", 0): 1}, group=group, member_id=leader.member_id, generation=1) == [
            ErrorCode.NONE
        ]


def test_a_client_id_too_long_for_a_member_id_is_refused_without_a_trace() -> None:
    h = Harness()
    assert h.join(client="x" * 32_767).error is ErrorCode.UNKNOWN_SERVER_ERROR
    assert h.state() == "Dead"
    assert h.join(client="x" * 32_730).error is ErrorCode.MEMBER_ID_REQUIRED


def test_the_gauges_count_groups_by_state_and_offsets() -> None:
    h = Harness()
    h.stable()
    h.commit({("orders", 0): 1, ("orders", 1): 1}, group="simple")
    h.join_fully(group="joining")
    gauges = {name: count for name, count in h.coordinator.gauges().items() if count}
    assert gauges == {
        "NumGroups": 3,
        "NumGroupsStable": 1,
        "NumGroupsEmpty": 1,
        "NumGroupsPreparingRebalance": 1,
        "NumOffsets": 2,
    }
