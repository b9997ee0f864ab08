"""Reading by offset and by time: boundaries, limits, segments, damage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from odradek.storage.config import LogConfig
from odradek.storage.segment import FilePool
from odradek.wire.errors import KafkaError
from odradek.wire.records import Record, build_batch

SMALL = LogConfig(segment_bytes=400, index_interval_bytes=100)


def filled(bench: Any, count: int = 40, config: LogConfig = SMALL) -> Any:
    log = bench.open(config)
    for number in range(count):
        bench.append(log, f"v{number:02d}", timestamp=bench.now + number)
    return log


def test_every_offset_can_be_read_from(bench: Any) -> None:
    log = filled(bench)
    for offset in range(40):
        assert bench.values(log, offset) == [f"v{number:02d}" for number in range(offset, 40)]


def test_a_read_in_the_middle_of_a_batch_returns_the_whole_batch(bench: Any) -> None:
    log = bench.open()
    bench.append(log, "a", "b", "c")
    bench.append(log, "d")
    result = log.read(1, 1000, end_offset=4)
    assert (result.first_offset, result.next_offset) == (0, 4)


def test_out_of_range_offsets_are_refused_and_the_end_is_empty(
    bench: Any, refused: Callable[..., Any]
) -> None:
    log = filled(bench, 5)
    log.advance_log_start(2)
    for offset in (-1, 0, 1, 6, 1 << 62):
        with refused("OFFSET_OUT_OF_RANGE"):
            log.read(offset, 1000, end_offset=5)
    for offset, end in ((5, 5), (3, 3), (4, 2)):
        assert log.read(offset, 1000, end_offset=end).data == b""


def test_nothing_at_or_above_the_end_offset_is_returned(bench: Any) -> None:
    log = bench.open()
    for _ in range(4):
        bench.append(log, "a", "b", "c")
    assert log.read(0, 10_000, end_offset=6).next_offset == 6
    assert log.read(0, 10_000, end_offset=7).next_offset == 6
    assert log.read(6, 10_000, end_offset=8).data == b""
    assert log.read(6, 10_000, end_offset=100).next_offset == 12


def test_max_bytes_cuts_at_a_batch_and_min_one_brings_a_larger_first(bench: Any) -> None:
    log = bench.open()
    for _ in range(4):
        bench.append(log, "x" * 100)
    size = log.size_bytes // 4
    for limit, count in (
        (4 * size, 4),
        (4 * size - 1, 3),
        (2 * size, 2),
        (size, 1),
        (size - 1, 1),
        (61, 1),
        (1, 1),
        (0, 1),
    ):
        result = log.read(0, limit, end_offset=4)
        assert (len(result.data), result.next_offset) == (count * size, count), limit
    for limit in (size - 1, 61, 0):
        assert log.read(0, limit, end_offset=4, min_one=False).data == b""
    assert log.read(0, size, end_offset=4, min_one=False).next_offset == 1


def test_a_small_cut_does_not_keep_a_large_read_alive(bench: Any) -> None:
    log = bench.open()
    bench.append(log, "a")
    bench.append(log, "x" * 5000)
    result = log.read(0, 1000, end_offset=2)
    assert isinstance(result.data, bytes)
    assert result.next_offset == 1


def test_sequential_reads_use_no_index(memory_bench: Any) -> None:
    bench = memory_bench
    log = bench.open()
    for number in range(50):
        bench.append(log, f"v{number}")
    offset = log.read(0, 100, end_offset=50).next_offset
    segment = log.active_segment
    type(segment).find, original = None, type(segment).find
    try:
        while offset < 50:
            offset = log.read(offset, 200, end_offset=50).next_offset
        bench.append(log, "tail")
        assert log.read(50, 200, end_offset=51).next_offset == 51
    finally:
        type(segment).find = original


def test_a_reader_at_the_end_goes_on_after_a_roll(bench: Any) -> None:
    log = bench.open(SMALL)
    offset = 0
    for number in range(60):
        bench.append(log, f"v{number}")
        result = log.read(offset, 1000, end_offset=log.written_end_offset)
        offset = result.next_offset
        assert offset == number + 1


def test_hints_stay_bounded(bench: Any) -> None:
    log = filled(bench, 60, LogConfig())
    for offset in range(60):
        log.read(offset, 1, end_offset=60)
    assert len(log._hints) <= 16
    assert bench.values(log)[-1] == "v59"


def test_few_descriptors_serve_many_segments(memory_bench: Any) -> None:
    bench = memory_bench
    pool = FilePool(bench.disk, 3)
    log = bench.open(SMALL, pool=pool)
    for number in range(60):
        bench.append(log, f"v{number:02d}")
    assert len(log.segments) > 10
    assert bench.values(log) == [f"v{number:02d}" for number in range(60)]
    assert len(pool) <= 3
    assert bench.append(log, "more") == 60


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_anywhere_is_never_served(memory_bench: Any, bit: int) -> None:
    """Each byte of a segment in turn: what is read is a prefix of the truth, then an error."""
    bench = memory_bench
    log = filled(bench, 6, LogConfig(index_interval_bytes=100))
    good = log.read(0, 10_000, end_offset=6).data
    path = log.active_segment.path(".log")
    unseen = {*range(12, 16)}  # the leader epoch of a batch is under no checksum in Kafka's format
    size = len(good) // 6
    for position in range(len(good)):
        if position % size in unseen:
            continue
        bench.disk.flip_bit(path, position, bit)
        for start in range(6):
            log._hints.clear()
            served, offset = b"", start
            error = None
            while offset < 6 and error is None:
                try:
                    result = log.read(offset, 10_000, end_offset=6)
                    served += bytes(result.data)
                    offset = result.next_offset
                except KafkaError as caught:
                    error = caught
            assert good[start * size :].startswith(served), (position, start)
            assert offset * size <= position or start * size > position or error is not None, (
                position,
                start,
            )
            assert served == good[start * size :] or error is not None
        bench.disk.flip_bit(path, position, bit)
    assert bench.values(log) == [f"v{number:02d}" for number in range(6)]


def test_a_shrunk_file_is_an_error_and_not_an_empty_answer(bench: Any) -> None:
    log = filled(bench, 6, LogConfig())
    file = bench.disk.open(log.active_segment.path(".log"))
    file.truncate(log.size_bytes // 2 + 10)
    with pytest.raises(KafkaError, match="CORRUPT_MESSAGE"):
        bench.values(log)


def test_gaps_that_compaction_left_are_read_over(bench: Any) -> None:
    log = bench.open(SMALL, compacted_below=100)
    for base in (0, 3, 10, 11, 30, 31, 50, 90):
        batch = build_batch([Record(base, bench.now, b"k", f"v{base}".encode())])
        log.append_as_follower(memoryview(batch), bench.now)
        log.write_staged()
    assert bench.values(log) == ["v0", "v3", "v10", "v11", "v30", "v31", "v50", "v90"]
    assert bench.values(log, 12) == ["v30", "v31", "v50", "v90"]
    assert log.read(51, 1000, end_offset=91).first_offset == 90
    log.close_files()
    log = bench.open(SMALL, compacted_below=100)
    assert bench.values(log, 4) == ["v10", "v11", "v30", "v31", "v50", "v90"]


def test_times_are_found_across_segments(bench: Any) -> None:
    log = filled(bench)
    assert log.lookup_timestamp(0) == (bench.now, 0, 0)
    for number in range(40):
        assert log.lookup_timestamp(bench.now + number) == (bench.now + number, number, 0)
    assert log.lookup_timestamp(bench.now + 40) is None
    assert log.max_timestamp() == (bench.now + 39, 39, 0)


def test_times_out_of_order_give_the_first_record_at_or_after(bench: Any) -> None:
    log = bench.open(SMALL)
    times = [5, 3, 9, 9, 1, 20, 2, 15, 30, 8, 30, 7]
    for number, time in enumerate(times):
        bench.append(log, f"v{number}", timestamp=time)
    for wanted in range(31):
        first = next(number for number, time in enumerate(times) if time >= wanted)
        assert log.lookup_timestamp(wanted) == (times[first], first, 0)
    assert log.lookup_timestamp(31) is None
    assert log.max_timestamp() == (30, 8, 0)


def test_a_time_is_found_inside_a_batch_and_above_the_log_start(bench: Any) -> None:
    log = bench.open()
    batch = build_batch([Record(at, 100 + at * 10, b"k", b"v") for at in range(5)])
    log.append_as_leader(memoryview(batch), 0, bench.now)
    log.write_staged()
    assert log.lookup_timestamp(115) == (120, 2, 0)
    assert log.max_timestamp() == (140, 4, 0)
    log.advance_log_start(3)
    assert log.lookup_timestamp(115) == (130, 3, 0)


def test_an_empty_log_has_no_times(bench: Any) -> None:
    log = bench.open()
    assert log.lookup_timestamp(0) is None
    assert log.max_timestamp() is None
    bench.append(log, "a", timestamp=-1)
    assert log.lookup_timestamp(0) is None
    assert log.max_timestamp() is None


def test_locate_says_where_a_read_goes_and_warming_changes_nothing(bench: Any) -> None:
    log = filled(bench)
    log.flush_blocking()
    location = log.locate(10, 1000, 40)
    assert location.path == log.segments[log._segment_index(10)].path(".log")
    location.warm()
    assert log.locate(40, 1000, 40).cached
    assert bench.values(log, 10)[0] == "v10"
    log.delete_old_segments(bench.now, 0)


def test_when_descriptors_run_out_fewer_files_stay_open(memory_bench: Any) -> None:
    bench = memory_bench
    pool = FilePool(bench.disk, 100)
    log = filled(bench, 60)
    log.close()
    log = bench.open(SMALL, pool=pool, clean=True, recovery_point=60)
    original, limit = bench.disk.open, 6

    def scarce(path: str, **options: Any) -> Any:
        if path.endswith(".log") and len(pool) >= limit:
            raise OSError(24, "too many open files", path)
        return original(path, **options)

    bench.disk.open = scarce
    assert len(bench.values(log)) == 60
    assert pool.capacity < limit
    assert not log.offline


def test_a_medium_that_cannot_be_read_takes_the_log_offline(
    memory_bench: Any, refused: Callable[..., Any]
) -> None:
    log = filled(memory_bench, 3)

    def broken(length: int, position: int) -> bytes:
        raise OSError(5, "Input/output error")

    class Broken:
        pread = staticmethod(broken)
        is_cached = staticmethod(lambda _position, _length: True)

    log.active_segment.file = Broken()
    with refused("KAFKA_STORAGE_ERROR", "Input/output"):
        log.read(0, 1000, end_offset=3)
    assert log.offline
