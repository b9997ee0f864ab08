"""The bench of recovery: files that both sides open, and what is made of its samples."""

from __future__ import annotations

from pathlib import Path

from bench import recovery_data, recovery_report
from bench.findings import page
from bench.recovery_report import CRASH, LOOKUP, MANY, outcomes, tables

from odradek.storage.config import LogConfig
from odradek.storage.log import Log
from odradek.storage.real_disk import RealDisk


def opened(directory: Path, recovery_point: int) -> Log:
    return Log.open(
        RealDisk(),
        str(directory),
        LogConfig(),
        topic="t",
        partition=0,
        wall_ms=1,
        recovery_point=recovery_point,
    )


def test_a_node_that_was_killed_finds_its_records_behind_segments_that_it_does_not_read(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "t-0"
    directory.mkdir()
    base = recovery_data.make_segments(directory, 3, 1 << 20)
    data, end = recovery_data.tail(base, 20_000, 1024)
    for _ in range(2):
        recovery_data.put_tail(directory, base, data)
        log = opened(directory, base)
        assert (log.log_start_offset, log.log_end_offset, log.corrupt_offset) == (0, end, None)
        assert [producer.last_offset for producer in log.active_producers()] == [end - 1]
        assert log.size_bytes == 3 * (1 << 20) + len(data)
        log.close_files()


def test_times_of_many_segments_are_found(tmp_path: Path) -> None:
    directory = tmp_path / "t-0"
    directory.mkdir()
    base, first, last = recovery_data.make_many_segments(directory, 20)
    log = opened(directory, base)
    found = log.lookup_timestamp(first + 501)
    assert found is not None
    assert found[:2] == (first + 550, 11)
    assert log.lookup_timestamp(last) is None


def test_a_start_may_take_three_seconds_and_three_for_each_gb() -> None:
    many = {"seconds": 6.0, "cpu_s": 5.0, "mb": 130.0, "peak_mb": 700.0, "idle_percent": 1.0}
    samples = {
        CRASH: {
            "nothing": {
                "odradek": [
                    {"seconds": 2.0, "cpu_s": 1.0, "mb": 40.0},
                    {"seconds": 3.5, "cpu_s": 1, "mb": 40.0},
                ]
            },
            "1 GB": {"odradek": [{"seconds": 5.5, "gb": 1.0}], "kafka": [{"seconds": 9.0, "gb": 1.0}]},
        },
        MANY: {"10,000 partitions": {"odradek": [many]}},
        LOOKUP: {
            "1,000 segments": {"odradek": [{"ms": 0.4, "p99_ms": 1.0, "first_ms": 40.0}, {"error": "boom"}]}
        },
    }
    results = {"recovery": samples, "machine": {"CPU": "x"}, "notes": ["n"], "date": "2026-01-01"}
    told = [(each.row, each.text, each.met) for each in outcomes(results)]
    assert told == [
        ("crash: nothing", "3.50 s, wanted ≤ 3.00", False),
        ("crash: 1 GB", "5.50 s, wanted ≤ 6.00", True),
        ("many: 10,000 partitions", "6.00 s, wanted ≤ 10.0", True),
        ("many: 10,000 partitions", "700 MB, wanted ≤ 600", False),
        ("many: 10,000 partitions", "1.00 % of a CPU when idle, wanted ≤ 3.00", True),
        ("lookup: 1,000 segments", "boom", False),
        ("lookup: 1,000 segments", "0.40 ms median, wanted ≤ 2.00", True),
    ]
    assert len(tables(results)) == 3
    assert "| 1 GB | 5.50 | 5.50 | 9.00 | 0.61 |" in page(recovery_report, "x", results)
