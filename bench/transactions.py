"""Transactions one after the other, of one or many producers at once: how many a side commits in a second.

Each producer speaks what a client of transaction.version 2 does (KIP-890): one Produce with all records of the
transaction, in one batch to its own partition, which joins the transaction by that; then EndTxn, whose answer has the
epoch of the next. The batch is built once, and only its epoch and checksum change, so that the node is the limit. A
producer that comes too early (the markers of its last transaction are on their way) comes again after `RETRY_S`, as
Kafka's own does.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from struct import Struct
from typing import Any, TypeVar, cast

from crc32c import crc32c

from bench.raw_client import CLIENT_ID, HOST, Admin, BenchError, check
from bench.raw_frames import BatchShape
from odradek.wire.errors import ErrorCode
from odradek.wire.frame import decode_response_header, encode_request
from odradek.wire.messages.end_txn import EndTxnRequest, EndTxnResponse
from odradek.wire.messages.find_coordinator import FindCoordinatorRequest, FindCoordinatorResponse
from odradek.wire.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from odradek.wire.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
)
from odradek.wire.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from odradek.wire.records import ATTRIBUTES_AT, CRC_AT, PRODUCER_EPOCH_AT, simple_batch

PRODUCE_VERSION, END_VERSION, INIT_VERSION, FIND_VERSION, OFFSETS_VERSION = 12, 5, 5, 4, 6
TRANSACTION_KEY, READ_COMMITTED, LATEST = 1, 1, -1
TIMEOUT_MS = 60_000
PATIENCE_S = 60.0
RETRY_S = 0.02
TOO_EARLY = (
    ErrorCode.CONCURRENT_TRANSACTIONS,
    ErrorCode.NOT_ENOUGH_REPLICAS,
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.NOT_COORDINATOR,
)

R = TypeVar("R")
_pack_epoch = Struct(">h").pack_into
_pack_crc = Struct(">I").pack_into


class Wire(asyncio.Protocol):
    """A connection that asks one thing at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._answer: asyncio.Future[bytes] | None = None

    @classmethod
    async def open(cls, port: int) -> Wire:
        _, wire = await asyncio.get_running_loop().create_connection(cls, HOST, port)
        return wire

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        self._received += data
        size = int.from_bytes(self._received[:4], "big")
        if len(self._received) >= 4 + size and self._answer is not None and len(self._received) > 4:
            frame = bytes(self._received[4:])
            self._received.clear()
            if not self._answer.done():  # cancelled, as another producer has failed
                self._answer.set_result(frame)

    def connection_lost(self, _error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(BenchError("the node closed the connection"))

    def send(self, frame: bytes | bytearray) -> asyncio.Future[bytes]:
        """The answer without its length."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(frame)
        return self._answer

    async def ask(self, request: Any, version: int, response: type[R]) -> R:
        key = request.API_KEY
        frame = await self.send(encode_request(key, version, 1, CLIENT_ID, request.encode(version)))
        _, pos = decode_response_header(frame, key, version)
        return response.decode(frame, version, pos)  # type: ignore[attr-defined, no-any-return]

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


@dataclass(slots=True)
class Tally:
    """`latencies_ms`: from a transaction's Produce to the answer of its EndTxn."""

    retries: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    wall_s: float = 0.0
    client_cpu_s: float = 0.0


class TransactionalProducer:
    """One transactional id, which writes to one partition."""

    def __init__(self, transactional_id: str, topic: str, partition: int, shape: BatchShape) -> None:
        self.transactional_id = transactional_id
        self.committed = 0
        self._topic, self._partition, self._shape = topic, partition, shape
        self._producer_id, self._epoch = -1, -1
        self._wires: list[Wire] = []

    async def open(self, port: int, leader_port: int) -> None:
        """Find the coordinator by the node at `port`, and get a producer id."""
        coordinator_port = await self._find_coordinator(port)
        self._coordinator = await Wire.open(coordinator_port)
        self._leader = self._coordinator if coordinator_port == leader_port else await Wire.open(leader_port)
        request = InitProducerIdRequest(self.transactional_id, TIMEOUT_MS)

        async def ask() -> InitProducerIdResponse:
            return await self._coordinator.ask(request, INIT_VERSION, InitProducerIdResponse)

        found = await patiently(ask, "InitProducerId")
        self._producer_id, self._epoch = found.producer_id, found.producer_epoch
        self._build()

    async def _find_coordinator(self, port: int) -> int:
        request = FindCoordinatorRequest(key_type=TRANSACTION_KEY, coordinator_keys=[self.transactional_id])
        wire = await Wire.open(port)

        async def ask() -> Any:
            return (await wire.ask(request, FIND_VERSION, FindCoordinatorResponse)).coordinators[0]

        found = await patiently(ask, "FindCoordinator")
        wire.close()
        return int(found.port)

    def _build(self) -> None:
        value = bytes(range(256)) * (self._shape.value_size // 256 + 1)
        records: list[tuple[bytes | None, bytes | None]] = [(None, value[: self._shape.value_size])]
        batch = simple_batch(
            records * self._shape.records, base_offset=0, timestamp=time.time_ns() // 1_000_000,
            producer_id=self._producer_id, producer_epoch=self._epoch, base_sequence=0, transactional=True,
        )  # fmt: skip
        parts = [PartitionProduceData(index=self._partition, records=bytes(batch))]
        request = ProduceRequest(
            transactional_id=self.transactional_id, acks=-1, timeout_ms=30_000,
            topic_data=[TopicProduceData(name=self._topic, partition_data=parts)],
        )  # fmt: skip
        body = request.encode(PRODUCE_VERSION)
        self._frame = bytearray(encode_request(ProduceRequest.API_KEY, PRODUCE_VERSION, 1, CLIENT_ID, body))
        self._batch_at = self._frame.index(batch)
        self._batch_end = self._batch_at + len(batch)

    async def work(self, end: float, tally: Tally) -> None:
        """Transactions until `end` of the performance counter."""
        clock = time.perf_counter
        while (began := clock()) < end:
            await self._produce(tally)
            await self._end(tally)
            self.committed += 1
            tally.latencies_ms.append((clock() - began) * 1e3)

    async def _produce(self, tally: Tally) -> None:
        frame, at = self._frame, self._batch_at
        _pack_epoch(frame, at + PRODUCER_EPOCH_AT, self._epoch)
        with memoryview(frame) as view:
            crc = crc32c(view[at + ATTRIBUTES_AT : self._batch_end])
        _pack_crc(frame, at + CRC_AT, crc)
        sent = bytes(frame)
        while True:
            answer = await self._leader.send(sent)
            _, pos = decode_response_header(answer, ProduceRequest.API_KEY, PRODUCE_VERSION)
            found = ProduceResponse.decode(answer, PRODUCE_VERSION, pos).responses[0].partition_responses[0]
            if found.error_code not in TOO_EARLY:
                check(found.error_code, "Produce")
                return
            tally.retries += 1
            await asyncio.sleep(RETRY_S)

    async def _end(self, tally: Tally) -> None:
        request = EndTxnRequest(self.transactional_id, self._producer_id, self._epoch, committed=True)
        while True:
            found = await self._coordinator.ask(request, END_VERSION, EndTxnResponse)
            if found.error_code not in TOO_EARLY:
                check(found.error_code, "EndTxn")
                assert found.producer_id == self._producer_id, "fewer transactions than epochs"
                self._epoch = found.producer_epoch
                return
            tally.retries += 1
            await asyncio.sleep(RETRY_S)

    def close(self) -> None:
        self._coordinator.close()
        self._leader.close()


async def patiently(ask: Any, what: str) -> Any:
    """Ask until the answer is not "come again"."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = await ask()
        if found.error_code not in TOO_EARLY:
            check(found.error_code, what)
            return found
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: no coordinator after {PATIENCE_S:.0f} s")
        await asyncio.sleep(0.05)


class TransactionLoad:
    """Producers with a partition each of one topic; the caller drops the topic."""

    def __init__(self, topic: str, count: int, shape: BatchShape) -> None:
        self._topic, self._shape = topic, shape
        self._producers = [
            TransactionalProducer(f"{topic}-{number}", topic, number, shape) for number in range(count)
        ]

    async def open(self, port: int, leaders: list[int]) -> None:
        await asyncio.gather(
            *(each.open(port, leader) for each, leader in zip(self._producers, leaders, strict=True))
        )

    async def run(self, seconds: float) -> Tally:
        tally = Tally()
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(each.work(began + seconds, tally) for each in self._producers))
        tally.wall_s, tally.client_cpu_s = time.perf_counter() - began, time.process_time() - cpu
        return tally

    def verify(self, leaders: list[int], before: int = 0) -> None:
        """What is stable in the log is what was committed: the records and a marker for each transaction."""
        for number, producer in enumerate(self._producers):
            wanted = before + producer.committed * (self._shape.records + 1)
            deadline = time.monotonic() + PATIENCE_S
            with Admin(leaders[number]) as admin:
                while (found := stable_offset(admin, self._topic, number)) != wanted:
                    if found > wanted or time.monotonic() > deadline:
                        raise BenchError(f"{wanted} offsets were committed, {found} are stable")
                    time.sleep(0.05)

    def close(self) -> None:
        for each in self._producers:
            each.close()


def stable_offset(admin: Admin, topic: str, partition: int) -> int:
    wanted = ListOffsetsPartition(partition_index=partition, timestamp=LATEST)
    request = ListOffsetsRequest(
        replica_id=-1,
        isolation_level=READ_COMMITTED,
        topics=[ListOffsetsTopic(name=topic, partitions=[wanted])],
    )
    answer = admin.ask(request, OFFSETS_VERSION, ListOffsetsResponse)
    found = answer.topics[0].partitions[0]
    check(found.error_code, f"ListOffsets {topic}-{partition}")
    return found.offset
