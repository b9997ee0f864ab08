"""Building and reading record batches: what callers rely on."""

import pytest

from odradek.wire.compression import Codec
from odradek.wire.errors import ErrorCode, KafkaError, MalformedMessage
from odradek.wire.records import (
    ATTRIBUTES_AT,
    BASE_OFFSET_AT,
    CRC_AT,
    HEADER_SIZE,
    LEADER_EPOCH_AT,
    LENGTH_AT,
    MAGIC_AT,
    BatchHeader,
    ControlType,
    Record,
    build_batch,
    control_batch,
    control_type,
    crc_ok,
    increment_sequence,
    iter_batches,
    parse_end_txn_marker,
    parse_header,
    read_records,
    seal,
    simple_batch,
)

LIMIT = 1 << 20


def batch_of(*values: bytes, base_offset: int = 0, codec: Codec = Codec.NONE) -> bytearray:
    return simple_batch(
        [(None, value) for value in values], base_offset=base_offset, timestamp=1000, codec=codec
    )


# Building


def test_simple_batch_numbers_its_records() -> None:
    batch = simple_batch([(b"a", b"1"), (None, None)], base_offset=40, timestamp=1234, leader_epoch=2)
    assert read_records(batch, limit=LIMIT) == [
        Record(40, 1234, b"a", b"1"),
        Record(41, 1234, None, None),
    ]
    header = parse_header(batch)
    assert (header.base_offset, header.last_offset, header.count) == (40, 41, 2)
    assert (header.base_timestamp, header.max_timestamp, header.leader_epoch) == (1234, 1234, 2)


def test_simple_batch_carries_a_producer() -> None:
    batch = simple_batch(
        [(b"a", b"1")],
        base_offset=0,
        timestamp=0,
        producer_id=7,
        producer_epoch=1,
        base_sequence=3,
        transactional=True,
    )
    header = parse_header(batch)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 1, 3)
    assert header.is_transactional


@pytest.mark.parametrize("codec", Codec)
def test_every_codec_gives_its_records_back(codec: Codec) -> None:
    batch = batch_of(*(b"value-%d" % n for n in range(500)), codec=codec)
    assert crc_ok(batch)
    assert parse_header(batch).codec is codec
    records = read_records(batch, limit=LIMIT)
    assert [record.value for record in records] == [b"value-%d" % n for n in range(500)]
    assert [record.offset for record in records] == list(range(500))


def test_compressed_batches_are_smaller() -> None:
    values = [b"the same again"] * 500
    plain = len(batch_of(*values))
    assert all(len(batch_of(*values, codec=codec)) < plain / 2 for codec in list(Codec)[1:])


def test_the_level_reaches_the_codec() -> None:
    records = [Record(n, 0, None, b"%d" % (n * n)) for n in range(3000)]
    low = build_batch(records, codec=Codec.ZSTD, level=-100)
    high = build_batch(records, codec=Codec.ZSTD, level=19)
    assert len(high) < len(low)
    assert read_records(high, limit=LIMIT) == read_records(low, limit=LIMIT) == records


def test_max_timestamp_is_the_largest_not_the_last() -> None:
    header = parse_header(
        build_batch([Record(0, 50, None, b""), Record(1, 70, None, b""), Record(2, 60, None, b"")])
    )
    assert (header.base_timestamp, header.max_timestamp) == (50, 70)


def test_a_thinned_out_batch_keeps_its_range() -> None:
    batch = build_batch(
        [Record(12, 0, b"k", b"v"), Record(15, 0, b"l", b"w")], base_offset=10, last_offset=19
    )
    header = parse_header(batch)
    assert (header.base_offset, header.last_offset, header.count) == (10, 19, 2)
    assert [record.offset for record in read_records(batch, limit=LIMIT)] == [12, 15]


def test_offset_and_leader_epoch_are_set_without_a_new_checksum() -> None:
    batch = batch_of(b"a", b"b")
    batch[BASE_OFFSET_AT : BASE_OFFSET_AT + 8] = (1 << 33).to_bytes(8, "big")
    batch[LEADER_EPOCH_AT : LEADER_EPOCH_AT + 4] = (9).to_bytes(4, "big")
    assert crc_ok(batch)
    assert [record.offset for record in read_records(batch, limit=LIMIT)] == [1 << 33, (1 << 33) + 1]
    assert parse_header(batch).leader_epoch == 9


def test_seal_makes_a_changed_batch_valid_again() -> None:
    batch = batch_of(b"a")
    batch[ATTRIBUTES_AT + 1] |= 0x10
    assert not crc_ok(batch)
    seal(batch)
    assert crc_ok(batch)


def test_header_keys_that_are_no_utf8_survive() -> None:
    batch = batch_of(b"v")
    record = Record(0, 1, None, None, [(b"\xff\xfe".decode("utf-8", "surrogateescape"), b"x")])
    batch = build_batch([record])
    assert b"\xff\xfe" in batch
    assert read_records(batch, limit=LIMIT) == [record]


# Headers


def test_the_header_says_its_size() -> None:
    batch = batch_of(b"abc")
    assert parse_header(batch).size == len(batch)
    assert parse_header(b"\0" * 7 + batch, 7) == parse_header(batch)
    assert parse_header(memoryview(batch)) == parse_header(bytes(batch))


def test_attributes_have_names() -> None:
    header = parse_header(batch_of(b""))
    assert not (header.is_control or header.is_transactional or header.is_log_append_time)
    assert header.delete_horizon_ms is None
    header = header._replace(attributes=0x7B)
    assert header.is_control and header.is_transactional and header.is_log_append_time
    assert header.codec is Codec.LZ4
    assert header.delete_horizon_ms == header.base_timestamp == 1000


@pytest.mark.parametrize("number", [5, 6, 7])
def test_an_unknown_codec_is_named(number: int) -> None:
    batch = batch_of(b"v")
    batch[ATTRIBUTES_AT + 1] = number
    with pytest.raises(KafkaError, match=f"UNSUPPORTED_COMPRESSION_TYPE.*{number}"):
        read_records(batch, limit=LIMIT)


def test_sequences_wrap_to_zero() -> None:
    assert increment_sequence(2**31 - 1, 1) == 0
    assert increment_sequence(2**31 - 2, 1) == 2**31 - 1
    assert increment_sequence(2**31 - 1, 2**31 - 1) == 2**31 - 2


def test_no_sequence_has_no_last_one() -> None:
    assert parse_header(batch_of(b"a", b"b")).last_sequence == -1


@pytest.mark.parametrize("size", [0, 16, 17, HEADER_SIZE - 1])
def test_a_short_header_is_malformed(size: int) -> None:
    with pytest.raises(MalformedMessage, match="61 bytes"):
        parse_header(batch_of(b"v")[:size])


@pytest.mark.parametrize("length", [-(2**31), -1, 0, 48])
def test_a_batch_shorter_than_its_header_is_corrupt(length: int) -> None:
    batch = batch_of(b"v")
    batch[LENGTH_AT : LENGTH_AT + 4] = length.to_bytes(4, "big", signed=True)
    with pytest.raises(KafkaError) as caught:
        parse_header(batch)
    assert caught.value.code is ErrorCode.CORRUPT_MESSAGE


@pytest.mark.parametrize("magic, size", [(0, 34), (1, 42), (1, 200)])
def test_old_message_formats_are_refused_by_name(magic: int, size: int) -> None:
    message = bytearray(size)
    message[LENGTH_AT : LENGTH_AT + 4] = (size - 12).to_bytes(4, "big")
    message[MAGIC_AT] = magic
    for read in (parse_header, lambda buf: list(iter_batches(buf)), lambda buf: read_records(buf, limit=1)):
        with pytest.raises(KafkaError, match=f"UNSUPPORTED_FOR_MESSAGE_FORMAT.*v{magic}"):
            read(message)


@pytest.mark.parametrize("magic", [3, 127, 255])
def test_a_magic_that_never_was_is_corrupt(magic: int) -> None:
    batch = batch_of(b"v")
    batch[MAGIC_AT] = magic
    for read in (parse_header, lambda buf: list(iter_batches(buf))):
        with pytest.raises(KafkaError, match="CORRUPT_MESSAGE"):
            read(batch)


# Several batches


def test_iter_batches_gives_positions_and_headers() -> None:
    first, second = batch_of(b"a"), batch_of(b"bb", base_offset=1)
    found = list(iter_batches(first + second))
    assert found == [(0, parse_header(first)), (len(first), parse_header(second))]
    assert list(iter_batches(b"")) == []


def test_iter_batches_stops_before_a_torn_tail() -> None:
    first, second = batch_of(b"a"), batch_of(b"bb", base_offset=1)
    for cut in range(len(second)):
        found = list(iter_batches(first + second[:cut]))
        assert [pos for pos, _ in found] == [0], f"cut at {cut}"


def test_iter_batches_refuses_what_follows_a_batch_and_is_none() -> None:
    batches = iter_batches(batch_of(b"a") + bytes(100))
    assert next(batches)[0] == 0
    with pytest.raises(KafkaError, match="CORRUPT_MESSAGE"):
        next(batches)


# Checksums


def test_each_changed_byte_behind_the_checksum_is_found() -> None:
    batch = batch_of(b"value", b"other")
    for at in range(CRC_AT, len(batch)):
        damaged = bytearray(batch)
        damaged[at] ^= 0x40
        assert not crc_ok(damaged), f"byte {at}"


def test_a_batch_without_a_header_has_no_right_checksum() -> None:
    assert not crc_ok(b"")
    assert not crc_ok(batch_of(b"v")[: HEADER_SIZE - 1])


# Control records


def test_the_key_of_a_control_record_tells_its_type() -> None:
    batch = control_batch([(ControlType.KRAFT_VOTERS, b"x")], base_offset=3, timestamp=5)
    header = parse_header(batch)
    assert header.is_control and not header.is_transactional
    (record,) = read_records(batch, limit=LIMIT)
    assert control_type(record.key) is ControlType.KRAFT_VOTERS
    assert record.value == b"x"


def test_control_types_of_the_future_are_unknown_not_errors() -> None:
    assert control_type(b"\0\0\0\x07") is ControlType.UNKNOWN
    assert control_type(b"\0\0\xff\xff") is ControlType.UNKNOWN
    assert control_type(b"\0\x05\0\0more") is ControlType.ABORT


@pytest.mark.parametrize("key", [None, b"", b"\0\0\0", b"\xff\xff\0\0"])
def test_a_control_record_needs_its_key(key: bytes | None) -> None:
    with pytest.raises(KafkaError, match="INVALID_RECORD"):
        control_type(key)


@pytest.mark.parametrize(
    "key, value",
    [
        (b"\0\0\0\2", bytes(6)),
        (b"\0\0\0\1", None),
        (b"\0\0\0\1", bytes(5)),
        (b"\0\0\0\0", b"\xff\xff\0\0\0\0"),
    ],
)
def test_what_does_not_end_a_transaction_is_no_end_marker(key: bytes, value: bytes | None) -> None:
    with pytest.raises(KafkaError, match="INVALID_RECORD"):
        parse_end_txn_marker(Record(0, 0, key, value))


def test_a_header_is_a_plain_tuple() -> None:
    header = parse_header(batch_of(b"v"))
    assert isinstance(header, BatchHeader)
    assert header == tuple(header)
