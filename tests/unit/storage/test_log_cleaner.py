"""Which log is compacted, in which order the steps come, and what a crash between them costs."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from odradek.storage.cleaner import Cleaned
from odradek.storage.config import LogConfig
from odradek.storage.log import Log
from odradek.storage.log_cleaner import LogCleaner
from odradek.storage.manager import LogManager
from odradek.storage.memory_disk import MemoryDisk, StepSyncer
from odradek.storage.state import NO_LIMIT
from odradek.wire.records import iter_batches, read_records, simple_batch

NOW = 1_700_000_000_000
COMPACT = LogConfig(cleanup_compact=True, cleanup_delete=False)
CHECKPOINT = "/data/d0/cleaner-offset-checkpoint"


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
        self.cleaner = LogCleaner(
            self.logs, self.disk, self.jobs.run, lambda log: log.written_end_offset, table_bytes=1 << 20
        )
        self.cleaned: list[tuple[str, Cleaned]] = []
        self.refused: list[tuple[str, str]] = []
        self.cleaner.on_cleaned = lambda log, cleaned: self.cleaned.append((log.topic, cleaned))
        self.cleaner.on_uncleanable = lambda log, reason: self.refused.append((log.topic, reason))

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
