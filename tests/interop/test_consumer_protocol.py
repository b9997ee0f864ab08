"""The consumer protocol (KIP-848) with stock clients: librdkafka's consumer, Kafka's Java consumer, Kafka's tools."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from interop import jvm, real_kafka
from interop.cluster import ENVIRONMENT, PATIENCE_S, Node, ended, eventually, script, tool, unique

QUICK = (
    "group.consumer.min.heartbeat.interval.ms=200",
    "group.consumer.heartbeat.interval.ms=300",
    "group.consumer.min.session.timeout.ms=3000",
    "group.initial.rebalance.delay.ms=200",
)
JAVA = Path(__file__).parent / "clients" / "ConsumerProtocol.java"
KAFKAS_SESSION_S = 45.0
"""Sessions are as long as Kafka's unless a test needs short ones: a client that waits for the processor is not dead."""
SCENARIOS = ("sharing", "pattern", "statics", "migration", "configs")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with quick heartbeats, which some tests kill."""
    if os.environ.get(ENVIRONMENT):
        pytest.skip(f"{ENVIRONMENT} names a cluster with settings of its own")
    one = Node(tmp_path_factory.mktemp("kip848"), *QUICK)
    one.start()
    try:
        yield one
    finally:
        one.kill()


class Member:
    """A consumer on a thread of its own: reads, commits, and knows what it has."""

    def __init__(self, node: Node, group: str, topics: list[str], **settings: Any) -> None:
        self.seen: list[tuple[str, int, int]] = []
        self.revoked = 0
        self._owned: set[tuple[str, int]] = set()
        self.consumer = Consumer(
            {
                "bootstrap.servers": node.bootstrap,
                "group.id": group,
                "group.protocol": "consumer",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "reconnect.backoff.max.ms": 200,
                "topic.metadata.refresh.interval.ms": 500,
                "log_level": 0,
                **settings,
            }
        )
        self.consumer.subscribe(topics, on_revoke=self._on_revoke)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _on_revoke(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.revoked += len(partitions)

    def _run(self) -> None:
        while not self._stop.is_set():
            messages = [each for each in self.consumer.consume(200, 0.05) if each.error() is None]
            self.seen += [(each.topic(), each.partition(), each.offset()) for each in messages]
            self._owned = {(part.topic, part.partition) for part in self.consumer.assignment()}
            if messages:
                try:
                    self.consumer.commit(asynchronous=False)
                except KafkaException:
                    continue  # fenced, or the node is away: what is not committed is read again

    def partitions(self) -> set[tuple[str, int]]:
        return self._owned

    def close(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        self.consumer.close()


def create(node: Node, topic: str, partitions: int) -> str:
    admin = AdminClient({"bootstrap.servers": node.bootstrap})
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(PATIENCE_S)
    return topic


def write(node: Node, topic: str, partitions: int, count: int) -> None:
    producer = Producer({"bootstrap.servers": node.bootstrap, "log_level": 0})
    for number in range(count):
        producer.produce(topic, b"%d" % number, partition=number % partitions)
    assert producer.flush(PATIENCE_S) == 0


def shared(members: list[Member], topic: str, partitions: int) -> bool:
    """Everybody has something, and everything has one owner."""
    owned = [part for member in members for part in member.partitions()]
    return (
        all(member.partitions() for member in members)
        and len(owned) == partitions
        and {part for part in owned if part[0] == topic} == {(topic, each) for each in range(partitions)}
    )


def test_members_share_a_topic_and_read_everything_once(node: Node) -> None:
    topic, group = create(node, unique("shared"), 6), unique("group")
    members = [Member(node, group, [topic])]
    eventually(lambda: shared(members, topic, 6), PATIENCE_S, "one member does not get everything")
    members += [Member(node, group, [topic]) for _ in range(2)]
    eventually(lambda: shared(members, topic, 6), PATIENCE_S, "three members do not share")
    assert sorted(len(member.partitions()) for member in members) == [2, 2, 2]
    write(node, topic, 6, 600)
    eventually(lambda: sum(len(m.seen) for m in members) >= 600, PATIENCE_S, "not everything is read")
    everything = [place for member in members for place in member.seen]
    assert len(set(everything)) == len(everything) == 600
    members.pop(0).close()
    eventually(lambda: shared(members, topic, 6), PATIENCE_S, "nobody takes over from who left")
    write(node, topic, 6, 60)
    expected = 660 - 200
    eventually(lambda: sum(len(m.seen) for m in members) >= expected, PATIENCE_S, "they do not read on")
    for member in members:
        member.close()
    assert sum(len(m.seen) for m in members) == expected, "what was committed is read again"


KILLED = """
import sys
from confluent_kafka import Consumer
c = Consumer({"bootstrap.servers": sys.argv[1], "group.id": sys.argv[2], "group.protocol": "consumer",
              "auto.offset.reset": "earliest"})
c.subscribe([sys.argv[3]])
while True:
    c.poll(0.1)
    if c.assignment():
        print("assigned", flush=True)
"""


def test_a_member_that_is_killed_is_replaced_within_its_session(node: Node) -> None:
    topic, group = create(node, unique("killed"), 4), unique("group")
    at = ("--bootstrap-server", node.bootstrap, "--entity-type", "groups", "--entity-name", group)
    done = tool("configs", *at, "--alter", "--add-config", "consumer.session.timeout.ms=4000")
    assert done.returncode == 0, done.stderr.decode()
    process = script(KILLED, node.bootstrap, group, topic)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"assigned"
        survivor = Member(node, group, [topic])
        eventually(lambda: len(survivor.partitions()) == 2, PATIENCE_S, "they do not share")
        process.send_signal(signal.SIGKILL)
        eventually(lambda: shared([survivor], topic, 4), KAFKAS_SESSION_S, "nobody takes over")
        survivor.close()
    finally:
        ended([process])


def test_a_regular_expression_finds_topics_that_come_later(node: Node) -> None:
    prefix = unique("regex")
    create(node, f"{prefix}.one", 2)
    member = Member(node, unique("group"), [f"^{prefix}[.].*"])
    eventually(lambda: len(member.partitions()) == 2, PATIENCE_S, "the first topic is not found")
    create(node, f"{prefix}.two", 3)
    create(node, f"other-{prefix}.three", 1)
    eventually(lambda: len(member.partitions()) == 5, PATIENCE_S, "the later topic is not found")
    assert {name for name, _ in member.partitions()} == {f"{prefix}.one", f"{prefix}.two"}
    member.close()


def test_a_static_member_comes_back_to_its_partitions(node: Node) -> None:
    topic, group = create(node, unique("static"), 4), unique("group")
    one = Member(node, group, [topic], **{"group.instance.id": "one"})
    two = Member(node, group, [topic], **{"group.instance.id": "two"})
    eventually(lambda: shared([one, two], topic, 4), PATIENCE_S, "they do not share")
    had, moved = one.partitions(), two.revoked
    one.close()
    again = Member(node, group, [topic], **{"group.instance.id": "one"})
    eventually(lambda: again.partitions() == had, PATIENCE_S, "its partitions did not wait for it")
    assert two.revoked == moved, "the other one had to move"
    again.close()
    two.close()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_group_outlives_its_coordinator_killed(node: Node, protocol: str) -> None:
    """kill -9 and a restart: members go on where they were, and read nothing twice that was committed."""
    topic, group = create(node, unique("restart"), 4), unique("group")
    settings: dict[str, Any] = {"group.protocol": protocol}
    if protocol == "classic":
        settings |= {
            "session.timeout.ms": 30_000,
            "heartbeat.interval.ms": 300,
            "partition.assignment.strategy": "cooperative-sticky",
            "group.instance.id": unique("instance"),
        }
    first = Member(node, group, [topic], **settings)
    eventually(lambda: shared([first], topic, 4), PATIENCE_S, "no assignment")
    settings.pop("group.instance.id", None)
    members = [first, Member(node, group, [topic], **settings)]
    eventually(lambda: shared(members, topic, 4), PATIENCE_S, "they do not share")
    write(node, topic, 4, 400)
    eventually(lambda: sum(len(m.seen) for m in members) >= 400, PATIENCE_S, "not everything is read")
    before = [member.partitions() for member in members]
    node.restart()
    write(node, topic, 4, 400)
    eventually(lambda: sum(len(m.seen) for m in members) >= 800, PATIENCE_S, "they do not read on")
    everything = [place for member in members for place in member.seen]
    assert len(set(everything)) == 800
    assert [member.partitions() for member in members] == before, "nobody had to move"
    for member in members:
        member.close()


def test_members_change_their_protocol_one_by_one(node: Node) -> None:
    topic, group = create(node, unique("migrate"), 6), unique("group")
    classic = {
        "group.protocol": "classic",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": 30_000,
        "heartbeat.interval.ms": 300,
    }
    members = [Member(node, group, [topic], **classic) for _ in range(2)]
    eventually(lambda: shared(members, topic, 6), PATIENCE_S, "the classic members do not share")
    admin = AdminClient({"bootstrap.servers": node.bootstrap})

    def kind() -> str:
        return str(admin.describe_consumer_groups([group])[group].result(PATIENCE_S).type.name)

    assert kind() == "CLASSIC"
    for _ in range(2):
        members.pop(0).close()
        members.append(Member(node, group, [topic]))
        eventually(lambda: shared(members, topic, 6), PATIENCE_S, "a mixed group does not share")
        assert kind() == "CONSUMER"
    for _ in range(2):
        members.pop(0).close()
        members.append(Member(node, group, [topic], **classic))
        eventually(lambda: shared(members, topic, 6), PATIENCE_S, "a mixed group does not share")
    assert kind() == "CLASSIC"
    for member in members:
        member.close()


def test_tools_show_groups_of_both_kinds(node: Node) -> None:
    topic, group = create(node, unique("shown"), 2), unique("group")
    member = Member(node, group, [topic])
    eventually(lambda: shared([member], topic, 2), PATIENCE_S, "no assignment")
    where = ("--bootstrap-server", node.bootstrap)
    listed = tool("groups", *where, "--list").stdout.decode()
    assert re.search(rf"^{group} +Consumer +consumer *$", listed, re.MULTILINE)
    shown = tool("consumer-groups", *where, "--describe", "--group", group, "--members", "--verbose")
    assert f"{topic}:0,1" in shown.stdout.decode()
    state = tool("consumer-groups", *where, "--describe", "--group", group, "--state").stdout.decode()
    assert "uniform" in state
    assert "Stable" in state
    member.close()


@pytest.mark.usefixtures("kafka_tools")
def test_kafkas_dump_tool_reads_the_records_of_a_group(node: Node) -> None:
    topic, group = create(node, unique("dumped"), 2), unique("group")
    member = Member(node, group, [f"^{topic}"], **{"group.remote.assignor": "range"})
    eventually(lambda: shared([member], topic, 2), PATIENCE_S, "no assignment")
    member.close()
    types: set[str] = set()
    for log in node.data.glob("__consumer_offsets-*/*.log"):
        if group.encode() not in log.read_bytes():
            continue
        dumped = real_kafka.run_tool(
            "org.apache.kafka.tools.DumpLogSegments", ["--offsets-decoder", "--files", str(log)]
        )
        pattern = rf'key: {{"type":"(\d+)","data":{{"groupId":"{group}"'
        types |= set(re.findall(pattern, dumped.stdout.decode()))
    assert types == {"3", "5", "6", "7", "8", "16"}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that runs the Java client, compiled once."""
    try:
        path = jvm.classpath(*jvm.kafka("kafka-clients"), jvm.LOGGER)
        java = jvm.tool("java")
        path = jvm.compile_java(JAVA, path, tmp_path_factory.mktemp("classes"))
    except jvm.Unavailable as missing:
        pytest.skip(str(missing))
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"
    options = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", quiet]
    return [java, *options, "-cp", path, "ConsumerProtocol"]


def test_the_java_consumer(node: Node, program: list[str]) -> None:
    command = [*program, node.bootstrap, uuid.uuid4().hex[:8], *SCENARIOS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    passed = [json.loads(line)["passed"] for line in done.stdout.splitlines()]
    assert (passed, done.returncode) == (list(SCENARIOS), 0), done.stderr[-3000:]
