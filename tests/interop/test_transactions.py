"""Transactions with stock clients: librdkafka's transactional producer, Kafka's tool, kill -9 in the middle."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from interop import real_kafka
from interop.cluster import ENVIRONMENT, PATIENCE_S, Node, eventually, unique

CreateTopic = Callable[..., str]
LONG = {"transaction.timeout.ms": 600_000}
"""On a busy machine a test may take longer than the minute after which transactions are aborted."""
COMMITTED, UNCOMMITTED = "read_committed", "read_uncommitted"


def transactional(bootstrap: str, transactional_id: str, **settings: Any) -> Producer:
    """A producer whose transactions have been initialised: what another one of this id had open is over."""
    given = {key.replace("_", "."): value for key, value in settings.items()}
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": transactional_id,
            **LONG,
            "log_level": 0,
            **given,
        }
    )
    producer.init_transactions(PATIENCE_S)
    return producer


def read(bootstrap: str, topic: str, isolation_level: str, partitions: int = 1) -> list[str]:
    """All values up to the end that this isolation level has, partition by partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": unique("reader"),
            "isolation.level": isolation_level,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    values: list[str] = []
    try:
        for index in range(partitions):
            consumer.assign([TopicPartition(topic, index, 0)])
            while True:
                message = consumer.poll(PATIENCE_S)
                assert message is not None, "the consumer hears nothing"
                if message.error():
                    assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                    break
                values.append(message.value().decode())
    finally:
        consumer.close()
    return values


def committed_offset(bootstrap: str, group: str, topic: str) -> int:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "isolation.level": COMMITTED,
            "log_level": 0,
        }
    )
    try:
        (found,) = consumer.committed([TopicPartition(topic, 0)], timeout=PATIENCE_S)
        return int(found.offset)
    finally:
        consumer.close()


def test_committed_is_read_and_aborted_is_not(bootstrap: str, new_topic: CreateTopic) -> None:
    topic = new_topic("txn", partitions=2)
    producer = transactional(bootstrap, unique("id"))
    for number, commit in enumerate((True, False, True)):
        producer.begin_transaction()
        for index in range(2):
            producer.produce(topic, f"{number}-{index}", partition=index)
        if commit:
            producer.commit_transaction(PATIENCE_S)
        else:
            producer.flush(PATIENCE_S)
            producer.abort_transaction(PATIENCE_S)
    assert read(bootstrap, topic, COMMITTED, 2) == ["0-0", "2-0", "0-1", "2-1"]
    assert read(bootstrap, topic, UNCOMMITTED, 2) == ["0-0", "1-0", "2-0", "0-1", "1-1", "2-1"]


def test_an_open_transaction_is_not_read_until_it_is_committed(
    bootstrap: str, new_topic: CreateTopic
) -> None:
    topic = new_topic("txn")
    producer = transactional(bootstrap, unique("id"))
    plain = Producer({"bootstrap.servers": bootstrap})
    producer.begin_transaction()
    producer.produce(topic, "open")
    producer.flush(PATIENCE_S)
    plain.produce(topic, "plain")
    plain.flush(PATIENCE_S)
    assert read(bootstrap, topic, COMMITTED) == []
    assert read(bootstrap, topic, UNCOMMITTED) == ["open", "plain"]
    producer.commit_transaction(PATIENCE_S)
    eventually(
        lambda: read(bootstrap, topic, COMMITTED) == ["open", "plain"], 10, "the transaction is not read"
    )


def test_many_transactions_one_after_the_other(bootstrap: str, new_topic: CreateTopic) -> None:
    topic = new_topic("txn", partitions=3)
    producer = transactional(bootstrap, unique("id"))
    expected: list[str] = []
    for number in range(60):
        producer.begin_transaction()
        for at in range(5):
            producer.produce(topic, f"{number}-{at}", partition=at % 3)
        if number % 4 == 3:
            producer.abort_transaction(PATIENCE_S)
        else:
            producer.commit_transaction(PATIENCE_S)
            expected += [f"{number}-{at}" for at in range(5)]
    assert sorted(read(bootstrap, topic, COMMITTED, 3)) == sorted(expected)


def test_a_twin_fences_its_predecessor(bootstrap: str, new_topic: CreateTopic) -> None:
    topic = new_topic("txn")
    transactional_id = unique("id")
    first = transactional(bootstrap, transactional_id)
    first.begin_transaction()
    first.produce(topic, "zombie")
    first.flush(PATIENCE_S)
    second = transactional(bootstrap, transactional_id)
    second.begin_transaction()
    second.produce(topic, "heir")
    second.commit_transaction(PATIENCE_S)
    with pytest.raises(KafkaException) as error:
        first.commit_transaction(PATIENCE_S)
    assert error.value.args[0].code() in (KafkaError._FENCED, KafkaError.PRODUCER_FENCED)
    assert error.value.args[0].fatal()
    assert read(bootstrap, topic, COMMITTED) == ["heir"]


def consume_one(bootstrap: str, topic: str, group: str) -> tuple[Consumer, Any]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "isolation.level": COMMITTED,
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    consumer.subscribe([topic])
    message = consumer.poll(PATIENCE_S)
    assert message is not None
    assert message.error() is None
    return consumer, message


@pytest.mark.parametrize("commit", [True, False])
def test_offsets_go_with_the_transaction(bootstrap: str, new_topic: CreateTopic, commit: bool) -> None:
    source, target, group = new_topic("source"), new_topic("target"), unique("group")
    plain = Producer({"bootstrap.servers": bootstrap})
    plain.produce(source, "one")
    plain.flush(PATIENCE_S)
    consumer, message = consume_one(bootstrap, source, group)
    producer = transactional(bootstrap, unique("id"))
    producer.begin_transaction()
    producer.produce(target, b"seen " + message.value())
    positions = consumer.position(consumer.assignment())
    producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata(), PATIENCE_S)
    if commit:
        producer.commit_transaction(PATIENCE_S)
    else:
        producer.abort_transaction(PATIENCE_S)
    consumer.close()
    assert read(bootstrap, target, COMMITTED) == (["seen one"] if commit else [])
    assert committed_offset(bootstrap, group, source) == (1 if commit else -1001)


def test_offsets_of_a_member_that_was_replaced_are_refused(bootstrap: str, new_topic: CreateTopic) -> None:
    """KIP-447: no epoch of the producer is too old, but its consumer's generation is."""
    source, group = new_topic("source"), unique("group")
    plain = Producer({"bootstrap.servers": bootstrap})
    plain.produce(source, "one")
    plain.flush(PATIENCE_S)
    consumer, _ = consume_one(bootstrap, source, group)
    positions = consumer.position(consumer.assignment())
    metadata = consumer.consumer_group_metadata()
    consumer.close()
    heir, _ = consume_one(bootstrap, source, group)
    producer = transactional(bootstrap, unique("id"))
    producer.begin_transaction()
    with pytest.raises(KafkaException) as error:
        producer.send_offsets_to_transaction(positions, metadata, PATIENCE_S)
    assert error.value.args[0].txn_requires_abort()
    producer.abort_transaction(PATIENCE_S)
    heir.close()
    assert committed_offset(bootstrap, group, source) == -1001


@pytest.fixture
def restarted(own_node: Node) -> Iterator[Node]:
    own_node.start()
    yield own_node


def test_kill_9_of_the_node_in_the_middle_of_transactions(restarted: Node) -> None:
    """D1, T1: what was committed is read as a whole, what was not is not read at all."""
    node = restarted
    topic, transactional_id = "killed", unique("id")
    producer = transactional(node.bootstrap, transactional_id)
    committed: list[str] = []
    for number in range(6):
        producer.begin_transaction()
        for at in range(20):
            producer.produce(topic, f"{number}-{at}")
        if number % 2:
            producer.flush(PATIENCE_S)
            node.restart()
        producer.commit_transaction(PATIENCE_S)
        committed += [f"{number}-{at}" for at in range(20)]
    producer.begin_transaction()
    producer.produce(topic, "left open")
    producer.flush(PATIENCE_S)
    node.restart()
    assert read(node.bootstrap, topic, COMMITTED) == committed
    heir = transactional(node.bootstrap, transactional_id)
    heir.begin_transaction()
    heir.produce(topic, "heir")
    heir.commit_transaction(PATIENCE_S)
    assert read(node.bootstrap, topic, COMMITTED) == [*committed, "heir"]
    assert "left open" in read(node.bootstrap, topic, UNCOMMITTED)


@pytest.fixture
def watchful(tmp_path: Path) -> Iterator[str]:
    """`host:port` of a cluster that looks for late transactions often; Kafka's does every ten seconds."""
    given = os.environ.get(ENVIRONMENT)
    if given:
        yield given
        return
    node = Node(tmp_path / "watchful", "transaction.abort.timed.out.transaction.cleanup.interval.ms=200")
    try:
        node.start()
        yield node.bootstrap
    finally:
        node.kill()


def test_a_transaction_past_its_timeout_is_aborted(watchful: str) -> None:
    """T5."""
    bootstrap, topic = watchful, unique("txn")
    producer = transactional(bootstrap, unique("id"), transaction_timeout_ms=1_000)
    producer.begin_transaction()
    producer.produce(topic, "too slow")
    producer.flush(PATIENCE_S)
    plain = Producer({"bootstrap.servers": bootstrap})
    plain.produce(topic, "behind it")
    plain.flush(PATIENCE_S)
    eventually(lambda: read(bootstrap, topic, COMMITTED) == ["behind it"], PATIENCE_S, "nobody aborted it")


def test_aiokafka_commits_and_aborts(bootstrap: str, new_topic: CreateTopic) -> None:
    topic = new_topic("txn")

    async def write() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=unique("id"))
        await producer.start()
        try:
            async with producer.transaction():
                await producer.send_and_wait(topic, b"kept")
            await producer.begin_transaction()
            await producer.send_and_wait(topic, b"lost")
            await producer.abort_transaction()
            async with producer.transaction():
                await producer.send_and_wait(topic, b"kept too")
        finally:
            await producer.stop()

    asyncio.run(write())
    assert read(bootstrap, topic, COMMITTED) == ["kept", "kept too"]
    assert read(bootstrap, topic, UNCOMMITTED) == ["kept", "lost", "kept too"]


@pytest.mark.usefixtures("kafka_tools")
def test_kafkas_tool_finds_and_ends_a_transaction(bootstrap: str, new_topic: CreateTopic) -> None:
    """KIP-664: kafka-transactions.sh of Apache Kafka."""
    topic, transactional_id = new_topic("txn"), unique("id")
    producer = transactional(bootstrap, transactional_id)
    producer.begin_transaction()
    producer.produce(topic, "hangs")
    producer.flush(PATIENCE_S)
    tool = "org.apache.kafka.tools.TransactionsCommand"

    def run(*arguments: str) -> str:
        done = real_kafka.run_tool(tool, ["--bootstrap-server", bootstrap, *arguments])
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    assert "Ongoing" in next(line for line in run("list").splitlines() if transactional_id in line)
    described = run("describe", "--transactional-id", transactional_id)
    assert f"{topic}-0" in described
    producers = run("describe-producers", "--topic", topic, "--partition", "0")
    start_offset = producers.splitlines()[1].split()[-1]
    assert start_offset == "0"
    run("abort", "--topic", topic, "--partition", "0", "--start-offset", "0")
    assert read(bootstrap, topic, COMMITTED) == []
    plain = Producer({"bootstrap.servers": bootstrap})
    plain.produce(topic, "free")
    plain.flush(PATIENCE_S)
    assert read(bootstrap, topic, COMMITTED) == ["free"]
