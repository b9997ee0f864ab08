"""A node's logs on a disk in memory, and what each of them owes: what was handed over, what was synced, what was cut.

A life does what a broker does with its logs, one step after the other. When a fault has ended it, `start` begins the
next one on the same disk, and `verify` asks for the promises.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from odradek.storage import layout
from odradek.storage.config import LogConfig
from odradek.storage.futures import copy_some
from odradek.storage.log import Log
from odradek.storage.log_cleaner import LogCleaner, Look, WorkersHere
from odradek.storage.manager import LogManager
from odradek.storage.memory_disk import MemoryDisk, StepSyncer
from odradek.storage.producers import ProducerStates
from odradek.storage.state import NO_LIMIT
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.records import end_txn_marker, iter_batches, read_records, simple_batch
from support.write_points import After, data_dir_of

NOW = 1_700_000_000_000
DIRS = ("/data/d0", "/data/d1")
SMALL = LogConfig(segment_bytes=600, index_interval_bytes=100, file_delete_delay_ms=10)
LEFTOVERS = (layout.DELETED_SUFFIX, layout.CLEANED_SUFFIX, layout.SWAP_SUFFIX, layout.TEMPORARY_SUFFIX)


@dataclass
class Batch:
    """As it lies in the log."""

    base: int
    last: int
    data: bytes
    epoch: int
    pairs: list[tuple[bytes, bytes]]


@dataclass
class Owed:
    """What one log has to show after whatever ended its process."""

    topic: str
    number: int
    """Of its topic id: a topic that is created again is another one."""
    config: LogConfig
    line: list[Batch] = field(default_factory=list)
    others: list[list[Batch]] = field(default_factory=list)
    """What it may hold as well: a cut had begun and nobody heard of its end."""
    handed: int = 0
    """Below this the kernel has everything: it survives the process."""
    synced: int = 0
    """Below this it survives the machine."""
    start: int = 0
    """Nothing below this need be there."""
    cleaned: int = 0
    """Below this it may have been compacted."""
    going: bool = False
    """Its deletion has begun."""
    sequences: dict[int, int] = field(default_factory=dict)
    """The next of each producer."""
    transaction: list[int] = field(default_factory=list)
    aborted: list[tuple[int, int]] = field(default_factory=list)
    """(first offset, marker's offset)."""

    @property
    def topic_id(self) -> bytes:
        return self.number.to_bytes(16, "big")

    @property
    def end(self) -> int:
        return self.line[-1].last + 1 if self.line else self.start

    def cut(self, offset: int) -> None:
        """Before a cut: from here on nothing is owed above it."""
        self.others.append(self.line)
        self.line = [batch for batch in self.line if batch.last < offset]
        self.handed = min(self.handed, self.end)
        self.synced = min(self.synced, self.end)


class Life:
    """All lives of one machine."""

    def __init__(self, seed: int = 0, dirs: int = 1) -> None:
        self.disk = MemoryDisk(seed)
        self.disk.makedirs("/data")
        self.disk.sync_dir("/")
        self.dirs = list(DIRS[:dirs])
        self.now = NOW
        self.epoch = 0
        self.lives = 0
        self.owed: dict[str, Owed] = {}
        self.topics = 0
        self.failed_dirs: list[str] = []
        self.fsync_failed = False
        """In the life before this one."""
        self.logs: LogManager = None  # type: ignore[assignment]  # set by `start`

    # A process -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.lives += 1
        self.failed_dirs = []
        self.syncer, self.jobs = StepSyncer(), StepSyncer()
        self.logs = LogManager(self.disk, self.syncer, self.dirs, rng=Random(self.lives))
        self.logs.on_dir_failure = lambda data_dir, error: self.failed_dirs.append(data_dir.path)
        self.logs.start(node_id=1, cluster_id="A" * 22, boot_id="boot")
        self.report = self.logs.open_all(self.now, self._config_for)
        self.logs.note_registration(self.lives)
        self.cleaner = LogCleaner(
            self.logs, self.disk, self.syncer.run, WorkersHere(self.jobs.run, self.disk),
            lambda log: log.last_stable_offset(log.written_end_offset), lambda: self.now,
        )  # fmt: skip

    def _config_for(self, topic: str) -> LogConfig:
        owed = self.owed.get(topic)
        return owed.config if owed is not None else SMALL

    def log(self, topic: str) -> Log:
        log = self.logs.get(topic, 0)
        failed = any(path.endswith(f"/{topic}-0") for path, _ in self.report.failed)
        if log is None and (failed or any(data_dir.offline for data_dir in self.logs.dirs)):
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{topic}-0 could not be opened")
        assert log is not None
        return log

    def drain(self) -> None:
        while len(self.jobs) or len(self.syncer):
            self.jobs.drain()
            self.syncer.drain()

    def create(self, topic: str, config: LogConfig = SMALL) -> None:
        self.topics += 1
        self.owed[topic] = Owed(topic, self.topics, config)
        self.logs.create_log(topic, 0, self.owed[topic].topic_id, config, wall_ms=self.now)

    def stop(self) -> None:
        """SIGTERM. What could not be left clean is no failure of the stop."""
        self.drain()
        unclean = self.logs.close({key: log.log_end_offset for key, log in self.logs.logs.items()})
        for owed in self.owed.values():
            if not unclean and not self.failed_dirs:
                owed.synced = owed.handed = owed.end
        if unclean:
            raise OSError(f"not left clean: {unclean}")

    # Steps ---------------------------------------------------------------------------------------------------------

    def append(self, topic: str, *sizes: int, keys: int = 3, write: bool = True, **options: Any) -> None:
        """A batch with a record for each size. No two of a disk are the same."""
        owed, log = self.owed[topic], self.log(topic)
        pairs = [
            (b"k%d" % ((owed.end + at) % keys), b"%d/%d." % (self.lives, owed.end + at) + bytes(size))
            for at, size in enumerate(sizes)
        ]
        batch = simple_batch(pairs, base_offset=0, timestamp=self.now, **options)
        result = log.append_as_leader(
            memoryview(batch), self.epoch, self.now, transactional=options.get("transactional", False)
        )
        assert result.base_offset == owed.end and not result.duplicate
        owed.line.append(Batch(result.base_offset, result.last_offset, bytes(batch), self.epoch, pairs))
        if write:
            self.write(topic)

    def produce(self, topic: str, *sizes: int, transactional: bool = False) -> None:
        """The same of an idempotent producer."""
        owed, producer_id = self.owed[topic], 77 if transactional else 7
        first = owed.sequences.get(producer_id, 0)
        owed.sequences[producer_id] = first + len(sizes)
        if transactional:
            owed.transaction.append(owed.end)
        self.append(
            topic,
            *sizes,
            producer_id=producer_id,
            producer_epoch=0,
            base_sequence=first,
            transactional=transactional,
        )

    def end_transaction(self, topic: str, *, commit: bool) -> None:
        owed, log = self.owed[topic], self.log(topic)
        marker = end_txn_marker(77, 0, commit=commit, coordinator_epoch=0, base_offset=0, timestamp=self.now)
        at = log.append_as_leader(memoryview(marker), self.epoch, self.now, allow_control=True).base_offset
        owed.line.append(Batch(at, at, bytes(marker), self.epoch, []))
        if not commit:
            owed.aborted.append((owed.transaction[0], at))
        owed.transaction.clear()
        self.write(topic)

    def write(self, topic: str) -> None:
        self.log(topic).write_staged()
        self.owed[topic].handed = self.owed[topic].end

    def sync(self, topic: str, *, drain: bool = True) -> None:
        owed, log, life = self.owed[topic], self.log(topic), self.lives
        end = owed.end

        def done(error: OSError | None) -> None:
            if error is None and life == self.lives and self.owed[topic] is owed:
                owed.synced = max(owed.synced, min(end, owed.end))

        log.sync(self.syncer, done)
        if drain:
            self.drain()

    def roll(self, topic: str) -> None:
        self.log(topic).roll(self.now)

    def truncate(self, topic: str, offset: int) -> None:
        self.write(topic)
        self.drain()
        self.owed[topic].cut(offset)
        self.log(topic).truncate_to(offset)
        self._was_cut(topic)

    def start_anew(self, topic: str, offset: int) -> None:
        owed = self.owed[topic]
        self.write(topic)
        self.drain()
        owed.cut(0)
        owed.handed = owed.synced = 0
        owed.start = offset
        self.log(topic).truncate_fully_and_start_at(offset, self.now)
        self._was_cut(topic)

    def _was_cut(self, topic: str) -> None:
        """Durable when it returns: nothing of it comes back."""
        owed = self.owed[topic]
        assert self.log(topic).log_end_offset == owed.end
        owed.others.clear()
        owed.handed = owed.end
        self.epoch += 1

    def delete_records(self, topic: str, offset: int) -> None:
        self.owed[topic].start = max(self.owed[topic].start, offset)
        self.log(topic).advance_log_start(offset)

    def retain(self, topic: str) -> None:
        """Retention takes what it takes; not below is owed what it has not."""
        owed, log = self.owed[topic], self.log(topic)
        before, owed.start = owed.start, owed.end
        log.delete_old_segments(self.now, owed.handed)
        owed.start = max(before, log.log_start_offset)

    def clean(self) -> bool:
        for owed in self.owed.values():
            if owed.config.cleanup_compact:
                owed.cleaned = self.log(owed.topic).recovery_point
        begun = self.cleaner.tick(self.now) is Look.BEGUN
        self.drain()
        return begun

    def copy(self, topic: str, bytes_max: int = 500, slices: int = 1_000) -> None:
        """Some of what the log has on its way to the other directory, which begins with it."""
        key, futures = (topic, 0), self.logs.futures
        current = self.log(topic)
        if key not in futures.logs:
            target = next(each for each in self.logs.dirs if each.directory_id != current.dir_id)
            if target.offline:
                raise OSError(errno.EIO, "the other directory has failed")
            futures.create(key, target, self.owed[topic].topic_id)
        future = futures.logs[key]
        try:
            while slices and copy_some(current, future, bytes_max, self.now):
                slices -= 1
        except OSError as error:
            future.fail(error)
            raise

    def move(self, topic: str) -> None:
        """To the other directory, as a broker does it: written to meanwhile, and asked for an fsync."""
        key, futures = (topic, 0), self.logs.futures
        current = self.log(topic)
        self.copy(topic)
        current.hold_syncs()
        try:
            self.sync(topic)
            self._cover(topic)
            self.append(topic, 5)
            self.copy(topic)
            self._future(topic)
            if not futures.is_ready(key):  # another epoch, or a new segment
                self._cover(topic)
            if current.offline:
                raise OSError(errno.EIO, "the directory of the log has failed")
            assert futures.is_ready(key)
            log = futures.promote(key)
        except (OSError, KafkaError):
            current.release_syncs(current)
            raise
        current.release_syncs(log)
        self.drain()

    def _cover(self, topic: str) -> None:
        """Make the copy as durable as the log."""
        self._future(topic)
        told: list[OSError | None] = []
        self.logs.futures.prepare((topic, 0), told.append)
        self.drain()
        self._future(topic).sync(self.syncer, told.append)
        self.drain()
        if len(told) < 2 or any(told):
            raise OSError(errno.EIO, "the copy has failed")

    def _future(self, topic: str) -> Log:
        future = self.logs.futures.logs.get((topic, 0))
        if future is None:
            raise OSError(errno.EIO, "the directory of the copy has failed")
        return future

    def lead(self, topic: str) -> None:
        """A new leader epoch, noted before anything is written in it."""
        self.epoch += 1
        told: list[OSError | None] = []
        self.log(topic).assign_epoch(self.epoch, self.syncer, told.append)
        self.drain()
        assert len(told) == 1
        if told[0] is not None:
            raise told[0]

    def checkpoint(self) -> None:
        self.logs.checkpoint({(owed.topic, 0): owed.synced for owed in self.owed.values() if not owed.going})

    def tick(self, ms: int = 1000) -> None:
        self.now += ms
        self.logs.tick(self.now)
        self.drain()

    def delete(self, topic: str) -> None:
        self.owed[topic].going = True
        self.logs.delete_log(topic, 0, wall_ms=self.now)
        self.drain()
        if not self.failed_dirs:
            del self.owed[topic]

    # After a fault -------------------------------------------------------------------------------------------------

    def must_say(self, struck_path: str) -> None:
        """A process that goes on after a fault: each log works, or says that it is offline. Other disks' logs work."""
        for key, log in list(self.logs.logs.items()):
            struck = data_dir_of(log.dir) == data_dir_of(struck_path)
            assert struck or not log.offline, f"{log} is offline after a fault at {struck_path}"
            if not struck:
                self._works(log)
                continue
            try:
                self._works(log)
            except (OSError, KafkaError):
                assert log.offline, f"{log} takes no writes and does not say so"
                assert key[0] not in self.owed or self.failed_dirs == [data_dir_of(struck_path)]

    def _works(self, log: Log) -> None:
        owed = self.owed.get(log.topic)
        if owed is None or owed.going or owed.others or log.log_end_offset != owed.end:
            return  # half of something: what it has is told after the next start
        self.append(log.topic, 3)

    def recover(self, after: After) -> None:
        """The next life; nothing of the last is held in memory."""
        self.start()
        self.verify(after)

    def verify(self, after: After) -> None:
        assert not self.report.failed
        assert all(path.endswith(layout.STRAY_DIR_SUFFIX) for path in self.report.foreign)
        assert not self.failed_dirs
        for log in self.logs.logs.values():
            left = [name for name in self.disk.listdir(log.dir) if name.endswith(LEFTOVERS)]
            assert not left, f"left behind in {log.dir}: {left}"
        for topic, owed in list(self.owed.items()):
            log = self.logs.logs.get((topic, 0))
            if log is None or log.topic_id not in (owed.topic_id, None):
                assert owed.going or owed.synced == 0, f"{topic} is gone"
                assert owed.going or after is not After.KILL or owed.handed == 0, f"{topic} is gone"
                if log is not None:
                    self.logs.delete_log(topic, 0, wall_ms=self.now)
                del self.owed[topic]
                continue
            if owed.going:
                self.logs.delete_log(topic, 0, wall_ms=self.now)
                del self.owed[topic]
                continue
            self._verify_log(log, owed, after)

    def _verify_log(self, log: Log, owed: Owed, after: After) -> None:
        floor = owed.handed if after is After.KILL else owed.synced
        if log.readable_end != NO_LIMIT:
            # Pages, or a whole file whose fsync failed, may be lost though what was written later is not.
            assert after is After.SOME_UNSYNCED or self.fsync_failed, (
                f"{log} is damaged at {log.readable_end}"
            )
            assert log.readable_end >= floor
            log.truncate_to(log.readable_end)
        assert not log.offline and log.corrupt_offset is None
        assert log.log_end_offset == log.written_end_offset
        assert log.log_end_offset >= min(floor, owed.end), f"{log} has lost what ends at {floor}"
        assert log.log_start_offset <= max(owed.start, 0) or owed.others
        batches = self._served(log, owed)
        line = self._line_of(log, owed, batches)
        self._check_producers(log, batches)
        if not owed.cleaned:
            # Below an earlier, not yet durable log start, epochs may be forgotten though batches are not.
            first = log.epochs.entries[0][1] if log.epochs.entries else 0
            for batch in batches:
                if batch.last >= first:
                    assert log.epochs.epoch_at(max(batch.base, log.log_start_offset)) == batch.epoch
        self._check_times(log, batches)
        size = sum(self.disk.size(segment.path(layout.LOG_SUFFIX)) for segment in log.segments)
        assert log.size_bytes == size
        self._take(log, owed, [batch for batch in line if batch.last < log.log_start_offset] + batches)

    def _served(self, log: Log, owed: Owed) -> list[Batch]:
        found: list[Batch] = []
        offset = log.log_start_offset
        while offset < log.written_end_offset:
            result = log.read(offset, 700, end_offset=log.written_end_offset)
            assert result.next_offset > offset, f"a read of {log} at {offset} does not advance"
            view = memoryview(result.data)
            for position, header in iter_batches(view):
                data = bytes(view[position : position + header.size])
                records = [] if header.is_control else read_records(data, limit=1 << 20)
                pairs = [(record.key or b"", record.value or b"") for record in records]
                found.append(Batch(header.base_offset, header.last_offset, data, header.leader_epoch, pairs))
            offset = result.next_offset
        expected = -1
        for batch in found:
            gap = batch.base != expected >= owed.cleaned
            assert not gap and batch.base >= expected, f"{log}: offset {batch.base} follows {expected - 1}"
            expected = batch.last + 1
        assert not found or expected == log.log_end_offset
        return found

    def _line_of(self, log: Log, owed: Owed, batches: list[Batch]) -> list[Batch]:
        """Of those that it may hold, the one of which it has everything from its start to its end."""
        start, end = log.log_start_offset, log.log_end_offset
        for line in (owed.line, *owed.others):
            wanted = [batch for batch in line if start <= batch.last and batch.last < end]
            if owed.cleaned:
                if _values(batches) == _values(wanted) and _above(batches, owed) == _above(wanted, owed):
                    return line
            elif [batch.data for batch in batches] == [batch.data for batch in wanted]:
                return line
        raise AssertionError(f"{log} serves {[b.base for b in batches]}, of {[b.base for b in owed.line]}")

    def _check_producers(self, log: Log, batches: list[Batch]) -> None:
        """I3: what is known of producers is what the batches say."""
        rebuilt = ProducerStates()
        for batch in batches:
            _, header = next(iter_batches(memoryview(batch.data)))
            if header.producer_id >= 0:
                rebuilt.replay(header, header.base_offset, batch.data if header.is_control else b"")
        for producer_id, entry in rebuilt.entries.items():
            found = log.producers.entries[producer_id]
            assert (found.epoch, found.last_sequence, found.last_offset) == (
                entry.epoch, entry.last_sequence, entry.last_offset,
            )  # fmt: skip
            assert found.transaction_start == entry.transaction_start or log.log_start_offset > 0
        if log.log_start_offset == 0:
            assert set(log.producers.entries) == set(rebuilt.entries)
            markers = {batch.base for batch in batches}
            ended = {first for first, marker in self.owed[log.topic].aborted if marker in markers}
            told = {entry[1] for entry in log.aborted_transactions(0, log.log_end_offset)}
            assert told == ended or self.owed[log.topic].cleaned

    def _check_times(self, log: Log, batches: list[Batch]) -> None:
        """ListOffsets by time: what it finds is there."""
        found = log.lookup_timestamp(NOW)
        data = [batch for batch in batches if batch.pairs]
        assert (found is None) == (not data) or log.log_start_offset > 0
        if found is not None and data and log.log_start_offset == 0 and not self.owed[log.topic].cleaned:
            assert found[1] == data[0].base

    def _take(self, log: Log, owed: Owed, line: list[Batch]) -> None:
        """What is there now is what it owes from now on."""
        owed.line = line
        owed.others.clear()
        owed.start = log.log_start_offset
        owed.handed = log.log_end_offset
        if not line:
            owed.start = log.log_end_offset
        owed.synced = min(owed.synced, log.log_end_offset)
        owed.aborted = [pair for pair in owed.aborted if pair[1] < log.log_end_offset]
        owed.sequences = {each.producer_id: each.last_sequence + 1 for each in log.active_producers()}
        owed.transaction.clear()
        self.epoch = max(self.epoch, log.epochs.latest) + 1

    def go_on(self) -> None:
        """Everything works again, also once power has been lost right after."""
        for topic in list(self.owed):
            if (topic, 0) in self.logs.futures.logs:
                self.move(topic)
            self.append(topic, 5)
            self.sync(topic)
            assert self.log(topic).recovery_point == self.owed[topic].end == self.owed[topic].synced


def _values(batches: list[Batch]) -> dict[bytes, bytes]:
    return {key: value for batch in batches for key, value in batch.pairs}


def _above(batches: list[Batch], owed: Owed) -> list[bytes]:
    return [batch.data for batch in batches if batch.base >= owed.cleaned]


def run(scenario: Callable[[Life], None], life: Life) -> None:
    """To its end, unless a fault ends it."""
    with suppress(OSError, KafkaError):
        scenario(life)
