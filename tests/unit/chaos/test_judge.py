"""What a fault cost is measured by what was acknowledged, and held against what was expected."""

from __future__ import annotations

from typing import Any

from odradek.chaos.checker import check
from odradek.chaos.history import (
    CLIENT_ERROR,
    FAULT,
    HEALED,
    METADATA_BACK,
    OK,
    UNKNOWN,
    Event,
    Note,
    Poll,
    Send,
)
from odradek.chaos.judge import Availability, judge
from odradek.chaos.scenario import Scenario, parse
from odradek.chaos.timeline import Timeline

S = 1_000_000_000
EXPECT = {"recover_s": 3.0, "median_s": None, "counted": "fault", "metadata_s": None}


def acknowledged(*spans: tuple[float, float], partition: int = 0) -> list[Event]:
    """A record each 10 ms of these seconds."""
    found: list[Event] = []
    for begin, end in spans:
        for hundredth in range(int(begin * 100), int(end * 100)):
            at = hundredth * S // 100
            value = f"{partition}:{hundredth}"
            found.append(Send("w", "plain", partition, value, OK, hundredth, at - 2_000_000, at))
    return found


def fault(number: int, at: float, healed: float | None = None, **expect: Any) -> list[Event]:
    details = {"number": number, "label": "kill leader", "lasts": True, "expect": {**EXPECT, **expect}}
    found: list[Event] = [Note(int(at * S), FAULT, "1", details)]
    if healed is not None:
        found.append(Note(int(healed * S), HEALED, "1", {"number": number}))
    return found


def look(*events: Event) -> Timeline:
    timeline = Timeline("plain")
    check(timeline.watch(events))
    timeline.settle()
    return timeline


def judged(*events: Event, **expect: Any) -> Availability:
    content = {"description": "x", "faults": [{"kind": "kill"}], "expect": expect}
    scenario: Scenario = parse(content, "mine.toml", "mine")
    return judge(scenario, look(*events))


def test_the_longest_silence_of_any_partition_counts() -> None:
    found = judged(
        *acknowledged((0, 10), (10.5, 20)),
        *acknowledged((0, 10), (12, 20), partition=1),
        *fault(1, 10, 15),
    )
    (only,) = found.faults
    assert only.partition == 1 and only.unavailable_s is not None and 1.9 < only.unavailable_s < 2.1
    assert found.ok


def test_silence_before_the_fault_counts_from_the_fault() -> None:
    (only,) = judged(*acknowledged((0, 9), (11, 20)), *fault(1, 10, 15)).faults
    assert only.unavailable_s is not None and 0.9 < only.unavailable_s < 1.1


def test_too_long_is_not_met() -> None:
    found = judged(*acknowledged((0, 10), (14, 20)), *fault(1, 10, 15))
    assert found.broken == [
        "fault 1, kill leader 1 at 10.0 s: a partition was unavailable for 4.00 s, expected at most 3 s"
    ]
    assert not found.ok and not found.faults[0].ok


def test_a_partition_that_never_comes_back_is_seen() -> None:
    found = judged(*acknowledged((0, 20)), *acknowledged((0, 10), partition=1), *fault(1, 10, 15))
    (only,) = found.faults
    assert only.partition == 1 and only.unavailable_s is not None and only.unavailable_s > 9 and not found.ok


def test_what_is_counted_from_healing() -> None:
    events = [*acknowledged((0, 10), (17, 20)), *fault(1, 10, 15, counted="heal")]
    (only,) = judged(*events).faults
    assert only.ok and only.unavailable_s is not None and 1.9 < only.unavailable_s < 2.1


def test_each_fault_is_judged_until_the_next() -> None:
    found = judged(*acknowledged((0, 10), (10.5, 20), (21, 30)), *fault(1, 10, 12), *fault(2, 20, 22))
    assert [round(each.unavailable_s or 0, 1) for each in found.faults] == [0.5, 1.0]
    assert found.medians == {"kill leader": (found.medians["kill leader"][0], None)}


def test_the_median_has_an_expectation_of_its_own() -> None:
    events = [
        *acknowledged((0, 10), (11.5, 20), (21.5, 30), (30.5, 40)),
        *(each for at in (10, 20, 30) for each in fault(at // 10, at, at + 5, median_s=1.0)),
    ]
    found = judged(*events)
    assert found.broken == ["kill leader: unavailable for 1.50 s in the median of 3, expected at most 1 s"]
    assert all(each.ok for each in found.faults)


def test_topics_that_can_be_created_again() -> None:
    back = Note(16 * S, METADATA_BACK, "probe-1-1", {"number": 1})
    events = [*acknowledged((0, 30)), *fault(1, 10, 15, metadata_s=2.0)]
    assert judged(*events, back).faults[0].metadata_s == 1.0
    assert "topics could be created never, expected 2 s" in judged(*events).broken[0]


def test_errors_that_reached_clients() -> None:
    lost = Send("w", "plain", 0, "x", UNKNOWN, None, S, 2 * S)
    anew = Note(3 * S, CLIENT_ERROR, "mover-0.1", {"error": "fenced"})
    events = [*acknowledged((0, 30)), *fault(1, 10, 15), lost, anew]
    assert judged(*events).ok and judged(*events).client_errors == 2
    assert judged(*events, client_errors_max=0).broken == [
        "2 errors reached clients, expected at most 0: fenced (1); 1 records failed or unknown"
    ]


def test_seconds_of_the_picture() -> None:
    read = Poll("r", 0, 3 * S + 1, [("plain", 0, 5, "0:5")])
    timeline = look(*acknowledged((2, 4), (4.5, 5)), read)
    assert timeline.per_second() == [100, 100, 50]
    assert timeline.reads_per_second(3) == [0, 1, 0]
    assert timeline.latency_per_second()[0] == (2.0, 2.0)
    ((begin, end),) = timeline.gaps(0.3)
    assert round(begin, 2) == 1.99 and round(end, 2) == 2.5
