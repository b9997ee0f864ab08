"""The transaction index: which transactions a reader is told were aborted, whatever happened to the log meanwhile."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from odradek.storage.config import LogConfig
from odradek.storage.log import Log
from odradek.storage.txn_index import AbortedTxn, decode, encode
from odradek.wire.records import end_txn_marker, iter_batches, parse_end_txn_marker, read_records

SMALL = LogConfig(segment_bytes=1_500, index_interval_bytes=100)


class Producers:
    """Transactional producers on one log, and what they have done."""

    def __init__(self, bench: Any, log: Log) -> None:
        self.bench = bench
        self.log = log

    def write(self, pid: int, size: int = 10) -> int:
        known = self.log.producers.entries.get(pid)
        sequence = known.next_sequence if known is not None and known.batches else 0
        batch = self.bench.batch(
            size, producer_id=pid, producer_epoch=0, base_sequence=sequence, transactional=True
        )
        result = self.log.append_as_leader(batch, 0, self.bench.now, transactional=True)
        self.log.write_staged()
        return result.base_offset

    def end(self, pid: int, *, commit: bool) -> int:
        marker = end_txn_marker(
            pid, 0, commit=commit, coordinator_epoch=0, base_offset=0, timestamp=self.bench.now
        )
        result = self.log.append_as_leader(memoryview(marker), 0, self.bench.now, allow_control=True)
        self.log.write_staged()
        return result.base_offset


def expected(log: Log) -> list[AbortedTxn]:
    """Every aborted transaction, from the batches alone."""
    open_since: dict[int, int] = {}
    found: list[AbortedTxn] = []
    offset = log.log_start_offset
    while offset < log.written_end_offset:
        result = log.read(offset, 1 << 20, end_offset=log.written_end_offset)
        view = memoryview(result.data)
        for position, header in iter_batches(view):
            if header.is_control:
                (record,) = read_records(view[position : position + header.size], header, limit=1 << 20)
                begun = open_since.pop(header.producer_id, None)
                if begun is not None and not parse_end_txn_marker(record).commit:
                    stable = min(open_since.values(), default=header.base_offset + 1)
                    found.append(AbortedTxn(header.producer_id, begun, header.base_offset, stable))
            elif header.is_transactional:
                open_since.setdefault(header.producer_id, header.base_offset)
        offset = result.next_offset
    return found


def overlapping(all_aborted: list[AbortedTxn], start: int, end: int) -> set[tuple[int, int]]:
    return {
        (each.producer_id, each.first_offset)
        for each in all_aborted
        if each.last_offset >= start and each.first_offset < end
    }


def check(log: Log) -> None:
    """Whatever range is read, the transactions told are those that were aborted in it."""
    truth = expected(log)
    ends = range(log.log_start_offset, log.written_end_offset + 1, 3)
    for start in ends:
        for end in (start + 1, start + 4, start + 30):
            assert set(log.aborted_transactions(start, end)) == overlapping(truth, start, end), (start, end)


def fill(bench: Any, log: Log, seed: int, steps: int = 120) -> Producers:
    rng = Random(seed)
    producers = Producers(bench, log)
    busy: set[int] = set()
    for _ in range(steps):
        pid = rng.randrange(5)
        if pid in busy and rng.random() < 0.4:
            producers.end(pid, commit=rng.random() < 0.4)
            busy.discard(pid)
        else:
            producers.write(pid, rng.randrange(1, 60))
            busy.add(pid)
    return producers


def test_a_reader_is_told_of_aborted_transactions_in_its_range_only(memory_bench: Any) -> None:
    log = memory_bench.open()
    producers = Producers(memory_bench, log)
    first = producers.write(1)
    producers.write(2)
    producers.end(1, commit=False)
    producers.end(2, commit=True)
    third = producers.write(1)
    last = producers.end(1, commit=False)
    assert log.aborted_transactions(0, log.log_end_offset) == [(1, first), (1, third)]
    assert log.aborted_transactions(0, third) == [(1, first)]
    assert log.aborted_transactions(last, log.log_end_offset) == [(1, third)]
    assert log.aborted_transactions(log.log_end_offset, log.log_end_offset) == []


def test_the_last_stable_offset_follows_the_earliest_open_transaction(memory_bench: Any) -> None:
    """T2: and it is never above the high watermark."""
    log = memory_bench.open()
    producers = Producers(memory_bench, log)
    memory_bench.append(log, "plain")
    one, two = producers.write(1), producers.write(2)
    assert log.last_stable_offset(log.log_end_offset) == one
    marker = producers.end(1, commit=True)
    assert log.last_stable_offset(marker) == one, "the marker is not committed yet"
    assert log.last_stable_offset(marker + 1) == two
    producers.end(2, commit=False)
    for high_watermark in range(marker + 1, log.log_end_offset + 1):
        assert log.last_stable_offset(high_watermark) <= high_watermark
    assert log.last_stable_offset(log.log_end_offset) == log.log_end_offset
    log.producers.forget_completed(log.log_end_offset)
    assert log.producers.completed == []


@pytest.mark.parametrize("clean", [True, False])
def test_the_last_stable_offset_of_any_high_watermark_is_the_same_after_a_restart(
    bench: Any, clean: bool
) -> None:
    """A replica may come back with an older high watermark than it had: the checkpoint's."""
    log = bench.open(SMALL)
    fill(bench, log, 5)
    end = log.log_end_offset
    before = [log.last_stable_offset(mark) for mark in range(end + 1)]
    if clean:
        log.close()
    else:
        log.close_files()
    again = bench.open(SMALL, recovery_point=end if clean else 0, clean=clean)
    assert [again.last_stable_offset(mark) for mark in range(end + 1)] == before


def test_a_new_transaction_of_a_producer_is_later_than_older_ones_of_others(memory_bench: Any) -> None:
    log = memory_bench.open()
    producers = Producers(memory_bench, log)
    producers.write(1)
    two = producers.write(2)
    producers.end(1, commit=True)
    producers.write(1)
    assert log.last_stable_offset(log.log_end_offset) == two


def test_records_deleted_under_an_open_transaction_do_not_hold_the_stable_offset_below_the_log(
    memory_bench: Any,
) -> None:
    log = memory_bench.open()
    producers = Producers(memory_bench, log)
    producers.write(1)
    producers.write(1)
    log.advance_log_start(1)
    assert log.last_stable_offset(2) == 1


@pytest.mark.parametrize("seed", range(6))
def test_any_mixture_over_many_segments(memory_bench: Any, seed: int) -> None:
    log = memory_bench.open(SMALL)
    fill(memory_bench, log, seed)
    assert len(log.segments) > 3
    check(log)


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_the_index_is_there_after_a_restart(bench: Any, seed: int, clean: bool) -> None:
    log = bench.open(SMALL)
    fill(bench, log, seed)
    point = log.log_end_offset if clean else 0
    stable = log.last_stable_offset(log.log_end_offset)
    if clean:
        log.close()
    else:
        log.close_files()
    again = bench.open(SMALL, recovery_point=point, clean=clean)
    check(again)
    assert again.last_stable_offset(again.log_end_offset) == stable
    fill(bench, again, seed + 100)
    check(again)


@pytest.mark.parametrize("seed", range(4))
def test_a_scan_of_the_last_segments_makes_their_indexes_anew(memory_bench: Any, seed: int) -> None:
    bench = memory_bench
    log = bench.open(SMALL)
    fill(bench, log, seed)
    log.close_files()
    for segment in log.segments[2:]:
        path = segment.path(".txnindex")
        if bench.disk.exists(path):
            bench.disk.unlink(path)
    again = bench.open(SMALL, recovery_point=log.segments[2].base_offset + 1)
    check(again)
    again.close()
    check(bench.open(SMALL, recovery_point=again.log_end_offset, clean=True))


@pytest.mark.parametrize("seed", range(8))
def test_a_truncation_forgets_what_it_cuts_off(bench: Any, seed: int) -> None:
    rng = Random(seed)
    log = bench.open(SMALL)
    fill(bench, log, seed)
    log.truncate_to(rng.randrange(log.log_end_offset))
    check(log)
    fill(bench, log, seed + 1, steps=40)
    check(log)
    end = log.log_end_offset
    log.close()
    check(bench.open(SMALL, recovery_point=end, clean=True))


def test_a_truncation_to_nothing_leaves_no_index(bench: Any) -> None:
    log = bench.open()
    producers = Producers(bench, log)
    producers.write(1)
    producers.end(1, commit=False)
    log.close()
    log = bench.open(recovery_point=2, clean=True)
    assert log.aborted_transactions(0, 2) == [(1, 0)]
    log.truncate_to(1)
    assert log.aborted_transactions(0, 1) == []
    assert log.last_stable_offset(1) == 0
    log.close()
    assert bench.open(recovery_point=1, clean=True).aborted_transactions(0, 1) == []


def test_a_damaged_index_is_made_anew(bench: Any) -> None:
    log = bench.open(SMALL)
    fill(bench, log, 3)
    end = log.log_end_offset
    log.close()
    damaged = 0
    for segment in log.segments:
        path = segment.path(".txnindex")
        if bench.disk.exists(path):
            file = bench.disk.open(path)
            file.pwrite(b"\xff" * 5, 20)
            file.close()
            damaged += 1
    assert damaged > 2
    check(bench.open(SMALL, recovery_point=end, clean=True))


@pytest.mark.parametrize("seed", range(4))
def test_a_follower_has_the_same_index(memory_bench: Any, seed: int) -> None:
    bench = memory_bench
    log = bench.open(SMALL)
    fill(bench, log, seed)
    follower = Log.open(bench.disk, "/data/f-0", SMALL, topic="f", partition=0, wall_ms=bench.now)
    offset = 0
    while offset < log.written_end_offset:
        result = log.read(offset, 1000, end_offset=log.written_end_offset)
        follower.append_as_follower(memoryview(bytearray(result.data)))
        follower.write_staged()
        offset = result.next_offset
    check(follower)
    for mark in range(0, log.log_end_offset, 7):
        assert follower.last_stable_offset(mark) <= mark
    assert follower.last_stable_offset(offset) == log.last_stable_offset(offset)


def test_entries_have_kafkas_format() -> None:
    entries = [AbortedTxn(7, 100, 120, 90), AbortedTxn(8, 90, 130, 131)]
    data = encode(entries)
    assert len(data) == 68
    assert data[:34].hex() == "0000" + "0000000000000007" + "0000000000000064" + "0000000000000078" + (
        "000000000000005a"
    )
    assert decode(data, 80, 200) == entries
    assert decode(data, 121, 200) is None
    assert decode(data, 80, 130) is None
    assert decode(data[:-1], 80, 200) is None
    assert decode(b"\0\1" + data[2:], 80, 200) is None


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("lost", ["one", "all"])
def test_a_lost_index_is_missed_and_made_anew(memory_bench: Any, clean: bool, lost: str) -> None:
    """Below the recovery point too: else what was aborted would be given to readers of what is committed."""
    bench = memory_bench
    log = bench.open(SMALL)
    producers = Producers(bench, log)
    for number in range(40):
        producers.write(number % 3, 100)
        if number % 2:
            producers.end(number % 3, commit=number % 4 == 1)
    log.roll(bench.now)
    producers.write(1)
    log.flush_blocking()
    check(log)
    truth = expected(log)
    if clean:
        log.close()
    else:
        log.close_files()
    names = [name for name in bench.disk.listdir(bench.dir) if name.endswith(".txnindex")]
    assert len(names) > 2
    for name in names if lost == "all" else names[1:2]:
        bench.disk.unlink(bench.path(name))
    log = bench.open(SMALL, clean=clean, recovery_point=log.recovery_point)
    assert truth == expected(log)
    check(log)


def test_snapshots_of_kafka_say_nothing_of_aborted_transactions(memory_bench: Any) -> None:
    bench = memory_bench
    log = bench.open(SMALL)
    producers = Producers(bench, log)
    producers.write(1)
    producers.end(1, commit=False)
    assert log.producers.aborted == 1
    data = log.producers.encode_snapshot()
    log.producers.load_snapshot(data)
    assert log.producers.aborted == 1
    log.producers.aborted = 0
    assert len(log.producers.encode_snapshot()) < len(data)
