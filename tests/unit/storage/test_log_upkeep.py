"""Rolling, syncing, truncating, retention: what changes the files of a log besides appends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from odradek.storage.config import UNLIMITED, LogConfig
from odradek.storage.memory_disk import StepSyncer
from odradek.wire.errors import KafkaError

SMALL = LogConfig(segment_bytes=400, index_interval_bytes=100)


def filled(bench: Any, count: int = 40, config: LogConfig = SMALL, **options: Any) -> Any:
    log = bench.open(config, **options)
    for number in range(count):
        bench.append(log, f"v{number:02d}", timestamp=bench.now + number, epoch=number // 10)
    return log


# Rolling


def test_no_segment_exceeds_its_size_unless_a_batch_alone_does(bench: Any) -> None:
    log = filled(bench, 60)
    assert all(segment.size <= 400 for segment in log.segments)
    assert sum(segment.size for segment in log.segments) == log.size_bytes
    names = [name for name in bench.disk.listdir(bench.dir) if name.endswith(".log")]
    assert names == [f"{segment.base_offset:020d}.log" for segment in log.segments]


def test_a_staged_event_larger_than_a_segment_is_split_at_batches(bench: Any) -> None:
    log = bench.open(SMALL)
    for number in range(20):
        log.append_as_leader(bench.batch(f"v{number}"), 0, bench.now)
    log.write_staged()
    assert all(segment.size <= 400 for segment in log.segments)
    assert bench.values(log) == [f"v{number}" for number in range(20)]


def test_records_of_a_later_time_open_a_segment(bench: Any) -> None:
    log = bench.open(LogConfig(segment_ms=1000))
    bench.append(log, "a", timestamp=bench.now)
    bench.append(log, "b", timestamp=bench.now + 1000)
    bench.append(log, "old", timestamp=5)
    assert len(log.segments) == 1
    bench.append(log, "c", timestamp=bench.now + 1001)
    assert [segment.base_offset for segment in log.segments] == [0, 3]


def test_the_time_of_a_segment_may_change_while_it_is_written(bench: Any) -> None:
    log = bench.open(LogConfig(segment_ms=UNLIMITED))
    bench.append(log, "a", timestamp=bench.now)
    bench.append(log, "b", timestamp=bench.now + 700)
    log.set_config(LogConfig(segment_ms=1000))
    bench.append(log, "c", timestamp=bench.now + 1000)
    assert len(log.segments) == 1
    bench.append(log, "d", timestamp=bench.now + 1001)
    assert [segment.base_offset for segment in log.segments] == [0, 3]
    log.set_config(LogConfig(segment_ms=5000))
    bench.append(log, "e", timestamp=bench.now + 6001)
    assert len(log.segments) == 2
    log.set_config(LogConfig(segment_ms=5000, segment_jitter_ms=3000))
    assert bench.now + 3001 < log.active_segment.roll_after_timestamp <= bench.now + 6001


def test_the_time_of_a_segment_may_change_after_a_restart(bench: Any) -> None:
    log = bench.open()
    bench.append(log, "a", timestamp=bench.now)
    bench.append(log, "b", timestamp=bench.now + 700)
    log.close()
    log = bench.open()
    log.set_config(LogConfig(segment_ms=1000))
    bench.append(log, "c", timestamp=bench.now + 1001)
    assert [segment.base_offset for segment in log.segments] == [0, 2]


def test_a_full_index_that_gets_room_keeps_the_time_of_its_segment(bench: Any) -> None:
    log = bench.open(LogConfig(segment_index_bytes=12, index_interval_bytes=0, segment_ms=1000))
    bench.append(log, "a", timestamp=bench.now)
    bench.append(log, "b", timestamp=bench.now + 500)
    assert log.active_segment.index_is_full(12)
    log.set_config(LogConfig(segment_ms=1000))
    bench.append(log, "c", timestamp=bench.now + 600)
    bench.append(log, "d", timestamp=bench.now + 1001)
    assert [segment.base_offset for segment in log.segments] == [0, 3]


def test_records_without_time_roll_by_the_clock(bench: Any) -> None:
    log = bench.open(LogConfig(segment_ms=1000))
    bench.append(log, "a", timestamp=-1)
    bench.now += 1000
    bench.append(log, "b", timestamp=-1)
    assert len(log.segments) == 1
    bench.now += 1
    bench.append(log, "c", timestamp=-1)
    assert len(log.segments) == 2


def test_jitter_rolls_earlier_but_never_later(bench: Any) -> None:
    log = bench.open(LogConfig(segment_ms=1000, segment_jitter_ms=500))
    bench.append(log, "a", timestamp=bench.now)
    assert bench.now + 500 < log.active_segment.roll_after_timestamp <= bench.now + 1000


def test_a_full_index_opens_a_segment(bench: Any) -> None:
    log = bench.open(LogConfig(segment_index_bytes=12 * 5, index_interval_bytes=0))
    for number in range(40):
        bench.append(log, f"v{number}")
    assert len(log.segments) > 5
    log.roll(bench.now)
    for segment in log.segments[:-1]:
        assert bench.disk.size(segment.path(".timeindex")) <= 12 * 5
        assert bench.disk.size(segment.path(".index")) <= 12 * 5
    assert bench.values(log) == [f"v{number}" for number in range(40)]


def test_rolling_an_empty_segment_is_nothing(bench: Any) -> None:
    log = bench.open()
    before = log.segments
    log.roll(bench.now)
    assert log.segments == before


# Syncing


def test_a_sync_advances_the_recovery_point_over_what_was_written_then(bench: Any) -> None:
    log, syncer, done = filled(bench, 3), StepSyncer(), []
    log.sync(syncer, done.append)
    bench.append(log, "later", epoch=9)
    assert (log.recovery_point, done) == (0, [])
    syncer.drain()
    assert (log.recovery_point, done) == (3, [None])
    log.sync(syncer, done.append)
    syncer.drain()
    assert log.recovery_point == 4


def test_flush_messages_asks_for_a_sync(bench: Any) -> None:
    log, syncer = bench.open(LogConfig(flush_messages=2)), StepSyncer()
    bench.append(log, "a")
    assert not log.must_flush
    bench.append(log, "b")
    assert log.must_flush
    log.sync(syncer, lambda error: None)
    syncer.drain()
    assert not log.must_flush


def test_a_rolled_segment_is_flushed_in_the_background(bench: Any) -> None:
    syncer = StepSyncer()
    log = filled(bench, 20, syncer=syncer)
    assert log.recovery_point == 0
    syncer.drain()
    assert log.recovery_point == log.active_segment.base_offset > 0
    assert [segment.dirty for segment in log.segments[:-1]] == [False] * (len(log.segments) - 1)


def test_a_later_sync_never_overtakes_an_earlier_one(memory_bench: Any) -> None:
    """Two lanes of a syncer may finish in any order; the recovery point must not."""
    bench, syncer, order = memory_bench, StepSyncer(), []
    log = filled(bench, 3)
    log.sync(syncer, lambda error: order.append("first"))
    bench.append(log, "more", epoch=9)
    log.sync(syncer, lambda error: order.append("second"))
    syncer._queue.reverse()
    syncer.step()
    assert (order, log.recovery_point) == ([], 0)
    syncer.drain()
    assert (order, log.recovery_point) == (["first", "second"], 4)


def test_a_failed_sync_takes_the_log_offline_for_good(memory_bench: Any, refused: Callable[..., Any]) -> None:
    bench, syncer, results = memory_bench, StepSyncer(), []
    log = filled(bench, 3)
    told: list[Any] = []
    log.on_failure = lambda log, error: told.append(error)
    bench.disk.faults.fail_sync_at = bench.disk.faults.syncs
    bench.disk.faults.sticky = False
    log.sync(syncer, results.append)
    log.sync(syncer, results.append)
    syncer.drain()
    assert [type(result) for result in results] == [OSError, OSError]
    assert log.offline
    assert len(told) == 1
    assert log.recovery_point == 0
    with refused("KAFKA_STORAGE_ERROR"):
        log.append_as_leader(bench.batch("x"), 9, bench.now)
    log.sync(syncer, results.append)
    syncer.drain()
    assert isinstance(results[-1], OSError)


def test_a_failed_write_takes_the_log_offline_and_readers_see_nothing_of_it(memory_bench: Any) -> None:
    bench = memory_bench
    log = filled(bench, 3)
    bench.disk.faults.fail_change_at = bench.disk.faults.changes
    log.append_as_leader(bench.batch("lost"), 0, bench.now)
    with pytest.raises(OSError, match="injected"):
        log.write_staged()
    assert log.offline
    assert log.written_end_offset == 3
    assert bench.values(log) == ["v00", "v01", "v02"]
    with pytest.raises(OSError, match="offline"):
        log.write_staged()
    with pytest.raises(KafkaError, match="KAFKA_STORAGE_ERROR"):
        log.append_as_leader(bench.batch("x"), 0, bench.now)


def test_a_failed_roll_refuses_the_append(memory_bench: Any) -> None:
    bench = memory_bench
    log = filled(bench, 5)
    bench.disk.faults.fail_change_at = bench.disk.faults.changes + 1
    with pytest.raises((OSError, KafkaError)):
        for number in range(20):
            bench.append(log, f"x{number}")
    assert log.offline


def test_epochs_become_durable_before_done_is_called(memory_bench: Any) -> None:
    bench, syncer, done = memory_bench, StepSyncer(), []
    log = bench.open()
    bench.disk.sync_dir("/data")
    log.assign_epoch(4, syncer, done.append)
    assert (done, log.epochs.entries) == ([], [(4, 0)])
    syncer.drain()
    assert done == [None]
    bench.disk.crash()
    assert bench.disk.read_file(bench.path("leader-epoch-checkpoint")) == b"0\n1\n4 0\n"


# Truncation


@pytest.mark.parametrize("clean", [True, False])
def test_truncation_to_every_offset(bench: Any, clean: bool) -> None:
    for offset in range(40, -1, -1):
        log = filled(bench)
        if clean:  # a log that was just opened has no index in memory
            log.close()
            log = bench.open(SMALL, clean=True, recovery_point=40)
        log.truncate_to(offset)
        assert (log.log_end_offset, log.written_end_offset) == (offset, offset)
        assert log.recovery_point <= offset
        assert bench.values(log) == [f"v{number:02d}" for number in range(offset)]
        assert all(start < offset for _, start in log.epochs.entries)
        bench.append(log, "new", timestamp=bench.now + offset, epoch=9)
        assert bench.values(log, offset) == ["new"]
        assert log.size_bytes == sum(segment.size for segment in log.segments)
        assert log.max_timestamp() == (bench.now + offset, offset, 9)
        log.close()
        log = bench.open(SMALL)
        assert bench.values(log) == [f"v{number:02d}" for number in range(offset)] + ["new"]
        log.truncate_fully_and_start_at(0)
        log.epochs.clear()
        log.close()


def test_truncation_inside_a_batch_drops_the_whole_batch(bench: Any) -> None:
    log = bench.open()
    bench.append(log, "a", "b", "c")
    bench.append(log, "d", "e", "f")
    log.truncate_to(4)
    assert log.log_end_offset == 3
    assert bench.values(log) == ["a", "b", "c"]
    assert bench.append(log, "x") == 3


def test_truncation_forgets_producers_written_since(bench: Any) -> None:
    log = bench.open()
    for sequence in range(4):
        bench.append(log, f"v{sequence}", producer_id=5, producer_epoch=0, base_sequence=sequence)
    log.truncate_to(2)
    assert bench.append(log, "again", producer_id=5, producer_epoch=0, base_sequence=2) == 2


def test_a_sync_under_way_does_not_vouch_for_what_is_written_after_a_truncation(bench: Any) -> None:
    log, syncer, done = filled(bench, 3), StepSyncer(), []
    log.sync(syncer, done.append)
    log.truncate_to(1)
    bench.append(log, "b", epoch=9)
    bench.append(log, "c", epoch=9)
    syncer.drain()
    assert log.recovery_point <= 1


def test_starting_anew_elsewhere_empties_the_log(bench: Any) -> None:
    log = filled(bench)
    log.truncate_fully_and_start_at(1000)
    assert (log.log_start_offset, log.log_end_offset, log.recovery_point, log.size_bytes) == (
        1000,
        1000,
        1000,
        0,
    )
    assert log.epochs.entries == []
    assert bench.append(log, "a", epoch=9) == 1000
    log.close()
    assert bench.values(bench.open(SMALL)) == ["a"]


def test_truncating_to_the_damage_puts_a_log_back_into_service(bench: Any) -> None:
    log = filled(bench)
    log.close_files()
    file = bench.disk.open(log.segments[3].path(".log"))
    file.pwrite(b"\xff", 100)
    file.close()
    log = bench.open(SMALL)
    damaged = log.readable_end
    assert log.segments[3].base_offset <= damaged < log.segments[4].base_offset
    log.truncate_to(damaged)
    assert log.corrupt_offset is None
    assert bench.append(log, "new", epoch=9) == damaged
    assert bench.values(log) == [f"v{number:02d}" for number in range(damaged)] + ["new"]


# Log start and retention


def test_the_log_start_moves_forward_only_and_not_past_the_end(
    bench: Any, refused: Callable[..., Any]
) -> None:
    log = filled(bench)
    assert log.advance_log_start(25)
    assert not log.advance_log_start(20)
    assert log.epochs.entries == [(2, 25), (3, 30)]
    with refused("OFFSET_OUT_OF_RANGE"):
        log.advance_log_start(41)
    assert bench.values(log)[0] == "v25"
    assert log.delete_old_segments(bench.now) > 0
    assert log.segments[0].base_offset <= 25 < log.segments[1].base_offset


def test_retention_by_time_keeps_what_is_young_or_not_replicated(bench: Any) -> None:
    log = filled(bench)
    log.set_config(LogConfig(segment_bytes=400, retention_ms=1000))
    bench_end = bench.now + 1000
    assert log.delete_old_segments(bench_end, 40) == 0
    log.delete_old_segments(bench_end + 20, 12)
    assert 8 < log.log_start_offset <= 12
    log.delete_old_segments(bench_end + 20, 40)
    assert 16 < log.log_start_offset <= 20
    assert bench.values(log)[0] == f"v{log.log_start_offset:02d}"
    log.delete_old_segments(bench_end + 2000, 40)
    assert (log.log_start_offset, log.log_end_offset, log.size_bytes) == (40, 40, 0)
    assert bench.append(log, "new", epoch=9) == 40


def test_retention_by_size_leaves_at_least_that_much(bench: Any) -> None:
    log = filled(bench)
    log.set_config(LogConfig(segment_bytes=400, retention_bytes=1000, retention_ms=-1))
    log.delete_old_segments(bench.now, 40)
    assert 1000 <= log.size_bytes < 1400
    assert bench.values(log)[-1] == "v39"


def test_compaction_alone_deletes_nothing(bench: Any) -> None:
    log = filled(bench)
    log.set_config(
        LogConfig(
            segment_bytes=400, cleanup_delete=False, cleanup_compact=True, retention_ms=1, retention_bytes=1
        )
    )
    assert log.delete_old_segments(bench.now + 10**9, 40) == 0


def test_removed_segments_are_renamed_and_handed_over(bench: Any) -> None:
    log = filled(bench)
    removed: list[str] = []
    log.on_removed = lambda log, paths: removed.extend(paths)
    log.set_config(LogConfig(segment_bytes=400, retention_ms=1000))
    count = log.delete_old_segments(bench.now + 1020, 40)
    assert len([path for path in removed if path.endswith(".log.deleted")]) == count > 0
    assert all(bench.disk.exists(path) for path in removed)
    assert bench.values(log)[-1] == "v39"


@pytest.mark.parametrize("clean", [True, False])
def test_a_damaged_time_index_does_not_delete_young_data(bench: Any, clean: bool) -> None:
    log = filled(bench)
    log.close()
    for segment in log.segments:
        path = segment.path(".timeindex")
        data = bytearray(bench.disk.read_file(path))
        for at in range(0, len(data), 12):
            data[at : at + 8] = (at + 1).to_bytes(8, "big")
        bench.disk.write_file_atomic(path, bytes(data), durable=False)
    log = bench.open(SMALL, clean=clean, recovery_point=40)
    log.set_config(LogConfig(segment_bytes=400, retention_ms=1000))
    assert log.delete_old_segments(bench.now + 900, 40) == 0


def test_truncating_a_batch_that_reaches_below_the_log_start_empties_the_log(bench: Any) -> None:
    log = bench.open()
    bench.append(log, "a")
    bench.append(log, "b", "c", "d", "e")
    log.advance_log_start(3)
    log.truncate_to(4)
    assert (log.log_start_offset, log.log_end_offset, log.size_bytes) == (3, 3, 0)
    assert bench.append(log, "x", epoch=1) == 3
