"""Apache Kafka's own tools read our metadata log and snapshots, and we read what they write."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from interop import real_kafka
from odradek.raft import snapshots
from odradek.raft.testing.node import METADATA_DIR, single_node

LOG_DIR = f"{METADATA_DIR}/__cluster_metadata-0"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The directory of a node that has led twice and made a snapshot."""
    node = single_node()
    for _ in range(2):
        node.start()
        node.settle()
        node.append(b"one", b"two")
        node.settle()
        assert node.snapshot()
        node.settle()
        node.stop()
    for name in node.disk.listdir(LOG_DIR):
        (tmp_path / name).write_bytes(node.disk.read_file(f"{LOG_DIR}/{name}"))
    return tmp_path


def dump(path: Path) -> list[str]:
    done = real_kafka.run_tool(
        "org.apache.kafka.tools.DumpLogSegments", ["--files", str(path), "--print-data-log"]
    )
    assert done.returncode == 0 and not done.stderr.strip(), done.stderr.decode()
    return done.stdout.decode().splitlines()


@pytest.mark.usefixtures("kafka_tools")
def test_kafkas_dump_tool_reads_the_log(files: Path) -> None:
    lines = dump(files / "00000000000000000000.log")
    text = "\n".join(lines)
    assert "invalid" not in text.replace("isvalid: true", "")
    assert (
        'LeaderChange: {"version":0,"leaderId":1,"voters":[{"voterId":1}],"grantingVoters":[{"voterId":1}]}'
        in text
    )
    assert 'KRaftVersion {"version":0,"kRaftVersion":1}' in text
    assert 'KRaftVoters {"version":0,"voters":[{"voterId":1,' in text
    assert [m[1] for m in re.finditer(r"payload: (\w+)", text)] == ["one", "two"] * 2
    assert [m[1] for m in re.finditer(r"partitionLeaderEpoch: (\d+)", text)] == ["1", "1", "2", "2"]


@pytest.mark.usefixtures("kafka_tools")
def test_kafkas_dump_tool_reads_the_snapshot(files: Path) -> None:
    text = "\n".join(dump(files / "00000000000000000008-0000000002.checkpoint"))
    assert "Snapshot end offset: 8, epoch: 2" in text
    assert re.search(
        r"SnapshotHeader .*KRaftVersion .*KRaftVoters .*payload: one.*SnapshotFooter", text, re.DOTALL
    )


@pytest.mark.usefixtures("kafka_tools")
def test_we_read_the_bootstrap_snapshot_of_kafkas_storage_tool(tmp_path: Path) -> None:
    properties = tmp_path / "server.properties"
    properties.write_text(
        f"process.roles=broker,controller\nnode.id=7\nlisteners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093\n"
        f"controller.listener.names=CONTROLLER\nlog.dirs={tmp_path / 'data'}\n"
        f"controller.quorum.bootstrap.servers=localhost:9093\n"
    )
    arguments = ["format", "--standalone", "-t", real_kafka.CLUSTER_ID, "-c", str(properties)]
    done = real_kafka.run_tool("kafka.tools.StorageTool", arguments)
    assert done.returncode == 0, done.stderr.decode()
    (path,) = tmp_path.glob("data/__cluster_metadata-0/*.checkpoint")
    assert snapshots.parse_name(path.name) == (0, 0)
    voters = snapshots.decode(path.read_bytes()).voters
    assert voters is not None
    (voter,) = voters.voters
    assert (voter.id, voter.endpoints[0][:2], voters.has_all_directories) == (
        7,
        ("CONTROLLER", "localhost"),
        True,
    )
