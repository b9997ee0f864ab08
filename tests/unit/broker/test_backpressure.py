"""What all connections together may hold: room for requests in order of asking, room for responses, slow peers."""

from __future__ import annotations

from struct import pack
from typing import Any

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


def budget_of(limit: int) -> tuple[Any, list[Any]]:
    return Budget(limit), [Holder() for _ in range(5)]


def test_room_is_given_in_the_order_of_asking() -> None:
    budget, (first, second, third, fourth, _) = budget_of(100)
    assert budget.grow(first, 60, 0)
    assert not budget.grow(second, 60, 0)
    assert not budget.grow(third, 10, 0), "it would fit, but others came first"
    assert not budget.grow(fourth, 90, 0)
    budget.release(first, 1)
    assert (second.granted, third.granted, fourth.granted) == (1, 1, 0)
    budget.release(third, 2)
    assert fourth.granted == 0
    budget.release(second, 2)
    assert fourth.granted == 1
    budget.release(fourth, 3)
    assert budget.used == budget.waiting == 0


def test_when_everybody_waits_for_more_the_first_gets_it() -> None:
    """Half-received frames fill the memory: they are finished one after the other."""
    budget, holders = budget_of(100)
    for holder in holders:
        assert budget.grow(holder, 20, 0)
    for holder in holders[:4]:
        assert not budget.grow(holder, 20, 0)
    assert [holder.granted for holder in holders] == [0] * 5, "one can still move"
    assert not budget.grow(holders[4], 20, 0)
    assert [holder.granted for holder in holders] == [1, 0, 0, 0, 0]
    assert budget.grow(holders[0], 1000, 0), "until its frame is done"
    budget.release(holders[0], 0)
    assert [holder.granted for holder in holders] == [1, 1, 0, 0, 0]
    for holder in holders:
        budget.release(holder, 0)
    assert budget.used == budget.waiting == 0


def test_one_request_alone_is_always_received_and_no_limit_is_none() -> None:
    budget, holders = budget_of(10)
    assert budget.grow(holders[0], 1000, 0)
    assert budget.grow(holders[0], 1000, 0)
    free, holders = budget_of(-1)
    assert all(free.grow(holder, 1 << 30, 0) for holder in holders)


def test_who_leaves_the_queue_is_forgotten() -> None:
    budget, (first, second, third, *_) = budget_of(10)
    for holder in (first, second, third):
        budget.grow(holder, 10, 0)
    budget.release(second, 0)
    assert budget.used == 10
    budget.release(first, 0)
    assert (second.granted, third.granted) == (0, 1)


def test_who_trickles_is_slow_once_others_wait() -> None:
    budget, (idle, busy, waiter, *_) = budget_of(10)
    assert budget.grow(idle, 5, 0)
    assert budget.grow(busy, 5, 0)
    busy.received_bytes = 2 * SLOW_BYTES_PER_S * SLOW_AFTER_MS // 1000
    assert budget.slow(SLOW_AFTER_MS) == [], "nobody waits"
    budget.grow(waiter, 5, 0)
    assert budget.slow(SLOW_AFTER_MS - 1) == []
    assert budget.slow(SLOW_AFTER_MS) == [idle]
    assert budget.slow(2 * SLOW_AFTER_MS) == [idle, busy], "it has stopped since"


def test_giants_do_not_hold_up_ordinary_batches() -> None:
    memory: Any = RequestMemory(256 * MIB, lambda: 0)
    assert memory.grow(Holder(), 100 * MIB, 100 * MIB)
    assert not memory.grow(Holder(), 100 * MIB, 100 * MIB)
    assert all(memory.grow(Holder(), MIB, MIB) for _ in range(64))
    assert not memory.grow(Holder(), MIB, MIB)


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


def test_large_frames_that_do_not_fit_together_are_received_one_after_another() -> None:
    node = NodeHarness(
        queued__max__request__bytes=str(8 * MIB),
        socket__request__max__bytes=str(8 * MIB),
        message__max__bytes=str(8 * MIB),
    )
    node.create_topic("t")
    batch = node.batch(bytes(7 * MIB))
    data = [PartitionProduceData(index=0, records=batch)]
    request = ProduceRequest(
        acks=-1, timeout_ms=1000, topic_data=[TopicProduceData(name="t", partition_data=data)]
    )
    clients = [node.client() for _ in range(6)]
    frames = []
    for client in clients:
        client.send(MetadataRequest(topics=None), 9)  # so that the request has correlation id 2
        client.take(3, 9, 1)
        frames.append(produce_frame(client, request))
    for at in range(0, len(frames[0]), 200_000):
        for client, frame in zip(clients, frames, strict=True):
            client.deliver(frame[at : at + 200_000])
            assert sum(client.connection.buffered_bytes for client in clients) < 18 * MIB
    for _ in range(10):
        node.settle()
        for client in clients:
            client.deliver(b"")
    for client in clients:
        assert client.take(0, 9, 2).responses[0].partition_responses[0].error_code == 0
    assert node.node.request_memory.giant.used == node.node.request_memory.giant.waiting == 0
    assert sum(client.connection.buffered_bytes for client in clients) == 0


def test_peers_that_announce_much_and_send_little_hold_up_nobody() -> None:
    node = NodeHarness()
    node.create_topic("t")
    for _ in range(100):
        client = node.client()
        client.deliver(produce_head(100 * MIB))
        assert client.connection.buffered_bytes <= 256 * 1024
    data = [PartitionProduceData(index=0, records=node.batch(bytes(900_000)))]
    request = ProduceRequest(
        acks=-1, timeout_ms=1000, topic_data=[TopicProduceData(name="t", partition_data=data)]
    )
    assert node.client().ask(request, 9).responses[0].partition_responses[0].error_code == 0


def produce_frame(client: Client, request: ProduceRequest) -> bytes:
    body = request.encode(9)
    return pack(">ihhih", 10 + 1 + len(body), 0, 9, 2, -1) + b"\0" + body


def part_of_a_frame(client: Client, received: int) -> None:
    client.deliver(produce_head(8 * MIB))
    for _ in range(received // (256 * 1024)):
        client.deliver(bytes(256 * 1024))


def node_with_little_memory() -> NodeHarness:
    return NodeHarness(queued__max__request__bytes=str(12 * MIB), socket__request__max__bytes=str(12 * MIB))


def test_a_peer_that_stops_in_the_middle_of_a_frame_is_closed_once_others_wait() -> None:
    node = node_with_little_memory()
    clients = [node.client() for _ in range(4)]
    part_of_a_frame(clients[0], 7 * MIB)
    node.advance(20_000)
    assert not clients[0].closed, "nobody waits"
    for client in clients[1:]:
        part_of_a_frame(client, 7 * MIB)
    assert [client.reading for client in clients] == [True, False, False, False]
    node.advance(1000)
    assert [client.closed for client in clients] == [True, False, False, False]
    clients[0].connection.lost()
    assert clients[1].reading
    assert len(node.log.of_level("limited_warning")) == 1


def test_a_lost_connection_gives_its_place_to_the_next() -> None:
    node = node_with_little_memory()
    clients = [node.client() for _ in range(3)]
    for client in clients:
        part_of_a_frame(client, 7 * MIB)
    assert [client.reading for client in clients] == [True, False, False]
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


def test_a_fetch_does_not_wait_for_days() -> None:
    node = NodeHarness()
    node.create_topic("t")
    client = node.client()
    wanted = client.send(fetch(wait_ms=2**31 - 1), 12)
    node.advance(299_000)
    assert client.take_frame() is None
    node.advance(2000)
    assert size_fetched(client, wanted) == 0


def test_a_half_closed_peer_is_not_waited_for_for_ever() -> None:
    node = NodeHarness()
    node.create_topic("t")
    client = node.client()
    client.send(fetch(wait_ms=200_000), 12)
    assert client.connection.eof()
    node.advance(50_000)
    assert not client.closed
    node.advance(40_000)
    assert client.closed
