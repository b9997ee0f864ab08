"""A container engine by its command line: containers, volumes and compose projects that are gone after the test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import uuid
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from deploy.compose_files import COMPOSE
from interop.cluster import free_ports

IMAGE = os.environ.get("ODRADEK_TEST_IMAGE", "")
PATIENCE_S = 120.0
HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


def missing() -> str | None:
    """What these tests need and do not find here."""
    if not IMAGE:
        return "ODRADEK_TEST_IMAGE names no image to test (make test-containers builds one)"
    if shutil.which("docker") is None:
        return "docker is not installed"
    if docker("info", check=False).returncode:
        return "docker is installed, but no engine answers"
    if docker("image", "inspect", IMAGE, check=False).returncode:
        return f"there is no image {IMAGE}"
    return None


def docker(
    *words: str, check: bool = True, environment: dict[str, str] | None = None, given: str | None = None
) -> subprocess.CompletedProcess[str]:
    """One command; an AssertionError with what it said if it fails."""
    done = subprocess.run(
        ["docker", *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        input=given,
        env={**os.environ, **(environment or {})},
    )
    if check:
        assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr}{done.stdout}"
    return done


class Container:
    """One container, started detached."""

    def __init__(self, name: str) -> None:
        self.name = name

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(docker("inspect", "-f", "{{json .State}}", self.name).stdout)
        return found

    def output(self) -> tuple[str, str]:
        """What it wrote: standard output, standard error."""
        done = docker("logs", self.name)
        return done.stdout, done.stderr

    def events(self) -> list[dict[str, Any]]:
        """Its log lines."""
        return [json.loads(line) for line in self.output()[0].splitlines() if line.startswith("{")]

    def await_ready(self, times: int = 1) -> dict[str, Any]:
        """The line that says so, for the `times`th time."""

        def ready() -> list[dict[str, Any]]:
            return [line for line in self.events() if line["message"] == "ready"]

        await_true(
            lambda: len(ready()) >= times or not self.state()["Running"], lambda: "".join(self.output())
        )
        assert len(ready()) >= times, self.output()
        return ready()[-1]

    def await_healthy(self) -> None:
        await_true(lambda: self.state()["Health"]["Status"] == "healthy", lambda: str(self.state()["Health"]))

    def await_end(self) -> tuple[int, str]:
        """Exit code, and what it wrote to standard error."""
        docker("wait", self.name)
        return self.state()["ExitCode"], self.output()[1]

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return docker("exec", self.name, *words, check=check)

    def stop(self, grace_s: int = 30) -> float:
        """SIGTERM; the seconds it took."""
        began = time.monotonic()
        docker("stop", "-t", str(grace_s), self.name)
        return time.monotonic() - began


class Engine:
    """What a test started, by names of its own."""

    def __init__(self) -> None:
        self.prefix = f"odradek-test-{uuid.uuid4().hex[:8]}"
        self._containers: list[str] = []
        self._volumes: list[str] = []
        self._projects: list[Compose] = []

    def volume(self) -> str:
        name = f"{self.prefix}-{len(self._volumes)}"
        docker("volume", "create", name)
        self._volumes.append(name)
        return name

    def container(self, *options: str, command: tuple[str, ...] = (), hardened: bool = True) -> Container:
        name = f"{self.prefix}-node-{len(self._containers)}"
        self._containers.append(name)
        docker("run", "-d", "--name", name, *(HARDENED if hardened else ()), *options, IMAGE, *command)
        return Container(name)

    def files(self, volume: str) -> dict[str, str]:
        """Name to digest of what lies in a volume, read as root."""
        found = self.as_root(volume, "find . -type f ! -name .lock -exec md5sum {} +")
        return {path: digest for digest, _, path in (line.partition("  ") for line in found.splitlines())}

    def as_root(self, volume: str, script: str) -> str:
        words = (
            "run",
            "--rm",
            "--user",
            "0",
            "-v",
            f"{volume}:/data",
            "-w",
            "/data",
            IMAGE,
            "sh",
            "-c",
            script,
        )
        return docker(*words).stdout

    def compose(self, *names: str) -> Compose:
        """Of the first of these files, with the others laid over it."""
        project = Compose([COMPOSE / name for name in names], f"{self.prefix}-{len(self._projects)}")
        self._projects.append(project)
        return project

    def destroy(self) -> None:
        for project in self._projects:
            project("down", "-v", "--timeout", "0", check=False)
        if self._containers:
            docker("rm", "-f", "-v", *self._containers, check=False)
        if self._volumes:
            docker("volume", "rm", "-f", *self._volumes, check=False)


class Compose:
    """A project of our files, on ports of its own."""

    def __init__(self, files: list[Path], project: str) -> None:
        self.project = project
        self._files = [word for file in files for word in ("-f", str(file))]
        clients, metrics = free_ports(3), free_ports(3)
        self.bootstrap = ",".join(f"localhost:{port}" for port in clients)
        self._environment = {"IMAGE": IMAGE}
        for index in range(3):
            self._environment[f"PORT_{index + 1}"] = str(clients[index])
            self._environment[f"METRICS_PORT_{index + 1}"] = str(metrics[index])

    def __call__(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return docker(
            "compose",
            "-p",
            self.project,
            *self._files,
            *words,
            check=check,
            environment=self._environment,
        )

    @cached_property
    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap})

    def up(self) -> None:
        """All nodes, healthy."""
        self("up", "-d", "--no-build", "--wait")

    def container(self, service: str) -> Container:
        return Container(f"{self.project}-{service}-1")


def await_true(condition: Any, told: Any) -> None:
    """AssertionError with `told()` after PATIENCE_S."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.1)


needs_engine = pytest.mark.skipif((reason := missing()) is not None, reason=reason or "")
