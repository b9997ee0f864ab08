"""What `python -m bench compaction` found, as tables, targets and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import parts
from bench.parts import Parts, Rows, Sides, failures, median
from bench.report import OURS, PEER, Outcome, Table, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLEAN, BESIDE = "clean", "beside"
PARTS = (CLEAN, BESIDE)
COMPILED = "odradek-compiled"
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


def parts_of(results: dict[str, Any]) -> Parts:
    return parts.in_order(results, "compaction", PARTS)


def outcomes(results: dict[str, Any]) -> list[Outcome]:
    found: list[Outcome] = []
    for part, rows in parts_of(results).items():
        for row, samples in rows.items():
            for side in (OURS, COMPILED):
                found += side_outcomes(part, row, side, samples)
    return found


def side_outcomes(part: str, row: str, side: str, samples: Sides) -> list[Outcome]:
    """How fast pure Python is is told, and wanted of the compiled build only."""
    name = f"{part}: {row}, {side}"
    found = [Outcome(name, text, met=False) for text in failures(samples, side)]
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


def remark(part: str, row: str, side: str, samples: Sides) -> str:
    if side == PEER:
        failed = failures(samples, side)
        return f"failed: {failed[0]}" if failed else "–"
    found = side_outcomes(part, row, side, samples)
    missed = "; ".join(dict.fromkeys(one.text for one in found if not one.met))
    return f"missed: {missed}" if missed else "met" if found else "–"


def draw(results: dict[str, Any], path: Path) -> None:
    found = parts_of(results)
    parts.draw(path, found, draw_part, [2.0] * len(found))


def draw_part(axis: Axes, part: str, rows: Rows) -> list[str]:
    names: list[str] = []
    for samples in rows.values():
        for side in samples:
            if parts.bar(axis, len(names), 0.7, samples, side, MAIN[part]):
                names.append(side)
    if part == BESIDE:
        axis.axvline(BESIDE_RATIO, color=parts.WANTED_COLOR, linewidth=2, label="wanted at most")
    axis.set_title(f"{TITLES[part]} (less is better)", fontsize=10)
    return names
