"""What all connections together may hold: room for requests in order of asking, room for responses, slow peers."""

from __future__ import annotations

from struct import pack

from odradek.broker.backpressure import (
    ORDINARY_FRAME,
    SLOW_AFTER_MS,
    SLOW_BYTES_PER_S,
    SMALL_FRAME,
    Budget,
    RequestMemory,
)
from odradek.wire.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from odradek.wire.messages.metadata import MetadataRequest
from odradek.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from support.node_harness import Client, NodeHarness

MIB = 1 << 20


class Holder:
    received_bytes = 0

    def __init__(self) -> None:
        self.granted = 0

    def memory_granted(self) -> None:
        self.granted += 1


def test_room_is_given_in_the_order_of_asking_and_whole() -> None:
    budget = Budget(100)
    first, second, third, fourth = (Holder() for _ in range(4))
    assert budget.reserve(first, 60, 0)  # type: ignore[arg-type]
    assert not budget.reserve(second, 60, 0)  # type: ignore[arg-type]
    assert not budget.reserve(third, 10, 0), "it would fit, but others came first"  # type: ignore[arg-type]
    assert not budget.reserve(fourth, 90, 0)  # type: ignore[arg-type]
    budget.release(first, 1)  # type: ignore[arg-type]
    assert (second.granted, third.granted, fourth.granted) == (1, 1, 0)
    budget.release(third, 2)  # type: ignore[arg-type]
    assert fourth.granted == 0
    budget.release(second, 2)  # type: ignore[arg-type]
    assert fourth.granted == 1
    budget.release(fourth, 3)  # type: ignore[arg-type]
    assert budget.used == 0


def test_one_request_alone_is_always_received_and_no_limit_is_none() -> None:
    assert Budget(10).reserve(Holder(), 1000, 0)  # type: ignore[arg-type]
    free = Budget(-1)
    assert all(free.reserve(Holder(), 1 << 30, 0) for _ in range(10))  # type: ignore[arg-type]


def test_who_leaves_the_queue_is_forgotten() -> None:
    budget = Budget(10)
    first, second, third = Holder(), Holder(), Holder()
    for holder in (first, second, third):
        budget.reserve(holder, 10, 0)  # type: ignore[arg-type]
    budget.release(second, 0)  # type: ignore[arg-type]
    assert budget.used == 10
    budget.release(first, 0)  # type: ignore[arg-type]
    assert (second.granted, third.granted) == (0, 1)


def test_who_trickles_is_slow_once_others_wait() -> None:
    budget = Budget(10)
    idle, busy = Holder(), Holder()
    busy.received_bytes = 2 * SLOW_BYTES_PER_S * SLOW_AFTER_MS // 1000
    assert budget.reserve(idle, 5, 0)  # type: ignore[arg-type]
    assert budget.reserve(busy, 5, 0)  # type: ignore[arg-type]
    assert budget.slow(SLOW_AFTER_MS) == [], "nobody waits"
    budget.reserve(Holder(), 5, 0)  # type: ignore[arg-type]
    assert budget.slow(SLOW_AFTER_MS - 1) == []
    assert budget.slow(SLOW_AFTER_MS) == [idle]


def test_giants_do_not_hold_up_ordinary_batches() -> None:
    memory = RequestMemory(256 * MIB, lambda: 0)
    assert memory.reserve(Holder(), 100 * MIB)  # type: ignore[arg-type]
    assert not memory.reserve(Holder(), 100 * MIB)  # type: ignore[arg-type]
    assert all(memory.reserve(Holder(), MIB) for _ in range(64))  # type: ignore[arg-type]
    assert not memory.reserve(Holder(), MIB)  # type: ignore[arg-type]


def test_spare_buffers_are_few_and_not_large() -> None:
    memory = RequestMemory(256 * MIB, lambda: 0)
    for _ in range(100):
        memory.give_back(bytearray(ORDINARY_FRAME))
        memory.give_back(bytearray(10 * MIB))
        memory.give_back(bytearray(SMALL_FRAME - 1))
    sizes = [len(memory.buffer(SMALL_FRAME)) for _ in range(20)]
    assert sorted(sizes, reverse=True) == [ORDINARY_FRAME] * 8 + [SMALL_FRAME] * 12


def produce_head(size: int) -> bytes:
    return pack(">ihhih", size, 0, 9, 1, -1)


def test_large_frames_are_received_one_after_another_and_all_are_answered() -> None:
    node = NodeHarness(
        queued__max__request__bytes=str(8 * MIB),
        socket__request__max__bytes=str(8 * MIB),
        message__max__bytes=str(8 * MIB),
    )
    node.create_topic("t")
    batch = node.batch(bytes(5 * MIB))
    data = [PartitionProduceData(index=0, records=batch)]
    request = ProduceRequest(
        acks=-1, timeout_ms=1000, topic_data=[TopicProduceData(name="t", partition_data=data)]
    )
    clients = [node.client() for _ in range(4)]
    frames = []
    for client in clients:
        client.send(MetadataRequest(topics=None), 9)  # so that the request has correlation id 2
        client.take(3, 9, 1)
        frames.append(produce_frame(client, request))
    for client, frame in zip(clients, frames, strict=True):
        client.deliver(frame[:300_000])
    assert [client.reading for client in clients] == [True, False, False, False]
    held = sum(client.connection.buffered_bytes for client in clients)
    assert held < 3 * MIB, "buffers grow with what has arrived"
    for client, frame in zip(clients, frames, strict=True):
        assert client.reading
        client.deliver(frame[300_000:])
        assert not client.unread
        node.settle()
        assert client.take(0, 9, 2).responses[0].partition_responses[0].error_code == 0
    assert node.node.request_memory.giant.used == 0
    assert sum(client.connection.buffered_bytes for client in clients) == 0


def produce_frame(client: Client, request: ProduceRequest) -> bytes:
    body = request.encode(9)
    return pack(">ihhih", 10 + 1 + len(body), 0, 9, 2, -1) + b"\0" + body


def test_a_peer_that_stops_in_the_middle_of_a_frame_is_closed_once_others_wait() -> None:
    node = NodeHarness()
    stalled = [node.client() for _ in range(3)]
    for client in stalled[:1]:
        client.deliver(produce_head(100 * MIB))
    node.advance(20_000)
    assert not stalled[0].closed, "nobody waits"
    for client in stalled[1:]:
        client.deliver(produce_head(100 * MIB))
    assert [client.reading for client in stalled] == [True, False, False]
    node.advance(1000)
    assert [client.closed for client in stalled] == [True, False, False]
    stalled[0].connection.lost()
    assert [client.reading for client in stalled[1:]] == [True, False]
    assert len(node.log.of_level("limited_warning")) == 1


def test_a_lost_connection_gives_its_place_to_the_next() -> None:
    node = NodeHarness()
    clients = [node.client() for _ in range(3)]
    for client in clients:
        client.deliver(produce_head(100 * MIB))
    clients[1].connection.lost()
    clients[0].connection.lost()
    assert clients[2].reading
    clients[2].connection.lost()
    assert node.node.request_memory.giant.used == 0


class DeafClient(Client):
    """Reads nothing until `listen`."""

    stuck = 0
    deaf = True

    def write(self, data: object) -> None:
        super().write(data)  # type: ignore[arg-type]
        if self.deaf:
            self.stuck += len(data)  # type: ignore[arg-type]

    def writelines(self, data: object) -> None:
        for buffer in data:  # type: ignore[attr-defined]
            self.write(buffer)

    def get_write_buffer_size(self) -> int:
        return self.stuck

    def listen(self) -> None:
        self.deaf = False
        self.stuck = 0


def fetch(wait_ms: int = 500) -> FetchRequest:
    partitions = [FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=55 * MIB)]
    return FetchRequest(
        max_wait_ms=wait_ms,
        min_bytes=1,
        max_bytes=55 * MIB,
        session_epoch=-1,
        topics=[FetchTopic(topic="t", partitions=partitions)],
    )


def node_with_data() -> NodeHarness:
    node = NodeHarness()
    node.create_topic("t")
    client = node.client()
    data = [PartitionProduceData(index=0, records=node.batch(bytes(900_000)))]
    request = ProduceRequest(
        acks=1, timeout_ms=1000, topic_data=[TopicProduceData(name="t", partition_data=data)]
    )
    for _ in range(4):
        assert client.ask(request, 9).responses[0].partition_responses[0].error_code == 0
    node.node.response_memory.limit = 5 * MIB
    return node


def size_fetched(client: Client, correlation_id: int) -> int:
    response = client.take(1, 12, correlation_id)
    assert response.responses[0].partitions[0].error_code == 0
    return len(response.responses[0].partitions[0].records)


def test_peers_that_do_not_read_share_a_bound_and_the_others_wait_their_time() -> None:
    node = node_with_data()
    deaf = [DeafClient(node) for _ in range(10)]
    for client in deaf:
        client.send(fetch(), 12)
    node.advance(500)
    assert sum(client.stuck for client in deaf) < 6 * MIB + 10 * 200
    reader = node.client()
    wanted = reader.send(fetch(), 12)
    node.advance(499)
    assert reader.take_frame() is None
    node.advance(1)
    assert size_fetched(reader, wanted) == 0, "an answer without records, as if there were none"
    for client in deaf:
        client.listen()
    node.advance(100)
    wanted = reader.send(fetch(), 12)
    node.settle()
    assert size_fetched(reader, wanted) > 3 * MIB


def test_peers_that_do_not_read_are_closed_when_they_keep_others_waiting() -> None:
    node = node_with_data()
    deaf = [DeafClient(node) for _ in range(10)]
    for client in deaf:
        client.send(fetch(), 12)
    node.advance(SLOW_AFTER_MS + 1000)
    closed = [client for client in deaf if client.closed]
    assert 1 <= len(closed) <= 3, "those that hold the memory"
    for client in closed:
        client.connection.lost()
    reader = node.client()
    wanted = reader.send(fetch(), 12)
    node.settle()
    assert size_fetched(reader, wanted) > 0


def test_answers_that_wait_for_their_turn_are_bounded_too() -> None:
    """Long polls behind one that does not end: what they found would be held in memory."""
    node = node_with_data()
    node.node.response_memory.limit = 1 << 40
    node.node.unsent_bytes_max = 2 * MIB
    client = node.client()
    client.send(MetadataRequest(topics=[]), 9)
    first = fetch(wait_ms=60_000)
    first.topics[0].partitions[0].fetch_offset = 4
    client.send(first, 12)
    for _ in range(100):
        later = fetch(wait_ms=1000)
        later.min_bytes = 1 << 30
        client.send(later, 12)
    node.advance(2000)
    assert client.connection.unsent < 8 * MIB
    node.advance(60_000)
    assert client.connection.unsent == 0


def test_a_peer_that_never_reads_is_closed_when_idle_for_long() -> None:
    node = NodeHarness(connections__max__idle__ms="60000")
    client = DeafClient(node)
    client.send(MetadataRequest(topics=None), 9)
    aborted = []
    client.abort = lambda: aborted.append(True)  # type: ignore[method-assign]
    node.advance(90_000)
    assert aborted
