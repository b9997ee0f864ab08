"""The network between hosts: datagrams that may be lost, doubled and reordered, and streams that keep their order.

A host is a name. Partitions are pairs (from, to) that let nothing through: both ways, one way, or as a bridge. A
datagram meets a partition and is gone; a stream stalls in that direction, as TCP does, and goes on when the partition
ends, unless one of its ends has given up by then. The machine of a dead process answers for it (reset, refused); one
without power says nothing until it is back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Protocol

from odradek.simulation.scheduler import MS, Scheduler
from odradek.simulation.trace import Trace

CONNECT_TIMEOUT_US = 3_000 * MS
CONNECT_TIMEOUT_OF_NODES_US = 1_000 * MS
RETRANSMIT_US = 200 * MS
KEEPALIVE_US = (2_000 * MS, 6_000 * MS)


@dataclass(slots=True)
class Weather:
    """How bad the network is just now. Chances are per message, times in microseconds."""

    latency_us: tuple[int, int] = (80, 400)
    drop: float = 0.0
    duplicate: float = 0.0
    slow: float = 0.0
    slow_us: tuple[int, int] = (5_000, 400_000)


class Receiver(Protocol):
    """One end of a stream."""

    def received(self, item: object) -> None: ...

    def closed(self, reason: str) -> None:
        """The stream has ended, and nothing more arrives. Once; not after this end closed it itself."""
        ...


class Listener(Protocol):
    """What a host has open: called for each stream that arrives; None refuses it."""

    def __call__(self, stream: Stream) -> Receiver | None: ...


class Direction:
    """One way of a stream. Items leave the queue in order, one for each arrival, whichever it was sent for."""

    __slots__ = ("last_us", "owed", "queue")

    def __init__(self) -> None:
        self.last_us = 0
        self.queue: deque[object] = deque()
        self.owed = 0
        """Arrivals that met a partition, or were sent before the stream was established."""


class Stream:
    """Ordered, reliable, until it ends. `ends` are (host, receiver) of who dialled and who accepted."""

    __slots__ = ("_directions", "_network", "closing", "hosts", "id", "open", "receivers")

    def __init__(self, network: Network, number: int, hosts: tuple[str, str], dialler: Receiver) -> None:
        self._network = network
        self.id = number
        self.hosts = hosts
        self.receivers: list[Receiver | None] = [dialler, None]
        self._directions = (Direction(), Direction())
        """Towards the acceptor, towards the dialler."""
        self.open = False
        self.closing = False

    def peer(self, host: str) -> str:
        return self.hosts[1] if host == self.hosts[0] else self.hosts[0]

    def send(self, sender: int, item: object) -> None:
        """From end `sender` (0: who dialled). What is sent before it is established waits."""
        if self.receivers[sender] is None:
            return
        direction = self._directions[sender]
        direction.queue.append(item)
        if self.open:
            self._launch(sender, direction)
        else:
            direction.owed += 1

    def _launch(self, sender: int, direction: Direction) -> None:
        network = self._network
        arrival = max(
            network.scheduler.now_us + network.delay(self.hosts[sender], self.hosts[1 - sender]),
            direction.last_us,
        )
        direction.last_us = arrival
        network.scheduler.at(arrival, lambda: self._arrive(sender, direction))

    def _arrive(self, sender: int, direction: Direction) -> None:
        if self._is_stalled(sender):
            direction.owed += 1
            return
        item = direction.queue.popleft()
        receiver = self.receivers[1 - sender]
        if receiver is None:
            return
        if isinstance(item, _End):
            self.receivers[1 - sender] = None
            self._network.forget(self)
            receiver.closed(item.reason)
        else:
            receiver.received(item)

    def _is_stalled(self, sender: int) -> bool:
        network = self._network
        if sender == 0 and self.hosts[0] in network.held and self.hosts[1][0] == self.hosts[0][0]:
            return True
        return network.is_blocked(self.hosts[sender], self.hosts[1 - sender])

    def unstall(self) -> None:
        """A partition ended: what waited at it is sent again."""
        if not self.open:
            return
        for sender, direction in enumerate(self._directions):
            if not direction.owed or self._is_stalled(sender):
                continue
            late_us = self._network.scheduler.now_us + self._network.rng.randrange(1, RETRANSMIT_US)
            direction.last_us = max(direction.last_us, late_us)
            self._launch_owed(sender, direction)

    def _launch_owed(self, sender: int, direction: Direction) -> None:
        owed, direction.owed = direction.owed, 0
        for _ in range(owed):
            self._launch(sender, direction)

    def stalled_bytes(self, sender: int) -> int:
        """Of a byte stream: what waits at a partition."""
        direction = self._directions[sender]
        return sum(len(item) for item in direction.queue if isinstance(item, bytes)) if direction.owed else 0

    def established(self, acceptor: Receiver) -> None:
        self.receivers[1] = acceptor
        self.open = True
        self._launch_owed(0, self._directions[0])

    def close(self, sender: int, reason: str = "closed by the peer") -> None:
        """End `sender` closes; the other end hears of it after everything sent before. Idempotent."""
        if self.receivers[sender] is None:
            return
        self.receivers[sender] = None
        if self.receivers[1 - sender] is None:
            self._network.forget(self)
        elif self.open:
            self._directions[sender].queue.append(_End(reason))
            self._launch(sender, self._directions[sender])
        else:
            self._network.forget(self)

    def reset(self, reason: str, *, skip: int | None = None) -> None:
        """Both ends (but `skip`) hear of it soon; what is under way is lost."""
        self._network.forget(self)
        self.open = False
        for end, receiver in enumerate(self.receivers):
            self.receivers[end] = None
            if receiver is not None and end != skip:
                delay = self._network.delay(self.hosts[1 - end], self.hosts[end])
                self._network.scheduler.after(delay, _Closing(receiver, reason))


class _End:
    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


class _Closing:
    """A call of `closed` to come."""

    __slots__ = ("_reason", "_receiver")

    def __init__(self, receiver: Receiver, reason: str) -> None:
        self._receiver = receiver
        self._reason = reason

    def __call__(self) -> None:
        self._receiver.closed(self._reason)


class Network:
    """All hosts and what lies between them."""

    def __init__(self, scheduler: Scheduler, rng: Random, trace: Trace) -> None:
        self.scheduler = scheduler
        self.rng = rng
        self.trace = trace
        self.weather = Weather()
        self.answers_lost = 0.0
        """Chance that an answer of the controller never arrives: its stream breaks instead."""
        self._blocked: set[tuple[str, str]] = set()
        self._slow_links: dict[tuple[str, str], tuple[int, int]] = {}
        self.held: set[str] = set()
        """Hosts: what they say to nodes on streams that they have dialled is under way, whatever becomes of them."""
        self._listeners: dict[tuple[str, str], Listener] = {}
        self._silent: set[str] = set()
        """Hosts without power."""
        self._streams: dict[int, Stream] = {}
        self._numbers = count(1)
        self._partitions = 0

    # -- partitions ----------------------------------------------------------------------------------------------

    def is_blocked(self, sender: str, to: str) -> bool:
        return (sender, to) in self._blocked or to in self._silent

    def block(self, pairs: list[tuple[str, str]]) -> None:
        self._blocked.update(pairs)
        self._partitions += 1
        number = self._partitions
        hosts = dict.fromkeys(host for pair in pairs for host in pair)
        for host in hosts:
            self.went_silent(host, lambda: self._partitions == number, only_blocked=True)

    def unblock_all(self) -> None:
        if self._blocked:
            self._blocked.clear()
            self._partitions += 1
            self._unstall()

    def unblock(self, pairs: list[tuple[str, str]]) -> None:
        """These alone."""
        self._blocked.difference_update(pairs)
        self._unstall()

    def let_go(self) -> None:
        """What was held arrives."""
        if self.held:
            self.held.clear()
            self._unstall()

    def slow_down(self, pairs: list[tuple[str, str]], latency_us: tuple[int, int]) -> None:
        """One direction of some links takes its time, until `speed_up`."""
        self._slow_links.update(dict.fromkeys(pairs, latency_us))

    def speed_up(self, pairs: list[tuple[str, str]] | None = None) -> None:
        """These links, or all."""
        for pair in list(self._slow_links) if pairs is None else pairs:
            self._slow_links.pop(pair, None)

    def went_silent(self, host: str, still: Callable[[], bool], *, only_blocked: bool = False) -> None:
        """Other nodes give streams to a host up if it is `still` silent after a keepalive. Clients have timeouts."""

        def give_up() -> None:
            if not still():
                return
            for stream in self.streams_of(host):
                one, other = stream.hosts
                apart = self.is_blocked(one, other) or self.is_blocked(other, one)
                if stream.open and one[0] == other[0] and (apart or not only_blocked):
                    self.trace.count("net: keepalive gave up a stream")
                    stream.reset("keepalive timed out")

        self.scheduler.after(self.rng.randrange(*KEEPALIVE_US), give_up)

    def _unstall(self) -> None:
        for stream in list(self._streams.values()):
            stream.unstall()

    # -- hosts ---------------------------------------------------------------------------------------------------

    def listen(self, host: str, service: str, listener: Listener) -> None:
        self._listeners[host, service] = listener

    def process_died(self, host: str) -> None:
        """The kernel closes what the process had: peers are told, dials refused; what was written may still arrive."""
        self._unlisten(host)
        for stream in self.streams_of(host):
            end = stream.hosts.index(host)
            if stream.open and (host in self.held or self.rng.random() < 0.5):
                stream.close(end, "reset by the peer")
            else:
                stream.reset("reset by the peer", skip=end)

    def power_lost(self, host: str) -> None:
        """Nobody is told anything; what arrives is lost."""
        self._unlisten(host)
        self._silent.add(host)
        for stream in self.streams_of(host):
            stream.receivers[stream.hosts.index(host)] = None
        self.went_silent(host, lambda: host in self._silent)

    def power_back(self, host: str) -> None:
        """The machine answers again: peers that still hold a stream to it learn that it is gone."""
        self._silent.discard(host)
        for stream in self.streams_of(host):
            stream.reset("reset by the peer", skip=stream.hosts.index(host))

    def _unlisten(self, host: str) -> None:
        for key in [key for key in self._listeners if key[0] == host]:
            del self._listeners[key]

    def forget(self, stream: Stream) -> None:
        self._streams.pop(stream.id, None)

    def streams_of(self, host: str) -> list[Stream]:
        return [stream for stream in self._streams.values() if host in stream.hosts]

    # -- delays --------------------------------------------------------------------------------------------------

    def delay(self, sender: str, to: str) -> int:
        weather, rng = self.weather, self.rng
        if sender == to:
            return rng.randrange(5, 40)
        if self._slow_links and (slow := self._slow_links.get((sender, to))) is not None:
            return rng.randrange(*slow)
        if weather.slow and rng.random() < weather.slow:
            self.trace.count("net: slow message")
            return rng.randrange(*weather.slow_us)
        return rng.randrange(*weather.latency_us)

    # -- datagrams -----------------------------------------------------------------------------------------------

    def send(self, sender: str, to: str, deliver: Callable[[], None], refused: Callable[[], None]) -> None:
        """One message on its own. `refused` if the host is up and nobody listens; nothing if it is lost."""
        rng, weather = self.rng, self.weather
        if weather.drop and rng.random() < weather.drop:
            self.trace.count("net: dropped")
            return
        copies = 1
        if weather.duplicate and rng.random() < weather.duplicate:
            self.trace.count("net: doubled")
            copies = 2
        for _ in range(copies):
            self.scheduler.after(self.delay(sender, to), lambda: self._arrive(sender, to, deliver, refused))

    def _arrive(self, sender: str, to: str, deliver: Callable[[], None], refused: Callable[[], None]) -> None:
        if self.is_blocked(sender, to):
            self.trace.count("net: blocked")
        elif (to, "internal") not in self._listeners:
            if not self.is_blocked(to, sender):
                self.scheduler.after(self.delay(to, sender), refused)
        else:
            deliver()

    # -- streams -------------------------------------------------------------------------------------------------

    def connect(self, host: str, to: str, service: str, receiver: Receiver) -> Stream:
        """Begin to dial. `receiver.closed` tells of a failure, never at once."""
        stream = Stream(self, next(self._numbers), (host, to), receiver)
        self._streams[stream.id] = stream
        between_nodes = host[0] == to[0]
        timeout_us = CONNECT_TIMEOUT_OF_NODES_US if between_nodes else CONNECT_TIMEOUT_US
        deadline_us = self.scheduler.now_us + timeout_us
        self.scheduler.after(self.delay(host, to), lambda: self._dial(stream, service, deadline_us))
        return stream

    def _dial(self, stream: Stream, service: str, deadline_us: int) -> None:
        if stream.receivers[0] is None:
            self.forget(stream)
            return
        host, to = stream.hosts
        if self.is_blocked(host, to) or self.is_blocked(to, host):
            if self.scheduler.now_us >= deadline_us:
                stream.reset("connecting timed out")
            else:
                self.scheduler.after(RETRANSMIT_US, lambda: self._dial(stream, service, deadline_us))
            return
        listener = self._listeners.get((to, service))
        acceptor = listener(stream) if listener is not None else None
        if acceptor is None:
            stream.reset("refused")
        else:
            stream.established(acceptor)
