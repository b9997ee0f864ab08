"""Each transcript in this folder says what the core does. To rewrite them: see `raft_transcript.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from transcripts.raft.raft_transcript import play

FILES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_core_does_what_the_transcript_says(path: Path) -> None:
    expected = path.read_text(encoding="utf-8")
    assert play(expected).splitlines() == expected.splitlines()


def test_there_are_transcripts() -> None:
    assert len(FILES) >= 8
