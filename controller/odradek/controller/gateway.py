"""The way of a request to the active controller, whichever node that is.

    ask ──► leader known? ── this node ──► its own controller ──► answered, or None: not the leader after all
      ▲          │           another   ──► NodeChannel  ──► answered, or None: not reached, not the leader
      │          no                                                     │
      └── wait for a leader, for the pause between tries, or the deadline ◄┘

A request is asked again when the way to the controller breaks or its node is not the one, so it may be carried
out more than once: what Kafka's requests are made for (epochs, incarnations, topics that exist already), and what
Kafka's brokers do. When another node takes the lead, those whose answers are still out are asked there at once; of
several answers the first counts. At the deadline the sender is told REQUEST_TIMED_OUT, as by Kafka's brokers: nobody
may know whether it was carried out. A node that cannot even take a request says NOT_CONTROLLER: another one may.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from odradek.controller.internal import response_class
from odradek.controller.responses import error_response
from odradek.controller.settings import PENDING_REQUESTS_MAX
from odradek.ports.clock import Clock
from odradek.ports.timers import Timer, TimerQueue
from odradek.wire.errors import ErrorCode
from odradek.wire.primitives import Message

RETRY_BACKOFF_MS = 20
RETRY_BACKOFF_MS_MAX = 200
ANSWER_MARGIN_MS_MAX = 500
"""A client that waits as long as its request says shall still get the answer that time is up."""

AUTHORIZED = "*"
"""The principal of a request that the node which took it has authorized already: all of them, as yet."""

Done = Callable[[Any], None]
Serve = Callable[[Message, int, int, Done], None]
"""(request, version, now_ms, done): done(None) if this node is not the active controller."""


class NodeChannel(Protocol):
    """Carries requests to controllers, in Kafka's encodings; `MetadataQuorum.answer` is at the other end. Another one
    carries requests to brokers.
    """

    def ask(
        self,
        node_id: int,
        api_key: int,
        version: int,
        body: bytes,
        done: Callable[[bytes | None], None],
        timeout_ms: int | None = None,
    ) -> None:
        """Ask once. `done`, once and never from within this: the response, or None if that node was not
        reached, did not answer in time (the channel's own without `timeout_ms`), or is not the one who can.
        """
        ...


@dataclass(slots=True, eq=False)
class _Asked:
    """A request under way."""

    request: Message
    version: int
    principal: str
    done: Done | None
    """None once it has been answered."""
    deadline_ms: int
    tries: int = 0
    handed_to: int = -1
    """The controller that has it now, -1: none."""
    ever_handed: bool = False
    body: bytes | None = None
    deadline: Timer | None = None
    pause: Timer | None = None


class ControllerGateway:
    """Requests of one node on their way. `leader` gives the active controller's id, -1 while there is none."""

    def __init__(
        self,
        node_id: int,
        leader: Callable[[], int],
        serve: Serve,
        clock: Clock,
        timers: TimerQueue,
        channel: NodeChannel | None,
        warn: Callable[..., None] | None,
    ) -> None:
        self._node_id = node_id
        self._leader = leader
        self._serve = serve
        self._clock = clock
        self._timers = timers
        self._channel = channel
        self._warn = warn
        self._asked: dict[_Asked, None] = {}
        """In the order in which they came."""
        self._closed = False

    def __len__(self) -> int:
        return len(self._asked)

    def ask(
        self, request: Message, version: int, timeout_ms: int, done: Done, principal: str = AUTHORIZED
    ) -> None:
        """`done(response)` is called once, at once or within `timeout_ms`."""
        now_ms = self._clock.monotonic_ms()
        asked = _Asked(request, version, principal, done, now_ms + timeout_ms)
        if self._closed:
            self._refuse(asked, "This node is shutting down.")
        elif len(self._asked) >= PENDING_REQUESTS_MAX:
            self._refuse(asked, f"{PENDING_REQUESTS_MAX} requests wait for the active controller already.")
        else:
            self._asked[asked] = None
            self._try(asked)
            if asked.done is not None:
                asked.deadline = self._timers.at(asked.deadline_ms, lambda _now_ms: self._expire(asked))

    def ask_once(self, request: Message, version: int, done: Done) -> None:
        """A single attempt: `done(response)`, or done(None) for no answer; never from within this call."""
        leader = self._leader()
        now_ms = self._clock.monotonic_ms()
        channel = self._channel
        if leader == self._node_id and not self._closed:
            self._timers.at(now_ms, lambda at_ms: self._serve(request, version, at_ms, done))
        elif self._closed or leader < 0 or channel is None:
            self._timers.at(now_ms, lambda _at_ms: done(None))
        else:
            key, body = request.API_KEY, request.encode(version)
            channel.ask(
                leader,
                key,
                version,
                body,
                lambda answer: done(None if answer is None else self._decode(key, version, answer)),
            )

    def leader_changed(self) -> None:
        """Another node leads, or this one has become ready to."""
        for asked in list(self._asked):
            if asked.done is not None and asked.handed_to != self._leader():
                self._try(asked)

    def close(self) -> None:
        """Whoever waits is told that there is no answer."""
        self._closed = True
        for asked in list(self._asked):
            self._refuse(asked, "This node is shutting down.")

    # -- one try -------------------------------------------------------------------------------------------

    def _try(self, asked: _Asked) -> None:
        """Hand the request to the leader, if there is one."""
        if asked.pause is not None:
            asked.pause.cancel()
            asked.pause = None
        leader = self._leader()
        asked.handed_to = -1
        if leader < 0 or (leader != self._node_id and self._channel is None):
            return
        asked.tries += 1
        asked.handed_to = leader
        asked.ever_handed = True
        number = asked.tries
        if leader == self._node_id:
            now_ms = self._clock.monotonic_ms()
            self._serve(
                asked.request, asked.version, now_ms, lambda response: self._answered(asked, number, response)
            )
        else:
            assert self._channel is not None
            if asked.body is None:
                asked.body = asked.request.encode(asked.version)
            self._channel.ask(
                leader,
                asked.request.API_KEY,
                asked.version,
                asked.body,
                lambda body: self._answered(asked, number, self._decoded(asked, body)),
                # Work that takes long must not be asked for twice while the same node leads.
                max(1, asked.deadline_ms - self._clock.monotonic_ms()),
            )

    def _decoded(self, asked: _Asked, body: bytes | None) -> Message | None:
        return None if body is None else self._decode(asked.request.API_KEY, asked.version, body)

    def _decode(self, api_key: int, version: int, body: bytes) -> Message | None:
        try:
            return response_class(api_key).decode(body, version)
        except ValueError as error:  # MalformedMessage is one
            if self._warn is not None:
                self._warn("an answer of the active controller cannot be read", error=str(error))
            return None

    def _answered(self, asked: _Asked, number: int, response: Message | None) -> None:
        if asked.done is None:
            return
        if response is not None:
            self._finish(asked, response)
        elif number == asked.tries:
            asked.handed_to = -1
            pause_ms = min(RETRY_BACKOFF_MS << min(number - 1, 8), RETRY_BACKOFF_MS_MAX)
            at_ms = self._clock.monotonic_ms() + pause_ms
            asked.pause = self._timers.at(at_ms, lambda _now_ms: self._try(asked))

    # -- the end -------------------------------------------------------------------------------------------

    def _expire(self, asked: _Asked) -> None:
        leader = self._leader()
        why = (
            "The metadata quorum has no leader: a majority of the controllers must be running and connected."
            if leader < 0
            else f"The active controller {leader} did not answer in time."
        )
        self._finish(asked, error_response(asked.request, asked.version, ErrorCode.REQUEST_TIMED_OUT, why))

    def _refuse(self, asked: _Asked, why: str) -> None:
        code = ErrorCode.REQUEST_TIMED_OUT if asked.ever_handed else ErrorCode.NOT_CONTROLLER
        self._finish(asked, error_response(asked.request, asked.version, code, why))

    def _finish(self, asked: _Asked, response: Message) -> None:
        done, asked.done = asked.done, None
        assert done is not None
        self._asked.pop(asked, None)
        for timer in (asked.deadline, asked.pause):
            if timer is not None:
                timer.cancel()
        done(response)
