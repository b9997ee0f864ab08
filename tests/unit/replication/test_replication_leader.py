"""What the leader of one partition decides."""

from __future__ import annotations

from typing import Any

import pytest

from odradek.replication.config import ReplicationConfig
from odradek.replication.isr import PartitionState, Peer
from odradek.replication.leader import LeaderState, check_position
from odradek.replication.read_replica import preferred_read_replica
from odradek.wire.errors import ErrorCode

LAG_MS = 1000


def partition(isr: tuple[int, ...] = (1, 2, 3), partition_epoch: int = 0, **other: Any) -> PartitionState:
    values: dict[str, Any] = {"leader": 1, "leader_epoch": 7, "replicas": (1, 2, 3)} | other
    return PartitionState(values["leader"], values["leader_epoch"], partition_epoch, isr, values["replicas"])


class Bench:
    """A leader of epoch 7 on broker 1, and brokers 2 and 3 with epochs 12 and 13."""

    def __init__(
        self, isr: tuple[int, ...] = (1, 2, 3), *, start: int = 100, high_watermark: int = 90, min_isr: int = 2,
        **other: Any,
    ) -> None:  # fmt: skip
        self.now = 10_000
        self.peers = {number: Peer(10 + number, False, rack=f"rack-{number}") for number in (1, 2, 3)}
        self.leader = LeaderState(
            1, 11, partition(isr, **other), self.peers, ReplicationConfig(replica_lag_time_max_ms=LAG_MS),
            epoch_start_offset=start, high_watermark=high_watermark, counted_end=start, min_isr=min_isr,
            now_ms=self.now,
        )  # fmt: skip

    def fetch(self, follower: int, end: int, *, broker_epoch: int | None = None, start: int = 0) -> int:
        """Acknowledge; the high watermark afterwards."""
        epoch = 10 + follower if broker_epoch is None else broker_epoch
        assert self.leader.check_follower(follower, epoch) is ErrorCode.NONE
        self.leader.fetched(follower, end, start, epoch, self.now)
        return self.leader.high_watermark

    def append(self, end: int, counted: int | None = None) -> int:
        self.leader.appended(end, end if counted is None else counted, self.now)
        return self.leader.high_watermark

    def proposed(self) -> set[int] | None:
        proposal = self.leader.isr.proposal
        return set(proposal.members) if proposal is not None else None

    def commit(self) -> None:
        """The controller says yes."""
        proposal = self.leader.isr.take()
        answer = partition(tuple(proposal.members), proposal.partition_epoch + 1)
        self.leader.answered(proposal, answer, self.now)


class FakeLog:
    def __init__(self, start: int, epochs: list[tuple[int, int]], end: int) -> None:
        self.log_start_offset, self.log_end_offset = start, end
        self._epochs = epochs

    def end_offset_for_epoch(self, epoch: int) -> tuple[int, int]:
        if not self._epochs or epoch > self._epochs[-1][0]:
            return -1, -1
        below = [each for each in self._epochs if each[0] <= epoch]
        above = [each for each in self._epochs if each[0] > epoch]
        return below[-1][0], above[0][1] if above else self.log_end_offset


# Fetches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epoch", "error"),
    [(7, "NONE"), (6, "FENCED_LEADER_EPOCH"), (-1, "FENCED_LEADER_EPOCH"), (8, "UNKNOWN_LEADER_EPOCH")],
)
def test_only_exactly_this_leader_epoch_is_answered(epoch: int, error: str) -> None:
    assert Bench().leader.check_epoch(epoch).name == error


def test_a_broker_without_a_replica_and_an_earlier_incarnation_are_refused() -> None:
    bench = Bench()
    assert bench.leader.check_follower(4, 14) is ErrorCode.NOT_LEADER_OR_FOLLOWER
    bench.fetch(2, 50, broker_epoch=20)
    assert bench.leader.check_follower(2, 19) is ErrorCode.STALE_BROKER_EPOCH
    assert bench.leader.check_follower(2, 21) is ErrorCode.NONE


@pytest.mark.parametrize(
    ("offset", "epoch", "answer"),
    [
        (100, 5, (ErrorCode.NONE, None)),
        (80, 5, (ErrorCode.NONE, None)),
        (60, 3, (ErrorCode.NONE, None)),
        (9, 1, (ErrorCode.OFFSET_OUT_OF_RANGE, None)),  # below the log start, although it diverges as well
        (70, 3, (ErrorCode.NONE, (3, 60))),
        (70, 4, (ErrorCode.NONE, (3, 60))),
        (101, 5, (ErrorCode.NONE, (5, 100))),
        (50, 6, (ErrorCode.OFFSET_OUT_OF_RANGE, None)),
        (50, -1, (ErrorCode.NONE, None)),
        (101, -1, (ErrorCode.OFFSET_OUT_OF_RANGE, None)),
    ],
)
def test_a_position_is_out_of_range_or_diverges_or_fits(offset: int, epoch: int, answer: object) -> None:
    log = FakeLog(10, [(2, 10), (3, 20), (5, 60)], 100)
    assert check_position(log, offset, epoch) == answer


# High watermark -------------------------------------------------------------------------------------------------


def test_the_high_watermark_is_the_least_end_of_the_isr_and_only_of_what_was_said_in_this_epoch() -> None:
    bench = Bench()
    assert bench.append(110) == 90
    assert bench.fetch(2, 105) == 90, "broker 3 has said nothing yet"
    assert bench.fetch(3, 110) == 105
    assert bench.fetch(2, 110) == 110


def test_it_never_falls() -> None:
    bench = Bench(high_watermark=90)
    bench.fetch(2, 95)
    assert bench.fetch(3, 92) == 92
    assert bench.fetch(3, 91) == 92


def test_what_is_not_fsynced_here_does_not_count_where_the_topic_asks_for_fsync() -> None:
    bench = Bench()
    bench.append(110, counted=100)
    bench.fetch(2, 110)
    assert bench.fetch(3, 110) == 100
    assert bench.append(110, counted=110) == 110


def test_a_member_that_is_only_proposed_holds_it_back() -> None:
    bench = Bench((1, 2))
    bench.fetch(2, 100)
    bench.fetch(3, 100)
    assert bench.leader.isr.maximal == {1, 2, 3}
    bench.append(120)
    assert bench.fetch(2, 120) == 100
    bench.now += 10 * LAG_MS  # broker 3 is not caught up any more, but the controller may have it in the ISR
    assert bench.append(121) == 100
    assert bench.fetch(2, 121) == 100


def test_it_stands_still_below_min_isr() -> None:
    bench = Bench((1,), min_isr=2)
    assert bench.append(120) == 90
    assert bench.fetch(2, 120) == 90
    bench.commit()
    assert bench.leader.isr.committed == {1, 2}
    assert bench.leader.high_watermark == 120


def test_min_isr_is_at_most_the_number_of_replicas() -> None:
    bench = Bench((1,), min_isr=2, replicas=(1,))
    assert bench.leader.refusal() is ErrorCode.NONE
    assert bench.append(120) == 120
    bench.leader.configure(3, bench.now)
    assert bench.leader.effective_min_isr == 1


def test_a_caught_up_follower_that_may_join_is_waited_for_or_it_would_never_join_under_load() -> None:
    bench = Bench((1, 2), min_isr=1, high_watermark=100)
    bench.fetch(2, 100)
    bench.fetch(3, 100)
    bench.leader.answered(bench.leader.isr.take(), ErrorCode.INELIGIBLE_REPLICA, bench.now)
    assert bench.leader.isr.maximal == {1, 2}
    bench.append(110)
    bench.fetch(2, 110)
    assert bench.leader.high_watermark == 100
    bench.peers[3] = Peer(13, True)
    assert bench.append(111) == 110, "a fenced one is not"


# Who is caught up -----------------------------------------------------------------------------------------------


def test_who_keeps_up_with_a_busy_leader_stays_though_never_at_its_end() -> None:
    bench = Bench()
    end = 100
    for _ in range(50):
        end += 10
        bench.append(end)
        bench.now += 100
        bench.fetch(2, end - 5)
        bench.fetch(3, end - 5)
        bench.leader.shrink(bench.now)
    assert bench.proposed() is None


def test_who_falls_behind_for_the_lag_limit_is_dropped_even_if_it_moves() -> None:
    bench = Bench()
    bench.fetch(2, 100)
    bench.fetch(3, 100)
    for step in range(1, 15):
        bench.append(100 + 10 * step)
        bench.now += 100
        bench.fetch(2, 100 + 10 * step)
        bench.fetch(3, 100 + step)
        bench.leader.shrink(bench.now)
        if bench.proposed() is not None:
            break
    assert bench.proposed() == {1, 2}
    assert step in (11, 12)


def test_who_is_silent_because_nothing_is_written_is_caught_up() -> None:
    bench = Bench()
    bench.fetch(2, 100)
    bench.fetch(3, 100)
    bench.now += 100 * LAG_MS
    bench.leader.shrink(bench.now)
    assert bench.proposed() is None
    bench.append(101)
    bench.now += LAG_MS
    bench.leader.shrink(bench.now)
    assert bench.proposed() is None, "the limit counts from the append"
    bench.now += 1
    bench.leader.shrink(bench.now)
    assert bench.proposed() == {1}


def test_who_has_not_fetched_from_a_new_leader_is_dropped_after_the_lag_limit() -> None:
    bench = Bench()
    bench.fetch(2, 100)
    bench.now += LAG_MS + 1
    bench.leader.shrink(bench.now)
    assert bench.proposed() == {1, 2}


def test_a_member_found_below_the_high_watermark_has_lost_records_and_leaves_at_once() -> None:
    bench = Bench()
    bench.fetch(2, 100)
    bench.fetch(3, 100)
    bench.fetch(3, 40, broker_epoch=30)
    assert bench.proposed() == {1, 2}
    assert bench.leader.isr.maximal == {1, 2, 3}


# Growth ---------------------------------------------------------------------------------------------------------


def test_nobody_joins_before_the_high_watermark_has_reached_the_start_of_the_epoch() -> None:
    bench = Bench((1, 2), start=100, high_watermark=90)
    bench.fetch(3, 100)
    assert bench.proposed() is None
    bench.fetch(2, 100)
    assert bench.leader.high_watermark == 100
    assert bench.proposed() == {1, 2, 3}


def test_who_joins_needs_the_start_of_the_epoch_and_the_high_watermark() -> None:
    bench = Bench((1, 2))
    bench.append(120)
    bench.fetch(2, 110)
    bench.fetch(3, 105)
    assert bench.proposed() is None
    bench.fetch(3, 110)
    assert bench.proposed() == {1, 2, 3}


def test_below_min_isr_the_start_of_the_epoch_is_enough_or_nobody_could_ever_join() -> None:
    bench = Bench((1,), start=100, high_watermark=90, min_isr=2)
    bench.fetch(2, 99)
    assert bench.proposed() is None
    bench.fetch(2, 100)
    assert bench.proposed() == {1, 2}


@pytest.mark.parametrize("peer", [Peer(13, True), Peer(13, False, True), Peer(14, False), None])
def test_who_is_fenced_or_leaving_or_another_incarnation_does_not_join(peer: Peer | None) -> None:
    bench = Bench((1, 2))
    bench.fetch(2, 100)
    if peer is None:
        del bench.peers[3]
    else:
        bench.peers[3] = peer
    bench.fetch(3, 100)
    assert bench.proposed() is None
    bench.peers[3] = Peer(13, False)
    bench.leader.peers_changed(bench.now)
    assert bench.proposed() == {1, 2, 3}


def test_a_proposal_carries_the_incarnation_that_fetched() -> None:
    bench = Bench((1, 2))
    bench.fetch(2, 100)
    bench.fetch(3, 100)
    assert bench.leader.isr.take().isr == ((1, 11), (2, 12), (3, 13))


def test_who_was_refused_is_proposed_again_after_a_while() -> None:
    bench = Bench((1, 2), high_watermark=100)
    bench.fetch(2, 100)
    bench.fetch(3, 100)
    bench.leader.answered(bench.leader.isr.take(), ErrorCode.INELIGIBLE_REPLICA, bench.now)
    bench.fetch(3, 100)
    assert bench.proposed() is None
    bench.now = bench.leader.isr.not_before_ms
    bench.leader.reconsider(bench.now)
    assert bench.proposed() == {1, 2, 3}


def test_who_catches_up_while_a_proposal_is_out_is_proposed_after_it() -> None:
    bench = Bench((1,), min_isr=1, high_watermark=100)
    bench.fetch(2, 100)
    assert bench.proposed() == {1, 2}
    bench.fetch(3, 100)
    assert bench.proposed() == {1, 2}
    bench.commit()
    assert bench.proposed() == {1, 2, 3}


def test_newer_metadata_replaces_isr_and_replicas() -> None:
    bench = Bench()
    bench.fetch(2, 100)
    bench.append(110)
    bench.leader.metadata(partition((1, 2), 1, replicas=(1, 2)), bench.now)
    assert bench.leader.check_follower(3, 13) is ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert bench.leader.high_watermark == 100
    bench.leader.metadata(partition((1,), 2, replicas=(1, 2, 4)), bench.now)
    assert bench.leader.check_follower(4, 14) is ErrorCode.NONE
    assert bench.leader.under_min_isr


# acks=all and ListOffsets ---------------------------------------------------------------------------------------


def test_acks_all_is_refused_up_front_below_min_isr() -> None:
    assert Bench((1,), min_isr=2).leader.refusal() is ErrorCode.NOT_ENOUGH_REPLICAS
    assert Bench((1, 2), min_isr=2).leader.refusal() is ErrorCode.NONE


def test_acks_all_is_answered_when_the_high_watermark_has_passed() -> None:
    bench = Bench((1, 2))
    bench.append(110)
    assert bench.leader.acknowledgement(110) is None
    bench.fetch(2, 109)
    assert bench.leader.acknowledgement(110) is None
    bench.fetch(2, 110)
    assert bench.leader.acknowledgement(110) is ErrorCode.NONE


def test_acks_all_is_uncertain_once_the_isr_has_shrunk_below_min_isr() -> None:
    bench = Bench((1, 2))
    bench.append(110)
    bench.fetch(2, 105)
    bench.leader.metadata(partition((1,), 1), bench.now)
    assert bench.leader.acknowledgement(110) is ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND
    assert bench.leader.acknowledgement(105) is ErrorCode.NONE, "that was committed before"


def test_the_latest_offset_is_not_available_until_the_epoch_is_committed() -> None:
    bench = Bench((1, 2), start=100, high_watermark=90)
    assert bench.leader.latest_offset_error() is ErrorCode.OFFSET_NOT_AVAILABLE
    bench.fetch(2, 100)
    assert bench.leader.latest_offset_error() is ErrorCode.NONE


def test_the_low_watermark_is_that_of_all_live_replicas() -> None:
    bench = Bench()
    bench.fetch(2, 100, start=20)
    assert bench.leader.low_watermark(50) == -1
    bench.fetch(3, 100, start=30)
    assert bench.leader.low_watermark(50) == 20
    bench.peers[2] = Peer(12, True)
    assert bench.leader.low_watermark(50) == 30


# Reading from followers -----------------------------------------------------------------------------------------


def test_a_consumer_is_sent_to_the_member_of_the_isr_in_its_rack_that_has_its_offset() -> None:
    bench = Bench((1, 2))
    bench.fetch(2, 100, start=10)
    bench.fetch(3, 100, start=10)
    choose = preferred_read_replica
    assert choose(bench.leader, bench.peers, "rack-2", 50) == 2
    assert choose(bench.leader, bench.peers, "rack-1", 50) is None, "the leader itself"
    assert choose(bench.leader, bench.peers, "", 50) is None
    assert choose(bench.leader, bench.peers, "rack-3", 50) is None, "not in the ISR"
    assert choose(bench.leader, bench.peers, "rack-2", 5) is None, "below its log start"
    assert choose(bench.leader, bench.peers, "rack-2", 101) is None, "beyond its end"
    bench.peers[2] = bench.peers[2]._replace(fenced=True)
    assert choose(bench.leader, bench.peers, "rack-2", 50) is None


def test_of_several_in_its_rack_it_is_the_furthest() -> None:
    bench = Bench()
    bench.peers[3] = bench.peers[3]._replace(rack="rack-2")
    bench.append(110)
    bench.fetch(2, 105)
    bench.fetch(3, 107)
    assert preferred_read_replica(bench.leader, bench.peers, "rack-2", 50) == 3
