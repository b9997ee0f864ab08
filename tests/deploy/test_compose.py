"""Compose for real: three nodes under clients outside and inside, of which one is killed, paused, stopped."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer
from confluent_kafka.admin import NewTopic, TopicMetadata

from deploy.engine import IMAGE, Compose, Engine, await_true, docker, needs_engine

pytestmark = [needs_engine, pytest.mark.timeout(300)]

TOPIC = "orders"
NODES = ("kafka-1", "kafka-2", "kafka-3")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Engine()
    yield made
    made.destroy()


@pytest.fixture(scope="module")
def combined(engine: Engine) -> Compose:
    project = engine.compose("compose.yaml")
    project.up()
    create(project)
    return project


def create(project: Compose) -> None:
    project.admin.create_topics([NewTopic(TOPIC, num_partitions=3, replication_factor=3)])[TOPIC].result(30)


def topic(project: Compose) -> TopicMetadata:
    return project.admin.list_topics(TOPIC, timeout=10).topics[TOPIC]


def leader(project: Compose, partition: int = 0) -> str:
    return f"kafka-{topic(project).partitions[partition].leader}"


def await_in_sync(project: Compose) -> None:
    def complete() -> bool:
        partitions = topic(project).partitions
        return len(partitions) == 3 and all(len(each.isrs) == 3 for each in partitions.values())

    await_true(complete, lambda: str({key: each.isrs for key, each in topic(project).partitions.items()}))


class Writer:
    """Values of its own, one after the other, until told to stop; what was acknowledged, and what was not."""

    def __init__(self, bootstrap: str) -> None:
        self.acknowledged: list[str] = []
        self.failed: list[tuple[str, KafkaError]] = []
        self._name = uuid.uuid4().hex
        self._stop = threading.Event()
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True, "linger.ms": 1}
        )
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def _write(self) -> None:
        number = 0
        while not self._stop.wait(0.005):
            self._producer.produce(TOPIC, f"{self._name}-{number}".encode(), on_delivery=self._told)
            self._producer.poll(0)
            number += 1
        self._producer.flush(60)

    def _told(self, error: KafkaError | None, message: Message) -> None:
        value = (message.value() or b"").decode()
        if error is None:
            self.acknowledged.append(value)
        else:
            self.failed.append((value, error))

    def await_more(self, count: int = 100) -> None:
        target = len(self.acknowledged) + count
        await_true(
            lambda: len(self.acknowledged) >= target, lambda: f"{len(self.acknowledged)}: {self.failed[:3]}"
        )

    def finish(self) -> None:
        self._stop.set()
        self._thread.join()


def everything(bootstrap: str, group: str) -> list[str]:
    """What lies in the topic."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
    )
    consumer.subscribe([TOPIC])
    found: list[str] = []
    ended: set[int] = set()
    while len(ended) < 3:
        message = consumer.poll(30)
        assert message is not None
        error = message.error()
        if error is None:
            found.append((message.value() or b"").decode())
        else:
            assert error.code() == KafkaError._PARTITION_EOF, error
            ended.add(message.partition() or 0)
    consumer.close()
    return found


@pytest.fixture
def writer(combined: Compose) -> Iterator[Writer]:
    await_in_sync(combined)
    made = Writer(combined.bootstrap)
    made.await_more()
    yield made
    made.finish()


def verify(project: Compose, writer: Writer, group: str) -> None:
    """Nothing failed, and everything is there once."""
    writer.await_more()
    writer.finish()
    assert writer.failed == []
    found = Counter(everything(project.bootstrap, group))
    assert {found[value] for value in writer.acknowledged} == {1}


def test_kill_9_of_a_leader(combined: Compose, writer: Writer) -> None:
    victim = leader(combined)
    combined("kill", victim)
    writer.await_more()
    assert leader(combined) != victim
    combined("start", victim)
    await_in_sync(combined)
    combined.container(victim).await_healthy()
    verify(combined, writer, "kill")


def test_a_leader_that_hangs(combined: Compose, writer: Writer) -> None:
    victim = leader(combined)
    combined("pause", victim)
    try:
        writer.await_more(500)
    finally:
        combined("unpause", victim)
    await_in_sync(combined)
    verify(combined, writer, "pause")


def test_a_leader_that_is_cut_off_and_comes_back_with_another_address(
    combined: Compose, writer: Writer
) -> None:
    victim = leader(combined)
    network, container = f"{combined.project}_default", combined.container(victim).name
    docker("network", "disconnect", network, container)
    try:
        writer.await_more(500)
    finally:
        docker("network", "connect", "--alias", victim, network, container)
    await_in_sync(combined)
    verify(combined, writer, "cut-off")


def test_one_after_the_other_is_restarted(combined: Compose, writer: Writer) -> None:
    for node in NODES:
        combined("restart", node)
        await_in_sync(combined)
        writer.await_more()
    for node in NODES:
        assert combined.container(node).state()["ExitCode"] == 0
    verify(combined, writer, "restart")


def test_clients_in_other_containers(combined: Compose) -> None:
    run = ("run", "--rm", "-i", "--network", f"{combined.project}_default", IMAGE)
    server = ("--bootstrap-server", "kafka-2:9092")
    docker(*run, "kafka-topics.sh", "--create", "--topic", "inside", *server)
    docker(*run, "kafka-console-producer.sh", "--topic", "inside", *server, given="one\ntwo\n")
    read = docker(
        *run,
        "kafka-console-consumer.sh",
        "--topic",
        "inside",
        "--from-beginning",
        "--max-messages",
        "2",
        *server,
    )
    assert sorted(read.stdout.split()) == ["one", "two"]


def test_down_and_up_again_keeps_everything(combined: Compose) -> None:
    before = sorted(everything(combined.bootstrap, "before"))
    combined("down")
    combined.up()
    assert sorted(everything(combined.bootstrap, "after")) == before


def test_controllers_of_their_own(engine: Engine) -> None:
    project = engine.compose("separate.yaml")
    project.up()
    create(project)
    await_in_sync(project)
    writer = Writer(project.bootstrap)
    writer.await_more()
    status = project.container("kafka-1").run(
        "kafka-metadata-quorum.sh", "--bootstrap-server", "localhost:9092", "describe", "--status"
    )
    active = next(line.split()[1] for line in status.stdout.splitlines() if line.startswith("LeaderId"))
    project("kill", f"controller-{int(active) - 100}")
    victim = leader(project)
    project("kill", victim)  # needs a controller for its partitions
    writer.await_more()
    project("start", victim, f"controller-{int(active) - 100}")
    await_in_sync(project)
    verify(project, writer, "separate")
    project("down", "-v")
