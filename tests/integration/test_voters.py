"""Voters of the metadata quorum that come and go (KIP-853), and one controller with several brokers."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest

from integration.clients import TOPIC, Writer, create_topic, verify
from integration.conftest import MakeCluster
from integration.machines import PATIENCE_S, TIMEOUT_S, Cluster
from interop.cluster import eventually, tool
from odradek.cli import storage
from odradek.cli.cluster_view import ask_quorum
from odradek.wire.uuid import random_uuid, uuid_from_string, uuid_to_string

pytestmark = pytest.mark.timeout(TIMEOUT_S)


def formatted(cluster: Cluster, voters: list[int]) -> Cluster:
    """A dynamic quorum whose first voters these nodes are; the others are formatted to join."""
    import random

    nodes = [cluster.layout.node(node_id) for node_id in cluster.ids]
    servers = ",".join(f"127.0.0.1:{node.internal_port}" for node in nodes if node.id in voters)
    dynamic = {"controller.quorum.voters": "", "controller.quorum.bootstrap.servers": servers}
    cluster.layout = replace(cluster.layout, overrides={**cluster.layout.overrides, **dynamic})
    cluster.layout.write()
    first = ",".join(
        f"{node.id}@127.0.0.1:{node.internal_port}:{uuid_to_string(random_uuid(random.SystemRandom()))}"
        for node in nodes
        if node.id in voters
    )
    for node in nodes:
        how = ["--initial-controllers", first] if node.id in voters else ["--no-initial-controllers"]
        file = str(cluster.layout.properties_file(node))
        assert storage.main(["format", "-t", cluster.layout.cluster_id, "-c", file, *how]) == 0
    return cluster


def directory_id(cluster: Cluster, node_id: int) -> str:
    lines = (cluster.data(node_id) / "meta.properties").read_text().splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("directory.id="))


def voters(cluster: Cluster) -> list[int]:
    """As the active controller says."""
    quorum = eventually(
        lambda: ask_quorum(cluster.layout.node(cluster.controller())),
        PATIENCE_S,
        "nobody describes the quorum",
    )
    return sorted(voter.replica_id for voter in quorum.current_voters)


def quorum_tool(cluster: Cluster, *args: str) -> str:
    """Standard output of `kafka-metadata-quorum`, which succeeds."""
    done = ask_tool(cluster, *args)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def ask_tool(cluster: Cluster, *args: str) -> subprocess.CompletedProcess[bytes]:
    return tool("metadata-quorum", "--bootstrap-server", cluster.bootstrap, *args)


def await_caught_up(cluster: Cluster, node_id: int) -> None:
    """The node, no voter yet, has the metadata: the leader waits only for a second until a new voter has."""

    def caught_up() -> bool:
        quorum = ask_quorum(cluster.layout.node(cluster.controller()))
        ends = {} if quorum is None else {each.replica_id: each.log_end_offset for each in quorum.observers}
        return node_id in ends and ends[node_id] >= quorum.high_watermark

    eventually(caught_up, PATIENCE_S, f"{node_id} does not catch up")


def test_a_voter_is_added_the_leader_removed_and_all_restarted(make_cluster: MakeCluster) -> None:
    cluster = formatted(make_cluster(nodes=5), voters=[1, 2, 3])
    cluster.start(1, 2, 3)
    assert voters(cluster) == [1, 2, 3]
    create_topic(cluster)
    writer = Writer(cluster)
    writer.await_more()

    cluster.start(4)
    cluster.await_logged(4, "this controller is no voter")
    await_caught_up(cluster, 4)
    file = str(cluster.layout.properties_file(cluster.layout.node(4)))
    own = directory_id(cluster, 4)
    said = quorum_tool(cluster, "--command-config", file, "add-controller")
    port = cluster.layout.node(4).internal_port
    assert (
        said == f"Added controller 4 with directory id {own} and endpoints: CONTROLLER://127.0.0.1:{port}\n"
    )
    assert voters(cluster) == [1, 2, 3, 4]
    again = ask_tool(cluster, "--command-config", file, "add-controller")
    assert again.returncode == 1
    assert b"is already part of the set of voters" in again.stderr

    leader = cluster.controller()
    gone = directory_id(cluster, leader)
    said = quorum_tool(cluster, "remove-controller", "-i", str(leader), "-d", gone)
    assert said == f"Removed  KRaft controller {leader} with directory id {gone}\n"
    cluster.next_controller(leader)
    left = sorted({1, 2, 3, 4} - {leader})
    assert voters(cluster) == left
    writer.await_more()

    cluster.kill(1, 2, 3, 4)
    cluster.start(1, 2, 3, 4)
    assert voters(cluster) == left
    dead = cluster.controller()
    cluster.kill(dead)
    assert cluster.next_controller(dead) in left
    writer.await_more()
    writer.finish()
    verify(cluster, writer)


def test_a_wiped_voter_is_another_one_and_says_so(make_cluster: MakeCluster) -> None:
    cluster = formatted(make_cluster(nodes=3), voters=[1, 2, 3])
    cluster.start()
    victim = next(node for node in cluster.ids if node != cluster.controller())
    before = directory_id(cluster, victim)
    cluster.stop(victim)
    cluster.wipe(victim)
    cluster.start(victim, ready=False)
    cluster.await_end_of(victim)
    assert "run kafka-storage format" in cluster.log(victim).strip().splitlines()[-1]

    file = str(cluster.layout.properties_file(cluster.layout.node(victim)))
    assert storage.main(["format", "-N", "-t", cluster.layout.cluster_id, "-c", file]) == 0
    cluster.start(victim)
    cluster.await_logged(victim, "this controller is no voter")
    quorum_tool(cluster, "remove-controller", "-i", str(victim), "-d", before)
    await_caught_up(cluster, victim)
    quorum_tool(cluster, "--command-config", file, "add-controller")
    assert voters(cluster) == [1, 2, 3]
    assert uuid_from_string(directory_id(cluster, victim)) != uuid_from_string(before)


def test_controllers_that_join_by_themselves_and_one_that_lost_its_disk(make_cluster: MakeCluster) -> None:
    """controller.quorum.auto.join.enable: one node begins, the others come, and come back as others."""
    joining = {"controller_quorum_auto_join_enable": "true"}
    cluster = formatted(make_cluster(nodes=3, **joining), voters=[1])
    cluster.start()
    eventually(lambda: voters(cluster) == [1, 2, 3], PATIENCE_S, "not everybody joins")
    create_topic(cluster)
    writer = Writer(cluster)
    writer.await_more()
    victim = next(node for node in cluster.ids if node != cluster.controller())
    before = directory_id(cluster, victim)
    cluster.kill(victim)
    cluster.wipe(victim)
    file = str(cluster.layout.properties_file(cluster.layout.node(victim)))
    assert storage.main(["format", "-N", "-t", cluster.layout.cluster_id, "-c", file]) == 0
    cluster.start(victim)
    own = uuid_from_string(directory_id(cluster, victim))
    assert own != uuid_from_string(before)

    def is_voter_again() -> bool:
        """Nobody describes the quorum while it elects."""
        shown = ask_tool(cluster, "describe", "--status").stdout.decode().splitlines()
        return any("CurrentVoters" in line and uuid_to_string(own) in line for line in shown)

    eventually(is_voter_again, PATIENCE_S, "the new disk is no voter")
    assert voters(cluster) == [1, 2, 3]
    cluster.kill(cluster.controller())
    writer.await_more()
    writer.finish()
    verify(cluster, writer)


def test_one_combined_controller_and_two_brokers(make_cluster: MakeCluster) -> None:
    """The first node is the quorum; the others find it through controller.quorum.bootstrap.servers."""
    cluster = make_cluster(nodes=3)
    first, *others = [cluster.layout.node(node_id) for node_id in cluster.ids]
    nodes = [first, *(replace(node, roles=("broker",)) for node in others)]
    dynamic = {
        "controller.quorum.voters": "",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{first.internal_port}",
    }
    cluster.layout = replace(cluster.layout, nodes=tuple(nodes), overrides=dynamic)
    cluster.layout.write()
    cluster.start()
    create_topic(cluster, partitions=3)
    writer = Writer(cluster, partitions=3)
    writer.await_more()
    cluster.kill(2)
    writer.await_more()
    cluster.start(2)
    cluster.await_isr(TOPIC, 3, partitions=3)
    cluster.kill(1)
    cluster.start(1)
    assert voters(cluster) == [1]
    writer.await_more()
    writer.finish()
    verify(cluster, writer)
