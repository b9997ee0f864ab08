"""The first process of a container, run here: what it is given wrongly ends it with one line, and writes nothing.

No container engine is needed: what an image adds to this is tested in test_engine.py.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CLUSTER = "MkU3OEVBNTcwNTJENDM2Qg"
OTHER_CLUSTER = "4L6g3nShT-eMCtK--X86sw"
LONE = {"KAFKA_LISTENERS": "PLAINTEXT://127.0.0.1:0", "ODRADEK_METRICS_PORT": "-1"}
END_S = 30.0

pytestmark = pytest.mark.timeout(90)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class First:
    """`odradek container` with a data directory of its own."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.running: list[subprocess.Popen[str]] = []

    def start(self, *words: str, **variables: str) -> subprocess.Popen[str]:
        surroundings = {key: value for key, value in os.environ.items() if not key.startswith("KAFKA_")}
        process = subprocess.Popen(
            [sys.executable, "-m", "odradek.cli.main", "container", *words],
            env={**surroundings, "KAFKA_LOG_DIRS": str(self.data), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(process)
        return process

    def refusal(self, *words: str, **variables: str) -> str:
        """The one line with which it ends, with exit code 1."""
        process = self.start(*words, **variables)
        _, errors = process.communicate(timeout=END_S)
        assert process.returncode == 1, errors
        lines = errors.strip().splitlines()
        assert len(lines) == 1, errors
        return lines[0]

    def serve_and_stop(self, **variables: str) -> None:
        """Until it is ready, then SIGTERM: exit code 0."""
        process = self.start(**variables)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "ready" in line, line + process.communicate(timeout=END_S)[1]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=END_S)
        assert process.returncode == 0

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.data)): path.read_bytes()
            for path in sorted(self.data.rglob("*"))
            if path.is_file() and path.name != ".lock"
        }


@pytest.fixture
def first(tmp_path: Path) -> Iterator[First]:
    made = First(tmp_path / "data")
    yield made
    for process in made.running:
        process.kill()
        process.communicate()


def node(**changed: str) -> dict[str, str]:
    """Node 1 of three, of which the others do not answer."""
    port, closed = free_port(), free_port()
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


def test_sigterm_before_it_is_ready_ends_it(first: First) -> None:
    """Process 1 of a container ignores signals that nobody handles; `docker stop` would wait for its grace period."""
    process = first.start(**node())
    assert process.stdout is not None
    while not (first.data / "meta.properties").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=END_S)
    assert process.returncode in (0, 128 + signal.SIGTERM)
