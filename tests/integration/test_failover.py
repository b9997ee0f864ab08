"""One machine after the other dies, hangs or is stopped while a client writes with acks=all."""

from __future__ import annotations

import pytest
from kafka import KafkaConsumer, KafkaProducer

from integration.clients import TOPIC, Writer, create_topic, verify
from integration.conftest import MakeCluster
from integration.machines import PATIENCE_S, STEADY, TIMEOUT_S, Cluster
from interop.cluster import eventually
from odradek.metadata.records import (
    NO_LEADER_CHANGE,
    BrokerRegistrationChangeRecord,
    PartitionChangeRecord,
    PartitionRecord,
    Record,
)

pytestmark = pytest.mark.timeout(TIMEOUT_S)


def test_kill_9_of_a_leader(cluster: Cluster) -> None:
    create_topic(cluster, partitions=3)
    writer = Writer(cluster, partitions=3)
    writer.await_more()
    dead = cluster.leader(TOPIC)
    cluster.kill(dead)
    writer.await_more()
    cluster.await_led_without(TOPIC, dead, partitions=3)
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
    cluster.next_controller(dead)
    cluster.await_led_without(TOPIC, dead, partitions=3)  # or it would be given a replica of the next topic
    create_topic(cluster, "made-by-the-next-one", replication=2)
    cluster.start(dead)
    cluster.await_isr(TOPIC, 3, partitions=3)
    writer.finish()
    verify(cluster, writer)


def test_kill_9_of_a_follower(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(**STEADY)
    cluster.start()
    create_topic(cluster)
    writer = Writer(cluster)
    writer.await_more()
    leader = cluster.leader(TOPIC)
    follower = next(node for node in cluster.ids if node not in (leader, cluster.controller()))
    cluster.kill(follower)
    writer.await_more()
    cluster.await_led_without(TOPIC, follower)
    assert cluster.leader(TOPIC) == leader
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
    """No delivery fails, and the one that stops has handed over what it led before it goes."""
    create_topic(cluster, partitions=6)
    writer = Writer(cluster, partitions=6)
    writer.await_more()
    controller = cluster.controller()
    leaving = next(node for node in cluster.ids if node != controller)
    cluster.stop(leaving)
    cluster.await_led_without(TOPIC, leaving, partitions=6)
    other = next(node for node in cluster.ids if node != leaving)
    assert leader_at_shutdown(cluster.metadata_records(other), leaving) == set()
    writer.await_more()
    cluster.start(leaving)
    cluster.await_isr(TOPIC, 3, partitions=6)
    writer.finish()
    verify(cluster, writer)


def leader_at_shutdown(records: list[Record], broker_id: int) -> set[tuple[bytes, int]]:
    """Partitions that the broker still led when it was fenced for the last time, having asked to go before."""
    leaders: dict[tuple[bytes, int], int] = {}
    found: set[tuple[bytes, int]] | None = None
    asked = False
    for record in records:
        if isinstance(record, (PartitionRecord, PartitionChangeRecord)):
            if record.leader != NO_LEADER_CHANGE:
                leaders[record.topic_id, record.partition_id] = record.leader
        elif isinstance(record, BrokerRegistrationChangeRecord) and record.broker_id == broker_id:
            asked = asked or bool(record.in_controlled_shutdown)
            if asked and record.fenced:
                found = {key for key, leader in leaders.items() if leader == broker_id}
    assert found is not None, "it has not asked to go"
    return found


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
        future.get(PATIENCE_S)
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
