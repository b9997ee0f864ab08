"""Nodes that talk over real sockets: what arrives, what breaks, and that it is told."""

import asyncio
import contextlib
from dataclasses import replace

import grpc
import grpc.aio
import pytest

from interop.cluster import free_ports
from interop.grpc_ends import (
    HOST,
    SETTINGS,
    WAIT_S,
    End,
    Leader,
    Seen,
    down,
    fetch,
    fetch_answer,
    identity,
    on_the_loop,
    up,
    vote,
    vote_answer,
)
from odradek.raft import messages as m
from odradek.raft.log_index import SnapshotId
from odradek.raft.voters import ReplicaKey
from odradek.replication.grpc_transport import FETCH
from odradek.rpc.settings import client_options
from odradek.wire.errors import ErrorCode

# -- delivery ----------------------------------------------------------------------------------------------


@on_the_loop
async def test_messages_arrive_in_order_from_who_shook_hands(ends):
    one, two = await ends.pair()
    for request_id in range(200):
        one.send(two, fetch(request_id))
    arrived = await two.messages.first(200)
    assert [message.request_id for message in arrived] == list(range(200))
    assert {message.sender for message in arrived} == {ReplicaKey(1, b"\x01" * 16)}
    assert two.flushes >= 200


@on_the_loop
async def test_three_nodes_talk_each_to_each(ends):
    nodes = [await ends.start(node_id) for node_id in (1, 2, 3)]
    for node in nodes:
        others = [other for other in nodes if other is not node]
        node.knows(*others)
        for other in others:
            node.send(other, vote())
    for node in nodes:
        arrived = await node.messages.first(2)
        assert {message.sender.id for message in arrived} == {1, 2, 3} - {node.id}


@on_the_loop
async def test_an_observer_whose_address_nobody_knows_gets_answers(ends):
    voter, observer = await ends.start(1), await ends.start(9, listen=False)
    observer.knows(voter)
    observer.send(voter, fetch(5))
    (request,) = await voter.messages.first()
    voter.net.raft.send(request.sender, fetch_answer(10, 5))
    (answer,) = await observer.messages.first()
    assert (answer.request_id, answer.sender.id) == (5, 1)


@on_the_loop
async def test_an_answer_finds_another_way_when_the_asker_has_no_stream_open(ends):
    one, two = await ends.pair()
    one.send(two, vote_answer(3))
    (answer,) = await two.messages.first()
    assert answer.granted


@on_the_loop
async def test_what_is_sent_to_nobody_is_dropped(ends):
    one = await ends.start(1)
    one.net.raft.send(ReplicaKey(42), vote())
    one.net.raft.send(ReplicaKey(42), vote_answer())


@on_the_loop
async def test_a_batch_larger_than_a_message_arrives_whole_between_others(ends):
    one, two = await ends.pair()
    one.send(two, fetch(1))
    await two.messages.first()
    for request_id, size in enumerate([10, 8 << 20, 1 << 20, 20]):
        two.send(one, fetch_answer(size, request_id))
    arrived = await one.messages.first(4)
    assert [message.request_id for message in arrived] == [0, 1, 2, 3]
    assert [len(message.batches[0].data) >> 10 for message in arrived] == [0, 8192, 1024, 0]


@on_the_loop
async def test_a_chunk_of_a_snapshot_arrives(ends):
    one, two = await ends.pair()
    data = bytes(range(256)) * 2048
    snapshot = SnapshotId(100, 3)
    head = (ReplicaKey(0), 1, 1, 1, ErrorCode.NONE)
    one.send(two, m.FetchSnapshotResponse(*head, snapshot, 512, 1 << 40, data))
    (arrived,) = await two.messages.first()
    assert (arrived.snapshot, arrived.position, arrived.size, arrived.data) == (snapshot, 512, 1 << 40, data)


# -- the controller ----------------------------------------------------------------------------------------


@on_the_loop
async def test_a_question_is_asked_once_and_answered(ends):
    one, two = await ends.pair()
    answers = one.ask(two, b"create topics")
    ((api_key, version, body, reply),) = await two.questions.first()
    assert (api_key, version, body) == (19, 7, b"create topics")
    reply(b"created")
    assert await answers.first() == [b"created"]
    assert len(two.questions) == 1


@on_the_loop
async def test_brokers_ask_each_other_on_a_way_of_their_own(ends):
    one, two = await ends.pair()
    questions, answers = Seen(), Seen()
    two.net.brokers.answer = lambda *question: questions.append(question)
    one.net.brokers.ask(2, 27, 2, b"markers", answers.append)
    ((api_key, version, body, reply),) = await questions.first()
    assert (api_key, version, body) == (27, 2, b"markers")
    reply(b"written")
    assert await answers.first() == [b"written"]
    assert not two.questions, "no question to the controller"


@on_the_loop
async def test_answers_come_in_any_order_and_any_size(ends):
    one, two = await ends.pair()
    bodies = [b"", b"a" * 100, b"b" * (5 << 20)]
    asked = [one.ask(two, body) for body in bodies]
    questions = await two.questions.first(3)
    for _, _, body, reply in reversed(questions):
        reply(body)
    assert [await answers.first() for answers in asked] == [[body] for body in bodies]


@on_the_loop
async def test_a_controller_may_have_no_answer(ends):
    one, two = await ends.pair()
    answers = one.ask(two)
    ((*_, reply),) = await two.questions.first()
    reply(None)
    assert await answers.first() == [None]


@on_the_loop
async def test_an_answer_that_does_not_come_in_time_is_none_and_is_dropped_when_late(ends):
    one = await ends.start(1, settings=replace(SETTINGS, ask_timeout_ms=50))
    two = await ends.start(2)
    one.knows(two)
    answers = one.ask(two)
    assert await answers.first() == [None]
    ((*_, reply),) = await two.questions.first()
    reply(b"late")
    again = one.ask(two)
    (*_, reply) = (await two.questions.first(2))[1]
    reply(b"in time")
    assert len(await again.first()) == 1
    assert answers == [None]


@on_the_loop
async def test_nobody_to_ask_is_told_later_not_at_once(ends):
    one = await ends.start(1)
    two = End(2)
    assert await one.ask(two).first() == [None]  # no address
    one.knows(two)
    assert await one.ask(two).first() == [None]  # nobody listens
    assert one.refused


@on_the_loop
async def test_questions_under_way_fail_when_the_controller_dies_and_later_ones_reach_the_next(ends):
    one, two = await ends.pair()
    asked = [one.ask(two), one.ask(two)]
    await two.questions.first(2)
    await two.net.stop()
    assert [await answers.first() for answers in asked] == [[None], [None]]
    again = await ends.start(2, two.port)
    answer = None
    while answer is None:
        answers = one.ask(two)
        await asyncio.wait(
            [asyncio.ensure_future(answers.first()), asyncio.ensure_future(again.questions.first())],
            return_when=asyncio.FIRST_COMPLETED,
        )
        if again.questions:
            again.questions[0][3](b"new")
            (answer,) = await answers.first()
    assert answer == b"new"


@on_the_loop
async def test_an_asker_with_too_many_open_questions_is_not_read_further(ends):
    one = await ends.start(1)
    two = await ends.start(2, settings=replace(SETTINGS, asks_in_flight_max=3))
    one.knows(two)
    asked = [one.ask(two, b"%d" % number) for number in range(10)]
    for number in range(10):
        questions = await two.questions.first(min(number + 3, 10))
        assert len(two.questions) == min(number + 3, 10)
        questions[number][3](b"ok")
    assert [await answers.first() for answers in asked] == [[b"ok"]] * 10


# -- replication -------------------------------------------------------------------------------------------


@on_the_loop
async def test_a_follower_and_a_leader_exchange_messages(ends):
    one, two = await ends.pair()
    leader = Leader()
    stream = one.net.replication.connect(2, leader)
    stream.send(up(1))
    (follower,) = await two.followers.first()
    assert await follower.ups.first() == [up(1)]
    assert follower.stream.writable
    for size in (0, 1000, 1 << 20, 6 << 20):
        follower.stream.send(down(size))
    assert await leader.downs.first(4) == [down(size) for size in (0, 1000, 1 << 20, 6 << 20)]
    stream.close()
    assert await follower.ends.first() == ["closed"]
    assert leader.ends == []
    follower.stream.send(down(1))  # nothing happens


@on_the_loop
async def test_a_leader_that_ends_a_stream_hears_no_more_of_it(ends):
    one, two = await ends.pair()
    leader = Leader()
    stream = one.net.replication.connect(2, leader)
    stream.send(up(1))
    (follower,) = await two.followers.first()
    follower.stream.close()
    assert len(await leader.ends.first()) == 1
    stream.send(up(1))
    assert follower.ends == []


@on_the_loop
async def test_a_stream_to_nobody_is_closed_with_a_reason_once(ends):
    one, two = await ends.start(1), End(2)
    leader = Leader()
    one.net.replication.connect(2, leader)
    assert leader.ends == []
    assert "not known" in (await leader.ends.first())[0]
    one.knows(two)
    refused = Leader()
    one.net.replication.connect(2, refused)
    assert f"{HOST}:{two.port}" in (await refused.ends.first())[0]
    assert one.refused == [2]
    assert len(leader.ends) == 1


@on_the_loop
async def test_both_ends_hear_of_a_leader_that_stops(ends):
    one, two = await ends.pair()
    leader = Leader()
    one.net.replication.connect(2, leader).send(up(1))
    (follower,) = await two.followers.first()
    await two.net.stop()
    await leader.ends.first()
    await follower.ends.first()
    assert await one.refused.first() == [2]


@on_the_loop
async def test_a_follower_that_does_not_read_makes_the_stream_unwritable_and_costs_bounded_memory(ends):
    two = await ends.start(2)
    async with grpc.aio.insecure_channel(f"{HOST}:{two.port}", options=client_options(SETTINGS)) as channel:
        call = channel.stream_stream(FETCH)(metadata=identity(1).metadata())
        (follower,) = await two.followers.first()
        sent = await send_until_stuck(follower)
        assert 2 <= sent < 100
        assert not follower.stream.writable
        for _ in range(sent):
            await asyncio.wait_for(call.read(), WAIT_S)
        await follower.drains.until(lambda _: follower.stream.writable)
        call.cancel()
    await follower.ends.first()


async def send_until_stuck(follower):
    """Send as long as the stream is writable or becomes so; how many MiB that were."""
    sent = 0
    while sent < 1000:
        if follower.stream.writable:
            follower.stream.send(down(1 << 20))
            sent += 1
        else:
            try:
                async with asyncio.timeout(1):  # that nothing happens can only be seen by waiting
                    await follower.drains.until(lambda _: follower.stream.writable)
            except TimeoutError:
                break
    return sent


@on_the_loop
async def test_bulk_data_and_control_use_connections_of_their_own(ends):
    one, two = await ends.pair()
    one.net.replication.connect(2, Leader()).send(up(1))
    one.send(two, vote())
    one.ask(two)
    await two.followers.first()
    await two.messages.first()
    await two.questions.first()
    assert connections_to(two.port) == 2


def connections_to(port):
    """Established connections of this machine to a local port, as Linux tells."""
    try:
        with open("/proc/net/tcp") as table, open("/proc/net/tcp6") as table6:
            lines = [line.split() for line in [*table, *table6]]
    except OSError:
        pytest.skip("no /proc/net/tcp here")
    return sum(1 for line in lines if line[2].endswith(f":{port:04X}") and line[3] == "01")


# -- broken connections ------------------------------------------------------------------------------------


@on_the_loop
async def test_a_refused_connection_is_told_at_once_and_again(ends):
    one, two = await ends.start(1), End(2)
    one.knows(two)
    one.send(two, vote())
    assert await one.refused.first() == [2]
    one.send(two, vote())
    assert await one.refused.first(2) == [2, 2]
    assert not one.lines


@on_the_loop
async def test_a_peer_that_stops_is_told_to_whom_it_called_and_who_called_it(ends):
    one, two, three = [await ends.start(node_id) for node_id in (1, 2, 3)]
    two.knows(one)
    one.knows(two)
    three.knows(two)
    two.send(one, vote())
    three.send(two, vote())
    await one.messages.first()
    await two.messages.first()
    await two.net.stop()
    assert await one.refused.first() == [2]
    assert await three.refused.first() == [2]


@on_the_loop
async def test_streams_come_back_when_the_peer_does(ends):
    one, two = await ends.pair()
    one.send(two, fetch(1))
    await two.messages.first()
    await two.net.stop()
    await one.refused.first()
    two = await ends.start(2, two.port, who=replace(identity(2), incarnation=b"again" + bytes(11)))
    request_id = 2
    while not two.messages:
        one.send(two, fetch(request_id))
        request_id += 1
        await asyncio.wait(
            [
                asyncio.ensure_future(two.messages.first()),
                asyncio.ensure_future(one.refused.first(len(one.refused) + 1)),
            ],
            return_when=asyncio.FIRST_COMPLETED,
        )
    assert two.messages[0].sender.id == 1
    two.knows(one).send(one, vote())
    await one.messages.first()


@on_the_loop
async def test_a_peer_that_moved_is_found_at_its_new_address(ends):
    one, two = await ends.pair()
    one.send(two, fetch(1))
    await two.messages.first()
    await two.net.stop()
    await one.refused.first()
    moved = await ends.start(2)
    one.knows(moved)
    one.send(moved, fetch(2))
    (message,) = await moved.messages.first()
    assert message.request_id == 2


@on_the_loop
async def test_a_process_that_accepts_and_says_nothing_is_not_refused(ends):
    async def silent(reader, writer):
        await reader.read()
        writer.close()

    port = free_ports(1)[0]
    server = await asyncio.start_server(silent, HOST, port)
    one = await ends.start(1, settings=replace(SETTINGS, handshake_timeout_ms=100))
    one.net.set_controller(2, HOST, port)
    answers = Seen()
    one.net.controller.ask(2, 1, 1, b"", answers.append)
    assert await answers.first() == [None]
    assert not one.refused
    server.close()


@on_the_loop
async def test_a_connection_that_has_gone_silent_is_given_up_and_made_anew(ends):
    quick = replace(SETTINGS, keepalive_ms=300, keepalive_timeout_ms=4_000, bulk_keepalive_timeout_ms=4_000)
    one, two = await ends.start(1, settings=quick), await ends.start(2)
    async with Link(two.port) as link:
        one.knows(End(2, link.port))
        leader = Leader()
        one.net.replication.connect(2, leader).send(up(1))
        one.send(two, fetch(1))
        await two.messages.first()
        await two.followers.first()
        link.freeze()
        assert "ping timeout" in (await leader.ends.first())[0]
        assert not one.refused
        link.thaw()
        one.net.replication.connect(2, Leader()).send(up(1))
        await two.followers.first(2)


class Link:
    """A connection to a node that can go silent, as behind a broken switch: nothing arrives, nothing is refused."""

    def __init__(self, to_port):
        self.port = free_ports(1)[0]
        self._to_port = to_port
        self._open = asyncio.Event()
        self._open.set()
        self._tasks = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._accepted, HOST, self.port)
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def freeze(self):
        self._open.clear()

    def thaw(self):
        self._open.set()

    async def _accepted(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.CancelledError):
            far_reader, far_writer = await asyncio.open_connection(HOST, self._to_port)
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))

    async def _pump(self, reader, writer):
        while data := await reader.read(1 << 16):
            await self._open.wait()
            writer.write(data)
            await writer.drain()
        writer.close()


@on_the_loop
async def test_a_watched_peer_that_is_there_is_not_refused(ends):
    one, two = await ends.pair()
    one.net.watch(2)
    one.net.watch(77)
    one.send(two, vote())
    await two.messages.first()
    assert not one.refused


@on_the_loop
async def test_raft_drops_its_oldest_messages_for_a_peer_that_does_not_take_them(ends):
    one = await ends.start(1, settings=replace(SETTINGS, outbox_messages_max=10))
    two = await ends.start(2)
    one.knows(two)
    for request_id in range(1000):  # no stream is open yet: nothing can leave
        one.send(two, fetch(request_id))
    arrived = await two.messages.first(10)
    assert [message.request_id for message in arrived] == list(range(990, 1000))


@on_the_loop
async def test_what_was_said_last_arrives_before_a_node_stops(ends):
    one, two = await ends.start(1, settings=replace(SETTINGS, stop_ms=60_000)), await ends.start(2)
    one.knows(two)
    one.send(two, vote())
    await two.messages.first()
    one.send(two, m.EndQuorumEpochRequest(ReplicaKey(0), 1, 9, ()))
    await one.net.stop()
    (_, last) = await two.messages.first(2)
    assert isinstance(last, m.EndQuorumEpochRequest)


@on_the_loop
async def test_a_node_stops_while_it_dials_and_while_it_is_asked(ends):
    one, two = await ends.pair()
    three = End(3)
    one.knows(three)
    asked = [one.ask(two), one.ask(three)]
    one.net.replication.connect(3, Leader())
    one.net.watch(2)
    await two.questions.first()
    await one.net.stop()
    assert [await answers.first() for answers in asked] == [[None], [None]]
    one.net.raft.send(ReplicaKey(2), vote())


@on_the_loop
async def test_a_port_that_is_taken_is_an_error(ends):
    one = await ends.start(1)
    with pytest.raises(OSError, match=str(one.port)):
        await ends.start(2, one.port)


@on_the_loop
async def test_an_exception_of_the_receiver_reaches_the_loops_handler_and_the_stream_goes_on(ends):
    one, two = await ends.pair()
    loop, reported = asyncio.get_running_loop(), Seen()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _loop, context: reported.append(str(context["exception"])))
    receive = two.net.raft.receive
    two.net.raft.receive = lambda _message: 1 // 0
    one.send(two, vote(1))
    assert await reported.first() == ["integer division or modulo by zero"]
    loop.set_exception_handler(before)
    two.net.raft.receive = receive
    one.send(two, vote(2))
    await two.messages.first()
