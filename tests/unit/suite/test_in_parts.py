"""`make test` fails when anything has failed, and says what."""

from __future__ import annotations

from pathlib import Path

import pytest

import in_parts
from in_parts import Outcome

TESTS = """
import pytest


@pytest.fixture
def broken():
    raise RuntimeError


@pytest.mark.parametrize("number", [1, 2])
def test_even(number):
    assert number % 2 == 0


def test_of_nothing(broken): ...


@pytest.mark.skip(reason="no time")
def test_later(): ...
"""


def test_a_part_tells_what_came_of_its_tests(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    outcome = in_parts.run("some", str(tmp_path), "-n", "0", "-q", f"--rootdir={tmp_path}", "-c", "/dev/null")
    assert outcome.code == 1
    assert outcome.counts == {"failure": 1, "passed": 1, "error": 1, "skipped": 1}
    assert outcome.failed == ["test_some.py::test_even[1]", "test_some.py::test_of_nothing"]


def test_folders_of_the_parts_are_there() -> None:
    folders = {path.name for path in in_parts.HERE.iterdir() if any(path.rglob("test_*.py"))}
    named = [*in_parts.COMPUTING, *in_parts.WAITING]
    assert len(set(named)) == len(named)
    assert set(named) < folders


@pytest.mark.parametrize(("codes", "code"), [((0, 0, 0), 0), ((1, 0, 0), 1), ((0, 0, 1), 1), ((2, 5, 1), 1)])
def test_every_part_runs_and_each_fails_the_whole(
    codes: tuple[int, ...],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ran: list[str] = []

    def run(name: str, *_: str) -> Outcome:
        ran.append(name)
        which = len(ran) - 1
        return Outcome(name, codes[which], failed=[f"test_{which}"] if codes[which] else [])

    monkeypatch.setattr(in_parts, "run", run)
    assert in_parts.main() == code
    assert len(ran) == 3
    said = capsys.readouterr().out
    assert [f"FAILED test_{which}" in said for which in range(3)] == [bool(each) for each in codes]
