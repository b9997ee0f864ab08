"""A partition that is loading, is unloaded, or changes hands."""

from __future__ import annotations

from odradek.wire.errors import ErrorCode
from odradek.wire.messages.offset_fetch import OffsetFetchRequest, OffsetFetchRequestTopic
from unit.coordinator.group_harness import (
    GROUP,
    PARTITIONS,
    Answer,
    Harness,
    context,
    errors_of,
    sync_response,
)


def test_a_coordinator_without_the_partition_says_so_everywhere() -> None:
    h = Harness(load=False)
    no = ErrorCode.NOT_COORDINATOR
    assert h.join().error is no
    assert h.heartbeat("m", 1).error is no
    assert ErrorCode(h.leave("m").error_code) is no
    assert ErrorCode(h.leave("m", version=1).error_code) is no
    assert h.commit_errors({("orders", 0): 1}) == [no]
    assert ErrorCode(h.fetch([("orders", 0)]).response.groups[0].error_code) is no
    assert h.delete_offsets(("orders", 0)).error is no
    assert ErrorCode(h.describe().error_code) is no
    assert h.delete_groups("group") == {"group": no}
    assert h.list().error is ErrorCode.NONE


def test_a_loading_partition_says_so_and_lets_heartbeats_pass() -> None:
    h = Harness(load=False)
    for partition in range(PARTITIONS):
        h.coordinator.runtime.load_begin(partition, 0)
    loading = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert h.join().error is loading
    assert h.heartbeat("m", 1).error is ErrorCode.NONE
    assert ErrorCode(h.leave("m").error_code) is loading
    assert h.commit_errors({("orders", 0): 1}) == [loading]
    assert ErrorCode(h.fetch([("orders", 0)]).response.groups[0].error_code) is loading
    assert h.delete_offsets(("orders", 0)).error is loading
    assert ErrorCode(h.describe().error_code) is loading
    assert h.delete_groups("group") == {"group": loading}
    assert h.list().error is loading


def test_fetch_errors_before_version_2_are_those_of_partitions() -> None:
    h = Harness(load=False)
    answer = Answer()
    request = OffsetFetchRequest(GROUP, [OffsetFetchRequestTopic("orders", [0, 1])])
    h.coordinator.fetch_offsets(context(1), request, answer)
    answer.response.encode(1)
    assert errors_of(answer) == [ErrorCode.NOT_COORDINATOR] * 2


def test_unloading_answers_every_join_and_sync_that_waits() -> None:
    h = Harness()
    joins = [h.join_fully(), h.join_fully()]
    leader_elsewhere = h.join_fully(group="other")
    h.advance(6_000)
    syncs = [
        h.sync(answer.response) for answer in joins if answer.response.leader != answer.response.member_id
    ]
    late = h.join_fully(group="late")
    for partition in range(PARTITIONS):
        h.coordinator.runtime.unload(partition)
    assert late.error is ErrorCode.NOT_COORDINATOR
    assert [sync.error for sync in syncs] == [ErrorCode.NOT_COORDINATOR]
    assert leader_elsewhere.error is ErrorCode.NONE
    assert h.timers.next_deadline_ms() is None


def test_the_next_coordinator_knows_the_last_generation_and_its_members_go_on() -> None:
    h = Harness()
    leader, follower = h.stable(2)
    h.commit({("orders", 0): 7}, member_id=leader.member_id, generation=1)
    before = h.describe()
    h.successor()
    assert h.describe() == before
    assert h.heartbeat(leader.member_id, 1).error is ErrorCode.NONE
    assert h.heartbeat(follower.member_id, 1).error is ErrorCode.NONE
    assert sync_response(h.sync(follower)).assignment == b"1"
    assert h.commit_errors({("orders", 0): 8}, member_id=leader.member_id, generation=1) == [ErrorCode.NONE]
    assert h.committed() == {("orders", 0): 8}


def test_loaded_members_have_one_session_to_be_heard_of() -> None:
    h = Harness()
    leader, follower = h.stable(2, session_ms=10_000)
    h.advance(9_000)
    h.successor()
    h.advance(9_999)
    assert h.heartbeat(leader.member_id, 1).error is ErrorCode.NONE
    h.advance(1)
    assert [member.member_id for member in h.describe().members] == [leader.member_id]
    assert follower.member_id not in str(h.describe())


def test_a_generation_that_was_not_stored_is_forgotten() -> None:
    h = Harness()
    (leader,) = h.stable()
    rejoined = h.join(leader.member_id)
    assert rejoined.response.generation_id == 2
    h.successor()
    assert h.heartbeat(leader.member_id, 2).error is ErrorCode.ILLEGAL_GENERATION
    assert h.heartbeat(leader.member_id, 1).error is ErrorCode.NONE


def test_a_group_larger_than_allowed_after_loading_rebalances_down() -> None:
    h = Harness()
    members = h.stable(3)
    h.config = type(h.config)(group_max_size=2)
    h.successor()
    assert h.state() == "PreparingRebalance"
    rejoins = [h.join(member.member_id) for member in members]
    assert rejoins[2].error is ErrorCode.GROUP_MAX_SIZE_REACHED
    assert [rejoin.waits for rejoin in rejoins[:2]] == [True, True]
    h.advance(60_000)
    h.finish(rejoins[:2])
    assert len(h.describe().members) == 2


def test_retention_of_an_empty_group_runs_on_in_the_next_coordinator() -> None:
    """It runs from when the group lost its last member, which the log tells the next coordinator."""
    harness = Harness()
    (member,) = harness.stable()
    harness.commit({("orders", 0): 1}, member_id=member.member_id, generation=1)
    day_ms = 24 * 3_600_000
    for _ in range(3):  # alive: its session is kept by a join that it repeats
        harness.advance(1_000)
        assert harness.heartbeat(member.member_id, 1).error is ErrorCode.NONE
    harness.leave(member.member_id)
    for _ in range(6):
        harness.advance(day_ms)
        harness.successor()
    assert harness.committed() == {("orders", 0): 1}
    harness.advance(day_ms + 700_000)
    assert harness.committed() == {}


def test_a_replaced_static_member_is_fenced_by_the_next_coordinator_too() -> None:
    harness = Harness()
    first = harness.join(instance="i")
    harness.advance(harness.config.group_initial_rebalance_delay_ms * 2)
    (old,) = harness.finish([first], instances=["i"])
    new = harness.join(instance="i").response
    assert new.member_id != old.member_id
    harness.successor()
    assert harness.heartbeat(old.member_id, 1, instance="i").error is ErrorCode.FENCED_INSTANCE_ID
    assert harness.sync(old, instance="i").error is ErrorCode.FENCED_INSTANCE_ID
    stale = {"member_id": old.member_id, "generation": 1, "instance": "i"}
    assert harness.commit_errors({("orders", 0): 1}, **stale) == [ErrorCode.FENCED_INSTANCE_ID]
    assert harness.heartbeat(new.member_id, 1, instance="i").error is ErrorCode.NONE


def test_static_members_keep_their_places_across_coordinators() -> None:
    h = Harness()
    answers = [h.join(instance=name) for name in ("one", "two")]
    h.advance(6_000)
    h.finish(answers, instances=["one", "two"])
    h.successor()
    back = h.join(instance="two")
    assert (back.response.generation_id, back.error) == (1, ErrorCode.NONE)
    old = answers[1].response.member_id
    assert h.heartbeat(old, 1, instance="two").error is ErrorCode.FENCED_INSTANCE_ID


def test_deleted_groups_and_offsets_stay_deleted() -> None:
    h = Harness()
    h.commit({("orders", 0): 1}, group="gone")
    h.commit({("orders", 0): 1, ("orders", 1): 2})
    h.delete_offsets(("orders", 0))
    h.delete_groups("gone")
    h.successor()
    assert h.committed() == {("orders", 1): 2}
    assert h.state("gone") == "Dead"
    assert h.committed("gone") == {}


def test_a_waiting_commit_is_answered_when_its_partition_goes() -> None:
    h = Harness()
    h.writer.holding = True
    pending = h.commit({("orders", 0): 1})
    for partition in range(PARTITIONS):
        h.coordinator.runtime.unload(partition)
    assert errors_of(pending) == [ErrorCode.NOT_COORDINATOR]
    h.writer.release()


def test_a_damaged_log_is_not_served() -> None:
    h = Harness(load=False)
    h.coordinator.runtime.load_begin(0, 0)
    h.coordinator.runtime.load_record(0, b"\0\1", b"")
    h.coordinator.runtime.load_end(0)
    assert h.coordinator.runtime.error_of(0) is ErrorCode.NOT_COORDINATOR


def in_doubt(h: Harness, doubt: bool) -> None:
    h.coordinator.runtime.in_doubt = lambda: doubt


def test_a_coordinator_in_doubt_tells_nothing_of_a_state_that_may_be_of_the_past() -> None:
    """Chaos seed 31: a paused coordinator told a group an offset from before its successor's commits."""
    h = Harness()
    assert h.commit_errors({("orders", 0): 7}) == [ErrorCode.NONE]
    in_doubt(h, True)
    loading = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert ErrorCode(h.fetch([("orders", 0)]).response.groups[0].error_code) is loading
    assert h.commit_errors({("orders", 0): 8}) == [loading]
    assert h.join().error is loading
    assert ErrorCode(h.describe().error_code) is loading
    in_doubt(h, False)
    assert h.committed() == {("orders", 0): 7}


def test_sessions_that_end_in_doubt_begin_anew_when_all_is_loaded_again() -> None:
    """Simulation, three-groups, seed 18: a coordinator slept, then fenced members that had been heard since."""
    h = Harness()
    h.stable()
    in_doubt(h, True)
    h.advance(10_001)
    in_doubt(h, False)
    for partition in range(PARTITIONS):
        h.coordinator.runtime.unload(partition)
    h.load_all(h.coordinator, epoch=0)
    h.advance(9_999)
    assert h.state() == "Stable"
    h.advance(2)
    assert h.state() == "Empty"


def test_a_coordinator_that_hears_no_controller_proves_that_it_leads_before_it_tells_offsets() -> None:
    """Chaos, scenario partition: one that was cut off told a group offsets from before its successor's commits."""
    h = Harness()
    assert h.commit_errors({("orders", 0): 7}) == [ErrorCode.NONE]
    h.coordinator.runtime.must_prove = lambda: True
    h.writer.holding = True
    asked = [h.fetch([("orders", 0)], stable=stable) for stable in (False, True)]
    assert not any(answer.response for answer in asked), "its replicas have not confirmed anything yet"
    h.writer.release()
    for answer in asked:
        [offset] = answer.response.groups[0].topics[0].partitions
        assert (offset.error_code, offset.committed_offset) == (0, 7)
    refused = h.fetch([("orders", 0)])
    h.writer.release(ErrorCode.NOT_LEADER_OR_FOLLOWER)
    assert ErrorCode(refused.response.groups[0].error_code) is ErrorCode.NOT_COORDINATOR
    h.writer.holding = False
    h.successor()
    assert h.committed() == {("orders", 0): 7}
    assert [each.group_id for each in h.list().response.groups] == [GROUP], "the proof is nobody's group"
