"""Seeds of every scenario without a violation; the same seed is the same run, in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from odradek.simulation.runner import Result, run_seed
from odradek.simulation.scenario import SCENARIOS

pytestmark = pytest.mark.timeout(1_200)
"""Seeds that take a minute alone take many on a busy machine."""

SEEDS = int(os.environ.get("ODRADEK_SIMULATION_SEEDS", "12"))
"""For each scenario, so more than 300 in all; more on demand."""


def assert_sound(result: Result) -> None:
    assert result.violation is None, "\n".join(
        (*result.last_steps, "", f"{result.violation}", f"seed {result.seed}, scenario {result.scenario}")
    )


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_promise_is_broken(scenario: str) -> None:
    for seed in range(1, SEEDS + 1):
        assert_sound(run_seed(seed, scenario))


def test_rare_branches_are_reached() -> None:
    met: Counter[str] = Counter()
    for seed, scenario in (
        (1, "isr-elections"),
        (2, "isr-shrink"),
        (1, "votes"),
        (3, "one-disk"),
        (2, "one-power"),
        (1, "one-rot"),
        *((seed, "disks") for seed in (1, 2, 5)),
        (2, "three-groups"),
        *((seed, "transactions") for seed in (1, 2, 3)),
        (2, "voters"),
        (1, "transactions-stale"),
        (3, "two-directories"),
        *((seed, "one-write-points") for seed in range(1, 7)),
    ):
        result = run_seed(seed, scenario)
        assert_sound(result)
        met.update(result.counters)
    rare = (
        "log truncated",
        "metadata: ISR shrunk",
        "partition: leader changed",
        "produce: NOT_ENOUGH_REPLICAS",
        "produce: KAFKA_STORAGE_ERROR",
        "broker called unreachable",
        "raft: elected",
        "fault: power loss at a vote",
        "replica moved to another directory",
        "fault: rot",
        "fault: files lost",
        "fault: disk replaced",
        "fault: kill at a decision",
        "transaction: decision looked at",
        "group: NOT_COORDINATOR",
        "transaction: committed",
        "transaction: aborted",
        "transaction: PRODUCER_FENCED",
        "coordinator: compared with a replay",
        "voter added: NONE",
        "voter removed: NONE",
    )
    assert not [name for name in rare if not met[name]], met
    assert len([name for name in met if name.startswith("fault: disk fails at")]) > 6


def test_rare_branches_of_compaction_are_reached() -> None:
    rare = (
        "compaction: segments replaced",
        "compaction: worker died",
        "compaction: cleaning found unfinished",
        "compaction: swap completed at start",
        "records deleted: NONE",
        "records deleted: POLICY_VIOLATION",
    )
    met: Counter[str] = Counter()
    for seed in range(1, 25):
        result = run_seed(seed, "one-compaction")
        assert_sound(result)
        met.update(result.counters)
        if all(met[name] for name in rare):
            return
    pytest.fail(f"{met}")


@pytest.mark.parametrize("scenario", ["one-topics", "three-all"])
def test_a_seed_is_the_same_run_twice(scenario: str) -> None:
    first, second = run_seed(11, scenario), run_seed(11, scenario)
    assert (first.digest, first.steps, first.counters) == (second.digest, second.steps, second.counters)
    assert run_seed(12, scenario).digest != first.digest


def test_a_seed_is_the_same_run_whatever_the_order_of_sets() -> None:
    program = (
        "from odradek.simulation.runner import run_seed\n"
        "names = ('one-groups', 'three-crashes', 'disks', 'transactions', 'voters', 'one-compaction')\n"
        "print([run_seed(5, name).digest for name in names])"
    )
    printed = set()
    for hash_seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        printed.add(subprocess.check_output([sys.executable, "-c", program], env=environment, timeout=1_000))
    assert len(printed) == 1, printed
