"""Batches that a topic opens before it takes them: their records checked one by one, and compressed as it demands.

That is the case where `compression.type` names another codec than the batch has (KIP-390 for levels), in compacted
topics (every record needs a key) and with `message.timestamp.before.max.ms`. Nothing else is opened. What is read is
bounded by `OPENED_BYTES_MAX` and `OPENED_RECORDS_MAX`: a few KB can hold gigabytes.

A batch gets new bytes if its codec changes, if its records do not count from zero without a gap, or if the header names
another largest timestamp than they have; all else stays, above all producer, epoch and sequence. The records themselves
are copied as they are as long as their offsets are right.
"""

from __future__ import annotations

from odradek.storage.config import CREATE_TIME, UNLIMITED, LogConfig
from odradek.wire.compression import Codec, compress, decompress
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.record_body import Record, append_record, parse_records
from odradek.wire.records import (
    CODEC_MASK,
    HEADER,
    HEADER_SIZE,
    LOG_OVERHEAD,
    NO_TIMESTAMP,
    BatchHeader,
    parse_header,
    read_records,
    seal,
)

OPENED_BYTES_MAX = 32 << 20
OPENED_RECORDS_MAX = 200_000
"""What one batch may hold where it has to be opened: a compressed batch of a few KB can hold millions of records, and
opening it would stop everything else for as long.
"""
RECORD_ERRORS_MAX = 1000
"""Record errors that one refusal names. Kafka names all; nobody reads them, and a batch may have 200 000."""
_SHOWN = 3

TARGETS = {
    "uncompressed": Codec.NONE,
    "gzip": Codec.GZIP,
    "snappy": Codec.SNAPPY,
    "lz4": Codec.LZ4,
    "zstd": Codec.ZSTD,
}
"""Values of `compression.type` that name a codec; `producer` does not."""


class InvalidRecords(KafkaError):  # noqa: N818 - what is wrong, as its siblings
    """Records of a batch are refused; `record_errors` are (index in the batch, why), as in a Produce response."""

    def __init__(self, code: ErrorCode, message: str, record_errors: list[tuple[int, str]]) -> None:
        super().__init__(code, message)
        self.record_errors = record_errors


def must_open(header: BatchHeader, config: LogConfig, *, keyed: bool) -> bool:
    """Whether this topic takes the batch only after a look at its records, or with another codec.

    `keyed`: the writer vouches for keys. Control batches are never opened.
    """
    if header.is_control:
        return False
    target = TARGETS.get(config.compression_type)
    return (
        (target is not None and target != header.attributes & CODEC_MASK)
        or (config.cleanup_compact and not keyed)
        or config.checks_old_timestamps
    )


def convert(
    header: BatchHeader, batch: memoryview, config: LogConfig, wall_ms: int, where: str, *, keyed: bool
) -> tuple[BatchHeader, memoryview]:
    """The batch as this topic takes it: the one given, or a new one.

    `where`: topic and partition for error texts. `InvalidRecords`: some records are refused. KafkaError
    CORRUPT_MESSAGE or INVALID_RECORD: it cannot be read; MESSAGE_TOO_LARGE: it holds too much, or has become too large.
    """
    payload = _payload(header, batch)
    records = parse_records(payload, header.count, 0, header.base_timestamp)
    refuse_invalid(records, config, wall_ms, where, keyed=keyed)
    source = header.codec
    target = TARGETS.get(config.compression_type, source)
    latest = max(record.timestamp for record in records)
    if not -UNLIMITED <= latest <= UNLIMITED:
        raise KafkaError(
            ErrorCode.INVALID_RECORD, f"Timestamp {latest} of a record does not fit into 64 bits"
        )
    in_order = all(at == record.offset for at, record in enumerate(records))
    if target is source and in_order and latest == header.max_timestamp:
        return header, batch
    body = payload if in_order else _numbered(records, header.base_timestamp)
    packed = compress(target, body, config.compression_level(target))
    attributes = header.attributes & ~CODEC_MASK | target
    length = HEADER_SIZE - LOG_OVERHEAD + len(packed)
    converted = bytearray(HEADER_SIZE + len(packed))
    HEADER.pack_into(
        converted, 0, *header._replace(length=length, attributes=attributes, max_timestamp=latest)
    )
    converted[HEADER_SIZE:] = packed
    seal(converted)
    _check_size(len(converted), config, where)
    return parse_header(converted), memoryview(converted)


def open_batch(batch: memoryview) -> list[Record]:
    """The records of a batch. KafkaError MESSAGE_TOO_LARGE for one that holds too much."""
    header = parse_header(batch)
    _check_count(header)
    return read_records(batch, header, limit=OPENED_BYTES_MAX)


def refuse_invalid(
    records: list[Record], config: LogConfig, wall_ms: int, where: str, *, keyed: bool
) -> None:
    """Keys and times of each record, as the topic demands them. `InvalidRecords` with Kafka's words."""
    errors: list[tuple[int, str]] = []
    found = 0
    wrong_time = False
    needs_key = config.cleanup_compact and not keyed
    in_time = config.timestamp_type == CREATE_TIME
    oldest = wall_ms - config.timestamp_before_max_ms
    latest = wall_ms + config.timestamp_after_max_ms
    for at, record in enumerate(records):
        if needs_key and record.key is None:
            why = f"Compacted topic cannot accept message without key in topic partition {where}"
        elif in_time and record.timestamp != NO_TIMESTAMP and not oldest <= record.timestamp <= latest:
            wrong_time = True
            why = (
                f"Timestamp {record.timestamp} of message with offset {record.offset} is out of range. "
                f"The timestamp should be within [{oldest}, {latest}]"
            )
        else:
            continue
        found += 1
        if found <= RECORD_ERRORS_MAX:
            errors.append((at, why))
    if wrong_time:
        raise InvalidRecords(
            ErrorCode.INVALID_TIMESTAMP,
            "One or more records have been rejected due to invalid timestamp",
            errors,
        )
    if found:
        shown = ", ".join(f"RecordError(batchIndex={at}, message='{why}')" for at, why in errors[:_SHOWN])
        raise InvalidRecords(
            ErrorCode.INVALID_RECORD,
            f"One or more records have been rejected due to {found} record errors in total, and only showing the "
            f"first three errors at most: [{shown}]",
            errors,
        )


def _payload(header: BatchHeader, batch: memoryview) -> bytes:
    """The records' bytes, decompressed."""
    _check_count(header)
    return decompress(header.codec, batch[HEADER_SIZE : header.size], OPENED_BYTES_MAX)


def _check_count(header: BatchHeader) -> None:
    if header.count > OPENED_RECORDS_MAX:
        raise KafkaError(
            ErrorCode.MESSAGE_TOO_LARGE,
            f"A batch of {header.count} records is not opened, which this topic demands; at most {OPENED_RECORDS_MAX}.",
        )


def _numbered(records: list[Record], base_timestamp: int) -> bytearray:
    """The records with offsets from 0 on."""
    body = bytearray()
    for at, record in enumerate(records):
        append_record(body, at, record.timestamp - base_timestamp, record.key, record.value, record.headers)
    return body


def _check_size(size: int, config: LogConfig, where: str) -> None:
    """A batch that was recompressed may have outgrown what it was measured against before."""
    if size > config.max_message_bytes:
        raise KafkaError(
            ErrorCode.MESSAGE_TOO_LARGE,
            f"Message batch size is {size} bytes in append to partition {where} which exceeds the maximum configured "
            f"size of {config.max_message_bytes}.",
        )
    if size > config.segment_bytes:
        raise KafkaError(
            ErrorCode.RECORD_LIST_TOO_LARGE,
            f"Message batch size is {size} bytes in append to partition {where}, which exceeds the maximum configured "
            f"segment size of {config.segment_bytes}.",
        )
