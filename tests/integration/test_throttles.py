"""Replication quotas on real nodes (KIP-73): who catches up is throttled, who is in sync is not."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from integration.clients import TOPIC, create_topic, settings
from integration.machines import PATIENCE_S, Cluster
from interop.cluster import eventually

pytestmark = pytest.mark.timeout(100)

RECORD = bytes(100_000)
RECORDS = 160
RATE = 2_000_000
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


def write(cluster: Cluster, count: int) -> float:
    """Seconds until all are acknowledged by every replica in sync."""
    failures: list[str] = []
    producer = Producer(settings(cluster, acks="all", linger_ms=5))
    began = time.monotonic()
    for _ in range(count):
        producer.produce(
            TOPIC, RECORD, on_delivery=lambda error, _message: failures.append(str(error)) if error else None
        )
        producer.poll(0)
    assert producer.flush(PATIENCE_S) == 0
    assert failures == []
    return time.monotonic() - began


@pytest.mark.parametrize("side", ["leader", "follower"])
def test_a_replica_that_catches_up_is_throttled_and_those_in_sync_are_not(
    cluster: Cluster, side: str
) -> None:
    create_topic(cluster)
    leader = cluster.leader(TOPIC)
    behind = next(node for node in cluster.ids if node not in (leader, cluster.controller()))
    for node in cluster.ids:
        alter(cluster, ResourceType.BROKER, str(node), **{f"{side}_replication_throttled_rate": str(RATE)})
    alter(cluster, ResourceType.TOPIC, TOPIC, **{f"{side}_replication_throttled_replicas": "*"})
    cluster.kill(behind)
    cluster.await_isr(TOPIC, 2)
    least_s = RECORDS * len(RECORD) / RATE - AT_ONCE_S
    assert write(cluster, RECORDS) < least_s, "the replica in sync was throttled"
    began = time.monotonic()
    cluster.start(behind)

    def joined() -> bool:
        partition = cluster.partition(TOPIC)
        return partition is not None and len(partition.isr_nodes) == 3

    eventually(joined, PATIENCE_S, "the replica did not catch up")
    assert time.monotonic() - began > 0.8 * least_s, "it was not throttled"
