"""Record batches in files: headers walked over, batches verified; and what an append patches in place.

The layout, and the header's fields, are those of `odradek.wire.records`.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

from crc32c import crc32c

from odradek.ports.disk import Buffer, File
from odradek.wire.compression import Codec
from odradek.wire.records import ATTRIBUTES_AT, HEADER, HEADER_SIZE, LENGTH_MIN, LOG_OVERHEAD, BatchHeader

__all__ = [
    "ASSIGN",
    "CODEC_MAX",
    "CRC_FIELD",
    "CRC_START",
    "HEADER",
    "HEADER_SIZE",
    "LOG_OVERHEAD",
    "SEQUENCE_MAX",
    "WALK",
    "Damage",
    "parse_header",
    "scan_batches",
    "walk_headers",
]

CRC_START = ATTRIBUTES_AT
"""The CRC covers everything from here on, so base offset and leader epoch are patched without touching it."""
CODEC_MAX = int(Codec.ZSTD)
SEQUENCE_MAX = 0x7FFFFFFF

WALK = Struct(">qiibIhi")
"""The prefix of the header that a walk over batches needs."""
ASSIGN = Struct(">qii")
"""Base offset, length, leader epoch: what an append patches."""
CRC_FIELD = Struct(">I")

_CHUNK = 1 << 20


def parse_header(buffer: Buffer, position: int = 0) -> BatchHeader:
    """The header at `position`, unchecked; the caller knows that 61 bytes are there."""
    return BatchHeader._make(HEADER.unpack_from(buffer, position))


class Damage(Exception):  # noqa: N818 - a finding about the disk, handled where it is found
    """The bytes at a position of a segment are not a valid batch."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(position, reason)
        self.position = position
        self.reason = reason


def walk_headers(
    file: File, position: int, end: int, *, chunk: int = 8192
) -> Iterator[tuple[int, BatchHeader]]:
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


def scan_batches(file: File, position: int, end: int) -> Iterator[tuple[int, BatchHeader, memoryview]]:
    """(position, header, bytes) of each batch in [position, end), CRC verified. Raises `Damage`."""
    view, start = memoryview(b""), position
    while position < end:
        at = position - start
        if at + HEADER_SIZE > len(view):
            view, start, at = memoryview(file.pread(min(_CHUNK, end - position), position)), position, 0
            if len(view) < HEADER_SIZE:
                raise Damage(position, f"{len(view)} bytes are no header")
        header = BatchHeader._make(HEADER.unpack_from(view, at))
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
