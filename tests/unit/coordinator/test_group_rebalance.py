"""Sessions, rebalances and syncs in virtual time."""

from __future__ import annotations

from odradek.wire.errors import ErrorCode
from unit.coordinator.group_harness import Harness, sync_response


def test_a_silent_member_is_thrown_out_after_its_session() -> None:
    h = Harness()
    leader, follower = h.stable(2, session_ms=10_000)
    h.advance(9_000)
    assert h.heartbeat(leader.member_id, 1).error is ErrorCode.NONE
    h.advance(1_000)
    assert [member.member_id for member in h.describe().members] == [leader.member_id]
    assert h.state() == "PreparingRebalance"
    assert h.heartbeat(follower.member_id, 1).error is ErrorCode.UNKNOWN_MEMBER_ID
    assert h.heartbeat(leader.member_id, 1).error is ErrorCode.REBALANCE_IN_PROGRESS


def test_heartbeats_keep_a_session_however_long() -> None:
    h = Harness()
    (leader,) = h.stable(session_ms=10_000)
    for _ in range(50):
        h.advance(9_999)
        assert h.heartbeat(leader.member_id, 1).error is ErrorCode.NONE
    assert len(h.timers) < 10


def test_commits_keep_a_session_too() -> None:
    h = Harness()
    (leader,) = h.stable(session_ms=10_000)
    for offset in range(5):
        h.advance(9_999)
        h.commit({("orders", 0): offset}, member_id=leader.member_id, generation=1)
    assert h.heartbeat(leader.member_id, 1).error is ErrorCode.NONE


def test_a_shorter_session_timeout_counts_from_the_rejoin() -> None:
    h = Harness()
    (leader,) = h.stable(session_ms=60_000)
    rejoined = h.join(leader.member_id, session_ms=6_000)
    h.finish([rejoined])
    h.advance(6_000)
    assert h.state() == "Empty"


def test_members_that_do_not_rejoin_in_time_are_left_behind() -> None:
    h = Harness()
    leader, follower = h.stable(2, session_ms=600_000, rebalance_ms=20_000)
    rejoined = h.join(follower.member_id, protocols=[("range", b"new")], rebalance_ms=20_000)
    h.advance(19_999)
    assert rejoined.waits
    h.advance(1)
    assert rejoined.response.generation_id == 2
    assert rejoined.response.leader == follower.member_id
    assert h.join(leader.member_id).error is ErrorCode.UNKNOWN_MEMBER_ID


def test_a_member_that_waits_for_its_join_needs_no_heartbeat() -> None:
    h = Harness()
    leader, _ = h.stable(2, session_ms=6_000, rebalance_ms=100_000)
    rejoined = h.join(leader.member_id, session_ms=6_000, rebalance_ms=100_000)
    h.advance(6_000)  # the other one falls silent, and with it the rebalance is complete
    assert rejoined.response.generation_id == 2


def test_a_member_that_waits_for_its_sync_needs_no_heartbeat() -> None:
    h = Harness()
    answers = [h.join_fully(session_ms=6_000) for _ in range(2)]
    h.advance(6_000)
    leader, follower = (answer.response for answer in answers)
    waiting = h.sync(follower)
    for _ in range(4):
        h.advance(5_999)
        h.heartbeat(leader.member_id, 1)
    assert waiting.waits
    assert h.sync(leader, {follower.member_id: b"f"}).error is ErrorCode.NONE
    assert sync_response(waiting).assignment == b"f"
    h.advance(5_999)
    assert len(h.describe().members) == 2


def test_a_leader_that_falls_silent_before_its_sync_sends_all_back_to_join() -> None:
    h = Harness()
    answers = [h.join_fully(session_ms=6_000) for _ in range(2)]
    h.advance(6_000)
    leader, follower = (answer.response for answer in answers)
    waiting = h.sync(follower)
    h.advance(6_000)
    assert waiting.error is ErrorCode.REBALANCE_IN_PROGRESS
    rejoined = h.join(follower.member_id)
    assert rejoined.response.leader == follower.member_id
    assert h.heartbeat(leader.member_id, 1).error is ErrorCode.UNKNOWN_MEMBER_ID


def test_members_that_do_not_sync_in_time_are_thrown_out() -> None:
    h = Harness()
    answers = [h.join_fully(session_ms=600_000, rebalance_ms=10_000) for _ in range(2)]
    h.advance(6_000)
    leader, follower = (answer.response for answer in answers)
    assert h.sync(leader, {}).error is ErrorCode.NONE
    h.advance(9_999 - 3_000)
    assert h.state() == "Stable"
    h.advance(3_001)
    assert [member.member_id for member in h.describe().members] == [leader.member_id]
    assert h.sync(follower).error is ErrorCode.UNKNOWN_MEMBER_ID


def test_a_second_sync_of_the_same_member_takes_the_place_of_the_first() -> None:
    h = Harness()
    answers = [h.join_fully() for _ in range(2)]
    h.advance(6_000)
    leader, follower = (answer.response for answer in answers)
    first, second = h.sync(follower), h.sync(follower)
    assert first.error is ErrorCode.REBALANCE_IN_PROGRESS
    h.sync(leader, {follower.member_id: b"f"})
    assert sync_response(second).assignment == b"f"


def test_a_member_that_leaves_while_it_waits_for_its_sync_is_answered() -> None:
    h = Harness()
    answers = [h.join_fully() for _ in range(2)]
    h.advance(6_000)
    _, follower = (answer.response for answer in answers)
    waiting = h.sync(follower)
    h.leave(follower.member_id)
    assert waiting.error is ErrorCode.UNKNOWN_MEMBER_ID


def test_the_last_member_to_leave_empties_the_group_and_its_record() -> None:
    h = Harness()
    leader, follower = h.stable(2)
    h.leave(leader.member_id, follower.member_id)
    assert h.state() == "Empty"
    assert h.describe().protocol_type == "consumer"
    last = h.writer.records()[-1]
    assert last.value is not None
    assert (last.value.generation, last.value.members, last.value.protocol) == (2, [], None)  # type: ignore[union-attr]


def test_generations_go_on_counting_after_the_group_was_empty() -> None:
    h = Harness()
    (leader,) = h.stable()
    h.leave(leader.member_id)
    (again,) = h.stable()
    assert again.generation_id == 3


def test_static_members_that_are_away_delay_the_rebalance_until_their_sessions_end() -> None:
    h = Harness()
    answer = h.join(instance="one", session_ms=30_000, rebalance_ms=10_000)
    h.advance(3_000)
    h.finish([answer], instances=["one"])
    newcomer = h.join_fully(session_ms=30_000, rebalance_ms=10_000)
    h.advance(10_000)
    assert newcomer.response.generation_id == 2
    assert len(newcomer.response.members) == 2
    h.finish([newcomer])


def test_static_members_all_away_at_the_rebalance_timeout_are_waited_for() -> None:
    h = Harness()
    answers = [
        h.join(instance=name, session_ms=60_000, rebalance_ms=10_000, protocols=[("range", b"m")])
        for name in ("one", "two")
    ]
    h.advance(6_000)
    one, _ = h.finish(answers, instances=["one", "two"])
    h.join(instance="three", session_ms=60_000, rebalance_ms=10_000)
    h.leave(("", "three"))
    h.advance(10_000)
    assert h.state() == "PreparingRebalance"
    back = h.join(one.member_id, instance="one", session_ms=60_000, rebalance_ms=10_000)
    h.advance(10_000)
    assert back.response.generation_id == 2


def test_a_lone_leader_that_leaves_hands_on_the_lead() -> None:
    h = Harness()
    leader, follower = h.stable(2)
    h.leave(leader.member_id)
    rejoined = h.join(follower.member_id)
    assert rejoined.response.leader == follower.member_id


def test_a_thousand_members_rebalance() -> None:
    h = Harness()
    answers = [h.join_fully() for _ in range(1_000)]
    h.advance(6_000)
    assert {answer.response.generation_id for answer in answers} == {1}
    joined = h.finish(answers)
    assert h.state() == "Stable"
    assert len(joined[0].members) == 1_000
    h.leave(*[response.member_id for response in joined])
    assert h.state() == "Empty"
    assert len(h.timers) < 10
