"""What `python -m bench coordinators` found, as tables, targets and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench import parts
from bench.parts import Parts, Rows, Sides, failures, median, values
from bench.report import CLIENT_LIMITS_FROM, NOISE_FROM, OURS, PEER, TIE_FROM, Outcome, Table, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

IDLE, CROWD, COMMITS, TRANSACTIONS = "idle", "crowd", "commits", "transactions"
THREE_NODES, FAILOVER = "three-nodes", "failover"
PARTS = (IDLE, CROWD, COMMITS, TRANSACTIONS, THREE_NODES, FAILOVER)


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


def parts_of(results: dict[str, Any]) -> Parts:
    return parts.in_order(results, "coordinators", PARTS)


def outcomes(results: dict[str, Any]) -> list[Outcome]:
    found = []
    for part, rows in parts_of(results).items():
        for row, samples in rows.items():
            found += row_outcomes(part, row, samples)
    return found


def row_outcomes(part: str, row: str, samples: Sides) -> list[Outcome]:
    name, limit = f"{part}: {row}", LIMITS[part]
    found = [Outcome(name, text, met=False) for text in failures(samples, OURS)]
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


def clients_limit(samples: Sides) -> bool:
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
    header: tuple[str, ...] = ("what", limit.unit, "Kafka's", "ours / Kafka's", "worst", "Kafka's")
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


def worst(samples: Sides, side: str, limit: Limit) -> str:
    return number((min if limit.at_least else max)(values(samples, side, limit.metric), default=None))


def disturbed(samples: Sides) -> str:
    """A mark when other processes took a share of the machine."""
    found = [median(samples, side, "others_busy") or 0 for side in (OURS, PEER)]
    return " ~" if max(found) > NOISE_FROM else ""


def remark(part: str, row: str, samples: Sides) -> str:
    found = row_outcomes(part, row, samples)
    missed = "; ".join(dict.fromkeys(one.text for one in found if one.met is False))
    text = f"missed: {missed}" if missed else "open" if any(one.met is None for one in found) else "met"
    return (text if found else "–") + parts.peer_failed(samples)


def draw(results: dict[str, Any], path: Path) -> None:
    found = parts_of(results)
    parts.draw(path, found, draw_part, [0.62 * (1 + len(rows)) for rows in found.values()])


def draw_part(axis: Axes, part: str, rows: Rows) -> list[str]:
    limit = LIMITS[part]
    for at, samples in enumerate(rows.values()):
        parts.pair_of_bars(axis, at, samples, limit.metric)
    if limit.value is not None:
        label = f"wanted ≤ {limit.value:,.0f}"
        axis.axvline(limit.value, color=parts.WANTED_COLOR, linewidth=2, label=label)
    axis.set_title(f"{TITLES[part]} ({'more' if limit.at_least else 'less'} is better)", fontsize=10)
    return list(rows)
