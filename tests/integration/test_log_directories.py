"""Two log directories, of which one fails: what it led is led elsewhere, the rest goes on (KIP-112, KIP-858)."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka import Producer

from integration.clients import TOPIC, Writer, create_topic, settings, verify
from integration.conftest import MakeCluster
from integration.machines import PATIENCE_S, Cluster
from interop.cluster import eventually

pytestmark = pytest.mark.timeout(120)

PARTITIONS = 12


@pytest.fixture
def two_disks(make_cluster: MakeCluster) -> Cluster:
    """Three nodes that have `data`, which holds the metadata log, and `second`."""
    cluster = make_cluster(log_segment_bytes="1048576", log_roll_ms="300000")
    for node in cluster.layout.nodes:
        data = cluster.layout.data_directory(node)
        with cluster.layout.properties_file(node).open("a") as file:
            file.write(f"\nlog.dirs={data},{second_of(cluster, node.id)}\nmetadata.log.dir={data}\n")
    cluster.start()
    return cluster


def second_of(cluster: Cluster, node_id: int) -> Path:
    return cluster.data(node_id).with_name("second")


def lose(directory: Path) -> None:
    """Files that are open stay as they are; whatever is created from now on fails."""
    directory.rename(directory.with_name("lost"))
    directory.write_text("a file where the directory was")


def fill_a_segment(cluster: Cluster, partition: int) -> None:
    """More than a segment holds: the next one has to be created, wherever the leader is by then."""
    producer = Producer(settings(cluster, acks="all", message_timeout_ms=int(PATIENCE_S * 1_000)))
    for _ in range(15):
        producer.produce("padding", bytes(100_000), partition=partition)
    assert producer.flush(PATIENCE_S) == 0


def test_a_directory_that_fails_moves_what_it_led(two_disks: Cluster) -> None:
    cluster = two_disks
    create_topic(cluster, partitions=PARTITIONS)
    create_topic(cluster, "padding", partitions=PARTITIONS)
    victim = next(node for node in cluster.ids if node != cluster.controller())
    second = second_of(cluster, victim)
    there = {path.name for path in second.iterdir() if path.is_dir()}
    led = [index for index in range(PARTITIONS) if cluster.leader(TOPIC, index) == victim]
    moving = [index for index in led if f"{TOPIC}-{index}" in there]
    staying = [index for index in led if f"{TOPIC}-{index}" not in there]
    padding = next(
        index
        for index in range(PARTITIONS)
        if f"padding-{index}" in there and cluster.leader("padding", index) == victim
    )
    assert moving and staying, "each node leads in both of its directories"
    writer = Writer(cluster, partitions=PARTITIONS)
    writer.await_more()
    lose(second)
    fill_a_segment(cluster, padding)
    cluster.await_logged(victim, "log directory offline")

    def moved() -> bool:
        found = [cluster.partition(TOPIC, index) for index in moving]
        return all(each is not None and each.leader_id not in (-1, victim) for each in found)

    eventually(moved, PATIENCE_S, "partitions of the failed directory are not led elsewhere")
    writer.await_more(1_000)
    assert {cluster.leader(TOPIC, index) for index in staying} == {victim}
    for index in moving:
        assert victim not in cluster.partition(TOPIC, index).isr_nodes
    writer.finish()
    verify(cluster, writer)
    cluster.kill(victim)
    second.unlink()
    second.with_name("lost").rename(second)
    cluster.start(victim)
    cluster.await_isr(TOPIC, 3, partitions=PARTITIONS)


def test_a_node_whose_only_directory_fails_ends_with_one_line(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(log_segment_bytes="1048576", log_roll_ms="300000")
    cluster.start()
    create_topic(cluster, partitions=3)
    create_topic(cluster, "padding", partitions=3)
    writer = Writer(cluster, partitions=3)
    writer.await_more()
    victim = next(node for node in cluster.ids if node != cluster.controller())
    lose(cluster.data(victim))
    for index in range(3):
        fill_a_segment(cluster, index)
    cluster.await_end_of(victim)
    last = cluster.log(victim).strip().splitlines()[-1]
    assert last == f"odradek: Shutdown broker because all log dirs in {cluster.data(victim)} have failed"
    writer.await_more(1_000)
    writer.finish()
    verify(cluster, writer)
