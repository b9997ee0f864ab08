"""Who works on the cluster during a run, and on what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from odradek.chaos.clients import (
    Client,
    Member,
    Mover,
    Reader,
    Topic,
    TransactionalWriter,
    World,
    Writer,
    now,
)
from odradek.chaos.history import Fetched

PLAIN = Topic("plain", 4)
LEDGER = Topic("ledger", 4)
"""Written by transactions over several partitions."""
DERIVED = Topic("derived", 4)
"""What movers make of the ledger."""
TOPICS = (PLAIN, LEDGER, DERIVED)
GROUPS = {"classic": PLAIN, "consumer": PLAIN, "static": PLAIN, "movers": LEDGER}
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


_Maker = Callable[..., Client]


def _roles() -> dict[str, tuple[_Maker, dict[str, Any]]]:
    """Name → (class, what it is made with)."""
    found: dict[str, tuple[_Maker, dict[str, Any]]] = {
        "committed": (Reader, {"topics": list(TOPICS), "committed_only": True}),
        "everything": (Reader, {"topics": list(TOPICS), "committed_only": False}),
        "watcher": (Watcher, {}),
        "drain": (Mover, {"source": LEDGER, "sink": DERIVED, "group": "movers"}),
    }
    for index in range(3):
        found[f"ledger-{index}"] = TransactionalWriter, {"topic": LEDGER}
        found[f"classic-{index}"] = Member, {"topic": PLAIN, "group": "classic", "protocol": "classic"}
        found[f"consumer-{index}"] = Member, {"topic": PLAIN, "group": "consumer", "protocol": "consumer"}
    for index in range(2):
        found[f"writer-{index}"] = Writer, {"topic": PLAIN}
        found[f"mover-{index}"] = Mover, {"source": LEDGER, "sink": DERIVED, "group": "movers"}
        found[f"static-{index}"] = (
            Member,
            {
                "topic": PLAIN,
                "group": "static",
                "protocol": "classic",
                "group_instance_id": f"static-{index}",
                "partition_assignment_strategy": "cooperative-sticky",
            },
        )
    return found


ROLES = _roles()
DRAIN = "drain"
"""Who works off the ledger when all faults are over."""
WORKERS = tuple(name for name in ROLES if name != DRAIN)
TRANSACTIONAL = tuple(name for name, (maker, _) in ROLES.items() if maker in (TransactionalWriter, Mover))
"""Their names are their transactional ids."""


def build(name: str, process: str, world: World, seed: int) -> Client:
    """A client by its name. KeyError if there is none."""
    maker, settings = ROLES[name]
    return maker(name, process, world, seed, **settings)
