"""The node under test as a child process, and what interop tests share.

`Node` runs `odradek start` the way a user does. Tests take it from the fixtures in `conftest.py`.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from odradek.cli.cluster_layout import EPHEMERAL_FROM, is_free
from odradek.cli.cluster_processes import port_is_open as port_is_open

PATIENCE_S = 90.0
"""Whatever is not a figure may take so long: two cores can be busy with other things for many seconds."""
ENVIRONMENT = "ODRADEK_TEST_BOOTSTRAP"

PORTS_FROM = 20_000
_RNG = random.Random()
_given: set[int] = set()

T = TypeVar("T")


class Node:
    """One node with its data in `directory`. The ports stay the same over restarts."""

    def __init__(self, directory: Path, *overrides: str) -> None:
        self.directory = directory
        self.port, self.metrics_port = free_ports(2)
        self.overrides = overrides
        self.bootstrap = f"localhost:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def log(self) -> str:
        """What the node wrote to its terminal so far."""
        return (self.directory / "node.log").read_text(errors="replace")

    def start(self) -> None:
        """Start the process and wait until it accepts connections."""
        command = [sys.executable, "-m", "odradek.cli.main", "start"]
        command += [
            "--port",
            str(self.port),
            "--data",
            str(self.data),
            "--metrics-port",
            str(self.metrics_port),
        ]
        for override in self.overrides:
            command += ["--override", override]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KAFKA_")}
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "node.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        eventually(self._listens, PATIENCE_S, f"the node did not start; see {self.directory}/node.log")

    def _listens(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the node ended with {self.process.returncode}:\n{self.log[-3000:]}")
        return port_is_open(self.port)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, as a supervisor sends it; the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            return process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the node did not end on {number.name}:\n{self.log[-3000:]}") from None

    def restart(self) -> None:
        """kill -9, and start again on the same data."""
        self.kill()
        self.start()


def eventually(condition: Callable[[], T], timeout_s: float, otherwise: str, *, every_s: float = 0.05) -> T:
    """The first true value of `condition`; AssertionError when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{otherwise} (waited {timeout_s:.0f} s)"
        time.sleep(every_s)


def free_ports(count: int) -> list[int]:
    """So many ports in a row that nobody has.

    They lie below those that systems give to outgoing connections, of which a client that knocks at a killed node makes
    many: what starts again finds its ports free. None is given twice in a process.
    """

    def drawn() -> list[int]:
        first = _RNG.randrange(PORTS_FROM, EPHEMERAL_FROM - count)
        found = range(first, first + count)
        return list(found) if _given.isdisjoint(found) and all(map(is_free, found)) else []

    ports = eventually(drawn, PATIENCE_S, f"there are no {count} free ports in a row")
    _given.update(ports)
    return ports


def unique(prefix: str) -> str:
    """A name of its own for a topic or a group, so that tests never meet."""
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


def tool(
    name: str, *args: str, stdin: bytes = b"", timeout_s: float = PATIENCE_S
) -> subprocess.CompletedProcess[bytes]:
    """`odradek NAME …`, to its end."""
    command = [sys.executable, "-m", "odradek.cli.main", name, *args]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=timeout_s, check=False)


def script(source: str, *args: str) -> subprocess.Popen[bytes]:
    """A Python program as a process of its own, for members of groups that are going to be killed."""
    return subprocess.Popen(
        [sys.executable, "-u", "-c", source, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )


def ended(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Make sure that none of them is left."""
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()
