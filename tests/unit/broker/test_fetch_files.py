"""Fetch on connections that can be sent parts of files: the same answers as copies would be."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from odradek.broker.node import FORGET_CHECKS_MS
from odradek.broker.pending import Part
from odradek.ports.disk import FileRange
from odradek.storage.memory_disk import MemoryFile
from odradek.storage.reads import RANGE_MIN
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.fetch import FetchResponse
from support.node_harness import Client, NodeHarness
from unit.broker.test_fetch import VERSIONS, produce, request, values

VALUE = b"v" * 3000
COUNT = 40


class Outlet:
    """Takes everything at once, into what its client has received."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.unsent = 0
        self.ranges = 0
        client.connection._files = self
        client.connection.sends_files = True

    def send(self, parts: Sequence[Part]) -> bool:
        for part in parts:
            if isinstance(part, FileRange):
                self.ranges += 1
                self.client.received += part.read()
            else:
                self.client.received += part
        return True

    def close(self) -> None:
        pass


@pytest.fixture
def node() -> NodeHarness:
    harness = NodeHarness()
    harness.create_topic("t", 2)
    produce(harness, *(harness.batch(VALUE + b"%d" % number) for number in range(COUNT)))
    return harness


def with_files(node: NodeHarness) -> tuple[Client, Outlet]:
    client = node.client()
    return client, Outlet(client)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_gets_the_same_answer_from_the_file(node: NodeHarness, version: int) -> None:
    client, outlet = with_files(node)
    for partitions in ({0: 0}, {0: 3, 1: 0}, {1: 0, 0: 5}):
        wanted = request(node, partitions, version)
        assert client.ask(wanted, version) == node.client().ask(wanted, version)
    assert outlet.ranges == 3


def test_little_is_copied_and_checked(node: NodeHarness) -> None:
    client, outlet = with_files(node)
    few = RANGE_MIN // len(VALUE) - 1
    answer = client.ask(request(node, {0: COUNT - few}), 12)
    assert len(values(answer)[0]) == few
    assert outlet.ranges == 0


def test_every_limit_holds_as_for_copies(node: NodeHarness) -> None:
    client, outlet = with_files(node)
    for max_bytes in (1, 5000, RANGE_MIN, RANGE_MIN + 1, 50_000, 90_000, 1 << 20):
        for wanted in (
            request(node, {0: 2}, max_bytes=max_bytes),
            request(node, {0: 2}, partition_max_bytes=max_bytes),
        ):
            assert client.ask(wanted, 12) == node.client().ask(wanted, 12)
    assert outlet.ranges


def test_after_a_restart_every_byte_is_checked_before_it_is_sent(node: NodeHarness) -> None:
    node.restart(clean=True)
    client, outlet = with_files(node)
    first = client.ask(request(node, {0: 0}), 12)
    assert outlet.ranges == 0
    assert client.ask(request(node, {0: 0}), 12) == first
    assert outlet.ranges == 1
    node.advance(FORGET_CHECKS_MS + 1)
    client, outlet = with_files(node)
    assert client.ask(request(node, {0: 0}), 12) == first
    assert outlet.ranges == 0, "and again some minutes later"


def test_a_flipped_bit_is_never_served(node: NodeHarness) -> None:
    node.restart(clean=True)
    log = node.node.leader_of("t", 0).log
    path = log.segments[0].path(".log")
    node.disk.flip_bit(path, log.size_bytes // 2, 1)
    client, _ = with_files(node)
    good = [VALUE + b"%d" % number for number in range(COUNT)]
    damaged = False
    for offset in [*range(COUNT), *range(COUNT)]:
        answer: FetchResponse = client.ask(request(node, {0: offset}, max_wait_ms=0), 12)
        if answer.responses[0].partitions[0].error_code:
            assert answer.responses[0].partitions[0].error_code == ErrorCode.CORRUPT_MESSAGE
            damaged = True
        else:
            served = values(answer)[0]
            assert served == good[offset : offset + len(served)]
    assert damaged


def test_what_has_left_the_page_cache_is_read_off_the_loop_and_checked(
    node: NodeHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.restart(clean=True)
    client, outlet = with_files(node)
    whole = client.ask(request(node, {0: 0}), 12)
    warm: list[bool] = []
    monkeypatch.setattr(MemoryFile, "is_cached", lambda *_: bool(warm))
    correlation_id = client.send(request(node, {0: 0}), 12)
    assert client.take_frame() is None, "the disk thread is asked first"
    warm.append(True)
    node.settle()
    assert client.take(1, 12, correlation_id) == whole
    assert outlet.ranges == 0
    assert client.ask(request(node, {0: 0}), 12) == whole
    assert outlet.ranges == 1


def test_bytes_out_count_what_was_answered(node: NodeHarness) -> None:
    client, _ = with_files(node)
    before = node.node.metrics.topic("t").bytes_out
    answer = client.ask(request(node, {0: 0}), 12)
    sent = len(answer.responses[0].partitions[0].records)
    assert node.node.metrics.topic("t").bytes_out - before == sent > RANGE_MIN
