"""Random lives of a log: appends, syncs, truncations, retention, stops, kills and power losses, against a model.

What must hold whatever happens: offsets are contiguous, every byte served was written at that place, nothing that a
completed sync covered is lost, producer state and leader epochs are those of the batches in the log.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from odradek.storage.config import LogConfig
from odradek.storage.log import Log
from odradek.storage.memory_disk import MemoryDisk, StepSyncer
from odradek.storage.segment import FilePool
from odradek.storage.state import NO_LIMIT
from odradek.wire.errors import KafkaError
from odradek.wire.records import simple_batch

NOW = 1_700_000_000_000
DIR = "/data/t-0"
PRODUCERS = (11, 12)


@dataclass
class Batch:
    base: int
    last: int
    data: bytes
    epoch: int
    producer: tuple[int, int] | None
    """(producer id, last sequence)"""


@dataclass
class Life:
    """One disk, the log on it, and what the log should hold."""

    seed: int
    config: LogConfig
    batches: list[Batch] = field(default_factory=list)
    written: int = 0
    synced: int = 0
    start: int = 0
    epoch: int = 0
    sequences: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)
        self.disk = MemoryDisk(self.seed)
        self.disk.makedirs("/data")
        self.disk.sync_dir("/")
        self.syncer = StepSyncer()
        self.recovery_point = 0
        self.open(clean=False)

    @property
    def end(self) -> int:
        return max(self.start, self.batches[-1].last + 1 if self.batches else 0)

    def open(self, *, clean: bool) -> None:
        self.log = Log.open(
            self.disk, DIR, self.config, topic="t", partition=0, wall_ms=NOW, clean=clean,
            recovery_point=self.recovery_point, log_start_offset=self.start, pool=FilePool(self.disk, 2),
            syncer=self.syncer if self.rng.random() < 0.7 else None,
        )  # fmt: skip
        self.log.on_truncated = self.checkpoint

    def checkpoint(self, log: Any = None) -> None:
        """As the manager keeps it, in a file of its own."""
        if not self.log.offline:
            self.recovery_point = self.log.recovery_point

    # What happens

    def append(self) -> None:
        count = self.rng.choice((1, 1, 2, 5))
        size = self.rng.choice((1, 30, 300, 5000))
        items = [(b"k", self.rng.randbytes(size)) for _ in range(count)]
        options: dict[str, Any] = {}
        producer = None
        if self.rng.random() < 0.4:
            producer_id = self.rng.choice(PRODUCERS)
            first = self.sequences.get(producer_id, -1) + 1
            producer = (producer_id, first + count - 1)
            self.sequences[producer_id] = first + count - 1
            options = {"producer_id": producer_id, "producer_epoch": 0, "base_sequence": first}
        if self.rng.random() < 0.1:
            self.epoch += 1
        batch = simple_batch(items, base_offset=0, timestamp=NOW + self.rng.randint(-50, 50), **options)
        result = self.log.append_as_leader(memoryview(batch), self.epoch, NOW)
        assert (result.base_offset, result.last_offset) == (self.end, self.end + count - 1)
        assert not result.duplicate
        self.batches.append(Batch(result.base_offset, result.last_offset, bytes(batch), self.epoch, producer))
        self.written = self.log.written_end_offset  # a roll writes what was staged before

    def write(self) -> None:
        self.log.write_staged()
        self.written = self.end

    def sync(self) -> None:
        self.write()
        end, start_of_life = self.end, self.disk.life

        def done(error: OSError | None) -> None:
            if error is None and self.disk.life == start_of_life:
                self.synced = max(self.synced, min(end, self.end))

        self.log.sync(self.syncer, done)
        if self.rng.random() < 0.7:
            self.syncer.drain()
            assert self.log.recovery_point >= end or self.log.offline

    def step(self) -> None:
        self.syncer.step()

    def roll(self) -> None:
        self.log.roll(NOW)
        self.written = self.end

    def read(self) -> None:
        offset = self.rng.randint(self.log.log_start_offset, self.log.log_end_offset)
        limit = self.rng.choice((0, 100, 1000, 100_000))
        result = self.log.read(offset, limit, end_offset=self.written)
        expected = b"".join(b.data for b in self.batches if b.last >= offset and b.last < self.written)
        assert expected.startswith(bytes(result.data))
        assert bool(result.data) == (offset < self.written)

    def truncate(self) -> None:
        self.syncer.drain()
        self.write()
        target = self.rng.randint(max(self.start, self.end - 8), self.end)
        kept = [batch for batch in self.batches if batch.last < target]
        self.written = kept[-1].last + 1 if kept else self.start
        self.synced = min(self.synced, self.written)
        self.log.truncate_to(target)
        self.batches = kept
        if target <= self.start or self.end <= self.start:
            self.batches.clear()
        self.written = self.end
        self.synced = min(self.synced, self.end)
        self.sequences = self.known_sequences()
        self.epoch += 1

    def move_start(self) -> None:
        self.write()
        self.log.advance_log_start(self.rng.randint(self.start, self.end))
        self.start = self.log.log_start_offset
        self.log.delete_old_segments(NOW, self.written)
        self.batches = [batch for batch in self.batches if batch.last >= self.start] or self.batches[-1:]

    def fault(self) -> None:
        """One of the next changes or syncs fails, and perhaps all that follow."""
        faults = self.disk.faults
        faults.sticky = self.rng.random() < 0.5
        if self.rng.random() < 0.3:
            faults.fail_sync_at = faults.syncs + self.rng.randint(0, 2)
        else:
            faults.fail_change_at = faults.changes + self.rng.randint(0, 6)

    # How a life ends, and the next begins

    def restart(self) -> None:
        self.syncer.drain()
        if self.log.offline:
            raise OSError("a sync has failed")
        self.log.close()
        self.checkpoint()
        assert self.recovery_point == self.end
        self.written = self.synced = self.end
        self.disk.kill()
        self.open(clean=True)
        self.verify()

    def kill(self) -> None:
        staged = self.written < self.end and not self.log.offline
        self.end_life(self.disk.kill)
        assert self.written <= self.log.log_end_offset <= self.end
        assert self.log.readable_end == NO_LIMIT
        assert not staged or self.log.log_end_offset == self.written
        self.came_back()

    def lose_power(self) -> None:
        self.end_life(self.disk.crash)
        if self.log.readable_end != NO_LIMIT:
            assert self.synced <= self.log.readable_end
            with pytest.raises(KafkaError):
                self.log.append_as_leader(memoryview(bytearray(self.batches[0].data)), self.epoch, NOW)
            self.log.truncate_to(self.log.readable_end)
        assert self.synced <= self.log.log_end_offset <= self.end
        self.came_back()

    def end_life(self, how: Callable[[], None]) -> None:
        if self.rng.random() < 0.5:
            self.checkpoint()
        self.syncer.forget()
        how()
        if self.rng.random() < 0.2:  # the disk fails during recovery, and that process is killed too
            self.fault()
            with suppress(OSError):
                self.open(clean=False)
            how()
        self.open(clean=False)

    def came_back(self) -> None:
        self.start = self.log.log_start_offset
        self.batches = [batch for batch in self.batches if batch.last < self.log.log_end_offset]
        self.written = self.end
        self.sequences = self.known_sequences()
        self.epoch += 1
        self.verify()

    def live(self, steps: list[str]) -> None:
        """Take the steps; when a fault has struck, nothing works any more until the process has ended."""
        for step in steps:
            try:
                getattr(self, step)()
            except (OSError, KafkaError):
                faults = self.disk.faults
                if faults.fail_change_at is None and faults.fail_sync_at is None:
                    raise
                assert self.log.offline
                with pytest.raises((OSError, KafkaError)):
                    self.append()
                    self.write()
                # A truncation that was not synced may come and go with a later power loss; so no mere kill after it.
                getattr(
                    self, "lose_power" if step == "truncate" else self.rng.choice(("kill", "lose_power"))
                )()
        self.disk.faults.fail_change_at = self.disk.faults.fail_sync_at = None
        if self.log.offline:
            self.kill()
        self.write()
        self.verify()

    # What must hold

    def known_sequences(self) -> dict[int, int]:
        """What the log knows; of producers whose batches are all below the log start it may know or not."""
        return {entry.producer_id: entry.last_sequence for entry in self.log.active_producers()}

    def expected_sequences(self) -> dict[int, int]:
        return {b.producer[0]: b.producer[1] for b in self.batches if b.producer is not None}

    def verify(self) -> None:
        log = self.log
        assert (log.log_end_offset, log.written_end_offset) == (self.end, self.written)
        served, offset = b"", log.log_start_offset
        while offset < self.written:
            result = log.read(offset, 1 << 20, end_offset=self.written)
            served += bytes(result.data)
            offset = result.next_offset
        held = [b for b in self.batches if b.last >= log.log_start_offset and b.last < self.written]
        assert served == b"".join(batch.data for batch in held)
        assert log.size_bytes == sum(self.disk.size(segment.path(".log")) for segment in log.segments)
        known = self.known_sequences()
        for producer_id, sequence in self.expected_sequences().items():
            if any(
                b.producer == (producer_id, sequence) and b.base >= log.log_start_offset for b in self.batches
            ):
                assert known[producer_id] == sequence
        for batch in held:
            assert log.epochs.epoch_at(max(batch.base, log.log_start_offset)) == batch.epoch


STEPS = {
    "append": 12, "write": 6, "sync": 3, "step": 3, "roll": 1, "read": 6, "truncate": 1, "move_start": 1,
    "fault": 1, "restart": 1, "kill": 1, "lose_power": 2,
}  # fmt: skip
NAMES = [name for name, weight in STEPS.items() for _ in range(weight)]


def random_life(seed: int) -> tuple[Life, list[str]]:
    rng = Random(seed)
    steps = [rng.choice(NAMES) for _ in range(rng.randint(5, 150))]
    config = LogConfig(
        segment_bytes=rng.choice([26_000, 60_000, 1 << 20]), index_interval_bytes=rng.choice([0, 100, 4096])
    )
    return Life(seed, config), steps


@pytest.mark.parametrize("seed", range(0, 600, 100))
def test_a_log_keeps_its_promises_through_any_life(seed: int) -> None:
    for number in range(seed, seed + 100):
        life, steps = random_life(number)
        try:
            life.live(steps)
        except BaseException as error:
            error.add_note(f"random_life({number})")
            raise
