"""Large answers of a real node, read byte by byte from the socket: they leave the files without passing through it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from crc32c import crc32c

from interop.cluster import PATIENCE_S, Node, eventually, unique
from odradek.storage.batch import CRC_START
from odradek.wire.frame import decode_response_header, encode_request
from odradek.wire.messages.fetch import FetchPartition, FetchRequest, FetchResponse, FetchTopic
from odradek.wire.records import iter_batches, read_records

VERSION = 12
COUNT = 12_000
VALUE = bytes(range(250)) * 4
WHOLE = 32 << 20


@pytest.fixture
def topic(own_node: Node) -> Iterator[str]:
    """A started node with 12 MB in one partition."""
    own_node.overrides = ("log.segment.delete.delay.ms=0",)
    own_node.start()
    name = unique("files")
    fill(own_node, name)
    yield name
    own_node.stop()


def fill(node: Node, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": node.bootstrap})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(PATIENCE_S)
    producer = Producer({"bootstrap.servers": node.bootstrap, "batch.size": 5000})
    for number in range(COUNT):
        producer.produce(topic, VALUE + b"%d" % number)
        producer.poll(0)
    assert producer.flush(PATIENCE_S) == 0


def connect(node: Node) -> socket.socket:
    """With a small window: much of an answer stays with the node."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.settimeout(PATIENCE_S)
    sock.connect(("127.0.0.1", node.port))
    return sock


def ask(sock: socket.socket, topic: str, offset: int = 0, correlation_id: int = 1) -> None:
    wanted = FetchPartition(partition=0, fetch_offset=offset, partition_max_bytes=WHOLE)
    request = FetchRequest(
        max_wait_ms=500,
        min_bytes=1,
        max_bytes=WHOLE,
        topics=[FetchTopic(topic=topic, partitions=[wanted])],
    )
    sock.sendall(
        encode_request(FetchRequest.API_KEY, VERSION, correlation_id, "raw", request.encode(VERSION))
    )


def take(sock: socket.socket, correlation_id: int = 1, offset: int = 0) -> list[bytes]:
    """The values of the next answer from this offset on, every batch checked. The first batch may begin before it."""
    size = int.from_bytes(exactly(sock, 4), "big")
    data = exactly(sock, size)
    found, pos = decode_response_header(data, FetchRequest.API_KEY, VERSION)
    assert found == correlation_id
    answer, end = FetchResponse.read(data, pos, VERSION)
    assert end == len(data)
    (partition,) = answer.responses[0].partitions
    assert partition.error_code == 0
    values = []
    records = memoryview(bytes(partition.records or b""))
    for start, header in iter_batches(records):
        batch = records[start : start + header.size]
        assert crc32c(batch[CRC_START:]) == header.crc
        records_of_batch = read_records(batch, limit=1 << 24)
        values += [record.value or b"" for record in records_of_batch if record.offset >= offset]
    return values


def exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = sock.recv(min(size - len(data), 1 << 20))
        assert more, f"the connection ended after {len(data)} of {size} bytes"
        data += more
    return bytes(data)


EVERYTHING = [VALUE + b"%d" % number for number in range(COUNT)]


def test_a_whole_topic_in_one_answer(own_node: Node, topic: str) -> None:
    with connect(own_node) as sock:
        ask(sock, topic)
        assert take(sock) == EVERYTHING


def test_pipelined_fetches_are_answered_in_order(own_node: Node, topic: str) -> None:
    with connect(own_node) as sock:
        for number in range(5):
            ask(sock, topic, COUNT - 2000 * (number + 1), number)
        for number in range(5):
            first = COUNT - 2000 * (number + 1)
            assert take(sock, number, first) == EVERYTHING[first:]


def test_an_answer_on_its_way_survives_the_deletion_of_its_topic(own_node: Node, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": own_node.bootstrap})
    with connect(own_node) as sock:
        ask(sock, topic)
        sock.recv(1, socket.MSG_PEEK)
        admin.delete_topics([topic])[topic].result(PATIENCE_S)
        eventually(lambda: not list(own_node.data.glob(f"{topic}*")), PATIENCE_S, "the files are still there")
        assert take(sock) == EVERYTHING


@pytest.mark.skipif(not Path("/proc/self/net").exists(), reason="descriptors are counted in /proc")
def test_peers_that_go_away_in_the_middle_leave_nothing_behind(own_node: Node, topic: str) -> None:
    assert own_node.process is not None
    pid = own_node.process.pid
    for _ in range(30):
        with connect(own_node) as sock:
            ask(sock, topic)
            sock.recv(1000)
    eventually(lambda: open_sockets(pid) == 0, PATIENCE_S, "connections are left")
    with connect(own_node) as sock:
        ask(sock, topic)
        assert take(sock) == EVERYTHING


def open_sockets(pid: int) -> int:
    """Established connections of a process, by its descriptors; the second ones of connections count too."""
    inodes = {
        line.split()[9]
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
        if line.split()[3] in ("01", "08")
    }
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(str(link.readlink()))
        except FileNotFoundError:
            continue
    return sum(link.removeprefix("socket:[").removesuffix("]") in inodes for link in links)
