"""Replay of prebuilt Fetch requests over a partition whose layout is known, so that no answer needs parsing.

Answers land in one reused buffer. Of each, the length, the error code and the offset of the first batch are checked:
batches of one size make every answer equally long.
"""

from __future__ import annotations

import select
import time
from dataclasses import dataclass

from bench.raw_client import Admin, BenchError, connect
from bench.raw_frames import FETCH_LIMIT, BatchShape, FetchAnswerShape, fetch_answer_shape, fetch_frame
from bench.raw_produce import Limits, Producer, Window

SCRATCH_SIZE = 1 << 18
"""Small enough to stay in the second-level cache: the client must not be the limit."""
HEAD_SIZE = 160
POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition filled with equal batches."""

    topic: str
    shape: BatchShape
    batch_size: int
    batches: int

    @property
    def batches_per_fetch(self) -> int:
        return max(1, FETCH_LIMIT // self.batch_size)

    @property
    def fetches(self) -> int:
        """How many full answers the partition gives from its start on."""
        return self.batches // self.batches_per_fetch


def fill_partition(port: int, topic: str, shape: BatchShape, payload: int) -> Partition:
    """A new topic with one partition of about `payload` bytes."""
    producer = Producer(port, topic, shape, connections=2, partitions=1, window=Window())
    producer.run(Limits(seconds=120.0, payload=payload, timeout_s=180.0))
    producer.verify()
    producer.close(delete=False)
    with Admin(port) as admin:
        batches = admin.end_offset(topic, 0) // shape.records
    return Partition(topic, shape, len(shape.build()), batches)


class Reader:
    """One connection that has one Fetch in flight and goes round its own part of the partition."""

    def __init__(
        self,
        port: int,
        requests: list[bytes],
        offsets: list[int],
        answer: FetchAnswerShape,
        scratch: memoryview,
    ) -> None:
        self.requests = requests
        self.offsets = offsets
        self.answer = answer
        self.scratch = scratch
        self.answers = 0
        self._sock = connect(port)
        self._sock.setblocking(False)
        self._at = 0
        self._head = bytearray(HEAD_SIZE)
        self._head_view = memoryview(self._head)
        self._received = 0
        self.in_flight = False

    def fileno(self) -> int:
        return self._sock.fileno()

    def ask(self) -> None:
        request = self.requests[self._at]
        if self._sock.send(request) != len(request):
            raise BenchError("a socket without anything to send took only a part of a request")
        self.in_flight = True

    def receive(self) -> bool:
        """Take what is there; True when it completes an answer."""
        size = self.answer.size
        while self._received < size:
            if self._received < HEAD_SIZE:
                target = self._head_view[self._received :]
            else:
                target = self.scratch[: size - self._received]
            try:
                count = self._sock.recv_into(target)
            except BlockingIOError:
                return False
            if not count:
                raise BenchError("the node closed the connection")
            self._received += count
            if self._received - count < HEAD_SIZE <= self._received:
                self._check()
        self._received = 0
        self.in_flight = False
        self.answers += 1
        self._at = (self._at + 1) % len(self.requests)
        return True

    def _check(self) -> None:
        head, shape = self._head, self.answer
        size = int.from_bytes(head[:4], "big") + 4
        error = int.from_bytes(head[shape.error_at : shape.error_at + 2], "big")
        offset = int.from_bytes(head[shape.records_at : shape.records_at + 8], "big")
        if error or size != shape.size or offset != self.offsets[self._at]:
            raise BenchError(
                f"Fetch of offset {self.offsets[self._at]}: error {error}, {size} bytes from offset {offset}, "
                f"expected {shape.size} bytes"
            )

    def close(self) -> None:
        self._sock.close()


@dataclass(frozen=True, slots=True)
class FetchResult:
    answers: int
    records: int
    payload: int
    wall_s: float
    client_cpu_s: float


class Fetcher:
    def __init__(self, port: int, partition: Partition, *, connections: int) -> None:
        self.partition = partition
        per_fetch = partition.batches_per_fetch
        limit = per_fetch * partition.batch_size
        answer = fetch_answer_shape(partition.topic, limit)
        scratch = memoryview(bytearray(SCRATCH_SIZE))
        self.readers = []
        share = partition.fetches // connections
        if not share:
            raise BenchError(
                f"a partition of {partition.batches} batches is too small for {connections} readers"
            )
        for index in range(connections):
            numbers = range(index * share, (index + 1) * share)
            offsets = [number * per_fetch * partition.shape.records for number in numbers]
            requests = [fetch_frame(partition.topic, 0, offset, limit) for offset in offsets]
            self.readers.append(Reader(port, requests, offsets, answer, scratch))

    def run(self, limits: Limits) -> FetchResult:
        before = sum(reader.answers for reader in self.readers)
        began, cpu_began = time.perf_counter(), time.process_time()
        self._loop(limits, before, began)
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu_began
        answers = sum(reader.answers for reader in self.readers) - before
        batches = answers * self.partition.batches_per_fetch
        shape = self.partition.shape
        return FetchResult(answers, batches * shape.records, batches * shape.payload, wall, cpu)

    def _loop(self, limits: Limits, before: int, began: float) -> None:
        per_answer = self.partition.batches_per_fetch * self.partition.shape.payload
        answers_max = before + max(1, limits.payload // per_answer)
        end, timeout = began + limits.seconds, began + limits.timeout_s
        by_fd = {reader.fileno(): reader for reader in self.readers}
        answers, stop = before, False
        with select.epoll() as poller:
            for fd, reader in by_fd.items():
                poller.register(fd, select.EPOLLIN)
                reader.ask()
            while any(reader.in_flight for reader in self.readers):
                for fd, _ in poller.poll(POLL_S):
                    reader = by_fd[fd]
                    if reader.receive():
                        answers += 1
                        if not stop:
                            reader.ask()
                now = time.perf_counter()
                stop = stop or now >= end or answers >= answers_max
                if now > timeout:
                    raise BenchError(f"no end after {limits.timeout_s:.0f} s")

    def close(self) -> None:
        for reader in self.readers:
            reader.close()
