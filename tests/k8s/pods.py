"""What the kubelet makes of a StatefulSet: its pods, with the environment that their process finds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Objects = list[dict[str, Any]]
_REFERENCE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


def of_kind(manifest: Objects, kind: str) -> Objects:
    return [each for each in manifest if each["kind"] == kind]


def named(manifest: Objects, kind: str, name: str) -> dict[str, Any]:
    """KeyError where there is none."""
    for each in of_kind(manifest, kind):
        if each["metadata"]["name"] == name:
            return each
    raise KeyError(f"{kind} {name}")


@dataclass(frozen=True)
class Pod:
    """One of a StatefulSet."""

    manifest: list[dict[str, Any]]
    workload: dict[str, Any]
    ordinal: int
    host_ip: str = "10.0.0.7"

    @property
    def name(self) -> str:
        return f"{self.workload['metadata']['name']}-{self.ordinal}"

    @property
    def namespace(self) -> str:
        namespace: str = self.workload["metadata"]["namespace"]
        return namespace

    @property
    def host(self) -> str:
        """Its name in the cluster's DNS."""
        return f"{self.name}.{self.workload['spec']['serviceName']}.{self.namespace}.svc.cluster.local"

    @property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.workload["spec"]["template"]["spec"]
        return spec

    @property
    def labels(self) -> dict[str, str]:
        index = {
            "statefulset.kubernetes.io/pod-name": self.name,
            "apps.kubernetes.io/pod-index": str(self.ordinal),
        }
        return {**self.workload["spec"]["template"]["metadata"]["labels"], **index}

    @property
    def container(self) -> dict[str, Any]:
        (container,) = self.spec["containers"]
        found: dict[str, Any] = container
        return found

    def environment(self) -> dict[str, str]:
        """envFrom first, then env in its order; a reference to what does not stand before it stays as it is."""
        found: dict[str, str] = {}
        for source in self.container.get("envFrom", []):
            found.update(named(self.manifest, "ConfigMap", source["configMapRef"]["name"])["data"])
        for each in self.container.get("env", []):
            if "valueFrom" in each:
                found[each["name"]] = self._field(each["valueFrom"]["fieldRef"]["fieldPath"])
            else:
                found[each["name"]] = _REFERENCE.sub(
                    lambda reference: found.get(reference[1], reference[0]), each.get("value", "")
                )
        return found

    def _field(self, path: str) -> str:
        return {
            "metadata.name": self.name,
            "metadata.namespace": self.namespace,
            "status.hostIP": self.host_ip,
            "spec.nodeName": f"machine-{self.ordinal}",
            "metadata.labels['topology.kubernetes.io/zone']": "zone-a",
        }[path]

    def ports(self) -> dict[str, int]:
        return {port["name"]: port["containerPort"] for port in self.container["ports"]}

    def mounts(self) -> dict[str, str]:
        """Volume → path."""
        return {each["name"]: each["mountPath"] for each in self.container["volumeMounts"]}


def pods(manifest: Objects) -> Iterator[Pod]:
    for workload in of_kind(manifest, "StatefulSet"):
        for ordinal in range(workload["spec"]["replicas"]):
            yield Pod(manifest, workload, ordinal)


def write_secrets(directory: Path) -> None:
    """As the Secret is mounted."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "cluster-id").write_text("5L6g3nShT-eMCtK--X86sw")
    (directory / "internal-secret").write_text("for-development-only")


def matches(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())
