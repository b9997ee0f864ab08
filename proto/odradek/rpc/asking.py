"""One node asks another over gRPC: the way to the active controller, and from broker to broker.

A request travels once, in Kafka's own encoding, and gets one answer or None: the node could not be reached, did not
answer in time, or has no answer. After None nobody knows whether the request was, or will be, carried out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from odradek.rpc.dialer import Dialer
from odradek.rpc.framing import Assembler, MalformedFrame, parse, split
from odradek.rpc.identity import NodeIdentity
from odradek.rpc.peers import Peers
from odradek.rpc.server import Method
from odradek.rpc.streams import Call, LocalNode, Outbox, converse
from odradek.rpc.v1.controller_pb2 import Answer, Question

CONTROLLER = "/odradek.rpc.v1.Controller/Ask"
BROKER = "/odradek.rpc.v1.Broker/Ask"

Done = Callable[[bytes | None], object]
Answerer = Callable[[int, int, bytes, Callable[[bytes | None], None]], object]
"""(api key, version, body, reply): replies once, at once or later, or never."""

_INT16_MAX = (1 << 15) - 1


@dataclass(slots=True, eq=False)
class _Asked:
    """One node that was asked."""

    dialer: Dialer
    waiting: dict[int, tuple[Done, asyncio.TimerHandle]] = field(default_factory=dict)
    """By correlation."""


class GrpcAsking:
    """A NodeChannel: `path` says for which service. Create on the running loop; set `answer` when it is there."""

    def __init__(self, node: LocalNode, peers: Peers, path: str) -> None:
        self.answer: Answerer = _nobody_answers
        self.method = Method(path, self._serve)
        self._path = path
        self._node = node
        self._peers = peers
        self._asked: dict[int, _Asked] = {}
        self._correlations = count(1)
        self._closed = False

    # -- asking --------------------------------------------------------------------------------------------

    def ask(
        self,
        node_id: int,
        api_key: int,
        version: int,
        body: bytes,
        done: Done,
        timeout_ms: int | None = None,
    ) -> None:
        """Ask node `node_id` once. `done(body or None)` is called once, never from within this.

        None after `timeout_ms`, by default the settings' `ask_timeout_ms`.
        """
        loop = asyncio.get_running_loop()
        asked = self._node_asked(node_id)
        settings = self._node.settings
        if asked is None or len(asked.waiting) >= settings.asks_in_flight_max or asked.dialer.outbox.full:
            loop.call_soon(self._node.deliver, done, None)
            return
        correlation = next(self._correlations)
        wait_ms = settings.ask_timeout_ms if timeout_ms is None else timeout_ms
        timer = loop.call_later(wait_ms / 1000, self._settle, asked, correlation, None)
        asked.waiting[correlation] = (done, timer)
        question = Question(correlation=correlation, api_key=api_key, version=version, body=body)
        asked.dialer.outbox.put(split(question.SerializeToString(), settings.message_bytes_max))

    def _node_asked(self, node_id: int) -> _Asked | None:
        if self._closed or not self._peers.knows(node_id):
            return None
        asked = self._asked.get(node_id)
        if asked is None:

            def begin(_peer: NodeIdentity) -> Callable[[bytes], None]:
                return self._answers(self._asked[node_id])

            def on_down(_reason: str) -> None:
                self._fail(self._asked[node_id])

            dialer = Dialer(self._node, self._peers, node_id, self._path, begin, on_down)
            asked = self._asked[node_id] = _Asked(dialer)
        return asked

    def _answers(self, asked: _Asked) -> Callable[[bytes], None]:
        """Takes the messages of one stream."""
        assembler = Assembler(self._node.settings.frame_bytes_max)

        def arrived(data: bytes) -> None:
            answer = parse(Answer, data)
            if answer.HasField("part"):
                whole = assembler.add(answer.part)
                if whole is None:
                    return
                answer = parse(Answer, whole)
            self._settle(asked, answer.correlation, answer.body if answer.HasField("body") else None)

        return arrived

    def _settle(self, asked: _Asked, correlation: int, body: bytes | None) -> None:
        """An answer that nobody waits for any more is dropped."""
        waiting = asked.waiting.pop(correlation, None)
        if waiting is not None:
            done, timer = waiting
            timer.cancel()
            self._node.deliver(done, body)

    def _fail(self, asked: _Asked) -> None:
        for correlation in list(asked.waiting):
            self._settle(asked, correlation, None)

    # -- answering -----------------------------------------------------------------------------------------

    async def _serve(self, _caller: NodeIdentity, call: Call) -> None:
        asker = _Asker(self._node, lambda: self.answer)
        try:
            await converse(call, asker.outbox, asker.arrived, ready=asker.room, sent=asker.look)
        finally:
            asker.gone = True

    async def close(self) -> None:
        """Whoever waits for an answer is told that there is none."""
        self._closed = True
        for asked in self._asked.values():
            self._fail(asked)
        await asyncio.gather(*(asked.dialer.close() for asked in self._asked.values()))


class _Asker:
    """One stream of questions. No more are read while too many have no answer or wait to be sent one."""

    def __init__(self, node: LocalNode, answerer: Callable[[], Answerer]) -> None:
        self.outbox = Outbox(node.settings)
        self.gone = False
        self._node = node
        self._answerer = answerer
        self._assembler = Assembler(node.settings.frame_bytes_max)
        self._unanswered = 0
        self._waiter: asyncio.Future[None] | None = None

    @property
    def _has_room(self) -> bool:
        return self._unanswered < self._node.settings.asks_in_flight_max and not self.outbox.full

    async def room(self) -> None:
        while not self._has_room:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def look(self) -> None:
        if self._waiter is not None and not self._waiter.done() and self._has_room:
            self._waiter.set_result(None)

    def arrived(self, data: bytes) -> None:
        question = parse(Question, data)
        if question.HasField("part"):
            whole = self._assembler.add(question.part)
            if whole is None:
                return
            question = parse(Question, whole)
        if not (0 <= question.api_key <= _INT16_MAX and 0 <= question.version <= _INT16_MAX):
            raise MalformedFrame(f"api key {question.api_key}, version {question.version}")
        self._unanswered += 1
        correlation = question.correlation
        replied = False

        def reply(body: bytes | None) -> None:
            nonlocal replied
            assert not replied, "one answer to a question"
            replied = True
            self._unanswered -= 1
            if not self.gone:
                answer = Answer(correlation=correlation, body=body)
                self.outbox.put(split(answer.SerializeToString(), self._node.settings.message_bytes_max))
                self.look()

        self._node.deliver(self._answerer(), question.api_key, question.version, question.body, reply)


def _nobody_answers(
    _api_key: int, _version: int, _body: bytes, reply: Callable[[bytes | None], None]
) -> None:
    """Until the quorum is there."""
    reply(None)
