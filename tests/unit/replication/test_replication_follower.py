"""What a follower does with what it is sent."""

from __future__ import annotations

from typing import Any

import pytest

from odradek.replication.follower import FollowerState, Phase, Step, truncation_offset
from odradek.replication.messages import FetchData
from odradek.wire.errors import ErrorCode


class FakeLog:
    def __init__(
        self, start: int = 0, end: int = 100, epochs: tuple[tuple[int, int], ...] = ((1, 0), (4, 60))
    ) -> None:
        self.log_start_offset, self.log_end_offset, self._epochs = start, end, epochs

    def end_offset_for_epoch(self, epoch: int) -> tuple[int, int]:
        if not self._epochs or epoch > self._epochs[-1][0]:
            return -1, -1
        below = [each for each in self._epochs if each[0] <= epoch]
        above = [each for each in self._epochs if each[0] > epoch]
        if not below:
            return epoch, above[0][1]
        return below[-1][0], above[0][1] if above else self.log_end_offset


def data(**values: Any) -> FetchData:
    defaults: dict[str, Any] = {
        "leader_epoch": 5, "generation": 1, "error": ErrorCode.NONE, "diverging": None, "high_watermark": 80,
        "log_start_offset": 0, "fetch_offset": 100, "batches": b"",
    }  # fmt: skip
    return FetchData(b"t" * 16, 0, **(defaults | values))


@pytest.fixture
def follower() -> FollowerState:
    state = FollowerState(2, 5, 70, backoff_ms=50, backoff_max_ms=300)
    state.begin(1)
    return state


def test_batches_that_continue_the_log_are_taken_and_move_the_high_watermark(follower: FollowerState) -> None:
    assert follower.decide(data(batches=b"x"), FakeLog(), 0).step is Step.TAKE
    assert follower.taken(data(high_watermark=80), 110)
    assert follower.high_watermark == 80


def test_the_high_watermark_is_never_above_the_own_end_and_a_new_leader_may_know_less(
    follower: FollowerState,
) -> None:
    follower.taken(data(high_watermark=500), 110)
    assert (follower.high_watermark, follower.leader_high_watermark) == (110, 500)
    assert not follower.taken(data(high_watermark=90), 120)
    assert follower.high_watermark == 110


def test_a_divergence_is_dealt_with_before_the_high_watermark_that_comes_with_it(
    follower: FollowerState,
) -> None:
    decision = follower.decide(data(diverging=(1, 50), high_watermark=95), FakeLog(), 0)
    assert decision == (Step.TRUNCATE, 50)
    assert follower.high_watermark == 70
    follower.truncated(50)
    assert follower.high_watermark == 50


@pytest.mark.parametrize(
    ("diverging", "offset"),
    [
        ((4, 80), 80),  # the leader has less of the last epoch
        ((3, 90), 60),  # the leader has none of it, and more of those before than we have
        ((1, 40), 40),
        ((0, 0), 0),  # an epoch before all of ours: our end of it is where ours begin
        ((5, 150), 100),
    ],
)
def test_the_log_is_cut_at_the_lesser_of_both_ends_of_the_common_epoch(diverging: Any, offset: int) -> None:
    assert truncation_offset(diverging, FakeLog()) == offset


def test_a_divergence_that_cuts_nothing_is_no_reason_to_spin(follower: FollowerState) -> None:
    assert follower.decide(data(diverging=(5, 150)), FakeLog(), 1000).step is Step.RETRY
    assert follower.retry_at_ms == 1050


def test_an_earlier_generation_is_dropped_and_so_is_everything_while_stopped(follower: FollowerState) -> None:
    follower.begin(2)
    assert follower.decide(data(generation=1, diverging=(1, 10)), FakeLog(), 0).step is Step.DROP
    follower.decide(data(generation=2, error=ErrorCode.FENCED_LEADER_EPOCH), FakeLog(), 0)
    assert follower.phase is Phase.STOPPED
    assert follower.decide(data(generation=2), FakeLog(), 0).step is Step.DROP


def test_batches_for_another_log_end_are_refused_and_so_is_what_follows_them(follower: FollowerState) -> None:
    assert follower.decide(data(batches=b"x", fetch_offset=101), FakeLog(), 0).step is Step.RETRY
    assert follower.decide(data(batches=b"x", fetch_offset=100), FakeLog(), 0).step is Step.DROP


def test_a_leader_that_was_not_ready_may_answer_later(follower: FollowerState) -> None:
    error = data(error=ErrorCode.UNKNOWN_LEADER_EPOCH, leader_epoch=4)
    assert follower.decide(error, FakeLog(), 0).step is Step.RETRY
    assert follower.phase is Phase.BACKING_OFF
    assert follower.decide(data(batches=b"x"), FakeLog(), 10).step is Step.TAKE
    follower.taken(data(), 110)
    assert (follower.phase, follower.failures) == (Phase.FETCHING, 0)


def test_the_back_off_doubles_up_to_its_limit(follower: FollowerState) -> None:
    waits = []
    for generation in range(1, 6):
        follower.begin(generation)
        follower.decide(data(generation=generation, error=ErrorCode.NOT_LEADER_OR_FOLLOWER), FakeLog(), 1000)
        waits.append(follower.retry_at_ms - 1000)
    assert waits == [50, 100, 200, 300, 300]


def test_out_of_range_begins_anew_only_if_the_log_cannot_matter(follower: FollowerState) -> None:
    error = data(error=ErrorCode.OFFSET_OUT_OF_RANGE, log_start_offset=150)
    assert follower.decide(error, FakeLog(), 0) == (Step.START_ANEW, 150)
    follower.restarted_at(150)
    assert follower.high_watermark == 150
    follower.begin(2)
    error = data(generation=2, error=ErrorCode.OFFSET_OUT_OF_RANGE, log_start_offset=30)
    assert follower.decide(error, FakeLog(40, 40, ()), 0) == (Step.START_ANEW, 30), "an empty log"
    assert follower.decide(error, FakeLog(40, 41), 0).step is Step.RETRY, (
        "records that nobody has spoken about"
    )
