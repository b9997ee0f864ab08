"""What goes wrong, when, for how long: as a scenario says and the seed draws; done to a target, undone again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException, TopicCollection, TopicPartitionInfo
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from odradek.chaos import leaders
from odradek.chaos.clients import World, now
from odradek.chaos.history import FAULT, HEALED, METADATA_BACK, Note
from odradek.chaos.kinds import CLIENTS, DAMAGE, DISK, KINDS, LEADERS, OF_NO_NODE
from odradek.chaos.lives import Lives
from odradek.chaos.mesh import pairs_of
from odradek.chaos.scenario import FaultSpec, Scenario
from odradek.chaos.target import Target, TargetError
from odradek.chaos.workload import PLAIN, TOPICS, consumers

OFFSETS = "__consumer_offsets"
PROBE = "chaos-probe-"
IN_SYNC_WITHIN_S = 60.0
METADATA_WITHIN_S = 60.0
LOOK_S = 0.1
DRAWN = ("leader", "coordinator", "controller", "any")


@dataclass(slots=True)
class _Fault:
    """One that is being done."""

    number: int
    spec: FaultSpec
    nodes: list[int]
    clients: list[str]


class Faults:
    """One fault after another, as the plan says; `heal` undoes what is left, at any time, as often as one likes."""

    def __init__(
        self,
        target: Target,
        world: World,
        scenario: Scenario,
        seed: int,
        lives: Lives,
        names: tuple[str, ...],
    ) -> None:
        self._target = target
        self._world = world
        self._scenario = scenario
        self._rng = random.Random(f"{seed} faults")
        self._lives = lives
        self._readers = consumers(names)
        self._admin = AdminClient(world.settings())
        self._brokers = target.brokers()
        self._down: set[int] = set()
        self._paused: set[int] = set()
        self._sick: set[int] = set()
        """Their disks."""
        self._late: set[int] = set()
        """Their clocks."""
        self._frozen: list[str] = []
        self._number = 0
        self.done: dict[str, int] = {}
        self.trouble: list[str] = []
        self.slow_to_sync = 0
        """How often not everybody was in sync in time, and the next fault came all the same."""

    # -- the plan ------------------------------------------------------------------------------------------

    def run(self, until: float | None, told: Callable[[str], None]) -> None:
        """The whole plan, or its random faults until `until` (time.monotonic). A fault that has begun is ended."""
        for spec in self._plan():
            if until is not None and time.monotonic() >= until:
                return
            if self._scenario.await_in_sync and not self._await_in_sync():
                self.slow_to_sync += 1
            if self._world.stop.wait(self._rng.uniform(*self._scenario.calm_s)):
                return
            for nodes in self._victims(spec):
                self._one(spec, nodes, told)
        if self._scenario.await_in_sync:
            self._await_in_sync()
        self._world.stop.wait(self._scenario.calm_s[1])

    def _plan(self) -> Iterator[FaultSpec]:
        faults = self._scenario.faults
        if self._scenario.order == "random":
            while True:
                yield self._rng.choices(faults, [fault.weight for fault in faults])[0]
        rounds = self._scenario.rounds if self._scenario.minutes is None else 1_000_000
        for _ in range(rounds):
            for fault in faults:
                for _ in range(fault.times):
                    yield fault

    def _one(self, spec: FaultSpec, nodes: list[int], told: Callable[[str], None]) -> None:
        self._number += 1
        names = (
            [self._rng.choice(self._readers)] if KINDS[spec.kind].needs == CLIENTS and self._readers else []
        )
        fault = _Fault(self._number, spec, nodes, names)
        victims = ", ".join(names or map(str, nodes))
        if KINDS[spec.kind].needs == LEADERS:
            victims = "every partition"
        told(f"{spec.kind} {victims}")
        self.done[spec.label] = self.done.get(spec.label, 0) + 1
        self._world.recorder.add(
            Note(
                now(),
                FAULT,
                victims,
                {
                    "number": fault.number,
                    "label": spec.label,
                    "lasts": KINDS[spec.kind].lasts,
                    "expect": {
                        "recover_s": spec.expect.recover_s,
                        "median_s": spec.expect.median_s,
                        "counted": spec.expect.counted,
                        "metadata_s": spec.expect.metadata_s,
                    },
                },
            )
        )
        self._do(fault)
        if KINDS[spec.kind].lasts:
            self._world.stop.wait(self._rng.uniform(*spec.for_s))
            self.heal()
        self._world.recorder.add(Note(now(), HEALED, victims, {"number": fault.number}))
        if spec.expect.metadata_s is not None:
            self._await_metadata(fault)

    def _do(self, fault: _Fault) -> None:
        kind, spec, target = fault.spec.kind, fault.spec, self._target
        needs = KINDS[kind].needs
        if kind in ("isolate", "one-way", "bridge", "cut-followers"):
            others = set(
                self._brokers if kind == "cut-followers" else [*self._brokers, *target.controllers()]
            )
            for node in fault.nodes:
                direction = str(spec.settings.get("direction", "out"))
                target.silence(pairs_of(kind, node, others - {node}, direction))
            return
        if kind in ("delay", "loss", "bandwidth"):
            target.shape(spec.settings)
            return
        if needs == CLIENTS:
            self._frozen = [name for name in fault.clients if self._lives.freeze(name)]
            return
        if needs == LEADERS:
            self._move_leaders()
            return
        for node in fault.nodes:
            if needs == DAMAGE or kind == "kill":
                self._down.add(node)
                target.kill(node)
            elif kind == "pause":
                self._paused.add(node)
                target.pause(node)
            elif needs == DISK:
                self._sick.add(node)
                target.disk(node, kind, spec.settings)
            elif kind == "clock-jump":
                self._late.add(node)
                target.clock(node, float(spec.settings["offset_s"]))
            else:
                target.restart(node)
            if needs == DAMAGE:
                target.damage(node, kind, PLAIN.name, self._rng)

    def _move_leaders(self) -> None:
        try:
            replicas = {
                (topic.name, each.id): [broker.id for broker in each.replicas]
                for topic in TOPICS
                for each in self._partitions(topic.name)
            }
        except (KafkaException, TimeoutError) as problem:
            raise TargetError(f"nobody says who has the partitions: {problem}") from problem
        leaders.move(self._target.bootstrap, replicas, self._rng)

    def heal(self) -> None:
        """Everybody runs again, hears everybody, and has a sound disk and the right time. What cannot be healed is in
        `trouble`, and does not keep the rest from being healed.
        """
        self._try(self._target.heal_network)
        for node in sorted(self._paused):
            self._try(self._target.resume, node)
        self._paused.clear()
        for node in sorted(self._late):
            self._try(self._target.clock, node, 0.0)
        self._late.clear()
        for name in self._frozen:
            self._lives.thaw(name)
        self._frozen.clear()
        # A node whose log directory went offline does not take it back by itself: it is started anew.
        sick = sorted(self._sick)
        for node in sick:
            self._try(self._target.disk, node, None, {})
        self._sick.clear()
        if self._down or any(not self._target.serves(node) for node in sick):
            self._try(self._target.revive)
        self._down.clear()

    def _try(self, step: Callable[..., None], *arguments: Any) -> None:
        try:
            step(*arguments)
        except TargetError as problem:
            self.trouble.append(f"not healed: {problem}")

    # -- who ------------------------------------------------------------------------------------------------

    def _victims(self, spec: FaultSpec) -> list[list[int]]:
        """Groups of nodes, one after the other."""
        if KINDS[spec.kind].needs in OF_NO_NODE:
            return [[]]
        if spec.who == "each":
            return [[node] for node in self._brokers]
        if spec.who == "all":
            return [self._brokers]
        if spec.who == "controllers":
            everybody = self._target.controllers()
            return [sorted(self._rng.sample(everybody, len(everybody) // 2 + 1))]
        if spec.count > 1:
            return [sorted(self._rng.sample(self._brokers, spec.count))]
        who = self._rng.choice(DRAWN) if spec.who == "drawn" else spec.who
        return [[self._victim(who)]]

    def _victim(self, who: str) -> int:
        """Whoever it is right now; anybody where that cannot be told, as when nobody leads."""
        found: list[int] = []
        try:
            if who == "controller":
                found = [self._admin.describe_cluster(request_timeout=5).result(6).controller.id]
            elif who in ("leader", "coordinator", "follower"):
                partitions = self._partitions(PLAIN.name if who != "coordinator" else OFFSETS)
                leader = self._rng.choice(partitions)
                found = [leader.leader.id]
                if who == "follower":
                    found = [each.id for each in leader.replicas if each.id != leader.leader.id]
        except (KafkaException, AttributeError, TimeoutError, IndexError):
            found = []
        found = [node for node in found if node in self._brokers]
        return self._rng.choice(found or self._brokers)

    def _partitions(self, topic: str) -> list[TopicPartitionInfo]:
        told = self._admin.describe_topics(TopicCollection([topic]), request_timeout=5)[topic].result(6)
        return list(told.partitions)

    # -- waiting for the cluster ---------------------------------------------------------------------------

    def _await_in_sync(self) -> bool:
        """Until every replica of every topic of ours is in sync. Whether it came to that."""
        deadline = time.monotonic() + IN_SYNC_WITHIN_S
        while time.monotonic() < deadline:
            try:
                everybody = [
                    each for topic in (*[t.name for t in TOPICS], OFFSETS) for each in self._partitions(topic)
                ]
                if all(len(each.isr) == len(each.replicas) and each.leader for each in everybody):
                    return True
            except (KafkaException, TimeoutError):
                pass  # whoever was asked is not back yet
            if self._world.stop.wait(LOOK_S):
                return True
        return False

    def _await_metadata(self, fault: _Fault) -> None:
        """Until a topic can be created."""
        deadline = time.monotonic() + METADATA_WITHIN_S
        attempt = 0
        while time.monotonic() < deadline and not self._world.stop.is_set():
            attempt += 1
            name = f"{PROBE}{fault.number}-{attempt}"
            try:
                self._admin.create_topics([NewTopic(name, 1, 1)], request_timeout=1)[name].result(2)
            except (KafkaException, TimeoutError):
                continue
            self._world.recorder.add(Note(now(), METADATA_BACK, name, {"number": fault.number}))
            return
