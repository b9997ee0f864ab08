"""Replay of prebuilt Produce requests, pipelined over a few connections, as fast as the node answers.

Per event the client makes one `recv_into` for many answers and one `send` for many requests; answers are counted by
their length and every one of their error codes is looked at, both with strided slices that run in C.
"""

from __future__ import annotations

import select
import time
from dataclasses import dataclass

from bench.raw_client import Admin, BenchError, connect, produce_outcome
from bench.raw_frames import AnswerShape, BatchShape, produce_answer_shape, produce_frame

RECEIVE_SIZE = 1 << 18
CHUNK_BYTES = 1 << 17
"""Requests go out in chunks of about this size: one system call for many small requests."""
POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class Window:
    """How much may be in flight per connection: whichever bound is reached first, but at least two requests."""

    requests: int = 1000
    bytes: int = 1 << 20

    def of(self, frame_size: int) -> int:
        return max(2, min(self.requests, self.bytes // frame_size))


class Pipe:
    """One connection to one partition: the same chunk of requests over and over."""

    def __init__(self, port: int, frame: bytes, window: int, answer: AnswerShape) -> None:
        self.answer = answer
        self.window = window
        self.sent = 0
        self.acknowledged = 0
        self.wants_to_write = False
        self.chunk_requests = max(1, min(window // 2, CHUNK_BYTES // len(frame)))
        self._chunk = memoryview(frame * self.chunk_requests)
        self._chunk_at = 0
        self._received = bytearray(RECEIVE_SIZE)
        self._view = memoryview(self._received)
        self._filled = 0
        self.sock = connect(port)
        self.sock.setblocking(False)

    def fill(self, *, stop: bool) -> bool:
        """Send while the window has room and the socket takes it; True when the socket is full.

        With `stop` only the chunk that was begun goes out.
        """
        while self._chunk_at or (
            not stop and self.sent - self.acknowledged + self.chunk_requests <= self.window
        ):
            try:
                taken = self.sock.send(self._chunk[self._chunk_at :])
            except BlockingIOError:
                return True
            self._chunk_at += taken
            if self._chunk_at < len(self._chunk):
                return True
            self._chunk_at = 0
            self.sent += self.chunk_requests
        return False

    def drain(self) -> None:
        """Take the answers that are there."""
        try:
            count = self.sock.recv_into(self._view[self._filled :])
        except BlockingIOError:
            return
        if not count:
            raise BenchError("the node closed the connection")
        filled = self._filled + count
        size = self.answer.size
        complete = filled - filled % size
        if complete:
            self._check(complete)
            self.acknowledged += complete // size
            left = filled - complete
            self._received[:left] = self._received[complete:filled]
            self._filled = left
        else:
            self._filled = filled

    def _check(self, end: int) -> None:
        """Length prefix and error code of every answer in [0, end)."""
        size, error_at, received = self.answer.size, self.answer.error_at, self._received
        count = end // size
        body = size - 4
        if (
            received[3:end:size].count(body & 0xFF) != count
            or received[2:end:size].count(body >> 8) != count
            or received[error_at:end:size].count(0) != count
            or received[error_at + 1 : end : size].count(0) != count
        ):
            raise BenchError(f"a request was refused: {self._first_refusal(end)}")

    def _first_refusal(self, end: int) -> str:
        pos = 0
        while pos + 4 <= end:
            body = int.from_bytes(self._received[pos : pos + 4], "big")
            error, _ = produce_outcome(bytes(self._received[pos + 4 : pos + 4 + body]))
            if error:
                return f"error code {error}"
            pos += 4 + body
        return "an answer of unexpected length"


@dataclass(frozen=True, slots=True)
class ProduceResult:
    requests: int
    records: int
    payload: int
    wall_s: float
    client_cpu_s: float


@dataclass(frozen=True, slots=True)
class Limits:
    """A measurement ends at whichever comes first; `timeout_s` bounds everything behind it."""

    seconds: float
    payload: int
    timeout_s: float = 120.0


class Producer:
    """Pipes to the leaders of one topic, one partition per connection unless there are fewer partitions."""

    def __init__(
        self, port: int, topic: str, shape: BatchShape, *, connections: int, partitions: int, window: Window,
        acks: int = 1, replicas: int = 1,
    ) -> None:  # fmt: skip
        self.topic, self.shape, self.port = topic, shape, port
        batch = shape.build()
        answer = produce_answer_shape(topic)
        frames = [produce_frame(topic, partition, batch, acks=acks) for partition in range(partitions)]
        with Admin(port) as admin:
            self.leaders = admin.create_topic(topic, partitions, frames, replicas=replicas)
        self.pipes = [
            Pipe(
                self.leaders[index % partitions],
                frames[index % partitions],
                window.of(len(frames[0])),
                answer,
            )
            for index in range(connections)
        ]

    def run(self, limits: Limits) -> ProduceResult:
        """Send until a limit is reached, then wait for the last answer."""
        before = sum(pipe.acknowledged for pipe in self.pipes)
        began, cpu_began = time.perf_counter(), time.process_time()
        self._loop(limits, before, began)
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu_began
        requests = sum(pipe.acknowledged for pipe in self.pipes) - before
        return ProduceResult(
            requests, requests * self.shape.records, requests * self.shape.payload, wall, cpu
        )

    def _loop(self, limits: Limits, before: int, began: float) -> None:
        poller = select.epoll()
        by_fd = {pipe.sock.fileno(): pipe for pipe in self.pipes}
        for fd, pipe in by_fd.items():
            poller.register(fd, select.EPOLLIN)
            self._fill(poller, fd, pipe, stop=False)
        requests_max = before + max(1, limits.payload // self.shape.payload)
        end, timeout = began + limits.seconds, began + limits.timeout_s
        stop = False
        with poller:
            while not (stop and all(pipe.sent == pipe.acknowledged for pipe in self.pipes)):
                for fd, events in poller.poll(POLL_S):
                    pipe = by_fd[fd]
                    if events & ~select.EPOLLOUT:
                        pipe.drain()
                    self._fill(poller, fd, pipe, stop=stop)
                now = time.perf_counter()
                if not stop:
                    stop = now >= end or sum(pipe.sent for pipe in self.pipes) >= requests_max
                if now > timeout:
                    raise BenchError(f"no end after {limits.timeout_s:.0f} s")

    @staticmethod
    def _fill(poller: select.epoll, fd: int, pipe: Pipe, *, stop: bool) -> None:
        full = pipe.fill(stop=stop)
        if full != pipe.wants_to_write:
            pipe.wants_to_write = full
            poller.modify(fd, select.EPOLLIN | (select.EPOLLOUT if full else 0))

    def verify(self) -> None:
        """The log holds what was acknowledged: one batch per acknowledgement and one per partition before."""
        stored = 0
        for partition, port in enumerate(self.leaders):
            with Admin(port) as admin:
                stored += admin.end_offset(self.topic, partition)
        acknowledged = (
            sum(pipe.acknowledged for pipe in self.pipes) + len(self.leaders)
        ) * self.shape.records
        if stored != acknowledged:
            raise BenchError(f"{acknowledged} records acknowledged, {stored} in the log")

    def close(self, *, delete: bool = True) -> None:
        for pipe in self.pipes:
            pipe.sock.close()
        if delete:
            with Admin(self.port) as admin:
                admin.delete_topic(self.topic)
