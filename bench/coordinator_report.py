"""What `python -m bench coordinators` found, as tables, targets and a picture."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any, NamedTuple

from bench.report import (
    CLIENT_LIMITS_FROM,
    NOISE_FROM,
    OURS,
    PEER,
    TIE_FROM,
    WORDS,
    Outcome,
    Table,
    number,
    table_lines,
)
from bench.rows import Metrics

IDLE, CROWD, COMMITS, TRANSACTIONS = "idle", "crowd", "commits", "transactions"
THREE_NODES, FAILOVER = "three-nodes", "failover"
PARTS = (IDLE, CROWD, COMMITS, TRANSACTIONS, THREE_NODES, FAILOVER)
COLORS = {OURS: "#c2410c", PEER: "#334155"}


class Limit(NamedTuple):
    """What the project wants of the median of `metric`: so much, or what the peer has where `value` is None."""

    metric: str
    unit: str
    at_least: bool
    value: float | None = None


LIMITS = {
    IDLE: Limit("mb", "MB", at_least=False, value=100),
    CROWD: Limit("seconds", "s", at_least=False),
    COMMITS: Limit("p99_ms", "ms p99", at_least=False, value=10),
    TRANSACTIONS: Limit("txn_s", "transactions/s", at_least=True),
    THREE_NODES: Limit("txn_s", "transactions/s", at_least=True),
    FAILOVER: Limit("ms", "ms median", at_least=False, value=1_500),
}
TITLES = {
    IDLE: "Idle groups: memory that they take, MB",
    CROWD: "One group: until everybody has its share, s",
    COMMITS: "Commits of offsets: ms p99",
    TRANSACTIONS: "Transactions per second, one node",
    THREE_NODES: "Transactions per second, three nodes, replication factor 3",
    FAILOVER: "Coordinator's failover with 100,000 offsets: ms",
}

Rows = dict[str, dict[str, list[Metrics]]]


def median(samples: dict[str, list[Metrics]], side: str, metric: str) -> float | None:
    values = [one[metric] for one in samples.get(side, []) if metric in one]
    return statistics.median(values) if values else None


def parts_of(results: dict[str, Any]) -> dict[str, Rows]:
    found: dict[str, Rows] = results["coordinators"]
    return {part: found[part] for part in PARTS if part in found}


def outcomes(results: dict[str, Any]) -> list[Outcome]:
    found = []
    for part, rows in parts_of(results).items():
        for row, samples in rows.items():
            found += row_outcomes(part, row, samples)
    return found


def row_outcomes(part: str, row: str, samples: dict[str, list[Metrics]]) -> list[Outcome]:
    name, limit = f"{part}: {row}", LIMITS[part]
    found = [Outcome(name, one["error"], met=False) for one in samples.get(OURS, []) if "error" in one]
    ours, peer = (median(samples, side, limit.metric) for side in (OURS, PEER))
    wanted = limit.value if limit.value is not None else peer
    if ours is None or wanted is None:
        return found
    met: bool | None = ours >= wanted if limit.at_least else ours <= wanted
    if (
        not met
        and limit.value is None
        and limit.at_least
        and ours >= TIE_FROM * wanted
        and clients_limit(samples)
    ):
        met = None
    sign = "≥" if limit.at_least else "≤"
    of_whom = "" if limit.value is not None else " (Kafka's)"
    text = f"{number(ours)} {limit.unit}, wanted {sign} {number(wanted)}{of_whom}"
    return [*found, Outcome(name, text, met)]


def clients_limit(samples: dict[str, list[Metrics]]) -> bool:
    return any((median(samples, side, "client_busy") or 0) > CLIENT_LIMITS_FROM for side in (OURS, PEER))


def tables(results: dict[str, Any]) -> list[Table]:
    return [part_table(part, rows, detail(part)) for part, rows in parts_of(results).items()]


def detail(part: str) -> tuple[tuple[str, str], ...]:
    """(metric, heading) of what stands beside the metric of the target."""
    beside = {
        IDLE: (("kb_each", "KB each"), ("made_s", "made in s")),
        CROWD: (("cpu_s", "CPU s"),),
        COMMITS: (("p50_ms", "ms p50"), ("max_ms", "max"), ("cpu_us", "CPU µs")),
        FAILOVER: (("found_ms", "coordinator named after ms"),),
    }
    transactions = (
        ("cpu_us", "CPU µs"), ("p50_ms", "ms p50"), ("p99_ms", "ms p99"), ("client_busy", "client busy"),
    )  # fmt: skip
    return beside.get(part, transactions)


def part_table(part: str, rows: Rows, beside: tuple[tuple[str, str], ...]) -> Table:
    limit = LIMITS[part]
    header = ("what", limit.unit, "Kafka's", "ours / Kafka's", "worst", "Kafka's")
    for _, heading in beside:
        header += (heading, "Kafka's")
    lines = []
    for row, samples in rows.items():
        ours, peer = (median(samples, side, limit.metric) for side in (OURS, PEER))
        line = [
            row + disturbed(samples), number(ours), number(peer), number(ours / peer) if ours and peer else "–",
            worst(samples, OURS, limit), worst(samples, PEER, limit),
        ]  # fmt: skip
        for metric, _ in beside:
            line += [number(median(samples, side, metric)) for side in (OURS, PEER)]
        lines.append((*line, remark(part, row, samples)))
    return Table(TITLES[part], "", (*header, "targets"), lines)


def worst(samples: dict[str, list[Metrics]], side: str, limit: Limit) -> str:
    values = [one[limit.metric] for one in samples.get(side, []) if limit.metric in one]
    return number((min if limit.at_least else max)(values)) if values else "–"


def disturbed(samples: dict[str, list[Metrics]]) -> str:
    """A mark when other processes took a share of the machine."""
    found = [median(samples, side, "others_busy") or 0 for side in (OURS, PEER)]
    return " ~" if max(found) > NOISE_FROM else ""


def remark(part: str, row: str, samples: dict[str, list[Metrics]]) -> str:
    found = row_outcomes(part, row, samples)
    missed = "; ".join(dict.fromkeys(one.text for one in found if one.met is False))
    text = f"missed: {missed}" if missed else "open" if any(one.met is None for one in found) else "met"
    failed = next((one["error"] for one in samples.get(PEER, []) if "error" in one), "")
    return (text if found else "–") + (f"; {PEER} failed: {failed}" if failed else "")


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
        len(parts), 1, figsize=(11, 1.0 + 0.62 * sum(heights)), layout="constrained", squeeze=False,
        gridspec_kw={"height_ratios": heights},
    )  # fmt: skip
    for axis, (part, rows) in zip(axes[:, 0], parts.items(), strict=True):
        limit = LIMITS[part]
        for index, samples in enumerate(rows.values()):
            for place, side in enumerate((OURS, PEER)):
                middle = median(samples, side, limit.metric)
                if middle is None:
                    continue
                height = index + (place - 0.5) * 0.36
                values = [one[limit.metric] for one in samples[side] if limit.metric in one]
                label = side if index == 0 else None
                axis.barh(height, middle, 0.34, color=COLORS[side], alpha=0.8, label=label)
                axis.scatter(values, [height] * len(values), color="#000000", s=8, zorder=3)
                axis.annotate(
                    number(middle), (max(values), height), xytext=(6, 0), textcoords="offset points", va="center",
                    fontsize=8,
                )  # fmt: skip
        if limit.value is not None:
            axis.axvline(limit.value, color="#15803d", linewidth=2, label=f"wanted ≤ {limit.value:,.0f}")
        axis.set_yticks(range(len(rows)), list(rows))
        axis.invert_yaxis()
        axis.set_title(f"{TITLES[part]} ({'more' if limit.at_least else 'less'} is better)", fontsize=10)
        axis.grid(axis="x", alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(loc="lower right", fontsize=8, framealpha=0.9)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
