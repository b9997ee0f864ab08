"""No client outlives a run, whatever it thinks of signals."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from interop.cluster import PATIENCE_S, eventually
from odradek.chaos import lives as lives_module
from odradek.chaos.lives import Lives, _Life

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture
def lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lives:
    """Of a client that never begins."""
    monkeypatch.setattr(lives_module, "STOP_S", 0.3)
    monkeypatch.setattr(Lives, "_begin", lambda *_: None)
    found = Lives(tmp_path, ("writer-0",), 1)
    found.start()
    return found


def stubborn() -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline()
    process.stdout.close()
    return process


def test_a_zombie_that_does_not_go_when_told_is_killed_in_the_end(lives: Lives) -> None:
    process = stubborn()
    lives._zombies.append(_Life(process, 0.0, wakes=time.monotonic()))
    eventually(lambda: not lives._zombies, PATIENCE_S, "the zombie was not woken")
    lives.finish()
    assert process.poll() == -9
    assert lives.trouble == ["a zombie did not come to its end"]


def test_a_client_that_does_not_stop_is_trouble(lives: Lives) -> None:
    process = stubborn()
    with lives._lock:
        lives._current["writer-0"] = _Life(process, time.monotonic() + 60)
    lives.finish()
    assert process.poll() == -9
    assert lives.trouble == ["writer-0 did not come to its end"]


def test_who_is_abandoned_is_killed_at_once(lives: Lives) -> None:
    process, zombie = stubborn(), stubborn()
    with lives._lock:
        lives._current["writer-0"] = _Life(process, time.monotonic() + 60)
        lives._zombies.append(_Life(zombie, 0.0, wakes=time.monotonic() + 60))
    lives.abandon()
    lives.join(PATIENCE_S)
    assert process.poll() == zombie.poll() == -9


def test_a_frozen_client_goes_on_and_ends(lives: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lives_module, "STOP_S", PATIENCE_S)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with lives._lock:
        lives._current["writer-0"] = _Life(process, time.monotonic() + 60)
    assert lives.freeze("writer-0") and not lives.freeze("nobody")
    lives.finish()
    assert process.poll() == -15 and not lives.trouble
