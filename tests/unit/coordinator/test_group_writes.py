"""What members see when the coordinator's log is slow, refuses, or loses a write."""

from __future__ import annotations

import pytest

from odradek.wire.errors import ErrorCode
from unit.coordinator.group_harness import Harness, errors_of, sync_response

ANSWERS = [
    (ErrorCode.NOT_ENOUGH_REPLICAS, ErrorCode.COORDINATOR_NOT_AVAILABLE),
    (ErrorCode.REQUEST_TIMED_OUT, ErrorCode.COORDINATOR_NOT_AVAILABLE),
    (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.COORDINATOR_NOT_AVAILABLE),
    (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.NOT_COORDINATOR),
    (ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.NOT_COORDINATOR),
    (ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.UNKNOWN_SERVER_ERROR),
    (ErrorCode.RECORD_LIST_TOO_LARGE, ErrorCode.UNKNOWN_SERVER_ERROR),
    (ErrorCode.INVALID_FETCH_SIZE, ErrorCode.UNKNOWN_SERVER_ERROR),
    (ErrorCode.CORRUPT_MESSAGE, ErrorCode.CORRUPT_MESSAGE),
]


@pytest.mark.parametrize(("refusal", "answer"), ANSWERS)
def test_a_refused_commit_changes_nothing(refusal: ErrorCode, answer: ErrorCode) -> None:
    h = Harness()
    h.commit({("orders", 0): 1})
    h.writer.refuse_with = refusal
    assert h.commit_errors({("orders", 0): 2, ("orders", 1): 2}) == [answer, answer]
    h.writer.refuse_with = ErrorCode.NONE
    assert h.committed() == {("orders", 0): 1}
    assert h.commit_errors({("orders", 0): 3}) == [ErrorCode.NONE]


def test_a_refused_commit_makes_no_simple_group() -> None:
    h = Harness()
    h.writer.refuse_with = ErrorCode.NOT_ENOUGH_REPLICAS
    h.commit({("orders", 0): 1})
    assert h.state() == "Dead"
    assert h.list().response.groups == []


@pytest.mark.parametrize(("refusal", "answer"), ANSWERS)
def test_assignments_that_cannot_be_stored_send_all_back_to_join(
    refusal: ErrorCode, answer: ErrorCode
) -> None:
    h = Harness()
    answers = [h.join_fully() for _ in range(2)]
    h.advance(6_000)
    leader, follower = (joined.response for joined in answers)
    waiting = h.sync(follower)
    h.writer.refuse_with = refusal
    assert h.sync(leader, {follower.member_id: b"x"}).error is answer
    assert waiting.error is answer
    assert sync_response(waiting).assignment == b""
    assert h.state() == "PreparingRebalance"
    h.writer.refuse_with = ErrorCode.NONE
    rejoined = [h.join(leader.member_id), h.join(follower.member_id)]
    h.finish(rejoined)
    assert h.state() == "Stable"


@pytest.mark.parametrize(("refusal", "answer"), ANSWERS)
def test_a_first_join_whose_group_cannot_be_written_is_refused(refusal: ErrorCode, answer: ErrorCode) -> None:
    h = Harness()
    h.writer.refuse_with = refusal
    assert h.join(version=3).error is answer
    assert h.state() == "Dead"
    assert h.join(version=4).error is ErrorCode.MEMBER_ID_REQUIRED
    assert h.state() == "Dead"
    sweeps = 4
    assert len(h.timers) == sweeps


def test_a_group_is_not_seen_before_its_first_record_is_committed() -> None:
    h = Harness()
    h.writer.holding = True
    h.join()
    assert h.state() == "Dead"
    assert h.list().response.groups == []
    h.writer.release()
    assert h.state() == "Empty"


def test_offsets_are_not_seen_before_they_are_committed() -> None:
    h = Harness()
    h.commit({("orders", 0): 1})
    h.writer.holding = True
    pending = h.commit({("orders", 0): 2})
    assert pending.waits
    assert h.committed() == {("orders", 0): 1}
    h.writer.release()
    assert h.committed() == {("orders", 0): 2}


def test_require_stable_waits_for_what_is_being_written() -> None:
    h = Harness()
    h.commit({("orders", 0): 1})
    h.writer.holding = True
    h.commit({("orders", 0): 2})
    fetched = h.fetch([("orders", 0)], stable=True)
    assert fetched.waits
    h.writer.release()
    assert fetched.response.groups[0].topics[0].partitions[0].committed_offset == 2


@pytest.mark.parametrize("error", [ErrorCode.REQUEST_TIMED_OUT, ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND])
def test_require_stable_answers_not_coordinator_when_it_waits_too_long(error: ErrorCode) -> None:
    h = Harness()
    h.writer.holding = True
    h.commit({("orders", 0): 2})
    fetched = h.fetch([("orders", 0)], stable=True)
    h.writer.release(error)
    assert ErrorCode(fetched.response.groups[0].error_code) is ErrorCode.NOT_COORDINATOR


def test_a_commit_of_unknown_fate_is_not_seen_until_something_after_it_is_committed() -> None:
    h = Harness()
    h.writer.holding = True
    pending = h.commit({("orders", 0): 1})
    h.advance(5_000)
    assert errors_of(pending) == [ErrorCode.COORDINATOR_NOT_AVAILABLE]
    assert h.committed() == {}
    h.commit({("orders", 1): 1})
    h.writer.release()
    assert h.committed() == {("orders", 0): 1, ("orders", 1): 1}


def test_a_heartbeat_waits_for_the_state_it_has_seen() -> None:
    h = Harness()
    (leader,) = h.stable()
    h.writer.holding = True
    h.commit({("orders", 0): 1}, member_id=leader.member_id, generation=1)
    beat = h.heartbeat(leader.member_id, 1)
    assert beat.waits
    h.writer.release()
    assert beat.error is ErrorCode.NONE


def test_slow_assignments_of_an_overtaken_generation_are_dropped() -> None:
    h = Harness()
    answers = [h.join_fully() for _ in range(2)]
    h.advance(6_000)
    leader, follower = (joined.response for joined in answers)
    h.writer.holding = True
    waiting = h.sync(leader, {leader.member_id: b"old"})
    rejoin = h.join(follower.member_id, protocols=[("range", b"new")])
    assert waiting.error is ErrorCode.REBALANCE_IN_PROGRESS
    rejoined = h.join(leader.member_id)
    h.writer.release()
    h.writer.holding = False
    assert h.state() == "CompletingRebalance"
    assert {member.member_assignment for member in h.describe().members} == {b""}
    h.finish([rejoined, rejoin])
    assert h.describe().members[0].member_assignment == b"0"


def test_a_static_member_whose_new_id_is_not_stored_keeps_its_old_one() -> None:
    h = Harness()
    joined = h.join(instance="one")
    h.advance(3_000)
    (old,) = h.finish([joined], instances=["one"])
    h.writer.refuse_with = ErrorCode.NOT_ENOUGH_REPLICAS
    refused = h.join(instance="one", protocols=[("range", b"new"), ("other", b"o")])
    assert refused.error is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert (refused.response.member_id, refused.response.generation_id) == ("", 1)
    assert refused.response.leader == old.member_id
    assert h.heartbeat(old.member_id, 1, instance="one").error is ErrorCode.NONE
    h.writer.refuse_with = ErrorCode.NONE
    assert h.describe().members[0].member_metadata == b"metadata"
    again = h.join(instance="one")
    assert again.error is ErrorCode.NONE
    assert again.response.skip_assignment


def test_a_static_member_whose_rejoin_is_overtaken_by_a_rebalance_takes_part_in_it() -> None:
    h = Harness()
    joined = h.join(instance="one")
    h.advance(3_000)
    h.finish([joined], instances=["one"])
    h.writer.holding = True
    back = h.join(instance="one")
    assert back.waits
    newcomer = h.join_fully()
    h.writer.release()
    assert back.response.generation_id == newcomer.response.generation_id == 2


def test_a_refused_empty_group_is_empty_all_the_same() -> None:
    h = Harness()
    (leader,) = h.stable()
    h.writer.refuse_with = ErrorCode.NOT_ENOUGH_REPLICAS
    assert ErrorCode(h.leave(leader.member_id).error_code) is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert h.state() == "Empty"


def test_deleted_groups_are_back_when_the_deletion_is_refused() -> None:
    h = Harness()
    h.commit({("orders", 0): 1})
    h.writer.refuse_with = ErrorCode.NOT_ENOUGH_REPLICAS
    assert h.delete_groups("group") == {"group": ErrorCode.COORDINATOR_NOT_AVAILABLE}
    assert h.committed() == {("orders", 0): 1}


def test_a_lost_write_is_answered_and_the_partition_is_asked_to_be_loaded() -> None:
    h = Harness()
    (leader,) = h.stable()
    h.writer.holding = True
    pending = h.commit({("orders", 0): 1}, member_id=leader.member_id, generation=1)
    h.writer.release(ErrorCode.KAFKA_STORAGE_ERROR)
    assert errors_of(pending) == [ErrorCode.NOT_COORDINATOR]
    partition = h.coordinator.partition_for("group")
    assert h.failed_partitions == [partition]
    assert h.heartbeat(leader.member_id, 1).error is ErrorCode.NOT_COORDINATOR
