"""What compaction keeps, batch by batch: Kafka's rules for keys, tombstones, transactions and producers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from odradek.storage.cleaner import KEY_BYTES, Cleaned, CleaningError, run
from odradek.storage.compaction import Compaction, Dirty, measure
from odradek.storage.config import LogConfig
from odradek.storage.log import Log
from odradek.storage.memory_disk import MemoryDisk
from odradek.wire.records import (
    BatchHeader,
    Codec,
    Record,
    build_batch,
    end_txn_marker,
    iter_batches,
    read_records,
)
from support.compaction import clean, swap

NOW = 1_700_000_000_000
DAY = 24 * 3600 * 1000
COMPACT = LogConfig(cleanup_compact=True, cleanup_delete=False, delete_retention_ms=DAY)
TABLE = 1 << 20


class Topic:
    """A compacted log, written to record by record."""

    def __init__(self, bench: Any, config: LogConfig = COMPACT) -> None:
        self.bench = bench
        self.now = NOW
        self.clean_below = 0
        self.log: Log = bench.open(config)

    def append(self, *items: tuple[str, str | None], timestamp: int | None = None, **options: Any) -> None:
        when = self.now if timestamp is None else timestamp
        records = [
            Record(at, when, key.encode(), None if value is None else value.encode())
            for at, (key, value) in enumerate(items)
        ]
        batch = build_batch(records, **options)
        self.log.append_as_leader(
            memoryview(batch), 0, self.now, transactional=options.get("transactional", False)
        )
        self.log.write_staged()

    def end(self, producer_id: int, epoch: int = 0, *, commit: bool) -> None:
        marker = end_txn_marker(
            producer_id, epoch, commit=commit, coordinator_epoch=0, base_offset=0, timestamp=self.now
        )
        self.log.append_as_leader(memoryview(marker), 0, self.now, allow_control=True)
        self.log.write_staged()

    def close_segment(self) -> None:
        self.log.roll(self.now)
        self.log.flush_blocking()

    def measure(self) -> Dirty | None:
        stable = self.log.last_stable_offset(self.log.log_end_offset)
        return measure(self.log, self.clean_below, stable, self.now)

    def clean(self, table_bytes: int = TABLE) -> Cleaned:
        dirty = self.measure()
        assert dirty is not None, "nothing to clean"
        cleaned = clean(self.log, dirty, self.now, table_bytes, self.bench.disk)
        self.clean_below = cleaned.end_offset
        return cleaned

    def batches(self) -> list[tuple[BatchHeader, list[Record]]]:
        found: list[tuple[BatchHeader, list[Record]]] = []
        offset = self.log.log_start_offset
        while offset < self.log.written_end_offset:
            result = self.log.read(offset, 1 << 20, end_offset=self.log.written_end_offset)
            view = memoryview(result.data)
            for position, header in iter_batches(view):
                found.append((header, read_records(view[position : position + header.size], limit=1 << 20)))
            offset = result.next_offset
        return found

    def headers(self) -> list[BatchHeader]:
        return [header for header, _ in self.batches()]

    def records(self) -> list[tuple[int, str, str | None]]:
        return [
            (
                record.offset,
                (record.key or b"").decode(),
                None if record.value is None else record.value.decode(),
            )
            for header, records in self.batches()
            if not header.is_control
            for record in records
        ]


@pytest.fixture
def topic(bench: Any) -> Topic:
    return Topic(bench)


@pytest.mark.parametrize("codec", list(Codec))
def test_the_last_value_of_each_key_stays_at_its_offset(topic: Topic, codec: Codec) -> None:
    topic.append(("a", "1"), ("b", "1"), ("a", "2"), codec=codec)
    topic.append(("c", "1"), codec=codec)
    topic.append(("b", "2"), codec=codec)
    topic.close_segment()
    topic.append(("a", "3"))
    cleaned = topic.clean()
    assert topic.records() == [(2, "a", "2"), (3, "c", "1"), (4, "b", "2"), (5, "a", "3")]
    first = topic.headers()[0]
    assert (first.base_offset, first.last_offset, first.codec) == (0, 2, codec)
    assert (cleaned.end_offset, cleaned.keys, cleaned.records_read, cleaned.records_kept) == (5, 3, 5, 3)


def test_the_active_segment_stays_as_it_is(topic: Topic) -> None:
    topic.append(("a", "1"))
    topic.append(("a", "2"))
    topic.log.flush_blocking()
    assert topic.measure() is None


def test_what_no_sync_has_covered_or_is_not_stable_is_not_cleaned(topic: Topic) -> None:
    topic.append(("a", "1"))
    topic.log.flush_blocking()
    topic.log.roll(NOW)
    topic.append(("a", "2"))
    topic.log.roll(NOW)
    assert measure(topic.log, 0, 2, NOW) == Dirty(0, 1, 1, 0, topic.log.segments[0].size, False)
    topic.log.flush_blocking()
    assert measure(topic.log, 0, 1, NOW) == Dirty(0, 1, 1, 0, topic.log.segments[0].size, False)
    found = measure(topic.log, 0, 2, NOW)
    assert found is not None
    assert found.end_offset == 2


def test_min_compaction_lag_spares_the_young_segments(bench: Any) -> None:
    topic = Topic(bench, replace(COMPACT, min_compaction_lag_ms=1000))
    topic.append(("a", "1"), timestamp=NOW - 2000)
    topic.close_segment()
    topic.append(("a", "2"), timestamp=NOW - 500)
    topic.close_segment()
    found = topic.measure()
    assert found is not None
    assert (found.end_offset, found.segments) == (1, 1)
    topic.now += 600
    found = topic.measure()
    assert found is not None
    assert found.end_offset == 2


def test_max_compaction_lag_does_not_wait_for_the_dirty_ratio(bench: Any) -> None:
    topic = Topic(bench, replace(COMPACT, max_compaction_lag_ms=1000))
    topic.append(*[(f"k{at}", "v" * 100) for at in range(20)])
    topic.close_segment()
    topic.clean()
    topic.append(("k1", "new"))
    topic.close_segment()
    found = topic.measure()
    assert found is not None
    assert found.ratio < 0.5
    assert not found.is_worth_it(0.5)
    topic.now += 1001
    found = topic.measure()
    assert found is not None
    assert found.is_worth_it(0.5)


def test_a_tombstone_goes_when_the_horizon_that_the_first_cleaning_set_is_over(topic: Topic) -> None:
    topic.append(("a", "1"))
    topic.append(("a", None), ("b", "1"))
    topic.close_segment()
    topic.append(("x", "1"))
    topic.close_segment()
    topic.clean()
    assert topic.records() == [(1, "a", None), (2, "b", "1"), (3, "x", "1")]
    batch = topic.headers()[0]
    assert batch.delete_horizon_ms == NOW + DAY
    assert [r.timestamp for _, records in topic.batches() for r in records] == [NOW] * 3

    topic.append(("y", "1"))
    topic.close_segment()
    topic.now += DAY - 1
    topic.clean()
    assert topic.headers()[0].delete_horizon_ms == NOW + DAY
    topic.append(("z", "1"))
    topic.close_segment()
    topic.now += 1
    topic.clean()
    assert [record[1] for record in topic.records()] == ["b", "x", "y", "z"]


def test_records_without_a_key_from_before_the_topic_was_compacted_go(bench: Any) -> None:
    topic = Topic(bench, LogConfig())
    batch = build_batch([Record(0, NOW, None, b"v"), Record(1, NOW, b"k", b"v")])
    topic.log.append_as_leader(memoryview(batch), 0, NOW)
    topic.close_segment()
    topic.log.set_config(COMPACT)
    topic.clean()
    assert topic.records() == [(1, "k", "v")]


def test_the_last_batch_of_a_producer_stays_without_its_records(topic: Topic) -> None:
    for sequence in range(3):
        topic.append(("a", str(sequence)), producer_id=7, producer_epoch=1, base_sequence=sequence)
    topic.append(("a", "last"))
    topic.append(("b", "1"))
    topic.close_segment()
    topic.clean()
    assert topic.records() == [(3, "a", "last"), (4, "b", "1")]
    empty = topic.headers()[0]
    assert (empty.base_offset, empty.count, empty.size, empty.base_timestamp) == (2, 0, 61, -1)
    assert (empty.producer_id, empty.producer_epoch, empty.last_sequence) == (7, 1, 2)
    topic.log.close()
    for name in topic.bench.disk.listdir(topic.log.dir):
        if name.endswith(".snapshot"):
            topic.bench.disk.unlink(topic.bench.path(name))
    again = topic.bench.open(COMPACT)
    assert again.producers.entries[7].last_sequence == 2


def test_the_empty_batch_goes_when_its_producer_has_written_again(topic: Topic) -> None:
    topic.append(("a", "0"), producer_id=7, producer_epoch=0, base_sequence=0)
    topic.append(("a", "1"))
    topic.close_segment()
    topic.clean()
    assert topic.headers()[0].count == 0
    topic.append(("b", "0"), producer_id=7, producer_epoch=0, base_sequence=1)
    topic.close_segment()
    topic.clean()
    assert [header.base_offset for header in topic.headers()] == [1, 2]


def test_the_last_batch_of_what_was_cleaned_keeps_the_end_of_the_log(topic: Topic) -> None:
    topic.append(("a", "1"))
    topic.append(("b", None))
    topic.close_segment()
    topic.clean()
    topic.append(("a", "2"))
    topic.close_segment()
    topic.now += DAY
    topic.clean()
    assert topic.records() == [(2, "a", "2")]
    topic.append(("c", None))
    topic.close_segment()
    topic.clean()
    topic.now += DAY + 1
    topic.append(("d", "1"))
    topic.close_segment()
    topic.clean()
    assert topic.records() == [(2, "a", "2"), (4, "d", "1")]


def transaction(topic: Topic, producer_id: int, sequence: int, *items: tuple[str, str]) -> None:
    topic.append(
        *items, producer_id=producer_id, producer_epoch=0, base_sequence=sequence, transactional=True
    )


def test_records_of_an_aborted_transaction_go_and_supersede_nothing(topic: Topic) -> None:
    topic.append(("a", "good"))
    transaction(topic, 5, 0, ("a", "bad"))
    topic.end(5, commit=False)
    topic.append(("b", "1"))
    topic.close_segment()
    topic.clean()
    assert topic.records() == [(0, "a", "good"), (3, "b", "1")]
    assert [header.base_offset for header in topic.headers() if header.is_control] == [2]
    assert topic.log.aborted_transactions(0, 4) == [(5, 1)]


def test_a_marker_behind_what_is_cleaned_decides_too(topic: Topic) -> None:
    topic.append(("a", "good"))
    transaction(topic, 5, 0, ("a", "bad"))
    topic.close_segment()
    topic.end(5, commit=False)
    topic.clean()
    assert topic.records() == [(0, "a", "good")]


@pytest.mark.parametrize("commit", [True, False])
def test_a_marker_goes_after_its_records_and_its_horizon(topic: Topic, commit: bool) -> None:
    topic.append(("a", "0"))
    transaction(topic, 5, 0, ("a", "1"))
    topic.end(5, commit=commit)
    transaction(topic, 5, 1, ("b", "1"))
    topic.end(5, commit=True)
    topic.append(("a", "2"))
    topic.close_segment()

    def markers() -> list[int]:
        return [header.base_offset for header in topic.headers() if header.is_control]

    topic.clean()
    assert markers() == [2, 4]
    for step in range(3):
        topic.append(("x", str(step)))
        topic.close_segment()
        topic.clean()
        assert markers() == ([2, 4] if step < 2 else [4])
        if step == 0:
            assert [h.delete_horizon_ms for h in topic.headers() if h.is_control] == [NOW + DAY, None]
        topic.now += DAY // 2
    assert topic.log.aborted_transactions(0, topic.log.log_end_offset) == []


def test_a_table_too_small_for_all_keys_cleans_in_passes(topic: Topic) -> None:
    for round_ in range(2):
        for at in range(10):
            topic.append((f"k{at}", str(round_)))
        topic.close_segment()
    ends = [topic.clean(4 * KEY_BYTES).end_offset for _ in range(5)]
    assert ends == [4, 8, 12, 16, 20]
    assert [(key, value) for _, key, value in topic.records()] == [(f"k{at}", "1") for at in range(10)]
    assert topic.measure() is None


def test_a_batch_with_more_keys_than_the_table_is_said_to_be_the_problem(topic: Topic) -> None:
    topic.append(*[(f"k{at}", "v") for at in range(5)])
    topic.close_segment()
    dirty = topic.measure()
    assert dirty is not None
    compaction = Compaction.begin(topic.log, dirty, NOW, 4 * KEY_BYTES)
    with pytest.raises(CleaningError, match="more than 4 keys"):
        run(compaction.job, topic.bench.disk)


def test_small_segments_are_joined_up_to_segment_bytes(bench: Any) -> None:
    topic = Topic(bench, replace(COMPACT, segment_bytes=300))
    for at in range(12):
        topic.append((f"k{at}", "v"))
    topic.close_segment()
    before = [segment.size for segment in topic.log.segments]
    for at in range(12):
        topic.append((f"k{at}", "w"))
    topic.close_segment()
    topic.clean()
    sizes = [segment.size for segment in topic.log.segments]
    assert sizes == [0, 0, 0, *before]
    topic.append(("other", "v"))
    topic.close_segment()
    topic.clean()
    assert [segment.base_offset for segment in topic.log.segments] == [0, 16, 20, 24, 25]
    assert topic.log.size_bytes == sum(segment.size for segment in topic.log.segments)
    assert [key for _, key, _ in topic.records()] == [*[f"k{at}" for at in range(12)], "other"]


def test_a_log_in_which_nothing_would_change_is_not_written_anew(topic: Topic) -> None:
    topic.append(("a", "1"), ("b", "1"))
    topic.close_segment()
    cleaned = topic.clean()
    assert cleaned.groups == []
    assert cleaned.bytes_written == 0
    assert not [name for name in topic.bench.disk.listdir(topic.log.dir) if "clean" in name]


def test_damage_leaves_everything_as_it_is(memory_bench: Any) -> None:
    topic = Topic(memory_bench)
    topic.append(("a", "1"))
    topic.append(("a", "2"))
    topic.close_segment()
    memory_bench.disk.flip_bit(topic.log.segments[0].path(".log"), 100, 1)
    dirty = topic.measure()
    assert dirty is not None
    compaction = Compaction.begin(topic.log, dirty, NOW, TABLE)
    with pytest.raises(CleaningError, match="CRC"):
        run(compaction.job, memory_bench.disk)
    assert not [name for name in memory_bench.disk.listdir(topic.log.dir) if "clean" in name]


def test_a_log_that_was_cut_meanwhile_keeps_what_it_has(topic: Topic) -> None:
    topic.append(("a", "1"))
    topic.append(("a", "2"))
    topic.close_segment()
    dirty = topic.measure()
    assert dirty is not None
    compaction = Compaction.begin(topic.log, dirty, NOW, TABLE)
    cleaned = run(compaction.job, topic.bench.disk)
    topic.log.truncate_fully_and_start_at(50, NOW)
    assert not compaction.is_of_use
    assert not swap(compaction, cleaned)
    assert topic.log.log_end_offset == 50


def test_a_log_that_was_cut_inside_what_was_compacted_keeps_what_it_has(topic: Topic) -> None:
    topic.append(("a", "1"))
    topic.append(("a", "2"))
    topic.close_segment()
    topic.append(("b", "1"))
    dirty = topic.measure()
    assert dirty is not None
    compaction = Compaction.begin(topic.log, dirty, NOW, TABLE)
    cleaned = run(compaction.job, topic.bench.disk)
    topic.log.truncate_to(1)
    assert not swap(compaction, cleaned)
    assert topic.records() == [(0, "a", "1")]


def test_a_topic_that_is_not_to_be_compacted_any_more_keeps_what_it_has(topic: Topic) -> None:
    topic.append(("a", "1"))
    topic.append(("a", "2"))
    topic.close_segment()
    dirty = topic.measure()
    assert dirty is not None
    compaction = Compaction.begin(topic.log, dirty, NOW, TABLE)
    cleaned = run(compaction.job, topic.bench.disk)
    topic.log.set_config(LogConfig())
    assert not swap(compaction, cleaned)
    assert [value for _, _, value in topic.records()] == ["1", "2"]


def test_a_follower_takes_what_compaction_left(memory_bench: Any) -> None:
    topic = Topic(memory_bench)
    topic.append(("a", "0"), producer_id=7, producer_epoch=0, base_sequence=0)
    topic.append(("a", "1"), ("b", "1"))
    topic.append(("a", None))
    topic.append(("b", "2"))
    topic.close_segment()
    topic.append(("c", "1"))
    topic.clean()
    follower = Log.open(memory_bench.disk, "/data/t-1", COMPACT, topic="t", partition=1, wall_ms=NOW)
    while follower.log_end_offset < topic.log.log_end_offset:
        offset = follower.log_end_offset
        result = topic.log.read(offset, 150, end_offset=topic.log.written_end_offset)
        follower.append_as_follower(memoryview(bytes(result.data)), NOW)
        follower.write_staged()
        assert follower.log_end_offset > offset
    copy = Topic(memory_bench)
    copy.log = follower
    assert copy.batches() == topic.batches()
    assert [header.count for header in copy.headers()] == [0, 1, 1, 1]
    assert follower.producers.entries[7].last_sequence == 0


def test_a_crash_in_a_swap_does_not_cost_the_transaction_index(memory_bench: Any) -> None:
    for number in range(1000):
        disk = MemoryDisk()
        disk.makedirs("/data")
        bench = type(memory_bench)(disk, "/data")
        topic = Topic(bench)
        topic.append(("a", "good"))
        transaction(topic, 5, 0, ("a", "bad"))
        topic.end(5, commit=False)
        topic.append(("b", "1"))
        topic.close_segment()
        disk.faults.fail_change_at = disk.faults.changes + number
        try:
            topic.clean()
        except OSError:
            disk.kill()
        else:
            assert number > 10
            return
        recovered = bench.open(COMPACT, recovery_point=4)
        assert recovered.aborted_transactions(0, 4) == [(5, 1)]
