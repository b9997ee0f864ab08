"""Batches whose records are not what the header says: a Kafka error each, never a wrong record."""

from collections.abc import Callable

import pytest

from odradek.wire.compression import Codec, compress
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.record_body import parse_records, read_varint, varint
from odradek.wire.records import (
    ATTRIBUTES_AT,
    COUNT_AT,
    HEADER_SIZE,
    LENGTH_AT,
    Record,
    build_batch,
    read_records,
    simple_batch,
)

LIMIT = 1 << 20
RECORDS = [Record(0, 1, b"key", b"value", [("name", b"content")]), Record(1, 2, None, b"v" * 100)]


def body_of(*fields: int | bytes) -> bytes:
    """A record of these fields behind its right length: numbers become varints."""
    body = b"\0" + b"".join(field if isinstance(field, bytes) else varint(field) for field in fields)
    return varint(len(body)) + body


def with_records(payload: bytes, count: int) -> bytearray:
    batch = simple_batch([(None, None)], base_offset=0, timestamp=0)[:HEADER_SIZE] + payload
    batch[LENGTH_AT : LENGTH_AT + 4] = (len(batch) - 12).to_bytes(4, "big")
    batch[COUNT_AT : COUNT_AT + 4] = count.to_bytes(4, "big", signed=True)
    return batch


def refused(batch: bytes | bytearray, code: ErrorCode = ErrorCode.INVALID_RECORD) -> str:
    with pytest.raises(KafkaError) as caught:
        read_records(batch, limit=LIMIT)
    assert caught.value.code is code
    return caught.value.message or ""


GOOD = body_of(0, 0, 1, b"k", 1, b"v", 0)


def test_the_pattern_of_these_tests_is_valid() -> None:
    assert read_records(with_records(GOOD, 1), limit=LIMIT) == [Record(0, 0, b"k", b"v")]


@pytest.mark.parametrize("count", [2, 3, 2**31 - 1, -1, -(2**31)])
def test_the_count_must_fit_the_records(count: int) -> None:
    refused(with_records(GOOD, count))


@pytest.mark.parametrize("extra", [b"\0", GOOD, bytes(100)])
def test_bytes_behind_the_last_record_are_refused(extra: bytes) -> None:
    assert "follow the last record" in refused(with_records(GOOD + extra, 1))


@pytest.mark.parametrize("cut", range(1, len(GOOD)))
def test_a_record_that_ends_early_is_refused(cut: int) -> None:
    padding = varint(6) + bytes(6) if cut < 7 else b""  # so that the count alone does not give it away
    refused(with_records(GOOD[:-cut] + padding, 1))


@pytest.mark.parametrize(
    "record",
    [
        varint(-1) + bytes(10),
        varint(2**31 - 1) + bytes(10),
        varint(0) + bytes(10),
        body_of(0, 0, 100, b"k", 1, b"v", 0),
        body_of(0, 0, 2**31 - 1, b"k", 1, b"v", 0),
        body_of(0, 0, 1, b"k", 100, b"v", 0),
        body_of(0, 0, 1, b"k", 2**31 - 1, b"v", 0),
        body_of(0, 0, 1, b"k", 1, b"v", 0, b"x"),
        body_of(0, 0, 1, b"k", 1, b"v", -1),
        body_of(0, 0, 1, b"k", 1, b"v", 1),
        body_of(0, 0, 1, b"k", 1, b"v", 2**31 - 1),
        body_of(0, 0, 1, b"k", 1, b"v", 1, -1, b"", 1, b"x"),
        body_of(0, 0, 1, b"k", 1, b"v", 1, 100, b"h", 1, b"x"),
        body_of(0, 0, 1, b"k", 1, b"v", 1, 1, b"h", 100, b"x"),
        body_of(b"\xff" * 10 + b"\1", 0, 1, b"k", 1, b"v", 0),
        body_of(0, b"\xff" * 5 + b"\1", 1, b"k", 1, b"v", 0),
        body_of(0, 0, b"\xff\xff\xff\xff\x7f", b"k", 1, b"v", 0),
    ],
    ids=[
        "negative size",
        "huge size",
        "no size",
        "key beyond the record",
        "huge key",
        "value beyond the record",
        "huge value",
        "bytes behind the headers",
        "negative header count",
        "more headers than bytes",
        "huge header count",
        "header without key",
        "header key beyond the record",
        "header value beyond the record",
        "timestamp of more than 64 bits",
        "offset of more than 32 bits",
        "key length of more than 32 bits",
    ],
)
@pytest.mark.parametrize("tail", [b"", GOOD])
def test_a_record_that_contradicts_itself_is_refused(record: bytes, tail: bytes) -> None:
    refused(with_records(record + tail, 2 if tail else 1))


def test_a_batch_that_is_cut_off_is_corrupt() -> None:
    batch = build_batch(RECORDS)
    refused(batch[:-1], ErrorCode.CORRUPT_MESSAGE)
    refused(batch[:HEADER_SIZE], ErrorCode.CORRUPT_MESSAGE)


def test_bytes_behind_the_batch_are_not_looked_at() -> None:
    assert read_records(build_batch(RECORDS) + b"the next batch", limit=LIMIT) == RECORDS


@pytest.mark.parametrize("codec", list(Codec)[1:])
def test_compressed_records_are_checked_like_others(codec: Codec) -> None:
    batch = with_records(compress(codec, GOOD + b"\0"), 1)
    batch[ATTRIBUTES_AT + 1] = codec
    assert "follow the last record" in refused(batch)


@pytest.mark.parametrize("codec", list(Codec)[1:])
def test_a_decompression_bomb_ends_at_the_limit(codec: Codec) -> None:
    batch = with_records(compress(codec, bytes(LIMIT + 1)), 1)
    batch[ATTRIBUTES_AT + 1] = codec
    assert str(LIMIT) in refused(batch, ErrorCode.MESSAGE_TOO_LARGE)


@pytest.mark.parametrize("codec", list(Codec)[1:])
def test_records_that_do_not_decompress_are_corrupt(codec: Codec) -> None:
    batch = with_records(b"\x7fnonsense" * 3, 1)
    batch[ATTRIBUTES_AT + 1] = codec
    refused(batch, ErrorCode.CORRUPT_MESSAGE)


def test_an_empty_batch_has_no_records_whatever_its_codec() -> None:
    batch = with_records(b"", 0)
    batch[ATTRIBUTES_AT + 1] = Codec.ZSTD
    assert read_records(batch, limit=LIMIT) == []


@pytest.mark.parametrize("count", [-1, 3, 1 << 31])
def test_the_count_is_bounded_before_anything_is_read(count: int) -> None:
    with pytest.raises(KafkaError, match="cannot be in 14 bytes"):
        parse_records(bytes(14), count, 0, 0)


# Varints


@pytest.mark.parametrize(
    "value, text",
    [
        (0, "00"),
        (-1, "01"),
        (1, "02"),
        (63, "7e"),
        (-64, "7f"),
        (64, "8001"),
        (-65, "8101"),
        (8191, "fe7f"),
        (-8192, "ff7f"),
        (8192, "808001"),
        (-8193, "818001"),
        (2**31 - 1, "feffffff0f"),
        (-(2**31), "ffffffff0f"),
        (2**63 - 1, "feffffffffffffffff01"),
        (-(2**63), "ffffffffffffffffff01"),
    ],
)
def test_varints_are_those_of_kafka(value: int, text: str) -> None:
    """From ByteUtilsTest of Apache Kafka."""
    assert varint(value).hex() == text
    bits = 32 if -(2**31) <= value < 2**31 else 64
    assert read_varint(bytes.fromhex("00" + text + "00"), 1, bits) == (value, 1 + len(text) // 2)


@pytest.mark.parametrize(
    "bits, text", [(32, "ffffffff10"), (32, "808080808001"), (64, "ff" * 9 + "02"), (64, "80" * 11)]
)
def test_varints_that_are_too_long_are_refused(bits: int, text: str) -> None:
    with pytest.raises(KafkaError, match=r"INVALID_RECORD.*varint"):
        read_varint(bytes.fromhex(text), 0, bits)


@pytest.mark.parametrize("read", [lambda: read_varint(b"", 0), lambda: read_varint(b"\x80\x80", 0)])
def test_a_varint_that_ends_early_is_found(read: Callable[[], object]) -> None:
    with pytest.raises(IndexError):
        read()
