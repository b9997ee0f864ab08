"""`--target local`: processes on this machine, by `odradek cluster`.

Started as plain `odradek server` as long as the scenario needs nothing else; for faults of networks, disks and clocks
as `odradek.chaos.node`, with proxies between them where the network is hurt.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from odradek.chaos import damage
from odradek.chaos.kinds import CLOCK, DISK, KINDS
from odradek.chaos.mesh import Mesh
from odradek.chaos.node import tell
from odradek.chaos.scenario import Scenario
from odradek.chaos.target import Target, TargetError, run_command

COMMAND_TIMEOUT_S = 180
PROXIES_ABOVE = 2_000
"""How far above the clients' ports the proxies' begin."""
SMALL_DISK_MB = 256
KILLED_WITHIN_S = 10.0
_ADDRESS = "advertised.listeners=PLAINTEXT://localhost:"


class LocalTarget(Target):
    """`directory` is made by `start`; what is in it outlives `stop`."""

    name = "local"

    def __init__(self, directory: Path, scenario: Scenario, base_port: int = 9092, seed: int = 0) -> None:
        self._directory = directory
        self._scenario = scenario
        self._base_port = base_port
        self._seed = seed
        self._mesh: Mesh | None = None
        self._mounts: list[Path] = []
        self._hurt: dict[int, dict[str, Any]] = {}
        self._nodes = list(range(1, scenario.nodes + 1))
        self._controllers = [101 + index for index in range(scenario.controllers)]
        self.bootstrap = ",".join(f"localhost:{base_port + index}" for index in range(scenario.nodes))

    def brokers(self) -> list[int]:
        return list(self._nodes)

    def controllers(self) -> list[int]:
        return list(self._controllers)

    # -- life ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        kinds = {fault.kind for fault in self._scenario.faults}
        needs = {KINDS[kind].needs for kind in kinds}
        words = ["--nodes", str(self._scenario.nodes), "--base-port", str(self._base_port)]
        if self._scenario.controllers:
            words += ["--controllers", str(self._scenario.controllers)]
        for key, value in self._scenario.overrides.items():
            words += ["--override", f"{key}={value}"]
        if self._scenario.network or needs & {DISK, CLOCK}:
            words += ["--program", "odradek.chaos.node"]
        if self._scenario.network:
            self._start_mesh()
        if "full-disk" in kinds and os.geteuid() == 0:
            self._mount_small_disks()
        self._run("start", *words)

    def _start_mesh(self) -> None:
        clients = {node: self._base_port + node - 1 for node in self._nodes}
        everybody = [*self._nodes, *self._controllers]
        mesh = self._mesh = Mesh(
            everybody,
            self._base_port + PROXIES_ABOVE,
            self._internal_port,
            clients if self._scenario.through_proxies else {},
            self._seed,
        )
        for node in everybody:
            # The ports that nodes choose for each other are not known before the start: by id, and looked up there.
            peers = {str(other): mesh.peers[node, other] for other in everybody if other != node}
            overrides = [f"{_ADDRESS}{mesh.clients[node]}"] if node in mesh.clients else []
            self._place(node).mkdir(parents=True, exist_ok=True)
            content = {"peers": peers, "overrides": overrides}
            (self._place(node) / "chaos.json").write_text(json.dumps(content))

    def _internal_port(self, node: int) -> int | None:
        """None until the nodes have chosen."""
        try:
            content = json.loads((self._directory / "cluster.json").read_text())
        except (OSError, ValueError):
            return None
        found: dict[int, int] = {each["id"]: each["internal_port"] for each in content["nodes"]}
        return found.get(node)

    def _mount_small_disks(self) -> None:
        """Disks that can be filled. Where mounting is not allowed, writes are told that the disk is full."""
        for node in self._nodes:
            data = self._place(node) / "data"
            data.mkdir(parents=True, exist_ok=True)
            command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_MB}m", "odradek-chaos", str(data)]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                self._mounts.append(data)

    def stop(self) -> None:
        try:
            if (self._directory / "cluster.json").exists():
                self._run("stop")
        finally:
            if self._mesh is not None:
                self._mesh.close()
            for mount in self._mounts:
                subprocess.run(["umount", "-l", str(mount)], capture_output=True, check=False)
            self._mounts.clear()

    def _run(self, *words: str) -> str:
        command = [sys.executable, "-m", "odradek.cli.main", "cluster", *words, "--dir", str(self._directory)]
        return run_command(command, COMMAND_TIMEOUT_S, shown=f"odradek cluster {' '.join(words)}")

    def _place(self, node: int) -> Path:
        return self._directory / f"node-{node}"

    # -- processes: by signal, because a command line takes a quarter of a second to begin ------------------

    def _pid(self, node: int) -> int:
        try:
            return int((self._place(node) / "pid").read_text())
        except (OSError, ValueError) as error:
            raise TargetError(f"node {node} has no process: {error}") from error

    def _signal(self, node: int, number: signal.Signals) -> int:
        pid = self._pid(node)
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            if number != signal.SIGKILL:
                raise TargetError(f"node {node} is not running") from None
        return pid

    def kill(self, node: int) -> None:
        pid = self._signal(node, signal.SIGKILL)
        deadline = time.monotonic() + KILLED_WITHIN_S
        while _alive(pid):
            if time.monotonic() > deadline:
                raise TargetError(f"node {node} is still there {KILLED_WITHIN_S:.0f} s after SIGKILL")
            time.sleep(0.002)

    def pause(self, node: int) -> None:
        self._signal(node, signal.SIGSTOP)

    def resume(self, node: int) -> None:
        self._signal(node, signal.SIGCONT)

    def restart(self, node: int) -> None:
        self._run("restart", str(node))

    def revive(self) -> None:
        self._run("start")

    def serves(self, node: int) -> bool:
        return _alive(self._pid(node))

    # -- network -------------------------------------------------------------------------------------------

    def silence(self, pairs: Iterable[tuple[int, int]]) -> None:
        assert self._mesh is not None
        self._mesh.silence(pairs)

    def shape(self, settings: Mapping[str, Any]) -> None:
        assert self._mesh is not None
        self._mesh.shape(
            clients=bool(settings.get("clients")),
            delay_s=settings.get("delay_ms", 0) / 1000,
            jitter_s=settings.get("jitter_ms", 0) / 1000,
            loss=settings.get("loss", 0.0),
            bytes_per_s=settings.get("kb_per_s", 0) * 1024,
        )

    def heal_network(self) -> None:
        if self._mesh is not None:
            self._mesh.heal()

    # -- disks, clocks -------------------------------------------------------------------------------------

    def disk(self, node: int, kind: str | None, settings: Mapping[str, Any]) -> None:
        data = self._place(node) / "data"
        if data in self._mounts and kind in ("full-disk", None):
            _fill(data) if kind else (data / "filler").unlink(missing_ok=True)
            return
        disk = {"mode": kind.removesuffix("-disk"), **settings} if kind else {}
        self._tell(node, "disk", disk)

    def damage(self, node: int, kind: str, topic: str, rng: random.Random) -> str:
        return damage.do(self._place(node) / "data", kind, topic, rng)

    def clock(self, node: int, offset_s: float) -> None:
        self._tell(node, "clock_offset_s", offset_s)

    def _tell(self, node: int, key: str, value: Any) -> None:
        """`faults.json` of the node, which looks at it all the time."""
        told = self._hurt.setdefault(node, {})
        told[key] = value
        tell(self._place(node), told)


def _fill(data: Path) -> None:
    """Until there is no space left."""
    block = bytes(1 << 20)
    with (data / "filler").open("wb", buffering=0) as file:
        while len(block) >= 512:
            try:
                if file.write(block) < len(block):
                    block = block[: len(block) // 2]
            except OSError:
                block = block[: len(block) // 2]


def _alive(pid: int) -> bool:
    """A zombie is not: its parent was a command that has ended, or is slow to look."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] != "Z"
    except OSError:
        if Path("/proc/self/stat").exists():
            return False
    try:
        os.kill(pid, 0)  # not Linux
    except ProcessLookupError:
        return False
    return True
