"""The codecs: each framing that producers write is read, output is bounded, damage is an error of Kafka's."""

import gzip
import subprocess
import sys
import tracemalloc
from random import Random
from struct import pack

import cramjam
import lz4.frame
import pytest

from odradek.wire.compression import LEVELS, Codec, compress, decompress
from odradek.wire.errors import ErrorCode, KafkaError

LIMIT = 1 << 20
CODECS = list(Codec)[1:]
TEXT = b"".join(b"line %d of a text\n" % n for n in range(9000))
NOISE = Random(1).randbytes(200_000)
XERIAL = b"\x82SNAPPY\0" + pack(">ii", 1, 1)


def raw_snappy(data: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(data))


def zstd_frame(data: bytes) -> bytes:
    return compress(Codec.ZSTD, data)


def refused(
    codec: Codec, data: bytes, code: ErrorCode = ErrorCode.CORRUPT_MESSAGE, limit: int = LIMIT
) -> str:
    with pytest.raises(KafkaError) as caught:
        decompress(codec, data, limit)
    assert caught.value.code is code
    return caught.value.message or ""


@pytest.mark.parametrize(
    "data", [b"", b"x", TEXT, NOISE, bytes(LIMIT)], ids=["empty", "byte", "text", "noise", "zeros"]
)
@pytest.mark.parametrize("codec", Codec)
def test_what_goes_in_comes_out(codec: Codec, data: bytes) -> None:
    for kind in (bytes, bytearray, memoryview):
        packed = compress(codec, kind(data))
        assert isinstance(packed, bytes)
        assert decompress(codec, kind(packed), len(data)) == data


@pytest.mark.parametrize("data", [b"x", TEXT, NOISE], ids=["byte", "text", "noise"])
@pytest.mark.parametrize("codec", Codec)
def test_one_byte_over_the_limit_is_too_large(codec: Codec, data: bytes) -> None:
    packed = compress(codec, data)
    refused(codec, packed, ErrorCode.MESSAGE_TOO_LARGE, len(data) - 1)
    refused(codec, packed, ErrorCode.MESSAGE_TOO_LARGE, 0)


@pytest.mark.parametrize("codec", CODECS)
def test_a_bomb_costs_memory_of_the_limit_not_of_its_output(codec: Codec) -> None:
    bomb = compress(codec, bytes(64 << 20))
    decompress(codec, compress(codec, b"x"), 1)  # the library is imported
    tracemalloc.start()
    try:
        refused(codec, bomb, ErrorCode.MESSAGE_TOO_LARGE, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 6 * LIMIT + 2 * len(bomb)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("codec", CODECS)
def test_data_that_ends_early_is_corrupt(codec: Codec) -> None:
    packed = compress(codec, TEXT[:3000])
    for cut in range(len(packed)):
        if codec is Codec.SNAPPY and cut == len(XERIAL):
            continue  # a stream of no blocks
        refused(codec, packed[:cut])


@pytest.mark.parametrize("codec", CODECS)
def test_data_behind_the_end_is_corrupt(codec: Codec) -> None:
    refused(codec, compress(codec, TEXT) + b"junk")


@pytest.mark.parametrize("codec", CODECS)
def test_random_bytes_are_corrupt_or_too_large(codec: Codec) -> None:
    rng = Random(2)
    for size in range(1, 200):
        with pytest.raises(KafkaError) as caught:
            decompress(codec, b"\xff" + rng.randbytes(size), 10)
        assert caught.value.code in (ErrorCode.CORRUPT_MESSAGE, ErrorCode.MESSAGE_TOO_LARGE)


@pytest.mark.parametrize("codec", LEVELS)
def test_levels_are_those_of_kafka(codec: Codec) -> None:
    lowest, highest, default = LEVELS[codec]
    for level in (lowest, highest, default):
        assert decompress(codec, compress(codec, TEXT, level), len(TEXT)) == TEXT
    for level in (lowest - 1, highest + 1):
        with pytest.raises(ValueError, match=rf"levels {lowest} to {highest}, not {level}"):
            compress(codec, TEXT, level)
    assert compress(codec, TEXT) == compress(codec, TEXT, default)


@pytest.mark.parametrize("codec", LEVELS)
def test_a_high_level_compresses_more(codec: Codec) -> None:
    assert len(compress(codec, TEXT, LEVELS[codec].highest)) < len(
        compress(codec, TEXT, LEVELS[codec].lowest)
    )


@pytest.mark.parametrize("codec", CODECS)
def test_the_output_is_a_function_of_the_input(codec: Codec) -> None:
    """No clock in it, as the header of gzip could have."""
    assert compress(codec, TEXT) == compress(codec, TEXT)


# gzip


def test_gzip_of_several_members_is_read() -> None:
    assert decompress(Codec.GZIP, gzip.compress(b"one ") + gzip.compress(b"two"), 7) == b"one two"
    refused(Codec.GZIP, gzip.compress(b"one ") + gzip.compress(b"two"), ErrorCode.MESSAGE_TOO_LARGE, 6)


def test_gzip_with_a_wrong_checksum_is_corrupt() -> None:
    packed = bytearray(gzip.compress(TEXT))
    packed[-8] ^= 1
    refused(Codec.GZIP, packed)


def test_deflate_without_the_header_of_gzip_is_corrupt() -> None:
    import zlib

    refused(Codec.GZIP, zlib.compress(TEXT))


# snappy


def test_snappy_is_written_as_by_java_in_blocks_of_32_kb() -> None:
    packed = compress(Codec.SNAPPY, NOISE)
    assert packed.startswith(XERIAL)
    pos, sizes = len(XERIAL), []
    while pos < len(packed):
        size = int.from_bytes(packed[pos : pos + 4], "big")
        sizes.append(cramjam.snappy.decompress_raw_len(packed[pos + 4 : pos + 4 + size]))
        pos += 4 + size
    assert sizes == [32768] * 6 + [200_000 - 6 * 32768]


def test_snappy_without_framing_is_read() -> None:
    """As librdkafka and franz-go write it."""
    assert decompress(Codec.SNAPPY, raw_snappy(TEXT), len(TEXT)) == TEXT
    assert decompress(Codec.SNAPPY, raw_snappy(b""), 0) == b""


def test_snappy_streams_that_follow_each_other_are_read() -> None:
    stream = compress(Codec.SNAPPY, b"one ")
    assert decompress(Codec.SNAPPY, stream + compress(Codec.SNAPPY, b"two"), 10) == b"one two"
    assert decompress(Codec.SNAPPY, XERIAL + stream, 10) == b"one "


def test_a_snappy_block_that_promises_too_much_is_refused_unread() -> None:
    promise = b"\xff\xff\xff\xff\x0f"  # 4 GB
    refused(Codec.SNAPPY, promise + b"\0a", ErrorCode.MESSAGE_TOO_LARGE)
    refused(Codec.SNAPPY, XERIAL + pack(">i", 7) + promise + b"\0a", ErrorCode.MESSAGE_TOO_LARGE)


def test_snappy_blocks_are_bounded_together() -> None:
    block = raw_snappy(bytes(1000))
    framed = XERIAL + (pack(">i", len(block)) + block) * 3
    assert decompress(Codec.SNAPPY, framed, 3000) == bytes(3000)
    refused(Codec.SNAPPY, framed, ErrorCode.MESSAGE_TOO_LARGE, 2999)


@pytest.mark.parametrize(
    "blocks",
    [
        b"\0\0",
        pack(">i", 10) + b"short",
        pack(">i", -1),
        pack(">i", 2**31 - 1) + b"x",
        pack(">i", 0),
    ],
)
def test_snappy_blocks_with_wrong_lengths_are_corrupt(blocks: bytes) -> None:
    refused(Codec.SNAPPY, XERIAL + blocks)


# lz4


def test_lz4_is_the_one_kind_of_frame_that_java_reads() -> None:
    """Version 1, independent blocks of 64 KB, no checksums, no content size, as the Java client."""
    for level in (None, 1, 17):
        assert compress(Codec.LZ4, TEXT, level)[:7] == bytes.fromhex("04224d18604082")


@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize("block_size", [lz4.frame.BLOCKSIZE_MAX64KB, lz4.frame.BLOCKSIZE_MAX4MB])
def test_lz4_frames_of_other_producers_are_read(linked: bool, block_size: int) -> None:
    packed = lz4.frame.compress(
        TEXT,
        block_linked=linked,
        block_size=block_size,
        content_checksum=True,
        block_checksum=True,
        store_size=True,
    )
    assert decompress(Codec.LZ4, packed, len(TEXT)) == TEXT
    refused(Codec.LZ4, packed[:-1] + bytes([packed[-1] ^ 1]))


def test_lz4_output_larger_than_one_step_is_complete() -> None:
    assert decompress(Codec.LZ4, compress(Codec.LZ4, bytes(LIMIT)), LIMIT) == bytes(LIMIT)


# zstd


def test_zstd_of_several_frames_is_read() -> None:
    assert decompress(Codec.ZSTD, zstd_frame(b"one ") + zstd_frame(b"two"), 7) == b"one two"


@pytest.mark.parametrize("codec", [Codec.GZIP, Codec.ZSTD])
def test_endless_empty_frames_are_refused(codec: Codec) -> None:
    """Each would cost a copy of all that follow."""
    assert "more than 64" in refused(codec, compress(codec, b"") * 100_000)


def test_zstd_that_wants_a_huge_window_is_refused() -> None:
    """A frame header may ask for terabytes of memory; 128 MB is the bound, as in Java."""
    header = bytes.fromhex("28b52ffd00") + bytes([(31 - 10) << 3])
    refused(Codec.ZSTD, header + bytes.fromhex("010000"))


# imports


def test_libraries_are_imported_on_first_use_only() -> None:
    code = (
        "import sys, odradek.wire.records; "
        "print(*({'cramjam', 'lz4', 'backports.zstd', 'compression.zstd'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []
