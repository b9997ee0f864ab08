"""The codecs of record batches: gzip, snappy, lz4 and zstd, each with a bound on what it may put out.

What is written is what Kafka's own producer writes: gzip; snappy in the framing of xerial's snappy-java with
blocks of 32 KB; lz4 frames of independent 64 KB blocks without content size or checksum (the only kind that
the Java client reads); zstd. What is read is also what other producers write: snappy without framing, gzip
and zstd of several members or frames.

A decompressor never makes more than `limit` + 1 bytes, whatever its input promises. The libraries are
imported when a codec is first used, because most nodes never open a batch.
"""

import sys
import zlib
from collections.abc import Callable, Iterator
from enum import IntEnum
from struct import Struct
from typing import NamedTuple, Protocol

from odradek.wire.errors import ErrorCode, KafkaError


class Codec(IntEnum):
    """The compression type in the attributes of a batch (bits 0 to 2)."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


class _Decompressor(Protocol):
    """What zlib and zstd have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes | bytearray | memoryview, max_length: int, /) -> bytes: ...


class LevelRange(NamedTuple):
    """The levels of a codec, as in Kafka's `compression.<codec>.level` (KIP-390)."""

    lowest: int
    highest: int
    default: int


LEVELS = {
    Codec.GZIP: LevelRange(1, 9, -1),
    Codec.LZ4: LevelRange(1, 17, 9),
    Codec.ZSTD: LevelRange(-131072, 22, 3),
}
"""Those that have levels; the default is valid even where it lies outside the range."""

_FRAMES_MAX = 64  # gzip members or zstd frames of one payload; each costs a copy of what follows it
_GZIP_WBITS = 31  # a gzip header and trailer around deflate
_LZ4_DEFAULT_LEVEL = 9  # Kafka's default number; its client takes the fast compressor for it, not level 9
_LZ4_HIGH_LEVEL_MIN = 3  # below it the library silently uses the fast compressor
_LZ4_STEP_MIN = 64 * 1024

_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER = _XERIAL_MAGIC + b"\x00\x00\x00\x01\x00\x00\x00\x01"  # version 1, readable since version 1
_XERIAL_BLOCK_SIZE = 32 * 1024
_INT32 = Struct(">i")

_Buffer = bytes | bytearray | memoryview


def compress(codec: Codec, data: _Buffer, level: int | None = None) -> bytes:
    """Compress `data`; None is Kafka's default level. ValueError for a level the codec does not have."""
    if codec is Codec.NONE:
        return bytes(data)
    if level is not None and codec in LEVELS:
        lowest, highest, default = LEVELS[codec]
        if level != default and not lowest <= level <= highest:
            raise ValueError(f"{codec.name.lower()} has levels {lowest} to {highest}, not {level}")
    return _COMPRESSORS[codec](data, level)


def decompress(codec: Codec, data: _Buffer, limit: int) -> bytes:
    """Decompress a whole payload of at most `limit` bytes.

    Raises KafkaError: MESSAGE_TOO_LARGE when there is more than `limit`, CORRUPT_MESSAGE when the data is
    damaged, ends early, or goes on after its end.
    """
    if codec is Codec.NONE:
        if len(data) > limit:
            raise _too_large(limit)
        return bytes(data)
    return _DECOMPRESSORS[codec](data, limit)


def _too_large(limit: int) -> KafkaError:
    return KafkaError(ErrorCode.MESSAGE_TOO_LARGE, f"the records decompress to more than {limit} bytes")


def _corrupt(codec: Codec, why: object) -> KafkaError:
    return KafkaError(ErrorCode.CORRUPT_MESSAGE, f"cannot decompress {codec.name.lower()} records: {why}")


# gzip


def _gzip_compress(data: _Buffer, level: int | None) -> bytes:
    return zlib.compress(data, -1 if level is None else level, _GZIP_WBITS)


def _gzip_decompress(data: _Buffer, limit: int) -> bytes:
    return _decompress_frames(data, limit, Codec.GZIP, lambda: zlib.decompressobj(_GZIP_WBITS), zlib.error)


def _decompress_frames(
    data: _Buffer,
    limit: int,
    codec: Codec,
    decompressor: Callable[[], "_Decompressor"],
    failure: type[Exception],
) -> bytes:
    """Members of gzip or frames of zstd, one after the other: a decompressor for each."""
    parts: list[bytes] = []
    left = limit
    for _ in range(_FRAMES_MAX):
        frame = decompressor()
        try:
            part = frame.decompress(data, left + 1)
        except failure as error:
            raise _corrupt(codec, error) from error
        left -= len(part)
        if left < 0:
            raise _too_large(limit)
        if not frame.eof:
            raise _corrupt(codec, "the data ends early")
        parts.append(part)
        data = frame.unused_data
        if not data:
            return parts[0] if len(parts) == 1 else b"".join(parts)
    raise _corrupt(codec, f"more than {_FRAMES_MAX} frames")


# snappy


def _snappy_compress(data: _Buffer, level: int | None) -> bytes:
    from cramjam import snappy

    out = bytearray(_XERIAL_HEADER)
    view = memoryview(data)
    for start in range(0, len(view), _XERIAL_BLOCK_SIZE):
        block = snappy.compress_raw(view[start : start + _XERIAL_BLOCK_SIZE])
        out += _INT32.pack(len(block))
        out += block
    return bytes(out)


def _snappy_decompress(data: _Buffer, limit: int) -> bytes:
    view = memoryview(data)
    if view[:8] != _XERIAL_MAGIC:
        return _snappy_block(view, limit, limit)
    out = bytearray()
    for block in _xerial_blocks(view):
        out += _snappy_block(block, limit - len(out), limit)
    return bytes(out)


def _xerial_blocks(view: memoryview) -> Iterator[memoryview]:
    pos = 0
    end = len(view)
    while pos < end:
        if view[pos : pos + 8] == _XERIAL_MAGIC:  # several streams may follow each other
            pos += len(_XERIAL_HEADER)
            if pos > end:
                raise _corrupt(Codec.SNAPPY, "the header ends early")
            continue
        if end - pos < 4:
            raise _corrupt(Codec.SNAPPY, "a block length ends early")
        (size,) = _INT32.unpack_from(view, pos)
        pos += 4
        if not 0 <= size <= end - pos:
            raise _corrupt(Codec.SNAPPY, f"a block of {size} bytes, {end - pos} are left")
        yield view[pos : pos + size]
        pos += size


def _snappy_block(block: memoryview, left: int, limit: int) -> bytes:
    """Decompress one block. It opens with its decompressed length: refused before it is allocated."""
    from cramjam import DecompressionError, snappy

    if not block:
        raise _corrupt(Codec.SNAPPY, "an empty block")
    try:
        size = snappy.decompress_raw_len(block)
        if size > left:
            raise _too_large(limit)
        return bytes(snappy.decompress_raw(block))
    except DecompressionError as error:
        raise _corrupt(Codec.SNAPPY, error) from error


# lz4


def _lz4_compress(data: _Buffer, level: int | None) -> bytes:
    from lz4 import frame

    fast = level is None or level == _LZ4_DEFAULT_LEVEL
    return bytes(
        frame.compress(
            data,
            compression_level=0 if fast else max(level or 0, _LZ4_HIGH_LEVEL_MIN),
            block_size=frame.BLOCKSIZE_MAX64KB,
            block_linked=False,
            content_checksum=False,
            store_size=False,
        )
    )


def _lz4_decompress(data: _Buffer, limit: int) -> bytes:
    """The library allocates what it is asked for at once, so it is asked for growing pieces."""
    from lz4.frame import LZ4FrameDecompressor

    decompressor = LZ4FrameDecompressor()
    parts: list[bytes] = []
    left = limit
    step = max(_LZ4_STEP_MIN, 4 * len(data))
    while not decompressor.eof:
        try:
            part = decompressor.decompress(data, max_length=min(step, left + 1))
        except RuntimeError as error:
            raise _corrupt(Codec.LZ4, error) from error
        left -= len(part)
        if left < 0:
            raise _too_large(limit)
        if not part and not decompressor.eof:
            raise _corrupt(Codec.LZ4, "the data ends early")
        parts.append(part)
        step *= 2
        data = b""
    if decompressor.unused_data:
        raise _corrupt(Codec.LZ4, "data after the end of the frame")
    return parts[0] if len(parts) == 1 else b"".join(parts)


# zstd


def _zstd_compress(data: _Buffer, level: int | None) -> bytes:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd

    return zstd.compress(data, LEVELS[Codec.ZSTD][2] if level is None else level)


def _zstd_decompress(data: _Buffer, limit: int) -> bytes:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd

    return _decompress_frames(data, limit, Codec.ZSTD, zstd.ZstdDecompressor, zstd.ZstdError)


_COMPRESSORS = {
    Codec.GZIP: _gzip_compress,
    Codec.SNAPPY: _snappy_compress,
    Codec.LZ4: _lz4_compress,
    Codec.ZSTD: _zstd_compress,
}
_DECOMPRESSORS = {
    Codec.GZIP: _gzip_decompress,
    Codec.SNAPPY: _snappy_decompress,
    Codec.LZ4: _lz4_decompress,
    Codec.ZSTD: _zstd_decompress,
}
