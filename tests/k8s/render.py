"""The manifests as Kubernetes gets them: `rendered/`, kept beside what they are made from so that a review sees both.

    python tests/k8s/render.py        writes rendered/ anew; needs kubectl or kustomize, and helm

Tests check what is kept, and where these tools are, that it is what they make of deploy/k8s/.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
RENDERED = HERE / "rendered"
DEPLOY = HERE.parents[1] / "deploy" / "k8s"
OVERLAYS = ("dev", "production", "separate-controllers")
CHART = DEPLOY / "helm" / "odradek"
SECRET = "cluster.id=5L6g3nShT-eMCtK--X86sw,cluster.secret=for-tests-and-only-them"
SETTINGS = (
    'config={"log.retention.bytes": 1073741824, "log.cleaner.min.cleanable.ratio": 0.25, '
    '"auto.create.topics.enable": false, "odradek.log.level": "warning"}'
)
EVERYTHING = (
    "existingSecret=my-secret,replicas=4,controllers.separate=true,zoneAsRack=node-label,antiAffinity=required,"
    "serviceMonitor.enabled=true,external.type=NodePort,storage.className=fast"
)
OUTSIDE = "external.host=kafka-{ordinal}.example.com,external.bootstrapHost=kafka.example.com"
CHARTS: dict[str, tuple[str, ...]] = {
    "helm-default": ("--set", SECRET),
    "helm-one-node": ("--set", f"{SECRET},replicas=1,controllers.replicas=1"),
    "helm-everything": ("--set", EVERYTHING, "--set-json", SETTINGS),
    "helm-loadbalancer": (
        "--set",
        f"{SECRET},name=streams,external.type=LoadBalancer,zoneAsRack=pod-label,{OUTSIDE}",
    ),
}
"""Value sets of the chart, which together use every template."""
NAMES = (*OVERLAYS, *CHARTS)


def kustomize_command() -> list[str] | None:
    """What renders an overlay here; None where nothing does."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    return ["kubectl", "kustomize"] if shutil.which("kubectl") else None


def helm_command() -> list[str] | None:
    return ["helm", "template", "test", str(CHART), "--namespace", "kafka"] if shutil.which("helm") else None


def render(name: str) -> str | None:
    """One of NAMES by the tools that are here; None where they are not."""
    if name in OVERLAYS:
        command = kustomize_command()
        return None if command is None else run([*command, str(DEPLOY / "overlays" / name)])
    command = helm_command()
    return None if command is None else run([*command, *CHARTS[name]])


def run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def kept(name: str) -> list[dict[str, Any]]:
    """The objects of one of NAMES."""
    return objects((RENDERED / f"{name}.yaml").read_text(encoding="utf-8"))


def objects(text: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(text) if each]


if __name__ == "__main__":
    RENDERED.mkdir(exist_ok=True)
    for each in NAMES:
        made = render(each)
        assert made is not None, f"nothing here renders {each}"
        (RENDERED / f"{each}.yaml").write_text(made, encoding="utf-8")
