"""The network between containers: hurt in their own network namespaces, by iptables and tc of this machine, as root.

Everything in chains of ours, so that healing takes away nothing else; and in all containers at once: on a busy machine
each command takes its time, and a partition that closes node by node is another one meanwhile.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

from odradek.chaos.detour import Detour, Place
from odradek.chaos.target import TargetError

COMMAND_TIMEOUT_S = 60.0
CHAIN = "ODRADEK-CHAOS"
_LOOK = "{{.State.Pid}}{{range .NetworkSettings.Networks}} {{.IPAddress}} {{.Gateway}}{{end}}"
_CLEAR = (
    f"{{ iptables -w -D INPUT -j {CHAIN}; iptables -w -F {CHAIN}; iptables -w -X {CHAIN}; "
    "tc qdisc del dev eth0 root; } 2>/dev/null; "
)
"""What is not there cannot be taken away."""
_PREPARE = f"{_CLEAR}iptables -w -N {CHAIN} && iptables -w -I INPUT -j {CHAIN}"
_HEAL = f"{_CLEAR}! iptables -w -S INPUT | grep -e {CHAIN}"


class Namespaces:
    """`names` of the containers, by node; `ports`: where other nodes reach them. `run` does a command: TargetError."""

    def __init__(
        self, run: Callable[..., str], names: Mapping[int, str], ports: Mapping[int, tuple[int, ...]]
    ) -> None:
        self._run = run
        self._names = names
        self._ports = ports
        self._pids: dict[int, str] = {}
        self._hurt = False
        self._detour: Detour | None = None

    @cached_property
    def netem(self) -> bool:
        return works("tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms")

    def lack(self, kind: str) -> str | None:
        """Why a fault of this kind cannot be done here."""
        if os.geteuid() != 0 or shutil.which("nsenter") is None:
            return "it takes root and nsenter on the machine of the engine"
        if kind == "delay":
            possible = self.netem or works("iptables", "-t", "nat", "-A", "OUTPUT", "-j", "ACCEPT")
            return (
                None if possible else "the kernel of this machine has neither netem nor iptables' nat table"
            )
        if kind == "bandwidth":
            possible = works("tc", "qdisc", "add", "dev", "lo", "root", *_tbf(64).split())
            return None if possible else "the kernel of this machine has no tbf"
        if kind == "loss" and self.netem:
            return None
        possible = works("iptables", "-A", "INPUT", *_randomly(0.1).split(), "-j", "DROP")
        return None if possible else "iptables does not work here"

    def silence(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Nothing that the first of a pair sends reaches the second."""
        places = self._look()
        senders: dict[int, list[str]] = {}
        for sender, receiver in pairs:
            senders.setdefault(receiver, []).append(places[sender].address)
        self._hurt = True
        self._everywhere(dict.fromkeys(senders, _PREPARE))
        self._everywhere(
            {node: f"iptables -w -A {CHAIN} -s {','.join(found)} -j DROP" for node, found in senders.items()}
        )

    def shape(self, settings: Mapping[str, Any]) -> None:
        """Of everything that the nodes send: to clients as well, whatever `clients` says."""
        places = self._look()
        self._hurt = True
        if "delay_ms" in settings and not self.netem:
            self._detour = Detour(self._everywhere)
            self._detour.begin(places, settings)
            return
        if "kb_per_s" in settings:
            script = f"{_CLEAR}tc qdisc add dev eth0 root {_tbf(settings['kb_per_s'])}"
        elif "loss" in settings and not self.netem:
            script = f"{_PREPARE} && iptables -w -A {CHAIN} {_randomly(settings['loss'])} -j DROP"
        else:
            script = f"{_CLEAR}tc qdisc add dev eth0 root {_netem(settings)}"
        self._everywhere(dict.fromkeys(places, script))

    def heal(self) -> None:
        """As often as one likes. A container that does not run has no namespace, and its next one is whole."""
        if not self._hurt:
            return
        there = self._look()
        if self._detour is not None:
            self._detour.end(there)
            self._detour = None
        self._everywhere(dict.fromkeys(there, _HEAL))
        self._hurt = False

    def _look(self) -> dict[int, Place]:
        """Of the containers that run: a container that was started anew may have another address."""
        told = self._run("docker", "inspect", "-f", _LOOK, *self._names.values()).splitlines()
        found = {}
        self._pids = {}
        for node, line in zip(self._names, told, strict=True):
            pid, *networks = line.split()
            if pid != "0" and len(networks) >= 2:
                found[node] = Place(networks[0], self._ports[node], networks[1])
                self._pids[node] = pid
        return found

    def _everywhere(self, scripts: Mapping[int, str]) -> None:
        """One shell for each node, all at the same time. TargetError once all have ended, if one failed."""
        running = {
            node: subprocess.Popen(
                ["nsenter", "-t", self._pids[node], "-n", "sh", "-c", script],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,  # Ctrl-C is for whoever started the run
            )
            for node, script in scripts.items()
        }
        failed = []
        for node, process in running.items():
            try:
                said, _ = process.communicate(timeout=COMMAND_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                said, _ = process.communicate()
                failed.append(
                    f"{self._names[node]}: {scripts[node]}: took more than {COMMAND_TIMEOUT_S:.0f} s"
                )
                continue
            if process.returncode:
                failed.append(f"{self._names[node]}: {scripts[node]}: {said.strip()}")
        if failed:
            raise TargetError("; ".join(failed))


def _randomly(share: float) -> str:
    return f"-m statistic --mode random --probability {share:g}"


def _tbf(kb_per_s: float) -> str:
    return f"tbf rate {int(kb_per_s * 8)}kbit burst 16kb latency 400ms"


def _netem(settings: Mapping[str, Any]) -> str:
    words = ["netem"]
    if "delay_ms" in settings:
        words.append(f"delay {settings['delay_ms']:g}ms {settings.get('jitter_ms', 0):g}ms")
    if "loss" in settings:
        words.append(f"loss {settings['loss'] * 100:g}%")
    return " ".join(words)


def works(*command: str) -> bool:
    """In a network namespace of its own, which is gone afterwards."""
    try:
        done = subprocess.run(["unshare", "-n", *command], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
