"""Seeds to runs to results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from odradek.simulation.cluster import Cluster
from odradek.simulation.mutants import applied
from odradek.simulation.scenario import DEFAULT, SCENARIOS, Scenario
from odradek.simulation.trace import InvariantViolation


@dataclass(frozen=True, slots=True)
class Result:
    """How one seed ended."""

    seed: int
    scenario: str
    violation: str | None
    digest: int
    steps: int
    virtual_ms: int
    counters: dict[str, int]
    last_steps: tuple[str, ...]
    acked: int
    unknown: int
    read: int


def scenario_of(seed: int, name: str | None) -> Scenario:
    """The one that was asked for, or the seed's turn among the default ones."""
    return SCENARIOS[name] if name is not None else SCENARIOS[DEFAULT[seed % len(DEFAULT)]]


def run_seed(
    seed: int,
    scenario: str | None = None,
    *,
    mutant: str | None = None,
    echo: Callable[[str], None] | None = None,
    steps_shown: int = 60,
) -> Result:
    """One run. Everything in it follows from its arguments."""
    chosen = scenario_of(seed, scenario)
    violation = None
    with applied(mutant):
        cluster = Cluster(seed, chosen, echo=echo)
        try:
            cluster.run()
        except InvariantViolation as error:
            violation = str(error)
            cluster.trace.note("simulation", "VIOLATION", violation)
    trace, history = cluster.trace, cluster.history
    return Result(
        seed=seed,
        scenario=chosen.name,
        violation=violation,
        digest=trace.digest,
        steps=trace.steps,
        virtual_ms=cluster.scheduler.now_us // 1_000,
        counters=dict(sorted(trace.counters.items())),
        last_steps=tuple(trace.last_steps(steps_shown)) if violation else (),
        acked=history.acked,
        unknown=history.unknown,
        read=history.read,
    )
