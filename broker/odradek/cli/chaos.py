"""`odradek chaos run|list|check|summary`: faults on a real cluster under stock clients, and the verdict on it.

`run` takes a scenario (`list` shows them; a file of one's own is one too), starts a cluster of its own or takes one
that runs in containers, lets clients of every kind work on it, breaks it as the scenario says, heals everything, reads
everything and judges. `check` judges a history again. Exit code 0: no promise was broken.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.table import Table

from odradek.cli.options import ToolError, ToolParser, end_cleanly_on_sigterm

if TYPE_CHECKING:
    from odradek.chaos.checker import Verdict
    from odradek.chaos.run import Outcome
    from odradek.chaos.scenario import Scenario
    from odradek.chaos.target import Target

SHOWN = 5
"""Anomalies of each name that are printed."""
STANDARD = "random"
TARGETS = ("local", "compose", "k8s")
WIDTH_ON_PAPER = 120
EXAMPLES = """\
examples:
  odradek chaos list
  odradek chaos run leader-kill
  odradek chaos run --minutes 30 --seed 7          faults drawn from the seed
  odradek chaos run ./mine.toml --report ./report
  odradek chaos run partition --target compose
"""


def build_parser() -> ToolParser:
    parser = ToolParser(
        prog="odradek chaos",
        description="Break a real cluster under stock clients, and judge what they saw.",
        examples=EXAMPLES,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run_parser = commands.add_parser("run", help="a cluster, clients, faults, the verdict")
    run_parser.add_argument(
        "scenario",
        nargs="?",
        default=STANDARD,
        metavar="SCENARIO",
        help=f"a name that `odradek chaos list` shows, or a .toml file (default: {STANDARD})",
    )
    run_parser.add_argument(
        "--target", choices=TARGETS, default="local", help="where the cluster is (default: local)"
    )
    run_parser.add_argument("--minutes", type=float, help="of faults (default: as the scenario says)")
    run_parser.add_argument("--seed", type=int, help="of faults and clients (default: drawn, and told)")
    run_parser.add_argument(
        "--base-port", type=int, default=19_092, help="of the first local node (default: 19092)"
    )
    run_parser.add_argument(
        "--report",
        metavar="DIR",
        help="where history, verdict.json, report.md and report.html go (default: a new directory)",
    )
    _add_container_options(run_parser)
    list_parser = commands.add_parser("list", help="scenarios and their faults")
    list_parser.add_argument("--faults", action="store_true", help="every fault a scenario can name, too")
    check_parser = commands.add_parser("check", help="judge a history again")
    check_parser.add_argument("history", nargs="+", help="its files: DIR/history/*.jsonl")
    summary_parser = commands.add_parser("summary", help="a Markdown table of the verdicts of several runs")
    summary_parser.add_argument(
        "report", nargs="+", help="their directories, or copies of their verdict.json"
    )
    return parser


def _add_container_options(parser: Any) -> None:
    compose = parser.add_argument_group("--target compose")
    compose.add_argument(
        "--compose-file",
        metavar="FILE",
        default="deploy/compose/compose.yaml",
        help="of containers that run (default: deploy/compose/compose.yaml)",
    )
    compose.add_argument("--project", metavar="NAME", help="of compose (default: as the file says)")
    pods = parser.add_argument_group("--target k8s")
    pods.add_argument("--namespace", default="kafka", help="(default: kafka)")
    pods.add_argument("--statefulset", default="kafka", help="of the brokers (default: kafka)")
    pods.add_argument("--controller-statefulset", help="where controllers are pods of their own")
    pods.add_argument("--context", help="of kubectl (default: the current one)")
    parser.add_argument(
        "--bootstrap-server", metavar="HOST:PORT,…", help="where clients reach containers or pods from here"
    )


def run(argv: list[str]) -> int:
    """Parse and execute."""
    options = build_parser().parse(argv)
    end_cleanly_on_sigterm()
    return {"run": _run, "list": _list, "check": _check, "summary": _summary}[options.command](options)


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH_ON_PAPER)


# --- check ------------------------------------------------------------------------------------------------------------


def _check(options: argparse.Namespace) -> int:
    from odradek.chaos.checker import check
    from odradek.chaos.history import HistoryError, read_history

    try:
        verdict = check(read_history(*options.history))
    except OSError as error:
        raise _unreadable(error) from error
    except HistoryError as error:
        raise ToolError(str(error)) from error
    console = _console()
    console.print(_table(verdict))
    _print_anomalies(console, verdict)
    return 0 if verdict.valid else 1


# --- summary ----------------------------------------------------------------------------------------------------------


def _summary(options: argparse.Namespace) -> int:
    from odradek.chaos.report import summary

    verdicts = []
    for name in options.report:
        path = Path(name) / "verdict.json" if Path(name).is_dir() else Path(name)
        try:
            found = json.loads(path.read_text())
        except OSError as error:
            raise _unreadable(error) from error
        except ValueError:
            found = None
        if not isinstance(found, dict) or "judged" not in found:
            raise ToolError(f"{path} is no verdict of odradek chaos run")
        verdicts.append(found)
    print(summary(verdicts))
    return 0


def _unreadable(error: OSError) -> ToolError:
    return ToolError(f"cannot read {error.filename}: {error.strerror}")


# --- list -------------------------------------------------------------------------------------------------------------


def _list(options: argparse.Namespace) -> int:
    from odradek.chaos.kinds import KINDS
    from odradek.chaos.scenario import ScenarioError, shipped

    try:
        scenarios = shipped()
    except ScenarioError as error:
        raise ToolError(str(error)) from error
    console = _console()
    table = Table(box=None, pad_edge=False)
    for head in ("scenario", "what happens", "faults", "unavailable"):
        table.add_column(head, no_wrap=head == "scenario", overflow="fold")
    for scenario in scenarios:
        faults = dict.fromkeys(fault.label for fault in scenario.faults)
        allowed = {fault.expect.recover_s for fault in scenario.faults}
        most = ", ".join(f"≤ {each:g} s" for each in sorted(filter(None, allowed)))
        table.add_row(scenario.name, scenario.text, ", ".join(faults), most)
    console.print(table)
    if options.faults:
        console.print()
        kinds = Table(box=None, pad_edge=False)
        for head in ("fault", "what it does", "keys besides who, count, times, for_s"):
            kinds.add_column(head, no_wrap=head == "fault")
        for name, kind in KINDS.items():
            kinds.add_row(name, kind.text.replace("`", ""), ", ".join(kind.keys))
        console.print(kinds)
    return 0


# --- run --------------------------------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    try:
        import confluent_kafka  # noqa: F401
    except ImportError as error:
        raise ToolError("the clients are confluent-kafka's: pip install confluent-kafka") from error
    from odradek.chaos.report import write_report
    from odradek.chaos.run import ChaosError, Interrupted
    from odradek.chaos.scenario import ScenarioError
    from odradek.chaos.target import TargetError

    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 31)
    data = Path(tempfile.mkdtemp(prefix="odradek-chaos-data-"))
    try:
        scenario = _scenario(options)
        target = _target(options, scenario, data, seed)
    except (ScenarioError, TargetError) as error:
        shutil.rmtree(data, ignore_errors=True)
        raise ToolError(str(error)) from error
    report = Path(options.report or tempfile.mkdtemp(prefix="odradek-chaos-"))
    console = _console()
    console.print(f"{scenario.name}: {scenario.text}", highlight=False)
    console.print(f"seed {seed}, report in {report}", highlight=False, soft_wrap=True)

    def interrupt(*_: object) -> NoReturn:
        raise Interrupted

    signal.signal(signal.SIGTERM, interrupt)
    try:
        outcome = _run_on(target, scenario, report, seed, console, data)
    except (ChaosError, TargetError) as error:
        raise ToolError(str(error)) from error
    except Interrupted:
        return 143
    found = write_report(report, outcome, scenario, target.name, seed)
    _summarize(console, outcome, found, report)
    return 130 if outcome.interrupted and outcome.ok else 0 if outcome.ok else 1


def _run_on(
    target: Target, scenario: Scenario, report: Path, seed: int, console: Console, data: Path
) -> Outcome:
    from odradek.chaos.run import run as run_chaos
    from odradek.cli.chaos_view import RunView

    outcome: Outcome | None = None
    try:
        with RunView(console, scenario.name, report / "history") as view:
            view.said(f"starting ({target.name})")
            target.start()
            outcome = run_chaos(target, scenario, report, seed=seed, watcher=view)
    finally:
        target.stop()
        if outcome is not None and outcome.ok:
            shutil.rmtree(data, ignore_errors=True)
        elif any(data.iterdir()):
            console.print(f"the nodes' data and logs are left in {data}", highlight=False, soft_wrap=True)
    return outcome


def _scenario(options: argparse.Namespace) -> Scenario:
    from odradek.chaos.scenario import MINUTES_MAX, find

    scenario = find(options.scenario)
    if options.minutes is None:
        return scenario
    if not 0 < options.minutes <= MINUTES_MAX:
        raise ToolError(f"--minutes {options.minutes:g}: more than 0 and at most {MINUTES_MAX:g}")
    return replace(scenario, minutes=options.minutes)


def _target(options: argparse.Namespace, scenario: Scenario, data: Path, seed: int) -> Target:
    from odradek.chaos.containers import ComposeTarget
    from odradek.chaos.local import LocalTarget
    from odradek.chaos.pods import PodsTarget
    from odradek.chaos.target import check_possible

    target: Target
    if options.target == "compose":
        target = ComposeTarget(Path(options.compose_file), options.project, options.bootstrap_server)
    elif options.target == "k8s":
        target = PodsTarget(
            options.namespace,
            options.statefulset,
            options.bootstrap_server,
            controllers=options.controller_statefulset,
            context=options.context,
        )
    else:
        target = LocalTarget(data / "cluster", scenario, options.base_port, seed)
    check_possible(scenario, target)
    return target


# --- what it came to --------------------------------------------------------------------------------------------------


def _summarize(console: Console, outcome: Outcome, found: dict[str, Any], report: Path) -> None:
    console.print(_table(outcome.verdict))
    faults = Table(title="faults")
    for head in ("", "fault", "to whom"):
        faults.add_column(head)
    for head in ("at s", "unavailable s", "expected s"):
        faults.add_column(head, justify="right")
    for each in outcome.availability.faults:
        took = "for ever" if each.unavailable_s is None else f"{each.unavailable_s:.2f}"
        expected = "" if each.expected_s is None else f"≤ {each.expected_s:g}"
        faults.add_row(
            str(each.number), each.label, each.target, f"{each.at_s:.1f}", took, expected,
            style="" if each.ok else "red",
        )  # fmt: skip
    if outcome.availability.faults:
        console.print(faults)
    for label, (middle, most) in outcome.availability.medians.items():
        expected = "" if most is None else f", expected at most {most:g} s"
        console.print(f"{label}: unavailable for {middle:.2f} s in the median{expected}", highlight=False)
    _print_anomalies(console, outcome.verdict)
    for line in outcome.availability.broken:
        console.print(f"not met: {line}", style="red", highlight=False, markup=False)
    for line in outcome.trouble:
        console.print(f"trouble: {line}", style="red", highlight=False, markup=False)
    console.print(
        "no promise was broken" if outcome.ok else "NOT AS PROMISED",
        style="bold green" if outcome.ok else "bold red",
    )
    console.print(f"report: {report / 'report.html'}", highlight=False, soft_wrap=True)
    console.print(f"again: {found['command']}", highlight=False, soft_wrap=True)


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
