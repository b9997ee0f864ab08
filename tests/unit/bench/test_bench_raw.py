"""The load generators count exactly what was acknowledged, and let no refusal pass."""

import socket

import pytest
from bench import raw_fetch, raw_latency, raw_produce
from bench.raw_client import PRODUCE_VERSION, BenchError
from bench.raw_frames import (
    BatchShape,
    fetch_answer,
    fetch_answer_shape,
    produce_answer,
    produce_answer_shape,
    produce_frame,
)
from bench.raw_latency import percentile

from interop.cluster import PATIENCE_S
from odradek.wire.apis import ApiKey
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.produce import ProduceRequest
from odradek.wire.messages.request_header import RequestHeader
from odradek.wire.records import crc_ok, parse_header

TOPIC = "bench-topic"


@pytest.fixture
def node(monkeypatch):
    """The node's end of the one connection that a generator opens."""
    ours, theirs = socket.socketpair()
    for module in (raw_produce, raw_fetch, raw_latency):
        monkeypatch.setattr(module, "connect", lambda _port: ours)
    theirs.settimeout(PATIENCE_S)
    yield theirs
    ours.close()
    theirs.close()


def receive(node, size):
    data = b""
    while len(data) < size:
        data += node.recv(size - len(data))
    return data


def test_a_produce_frame_carries_the_batch_to_its_partition():
    shape = BatchShape(3, 200)
    batch = shape.build()
    frame = produce_frame(TOPIC, 5, batch)
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    header, pos = RequestHeader.read(frame, 4, 2)
    assert (header.request_api_key, header.request_api_version) == (ApiKey.PRODUCE, PRODUCE_VERSION)
    request = ProduceRequest.decode(frame, PRODUCE_VERSION, pos)
    partition = request.topic_data[0].partition_data[0]
    assert (request.acks, request.topic_data[0].name, partition.index) == (1, TOPIC, 5)
    assert bytes(partition.records) == batch
    assert crc_ok(batch)
    assert parse_header(batch).count == 3
    assert shape.payload == 600


def test_every_good_answer_has_the_shape_and_every_error_shows_in_it():
    shape = produce_answer_shape(TOPIC)
    for offset in (0, 1, 2**40):
        answer = produce_answer(TOPIC, base_offset=offset)
        assert len(answer) == shape.size
        assert answer[shape.error_at : shape.error_at + 2] == b"\0\0"
    for code in ErrorCode:
        if code is not ErrorCode.NONE:
            assert produce_answer(TOPIC, error_code=code)[shape.error_at : shape.error_at + 2] != b"\0\0"


def make_pipe(window=8):
    frame = produce_frame(TOPIC, 0, BatchShape(1, 50).build())
    return raw_produce.Pipe(0, frame, window, produce_answer_shape(TOPIC)), frame


def test_a_pipe_never_has_more_in_flight_than_its_window(node):
    pipe, frame = make_pipe(window=8)
    assert not pipe.fill(stop=False)
    assert pipe.sent == 8
    assert receive(node, 8 * len(frame)) == frame * 8
    node.sendall(produce_answer(TOPIC) * 3)
    pipe.drain()
    pipe.fill(stop=False)
    assert pipe.sent - pipe.acknowledged <= 8


def test_answers_are_counted_when_they_are_complete(node):
    pipe, _ = make_pipe()
    answers = b"".join(produce_answer(TOPIC, base_offset=number) for number in range(4))
    cut = pipe.answer.size * 2 + 7
    node.sendall(answers[:cut])
    pipe.drain()
    assert pipe.acknowledged == 2
    node.sendall(answers[cut:])
    pipe.drain()
    assert pipe.acknowledged == 4


@pytest.mark.parametrize("code", [ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.UNKNOWN_SERVER_ERROR])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_refused_request_among_good_ones_is_found(node, code, place):
    pipe, _ = make_pipe()
    answers = [produce_answer(TOPIC)] * 3
    answers[place] = produce_answer(TOPIC, error_code=code)
    node.sendall(b"".join(answers))
    with pytest.raises(BenchError, match=f"error code {int(code)}"):
        pipe.drain()


def test_an_answer_of_another_length_is_found(node):
    pipe, _ = make_pipe()
    node.sendall(produce_answer("another-name-of-a-topic") * 2)
    with pytest.raises(BenchError, match="refused"):
        pipe.drain()


def test_a_closed_connection_ends_the_measurement(node):
    pipe, _ = make_pipe()
    node.close()
    with pytest.raises(BenchError, match="closed"):
        pipe.drain()


def test_latency_counts_from_when_a_request_was_due(node, monkeypatch):
    monkeypatch.setattr(raw_latency.time, "perf_counter_ns", lambda: 9_000)
    frame = produce_frame(TOPIC, 0, BatchShape(1, 50).build())
    pipe = raw_latency.TimedPipe(0, frame, produce_answer_shape(TOPIC))
    pipe.send(1_000)
    pipe.send(4_000)
    node.sendall(produce_answer(TOPIC) * 2)
    latencies = raw_latency.array("q")
    pipe.receive(latencies)
    assert list(latencies) == [8_000, 5_000]


def make_reader(records):
    shape = fetch_answer_shape(TOPIC, len(records))
    scratch = memoryview(bytearray(1 << 16))
    return raw_fetch.Reader(0, [b"request"], [0], shape, scratch)


def test_a_fetch_answer_is_complete_when_all_its_bytes_are_there(node):
    records = bytes(BatchShape(10, 100).build())
    reader = make_reader(records)
    answer = fetch_answer(TOPIC, records)
    reader.ask()
    node.sendall(answer[:-1])
    assert not reader.receive()
    node.sendall(answer[-1:])
    assert reader.receive()
    assert (reader.answers, reader.in_flight) == (1, False)


def test_a_fetch_answer_with_an_error_a_wrong_offset_or_a_wrong_size_is_found(node):
    records = BatchShape(10, 100).build()
    moved = (7).to_bytes(8, "big") + records[8:]
    wrong = (
        fetch_answer(TOPIC, records, error_code=1),
        fetch_answer(TOPIC, moved),
        fetch_answer(TOPIC, records[:-1]),
    )
    for answer in wrong:
        reader = make_reader(records)
        node.sendall(answer)
        with pytest.raises(BenchError, match="Fetch of offset 0"):
            reader.receive()
        node.sendall(b"")
        reader._sock.setblocking(True)
        reader._sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            while reader._sock.recv(1 << 16):
                pass
        reader._sock.setblocking(False)


def test_percentiles_are_nearest_ranks():
    values = list(range(1, 1001))
    assert percentile(values, 50) == 500
    assert percentile(values, 99) == 990
    assert percentile(values, 99.9) == 999
    assert percentile([7], 99.9) == 7
