"""Who works on the cluster during a run, and on what."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from odradek.chaos.clients import (
    Client,
    Member,
    Mover,
    Reader,
    SlowReader,
    Topic,
    TransactionalWriter,
    World,
    Writer,
    now,
)
from odradek.chaos.history import Fetched
from odradek.chaos.scenario import Clients

PLAIN = Topic("chaos-plain", 4)
LEDGER = Topic("chaos-ledger", 4)
"""Written by transactions over several partitions."""
DERIVED = Topic("chaos-derived", 4)
"""What movers make of the ledger."""
TOPICS = (PLAIN, LEDGER, DERIVED)
MOVERS = "chaos-movers"
GROUPS = {"chaos-classic": PLAIN, "chaos-consumer": PLAIN, "chaos-static": PLAIN, MOVERS: LEDGER}
WATCH_S = 0.5


class Watcher(Client):
    """Asks what offsets the groups have, again and again, without being a member."""

    def live(self) -> None:
        groups = [(group, topic, self._asker(group)) for group, topic in GROUPS.items()]
        while self.going_on():
            for group, topic, asker in groups:
                self._ask(asker, group, topic)
            self.world.stop.wait(WATCH_S)

    def _asker(self, group: str) -> Consumer:
        # read_committed: offsets of open transactions are waited for.
        return Consumer(self.world.settings(group_id=group, isolation_level="read_committed"))

    def _ask(self, asker: Consumer, group: str, topic: Topic) -> None:
        wanted = [TopicPartition(topic.name, index) for index in range(topic.partitions)]
        invoked = now()
        try:
            told = asker.committed(wanted, timeout=5)
        except KafkaException:
            return  # no answer says nothing
        completed = now()
        for each in told:
            if each.error is None:
                offset = each.offset if each.offset >= 0 else None
                self.world.recorder.add(
                    Fetched(self.process, group, each.topic, each.partition, offset, invoked, completed)
                )


_Made = tuple[Callable[..., Client], dict[str, Any]]
_STATIC = {
    "topic": PLAIN,
    "group": "chaos-static",
    "protocol": "classic",
    "partition_assignment_strategy": "cooperative-sticky",
}
ROLES: dict[str, _Made] = {
    "writer": (Writer, {"topic": PLAIN}),
    "ledger": (TransactionalWriter, {"topic": LEDGER}),
    "mover": (Mover, {"source": LEDGER, "sink": DERIVED, "group": MOVERS}),
    "classic": (Member, {"topic": PLAIN, "group": "chaos-classic", "protocol": "classic"}),
    "consumer": (Member, {"topic": PLAIN, "group": "chaos-consumer", "protocol": "consumer"}),
    "static": (Member, _STATIC),
    "committed": (Reader, {"topics": list(TOPICS), "committed_only": True}),
    "everything": (Reader, {"topics": list(TOPICS), "committed_only": False}),
    "slow": (SlowReader, {"topic": PLAIN}),
    "watcher": (Watcher, {}),
    "drain": (Mover, {"source": LEDGER, "sink": DERIVED, "group": MOVERS}),
}
"""By what a name begins with: `mover` of `mover-1`."""
_NAMES_OF = {"writers": "writer", "transactions": "ledger", "movers": "mover"}
"""Words of a scenario that are not what the names begin with."""
DRAIN = "drain"
"""Who works off the ledger when all faults are over."""


def workers(clients: Clients) -> tuple[str, ...]:
    """The names of everybody who works during the faults."""
    names = ["watcher"]
    for word, count in clients.counts().items():
        for index in range(count):
            if word == "readers":
                names.append("committed" if index % 2 == 0 else "everything")
                names[-1] += f"-{index}" if index > 1 else ""
            else:
                names.append(f"{_NAMES_OF.get(word, word)}-{index}")
    return tuple(names)


def transactional(names: Iterable[str]) -> list[str]:
    """Of these names, those that are transactional ids too."""
    return [name for name in names if _role(name)[0] in (TransactionalWriter, Mover)]


def consumers(names: Iterable[str]) -> list[str]:
    """Of these names, those that read."""
    return [name for name in names if _role(name)[0] in (Reader, Member)]


def _role(name: str) -> _Made:
    return ROLES[name.partition("-")[0]]


def build(
    name: str, process: str, world: World, seed: int, *, per_s: int = 200, hasty: bool = False
) -> Client:
    """A client by its name. KeyError if there is none."""
    maker, settings = _role(name)
    more: dict[str, Any] = {}
    if maker is Writer:
        more["per_s"] = per_s
    elif maker is TransactionalWriter:
        more["hasty"] = hasty
    elif name.startswith("static"):
        more["group_instance_id"] = name
    return maker(name, process, world, seed, **settings, **more)
