"""`odradek cluster start|status|kill|pause|resume|restart|stop`: a cluster of real processes on this machine.

For development, demonstrations and tests: everything is in one directory, a new one is made of nothing, and each
command finds the processes again by that directory alone. In production a supervisor starts `odradek server`.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from odradek.cli.cluster_layout import Layout, create, load, shown
from odradek.cli.cluster_processes import (
    KILL_TIMEOUT_S,
    PAUSED,
    STOP_TIMEOUT_S,
    NodeProcess,
    await_end,
    await_ready,
    processes,
)
from odradek.cli.options import Terminated, ToolError, ToolParser, end_cleanly_on_sigterm

DEFAULT_DIRECTORY = "data-cluster"
DEFAULT_BASE_PORT = 9092
DEFAULT_NODES = 3
REFRESH_S = 0.5
WIDTH_ON_PAPER = 120
"""Columns where standard output is no terminal."""

COMMANDS = {
    "start": "start nodes in the background, and wait until they are ready",
    "status": "nodes, roles, leaders, in-sync replicas, lag",
    "kill": "kill -9 a node",
    "pause": "stop a node in its tracks (SIGSTOP)",
    "resume": "let a paused node go on (SIGCONT)",
    "restart": "stop a node in order if it runs, and start it",
    "stop": "stop a node in order, or all of them",
}
EXAMPLES = """\
examples:
  odradek cluster start                  three nodes; clients connect to localhost:9092, 9093, 9094
  odradek cluster status --watch         in a second terminal
  odradek cluster kill 2                 the others take over
  odradek cluster restart 2
  odradek cluster stop

odradek cluster cluster-id and list-endpoints ask any cluster, as kafka-cluster does.
"""


def run(argv: list[str]) -> int:
    """Parse and execute."""
    options = build_parser().parse(argv)
    end_cleanly_on_sigterm()
    return HANDLERS[options.command](options)


def build_parser() -> ToolParser:
    parser = ToolParser(
        prog="odradek cluster",
        description="A cluster of several nodes on this machine.",
        examples=EXAMPLES,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.add_argument(
            "--dir",
            default=DEFAULT_DIRECTORY,
            metavar="DIR",
            help=f"where the cluster lives (default: ./{DEFAULT_DIRECTORY})",
        )
        if name == "start":
            add_start_options(command)
        elif name == "status":
            kind = command.add_mutually_exclusive_group()
            kind.add_argument("--json", action="store_true", help="for programs")
            kind.add_argument("--watch", action="store_true", help="again and again, until Ctrl-C")
        else:
            optional = {"nargs": "?"} if name == "stop" else {}
            command.add_argument("node", type=int, metavar="NODE", help="id of the node", **optional)  # type: ignore[arg-type]
    return parser


def add_start_options(command: Any) -> None:
    command.add_argument("--nodes", type=int, metavar="N", help=f"how many (default: {DEFAULT_NODES})")
    command.add_argument(
        "--base-port",
        type=int,
        metavar="PORT",
        help=f"where clients reach the first node, the others follow (default: {DEFAULT_BASE_PORT})",
    )
    command.add_argument(
        "--controllers",
        type=int,
        metavar="N",
        help="that many controllers as processes of their own (default: the nodes are controllers too)",
    )
    command.add_argument(
        "--override",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a key of server.properties for every node; may be given again",
    )
    command.add_argument(
        "--program", metavar="MODULE", help=argparse.SUPPRESS
    )  # `odradek chaos`: nodes with handles
    command.add_argument(
        "--foreground", action="store_true", help="stay, show the status, and stop all nodes on Ctrl-C"
    )


# --- start -----------------------------------------------------------------------------------------------------------


def start(options: argparse.Namespace) -> int:
    """New or known, running or half-running: afterwards every node runs."""
    directory = directory_of(options)
    with exclusively(directory, make=True):
        layout = layout_to_start(directory, options)
        everyone = processes(layout)
        missing = [process for process in everyone if process.pid() is None]
        if options.override and len(missing) < len(everyone):
            raise ToolError(f"--override: the cluster in {shown(directory)} runs already; stop it first")
        for process in missing:
            process.check_ports()  # before anything is written: then another --base-port can be taken
        began = time.monotonic()
        if len(missing) == len(everyone):
            with overrides_that_work(layout):
                bring_up(missing)
        else:
            bring_up(missing)

    def say() -> None:
        say_running(layout, everyone, len(missing), time.monotonic() - began)

    if options.foreground:
        return stay(layout, everyone, say)
    say()
    return 0


def layout_to_start(directory: Path, options: argparse.Namespace) -> Layout:
    """The one that is there, where the options agree with it; else a new one."""
    overrides = {}
    for pair in options.override:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise ToolError(f"--override {pair}: expected KEY=VALUE")
        overrides[key.strip()] = value.strip()
    known = load(directory)
    if known is None:
        if any(directory.glob("node-*/data/meta.properties")):
            raise ToolError(
                f"{shown(directory)} has the data of nodes and no cluster.json: put that file back, delete the "
                "directory to start anew, or take another --dir"
            )
        made = create(
            directory,
            nodes=DEFAULT_NODES if options.nodes is None else options.nodes,
            controllers=options.controllers or 0,
            base_port=DEFAULT_BASE_PORT if options.base_port is None else options.base_port,
            overrides=overrides,
        )
        return made if options.program is None else replace(made, program=options.program)
    brokers = [node for node in known.nodes if node.port is not None]
    has = {
        "nodes": len(brokers),
        "controllers": len(known.nodes) - len(brokers),
        "base_port": brokers[0].port,
    }
    for name, value in has.items():
        asked = getattr(options, name)
        if asked is not None and asked != value:
            option = f"--{name.replace('_', '-')}"
            raise ToolError(
                f"{option} {asked}: the cluster in {shown(directory)} was made with {option} {value}. "
                f"Leave the option out, or take another --dir"
            )
    merged = {**known.overrides, **overrides}
    return replace(known, overrides=merged)


@contextlib.contextmanager
def overrides_that_work(layout: Layout) -> Iterator[None]:
    """`cluster.json` is written; when the nodes do not start, without the overrides that are new."""
    known = load(layout.directory)
    layout.write()
    try:
        yield
    except BaseException:
        replace(layout, overrides=known.overrides if known is not None else {}).write()
        raise


def bring_up(missing: list[NodeProcess]) -> None:
    """Start them all and wait. If one cannot, none of them is left behind."""
    started: list[NodeProcess] = []
    try:
        for process in missing:
            process.spawn()
            started.append(process)
        with progress("starting", len(missing)) as advance:
            await_ready(started, advance)
    except BaseException:
        for process in started:
            with contextlib.suppress(ToolError):
                process.signal(signal.SIGKILL)
        await_end(started, KILL_TIMEOUT_S, NodeProcess.stopped)
        for process in started:
            process.stopped()
        raise


def say_running(layout: Layout, everyone: list[NodeProcess], started: int, seconds: float) -> None:
    count = len(everyone)
    nodes = f"{count} nodes" if count > 1 else "1 node"
    if started:
        print(f"{nodes} ready after {seconds:.1f} s, data in {shown(layout.directory)}")
    else:
        print(f"{nodes} running already, data in {shown(layout.directory)}")
    for process in everyone:
        if process.state() == PAUSED:
            print(f"{process.name} is paused. Let it go on: {process.command('resume')}")
    print(f"bootstrap.servers={layout.bootstrap}", flush=True)


def stay(layout: Layout, everyone: list[NodeProcess], say: Callable[[], None]) -> int:
    """The status until Ctrl-C, SIGTERM or the end of the terminal; then no node is left."""
    try:
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
        # A shell starts what it puts in the background deaf to Ctrl-C; here it always means: stop.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        say()
        if sys.stdout.isatty():
            watch(layout, everyone, "Ctrl-C stops all nodes")
        else:
            print("Ctrl-C stops all nodes", flush=True)
            while any(process.pid() is not None for process in everyone):
                time.sleep(REFRESH_S)
            print("no node is left", flush=True)
    except (KeyboardInterrupt, Terminated):
        with contextlib.suppress(KeyboardInterrupt), exclusively(layout.directory):
            stop_all([process for process in everyone if process.pid() is not None])
        return 0
    return 1


# --- status ----------------------------------------------------------------------------------------------------------


def status(options: argparse.Namespace) -> int:
    layout = known_layout(options)
    everyone = processes(layout)
    if options.watch:
        if not sys.stdout.isatty():
            raise ToolError("--watch needs a terminal: leave it out, or take --json")
        with contextlib.suppress(KeyboardInterrupt):
            watch(layout, everyone, "Ctrl-C ends the view, not the nodes")
        return 0
    from odradek.cli.cluster_view import draw, look

    view = look(layout, everyone)
    if options.json:
        print(json.dumps(view.as_json(), indent=1))
        return 0
    from rich.console import Console

    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_ON_PAPER)
    console.print(draw(view, console.width))
    return 0


def watch(layout: Layout, everyone: list[NodeProcess], hint: str) -> None:
    """Until interrupted."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    from odradek.cli.cluster_view import draw, look

    console = Console(highlight=False)

    def picture() -> Group:
        rows = max(3, console.height - len(everyone) - 14)
        return Group(draw(look(layout, everyone), console.width, rows), Text(hint, style="dim"))

    with Live(picture(), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(REFRESH_S)
            live.update(picture(), refresh=True)


# --- single nodes ----------------------------------------------------------------------------------------------------


def kill(options: argparse.Namespace) -> int:
    with one_node(options) as process:
        process.signal(signal.SIGKILL)
        if await_end([process], KILL_TIMEOUT_S, lambda _: None):
            raise ToolError(f"{process.name} is still there {KILL_TIMEOUT_S:.0f} s after SIGKILL")
        print(f"{process.name} killed")
    return 0


def pause(options: argparse.Namespace) -> int:
    with one_node(options) as process:
        process.signal(signal.SIGSTOP)
        print(f"{process.name} paused")
    return 0


def resume(options: argparse.Namespace) -> int:
    with one_node(options) as process:
        process.signal(signal.SIGCONT)
        print(f"{process.name} resumed")
    return 0


def restart(options: argparse.Namespace) -> int:
    with one_node(options) as process:
        if process.pid() is not None:
            stop_all([process])
        began = time.monotonic()
        process.spawn()
        with progress("starting", 1) as advance:
            await_ready([process], advance)
        print(f"{process.name} ready after {time.monotonic() - began:.1f} s")
    return 0


def stop(options: argparse.Namespace) -> int:
    if options.node is not None:
        with one_node(options) as process:
            process.signal(signal.SIGCONT)
            stop_all([process])
        return 0
    layout = known_layout(options)
    with exclusively(layout.directory):
        everyone = processes(layout)
        alive = [process for process in everyone if process.pid() is not None]
        stop_all(alive)
        for process in everyone:
            process.stopped()
        if not alive:
            print(f"no node of {shown(layout.directory)} is running")
    return 0


def stop_all(alive: list[NodeProcess]) -> None:
    """In order, all at once; kill -9 for one that does not end. ToolError says which those were."""
    if not alive:
        return
    for process in alive:
        with contextlib.suppress(ToolError):  # ended in the meantime
            process.ask_to_stop()
    with progress("stopping", len(alive)) as advance:

        def ended(process: NodeProcess) -> None:
            process.stopped()
            advance(process)

        left = await_end(alive, STOP_TIMEOUT_S, ended)
    for process in left:
        process.signal(signal.SIGKILL)
    await_end(left, KILL_TIMEOUT_S, lambda _: None)
    if left:
        names = ", ".join(process.name for process in left)
        raise ToolError(f"{names} did not stop within {STOP_TIMEOUT_S:.0f} s and had to be killed")
    print(f"{', '.join(process.name for process in alive)} stopped")


# --- shared ----------------------------------------------------------------------------------------------------------


def directory_of(options: argparse.Namespace) -> Path:
    return Path(options.dir).absolute()


def known_layout(options: argparse.Namespace) -> Layout:
    """ToolError where no cluster was ever started."""
    layout = load(directory_of(options))
    if layout is None:
        where = shown(directory_of(options))
        raise ToolError(
            f"There is no cluster in {where}. Start one: odradek cluster start --dir {options.dir}"
        )
    return layout


@contextlib.contextmanager
def one_node(options: argparse.Namespace) -> Iterator[NodeProcess]:
    layout = known_layout(options)
    node = layout.node(options.node)
    with exclusively(layout.directory):
        yield NodeProcess(layout, node)


@contextlib.contextmanager
def exclusively(directory: Path, *, make: bool = False) -> Iterator[None]:
    """One command at a time changes a cluster; the next one waits."""
    try:
        if make:
            directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / ".lock").open("w")
    except OSError as error:
        raise ToolError(f"--dir {shown(directory)}: {error.strerror}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[NodeProcess], None]]:
    """A bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=total)
        yield lambda _: bars.advance(task)


HANDLERS: dict[str, Callable[[argparse.Namespace], int]] = {
    "start": start,
    "status": status,
    "kill": kill,
    "pause": pause,
    "resume": resume,
    "restart": restart,
    "stop": stop,
}
