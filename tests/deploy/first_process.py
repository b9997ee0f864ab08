"""`odradek container` as a process, with a data directory of its own and no container around it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from interop.cluster import PATIENCE_S

LONE = {"KAFKA_LISTENERS": "PLAINTEXT://127.0.0.1:0", "ODRADEK_METRICS_PORT": "-1"}
END_S = PATIENCE_S


class First:
    """`odradek container` with a data directory of its own."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.running: list[subprocess.Popen[str]] = []

    def start(self, *words: str, **variables: str) -> subprocess.Popen[str]:
        surroundings = {key: value for key, value in os.environ.items() if not key.startswith("KAFKA_")}
        process = subprocess.Popen(
            [sys.executable, "-m", "odradek.cli.main", "container", *words],
            env={**surroundings, "KAFKA_LOG_DIRS": str(self.data), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(process)
        return process

    def refusal(self, *words: str, **variables: str) -> str:
        """The one line with which it ends, with exit code 1."""
        process = self.start(*words, **variables)
        _, errors = process.communicate(timeout=END_S)
        assert process.returncode == 1, errors
        lines = errors.strip().splitlines()
        assert len(lines) == 1, errors
        return lines[0]

    def serve(self, **variables: str) -> dict[str, Any]:
        """Start, and wait until it is ready: what its line tells."""
        process = self.start(**variables)
        assert process.stdout is not None
        line = next((line for line in process.stdout if '"ready"' in line), "")
        assert line, process.communicate(timeout=END_S)[1]
        told: dict[str, Any] = json.loads(line)
        return told

    def serve_and_stop(self, **variables: str) -> None:
        """Until it is ready, then SIGTERM: exit code 0."""
        self.serve(**variables)
        process = self.running[-1]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=END_S)
        assert process.returncode == 0

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.data)): path.read_bytes()
            for path in sorted(self.data.rglob("*"))
            if path.is_file() and path.name != ".lock"
        }

    def kill(self) -> None:
        for process in self.running:
            process.kill()
            process.communicate()
