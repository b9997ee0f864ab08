"""Properties of record batches: what is built is read, damage gives nothing but errors of the protocol."""

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from odradek.wire.compression import Codec, compress, decompress
from odradek.wire.errors import KafkaError, MalformedMessage
from odradek.wire.record_body import parse_records, read_varint, varint
from odradek.wire.records import (
    ATTRIBUTES_AT,
    HEADER_SIZE,
    Record,
    build_batch,
    crc_ok,
    iter_batches,
    parse_header,
    read_records,
)
from support.examples import examples

LIMIT = 1 << 20
PROTOCOL_ERRORS = (KafkaError, MalformedMessage)

codecs = st.sampled_from(Codec)
contents = st.none() | st.binary(max_size=200)
headers = st.lists(st.tuples(st.text(max_size=20), contents), max_size=4)


@st.composite
def record_lists(draw: st.DrawFn) -> list[Record]:
    """Records in the order of their offsets, with gaps, any timestamps, any contents."""
    offset = draw(st.integers(0, 2**62))
    records = []
    for gap in draw(st.lists(st.integers(0, 70000), min_size=1, max_size=12)):
        offset += gap
        timestamp = draw(st.integers(-1, 2**50))
        records.append(Record(offset, timestamp, draw(contents), draw(contents), draw(headers)))
        offset += 1
    return records


@given(record_lists(), codecs)
def test_what_is_built_is_read(records: list[Record], codec: Codec) -> None:
    batch = build_batch(records, codec=codec, leader_epoch=5)
    assert crc_ok(batch)
    assert read_records(batch, limit=LIMIT) == records
    header = parse_header(batch)
    assert header.count == len(records)
    assert (header.base_offset, header.last_offset) == (records[0].offset, records[-1].offset)
    assert header.max_timestamp == max(record.timestamp for record in records)


@given(record_lists(), codecs, st.data())
def test_a_cut_batch_is_an_error(records: list[Record], codec: Codec, data: st.DataObject) -> None:
    batch = build_batch(records, codec=codec)
    cut = data.draw(st.integers(0, len(batch) - 1))
    assert list(iter_batches(batch[:cut])) == []
    try:
        read_records(batch[:cut], limit=LIMIT)
    except PROTOCOL_ERRORS:
        return
    raise AssertionError(f"a batch of {len(batch)} bytes, cut at {cut}, was read")


@given(record_lists(), codecs, st.data())
def test_a_changed_byte_is_found_by_the_checksum_and_crashes_nothing(
    records: list[Record], codec: Codec, data: st.DataObject
) -> None:
    batch = build_batch(records, codec=codec)
    at = data.draw(st.integers(ATTRIBUTES_AT, len(batch) - 1))
    batch[at] ^= data.draw(st.integers(1, 255))
    assert not crc_ok(batch)
    with suppress(*PROTOCOL_ERRORS):
        read_records(batch, limit=LIMIT)


@given(st.binary(max_size=300), st.integers(-1, 50))
def test_any_bytes_are_records_or_refused(payload: bytes, count: int) -> None:
    try:
        records = parse_records(payload, count, 0, 0)
    except KafkaError:
        return
    assert len(records) == count


@given(st.binary(max_size=300), st.integers(0, 4))
def test_any_bytes_are_batches_or_refused(payload: bytes, codec: int) -> None:
    batch = build_batch([Record(0, 0, None, None)])[:HEADER_SIZE] + payload
    batch[8:12] = (len(batch) - 12).to_bytes(4, "big")
    batch[ATTRIBUTES_AT + 1] = codec
    for buf in (batch, payload):
        with suppress(*PROTOCOL_ERRORS):
            for pos, header in iter_batches(buf):
                read_records(memoryview(buf)[pos : pos + header.size], header, limit=LIMIT)


@given(st.integers(-(2**63), 2**63 - 1))
def test_varints_come_back(value: int) -> None:
    encoded = varint(value)
    assert len(encoded) <= 10
    assert read_varint(encoded, 0, 64) == (value, len(encoded))


@given(codecs, st.binary(max_size=4000), st.integers(0, 4000))
def test_decompression_gives_all_or_nothing(codec: Codec, data: bytes, limit: int) -> None:
    packed = compress(codec, data)
    if len(data) <= limit:
        assert decompress(codec, packed, limit) == data
        return
    try:
        decompress(codec, packed, limit)
    except KafkaError as error:
        assert error.code.name == "MESSAGE_TOO_LARGE"
        return
    raise AssertionError("more than the limit came out")


@examples(300)
@given(codecs, st.binary(max_size=400), st.integers(0, 3000), st.data())
def test_damaged_compression_never_passes_the_limit(
    codec: Codec, data: bytes, limit: int, draw: st.DataObject
) -> None:
    packed = bytearray(compress(codec, data * 5))
    for _ in range(draw.draw(st.integers(0, 4))):
        if packed:
            packed[draw.draw(st.integers(0, len(packed) - 1))] = draw.draw(st.integers(0, 255))
    with suppress(KafkaError):
        assert len(decompress(codec, packed, limit)) <= limit
