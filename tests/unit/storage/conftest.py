"""Logs on both disks, and batches to put into them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from odradek.storage.config import LogConfig
from odradek.storage.log import Log
from odradek.storage.memory_disk import MemoryDisk
from odradek.storage.real_disk import RealDisk
from odradek.wire.records import Record, read_records, simple_batch

NOW = 1_700_000_000_000


class Bench:
    """A disk, a log on it and shorthands."""

    def __init__(self, disk: Any, root: str) -> None:
        self.disk = disk
        self.dir = f"{root}/t-0"
        self.now = NOW

    def open(self, config: LogConfig | None = None, **options: Any) -> Log:
        return Log.open(
            self.disk, self.dir, config or LogConfig(), topic="t", partition=0, wall_ms=self.now, **options
        )

    def batch(self, *values: str | int, timestamp: int | None = None, **options: Any) -> memoryview:
        """A client's batch: base offset 0, one record per value."""
        items = [(b"k", value.encode() if isinstance(value, str) else bytes(value)) for value in values]
        when = self.now if timestamp is None else timestamp
        return memoryview(simple_batch(items, base_offset=0, timestamp=when, **options))

    def append(self, log: Log, *values: str | int, epoch: int = 0, **options: Any) -> int:
        result = log.append_as_leader(self.batch(*values, **options), epoch, self.now)
        log.write_staged()
        return result.base_offset

    def records(self, log: Log, offset: int | None = None, max_bytes: int = 1 << 20) -> list[Record]:
        """Everything from `offset` on, read batch set by batch set."""
        offset = log.log_start_offset if offset is None else offset
        records: list[Record] = []
        while offset < log.written_end_offset:
            result = log.read(offset, max_bytes, end_offset=log.written_end_offset)
            assert result.next_offset > offset
            position, view = 0, memoryview(result.data)
            while position < len(view):
                size = int.from_bytes(view[position + 8 : position + 12], "big") + 12
                records += read_records(view[position : position + size], limit=1 << 24)
                position += size
            offset = result.next_offset
        return records

    def values(self, log: Log, offset: int | None = None) -> list[str]:
        return [(record.value or b"").decode() for record in self.records(log, offset)]

    def path(self, name: str) -> str:
        return f"{self.dir}/{name}"


@pytest.fixture(params=["memory", "real"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    if request.param == "real":
        return Bench(RealDisk(), str(tmp_path))
    disk = MemoryDisk()
    disk.makedirs("/data")
    return Bench(disk, "/data")


@pytest.fixture
def memory_bench() -> Bench:
    disk = MemoryDisk()
    disk.makedirs("/data")
    return Bench(disk, "/data")


@pytest.fixture
def refused() -> Callable[..., Any]:
    """`with refused("CODE") as error:` — the KafkaError that must come."""
    from odradek.wire.errors import KafkaError

    def check(code: str, match: str | None = None) -> Any:
        return pytest.raises(KafkaError, match=f"^{code}: .*{match or ''}")

    return check
