"""A broker that was away while topics were deleted, created anew and moved: it has nothing of the old ones."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from integration.clients import TOPIC, Writer, create_topic, settings, verify
from integration.conftest import MakeCluster
from integration.machines import PATIENCE_S, TIMEOUT_S, Cluster
from interop.cluster import eventually

pytestmark = pytest.mark.timeout(TIMEOUT_S)


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
    cluster.await_led_without(TOPIC, away)
    admin = AdminClient(settings(cluster))
    for future in admin.delete_topics([TOPIC, "gone"], operation_timeout=PATIENCE_S).values():
        future.result(PATIENCE_S)

    for topic in (TOPIC, "gone"):
        cluster.await_gone(topic)
    admin.create_topics([NewTopic(TOPIC, 1, replica_assignment=[cluster.ids])])[TOPIC].result(PATIENCE_S)
    writer = Writer(cluster)
    writer.await_more()
    cluster.start(away)
    cluster.await_isr(TOPIC, 3)
    writer.finish()
    verify(cluster, writer)
    eventually(
        lambda: "gone-0" not in directories(cluster, away, "gone-0"), PATIENCE_S, "a deleted topic is there"
    )
    assert len([name for name in directories(cluster, away, TOPIC) if name.endswith("-stray")]) == 1

    def the_same() -> bool:
        """A follower that a busy machine has fallen behind may fetch the last records after they are told."""
        logs = [cluster.data(node) / f"{TOPIC}-0" / f"{0:020d}.log" for node in cluster.ids]
        return len({path.stat().st_size for path in logs}) == 1

    eventually(the_same, PATIENCE_S, "not all replicas have the same")
