"""The bench of compaction: files that both sides open, and what is made of its samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench import compaction_data, compaction_report
from bench.compaction_report import BESIDE, CLEAN, COMPILED, outcomes, tables
from bench.findings import page

from odradek.storage.compaction import measure
from odradek.storage.config import LogConfig
from odradek.storage.log import Log
from odradek.storage.real_disk import RealDisk
from support.compaction import clean

NOW = 1_800_000_000_000


def test_a_node_finds_a_log_of_which_a_tenth_is_left_when_it_is_compacted(tmp_path: Path) -> None:
    template, directory = tmp_path / "template" / "t-0", tmp_path / "t-0"
    end = compaction_data.make_log(template, 2_000_000, 500_000, keys=195)
    directory.mkdir()
    (directory / "partition.metadata").write_bytes(b"identity")
    compaction_data.place(template, directory)
    assert (directory / "partition.metadata").read_bytes() == b"identity"
    log = Log.open(
        RealDisk(), str(directory), LogConfig(cleanup_compact=True), topic="t", partition=0, wall_ms=NOW,
        recovery_point=end,
    )  # fmt: skip
    assert (log.log_end_offset, log.active_segment.size, log.corrupt_offset) == (end, 0, None)
    before = compaction_data.size_of(directory)
    dirty = measure(log, 0, end, NOW)
    assert dirty is not None
    assert dirty.end_offset == end
    clean(log, dirty, NOW, 1 << 20, RealDisk())
    assert 0.08 < compaction_data.size_of(directory) / before < 0.12
    assert compaction_data.size_of(template) == before
    log.close_files()


def test_the_compiled_build_may_take_twice_kafkas_time_and_both_half_as_much_again_of_the_quiet_p99() -> None:
    def cleaned(seconds: float) -> dict[str, Any]:
        return {"seconds": seconds, "cpu_s": 1.0, "left_mb": 200.0, "peak_mb": 90.0}

    def busy(ratio: float) -> dict[str, Any]:
        names = ("p99_ms", "quiet_p99_ms", "max_ms", "quiet_max_ms", "busy_s")
        return {"ratio": ratio} | dict.fromkeys(names, 1.0)

    row = "2 GB of 1 KB"
    samples = {
        CLEAN: {
            row: {"odradek": [cleaned(50)], COMPILED: [cleaned(19), cleaned(20)], "kafka": [cleaned(10)]}
        },
        BESIDE: {row: {"odradek": [busy(1.4)], COMPILED: [{"error": "no"}, busy(1.6)], "kafka": [busy(3)]}},
    }
    results = {"compaction": samples, "machine": {"CPU": "x"}, "notes": ["n"], "date": "2026-01-01"}
    assert [(one.row.rpartition(", ")[2], one.met) for one in outcomes(results)] == [
        (COMPILED, True), ("odradek", True), (COMPILED, False), (COMPILED, False),
    ]  # fmt: skip
    assert [len(table.rows) for table in tables(results)] == [3, 3]
    assert "1.95 × Kafka's time" in page(compaction_report, "name", results)
