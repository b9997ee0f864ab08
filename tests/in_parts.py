"""`make test`: the whole suite in three parts. What only computes, two tests at a time; what starts a node or a few and
mostly waits for them, two files at a time; what breaks clusters, one test after the other, with the machine to itself.

Every part runs whatever comes of those before it. What failed in any is named once more at the end; the exit code is 0
only if nothing did.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
COMPUTING = ("faults", "property", "simulation", "transcripts", "unit")
"""Folders whose tests neither wait nor share anything."""
WAITING = ("deploy", "interop", "k8s")
"""Folders whose tests have nodes of their own, or one for all of a worker, and patience with them. What is in no list
runs last, alone."""
WORKERS = "2"


@dataclass
class Outcome:
    """Of one part."""

    name: str
    code: int
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        told = ", ".join(f"{count} {what}" for what, count in self.counts.items()) or "nothing was reported"
        return f"{self.name}: {told} in {self.seconds:.0f} s (exit code {self.code})"


def run(name: str, *arguments: str) -> Outcome:
    """One part, its output as pytest writes it."""
    print(f"\n{name}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        told = (f"--junitxml={report}", "-o", "junit_family=xunit1")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *arguments, *told], cwd=HERE.parent, check=False
        )
        outcome = Outcome(name, done.returncode)
        if report.exists():
            read(report, outcome)
    return outcome


def read(report: Path, outcome: Outcome) -> None:
    """Counts, and the names of what failed, of pytest's report."""
    for suite in ElementTree.parse(report).iter("testsuite"):
        outcome.seconds += float(suite.get("time", "0"))
        for case in suite.iter("testcase"):
            found = {child.tag for child in case} & {"failure", "error", "skipped"}
            what = next((each for each in ("failure", "error", "skipped") if each in found), "passed")
            outcome.counts[what] += 1
            if what in ("failure", "error"):
                outcome.failed.append(f"{case.get('file')}::{case.get('name')}")


def main() -> int:
    computing, waiting = ([f"tests/{name}" for name in names] for names in (COMPUTING, WAITING))
    others = (f"--ignore={folder}" for folder in computing + waiting)
    outcomes = [
        run("Tests that only compute", *computing, "-n", WORKERS, "--dist", "worksteal"),
        run("Tests that wait for nodes", *waiting, "-n", WORKERS, "--dist", "loadfile"),
        run("Tests that break clusters", "tests", "-n", "0", *others),
    ]
    print()
    for outcome in outcomes:
        print(outcome)
    for name in (name for outcome in outcomes for name in outcome.failed):
        print(f"FAILED {name}")
    return int(any(outcome.code for outcome in outcomes))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
