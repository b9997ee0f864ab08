"""A run: clients at work, faults, everything healed, everything read, the verdict."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic

from odradek.chaos.checker import Verdict, check
from odradek.chaos.clients import Topic, World, now, record_of
from odradek.chaos.faults import IN_SYNC_WITHIN_S, PROBE, Faults
from odradek.chaos.history import DRAINED, Note, Poll, Recorder, read_history
from odradek.chaos.judge import Availability, judge
from odradek.chaos.lives import Lives
from odradek.chaos.scenario import Scenario
from odradek.chaos.target import Target, TargetError
from odradek.chaos.timeline import Timeline
from odradek.chaos.workload import (
    DERIVED,
    DRAIN,
    GROUPS,
    LEDGER,
    MOVERS,
    PLAIN,
    TOPICS,
    transactional,
    workers,
)

DRAIN_S = 120.0
WORK_WITHIN_S = 60.0


class Interrupted(BaseException):
    """Somebody wants the run to end: raise it in the main thread, as SIGTERM's handler."""


class ChaosError(Exception):
    """The run could not be made; says why."""


@dataclass(slots=True)
class Outcome:
    """What a run ended with."""

    verdict: Verdict
    timeline: Timeline
    availability: Availability
    faults: dict[str, int]
    ends: dict[str, int]
    """Of clients."""
    seconds: float
    interrupted: bool = False
    trouble: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.verdict.valid and self.availability.ok and not self.trouble


class Watcher(Protocol):
    """Who looks at a run while it goes on."""

    def said(self, text: str) -> None:
        """What happens now."""

    def begins(self, until: float | None) -> None:
        """Faults begin, and end at `until` (time.monotonic), or with the plan."""


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
                continue  # there was none before: an earlier try of the client's did it
            raise ChaosError(f"topic {name} cannot be created: {problem}") from problem


def delete_what_is_left(world: World) -> None:
    """Topics and groups of an earlier run on the same cluster. ChaosError if they stay."""
    admin = AdminClient(world.settings())
    deadline = time.monotonic() + WORK_WITHIN_S
    while True:
        try:
            if _delete(admin):
                return
            said = "they are still there"
        except KafkaException as problem:
            said = str(problem)  # a coordinator that is loading, say
        if time.monotonic() > deadline:
            raise ChaosError(f"topics and groups of an earlier run cannot be deleted: {said}")
        world.stop.wait(0.2)


def _delete(admin: AdminClient) -> bool:
    """Whether nothing is left. KafkaException."""
    there = admin.list_topics(timeout=20).topics
    old = [name for name in there if name in {topic.name for topic in TOPICS} or name.startswith(PROBE)]
    for future in admin.delete_topics(old, request_timeout=20).values() if old else ():
        future.result(30)
    for future in admin.delete_consumer_groups(list(GROUPS), request_timeout=20).values():
        try:
            future.result(30)
        except KafkaException as problem:
            if problem.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
                raise
    return not old


def run(target: Target, scenario: Scenario, place: Path, *, seed: int, watcher: Watcher) -> Outcome:
    """Against a cluster that runs. Leaves `history/*.jsonl` in `place`.

    Ctrl-C, or SIGTERM, ends the faults: what is broken is healed, and what was done until then is judged.
    """
    (place / "history").mkdir(parents=True, exist_ok=True)
    settings = {
        "bootstrap": target.bootstrap,
        "seed": seed,
        "per_s": scenario.clients.per_s,
        "hasty": scenario.clients.mortal,
        "timeout_s": scenario.clients.timeout_s,
    }
    (place / "run.json").write_text(json.dumps(settings))
    began = time.monotonic()
    with (place / "history" / "run.jsonl").open("w", buffering=1) as file:
        world = World(target.bootstrap, Recorder(file), threading.Event())
        if not target.fresh:
            delete_what_is_left(world)
        create_topics(world, min(3, len(target.brokers())))
        names = workers(scenario.clients)
        lives = Lives(place, names, seed, mortal=scenario.clients.mortal)
        faults = Faults(target, world, scenario, seed, lives, names)
        lives.start()
        try:
            interrupted = _break(world, faults, scenario, watcher)
            lives.finish()
        finally:
            lives.abandon()
        trouble = faults.trouble + lives.trouble + _finish(world, place, names, watcher.said)
        if faults.slow_to_sync and not interrupted:
            said = f"replicas were not in sync {IN_SYNC_WITHIN_S:.0f} s after a fault"
            trouble.append(f"{said}, {faults.slow_to_sync} times")
    watcher.said("judging")
    timeline = Timeline(PLAIN.name)
    verdict = check(timeline.watch(read_history(*sorted((place / "history").iterdir()))))
    timeline.settle()
    return Outcome(
        verdict,
        timeline,
        judge(scenario, timeline),
        faults.done,
        lives.ends,
        time.monotonic() - began,
        interrupted,
        trouble,
    )


def _break(world: World, faults: Faults, scenario: Scenario, watcher: Watcher) -> bool:
    """Faults until they are over, and everything healed. Whether somebody wanted to stop before."""
    interrupted = False
    try:
        watcher.said("clients begin")
        _await_work(world)
        until = None if scenario.minutes is None else time.monotonic() + scenario.minutes * 60
        watcher.begins(until)
        faults.run(until, watcher.said)
    except (KeyboardInterrupt, Interrupted):
        interrupted = True
        watcher.said("interrupted")
    except TargetError as problem:
        faults.trouble.append(f"the plan was not carried out: {problem}")
    finally:
        watcher.said("healing")
        faults.heal()
    return interrupted


def _await_work(world: World) -> None:
    """Until every partition that is looked at has records: before, no fault can be told from a slow start."""
    admin = AdminClient(world.settings())
    latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    wanted = {TopicPartition(PLAIN.name, index): latest for index in range(PLAIN.partitions)}
    deadline = time.monotonic() + WORK_WITHIN_S
    said = "nobody writes"
    while time.monotonic() < deadline:
        try:
            ends = admin.list_offsets(wanted, request_timeout=5)
            if all(future.result(10).offset > 0 for future in ends.values()):
                return
        except KafkaException as problem:
            said = str(problem)  # a leader does not know yet that it leads, say
        world.stop.wait(0.1)
    raise ChaosError(f"not every partition of {PLAIN.name} has records after {WORK_WITHIN_S:.0f} s: {said}")


def _finish(world: World, place: Path, names: tuple[str, ...], told: Callable[[str], None]) -> list[str]:
    """No transaction stays open; the ledger is worked off; everything is read once more. What went wrong."""
    trouble = []
    for name in transactional(names):
        trouble += _close_transactions(world, name)
    if any(name.startswith("mover") for name in names):
        trouble += _work_off(world, place, told)
    told("reading everything")
    return trouble + _read_all(world)


def _work_off(world: World, place: Path, told: Callable[[str], None]) -> list[str]:
    """What the movers have left. What went wrong."""
    told("working off what is left")
    drain = Lives(place, (DRAIN,), 0, mortal=False)
    drain.start()
    try:
        drained = _await_group(world, MOVERS, _ends(world, [LEDGER]))
        drain.finish()
    finally:
        drain.abandon()
    trouble = drain.trouble + _close_transactions(world, DRAIN)
    if drained:
        world.recorder.add(Note(now(), DRAINED, LEDGER.name, {"sink": DERIVED.name}))
    else:
        trouble.append(f"the ledger was not worked off within {DRAIN_S:.0f} s")
    return trouble


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
