"""A disk that is really full, or turns read-only, under a running node: its directory goes offline, and nothing else.

A file system of its own is mounted for one of the node's two log directories; that needs root and `mount`.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from integration.clients import create_topic
from integration.conftest import MakeCluster
from integration.machines import PATIENCE_S, TIMEOUT_S, Cluster
from interop.cluster import eventually
from odradek.wire.errors import ErrorCode
from odradek.wire.frame import decode_response_header, encode_request
from odradek.wire.messages.fetch import FetchPartition, FetchRequest, FetchResponse, FetchTopic
from odradek.wire.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from odradek.wire.records import read_records, simple_batch

pytestmark = pytest.mark.timeout(TIMEOUT_S)

TOPIC = "full"
PARTITIONS = 6
PRODUCE, PRODUCE_VERSION = 0, 9
FETCH, FETCH_VERSION = 1, 11
RECORD_BYTES = 100_000
REFUSALS = (ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.NOT_LEADER_OR_FOLLOWER)
"""The directory has just failed; the controller has heard of it, and the partition has no leader any more."""


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: `{' '.join(command)}` says {done.stderr.strip()!r}")


@contextmanager
def mounted(directory: Path, *options: str) -> Iterator[None]:
    missing = [tool for tool in ("mount", "umount") if shutil.which(tool) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"mounting a small file system needs root and mount: {missing or 'this is not root'}")
    run("mount", *options, str(directory))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True, timeout=30)


@pytest.fixture
def one_node(make_cluster: MakeCluster) -> Iterator[Callable[..., Cluster]]:
    """A node with `data`, which has the metadata log, and `second`, whose file system is small."""
    at_end = []

    def make(*options: str) -> Cluster:
        cluster = make_cluster(
            nodes=1, log_segment_bytes="2097152", log_flush_offset_checkpoint_interval_ms="500"
        )
        node = cluster.layout.nodes[0]
        data, second = cluster.data(node.id), second_of(cluster)
        second.mkdir(parents=True)
        mount = mounted(second, *options)
        mount.__enter__()
        at_end.append((cluster, mount))
        shutil.rmtree(second / "lost+found", ignore_errors=True)
        with cluster.layout.properties_file(node).open("a") as file:
            file.write(f"\nlog.dirs={data},{second}\nmetadata.log.dir={data}\n")
        cluster.start()
        create_topic(cluster, TOPIC, PARTITIONS, replication=1)
        return cluster

    yield make
    for cluster, mount in at_end:
        cluster.destroy()
        mount.__exit__(None, None, None)


def second_of(cluster: Cluster) -> Path:
    return cluster.data(cluster.ids[0]).with_name("second")


class Link:
    """A connection that speaks to the node in requests of its own."""

    def __init__(self, cluster: Cluster) -> None:
        host, port = cluster.bootstrap.split(",")[0].rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), timeout=PATIENCE_S)

    def ask(self, key: int, version: int, body: bytes) -> tuple[bytes, int] | None:
        """The frame and where its body begins; None if the connection ends without an answer."""
        try:
            self._socket.sendall(encode_request(key, version, 1, "raw", body))
            data = b""
            while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):
                chunk = self._socket.recv(1 << 20)
                if not chunk:
                    return None
                data += chunk
        except ConnectionError:
            return None
        return data[4:], decode_response_header(data[4:], key, version)[1]

    def produce(self, index: int, value: bytes) -> tuple[ErrorCode, int] | None:
        batch = simple_batch([(None, value)], base_offset=0, timestamp=1)
        data = [
            TopicProduceData(name=TOPIC, partition_data=[PartitionProduceData(index=index, records=batch)])
        ]
        request = ProduceRequest(acks=-1, timeout_ms=5_000, topic_data=data)
        found = self.ask(PRODUCE, PRODUCE_VERSION, request.encode(PRODUCE_VERSION))
        if found is None:
            return None
        response = ProduceResponse.decode(found[0], PRODUCE_VERSION, found[1])
        answer = response.responses[0].partition_responses[0]
        return ErrorCode(answer.error_code), answer.base_offset

    def fetch(self, index: int, offset: int) -> list[tuple[int, bytes]]:
        topics = [
            FetchTopic(
                topic=TOPIC,
                partitions=[
                    FetchPartition(partition=index, fetch_offset=offset, partition_max_bytes=1 << 20)
                ],
            )
        ]
        request = FetchRequest(max_wait_ms=100, min_bytes=1, max_bytes=1 << 20, topics=topics)
        found = self.ask(FETCH, FETCH_VERSION, request.encode(FETCH_VERSION))
        assert found is not None
        answer = FetchResponse.decode(found[0], FETCH_VERSION, found[1]).responses[0].partitions[0]
        assert answer.error_code == 0, ErrorCode(answer.error_code)
        records, data, at = [], memoryview(answer.records or b""), 0
        while at + 12 <= len(data):
            size = int.from_bytes(data[at + 8 : at + 12], "big") + 12
            if at + size > len(data):
                break
            batch = read_records(bytes(data[at : at + size]), limit=1 << 24)
            records += [(record.offset, bytes(record.value or b"")) for record in batch]
            at += size
        return records

    def read(self, index: int, end: int) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        offset = 0
        while offset < end:
            records = self.fetch(index, offset)
            assert records, f"nothing at {offset} of partition {index}, which ends at {end}"
            found.update(records)
            offset = records[-1][0] + 1
        return found


class Written:
    """What was acknowledged, by partition."""

    def __init__(self) -> None:
        self.acked: dict[int, dict[int, bytes]] = {index: {} for index in range(PARTITIONS)}
        self.number = 0

    def write(self, link: Link, index: int, size: int = RECORD_BYTES) -> ErrorCode | None:
        """None if there was no answer: the batch may be there or not."""
        self.number += 1
        value = b"%d/%d." % (index, self.number) + bytes(size)
        answer = link.produce(index, value)
        if answer is None:
            return None
        if answer[0] is ErrorCode.NONE:
            self.acked[index][answer[1]] = value
        return answer[0]

    def check(self, link: Link) -> None:
        for index, acked in self.acked.items():
            found = link.read(index, max(acked, default=-1) + 1)
            assert {offset: found.get(offset) for offset in acked} == acked, (
                f"partition {index} has lost something"
            )


def split(cluster: Cluster) -> tuple[list[int], list[int]]:
    """(partitions on the small file system, the others)."""
    there = {path.name for path in second_of(cluster).iterdir()}
    small = [index for index in range(PARTITIONS) if f"{TOPIC}-{index}" in there]
    others = [index for index in range(PARTITIONS) if index not in small]
    assert small and others, "the node uses both of its directories"
    return small, others


def goes_on_without(cluster: Cluster, written: Written, small: list[int], others: list[int]) -> None:
    """What lies on the failed directory is refused with Kafka's error, everything else works."""
    node = cluster.ids[0]
    cluster.await_logged(node, "log directory offline")
    for index in small:
        assert written.write(Link(cluster), index) in REFUSALS
    link = Link(cluster)
    for index in others:
        assert written.write(link, index) is ErrorCode.NONE


def comes_back(cluster: Cluster, written: Written) -> None:
    """After a start on a sound disk nothing acknowledged is missing, and everything takes writes."""
    cluster.start()
    eventually(lambda: all_led(cluster), PATIENCE_S, "not every partition has its leader again")
    written.check(Link(cluster))
    link = Link(cluster)
    for index in range(PARTITIONS):
        assert written.write(link, index, size=100) is ErrorCode.NONE
    written.check(link)


def all_led(cluster: Cluster) -> bool:
    found = [cluster.partition(TOPIC, index) for index in range(PARTITIONS)]
    return all(each is not None and each.leader_id == cluster.ids[0] for each in found)


def fill(cluster: Cluster, written: Written, small: list[int]) -> None:
    """Until the file system takes no more. Neither the full batch nor one behind it is acknowledged."""
    link = Link(cluster)
    for number in range(2_000):
        code = written.write(link, small[number % len(small)])
        if code is not ErrorCode.NONE:
            assert code is None or code in REFUSALS
            return
    raise AssertionError("the small file system never got full")


def test_a_full_disk_takes_its_directory_offline_and_nothing_acknowledged_with_it(
    one_node: Callable[..., Cluster],
) -> None:
    cluster = one_node("-t", "tmpfs", "-o", "size=24m", "tmpfs")
    small, others = split(cluster)
    ballast = second_of(cluster) / "lost+found"
    ballast.mkdir()
    (ballast / "ballast").write_bytes(bytes(8 << 20))
    written = Written()
    fill(cluster, written, small)
    goes_on_without(cluster, written, small, others)
    cluster.kill(cluster.ids[0])
    shutil.rmtree(ballast)
    comes_back(cluster, written)


def test_a_disk_that_turns_read_only_takes_its_directory_offline(
    one_node: Callable[..., Cluster], tmp_path: Path
) -> None:
    """As ext4 does it to itself when its device fails: open files refuse writes from then on."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is missing")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(48 << 20)
    run("mkfs.ext4", "-q", "-F", str(image))
    cluster = one_node("-o", "loop", str(image))
    small, others = split(cluster)
    written = Written()
    link = Link(cluster)
    for index in small * 5 + others:
        assert written.write(link, index) is ErrorCode.NONE
    os.sync()
    run("mount", "-o", "remount,abort", str(second_of(cluster)))
    link = Link(cluster)
    assert written.write(link, small[0]) is not ErrorCode.NONE
    goes_on_without(cluster, written, small, others)
    cluster.stop(cluster.ids[0])
    run("umount", str(second_of(cluster)))
    run("mount", "-o", "loop", str(image), str(second_of(cluster)))
    comes_back(cluster, written)
