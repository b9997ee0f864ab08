"""What `python -m bench compaction` found, as tables, targets and a picture."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from bench.report import OURS, PEER, WORDS, Outcome, Table, number, table_lines
from bench.rows import Metrics

CLEAN, BESIDE = "clean", "beside"
PARTS = (CLEAN, BESIDE)
COMPILED = "odradek-compiled"
COLORS = {OURS: "#c2410c", COMPILED: "#fb923c", PEER: "#334155"}
CLEAN_RATIO, BESIDE_RATIO = 2.0, 1.5
TITLES = {
    CLEAN: "Compaction: s",
    BESIDE: "Produce p99 while logs are compacted and deleted, beside that of the quiet node: ratio",
}
MAIN = {CLEAN: "seconds", BESIDE: "ratio"}
COLUMNS = {
    CLEAN: (("seconds", "s"), ("cpu_s", "CPU s"), ("left_mb", "MB left"), ("peak_mb", "peak MB, node and worker")),
    BESIDE: (
        ("ratio", "ratio"), ("p99_ms", "p99 ms"), ("quiet_p99_ms", "quiet"), ("max_ms", "max ms"),
        ("quiet_max_ms", "quiet"), ("busy_s", "s it took"),
    ),
}  # fmt: skip
Rows = dict[str, dict[str, list[Metrics]]]


def median(samples: dict[str, list[Metrics]], side: str, metric: str) -> float | None:
    values = [one[metric] for one in samples.get(side, []) if metric in one]
    return statistics.median(values) if values else None


def parts_of(results: dict[str, Any]) -> dict[str, Rows]:
    found: dict[str, Rows] = results["compaction"]
    return {part: found[part] for part in PARTS if part in found}


def outcomes(results: dict[str, Any]) -> list[Outcome]:
    found: list[Outcome] = []
    for part, rows in parts_of(results).items():
        for row, samples in rows.items():
            for side in (OURS, COMPILED):
                found += side_outcomes(part, row, side, samples)
    return found


def side_outcomes(part: str, row: str, side: str, samples: dict[str, list[Metrics]]) -> list[Outcome]:
    """How fast pure Python is is told, and wanted of the compiled build only."""
    name = f"{part}: {row}, {side}"
    found = [Outcome(name, one["error"], met=False) for one in samples.get(side, []) if "error" in one]
    value = median(samples, side, MAIN[part])
    if value is None:
        return found
    if part == BESIDE:
        text = f"{number(value)} × the quiet p99, wanted ≤ {BESIDE_RATIO:g}"
        return [*found, Outcome(name, text, value <= BESIDE_RATIO)]
    peer = median(samples, PEER, MAIN[part])
    if peer is not None and side == COMPILED:
        text = f"{number(value / peer)} × Kafka's time, wanted ≤ {CLEAN_RATIO:g}"
        found.append(Outcome(name, text, value / peer <= CLEAN_RATIO))
    return found


def tables(results: dict[str, Any]) -> list[Table]:
    return [part_table(part, rows) for part, rows in parts_of(results).items()]


def part_table(part: str, rows: Rows) -> Table:
    header = ("what", "side", *(heading for _, heading in COLUMNS[part]), "/ Kafka's", "targets")
    lines = []
    for row, samples in rows.items():
        for side in samples:
            own, peer = median(samples, side, MAIN[part]), median(samples, PEER, MAIN[part])
            values = [number(median(samples, side, metric)) for metric, _ in COLUMNS[part]]
            ratio = number(own / peer) if own is not None and peer else "–"
            lines.append((row, side, *values, ratio, remark(part, row, side, samples)))
    return Table(TITLES[part], "", header, lines)


def remark(part: str, row: str, side: str, samples: dict[str, list[Metrics]]) -> str:
    if side == PEER:
        failed = next((one["error"] for one in samples[side] if "error" in one), "")
        return f"failed: {failed}" if failed else "–"
    found = side_outcomes(part, row, side, samples)
    missed = "; ".join(dict.fromkeys(one.text for one in found if not one.met))
    return f"missed: {missed}" if missed else "met" if found else "–"


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
    figure, axes = pyplot.subplots(
        len(parts), 1, figsize=(11, 1.0 + 2.0 * len(parts)), layout="constrained", squeeze=False
    )
    for axis, (part, rows) in zip(axes[:, 0], parts.items(), strict=True):
        names: list[str] = []
        for samples in rows.values():
            for side in samples:
                middle = median(samples, side, MAIN[part])
                if middle is None:
                    continue
                height = len(names)
                names.append(side)
                values = [one[MAIN[part]] for one in samples[side] if MAIN[part] in one]
                axis.barh(height, middle, 0.7, color=COLORS[side], alpha=0.8)
                axis.scatter(values, [height] * len(values), color="#000000", s=8, zorder=3)
                axis.annotate(
                    number(middle), (max(values), height), xytext=(6, 0), textcoords="offset points", va="center",
                    fontsize=8,
                )  # fmt: skip
        if part == BESIDE:
            axis.axvline(BESIDE_RATIO, color="#15803d", linewidth=2, label="wanted at most")
            axis.legend(loc="lower right", fontsize=8, framealpha=0.9)
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
        axis.set_title(f"{TITLES[part]} (less is better)", fontsize=10)
        axis.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
