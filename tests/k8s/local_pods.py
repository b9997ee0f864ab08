"""Pods without Kubernetes: each is a process that its manifest's own command starts, with the environment that the
kubelet would give it. What is another here:

    addresses    names become 127.0.0.1: no DNS knows them; each pod has ports of its own for those of the manifest
    volumes      directories, in place of the paths they are mounted at
    NodePort     no port is translated: clients outside are told the one that the listener for them binds
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from integration.machines import free_base
from interop.cluster import PATIENCE_S, eventually
from k8s.pods import Objects, Pod, write_secrets
from odradek.cli.health import PROBES, NoProbesError, ask

HOST = "127.0.0.1"
SVC = r"[-a-z]+\.\{POD_NAMESPACE\}\.svc\.cluster\.local"
OWN_NAME = re.compile(rf"\{{POD_NAME\}}\.{SVC}:(\d+)")
OWN_HOST = re.compile(r"kafka-\d+\.kafka-headless\.kafka\.svc\.cluster\.local:(\d+)")
OTHER_NAME = re.compile(rf"(kafka|kafka-controller)-(\d+)\.{SVC}:(\d+)")
NODE_PORT = re.compile(r"\{HOST_IP\}:\{ordinal\+31090\}")
EVERY_INTERFACE = re.compile(r"://:(\d+)")
PORTS = (9092, 9093, 9094, 9644)
PODS_MAX = 8
"""Of each StatefulSet."""


def port_here(base: int, workload: str, ordinal: int, port: int) -> int:
    """For a port of the manifest."""
    slot = ordinal + (PODS_MAX if workload == "kafka-controller" else 0)
    return base + slot * len(PORTS) + PORTS.index(port)


class LocalPod:
    """One pod's process; `directory` keeps its volume and its log."""

    def __init__(self, pod: Pod, base: int, directory: Path) -> None:
        self.pod = pod
        self._base = base
        self.data = directory / pod.name / "data"
        self.secrets = directory / "secrets"
        self._log = directory / pod.name / "log"
        self._process: subprocess.Popen[bytes] | None = None
        write_secrets(self.secrets)

    def port(self, port: int) -> int:
        """Here, for one of the manifest."""
        return port_here(self._base, self.pod.workload["metadata"]["name"], self.pod.ordinal, port)

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def environment(self, **more: str) -> dict[str, str]:
        found = {key: self._moved(value) for key, value in self.pod.environment().items()}
        found |= {"PATH": os.environ["PATH"], "KAFKA_LOG_DIRS": str(self.data)}
        found |= {"ODRADEK_METRICS_HOST": HOST, "ODRADEK_METRICS_PORT": str(self.port(9644))}
        found["KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS"] = "4"  # a small machine
        return {**found, **more}

    def _moved(self, value: str) -> str:
        value = value.replace(self.pod.mounts()["secrets"], str(self.secrets))
        value = OWN_NAME.sub(lambda found: f"{HOST}:{self.port(int(found[1]))}", value)
        value = OTHER_NAME.sub(
            lambda found: f"{HOST}:{port_here(self._base, found[1], int(found[2]), int(found[3]))}", value
        )
        value = NODE_PORT.sub(f"{HOST}:{self.port(9094)}", value)
        return EVERY_INTERFACE.sub(lambda found: f"://{HOST}:{self.port(int(found[1]))}", value)

    def command(self, words: list[str]) -> list[str]:
        """As the image has it in its PATH."""
        program, *rest = words
        assert program == "odradek"
        return [sys.executable, "-m", "odradek.cli.main", *rest]

    @property
    def outside(self) -> str:
        """Where clients outside reach it."""
        return f"{HOST}:{self.port(9094)}"

    def run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        """kubectl exec: a tool under its own name, with the addresses of this machine."""
        tool, *options = words
        moved = [OWN_HOST.sub(lambda found: f"{HOST}:{self.port(int(found[1]))}", word) for word in options]
        command = [sys.executable, "-m", "odradek.cli.main", tool, *moved]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    def start(self, **more: str) -> None:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(self.pod.container["command"]),
                env=self.environment(**more),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def says(self, probe: str) -> tuple[int, dict[str, Any]]:
        """Status and body of a probe of the manifest (`readinessProbe` …); status 0 where nobody answers."""
        asked = self.pod.container[probe]["httpGet"]
        assert asked["path"] in PROBES.values()
        port = self.port(self.pod.ports()[asked["port"]])
        try:
            status, body = ask(HOST, port, asked["path"], self.pod.container[probe]["timeoutSeconds"])
        except NoProbesError:
            assert self._process is not None and self._process.poll() is None, (
                f"{self.pod.name} ended:\n{self.log}"
            )
            return 0, {}
        return status, json.loads(body)

    def await_ready(self) -> None:
        said: list[Any] = []

        def ready() -> bool:
            said.append(self.says("readinessProbe"))
            return said[-1][0] == 200

        eventually(ready, PATIENCE_S, f"{self.pod.name} is not ready")

    def pre_stop(self) -> subprocess.CompletedProcess[str]:
        """The hook, as the kubelet runs it in the container."""
        words = self.command(self.pod.container["lifecycle"]["preStop"]["exec"]["command"])
        return subprocess.run(
            words, env=self.environment(), capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )

    def pre_stop_says(self) -> str:
        """What speaks against stopping it now; "" for nothing. The hook would wait."""
        return "; ".join(json.loads(ask(HOST, self.port(9644), PROBES["may-stop"], PATIENCE_S)[1])["reasons"])

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        return self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        return process.wait(PATIENCE_S)

    def await_end(self) -> tuple[int, str]:
        """Of a process that cannot start: exit code and last line."""
        assert self._process is not None
        code = self._process.wait(PATIENCE_S)
        self._process = None
        return code, self.log.strip().splitlines()[-1]


class LocalCluster:
    """All pods of a manifest. `destroy` leaves none behind."""

    def __init__(self, manifest: Objects, directory: Path) -> None:
        self.manifest = manifest
        self.directory = directory
        self.base = free_base(2 * PODS_MAX * len(PORTS))
        self._pods: list[LocalPod] = []

    def pod(self, workload: dict[str, Any], ordinal: int) -> LocalPod:
        made = LocalPod(Pod(self.manifest, workload, ordinal), self.base, self.directory)
        self._pods.append(made)
        return made

    def destroy(self) -> None:
        for each in self._pods:
            each.kill()
