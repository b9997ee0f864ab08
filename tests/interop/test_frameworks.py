"""Kafka's own frameworks, unmodified, while what they stand on is killed: Kafka Streams and Kafka Connect."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any
from urllib.error import URLError

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from interop import jvm
from interop.cluster import ENVIRONMENT, PATIENCE_S, Node, eventually, free_ports

pytestmark = pytest.mark.timeout(900)

WORD_COUNT = Path(__file__).parent / "clients" / "WordCount.java"
PARTITIONS = 2
FRAMEWORK_S = 3 * PATIENCE_S
"""A framework starts a JVM with all of Kafka in it before it does anything."""
QUIET = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"
CONNECT = ("connect-runtime", "connect-file", "connect-json")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node of the test's own, for it is killed."""
    if os.environ.get(ENVIRONMENT):
        pytest.skip(f"{ENVIRONMENT} names a cluster that must not be killed")
    one = Node(tmp_path / "node")
    one.start()
    try:
        yield one
    finally:
        one.kill()


class Java:
    """A program that runs until it is killed."""

    def __init__(self, log: Path, path: str, *command: str) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    jvm.tool("java"),
                    "-Xmx256m",
                    "-XX:+UseSerialGC",
                    "-XX:TieredStopAtLevel=1",
                    QUIET,
                    "-cp",
                    path,
                    *command,
                ],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
            )

    def __enter__(self) -> Java:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def said(self) -> str:
        """What it has written, to its end."""
        return self.log.read_text(errors="replace")[-3000:]


def java_path(*artifacts: str) -> str:
    try:
        jvm.tool("java")
        jvm.tool("javac")
        return jvm.classpath(*jvm.kafka(*artifacts), jvm.LOGGER)
    except jvm.Unavailable as missing:
        pytest.skip(str(missing))


# -- Kafka Streams -----------------------------------------------------------------------------------------------


def write_lines(producer: Producer, count: int, rng: Random) -> Counter[str]:
    words: Counter[str] = Counter()
    for number in range(count):
        line = [f"word-{rng.randrange(20)}" for _ in range(4)]
        words.update(line)
        producer.produce("words", key=str(number % 7), value=" ".join(line))
    assert producer.flush(PATIENCE_S) == 0
    return words


class Counted:
    """What a read_committed reader has seen of `counted`, in order, by word."""

    def __init__(self, bootstrap: str) -> None:
        self.steps: dict[str, list[int]] = defaultdict(list)
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "reader",
                "isolation.level": "read_committed",
                "reconnect.backoff.max.ms": 200,
                "log_level": 0,
            }
        )
        self._consumer.assign([TopicPartition("counted", index, 0) for index in range(PARTITIONS)])

    def __enter__(self) -> Counted:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def await_total(self, words: Counter[str], why: Java) -> None:
        deadline = time.monotonic() + FRAMEWORK_S
        while sum(map(len, self.steps.values())) < words.total():
            assert time.monotonic() < deadline, why.said()
            message = self._consumer.poll(1.0)
            if message is not None and message.error() is None:
                self.steps[message.key().decode()].append(int(message.value()))

    def nothing_more(self) -> bool:
        return self._consumer.poll(1.0) is None


def test_streams_counts_each_word_once_while_node_and_application_are_killed(
    node: Node, tmp_path: Path
) -> None:
    """`exactly_once_v2`: offsets, counts, their changelog and results are one transaction; after a kill the counts
    come back from the changelog, which must hold nothing of an aborted one."""
    path = jvm.compile_java(WORD_COUNT, java_path("kafka-streams"), tmp_path)
    admin = AdminClient({"bootstrap.servers": node.bootstrap})
    for future in admin.create_topics(
        [NewTopic(name, PARTITIONS, 1) for name in ("words", "counted")]
    ).values():
        future.result(PATIENCE_S)
    settings = {"bootstrap.servers": node.bootstrap, "enable.idempotence": True, "log_level": 0}
    producer = Producer({**settings, "reconnect.backoff.max.ms": 200})
    rng = Random(1)

    def application(number: int) -> Java:
        state = str(tmp_path / f"state-{number}")
        return Java(tmp_path / f"streams-{number}.log", path, "WordCount", node.bootstrap, "count", state)

    with Counted(node.bootstrap) as seen:
        with application(1) as first:
            words = write_lines(producer, 300, rng)
            seen.await_total(words, first)
            words += write_lines(producer, 300, rng)
            node.restart()
            words += write_lines(producer, 300, rng)
            seen.await_total(words, first)
            words += write_lines(producer, 300, rng)
        with application(2) as second:
            seen.await_total(words, second)
            assert seen.nothing_more()
    assert seen.steps == {word: list(range(1, count + 1)) for word, count in words.items()}


# -- Kafka Connect -----------------------------------------------------------------------------------------------


class Worker(Java):
    """One worker of a distributed Connect, spoken to over its REST interface."""

    def __init__(self, directory: Path, path: str, bootstrap: str) -> None:
        (port,) = free_ports(1)
        self.address = f"http://localhost:{port}"
        topics = ("offset", "config", "status")
        settings = {
            "bootstrap.servers": bootstrap,
            "group.id": "connect",
            "key.converter": "org.apache.kafka.connect.json.JsonConverter",
            "value.converter": "org.apache.kafka.connect.json.JsonConverter",
            "exactly.once.source.support": "enabled",
            "offset.flush.interval.ms": "500",
            "plugin.discovery": "service_load",
            "listeners": self.address,
            **{f"{kind}.storage.topic": f"connect-{kind}s" for kind in topics},
            **{f"{kind}.storage.replication.factor": "1" for kind in topics},
        }
        file = directory / "worker.properties"
        file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        super().__init__(
            directory / "connect.log", path, "org.apache.kafka.connect.cli.ConnectDistributed", str(file)
        )

    def ask(self, what: str, body: dict[str, Any] | None = None) -> Any:
        """None while the worker cannot answer."""
        request = urllib.request.Request(
            f"{self.address}{what}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
                return json.load(response)
        except (URLError, TimeoutError, ConnectionError):
            assert self.process.poll() is None, self.said()
            return None

    def add(self, name: str, **config: str) -> None:
        made = eventually(
            lambda: self.ask("/connectors", {"name": name, "config": {"tasks.max": "1", **config}}),
            FRAMEWORK_S,
            f"connector {name} was not made: {self.said()}",
            every_s=0.5,
        )
        assert made["name"] == name


def test_connect_copies_each_line_once_while_the_node_is_killed(node: Node, tmp_path: Path) -> None:
    """A source with exactly-once support, which fences what it was before by its transactional id, and a sink."""
    path = java_path(*CONNECT)
    source, target = tmp_path / "in.txt", tmp_path / "out.txt"
    classes = "org.apache.kafka.connect.file.FileStream"
    lines = [f"line {number}" for number in range(3000)]
    source.write_text("".join(f"{line}\n" for line in lines[:1000]))

    def copied(count: int) -> bool:
        return target.exists() and len(target.read_text().splitlines()) >= count

    with Worker(tmp_path, path, node.bootstrap) as worker:
        worker.add(
            "source",
            **{"connector.class": f"{classes}SourceConnector", "exactly.once.support": "required"},
            file=str(source),
            topic="lines",
        )
        worker.add("sink", **{"connector.class": f"{classes}SinkConnector"}, file=str(target), topics="lines")
        eventually(lambda: copied(1000), FRAMEWORK_S, f"the first lines were not copied: {worker.said()}")
        with source.open("a") as more:
            more.writelines(f"{line}\n" for line in lines[1000:2000])
        node.restart()
        with source.open("a") as more:
            more.writelines(f"{line}\n" for line in lines[2000:])
        eventually(lambda: copied(3000), FRAMEWORK_S, f"lines are missing: {worker.said()}")
        status = worker.ask("/connectors/source/status")
    assert [task["state"] for task in status["tasks"]] == ["RUNNING"]
    assert written_once(node, lines)
    assert set(target.read_text().splitlines()) == set(lines), (
        "a sink may write a line again, never another one"
    )


def written_once(node: Node, lines: list[str]) -> bool:
    """Each line is in the topic once, in order, as a read_committed reader sees it."""
    consumer = Consumer({"bootstrap.servers": node.bootstrap, "group.id": "reader", "log_level": 0})
    consumer.assign([TopicPartition("lines", 0, 0)])
    found: list[str] = []
    deadline = time.monotonic() + FRAMEWORK_S
    while len(found) < len(lines) and time.monotonic() < deadline:
        message = consumer.poll(1.0)
        if message is not None and message.error() is None:
            found.append(json.loads(message.value())["payload"])
    assert consumer.poll(1.0) is None, "more than was written"
    consumer.close()
    return found == lines
