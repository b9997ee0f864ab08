"""What each fault cost, beside what it was allowed to."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any

from odradek.chaos.scenario import Scenario
from odradek.chaos.timeline import FaultTime, Timeline

RESOLUTION_S = 0.3
"""Pauses up to this are those of the writers themselves, on a busy machine; plots leave them out."""


@dataclass(slots=True)
class Judged:
    """One fault. `unavailable_s`: the longest time in which a partition acknowledged nothing, from when it counts."""

    number: int
    label: str
    target: str
    at_s: float
    healed_s: float | None
    unavailable_s: float | None
    partition: int | None
    expected_s: float | None
    counted: str
    metadata_s: float | None = None
    """From healing until a topic could be created."""
    metadata_expected_s: float | None = None
    ok: bool = True


@dataclass(slots=True)
class Availability:
    """What `judge` found. `broken`: each expectation that was not met, as a sentence."""

    faults: list[Judged] = field(default_factory=list)
    medians: dict[str, tuple[float, float | None]] = field(default_factory=dict)
    """By label: (measured, expected)."""
    client_errors: int = 0
    broken: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.broken


def judge(scenario: Scenario, timeline: Timeline) -> Availability:
    """After `timeline.settle`."""
    found = Availability(client_errors=timeline.failed + timeline.errors.total())
    for index, fault in enumerate(timeline.faults):
        later = timeline.faults[index + 1 :]
        until = later[0].at_s if later else timeline.end_s
        found.faults.append(_judge_one(timeline, fault, until, found.broken))
    by_label: dict[str, list[Judged]] = {}
    for each in found.faults:
        by_label.setdefault(each.label, []).append(each)
    expected = {fault.label: fault.expect["median_s"] for fault in timeline.faults}
    for label, judged in by_label.items():
        times = [each.unavailable_s for each in judged if each.unavailable_s is not None]
        if not times:
            continue
        found.medians[label] = median(times), expected[label]
        if expected[label] is not None and median(times) > expected[label]:
            found.broken.append(
                f"{label}: unavailable for {median(times):.2f} s in the median of {len(times)}, "
                f"expected at most {expected[label]:g} s"
            )
    allowed = scenario.client_errors_max
    if allowed is not None and found.client_errors > allowed:
        found.broken.append(
            f"{found.client_errors} errors reached clients, expected at most {allowed}{_first(timeline)}"
        )
    return found


def _first(timeline: Timeline) -> str:
    told = [f"{text} ({count})" for text, count in timeline.errors.most_common(3)]
    if timeline.failed:
        told.append(f"{timeline.failed} records failed or unknown")
    return f": {'; '.join(told)}" if told else ""


def _judge_one(timeline: Timeline, fault: FaultTime, until_s: float, broken: list[str]) -> Judged:
    expect: dict[str, Any] = fault.expect
    from_heal = expect["counted"] == "heal"
    since = fault.healed_s if from_heal else fault.at_s
    worst = timeline.unavailable(since, max(until_s, since)) if since is not None else None
    judged = Judged(
        number=fault.number,
        label=fault.label,
        target=fault.target,
        at_s=fault.at_s,
        healed_s=fault.healed_s,
        unavailable_s=None if worst is None else worst[0],
        partition=None if worst is None else worst[2],
        expected_s=expect["recover_s"],
        counted=expect["counted"],
        metadata_expected_s=expect["metadata_s"],
    )
    name = f"fault {fault.number}, {fault.label} {fault.target} at {fault.at_s:.1f} s"
    if judged.expected_s is not None and (
        judged.unavailable_s is None or judged.unavailable_s > judged.expected_s
    ):
        took = "for ever" if judged.unavailable_s is None else f"for {judged.unavailable_s:.2f} s"
        broken.append(f"{name}: a partition was unavailable {took}, expected at most {judged.expected_s:g} s")
        judged.ok = False
    if judged.metadata_expected_s is not None:
        back = fault.metadata_s
        judged.metadata_s = None if back is None or fault.healed_s is None else back - fault.healed_s
        if judged.metadata_s is None or judged.metadata_s > judged.metadata_expected_s:
            took = "never" if judged.metadata_s is None else f"after {judged.metadata_s:.2f} s"
            broken.append(
                f"{name}: topics could be created {took}, expected {judged.metadata_expected_s:g} s"
            )
            judged.ok = False
    return judged
