"""One picture of a run: throughput, CPU per GB, latency by percentile, start and memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cluster_rows import CLUSTER_ROWS, CLUSTER_START_ROW, LOW_RATE
from bench.report import OURS, PEER, PEER_FREE, Samples, good, median, number, ratio
from bench.rows import CURVE_PERCENTS, ROWS, START_ROW

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = {OURS: "Odradek", PEER: "Apache Kafka", PEER_FREE: "Apache Kafka, all CPUs"}
COLORS = {OURS: "#c2410c", PEER: "#334155", PEER_FREE: "#94a3b8"}
BAR = 0.38
REPLICATED_LATENCY = "r3-latency"


def draw(samples: Samples, machine: dict[str, str], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    one_node = [row for row in ROWS if row.name in samples] or START_ROW in samples
    draw_rows = draw_one_node if one_node else draw_clusters
    figure = draw_rows(samples)
    figure.suptitle(
        f"Odradek beside Apache Kafka {machine.get('Apache Kafka', '')} · {machine.get('CPU', '')} · "
        f"Python {machine.get('Python', '').rpartition(' ')[2]}, Java {machine.get('Java', '')}"
    )
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw_clusters(samples: Samples) -> Figure:
    """Three nodes: every figure of an acknowledgement that waited for two of them at least."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(15, 9.5), layout="constrained")
    found = [row for row in CLUSTER_ROWS if row.name in samples and row.name != REPLICATED_LATENCY]
    rows = [(row.name, row.title) for row in found]
    bars(axes[0][0], samples, rows, "mb_s", "MB/s of record values (log scale)")
    bars(axes[0][1], samples, rows, "cpu_s_per_gb", "CPU seconds of three nodes per GB (log scale)")
    axes[0][0].set_title("Throughput, replication factor 3, acks=all (more is better)")
    axes[0][1].set_title("CPU of all nodes per GB (less is better)")
    latency(
        axes[1][0],
        samples,
        REPLICATED_LATENCY,
        f"Produce latency at {LOW_RATE}/s of 1 KB, acks=all (less is better)",
    )
    horizontal(
        axes[1][1],
        samples,
        (
            (CLUSTER_START_ROW, "ready_s", "three nodes ready\nfrom nothing", 1.0, "{:,.2f} s"),
            (CLUSTER_START_ROW, "node_rss_mb", "resident, idle,\nlargest node", 100.0, "{:,.0f} MB"),
            ("r3-produce-1k", "rss_mb", "peak resident,\nproduce 1 KB", 100.0, "{:,.0f} MB"),
            ("r3-produce-1m", "rss_mb", "peak resident,\nproduce 1 MB", 100.0, "{:,.0f} MB"),
        ),
    )
    return figure


def draw_one_node(samples: Samples) -> Figure:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(15, 10.5), layout="constrained")
    raw = [row for row in ROWS if row.group in ("produce", "fetch") and row.name in samples]
    bars(
        axes[0][0],
        samples,
        [(row.name, row.title) for row in raw],
        "mb_s",
        "MB/s of record values (log scale)",
    )
    bars(
        axes[0][1],
        samples,
        [(row.name, row.title) for row in raw],
        "cpu_s_per_gb",
        "node CPU seconds per GB (log scale)",
    )
    axes[0][0].set_title("Throughput, node on one core (more is better)")
    axes[0][1].set_title("Node CPU per GB (less is better)")
    latency(axes[1][0], samples, "latency", "Produce latency at 5,000 requests/s of 1 KB (less is better)")
    start(axes[1][1], samples)
    return figure


def bars(axis: Axes, samples: Samples, rows: list[tuple[str, str]], metric: str, label: str) -> None:
    """Two horizontal bars per row, the ratio of the pairs behind them."""
    shown = []
    for side, shift in ((OURS, -BAR / 2), (PEER, BAR / 2)):
        values = [median(samples, name, side, metric) or 0.0 for name, _ in rows]
        shown += [value for value in values if value]
        places = [index + shift for index in range(len(rows))]
        axis.barh(places, values, BAR, label=NAMES[side], color=COLORS[side])
        for place, value in zip(places, values, strict=True):
            if value:
                axis.text(
                    value * 0.93, place, number(value), ha="right", va="center", color="white", fontsize=8
                )
    for index, (name, _) in enumerate(rows):
        pairs = ratio(samples, name, metric)
        ends = [median(samples, name, side, metric) or 0.0 for side in (OURS, PEER)]
        if pairs is not None:
            axis.text(max(ends) * 1.12, index, f"{pairs.median:.2f} ×", va="center", fontweight="bold")
    axis.set_yticks(range(len(rows)), [title for _, title in rows])
    axis.invert_yaxis()
    if shown:
        axis.set_xscale("log")
        axis.set_xlim(min(shown) / 3, max(shown) * 3)
    axis.set_xlabel(label)
    axis.grid(axis="x", alpha=0.3)
    axis.legend(loc="best", framealpha=0.9)


def latency(axis: Axes, samples: Samples, row: str, title: str) -> None:
    """The middle round by p99, over percentiles that are stretched towards 100."""
    axis.set_title(title)
    places = [-_log10(1 - percent / 100) for percent in CURVE_PERCENTS]
    for side in (OURS, PEER, PEER_FREE):
        rounds = sorted(good(samples, row, side), key=_p99)
        if rounds:
            middle = rounds[len(rounds) // 2]
            label = f"{NAMES[side]}, p99 {middle['p99_ms']:.2f} ms"
            axis.plot(places, middle["curve_ms"], marker="o", label=label, color=COLORS[side])
    marks = (50.0, 90.0, 99.0, 99.9, 99.99)
    axis.set_xticks([-_log10(1 - mark / 100) for mark in marks], [f"{mark:g} %" for mark in marks])
    axis.set_yscale("log")
    axis.set_xlabel("percentile")
    axis.set_ylabel("ms from when the request was due (log scale)")
    axis.grid(alpha=0.3, which="both")
    if axis.lines:
        axis.legend(loc="lower right")


def start(axis: Axes, samples: Samples) -> None:
    entries = (
        (START_ROW, "fresh_s", "start to first record,\nempty directory", 1.0, "{:,.2f} s"),
        (START_ROW, "existing_s", "start to first record,\nexisting data", 1.0, "{:,.2f} s"),
        (START_ROW, "idle_rss_mb", "resident, idle", 100.0, "{:,.0f} MB"),
        ("produce-1k", "rss_mb", "peak resident,\nproduce 1 KB", 100.0, "{:,.0f} MB"),
        ("fetch-1m", "rss_mb", "peak resident,\nfetch 1 MB", 100.0, "{:,.0f} MB"),
    )
    horizontal(axis, samples, entries)


def horizontal(axis: Axes, samples: Samples, entries: Sequence[tuple[str, str, str, float, str]]) -> None:
    """Times and memory in one panel: each bar carries its number and unit."""
    axis.set_title("Start and memory (less is better)")
    for side, shift in ((OURS, -BAR / 2), (PEER, BAR / 2)):
        values = [median(samples, row, side, metric) for row, metric, *_ in entries]
        lengths = [
            0.0 if value is None else value / entry[3] for value, entry in zip(values, entries, strict=True)
        ]
        places = [index + shift for index in range(len(entries))]
        axis.barh(places, lengths, BAR, color=COLORS[side], label=NAMES[side])
        for place, length, value, entry in zip(places, lengths, values, entries, strict=True):
            if value is not None:
                axis.text(length, place, " " + entry[4].format(value), va="center")
    axis.set_yticks(range(len(entries)), [entry[2] for entry in entries])
    axis.invert_yaxis()
    axis.set_xlabel("seconds, or hundreds of MB")
    axis.margins(x=0.22)
    axis.grid(axis="x", alpha=0.3)
    axis.legend(loc="best")


def _log10(value: float) -> float:
    from math import log10

    return log10(value)


def _p99(metrics: dict[str, Any]) -> float:
    return float(metrics["p99_ms"])
