"""The first process of a container, run here: what it is given wrongly ends it with one line, and writes nothing.

No container engine is needed: what an image adds to this is tested in test_container.py.
"""

from __future__ import annotations

import signal

import pytest

from deploy.first_process import END_S, LONE, First
from interop.cluster import PATIENCE_S, eventually, free_ports

CLUSTER = "MkU3OEVBNTcwNTJENDM2Qg"
OTHER_CLUSTER = "4L6g3nShT-eMCtK--X86sw"


def node(**changed: str) -> dict[str, str]:
    """Node 1 of three, of which the others do not answer."""
    port, closed = free_ports(2)
    return {
        "CLUSTER_ID": CLUSTER,
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": f"1@127.0.0.1:{port},2@127.0.0.1:{closed},3@127.0.0.1:{closed}",
        "KAFKA_LISTENERS": f"PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:{port}",
        "KAFKA_ADVERTISED_LISTENERS": "PLAINTEXT://127.0.0.1:9092",
        "ODRADEK_METRICS_PORT": "-1",
        **changed,
    }


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"CLUSTER_ID": ""}, "CLUSTER_ID environment variable not set"),
        ({"CLUSTER_ID": "not an id"}, "does not appear to be a valid UUID"),
        ({"CLUSTER_ID": "", "CLUSTER_ID_FILE": "/nowhere/id"}, "CLUSTER_ID_FILE: cannot read /nowhere/id"),
        ({"KAFKA_NODE_ID": "4"}, "the node id 4 must be included in the set of voters"),
        ({"KAFKA_NODE_ID": "one"}, "node.id"),
        ({"KAFKA_PROCESS_ROLES": "broker,boss"}, "process.roles"),
        ({"ODRADEK_STOP_GRACE_SECONDS": "10"}, "Let stop_grace_period"),
        ({"KAFKA_LOG_DIRS": "/dev/null/data"}, "/dev/null"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    first: First, changed: dict[str, str], expected: str
) -> None:
    line = first.refusal(**node(**changed))
    assert line.startswith("odradek: ")
    assert expected in line
    assert not first.data.exists()


def test_a_volume_of_another_cluster(first: First) -> None:
    first.serve_and_stop(**LONE, CLUSTER_ID=OTHER_CLUSTER)
    before = first.files()
    line = first.refusal(**LONE, CLUSTER_ID=CLUSTER)
    assert OTHER_CLUSTER in line
    assert CLUSTER in line
    assert first.files() == before


def test_a_volume_of_another_node(first: First) -> None:
    first.serve_and_stop(**LONE, CLUSTER_ID=CLUSTER)
    before = first.files()
    line = first.refusal(**LONE, CLUSTER_ID=CLUSTER, KAFKA_NODE_ID="2")
    assert "Stored node id 1 doesn't match node id 2" in line
    assert first.files() == before


def test_a_volume_with_somebody_elses_files(first: First) -> None:
    first.data.mkdir()
    (first.data / "PG_VERSION").write_text("17\n")
    line = first.refusal(**LONE)
    assert "PG_VERSION" in line
    assert list(first.files()) == ["PG_VERSION"]


def test_a_new_volume_of_ext4_is_empty_enough(first: First) -> None:
    """The root of a file system has a directory lost+found."""
    (first.data / "lost+found").mkdir(parents=True)
    first.serve_and_stop(**LONE)


def test_the_id_may_be_left_out_once_the_volume_has_one(first: First) -> None:
    first.serve_and_stop(**LONE, CLUSTER_ID=CLUSTER)
    first.serve_and_stop(**LONE)
    assert f"cluster.id={CLUSTER}" in (first.data / "meta.properties").read_text()


def test_a_node_without_its_peers_ends_after_the_time_that_it_was_given(first: First) -> None:
    line = first.refusal(**node(KAFKA_INITIAL_BROKER_REGISTRATION_TIMEOUT_MS="1000"))
    assert "unable to register with the controller quorum within 1000 ms" in line
    assert "controller.quorum.voters" in line
    assert f"cluster.id={CLUSTER}" in (first.data / "meta.properties").read_text()  # whole, for the next try


def test_a_first_start_that_is_killed_is_made_up_for_by_the_next(first: First) -> None:
    process = first.start(**LONE, CLUSTER_ID=CLUSTER)
    eventually(first.data.exists, PATIENCE_S, "there is no directory", every_s=0.002)
    process.kill()
    process.communicate(timeout=END_S)
    first.serve_and_stop(**LONE, CLUSTER_ID=CLUSTER)
    assert f"cluster.id={CLUSTER}" in (first.data / "meta.properties").read_text()


def test_sigterm_before_it_is_ready_ends_it(first: First) -> None:
    """Process 1 of a container ignores signals that nobody handles; `docker stop` would wait for its grace period."""
    process = first.start(**node())
    assert process.stdout is not None
    eventually((first.data / "meta.properties").exists, PATIENCE_S, "nothing is formatted", every_s=0.002)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=END_S)
    assert process.returncode in (0, 128 + signal.SIGTERM)
