"""Streams in memory: in order and whole while they last, delayed at will, broken at will. What is under way when a
stream breaks is lost for the end that noticed, and may still arrive at the other: so an old stream outlives a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from odradek.replication.messages import BATCH_BYTES_MAX, STATES_MAX, FetchDown, FetchUp
from odradek.replication.ports import StreamEvents, UpEvents

At = Callable[[int, Callable[[], None]], None]
"""Schedules a call after so many ms."""
UNDER_WAY_MAX = 4
"""Messages down before a stream is not writable."""


class Pipe:
    """One stream: `Stream` for the follower, `DownStream` for the leader (`down`)."""

    def __init__(self, network: Network, follower: int, leader: int, events: StreamEvents) -> None:
        self.network = network
        self.follower, self.leader = follower, leader
        self.events = events
        self.up_events: UpEvents | None = None
        self.follower_open = self.leader_open = True
        self.down = DownEnd(self)
        self.under_way = 0
        self._up_at = self._down_at = 0

    # The follower's end
    def send(self, message: FetchUp) -> None:
        if not self.follower_open:
            return
        assert len(message.states) <= STATES_MAX
        self.network.ups += 1

        def arrive() -> None:
            if self.leader_open and self.up_events is not None:
                self.up_events.received(message)

        self._up_at = self.network.deliver(self.follower, self.leader, arrive, self._up_at)

    def close(self) -> None:
        """The follower hears nothing more; the leader hears of it when everything before has arrived."""
        self.follower_open = False
        self._up_at = self.network.deliver(self.follower, self.leader, self._leader_hears, self._up_at)

    # The leader's end
    def send_down(self, message: FetchDown) -> None:
        if not self.leader_open:
            return
        sizes = [len(data.batches) for data in message.data]
        assert sum(sizes) <= BATCH_BYTES_MAX or len([size for size in sizes if size]) == 1
        assert 0 < len(message.data) <= STATES_MAX
        self.network.downs += 1
        self.under_way += 1

        def arrive() -> None:
            if self.under_way == UNDER_WAY_MAX and self.leader_open and self.up_events is not None:
                self.under_way -= 1
                self.network.to_node(self.leader, self.up_events.drained)
            else:
                self.under_way -= 1
            if self.follower_open:
                self.events.received(message)

        self._down_at = self.network.deliver(self.leader, self.follower, arrive, self._down_at)

    def close_down(self) -> None:
        self.leader_open = False
        self._down_at = self.network.deliver(
            self.leader, self.follower, lambda: self._follower_hears("closed by the leader"), self._down_at
        )

    # Breaking
    def break_now(self, *, follower_first: bool) -> None:
        """One end notices at once, the other when everything under way has arrived."""
        if follower_first:
            self.network.to_node(self.follower, lambda: self._follower_hears("broken"))
            self._up_at = self.network.deliver(
                self.follower, self.leader, self._leader_hears, self._up_at, certain=True
            )
        else:
            self.network.to_node(self.leader, self._leader_hears)
            self._down_at = self.network.deliver(
                self.leader,
                self.follower,
                lambda: self._follower_hears("broken"),
                self._down_at,
                certain=True,
            )

    def cut(self) -> None:
        """A process died or a link is gone: nothing arrives any more, whoever lives hears of it."""
        self.network.to_node(self.follower, lambda: self._follower_hears("cut"))
        self.network.to_node(self.leader, self._leader_hears)

    def _follower_hears(self, reason: str) -> None:
        if self.follower_open:
            self.follower_open = False
            self.events.closed(reason)
        self._forget()

    def _leader_hears(self) -> None:
        if self.leader_open:
            self.leader_open = False
            if self.up_events is not None:
                self.up_events.closed()
        self._forget()

    def _forget(self) -> None:
        if not self.follower_open and not self.leader_open and self in self.network.pipes:
            self.network.pipes.remove(self)


class DownEnd:
    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    @property
    def writable(self) -> bool:
        return self._pipe.under_way < UNDER_WAY_MAX

    def send(self, message: FetchDown) -> None:
        self._pipe.send_down(message)

    def close(self) -> None:
        self._pipe.close_down()


class Network:
    """`to_node(node, call)` runs a call on a node, unless the node died since; see `Cluster`."""

    def __init__(self, rng: Random, at: At, now: Callable[[], int]) -> None:
        self.rng = rng
        self.at = at
        self.now = now
        self.pipes: list[Pipe] = []
        self.acceptors: dict[int, Any] = {}
        self.to_node: Callable[[int, Callable[[], None]], None] = lambda node, call: call()
        self.life_of: Callable[[int], int] = lambda node: 0
        self.blocked: set[frozenset[int]] = set()
        self.ups = self.downs = 0
        self.delay_max_ms = 4
        self.slow = 0.03

    def transport(self, node: int) -> NodeTransport:
        return NodeTransport(self, node)

    def deliver(
        self, source: int, target: int, call: Callable[[], None], not_before: int, *, certain: bool = False
    ) -> int:
        """After a delay, in the order of one direction of one stream; when that will be."""
        delay = self.rng.randint(0, self.delay_max_ms)
        if self.rng.random() < self.slow:
            delay += self.rng.randint(0, 40)
        due = max(self.now() + delay, not_before)
        life = self.life_of(target)

        def arrive() -> None:
            if (certain or frozenset((source, target)) not in self.blocked) and self.life_of(target) == life:
                self.to_node(target, call)

        self.at(due - self.now(), arrive)
        return due

    def connect(self, follower: int, leader: int, events: StreamEvents) -> Pipe:
        pipe = Pipe(self, follower, leader, events)
        self.pipes.append(pipe)
        accept = self.acceptors.get(leader)
        if accept is None or frozenset((follower, leader)) in self.blocked:
            pipe.leader_open = False
            life = self.life_of(follower)

            def refuse() -> None:
                if self.life_of(follower) == life:
                    self.to_node(follower, lambda: pipe._follower_hears("refused"))

            self.at(1, refuse)
        else:
            pipe.up_events = accept(pipe.down)
        return pipe

    def block(self, one: int, other: int) -> None:
        self.blocked.add(frozenset((one, other)))
        for pipe in list(self.pipes):
            if {pipe.follower, pipe.leader} == {one, other}:
                pipe.cut()

    def node_died(self, node: int) -> None:
        """Streams of a dead process: its peers hear of it."""
        self.acceptors.pop(node, None)
        for pipe in list(self.pipes):
            if pipe.follower == node:
                pipe.follower_open = False
                self.to_node(pipe.leader, pipe._leader_hears)
            elif pipe.leader == node:
                pipe.leader_open = False
                self.to_node(pipe.follower, lambda pipe=pipe: pipe._follower_hears("the leader died"))


class NodeTransport:
    def __init__(self, network: Network, node: int) -> None:
        self._network = network
        self._node = node

    def connect(self, leader_id: int, events: StreamEvents) -> Pipe:
        return self._network.connect(self._node, leader_id, events)
