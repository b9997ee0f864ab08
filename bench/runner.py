"""Both sides in one run, round by round in turn, so that what else the machine does hits both alike."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.cluster_rows import CLUSTER_ROWS, CLUSTER_START_ROW, START_ROUNDS
from bench.cluster_rows import measure_start as measure_cluster_start
from bench.clusters import CLUSTERS, PORTS_APART, Cluster
from bench.procstat import Cpus
from bench.rows import MICRO_ROW, ROWS, START_ROW, Bench, Metrics, Plan, Row
from bench.servers import SIDES, FreeKafkaServer, Server, free_ports
from bench.startup import measure_start

SETTLE_S = 1.5
"""After a topic is deleted: until its files are gone (`file.delete.delay.ms` is 1000)."""

Say = Callable[[str], None]


@dataclass(slots=True)
class Run:
    """Everything measured. `samples`: row → side → one Metrics per round; a failed one is {"error": text}."""

    plan: Plan
    sides: list[str]
    samples: dict[str, dict[str, list[Metrics]]] = field(default_factory=dict)
    micro: list[dict[str, Any]] = field(default_factory=list)

    def add(self, row: str, side: str, metrics: Metrics) -> None:
        self.samples.setdefault(row, {}).setdefault(side, []).append(metrics)

    def as_json(self) -> dict[str, Any]:
        return {
            "plan": asdict(self.plan), "sides": self.sides, "samples": self.samples, "micro": self.micro,
        }  # fmt: skip


def measure_clusters(plan: Plan, sides: Sequence[str], names: Sequence[str], root: Path, say: Say) -> Run:
    """The rows of three nodes; nothing is pinned."""
    run = Run(plan, list(sides))
    gc.disable()
    try:
        if CLUSTER_START_ROW in names:
            for number in range(1, min(START_ROUNDS, plan.rounds) + 1):
                for side in sides:
                    metrics = guarded(lambda side=side: start_cluster(side, root))  # type: ignore[misc]
                    run.add(CLUSTER_START_ROW, side, metrics)
                    say(f"{CLUSTER_START_ROW} {number} {side}: {brief(metrics)}")
                    settle()
        rows = [row for row in CLUSTER_ROWS if row.name in names]
        if rows:
            servers = {side: make_cluster(side, root / "rows") for side in sides}
            measure_rows(run, rows, servers, say)
    finally:
        gc.enable()
    return run


def start_cluster(side: str, root: Path) -> Metrics:
    return measure_cluster_start(make_cluster(side, root / "start"))


def make_cluster(side: str, root: Path) -> Cluster:
    """Ports of the two sides lie apart: those of one are not bound yet when the other's are chosen."""
    return CLUSTERS[side](root / side, free_ports(1)[0] + PORTS_APART * list(CLUSTERS).index(side))


def measure(plan: Plan, sides: Sequence[str], names: Sequence[str], root: Path, say: Say) -> Run:
    """Run the rows of these names on these sides; data below `root`."""
    run = Run(plan, list(sides))
    cpus = Cpus.split()
    if cpus.client:
        os.sched_setaffinity(0, cpus.client)
    gc.disable()
    try:
        if MICRO_ROW in names:
            from bench import micro

            say("micro")
            run.micro = micro.as_json(micro.run_all())
        if START_ROW in names:
            measure_starts(run, root, cpus, say)
        rows = [row for row in ROWS if row.name in names]
        if rows:
            measure_rows(run, rows, make_servers(sides, root / "rows", cpus), say)
    finally:
        gc.enable()
    return run


def make_server(side: str, root: Path, port: int, cpus: Cpus) -> Server:
    kind = SIDES[side]
    return kind(root / side, port, frozenset() if kind is FreeKafkaServer else cpus.node)


def everywhere(cpus: Cpus) -> frozenset[int]:
    return cpus.node | cpus.client


def measure_starts(run: Run, root: Path, cpus: Cpus, say: Say) -> None:
    """Each start on an empty machine: no other node runs."""
    for number in range(1, max(2, run.plan.rounds - 1) + 1):
        for side in run.sides:
            server = make_server(side, root / "start", free_ports(1)[0], cpus)
            if side == FreeKafkaServer.label:
                server.cpus = everywhere(cpus)
            metrics = guarded(lambda server=server: asdict(measure_start(server)))  # type: ignore[misc]
            run.add(START_ROW, side, metrics)
            say(f"{START_ROW} {number} {side}: {brief(metrics)}")
            settle()


def make_servers(sides: Sequence[str], root: Path, cpus: Cpus) -> dict[str, Server]:
    ports = free_ports(len(sides))
    servers = {side: make_server(side, root, port, cpus) for side, port in zip(sides, ports, strict=True)}
    if FreeKafkaServer.label in servers:
        servers[FreeKafkaServer.label].cpus = everywhere(cpus)
    return servers


def measure_rows(run: Run, rows: Sequence[Row], servers: Mapping[str, Server | Cluster], say: Say) -> None:
    with contextlib.ExitStack() as stack:
        benches: dict[str, Bench] = {}
        for side, server in servers.items():
            stack.callback(server.remove)
            server.start()
            benches[side] = Bench(server, run.plan)
        for row in rows:
            measure_row(run, row, benches, say)


def measure_row(run: Run, row: Row, benches: dict[str, Bench], say: Say) -> None:
    ready = {}
    for side, bench in benches.items():
        failed = guarded(lambda bench=bench: set_up(bench, row))  # type: ignore[misc]
        if "error" in failed:
            run.add(row.name, side, failed)
            say(f"{row.name} {side}: {brief(failed)}")
        else:
            ready[side] = bench
    settle()
    rounds = run.plan.client_rounds if row.group.endswith("client") else run.plan.rounds
    for number in range(1, rounds + 1):
        for side, bench in ready.items():
            with others_paused(side, row, benches):
                metrics = guarded(lambda bench=bench: row.run(bench, row))  # type: ignore[misc]
            run.add(row.name, side, metrics)
            say(f"{row.name} {number} {side}: {brief(metrics)}")
            settle()
    if row.tear_down is not None:
        for bench in ready.values():
            guarded(lambda bench=bench: tear_down(bench, row))  # type: ignore[misc]
    settle()


@contextlib.contextmanager
def others_paused(side: str, row: Row, benches: dict[str, Bench]) -> Iterator[None]:
    """For rows that ask for it, the nodes of the other sides stand still."""
    others = [bench.server for name, bench in benches.items() if name != side]
    paused = [each for each in others if isinstance(each, Server)] if row.options.get("alone") else []
    for server in paused:
        server.pause()
    try:
        yield
    finally:
        for server in paused:
            server.resume()


def set_up(bench: Bench, row: Row) -> Metrics:
    bench.server.check_alive()
    if row.set_up is not None:
        row.set_up(bench, row)
    return {}


def tear_down(bench: Bench, row: Row) -> Metrics:
    assert row.tear_down is not None
    row.tear_down(bench, row)
    return {}


def guarded(action: Callable[[], Metrics]) -> Metrics:
    """A failure is a result too: it is told in the table, and the other rows go on."""
    try:
        return action()
    except Exception as error:  # noqa: BLE001  whatever a client library raises
        return {"error": without_paths(f"{type(error).__name__}: {error}")}
    finally:
        gc.collect()


def without_paths(text: str) -> str:
    """Results are published: nothing in them names a directory of this machine."""
    return re.sub(r"(?<![\w<.])/[\w.+~-]+(?:/[\w.+~-]*)+", "<path>", text)


def settle() -> None:
    """Files of deleted topics go, and what is left is written, before the next measurement begins."""
    time.sleep(SETTLE_S)
    os.sync()


BRIEF = (
    ("mb_s", "MB/s", 0), ("messages_s", "msg/s", 0), ("cpu_s_per_gb", "CPU s/GB", 2), ("p50_ms", "ms p50", 2),
    ("p99_ms", "ms p99", 2), ("client_busy", "client busy", 2), ("others_busy", "others busy", 2), ("rss_mb", "MB", 0),
    ("fresh_s", "s fresh", 2), ("existing_s", "s existing", 2), ("idle_rss_mb", "MB idle", 0),
    ("ready_s", "s ready", 2), ("node_rss_mb", "MB a node", 0),
)  # fmt: skip


def brief(metrics: Metrics) -> str:
    if "error" in metrics:
        return f"failed, {metrics['error']}"
    return ", ".join(f"{metrics[key]:,.{digits}f} {unit}" for key, unit, digits in BRIEF if key in metrics)
