"""Transactions while their coordinator is killed, with the leaders of what they write to."""

from __future__ import annotations

from pathlib import Path

import pytest

from integration.clients import create_topic
from integration.machines import PATIENCE_S, TIMEOUT_S, Cluster
from interop import jvm
from interop.cluster import eventually
from interop.transactional_writers import ConfluentWriter, JavaWriter, Writer
from odradek.coordinator.partitioning import partition_for

pytestmark = pytest.mark.timeout(TIMEOUT_S)

TOPIC = "ledger"
PARTITIONS = 3
COORDINATORS = 4


def coordinator_of(cluster: Cluster, transactional_id: str) -> int:
    return cluster.leader("__transaction_state", partition_for(transactional_id, COORDINATORS))


@pytest.mark.parametrize("kind", ["confluent", "java"])
def test_kill_9_of_the_coordinator(
    make_cluster: object, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    cluster: Cluster = make_cluster(transaction_state_log_num_partitions=str(COORDINATORS))  # type: ignore[operator]
    cluster.start()
    create_topic(cluster, TOPIC, partitions=PARTITIONS)
    arguments = (cluster.bootstrap, TOPIC, PARTITIONS, "writer")
    writer: Writer
    if kind == "confluent":
        writer = ConfluentWriter(*arguments)
    else:
        try:
            writer = JavaWriter(tmp_path, *arguments)
        except jvm.Unavailable as missing:
            pytest.skip(str(missing))
        request.addfinalizer(writer.kill)
    for _ in range(3):
        writer.await_more()
        dead = coordinator_of(cluster, "writer")
        cluster.kill(dead)
        writer.await_more()
        eventually(
            lambda dead=dead: coordinator_of(cluster, "writer") != dead, PATIENCE_S, "nobody takes over"
        )
        cluster.start(dead)
        cluster.await_isr(TOPIC, 3, partitions=PARTITIONS)
        cluster.await_isr("__transaction_state", 3, partitions=COORDINATORS)
    writer.await_more()
    writer.finish()
    writer.check()
