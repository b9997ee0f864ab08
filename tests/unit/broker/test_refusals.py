"""When refusals by other nodes end this one."""

from __future__ import annotations

from odradek.broker.refusals import PATIENCE_MS, Refusals

NEVER = -1


def test_a_refusal_counts_when_it_has_lasted_long_enough_from_the_first_on() -> None:
    refusals = Refusals()
    refusals.heard(1, "two nodes", 0)
    refusals.heard(1, "two nodes", PATIENCE_MS - 1)
    assert refusals.verdict(NEVER, PATIENCE_MS - 1) is None
    assert refusals.verdict(NEVER, PATIENCE_MS) == "two nodes"


def test_a_refusal_taken_back_does_not_count() -> None:
    refusals = Refusals()
    refusals.heard("host:1", "another cluster", 0)
    refusals.heard("host:1", None, PATIENCE_MS)
    refusals.heard("host:1", "another cluster", PATIENCE_MS + 1)
    assert refusals.verdict(NEVER, PATIENCE_MS + 2) is None


def test_whom_the_leader_answers_goes_on_and_for_a_while_after() -> None:
    refusals = Refusals()
    refusals.heard(2, "another cluster", 0)
    assert refusals.verdict(leader_heard_ms=9 * PATIENCE_MS, now_ms=9 * PATIENCE_MS) is None
    assert refusals.verdict(leader_heard_ms=9 * PATIENCE_MS, now_ms=10 * PATIENCE_MS) == "another cluster"
