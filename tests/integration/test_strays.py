"""A broker that was away while topics were deleted, created anew and moved: it has nothing of the old ones."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from integration.clients import TOPIC, Writer, create_topic, settings, verify
from integration.conftest import MakeCluster
from integration.machines import PATIENCE_S, Cluster
from interop.cluster import eventually

pytestmark = pytest.mark.timeout(100)


def directories(cluster: Cluster, node_id: int, prefix: str) -> set[str]:
    return {path.name for path in cluster.data(node_id).iterdir() if path.name.startswith(prefix)}


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_topic_deleted_and_created_anew_while_a_broker_was_away(
    make_cluster: MakeCluster, how: str
) -> None:
    cluster = make_cluster(auto_create_topics_enable="false")  # by a producer that asks for its topic
    cluster.start()
    create_topic(cluster)
    create_topic(cluster, "gone")
    before = Writer(cluster)
    before.await_more()
    before.finish()
    away = next(node for node in cluster.ids if node != cluster.controller())
    getattr(cluster, how)(away)
    cluster.await_isr(TOPIC, 2)
    admin = AdminClient(settings(cluster))
    for future in admin.delete_topics([TOPIC, "gone"], operation_timeout=20).values():
        future.result(PATIENCE_S)

    def deleted() -> bool:
        return all(cluster.partition(topic) is None for topic in (TOPIC, "gone"))

    eventually(deleted, PATIENCE_S, "the topics are still there")
    admin.create_topics([NewTopic(TOPIC, 1, replica_assignment=[cluster.ids])])[TOPIC].result(PATIENCE_S)
    writer = Writer(cluster)
    writer.await_more()
    cluster.start(away)
    cluster.await_isr(TOPIC, 3)
    writer.finish()
    verify(cluster, writer)
    assert "gone-0" not in directories(cluster, away, "gone-0")
    assert len([name for name in directories(cluster, away, TOPIC) if name.endswith("-stray")]) == 1
    sizes = {(cluster.data(node) / f"{TOPIC}-0" / f"{0:020d}.log").stat().st_size for node in cluster.ids}
    assert len(sizes) == 1, "all replicas have the same"
