"""Nodes that must not take part, and nodes that lost their disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from integration.clients import TOPIC, Writer, create_topic, verify
from integration.conftest import MakeCluster
from integration.machines import PATIENCE_S, TIMEOUT_S, Cluster
from interop.cluster import eventually

pytestmark = pytest.mark.timeout(TIMEOUT_S)


def test_a_wiped_follower_gets_a_full_copy(cluster: Cluster) -> None:
    create_topic(cluster, partitions=3)
    writer = Writer(cluster, partitions=3)
    writer.await_more(1_000)
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


class Stranger:
    """A process beside the cluster, with the properties of one of its nodes but a directory and ports of its own."""

    def __init__(
        self,
        cluster: Cluster,
        directory: Path,
        node_id: int,
        *,
        cluster_id: str = "",
        prelude: str = "",
        **overrides: str,
    ) -> None:
        own = {
            "log.dirs": str(directory / "data"),
            "listeners": "PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0",
            "advertised.listeners": "PLAINTEXT://127.0.0.1:0",
            "odradek.metrics.port": "-1",
        }
        directory.mkdir(exist_ok=True)
        properties = cluster.layout.properties(cluster.layout.node(node_id)) | own
        properties |= {key.replace("_", "."): value for key, value in overrides.items()}
        file = directory / "server.properties"
        file.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        main = "import sys; from odradek.cli.main import main; sys.exit(main(sys.argv[1:]))"
        self.output = directory / "node.log"
        with self.output.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"{prelude}\n{main}", "server", str(file)],
                env={**os.environ, "CLUSTER_ID": cluster_id or cluster.layout.cluster_id},
                stdout=log,
                stderr=log,
            )
        cluster.at_end.append(self.process.kill)

    def refused(self) -> str:
        """It ends by itself, not having served anybody; its last line."""
        try:
            code = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it goes on:\n{self.output.read_text()}")
        said = self.output.read_text()
        assert code == 1
        assert "is ready" not in said
        last = said.strip().splitlines()[-1]
        assert last.startswith("odradek: ")
        return last


def test_a_node_with_the_id_of_another_is_refused_with_one_line(cluster: Cluster, tmp_path: Path) -> None:
    """Another disk, another address, the id of node 3, which lives: the second one must not get in."""
    create_topic(cluster)
    writer = Writer(cluster)
    what_to_do = "two nodes have node.id=3; give each node an id of its own"
    assert what_to_do in Stranger(cluster, tmp_path / "twin", 3).refused()
    # Who is talking to node 3 then knows better; the others cannot, and let the twin ask them.
    eventually(
        lambda: any(what_to_do in cluster.log(node) for node in cluster.ids), PATIENCE_S, "nobody says so"
    )
    assert max(cluster.log(node).count(what_to_do) for node in cluster.ids) == 1
    cluster.await_isr(TOPIC, 3)
    writer.await_more()
    writer.finish()
    verify(cluster, writer)


OTHER_CLUSTER = "AAAAAAAAAAAAAAAAAAAAAQ"
OLDER = {
    "rpc": (
        "import odradek.rpc.identity as i; i.RPC_VERSION = 0",
        ["run the same version of Odradek on every node"],
    ),
    "metadata.version": (
        "import odradek.controller.settings as s; s.SUPPORTED_FEATURES = "
        "{**s.SUPPORTED_FEATURES, 'metadata.version': (29, 29)}",
        # Registration refuses it, unless it has read the metadata log before that.
        ["Start the version of the other nodes", "start the version that wrote it, or a newer one"],
    ),
}
"""What makes a node an older one, and what it is told."""


@dataclass
class Host:
    """A cluster that three strangers want to join at once: each tries for eight seconds."""

    cluster: Cluster
    of_another_cluster: Stranger
    older: dict[str, Stranger]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    directory = tmp_path_factory.mktemp("host")
    cluster = Cluster(directory / "cluster")
    try:
        cluster.start()
        ids = iter(("7", "8", "9"))

        def stranger(name: str, **more: str) -> Stranger:
            role = {"node.id": next(ids), "process.roles": "broker", "listeners": "PLAINTEXT://127.0.0.1:0"}
            return Stranger(cluster, directory / name, 3, **role, **more)

        yield Host(
            cluster,
            stranger("other", cluster_id=OTHER_CLUSTER),
            {name: stranger(name, prelude=prelude) for name, (prelude, _) in OLDER.items()},
        )
    finally:
        cluster.destroy()


def test_a_broker_of_another_cluster_is_refused_over_the_network(host: Host) -> None:
    last = host.of_another_cluster.refused()
    ours = host.cluster.layout.cluster_id
    assert f"belongs to cluster {ours}" in last or f"to cluster {OTHER_CLUSTER}" in last
    assert "give both the same cluster id" in last
    for node in (1, 2, 3):
        assert host.cluster.log(node).count("give both the same cluster id") <= 1


@pytest.mark.parametrize("what", OLDER)
def test_a_node_of_an_older_version_is_refused_with_one_line(host: Host, what: str) -> None:
    line = host.older[what].refused()
    assert any(text in line for text in OLDER[what][1]), line


def test_a_copy_of_a_node_ends_and_the_original_or_the_copy_serves(cluster: Cluster, tmp_path: Path) -> None:
    """The same disk twice, as after a careless restore: the newer process counts, the older one is told to stop."""
    # Node 3 follows the two others, so both know it before they hear of its copy.
    create_topic(cluster, partitions=3)
    cluster.pause(3)
    shutil.copytree(cluster.data(3), tmp_path / "copy" / "data")
    (tmp_path / "copy" / "data" / ".lock").unlink(missing_ok=True)
    copy = Stranger(cluster, tmp_path / "copy", 3)
    eventually(lambda: "is ready" in copy.output.read_text(), PATIENCE_S, "the newer process does not serve")
    cluster.resume(3)
    cluster.await_end_of(3)
    assert "another process" in cluster.log(3).strip().splitlines()[-1]
    assert copy.process.poll() is None
