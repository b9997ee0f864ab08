"""What a leader's log does with batches: offsets, refusals, stamps, staging."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from odradek.storage.config import LogConfig
from odradek.wire.records import Codec, Record, build_batch, crc_ok, parse_header, seal


def test_offsets_are_assigned_in_place_and_continue_over_batches(bench: Any) -> None:
    log = bench.open()
    first = bench.batch("a", "b", "c")
    one = log.append_as_leader(first, 7, bench.now)
    two = log.append_as_leader(bench.batch("d"), 7, bench.now)
    log.write_staged()
    assert (one.base_offset, one.last_offset, two.base_offset, two.last_offset) == (0, 2, 3, 3)
    assert parse_header(first).leader_epoch == 7
    assert [record.offset for record in bench.records(log)] == [0, 1, 2, 3]
    assert bench.values(log) == ["a", "b", "c", "d"]


def test_staged_batches_are_counted_but_not_read_until_they_are_written(bench: Any) -> None:
    log = bench.open()
    log.append_as_leader(bench.batch("a", "b"), 0, bench.now)
    assert (log.log_end_offset, log.written_end_offset) == (2, 0)
    assert log.read(0, 1000, end_offset=2).data == b""
    log.write_staged()
    assert log.written_end_offset == 2
    assert bench.values(log) == ["a", "b"]


def test_several_batches_in_one_append_are_all_patched(bench: Any) -> None:
    log = bench.open()
    bench.append(log, "x")
    both = memoryview(bytearray(bytes(bench.batch("a", "b")) + bytes(bench.batch("c"))))
    result = log.append_as_leader(both, 0, bench.now)
    log.write_staged()
    assert (result.base_offset, result.last_offset, result.batch_count) == (1, 3, 2)
    assert bench.values(log) == ["x", "a", "b", "c"]


def test_an_append_of_a_later_epoch_notes_where_it_begins(bench: Any) -> None:
    log = bench.open()
    bench.append(log, "a", epoch=3)
    bench.append(log, "b", "c", epoch=3)
    bench.append(log, "d", epoch=5)
    assert log.epochs.entries == [(3, 0), (5, 3)]
    assert log.end_offset_for_epoch(3) == (3, 3)
    assert log.end_offset_for_epoch(4) == (3, 3)
    assert log.end_offset_for_epoch(5) == (5, 4)
    assert log.end_offset_for_epoch(6) == (-1, -1)


def test_an_append_of_an_older_epoch_is_fenced(bench: Any, refused: Callable[..., Any]) -> None:
    log = bench.open()
    bench.append(log, "a", epoch=3)
    with refused("FENCED_LEADER_EPOCH"):
        log.append_as_leader(bench.batch("b"), 2, bench.now)
    assert log.log_end_offset == 1


def _cut(batch: memoryview) -> memoryview:
    return batch[: len(batch) - 1]


def _flip(position: int) -> Callable[[memoryview], memoryview]:
    def flip(batch: memoryview) -> memoryview:
        batch[position] ^= 1
        return batch

    return flip


def _count(records: int, delta: int) -> Callable[[memoryview], memoryview]:
    def change(batch: memoryview) -> memoryview:
        data = bytearray(batch)
        data[57:61] = records.to_bytes(4, "big", signed=True)
        data[23:27] = delta.to_bytes(4, "big", signed=True)
        seal(data)
        return memoryview(data)

    return change


def _attributes(attributes: int) -> Callable[[memoryview], memoryview]:
    def change(batch: memoryview) -> memoryview:
        data = bytearray(batch)
        data[21:23] = attributes.to_bytes(2, "big")
        seal(data)
        return memoryview(data)

    return change


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_cut, "CORRUPT_MESSAGE"),
        (lambda batch: batch[:20], "CORRUPT_MESSAGE"),
        (lambda batch: batch[:0], "INVALID_RECORD"),
        (_flip(70), "CORRUPT_MESSAGE"),
        (_flip(17), "CORRUPT_MESSAGE"),
        (_flip(8), "CORRUPT_MESSAGE"),
        (_flip(11), "CORRUPT_MESSAGE"),
        (_flip(16), "UNSUPPORTED_FOR_MESSAGE_FORMAT"),
        (_count(3, 1), "INVALID_RECORD"),
        (_count(0, -1), "INVALID_RECORD"),
        (_count(-5, -6), "INVALID_RECORD"),
        (_count(1 << 30, (1 << 30) - 1), "INVALID_RECORD"),
        (_attributes(5), "INVALID_RECORD"),
        (_attributes(0x8000), "INVALID_RECORD"),
        (_attributes(0x80), "INVALID_RECORD"),
        (_attributes(0x08), "INVALID_TIMESTAMP"),
        (_attributes(0x20), "INVALID_RECORD"),
        (_attributes(0x10), "INVALID_RECORD"),
    ],
)
def test_a_bad_batch_is_refused_and_nothing_is_staged(
    bench: Any, refused: Callable[..., Any], change: Callable[[memoryview], memoryview], code: str
) -> None:
    log = bench.open()
    bench.append(log, "before")
    with refused(code):
        log.append_as_leader(change(bench.batch("a", "b")), 0, bench.now)
    assert (log.log_end_offset, log.size_bytes) == (1, log.active_segment.written)
    bench.append(log, "after")
    assert bench.values(log) == ["before", "after"]


def test_one_bad_batch_among_several_refuses_all(bench: Any, refused: Callable[..., Any]) -> None:
    log = bench.open()
    bad = bytearray(bench.batch("b"))
    bad[-1] ^= 1
    with refused("CORRUPT_MESSAGE"):
        log.append_as_leader(memoryview(bytearray(bench.batch("a")) + bad), 0, bench.now)
    assert log.log_end_offset == 0


def test_a_batch_over_the_size_limit_is_refused(bench: Any, refused: Callable[..., Any]) -> None:
    log = bench.open(LogConfig(max_message_bytes=100))
    with refused("MESSAGE_TOO_LARGE"):
        log.append_as_leader(bench.batch("x" * 100), 0, bench.now)
    assert bench.append(log, "x") == 0


def test_a_batch_over_the_segment_size_is_refused(bench: Any, refused: Callable[..., Any]) -> None:
    log = bench.open(LogConfig(segment_bytes=100))
    with refused("RECORD_LIST_TOO_LARGE"):
        log.append_as_leader(bench.batch("x" * 100), 0, bench.now)


def test_compressed_batches_pass_untouched(bench: Any) -> None:
    log = bench.open()
    for codec in (Codec.GZIP, Codec.LZ4, Codec.ZSTD, Codec.SNAPPY):
        bench.append(log, "a" * 500, "b", codec=codec)
    assert bench.values(log) == ["a" * 500, "b"] * 4


def test_control_batches_need_leave(bench: Any, refused: Callable[..., Any]) -> None:
    log = bench.open()
    with refused("INVALID_RECORD"):
        log.append_as_leader(bench.batch("x", control=True), 0, bench.now)
    assert (
        log.append_as_leader(bench.batch("x", control=True), 0, bench.now, allow_control=True).base_offset
        == 0
    )


def test_timestamps_too_far_ahead_are_refused(bench: Any, refused: Callable[..., Any]) -> None:
    log = bench.open()
    hour = 3_600_000
    with refused("INVALID_TIMESTAMP"):
        log.append_as_leader(bench.batch("a", timestamp=bench.now + hour + 1), 0, bench.now)
    assert bench.append(log, "a", timestamp=bench.now + hour) == 0


def test_timestamps_too_old_are_refused_by_record_where_the_topic_asks(
    bench: Any, refused: Callable[..., Any]
) -> None:
    log = bench.open(LogConfig(timestamp_before_max_ms=1000))
    records = [Record(0, bench.now, None, b"a"), Record(1, bench.now - 1001, None, b"b")]
    with refused("INVALID_TIMESTAMP"):
        log.append_as_leader(memoryview(build_batch(records)), 0, bench.now)
    records[1] = Record(1, bench.now - 1000, None, b"b")
    assert log.append_as_leader(memoryview(build_batch(records)), 0, bench.now).last_offset == 1


def test_log_append_time_stamps_the_batch_and_seals_it_anew(bench: Any) -> None:
    log = bench.open(LogConfig(timestamp_type="LogAppendTime"))
    batch = bench.batch("a", "b", timestamp=5)
    result = log.append_as_leader(batch, 0, bench.now)
    log.write_staged()
    assert result.log_append_time == bench.now
    assert crc_ok(batch)
    assert [record.timestamp for record in bench.records(log)] == [bench.now, bench.now]


def test_a_compacted_topic_refuses_records_without_keys(bench: Any, refused: Callable[..., Any]) -> None:
    log = bench.open(LogConfig(cleanup_compact=True))
    keyless = build_batch([Record(0, bench.now, b"k", b"v"), Record(1, bench.now, None, b"v")])
    with refused("INVALID_RECORD", "key"):
        log.append_as_leader(memoryview(keyless), 0, bench.now)
    assert bench.append(log, "a") == 0


def test_config_changes_count_from_the_next_append(bench: Any, refused: Callable[..., Any]) -> None:
    log = bench.open()
    bench.append(log, "x" * 200)
    log.set_config(LogConfig(max_message_bytes=100))
    with refused("MESSAGE_TOO_LARGE"):
        log.append_as_leader(bench.batch("x" * 200), 0, bench.now)


def test_a_follower_takes_batches_as_the_leader_numbered_them(
    bench: Any, refused: Callable[..., Any]
) -> None:
    log = bench.open()
    batches = bytearray()
    for offset, epoch in ((0, 1), (1, 1), (2, 4)):
        batch = bytearray(bench.batch(f"v{offset}"))
        batch[0:8] = offset.to_bytes(8, "big")
        batch[12:16] = epoch.to_bytes(4, "big")
        batches += batch
    assert log.append_as_follower(memoryview(batches)) == 2
    log.write_staged()
    assert bench.values(log) == ["v0", "v1", "v2"]
    assert log.epochs.entries == [(1, 0), (4, 2)]
    with refused("CORRUPT_MESSAGE"):
        log.append_as_follower(memoryview(batches))
