"""Produce latency at a fixed rate, open loop: request i is due at t0 + i / rate, whatever the answers do.

Latency counts from the time a request was *due* until its answer was read, so a stall of the node shows in every
request that was due during it (no coordinated omission). Where the generator owns a CPU it spins instead of sleeping: a
timer's wake-up would be as long as what is measured. Where it shares the CPUs with the nodes (three nodes, two CPUs) it
sleeps, and its wake-ups are part of both sides' latencies. How late requests really left is reported too.
"""

from __future__ import annotations

import select
import time
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from bench.raw_client import Admin, BenchError, connect, name_of
from bench.raw_frames import AnswerShape, BatchShape, produce_answer_shape, produce_frame

NS = 1_000_000_000
RECEIVE_SIZE = 1 << 16


@dataclass(frozen=True, slots=True)
class LatencyResult:
    """All in ms. `lateness`: how much later than due the requests left, a property of the generator."""

    requests: int
    achieved_rate: float
    client_cpu_s: float
    latencies_ms: list[float]
    lateness_p999_ms: float


class TimedPipe:
    """One connection; remembers when each unanswered request was due."""

    def __init__(self, port: int, frame: bytes, answer: AnswerShape) -> None:
        self._frame = frame
        self._answer = answer
        self._due: deque[int] = deque()
        self._unsent = bytearray()
        self._received = bytearray(RECEIVE_SIZE)
        self._view = memoryview(self._received)
        self._filled = 0
        self.sock = connect(port)
        self.sock.setblocking(False)

    def send(self, due_ns: int) -> None:
        self._due.append(due_ns)
        if self._unsent:
            self._unsent += self._frame
            self.flush()
            return
        try:
            taken = self.sock.send(self._frame)
        except BlockingIOError:
            taken = 0
        if taken < len(self._frame):
            self._unsent += self._frame[taken:]

    def flush(self) -> None:
        """Send what the socket did not take before: the node is behind."""
        while self._unsent:
            try:
                taken = self.sock.send(self._unsent)
            except BlockingIOError:
                return
            del self._unsent[:taken]

    def receive(self, latencies: array[int]) -> None:
        try:
            count = self.sock.recv_into(self._view[self._filled :])
        except BlockingIOError:
            return
        now = time.perf_counter_ns()
        if not count:
            raise BenchError("the node closed the connection")
        self._filled += count
        size, error_at, received = self._answer.size, self._answer.error_at, self._received
        pos = 0
        while self._filled - pos >= size:
            error = int.from_bytes(received[pos + error_at : pos + error_at + 2], "big")
            if error or int.from_bytes(received[pos : pos + 4], "big") != size - 4:
                raise BenchError(f"a request was refused: {name_of(error)}")
            latencies.append(now - self._due.popleft())
            pos += size
        if pos:
            self._filled -= pos
            received[: self._filled] = received[pos : pos + self._filled]


class Pacer:
    """A topic with one partition per connection, and the pipes to it."""

    def __init__(
        self, port: int, topic: str, shape: BatchShape, *, connections: int, acks: int = 1, replicas: int = 1,
        spin: bool = True,
    ) -> None:  # fmt: skip
        self.port, self.topic = port, topic
        self._spin = spin
        batch = shape.build()
        frames = [produce_frame(topic, partition, batch, acks=acks) for partition in range(connections)]
        with Admin(port) as admin:
            leaders = admin.create_topic(topic, connections, frames, replicas=replicas)
        answer = produce_answer_shape(topic)
        self.pipes = [TimedPipe(leader, frame, answer) for leader, frame in zip(leaders, frames, strict=True)]

    def run(self, rate: int, seconds: float) -> LatencyResult:
        return pace(self.pipes, rate, seconds, spin=self._spin)

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.sock.close()
        with Admin(self.port) as admin:
            admin.delete_topic(self.topic)


def pace(pipes: Sequence[TimedPipe], rate: int, seconds: float, *, spin: bool) -> LatencyResult:
    """`rate` requests a second, over the pipes in turn."""
    total = int(rate * seconds)
    interval = NS // rate
    latencies, lateness = array("q"), array("q")
    cpu_began = time.process_time()
    clock = time.perf_counter_ns
    with select.epoll() as poller:
        by_fd = {pipe.sock.fileno(): pipe for pipe in pipes}
        for fd in by_fd:
            poller.register(fd, select.EPOLLIN)
        began = due = clock() + NS // 100
        timeout = began + int((seconds + 30) * NS)
        sent = 0
        while len(latencies) < total:
            now = clock()
            while due <= now and sent < total:
                pipes[sent % len(pipes)].send(due)
                lateness.append(clock() - due)
                sent += 1
                due = began + sent * interval
            if not spin:
                sleep_until(due if sent < total else now + NS // 1000, poller)
            for fd, _ in poller.poll(0):
                by_fd[fd].flush()
                by_fd[fd].receive(latencies)
            if now > timeout:
                raise BenchError(f"{total - len(latencies)} of {total} requests have no answer")
        wall = (clock() - began) / NS
    ordered = sorted(lateness)
    return LatencyResult(
        total,
        total / wall,
        time.process_time() - cpu_began,
        [value / 1e6 for value in latencies],
        percentile(ordered, 99.9) / 1e6,
    )


def sleep_until(due_ns: int, poller: select.epoll) -> None:
    """Until an answer is there or a request is due; epoll itself counts in whole milliseconds."""
    left = (due_ns - time.perf_counter_ns()) / NS
    if left > 0:
        select.select([poller], [], [], left)


def percentile(ordered: list[int] | list[float], percent: float) -> float:
    """Nearest rank of an ascending list."""
    assert ordered, "a percentile of nothing"
    return ordered[max(1, ceil(round(percent * len(ordered) / 100, 6))) - 1]
