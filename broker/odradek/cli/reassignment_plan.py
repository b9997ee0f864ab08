"""What `kafka-reassign-partitions` works out by itself: its JSON files, throttles, where to put replicas."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from odradek.cli.options import ToolError

ANY = "any"
"""A log directory that nobody cares about."""


class Part(NamedTuple):
    """A partition; `str()` gives Kafka's `topic-0`."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


class Replica(NamedTuple):
    """A replica, in Kafka's order of sorting; `str()` gives Kafka's `topic-0-1`."""

    broker: int
    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}-{self.broker}"


Replicas = Sequence[int]


class Plan(NamedTuple):
    """A reassignment as its file has it."""

    parts: list[tuple[Part, list[int]]]
    directories: dict[Replica, str]

    @property
    def replicas(self) -> dict[Part, list[int]]:
        """By partition; for a plan that `checked` has let pass."""
        return dict(self.parts)

    @property
    def topics(self) -> list[str]:
        return sorted({part.topic for part, _ in self.parts})


def parse_json(text: str) -> Any:
    """A JSON object. ToolError with what Kafka's tool says of anything else."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ToolError(f"Error: The input string is not a valid JSON ({error})", to_stdout=True) from error
    if not isinstance(data, dict):
        raise ToolError("Error: The input string is not a valid JSON", to_stdout=True)
    version = data.get("version", 1)
    if version != 1:
        raise ToolError(f"Error: Not supported version field value {version}", to_stdout=True)
    return data


def parse_plan(text: str) -> Plan:
    """`{"partitions": [{"topic": …, "partition": …, "replicas": […], "log_dirs": […]}], "version": 1}`."""
    plan = Plan([], {})
    for entry in parse_json(text).get("partitions", []):
        topic, partition = _field(entry, "topic", str), _field(entry, "partition", int)
        part = Part(topic, partition)
        replicas = _items(entry, "replicas", int)
        directories = _items(entry, "log_dirs", str) if "log_dirs" in entry else [ANY] * len(replicas)
        if len(replicas) != len(directories):
            raise ToolError(
                f"Error: Size of replicas list [{_joined(replicas, ', ')}] is different from size of log dirs list "
                f"[{', '.join(directories)}] for partition {part}",
                to_stdout=True,
            )
        plan.parts.append((part, replicas))
        for broker, directory in zip(replicas, directories, strict=True):
            if directory != ANY:
                plan.directories[Replica(broker, topic, partition)] = directory
    return plan


def checked(plan: Plan) -> Plan:
    """The plan, if it can be executed."""
    if not plan.parts:
        raise ToolError("Error: Partition reassignment list cannot be empty", to_stdout=True)
    if not all(replicas for _, replicas in plan.parts):
        raise ToolError("Error: Partition replica list cannot be empty", to_stdout=True)
    twice = _twice(part for part, _ in plan.parts)
    if twice:
        why = f"Error: Partition reassignment contains duplicate topic partitions: {_joined(twice)}"
        raise ToolError(why, to_stdout=True)
    repeated = [(part, _twice(replicas)) for part, replicas in plan.parts if _twice(replicas)]
    if repeated:
        what = ". ".join(f"{part} contains multiple entries for {_joined(each)}" for part, each in repeated)
        raise ToolError(
            f"Error: Partition replica lists may not contain duplicate entries: {what}", to_stdout=True
        )
    return plan


def parse_topics(text: str) -> list[str]:
    """`{"topics": [{"topic": …}], "version": 1}`."""
    topics = [_field(entry, "topic", str) for entry in parse_json(text).get("topics", [])]
    twice = _twice(topics)
    if twice:
        why = f"Error: List of topics to reassign contains duplicate entries: [{', '.join(twice)}]"
        raise ToolError(why, to_stdout=True)
    return topics


def parse_brokers(text: str) -> list[int]:
    """`0,1,2`."""
    try:
        brokers = [int(part) for part in text.split(",")]
    except ValueError:
        raise ToolError(f"--broker-list: '{text}' is no list of broker ids like 0,1,2") from None
    twice = _twice(brokers)
    if twice:
        why = f"Error: Broker list contains duplicate entries: [{_joined(twice, ', ')}]"
        raise ToolError(why, to_stdout=True)
    return brokers


def as_json(parts: Mapping[Part, Replicas], directories: Mapping[Replica, str]) -> str:
    """The file that leads there."""
    entries = [
        {
            "topic": part.topic,
            "partition": part.partition,
            "replicas": list(parts[part]),
            "log_dirs": [directories.get(Replica(broker, *part), ANY) for broker in parts[part]],
        }
        for part in sorted(parts)
    ]
    return json.dumps({"version": 1, "partitions": entries}, separators=(",", ":"))


# Throttles ---------------------------------------------------------------------------------------------------------


class Move(NamedTuple):
    """Which brokers send a partition, and which take it."""

    sources: frozenset[int]
    destinations: frozenset[int]


def moves_of(
    ongoing: Mapping[Part, Mapping[str, Any]],
    proposed: Mapping[Part, Replicas],
    current: Mapping[Part, Replicas],
) -> dict[Part, Move]:
    """Of what is under way already, and of what is about to be. A replica that leaves goes on sending."""
    found = {}
    for part, state in ongoing.items():
        adding = frozenset(state["adding_replicas"])
        found[part] = Move(frozenset(state["replicas"]) - adding, adding)
    for part, replicas in proposed.items():
        sources = found[part].sources if part in found else frozenset(current[part])
        found[part] = Move(sources, frozenset(replicas) - sources)
    return found


def throttled_replicas(moves: Mapping[Part, Move]) -> dict[str, tuple[str, str]]:
    """(leaders', followers') `throttled.replicas` by topic."""
    found = {}
    for topic in sorted({part.topic for part in moves}):
        mine = [(part.partition, move) for part, move in moves.items() if part.topic == topic]
        leaders = sorted(f"{index}:{broker}" for index, move in mine for broker in move.sources)
        followers = sorted(
            f"{index}:{broker}" for index, move in mine for broker in move.destinations - move.sources
        )
        found[topic] = ",".join(leaders), ",".join(followers)
    return found


# Placement ---------------------------------------------------------------------------------------------------------


def place(
    current: Mapping[Part, Replicas], racks: Mapping[int, str | None], rng: Random
) -> dict[Part, list[int]]:
    """New replicas for all partitions, topic by topic, on the brokers in `racks` (AdminUtils in Kafka): evenly, from a
    random start, and where all brokers have a rack on as many racks as there are.
    """
    if any(rack is None for rack in racks.values()) and not all(rack is None for rack in racks.values()):
        raise ToolError(
            "Error: Not all brokers have rack information. Add --disable-rack-aware in command line to make replica "
            "assignment without rack information.",
            to_stdout=True,
        )
    found: dict[Part, list[int]] = {}
    for topic in sorted({part.topic for part in current}):
        mine = sorted(part for part in current if part.topic == topic)
        factor = len(current[mine[0]])
        if factor > len(racks):
            why = f"Error: Replication factor: {factor} larger than available brokers: {len(racks)}."
            raise ToolError(why, to_stdout=True)
        brokers = _alternating(racks)
        start, shift = rng.randrange(len(brokers)), rng.randrange(len(brokers))
        for number, part in enumerate(mine):
            if number and number % len(brokers) == 0:
                shift += 1
            found[part] = _replicas(brokers, racks, factor, (number + start) % len(brokers), shift)
    return found


def _alternating(racks: Mapping[int, str | None]) -> list[int]:
    """Brokers so that neighbours are on different racks."""
    by_rack: dict[str, list[int]] = {}
    for broker in sorted(racks):
        by_rack.setdefault(racks[broker] or "", []).append(broker)
    rows = [by_rack[rack] for rack in sorted(by_rack)]
    return [row[at] for at in range(max(map(len, rows))) for row in rows if at < len(row)]


def _replicas(
    brokers: Sequence[int], racks: Mapping[int, str | None], factor: int, first: int, shift: int
) -> list[int]:
    """The broker at `first`, then others `shift` further, each on a rack that is new as long as there is one."""
    count = len(brokers)
    chosen = [brokers[first]]
    all_racks = set(racks.values())
    step = 0
    while len(chosen) < factor:
        candidate = brokers[(first + 1 + (shift + step) % (count - 1)) % count]
        step += 1
        used = {racks[broker] for broker in chosen}
        if candidate not in chosen and (racks[candidate] not in used or used == all_racks):
            chosen.append(candidate)
    return chosen


# Reading -----------------------------------------------------------------------------------------------------------


def _field(entry: Any, name: str, kind: type) -> Any:
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        what = "text" if kind is str else "a number"
        raise ToolError(
            f'Error: Each entry needs a "{name}" that is {what}, not {json.dumps(entry)}', to_stdout=True
        )
    return value


def _items(entry: Mapping[str, Any], name: str, kind: type) -> list[Any]:
    values = _field(entry, name, list)
    if not all(isinstance(value, kind) and not isinstance(value, bool) for value in values):
        raise ToolError(f'Error: "{name}" has something else in it: {json.dumps(entry)}', to_stdout=True)
    return list(values)


def _twice(items: Iterable[Any]) -> list[Any]:
    listed = list(items)
    return sorted({item for item in listed if listed.count(item) > 1})


def _joined(items: Collection[Any], between: str = ",") -> str:
    return between.join(map(str, items))
