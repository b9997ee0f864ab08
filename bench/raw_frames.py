"""Requests built once, and the shape of the answers they must get.

A load generator that encodes would measure itself. So a Produce request is bytes that are sent again and again, and
an answer is checked without parsing: every successful answer to the same request has the same length and a zero
error code at the same place, found here by encoding one with the codec.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from bench.raw_client import CLIENT_ID, PRODUCE_VERSION
from odradek.wire.frame import encode_request, encode_response
from odradek.wire.messages.fetch import (
    FetchableTopicResponse,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchTopic,
    PartitionData,
)
from odradek.wire.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
    TopicProduceResponse,
)
from odradek.wire.records import simple_batch

FETCH_VERSION = 12
"""The last version that names topics by name."""
FETCH_WAIT_MS = 500
FETCH_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class BatchShape:
    """One batch per request: `records` records of `value_size` random bytes, without keys."""

    records: int
    value_size: int

    @property
    def payload(self) -> int:
        """Bytes of record values: what MB/s counts, as Kafka's own tools do."""
        return self.records * self.value_size

    def build(self) -> bytes:
        values = os.urandom(self.value_size * min(self.records, 16))
        items: list[tuple[bytes | None, bytes | None]] = []
        for index in range(self.records):
            start = index % 16 * self.value_size
            items.append((None, values[start : start + self.value_size]))
        return bytes(simple_batch(items, base_offset=0, timestamp=time.time_ns() // 1_000_000))


@dataclass(frozen=True, slots=True)
class AnswerShape:
    """Length of a successful answer with its length prefix, and where its error code stands."""

    size: int
    error_at: int


def produce_frame(
    topic: str, partition: int, batch: bytes, *, acks: int = 1, correlation_id: int = 1
) -> bytes:
    request = ProduceRequest(
        acks=acks,
        timeout_ms=30_000,
        topic_data=[
            TopicProduceData(
                name=topic, partition_data=[PartitionProduceData(index=partition, records=batch)]
            )
        ],
    )
    body = request.encode(PRODUCE_VERSION)
    return encode_request(ProduceRequest.API_KEY, PRODUCE_VERSION, correlation_id, CLIENT_ID, body)


def produce_answer(
    topic: str, *, error_code: int = 0, base_offset: int = 0, correlation_id: int = 1
) -> bytes:
    answer = ProduceResponse(
        responses=[
            TopicProduceResponse(
                name=topic,
                partition_responses=[
                    PartitionProduceResponse(
                        error_code=error_code, base_offset=base_offset, log_start_offset=0
                    )
                ],
            )
        ]
    )
    body = answer.encode(PRODUCE_VERSION)
    return encode_response(ProduceResponse.API_KEY, PRODUCE_VERSION, correlation_id, body)


def produce_answer_shape(topic: str) -> AnswerShape:
    good = produce_answer(topic)
    return AnswerShape(len(good), first_difference(good, produce_answer(topic, error_code=0x0101)))


def fetch_frame(topic: str, partition: int, offset: int, max_bytes: int) -> bytes:
    """A Fetch of one partition outside of any session, at most `max_bytes`."""
    wanted = FetchPartition(partition=partition, fetch_offset=offset, partition_max_bytes=max_bytes)
    request = FetchRequest(
        max_wait_ms=FETCH_WAIT_MS,
        min_bytes=1,
        max_bytes=max_bytes,
        topics=[FetchTopic(topic=topic, partitions=[wanted])],
    )
    body = request.encode(FETCH_VERSION)
    return encode_request(FetchRequest.API_KEY, FETCH_VERSION, 1, CLIENT_ID, body)


@dataclass(frozen=True, slots=True)
class FetchAnswerShape:
    """A full Fetch answer: its length with prefix, and where the error code and the first batch stand."""

    size: int
    error_at: int
    records_at: int


def fetch_answer(topic: str, records: bytes, *, error_code: int = 0) -> bytes:
    answer = FetchResponse(
        responses=[
            FetchableTopicResponse(
                topic=topic,
                partitions=[PartitionData(error_code=error_code, aborted_transactions=None, records=records)],
            )
        ]
    )
    return encode_response(FetchResponse.API_KEY, FETCH_VERSION, 1, answer.encode(FETCH_VERSION))


def fetch_answer_shape(topic: str, records_size: int) -> FetchAnswerShape:
    good = fetch_answer(topic, bytes(records_size))
    error_at = first_difference(good, fetch_answer(topic, bytes(records_size), error_code=0x0101))
    return FetchAnswerShape(
        len(good), error_at, first_difference(good, fetch_answer(topic, b"\1" + bytes(records_size - 1)))
    )


def first_difference(left: bytes, right: bytes) -> int:
    """Where two encodings of equal length begin to differ."""
    assert len(left) == len(right), "the encodings have the same shape"
    return next(at for at, (one, other) in enumerate(zip(left, right, strict=True)) if one != other)
