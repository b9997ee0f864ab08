"""The nodes of a local cluster as processes: started in sessions of their own, found again by their pid files.

A pid file is believed only when the process with that id runs this node's `server.properties`: ids are reused.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from odradek.cli.cluster_layout import ClusterNode, Layout, is_free, shown
from odradek.cli.health import PROBES, ask
from odradek.cli.options import ToolError

RUNNING, STARTING, PAUSED, STOPPED, DEAD = "running", "starting", "paused", "stopped", "dead"
"""`dead`: it ended without having been stopped, by a crash or by `kill`."""
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0
KILL_TIMEOUT_S = 10.0
POLL_S = 0.02
PROBE_S = 1.0


class NodeProcess:
    """One node's process, whoever started it."""

    def __init__(self, layout: Layout, node: ClusterNode) -> None:
        self.layout = layout
        self.node = node
        self._pid_file = layout.node_directory(node) / "pid"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return f"node {self.node.id}"

    def pid(self) -> int | None:
        """Of the living process, else None."""
        try:
            pid = int(self._pid_file.read_text())
        except (OSError, ValueError):
            return None
        if self._child is not None and self._child.pid == pid:
            return pid if self._child.poll() is None else None
        status = process_status(pid)
        if status is None or status == "Z":
            return None
        return pid if str(self.layout.properties_file(self.node)) in command_line(pid) else None

    def state(self) -> str:
        """One of the five above."""
        pid = self.pid()
        if pid is None:
            return DEAD if self._pid_file.exists() else STOPPED
        if process_status(pid) == "T":
            return PAUSED
        return RUNNING if self.answers() else STARTING

    def answers(self) -> bool:
        """A broker listens for clients once it serves them; a controller says when its logs are open."""
        if self.node.port:
            return port_is_open(self.node.port)
        try:
            return ask("localhost", self.node.metrics_port, PROBES["startup"], PROBE_S)[0] == 200
        except ToolError:
            return False

    def check_ports(self) -> None:
        """ToolError where one of its ports is taken. A node that has data keeps its ports: others know it there."""
        fresh = not self.layout.data_directory(self.node).exists()
        for port in self.node.ports:
            if not is_free(port):
                said = "choose other ports with --base-port" if fresh else "end what has it"
                raise ToolError(f"{self.name}: port {port} is in use: {said}")

    def spawn(self) -> None:
        """Start the process. ToolError where one of its ports is taken."""
        self.check_ports()
        kept = {key: value for key, value in os.environ.items() if not foreign(key)}
        kept["CLUSTER_ID"] = self.layout.cluster_id
        command = [sys.executable, "-m", self.layout.program, "server"]
        command.append(str(self.layout.properties_file(self.node)))
        with self.layout.log_file(self.node).open("ab") as log:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=kept,
                cwd=self.layout.node_directory(self.node),
                start_new_session=True,
            )
        self._pid_file.write_text(f"{self._child.pid}\n")

    def signal(self, number: signal.Signals) -> None:
        """ToolError where there is no process."""
        pid = self.pid()
        if pid is None:
            raise ToolError(f"{self.name} is not running. Start it: {self.command('restart')}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def ask_to_stop(self) -> None:
        """SIGTERM; a paused process goes on, so that it can follow."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)

    def stopped(self) -> None:
        """It ended in order: the pid file goes."""
        self._pid_file.unlink(missing_ok=True)

    def last_words(self) -> str:
        """The last line of its log."""
        try:
            lines = self.layout.log_file(self.node).read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return lines[-1] if lines else "it wrote nothing"

    def command(self, name: str) -> str:
        """What to type, for this node of this cluster."""
        return f"odradek cluster {name} {self.node.id} --dir {shown(self.layout.directory)}"


def processes(layout: Layout) -> list[NodeProcess]:
    return [NodeProcess(layout, node) for node in layout.nodes]


def await_ready(started: Iterable[NodeProcess], on_ready: Callable[[NodeProcess], None]) -> None:
    """Until each of them serves. ToolError, with the node's own last line, where one ends or takes too long."""
    waiting = list(started)
    deadline = time.monotonic() + READY_TIMEOUT_S
    while waiting:
        for process in list(waiting):
            if process.pid() is None:
                raise ToolError(f"{process.name} did not start: {process.last_words()}")
            if process.answers():
                waiting.remove(process)
                on_ready(process)
        if waiting and time.monotonic() > deadline:
            raise ToolError(
                f"{waiting[0].name} was not ready after {READY_TIMEOUT_S:.0f} s: {waiting[0].last_words()}"
            )
        if waiting:
            time.sleep(POLL_S)


def await_end(
    stopping: Iterable[NodeProcess], timeout_s: float, on_end: Callable[[NodeProcess], None]
) -> list[NodeProcess]:
    """Until each of them has ended; those that have not, in time."""
    waiting = list(stopping)
    deadline = time.monotonic() + timeout_s
    while waiting and time.monotonic() < deadline:
        for process in list(waiting):
            if process.pid() is None:
                waiting.remove(process)
                on_end(process)
        if waiting:
            time.sleep(POLL_S)
    return waiting


def foreign(variable: str) -> bool:
    """Settings of the environment that would make all nodes the same one."""
    return variable.startswith("KAFKA_") or (
        variable.startswith("ODRADEK_") and not variable.startswith("ODRADEK_LOG_")
    )


def port_is_open(port: int) -> bool:
    """Whether something listens on this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def process_status(pid: int) -> str | None:
    """The kernel's letter (R, S, D, T, Z); None where there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0].upper()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    return ps(pid, "stat")[:1].upper() or None  # not Linux


def command_line(pid: int) -> str:
    """Its words, joined by spaces; empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
    except OSError:
        return "" if Path("/proc/self/stat").exists() else ps(pid, "command")


def resident_mb(pid: int) -> float | None:
    """Resident memory in MiB."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return round(int(line.split()[1]) / 1024, 1)
        return None
    except OSError:
        text = ps(pid, "rss")
        return round(int(text) / 1024, 1) if text.isdigit() else None


def ps(pid: int, column: str) -> str:
    """Where there is no /proc."""
    try:
        done = subprocess.run(
            ["ps", "-o", f"{column}=", "-p", str(pid)], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
