"""What a leader demands of batches before it takes them: the complete checks behind the fast path of appends.py."""

from __future__ import annotations

from crc32c import crc32c

from odradek.storage.batch import CODEC_MAX, CRC_START, parse_header
from odradek.storage.config import CREATE_TIME, UNLIMITED, LogConfig
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.record_body import RECORD_SIZE_MIN
from odradek.wire.records import (
    CODEC_MASK,
    HEADER_SIZE,
    LENGTH_MIN,
    LOG_APPEND_TIME_FLAG,
    NO_TIMESTAMP,
    BatchHeader,
    Record,
    read_records,
)

OPENED_BYTES_MAX = 32 << 20
OPENED_RECORDS_MAX = 200_000
"""What one batch may hold where it has to be opened: a compressed batch of a few KB can hold millions of records, and
opening it would stop everything else for as long.
"""
_ATTRIBUTES_KNOWN = 0x7F

Parsed = tuple[BatchHeader, memoryview]


def split_batches(buffer: memoryview) -> list[Parsed]:
    """(header, bytes) of each batch, magic, frame and CRC checked. KafkaError CORRUPT_MESSAGE and its like."""
    parsed: list[Parsed] = []
    position, end = 0, len(buffer)
    if end == 0:
        raise KafkaError(ErrorCode.INVALID_RECORD, "There is no record batch to append.")
    while position < end:
        if end - position >= 17 and buffer[position + 16] != 2:
            raise KafkaError(
                ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT,
                f"Record batches must have magic 2, not {buffer[position + 16]}.",
            )
        if end - position < HEADER_SIZE:
            raise KafkaError(ErrorCode.CORRUPT_MESSAGE, f"{end - position} bytes are no record batch.")
        header = parse_header(buffer, position)
        after = position + header.size
        if header.length < LENGTH_MIN or after > end:
            raise KafkaError(
                ErrorCode.CORRUPT_MESSAGE, f"A record batch of length {header.length} is not whole."
            )
        batch = buffer[position:after]
        if crc32c(batch[CRC_START:]) != header.crc:
            raise KafkaError(
                ErrorCode.CORRUPT_MESSAGE, f"Record is corrupt (stored crc = {header.crc}, computed another)."
            )
        parsed.append((header, batch))
        position = after
    return parsed


def check_batch(
    header: BatchHeader, batch: memoryview, config: LogConfig, wall_ms: int, *, allow_control: bool
) -> None:
    """The rules of one batch that need no log. KafkaError with Kafka's code."""
    if header.size > config.max_message_bytes:
        raise KafkaError(
            ErrorCode.MESSAGE_TOO_LARGE,
            f"The record batch size in the append is {header.size} bytes which exceeds the maximum configured value "
            f"of {config.max_message_bytes}.",
        )
    if header.size > config.segment_bytes:
        raise KafkaError(
            ErrorCode.RECORD_LIST_TOO_LARGE,
            f"Message batch size is {header.size} bytes in append, which exceeds the maximum configured segment size "
            f"of {config.segment_bytes}.",
        )
    _check_counts(header)
    if header.attributes & ~_ATTRIBUTES_KNOWN or header.attributes & CODEC_MASK > CODEC_MAX:
        raise KafkaError(
            ErrorCode.INVALID_RECORD, f"Unknown compression or attributes {header.attributes:#06x}."
        )
    if header.is_control and not allow_control:
        raise KafkaError(ErrorCode.INVALID_RECORD, "Clients are not allowed to write control records.")
    if (
        header.attributes & LOG_APPEND_TIME_FLAG
        and config.timestamp_type == CREATE_TIME
        and not allow_control
    ):
        raise KafkaError(
            ErrorCode.INVALID_TIMESTAMP,
            "Invalid timestamp type LogAppendTime from a client; the broker sets it.",
        )
    if header.producer_id >= 0 and not header.is_control:
        if header.base_sequence < 0 and not allow_control:
            raise KafkaError(
                ErrorCode.INVALID_RECORD,
                f"Invalid sequence number {header.base_sequence} in record batch with producerId {header.producer_id}",
            )
        if header.producer_epoch < 0:
            raise KafkaError(ErrorCode.INVALID_RECORD, f"Invalid producer epoch {header.producer_epoch}")
    if header.is_transactional and header.producer_id < 0:
        raise KafkaError(ErrorCode.INVALID_RECORD, "A transactional batch must have a producer id.")
    if config.timestamp_type == CREATE_TIME:
        _check_timestamps(header, batch, config, wall_ms)


def open_batch(batch: memoryview) -> list[Record]:
    """The records of a batch. KafkaError MESSAGE_TOO_LARGE for one that holds too much."""
    header = parse_header(batch)
    if header.count > OPENED_RECORDS_MAX:
        raise KafkaError(
            ErrorCode.MESSAGE_TOO_LARGE,
            f"A batch of {header.count} records is not opened, which this topic demands; at most {OPENED_RECORDS_MAX}.",
        )
    return read_records(batch, header, limit=OPENED_BYTES_MAX)


def check_keys(batch: memoryview) -> None:
    """A compacted topic takes no record without a key. Opens the batch. KafkaError INVALID_RECORD."""
    for at, record in enumerate(open_batch(batch)):
        if record.key is None:
            raise KafkaError(
                ErrorCode.INVALID_RECORD,
                f"Compacted topic cannot accept message without key (record {at} of the batch).",
            )


def _check_counts(header: BatchHeader) -> None:
    if header.count <= 0 or header.count != header.last_offset_delta + 1:
        raise KafkaError(
            ErrorCode.INVALID_RECORD,
            f"Inconsistent batch offset range: last offset delta {header.last_offset_delta}, "
            f"{header.count} records.",
        )
    plain = not header.attributes & CODEC_MASK
    if plain and header.count * RECORD_SIZE_MIN > header.size - HEADER_SIZE:
        raise KafkaError(
            ErrorCode.INVALID_RECORD,
            f"{header.count} records do not fit into a batch of {header.size} bytes.",
        )


def _check_timestamps(header: BatchHeader, batch: memoryview, config: LogConfig, wall_ms: int) -> None:
    """CreateTime bounds. The header vouches for the upper one; a lower one (rarely set) opens the batch."""
    latest = wall_ms + config.timestamp_after_max_ms
    if header.max_timestamp > latest:
        raise _out_of_range(header.max_timestamp, wall_ms, config)
    if config.timestamp_before_max_ms >= UNLIMITED:
        return
    for record in open_batch(batch):
        timestamp = record.timestamp
        too_old = wall_ms - timestamp > config.timestamp_before_max_ms
        if timestamp != NO_TIMESTAMP and (too_old or timestamp > latest):
            raise _out_of_range(timestamp, wall_ms, config)


def _out_of_range(timestamp: int, wall_ms: int, config: LogConfig) -> KafkaError:
    return KafkaError(
        ErrorCode.INVALID_TIMESTAMP,
        f"Timestamp {timestamp} of message is out of range. The timestamp should be within "
        f"[{wall_ms - config.timestamp_before_max_ms}, {wall_ms + config.timestamp_after_max_ms}]",
    )
