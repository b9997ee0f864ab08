"""`python -m bench coordinators`: groups, offsets and transactions, both sides in one run.

    idle           memory of groups that have one member and one offset each
    crowd          the members of one group come, one leaves, all leave
    commits        offsets committed at a fixed rate, open loop
    transactions   committed per second, of 1, 10 and 100 records of 1 KB, by one producer and by many
    three-nodes    the same with replication factor 3, by many producers
    failover       the node that coordinates a group with 100,000 offsets around it dies

The first four are of one node, pinned to one CPU with the client on the other; the sides take turns. Of three nodes one
side runs at a time, and nothing is pinned. Written to bench/results/<date>-<label>.{json,md,png}.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import uvloop

from bench import coordinator_report, groups
from bench.clusters import Cluster, KafkaCluster, OdradekCluster
from bench.coordinator_failover import OVERRIDES, CoordinatorTrial
from bench.coordinator_report import (
    COMMITS,
    CROWD,
    FAILOVER,
    IDLE,
    PARTS,
    THREE_NODES,
    TRANSACTIONS,
)
from bench.offset_commits import CommitLoad
from bench.parts import Parts, add, find_parts, parser_of
from bench.procstat import Cpus, MachineTime
from bench.raw_client import Admin
from bench.raw_frames import BatchShape, produce_frame
from bench.raw_latency import percentile
from bench.report import OURS, PEER
from bench.rows import KB, Metrics
from bench.runner import guarded, settle
from bench.servers import Server, free_ports
from bench.transactions import Tally, TransactionLoad

SIDES = (OURS, PEER)
RECORDS = (1, 10, 100)
PRODUCERS = (1, 64)
CLUSTER_PRODUCERS = 64
COMMIT_RATE = 5_000
WARMUP_S = 2.0
OVERRIDES_OF_TRANSACTIONS = {"transaction.state.log.num.partitions": "12"}


def main(argv: list[str]) -> int:
    options = parse(argv)
    return find_parts("coordinators", options, Run, coordinator_report, notes(options))


def parse(argv: list[str]) -> argparse.Namespace:
    parser = parser_of(
        "coordinators",
        "Groups, offsets and transactions.",
        PARTS,
        SIDES,
        "one round, fewer groups",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=2,
        help="of crowds, commits and transactions; half as many of three nodes",
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="of one round of transactions")
    parser.add_argument("--groups", type=int, default=10_000, help="idle ones")
    parser.add_argument("--members", type=int, default=1_000, help="of a crowd")
    parser.add_argument("--failovers", type=int, default=10, help="on our side")
    parser.add_argument("--kafka-failovers", type=int, default=2, help="each takes half a minute")
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds, options.seconds, options.groups, options.members = 1, 2.0, 1_000, 100
        options.failovers, options.kafka_failovers = 2, 1
    return options


class Run:
    """Everything measured."""

    def __init__(self, options: argparse.Namespace, root: Path) -> None:
        self.samples: Parts = {}
        self._options = options
        self._root = root
        self._serial = 0
        self._topic_ids: dict[str, bytes] = {}
        """Of the crowds' topic, by side."""

    def measure(self) -> None:
        gc.disable()
        try:
            self._measure_nodes()
            for side in self._options.sides:
                failed = guarded(lambda: self._measure_cluster(side))  # noqa: B023
                if failed:
                    part = next(part for part in (THREE_NODES, FAILOVER) if part in self._options.only)
                    self._add(part, "three nodes", side, failed)
        finally:
            gc.enable()

    def _add(self, part: str, row: str, side: str, metrics: Metrics) -> Metrics:
        return add(self.samples, part, row, side, metrics)

    def _guarded(self, part: str, row: str, side: str, work: Callable[[], Metrics]) -> None:
        self._add(part, row, side, guarded(work))
        settle()

    def _name(self, what: str) -> str:
        self._serial += 1
        return f"bench-{what}-{self._serial:03}"

    # One node --------------------------------------------------------------------------------------------------------

    def _measure_nodes(self) -> None:
        parts = {
            IDLE: self._idle, CROWD: self._crowd, COMMITS: self._commits, TRANSACTIONS: self._transactions,
        }  # fmt: skip
        wanted = [part for part in parts if part in self._options.only]
        if not wanted:
            return
        cpus, allowed = Cpus.split(), os.sched_getaffinity(0)
        if cpus.client:
            os.sched_setaffinity(0, cpus.client)
        kinds: dict[str, type[Server]] = {OURS: groups.QuickOdradek, PEER: groups.QuickKafka}
        with ExitStack() as stack:
            stack.callback(os.sched_setaffinity, 0, allowed)
            servers: dict[str, Server] = {}
            for side, port in zip(self._options.sides, free_ports(len(self._options.sides)), strict=True):
                servers[side] = kinds[side](self._root / side, port, cpus.node)
                stack.callback(servers[side].remove)
                servers[side].start()
                self._topic_ids[side] = asyncio.run(groups.prepare(port, self._options.members))
            for part in wanted:
                parts[part](servers)

    def _idle(self, servers: dict[str, Server]) -> None:
        count = self._options.groups
        for side, server in servers.items():
            for protocol in groups.PROTOCOLS:
                work = partial(groups.measure_idle, server, count, protocol, 1)
                self._guarded(IDLE, f"{count:,} idle groups, {protocol}", side, work)

    def _crowd(self, servers: dict[str, Server]) -> None:
        count = self._options.members
        for number in range(self._options.rounds):
            for side, server in servers.items():
                for protocol in groups.PROTOCOLS:
                    acts: dict[str, Metrics] = {}
                    failed = guarded(lambda: self._one_crowd(acts, server, protocol, number))  # noqa: B023
                    for act in groups.ACTS:
                        found = acts.get(act, failed)
                        self._add(CROWD, f"{count:,} members, {protocol}, {act}", side, found)
                    settle()

    def _one_crowd(self, acts: dict[str, Metrics], server: Server, protocol: str, number: int) -> Metrics:
        count = self._options.members
        topic_id = self._topic_ids[server.label]
        acts.update(groups.measure_crowd(server, topic_id, count, protocol, number))
        return {}

    def _commits(self, servers: dict[str, Server]) -> None:
        for _ in range(self._options.rounds):
            for side, server in servers.items():
                work = partial(measure_commits, server, self._name("commits"), 2 * self._options.seconds)
                self._guarded(COMMITS, f"{COMMIT_RATE:,} commits/s", side, work)

    def _transactions(self, servers: dict[str, Server]) -> None:
        for producers in PRODUCERS:
            for records in RECORDS:
                for _ in range(self._options.rounds):
                    for side, server in servers.items():
                        self._one_load(TRANSACTIONS, side, server, producers, records, 1)

    def _one_load(
        self, part: str, side: str, server: Server | Cluster, producers: int, records: int, replicas: int
    ) -> None:
        topic, seconds = self._name("transactions"), self._options.seconds
        work = partial(measure_transactions, server, topic, producers, records, replicas, seconds)
        many = f"{producers} producer{'s' * (producers > 1)}, {records} record{'s' * (records > 1)}"
        self._guarded(part, many, side, work)

    # Three nodes -----------------------------------------------------------------------------------------------------

    def _measure_cluster(self, side: str) -> Metrics:
        if not {THREE_NODES, FAILOVER} & set(self._options.only):
            return {}
        kind = OdradekCluster if side == OURS else KafkaCluster
        overrides = {**OVERRIDES, **OVERRIDES_OF_TRANSACTIONS}
        if side == PEER:  # its distribution's file has 1; ours has 3 by itself
            overrides |= {
                "transaction.state.log.replication.factor": "3",
                "transaction.state.log.min.isr": "2",
            }
        cluster = kind(self._root / f"{side}-cluster", free_ports(1)[0], overrides=overrides)
        trial = CoordinatorTrial(cluster)
        try:
            cluster.start()
            if THREE_NODES in self._options.only:
                for records in RECORDS:
                    for _ in range(max(1, self._options.rounds // 2)):
                        self._one_load(THREE_NODES, side, cluster, CLUSTER_PRODUCERS, records, 3)
            if FAILOVER in self._options.only:
                trial.begin()
                rounds = self._options.failovers if side == OURS else self._options.kafka_failovers
                for _ in range(rounds):
                    self._guarded(FAILOVER, "kill -9 of the coordinator", side, trial.round)
        finally:
            cluster.remove()
        return {}


def measure_commits(server: Server, topic: str, seconds: float) -> Metrics:
    with Admin(server.port) as admin:
        admin.create_topic(topic, 1, [produce_frame(topic, 0, BatchShape(1, 1).build())])
    load = CommitLoad(server.port, topic)
    try:
        load.run(COMMIT_RATE, WARMUP_S, spin=True)
        cpu, machine = server.meter.cpu_s(), MachineTime.now()
        result = load.run(COMMIT_RATE, seconds, spin=True)
        cpu = server.meter.cpu_s() - cpu
        wall_s = result.requests / result.achieved_rate
        others = MachineTime.now().busy_s - machine.busy_s - cpu - result.client_cpu_s
    finally:
        load.close()
    ordered = sorted(result.latencies_ms)
    return {
        "p50_ms": percentile(ordered, 50), "p99_ms": percentile(ordered, 99), "max_ms": ordered[-1],
        "cpu_us": cpu / result.requests * 1e6, "others_busy": max(0.0, others) / wall_s,
    }  # fmt: skip


def measure_transactions(
    server: Server | Cluster, topic: str, producers: int, records: int, replicas: int, seconds: float
) -> Metrics:
    first = BatchShape(1, 1).build()
    frames = [produce_frame(topic, partition, first) for partition in range(producers)]
    with Admin(server.port) as admin:
        leaders = admin.create_topic(topic, producers, frames, replicas=replicas)
    load = TransactionLoad(topic, producers, BatchShape(records, KB))

    async def run() -> tuple[Tally, float, float]:
        await load.open(server.port, leaders)
        await load.run(WARMUP_S)
        cpu, machine = server.meter.cpu_s(), MachineTime.now()
        tally = await load.run(seconds)
        cpu = server.meter.cpu_s() - cpu
        others = MachineTime.now().busy_s - machine.busy_s - cpu - tally.client_cpu_s
        load.close()
        return tally, cpu, others

    tally, cpu, others = uvloop.run(run())
    load.verify(leaders, before=1)
    with Admin(server.port) as admin:
        admin.delete_topic(topic)
    ordered = sorted(tally.latencies_ms)
    count = len(ordered)
    return {
        "txn_s": count / tally.wall_s, "cpu_us": cpu / count * 1e6, "p50_ms": percentile(ordered, 50),
        "p99_ms": percentile(ordered, 99), "retries": tally.retries, "client_busy": tally.client_cpu_s / tally.wall_s,
        "node_busy": cpu / tally.wall_s, "others_busy": max(0.0, others) / tally.wall_s,
    }  # fmt: skip


def notes(options: argparse.Namespace) -> list[str]:
    return [
        f"{options.rounds} rounds of crowds, commits and transactions ({options.seconds:g} s each, after a warm-up of "
        f"{WARMUP_S:g} s; half as many of three nodes); {options.failovers} failovers on our side, "
        f"{options.kafka_failovers} on Kafka's. One node is pinned to one core and the client to another; three nodes "
        "and the client share all cores.",
        "Transactions: one raw client for both sides that speaks transaction.version 2 (Produce 12, EndTxn 5); records "
        "of 1 KB in one batch, a partition for each producer. What is stable in the log at the end must equal what was "
        "committed.",
        f"Groups: without the initial rebalance delay, on both sides. Commits: {COMMIT_RATE:,} requests/s, open loop, "
        "over 50 connections of as many groups.",
        "Failover: one partition of the offsets topic holds 100,000 offsets of 1,000 groups; from kill -9 until a "
        "commit is taken. Kafka: its own defaults (broker.session.timeout.ms=9000), heap and JVM flags.",
    ]
