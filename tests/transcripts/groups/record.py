"""Run transcripts against a real Kafka and write its answers into them.

    python tests/transcripts/groups/record.py localhost:9092 tests/transcripts/groups/*.txt

The broker must be configured as `group_transcript.CONFIG` says and have `offsets.topic.num.partitions=4`; the topics
of `group_transcript.TOPICS` must exist. Group ids are made unique for each run
behind the scenes, so that one broker serves any number of runs.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from odradek.wire.apis import ApiKey, request_class, response_class
from odradek.wire.frame import decode_response_header, encode_request
from odradek.wire.messages.find_coordinator import FindCoordinatorRequest
from odradek.wire.messages.metadata import MetadataRequest, MetadataResponse
from odradek.wire.primitives import Message
from transcripts.groups.group_transcript import Request, Symbols, run


class Connection:
    """One client: it may have several requests under way, whose answers come in order."""

    def __init__(self, address: tuple[str, int], label: str) -> None:
        self.label = label
        self.socket = socket.create_connection(address)
        self.expected: list[tuple[str, int, int]] = []
        self.received = bytearray()

    def send(self, verb: str, api_key: int, version: int, body: bytes) -> None:
        self.expected.append((verb, api_key, version))
        self.socket.sendall(encode_request(api_key, version, 1, self.label, body))

    def receive(self) -> list[tuple[str, str, Message]]:
        """What is there to read, as (label, verb, response)s."""
        data = self.socket.recv(1 << 20)
        if not data:
            raise ConnectionError(f"{self.label}: closed after {self.expected}")
        self.received += data
        answers: list[tuple[str, str, Message]] = []
        while len(self.received) >= 4:
            size = int.from_bytes(self.received[:4], "big")
            if len(self.received) < 4 + size:
                break
            frame = bytes(self.received[4 : 4 + size])
            del self.received[: 4 + size]
            verb, api_key, version = self.expected.pop(0)
            _, position = decode_response_header(frame, api_key, version)
            answers.append((self.label, verb, response_class(api_key).decode(frame, version, position)))
        return answers


class Broker:
    """All connections of one file."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.connections: dict[str, Connection] = {}
        self.selector = selectors.DefaultSelector()

    def send(self, request: Request) -> None:
        self.connection(request.label).send(
            request.verb, request.api_key, request.version, request.body.encode(request.version)
        )

    def connection(self, label: str) -> Connection:
        if label not in self.connections:
            connection = Connection(self.address, label)
            self.connections[label] = connection
            self.selector.register(connection.socket, selectors.EVENT_READ, connection)
        return self.connections[label]

    def collect(self, ms: int) -> list[tuple[str, str, Message]]:
        answers: list[tuple[str, str, Message]] = []
        deadline = time.monotonic() + ms / 1000
        while (left := deadline - time.monotonic()) > 0:
            for key, _ in self.selector.select(left):
                answers += key.data.receive()
        return answers

    def topic_ids(self) -> dict[str, bytes]:
        version = request_class(ApiKey.METADATA).MAX_VERSION
        body = MetadataRequest(topics=None).encode(version)
        self.connection("metadata").send("metadata", ApiKey.METADATA, version, body)
        ((_, _, response),) = self.collect(500)
        assert isinstance(response, MetadataResponse)
        return {topic.name or "": topic.topic_id for topic in response.topics}

    def wake(self) -> None:
        """Make the broker create its offsets topic and load it."""
        self.connection("metadata").send(
            "find", ApiKey.FIND_COORDINATOR, 1, FindCoordinatorRequest("x").encode(1)
        )
        self.collect(2_000)

    def close(self) -> None:
        for connection in self.connections.values():
            connection.socket.close()


def record(address: tuple[str, int], path: Path) -> None:
    """Rewrite one transcript."""
    broker = Broker(address)
    broker.wake()
    symbols = Symbols(broker.topic_ids(), f"run{time.time_ns()}-")
    lines = path.read_text().splitlines()
    path.write_text("\n".join(run(lines, symbols, broker.send, broker.collect)) + "\n")
    broker.close()


def main() -> None:
    host, _, port = sys.argv[1].partition(":")
    with ThreadPoolExecutor(len(sys.argv)) as threads:
        for done in [threads.submit(record, (host, int(port)), Path(name)) for name in sys.argv[2:]]:
            done.result()


if __name__ == "__main__":
    main()
