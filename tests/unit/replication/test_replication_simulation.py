"""Three replicas under seeds: P1 to P7 after every step, recovery and silence afterwards; mutants must be caught."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from odradek.replication.follower import FollowerState
from odradek.replication.leader import LeaderState
from unit.replication.replication_cluster import PROFILES, Cluster, Violation
from unit.replication.replication_mutants import (
    HighWatermarkBeforeDivergence,
    IsrInsteadOfMaximal,
    NoBrokerEpoch,
    NoEpochStart,
    NotFetchedInThisEpoch,
    RollBackOnTimeout,
    UnderMinIsr,
    driver_with,
)

SEEDS = int(os.environ.get("ODRADEK_REPLICATION_SEEDS", "24"))
MUTANT_SEEDS_MAX = 80

_MIXED, _ELECTIONS, _ISR, _POWER = range(len(PROFILES))


def test_no_seed_breaks_a_promise_and_every_cluster_recovers_and_falls_silent() -> None:
    reached: dict[str, int] = {}
    for seed in range(SEEDS):
        cluster = Cluster(seed)
        try:
            cluster.run()
        except Violation as violation:
            pytest.fail(f"seed {seed} at {cluster.now_ms} ms: {violation}")
        for what, times in (*cluster.coverage.items(), *cluster.controller.answers.items()):
            reached[what] = reached.get(what, 0) + times
    rare = ("kill", "power", "pause", "truncated", "trim", "alter-slow", "INVALID_UPDATE_VERSION", "acked")
    assert not [what for what in rare if what not in reached], reached


@pytest.mark.parametrize(
    ("mutant", "profile"),
    [
        (IsrInsteadOfMaximal, _ISR),
        (NoEpochStart, _POWER),
        (NotFetchedInThisEpoch, _ELECTIONS),
        (NoBrokerEpoch, _POWER),
        (RollBackOnTimeout, _ISR),
        (UnderMinIsr, _MIXED),
        (HighWatermarkBeforeDivergence, _MIXED),
    ],
)
def test_a_broken_rule_is_caught(mutant: type[LeaderState] | type[FollowerState], profile: int) -> None:
    NotFetchedInThisEpoch.remembered.clear()
    for seed in range(MUTANT_SEEDS_MAX):
        try:
            Cluster(seed, PROFILES[profile], driver_with(mutant)).run()
        except Violation:
            return
    pytest.fail(f"{mutant.__name__} survived {MUTANT_SEEDS_MAX} seeds")


_REPLAY = """
from unit.replication.replication_cluster import Cluster
cluster = Cluster(5)
cluster.run()
print(cluster.trace())
"""


def test_a_seed_replays_exactly_whatever_the_hash_seed() -> None:
    traces = set()
    for hash_seed in ("1", "2"):
        path = os.pathsep.join(path for path in sys.path if path)
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path}
        run = subprocess.run(
            [sys.executable, "-c", _REPLAY],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        traces.add(run.stdout)
    assert len(traces) == 1
