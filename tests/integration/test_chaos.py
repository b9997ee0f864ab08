"""`odradek chaos run` on real nodes: faults are done and judged; Ctrl-C heals what is broken, and still reports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from integration.machines import PATIENCE_S, TIMEOUT_S, free_base

pytestmark = pytest.mark.timeout(TIMEOUT_S)

SCENARIO = """
description = "a leader is killed, then one hangs until somebody stops the run"
clients = { writers = 1, transactions = 0, movers = 0, classic = 1, consumer = 0 }
plan = { calm_s = 0.2 }

[[faults]]
kind = "kill"
who = "leader"
for_s = 0.5
expect = { recover_s = 90 }

[[faults]]
kind = "pause"
for_s = 600
"""


def test_a_leader_is_killed_and_ctrl_c_ends_the_run_with_a_report(tmp_path: Path) -> None:
    file, report = tmp_path / "mine.toml", tmp_path / "report"
    file.write_text(SCENARIO)
    command = [sys.executable, "-u", "-m", "odradek.cli.main", "chaos", "run", str(file), "--seed", "5"]
    command += ["--base-port", str(free_base(3)), "--report", str(report)]
    settings = {**os.environ, "TMPDIR": str(tmp_path)}
    said: list[str] = []
    stopped = False
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=settings,
        # What runs in the background of a shell without job control inherits that Ctrl-C is for others.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as run:
        try:
            assert run.stdout is not None
            for line in run.stdout:
                said.append(line)
                if " pause " in line and not stopped:
                    stopped = True  # a second one would end it at once
                    run.send_signal(signal.SIGINT)
            code = run.wait(PATIENCE_S)
        finally:
            run.kill()
    output = "".join(said)
    assert (report / "verdict.json").exists(), output
    found = json.loads((report / "verdict.json").read_text())
    assert found["ok"] and found["interrupted"], output
    assert code == 130, output
    assert found["faults"]["kill leader"] == 1
    assert found["judged"][0]["unavailable_s"] < 90 and found["judged"][0]["healed_s"] is not None
    assert found["records"]["ok"] > 100 and found["reads"] > 100
    assert "no promise was broken" in output and "<svg" in (report / "report.html").read_text()
    assert not list(tmp_path.glob("odradek-chaos-data-*")), "nodes and their data are gone"
