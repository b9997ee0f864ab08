"""`odradek cluster …` as a user types it, and Kafka's tools against three nodes."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from integration.clients import TOPIC, create_topic
from integration.machines import PATIENCE_S, TIMEOUT_S, Cluster, free_base
from interop.cluster import eventually, tool
from odradek.cli import cluster as cluster_command
from odradek.cli.cluster_layout import load
from odradek.cli.cluster_processes import NodeProcess, processes

pytestmark = pytest.mark.timeout(TIMEOUT_S)


def cluster_tool(directory: Path, *args: str) -> str:
    """Standard output of `odradek cluster …`, which succeeds."""
    done = tool("cluster", *args, "--dir", str(directory))
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def nodes(directory: Path) -> dict[int, dict[str, Any]]:
    """What `status --json` says, by id, without a process for each time that it is asked."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert cluster_command.run(["status", "--json", "--dir", str(directory)]) == 0
    return {node["id"]: node for node in json.loads(printed.getvalue())["nodes"]}


def test_the_life_of_a_cluster_by_hand(tmp_path: Path) -> None:
    base = free_base(3)
    try:
        said = cluster_tool(tmp_path, "start", "--nodes", "3", "--base-port", str(base))
        bootstrap = f"localhost:{base},localhost:{base + 1},localhost:{base + 2}"
        assert f"bootstrap.servers={bootstrap}" in said
        assert "running already" in cluster_tool(tmp_path, "start")
        made = tool("topics", "--create", "--topic", TOPIC, "--bootstrap-server", bootstrap)
        assert made.returncode == 0, made.stderr.decode()

        def settled() -> dict[int, dict[str, Any]]:
            """Nodes by id, once each is said to be well: a busy node may not answer in time, or be behind."""
            found = nodes(tmp_path)
            well = (
                {node["state"] for node in found.values()} == {"running"}
                and sum(node["controller"] for node in found.values()) == 1
                and [node["leaders"] for node in found.values()].count(1) == 1
                and all(node["in_sync"] == node["replicas"] == 1 for node in found.values())
                and all(node["lag"] == 0 for node in found.values())
            )
            return found if well else {}

        before = eventually(settled, PATIENCE_S, "the topic is not in sync")
        said_to_programs = json.loads(cluster_tool(tmp_path, "status", "--json"))
        assert [node["id"] for node in said_to_programs.pop("nodes")] == [1, 2, 3]
        assert not said_to_programs
        assert [node["kafka"] for node in before.values()] == bootstrap.split(",")
        assert all(node["roles"] == ["broker", "controller"] for node in before.values())

        cluster_tool(tmp_path, "kill", "2")
        assert (nodes(tmp_path)[2]["state"], nodes(tmp_path)[2]["pid"]) == ("dead", None)
        cluster_tool(tmp_path, "pause", "1")
        eventually(lambda: nodes(tmp_path)[1]["state"] == "paused", PATIENCE_S, "it is not paused")
        cluster_tool(tmp_path, "resume", "1")
        cluster_tool(tmp_path, "restart", "2")
        cluster_tool(tmp_path, "restart", "1")
        after = eventually(settled, PATIENCE_S, "the topic is not in sync again")
        assert after[3]["pid"] == before[3]["pid"]
        assert after[1]["pid"] != before[1]["pid"]
        assert "LEADER" in cluster_tool(tmp_path, "status")

        cluster_tool(tmp_path, "stop", "3")
        assert nodes(tmp_path)[3]["state"] == "stopped"
        cluster_tool(tmp_path, "start")
        assert {node["state"] for node in nodes(tmp_path).values()} == {"running"}
        cluster_tool(tmp_path, "stop")
        assert {node["state"] for node in nodes(tmp_path).values()} == {"stopped"}
    finally:
        end_all(tmp_path)


def test_in_the_foreground_ctrl_c_stops_all_nodes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "odradek.cli.main", "cluster", "start", "--foreground"]
    command += ["--base-port", str(free_base(3)), "--dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "3 nodes ready" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "stopped" in rest
        assert {each.state() for each in known(tmp_path)} == {"stopped"}
    finally:
        process.kill()
        process.communicate()
        end_all(tmp_path)


def known(directory: Path) -> list[NodeProcess]:
    layout = load(directory)
    return [] if layout is None else processes(layout)


def end_all(directory: Path) -> None:
    for process in known(directory):
        if process.pid() is not None:
            process.signal(signal.SIGKILL)


def test_kafkas_tools_describe_topics_and_the_quorum(cluster: Cluster) -> None:
    create_topic(cluster, partitions=3)
    at = ("--bootstrap-server", cluster.bootstrap)
    described = tool("topics", *at, "--describe", "--topic", TOPIC).stdout.decode()
    assert "PartitionCount: 3\tReplicationFactor: 3" in described
    assert described.count("\tElr: ") == 3
    dead = next(node for node in cluster.ids if node != cluster.controller())
    cluster.kill(dead)
    cluster.await_led_without(TOPIC, dead, partitions=3)
    short = tool("topics", *at, "--describe", "--under-replicated-partitions").stdout.decode()
    assert short.count(f"Topic: {TOPIC}\t") == 3

    def status() -> str:
        """Of the controller of now, which a busy machine may change."""
        said = tool("metadata-quorum", *at, "describe", "--status").stdout.decode()
        return said if f"LeaderId:               {cluster.controller()}\n" in said else ""

    assert eventually(status, PATIENCE_S, "another one is said to lead").count('"id": ') == 3
    replication = eventually(
        lambda: tool("metadata-quorum", *at, "describe", "--replication").stdout.decode(),
        PATIENCE_S,
        "nobody describes the quorum",
    ).splitlines()
    assert len(replication) == 4
    assert sum("Leader" in line.split() for line in replication) == 1
    assert sum("Follower" in line.split() for line in replication) == 2
