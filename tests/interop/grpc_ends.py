"""Ends of the talk between nodes, for tests: everything a node has for it, on real sockets of this machine."""

import asyncio
import contextlib
from unittest import mock

from interop.cluster import PATIENCE_S, free_ports
from odradek.broker import internal_server
from odradek.broker.internal_server import InternalServer
from odradek.metadata.delta import MetadataDelta
from odradek.metadata.image import BrokerImage, MetadataImage
from odradek.raft import messages as m
from odradek.raft.control_records import decode_batches
from odradek.raft.log_index import OffsetAndEpoch
from odradek.raft.voters import ReplicaKey
from odradek.replication.messages import FetchData, FetchDown, FetchState, FetchUp
from odradek.rpc.identity import NodeIdentity
from odradek.rpc.settings import RpcSettings
from odradek.wire.errors import ErrorCode
from odradek.wire.records import simple_batch

HOST = "127.0.0.1"
WAIT_S = PATIENCE_S
SETTINGS = RpcSettings(
    handshake_timeout_ms=60_000,
    keepalive_ms=60_000,
    keepalive_timeout_ms=60_000,
    bulk_keepalive_timeout_ms=60_000,
    ask_timeout_ms=60_000,
    mismatch_backoff_ms=100,
)
"""A loaded machine is not a dead peer."""


@contextlib.contextmanager
def time_to_stop():
    """A process that ends leaves to the system what its node has not closed in time. Here no process ends."""
    with mock.patch.object(internal_server, "STOP_S_MAX", PATIENCE_S):
        yield


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

    def __init__(self, node_id, port=None, *, who=None, settings=SETTINGS, secret=b""):
        self.id = node_id
        self.port = port or free_ports(1)[0]
        self.who = who or identity(node_id)
        self.settings = settings
        self.secret = secret
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
            secret=self.secret,
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
        with time_to_stop(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(asyncio.wait_for(run(), 2 * PATIENCE_S))

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
