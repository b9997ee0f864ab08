"""Scans of segments: what they find, and that processes find the same."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from random import Random
from typing import Any

import pytest

from odradek.storage import scan_processes
from odradek.storage.config import LogConfig
from odradek.storage.log import Log
from odradek.storage.real_disk import RealDisk
from odradek.storage.scan import ScanJob, SegmentScan, scan_file
from odradek.wire.records import simple_batch

NOW = 1_700_000_000_000


def segments(directory: Path, count: int, *, seed: int = 1) -> list[ScanJob]:
    """Jobs for so many logs of one segment each, of different sizes, with several epochs."""
    rng = Random(seed)
    jobs = []
    for number in range(count):
        path = str(directory / f"t-{number}")
        log = Log.open(RealDisk(), path, LogConfig(), topic="t", partition=number, wall_ms=NOW)
        for at in range(rng.randrange(40)):
            batch = simple_batch(
                [(b"k", rng.randbytes(900))], base_offset=0, timestamp=NOW + rng.randrange(9)
            )
            log.append_as_leader(memoryview(batch), at // 10, NOW)
        log.write_staged()
        log.close_files()
        segment = log.active_segment
        jobs.append(ScanJob(segment.path(".log"), segment.written, 0, 1 << 31, 0, 4096, True))
    return jobs


def told(finding: SegmentScan | OSError) -> Any:
    if isinstance(finding, OSError):
        return finding.errno
    values = {name: getattr(finding, name) for name in SegmentScan.__slots__}
    values["damage"] = finding.damage and finding.damage.args
    values["index"] = finding.index.encode_offsets(), finding.index.encode_times()
    return values


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes for little; all but the smallest segments are theirs."""
    monkeypatch.setattr(scan_processes, "WORTH_BYTES", 0)
    monkeypatch.setattr(scan_processes, "LARGE_BYTES", 10_000)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


@pytest.mark.usefixtures("eager")
def test_processes_find_what_one_scan_after_the_other_finds(tmp_path: Path) -> None:
    jobs = segments(tmp_path, 24)
    with open(jobs[5].path, "r+b") as file:
        file.seek(1200)
        file.write(b"\xff")
    jobs[7] = jobs[7]._replace(path=str(tmp_path / "nowhere"))
    found = [told(finding) for finding in scan_processes.scan_in_processes(RealDisk(), 2, jobs)]
    assert found == [told(scan_file(RealDisk(), job)) for job in jobs]
    assert any(isinstance(each, int) for each in found)
    assert any(not isinstance(each, int) and each["damage"] for each in found)


@pytest.fixture
def born(eager: None, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ids of the processes that are started."""
    found: list[int] = []
    popen = scan_processes.subprocess.Popen

    def remembered(*arguments: Any, **options: Any) -> Any:
        child = popen(*arguments, **options)
        found.append(child.pid)
        return child

    monkeypatch.setattr(scan_processes.subprocess, "Popen", remembered)
    return found


def test_what_a_process_that_dies_has_left_is_done_here(tmp_path: Path, born: list[int]) -> None:
    jobs = segments(tmp_path, 24, seed=2)
    findings = scan_processes.scan_in_processes(RealDisk(), 2, jobs)
    found = [told(next(findings))]
    for pid in born:
        os.kill(pid, signal.SIGKILL)
    found += [told(finding) for finding in findings]
    assert len(born) == 2
    assert found == [told(scan_file(RealDisk(), job)) for job in jobs]


def test_who_wants_no_more_leaves_no_process_behind(tmp_path: Path, born: list[int]) -> None:
    findings = scan_processes.scan_in_processes(RealDisk(), 2, segments(tmp_path, 24, seed=3))
    next(findings)
    assert len(born) == 2
    findings.close()
    for pid in born:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_little_is_scanned_without_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_processes, "_Process", None)
    jobs = segments(tmp_path, 3)
    assert len(list(scan_processes.scan_in_processes(RealDisk(), 2, jobs))) == 3


def test_a_batch_that_is_larger_than_what_is_read_at_once(tmp_path: Path) -> None:
    """Also one whose length is damaged: it is never in memory as a whole."""
    config = LogConfig(max_message_bytes=8 << 20)
    log = Log.open(RealDisk(), str(tmp_path / "t-0"), config, topic="t", partition=0, wall_ms=NOW)
    for size in (10, 3 << 20, 10, 5 << 20):
        batch = simple_batch([(b"k", bytes(size))], base_offset=0, timestamp=NOW)
        log.append_as_leader(memoryview(batch), 0, NOW)
    log.write_staged()
    log.close_files()
    job = ScanJob(log.active_segment.path(".log"), log.active_segment.written, 0, 1 << 31, 0, 4096, True)
    found = scan_file(RealDisk(), job)
    assert isinstance(found, SegmentScan)
    assert (found.end_offset, found.damage) == (4, None)
    with open(job.path, "r+b") as file:
        file.seek(8)
        file.write((6 << 20).to_bytes(4, "big"))
    found = scan_file(RealDisk(), job)
    assert isinstance(found, SegmentScan)
    assert found.damage is not None
    assert (found.damage.position, found.end_offset) == (0, 0)


def test_nothing_is_left_of_a_batch_that_the_next_one_contradicts(tmp_path: Path) -> None:
    """Its epoch is under no checksum: index, times and epochs are as if it were not there."""
    config = LogConfig(index_interval_bytes=0)
    log = Log.open(RealDisk(), str(tmp_path / "t-0"), config, topic="t", partition=0, wall_ms=NOW)
    for at in range(6):
        batch = simple_batch([(b"k", b"v")], base_offset=0, timestamp=NOW + at)
        log.append_as_leader(memoryview(batch), 3, NOW)
    log.write_staged()
    log.close_files()
    size = log.active_segment.written // 6
    job = ScanJob(log.active_segment.path(".log"), log.active_segment.written, 0, 1 << 31, 0, 0, True)
    with open(job.path, "r+b") as file:
        file.seek(4 * size + 12)
        file.write((9).to_bytes(4, "big"))
    found = scan_file(RealDisk(), job)
    assert isinstance(found, SegmentScan)
    assert found.damage is not None
    assert (found.damage.position, found.end_offset) == (4 * size, 4)
    assert found.epochs == [(3, 0)]
    assert found.max_timestamp == NOW + 3
    assert list(found.index.offsets) == [1, 2, 3]
    assert list(found.index.times) == [NOW + 1, NOW + 2, NOW + 3]
