"""`odradek chaos run|check`: faults on a real cluster under stock clients, and the verdict on what they saw.

`run` starts three nodes of its own, lets clients of every kind work on them, kills, pauses and restarts nodes at
random, heals everything, reads everything and judges. `check` judges a history again. Exit code 0: no promise was
broken.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from odradek.cli.options import ToolError, ToolParser, end_cleanly_on_sigterm

if TYPE_CHECKING:
    from odradek.chaos.checker import Verdict
    from odradek.chaos.run import Outcome

SHOWN = 5
"""Anomalies of each name that are printed."""


def build_parser() -> ToolParser:
    parser = ToolParser(
        prog="odradek chaos", description="Break a real cluster under stock clients, and judge what they saw."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run_parser = commands.add_parser("run", help="a cluster of three nodes, clients, faults, the verdict")
    run_parser.add_argument("--minutes", type=float, default=5.0, help="of faults (default: 5)")
    run_parser.add_argument("--seed", type=int, help="of faults and clients (default: drawn, and told)")
    run_parser.add_argument(
        "--base-port", type=int, default=19_092, help="of the first node (default: 19092)"
    )
    run_parser.add_argument(
        "--report",
        metavar="DIR",
        help="where history, verdict.json and report.md go (default: a new directory)",
    )
    check_parser = commands.add_parser("check", help="judge a history again")
    check_parser.add_argument("history", nargs="+", help="its files: DIR/history/*.jsonl")
    return parser


def run(argv: list[str]) -> int:
    """Parse and execute."""
    options = build_parser().parse(argv)
    end_cleanly_on_sigterm()
    try:
        import confluent_kafka  # noqa: F401
    except ImportError as error:
        raise ToolError("the clients are confluent-kafka's: pip install confluent-kafka") from error
    return _check(options) if options.command == "check" else _run(options)


def _check(options: argparse.Namespace) -> int:
    from odradek.chaos.checker import check
    from odradek.chaos.history import HistoryError, read_history

    try:
        verdict = check(read_history(*options.history))
    except (OSError, HistoryError) as error:
        raise ToolError(str(error)) from error
    console = Console()
    console.print(_table(verdict))
    _print_anomalies(console, verdict)
    return 0 if verdict.valid else 1


def _run(options: argparse.Namespace) -> int:
    from odradek.chaos.report import write_report
    from odradek.chaos.run import ChaosError, as_json
    from odradek.chaos.run import run as run_chaos
    from odradek.chaos.target import LocalTarget, TargetError

    console = Console()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 31)
    report = Path(options.report or tempfile.mkdtemp(prefix="odradek-chaos-"))
    data = Path(tempfile.mkdtemp(prefix="odradek-chaos-data-"))
    console.print(f"seed {seed}, report in {report}", highlight=False)
    target = LocalTarget(data / "cluster", base_port=options.base_port)
    outcome: Outcome | None = None
    try:
        target.start()
        outcome = run_chaos(
            target,
            report,
            seconds=options.minutes * 60,
            seed=seed,
            told=lambda text: console.print(f"{time.strftime('%H:%M:%S')} {text}", highlight=False),
        )
    except (ChaosError, TargetError) as error:
        raise ToolError(str(error)) from error
    finally:
        target.stop()
        if outcome is not None and outcome.ok:
            shutil.rmtree(data, ignore_errors=True)
        else:
            console.print(f"the nodes' data and logs are left in {data}", highlight=False)
    write_report(report, as_json(outcome, seed))
    console.print(_table(outcome.verdict))
    _print_anomalies(console, outcome.verdict)
    for line in outcome.trouble:
        console.print(f"trouble: {line}", style="red", highlight=False, markup=False)
    console.print(f"again: odradek chaos run --minutes {options.minutes:g} --seed {seed}", highlight=False)
    return 0 if outcome.ok else 1


def _table(verdict: Verdict) -> Table:
    from odradek.chaos.checker import ALLOWED, ERRORS

    table = Table(
        title="valid" if verdict.valid else "NOT VALID", title_style="green" if verdict.valid else "red"
    )
    table.add_column("what")
    table.add_column("count", justify="right")
    for outcome, count in sorted(verdict.sends.items()):
        table.add_row(f"records sent, {outcome}", f"{count:,}")
    for outcome, count in sorted(verdict.transactions.items()):
        table.add_row(f"transactions, {outcome}", f"{count:,}")
    table.add_row("records read", f"{verdict.reads:,}")
    table.add_row("offsets committed", f"{verdict.commits:,}", end_section=True)
    for name in ERRORS:
        count = verdict.counts[name]
        table.add_row(name, f"{count:,}", style="red" if count else "dim")
    for name in ALLOWED:
        table.add_row(f"{name} (allowed)", f"{verdict.counts[name]:,}", style="dim")
    return table


def _print_anomalies(console: Console, verdict: Verdict) -> None:
    shown: dict[str, int] = {}
    for anomaly in verdict.anomalies:
        shown[anomaly.name] = shown.get(anomaly.name, 0) + 1
        if anomaly.name in verdict.errors and shown[anomaly.name] <= SHOWN:
            console.print(f"{anomaly.name}: {anomaly.text}", style="red", highlight=False, markup=False)
