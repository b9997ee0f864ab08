"""`python -m bench`: measure, print the table, write bench/results/<date>-<label>.{json,md,png}."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from bench import compaction_report, coordinator_report, failover_report, recovery_report
from bench.cluster_rows import CLUSTER_FULL, CLUSTER_QUICK, CLUSTER_ROW_NAMES, LOW_RATE
from bench.findings import RESULTS, Report, names_of, write
from bench.raw_client import BenchError
from bench.report import OURS, PEER, markdown, outcomes, tables
from bench.rows import FULL, MICRO_ROW, QUICK, ROW_NAMES, Plan
from bench.servers import ROOT, SIDES, FreeKafkaServer, class_path, data_root, jvm, only_run
from bench.terminal import say, show

CLUSTERS_COMMAND = "three-nodes"
COMMANDS: dict[str, Report] = {
    "compaction": compaction_report,
    "coordinators": coordinator_report,
    "failover": failover_report,
    "recovery": recovery_report,
}
"""Each a module with options of its own (`python -m bench failover --help`), and what tells what it found."""


def main() -> int:
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        return int(importlib.import_module(f"bench.{sys.argv[1]}").main(sys.argv[2:]))
    options = parse_arguments()
    if options.command == "report":
        return report(options.file)
    names = wanted_rows(options)
    sides = [] if names == [MICRO_ROW] else available(options.sides)
    plan = make_plan(options)

    from bench.machine import describe
    from bench.runner import measure, measure_clusters

    began = time.monotonic()
    with only_run(), data_root(options.data) as root:
        machine = describe(root)
        work = measure_clusters if options.command == CLUSTERS_COMMAND else measure
        run = work(plan, sides, names, root, say)
    say(f"took {time.monotonic() - began:.0f} s")
    results = {"machine": machine, "date": date.today().isoformat(), **run.as_json()}
    if names == [MICRO_ROW]:
        show(tables({}, run.micro), outcomes({}, run.micro))
        return 0
    RESULTS.mkdir(exist_ok=True)
    return write_results(results, RESULTS / f"{results['date']}-{options.label}")


def report(file: Path) -> int:
    """Write anew what follows from the samples of a run, whatever command they are of."""
    try:
        results, base = json.loads(file.read_text()), file.with_suffix("")
    except (OSError, ValueError) as problem:
        raise BenchError(f"{file} is no file of results: {problem}") from None
    kind = next((command for command in COMMANDS if command in results), None)
    if kind is None and "notes" in results:
        kind = "failover"
    if kind is None:
        write_results(results, base)
    else:
        write(COMMANDS[kind], base, results)
    return 0


def wanted_rows(options: argparse.Namespace) -> list[str]:
    if options.command == MICRO_ROW:
        return [MICRO_ROW]
    return options.only or list(CLUSTER_ROW_NAMES if options.command == CLUSTERS_COMMAND else ROW_NAMES)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Odradek beside Apache Kafka on this machine."
    )
    parser.add_argument(
        "command", nargs="?", default="all", choices=["all", CLUSTERS_COMMAND, MICRO_ROW, "report"]
    )
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        help="for report: a .json of results, to write anew what follows from it",
    )
    parser.add_argument("--quick", action="store_true", help="short rounds: a look, not a result")
    parser.add_argument(
        "--only",
        type=names_of(ROW_NAMES + CLUSTER_ROW_NAMES),
        metavar="ROW,…",
        help=f"of {', '.join(ROW_NAMES)}; of three nodes: {', '.join(CLUSTER_ROW_NAMES)}",
    )
    parser.add_argument(
        "--sides",
        type=names_of(tuple(SIDES)),
        default=[OURS, PEER],
        metavar="SIDE,…",
        help=f"of {', '.join(SIDES)}",
    )
    parser.add_argument("--rounds", type=int, help="rounds per row and side")
    parser.add_argument("--connections", type=int, help="connections (and partitions) of the produce rows")
    parser.add_argument("--label", help="in the names of the result files; default: local, or three-nodes")
    parser.add_argument(
        "--data", help="directory for the nodes' data, removed afterwards; default: the temporary directory"
    )
    options = parser.parse_args()
    if (options.command == "report") != (options.file is not None):
        parser.error("report needs a file, and nothing else takes one")
    clusters = options.command == CLUSTERS_COMMAND
    options.label = options.label or (CLUSTERS_COMMAND if clusters else "local")
    for row in options.only or ():
        if (row in CLUSTER_ROW_NAMES) != clusters:
            parser.error(f"{row} is a row of {'one node' if clusters else CLUSTERS_COMMAND}")
    if clusters and FreeKafkaServer.label in options.sides:
        parser.error(f"three nodes share all CPUs on every side: there is no {FreeKafkaServer.label}")
    return options


def make_plan(options: argparse.Namespace) -> Plan:
    if options.command == CLUSTERS_COMMAND:
        plan = CLUSTER_QUICK if options.quick else CLUSTER_FULL
    else:
        plan = QUICK if options.quick else FULL
    changes = {"rounds": options.rounds, "client_rounds": options.rounds, "connections": options.connections}
    return replace(plan, **{name: value for name, value in changes.items() if value})


def available(sides: list[str]) -> list[str]:
    """Without a JVM or Kafka's jars our side is measured alone."""
    if all(side == OURS for side in sides):
        return sides
    try:
        class_path()
        jvm().tool("java")
    except jvm().Unavailable as missing:
        say(f"only {OURS}: {missing}")
        return [OURS]
    return sides


def write_results(results: dict[str, Any], base: Path) -> int:
    from bench.plot import draw

    base.with_name(base.name + ".json").write_text(json.dumps(results, indent=1) + "\n")
    samples, micro = results["samples"], results["micro"]
    shown, found = tables(samples, micro), outcomes(samples, micro)
    base.with_name(base.name + ".md").write_text(
        markdown(base.name, results["machine"], notes(results), found, shown)
    )
    draw(samples, results["machine"], base.with_name(base.name + ".png"))
    show(shown, found)
    say(f"written: {base.relative_to(ROOT) if base.is_relative_to(ROOT) else base.name}.json, .md, .png")
    return 0


def notes(results: dict[str, Any]) -> list[str]:
    """How to read the tables."""
    plan = results["plan"]
    if any(row in CLUSTER_ROW_NAMES for row in results["samples"]):
        return cluster_notes(plan)
    return [
        "One run, both sides in turn: "
        f"{plan['rounds']} rounds ({plan['client_rounds']} of real clients) of {plan['seconds']:g} s or "
        f"{plan['payload_max'] / 1e9:g} GB each, after a warm-up of {plan['warmup_s']:g} s. "
        "The node is pinned to one core, the client to another.",
        f"Produce: {plan['connections']} connections to as many partitions of one topic, up to 1000 requests or "
        f"1 MB in flight each. Fetch: {plan['fetch_connections']} connections to one partition, one request in "
        f"flight each. Latency: {plan['latency_connections']} connections.",
        "MB/s counts bytes of record values, 10^6 to the MB. Kafka: its own defaults, heap and JVM flags.",
        "`!`: the client was busier than 70 % of its core and may be the limit. "
        "`~`: other processes took more than 15 % of a core.",
    ]


def cluster_notes(plan: dict[str, Any]) -> list[str]:
    return [
        f"One run, both sides in turn: {plan['rounds']} rounds ({plan['client_rounds']} of librdkafka) of "
        f"{plan['seconds']:g} s or {plan['payload_max'] / 1e9:g} GB each, after a warm-up of {plan['warmup_s']:g} s. "
        "Three nodes, each broker and controller, and the client share all cores; nothing is pinned.",
        "Topics have replication factor 3 and min.insync.replicas=2; acks=all.",
        f"Produce: {plan['connections']} connections to the leaders of as many partitions, up to 1000 requests or "
        f"1 MB in flight each. Latency: {LOW_RATE} requests/s, open loop, over {plan['latency_connections']} "
        "connections to as many partitions; the generator sleeps between requests.",
        "MB/s counts bytes of record values, 10^6 to the MB; CPU is that of all three nodes; peak MB of the largest.",
        "Kafka: three nodes from its jars, its own defaults, heap and JVM flags.",
        "`!`: the client was busier than 70 % of a core and may be the limit. "
        "`~`: other processes (the idle nodes of the other side included) took more than 15 % of a core.",
    ]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as problem:
        sys.exit(f"bench: {problem}")
