"""Responses that contain parts of files: their place among the others, and what happens when they cannot leave."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from struct import pack
from typing import Any

import pytest

from odradek.broker.connection import Connection
from odradek.broker.pending import Part
from odradek.ports.disk import FileRange
from unit.broker.test_connection import (
    ECHO,
    UNSENT_MAX,
    FakeHost,
    FakeTransport,
    answered,
    frame,
    receive,
)

FILE = 30
SIZE = 50_000


class Content(FileRange):
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.cut = False

    def __len__(self) -> int:
        return len(self.data)

    def read(self) -> bytes:
        if self.cut:
            raise OSError(errno.ESTALE, "the file was cut")
        return self.data


class Outlet:
    """Takes everything at once, or nothing until `take`."""

    def __init__(self, transport: FakeTransport) -> None:
        self.transport = transport
        self.unsent = 0
        self.takes = True
        self.has_descriptor = True
        self.parts: list[Part] = []
        self.closed = False
        self.connection: Connection | None = None

    def send(self, parts: Sequence[Part]) -> bool:
        assert not self.unsent, "one after the other"
        if not self.has_descriptor:
            return False
        self.parts = list(parts)
        self.unsent = sum(map(len, parts))
        if self.takes:
            self._write()
        return True

    def _write(self) -> None:
        for part in self.parts:
            self.transport.written += part.read() if isinstance(part, FileRange) else part
        self.unsent = 0

    def take(self) -> None:
        self._write()
        assert self.connection is not None
        self.connection.files_sent()

    def close(self) -> None:
        self.closed = True
        self.unsent = 0


def answer(cid: int, content: Content) -> list[Part]:
    return [pack(">ii", 4 + len(content), cid), content]


@pytest.fixture
def host() -> FakeHost:
    host = FakeHost()
    host.handlers[FILE] = lambda *arguments: answer(arguments[5], Content(bytes(SIZE)))  # type: ignore[assignment, return-value]
    return host


def connect(host: FakeHost) -> tuple[Connection, FakeTransport, Outlet]:
    transport = FakeTransport()
    connection = transport.connection = Connection(host, "PLAINTEXT")
    outlet = Outlet(transport)
    outlet.connection = connection
    connection.opened(transport, "127.0.0.1:1", outlet)
    assert connection.sends_files
    return connection, transport, outlet


def test_files_and_other_answers_leave_in_the_order_of_their_requests(host: FakeHost) -> None:
    connection, transport, _ = connect(host)
    receive(connection, frame(ECHO, 1) + frame(FILE, 2) + frame(ECHO, 3))
    receive(connection, frame(ECHO, 4))
    assert answered(transport) == [1, 2, 3, 4]
    assert connection.is_idle


def test_what_comes_after_a_file_waits_until_it_has_left(host: FakeHost) -> None:
    connection, transport, outlet = connect(host)
    outlet.takes = False
    receive(connection, frame(FILE, 1))
    receive(connection, frame(ECHO, 2))
    receive(connection, frame(FILE, 3) + frame(ECHO, 4))
    assert not transport.written
    outlet.take()
    assert answered(transport) == [1]
    outlet.take()
    assert answered(transport) == [2, 3, 4] or answered(transport) == [1, 2, 3, 4]


def test_files_that_do_not_leave_count_as_unsent_and_stop_the_reading(host: FakeHost) -> None:
    connection, transport, outlet = connect(host)
    outlet.takes = False
    count = 3 + UNSENT_MAX // SIZE
    receive(connection, frame(FILE, 0))
    connection.count_unsent()
    assert connection.unsent == host.response_memory.unsent == SIZE + 8
    receive(connection, b"".join(frame(FILE, cid) for cid in range(1, 2 * count)))
    assert not transport.reading
    assert connection.unsent <= UNSENT_MAX + 3 * SIZE
    connection.count_unsent()
    assert connection.taken_bytes == 0
    outlet.takes = True
    outlet.take()
    host.others_had_their_turn()
    assert answered(transport) == list(range(2 * count))
    assert transport.reading
    assert host.response_memory.unsent == connection.unsent == 0
    assert connection.taken_bytes == len(transport.written)


@pytest.mark.parametrize("why", ["no descriptor left", "bytes before it are on their way"])
def test_otherwise_they_are_copied(host: FakeHost, why: str) -> None:
    connection, transport, outlet = connect(host)
    if why == "no descriptor left":
        outlet.has_descriptor = False
    else:
        transport.unsent = 10
    receive(connection, frame(FILE, 1) + frame(ECHO, 2))
    assert not outlet.parts
    assert answered(transport) == [1, 2]


def test_a_connection_that_closes_sends_the_file_first(host: FakeHost) -> None:
    connection, transport, outlet = connect(host)
    outlet.takes = False
    receive(connection, frame(FILE, 1))
    connection.close()
    assert not transport.closed
    outlet.take()
    assert transport.closed
    assert answered(transport) == [1]


def test_a_peer_that_only_stopped_sending_still_gets_the_file(host: FakeHost) -> None:
    connection, transport, outlet = connect(host)
    outlet.takes = False
    receive(connection, frame(FILE, 1))
    assert connection.eof()
    outlet.take()
    assert answered(transport) == [1]
    assert transport.closed


def test_a_bad_request_after_a_file_closes_when_the_file_has_left(host: FakeHost) -> None:
    connection, transport, outlet = connect(host)
    outlet.takes = False
    receive(connection, frame(FILE, 1))
    receive(connection, frame(99, 2))
    assert host.complaints
    assert not transport.closed
    outlet.take()
    assert transport.closed


def test_a_lost_connection_lets_the_file_go(host: FakeHost) -> None:
    connection, _, outlet = connect(host)
    outlet.takes = False
    receive(connection, frame(FILE, 1))
    connection.count_unsent()
    connection.lost()
    assert outlet.closed
    assert host.response_memory.unsent == 0


@pytest.mark.parametrize(("number", "told"), [(errno.ECONNRESET, False), (errno.ESTALE, True)])
def test_half_an_answer_is_followed_by_nothing(host: FakeHost, number: int, told: bool) -> None:
    connection, transport, outlet = connect(host)
    outlet.takes = False
    receive(connection, frame(FILE, 1) + frame(ECHO, 2))
    outlet.unsent = 0
    connection.files_failed(OSError(number, "why"))
    assert transport.aborted
    assert bool(host.failures) == told
    connection.lost()
    assert not transport.written


def test_a_file_that_was_cut_before_it_could_be_copied_ends_the_connection(host: FakeHost) -> None:
    connection, transport, outlet = connect(host)
    outlet.has_descriptor = False
    content = Content(bytes(SIZE))
    content.cut = True
    host.handlers[FILE] = lambda *arguments: answer(arguments[5], content)  # type: ignore[assignment, return-value]
    receive(connection, frame(FILE, 1))
    assert transport.aborted
    assert not transport.written
    assert host.failures


def test_a_connection_without_an_outlet_says_so() -> None:
    connection = Connection(FakeHost(), "PLAINTEXT")
    transport: Any = FakeTransport()
    connection.opened(transport, "127.0.0.1:1")
    assert not connection.sends_files
