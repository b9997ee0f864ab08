"""What `python -m bench failover` found, as tables, targets and a picture."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bench.failover_rounds import CONTROLLER, KINDS, LEADER, STOP
from bench.report import OURS, Outcome, Table, number
from bench.rows import Metrics

COLORS = {"odradek": "#c2410c", "kafka": "#334155", "kafka-3s": "#94a3b8"}


class Limit(NamedTuple):
    """What the project wants of our side: the median and the worst of `metric` in `kind`."""

    kind: str
    metric: str
    unit: str
    median: float | None
    worst: float | None = None


LIMITS = (
    Limit(LEADER, "gap_ms", "ms write gap", 1_000, 3_000),
    Limit(CONTROLLER, "election_ms", "ms to the next topic", 1_500),
    Limit(STOP, "gap_ms", "ms write gap", 200),
    Limit(STOP, "errors", "errors shown to the client", 0, 0),
    Limit("1000 partitions", "led_ms", "ms from fencing until all are led", 1_000),
    Limit("1000 partitions", "serving_ms", "ms from fencing until all have served", 1_000),
)


def good(samples: list[Metrics], metric: str) -> list[float]:
    return [one[metric] for one in samples if metric in one]


def failures(samples: list[Metrics]) -> list[str]:
    return [one["error"] for one in samples if "error" in one]


def outcomes(results: dict[str, Any]) -> list[Outcome]:
    found = []
    for limit in LIMITS:
        samples = results["samples"].get(limit.kind, {}).get(OURS, [])
        found += [Outcome(limit.kind, text, met=False) for text in failures(samples)]
        values = good(samples, limit.metric)
        for name, value, wanted in (
            ("median", statistics.median(values) if values else None, limit.median),
            ("worst", max(values, default=None), limit.worst),
        ):
            if value is not None and wanted is not None:
                text = f"{name} {value:,.0f} {limit.unit}, wanted ≤ {wanted:,.0f}"
                found.append(Outcome(limit.kind, text, value <= wanted))
    return found


def tables(results: dict[str, Any]) -> list[Table]:
    return [table for table in (gap_table(results), partition_table(results)) if table.rows]


def gap_table(results: dict[str, Any]) -> Table:
    header = (
        "what happens", "side", "rounds", "write gap median ms", "worst ms", "next topic median ms", "worst ms",
        "client errors", "targets",
    )  # fmt: skip
    rows = []
    for kind, side, samples in each(results, KINDS):
        gaps, elections = good(samples, "gap_ms"), good(samples, "election_ms")
        rows.append(
            (
                kind, side, str(len(samples)), *median_and_worst(gaps), *median_and_worst(elections),
                number(sum(good(samples, "errors"))), remarks(results, kind, side, samples),
            )
        )  # fmt: skip
    note = (
        "The longest time without an acknowledgement of one partition; the time until a topic can be created."
    )
    return Table("Nodes that die or stop", note, header, rows)


def partition_table(results: dict[str, Any]) -> Table:
    header = (
        "partitions", "side", "rounds", "moved", "fenced after ms", "then led ms", "worst", "then served ms", "worst",
        "in sync after restart s", "resident MB", "targets",
    )  # fmt: skip
    rows = []
    kinds = [kind for kind in results["samples"] if kind not in KINDS]
    for kind, side, samples in each(results, kinds):
        rows.append(
            (
                kind, side, str(len(samples)), median_of(samples, "moved"), median_of(samples, "fenced_ms"),
                *median_and_worst(good(samples, "led_ms")), *median_and_worst(good(samples, "serving_ms")),
                median_of(samples, "in_sync_s"), median_of(samples, "node_rss_mb"),
                remarks(results, kind, side, samples),
            )
        )  # fmt: skip
    note = (
        "kill -9 of a node that leads a third of them: until a survivor's Metadata does not name it, from then until "
        "all have another leader, and until all have acknowledged a record (acks=all)."
    )
    return Table("Many partitions", note, header, rows)


def each(results: dict[str, Any], kinds: Any) -> Iterator[tuple[str, str, list[Metrics]]]:
    for kind in kinds:
        for side, samples in results["samples"].get(kind, {}).items():
            yield kind, side, samples


def remarks(results: dict[str, Any], kind: str, side: str, samples: list[Metrics]) -> str:
    if side != OURS:
        return f"failed: {failures(samples)[0]}" if failures(samples) else ""
    mine = [one for one in outcomes(results) if one.row == kind]
    missed = "; ".join(one.text for one in mine if not one.met)
    return f"missed: {missed}" if missed else "met" if mine else ""


def median_and_worst(values: list[float]) -> tuple[str, str]:
    return (number(statistics.median(values)), number(max(values))) if values else ("–", "–")


def median_of(samples: list[Metrics], metric: str) -> str:
    values = good(samples, metric)
    return number(statistics.median(values)) if values else "–"


def draw(results: dict[str, Any], path: Path) -> None:
    """Every round a point, on a scale that shows 50 ms beside 9 s."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = []
    for kind, samples in results["samples"].items():
        for metric, what in (
            ("gap_ms", "write gap"), ("election_ms", "next topic created"), ("led_ms", "fenced → all led"),
            ("serving_ms", "fenced → all serve"),
        ):  # fmt: skip
            points = {side: good(found, metric) for side, found in samples.items()}
            if any(points.values()):
                limit = next((one for one in LIMITS if (one.kind, one.metric) == (kind, metric)), None)
                lines.append((f"{kind}\n{what}", points, limit))
    figure, axis = pyplot.subplots(figsize=(12, 1.2 + 0.75 * len(lines)), layout="constrained")
    sides = list(dict.fromkeys(side for _, points, _ in lines for side in points))
    for index, (_, points, limit) in enumerate(lines):
        for place, side in enumerate(sides):
            values = points.get(side, [])
            height = index + (place - (len(sides) - 1) / 2) * 0.3
            color = COLORS.get(side, "#000000")
            axis.scatter(values, [height] * len(values), alpha=0.55, color=color, s=28)
            if values:
                middle = statistics.median(values)
                axis.scatter([middle], [height], marker="|", s=260, color=color)
                axis.annotate(
                    f"{middle:,.0f}", (max(values), height), xytext=(8, 0), textcoords="offset points",
                    va="center", fontsize=8, color=color,
                )  # fmt: skip
        if limit is not None and limit.median:
            axis.plot([limit.median] * 2, [index - 0.42, index + 0.42], color="#15803d", linewidth=2)
    for place, side in enumerate(sides):
        axis.scatter([], [], color=COLORS.get(side, "#000000"), label=side, zorder=place)
    axis.plot([], [], color="#15803d", linewidth=2, label="wanted, median")
    axis.set_yticks(range(len(lines)), [name for name, *_ in lines])
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.margins(x=0.08)
    axis.set_xlabel("ms, log scale (each point a round; bar and number: median; less is better)")
    axis.grid(axis="x", alpha=0.3, which="both")
    axis.legend(loc="best", framealpha=0.9)
    axis.set_title("Three nodes, replication factor 3, acks=all: what clients see of failures")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
