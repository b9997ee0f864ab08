"""What commands that measure in parts share (`compaction`, `coordinators`, `recovery`): samples, medians, bars."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bench.findings import Report, find, names_of, parser
from bench.report import OURS, PEER, number
from bench.rows import Metrics
from bench.terminal import say

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Sides = dict[str, list[Metrics]]
"""Side → one Metrics per round; a failed round is {"error": text}."""
Rows = dict[str, Sides]
Parts = dict[str, Rows]

COLORS = {OURS: "#c2410c", "odradek-compiled": "#fb923c", PEER: "#334155"}
WANTED_COLOR = "#15803d"


class Run(Protocol):
    """One run of a command: its samples are there when `measure` has returned."""

    samples: Parts

    def measure(self) -> None: ...


def parser_of(
    command: str, description: str, names: tuple[str, ...], sides: tuple[str, ...], quick: str
) -> argparse.ArgumentParser:
    found = parser(command, description, sides, quick)
    found.add_argument(
        "--only", type=names_of(names), default=list(names), metavar="PART,…", help=", ".join(names)
    )
    return found


def find_parts(
    command: str,
    options: argparse.Namespace,
    kind: Callable[[argparse.Namespace, Path], Run],
    report: Report,
    notes: list[str],
) -> int:
    """Results are found again under the name of the command (`in_order`)."""

    def measure(root: Path) -> dict[str, Any]:
        run = kind(options, root)
        run.measure()
        return {command: run.samples}

    return find(options, measure, report, notes)


def add(samples: Parts, part: str, row: str, side: str, metrics: Metrics) -> Metrics:
    """Keep what a round found, and tell it."""
    samples.setdefault(part, {}).setdefault(row, {}).setdefault(side, []).append(metrics)
    shown = {key: round(value, 3) if isinstance(value, float) else value for key, value in metrics.items()}
    say(f"{side} {part}, {row}: " + ", ".join(f"{key} {value}" for key, value in shown.items()))
    return metrics


def values(sides: Sides, side: str, metric: str) -> list[float]:
    return [one[metric] for one in sides.get(side, []) if metric in one]


def median(sides: Sides, side: str, metric: str) -> float | None:
    found = values(sides, side, metric)
    return statistics.median(found) if found else None


def failures(sides: Sides, side: str) -> list[str]:
    return [one["error"] for one in sides.get(side, []) if "error" in one]


def peer_failed(sides: Sides) -> str:
    """How a remark ends."""
    found = failures(sides, PEER)
    return f"; {PEER} failed: {found[0]}" if found else ""


def in_order(results: dict[str, Any], command: str, names: Sequence[str]) -> Parts:
    """The parts of a command that were measured."""
    found: Parts = results[command]
    return {part: found[part] for part in names if part in found}


# The picture: a plot for each part -------------------------------------------------------------------------------


def draw(
    path: Path, parts: Parts, draw_part: Callable[[Axes, str, Rows], list[str]], inches: Sequence[float]
) -> None:
    """`draw_part` puts bars at 0, 1, … and answers with their names; `inches` are the heights of the plots."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(parts), 1, figsize=(11, 1.0 + sum(inches)), layout="constrained", squeeze=False,
        gridspec_kw={"height_ratios": inches},
    )  # fmt: skip
    for axis, (part, rows) in zip(axes[:, 0], parts.items(), strict=True):
        names = draw_part(axis, part, rows)
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
        axis.grid(axis="x", alpha=0.3)
        axis.margins(x=0.08)  # room for the figure at the end of the longest bar
        if axis.get_legend_handles_labels()[0]:
            axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def pair_of_bars(axis: Axes, at: int, sides: Sides, metric: str) -> None:
    """Ours above Kafka's, as the row number `at`."""
    for place, side in enumerate((OURS, PEER)):
        bar(axis, at + (place - 0.5) * 0.36, 0.34, sides, side, metric, label=None if at else side)


def bar(
    axis: Axes,
    height: float,
    thickness: float,
    sides: Sides,
    side: str,
    metric: str,
    label: str | None = None,
) -> bool:
    """The median as a bar, and every round a point; False if there is none."""
    middle, found = median(sides, side, metric), values(sides, side, metric)
    if middle is None:
        return False
    axis.barh(height, middle, thickness, color=COLORS[side], alpha=0.8, label=label)
    axis.scatter(found, [height] * len(found), color="#000000", s=8, zorder=3)
    axis.annotate(
        number(middle),
        (max(found), height),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
    )
    return True
