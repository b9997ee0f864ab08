"""Pods as containers of the real image, in a network where their names are known: the user, volumes, file system and
capabilities of the manifest are what they run with. As in Kubernetes, a pod that starts again has another address.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from deploy.engine import IMAGE, docker
from interop.cluster import PATIENCE_S, eventually, free_ports
from k8s.pods import Objects, Pod, write_secrets
from odradek.cli.health import PROBES, NoProbesError, ask

HOST = "127.0.0.1"
NODE_PORT = 31090


class ContainerPod:
    """One pod. `outside`: where clients outside reach it, by its NodePort."""

    def __init__(self, pod: Pod, prefix: str, base: int, secrets: Path) -> None:
        self.pod = pod
        self.name = f"{prefix}-{pod.name}"
        self.outside = f"{HOST}:{base + pod.ordinal}"
        self._network = prefix
        self._base = base
        self._secrets = secrets
        self._metrics = free_ports(1)[0]

    def start(self) -> None:
        spec, container = self.pod.spec, self.pod.container
        user, mounts = spec["securityContext"], self.pod.mounts()
        assert container["securityContext"]["readOnlyRootFilesystem"]
        command = container["command"]
        docker(
            *("run", "-d", "--name", self.name, "--hostname", self.pod.name),
            *("--network", self._network, "--network-alias", self.pod.host),
            *("--user", f"{user['runAsUser']}:{user['runAsGroup']}", "--group-add", str(user["fsGroup"])),
            *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
            *("--memory", container["resources"]["limits"]["memory"].replace("Gi", "g").replace("Mi", "m")),
            *("-v", f"{self.name}:{mounts['data']}", "-v", f"{self._secrets}:{mounts['secrets']}:ro"),
            *("--tmpfs", f"{mounts['tmp']}:size=64m"),
            *("-p", f"{self.outside}:{self.pod.ports()['external']}"),
            *("-p", f"{HOST}:{self._metrics}:{self.pod.ports()['metrics']}"),
            *(word for key, value in self.environment().items() for word in ("-e", f"{key}={value}")),
            *("--entrypoint", command[0], IMAGE, *command[1:]),
        )

    def environment(self) -> dict[str, str]:
        found = {
            key: value.replace(f"{{ordinal+{NODE_PORT}}}", f"{{ordinal+{self._base}}}")
            for key, value in self.pod.environment().items()
        }
        return {**found, "HOST_IP": HOST, "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4"}

    def run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        """kubectl exec."""
        return docker("exec", self.name, *words, check=False)

    def says(self, probe: str) -> tuple[int, dict[str, Any]]:
        """Status and body of a probe of the manifest; status 0 where nobody answers."""
        asked = self.pod.container[probe]["httpGet"]
        try:
            status, body = ask(
                HOST, self._metrics, asked["path"], self.pod.container[probe]["timeoutSeconds"]
            )
        except NoProbesError:
            state = json.loads(docker("inspect", "-f", "{{json .State}}", self.name).stdout)
            assert state["Running"], docker("logs", self.name).stderr
            return 0, {}
        return status, json.loads(body)

    def await_ready(self) -> None:
        eventually(lambda: self.says("readinessProbe")[0] == 200, PATIENCE_S, f"{self.pod.name} is not ready")

    def pre_stop(self) -> subprocess.CompletedProcess[str]:
        return self.run(self.pod.container["lifecycle"]["preStop"]["exec"]["command"])

    def pre_stop_says(self) -> str:
        return "; ".join(json.loads(ask(HOST, self._metrics, PROBES["may-stop"], PATIENCE_S)[1])["reasons"])

    def stop(self) -> int:
        """SIGTERM and the grace period; the exit code. The container is gone, the volume stays."""
        docker("stop", "-t", self.environment()["ODRADEK_STOP_GRACE_SECONDS"], self.name)
        code = int(docker("inspect", "-f", "{{.State.ExitCode}}", self.name).stdout)
        docker("rm", self.name)
        return code


class ContainerCluster:
    """All pods of a manifest. `destroy` leaves nothing behind."""

    def __init__(self, manifest: Objects, directory: Path, prefix: str) -> None:
        self.manifest = manifest
        self._prefix = prefix
        self._secrets = directory / "secrets"
        self._base = free_ports(8)[0]
        self._pods: list[ContainerPod] = []
        write_secrets(self._secrets)
        docker("network", "create", prefix)

    def pod(self, workload: dict[str, Any], ordinal: int) -> ContainerPod:
        made = ContainerPod(Pod(self.manifest, workload, ordinal), self._prefix, self._base, self._secrets)
        self._pods.append(made)
        return made

    def destroy(self) -> None:
        names = [each.name for each in self._pods]
        if names:
            docker("rm", "-f", *names, check=False)
            docker("volume", "rm", "-f", *names, check=False)
        docker("network", "rm", self._prefix, check=False)
