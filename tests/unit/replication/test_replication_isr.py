"""What an ISR proposal may become, and what an answer proves."""

from __future__ import annotations

import pytest

from odradek.replication.isr import IsrState, PartitionState
from odradek.wire.errors import ErrorCode


def state(isr: tuple[int, ...] = (1, 2), partition_epoch: int = 5, leader_epoch: int = 3) -> PartitionState:
    return PartitionState(1, leader_epoch, partition_epoch, isr, (1, 2, 3))


@pytest.fixture
def isr() -> IsrState:
    return IsrState(state(), backoff_ms=50, backoff_max_ms=200)


def test_growth_is_believed_at_once_and_shrinking_only_when_it_is_committed(isr: IsrState) -> None:
    isr.propose({1, 2, 3}, {})
    assert (isr.committed, isr.maximal) == ({1, 2}, {1, 2, 3})
    other = IsrState(state())
    other.propose({1}, {})
    assert (other.committed, other.maximal) == ({1, 2}, {1, 2})


def test_a_proposal_names_the_incarnations_it_is_about(isr: IsrState) -> None:
    isr.propose({1, 2, 3}, {1: 11, 3: 13})
    proposal = isr.take()
    assert proposal.isr == ((1, 11), (2, -1), (3, 13))
    assert (proposal.leader_epoch, proposal.partition_epoch) == (3, 5)


def test_one_question_at_a_time(isr: IsrState) -> None:
    isr.propose({1, 2, 3}, {})
    isr.take()
    assert isr.in_flight and not isr.unsent and not isr.may_propose(0)


def test_an_applied_proposal_is_the_isr_of_the_answer(isr: IsrState) -> None:
    isr.propose({1, 2, 3}, {})
    assert isr.applied(isr.take(), state((1, 2, 3), 6), 0)
    assert (isr.committed, isr.maximal, isr.partition_epoch) == ({1, 2, 3}, {1, 2, 3}, 6)
    assert isr.may_propose(0)


@pytest.mark.parametrize("error", [None, ErrorCode.NOT_CONTROLLER, ErrorCode.UNKNOWN_SERVER_ERROR])
def test_without_an_answer_that_proves_anything_the_maximal_isr_stays_and_it_is_asked_again(
    isr: IsrState, error: ErrorCode | None
) -> None:
    isr.propose({1, 2, 3}, {})
    proposal = isr.take()
    assert not isr.refused(proposal, error, 1000)
    assert (isr.maximal, isr.unsent, isr.not_before_ms) == ({1, 2, 3}, True, 1050)
    assert isr.take() is proposal
    isr.refused(proposal, error, 2000)
    assert isr.not_before_ms == 2100
    for _ in range(20):
        isr.take()
        isr.refused(proposal, error, 3000)
    assert isr.not_before_ms == 3200


@pytest.mark.parametrize("error", [ErrorCode.INELIGIBLE_REPLICA, ErrorCode.OPERATION_NOT_ATTEMPTED])
def test_a_proof_that_the_only_try_was_not_applied_takes_it_back(isr: IsrState, error: ErrorCode) -> None:
    isr.propose({1, 2, 3}, {})
    assert isr.refused(isr.take(), error, 1000)
    assert (isr.committed, isr.maximal) == ({1, 2}, {1, 2})
    assert not isr.may_propose(1049), "what was just refused is not asked again at once"
    assert isr.may_propose(1050)


def test_a_stale_broker_epoch_proves_that_nothing_was_applied_but_the_question_stays(isr: IsrState) -> None:
    isr.propose({1, 2, 3}, {})
    proposal = isr.take()
    isr.refused(proposal, ErrorCode.STALE_BROKER_EPOCH, 0)
    assert (isr.unsent, isr.doubts, isr.maximal) == (True, 0, {1, 2, 3})
    isr.take()
    assert isr.refused(proposal, ErrorCode.INELIGIBLE_REPLICA, 0)
    assert isr.maximal == {1, 2}


def test_a_proof_of_a_later_try_proves_nothing_of_one_in_doubt(isr: IsrState) -> None:
    isr.propose({1, 2, 3}, {})
    proposal = isr.take()
    isr.refused(proposal, None, 0)
    isr.take()
    assert not isr.refused(proposal, ErrorCode.INELIGIBLE_REPLICA, 100)
    assert (isr.maximal, isr.unsent) == ({1, 2, 3}, False), "the first try may still be applied"
    assert isr.adopt(state((1, 2), 6)), "now it cannot"
    assert (isr.maximal, isr.may_propose(0)) == ({1, 2}, True)


def test_an_answer_of_the_same_partition_epoch_means_that_there_was_nothing_to_change(isr: IsrState) -> None:
    isr.propose({1, 2, 3}, {})
    assert isr.applied(isr.take(), state((1, 2), 5), 0)
    assert isr.maximal == {1, 2}
    other = IsrState(state())
    other.propose({1, 2, 3}, {})
    proposal = other.take()
    other.refused(proposal, None, 0)
    other.take()
    assert not other.applied(proposal, state((1, 2), 5), 0), "unless a try is in doubt"
    assert (other.maximal, other.unsent) == ({1, 2, 3}, True)


@pytest.mark.parametrize(
    "error",
    [
        ErrorCode.FENCED_LEADER_EPOCH,
        ErrorCode.INVALID_UPDATE_VERSION,
        ErrorCode.NEW_LEADER_ELECTED,
        ErrorCode.UNKNOWN_TOPIC_ID,
    ],
)
def test_an_outdated_proposal_waits_for_metadata_with_its_maximal_isr(
    isr: IsrState, error: ErrorCode
) -> None:
    isr.propose({1, 2, 3}, {})
    isr.refused(isr.take(), error, 0)
    assert (isr.maximal, isr.unsent, isr.in_flight, isr.may_propose(10_000)) == (
        {1, 2, 3},
        False,
        False,
        False,
    )
    assert isr.adopt(state((1, 2, 3), 7))
    assert (isr.committed, isr.may_propose(10_000)) == ({1, 2, 3}, True)


def test_newer_metadata_ends_a_proposal_and_its_late_answer_means_nothing(isr: IsrState) -> None:
    isr.propose({1, 2, 3}, {})
    proposal = isr.take()
    assert isr.adopt(state((1,), 6))
    assert (isr.committed, isr.maximal) == ({1}, {1})
    assert not isr.applied(proposal, state((1, 2, 3), 6), 0)
    assert not isr.refused(proposal, None, 0)
    assert (isr.maximal, isr.doubts) == ({1}, 0)


def test_older_metadata_and_answers_of_another_leader_epoch_mean_nothing(isr: IsrState) -> None:
    assert not isr.adopt(state((1,), 5))
    isr.propose({1, 2, 3}, {})
    assert not isr.applied(isr.take(), state((1, 2, 3), 6, leader_epoch=4), 0)
    assert isr.maximal == {1, 2, 3}
