"""Less than a majority of controllers, all machines at once, and roles in separate processes."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from integration.clients import TOPIC, Writer, create_topic, read, settings, verify
from integration.conftest import MakeCluster
from integration.machines import PATIENCE_S, Cluster
from interop.cluster import eventually

pytestmark = pytest.mark.timeout(100)


def test_kill_9_of_all_machines_loses_nothing_acknowledged(cluster: Cluster) -> None:
    create_topic(cluster, partitions=3)
    writer = Writer(cluster, partitions=3)
    writer.await_more()
    cluster.kill(*cluster.ids)
    cluster.start()
    writer.await_more()
    cluster.await_isr(TOPIC, 3, partitions=3)
    writer.finish()
    verify(cluster, writer)


def test_a_stop_of_all_machines_keeps_everything(cluster: Cluster) -> None:
    create_topic(cluster)
    writer = Writer(cluster)
    writer.await_more()
    writer.finish()
    cluster.stop(*cluster.ids)
    cluster.start()
    cluster.await_isr(TOPIC, 3)
    verify(cluster, writer)


def test_without_a_majority_of_controllers_data_flows_and_topics_wait(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(nodes=2, controllers=3, min_insync_replicas="2")
    cluster.start()
    create_topic(cluster, replication=2)
    writer = Writer(cluster)
    writer.await_more()
    controllers = [101, 102, 103]
    alive = next(node for node in controllers if node != cluster.controller())
    cluster.kill(*(node for node in controllers if node != alive))
    writer.await_more()
    admin = AdminClient(settings(cluster))
    with pytest.raises(KafkaException) as refused:
        admin.create_topics([NewTopic("later", 1, 2)], request_timeout=5, operation_timeout=2)[
            "later"
        ].result(20)
    assert refused.value.args[0].name() in ("REQUEST_TIMED_OUT", "NOT_CONTROLLER", "_TIMED_OUT")
    assert "controller" in refused.value.args[0].str().lower()
    writer.await_more()
    for node in controllers:
        if node != alive:
            cluster.start(node)
    create_topic(cluster, "afterwards", replication=2)
    assert cluster.partition("later") is None
    writer.await_more()
    writer.finish()
    verify(cluster, writer)


def test_two_of_three_combined_nodes_dead_and_back(cluster: Cluster) -> None:
    """Below min.insync.replicas nothing is acknowledged; what was, is still there to read; then all is as before."""
    create_topic(cluster)
    writer = Writer(cluster)
    writer.await_more()
    leader = cluster.leader(TOPIC)
    dead = [node for node in cluster.ids if node != leader]
    cluster.kill(*dead)
    assert len(read(cluster, TOPIC)[0]) > 0
    for node in dead:
        cluster.start(node, ready=False)
    cluster.await_isr(TOPIC, 3)
    writer.await_more()
    writer.finish()
    verify(cluster, writer)


def test_controllers_and_brokers_in_separate_processes(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(nodes=3, controllers=3)
    cluster.start()
    create_topic(cluster, partitions=3)
    writer = Writer(cluster, partitions=3)
    writer.await_more()
    controller = cluster.controller()
    assert controller in (101, 102, 103)
    cluster.kill(controller)
    writer.await_more()
    eventually(lambda: cluster.controller() != controller, PATIENCE_S, "no other controller was elected")
    dead = cluster.leader(TOPIC)
    cluster.kill(dead)
    writer.await_more()
    cluster.start(controller, dead)
    cluster.await_isr(TOPIC, 3, partitions=3)
    writer.finish()
    verify(cluster, writer)
