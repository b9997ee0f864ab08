"""Opening many logs: what is told on the way, and that it can be given up."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from random import Random

import pytest

from odradek.storage.config import LogConfig
from odradek.storage.log import Log
from odradek.storage.manager import LogManager
from odradek.storage.memory_disk import MemoryDisk, StepSyncer
from odradek.storage.opening import RecoveryStopped
from odradek.storage.scan import Finding, ScanJob, scan_files
from odradek.wire.records import simple_batch

NOW = 1_700_000_000_000
SMALL = LogConfig(segment_bytes=300)
PATHS = ["/data", "/more"]


def manager_on(disk: MemoryDisk) -> LogManager:
    manager = LogManager(disk, StepSyncer(), PATHS, rng=Random(1), default_config=SMALL)
    manager.start(node_id=1, cluster_id="c")
    return manager


@pytest.fixture
def disk() -> MemoryDisk:
    """Two directories with two logs each, of 1, 2, 3 and 4 segments, after kill -9."""
    disk = MemoryDisk()
    manager = manager_on(disk)
    for partition in range(4):
        log = manager.create_log("t", partition, bytes(16), wall_ms=NOW)
        for _ in range(1 + 2 * partition):
            batch = simple_batch([(b"k", b"v" * 70)], base_offset=0, timestamp=NOW)
            log.append_as_leader(memoryview(batch), 0, NOW)
        log.write_staged()
        assert len(log.segments) == partition + 1
    disk.kill()
    return disk


def test_counts_go_down_to_nothing(disk: MemoryDisk) -> None:
    manager = manager_on(disk)
    seen: list[tuple[object, ...]] = []
    progress = manager.recovery
    progress.on_segment = lambda log, base, done, total: seen.append(
        (log.partition, done, total, dict(progress.segments_left))
    )
    progress.on_log = lambda log, done, total: seen.append(
        (log.partition, done, total, dict(progress.logs_left))
    )
    assert manager.open_all(NOW).recovered == 4
    assert seen[:5] == [
        (0, 1, 1, {"/data": 3, "/more": 6}),
        (0, 1, 2, {"/data": 1, "/more": 2}),
        (2, 1, 3, {"/data": 2, "/more": 6}),
        (2, 2, 3, {"/data": 1, "/more": 6}),
        (2, 3, 3, {"/data": 0, "/more": 6}),
    ]
    assert seen[-1] == (3, 2, 2, {"/data": 0, "/more": 0})
    assert progress.is_over


def test_a_clean_start_scans_nothing(disk: MemoryDisk) -> None:
    manager = manager_on(disk)
    manager.open_all(NOW)
    manager.close()
    jobs: list[ScanJob] = []

    def scan(asked: Sequence[ScanJob]) -> Generator[Finding]:
        jobs.extend(asked)
        return scan_files(disk, asked)

    assert manager_on(disk).open_all(NOW, scan=scan).opened == 4
    assert jobs == []


def test_giving_up_leaves_everything_for_the_next_start(disk: MemoryDisk) -> None:
    manager = manager_on(disk)
    ended: list[int] = []

    def scan(asked: Sequence[ScanJob]) -> Generator[Finding]:
        try:
            yield from scan_files(disk, asked)
        finally:
            ended.append(len(asked))

    def stop(log: Log, base_offset: int, done: int, total: int) -> None:
        manager.recovery.stop_asked = (log.partition, done) == (2, 2)

    manager.recovery.on_segment = stop
    with pytest.raises(RecoveryStopped):
        manager.open_all(NOW, scan=scan)
    assert ended == [10]
    disk.kill()
    again = manager_on(disk)
    report = again.open_all(NOW)
    assert (report.opened, report.failed) == (4, [])
    assert sorted(log.log_end_offset for log in again.logs.values()) == [1, 3, 5, 7]


def test_damage_in_one_log_leaves_the_findings_of_the_next_ones_in_step(disk: MemoryDisk) -> None:
    path = "/data/t-2/00000000000000000000.log"
    data = bytearray(disk.read_file(path))
    data[70] ^= 1
    disk.write_file_atomic(path, bytes(data), durable=False)
    manager = manager_on(disk)
    report = manager.open_all(NOW)
    assert (report.opened, report.failed) == (4, [])
    assert {log.partition: log.corrupt_offset for log in manager.logs.values()} == {
        0: None,
        1: None,
        2: 0,
        3: None,
    }
    assert manager.logs["t", 3].log_end_offset == 7
