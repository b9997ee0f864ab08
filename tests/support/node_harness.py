"""A whole node in memory: real handlers, controller, Raft, coordinator and log engine on a MemoryDisk, a clock that
only tests move, and clients that speak bytes to real connections. No sockets, threads or waiting.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from struct import unpack_from
from typing import Any, TypeVar

from odradek.broker.config import BrokerConfig
from odradek.broker.config_builder import build_config, zero_config
from odradek.broker.connection import Connection
from odradek.broker.metrics import BrokerMetrics
from odradek.broker.node import Node, Ports
from odradek.broker.properties import Setting
from odradek.ports.disk import Buffer
from odradek.ports.timers import TimerQueue
from odradek.storage.manager import LogManager
from odradek.storage.memory_disk import MemoryDisk, StepSyncer
from odradek.wire.apis import request_class, response_class, response_header_version
from odradek.wire.frame import decode_response_header, encode_request
from odradek.wire.messages.create_topics import CreatableTopic, CreatableTopicConfig, CreateTopicsRequest
from odradek.wire.records import simple_batch

DATA = "/data"
WALL_MS = 1_700_000_000_000
M = TypeVar("M")


class FakeClock:
    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def monotonic_ms(self) -> int:
        return self.now_ms

    def monotonic_ns(self) -> int:
        return self.now_ms * 1_000_000

    def wall_ms(self) -> int:
        return WALL_MS + self.now_ms


class ListLog:
    """Collects what the node logs."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Any:
        level = "error" if level == "limited_error" else level  # nothing that fails in a node goes unseen
        return lambda event, **values: self.lines.append((level, event, values))

    def of_level(self, *levels: str) -> list[tuple[str, str, dict[str, Any]]]:
        return [line for line in self.lines if line[0] in levels]


class Client:
    """One connection. `send` may leave a request unanswered (long polls); `ask` expects the answer now."""

    def __init__(self, harness: NodeHarness, listener: str = "PLAINTEXT") -> None:
        self.harness = harness
        self.received = bytearray()
        self.closed = False
        self.reading = True
        self.unread = b""
        self.connection = Connection(harness.node, listener)
        self.connection.opened(self, "127.0.0.1:50000")
        self._next_id = 0

    # Transport
    def write(self, data: Buffer) -> None:
        self.received += data

    def writelines(self, data: Sequence[Buffer]) -> None:
        for buffer in data:
            self.received += buffer

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return 0

    # Client
    def deliver(self, data: bytes) -> None:
        """Bytes from the socket, as long as the connection reads; the rest waits for the next call."""
        data = self.unread + data
        while data and self.reading and not self.connection.closed:
            buffer = self.connection.get_buffer(-1)
            taken = min(len(buffer), len(data))
            assert taken > 0
            buffer[:taken] = data[:taken]
            data = data[taken:]
            self.connection.buffer_updated(taken)
        self.unread = data

    def send(self, request: Any, version: int, client_id: str | None = "test") -> int:
        self._next_id += 1
        self.deliver(
            encode_request(request.API_KEY, version, self._next_id, client_id, request.encode(version))
        )
        return self._next_id

    def take_frame(self) -> bytes | None:
        """The next response without its length, if there is one."""
        if len(self.received) < 4:
            return None
        (size,) = unpack_from(">i", self.received)
        frame = bytes(self.received[4 : 4 + size])
        assert len(frame) == size
        del self.received[: 4 + size]
        return frame

    def take(self, api_key: int, version: int, correlation_id: int) -> Any:
        """The next response, decoded; None if there is none yet."""
        frame = self.take_frame()
        if frame is None:
            return None
        found, pos = decode_response_header(frame, api_key, version)
        assert found == correlation_id
        message, end = response_class(api_key).read(frame, pos, version)
        assert end == len(frame), f"{len(frame) - end} bytes behind the response"
        return message

    def ask(self, request: Any, version: int | None = None, client_id: str | None = "test") -> Any:
        """Send and take the answer that comes without time passing."""
        version = request.MAX_VERSION if version is None else version
        correlation_id = self.send(request, version, client_id)
        self.harness.settle()
        response = self.take(request.API_KEY, version, correlation_id)
        assert response is not None, f"no answer to {type(request).__name__}; closed: {self.closed}"
        return response


class NodeHarness:
    """Build, use, `restart`; every step is deterministic."""

    def __init__(self, disk: MemoryDisk | None = None, **settings: str) -> None:
        self.disk = disk or MemoryDisk(1)
        self.settings = settings
        self.clock = FakeClock()
        self.log = ListLog()
        self.boots = 0
        if not self.disk.exists(DATA):
            self.disk.makedirs(DATA)
            self.disk.sync_dir("/")
        self._boot()

    def _boot(self) -> None:
        self.syncer = StepSyncer()
        self.timers = TimerQueue()
        config = self.config()
        rng = random.Random(7 + self.boots)  # each process is an incarnation of its own
        self.boots += 1
        logs = LogManager(self.disk, self.syncer, list(config.log_dirs), rng=rng)
        logs.start(node_id=config.node_id, cluster_id=None, needed=DATA)
        logs.open_all(self.clock.wall_ms())
        ports = Ports(
            self.disk,
            self.syncer,
            self.syncer,
            self.clock,
            self.timers,
            rng,
            self.log,
            lambda directory: (1 << 40, 1 << 39),
        )
        self.node = Node(config, ports, logs, BrokerMetrics(), DATA)
        self.node.start({"PLAINTEXT": 9092})
        self.settle()
        assert self.node.unfenced, self.node.readiness()

    def config(self) -> BrokerConfig:
        layer = {key.replace("__", "."): Setting(value, "test") for key, value in self.settings.items()}
        return build_config(zero_config(data=DATA), layer)

    def settle(self) -> None:
        """Let everything happen that needs no time: fsyncs, timers already due, flushes."""
        while True:
            self.node.settle()
            if self.syncer.step():
                continue
            if self.timers.advance(self.clock.now_ms) == 0:
                break
        self.node.settle()

    def advance(self, ms: int) -> None:
        """Let time pass, timer by timer."""
        end = self.clock.now_ms + ms
        while (deadline := self.timers.next_deadline_ms()) is not None and deadline <= end:
            self.clock.now_ms = max(deadline, self.clock.now_ms)
            self.settle()
        self.clock.now_ms = end
        self.settle()

    def client(self) -> Client:
        return Client(self)

    def stop(self) -> None:
        self.node.stop()
        self.syncer.drain()

    def restart(self, *, clean: bool = True) -> None:
        """Stop and start again on the same disk; not clean is `kill -9`: the page cache stays."""
        if clean:
            self.stop()
        else:
            self.disk.kill()
        self.clock.now_ms += 1000
        self._boot()

    # What most tests need
    def create_topic(self, name: str, partitions: int = 1, **configs: str) -> None:
        settings = [
            CreatableTopicConfig(name=key.replace("__", "."), value=value) for key, value in configs.items()
        ]
        topic = CreatableTopic(name=name, num_partitions=partitions, replication_factor=1, configs=settings)
        response = self.client().ask(CreateTopicsRequest(topics=[topic], timeout_ms=1000))
        assert response.topics[0].error_code == 0, response

    def topic_id(self, name: str) -> bytes:
        return self.node.image.topics[name].id

    def batch(self, *values: bytes, key: bytes | None = None, **options: Any) -> bytes:
        """A producer's batch of records with these values."""
        items = [(key, value) for value in values]
        return bytes(simple_batch(items, base_offset=0, timestamp=self.clock.wall_ms(), **options))


__all__ = ["DATA", "Client", "NodeHarness", "request_class", "response_header_version"]
