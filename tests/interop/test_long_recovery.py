"""A recovery that takes seconds: it scans in processes, says how far it is, and ends when it is told to."""

from __future__ import annotations

import json
import re
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from interop.cluster import PATIENCE_S, Node, eventually
from odradek.storage.config import LogConfig
from odradek.storage.log import Log
from odradek.storage.real_disk import RealDisk
from odradek.wire.records import simple_batch

NOW = 1_700_000_000_000
BYTES = 5 << 20
LOGS = 400
"""The node is told to end as soon as it was seen to recover; that must not be over before."""


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """With some seconds of work before it: many names of one segment of tiny batches."""
    node = Node(tmp_path)
    log = Log.open(RealDisk(), str(node.data / "t-0"), LogConfig(), topic="t", partition=0, wall_ms=NOW)
    while log.size_bytes < BYTES:
        for _ in range(1000):
            log.append_as_leader(
                memoryview(simple_batch([(b"k", b"v")], base_offset=0, timestamp=NOW)), 0, NOW
            )
        log.write_staged()
    log.close_files()
    segment = Path(log.active_segment.path(".log"))
    for number in range(1, LOGS):
        directory = node.data / f"t-{number}"
        directory.mkdir()
        (directory / segment.name).hardlink_to(segment)
    return node


def get(node: Node, path: str) -> tuple[int, str]:
    """(0, "") while nobody answers."""
    try:
        with urllib.request.urlopen(
            f"http://localhost:{node.metrics_port}{path}", timeout=PATIENCE_S
        ) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def scanners(pid: int) -> list[int]:
    """The processes that scan for this node."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            parent = status.read_text().partition("PPid:")[2].split()[0]
            command = (status.parent / "cmdline").read_bytes()
        except (OSError, IndexError):  # it has ended meanwhile
            continue
        if int(parent) == pid and b"scan_processes" in command:
            found.append(int(status.parent.name))
    return found


def test_a_long_recovery_is_seen_and_can_be_ended(node: Node) -> None:
    listens, node._listens = node._listens, lambda: True  # type: ignore[method-assign]
    node.start()
    assert node.process is not None
    pid = node.process.pid
    try:
        metrics = eventually(
            lambda: "remainingsegmentstorecover{" in (text := get(node, "/metrics")[1]) and text,
            PATIENCE_S,
            "no metrics",
        )
        assert "kafka_server_kafkaserver_brokerstate 2.0" in metrics
        assert get(node, "/livez")[0] == 200
        status, body = get(node, "/startupz")
        assert (status, json.loads(body)["recovery"]["logs"]) == (503, LOGS)
        assert 0 < json.loads(body)["recovery"]["segmentsLeft"] <= LOGS
        children = eventually(lambda: scanners(pid), PATIENCE_S, "nobody scans")
    finally:
        assert node.stop() == 0
    assert "stopped before all logs were recovered" in node.log
    eventually(
        lambda: not any(Path(f"/proc/{child}").exists() for child in children), 10, "somebody still scans"
    )

    for number in range(3, LOGS):
        shutil.rmtree(node.data / f"t-{number}")
    node._listens = listens  # type: ignore[method-assign]
    node.start()
    try:
        assert re.search(rf"Loaded 3 logs in \d+ms \(unclean log dirs = {node.data}\)", node.log)
    finally:
        node.stop()
