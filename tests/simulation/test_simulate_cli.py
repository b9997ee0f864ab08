"""`odradek simulate`: what it says, and how it ends."""

from __future__ import annotations

import pytest

from odradek.cli import simulate
from odradek.cli.options import ToolError

pytestmark = pytest.mark.timeout(1_200)
"""Seeds that take a minute alone take many on a busy machine."""


def test_seeds_are_a_number_a_list_or_a_range() -> None:
    assert simulate.parse_seeds("7") == [7]
    assert simulate.parse_seeds("1,4..6,9") == [1, 4, 5, 6, 9]
    for wrong in ("", "a", "1..", "-1", "5..1"):
        with pytest.raises(ToolError):
            simulate.parse_seeds(wrong)


def test_sound_seeds_end_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate.main(["--seeds", "1..2", "--scenario", "one-kill", "--jobs", "1", "--counters"]) == 0
    printed = capsys.readouterr().out
    assert "2 seeds in" in printed and "0 with a violation" in printed and "fault: kill" in printed


def test_a_violation_says_how_to_see_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--seeds", "1..3", "--mutant", "acknowledge-before-fsync", "--jobs", "1"]
    assert simulate.main(arguments) == 0  # it was to be caught
    printed = capsys.readouterr().out
    assert (
        "replay: odradek simulate --seeds 1 --scenario one-power --mutant acknowledge-before-fsync --trace"
        in printed
    )
    assert "loses power" in printed
    assert "caught" in printed


def test_names_that_there_are_not_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate.main(["--scenario", "nope"]) == 1
    assert simulate.main(["--mutant", "nope"]) == 1
    assert "one-kill" in capsys.readouterr().err


def test_scenarios_and_mutants_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate.main(["--list"]) == 0
    printed = capsys.readouterr().out
    assert "three-partitions" in printed and "under-min-isr" in printed
