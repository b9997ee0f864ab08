"""`python -m bench failover`: three nodes of either side, one idempotent librdkafka producer with acks=all, and nodes
that die.

Each round does one thing to one node, measures the longest time without an acknowledgement that followed (the write
gap), brings the node back and waits until every replica is in sync. Then a thousand partitions, and ten thousand, lose
a node. Written to bench/results/<date>-<label>.{json,md,png}. Nothing is pinned.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import failover_report
from bench.clusters import Cluster, KafkaCluster, OdradekCluster
from bench.failover_load import CLIENT
from bench.failover_partitions import measure_partitions
from bench.failover_rounds import KINDS, LEADER, PAUSE, Trial
from bench.findings import find, names_of
from bench.findings import parser as command_parser
from bench.report import OURS, PEER
from bench.rows import Metrics
from bench.runner import guarded, settle
from bench.servers import free_ports
from bench.terminal import say

TUNED = "kafka-3s"
TUNED_OVERRIDES = {"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500"}
"""Kafka with our timings of a broker's session, for information."""
SIDES = (OURS, PEER, TUNED)
PAUSES_MAX = 3
OTHERS_FROM = 6
"""With so many rounds, the worst of the leader kills is what they are for; of the other kinds half as many do."""
PARTITION_ROUNDS_MAX = 3
OVERRIDES = {"offsets.topic.num.partitions": "4"}

Samples = dict[str, dict[str, list[Metrics]]]


def main(argv: list[str]) -> int:
    options = parse(argv)

    def measure(root: Path) -> dict[str, Any]:
        samples: Samples = {}
        for side in options.sides:
            measure_side(samples, side, options, root / side)
        return {"samples": samples}

    return find(options, measure, failover_report, notes(options))


def parse(argv: list[str]) -> argparse.Namespace:
    def counts(text: str) -> list[int]:
        return [int(each) for each in text.split(",")] if text else []

    parser = command_parser(
        "failover", "Failures of three nodes, as clients see them.", SIDES,
        "2 rounds, 1 of Kafka, 1,000 partitions", default=(OURS, PEER),
    )  # fmt: skip
    parser.add_argument(
        "--rounds", type=int, default=20, help="leader kills on our side; half as many of the other kinds"
    )
    parser.add_argument(
        "--kafka-rounds", type=int, default=2, help="of each kind, on Kafka's: each takes half a minute"
    )
    parser.add_argument("--kinds", type=names_of(KINDS), default=list(KINDS), help=", ".join(KINDS))
    parser.add_argument(
        "--partitions", type=counts, default=[1_000, 10_000], help="failovers of so many, on our side"
    )
    parser.add_argument("--kafka-partitions", type=counts, default=[1_000], help="the same on Kafka's")
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds, options.kafka_rounds = 2, 1
        options.partitions, options.kafka_partitions = [1_000], []
    return options


def measure_side(samples: Samples, side: str, options: argparse.Namespace, root: Path) -> None:
    rounds = options.rounds if side == OURS else options.kafka_rounds
    if options.kinds:
        measure_kinds(samples, side, options.kinds, rounds, root / "cluster")
        settle()
    for count in options.partitions if side == OURS else options.kafka_partitions:
        few = 1 if count > 1_000 or side != OURS else min(PARTITION_ROUNDS_MAX, rounds)
        cluster = make_cluster(side, root / f"many-{count}")
        try:
            found = guarded_list(lambda: measure_partitions(cluster, count, few, say))  # noqa: B023
        finally:
            cluster.remove()
        samples.setdefault(f"{count} partitions", {})[side] = found
        settle()


def measure_kinds(samples: Samples, side: str, kinds: list[str], rounds: int, directory: Path) -> None:
    cluster = make_cluster(side, directory)
    trial = Trial(cluster)
    try:
        load = trial.begin()
        for number in range(1, rounds + 1):
            for kind in kinds:
                if number > rounds_of(kind, rounds):
                    continue
                metrics = guarded(lambda: trial.round(load, kind))  # noqa: B023
                samples.setdefault(kind, {}).setdefault(side, []).append(metrics)
                say(f"{side} {number}/{rounds_of(kind, rounds)} {kind}: {brief(metrics)}")
                if "error" in metrics:
                    return  # in a state nobody knows
        load.finish()
        say(f"{side}: resident {', '.join(f'{each:.0f}' for each in cluster.resident_mb())} MB")
    finally:
        cluster.remove()


def rounds_of(kind: str, rounds: int) -> int:
    if kind == PAUSE:
        return min(PAUSES_MAX, (rounds + 1) // 2)
    return rounds if kind == LEADER or rounds < OTHERS_FROM else rounds // 2


def make_cluster(side: str, directory: Path) -> Cluster:
    kind = OdradekCluster if side == OURS else KafkaCluster
    overrides = {**OVERRIDES, **(TUNED_OVERRIDES if side == TUNED else {})}
    return kind(directory, free_ports(1)[0], overrides=overrides)


def guarded_list(work: Callable[[], list[Metrics]]) -> list[Metrics]:
    found: list[Metrics] = []

    def collect() -> Metrics:
        found.extend(work())
        return {}

    failed = guarded(collect)
    if failed:
        say(failed["error"])
    return found + [failed] * bool(failed)


def brief(metrics: Metrics) -> str:
    if "error" in metrics:
        return f"failed, {metrics['error']}"
    parts = [f"gap {metrics['gap_ms']:.0f} ms"]
    if "election_ms" in metrics:
        parts.append(f"next topic after {metrics['election_ms']:.0f} ms")
    if metrics["errors"]:
        parts.append(f"{metrics['errors']} errors")
    return ", ".join(parts)


def notes(options: argparse.Namespace) -> list[str]:
    return [
        f"{options.rounds} leader kills on our side and half as many rounds of the other kinds, {options.kafka_rounds} "
        "rounds of each kind on Kafka's; fewer pauses. Nodes and client share all cores; nothing is pinned.",
        "Replication factor 3, min.insync.replicas=2 where a topic says so; an idempotent librdkafka producer with "
        "acks=all, a record every few milliseconds.",
        f"Pause: SIGSTOP; the client's own request timeout is {CLIENT['request.timeout.ms']} ms.",
        "Kafka: three nodes from its jars, with its own defaults (broker.session.timeout.ms=9000), heap and JVM flags.",
    ]
