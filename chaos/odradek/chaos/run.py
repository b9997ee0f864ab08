"""A run: clients at work, faults, everything healed, everything read, the verdict."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from odradek.chaos.checker import Verdict, check
from odradek.chaos.clients import Topic, World, now, record_of
from odradek.chaos.faults import Faults
from odradek.chaos.history import DRAINED, Note, Poll, Recorder, read_history
from odradek.chaos.lives import Lives
from odradek.chaos.target import Target
from odradek.chaos.workload import DERIVED, DRAIN, LEDGER, TOPICS, TRANSACTIONAL, WORKERS

DRAIN_S = 120.0


class ChaosError(Exception):
    """The run could not be made; says why."""


@dataclass(slots=True)
class Outcome:
    """What a run ended with."""

    verdict: Verdict
    faults: dict[str, int]
    ends: dict[str, int]
    """Of clients."""
    seconds: float
    trouble: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.verdict.valid and not self.trouble


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
            if problem.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                continue  # the cluster is new: an earlier try of the client's did it
            raise ChaosError(f"topic {name} cannot be created: {problem}") from problem


def run(target: Target, place: Path, *, seconds: float, seed: int, told: Callable[[str], None]) -> Outcome:
    """Against a cluster that runs. Leaves `history/*.jsonl` and `verdict.json` in `place`."""
    (place / "history").mkdir(parents=True, exist_ok=True)
    (place / "run.json").write_text(json.dumps({"bootstrap": target.bootstrap, "seed": seed}))
    began = time.monotonic()
    with (place / "history" / "run.jsonl").open("w", buffering=1) as file:
        world = World(target.bootstrap, Recorder(file), threading.Event())
        create_topics(world, min(3, len(target.nodes())))
        lives = Lives(place, WORKERS, seed)
        lives.start()
        faults = Faults(target, world, seed, "__consumer_offsets")
        try:
            faults.run(began + seconds, LEDGER.name, lambda what: told(_progress(what, began, place)))
            told("healing")
            faults.heal()
        finally:
            lives.finish()
        trouble = lives.trouble + _finish(world, place, told)
    told("judging")
    verdict = check(read_history(*sorted((place / "history").iterdir())))
    outcome = Outcome(verdict, faults.done, lives.ends, time.monotonic() - began, trouble)
    (place / "verdict.json").write_text(json.dumps(as_json(outcome, seed), indent=1) + "\n")
    return outcome


def _progress(what: str, began: float, place: Path) -> str:
    written = sum(path.stat().st_size for path in (place / "history").iterdir())
    return f"{time.monotonic() - began:5.0f} s  {what:<16} history {written / 1e6:.1f} MB"


def _finish(world: World, place: Path, told: Callable[[str], None]) -> list[str]:
    """No transaction stays open; the ledger is worked off; everything is read once more. What went wrong."""
    trouble = []
    for name in TRANSACTIONAL:
        trouble += _close_transactions(world, name)
    told("working off what is left")
    drain = Lives(place, (DRAIN,), 0, mortal=False)
    drain.start()
    drained = _await_group(world, "movers", _ends(world, [LEDGER]))
    drain.finish()
    trouble += drain.trouble + _close_transactions(world, DRAIN)
    if drained:
        world.recorder.add(Note(now(), DRAINED, LEDGER.name, {"sink": DERIVED.name}))
    else:
        trouble.append(f"the ledger was not worked off within {DRAIN_S:.0f} s")
    told("reading everything")
    return trouble + _read_all(world)


def _close_transactions(world: World, name: str) -> list[str]:
    """A new producer of the same transactional id ends what the last one left open."""
    try:
        Producer(world.settings(transactional_id=name)).init_transactions(60)
    except KafkaException as problem:
        return [f"transactions of {name} cannot be closed: {problem}"]
    return []


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


def _read_all(world: World) -> list[str]:
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
    return [f"not read to their end: {sorted(left)}"] if left else []


def as_json(outcome: Outcome, seed: int) -> dict[str, object]:
    """For `verdict.json`, and for whoever comes after."""
    verdict = outcome.verdict
    return {
        "ok": outcome.ok,
        "seed": seed,
        "seconds": round(outcome.seconds),
        "faults": outcome.faults,
        "clients": outcome.ends,
        "records": dict(verdict.sends),
        "transactions": dict(verdict.transactions),
        "reads": verdict.reads,
        "commits": verdict.commits,
        "anomalies": dict(verdict.counts),
        "first": [f"{each.name}: {each.text}" for each in verdict.anomalies if each.name in verdict.errors],
        "trouble": outcome.trouble,
    }
