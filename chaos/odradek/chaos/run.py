"""A run: clients at work, faults, everything healed, everything read, the verdict."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from odradek.chaos.checker import Verdict, check
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
    record_of,
)
from odradek.chaos.faults import Faults
from odradek.chaos.history import DRAINED, Fetched, Note, Poll, Recorder, read_history
from odradek.chaos.target import Target

PLAIN = Topic("plain", 4)
LEDGER = Topic("ledger", 4)
"""Written by transactions over several partitions."""
DERIVED = Topic("derived", 4)
"""What movers make of the ledger."""
TOPICS = (PLAIN, LEDGER, DERIVED)
GROUPS = {"classic": PLAIN, "consumer": PLAIN, "static": PLAIN, "movers": LEDGER}
WATCH_S = 0.5
DRAIN_S = 120.0
TRANSACTION_TIMEOUT_S = 10


class ChaosError(Exception):
    """The run could not be made; says why."""


@dataclass(slots=True)
class Outcome:
    """What a run ended with."""

    verdict: Verdict
    faults: dict[str, int]
    seconds: float
    events: int
    trouble: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.verdict.valid and not self.trouble


class Watcher(Client):
    """Asks what offsets the groups have, again and again, without being a member."""

    def live(self) -> None:
        admin = AdminClient(self.world.settings())
        while self.going_on():
            for group, topic in GROUPS.items():
                self._ask(admin, group, topic)
            self.world.stop.wait(WATCH_S)

    def _ask(self, admin: AdminClient, group: str, topic: Topic) -> None:
        wanted = [TopicPartition(topic.name, index) for index in range(topic.partitions)]
        asked = ConsumerGroupTopicPartitions(group, wanted)
        invoked = now()
        futures = admin.list_consumer_group_offsets([asked], require_stable=True, request_timeout=5)
        try:
            told = futures[group].result(10)
        except (KafkaException, TimeoutError):
            return  # no answer says nothing
        completed = now()
        for each in told.topic_partitions:
            if each.error is None:
                offset = each.offset if each.offset >= 0 else None
                self.world.recorder.add(
                    Fetched(self.process, group, each.topic, each.partition, offset, invoked, completed)
                )
                self.progress += 1


def workload(world: World, seed: int, *, consumer_protocol: bool = True) -> list[Client]:
    """Everybody who works on the cluster."""
    new = "consumer" if consumer_protocol else "classic"
    clients: list[Client] = [
        *(Writer(f"writer-{index}", world, seed, PLAIN) for index in range(2)),
        *(TransactionalWriter(f"ledger-{index}", world, seed, LEDGER) for index in range(3)),
        *(Mover(f"mover-{index}", world, seed, LEDGER, DERIVED, "movers") for index in range(2)),
        *(Member(f"classic-{index}", world, seed, PLAIN, "classic", protocol="classic") for index in range(3)),
        *(Member(f"consumer-{index}", world, seed, PLAIN, "consumer", protocol=new) for index in range(3)),
        *(
            Member(
                f"static-{index}", world, seed, PLAIN, "static", protocol="classic",
                group_instance_id=f"static-{index}", partition_assignment_strategy="cooperative-sticky",
            )
            for index in range(2)
        ),
        Reader("committed", world, seed, list(TOPICS), committed_only=True),
        Reader("everything", world, seed, list(TOPICS), committed_only=False),
        Watcher("watcher", world, seed),
    ]  # fmt: skip
    return clients


def create_topics(world: World, replication: int) -> None:
    admin = AdminClient(world.settings())
    new = [
        NewTopic(
            topic.name,
            topic.partitions,
            replication,
            config={"min.insync.replicas": str(min(2, replication))},
        )
        for topic in TOPICS
    ]
    for name, future in admin.create_topics(new, request_timeout=20).items():
        try:
            future.result(30)
        except KafkaException as problem:
            raise ChaosError(f"topic {name} cannot be created: {problem}") from problem


def run(
    target: Target,
    directory: Path,
    *,
    seconds: float,
    seed: int,
    told: Callable[[str], None],
    consumer_protocol: bool = True,
) -> Outcome:
    """Against a cluster that runs. Leaves `history.jsonl` and `verdict.json` in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "history.jsonl"
    began = time.monotonic()
    with path.open("w") as file:
        world = World(target.bootstrap, Recorder(file), threading.Event(), [])
        create_topics(world, min(3, len(target.nodes())))
        clients = workload(world, seed, consumer_protocol=consumer_protocol)
        for client in clients:
            client.start()
        faults = Faults(target, world, seed, "__consumer_offsets")
        try:
            faults.run(
                began + seconds, LEDGER.name, lambda what: told(_progress(what, began, clients, world))
            )
            told("healing")
        finally:
            faults.heal()
            world.stop.set()
            for client in clients:
                client.join(90)
        _finish(world, clients, told)
    told("judging")
    verdict = check(read_history(path))
    outcome = Outcome(verdict, faults.done, time.monotonic() - began, world.recorder.events, world.trouble)
    (directory / "verdict.json").write_text(json.dumps(as_json(outcome, seed), indent=1) + "\n")
    return outcome


def _progress(what: str, began: float, clients: list[Client], world: World) -> str:
    done = {name: sum(each.progress for each in clients if each.name.startswith(name)) for name in
            ("writer", "ledger", "mover", "classic", "consumer", "static")}  # fmt: skip
    counts = "  ".join(f"{name} {count}" for name, count in done.items())
    return f"{time.monotonic() - began:6.0f} s  {what:<20} {counts}  events {world.recorder.events}"


def _finish(world: World, clients: list[Client], told: Callable[[str], None]) -> None:
    """No transaction stays open; the ledger is worked off; everything is read once more."""
    for client in clients:
        if client.is_alive():
            world.trouble.append(f"{client.name} did not come to its end")
        if isinstance(client, (TransactionalWriter, Mover)):
            _close_transactions(world, client.name)
    told("working off what is left")
    world.stop.clear()
    mover = Mover("drain", world, 0, LEDGER, DERIVED, "movers")
    mover.start()
    ends = _ends(world, [LEDGER])
    drained = _await_group(world, "movers", ends)
    world.stop.set()
    mover.join(90)
    _close_transactions(world, "drain")
    if drained:
        world.recorder.add(Note(now(), DRAINED, LEDGER.name, {"sink": DERIVED.name}))
    else:
        world.trouble.append(f"the ledger was not worked off within {DRAIN_S:.0f} s")
    told("reading everything")
    _read_all(world)


def _close_transactions(world: World, name: str) -> None:
    """A new producer of the same transactional id ends what the last one left open."""
    producer = Producer(world.settings(transactional_id=name))
    try:
        producer.init_transactions(60)
    except KafkaException as problem:
        world.trouble.append(f"transactions of {name} cannot be closed: {problem}")


def _ends(world: World, topics: list[Topic]) -> dict[tuple[str, int], int]:
    """Last stable offsets."""
    consumer = Consumer(world.settings(group_id="ends", isolation_level="read_committed"))
    found = {}
    for topic in topics:
        for index in range(topic.partitions):
            _, found[topic.name, index] = consumer.get_watermark_offsets(
                TopicPartition(topic.name, index), timeout=30
            )
    consumer.close()
    return found


def _await_group(world: World, group: str, ends: dict[tuple[str, int], int]) -> bool:
    """Whether the group came to the last record of each partition (markers at the end are nobody's to commit)."""
    reader = Consumer(world.settings(group_id=group, isolation_level="read_committed", enable_partition_eof=True,
                                     enable_auto_commit=False))  # fmt: skip
    deadline = time.monotonic() + DRAIN_S
    try:
        while time.monotonic() < deadline:
            partitions = [TopicPartition(topic, index) for topic, index in ends]
            try:
                told = reader.committed(partitions, timeout=10)
            except KafkaException:
                continue
            if all(_nothing_between(reader, each, ends[each.topic, each.partition]) for each in told):
                return True
        return False
    finally:
        reader.close()


def _nothing_between(reader: Consumer, at: TopicPartition, end: int) -> bool:
    """Whether no record lies between a committed offset and the end."""
    reader.assign([TopicPartition(at.topic, at.partition, at.offset if at.offset >= 0 else OFFSET_BEGINNING)])
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for message in reader.consume(1, 0.5):
            return message.error() is not None and (message.offset() or 0) >= end
    return False


def _read_all(world: World) -> None:
    """From the beginning to the last stable offset of each partition."""
    reader = Consumer(
        world.settings(
            group_id="final",
            isolation_level="read_committed",
            enable_partition_eof=True,
            enable_auto_commit=False,
        )
    )
    ends = _ends(world, list(TOPICS))
    reader.assign([TopicPartition(topic, index, OFFSET_BEGINNING) for topic, index in ends])
    left = set(ends)
    deadline = time.monotonic() + DRAIN_S
    while left and time.monotonic() < deadline:
        found = []
        for message in reader.consume(2_000, 0.5):
            if message.error() is None:
                found.append(record_of(message))
                continue
            topic, partition, offset, _ = record_of(message)
            if offset >= ends[topic, partition]:
                left.discard((topic, partition))
        if found:
            world.recorder.add(Poll("final", 0, now(), found, final=True))
    reader.close()
    if left:
        world.trouble.append(f"not read to their end: {sorted(left)}")


def as_json(outcome: Outcome, seed: int) -> dict[str, object]:
    """For `verdict.json`, and for whoever comes after."""
    verdict = outcome.verdict
    return {
        "ok": outcome.ok,
        "seed": seed,
        "seconds": round(outcome.seconds),
        "events": outcome.events,
        "faults": outcome.faults,
        "records": dict(verdict.sends),
        "transactions": dict(verdict.transactions),
        "reads": verdict.reads,
        "commits": verdict.commits,
        "anomalies": dict(verdict.counts),
        "first": [f"{each.name}: {each.text}" for each in verdict.anomalies],
        "trouble": outcome.trouble,
    }
