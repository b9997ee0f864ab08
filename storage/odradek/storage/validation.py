"""What a leader demands of batches before it takes them: the complete checks behind the fast path of appends.py."""

from __future__ import annotations

from crc32c import crc32c

from odradek.storage.batch import CODEC_MAX, CRC_START, parse_header
from odradek.storage.config import CREATE_TIME, LogConfig
from odradek.storage.conversion import open_batch, refuse_invalid
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.record_body import RECORD_SIZE_MIN
from odradek.wire.records import (
    CODEC_MASK,
    HEADER_SIZE,
    LENGTH_MIN,
    LOG_APPEND_TIME_FLAG,
    BatchHeader,
)

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
    header: BatchHeader,
    batch: memoryview,
    config: LogConfig,
    wall_ms: int,
    where: str,
    *,
    allow_control: bool,
) -> None:
    """The rules of one batch that need no log. KafkaError with Kafka's code; `where`: partition, for texts."""
    if header.size > config.max_message_bytes:
        raise KafkaError(
            ErrorCode.MESSAGE_TOO_LARGE,
            f"The record batch size in the append to {where} is {header.size} bytes which exceeds the maximum "
            f"configured value of {config.max_message_bytes}.",
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
    if header.attributes & LOG_APPEND_TIME_FLAG and not allow_control:
        raise KafkaError(
            ErrorCode.INVALID_TIMESTAMP,
            "Invalid timestamp type in message. Producer should not set timestamp type to LogAppendTime.",
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
        _check_timestamps(header, batch, config, wall_ms, where)


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


def _check_timestamps(
    header: BatchHeader, batch: memoryview, config: LogConfig, wall_ms: int, where: str
) -> None:
    """CreateTime: the header vouches for the latest one. Which records are wrong costs a look only when some are."""
    latest = wall_ms + config.timestamp_after_max_ms
    if header.max_timestamp <= latest:
        return
    refuse_invalid(open_batch(batch), config, wall_ms, where, keyed=True)
    raise KafkaError(
        ErrorCode.INVALID_TIMESTAMP,
        f"Timestamp {header.max_timestamp} of message is out of range. The timestamp should be within "
        f"[{wall_ms - config.timestamp_before_max_ms}, {latest}]",
    )
