"""The metadata quorum over real sockets: three nodes in one process, each with its own server and connections."""

import asyncio
import random

from interop.cluster import PATIENCE_S, free_ports
from interop.grpc_ends import HOST, time_to_stop
from odradek.broker.internal_server import InternalServer
from odradek.broker.server import FlushingSyncer, LoopTimers, RealClock
from odradek.controller.controller_node import MetadataQuorum
from odradek.ports.timers import TimerQueue
from odradek.raft.voters import Endpoint, ReplicaKey, Voter
from odradek.rpc.identity import NodeIdentity
from odradek.storage.memory_disk import MemoryDisk
from odradek.storage.real_disk import ThreadSyncer
from odradek.wire.errors import ErrorCode
from unit.controller.controller_harness import CLUSTER, registration
from unit.controller.test_metadata_quorum import DIR, Config


class Node:
    """A controller with everything that it has in a process of its own, but for the disk."""

    def __init__(self, node_id, port, addresses, changed):
        self.id = node_id
        self.port = port
        self.warnings = []
        self.refused = []
        self._addresses = addresses
        self._changed = changed
        self._loop = asyncio.get_running_loop()

    async def start(self):
        directory = bytes([self.id]) * 16
        who = NodeIdentity(CLUSTER, self.id, directory, random.randbytes(16))
        self.net = InternalServer(
            who, warn=self._warn, after=self._changed.set, on_refused=self.refused.append
        )
        for other, port in self._addresses.items():
            self.net.set_controller(other, HOST, port)
        await self.net.start(HOST, self.port)
        self._threads = ThreadSyncer(self._loop.call_soon_threadsafe)
        syncer = FlushingSyncer(self._threads)
        syncer.after = self._changed.set
        timers = TimerQueue()
        disk = MemoryDisk(self.id)
        disk.makedirs(DIR)
        self._timers = LoopTimers(self._loop, timers, self._changed.set)
        voters = [
            Voter(ReplicaKey(other), (Endpoint("CONTROLLER", HOST, port),))
            for other, port in self._addresses.items()
        ]
        self.quorum = MetadataQuorum(
            disk=disk,
            dir=DIR,
            syncer=syncer,
            clock=RealClock(),
            timers=timers,
            rng=random.Random(self.id),
            node_id=self.id,
            cluster_id=CLUSTER,
            config=Config(controller_quorum_fetch_timeout_ms=2_000),
            directory_id=directory,
            voters=voters,
            transport=self.net.raft,
            channel=self.net.controller,
            warn=self._warn,
        )
        self.quorum.start(RealClock().monotonic_ms())
        self.net.raft.receive = self.quorum.raft.receive
        self.net.controller.answer = self.quorum.answer
        self._timers.start()

    def _warn(self, event, /, **values):
        self.warnings.append((event, values))

    def ask(self, request):
        response = self._loop.create_future()
        self.quorum.handle(request, request.MAX_VERSION, RealClock().monotonic_ms(), response.set_result)
        return asyncio.wait_for(response, PATIENCE_S)

    async def vanish(self):
        """As if the process were gone: nothing is said, no timer fires, nobody listens."""
        self._timers.stop()
        self.net.raft.receive = lambda _message: None
        self.net.controller.answer = lambda *_question: None
        await self.net.stop()
        self._threads.close()


async def until(changed, condition):
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            changed.clear()
            await changed.wait()


async def elects_answers_and_replaces_its_leader():
    trouble = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: trouble.append(context))
    changed = asyncio.Event()
    addresses = dict(zip((1, 2, 3), free_ports(3), strict=True))
    nodes = [Node(node_id, port, addresses, changed) for node_id, port in addresses.items()]
    for node in nodes:
        await node.start()
    for node in nodes:  # whoever leads, every node gets an answer
        response = await node.ask(registration(node.id))
        assert response.error_code == ErrorCode.NONE
    await until(changed, lambda: all(sorted(node.quorum.image.brokers) == [1, 2, 3] for node in nodes))

    await until(changed, lambda: sum(node.quorum.controller.active for node in nodes) == 1)
    [leader] = [node for node in nodes if node.quorum.controller.active]
    others = [node for node in nodes if node is not leader]
    await leader.vanish()
    await until(changed, lambda: all(leader.id in node.refused for node in others))
    for node in others:
        response = await node.ask(registration(10 + node.id))
        assert response.error_code == ErrorCode.NONE
    await until(changed, lambda: all(len(node.quorum.image.brokers) == 5 for node in others))
    await until(changed, lambda: len({node.quorum.image.controller_id for node in others}) == 1)
    assert others[0].quorum.image.controller_id in {node.id for node in others}
    for node in others:
        node.quorum.close()
        await node.vanish()
    assert not trouble
    assert not [node.warnings for node in nodes if node.warnings]


def test_a_quorum_elects_answers_everywhere_and_replaces_a_leader_that_is_gone():
    import uvloop

    with time_to_stop(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(elects_answers_and_replaces_its_leader())
