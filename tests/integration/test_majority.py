"""Less than a majority of controllers, all machines at once, and roles in separate processes."""

from __future__ import annotations

import time

import pytest

from integration.clients import TOPIC, Writer, create_topic, read, verify
from integration.conftest import MakeCluster
from integration.machines import PATIENCE_S, TIMEOUT_S, Cluster
from odradek.cli.cluster_view import Peer
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.create_topics import (
    CreatableTopic,
    CreatableTopicResult,
    CreateTopicsRequest,
    CreateTopicsResponse,
)

pytestmark = pytest.mark.timeout(TIMEOUT_S)


def creation(cluster: Cluster, topic: str, timeout_ms: int) -> CreatableTopicResult:
    """What a broker answers to one request to create a topic."""
    asked = CreatableTopic(name=topic, num_partitions=1, replication_factor=2)
    port = cluster.layout.node(cluster.brokers[0]).port
    assert port is not None
    with Peer(port, timeout_s=timeout_ms / 1_000 + PATIENCE_S) as peer:
        request = CreateTopicsRequest(topics=[asked], timeout_ms=timeout_ms)
        return peer.ask(request, 7, CreateTopicsResponse).topics[0]


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
    began = time.monotonic()
    created = creation(cluster, "later", timeout_ms=3_000)
    assert time.monotonic() - began > 2.0, "it does not wait"
    assert created.error_code == ErrorCode.REQUEST_TIMED_OUT
    assert created.error_message is not None
    # Depending on whether this broker has seen that the active controller is gone.
    assert (
        "a majority of the controllers must be running and connected" in created.error_message
        or "did not answer in time" in created.error_message
    )
    writer.await_more()
    cluster.start(next(node for node in controllers if node != alive))
    assert creation(cluster, "afterwards", timeout_ms=60_000).error_code == ErrorCode.NONE
    cluster.await_gone("later")
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
    cluster.next_controller(controller)
    dead = cluster.leader(TOPIC)
    cluster.kill(dead)
    writer.await_more()
    cluster.start(controller, dead)
    cluster.await_isr(TOPIC, 3, partitions=3)
    writer.finish()
    verify(cluster, writer)
