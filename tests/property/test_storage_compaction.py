"""Random lives of a compacted log: writes, transactions, cleanings, and a crash at any change to the disk.

What must hold whatever happens: who reads all of the log comes to the same values, whether it was cleaned or not;
every record is at its offset; producers, their transactions and the ends of the log are what they were.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from odradek.storage.cleaner import KEY_BYTES, run
from odradek.storage.compaction import Compaction, measure
from odradek.storage.config import LogConfig
from odradek.storage.log import Log
from odradek.storage.memory_disk import MemoryDisk
from odradek.wire.errors import KafkaError
from odradek.wire.records import Codec, Record, build_batch, end_txn_marker, iter_batches, read_records
from support.compaction import swap

NOW = 1_700_000_000_000
DIR = "/data/t-0"
RETENTION_MS = 1000
KEYS = 6
PRODUCERS = (11, 12, 13)

Written = dict[int, tuple[bytes, bytes | None]]


@dataclass
class Life:
    """One disk, the log on it, and everything that was ever written."""

    seed: int
    written: Written = field(default_factory=dict)
    aborted: set[int] = field(default_factory=set)
    """Offsets of records whose transaction was aborted."""
    open_txns: dict[int, list[int]] = field(default_factory=dict)
    sequences: dict[int, int] = field(default_factory=dict)
    now: int = NOW
    clean_below: int = 0
    maybe_clean_below: int = 0
    """The same, if nobody came to note it before the crash."""
    recovery_point: int = 0
    cleanings: int = 0

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)
        self.disk = MemoryDisk(self.seed)
        self.disk.makedirs("/data")
        self.disk.sync_dir("/")
        self.config = LogConfig(
            cleanup_compact=True,
            cleanup_delete=False,
            segment_bytes=self.rng.choice((1000, 3000)),
            index_interval_bytes=200,
            delete_retention_ms=RETENTION_MS,
        )
        self.open(clean=False)

    def open(self, *, clean: bool) -> None:
        self.log = Log.open(
            self.disk, DIR, self.config, topic="t", partition=0, wall_ms=self.now, clean=clean,
            recovery_point=self.recovery_point, compacted_below=self.clean_below,
        )  # fmt: skip

    # What happens

    def write(self) -> None:
        count = self.rng.choice((1, 1, 2, 4))
        items = [(b"k%d" % self.rng.randrange(KEYS), self._value()) for _ in range(count)]
        options: dict[str, Any] = {"codec": self.rng.choice((Codec.NONE, Codec.NONE, Codec.GZIP, Codec.ZSTD))}
        producer = self.rng.choice((None, *PRODUCERS))
        transactional = producer == PRODUCERS[0] or producer in self.open_txns
        if producer is not None:
            first = self.sequences.get(producer, 0)
            self.sequences[producer] = first + count
            options |= {"producer_id": producer, "producer_epoch": 0, "base_sequence": first}
            options["transactional"] = transactional
        records = [Record(at, self.now, key, value) for at, (key, value) in enumerate(items)]
        result = self.log.append_as_leader(
            memoryview(build_batch(records, **options)), 0, self.now, transactional=transactional
        )
        for offset, item in enumerate(items, result.base_offset):
            self.written[offset] = item
            if producer is not None and transactional:
                self.open_txns.setdefault(producer, []).append(offset)

    def _value(self) -> bytes | None:
        return None if self.rng.random() < 0.3 else self.rng.randbytes(self.rng.choice((1, 40, 200)))

    def end_transaction(self) -> None:
        if not self.open_txns:
            return
        producer = self.rng.choice(sorted(self.open_txns))
        commit = self.rng.random() < 0.5
        if not commit:
            self.aborted.update(self.open_txns[producer])
        del self.open_txns[producer]
        marker = end_txn_marker(
            producer, 0, commit=commit, coordinator_epoch=0, base_offset=0, timestamp=self.now
        )
        self.log.append_as_leader(memoryview(marker), 0, self.now, allow_control=True)

    def flush(self) -> None:
        self.log.flush_blocking()
        self.recovery_point = self.log.recovery_point

    def clean(self) -> None:
        stable = self.log.last_stable_offset(self.log.log_end_offset)
        dirty = measure(self.log, self.clean_below, stable, self.now)
        if dirty is None:
            return
        table = self.rng.choice((5, KEYS, 100)) * KEY_BYTES
        compaction = Compaction.begin(self.log, dirty, self.now, table)
        cleaned = run(compaction.job, self.disk)
        assert cleaned.end_offset > dirty.first_dirty_offset
        self.maybe_clean_below = max(self.maybe_clean_below, cleaned.end_offset)
        assert swap(compaction, cleaned)
        self.log.flush_blocking()
        self.clean_below = cleaned.end_offset
        self.cleanings += 1
        self.check_clean()

    def wait(self) -> None:
        self.now += self.rng.choice((1, RETENTION_MS // 2, RETENTION_MS + 1))

    def stop(self) -> None:
        self.log.close()
        self.recovery_point = self.log.recovery_point
        self.open(clean=True)

    def forget_derived_files(self) -> None:
        """All that is not the log itself is made anew."""
        self.log.close()
        self.recovery_point = self.log.recovery_point
        for name in self.disk.listdir(DIR):
            if name.endswith((".index", ".timeindex", ".snapshot")):
                self.disk.unlink(f"{DIR}/{name}")
        self.open(clean=False)

    def interrupted_clean(self) -> None:
        """Everything is flushed, then a crash at some change to the disk while the log is cleaned."""
        self.flush()
        self.disk.faults.fail_change_at = self.disk.faults.changes + self.rng.randrange(60)
        before = self.clean_below
        with suppress(OSError, KafkaError):
            self.clean()
        if self.rng.random() < 0.5:
            self.disk.crash()
        else:
            self.disk.kill()
        assert self.clean_below >= before
        self.open(clean=False)

    def step(self) -> None:
        roll = self.rng.random()
        if roll < 0.72:
            self.write()
        elif roll < 0.80:
            self.end_transaction()
        elif roll < 0.86:
            self.flush()
        elif roll < 0.90:
            self.wait()
        elif roll < 0.94:
            self.clean()
        elif roll < 0.96:
            self.stop()
        elif roll < 0.97:
            self.forget_derived_files()
        else:
            self.interrupted_clean()
        self.log.write_staged()

    # What must hold

    def committed(self) -> list[tuple[int, bytes, bytes | None]]:
        """What a read_committed consumer is given, in its own way: aborted transactions, markers, headers."""
        found: list[tuple[int, bytes, bytes | None]] = []
        end = self.log.last_stable_offset(self.log.log_end_offset)
        offset = self.log.log_start_offset
        while offset < end:
            result = self.log.read(offset, 4096, end_offset=end)
            assert result.next_offset > offset
            view = memoryview(result.data)
            aborted = sorted(
                self.log.aborted_transactions(offset, result.next_offset), key=lambda each: each[1]
            )
            discarding: set[int] = set()
            for position, header in iter_batches(view):
                while aborted and aborted[0][1] <= header.last_offset:
                    discarding.add(aborted.pop(0)[0])
                if header.is_control:
                    if header.count:
                        discarding.discard(header.producer_id)
                    continue
                if header.is_transactional and header.producer_id in discarding:
                    continue
                for record in read_records(view[position : position + header.size], limit=1 << 20):
                    assert record.key is not None
                    if record.offset >= offset:
                        found.append((record.offset, record.key, record.value))
            offset = result.next_offset
        return found

    def expected(self, end: int) -> dict[bytes, bytes]:
        values: dict[bytes, bytes] = {}
        for offset, (key, value) in sorted(self.written.items()):
            if offset >= end or offset in self.aborted:
                continue
            if value is None:
                values.pop(key, None)
            else:
                values[key] = value
        return values

    def check(self) -> None:
        log = self.log
        stable = log.last_stable_offset(log.log_end_offset)
        open_since = [offsets[0] for offsets in self.open_txns.values()]
        assert stable == min([log.log_end_offset, *open_since])
        values: dict[bytes, bytes] = {}
        for offset, key, value in self.committed():
            assert self.written[offset] == (key, value)
            assert offset not in self.aborted
            if value is None:
                values.pop(key, None)
            else:
                values[key] = value
        assert values == self.expected(stable)
        seen = {offset for offset, *_ in self.committed()}
        for offset in range(self.maybe_clean_below, stable):
            assert offset in seen or offset not in self.written or offset in self.aborted
        for producer, sequence in self.sequences.items():
            assert log.producers.entries[producer].last_sequence == sequence - 1
        assert sum(segment.size for segment in log.segments) == log.size_bytes

    def check_clean(self) -> None:
        """Below the end of a cleaning, only the last record of each key is left."""
        last: dict[bytes, int] = {}
        for offset, (key, _) in self.written.items():
            if offset < self.clean_below and offset not in self.aborted:
                last[key] = max(last.get(key, -1), offset)
        for offset, key, _ in self.committed():
            assert offset >= self.clean_below or offset == last[key]


@pytest.mark.parametrize("seed", range(40))
def test_a_reader_of_a_compacted_log_comes_to_the_same_values(seed: int) -> None:
    life = Life(seed)
    for number in range(250):
        life.step()
        if number % 10 == 0:
            life.check()
    for producer in sorted(life.open_txns):
        assert producer in life.sequences
        life.end_transaction()
    life.log.write_staged()
    life.log.roll(life.now)
    life.flush()
    life.clean()
    life.check()
    assert life.cleanings > 2


@pytest.mark.parametrize("power", [True, False])
def test_a_crash_at_any_change_of_a_swap_costs_nothing(power: bool) -> None:
    """Every change in turn, from the first file that a cleaning writes to the last name that it gives."""
    number = 0
    while True:
        life = Life(4)
        for _ in range(24):
            life.write()
            life.end_transaction()
        life.log.write_staged()
        life.log.roll(life.now)
        life.flush()
        life.disk.faults.fail_change_at = life.disk.faults.changes + number
        try:
            life.clean()
        except (OSError, KafkaError):
            life.disk.crash() if power else life.disk.kill()
            life.open(clean=False)
            assert not [name for name in life.disk.listdir(DIR) if name.endswith((".swap", ".cleaned"))]
            life.check()
            life.clean()
            life.check()
            number += 1
            continue
        assert number > 20
        return
