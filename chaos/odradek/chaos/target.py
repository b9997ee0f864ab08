"""What faults are done to: a cluster that can be asked and hurt. Local processes here; `containers.py`, `pods.py`."""

from __future__ import annotations

import random
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from odradek.chaos.kinds import KINDS, OF_NO_NODE
from odradek.chaos.scenario import Scenario, ScenarioError


class TargetError(Exception):
    """The cluster could not be told what to do; says why."""


def run_command(
    command: Sequence[str], timeout_s: float, *, stdin: str | None = None, shown: str | None = None
) -> str:
    """What a command of this machine said; TargetError if it failed. `shown`: how it is called there."""
    shown = shown or " ".join(command)
    try:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            start_new_session=True,  # Ctrl-C is for whoever started the run
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TargetError(f"{shown}: {error}") from error
    if done.returncode:
        raise TargetError(f"{shown}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Target(ABC):
    """A cluster under test. Every method but `impossible` may raise TargetError."""

    name: str
    bootstrap: str
    fresh = True
    """Whether it was made for this run; else what an earlier run left behind is deleted first."""

    def impossible(self, kind: str) -> str | None:
        """Why a fault of this kind cannot be done here, None if it can."""
        return None

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def stop(self) -> None: ...

    @abstractmethod
    def brokers(self) -> list[int]: ...

    @abstractmethod
    def controllers(self) -> list[int]:
        """Those that are processes of their own."""

    # -- processes -----------------------------------------------------------------------------------------

    @abstractmethod
    def kill(self, node: int) -> None: ...

    @abstractmethod
    def pause(self, node: int) -> None: ...

    @abstractmethod
    def resume(self, node: int) -> None: ...

    @abstractmethod
    def restart(self, node: int) -> None: ...

    @abstractmethod
    def revive(self) -> None:
        """Start everybody who is down, all at once: one alone may not get ready without another."""

    @abstractmethod
    def serves(self, node: int) -> bool:
        """Whether the node has a process."""

    # -- network -------------------------------------------------------------------------------------------

    def silence(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Nothing that the first of a pair sends reaches the second."""
        raise TargetError(f"partitions are not possible with --target {self.name}")

    def shape(self, settings: Mapping[str, Any]) -> None:
        """`delay_ms`, `jitter_ms`, `loss`, `kb_per_s` between all nodes; `clients`: and to clients."""
        raise TargetError(f"a worse network is not possible with --target {self.name}")

    def heal_network(self) -> None:  # noqa: B027 - nothing to do where nothing can be done
        """Everybody hears everybody, at once."""

    # -- disks, clocks -------------------------------------------------------------------------------------

    def disk(self, node: int, kind: str | None, settings: Mapping[str, Any]) -> None:
        """`slow-disk`, `failing-disk`, `full-disk`, or None: sound again."""
        raise TargetError(f"disk faults are not possible with --target {self.name}")

    def damage(self, node: int, kind: str, topic: str, rng: random.Random) -> str:
        """`torn-tail`, `flipped-byte` or `wiped-disk` of a node that is down. What was done, for people."""
        raise TargetError(f"damage is not possible with --target {self.name}")

    def clock(self, node: int, offset_s: float) -> None:
        """Ahead of the machine's clock; 0: with it again."""
        raise TargetError(f"clocks cannot be moved with --target {self.name}")


def check_possible(scenario: Scenario, target: Target) -> None:
    """ScenarioError names the fault that the target cannot do."""
    for index, fault in enumerate(scenario.faults):
        if (fault.who == "controllers" or fault.kind == "cut-followers") and not target.controllers():
            raise ScenarioError(
                f"{scenario.file}: faults[{index}]: {fault.label} needs controllers that are not brokers too, and this "
                f"--target {target.name} has none"
            )
        if fault.count > len(target.brokers()):
            raise ScenarioError(
                f"{scenario.file}: faults[{index}].count: {fault.count} of {len(target.brokers())} brokers"
            )
        if KINDS[fault.kind].needs in OF_NO_NODE:
            continue
        why = target.impossible(fault.kind)
        if why is not None:
            raise ScenarioError(
                f"{scenario.file}: faults[{index}].kind: {fault.kind} is not possible with --target "
                f"{target.name}: {why}"
            )
