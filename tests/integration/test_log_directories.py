"""Two log directories: replicas move from one to the other (KIP-113); one fails, and what it led is led elsewhere, the
rest goes on (KIP-112, KIP-858).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from confluent_kafka import ElectionType, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from integration.clients import TOPIC, Writer, create_topic, settings, verify
from integration.conftest import MakeCluster
from integration.machines import PATIENCE_S, STEADY, TIMEOUT_S, Cluster
from interop.cluster import eventually, tool

pytestmark = pytest.mark.timeout(TIMEOUT_S)

PARTITIONS = 12


@pytest.fixture
def two_disks(make_cluster: MakeCluster) -> Cluster:
    """Three nodes that have `data`, which holds the metadata log, and `second`."""
    cluster = make_cluster(log_segment_bytes="1048576", log_roll_ms="300000", **STEADY)
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


def create_led_by_turns(cluster: Cluster, topic: str) -> None:
    """A node leads every third partition and has its logs in each directory by turns: it leads in both. Where replicas
    are placed freely, all that a node leads may be in one.
    """
    ids = list(cluster.ids)
    turns = [ids[index % 3 :] + ids[: index % 3] for index in range(PARTITIONS)]
    admin = AdminClient(settings(cluster))
    admin.create_topics([NewTopic(topic, PARTITIONS, replica_assignment=turns)], request_timeout=20)[
        topic
    ].result(30)
    cluster.await_isr(topic, 3, PARTITIONS)


def led_in_both(cluster: Cluster, node: int) -> tuple[list[int], list[int]]:
    """Partitions that the node leads, in `second` and in `data`. A busy node can have lost what it led before the test
    begins, so preferred replicas are elected.
    """
    admin = AdminClient(settings(cluster))
    admin.elect_leaders(ElectionType.PREFERRED).result(PATIENCE_S)
    leads = [index for index in range(PARTITIONS) if cluster.leader(TOPIC, index) == node]
    there = [index for index in leads if (second_of(cluster, node) / f"{TOPIC}-{index}").is_dir()]
    return there, [index for index in leads if index not in there]


def fill_a_segment(cluster: Cluster, partition: int) -> None:
    """More than a segment holds: the next one has to be created, wherever the leader is by then."""
    producer = Producer(settings(cluster, acks="all", message_timeout_ms=int(PATIENCE_S * 1_000)))
    for _ in range(15):
        producer.produce("padding", bytes(100_000), partition=partition)
    assert producer.flush(PATIENCE_S) == 0


def test_a_directory_that_fails_moves_what_it_led(two_disks: Cluster) -> None:
    cluster = two_disks
    create_led_by_turns(cluster, TOPIC)
    create_topic(cluster, "padding", partitions=PARTITIONS)
    victim = next(node for node in cluster.ids if node != cluster.controller())
    eventually(lambda: all(led_in_both(cluster, victim)), PATIENCE_S, "it does not lead in both directories")
    moving, staying = led_in_both(cluster, victim)
    second = second_of(cluster, victim)
    # All three nodes have a replica of it: the victim writes to it as its leader or as a follower.
    padding = next(index for index in range(PARTITIONS) if (second / f"padding-{index}").is_dir())
    writer = Writer(cluster, partitions=PARTITIONS)
    writer.await_more()
    lose(second)
    fill_a_segment(cluster, padding)
    cluster.await_logged(victim, "log directory offline")

    cluster.await_led_without(TOPIC, victim, indexes=moving)
    writer.await_more(1_000)
    assert {cluster.leader(TOPIC, index) for index in staying} == {victim}
    cluster.await_led_without(TOPIC, victim, indexes=moving)
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


def replicas_in(cluster: Cluster, topic: str) -> dict[int, set[str]]:
    """Directories of the topic's first partition by node; two while it is on its way."""
    return {
        node: {
            root.name
            for root in (cluster.data(node), second_of(cluster, node))
            for path in root.iterdir()
            if path.name == f"{topic}-0"
            or (path.name.startswith(f"{topic}-0.") and path.name.endswith("-future"))
        }
        for node in cluster.ids
    }


def reassign(cluster: Cluster, *args: str) -> str:
    done = tool("reassign-partitions", "--bootstrap-server", cluster.bootstrap, *args)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return done.stdout.decode()


def test_replicas_move_while_they_are_written_to_and_their_brokers_die(
    two_disks: Cluster, tmp_path: Path
) -> None:
    cluster = two_disks
    create_topic(cluster, min_insync_replicas="2", flush_messages="1")
    writer = Writer(cluster)
    writer.await_more(1_000)
    before = replicas_in(cluster, TOPIC)
    goes_to = {
        node: second_of(cluster, node) if where == {cluster.data(node).name} else cluster.data(node)
        for node, where in before.items()
    }
    order = list(cluster.partition(TOPIC).replica_nodes)
    file = tmp_path / "move.json"
    entry = {
        "topic": TOPIC,
        "partition": 0,
        "replicas": order,
        "log_dirs": [str(goes_to[node]) for node in order],
    }
    file.write_text(json.dumps({"version": 1, "partitions": [entry]}))
    said = reassign(
        cluster,
        "--execute",
        "--reassignment-json-file",
        str(file),
        "--replica-alter-log-dirs-throttle",
        "100",  # bytes a second: it is still under way when everything here is done
    )
    assert said.count("Successfully started moving log directory to") == 3
    leader = cluster.leader(TOPIC)
    assert len(replicas_in(cluster, TOPIC)[leader]) == 2, "it is on its way"
    cluster.kill(leader)
    writer.await_more(200)
    cluster.start(leader)
    said = reassign(cluster, "--verify", "--preserve-throttles", "--reassignment-json-file", str(file))
    assert "is still in progress" in said
    clear = {"version": 1, "partitions": [{key: entry[key] for key in ("topic", "partition", "replicas")}]}
    (tmp_path / "clear.json").write_text(json.dumps(clear))
    reassign(
        cluster, "--verify", "--reassignment-json-file", str(tmp_path / "clear.json")
    )  # throttles go with it

    def moved() -> bool:
        return replicas_in(cluster, TOPIC) == {node: {path.name} for node, path in goes_to.items()}

    eventually(moved, PATIENCE_S, f"not everything moved: {replicas_in(cluster, TOPIC)}")
    said = reassign(cluster, "--verify", "--reassignment-json-file", str(file))
    assert said.count("completed successfully.") == 3
    writer.await_more(200)
    cluster.kill(*cluster.ids)
    cluster.start()
    cluster.await_isr(TOPIC, 3)
    writer.await_more(200)
    writer.finish()
    verify(cluster, writer)
    assert moved()


def test_a_directory_removed_under_a_node_and_not_there_at_its_next_start(two_disks: Cluster) -> None:
    cluster = two_disks
    create_topic(cluster, partitions=PARTITIONS)
    writer = Writer(cluster, partitions=PARTITIONS)
    writer.await_more()
    victim = next(node for node in cluster.ids if node != cluster.controller())
    second = second_of(cluster, victim)
    there = sorted(path.name for path in second.iterdir() if path.name.startswith(f"{TOPIC}-"))
    lost = [int(name.rpartition("-")[2]) for name in there]
    assert 0 < len(lost) < PARTITIONS
    second.rename(second.with_name("removed"))  # at once: the node goes on creating files in it
    shutil.rmtree(second.with_name("removed"))
    cluster.await_logged(victim, "log directory offline")
    cluster.await_led_without(TOPIC, victim, indexes=lost)
    writer.await_more()
    cluster.stop(victim)
    second.write_text("a file where the directory was")
    (cluster.data(victim) / "notes.txt").write_text("somebody's")
    cluster.start(victim, ready=False)
    others = [index for index in range(PARTITIONS) if index not in lost]
    cluster.await_all(
        TOPIC,
        lambda partition: victim in partition.isr_nodes,
        "what is in the other directory does not come back",
        indexes=others,
    )
    cluster.await_led_without(TOPIC, victim, indexes=lost)
    cluster.await_logged(victim, "not a log, left alone")
    cluster.kill(victim)
    second.unlink()
    cluster.start(victim)
    cluster.await_isr(TOPIC, 3, partitions=PARTITIONS)
    assert (cluster.data(victim) / "notes.txt").read_text() == "somebody's"
    writer.await_more()
    writer.finish()
    verify(cluster, writer)
