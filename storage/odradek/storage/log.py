"""The log of one partition: a directory of segments. `Log.open` recovers it; see appends.py and reads.py for its use.

Not thread-safe: one owner (the event loop) calls everything. What blocks for the medium goes through a Syncer.
"""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from odradek.ports.disk import Disk, Syncer
from odradek.storage import layout
from odradek.storage.appends import AppendResult, LogAppends
from odradek.storage.batch import Damage
from odradek.storage.config import UNLIMITED, LogConfig
from odradek.storage.epoch_starts import Starts
from odradek.storage.producers import ProducerEntry
from odradek.storage.reads import Location, ReadResult
from odradek.storage.segment import NEVER, DamagedIndex, FilePool, Segment, overwrite
from odradek.storage.state import NO_LIMIT, SyncTicket
from odradek.storage.txn_index import AbortedTxn
from odradek.wire.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    from odradek.storage.recovery import Opening

__all__ = ["AppendResult", "Location", "Log", "ReadResult"]

Done = Callable[[OSError | None], None]


def _ignore(_: OSError | None) -> None:
    """For work whose failure costs nothing: a leftover file is removed at the next start."""


class Log(LogAppends):
    """One partition on one disk. Appends and reads are synchronous and hit the page cache."""

    __slots__ = ()

    @classmethod
    def open(
        cls, disk: Disk, directory: str, config: LogConfig, *, topic: str, partition: int, wall_ms: int,
        recovery_point: int = 0, log_start_offset: int = 0, compacted_below: int = 0, clean: bool = False,
        pool: FilePool | None = None, syncer: Syncer | None = None, epoch_starts: Starts = (),
    ) -> Log:  # fmt: skip
        """Open or create the log in `directory`.

        With `clean` (the last stop wrote its marker) nothing is read but names and sizes; otherwise every segment
        from `recovery_point` on is scanned, a torn tail cut and all derived files rebuilt. `syncer` flushes rolled
        segments in the background; without it they wait for the next `sync`. `epoch_starts`: what was noted of them
        elsewhere. OSError if the disk fails.
        """
        from odradek.storage.scan import scan_files

        opening = cls.begin_open(
            disk, directory, config, topic=topic, partition=partition, wall_ms=wall_ms, recovery_point=recovery_point,
            log_start_offset=log_start_offset, compacted_below=compacted_below, clean=clean, pool=pool, syncer=syncer,
            epoch_starts=epoch_starts,
        )  # fmt: skip
        opening.finish(scan_files(disk, opening.jobs))
        return opening.log

    @classmethod
    def begin_open(
        cls, disk: Disk, directory: str, config: LogConfig, *, topic: str, partition: int, wall_ms: int,
        recovery_point: int = 0, log_start_offset: int = 0, compacted_below: int = 0, clean: bool = False,
        pool: FilePool | None = None, syncer: Syncer | None = None, epoch_starts: Starts = (),
    ) -> Opening:  # fmt: skip
        """The same up to the scans; who asked has them made, and finishes. OSError."""
        from odradek.storage.recovery import Opening

        log = cls(
            FilePool(disk) if pool is None else pool,
            directory,
            config,
            topic=topic,
            partition=partition,
            syncer=syncer,
        )
        log.compacted_below = compacted_below
        return Opening(
            log, wall_ms, recovery_point=recovery_point, log_start_offset=log_start_offset, clean=clean,
            epoch_starts=epoch_starts,
        )  # fmt: skip

    def _rebuild_aborted(self, segment: Segment) -> list[AbortedTxn]:
        from odradek.storage.recovery import rebuild_aborted

        return rebuild_aborted(self, segment)

    def _misses_aborted(self, segment: Segment, end: int) -> bool:
        from odradek.storage.recovery import misses_aborted

        return misses_aborted(self, segment, end)

    # Segments ---------------------------------------------------------------------------------------------------

    def activate(self) -> None:
        """Make an active segment that was opened after a clean stop writable; the first append does it."""
        from odradek.storage.recovery import activate

        activate(self)
        self._refresh_fast_limit()

    def add_segment(self, base_offset: int, wall_ms: int) -> Segment:
        """A new, empty active segment. Its directory entry becomes durable with the next `sync`."""
        segment = Segment(self.dir, base_offset, 0, wall_ms)
        segment.begin_index()
        segment.aborted = []
        self._pool.open(segment, create=True)
        self._segments.append(segment)
        self._bases.append(base_offset)
        if self.dir not in self._dirs_to_sync:
            self._dirs_to_sync.append(self.dir)
        return segment

    def roll(self, wall_ms: int, base_offset: int | None = None) -> Segment:
        """Close the active segment and open one at the log end. OSError takes the log offline."""
        self.write_staged()
        base_offset = self.log_end_offset if base_offset is None else base_offset
        old = self._segments[-1]
        if old.size == 0 and old.base_offset == base_offset:
            return old
        try:
            old.save_index(self._pool.disk)
            old.index = None
            old.save_aborted(self._pool.disk)
            self.write_producer_snapshot(base_offset)
            segment = self.add_segment(base_offset, wall_ms)
        except OSError as error:
            self.fail(error)
            raise
        self._refresh_fast_limit()
        if self._syncer is not None:
            self._sync_segments(self._syncer, self._segments[:-1], base_offset, _ignore)
        return segment

    def write_producer_snapshot(self, offset: int) -> None:
        path = f"{self.dir}/{layout.file_name(offset, layout.SNAPSHOT_SUFFIX)}"
        overwrite(self._pool.disk, path, self.producers.encode_snapshot())  # a torn one fails its CRC

    # Durability -------------------------------------------------------------------------------------------------

    @property
    def must_flush(self) -> bool:
        """`flush.messages` is reached: call `sync` and acknowledge only when it is done."""
        return self.log_end_offset - self.recovery_point >= self.config.flush_messages

    def flush_is_due(self, wall_ms: int) -> bool:
        """`flush.ms` is over for something unflushed."""
        config = self.config
        if config.flush_ms >= UNLIMITED or self.recovery_point >= self.log_end_offset:
            return False
        # A clock that was set back tells nothing of how long it was.
        return not 0 <= wall_ms - self.last_flush_ms < config.flush_ms

    def sync(self, syncer: Syncer, done: Done) -> None:
        """fsync everything written so far; `done` once it is, with `recovery_point` advanced over it.

        A failure takes the log offline and is told to `done`; it is never tried again.
        """
        try:
            self.write_staged()
        except OSError as error:
            done(error)
            return
        if self._held is not None:
            self._held.append((syncer, done))
            return
        self._sync_segments(syncer, self._segments, self.written_end_offset, done)

    def hold_syncs(self) -> None:
        """Until `release_syncs`, what is asked of `sync` waits: another log is about to take the place of this one, and
        shall be behind in nothing that was ever said to be durable.
        """
        if self._held is None:
            self._held = []

    @property
    def holds_syncs(self) -> bool:
        return self._held is not None

    def release_syncs(self, log: Log) -> None:
        """Have `log` do what waits: this one, or the one that has taken its place and has the same records."""
        held, self._held = self._held or [], None
        for syncer, done in held:
            log.sync(syncer, done)

    def _sync_segments(self, syncer: Syncer, segments: list[Segment], end: int, done: Done) -> None:
        dirty = [segment for segment in segments if segment.dirty]
        dirs, self._dirs_to_sync = self._dirs_to_sync, []
        paths = self._derived_paths(dirty)
        ticket = SyncTicket(end, self._truncations, len(dirty) + bool(paths or dirs), done)
        self._syncs.append(ticket)

        def one_done(error: OSError | None) -> None:
            ticket.waiting -= 1
            ticket.failure = ticket.failure or error
            self._complete_syncs()

        def segment_done(segment: Segment, error: OSError | None) -> None:
            self._pool.unpin(segment)
            one_done(error)

        if paths or dirs:
            syncer.run(partial(sync_paths, self._pool.disk, paths, dirs), one_done)
        for segment in dirty:
            segment.dirty = False
            try:
                file = segment.file or self._pool.open(segment)
            except OSError as error:
                one_done(error)
                continue
            segment.pins += 1
            syncer.sync(file, partial(segment_done, segment))
        self._complete_syncs()

    @property
    def is_syncing(self) -> bool:
        return bool(self._syncs)

    def _derived_paths(self, dirty: list[Segment]) -> list[str]:
        """Index files of rolled segments: no scan will look at them again once the recovery point has passed."""
        active = self._segments[-1]
        suffixes = (layout.INDEX_SUFFIX, layout.TIME_INDEX_SUFFIX, layout.TXN_INDEX_SUFFIX)
        return [segment.path(suffix) for segment in dirty if segment is not active for suffix in suffixes]

    def _complete_syncs(self) -> None:
        while self._syncs and self._syncs[0].waiting == 0:
            ticket = self._syncs.pop(0)
            if ticket.failure is not None:
                self.fail(ticket.failure)
            if self.offline:
                ticket.done(ticket.failure or OSError(errno.EIO, "the log is offline", self.dir))
                continue
            if ticket.truncations == self._truncations:
                self._advance_recovery_point(ticket.end)
            ticket.done(None)

    def _advance_recovery_point(self, end: int) -> None:
        """Never over damage: the next start must find it again."""
        self.recovery_point = max(self.recovery_point, min(end, self.readable_end))

    def flush_blocking(self) -> None:
        """As `sync`, here and now; for stops and tests. OSError takes the log offline.

        A `sync` that is under way counts for nothing: whoever stops does not wait for it.
        """
        self.write_staged()
        if self._syncs and self.dir not in self._dirs_to_sync:
            self._dirs_to_sync.append(self.dir)
        try:
            dirty = [segment for segment in self._segments if segment.dirty or segment.pins]
            for segment in dirty:
                (segment.file or self._pool.open(segment)).sync()
                segment.dirty = False
            sync_paths(self._pool.disk, self._derived_paths(dirty), [])
            self._sync_dirs_now()
        except OSError as error:
            self.fail(error)
            raise
        self._advance_recovery_point(self.written_end_offset)

    def close(self) -> None:
        """A clean stop: save indexes and producer state, flush, close files. A log nobody touched costs nothing."""
        if not self.offline:
            self.save_derived()
            self.flush_blocking()
        self.close_files()

    def save_derived(self) -> None:
        """Write what the next start would else have to compute. OSError takes the log offline."""
        self.write_staged()
        if self._segments[-1].index is None or self.readable_end != NO_LIMIT:
            return
        try:
            self._segments[-1].save_index(self._pool.disk)
            self._segments[-1].save_aborted(self._pool.disk)
            self.write_producer_snapshot(self.log_end_offset)
        except OSError as error:
            self.fail(error)
            raise

    def retire(self) -> None:
        """The log is deleted: nothing may touch its files any more, and no callback is called."""
        self.on_failure = self.on_removed = self.on_truncated = None
        self.offline = True
        self._staged.clear()
        self._refresh_fast_limit()
        self.close_files()

    def move_to(self, directory: str) -> None:
        """Give its directory another name. No `sync` may be under way; the next one makes the name durable. OSError."""
        assert not self._syncs and not self._staged
        self.close_files()
        self._pool.disk.rename(self.dir, directory)
        parent = directory.rpartition("/")[0]
        others = [each for each in self._dirs_to_sync if each not in (self.dir, parent)]
        self._dirs_to_sync = [*others, directory, parent]
        for segment in self._segments:
            segment.dir = directory
        self.epochs.moved(directory)
        self.dir = directory

    def close_files(self) -> None:
        """Give the descriptors back; nothing is written."""
        for segment in self._segments:
            self._pool.close(segment)

    # Cutting ----------------------------------------------------------------------------------------------------

    def truncate_to(self, offset: int) -> None:
        """Drop the batches that hold `offset` or come after it: the leader has something else. Blocking, durable.

        The log then ends at `offset`, or before it at the start of a batch that was cut in two; if nothing is left
        above the log start it is empty and begins there.
        """
        self._drop_staged()
        if offset >= self.log_end_offset:
            return
        try:
            at, offset, position = self._cut_point(offset)
            if offset <= self.log_start_offset:
                self.start_anew(self.log_start_offset, self._segments[-1].created_ms)
            else:
                self._truncate(at, offset, position)
        except OSError as error:
            self.fail(error)
            raise self._storage_error(error) from error

    def _cut_point(self, offset: int) -> tuple[int, int, int]:
        """(segment number, offset the log will end at, position in that segment) of a truncation."""
        if self._damage is not None and offset >= self.readable_end:
            segment, position = self._damage
            return self._segments.index(segment), self.readable_end, position
        at = self._segment_index(offset)
        segment = self._segments[at]
        try:
            try:
                found = segment.header_at(self._pool, offset)
            except DamagedIndex:
                self._rebuild(segment)
                found = segment.header_at(self._pool, offset)
        except Damage as damage:
            return at, offset, damage.position
        if found is None:
            return at, offset, segment.written
        # A batch goes as a whole; where compaction left a gap, the cut is in the gap.
        return at, min(offset, found[1].base_offset), found[0]

    def _truncate(self, at: int, offset: int, position: int) -> None:
        from odradek.storage.recovery import load_active_index, rebuild_producers

        self._announce_cut(offset)
        # Newest first and durably before the cut itself: whatever a crash leaves is a prefix of the old log.
        while len(self._segments) > at + 1:
            self._remove_files([self._pop_segment(-1)])
        self._remove_snapshots(offset)
        self._sync_dirs_now()
        active = load_active_index(self)
        if self.has_aborted:
            aborted = self._aborted_of(active)
            active.aborted = [entry for entry in aborted if entry.last_offset < offset]
            active.save_aborted(self._pool.disk)
        if position < active.size:
            file = active.file or self._pool.open(active)
            file.truncate(position)
            file.sync()
            self.size_bytes -= active.size - position
            active.size = active.written = position
            active.checked.cut(position)
            assert active.index is not None
            active.index.truncate(offset - active.base_offset, position)
        active.recount(self._pool)
        if active.size == 0:
            active.roll_after_timestamp = NEVER
        self._cut_at(offset)
        rebuild_producers(self)
        self._refresh_fast_limit()

    def _announce_cut(self, offset: int) -> None:
        """Lower the recovery point first, on disk too: a log shorter than that has lost something."""
        self._truncations += 1
        self.lowest_cut = min(self.lowest_cut, offset)
        self._forget_positions()
        self.recovery_point = min(self.recovery_point, offset)
        if self.on_truncated is not None:
            self.on_truncated(self)
        if self.offline:
            raise OSError(errno.EIO, "the recovery point could not be lowered", self.dir)

    def _cut_at(self, offset: int) -> None:
        """The log now ends at `offset` (or where its last batch ends)."""
        self.log_end_offset = self.written_end_offset = offset
        self.recovery_point = min(self.recovery_point, offset)
        self.epochs.truncate_from_end(offset)
        if self.corrupt_offset is not None and self.corrupt_offset >= offset:
            self.corrupt_offset = None
        if self.readable_end >= offset:
            self.readable_end, self._damage = NO_LIMIT, None

    def truncate_fully_and_start_at(self, offset: int, wall_ms: int = 0) -> None:
        """Drop everything; the log is empty and continues at `offset`. Blocking, durable."""
        self._drop_staged()
        try:
            self.start_anew(offset, wall_ms)
        except OSError as error:
            self.fail(error)
            raise self._storage_error(error) from error

    def start_anew(self, offset: int, wall_ms: int) -> None:
        """The same for recovery, which lets OSError pass."""
        self._announce_cut(0)
        self._remove_files([self._pop_segment(-1) for _ in range(len(self._segments))])
        self._remove_snapshots(-1)
        self.producers.clear()
        self.epochs.clear()
        self._sync_dirs_now()
        self.add_segment(offset, wall_ms)
        self._sync_dirs_now()
        self._cut_at(offset)
        self.recovery_point = self.log_start_offset = offset
        self.corrupt_offset, self.readable_end, self._damage = None, NO_LIMIT, None
        self.size_bytes = 0
        self._refresh_fast_limit()

    def _remove_snapshots(self, above: int) -> None:
        """Producer snapshots of offsets that no longer are."""
        disk = self._pool.disk
        for name in disk.listdir(self.dir):
            offset = layout.file_offset(name)
            if offset is not None and offset > above and name.endswith(layout.SNAPSHOT_SUFFIX):
                disk.unlink(f"{self.dir}/{name}")

    def _sync_dirs_now(self) -> None:
        dirs, self._dirs_to_sync = self._dirs_to_sync, []
        sync_paths(self._pool.disk, [], dirs)

    def _drop_staged(self) -> None:
        if self.offline:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{self.topic}-{self.partition} is offline")
        self.write_staged()

    def advance_log_start(self, offset: int) -> bool:
        """DeleteRecords and retention: nothing below `offset` is readable any more; whether that changed anything.

        KafkaError OFFSET_OUT_OF_RANGE above the log end. Segments go with the next `delete_old_segments`.
        """
        if offset > self.log_end_offset:
            raise KafkaError(
                ErrorCode.OFFSET_OUT_OF_RANGE,
                f"Cannot increment the log start offset to {offset} of {self.topic}-{self.partition}: the log ends at "
                f"{self.log_end_offset}",
            )
        if offset <= self.log_start_offset:
            return False
        self.log_start_offset = offset
        try:
            self.epochs.truncate_from_start(offset)
        except OSError as error:
            self.fail(error)
            raise self._storage_error(error) from error
        return True

    # Retention --------------------------------------------------------------------------------------------------

    def delete_old_segments(self, wall_ms: int, high_watermark: int | None = None) -> int:
        """Retention by time, size and log start, oldest segments first, never at or above the high watermark.

        How many segments went. Their files are renamed to `.deleted` and unlinked later.
        """
        if self.offline or self.readable_end < NO_LIMIT:
            return 0
        limit = (
            self.written_end_offset
            if high_watermark is None
            else min(high_watermark, self.written_end_offset)
        )
        try:
            count = self._expired_count(wall_ms, limit)
            if count == 0:
                return 0
            if count == len(self._segments):
                self.roll(wall_ms)  # the newest may go too, but a log has always one to write to
            start = self._bases[count]
            self._forget_positions()
            self._remove_files([self._pop_segment(0) for _ in range(count)])
        except OSError as error:
            self.fail(error)
            raise self._storage_error(error) from error
        self.advance_log_start(start)
        return count

    def _expired_count(self, wall_ms: int, limit: int) -> int:
        config = self.config
        excess = self.size_bytes - config.retention_bytes if config.retention_bytes >= 0 else -1
        by_time = config.cleanup_delete and config.retention_ms >= 0
        count = 0
        for at, segment in enumerate(self._segments):
            last = at + 1 == len(self._segments)
            end = self.written_end_offset if last else self._bases[at + 1]
            if end > limit:
                break
            below_start = not last and end <= self.log_start_offset
            too_large = config.cleanup_delete and not last and excess - segment.size >= 0
            is_unused = last and segment.size == 0
            too_old = by_time and not is_unused and self._is_old(at, wall_ms - config.retention_ms)
            if not (below_start or too_large or too_old):
                break
            excess -= segment.size
            count += 1
        return count

    def _is_old(self, at: int, before_ms: int) -> bool:
        """By its largest record timestamp, or if records have none by the time it was opened here.

        A damaged segment whose times cannot be read is as old as the one after it: it must not stay for ever. So is one
        in which compaction has left nothing.
        """
        for segment in self._segments[at:]:
            if segment.written == 0 and segment is not self._segments[-1]:
                continue
            try:
                timestamp = self._max_timestamp(segment)
            except KafkaError:
                continue
            return (timestamp if timestamp >= 0 else segment.created_ms) < before_ms
        return False

    def _pop_segment(self, at: int) -> Segment:
        segment = self._segments.pop(at)
        self._bases.pop(at)
        self.size_bytes -= segment.size
        return segment

    def replace_segments(self, start: int, old: list[Segment], new: Segment) -> None:
        """`new`, which begins where the first of `old` does, takes their place; its files get their names later."""
        self._segments[start : start + len(old)] = [new]
        self._bases[start : start + len(old)] = [new.base_offset]
        self.size_bytes += new.size - sum(segment.size for segment in old)
        self._forget_positions()
        self._remove_files(old, keep_snapshot_of=new.base_offset)

    def _remove_files(self, segments: list[Segment], keep_snapshot_of: int = -1) -> None:
        """Rename to `.deleted` at once; unlink later, off the request path."""
        disk = self._pool.disk
        renamed: list[str] = []
        for segment in segments:
            self._pool.close(segment)
            for suffix in (*layout.SEGMENT_SUFFIXES, layout.SNAPSHOT_SUFFIX):
                path = segment.path(suffix)
                if suffix == layout.SNAPSHOT_SUFFIX and segment.base_offset == keep_snapshot_of:
                    continue
                if disk.exists(path):
                    disk.rename(path, path + layout.DELETED_SUFFIX)
                    renamed.append(path + layout.DELETED_SUFFIX)
        if self.dir not in self._dirs_to_sync:
            self._dirs_to_sync.append(self.dir)
        if self.on_removed is not None:
            self.on_removed(self, renamed)
        elif self._syncer is not None:
            self._syncer.run(partial(unlink_all, disk, renamed), _ignore)
        else:
            unlink_all(disk, renamed)

    # Others -----------------------------------------------------------------------------------------------------

    def active_producers(self) -> list[ProducerEntry]:
        """For DescribeProducers."""
        return list(self.producers.entries.values())

    def assign_epoch(self, epoch: int, syncer: Syncer, done: Done) -> None:
        """This replica leads from here on: note (epoch, log end) and call `done` once that is durable.

        The same as `epochs.assign`, without blocking for the fsync; many partitions become leader at a time, and those
        that share a data directory share an fsync.
        """
        start = self.log_end_offset
        try:
            news = self.epochs.assign(epoch, start, durable=False)
        except OSError as error:
            self.fail(error)
            done(error)
            return
        if not news:
            done(None)
            return

        def written(error: OSError | None) -> None:
            if error is not None:
                self.fail(error)
            done(error)

        if self.epoch_starts is not None:
            self.epoch_starts.note(self.key, epoch, start, syncer, written)
        else:
            path = f"{self.dir}/{layout.LEADER_EPOCH_CHECKPOINT}"
            syncer.run(partial(sync_paths, self._pool.disk, [path], [self.dir]), written)

    def batch_base_before(self, offset: int) -> int:
        """Base offset of the batch that holds `offset`; for those who must cut at a batch boundary."""
        at = bisect_right(self._bases, offset) - 1
        found = self._segments[at].header_at(self._pool, offset)
        return found[1].base_offset if found is not None else offset


def unlink_all(disk: Disk, paths: list[str]) -> None:
    for path in paths:
        try:
            disk.unlink(path)
        except FileNotFoundError:
            continue


def sync_paths(disk: Disk, paths: list[str], dirs: list[str]) -> None:
    """fsync files by name, then directories. A file that is gone was removed by retention meanwhile."""
    for path in paths:
        try:
            file = disk.open(path)
        except FileNotFoundError:
            continue
        try:
            file.sync()
        finally:
            file.close()
    for directory in dirs:
        disk.sync_dir(directory)
