"""`compression.type` of a topic, and what is checked of records in batches that have to be opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from odradek.storage.config import LogConfig
from odradek.storage.conversion import OPENED_BYTES_MAX, RECORD_ERRORS_MAX, TARGETS, InvalidRecords
from odradek.wire.errors import ErrorCode
from odradek.wire.records import (
    COUNT_AT,
    LAST_OFFSET_DELTA_AT,
    MAX_TIMESTAMP_AT,
    Codec,
    Record,
    build_batch,
    crc_ok,
    parse_header,
    read_records,
    seal,
)

NAMES = ["producer", *TARGETS]


def _stored(log: Any) -> bytes:
    return bytes(log.read(0, 1 << 24, end_offset=log.written_end_offset).data)


@pytest.mark.parametrize("source", list(Codec))
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_kept_with_the_codec_of_its_topic(memory_bench: Any, name: str, source: Codec) -> None:
    bench = memory_bench
    log = bench.open(LogConfig(compression_type=name))
    records = [
        Record(i, bench.now + i, None if i % 2 else b"key", b"v" * 300, [("h", b"x"), ("n", None)])
        for i in range(20)
    ]
    batch = build_batch(records, codec=source, producer_id=7, producer_epoch=3, base_sequence=40)
    sent = bytes(batch)
    log.append_as_leader(memoryview(batch), 5, bench.now)
    log.write_staged()
    stored = _stored(log)
    header = parse_header(stored)
    assert header.codec is TARGETS.get(name, source)
    assert crc_ok(stored)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 3, 40)
    assert (header.leader_epoch, header.base_timestamp, header.max_timestamp) == (
        5,
        bench.now,
        bench.now + 19,
    )
    assert read_records(stored, limit=1 << 20) == records
    if header.codec is source:
        assert stored[21:] == sent[21:]


def test_recompressed_batches_continue_each_other_and_a_retry_is_known(memory_bench: Any) -> None:
    bench = memory_bench
    log = bench.open(LogConfig(compression_type="zstd"))
    ids = {"producer_id": 7, "producer_epoch": 0}
    bench.append(log, "a", "b", base_sequence=0, **ids)
    bench.append(log, "c", base_sequence=2, codec=Codec.GZIP, **ids)
    again = log.append_as_leader(bench.batch("a", "b", base_sequence=0, **ids), 0, bench.now)
    assert (again.duplicate, again.base_offset, log.log_end_offset) == (True, 0, 3)
    assert bench.values(log) == ["a", "b", "c"]


def test_a_topic_that_stamps_records_itself_compresses_too(memory_bench: Any) -> None:
    bench = memory_bench
    log = bench.open(LogConfig(compression_type="lz4", timestamp_type="LogAppendTime"))
    bench.append(log, "a", "b", timestamp=5)
    header = parse_header(_stored(log))
    assert (header.codec, header.is_log_append_time, crc_ok(_stored(log))) == (Codec.LZ4, True, True)
    assert [record.timestamp for record in bench.records(log)] == [bench.now] * 2


def test_transactional_batches_stay_transactional_and_markers_are_not_compressed(memory_bench: Any) -> None:
    bench = memory_bench
    log = bench.open(LogConfig(compression_type="gzip"))
    ids = {"producer_id": 7, "producer_epoch": 0}
    log.append_as_leader(
        bench.batch("a", base_sequence=0, transactional=True, **ids), 0, bench.now, transactional=True
    )
    log.append_as_leader(bench.batch("x", control=True), 0, bench.now, allow_control=True)
    log.write_staged()
    stored = _stored(log)
    first = parse_header(stored)
    assert (first.codec, first.is_transactional) == (Codec.GZIP, True)
    assert parse_header(stored, first.size).codec is Codec.NONE
    assert log.in_transaction(7, 0)


@pytest.mark.parametrize("name", ["gzip", "lz4", "zstd"])
def test_levels_reach_the_codec(memory_bench: Any, name: str) -> None:
    bench = memory_bench
    text = " ".join(str(i * i * 2654435761 % 65521) for i in range(20_000))
    sizes = []
    for at, level in enumerate(("1", "9")):
        config = LogConfig.from_topic_configs({"compression.type": name, f"compression.{name}.level": level})
        bench.dir = f"/data/t-{name}-{at}"
        log = bench.open(config)
        bench.append(log, text if name != "lz4" else text * 2)
        sizes.append(log.size_bytes)
    assert sizes[0] != sizes[1]


def test_the_topic_s_codec_may_change_while_it_is_written(memory_bench: Any) -> None:
    bench = memory_bench
    log = bench.open()
    for name in ("producer", "gzip", "uncompressed", "producer"):
        log.set_config(LogConfig(compression_type=name))
        bench.append(log, "x" * 100, codec=Codec.SNAPPY)
    stored, codecs, position = _stored(log), [], 0
    while position < len(stored):
        header = parse_header(stored, position)
        codecs.append(header.codec)
        position += header.size
    assert codecs == [Codec.SNAPPY, Codec.GZIP, Codec.NONE, Codec.SNAPPY]


def test_a_batch_that_outgrows_the_limit_when_it_is_unpacked_is_refused(
    memory_bench: Any, refused: Callable[..., Any]
) -> None:
    bench = memory_bench
    log = bench.open(LogConfig(compression_type="uncompressed", max_message_bytes=1000))
    with refused("MESSAGE_TOO_LARGE", "Message batch size is .* exceeds the maximum configured size of 1000"):
        log.append_as_leader(bench.batch("x" * 2000, codec=Codec.ZSTD), 0, bench.now)
    log.set_config(LogConfig(compression_type="uncompressed", segment_bytes=1000))
    with refused("RECORD_LIST_TOO_LARGE"):
        log.append_as_leader(bench.batch("x" * 2000, codec=Codec.ZSTD), 0, bench.now)
    assert log.log_end_offset == 0
    assert bench.append(log, "y", codec=Codec.ZSTD) == 0


def test_a_bomb_is_refused_before_it_is_unpacked(memory_bench: Any, refused: Callable[..., Any]) -> None:
    bench = memory_bench
    log = bench.open(LogConfig(compression_type="gzip", segment_bytes=1 << 30))
    with refused("MESSAGE_TOO_LARGE"):
        log.append_as_leader(bench.batch(OPENED_BYTES_MAX, codec=Codec.ZSTD), 0, bench.now)
    assert log.log_end_offset == 0


def test_records_that_do_not_decompress_are_corrupt(memory_bench: Any, refused: Callable[..., Any]) -> None:
    bench = memory_bench
    log = bench.open(LogConfig(compression_type="lz4"))
    batch = bytearray(bench.batch("x" * 2000, codec=Codec.ZSTD))
    batch[70:80] = bytes(10)
    seal(batch)
    with refused("CORRUPT_MESSAGE"):
        log.append_as_leader(memoryview(batch), 0, bench.now)


def test_more_or_fewer_records_than_the_header_says_are_invalid(
    memory_bench: Any, refused: Callable[..., Any]
) -> None:
    bench = memory_bench
    log = bench.open(LogConfig(compression_type="lz4"))
    for count in (1, 3):
        batch = bytearray(bench.batch("a" * 50, "b", codec=Codec.ZSTD))
        batch[COUNT_AT : COUNT_AT + 4] = count.to_bytes(4, "big")
        batch[LAST_OFFSET_DELTA_AT : LAST_OFFSET_DELTA_AT + 4] = (count - 1).to_bytes(4, "big")
        seal(batch)
        with refused("INVALID_RECORD"):
            log.append_as_leader(memoryview(batch), 0, bench.now)


def test_inner_offsets_with_gaps_are_numbered_anew(memory_bench: Any) -> None:
    bench = memory_bench
    log = bench.open(LogConfig(compression_type="gzip"))
    bench.append(log, "zero")
    records = [Record(offset, bench.now, b"k", b"v%d" % offset) for offset in (0, 2, 5)]
    batch = build_batch(records, codec=Codec.GZIP)
    batch[LAST_OFFSET_DELTA_AT : LAST_OFFSET_DELTA_AT + 4] = (2).to_bytes(4, "big")
    seal(batch)
    log.set_config(LogConfig(compression_type="zstd"))
    log.append_as_leader(memoryview(batch), 0, bench.now)
    log.write_staged()
    assert [(each.offset, each.value) for each in bench.records(log)][1:] == [
        (1, b"v0"),
        (2, b"v2"),
        (3, b"v5"),
    ]


def test_a_largest_timestamp_that_no_record_has_is_corrected(memory_bench: Any) -> None:
    bench = memory_bench
    log = bench.open(LogConfig(compression_type="gzip"))
    batch = bytearray(bench.batch("a"))
    batch[MAX_TIMESTAMP_AT : MAX_TIMESTAMP_AT + 8] = (bench.now + 1000).to_bytes(8, "big")
    seal(batch)
    log.append_as_leader(memoryview(batch), 0, bench.now)
    log.write_staged()
    assert parse_header(_stored(log)).max_timestamp == bench.now


def test_a_timestamp_beyond_64_bits_is_invalid(memory_bench: Any, refused: Callable[..., Any]) -> None:
    bench = memory_bench
    log = bench.open(LogConfig(compression_type="gzip", timestamp_type="LogAppendTime"))
    batch = build_batch([Record(0, 0, None, b"a"), Record(1, 1 << 62, None, b"b")])
    batch[27:35] = (1 << 62).to_bytes(8, "big")
    seal(batch)
    with refused("INVALID_RECORD", "64 bits"):
        log.append_as_leader(memoryview(batch), 0, bench.now)


def test_the_records_with_wrong_times_are_named(memory_bench: Any) -> None:
    bench = memory_bench
    log = bench.open(LogConfig(timestamp_before_max_ms=1000, timestamp_after_max_ms=500))
    times = (bench.now, bench.now - 1001, -1, bench.now + 501, bench.now - 1000)
    batch = build_batch([Record(i, each, b"k", b"v") for i, each in enumerate(times)])
    with pytest.raises(InvalidRecords) as refused:
        log.append_as_leader(memoryview(batch), 0, bench.now)
    error = refused.value
    assert error.code is ErrorCode.INVALID_TIMESTAMP
    assert error.message == "One or more records have been rejected due to invalid timestamp"
    span = f"[{bench.now - 1000}, {bench.now + 500}]"
    assert error.record_errors == [
        (
            at,
            f"Timestamp {times[at]} of message with offset {at} is out of range. The timestamp should be within {span}",
        )
        for at in (1, 3)
    ]


def test_a_record_too_far_ahead_is_named_though_its_topic_opens_no_batches(memory_bench: Any) -> None:
    bench = memory_bench
    log = bench.open()
    batch = build_batch([Record(0, bench.now, b"k", b"v"), Record(1, bench.now + 3_600_001, b"k", b"v")])
    with pytest.raises(InvalidRecords) as refused:
        log.append_as_leader(memoryview(batch), 0, bench.now)
    assert [at for at, _ in refused.value.record_errors] == [1]


def test_the_records_without_keys_are_named_within_bounds(memory_bench: Any) -> None:
    bench = memory_bench
    log = bench.open(LogConfig(cleanup_compact=True))
    count = RECORD_ERRORS_MAX + 5
    batch = build_batch([Record(i, bench.now, None if i else b"k", b"v") for i in range(count)])
    with pytest.raises(InvalidRecords, match=f"due to {count - 1} record errors in total") as refused:
        log.append_as_leader(memoryview(batch), 0, bench.now)
    errors = refused.value.record_errors
    assert (refused.value.code, len(errors), errors[0]) == (
        ErrorCode.INVALID_RECORD,
        RECORD_ERRORS_MAX,
        (1, "Compacted topic cannot accept message without key in topic partition t-0"),
    )


@pytest.mark.parametrize("timestamp_type", ["CreateTime", "LogAppendTime"])
def test_producers_do_not_stamp_for_the_broker(
    memory_bench: Any, refused: Callable[..., Any], timestamp_type: str
) -> None:
    bench = memory_bench
    log = bench.open(LogConfig(timestamp_type=timestamp_type))
    batch = build_batch([Record(0, bench.now, b"k", b"v")], log_append_time=bench.now)
    with refused("INVALID_TIMESTAMP", "Producer should not set timestamp type"):
        log.append_as_leader(memoryview(batch), 0, bench.now)
