"""What faults are done to: a cluster that can be asked and hurt. Containers and pods will be others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol


class TargetError(Exception):
    """The cluster could not be told what to do; says why."""


class Target(Protocol):
    """A cluster under test."""

    bootstrap: str

    def start(self) -> None: ...

    def nodes(self) -> list[dict[str, Any]]:
        """`id`, `state`, `roles` of each."""
        ...

    def kill(self, node: int) -> None: ...

    def pause(self, node: int) -> None: ...

    def resume(self, node: int) -> None: ...

    def restart(self, node: int) -> None: ...

    def revive(self) -> None:
        """Start everybody who is down, all at once: one alone may not get ready without another."""
        ...

    def stop(self) -> None: ...


class LocalTarget:
    """Processes on this machine, by `odradek cluster`."""

    def __init__(self, directory: Path, nodes: int = 3, base_port: int = 9092) -> None:
        self._directory = directory
        self._nodes = nodes
        self._base_port = base_port
        self.bootstrap = ",".join(f"localhost:{base_port + index}" for index in range(nodes))

    def _run(self, *words: str) -> str:
        command = [sys.executable, "-m", "odradek.cli.main", "cluster", *words, "--dir", str(self._directory)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        if done.returncode:
            raise TargetError(
                f"odradek cluster {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}"
            )
        return done.stdout

    def start(self) -> None:
        self._run("start", "--nodes", str(self._nodes), "--base-port", str(self._base_port))

    def nodes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self._run("status", "--json"))["nodes"]
        return found

    def kill(self, node: int) -> None:
        self._run("kill", str(node))

    def pause(self, node: int) -> None:
        self._run("pause", str(node))

    def resume(self, node: int) -> None:
        self._run("resume", str(node))

    def restart(self, node: int) -> None:
        self._run("restart", str(node))

    def revive(self) -> None:
        self._run("start")

    def stop(self) -> None:
        self._run("stop")
