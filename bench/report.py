"""From samples to tables: medians per side, ratios of pairs, and whether the project's targets are met."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.cluster_rows import CLUSTER_ROWS, CLUSTER_START_ROW, CLUSTER_START_TARGETS
from bench.rows import METADATA_MAX_US, ROWS, START_ROW, START_TARGETS, Metrics, Row, Target

ALL_ROWS = (*ROWS, *CLUSTER_ROWS)

OURS, PEER, PEER_FREE = "odradek", "kafka", "kafka-all-cpus"
CLIENT_LIMITS_FROM = 0.7
"""A client that is busier than this may be the limit; the table says so."""
TIE_FROM = 0.9
NOISE_FROM = 0.15
"""Share of one CPU taken by other processes from which a row is marked as disturbed."""
UNITS = {
    "mb_s": "MB/s", "cpu_s_per_gb": "CPU s/GB", "p50_ms": "ms p50", "p99_ms": "ms p99", "fresh_s": "s",
    "idle_rss_mb": "MB", "ready_s": "s", "node_rss_mb": "MB",
}  # fmt: skip

WORDS = {True: "met", False: "**missed**", None: "open"}

Samples = dict[str, dict[str, list[Metrics]]]


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ours over the peer's, of the pairs of rounds."""

    median: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.lowest:.2f}–{self.highest:.2f})"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One target of one row. `met` is None where the clients were the limit: the nodes cannot be told apart."""

    row: str
    text: str
    met: bool | None


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    note: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def good(samples: Samples, row: str, side: str) -> list[Metrics]:
    return [metrics for metrics in samples.get(row, {}).get(side, []) if "error" not in metrics]


def errors(samples: Samples, row: str, side: str) -> list[str]:
    return [metrics["error"] for metrics in samples.get(row, {}).get(side, []) if "error" in metrics]


def median(samples: Samples, row: str, side: str, metric: str) -> float | None:
    values = [metrics[metric] for metrics in good(samples, row, side) if metrics.get(metric) is not None]
    return statistics.median(values) if values else None


def ratio(samples: Samples, row: str, metric: str, peer: str = PEER) -> Ratio | None:
    """Only rounds in which both sides have a number make a pair."""
    both = zip(samples.get(row, {}).get(OURS, []), samples.get(row, {}).get(peer, []), strict=False)
    values = [one[metric] / other[metric] for one, other in both if one.get(metric) and other.get(metric)]
    return Ratio(statistics.median(values), min(values), max(values)) if values else None


# Targets ---------------------------------------------------------------------------------------------------------


def outcome(samples: Samples, row: str, target: Target) -> Outcome | None:
    """None when the side or its peer was not measured at all."""
    if errors(samples, row, OURS) and not good(samples, row, OURS):
        return Outcome(row, f"failed: {errors(samples, row, OURS)[0]}", met=False)
    unit = UNITS[target.metric]
    if target.value is not None:
        found = median(samples, row, OURS, target.metric)
        if found is None:
            return None
        met = found >= target.value if target.at_least else found <= target.value
        sign = "≥" if target.at_least else "≤"
        return Outcome(row, f"{number(found)} {unit}, wanted {sign} {number(target.value)}", met)
    pairs = ratio(samples, row, target.metric)
    if pairs is None:
        return None
    if target.metric == "mb_s" and TIE_FROM <= pairs.median < 1 and clients_limit(samples, row):
        return Outcome(row, f"{pairs.median:.2f} × Kafka's MB/s, with both clients at their limit", None)
    wanted = target.factor
    met = pairs.median >= wanted if target.at_least else pairs.median <= wanted
    sign = "≥" if target.at_least else "≤"
    return Outcome(row, f"{pairs.median:.2f} × Kafka's {unit}, wanted {sign} {wanted:g}", met)


def clients_limit(samples: Samples, row: str) -> bool:
    busy = [median(samples, row, side, "client_busy") for side in (OURS, PEER)]
    return all(share is not None and share > CLIENT_LIMITS_FROM for share in busy)


def outcomes(samples: Samples, micro: Sequence[dict[str, Any]]) -> list[Outcome]:
    targets: list[tuple[str, Target]] = [(START_ROW, target) for target in START_TARGETS]
    targets += [(CLUSTER_START_ROW, target) for target in CLUSTER_START_TARGETS]
    targets += [(row.name, target) for row in ALL_ROWS for target in row.targets]
    found = [outcome(samples, row, target) for row, target in targets if row in samples]
    for result in micro:
        if result["name"].startswith("Metadata"):
            us = result["median_us"]
            text = f"{us / 1000:.2f} ms, wanted ≤ {METADATA_MAX_US / 1000:.2f}"
            found.append(Outcome("micro", f"{result['name']}: {text}", us <= METADATA_MAX_US))
    return [one for one in found if one is not None]


# Tables ----------------------------------------------------------------------------------------------------------


def tables(samples: Samples, micro: Sequence[dict[str, Any]]) -> list[Table]:
    found = [
        throughput_table(samples, "produce", "Produce, prebuilt requests, pipelined, acks=1"),
        throughput_table(samples, "fetch", "Fetch, prebuilt requests, from the page cache"),
        throughput_table(
            samples, "replicated", "Produce to three nodes, prebuilt requests, pipelined, acks=all"
        ),
        latency_table(samples, "latency", "Produce latency at a fixed rate"),
        latency_table(
            samples, "replicated-latency", "Produce latency at a fixed rate, three nodes, acks=all"
        ),
        throughput_table(samples, "client", "Real clients, one process each"),
        throughput_table(samples, "replicated-client", "Real clients on three nodes, acks=all"),
        start_table(samples),
        cluster_start_table(samples),
        micro_table(micro),
    ]
    return [table for table in found if table.rows]


def throughput_table(samples: Samples, group: str, title: str) -> Table:
    free = any(PEER_FREE in sides for sides in samples.values())
    header = (
        "row", "MB/s", "Kafka", "ratio", "messages/s", "Kafka", "CPU s/GB", "Kafka", "ratio", "peak MB", "Kafka",
        "client busy", *(("Kafka, all CPUs: MB/s",) if free else ()), "targets",
    )  # fmt: skip
    rows = [
        throughput_line(samples, row, free) for row in ALL_ROWS if row.group == group and row.name in samples
    ]
    return Table(
        title, "Medians of the rounds; ratio: ours / Kafka's, median (range) of the pairs.", header, rows
    )


def throughput_line(samples: Samples, row: Row, free: bool) -> tuple[str, ...]:
    name = row.name
    return (
        row.title + disturbed(samples, name),
        *both(samples, name, "mb_s"),
        shown(ratio(samples, name, "mb_s")),
        *both(samples, name, "messages_s"),
        *both(samples, name, "cpu_s_per_gb"),
        shown(ratio(samples, name, "cpu_s_per_gb")),
        *both(samples, name, "rss_mb"),
        client_busy(samples, name),
        *((number(median(samples, name, PEER_FREE, "mb_s")),) if free else ()),
        verdict(samples, name, row.targets),
    )


def latency_table(samples: Samples, group: str, title: str) -> Table:
    header = (
        "row", "side", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "generator late p99.9", "CPU of a core", "targets",
    )  # fmt: skip
    rows = []
    for row in ALL_ROWS:
        for side in (OURS, PEER, PEER_FREE):
            if row.group != group or side not in samples.get(row.name, {}):
                continue
            cells = [
                number(median(samples, row.name, side, metric))
                for metric in ("p50_ms", "p99_ms", "p999_ms", "max_ms", "lateness_p999_ms", "node_busy")
            ]
            targets = (
                verdict(samples, row.name, row.targets) if side == OURS else failures(samples, row.name, side)
            )
            rows.append((row.title, side, *cells, targets))
    return Table(title, "From the time a request was due; medians of the rounds.", header, rows)


def start_table(samples: Samples) -> Table:
    header = (
        "side", "start to first record, empty directory s", "existing data s", "idle RSS MB", "idle PSS MB",
        "idle CPU %", "targets",
    )  # fmt: skip
    rows = []
    for side in (OURS, PEER, PEER_FREE):
        if side not in samples.get(START_ROW, {}):
            continue
        cells = [
            number(median(samples, START_ROW, side, metric))
            for metric in ("fresh_s", "existing_s", "idle_rss_mb", "idle_pss_mb", "idle_cpu_percent")
        ]
        targets = (
            verdict(samples, START_ROW, START_TARGETS) if side == OURS else failures(samples, START_ROW, side)
        )
        rows.append((side, *cells, targets))
    note = "From the start of the process; Kafka's directory was formatted before."
    return Table("Start and idle memory", note, header, rows)


def cluster_start_table(samples: Samples) -> Table:
    header = ("side", "three nodes ready s", "worst s", "resident MB, largest node", "targets")
    rows = []
    for side in (OURS, PEER):
        found = good(samples, CLUSTER_START_ROW, side)
        if side not in samples.get(CLUSTER_START_ROW, {}):
            continue
        cells = [
            number(median(samples, CLUSTER_START_ROW, side, "ready_s")),
            number(max((one["ready_s"] for one in found), default=None)),
            number(median(samples, CLUSTER_START_ROW, side, "node_rss_mb")),
        ]
        targets = (
            verdict(samples, CLUSTER_START_ROW, CLUSTER_START_TARGETS)
            if side == OURS
            else failures(samples, CLUSTER_START_ROW, side)
        )
        rows.append((side, *cells, targets))
    note = "From the start of three processes on empty directories until each names all three to a client."
    return Table("Three nodes from nothing", note, header, rows)


def micro_table(micro: Sequence[dict[str, Any]]) -> Table:
    rows = [(one["name"], number(one["median_us"]), number(one["best_us"])) for one in micro]
    return Table("Pieces of the node, without sockets", "", ("piece", "median µs", "fastest µs"), rows)


def both(samples: Samples, row: str, metric: str) -> tuple[str, str]:
    return number(median(samples, row, OURS, metric)), number(median(samples, row, PEER, metric))


def client_busy(samples: Samples, row: str) -> str:
    cells = []
    for side in (OURS, PEER):
        busy = median(samples, row, side, "client_busy")
        cells.append("–" if busy is None else f"{busy:.0%}{' !' if busy > CLIENT_LIMITS_FROM else ''}")
    return " / ".join(cells)


def disturbed(samples: Samples, row: str) -> str:
    """A mark when other processes took a share of the machine."""
    found = [median(samples, row, side, "others_busy") for side in (OURS, PEER)]
    return " ~" if any(share is not None and share > NOISE_FROM for share in found) else ""


def verdict(samples: Samples, row: str, targets: Sequence[Target]) -> str:
    results = [one for one in (outcome(samples, row, target) for target in targets) if one is not None]
    missed = "; ".join(dict.fromkeys(one.text for one in results if one.met is False))
    even = "; ".join(one.text for one in results if one.met is None)
    texts = [f"missed: {missed}"] if missed else ["met"] if results and not even else []
    return "; ".join(texts + [even] * bool(even) + [text for text in (failures(samples, row, PEER),) if text])


def failures(samples: Samples, row: str, side: str) -> str:
    found = errors(samples, row, side)
    return f"{side} failed: {found[0]}" if found else ""


def shown(value: Ratio | None) -> str:
    return "–" if value is None else str(value)


def number(value: float | None) -> str:
    if value is None or value != value:
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"


# Markdown --------------------------------------------------------------------------------------------------------


def markdown(
    title: str,
    machine: dict[str, str],
    notes: Sequence[str],
    found: Sequence[Outcome],
    shown_as: Sequence[Table],
) -> str:
    lines = [f"# {title}", "", f"![plot]({title}.png)", ""]
    lines += [f"- {label}: {value}" for label, value in machine.items()]
    lines += ["", *(f"- {note}" for note in notes), "", "## Targets", ""]
    lines += [f"- {WORDS[one.met]} · {one.row}: {one.text}" for one in found]
    for table in shown_as:
        lines += table_lines(table)
    return "\n".join(lines) + "\n"


def table_lines(table: Table) -> list[str]:
    """In Markdown."""
    lines = ["", f"## {table.title}", "", table.note, ""]
    lines.append("| " + " | ".join(table.header) + " |")
    lines.append("|" + "---|" * len(table.header))
    return lines + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table.rows]
