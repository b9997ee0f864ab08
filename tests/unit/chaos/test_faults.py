"""Faults are done to whom the scenario says and undone whatever happens."""

from __future__ import annotations

import io
import random
import threading
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from odradek.chaos import faults as faults_module
from odradek.chaos.clients import World
from odradek.chaos.faults import Faults
from odradek.chaos.history import FAULT, HEALED, Note, Recorder, parse
from odradek.chaos.kinds import KINDS
from odradek.chaos.scenario import parse as parse_scenario
from odradek.chaos.target import Target, TargetError
from odradek.chaos.workload import TOPICS


class Played(Target):
    """Notes what it is told."""

    name = "played"
    bootstrap = "localhost:1"

    def __init__(self, fails: str = "") -> None:
        self.told: list[str] = []
        self._fails = fails

    def _tell(self, *words: object) -> None:
        line = " ".join(map(str, words))
        self.told.append(line)
        if self._fails and line.startswith(self._fails):
            raise TargetError(f"{line} failed")

    def start(self) -> None:
        self._tell("start")

    def stop(self) -> None:
        self._tell("stop")

    def brokers(self) -> list[int]:
        return [1, 2, 3]

    def controllers(self) -> list[int]:
        return [101, 102, 103]

    def kill(self, node: int) -> None:
        self._tell("kill", node)

    def pause(self, node: int) -> None:
        self._tell("pause", node)

    def resume(self, node: int) -> None:
        self._tell("resume", node)

    def restart(self, node: int) -> None:
        self._tell("restart", node)

    def revive(self) -> None:
        self._tell("revive")

    def serves(self, node: int) -> bool:
        return f"disk {node} failing-disk" not in self.told

    def silence(self, pairs: Iterable[tuple[int, int]]) -> None:
        self._tell("silence", sorted(pairs))

    def shape(self, settings: Mapping[str, Any]) -> None:
        self._tell("shape", dict(settings))

    def heal_network(self) -> None:
        self._tell("heal_network")

    def disk(self, node: int, kind: str | None, settings: Mapping[str, Any]) -> None:
        self._tell("disk", node, kind)

    def damage(self, node: int, kind: str, topic: str, rng: random.Random) -> str:
        self._tell("damage", node, kind)
        return ""

    def clock(self, node: int, offset_s: float) -> None:
        self._tell("clock", node, offset_s)


class NoLives:
    """Clients that are frozen in name only."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def freeze(self, name: str) -> bool:
        self.told.append(f"freeze {name}")
        return True

    def thaw(self, name: str) -> None:
        self.told.append(f"thaw {name}")


def do(
    target: Played, *faults: dict[str, Any], lives: NoLives | None = None, **plan: Any
) -> tuple[Faults, list[Note]]:
    """Carry out a plan in which nothing is waited for."""
    written = io.StringIO()
    world = World("localhost:1", Recorder(written), threading.Event())
    short = [{"for_s": 0, **fault} for fault in faults]
    content = {
        "description": "x",
        "cluster": {"controllers": 3},
        "plan": {"calm_s": 0, "await_in_sync": False, **plan},
        "faults": short,
    }
    found = Faults(target, world, parse_scenario(content, "f", "f"), 1, lives or NoLives(), ("classic-0",))  # type: ignore[arg-type]
    found.run(None, lambda _: None)
    notes = [event for event in parse(written.getvalue().splitlines()) if isinstance(event, Note)]
    return found, notes


@pytest.fixture(autouse=True)
def nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Admin:
        def __init__(self, _: dict[str, Any]) -> None: ...

    monkeypatch.setattr(faults_module, "AdminClient", Admin)


def test_a_fault_and_its_end_are_written_down() -> None:
    target = Played()
    found, notes = do(target, {"kind": "kill", "who": "all", "expect": {"recover_s": 5, "counted": "heal"}})
    assert target.told == ["kill 1", "kill 2", "kill 3", "heal_network", "revive"]
    assert [note.what for note in notes] == [FAULT, HEALED]
    assert notes[0].target == "1, 2, 3" and notes[0].details["expect"]["counted"] == "heal"
    assert found.done == {"kill all": 1} and not found.trouble


def test_each_node_in_its_turn() -> None:
    target = Played()
    do(target, {"kind": "restart", "who": "each"}, rounds=2)
    assert target.told == [f"restart {node}" for node in (1, 2, 3, 1, 2, 3)]


def test_a_majority_of_controllers() -> None:
    target = Played()
    do(target, {"kind": "kill", "who": "controllers"})
    assert len([line for line in target.told if line.startswith("kill 10")]) == 2


@pytest.mark.parametrize(
    ("fault", "done", "undone"),
    [
        ({"kind": "pause"}, "pause", "resume"),
        ({"kind": "isolate"}, "silence", "heal_network"),
        ({"kind": "one-way", "direction": "in"}, "silence", "heal_network"),
        ({"kind": "bridge"}, "silence", "heal_network"),
        ({"kind": "cut-followers"}, "silence", "heal_network"),
        ({"kind": "delay", "who": "all", "delay_ms": 5}, "shape", "heal_network"),
        ({"kind": "loss", "who": "all", "loss": 0.1}, "shape", "heal_network"),
        ({"kind": "bandwidth", "who": "all", "kb_per_s": 5}, "shape", "heal_network"),
        ({"kind": "slow-disk", "write_ms": 1, "fsync_ms": 1}, "disk", "disk"),
        ({"kind": "failing-disk"}, "disk", "revive"),
        ({"kind": "full-disk"}, "disk", "disk"),
        ({"kind": "torn-tail"}, "damage", "revive"),
        ({"kind": "flipped-byte"}, "damage", "revive"),
        ({"kind": "wiped-disk"}, "damage", "revive"),
        ({"kind": "clock-jump", "offset_s": 60}, "clock", "clock"),
        ({"kind": "kill"}, "kill", "revive"),
    ],
)
def test_what_is_done_is_undone(fault: dict[str, Any], done: str, undone: str) -> None:
    target = Played()
    do(target, fault)
    first = [line.split()[0] for line in target.told]
    assert first.index(done) <= len(first) - 1 - first[::-1].index(undone)
    assert KINDS[fault["kind"]].lasts


def test_a_clock_goes_back_to_the_right_time() -> None:
    target = Played()
    do(target, {"kind": "clock-jump", "offset_s": 60})
    assert target.told[0].endswith(" 60.0") and target.told[-1].endswith(" 0.0")


def test_a_client_is_frozen_and_thawed() -> None:
    lives = NoLives()
    do(Played(), {"kind": "freeze-client"}, lives=lives)
    assert lives.told == ["freeze classic-0", "thaw classic-0"]


def test_leaders_of_all_partitions_that_clients_work_on_move(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[tuple[str, int], list[int]]] = []

    def move(bootstrap: str, replicas: dict[tuple[str, int], list[int]], rng: random.Random) -> int:
        asked.append(replicas)
        return 0

    brokers = [SimpleNamespace(id=node) for node in (1, 2, 3)]
    monkeypatch.setattr(faults_module.leaders, "move", move)
    monkeypatch.setattr(Faults, "_partitions", lambda _, topic: [SimpleNamespace(id=7, replicas=brokers)])
    target = Played()
    found, notes = do(target, {"kind": "move-leaders", "who": "all", "times": 2})
    everywhere = {(topic.name, 7): [1, 2, 3] for topic in TOPICS}
    assert asked == [everywhere, everywhere] and target.told == []
    assert [note.what for note in notes] == [FAULT, HEALED] * 2 and found.done == {"move-leaders all": 2}


def test_what_cannot_be_healed_keeps_nothing_else_from_being_healed() -> None:
    target = Played(fails="resume 1")
    found, _ = do(target, {"kind": "pause", "count": 3})
    assert target.told[-3:] == ["resume 1", "resume 2", "resume 3"]
    assert found.trouble == ["not healed: resume 1 failed"]
    found.heal()
    assert target.told[-1] == "heal_network" and len(found.trouble) == 1  # nothing is left


def test_a_random_plan_comes_from_the_seed() -> None:
    told = []
    for _ in range(2):
        target = Played(fails="restart")
        with pytest.raises(TargetError):
            do(
                target,
                {"kind": "kill", "count": 2, "weight": 9},
                {"kind": "restart", "who": "each"},
                order="random",
            )
        told.append(target.told)
    assert told[0] == told[1] and told[0][-1] == "restart 1" and len(told[0]) > 5
