"""`odradek chaos` against containers: one fault of every scenario, and no anomaly.

How long a fault may cost is not judged here: a machine that runs tests has other things to do. What whole runs said
is in chaos/results/scenarios.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.compose_files import COMPOSE
from deploy.engine import Compose, Engine, needs_engine
from odradek.chaos.scenario import shipped

pytestmark = [
    needs_engine,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="the network and the volumes of containers are root's"),
]

COMBINED, SEPARATE = "compose.yaml", "separate.yaml"
ONE_FAULT = "0.01"
"""Minutes: no other fault begins afterwards."""


@pytest.fixture(scope="module", params=[COMBINED, SEPARATE])
def cluster(request: pytest.FixtureRequest) -> Iterator[tuple[str, Compose]]:
    engine = Engine()
    try:
        project = engine.compose(request.param, "chaos.yaml")
        project.up()
        yield request.param, project
    finally:
        engine.destroy()


@pytest.mark.parametrize(
    ("cluster", "scenario"),
    [(SEPARATE if each.controllers else COMBINED, each.name) for each in shipped()],
    indirect=["cluster"],
)
def test_a_fault_costs_nobody_a_record(cluster: tuple[str, Compose], scenario: str, tmp_path: Path) -> None:
    file, project = cluster
    words = [
        "-m",
        "odradek.cli.main",
        "chaos",
        "run",
        scenario,
        "--minutes",
        ONE_FAULT,
        "--report",
        str(tmp_path),
    ]
    where = ["--target", "compose", "--compose-file", str(COMPOSE / file), "--project", project.project]
    done = subprocess.run([sys.executable, *words, *where], capture_output=True, text=True, check=False)
    assert (tmp_path / "verdict.json").exists(), done.stdout + done.stderr
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert verdict["anomalies"] == {} and verdict["trouble"] == [], done.stdout
    assert sum(verdict["faults"].values()) >= 1 and verdict["records"]["ok"] > 0
    assert {each["unavailable_s"] for each in verdict["judged"]} != {None}, "whatever it cost, it ended"
