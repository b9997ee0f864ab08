"""What goes wrong, when, for how long: drawn from a seed, done to a target, undone again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from odradek.chaos.clients import World, now
from odradek.chaos.history import Note
from odradek.chaos.target import Target

WEIGHTS = {"kill": 6, "pause": 3, "restart": 2, "kill-two": 1, "kill-all": 1}
VICTIMS = ("leader", "coordinator", "controller", "any")


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds, each drawn between two bounds."""

    calm_s: tuple[float, float] = (2.0, 8.0)
    down_s: tuple[float, float] = (0.5, 6.0)
    paused_s: tuple[float, float] = (1.0, 8.0)
    """Shorter and longer than a broker's session."""


class Faults:
    """One fault after another until told to stop; `heal` undoes what is left."""

    def __init__(
        self, target: Target, world: World, seed: int, internal: str, pace: Pace | None = None
    ) -> None:
        """`internal`: a topic whose partitions' leaders are the victims called coordinators."""
        self._target = target
        self._world = world
        self._rng = random.Random(f"{seed} faults")
        self._pace = pace or Pace()
        self._admin = AdminClient(world.settings())
        self._internal = internal
        self._down: set[int] = set()
        self._paused: set[int] = set()
        self._ids = [int(node["id"]) for node in target.nodes()]
        self.done: dict[str, int] = dict.fromkeys(WEIGHTS, 0)

    def run(self, until: float, topic: str, told: Callable[[str], None]) -> None:
        """Faults until `until` (time.monotonic), most of them at leaders of `topic`."""
        while time.monotonic() < until:
            if self._world.stop.wait(self._rng.uniform(*self._pace.calm_s)):
                return
            (kind,) = self._rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
            victims = self._victims(kind, topic)
            told(f"{kind} {', '.join(map(str, victims))}")
            self._one(kind, victims)
            self.done[kind] += 1

    def _one(self, kind: str, victims: list[int]) -> None:
        if kind == "restart":
            self._note(kind, victims)
            for node in victims:
                self._target.restart(node)
            return
        pause = kind == "pause"
        for node in victims:
            self._note(kind, [node])
            (self._target.pause if pause else self._target.kill)(node)
            (self._paused if pause else self._down).add(node)
        self._world.stop.wait(self._rng.uniform(*(self._pace.paused_s if pause else self._pace.down_s)))
        self.heal()

    def heal(self) -> None:
        """Everybody runs again."""
        for node in sorted(self._paused):
            self._target.resume(node)
            self._note("resume", [node])
        self._paused.clear()
        if self._down:
            self._target.revive()
            self._note("restarted", sorted(self._down))
        self._down.clear()

    def _victims(self, kind: str, topic: str) -> list[int]:
        if kind == "kill-all":
            return self._ids
        if kind == "kill-two":
            return self._rng.sample(self._ids, 2)
        return [self._victim(self._rng.choice(VICTIMS), topic)]

    def _victim(self, who: str, topic: str) -> int:
        try:
            if who == "controller":
                node = self._admin.describe_cluster(request_timeout=5).result(6).controller.id
            elif who in ("leader", "coordinator"):
                name = topic if who == "leader" else self._internal
                found = self._admin.describe_topics(TopicCollection([name]), request_timeout=5)[name].result(
                    6
                )
                node = self._rng.choice(found.partitions).leader.id
            else:
                node = -1
        except (KafkaException, AttributeError, TimeoutError):
            node = -1  # nobody leads right now, which is what faults are for
        return node if node in self._ids else self._rng.choice(self._ids)

    def _note(self, what: str, nodes: list[int]) -> None:
        self._world.recorder.add(Note(now(), what, ",".join(map(str, nodes))))
