"""`python -m bench failover`: three nodes, one idempotent librdkafka producer with acks=all, and machines that die.

Each round does one thing to one node, measures the longest time without an acknowledgement that followed (the write
gap), brings the node back and waits until every replica is in sync. Also: the time from nothing to three serving
nodes, and their memory. Written to bench/results/<date>-<label>.{json,md,png}. Ours only; the machine is not pinned.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.machine import describe
from bench.raw_client import BenchError
from bench.servers import ROOT, only_run

TOPIC = "failover"
PARTITIONS = 6
SETTLE_S = 1.0
AFTERWARDS_S = 1.0
"""The gap is looked for until acknowledgements have flowed for so long again."""
PATIENCE_S = 60.0
KINDS = ("leader", "controller and leader", "controlled stop", "pause")
TARGETS_MS = {"leader": (1_000, 3_000), "controlled stop": (200, None)}
CLIENT = {
    "enable.idempotence": True,
    "acks": "all",
    "linger.ms": 0,
    "retry.backoff.ms": 20,
    "retry.backoff.max.ms": 100,
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 100,
    "socket.timeout.ms": 2_000,
    "request.timeout.ms": 2_000,
    "message.timeout.ms": 60_000,
    "log_level": 0,
}


class Load(threading.Thread):
    """A record every few milliseconds to each partition in turn; when each was acknowledged, by partition."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__(daemon=True)
        from confluent_kafka import Producer

        self.acknowledged: list[list[float]] = [[] for _ in range(PARTITIONS)]
        self.failures: list[str] = []
        self._producer = Producer({"bootstrap.servers": bootstrap, **CLIENT})
        self._stop_asked = threading.Event()

    def run(self) -> None:
        number = 0
        while not self._stop_asked.is_set():
            self._producer.produce(
                TOPIC, b"x" * 100, partition=number % PARTITIONS, on_delivery=self._delivered
            )
            number += 1
            self._producer.poll(0.001)
        self._producer.flush(30)

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self.failures.append(str(error))
        else:
            self.acknowledged[message.partition()].append(time.monotonic())

    def finish(self) -> None:
        self._stop_asked.set()
        self.join(40)
        if self.failures:
            raise BenchError(f"{len(self.failures)} records were not delivered: {self.failures[0]}")

    def flows_since(self, moment: float) -> bool:
        """Whether every partition has been acknowledged lately, and has been for a while since `moment`."""
        now = time.monotonic()
        return now - moment > AFTERWARDS_S and all(
            times
            and now - times[-1] < 0.2
            and any(moment < when < now - AFTERWARDS_S for when in times[-2_000:])
            for times in self.acknowledged
        )

    def gap_ms(self, moment: float) -> float:
        """The longest time without an acknowledgement of one partition that had not ended at `moment`."""
        worst = 0.0
        for times in self.acknowledged:
            recent = [when for when in times if when > moment - 1.0]
            worst = max(
                [
                    worst,
                    *(after - max(before, moment) for before, after in pairwise(recent) if after > moment),
                ]
            )
        return worst * 1_000


class Trial:
    """The cluster, through the modules behind `odradek cluster`."""

    def __init__(self, directory: Path, base_port: int) -> None:
        from odradek.cli.cluster_layout import create
        from odradek.cli.cluster_processes import NodeProcess

        overrides = {"offsets.topic.num.partitions": "4"}
        self.layout = create(directory, nodes=3, controllers=0, base_port=base_port, overrides=overrides)
        self.layout.write()
        self.processes = {node.id: NodeProcess(self.layout, node) for node in self.layout.nodes}

    def start(self, *ids: int) -> float:
        """Seconds until they serve."""
        from odradek.cli.cluster_processes import await_ready

        chosen = [self.processes[node_id] for node_id in ids or self.processes]
        began = time.monotonic()
        for process in chosen:
            process.spawn()
        await_ready(chosen, lambda _: None)
        return time.monotonic() - began

    def destroy(self) -> None:
        import signal

        for process in self.processes.values():
            if process.pid() is not None:
                process.signal(signal.SIGKILL)

    def partitions(self) -> list[Any]:
        from odradek.cli.cluster_view import look

        return [
            each
            for each in look(self.layout, list(self.processes.values())).partitions
            if each.topic == TOPIC
        ]

    def controller(self) -> int:
        from odradek.cli.cluster_view import look

        nodes = look(self.layout, list(self.processes.values())).nodes
        return next((node.id for node in nodes if node.controller), 0)

    def settled(self) -> bool:
        found = self.partitions()
        return (
            len(found) == PARTITIONS and all(len(each.isr) == 3 for each in found) and self.controller() > 0
        )

    def resident_mb(self) -> list[float]:
        from odradek.cli.cluster_processes import resident_mb

        return [
            resident_mb(pid) or 0.0 for each in self.processes.values() if (pid := each.pid()) is not None
        ]


def until(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(otherwise)
        time.sleep(0.02)


def one_round(trial: Trial, load: Load, kind: str) -> float:
    """The write gap in ms; everything is as before afterwards."""
    import signal

    until(trial.settled, "the cluster did not settle")
    leaders = {each.leader for each in trial.partitions()}
    controller = trial.controller()
    others = leaders - {controller}
    victim = controller if kind == "controller and leader" else min(others, default=controller)
    time.sleep(SETTLE_S)
    process = trial.processes[victim]
    moment = time.monotonic()
    if kind == "pause":
        process.signal(signal.SIGSTOP)
    else:
        process.signal(signal.SIGTERM if kind == "controlled stop" else signal.SIGKILL)
    until(lambda: load.flows_since(moment), f"{kind}: acknowledgements did not flow again")
    gap = load.gap_ms(moment)
    if kind == "pause":
        process.signal(signal.SIGCONT)
    else:
        until(lambda: process.pid() is None, "the node did not end")
        trial.start(victim)
    return gap


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench failover", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--base-port", type=int, default=19_600)
    parser.add_argument("--label", default="failover")
    options = parser.parse_args(argv)
    with only_run(), tempfile.TemporaryDirectory(prefix="bench-") as directory:
        results = measure(Path(directory), options.rounds, options.base_port)
    results["date"] = date.today().isoformat()
    base = ROOT / "bench" / "results" / f"{results['date']}-{options.label}"
    base.with_name(base.name + ".json").write_text(json.dumps(results, indent=1) + "\n")
    text = markdown(base.name, results)
    base.with_name(base.name + ".md").write_text(text)
    draw(results, base.with_name(base.name + ".png"))
    print(text)
    return 0


def measure(directory: Path, rounds: int, base_port: int) -> dict[str, Any]:
    from confluent_kafka.admin import AdminClient, NewTopic

    started = []
    for number in range(min(5, rounds)):
        trial = Trial(directory / f"start-{number}", base_port)
        try:
            started.append(trial.start())
        finally:
            trial.destroy()
            until(lambda: all(each.pid() is None for each in trial.processes.values()), "a node did not end")  # noqa: B023
    trial = Trial(directory / "cluster", base_port)
    gaps: dict[str, list[float]] = {kind: [] for kind in KINDS}
    try:
        trial.start()
        resident = trial.resident_mb()
        admin = AdminClient({"bootstrap.servers": trial.layout.bootstrap, "log_level": 0})
        admin.create_topics([NewTopic(TOPIC, PARTITIONS, 3)])[TOPIC].result(30)
        load = Load(trial.layout.bootstrap)
        load.start()
        for number in range(rounds):
            for kind in KINDS:
                gaps[kind].append(one_round(trial, load, kind))
                print(f"{number + 1}/{rounds} {kind}: {gaps[kind][-1]:.0f} ms", flush=True)
        load.finish()
        return {
            "machine": describe(directory),
            "rounds": rounds,
            "gap_ms": gaps,
            "ready_s": started,
            "resident_mb": {"new": resident, "afterwards": trial.resident_mb()},
        }
    finally:
        trial.destroy()


def markdown(name: str, results: dict[str, Any]) -> str:
    """The page beside the figures."""
    lines = [
        f"# {name}",
        "",
        f"{results['rounds']} rounds each. Write gap: the longest time without an acknowledgement",
    ]
    lines += [
        "of one partition, as an idempotent librdkafka producer with acks=all sees it (replication factor 3).",
        "",
    ]
    lines += ["| what happens | median ms | worst ms | target (median, worst) |", "|---|---:|---:|---|"]
    for kind, gaps in results["gap_ms"].items():
        median, worst = TARGETS_MS.get(kind, (None, None))
        target = ", ".join(f"≤ {limit}" for limit in (median, worst) if limit)
        lines.append(f"| {kind} | {statistics.median(gaps):.0f} | {max(gaps):.0f} | {target} |")
    ready = results["ready_s"]
    memory = results["resident_mb"]
    lines += [
        "",
        f"Three nodes ready from nothing: median {statistics.median(ready):.2f} s, "
        f"worst {max(ready):.2f} s (target 2).",
    ]
    lines += [f"Resident: {', '.join(f'{each:.0f}' for each in memory['new'])} MB new, "]
    lines[-1] += f"{', '.join(f'{each:.0f}' for each in memory['afterwards'])} MB afterwards (target 120)."
    lines += [
        "",
        f"Pause: SIGSTOP; the client's own request timeout was {CLIENT['request.timeout.ms']} ms.",
        "",
    ]
    lines += [f"`{key}`: {value}  " for key, value in results["machine"].items()]
    return "\n".join(lines) + "\n"


def draw(results: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.5))
    for index, (_, gaps) in enumerate(results["gap_ms"].items()):
        axes.scatter(gaps, [index] * len(gaps), alpha=0.5)
        axes.scatter([statistics.median(gaps)], [index], marker="|", s=400, color="black")
    axes.set_yticks(range(len(results["gap_ms"])), list(results["gap_ms"]))
    axes.set_xscale("log")
    axes.set_xlabel("write gap, ms (bar: median)")
    axes.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
