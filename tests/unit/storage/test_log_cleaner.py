"""Which log is compacted, in which order the steps come, and what a crash between them costs."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from odradek.storage.cleaner import KEY_BYTES, Cleaned, CleaningJob, Outcome
from odradek.storage.config import LogConfig
from odradek.storage.log import Log
from odradek.storage.log_cleaner import (
    DEATHS_MAX,
    LOGS_AT_ONCE,
    RETRY_MS,
    CleanerSettings,
    LogCleaner,
    Look,
    WorkersHere,
)
from odradek.storage.manager import LogManager
from odradek.storage.memory_disk import MemoryDisk, StepSyncer
from odradek.storage.state import NO_LIMIT
from odradek.wire.records import iter_batches, read_records, simple_batch

NOW = 1_700_000_000_000
COMPACT = LogConfig(cleanup_compact=True, cleanup_delete=False)
CHECKPOINT = "/data/d0/cleaner-offset-checkpoint"


class Workers(WorkersHere):
    """Some of whom come to an end of their own."""

    def __init__(self, jobs: StepSyncer, disk: MemoryDisk) -> None:
        super().__init__(jobs.run, disk)
        self._jobs = jobs
        self.ends: list[Outcome] = []

    def clean(self, job: CleaningJob, done: Callable[[Outcome], None]) -> None:
        if self.ends:
            outcome = self.ends.pop(0)
            self._jobs.run(lambda: None, lambda _: done(outcome))
        else:
            super().clean(job, done)


class Node:
    """A manager of logs on a disk in memory, and a cleaner that works when told to."""

    def __init__(self, seed: int = 0) -> None:
        self.disk = MemoryDisk(seed)
        self.now = NOW
        self.start()

    def start(self) -> None:
        self.syncer = StepSyncer()
        self.jobs = StepSyncer()
        self.logs = LogManager(self.disk, self.syncer, ["/data/d0"], rng=Random(1))
        self.logs.start(node_id=1, cluster_id=None)
        self.report = self.logs.open_all(self.now, lambda topic: COMPACT)
        self.workers = Workers(self.jobs, self.disk)
        self.elapsed = 0
        self.cleaner = LogCleaner(
            self.logs,
            self.disk,
            self.jobs.run,
            self.workers,
            lambda log: log.written_end_offset,
            lambda: self.elapsed,
        )
        self.cleaner.settings = CleanerSettings(threads=1, table_bytes=1 << 20)
        self.cleaned: list[tuple[str, Cleaned]] = []
        self.refused: list[tuple[str, str]] = []
        self.broken_off: list[tuple[str, str]] = []
        self.cleaner.on_cleaned = lambda log, cleaned, elapsed_ms: self.cleaned.append((log.topic, cleaned))
        self.cleaner.on_uncleanable = lambda log, reason: self.refused.append((log.topic, reason))
        self.cleaner.on_broken_off = lambda log, reason: self.broken_off.append((log.topic, reason))

    def create(self, topic: str, config: LogConfig = COMPACT) -> Log:
        return self.logs.create_log(topic, 0, config=config, topic_id=bytes(16), wall_ms=self.now)

    def fill(self, log: Log, values: int, *, keys: int = 3) -> None:
        for at in range(values):
            batch = simple_batch([(b"k%d" % (at % keys), b"%d" % at)], base_offset=0, timestamp=self.now)
            log.append_as_leader(memoryview(batch), 0, self.now)
        log.roll(self.now)
        log.flush_blocking()

    def clean(self) -> None:
        assert self.cleaner.tick(self.now)
        self.jobs.drain()
        assert not self.cleaner.is_busy

    def values(self, topic: str) -> dict[bytes | None, bytes | None]:
        log = self.logs.logs[topic, 0]
        found: dict[bytes | None, bytes | None] = {}
        offset = 0
        while offset < log.written_end_offset:
            result = log.read(offset, 1 << 20, end_offset=log.written_end_offset)
            view = memoryview(result.data)
            for position, header in iter_batches(view):
                for record in read_records(view[position : position + header.size], limit=1 << 20):
                    found[record.key] = record.value
            offset = result.next_offset
        return found


@pytest.fixture
def node() -> Node:
    return Node()


def test_one_log_at_a_time_the_dirtiest_first_and_none_twice(node: Node) -> None:
    node.fill(node.create("a"), 5)
    node.fill(node.create("plain", LogConfig()), 5)
    node.clean()
    node.fill(node.logs.logs["a", 0], 40)
    node.fill(node.create("b"), 10)
    assert node.cleaner.tick(node.now)
    assert not node.cleaner.tick(node.now)
    node.jobs.drain()
    node.clean()
    assert [topic for topic, _ in node.cleaned] == ["a", "b", "a"]
    assert not node.cleaner.tick(node.now)


def test_what_is_hardly_dirty_waits(node: Node) -> None:
    log = node.create("a")
    node.fill(log, 20, keys=20)
    node.clean()
    node.fill(log, 3)
    assert not node.cleaner.tick(node.now)
    node.fill(log, 30)
    assert node.cleaner.tick(node.now)


def test_how_far_a_log_is_clean_is_noted_as_kafka_does_and_known_after_a_restart(node: Node) -> None:
    node.fill(node.create("a"), 10)
    node.clean()
    assert node.disk.read_file(CHECKPOINT) == b"0\n1\na 0 10\n"
    node.logs.close()
    node.disk.kill()
    node.start()
    assert node.logs.logs["a", 0].compacted_below == 10
    assert not node.cleaner.tick(node.now)


def test_a_truncated_log_is_not_taken_for_clean_where_it_was_written_anew(node: Node) -> None:
    log = node.create("a")
    node.fill(log, 10)
    node.clean()
    log.truncate_to(8)
    assert node.disk.read_file(CHECKPOINT) == b"0\n1\na 0 8\n"
    log.truncate_fully_and_start_at(20)
    assert node.logs.clean_below(log) == 0


def test_a_log_that_was_deleted_meanwhile_leaves_nothing_behind(node: Node) -> None:
    node.fill(node.create("a"), 10)
    assert node.cleaner.tick(node.now)
    assert node.logs.delete_log("a", 0, wall_ms=node.now)
    node.fill(node.create("a"), 2)
    node.jobs.drain()
    assert not node.cleaner.is_busy
    assert not node.cleaned
    assert not [name for name in node.disk.listdir("/data/d0/a-0") if name.endswith(".cleaned")]
    assert node.values("a") == {b"k0": b"0", b"k1": b"1"}


def test_a_damaged_log_is_given_up_and_the_others_are_cleaned(node: Node) -> None:
    log = node.create("a")
    node.fill(log, 10)
    node.fill(node.create("b"), 5)
    node.disk.flip_bit(f"{log.dir}/00000000000000000000.log", 80, 1)
    for _ in range(2):
        node.clean()
        if node.cleaned:
            break
    assert [topic for topic, _ in node.refused] == ["a"]
    assert [topic for topic, _ in node.cleaned] == ["b"]
    assert not node.cleaner.tick(node.now)
    assert not log.offline


def test_a_failing_disk_takes_the_log_offline(node: Node) -> None:
    log = node.create("a")
    node.fill(log, 10)
    assert node.cleaner.tick(node.now)
    node.disk.faults.fail_change_at = node.disk.faults.changes + 2
    node.jobs.drain()
    assert log.offline
    assert not node.cleaner.is_busy


def test_as_many_logs_at_a_time_as_there_are_threads(node: Node) -> None:
    node.cleaner.settings = CleanerSettings(threads=2, table_bytes=1 << 20)
    for topic in "abc":
        node.fill(node.create(topic), 5)
    assert [node.cleaner.tick(node.now) for _ in range(3)] == [Look.BEGUN, Look.BEGUN, Look.NOTHING]
    assert [node.cleaner.is_cleaning((topic, 0)) for topic in "abc"] == [True, True, False]
    node.jobs.drain()
    node.clean()
    assert sorted(topic for topic, _ in node.cleaned) == ["a", "b", "c"]
    assert sorted(node.cleaner.last) == [0, 1]


def test_thousands_of_logs_are_looked_at_some_at_a_time(node: Node) -> None:
    for number in range(LOGS_AT_ONCE + 1):
        node.create(f"t{number}")
    node.fill(node.create("dirty"), 5)
    assert node.cleaner.tick(node.now) is Look.MORE
    assert node.cleaner.tick(node.now) is Look.BEGUN


def test_a_log_whose_worker_is_killed_is_tried_again_and_given_up_when_it_kills_them_all(node: Node) -> None:
    node.fill(node.create("a"), 5)
    node.workers.ends = [Outcome(died="signal 9")]
    node.clean()
    assert node.broken_off == [("a", "signal 9")]
    assert node.cleaner.last[0].died
    assert node.cleaner.tick(node.now) is Look.NOTHING  # not at once
    node.elapsed += RETRY_MS
    node.clean()
    assert [topic for topic, _ in node.cleaned] == ["a"]

    node.fill(node.logs.logs["a", 0], 50)
    node.workers.ends = [Outcome(died="out of memory")] * DEATHS_MAX
    for _ in range(DEATHS_MAX):
        node.clean()
        node.elapsed += RETRY_MS
    assert node.refused == [("a", f"{DEATHS_MAX} workers have died of it: out of memory")]
    assert node.cleaner.tick(node.now) is Look.NOTHING
    assert node.cleaner.uncleanable["a", 0].dirty_bytes > 0
    assert not node.logs.logs["a", 0].offline


def test_what_does_not_fit_the_table_is_cleaned_in_passes_one_after_the_other(node: Node) -> None:
    log = node.create("a", replace(COMPACT, min_cleanable_dirty_ratio=0.0))
    for _ in range(3):
        node.fill(log, 40, keys=40)
    expected = node.values("a")
    node.cleaner.settings = CleanerSettings(threads=1, table_bytes=15 * KEY_BYTES, load_factor=0.7)
    passes = 0
    while node.cleaner.tick(node.now):
        node.jobs.drain()
        passes += 1
        assert max(cleaned.keys for _, cleaned in node.cleaned) <= 10
        assert node.values("a") == expected
    assert passes == 12
    assert node.logs.clean_below(log) == 120
    assert sum(segment.size > 0 for segment in log.segments) == 1


def test_a_node_that_stops_changes_nothing_any_more_and_the_next_one_tidies_up(node: Node) -> None:
    log = node.create("a", replace(COMPACT, segment_bytes=300))
    for _ in range(3):
        node.fill(log, 9, keys=1)
    swaps: list[Callable[[], None]] = []
    node.cleaner.later = swaps.append
    assert node.cleaner.tick(node.now)
    node.jobs.drain()
    swaps.pop()()
    node.cleaner.stop()
    changes = node.disk.faults.changes
    swaps.pop()()
    node.jobs.drain()
    assert node.disk.faults.changes == changes
    assert node.cleaner.tick(node.now) is Look.NOTHING
    node.logs.close()
    node.disk.kill()
    node.start()
    assert node.values("a") == {b"k0": b"8"}
    assert not [name for name in node.disk.listdir(log.dir) if name.endswith((".cleaned", ".swap"))]


def test_what_cannot_be_noted_as_recovered_yet_is_not_compacted_in_vain(node: Node) -> None:
    log = node.create("a")
    log.epochs.assign(0, 0, durable=False)
    node.fill(log, 5)
    assert log.recovery_point == 5
    assert node.cleaner.tick(node.now) is Look.NOTHING
    node.logs.save_epochs(1)
    node.clean()
    assert [topic for topic, _ in node.cleaned] == ["a"]


def test_a_full_disk_is_waited_for(node: Node) -> None:
    log = node.create("a")
    node.fill(log, 5)
    node.workers.ends = [Outcome(error=OSError(errno.ENOSPC, "No space left on device"))]
    node.clean()
    assert not log.offline
    assert len(node.broken_off) == 1
    node.elapsed += RETRY_MS
    node.clean()
    assert [topic for topic, _ in node.cleaned] == ["a"]


def test_files_that_retention_has_taken_away_meanwhile_are_no_fault_of_the_disk(node: Node) -> None:
    log = node.create("a", replace(COMPACT, cleanup_delete=True, retention_ms=1000))
    node.fill(log, 10)
    assert node.cleaner.tick(node.now)
    assert log.delete_old_segments(node.now + 2000) == 1
    node.jobs.drain()
    assert not log.offline
    assert not node.cleaned
    assert node.cleaner.tick(node.now) is Look.NOTHING


def test_the_segments_are_swapped_one_per_event(node: Node) -> None:
    log = node.create("a", replace(COMPACT, segment_bytes=300))
    for _ in range(3):
        node.fill(log, 9, keys=1)
    swaps: list[Callable[[], None]] = []
    node.cleaner.later = swaps.append
    assert node.cleaner.tick(node.now)
    sizes = {log.size_bytes}
    node.jobs.drain()
    while swaps:
        sizes.add(log.size_bytes)
        swaps.pop()()
        node.jobs.drain()
    assert len(sizes) > 3
    assert [topic for topic, _ in node.cleaned] == ["a"]


@pytest.mark.parametrize("step", range(1, 4))
def test_a_log_that_is_cut_between_two_swaps_is_not_noted_as_clean(node: Node, step: int) -> None:
    log = node.create("a", replace(COMPACT, segment_bytes=300))
    for _ in range(3):
        node.fill(log, 9, keys=1)
    swaps: list[Callable[[], None]] = []
    node.cleaner.later = swaps.append
    assert node.cleaner.tick(node.now)
    node.jobs.drain()
    for _ in range(step):
        swaps.pop()()
    log.truncate_to(20)
    while swaps:
        swaps.pop()()
    node.jobs.drain()
    assert not node.cleaner.is_busy
    assert not node.cleaned
    assert node.logs.clean_below(log) == 0
    assert not [name for name in node.disk.listdir(log.dir) if name.endswith((".cleaned", ".swap"))]
    assert log.log_end_offset <= 20
    log.read(0, 1 << 20, end_offset=log.written_end_offset)
    assert log.corrupt_offset is None


@pytest.mark.parametrize("power", [True, False])
def test_a_crash_between_any_two_steps_costs_nothing(power: bool) -> None:
    """At every change to the disk in turn, with a recovery point on disk that is as old as can be."""
    number = 0
    while True:
        node = Node(number)
        log = node.create("a", replace(COMPACT, segment_bytes=700))  # segments are emptied, not joined
        for _ in range(3):
            node.fill(log, 9)
        expected = node.values("a")
        node.disk.sync_dir("/data/d0")
        node.disk.sync_dir("/data")
        node.disk.sync_dir("/")
        node.disk.faults.fail_change_at = node.disk.faults.changes + number
        node.cleaner.tick(node.now)
        node.jobs.drain()
        finished = not log.offline
        node.disk.crash() if power else node.disk.kill()
        node.start()
        assert not node.report.failed
        recovered = node.logs.logs["a", 0]
        assert recovered.readable_end == NO_LIMIT
        assert recovered.log_end_offset == 27
        assert not recovered.tail_was_lost
        assert node.values("a") == expected
        recovered.flush_blocking()
        if node.cleaner.tick(node.now):
            node.jobs.drain()
        assert node.values("a") == expected
        assert recovered.size_bytes < 300
        if finished:
            assert number > 15
            return
        number += 1


def test_gaps_are_no_damage_though_a_loss_of_power_takes_the_checkpoints(node: Node) -> None:
    """They are written without an fsync: their names may be on the medium, and nothing in them."""
    log = node.create("a", replace(COMPACT, segment_bytes=700))
    for _ in range(3):
        node.fill(log, 9)
    expected = node.values("a")
    node.clean()
    node.syncer.drain()
    node.logs.checkpoint()
    for name in ("recovery-point-offset-checkpoint", "cleaner-offset-checkpoint"):
        file = node.disk.open(f"/data/d0/{name}")
        file.truncate(0)
        file.sync()
    for path in ("/data/d0/a-0", "/data/d0", "/data", "/"):
        node.disk.sync_dir(path)
    node.disk.crash()
    node.start()
    assert not node.report.failed
    recovered = node.logs.logs["a", 0]
    assert (recovered.readable_end, recovered.recovery_point) == (NO_LIMIT, 0)
    assert node.values("a") == expected


def test_a_log_of_the_same_name_has_no_gaps(node: Node) -> None:
    node.fill(node.create("a"), 10)
    node.clean()
    node.syncer.drain()
    assert node.logs.dirs[0].compacted == {("a", 0): 10}
    assert node.logs.delete_log("a", 0, wall_ms=node.now)
    node.create("a")
    node.syncer.drain()
    node.disk.kill()
    node.start()
    assert node.logs.dirs[0].compacted == {}
