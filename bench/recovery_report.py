"""What `python -m bench recovery` found, as tables, targets and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench import parts
from bench.parts import Parts, Rows, Sides, failures, median, values
from bench.report import OURS, PEER, Outcome, Table, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CRASH, MANY, LOOKUP = "crash", "many", "lookup"
PARTS = (CRASH, MANY, LOOKUP)
START_S, SCAN_S_PER_GB = 3.0, 3.0
TITLES = {
    CRASH: "Start after kill -9, 100 GB in 1,000 segments: s",
    MANY: "Start after kill -9, many partitions: s",
    LOOKUP: "ListOffsets by time: ms",
}
MAIN = {CRASH: "seconds", MANY: "seconds", LOOKUP: "ms"}


class Limit(NamedTuple):
    """What the project wants of our worst round."""

    metric: str
    unit: str
    value: float


LIMITS = {
    MANY: (
        Limit("seconds", "s", 10),
        Limit("peak_mb", "MB", 600),
        Limit("idle_percent", "% of a CPU when idle", 3),
    ),
    LOOKUP: (Limit("ms", "ms median", 2),),
}
BESIDE = {
    CRASH: (("gb", "GB scanned"), ("cpu_s", "CPU s of the node"), ("mb", "MB")),
    MANY: (("cpu_s", "CPU s"), ("peak_mb", "MB at most"), ("mb", "MB idle"), ("idle_percent", "idle CPU %")),
    LOOKUP: (("p99_ms", "p99"), ("first_ms", "first")),
}


def limits(part: str, samples: Sides) -> tuple[Limit, ...]:
    if part != CRASH:
        return LIMITS[part]
    return (Limit("seconds", "s", START_S + SCAN_S_PER_GB * (median(samples, OURS, "gb") or 0)),)


def parts_of(results: dict[str, Any]) -> Parts:
    return parts.in_order(results, "recovery", PARTS)


def outcomes(results: dict[str, Any]) -> list[Outcome]:
    found: list[Outcome] = []
    for part, rows in parts_of(results).items():
        for row, samples in rows.items():
            found += row_outcomes(part, row, samples)
    return found


def row_outcomes(part: str, row: str, samples: Sides) -> list[Outcome]:
    name = f"{part}: {row}"
    found = [Outcome(name, text, met=False) for text in failures(samples, OURS)]
    for limit in limits(part, samples):
        worst = max(values(samples, OURS, limit.metric), default=None)
        if worst is not None:
            text = f"{number(worst)} {limit.unit}, wanted ≤ {number(limit.value)}"
            found.append(Outcome(name, text, worst <= limit.value))
    return found


def tables(results: dict[str, Any]) -> list[Table]:
    return [part_table(part, rows) for part, rows in parts_of(results).items()]


def part_table(part: str, rows: Rows) -> Table:
    main = MAIN[part]
    header: tuple[str, ...] = ("what", "median", "worst", "Kafka's", "ours / Kafka's")
    for _, heading in BESIDE[part]:
        header += (heading, "Kafka's")
    lines = []
    for row, samples in rows.items():
        ours, peer = (median(samples, side, main) for side in (OURS, PEER))
        worst = max(values(samples, OURS, main), default=None)
        line = [row, number(ours), number(worst), number(peer), number(ours / peer) if ours and peer else "–"]
        for metric, _ in BESIDE[part]:
            line += [number(median(samples, side, metric)) for side in (OURS, PEER)]
        lines.append((*line, remark(part, row, samples)))
    return Table(TITLES[part], "", (*header, "targets"), lines)


def remark(part: str, row: str, samples: Sides) -> str:
    found = row_outcomes(part, row, samples)
    missed = "; ".join(dict.fromkeys(one.text for one in found if not one.met))
    return (f"missed: {missed}" if missed else "met" if found else "–") + parts.peer_failed(samples)


def draw(results: dict[str, Any], path: Path) -> None:
    found = parts_of(results)
    parts.draw(path, found, draw_part, [0.7 * (1 + len(rows)) for rows in found.values()])


def draw_part(axis: Axes, part: str, rows: Rows) -> list[str]:
    for at, samples in enumerate(rows.values()):
        parts.pair_of_bars(axis, at, samples, MAIN[part])
        wanted = limits(part, samples)[0].value
        label = None if at else "wanted at most"
        axis.plot([wanted] * 2, [at - 0.45, at + 0.45], color=parts.WANTED_COLOR, linewidth=2, label=label)
    axis.set_title(f"{TITLES[part]} (less is better)", fontsize=10)
    return list(rows)
