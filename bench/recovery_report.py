"""What `python -m bench recovery` found, as tables, targets and a picture."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any, NamedTuple

from bench.report import OURS, PEER, WORDS, Outcome, Table, number, table_lines
from bench.rows import Metrics

CRASH, MANY, LOOKUP = "crash", "many", "lookup"
PARTS = (CRASH, MANY, LOOKUP)
COLORS = {OURS: "#c2410c", PEER: "#334155"}
START_S, SCAN_S_PER_GB = 3.0, 3.0
TITLES = {
    CRASH: "Start after kill -9, 100 GB in 1,000 segments: s",
    MANY: "Start after kill -9, many partitions: s",
    LOOKUP: "ListOffsets by time: ms",
}
MAIN = {CRASH: "seconds", MANY: "seconds", LOOKUP: "ms"}
Rows = dict[str, dict[str, list[Metrics]]]


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


def limits(part: str, samples: dict[str, list[Metrics]]) -> tuple[Limit, ...]:
    if part != CRASH:
        return LIMITS[part]
    return (Limit("seconds", "s", START_S + SCAN_S_PER_GB * (median(samples, OURS, "gb") or 0)),)


def median(samples: dict[str, list[Metrics]], side: str, metric: str) -> float | None:
    values = [one[metric] for one in samples.get(side, []) if metric in one]
    return statistics.median(values) if values else None


def parts_of(results: dict[str, Any]) -> dict[str, Rows]:
    found: dict[str, Rows] = results["recovery"]
    return {part: found[part] for part in PARTS if part in found}


def outcomes(results: dict[str, Any]) -> list[Outcome]:
    found: list[Outcome] = []
    for part, rows in parts_of(results).items():
        for row, samples in rows.items():
            found += row_outcomes(part, row, samples)
    return found


def row_outcomes(part: str, row: str, samples: dict[str, list[Metrics]]) -> list[Outcome]:
    name = f"{part}: {row}"
    found = [Outcome(name, one["error"], met=False) for one in samples.get(OURS, []) if "error" in one]
    for limit in limits(part, samples):
        values = [one[limit.metric] for one in samples.get(OURS, []) if limit.metric in one]
        if values:
            text = f"{number(max(values))} {limit.unit}, wanted ≤ {number(limit.value)}"
            found.append(Outcome(name, text, max(values) <= limit.value))
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
        values = [one[main] for one in samples.get(OURS, []) if main in one]
        line = [
            row, number(ours), number(max(values)) if values else "–", number(peer),
            number(ours / peer) if ours and peer else "–",
        ]  # fmt: skip
        for metric, _ in BESIDE[part]:
            line += [number(median(samples, side, metric)) for side in (OURS, PEER)]
        lines.append((*line, remark(part, row, samples)))
    return Table(TITLES[part], "", (*header, "targets"), lines)


def remark(part: str, row: str, samples: dict[str, list[Metrics]]) -> str:
    found = row_outcomes(part, row, samples)
    missed = "; ".join(dict.fromkeys(one.text for one in found if not one.met))
    failed = next((one["error"] for one in samples.get(PEER, []) if "error" in one), "")
    return (f"missed: {missed}" if missed else "met" if found else "–") + (
        f"; {PEER} failed: {failed}" if failed else ""
    )


def markdown(name: str, results: dict[str, Any]) -> str:
    lines = [f"# {name}", "", f"![plot]({name}.png)", ""]
    lines += [f"- {label}: {value}" for label, value in results["machine"].items()]
    lines += ["", *(f"- {note}" for note in results["notes"]), "", "## Targets", ""]
    lines += [f"- {WORDS[one.met]} · {one.row}: {one.text}" for one in outcomes(results)]
    for table in tables(results):
        lines += table_lines(table)
    return "\n".join(lines) + "\n"


def draw(results: dict[str, Any], path: Path) -> None:
    """Medians as bars, and every round a point; a plot for each part."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    parts = parts_of(results)
    heights = [1.0 + len(rows) for rows in parts.values()]
    figure, axes = pyplot.subplots(
        len(parts), 1, figsize=(11, 1.0 + 0.7 * sum(heights)), layout="constrained", squeeze=False,
        gridspec_kw={"height_ratios": heights},
    )  # fmt: skip
    for axis, (part, rows) in zip(axes[:, 0], parts.items(), strict=True):
        for index, samples in enumerate(rows.values()):
            for place, side in enumerate((OURS, PEER)):
                middle = median(samples, side, MAIN[part])
                if middle is None:
                    continue
                height = index + (place - 0.5) * 0.36
                values = [one[MAIN[part]] for one in samples[side] if MAIN[part] in one]
                axis.barh(height, middle, 0.34, color=COLORS[side], alpha=0.8, label=None if index else side)
                axis.scatter(values, [height] * len(values), color="#000000", s=8, zorder=3)
                axis.annotate(
                    number(middle), (max(values), height), xytext=(6, 0), textcoords="offset points", va="center",
                    fontsize=8,
                )  # fmt: skip
            wanted = limits(part, samples)[0].value
            axis.plot([wanted, wanted], [index - 0.45, index + 0.45], color="#15803d", linewidth=2,
                      label=None if index else "wanted at most")  # fmt: skip
        axis.set_yticks(range(len(rows)), list(rows))
        axis.invert_yaxis()
        axis.set_title(f"{TITLES[part]} (less is better)", fontsize=10)
        axis.grid(axis="x", alpha=0.3)
        axis.legend(loc="lower right", fontsize=8, framealpha=0.9)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
