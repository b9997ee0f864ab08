"""A connection without a socket: framing, order of responses, bounds, back-pressure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from struct import pack, unpack_from

import pytest

from odradek.broker.backpressure import RequestMemory, ResponseMemory
from odradek.broker.connection import REQUESTS_WAITING_MAX, Connection
from odradek.broker.pending import Pending
from odradek.ports.disk import Buffer
from odradek.wire.errors import MalformedMessage

ECHO, LATER, SILENT, BROKEN, BUGGY, LARGE = 1, 2, 3, 4, 5, 6
UNSENT_MAX = 1 << 20


class FakeTransport:
    def __init__(self) -> None:
        self.written = bytearray()
        self.writes = 0
        self.reading = True
        self.closed = False
        self.aborted = False
        self.unsent = 0
        self.takes = True
        """Whether the peer reads what is written."""
        self.connection: Connection | None = None

    def write(self, data: Buffer) -> None:
        self.written += data
        self.writes += 1
        if not self.takes:
            self.unsent += len(data)
            if self.unsent > UNSENT_MAX and self.connection is not None:
                self.connection.pause_writing()

    def writelines(self, data: Sequence[Buffer]) -> None:
        self.write(b"".join(data))

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def get_write_buffer_size(self) -> int:
        return self.unsent


class FakeHost:
    def __init__(self, buffer_bytes: int = 4096, request_bytes_max: int = 1 << 26) -> None:
        self.shared_buffer = memoryview(bytearray(buffer_bytes))
        self.request_bytes_max = request_bytes_max
        self.unsent_bytes_max = UNSENT_MAX
        self.now_ms = 0
        self.request_memory = RequestMemory(64 << 20, lambda: self.now_ms)
        self.response_memory = ResponseMemory(4 << 20, lambda: self.now_ms)
        self.ready: deque[Connection] = deque()
        self.running_ready = False
        self.slow = False
        self.later: list[Connection] = []
        self.pendings: list[tuple[int, Pending]] = []
        self.complaints: list[str] = []
        self.failures: list[Exception] = []
        self.flushes = 0
        self.completed_by_flush: list[Pending] = []
        self.disk_works = True
        self.open: set[Connection] = set()
        self.bodies: list[bytes] = []
        self.handlers = {
            ECHO: self._echo,
            LATER: self._later,
            SILENT: lambda *_: None,
            BROKEN: self._broken,
            BUGGY: self._buggy,
            LARGE: self._large,
        }

    def begin_event(self, connection: Connection) -> None:
        pass

    def flush(self) -> bool:
        self.flushes += 1
        for pending in self.completed_by_flush:
            pending.complete(pack(">ii", 4, 99))
        return self.disk_works

    def end_event(self, produced: int) -> None:
        pass

    def lasts_too_long(self) -> bool:
        return self.slow

    def run_later(self, connection: Connection) -> None:
        self.later.append(connection)

    def others_had_their_turn(self) -> None:
        while self.later:
            self.ready.append(self.later.pop(0))
            self.run_ready()

    def run_ready(self) -> None:
        if not self.running_ready:
            self.running_ready = True
            while self.ready:
                self.ready.popleft().proceed()
            self.running_ready = False

    def connection_opened(self, connection: Connection) -> bool:
        self.open.add(connection)
        return True

    def connection_closed(self, connection: Connection) -> None:
        self.open.discard(connection)

    def bad_input(self, connection: Connection, reason: str) -> None:
        self.complaints.append(reason)

    def send_failed(self, connection: Connection, error: OSError) -> None:
        self.failures.append(error)

    def handler_failed(self, connection: Connection, api_key: int, version: int, error: Exception) -> None:
        self.failures.append(error)

    def _echo(
        self, connection: Connection, view: memoryview, start: int, end: int, version: int, cid: int
    ) -> bytes:
        self.bodies.append(bytes(view[start + 8 : end]))
        return pack(">ii", 4, cid)

    def _later(
        self, connection: Connection, view: memoryview, start: int, end: int, version: int, cid: int
    ) -> Pending:
        pending = Pending()
        self.pendings.append((cid, pending))
        return pending

    def _broken(self, *_: object) -> bytes:
        raise MalformedMessage("nonsense")

    def _buggy(self, *_: object) -> bytes:
        raise ZeroDivisionError

    def _large(
        self, connection: Connection, view: memoryview, start: int, end: int, version: int, cid: int
    ) -> list[bytes]:
        return [pack(">ii", 4 + 100_000, cid), bytes(100_000)]

    def complete(self, correlation_id: int) -> None:
        for cid, pending in self.pendings:
            if cid == correlation_id:
                pending.complete(pack(">ii", 4, cid))
        self.run_ready()


def frame(api_key: int, correlation_id: int, body: bytes = b"") -> bytes:
    return pack(">ihhi", 8 + len(body), api_key, 0, correlation_id) + body


def connect(host: FakeHost) -> tuple[Connection, FakeTransport]:
    connection, transport = Connection(host, "PLAINTEXT"), FakeTransport()
    transport.connection = connection
    connection.opened(transport, "127.0.0.1:1")
    return connection, transport


def receive(connection: Connection, data: bytes) -> None:
    """What a driver does with bytes from a socket, as far as the connection wants to read."""
    while data:
        buffer = connection.get_buffer(-1)
        assert len(buffer) > 0
        taken = min(len(buffer), len(data))
        buffer[:taken] = data[:taken]
        data = data[taken:]
        connection.buffer_updated(taken)


def answered(transport: FakeTransport) -> list[int]:
    """Correlation ids in the order in which responses left."""
    found, pos = [], 0
    while pos < len(transport.written):
        size, correlation_id = unpack_from(">ii", transport.written, pos)
        found.append(correlation_id)
        pos += 4 + size
    return found


def test_all_requests_of_one_event_are_answered_in_one_write_after_one_flush() -> None:
    host = FakeHost()
    connection, transport = connect(host)
    receive(connection, b"".join(frame(ECHO, i) for i in range(20)))
    assert answered(transport) == list(range(20))
    assert transport.writes == 1
    assert host.flushes == 1


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 11, 64])
def test_frames_cut_anywhere_arrive_whole(step: int) -> None:
    host = FakeHost()
    connection, transport = connect(host)
    bodies = [bytes([i]) * (i * 7 % 50) for i in range(30)]
    stream = b"".join(frame(ECHO, i, body) for i, body in enumerate(bodies))
    for at in range(0, len(stream), step):
        receive(connection, stream[at : at + step])
    assert host.bodies == bodies
    assert answered(transport) == list(range(30))
    assert connection.buffered_bytes <= 4096


@pytest.mark.parametrize("size", [4000, 4096, 5000, 100_000, 1_500_000, 5_000_000])
def test_a_frame_larger_than_the_shared_buffer_arrives_whole_and_its_buffer_is_let_go(size: int) -> None:
    host = FakeHost()
    connection, transport = connect(host)
    body = bytes(range(256)) * (size // 256)
    host.handlers[0] = host.handlers[ECHO]
    receive(connection, frame(0, 1) + frame(0, 2, body) + frame(0, 3))
    assert host.bodies == [b"", body, b""]
    assert answered(transport) == [1, 2, 3]
    assert connection.buffered_bytes == 0, "idle connections own no buffer"


def test_memory_grows_with_bytes_received_not_with_what_a_frame_announces() -> None:
    host = FakeHost(request_bytes_max=100 << 20)
    connection, _ = connect(host)
    receive(connection, pack(">i", 100 << 20) + bytes(100))
    assert connection.buffered_bytes <= 1 << 20


@pytest.mark.parametrize("size", [-1, 0, 7, 1001, 2**31 - 1, -(2**31)])
def test_a_frame_of_impossible_size_closes_the_connection_with_one_complaint(size: int) -> None:
    host = FakeHost(request_bytes_max=1000)
    connection, transport = connect(host)
    receive(connection, frame(ECHO, 1) + pack(">i", size) + bytes(20))
    assert transport.closed
    assert len(host.complaints) == 1
    assert answered(transport) == [1], "what was asked before is answered"


def test_only_produce_may_send_a_large_request() -> None:
    host = FakeHost()
    connection, transport = connect(host)
    receive(connection, pack(">ih", 5 << 20, ECHO))
    assert transport.closed
    assert len(host.complaints) == 1


def test_unknown_api_key_and_malformed_request_close_the_connection() -> None:
    for data in (frame(999, 1), frame(BROKEN, 1)):
        host = FakeHost()
        connection, transport = connect(host)
        receive(connection, frame(ECHO, 7) + data + frame(ECHO, 8))
        assert transport.closed
        assert len(host.complaints) == 1
        assert answered(transport) == [7]


def test_a_bug_in_a_handler_costs_one_connection_only() -> None:
    host = FakeHost()
    connection, transport = connect(host)
    receive(connection, frame(BUGGY, 1))
    assert transport.closed
    assert isinstance(host.failures[0], ZeroDivisionError)


def test_responses_keep_the_order_of_requests_whatever_completes_first() -> None:
    host = FakeHost()
    connection, transport = connect(host)
    receive(connection, frame(LATER, 1) + frame(ECHO, 2) + frame(LATER, 3) + frame(ECHO, 4))
    assert answered(transport) == []
    host.complete(3)
    assert answered(transport) == []
    host.complete(1)
    assert answered(transport) == [1, 2, 3, 4]


def test_requests_without_response_leave_no_gap() -> None:
    host = FakeHost()
    connection, transport = connect(host)
    receive(connection, frame(SILENT, 1) + frame(ECHO, 2) + frame(SILENT, 3))
    assert answered(transport) == [2]


def test_too_many_unanswered_requests_stop_reading_until_answers_left() -> None:
    host = FakeHost(buffer_bytes=1 << 16)
    connection, transport = connect(host)
    count = REQUESTS_WAITING_MAX * 2 + 10
    receive(connection, b"".join(frame(LATER, i) for i in range(count)))
    assert not transport.reading
    assert len(host.pendings) == REQUESTS_WAITING_MAX
    for i in range(count):
        host.complete(i)
    assert transport.reading
    assert answered(transport) == list(range(count))


def test_a_peer_that_does_not_read_gets_no_more_requests_handled() -> None:
    host = FakeHost()
    connection, transport = connect(host)
    connection.pause_writing()
    assert not transport.reading
    receive(connection, frame(ECHO, 1))  # what the kernel had already handed over
    assert host.bodies == []
    connection.resume_writing()
    assert answered(transport) == [1]
    assert transport.reading


def test_a_long_pipeline_gives_the_others_their_turn() -> None:
    host = FakeHost()
    host.slow = True
    connection, transport = connect(host)
    receive(connection, b"".join(frame(ECHO, i) for i in range(10)))
    assert answered(transport) == [0]
    assert not transport.reading
    host.others_had_their_turn()
    assert answered(transport) == list(range(10))
    assert transport.writes == 10
    assert transport.reading


def test_the_others_have_their_turn_between_requests_that_are_answered_by_the_flush() -> None:
    host = FakeHost(buffer_bytes=1 << 16)
    connection, transport = connect(host)
    pending = Pending()

    def later(*arguments: object) -> Pending:
        nonlocal pending
        pending = Pending()
        host.completed_by_flush.append(pending)
        return pending

    host.handlers[LATER] = later
    receive(connection, frame(LATER, 99) * (2 * REQUESTS_WAITING_MAX))
    assert answered(transport) == [99] * REQUESTS_WAITING_MAX
    assert len(host.later) == 1
    host.others_had_their_turn()
    assert answered(transport) == [99] * 2 * REQUESTS_WAITING_MAX


def test_large_buffers_are_handed_over_in_order() -> None:
    host = FakeHost()
    connection, transport = connect(host)
    receive(connection, frame(ECHO, 1) + frame(LARGE, 2) + frame(ECHO, 3))
    assert answered(transport) == [1, 2, 3]


def test_a_failed_append_lets_no_response_of_its_event_leave() -> None:
    host = FakeHost()
    connection, transport = connect(host)
    host.disk_works = False
    receive(connection, frame(ECHO, 1))
    assert transport.aborted
    assert answered(transport) == []


def test_a_failed_append_lets_no_response_leave_either_when_the_peer_is_at_fault_as_well() -> None:
    host = FakeHost()
    connection, transport = connect(host)
    host.disk_works = False
    receive(connection, frame(ECHO, 1) + frame(BROKEN, 2))
    assert transport.aborted
    assert answered(transport) == []


def test_what_a_flush_completes_for_others_goes_on_after_the_event_not_within() -> None:
    host = FakeHost()
    other, other_transport = connect(host)
    receive(other, frame(LATER, 99) * REQUESTS_WAITING_MAX + frame(ECHO, 5, b"of the other"))
    host.completed_by_flush = [pending for _, pending in host.pendings]
    assert not other_transport.reading
    connection, transport = connect(host)
    seen: list[tuple[list[int], list[int]]] = []
    host.handlers[ECHO] = lambda *arguments: (
        seen.append((answered(transport), answered(other_transport))) or host._echo(*arguments)  # type: ignore[func-returns-value]
    )
    receive(connection, frame(ECHO, 1))
    assert seen == [([], []), ([1], [99] * REQUESTS_WAITING_MAX)]
    assert answered(other_transport) == [99] * REQUESTS_WAITING_MAX + [5]
    assert other_transport.reading


def test_a_request_may_answer_others_that_answer_others_without_recursion() -> None:
    host = FakeHost()
    count = 3000
    connections = [connect(host) for _ in range(count)]
    for number, (connection, _) in enumerate(connections):
        receive(
            connection, frame(LATER, number) * REQUESTS_WAITING_MAX + frame(7, number + 1) + frame(ECHO, 9)
        )
    host.handlers[7] = lambda *arguments: (
        [pending.complete(pack(">ii", 4, cid)) for cid, pending in pendings[arguments[5]]]  # type: ignore[func-returns-value]
        and None
    )
    pendings: list[list[tuple[int, Pending]]] = [[] for _ in range(count + 1)]
    for cid, pending in host.pendings:
        pendings[cid].append((cid, pending))
    host.complete(0)
    for number, (connection, transport) in enumerate(connections):
        assert answered(transport) == [number] * REQUESTS_WAITING_MAX + [9]
        assert transport.reading
        assert connection.is_idle


def test_no_more_is_prepared_for_a_peer_than_it_may_leave_unread() -> None:
    """One event with many small requests for large answers."""
    host = FakeHost()
    connection, transport = connect(host)
    calls = 0

    def large(*arguments: object) -> list[bytes]:
        nonlocal calls
        calls += 1
        return host._large(*arguments)  # type: ignore[arg-type]

    host.handlers[LARGE] = large
    transport.takes = False
    receive(connection, frame(LARGE, 1) * 100)
    first_round = calls
    assert 100_000 * calls < 2 * host.unsent_bytes_max + 200_000
    assert not transport.reading
    transport.unsent = 0
    transport.takes = True
    connection.resume_writing()
    host.others_had_their_turn()
    assert calls == 100 > first_round
    assert answered(transport) == [1] * 100
    assert transport.reading


def test_a_peer_that_only_closes_its_side_still_gets_the_answers_it_waits_for() -> None:
    host = FakeHost()
    connection, transport = connect(host)
    receive(connection, frame(LATER, 1) + frame(ECHO, 2))
    assert connection.eof() is True
    assert not transport.closed
    host.complete(1)
    assert answered(transport) == [1, 2]
    assert transport.closed
    quiet, _ = connect(host)
    receive(quiet, frame(ECHO, 1) + frame(ECHO, 2)[:5])
    assert quiet.eof() is False, "nothing to answer: the driver closes"


def test_a_lost_connection_abandons_what_waits_for_it() -> None:
    host = FakeHost()
    connection, transport = connect(host)
    receive(connection, frame(LATER, 1))
    left = []
    host.pendings[0][1].on_abandoned = lambda: left.append(1)
    connection.lost()
    assert left == [1]
    assert host.open == set()
    host.complete(1)
    assert answered(transport) == []


def test_the_client_id_is_read_with_and_without_tagged_fields() -> None:
    host = FakeHost()
    connection, _ = connect(host)
    plain = memoryview(pack(">hhih", 1, 0, 5, 3) + b"abc" + b"rest")
    assert bytes(plain[connection.skip_header(plain, 0, False) :]) == b"rest"
    assert connection.client_id == "abc"
    tagged = memoryview(pack(">hhih", 1, 0, 5, -1) + b"\x01\x07\x02hi" + b"rest")
    assert bytes(tagged[connection.skip_header(tagged, 0, True) :]) == b"rest"
    for cut in range(8, 13):
        with pytest.raises(MalformedMessage):
            connection.skip_header(
                plain[:cut] if cut < 10 else memoryview(pack(">hhih", 1, 0, 5, 100)), 0, True
            )


def test_a_small_frame_just_begun_takes_little_memory() -> None:
    host = FakeHost()
    connection, transport = connect(host)
    whole = frame(ECHO, 1, bytes(60_000))
    receive(connection, whole[:100])
    assert connection.buffered_bytes <= 16 * 1024
    receive(connection, whole[100:])
    assert answered(transport) == [1]
    assert connection.buffered_bytes == 0


def test_a_stopping_node_answers_what_it_has_done_and_begins_nothing_new() -> None:
    host = FakeHost()
    connection, transport = connect(host)
    receive(connection, frame(LATER, 1) * REQUESTS_WAITING_MAX + frame(ECHO, 2))
    connection.stop_reading()
    host.complete(1)
    assert answered(transport) == [1] * REQUESTS_WAITING_MAX
    assert not transport.reading
    connection.close()
    assert transport.closed
