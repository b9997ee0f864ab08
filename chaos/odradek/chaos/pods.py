"""`--target k8s`: the pods of a StatefulSet, by kubectl. They are healed and left running.

What Kubernetes offers for this is less than a machine of one's own: a pod that was deleted is made again at once, the
node is the first process of its container, so that nothing in the container can stop or kill it, and a NetworkPolicy
needs a network that enforces it, cuts no connection that is open on some of them, and does nothing where another
policy allows the same.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

from odradek.chaos.kinds import KINDS, NETWORK
from odradek.chaos.target import Target, TargetError, run_command

COMMAND_TIMEOUT_S = 240.0
READY_WITHIN_S = 180
POLICY = "odradek-chaos"
POD_LABEL = "statefulset.kubernetes.io/pod-name"
NODE_ID_BASE = "ODRADEK_NODE_ID_BASE"


class PodsTarget(Target):
    """`controllers`: the StatefulSet of controllers, where they are not the brokers."""

    name = "k8s"
    fresh = False

    def __init__(
        self,
        namespace: str,
        brokers: str,
        bootstrap: str | None,
        *,
        controllers: str | None = None,
        context: str | None = None,
    ) -> None:
        if shutil.which("kubectl") is None:
            raise TargetError("--target k8s: there is no kubectl on the path")
        if bootstrap is None:
            raise TargetError("--target k8s: give --bootstrap-server, where clients reach the pods from here")
        self._kubectl = ["kubectl", *(["--context", context] if context else []), "-n", namespace]
        self.bootstrap = bootstrap
        self._brokers = self._pods(brokers)
        self._controllers = self._pods(controllers) if controllers else {}
        self._all = {**self._brokers, **self._controllers}
        self._sets = [each for each in (brokers, controllers) if each]
        self._policies: list[str] = []

    def _run(self, *words: str, stdin: str | None = None) -> str:
        return run_command([*self._kubectl, *words], COMMAND_TIMEOUT_S, stdin=stdin)

    def _pods(self, name: str) -> dict[int, str]:
        """Node id → pod: the ordinal, and the base that the StatefulSet says."""
        found = json.loads(self._run("get", "statefulset", name, "-o", "json"))
        base = 0
        for container in found["spec"]["template"]["spec"]["containers"]:
            for variable in container.get("env", ()):
                if variable["name"] == NODE_ID_BASE:
                    base = int(variable["value"])
        first = found["spec"].get("ordinals", {}).get("start", 0)
        ordinals = range(first, first + found["spec"].get("replicas", 1))
        return {base + ordinal: f"{name}-{ordinal}" for ordinal in ordinals}

    def impossible(self, kind: str) -> str | None:
        if kind == "pause":
            return "the node is the first process of its container: nothing in there can stop it"
        if kind in ("delay", "loss", "bandwidth"):
            return "Kubernetes has no handle for it"
        if KINDS[kind].needs == NETWORK:
            found = self._run("get", "networkpolicy", "-o", "jsonpath={.items[*].metadata.name}").split()
            others = [name for name in found if not name.startswith(POLICY)]
            if others:
                return f"NetworkPolicy {', '.join(others)} may allow what is to be cut: delete it for the run"
        if kind in ("slow-disk", "failing-disk", "full-disk"):
            return "the disk belongs to the storage class"
        if kind in ("torn-tail", "flipped-byte", "wiped-disk"):
            return "a volume cannot be reached while its pod is down"
        if kind == "clock-jump":
            return "a pod has its machine's clock"
        return None

    def start(self) -> None:
        self._await_ready()

    def stop(self) -> None:
        """It is not ours."""
        self.heal_network()

    def brokers(self) -> list[int]:
        return sorted(self._brokers)

    def controllers(self) -> list[int]:
        return sorted(self._controllers)

    # -- processes -----------------------------------------------------------------------------------------

    def kill(self, node: int) -> None:
        """SIGKILL, as nearly as the API server gets there; the StatefulSet makes the pod again at once."""
        self._run("delete", "pod", self._all[node], "--grace-period=0", "--force", "--wait=false")

    def pause(self, node: int) -> None:
        raise TargetError(str(self.impossible("pause")))

    def resume(self, node: int) -> None:
        raise TargetError(str(self.impossible("pause")))

    def restart(self, node: int) -> None:
        self._run("delete", "pod", self._all[node], "--wait=true")
        self._await_ready()

    def revive(self) -> None:
        self._await_ready()

    def serves(self, node: int) -> bool:
        phase = self._run(
            "get", "pod", self._all[node], "--ignore-not-found", "-o", "jsonpath={.status.phase}"
        )
        return phase.strip() == "Running"

    def _await_ready(self) -> None:
        for name in self._sets:
            self._run("rollout", "status", f"statefulset/{name}", f"--timeout={READY_WITHIN_S}s")
        for pod in self._all.values():
            self._run("wait", "--for=condition=Ready", f"pod/{pod}", f"--timeout={READY_WITHIN_S}s")

    # -- network -------------------------------------------------------------------------------------------

    def silence(self, pairs: Iterable[tuple[int, int]]) -> None:
        senders: dict[int, list[int]] = {}
        for sender, receiver in pairs:
            senders.setdefault(receiver, []).append(sender)
        for receiver, hidden in senders.items():
            addresses = [self._address(node) for node in hidden]
            policy = policy_against(self._all[receiver], addresses)
            self._policies.append(policy["metadata"]["name"])
            self._run("apply", "-f", "-", stdin=json.dumps(policy))

    def _address(self, node: int) -> str:
        return self._run("get", "pod", self._all[node], "-o", "jsonpath={.status.podIP}").strip()

    def heal_network(self) -> None:
        if self._policies:
            self._run("delete", "networkpolicy", *self._policies, "--ignore-not-found")
        self._policies.clear()


def policy_against(pod: str, addresses: list[str]) -> Mapping[str, Any]:
    """What lets everybody in but these."""
    hidden = [f"{address}/{128 if ':' in address else 32}" for address in addresses]
    everybody = "::/0" if ":" in addresses[0] else "0.0.0.0/0"
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"{POLICY}-{pod}"},
        "spec": {
            "podSelector": {"matchLabels": {POD_LABEL: pod}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"ipBlock": {"cidr": everybody, "except": hidden}}]}],
        },
    }
