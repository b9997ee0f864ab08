"""When refusals by other nodes end this one."""

from __future__ import annotations

from odradek.broker.refusals import PATIENCE_MS, Refusals


def test_most_controllers_for_long_enough() -> None:
    refusals = Refusals()
    refusals.heard(1, "two nodes", 0)
    refusals.heard(2, "two nodes", 500)
    assert refusals.verdict({1, 2}, PATIENCE_MS) is None
    assert refusals.verdict({1, 2}, PATIENCE_MS + 500) == "two nodes"


def test_a_refusal_repeated_counts_from_the_first_and_one_taken_back_not_at_all() -> None:
    refusals = Refusals()
    refusals.heard("host:1", "another cluster", 0)
    refusals.heard("host:1", "another cluster", PATIENCE_MS - 1)
    assert refusals.verdict({"host:1"}, PATIENCE_MS) == "another cluster"
    refusals.heard("host:1", None, PATIENCE_MS)
    refusals.heard("host:1", "another cluster", PATIENCE_MS + 1)
    assert refusals.verdict({"host:1"}, PATIENCE_MS + 2) is None


def test_half_of_the_controllers_is_not_most_and_strangers_do_not_count() -> None:
    refusals = Refusals()
    refusals.heard(1, "two nodes", 0)
    refusals.heard(7, "two nodes", 0)
    assert refusals.verdict({1, 2}, PATIENCE_MS) is None
    assert refusals.verdict(set(), PATIENCE_MS) is None
