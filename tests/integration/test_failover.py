"""One machine after the other dies, hangs or is stopped while a client writes with acks=all."""

from __future__ import annotations

import pytest
from kafka import KafkaConsumer, KafkaProducer

from integration.clients import TOPIC, Writer, create_topic, verify
from integration.machines import PATIENCE_S, Cluster
from interop.cluster import eventually

pytestmark = pytest.mark.timeout(100)


def test_kill_9_of_a_leader(cluster: Cluster) -> None:
    create_topic(cluster, partitions=3)
    writer = Writer(cluster, partitions=3)
    writer.await_more()
    dead = cluster.leader(TOPIC)
    cluster.kill(dead)
    writer.await_more()
    assert cluster.leader(TOPIC) != dead
    cluster.await_isr(TOPIC, 2, partitions=3)
    cluster.start(dead)
    cluster.await_isr(TOPIC, 3, partitions=3)
    writer.await_more()
    writer.finish()
    verify(cluster, writer)


def test_kill_9_of_the_active_controller(cluster: Cluster) -> None:
    create_topic(cluster, partitions=3)
    writer = Writer(cluster, partitions=3)
    writer.await_more()
    dead = cluster.controller()
    cluster.kill(dead)
    writer.await_more()
    assert cluster.controller() != dead
    create_topic(cluster, "made-by-the-next-one", replication=2)
    cluster.start(dead)
    cluster.await_isr(TOPIC, 3, partitions=3)
    writer.finish()
    verify(cluster, writer)


def test_kill_9_of_a_follower(cluster: Cluster) -> None:
    create_topic(cluster)
    writer = Writer(cluster)
    writer.await_more()
    leader = cluster.leader(TOPIC)
    follower = next(node for node in cluster.ids if node not in (leader, cluster.controller()))
    cluster.kill(follower)
    writer.await_more()
    assert cluster.leader(TOPIC) == leader
    cluster.await_isr(TOPIC, 2)
    cluster.start(follower)
    cluster.await_isr(TOPIC, 3)
    writer.finish()
    verify(cluster, writer)


def test_every_machine_is_killed_once(cluster: Cluster) -> None:
    create_topic(cluster, partitions=3)
    writer = Writer(cluster, partitions=3)
    for node in cluster.ids:
        writer.await_more()
        cluster.kill(node)
        writer.await_more()
        cluster.start(node)
        cluster.await_isr(TOPIC, 3, partitions=3)
    writer.finish()
    verify(cluster, writer)


def test_a_controlled_stop_hands_over_first(cluster: Cluster) -> None:
    """No delivery fails, and the one that stops leads nothing any more when it goes."""
    create_topic(cluster, partitions=6)
    writer = Writer(cluster, partitions=6)
    writer.await_more()
    leaving = cluster.leader(TOPIC)
    cluster.stop(leaving)
    other = next(node for node in cluster.ids if node != leaving)
    for index in range(6):
        partition = cluster.partition(TOPIC, index, ask=other)
        assert partition.leader_id not in (-1, leaving)
        assert leaving not in partition.isr_nodes
    writer.await_more()
    cluster.start(leaving)
    cluster.await_isr(TOPIC, 3, partitions=6)
    writer.finish()
    verify(cluster, writer)


def test_a_rolling_restart(cluster: Cluster) -> None:
    create_topic(cluster, partitions=3)
    writer = Writer(cluster, partitions=3)
    for node in cluster.ids:
        writer.await_more()
        cluster.restart(node)
        cluster.await_isr(TOPIC, 3, partitions=3)
    writer.await_more()
    writer.finish()
    verify(cluster, writer)


def test_kafka_python_writes_and_reads_through_a_failover(cluster: Cluster) -> None:
    create_topic(cluster)
    producer = KafkaProducer(
        bootstrap_servers=cluster.bootstrap.split(","), acks="all", retries=100, retry_backoff_ms=50
    )
    futures = [producer.send(TOPIC, b"%d" % number) for number in range(500)]
    for future in futures:
        future.get(30)
    cluster.kill(cluster.leader(TOPIC))
    futures += [producer.send(TOPIC, b"%d" % number) for number in range(500, 1_000)]
    acknowledged = {future.get(PATIENCE_S).offset: number for number, future in enumerate(futures)}
    producer.close()
    consumer = KafkaConsumer(
        TOPIC,
        bootstrap_servers=cluster.bootstrap.split(","),
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        consumer_timeout_ms=200,
    )
    found: dict[int, int] = {}

    def complete() -> bool:
        found.update((record.offset, int(record.value)) for record in consumer)
        return len(found) >= 1_000

    eventually(complete, PATIENCE_S, "not all records were read", every_s=0)
    consumer.close()
    assert acknowledged.items() <= found.items()
    assert sorted(found.values()) == list(range(1_000))
