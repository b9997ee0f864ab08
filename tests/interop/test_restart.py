"""kill -9 and SIGTERM: what was acknowledged is there afterwards, for clients that never heard of a restart."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from interop.cluster import PATIENCE_S, Node, eventually, free_ports, unique


def quick(node: Node, **settings: Any) -> dict[str, Any]:
    """Settings of a client that is quick to find the node again and keeps its log to itself."""
    return {"bootstrap.servers": node.bootstrap, "reconnect.backoff.max.ms": 200, "log_level": 0, **settings}


def create(node: Node, topic: str, partitions: int = 1, **configs: str) -> None:
    admin = AdminClient(quick(node))
    admin.create_topics([NewTopic(topic, partitions, 1, config=configs)])[topic].result(PATIENCE_S)


def read(node: Node, topic: str, count: int, partitions: int = 1) -> list[Any]:
    consumer = Consumer(quick(node, **{"group.id": unique("reader")}))
    consumer.assign([TopicPartition(topic, part, 0) for part in range(partitions)])
    messages: list[Any] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(messages) < count:
        assert time.monotonic() < deadline, f"{len(messages)} of {count} records are there"
        messages += [message for message in consumer.consume(1000, 0.5) if message.error() is None]
    consumer.close()
    return messages


class Writer(threading.Thread):
    """Writes without a pause, by one idempotent producer, until told to stop; `acknowledged` in order."""

    def __init__(self, node: Node, topic: str) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[tuple[int, int]] = []
        self.failures: list[str] = []
        self._topic = topic
        self._stop_asked = threading.Event()
        settings = {"enable.idempotence": True, "linger.ms": 2, "message.timeout.ms": 60_000}
        self._producer = Producer(quick(node, **settings))
        self.start()

    def run(self) -> None:
        number = 0
        while not self._stop_asked.is_set():
            self._producer.produce(self._topic, b"%d" % number, on_delivery=self._delivered)
            self._producer.poll(0)
            number += 1
            if number % 50 == 0:
                self._producer.poll(0.01)
        self._producer.flush(60)

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self.failures.append(str(error))
        else:
            self.acknowledged.append((message.offset(), int(message.value())))

    def finish(self) -> None:
        self._stop_asked.set()
        self.join(70)
        assert not self.is_alive(), "the producer did not finish"


def test_an_idempotent_producer_writes_through_three_kills(own_node: Node) -> None:
    own_node.start()
    topic = unique("through")
    create(own_node, topic)
    writer = Writer(own_node, topic)
    for _ in range(3):
        already = len(writer.acknowledged)
        eventually(lambda: len(writer.acknowledged) > already + 1_000, PATIENCE_S, "nothing is acknowledged")  # noqa: B023
        own_node.restart()
    writer.finish()
    assert writer.failures == []
    messages = read(own_node, topic, len(writer.acknowledged))
    assert [int(message.value()) for message in messages] == list(range(len(writer.acknowledged)))
    there = {message.offset(): int(message.value()) for message in messages}
    assert all(there[offset] == number for offset, number in writer.acknowledged)


def test_topics_configs_and_group_offsets_survive_kill_9(own_node: Node) -> None:
    own_node.start()
    topic, group = unique("kept"), unique("group")
    create(own_node, topic, 3, **{"retention.ms": "7200000"})
    producer = Producer(quick(own_node))
    for number in range(90):
        producer.produce(topic, b"%d" % number, b"key", partition=number % 3)
    assert producer.flush(PATIENCE_S) == 0
    settings = quick(own_node, **{"group.id": group, "enable.auto.commit": False})
    consumer = Consumer(settings)
    wanted = [TopicPartition(topic, part, 10 + part) for part in range(3)]
    consumer.commit(offsets=wanted, asynchronous=False)
    consumer.close()
    admin = AdminClient(quick(own_node))
    before = admin.describe_cluster().result(PATIENCE_S).cluster_id

    own_node.restart()

    admin = AdminClient(quick(own_node))
    assert admin.describe_cluster().result(PATIENCE_S).cluster_id == before
    assert sorted(admin.list_topics(topic, timeout=PATIENCE_S).topics[topic].partitions) == [0, 1, 2]
    resource = ConfigResource(ResourceType.TOPIC, topic)
    assert admin.describe_configs([resource])[resource].result(PATIENCE_S)["retention.ms"].value == "7200000"
    assert len(read(own_node, topic, 90, 3)) == 90
    consumer = Consumer(settings)
    kept = consumer.committed([TopicPartition(topic, part) for part in range(3)], timeout=PATIENCE_S)
    consumer.close()
    assert [part.offset for part in kept] == [10, 11, 12]


def test_a_deleted_topic_stays_deleted(own_node: Node) -> None:
    own_node.start()
    topic = unique("gone")
    create(own_node, topic)
    producer = Producer(quick(own_node))
    producer.produce(topic, b"v")
    assert producer.flush(PATIENCE_S) == 0
    admin = AdminClient(quick(own_node))
    admin.delete_topics([topic])[topic].result(PATIENCE_S)
    own_node.restart()
    admin = AdminClient(quick(own_node))
    assert topic not in admin.list_topics(timeout=PATIENCE_S).topics
    create(own_node, topic)
    consumer = Consumer(quick(own_node, **{"group.id": unique("reader")}))
    assert consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=PATIENCE_S) == (0, 0)
    consumer.close()


def test_a_consumer_goes_on_after_a_restart(own_node: Node) -> None:
    """The group is kept, too: the member neither loses nor repeats what it committed."""
    own_node.start()
    topic = unique("goes-on")
    create(own_node, topic)
    producer = Producer(quick(own_node))
    consumer = Consumer(quick(own_node, **{"group.id": unique("group"), "auto.offset.reset": "earliest"}))
    consumer.subscribe([topic])
    seen: list[int] = []

    def saw(count: int) -> bool:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            seen.append(int(message.value()))
            consumer.commit(message, asynchronous=True)
        return len(seen) >= count

    for number in range(20):
        producer.produce(topic, b"%d" % number)
    producer.flush(PATIENCE_S)
    eventually(lambda: saw(20), PATIENCE_S, "the first records did not come", every_s=0)
    own_node.restart()
    for number in range(20, 40):
        producer.produce(topic, b"%d" % number)
    assert producer.flush(PATIENCE_S) == 0
    eventually(lambda: saw(40), PATIENCE_S, "the records after the restart did not come", every_s=0)
    assert seen == list(range(40))
    consumer.close()


def test_sigterm_ends_the_node_in_order(own_node: Node) -> None:
    own_node.start()
    topic = unique("orderly")
    create(own_node, topic)
    producer = Producer(quick(own_node))
    producer.produce(topic, b"v")
    assert producer.flush(PATIENCE_S) == 0
    assert own_node.stop() == 0
    assert (own_node.data / ".kafka_cleanshutdown").exists()
    own_node.start()
    assert not (own_node.data / ".kafka_cleanshutdown").exists()
    assert [message.value() for message in read(own_node, topic, 1)] == [b"v"]


def test_the_console_tools_ride_out_a_restart(own_node: Node) -> None:
    """What is typed while the node is away arrives, and both tools say that they wait."""
    own_node.start()
    topic = unique("typed")
    create(own_node, topic)
    at = ("--bootstrap-server", own_node.bootstrap, "--topic", topic)
    reader = start_tool("console-consumer", *at, "--from-beginning")
    writer = start_tool("console-producer", *at, "--timeout", "5")
    assert reader.stdout is not None and writer.stdin is not None
    assert reader.stderr is not None and writer.stderr is not None
    lost = f"WARN Connection to {own_node.bootstrap} could not be established; trying again.\n".encode()
    try:
        for number in range(20):
            if number == 10:
                own_node.kill()
            writer.stdin.write(b"line %d\n" % number)
            writer.stdin.flush()
            if number < 10:
                assert reader.stdout.readline() == b"line %d\n" % number
        assert reader.stderr.readline() == writer.stderr.readline() == lost
        own_node.start()
        for number in range(10, 20):
            assert reader.stdout.readline() == b"line %d\n" % number
        writer.stdin.close()
        assert writer.wait(PATIENCE_S) == 0
        reader.send_signal(signal.SIGINT)
        reader.wait(PATIENCE_S)
        # Both say it again after half a minute, should the node take so long to start.
        assert reader.stderr.read().replace(lost, b"") == b"Processed a total of 20 messages\n"
        assert writer.stderr.read().replace(lost, b"") == b""
    finally:
        for process in (reader, writer):
            process.kill()
            process.wait()


def start_tool(name: str, *args: str) -> subprocess.Popen[bytes]:
    """A tool with pipes to talk through."""
    return subprocess.Popen(
        [sys.executable, "-m", "odradek.cli.main", name, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_two_nodes_cannot_share_a_data_directory(own_node: Node, tmp_path: Any) -> None:
    own_node.start()
    second = Node(own_node.directory)
    with pytest.raises(AssertionError, match=r"[Ll]ock"):
        second.start()
    with pytest.raises(KafkaException):
        AdminClient(quick(second)).list_topics(timeout=1)
    AdminClient(quick(own_node)).list_topics(timeout=PATIENCE_S)


def test_a_node_stopped_while_it_waits_for_its_cluster_never_says_that_it_is_ready(tmp_path: Path) -> None:
    port, nobody = free_ports(2)
    file = tmp_path / "server.properties"
    file.write_text(
        f"process.roles=broker\nnode.id=1\nlog.dirs={tmp_path}/data\nlisteners=PLAINTEXT://localhost:{port}\n"
        f"controller.listener.names=CONTROLLER\ncontroller.quorum.voters=2@localhost:{nobody}\n"
    )
    command = [sys.executable, "-m", "odradek.cli.main", "server", str(file), "--log-format", "json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        eventually(
            (tmp_path / "data" / "meta.properties").exists, PATIENCE_S, "the node has not taken its directory"
        )
        process.terminate()
        said, _ = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == 0
    events = [json.loads(line)["message"] for line in said.splitlines()]
    assert events[-1] == "stopped"
    assert "ready" not in events
