"""Records with any times at all, and clocks that jump: what is found by time, what retention takes, what rolls.

Wild times are taken where `message.timestamp.before.max.ms` and `after.max.ms` let them pass, as in Kafka: a look-up
finds the first record at or after a time, a segment is as old as its latest record, and one whose records have no time
as old as its file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from odradek.storage.config import UNLIMITED, LogConfig
from odradek.storage.log import Log
from odradek.storage.memory_disk import MemoryDisk
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.records import Codec, Record, build_batch

NOW = 1_700_000_000_000
HOUR_MS = 3_600_000
FAR = (1 << 62) - 1
WILD = (-FAR, -5, -1, -1, 0, 1, 999, NOW - HOUR_MS, NOW, NOW + HOUR_MS, FAR)
CONFIG = LogConfig(
    segment_bytes=700,
    index_interval_bytes=100,
    timestamp_before_max_ms=UNLIMITED,
    timestamp_after_max_ms=UNLIMITED,
    retention_ms=HOUR_MS,
    segment_ms=1 << 61,
    file_delete_delay_ms=0,
)


@dataclass
class Life:
    seed: int
    times: list[int] = field(default_factory=list)
    """Of the record at each offset."""

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)
        self.disk = MemoryDisk(self.seed)
        self.disk.makedirs("/data")
        self.wall = NOW
        self.recovery_point = 0
        self.open(clean=False)

    def open(self, *, clean: bool) -> None:
        self.log = Log.open(
            self.disk, "/data/t-0", CONFIG, topic="t", partition=0, wall_ms=self.wall, clean=clean,
            recovery_point=self.recovery_point,
        )  # fmt: skip

    def append(self) -> None:
        near = self.rng.randint(-2000, 2000)
        times = [
            self.rng.choice((*WILD, NOW + near, NOW + near)) for _ in range(self.rng.choice((1, 1, 2, 4)))
        ]
        # A delta between two times of one batch has 64 bits at most.
        if max(times) - min(times) >= 1 << 62:
            times = [times[0]] * len(times)
        records = [Record(at, time, b"k", bytes(20)) for at, time in enumerate(times)]
        codec = self.rng.choice((Codec.NONE, Codec.NONE, Codec.GZIP))
        result = self.log.append_as_leader(memoryview(build_batch(records, codec=codec)), 0, self.wall)
        self.log.write_staged()
        assert result.base_offset == len(self.times)
        self.times += times

    def jump(self) -> None:
        """NTP, a person, a battery."""
        self.wall = NOW + self.rng.choice((-10 * HOUR_MS, -5_000, 0, 5_000, 10 * HOUR_MS))

    def restart(self) -> None:
        clean = self.rng.random() < 0.5
        if clean:
            self.log.close()
        self.recovery_point = self.log.recovery_point
        self.disk.kill()
        self.open(clean=clean)

    def cut(self) -> None:
        if len(self.times) - self.log.log_start_offset > 3:
            self.log.truncate_to(len(self.times) - 2)
            del self.times[self.log.log_end_offset :]

    def retain(self) -> None:
        expected = self._start_after_retention()
        self.log.delete_old_segments(self.wall)
        assert self.log.log_start_offset == expected

    def _start_after_retention(self) -> int:
        """Oldest segments first, until one is not old."""
        bases = [segment.base_offset for segment in self.log.segments]
        for segment, end in zip(self.log.segments, [*bases[1:], len(self.times)], strict=True):
            latest = max(self.times[segment.base_offset : end], default=-1)
            age = self.wall - (latest if latest >= 0 else segment.created_ms)
            if segment.base_offset == end or age <= HOUR_MS:
                return max(segment.base_offset, self.log.log_start_offset)
        return len(self.times)

    def check(self) -> None:
        start = self.log.log_start_offset
        for time in (
            0,
            1,
            500,
            NOW - HOUR_MS,
            NOW - 1,
            NOW,
            NOW + 1,
            NOW + 2001,
            NOW + HOUR_MS,
            FAR,
            FAR + 1,
        ):
            found = self.log.lookup_timestamp(time)
            wanted = next((at for at in range(start, len(self.times)) if self.times[at] >= time), None)
            assert (found is None) == (wanted is None), time
            if found is not None:
                assert found[:2] == (self.times[found[1]], wanted)
        latest = max(self.times[start:], default=-1)
        found = self.log.max_timestamp()
        assert (found is None) == (latest < 0)
        assert found is None or found[:2] == (latest, self.times.index(latest, start))


@pytest.mark.parametrize("seed", range(0, 150, 50))
def test_what_is_found_by_time_and_what_retention_takes(seed: int) -> None:
    names = ("append",) * 12 + ("jump", "restart", "cut", "retain")
    for number in range(seed, seed + 50):
        life = Life(number)
        for _ in range(60):
            getattr(life, life.rng.choice(names))()
        life.check()


@pytest.mark.parametrize(
    ("time", "limits", "taken"),
    [
        (-1, {"timestamp_before_max_ms": 1000}, True),  # no time is no wrong time
        (-2, {}, True),
        (-FAR, {}, True),
        (-2, {"timestamp_before_max_ms": 1000}, False),
        (NOW - 1000, {"timestamp_before_max_ms": 1000}, True),
        (NOW - 1001, {"timestamp_before_max_ms": 1000}, False),
        (NOW + HOUR_MS, {}, True),
        (NOW + HOUR_MS + 1, {}, False),
        (FAR, {}, False),
        (FAR, {"timestamp_after_max_ms": UNLIMITED}, True),
        (0, {"timestamp_before_max_ms": 0}, False),
        (NOW, {"timestamp_before_max_ms": 0, "timestamp_after_max_ms": 0}, True),
    ],
)
@pytest.mark.parametrize("codec", [Codec.NONE, Codec.LZ4])
def test_wild_times_are_taken_or_refused_as_kafka_does(
    time: int, limits: dict[str, Any], taken: bool, codec: Codec
) -> None:
    disk = MemoryDisk(1)
    disk.makedirs("/data")
    log = Log.open(disk, "/data/t-0", LogConfig(**limits), topic="t", partition=0, wall_ms=NOW)
    batch = memoryview(build_batch([Record(0, time, b"k", b"v")], codec=codec))
    if taken:
        assert log.append_as_leader(batch, 0, NOW).base_offset == 0
        return
    with pytest.raises(KafkaError) as refused:
        log.append_as_leader(batch, 0, NOW)
    assert refused.value.code is ErrorCode.INVALID_TIMESTAMP
    assert log.log_end_offset == 0
