"""Nodes that must not take part, and nodes that lost their disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from integration.clients import TOPIC, Writer, create_topic, verify
from integration.conftest import MakeCluster
from integration.machines import PATIENCE_S, Cluster
from interop.cluster import eventually

pytestmark = pytest.mark.timeout(100)


def test_a_wiped_follower_gets_a_full_copy(cluster: Cluster) -> None:
    create_topic(cluster, partitions=3)
    writer = Writer(cluster, partitions=3)
    writer.await_more(2_000)
    controller = cluster.controller()
    victim = next(node for node in cluster.ids if node != controller)
    cluster.kill(victim)
    cluster.wipe(victim)
    cluster.start(victim)
    cluster.await_isr(TOPIC, 3, partitions=3)
    writer.await_more()
    writer.finish()
    # Only the wiped one and one other are left: what is read of the partitions it leads now is its copy.
    cluster.stop(next(node for node in cluster.ids if node not in (victim, controller)))
    verify(cluster, writer)


def test_a_node_of_another_cluster_is_refused_with_one_line(
    cluster: Cluster, make_cluster: MakeCluster
) -> None:
    """A disk that belongs to another cluster, in a node of this one."""
    other = make_cluster(nodes=1)
    other.start()
    other.stop(1)
    cluster.stop(3)
    cluster.wipe(3)
    (cluster.data(3)).mkdir()
    meta = (other.data(1) / "meta.properties").read_text().replace("node.id=1", "node.id=3")
    (cluster.data(3) / "meta.properties").write_text(meta)
    cluster.start(3, ready=False)
    cluster.await_end_of(3)
    last = cluster.log(3).strip().splitlines()[-1]
    assert last.startswith("odradek: ")
    assert other.layout.cluster_id in last
    assert cluster.layout.cluster_id in last


def test_a_node_with_the_id_of_another_is_refused_with_one_line(cluster: Cluster, tmp_path: Path) -> None:
    """Another disk, another address, the id of node 3, which lives: the second one must not get in."""
    create_topic(cluster)
    node = cluster.layout.node(3)
    properties = cluster.layout.properties(node) | {
        "log.dirs": str(tmp_path / "twin"),
        "listeners": "PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0",
        "advertised.listeners": "PLAINTEXT://127.0.0.1:0",
        "odradek.metrics.port": "-1",
    }
    file = tmp_path / "twin.properties"
    file.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
    output = tmp_path / "twin.log"
    with output.open("wb") as log:
        twin = subprocess.Popen(
            [sys.executable, "-m", "odradek.cli.main", "server", str(file)],
            env={**os.environ, "CLUSTER_ID": cluster.layout.cluster_id},
            stdout=log,
            stderr=log,
        )
    cluster.at_end.append(twin.kill)
    what_to_do = "two nodes have node.id=3; give each node an id of its own"
    eventually(lambda: what_to_do in output.read_text(), PATIENCE_S, "the second node 3 is not told")
    cluster.await_logged(1, what_to_do)
    assert "is ready" not in output.read_text()
    twin.kill()
    twin.wait()
    cluster.await_isr(TOPIC, 3)
    writer = Writer(cluster)
    writer.await_more()
    writer.finish()
    verify(cluster, writer)
