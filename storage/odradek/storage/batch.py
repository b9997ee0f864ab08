"""The header of a record batch (magic 2) at fixed offsets: what the hot path touches, and nothing more.

    0 base offset i64 | 8 length i32 (from 12 on) | 12 partition leader epoch i32 | 16 magic i8 | 17 crc u32
    21 attributes i16 | 23 last offset delta i32 | 27 base timestamp i64 | 35 max timestamp i64
    43 producer id i64 | 51 producer epoch i16 | 53 base sequence i32 | 57 count i32 | 61 records

The CRC covers everything from the attributes on, so base offset and leader epoch are patched without touching it.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from crc32c import crc32c

from odradek.ports.disk import Buffer, File

HEADER_SIZE = 61
LOG_OVERHEAD = 12
"""Base offset and length: what precedes the bytes that `length` counts."""
LENGTH_MIN = HEADER_SIZE - LOG_OVERHEAD
CRC_START = 21
ATTRIBUTES_OFFSET = 21
MAX_TIMESTAMP_OFFSET = 35
RECORD_SIZE_MIN = 7
"""No uncompressed record is smaller: seven fields of at least a byte."""

CODEC_MASK = 0x07
CODEC_MAX = 4
TIMESTAMP_TYPE_BIT = 0x08
TRANSACTIONAL_BIT = 0x10
CONTROL_BIT = 0x20

SEQUENCE_MAX = 0x7FFFFFFF
NO_TIMESTAMP = -1

HEADER = Struct(">qiibIhiqqqhii")
WALK = Struct(">qiibIhi")
"""The prefix of the header that a walk over batches needs."""
ASSIGN = Struct(">qii")
"""Base offset, length, leader epoch: what an append patches."""
CRC_FIELD = Struct(">I")

_CHUNK = 1 << 20


class Header(NamedTuple):
    """The 61 bytes, decoded."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def size(self) -> int:
        """Bytes of the whole batch."""
        return self.length + LOG_OVERHEAD

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def last_sequence(self) -> int:
        """The sequence of the last record; sequences wrap to 0 after 2^31 - 1. -1 if there are none."""
        if self.base_sequence < 0:
            return -1
        return (self.base_sequence + self.last_offset_delta) & SEQUENCE_MAX

    @property
    def is_control(self) -> bool:
        return bool(self.attributes & CONTROL_BIT)

    @property
    def is_transactional(self) -> bool:
        return bool(self.attributes & TRANSACTIONAL_BIT)


def parse_header(buffer: Buffer, position: int = 0) -> Header:
    """The header at `position`; the caller knows that 61 bytes are there."""
    return Header._make(HEADER.unpack_from(buffer, position))


class Damage(Exception):  # noqa: N818 - a finding about the disk, handled where it is found
    """The bytes at a position of a segment are not a valid batch."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(position, reason)
        self.position = position
        self.reason = reason


def walk_headers(file: File, position: int, end: int, *, chunk: int = 8192) -> Iterator[tuple[int, Header]]:
    """(position, header) of each batch in [position, end), from headers alone; nothing is verified but the frame.

    Raises `Damage` where the bytes cannot be a header, or where a batch reaches beyond `end`.
    """
    data, start = b"", position
    while position < end:
        at = position - start
        if at + HEADER_SIZE > len(data):
            data, start, at = file.pread(min(chunk, end - position), position), position, 0
            if len(data) < HEADER_SIZE:
                raise Damage(position, f"{len(data)} bytes are no header")
        header = parse_header(data, at)
        if header.magic != 2 or header.length < LENGTH_MIN or header.last_offset_delta < 0:
            raise Damage(position, f"no batch header (magic {header.magic}, length {header.length})")
        if position + header.size > end:
            raise Damage(position, f"a batch of {header.size} bytes with {end - position} left")
        yield position, header
        position += header.size


def scan_batches(file: File, position: int, end: int) -> Iterator[tuple[int, Header, memoryview]]:
    """(position, header, bytes) of each batch in [position, end), CRC verified. Raises `Damage`."""
    view, start = memoryview(b""), position
    while position < end:
        at = position - start
        if at + HEADER_SIZE > len(view):
            view, start, at = memoryview(file.pread(min(_CHUNK, end - position), position)), position, 0
            if len(view) < HEADER_SIZE:
                raise Damage(position, f"{len(view)} bytes are no header")
        header = Header._make(HEADER.unpack_from(view, at))
        if header.magic != 2 or header.length < LENGTH_MIN or header.last_offset_delta < 0:
            raise Damage(position, f"no batch header (magic {header.magic}, length {header.length})")
        size = header.length + LOG_OVERHEAD
        if position + size > end:
            raise Damage(position, f"a batch of {size} bytes with {end - position} left")
        if at + size > len(view):
            view, start, at = memoryview(file.pread(max(_CHUNK, size), position)), position, 0
            if len(view) < size:
                raise Damage(position, f"a batch of {size} bytes, {len(view)} readable")
        batch = view[at : at + size]
        if crc32c(batch[CRC_START:]) != header.crc:
            raise Damage(position, "the CRC does not match")
        yield position, header, batch
        position += size
