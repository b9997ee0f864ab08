"""One blocking connection for everything around a measurement: topics, offsets, the first acknowledged record."""

from __future__ import annotations

import socket
import time
from types import TracebackType
from typing import Any, TypeVar

from odradek.wire.errors import ErrorCode
from odradek.wire.frame import decode_response_header, encode_request
from odradek.wire.messages.create_topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from odradek.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicsResponse
from odradek.wire.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
)
from odradek.wire.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponse
from odradek.wire.messages.produce import ProduceResponse

HOST = "127.0.0.1"
CLIENT_ID = "bench"
LATEST = -1
CREATE_TOPICS_VERSION = 5
DELETE_TOPICS_VERSION = 4
LIST_OFFSETS_VERSION = 6
METADATA_VERSION = 9
PRODUCE_VERSION = 11

T = TypeVar("T")


class BenchError(RuntimeError):
    """A measurement that cannot be trusted: an error answer, a short count, a timeout."""


def connect(port: int, timeout_s: float = 30.0) -> socket.socket:
    sock = socket.create_connection((HOST, port), timeout=timeout_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def receive_exactly(sock: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        part = sock.recv(size - len(received))
        if not part:
            raise BenchError("the node closed the connection")
        received += part
    return bytes(received)


def receive_frame(sock: socket.socket) -> bytes:
    """A response without its length."""
    return receive_exactly(sock, int.from_bytes(receive_exactly(sock, 4), "big"))


class Admin:
    """Requests one at a time. Every wait is bounded by the socket's timeout."""

    def __init__(self, port: int, timeout_s: float = 30.0) -> None:
        self._sock = connect(port, timeout_s)
        self._timeout_s = timeout_s

    def __enter__(self) -> Admin:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.close()

    def ask(self, request: Any, version: int, response: type[T]) -> T:
        self.send(request, version)
        return self.receive(request, version, response)

    def send(self, request: Any, version: int) -> None:
        self._sock.sendall(encode_request(request.API_KEY, version, 1, CLIENT_ID, request.encode(version)))

    def receive(self, request: Any, version: int, response: type[T]) -> T:
        """The answer to `request`, the oldest that has none."""
        answer = receive_frame(self._sock)
        _, pos = decode_response_header(answer, request.API_KEY, version)
        return response.decode(answer, version, pos)  # type: ignore[attr-defined, no-any-return]

    def create_topic(
        self, name: str, partitions: int, first_frames: list[bytes], *, replicas: int = 1
    ) -> list[int]:
        """A topic whose files go at once when it is deleted; the port of each partition's leader.

        All replicas are in sync, and each leader has taken its one of `first_frames` (Produce).
        """
        configs = {"file.delete.delay.ms": "1000"}
        if replicas > 1:
            configs["min.insync.replicas"] = "2"
        topic = CreatableTopic(
            name=name,
            num_partitions=partitions,
            replication_factor=replicas,
            configs=[CreatableTopicConfig(name=key, value=value) for key, value in configs.items()],
        )
        answer = self.ask(
            CreateTopicsRequest(topics=[topic], timeout_ms=30_000),
            CREATE_TOPICS_VERSION,
            CreateTopicsResponse,
        )
        check(answer.topics[0].error_code, f"CreateTopics {name}")
        ports = self.leader_ports(name, partitions, replicas)
        for port, frame in zip(ports, first_frames, strict=False):
            with Admin(port, self._timeout_s) as leader:
                leader.produce_until_acknowledged(frame)
        return ports

    def leader_ports(self, topic: str, partitions: int, replicas: int) -> list[int]:
        """Ports of the leaders, by partition, once all replicas are in sync."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            answer = self.metadata(topic, create=False)
            ports = {broker.node_id: broker.port for broker in answer.brokers}
            found = {each.partition_index: each for each in answer.topics[0].partitions}
            if len(found) == partitions and all(
                each.leader_id in ports and len(each.isr_nodes) == replicas for each in found.values()
            ):
                return [ports[found[partition].leader_id] for partition in range(partitions)]
            if time.monotonic() > deadline:
                raise BenchError(f"{topic} was not in sync after {self._timeout_s:.0f} s")
            time.sleep(0.01)

    def produce_until_acknowledged(self, frame: bytes) -> int:
        """Send one Produce frame until it is taken; its offset."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            error, offset = self.produce(frame)
            if error == ErrorCode.NONE:
                return offset
            if time.monotonic() > deadline:
                raise BenchError(f"no record was taken in {self._timeout_s:.0f} s: {name_of(error)}")
            time.sleep(0.002)

    def produce(self, frame: bytes) -> tuple[int, int]:
        """Send one Produce frame; (error code, base offset)."""
        self._sock.sendall(frame)
        return produce_outcome(receive_frame(self._sock))

    def delete_topic(self, name: str) -> None:
        request = DeleteTopicsRequest(topic_names=[name], timeout_ms=30_000)
        answer = self.ask(request, DELETE_TOPICS_VERSION, DeleteTopicsResponse)
        check(answer.responses[0].error_code, f"DeleteTopics {name}")

    def metadata(self, topic: str, *, create: bool) -> MetadataResponse:
        request = MetadataRequest(topics=[MetadataRequestTopic(name=topic)], allow_auto_topic_creation=create)
        return self.ask(request, METADATA_VERSION, MetadataResponse)

    def end_offset(self, topic: str, partition: int) -> int:
        wanted = ListOffsetsPartition(partition_index=partition, timestamp=LATEST)
        request = ListOffsetsRequest(
            replica_id=-1, topics=[ListOffsetsTopic(name=topic, partitions=[wanted])]
        )
        answer = self.ask(request, LIST_OFFSETS_VERSION, ListOffsetsResponse)
        found = answer.topics[0].partitions[0]
        check(found.error_code, f"ListOffsets {topic}-{partition}")
        return found.offset


def produce_outcome(answer: bytes) -> tuple[int, int]:
    """(error code, base offset) of a Produce response for one partition."""
    _, pos = decode_response_header(answer, ProduceResponse.API_KEY, PRODUCE_VERSION)
    found = ProduceResponse.decode(answer, PRODUCE_VERSION, pos).responses[0].partition_responses[0]
    return found.error_code, found.base_offset


def check(error_code: int, what: str) -> None:
    if error_code != ErrorCode.NONE:
        raise BenchError(f"{what}: {name_of(error_code)}")


def name_of(error_code: int) -> str:
    return next((code.name for code in ErrorCode if code == error_code), f"error code {error_code}")
