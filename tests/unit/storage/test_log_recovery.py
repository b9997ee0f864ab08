"""Opening a log after a clean stop, after a crash, and after things went missing."""

from __future__ import annotations

from typing import Any

import pytest

from odradek.storage.config import LogConfig
from odradek.storage.memory_disk import StepSyncer
from odradek.wire.errors import KafkaError

SMALL = LogConfig(segment_bytes=400, index_interval_bytes=100)
FIRST_LOG = "00000000000000000000.log"


def _reopen_clean(bench: Any, log: Any, config: LogConfig | None = None) -> Any:
    log.close()
    return bench.open(
        config, clean=True, recovery_point=log.recovery_point, log_start_offset=log.log_start_offset
    )


def test_a_new_log_is_empty_and_starts_where_it_is_told(bench: Any) -> None:
    log = bench.open(log_start_offset=50)
    assert (log.log_start_offset, log.log_end_offset, log.recovery_point) == (50, 50, 50)
    assert bench.disk.listdir(bench.dir) == ["00000000000000000050.log"]


@pytest.mark.parametrize("clean", [True, False])
def test_everything_is_there_again(bench: Any, clean: bool) -> None:
    log = bench.open(SMALL)
    for number in range(40):
        bench.append(log, f"v{number}", epoch=number // 10)
    assert len(log.segments) > 5
    size, epochs = log.size_bytes, log.epochs.entries
    if clean:
        log = _reopen_clean(bench, log, SMALL)
    else:
        log.close_files()
        log = bench.open(SMALL)
    assert bench.values(log) == [f"v{number}" for number in range(40)]
    assert (log.size_bytes, log.log_end_offset, log.epochs.entries) == (size, 40, epochs)
    assert bench.append(log, "next", epoch=4) == 40
    assert bench.values(log, 38) == ["v38", "v39", "next"]


def test_a_clean_open_reads_no_segment(memory_bench: Any) -> None:
    bench = memory_bench
    log = bench.open(SMALL)
    for number in range(40):
        bench.append(log, f"v{number}")
    log.close()
    opened: list[str] = []
    original = bench.disk.open

    def watched(path: str, **options: Any) -> Any:
        opened.append(path)
        return original(path, **options)

    bench.disk.open = watched
    again = bench.open(SMALL, clean=True, recovery_point=log.recovery_point)
    assert again.log_end_offset == 40
    assert opened == []


def test_a_torn_tail_is_cut_and_appends_go_on(bench: Any) -> None:
    log = bench.open()
    for number in range(10):
        bench.append(log, f"v{number}")
    sizes = bench.disk.size(bench.path(FIRST_LOG))
    log.close_files()
    for lost in range(1, sizes // 10):
        file = bench.disk.open(bench.path(FIRST_LOG))
        file.truncate(sizes - lost)
        file.close()
        log = bench.open()
        assert bench.values(log) == [f"v{number}" for number in range(9)]
        assert log.corrupt_offset is None
        assert bench.append(log, "v9") == 9
        log.close_files()


def test_garbage_at_the_tail_is_cut(bench: Any) -> None:
    for garbage in (b"\0" * 500, b"\xff" * 500, bytes(range(256)), b"\x02" * 60):
        log = bench.open()
        end = log.log_end_offset
        bench.append(log, "v")
        log.close_files()
        file = bench.disk.open(bench.path(FIRST_LOG))
        file.append([garbage])
        file.close()
        log = bench.open()
        assert (log.log_end_offset, log.corrupt_offset) == (end + 1, None)
        log.close_files()


def test_damage_in_the_middle_keeps_everything_and_takes_the_log_out_of_service(bench: Any) -> None:
    log = bench.open()
    for number in range(10):
        bench.append(log, f"v{number}")
    log.close_files()
    size = bench.disk.size(bench.path(FIRST_LOG))
    file = bench.disk.open(bench.path(FIRST_LOG))
    at = size // 10 * 4 + 70
    file.pwrite(bytes([file.pread(1, at)[0] ^ 1]), at)
    file.close()
    for _ in range(2):
        log = bench.open()
        assert (log.corrupt_offset, log.readable_end, log.log_end_offset) == (4, 4, 10)
        assert bench.disk.size(bench.path(FIRST_LOG)) == size
        assert log.read(0, 10_000, end_offset=4).next_offset == 4
        with pytest.raises(KafkaError, match="CORRUPT_MESSAGE"):
            log.read(4, 10_000, end_offset=10)
        with pytest.raises(KafkaError, match="CORRUPT_MESSAGE"):
            log.read(7, 10_000, end_offset=10)
        with pytest.raises(KafkaError, match="KAFKA_STORAGE_ERROR"):
            log.append_as_leader(bench.batch("x"), 0, bench.now)
        log.close()
        assert log.recovery_point <= 4
    log = bench.open(clean=True, recovery_point=log.recovery_point)
    assert log.readable_end == 4


def test_damage_with_whole_segments_behind_it_is_damage_in_the_middle(bench: Any) -> None:
    log = bench.open(SMALL)
    for number in range(40):
        bench.append(log, f"v{number}")
    log.close_files()
    file = bench.disk.open(log.segments[2].path(".log"))
    file.truncate(file.size() - 5)
    file.close()
    log = bench.open(SMALL)
    assert log.corrupt_offset == log.segments[3].base_offset - 1
    assert log.log_end_offset == 40


def test_only_segments_past_the_recovery_point_are_scanned(bench: Any) -> None:
    log = bench.open(SMALL)
    for number in range(40):
        bench.append(log, f"v{number}")
    log.close_files()
    damaged = log.segments[1]
    file = bench.disk.open(damaged.path(".log"))
    file.pwrite(b"\xff", 65)
    file.close()
    log = bench.open(SMALL, recovery_point=log.segments[2].base_offset)
    assert (log.corrupt_offset, log.log_end_offset) == (None, 40)
    with pytest.raises(KafkaError, match="CORRUPT_MESSAGE"):
        log.read(damaged.base_offset, 1000, end_offset=40)
    assert bench.values(log, log.segments[2].base_offset)[-1] == "v39"


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
@pytest.mark.parametrize("harm", ["unlink", "zero", "garbage", "empty", "shift"])
@pytest.mark.parametrize("clean", [True, False])
def test_lost_or_damaged_indexes_change_nothing(bench: Any, suffix: str, harm: str, clean: bool) -> None:
    log = bench.open(SMALL)
    for number in range(40):
        bench.append(log, f"v{number}", timestamp=bench.now + number)
    log.close()
    for segment in log.segments:
        path = segment.path(suffix)
        data = bench.disk.read_file(path)
        if harm == "unlink":
            bench.disk.unlink(path)
        elif harm == "shift":
            changed = bytearray(data)
            for at in range(3, len(changed), 4):
                changed[at] = (changed[at] + 1) & 0xFF
            bench.disk.write_file_atomic(path, bytes(changed), durable=False)
        else:
            other = {"zero": bytes(len(data)), "garbage": b"\x17" * len(data), "empty": b""}[harm]
            bench.disk.write_file_atomic(path, other, durable=False)
    log = bench.open(SMALL, clean=clean, recovery_point=log.recovery_point)
    for offset in range(40):
        assert bench.values(log, offset) == [f"v{number}" for number in range(offset, 40)]
        assert log.lookup_timestamp(bench.now + offset) == (bench.now + offset, offset, 0)
    assert log.max_timestamp() == (bench.now + 39, 39, 0)
    assert bench.append(log, "next") == 40


def test_a_lost_or_damaged_epoch_checkpoint_is_rebuilt_from_batches(bench: Any) -> None:
    log = bench.open(SMALL)
    for number in range(30):
        bench.append(log, f"v{number}", epoch=number // 10)
    log.close()
    path = bench.path("leader-epoch-checkpoint")
    for damage in (None, b"", b"0\n7\n1 2\n", b"\xff\xfe", b"0\n1\n1 x\n"):
        if damage is None:
            bench.disk.unlink(path)
        else:
            bench.disk.write_file_atomic(path, damage, durable=False)
        log = bench.open(SMALL, clean=True, recovery_point=30)
        assert log.epochs.entries == [(0, 0), (1, 10), (2, 20)]


def test_leftovers_of_the_last_process_are_cleared_and_foreign_files_left_alone(bench: Any) -> None:
    log = bench.open(SMALL)
    for number in range(20):
        bench.append(log, f"v{number}")
    log.close()
    ours = ["00000000000000000000.log.deleted", "00000000000000000003.log.cleaned",
            "00000000000000000099.index", "leader-epoch-checkpoint.tmp",
            "00000000000000000000.index.tmp"]  # fmt: skip
    foreign = ["README", "notes.txt", "0.log", "00000000000000000000.log.bak"]
    for name in (*ours, *foreign):
        bench.disk.write_file_atomic(bench.path(name), b"x", durable=False)
    log = bench.open(SMALL)
    assert sorted(log.foreign_files) == sorted(foreign)
    names = bench.disk.listdir(bench.dir)
    assert not set(ours) & set(names)
    assert set(foreign) <= set(names)
    assert bench.values(log) == [f"v{number}" for number in range(20)]


def test_a_swap_that_compaction_began_is_completed(bench: Any) -> None:
    log = bench.open(SMALL)
    for number in range(20):
        bench.append(log, f"v{number}")
    log.close()
    first, second = log.segments[:2]
    merged = bench.disk.read_file(first.path(".log")) + bench.disk.read_file(second.path(".log"))
    bench.disk.write_file_atomic(first.path(".log.swap"), merged, durable=False)
    log = bench.open(SMALL)
    assert log.segments[0].size == len(merged)
    assert log.segments[1].base_offset > second.base_offset
    assert bench.values(log) == [f"v{number}" for number in range(20)]


def test_a_log_start_above_the_end_begins_anew_there(bench: Any) -> None:
    log = bench.open()
    bench.append(log, "a")
    log.close()
    log = bench.open(log_start_offset=100)
    assert (log.log_start_offset, log.log_end_offset) == (100, 100)
    assert bench.append(log, "b") == 100


# Found by tests/property/test_storage_log.py


def test_what_a_killed_process_created_is_synced_by_the_next_one(memory_bench: Any) -> None:
    bench = memory_bench
    bench.disk.sync_dir("/")
    log = bench.open()
    bench.append(log, "a")
    bench.disk.kill()
    log = bench.open()
    log.flush_blocking()
    for _ in range(20):
        bench.disk.crash()
        assert bench.values(bench.open()) == ["a"]


def test_a_recovered_tail_does_not_come_back_with_the_next_power_loss(memory_bench: Any) -> None:
    bench = memory_bench
    for seed in range(30):
        bench.disk = type(bench.disk)(seed)
        bench.disk.makedirs("/data")
        bench.disk.sync_dir("/")
        log = bench.open()
        bench.append(log, "a")
        log.flush_blocking()
        file = bench.disk.open(bench.path(FIRST_LOG))
        file.append([bytes(bench.batch("torn"))[:-5]])
        file.sync()
        bench.disk.kill()
        log = bench.open(recovery_point=1)
        log.roll(bench.now)
        bench.append(log, "b")
        log.active_segment.file.sync()
        bench.disk.sync_dir(bench.dir)
        bench.disk.crash()
        log = bench.open(recovery_point=1)
        assert log.corrupt_offset is None
        assert bench.values(log) == ["a", "b"]


def test_a_segment_that_lost_its_tail_before_a_sound_one_is_damage_in_the_middle(bench: Any) -> None:
    log = bench.open(SMALL)
    for number in range(20):
        bench.append(log, f"v{number}")
    log.close_files()
    first, second = log.segments[:2]
    file = bench.disk.open(first.path(".log"))
    file.truncate(first.size // (second.base_offset) * 2)
    file.close()
    log = bench.open(SMALL)
    assert (log.readable_end, log.log_end_offset) == (2, 20)
    log.close_files()
    log = bench.open(SMALL, recovery_point=second.base_offset)  # unseen by the scan, met by a reader
    with pytest.raises(KafkaError, match="CORRUPT_MESSAGE"):
        log.read(2, 1000, end_offset=20)


def test_truncating_to_damage_at_the_end_of_a_segment_removes_what_follows_it(bench: Any) -> None:
    log = bench.open()
    bench.append(log, "a")
    log.roll(bench.now)
    bench.append(log, "b")
    log.close_files()
    file = bench.disk.open(bench.path(FIRST_LOG))
    file.append([b"garbage" * 20])
    file.close()
    log = bench.open()
    assert log.readable_end == 1
    log.truncate_to(log.readable_end)
    assert len(log.segments) == 1
    assert bench.append(log, "c") == 1
    assert bench.values(log) == ["a", "c"]


@pytest.mark.parametrize("text", [b"0\n2\n0 0\n1 1", b"0\n2\n0 0\n", b""])
def test_a_torn_epoch_checkpoint_is_not_half_believed(bench: Any, text: bytes) -> None:
    log = bench.open(SMALL)
    for number in range(20):
        bench.append(log, f"v{number}", epoch=number // 10)
    log.close()
    bench.disk.write_file_atomic(bench.path("leader-epoch-checkpoint"), text, durable=False)
    log = bench.open(SMALL, recovery_point=log.active_segment.base_offset)
    assert log.epochs.entries == [(0, 0), (1, 10)]


# Found by simulation (one-groups, seed 4)


def test_a_stop_does_not_rely_on_an_fsync_under_way(memory_bench: Any) -> None:
    bench = memory_bench
    for seed in range(20):
        bench.disk = type(bench.disk)(seed)
        bench.disk.makedirs("/data")
        bench.disk.sync_dir("/")
        log = bench.open()
        bench.append(log, "a")
        log.sync(StepSyncer(), lambda error: None)  # begun, and never done
        log.close()
        end = log.log_end_offset
        bench.disk.sync_dir("/data")
        bench.disk.crash()
        assert bench.values(bench.open(clean=True, recovery_point=end)) == ["a"]
