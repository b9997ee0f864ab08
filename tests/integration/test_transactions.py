"""Transactions while nodes die: everything or nothing (T1), and in a loop of consume and produce exactly once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from integration.clients import create_topic, persist, settings
from integration.conftest import MakeCluster
from integration.machines import PATIENCE_S, TIMEOUT_S, Cluster
from interop.cluster import eventually, unique

pytestmark = pytest.mark.timeout(TIMEOUT_S)

PARTITIONS = 3
RECORDS = 6


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> Cluster:
    three = make_cluster(transaction_state_log_num_partitions="4")
    three.start()
    return three


def transactional(cluster: Cluster, transactional_id: str) -> Producer:
    producer = Producer(
        settings(cluster, transactional_id=transactional_id, linger_ms=1, transaction_timeout_ms=30_000)
    )
    persist(lambda: producer.init_transactions(30))
    return producer


def finish(producer: Producer, before_commit: Callable[[], Any] = lambda: None) -> bool:
    """Commit, or abort if it has to be; whether it is committed. Any other end is a failure."""
    try:
        persist(before_commit)
        persist(lambda: producer.commit_transaction(30))
    except KafkaException as error:
        if not error.args[0].txn_requires_abort():
            raise
        persist(lambda: producer.abort_transaction(30))
        return False
    return True


def await_ended(cluster: Cluster, topic: str) -> None:
    """No transaction is open: whoever commits is told so before the markers are written."""
    admin = AdminClient(settings(cluster))
    asked = {TopicPartition(topic, index): OffsetSpec.latest() for index in range(PARTITIONS)}

    def ends(isolation: IsolationLevel) -> list[int]:
        found = admin.list_offsets(asked, isolation_level=isolation, request_timeout=PATIENCE_S)
        return [future.result(PATIENCE_S).offset for future in found.values()]

    eventually(
        lambda: persist(lambda: ends(IsolationLevel.READ_COMMITTED) == ends(IsolationLevel.READ_UNCOMMITTED)),
        PATIENCE_S,
        f"transactions of {topic} do not end",
    )


def read_committed(cluster: Cluster, topic: str) -> list[str]:
    """Everything, once the transactions have ended."""
    await_ended(cluster, topic)
    consumer = Consumer(
        settings(
            cluster,
            group_id=unique("reader"),
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            enable_partition_eof=True,
        )
    )
    values: list[str] = []
    try:
        for index in range(PARTITIONS):
            consumer.assign([TopicPartition(topic, index, 0)])
            while True:
                message = consumer.poll(PATIENCE_S)
                assert message is not None, "the consumer hears nothing"
                if message.error() is None:
                    values.append(message.value().decode())
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    break
                else:
                    assert message.error().retriable(), message.error()
    finally:
        consumer.close()
    return values


class Transactor(threading.Thread):
    """One transaction after the other over all partitions, until it is told to stop."""

    def __init__(self, cluster: Cluster, topic: str, name: str) -> None:
        super().__init__(daemon=True)
        self.committed: set[int] = set()
        self.aborted: set[int] = set()
        self.failure: KafkaException | None = None
        self._cluster, self._topic, self._name = cluster, topic, name
        self._stop_asked = threading.Event()
        cluster.at_end.append(self._stop_asked.set)
        self.start()

    def run(self) -> None:
        try:
            self._work(transactional(self._cluster, self._name))
        except KafkaException as error:
            self.failure = error

    def _work(self, producer: Producer) -> None:
        number = 0
        while not self._stop_asked.is_set():
            producer.begin_transaction()
            for at in range(RECORDS):
                producer.produce(self._topic, f"{self._name} {number} {at}", partition=at % PARTITIONS)
            if number % 5 == 4:
                # Aborted at once, librdkafka may meet the end of its last transaction, which it takes for fatal.
                producer.flush(30)
                persist(lambda: producer.abort_transaction(30))
                self.aborted.add(number)
            else:
                (self.committed if finish(producer) else self.aborted).add(number)
            number += 1

    def await_more(self, count: int = 5) -> None:
        """So many committed transactions from now on."""
        begin = len(self.committed)
        eventually(
            lambda: self.failure is not None or len(self.committed) >= begin + count,
            PATIENCE_S,
            f"{self._name} does not go on",
        )

    def stop(self) -> None:
        self._stop_asked.set()
        self.join(2 * PATIENCE_S)
        assert not self.is_alive(), "it does not come to an end"
        if self.failure is not None:
            raise self.failure


def test_transactions_are_whole_whatever_dies(cluster: Cluster) -> None:
    topic = create_topic(cluster, "whole", PARTITIONS)
    transactors = [Transactor(cluster, topic, unique("id")) for _ in range(2)]
    for victim in (1, 2, 3):
        for each in transactors:
            each.await_more()
        cluster.kill(victim)
        for each in transactors:
            each.await_more()
        cluster.start(victim)
        cluster.await_isr(topic, 3, PARTITIONS)
    for each in transactors:
        each.stop()
    found = Counter(read_committed(cluster, topic))
    assert set(found.values()) <= {1}, "a record is there twice"
    for each in transactors:
        assert len(each.committed) > 10
        seen: dict[int, int] = {}
        for value in found:
            name, number, _ = value.split()
            if name == each._name:
                seen[int(number)] = seen.get(int(number), 0) + 1
        assert set(seen.values()) <= {RECORDS}, "a transaction is there in part"
        assert set(seen) == each.committed


def test_consume_and_produce_is_exactly_once_whatever_dies(cluster: Cluster) -> None:
    source = create_topic(cluster, "source", PARTITIONS)
    target = create_topic(cluster, "target", PARTITIONS)
    count = 600
    feeder = Producer(settings(cluster, enable_idempotence=True))
    for number in range(count):
        feeder.produce(source, str(number), partition=number % PARTITIONS)
    assert feeder.flush(PATIENCE_S) == 0
    with ThreadPoolExecutor(1) as pool:
        killer = pool.submit(_kill_in_turn, cluster, target)
        _pump(cluster, source, target, count)
        killer.result()
    assert Counter(read_committed(cluster, target)) == Counter(str(number) for number in range(count))


def _kill_in_turn(cluster: Cluster, topic: str) -> None:
    for victim in (1, 2, 3):
        cluster.kill(victim)
        cluster.await_led_without(topic, victim, PARTITIONS)
        cluster.start(victim)
        cluster.await_isr(topic, 3, PARTITIONS)


def _pump(cluster: Cluster, source: str, target: str, count: int) -> None:
    """Read, write and commit what was read, a few records at a time, until the group's offsets are at the end."""
    consumer = Consumer(
        settings(
            cluster,
            group_id="pump",
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            session_timeout_ms=45_000,
        )
    )
    consumer.subscribe([source])
    producer = transactional(cluster, "pump")
    done = 0
    deadline = time.monotonic() + 3 * PATIENCE_S
    try:
        while done < count:
            assert time.monotonic() < deadline, f"{done} of {count} records in time"
            messages = [each for each in consumer.consume(10, 1.0) if each.error() is None]
            if not messages:
                continue
            producer.begin_transaction()
            for message in messages:
                producer.produce(target, message.value(), partition=message.partition())
            positions = consumer.position(consumer.assignment())
            metadata = consumer.consumer_group_metadata()
            if finish(producer, partial(producer.send_offsets_to_transaction, positions, metadata, 30)):
                done += len(messages)
            else:
                _go_back(consumer)
    finally:
        consumer.close()


def _go_back(consumer: Consumer) -> None:
    """To what is committed: the transaction that moved on was aborted."""
    assigned = consumer.assignment()
    for part in persist(lambda: consumer.committed(assigned, timeout=PATIENCE_S)):
        consumer.seek(TopicPartition(part.topic, part.partition, max(part.offset, 0)))
