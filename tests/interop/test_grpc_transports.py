"""Nodes that talk over real sockets: what arrives, what breaks, who is refused, and that it is told."""

import asyncio
import contextlib
import re
from dataclasses import replace

import grpc
import grpc.aio
import pytest

from interop.grpc_ports import HOST, free_port
from odradek.broker.internal_server import InternalServer
from odradek.metadata.delta import MetadataDelta
from odradek.metadata.image import BrokerImage, MetadataImage
from odradek.raft import messages as m
from odradek.raft.control_records import decode_batches
from odradek.raft.grpc_transport import EXCHANGE
from odradek.raft.log_index import OffsetAndEpoch, SnapshotId
from odradek.raft.voters import ReplicaKey
from odradek.replication.grpc_transport import FETCH
from odradek.replication.messages import FetchData, FetchDown, FetchState, FetchUp
from odradek.rpc.identity import NodeIdentity
from odradek.rpc.settings import RpcSettings, client_options
from odradek.wire.errors import ErrorCode
from odradek.wire.records import simple_batch

WAIT_S = 20
SETTINGS = RpcSettings(
    handshake_timeout_ms=5_000,
    keepalive_ms=5_000,
    keepalive_timeout_ms=10_000,
    bulk_keepalive_timeout_ms=10_000,
    mismatch_backoff_ms=100,
)
"""A loaded machine is not a dead peer."""


def identity(node_id, *, cluster="cluster", directory=None):
    return NodeIdentity(cluster, node_id, directory or bytes([node_id]) * 16, bytes([node_id, 1]) * 8)


class Seen(list):
    """A list that can be waited for."""

    def __init__(self):
        super().__init__()
        self._changed = asyncio.Event()

    def append(self, item):
        super().append(item)
        self._changed.set()

    async def until(self, condition):
        async with asyncio.timeout(WAIT_S):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()
        return self

    async def first(self, count=1):
        return (await self.until(lambda seen: len(seen) >= count))[:count]


class End:
    """One node's side of everything, and what it was told."""

    def __init__(self, node_id, port=None, *, who=None, settings=SETTINGS):
        self.id = node_id
        self.port = port or free_port()
        self.who = who or identity(node_id)
        self.settings = settings
        self.messages, self.questions, self.refused, self.lines = Seen(), Seen(), Seen(), Seen()
        self.followers, self.flushes = Seen(), 0
        self.net = None

    async def start(self, *, listen=True):
        self.net = InternalServer(
            self.who,
            warn=lambda event, /, **values: self.lines.append((event, values)),
            after=self._after,
            on_refused=self.refused.append,
            settings=self.settings,
        )
        self.net.raft.receive = self.messages.append
        self.net.controller.answer = lambda *question: self.questions.append(question)
        self.net.replication.accept = self._accept
        if listen:
            assert await self.net.start(HOST, self.port) == self.port
        return self

    def _after(self):
        self.flushes += 1

    def _accept(self, stream):
        follower = Follower(stream)
        self.followers.append(follower)
        return follower

    def knows(self, *others):
        for other in others:
            self.net.set_controller(other.id, HOST, other.port)
            listeners = {"REPLICATION": (HOST, other.port, 0)}
            image = MetadataImage()
            image.brokers[other.id] = BrokerImage(other.id, 1, b"i" * 16, listeners)
            delta = MetadataDelta(MetadataImage())
            delta.brokers_changed.add(other.id)
            self.net.on_metadata(delta, image)
        return self

    def send(self, other, message):
        self.net.raft.send(ReplicaKey(other.id), message)

    def ask(self, other, body=b"?"):
        answers = Seen()
        self.net.controller.ask(other.id, 19, 7, body, answers.append)
        assert not answers
        return answers


class Follower:
    """UpEvents of a leader."""

    def __init__(self, stream):
        self.stream = stream
        self.ups, self.drains, self.ends = Seen(), Seen(), Seen()
        self.received = self.ups.append

    def drained(self):
        self.drains.append(self.stream.writable)

    def closed(self):
        self.ends.append("closed")


class Leader:
    """StreamEvents of a follower."""

    def __init__(self):
        self.downs, self.ends = Seen(), Seen()
        self.received = self.downs.append
        self.closed = self.ends.append


class Ends:
    def __init__(self, stack):
        self._stack = stack

    async def start(self, node_id, port=None, *, listen=True, **more):
        end = await End(node_id, port, **more).start(listen=listen)
        self._stack.push_async_callback(end.net.stop)
        return end

    async def pair(self):
        one, two = await self.start(1), await self.start(2)
        return one.knows(two), two.knows(one)


def on_the_loop(test):
    """Run a test on the loop that nodes run on; an exception that nobody caught fails it."""
    import uvloop

    async def run():
        trouble = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: trouble.append(context))
        async with contextlib.AsyncExitStack() as stack:
            await test(Ends(stack))
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not trouble
        assert not [task for task in others if "odradek" in repr(task.get_coro())], "a task was left behind"

    def wrapped():
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(asyncio.wait_for(run(), 60))

    wrapped.__name__, wrapped.__doc__ = test.__name__, test.__doc__
    return wrapped


def vote(epoch=1, request_id=1):
    return m.VoteRequest(ReplicaKey(0), epoch, request_id, True, OffsetAndEpoch(5, 1), b"v" * 16)


def fetch(request_id=1):
    return m.FetchRequest(ReplicaKey(0), 1, request_id, 10, 1, 5)


def vote_answer(request_id=1):
    return m.VoteResponse(ReplicaKey(0), 1, request_id, -1, ErrorCode.NONE, True, True)


def fetch_answer(size, request_id=1):
    batch = simple_batch([(None, bytes(size))], base_offset=0, timestamp=0, leader_epoch=1)
    return m.FetchResponse(
        ReplicaKey(0), 1, request_id, 1, ErrorCode.NONE, 0, batches=decode_batches(bytes(batch))
    )


def up(follower_id, session=1, credit=1 << 30):
    states = (FetchState(b"t" * 16, 0, 3, 100, 2, 0, 1),)
    return FetchUp(follower_id, 77, session, credit, states)


def down(size, session=1):
    data = FetchData(b"t" * 16, 0, 3, 1, ErrorCode.NONE, None, 90, 0, 100, b"x" * size)
    return FetchDown(session, (data,))


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

    port = free_port()
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
    quick = replace(SETTINGS, keepalive_ms=300, keepalive_timeout_ms=1_500, bulk_keepalive_timeout_ms=1_500)
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
        self.port = free_port()
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
    one, two = await ends.pair()
    one.send(two, vote())
    await two.messages.first()
    one.send(two, m.EndQuorumEpochRequest(ReplicaKey(0), 1, 9, ()))
    began = asyncio.get_running_loop().time()
    await one.net.stop()
    assert asyncio.get_running_loop().time() - began < 5
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


# -- who is refused ----------------------------------------------------------------------------------------


@on_the_loop
async def test_a_node_of_another_cluster_is_refused_with_one_line_at_either_end(ends):
    one = await ends.start(1)
    stranger = await ends.start(2, who=identity(2, cluster="elsewhere"))
    stranger.knows(one)
    for _ in range(3):
        assert await stranger.ask(one).first() == [None]
    (at_one, *_) = await one.lines.first()
    assert at_one[0] == "another node was refused"
    assert "node 2 belongs to cluster elsewhere, node 1 to cluster cluster" in at_one[1]["reason"]
    assert [(event, values["node"]) for event, values in stranger.lines] == [
        ("another node is not who it should be", 1)
    ]
    assert at_one[1]["reason"] == stranger.lines[0][1]["reason"]
    assert not one.questions


@on_the_loop
async def test_another_node_at_an_address_is_not_talked_to(ends):
    one, two = await ends.pair()
    one.net.set_controller(7, HOST, two.port)
    answers = Seen()
    one.net.controller.ask(7, 1, 1, b"", answers.append)
    assert await answers.first() == [None]
    ((event, values),) = one.lines
    assert (event, values["node"]) == ("another node is not who it should be", 7)
    assert values["reason"].startswith("at the address of node 7 answers node 2")
    assert not two.questions


@on_the_loop
async def test_a_second_node_with_an_id_that_is_connected_is_refused(ends):
    one, two = await ends.pair()
    two.send(one, vote())
    await one.messages.first()
    twin = await ends.start(2, who=identity(2, directory=b"another one     "))
    twin.knows(one)
    assert await twin.ask(one).first() == [None]
    assert "two nodes have node.id=2" in one.lines[0][1]["reason"]
    two.send(one, vote(2))
    await one.messages.first(2)


@on_the_loop
async def test_a_restarted_node_takes_the_place_of_the_stream_it_left_behind(ends):
    one, two = await ends.pair()
    two.send(one, fetch(1))
    (request,) = await one.messages.first()
    again = await ends.start(2, who=replace(identity(2), incarnation=b"again" + bytes(11)))
    again.knows(one)
    again.send(one, fetch(2))
    await one.messages.first(2)
    one.net.raft.send(request.sender, fetch_answer(1, 2))
    assert (await again.messages.first())[0].request_id == 2
    assert not two.messages


@on_the_loop
async def test_a_node_with_the_id_of_the_one_it_calls_is_refused(ends):
    one = await ends.start(1)
    channel = grpc.aio.insecure_channel(f"{HOST}:{one.port}", options=client_options(SETTINGS))
    call = channel.stream_stream(EXCHANGE)(metadata=identity(1, directory=b"x" * 16).metadata())
    assert await call.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "two nodes have node.id=1" in await call.details()
    await channel.close()


@on_the_loop
async def test_somebody_who_is_no_node_is_refused(ends):
    one = await ends.start(1)
    async with grpc.aio.insecure_channel(f"{HOST}:{one.port}", options=client_options(SETTINGS)) as channel:
        call = channel.stream_stream(EXCHANGE)()
        assert await call.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert re.search("not an Odradek node", one.lines[0][1]["reason"])


# -- what makes no sense -----------------------------------------------------------------------------------


@on_the_loop
async def test_bytes_that_are_no_message_end_the_stream_with_one_line(ends):
    one = await ends.start(1)
    async with grpc.aio.insecure_channel(f"{HOST}:{one.port}", options=client_options(SETTINGS)) as channel:
        for path in (EXCHANGE, FETCH, "/odradek.rpc.v1.Controller/Ask"):
            call = channel.stream_stream(path)(metadata=identity(2).metadata())
            await call.write(b"\xff\xff\xff")
            assert await asyncio.wait_for(call.code(), WAIT_S) is grpc.StatusCode.INVALID_ARGUMENT
    assert [line[0] for line in one.lines] == ["another node sent what makes no sense"] * 3
    assert [line[1]["node"] for line in one.lines] == [2, 2, 2]
    assert not one.messages
    assert not one.questions


@on_the_loop
async def test_a_follower_cannot_be_another_one(ends):
    one, two = await ends.pair()
    leader = Leader()
    one.net.replication.connect(2, leader).send(up(3))
    assert "INVALID_ARGUMENT" in (await leader.ends.first())[0]
    assert "calls itself follower 3" in two.lines[0][1]["reason"]
    assert two.followers[0].ups == []


@on_the_loop
async def test_a_message_over_the_limit_ends_the_stream_and_nothing_else(ends):
    one, two = await ends.pair()
    async with grpc.aio.insecure_channel(
        f"{HOST}:{one.port}", options=[("grpc.max_send_message_length", 64 << 20)]
    ) as channel:
        call = channel.stream_stream(EXCHANGE)(metadata=identity(3).metadata())
        await call.write(bytes(4 << 20))
        assert await asyncio.wait_for(call.code(), WAIT_S) is grpc.StatusCode.RESOURCE_EXHAUSTED
    two.send(one, vote())
    await one.messages.first()


@on_the_loop
async def test_a_damaged_batch_of_the_metadata_log_ends_the_stream_with_one_line(ends):
    one, two = await ends.pair()
    two.send(one, fetch(1))
    (request,) = await one.messages.first()
    answer = fetch_answer(100)
    data = bytearray(answer.batches[0].data)
    data[-20] ^= 1
    answer.batches = (answer.batches[0]._replace(data=data),)
    one.net.raft.send(request.sender, answer)
    ((event, values),) = await two.lines.first()
    assert event == "another node sent what makes no sense"
    assert "checksum" in values["reason"]
    assert not two.messages
