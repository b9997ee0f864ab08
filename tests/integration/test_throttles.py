"""Replication quotas on real nodes (KIP-73): who catches up is throttled, who is in sync is not."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from integration.clients import TOPIC, create_topic, settings
from integration.machines import PATIENCE_S, TIMEOUT_S, Cluster

pytestmark = pytest.mark.timeout(TIMEOUT_S)

RECORD = bytes(100_000)
RECORDS = 100
HARDLY = 1_000
"""A rate at which what is written here would take hours."""
RATE = 2_500_000
AT_ONCE_S = 1
"""The first second's worth goes at once."""


def alter(cluster: Cluster, kind: ResourceType, name: str, **values: str) -> None:
    entries = [
        ConfigEntry(key.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for key, value in values.items()
    ]
    admin = AdminClient(settings(cluster))
    for future in admin.incremental_alter_configs(
        [ConfigResource(kind, name, incremental_configs=entries)]
    ).values():
        future.result(PATIENCE_S)


def throttle(cluster: Cluster, side: str, rate: int) -> None:
    """All replicas of the topic, on every living broker: each is asked to change itself."""
    for node in cluster.ids:
        if cluster.processes[node].pid() is not None:
            alter(
                cluster, ResourceType.BROKER, str(node), **{f"{side}_replication_throttled_rate": str(rate)}
            )
    alter(cluster, ResourceType.TOPIC, TOPIC, **{f"{side}_replication_throttled_replicas": "*"})


def write(cluster: Cluster, count: int) -> None:
    """Until all are acknowledged by every replica in sync."""
    failures: list[str] = []
    producer = Producer(settings(cluster, acks="all", linger_ms=5))
    for _ in range(count):
        producer.produce(
            TOPIC, RECORD, on_delivery=lambda error, _message: failures.append(str(error)) if error else None
        )
        producer.poll(0)
    assert producer.flush(PATIENCE_S) == 0
    assert failures == []


@pytest.mark.parametrize("side", ["leader", "follower"])
def test_a_replica_that_catches_up_is_throttled_and_those_in_sync_are_not(
    cluster: Cluster, side: str
) -> None:
    create_topic(cluster)
    leader = cluster.leader(TOPIC)
    behind = next(node for node in cluster.ids if node not in (leader, cluster.controller()))
    throttle(cluster, side, HARDLY)
    alter(cluster, ResourceType.BROKER, str(behind), **{f"{side}_replication_throttled_rate": str(RATE)})
    cluster.kill(behind)
    cluster.await_isr(TOPIC, 2)
    write(cluster, RECORDS)  # which it would not live to see if the replica in sync were throttled
    throttle(cluster, side, RATE)
    began = time.monotonic()
    cluster.start(behind)
    cluster.await_isr(TOPIC, 3)
    least_s = RECORDS * len(RECORD) / RATE - AT_ONCE_S
    assert time.monotonic() - began > 0.8 * least_s, "it was not throttled"
