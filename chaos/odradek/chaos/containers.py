"""`--target compose`: containers that `docker compose up -d --wait` has started. They are healed and left running.

The network is hurt in their own network namespaces (`namespaces.py`), for which the harness has to be root on the
machine of the engine. Disks and clocks are the machine's: nodes that are to be hurt there are started with
deploy/compose/chaos.yaml (`node.py`).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odradek.chaos import damage
from odradek.chaos.kinds import CLOCK, DAMAGE, DISK, KINDS, NETWORK
from odradek.chaos.namespaces import Namespaces
from odradek.chaos.node import CONTAINER_PLACE, tell
from odradek.chaos.target import Target, TargetError, run_command

COMMAND_TIMEOUT_S = 120.0
HEALTHY_WITHIN_S = 90.0
LOOK_S = 0.1
EXEC_LOOK_S = 1.0
"""A command in a container starts a Python of its own."""
HEALTH_TIMEOUT_S = 3.0
HEALTH_PORT = "9644/tcp"
PAUSE_TRIES = 5
DATA = "/var/lib/kafka/data"


@dataclass(frozen=True, slots=True)
class Container:
    name: str
    node: int
    is_broker: bool
    address: str
    """For clients of this machine; empty for a controller."""
    data: Path | None
    """On the machine of the engine."""
    faults: Path | None
    """Likewise: where the node looks for what is wrong with its disk and its clock."""
    ports: tuple[int, ...]
    """Where other nodes reach it."""
    health: str | None
    """Where the node says whether it is ready, if that is published."""


class ComposeTarget(Target):
    """`bootstrap`: of the containers' own listener for this machine, unless it is given."""

    name = "compose"
    fresh = False

    def __init__(self, file: Path, project: str | None = None, bootstrap: str | None = None) -> None:
        self._command = ["docker", "compose", "-f", str(file), *(["-p", project] if project else [])]
        if shutil.which("docker") is None:
            raise TargetError("--target compose: there is no docker on the path")
        if not file.is_file():
            raise TargetError(f"--compose-file {file}: no such file")
        self._containers = self._find()
        brokers = [each for each in self._containers.values() if each.is_broker]
        if not brokers:
            raise TargetError(f"no node runs: {' '.join(self._command)} up -d --wait")
        self.bootstrap = bootstrap or ",".join(each.address for each in brokers)
        self._network = Namespaces(
            self._run,
            {node: each.name for node, each in self._containers.items()},
            {node: each.ports for node, each in self._containers.items()},
        )
        self._hurt: dict[int, dict[str, Any]] = {}

    def _find(self) -> dict[int, Container]:
        ids = self._run(*self._command, "ps", "-q", "--all").split()
        found = {}
        for each in json.loads(self._run("docker", "inspect", *ids)) if ids else ():
            settings = dict(pair.split("=", 1) for pair in each["Config"]["Env"] if "=" in pair)
            if "KAFKA_NODE_ID" in settings:
                container = _container(each, settings)
                found[container.node] = container
        return found

    def _run(self, *command: str) -> str:
        return run_command(command, COMMAND_TIMEOUT_S)

    def impossible(self, kind: str) -> str | None:
        needs = KINDS[kind].needs
        brokers = [each for each in self._containers.values() if each.is_broker]
        if needs in (DISK, CLOCK):
            if any(each.faults is None for each in brokers):
                return f"a container has its machine's {needs}. Start the nodes with -f deploy/compose/chaos.yaml, too"
            return _unwritable(CONTAINER_PLACE, [each.faults for each in brokers])
        if needs == DAMAGE:
            return _unwritable(DATA, [each.data for each in brokers])
        if needs == NETWORK:
            return self._network.lack(kind)
        return None

    def start(self) -> None:
        for node, container in self._containers.items():
            if container.faults is not None and os.access(container.faults, os.W_OK):
                self._tell(node, {})  # a run that was killed healed nothing
        self._run("docker", "start", *(each.name for each in self._containers.values()))
        self._await_healthy()

    def stop(self) -> None:
        """It is not ours."""
        self.heal_network()

    def brokers(self) -> list[int]:
        return sorted(each.node for each in self._containers.values() if each.is_broker)

    def controllers(self) -> list[int]:
        return sorted(each.node for each in self._containers.values() if not each.is_broker)

    # -- processes -----------------------------------------------------------------------------------------

    def kill(self, node: int) -> None:
        self._run("docker", "kill", self._containers[node].name)

    def pause(self, node: int) -> None:
        for attempt in range(PAUSE_TRIES):  # not while the engine begins to look at its health
            try:
                self._run("docker", "pause", self._containers[node].name)
                return
            except TargetError:
                if attempt == PAUSE_TRIES - 1:
                    raise

    def resume(self, node: int) -> None:
        self._run("docker", "unpause", self._containers[node].name)

    def restart(self, node: int) -> None:
        self._run("docker", "restart", "-t", "30", self._containers[node].name)
        self._await_healthy()

    def revive(self) -> None:
        down = [each.name for each in self._containers.values() if not self.serves(each.node)]
        if down:
            self._run("docker", "start", *down)
        self._await_healthy()

    def serves(self, node: int) -> bool:
        """Not one whose process ended by itself and which the engine is about to start again."""
        return self._state(node, "{{.State.Running}} {{.State.Restarting}}") == "true false"

    def _state(self, node: int, what: str) -> str:
        return self._run("docker", "inspect", "-f", what, self._containers[node].name).strip()

    def _await_healthy(self) -> None:
        """Asked of the nodes themselves: the engine looks only every few seconds."""
        deadline = time.monotonic() + HEALTHY_WITHIN_S
        for each in self._containers.values():
            while not self._is_ready(each):
                if time.monotonic() > deadline:
                    raise TargetError(f"{each.name} was not ready after {HEALTHY_WITHIN_S:.0f} s")
                time.sleep(LOOK_S if each.health else EXEC_LOOK_S)

    def _is_ready(self, container: Container) -> bool:
        if container.health is not None:
            try:
                with urllib.request.urlopen(container.health, timeout=HEALTH_TIMEOUT_S) as answer:
                    return int(answer.status) == 200
            except OSError:  # not there yet, or 503
                return False
        try:
            self._run("docker", "exec", container.name, "odradek", "health")
        except TargetError:
            return False
        return True

    # -- network -------------------------------------------------------------------------------------------

    def silence(self, pairs: Iterable[tuple[int, int]]) -> None:
        self._network.silence(pairs)

    def shape(self, settings: Mapping[str, Any]) -> None:
        self._network.shape(settings)

    def heal_network(self) -> None:
        self._network.heal()

    # -- disks, clocks -------------------------------------------------------------------------------------

    def disk(self, node: int, kind: str | None, settings: Mapping[str, Any]) -> None:
        disk = {"mode": kind.removesuffix("-disk"), **settings} if kind else {}
        self._tell(node, {**self._hurt.get(node, {}), "disk": disk})

    def clock(self, node: int, offset_s: float) -> None:
        self._tell(node, {**self._hurt.get(node, {}), "clock_offset_s": offset_s})

    def _tell(self, node: int, told: dict[str, Any]) -> None:
        place = self._containers[node].faults
        assert place is not None, "checked before the run"
        self._hurt[node] = told
        try:
            tell(place, told)
        except OSError as error:
            raise TargetError(f"{self._containers[node].name} cannot be hurt: {error}") from error

    def damage(self, node: int, kind: str, topic: str, rng: random.Random) -> str:
        data = self._containers[node].data
        assert data is not None, "checked before the run"
        return damage.do(data, kind, topic, rng)


def _unwritable(where: object, paths: Iterable[Path | None]) -> str | None:
    if all(path is not None and os.access(path, os.R_OK | os.W_OK) for path in paths):
        return None
    return f"the volumes at {where} cannot be written to from here: be root on the machine of the engine"


def _container(inspected: Mapping[str, Any], settings: Mapping[str, str]) -> Container:
    sources = {mount["Destination"]: Path(mount["Source"]) for mount in inspected["Mounts"]}
    is_broker = "broker" in settings.get("KAFKA_PROCESS_ROLES", "broker,controller")
    advertised = settings.get("KAFKA_ADVERTISED_LISTENERS", "").split(",")
    listeners = settings.get("KAFKA_LISTENERS", "").split(",")
    host = [each.partition("://")[2] for each in advertised if each.startswith("HOST://")]
    if is_broker and not host:
        raise TargetError(
            f"{inspected['Name'].lstrip('/')} has no listener called HOST for clients of this machine: "
            "give --bootstrap-server"
        )
    published = inspected.get("HostConfig", {}).get("PortBindings", {}).get(HEALTH_PORT)
    return Container(
        inspected["Name"].lstrip("/"),
        int(settings["KAFKA_NODE_ID"]),
        is_broker,
        host[0] if host else "",
        sources.get(DATA),
        sources.get(str(CONTAINER_PLACE)),
        tuple(int(each.rpartition(":")[2]) for each in listeners if each and not each.startswith("HOST://")),
        f"http://127.0.0.1:{published[0]['HostPort']}/health/ready" if published else None,
    )
