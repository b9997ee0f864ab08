"""Compaction of closed segments: of each key the last record stays, in segments that take the place of the old ones.

As Kafka's cleaner does it: the dirty part fills a table of keys and their last offsets until the table is full or the
part ends; then every segment up to there is written anew without what the table knows to be superseded. Offsets stay.

- A tombstone goes once its batch's delete horizon is over, which the first cleaning that keeps it sets (KIP-534).
- Records of aborted transactions go at once, a marker when nothing of its transaction is left and its horizon is over.
- The last batch of each live producer stays, without records if need be: its sequence is all there is of the producer
  after a restart. So does the last batch of what was cleaned: the log ends where it did.

A job is data and touches nothing but closed segments and files with the suffix `.cleaned`, so it may run in another
thread or process (cleaner_worker.py). `compaction.py` says when and puts the result in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from odradek.ports.disk import Buffer, Disk
from odradek.storage import layout
from odradek.storage.batch import Damage, scan_batches
from odradek.storage.producers import end_transaction_marker
from odradek.storage.segment import RELATIVE_OFFSET_MAX, Segment, overwrite
from odradek.storage.txn_index import AbortedTxn
from odradek.storage.txn_index import encode as encode_aborted
from odradek.wire.compression import Codec, compress, decompress
from odradek.wire.errors import KafkaError
from odradek.wire.record_scan import Entry, join, kept, note_keys, scan
from odradek.wire.records import (
    DELETE_HORIZON_FLAG,
    HEADER,
    HEADER_SIZE,
    LENGTH_MIN,
    BatchHeader,
    empty_batch,
    seal,
)

KEY_BYTES = 200
"""What one key takes in the table: hash, offset, and Python's share of them."""
_WRITE_BYTES = 1 << 20
_SYNC_BYTES = 32 << 20
"""Written between two fsyncs: a gigabyte that goes to the medium at once holds up everybody else's writes."""
_JOINED_MAX = 32
"""Segments that become one: the swap renames the files of each on the thread that answers requests."""
_BATCH_BYTES_MAX = 32 << 20
_BATCH_RECORDS_MAX = 1_000_000
"""What one batch may hold, decompressed. A compacted topic takes less; others may have been there before it was one."""


class CleaningError(Exception):
    """The log cannot be compacted as it is; it stays untouched."""


@dataclass(frozen=True, slots=True)
class SourceSegment:
    """A closed segment."""

    base_offset: int
    end_offset: int
    """Where the next segment begins."""
    size: int


@dataclass(frozen=True, slots=True)
class LastOfProducer:
    """What the log has to keep for a producer to be known after a restart."""

    epoch: int
    last_offset: int
    """Of its last data batch, -1 if its last is a marker."""


@dataclass(frozen=True, slots=True)
class CleaningJob:
    """Everything a cleaning needs to know. Times in ms, sizes in bytes."""

    directory: str
    segments: tuple[SourceSegment, ...]
    """From the first of the log to the last that may be cleaned, all below the last stable offset and fsynced."""
    first_dirty_offset: int
    aborted: tuple[AbortedTxn, ...]
    """Of the whole log: the marker may lie behind the segments."""
    producers: Mapping[int, LastOfProducer]
    now_ms: int
    delete_retention_ms: int
    segment_bytes: int
    index_interval_bytes: int
    keys_max: int


@dataclass(frozen=True, slots=True)
class CleanedGroup:
    """One new segment, in `.cleaned` files named by the first of the segments that it replaces."""

    sources: tuple[SourceSegment, ...]
    size: int


@dataclass(slots=True)
class Cleaned:
    """What a job has come to."""

    end_offset: int
    """Clean below this: the next cleaning's first dirty offset."""
    groups: list[CleanedGroup] = field(default_factory=list)
    """In the order of offsets. Without those in which nothing would change."""
    keys: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    records_read: int = 0
    records_kept: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What has become of a job: one of these."""

    cleaned: Cleaned | None = None
    problem: str | None = None
    """The log cannot be cleaned as it is."""
    error: OSError | None = None
    """The disk failed."""
    died: str | None = None
    """Whoever was at it did not live to finish, and why."""


def attempt(job: CleaningJob, disk: Disk) -> Outcome:
    """`run`, with what it raises as an outcome."""
    try:
        return Outcome(run(job, disk))
    except CleaningError as error:
        return Outcome(problem=str(error))
    except OSError as error:
        return Outcome(error=error)
    except MemoryError:
        return Outcome(died="out of memory")


def run(job: CleaningJob, disk: Disk) -> Cleaned:
    """Do the job. The new files, and their directory entries, are durable when it returns.

    CleaningError for damage, for batches too large to be opened, and for one that has more keys than the table.
    """
    remove_cleaned(disk, job.directory)
    try:
        keys, end = _last_offsets(job, disk)
        cleaned = Cleaned(end, keys=len(keys))
        batches = _Filter(job, keys, end, cleaned)
        for sources in _grouped(job, end):
            _write_group(job, disk, sources, batches, cleaned)
    except (Damage, KafkaError) as error:
        remove_cleaned(disk, job.directory)
        raise CleaningError(str(error)) from error
    except CleaningError:
        remove_cleaned(disk, job.directory)
        raise
    if cleaned.groups:
        disk.sync_dir(job.directory)
    return cleaned


def remove_cleaned(disk: Disk, directory: str) -> None:
    """Remove what a cleaning has written that is not wanted, or was not finished."""
    for name in disk.listdir(directory):
        if layout.file_offset(name) is not None and name.endswith(layout.CLEANED_SUFFIX):
            disk.unlink(f"{directory}/{name}")


def _batches(job: CleaningJob, disk: Disk, source: SourceSegment) -> Iterator[tuple[BatchHeader, memoryview]]:
    file = disk.open(f"{job.directory}/{layout.file_name(source.base_offset, layout.LOG_SUFFIX)}")
    try:
        for position, header, batch in scan_batches(file, 0, source.size):
            if not source.base_offset <= header.base_offset <= header.last_offset < source.end_offset:
                raise Damage(position, f"offset {header.base_offset} does not belong to {source}")
            yield header, batch
    finally:
        file.close()


def _entries(header: BatchHeader, batch: memoryview) -> tuple[bytes, list[Entry]]:
    """(the records' bytes, where each is in them)."""
    if header.count == 0:
        return b"", []
    if header.count > _BATCH_RECORDS_MAX:
        raise CleaningError(f"the batch at offset {header.base_offset} has {header.count} records")
    payload = batch[HEADER_SIZE : header.size]
    codec = header.codec
    data = bytes(payload) if codec is Codec.NONE else decompress(codec, payload, _BATCH_BYTES_MAX)
    return data, scan(data, header.count)


# Transactions ----------------------------------------------------------------------------------------------------


class _Transactions:
    """Which batches are of aborted transactions, which markers have nothing left to end. In the order of offsets."""

    def __init__(self, aborted: tuple[AbortedTxn, ...], start: int) -> None:
        relevant = [entry for entry in aborted if entry.last_offset >= start]
        self._pending = sorted(relevant, key=lambda entry: entry.first_offset, reverse=True)
        self._aborted: dict[int, AbortedTxn] = {}
        """By producer: transactions whose first offset is passed."""
        self._seen: set[int] = set()
        """Producers with a batch of their transaction in what has been read."""
        self.kept: list[AbortedTxn] = []
        """Entries of the transaction index whose markers are still of use."""

    def _pass(self, offset: int) -> None:
        while self._pending and self._pending[-1].first_offset <= offset:
            entry = self._pending.pop()
            self._aborted[entry.producer_id] = entry

    def data(self, header: BatchHeader) -> bool:
        """Whether this batch is of an aborted transaction."""
        self._pass(header.last_offset)
        if not header.is_transactional:
            return False
        self._seen.add(header.producer_id)
        entry = self._aborted.get(header.producer_id)
        return entry is not None and header.last_offset < entry.last_offset

    def marker(self, header: BatchHeader, batch: Buffer) -> bool:
        """Whether this control batch is of no use to anybody who reads from the start."""
        self._pass(header.last_offset)
        if header.count == 0:
            return True
        marker = end_transaction_marker(header, batch)
        if marker is None:
            return False
        entry = self._aborted.pop(header.producer_id, None)
        if header.producer_id not in self._seen:
            return True
        self._seen.discard(header.producer_id)
        if entry is not None and not marker.commit:
            self.kept.append(entry)
        return False


# First pass ------------------------------------------------------------------------------------------------------


def _last_offsets(job: CleaningJob, disk: Disk) -> tuple[dict[bytes, int], int]:
    """(last offset by hash of the key, offset up to which that is complete)."""
    keys: dict[bytes, int] = {}
    start = end = job.first_dirty_offset
    transactions = _Transactions(job.aborted, start)
    for source in job.segments:
        if source.end_offset <= start:
            continue
        for header, batch in _batches(job, disk, source):
            if header.last_offset < start:
                continue
            if header.is_control:
                transactions.marker(header, batch)
            elif not transactions.data(header) and not _note_keys(job, keys, header, batch):
                if end == start:
                    raise CleaningError(f"one batch has more than {job.keys_max} keys")
                return keys, end
            end = header.last_offset + 1
        end = source.end_offset
    return keys, end


def _note_keys(job: CleaningJob, keys: dict[bytes, int], header: BatchHeader, batch: memoryview) -> bool:
    """False when the table is full."""
    _, entries = _entries(header, batch)
    return note_keys(entries, header.base_offset, job.first_dirty_offset, keys, job.keys_max)


def _rebuilt(header: BatchHeader, data: bytes, entries: list[Entry], horizon: int | None) -> bytearray:
    """The batch with these records alone; its range of offsets stays. `horizon`: of their tombstones (KIP-534)."""
    timestamps = [header.base_timestamp + entry[1] for entry in entries]
    if header.is_log_append_time:
        timestamps = [header.max_timestamp] * len(entries)
        late = header.max_timestamp - header.base_timestamp
        entries = [(entry[0], late, *entry[2:]) for entry in entries]
    base_timestamp = timestamps[0] if horizon is None else horizon
    payload: Buffer = join(data, entries, header.base_timestamp - base_timestamp)
    codec = header.codec
    if codec is not Codec.NONE:
        payload = compress(codec, payload, None)
    changed = header._replace(
        length=LENGTH_MIN + len(payload),
        attributes=header.attributes & ~DELETE_HORIZON_FLAG
        | (DELETE_HORIZON_FLAG if horizon is not None else 0),
        base_timestamp=base_timestamp,
        max_timestamp=max(timestamps),
        count=len(entries),
    )
    batch = bytearray(HEADER_SIZE + len(payload))
    HEADER.pack_into(batch, 0, *changed)
    batch[HEADER_SIZE:] = payload
    seal(batch)
    return batch


# Second pass -----------------------------------------------------------------------------------------------------


class _Filter:
    """What stays of each batch."""

    def __init__(self, job: CleaningJob, keys: dict[bytes, int], end: int, counts: Cleaned) -> None:
        self._job = job
        self._keys = keys
        self._end = end
        self._counts = counts
        self.transactions = _Transactions(job.aborted, 0)

    def __call__(self, header: BatchHeader, batch: memoryview) -> Buffer | None:
        """The very batch, a new one, or None."""
        job, horizon = self._job, header.delete_horizon_ms
        self._counts.records_read += header.count
        unneeded_marker = header.is_control and self.transactions.marker(header, batch)
        if header.is_control:
            discard = unneeded_marker and horizon is not None and horizon <= job.now_ms
        else:
            discard = self.transactions.data(header)
        data, entries = (b"", []) if discard else _entries(header, batch)
        if not header.is_control:
            tombstones_go = horizon is not None and horizon <= job.now_ms
            entries = kept(entries, header.base_offset, self._end, self._keys, tombstones_go)
        if not entries:
            if header.count == 0 and self._must_stay(header):
                return batch
            return empty_batch(header) if self._must_stay(header) else None
        self._counts.records_kept += len(entries)
        if horizon is None and (unneeded_marker or any(entry[3] for entry in entries)):
            return _rebuilt(header, data, entries, job.now_ms + job.delete_retention_ms)
        return batch if len(entries) == header.count else _rebuilt(header, data, entries, horizon)

    def _must_stay(self, header: BatchHeader) -> bool:
        if header.last_offset + 1 == self._end:
            return True
        last = self._job.producers.get(header.producer_id)
        if header.producer_id < 0 or last is None:
            return False
        if last.last_offset >= 0:
            return header.last_offset == last.last_offset
        return header.is_control and header.producer_epoch == last.epoch


def _grouped(job: CleaningJob, end: int) -> Iterator[tuple[SourceSegment, ...]]:
    """Neighbours that together fit a segment, before anything is left out of them."""
    group: list[SourceSegment] = []
    size = 0
    for source in job.segments:
        if source.base_offset >= end:
            break
        fits = 0 < len(group) < _JOINED_MAX and (
            source.end_offset - group[0].base_offset <= RELATIVE_OFFSET_MAX
        )
        if group and not (fits and size + source.size <= job.segment_bytes):
            yield tuple(group)
            group, size = [], 0
        group.append(source)
        size += source.size
    if group:
        yield tuple(group)


def _write_group(
    job: CleaningJob, disk: Disk, sources: tuple[SourceSegment, ...], batches: _Filter, cleaned: Cleaned
) -> None:
    segment = Segment(job.directory, sources[0].base_offset, 0, job.now_ms)
    segment.begin_index()
    path = segment.path(layout.LOG_SUFFIX + layout.CLEANED_SUFFIX)
    file = disk.open(path, create=True)
    changed = len(sources) > 1
    pending: list[Buffer] = []
    pending_bytes = unsynced = 0
    try:
        for source in sources:
            for header, batch in _batches(job, disk, source):
                kept = batches(header, batch)
                changed = changed or kept is not batch
                if kept is None:
                    continue
                _note(segment, kept, job.index_interval_bytes)
                pending.append(bytes(kept))
                pending_bytes += len(kept)
                if pending_bytes >= _WRITE_BYTES:
                    file.append(pending)
                    unsynced += pending_bytes
                    pending, pending_bytes = [], 0
                    if unsynced >= _SYNC_BYTES:
                        file.sync()
                        unsynced = 0
            cleaned.bytes_read += source.size
        if pending:
            file.append(pending)
        if changed:
            file.sync()
    finally:
        file.close()
    aborted, batches.transactions.kept = batches.transactions.kept, []
    if not changed:
        disk.unlink(path)
        return
    _write_indexes(disk, segment, aborted)
    cleaned.bytes_written += segment.size
    cleaned.groups.append(CleanedGroup(sources, segment.size))


def _note(segment: Segment, batch: Buffer, interval: int) -> None:
    header = BatchHeader._make(HEADER.unpack_from(batch))
    segment.note_batch(header.last_offset, header.max_timestamp, segment.size, len(batch), interval)
    segment.size += len(batch)


def _write_indexes(disk: Disk, segment: Segment, aborted: list[AbortedTxn]) -> None:
    index = segment.index
    assert index is not None, "begun with the segment"
    if segment.max_timestamp >= 0:
        index.add_time(segment.max_timestamp, segment.max_timestamp_offset - segment.base_offset)
    contents = {
        layout.INDEX_SUFFIX: index.encode_offsets(),
        layout.TIME_INDEX_SUFFIX: index.encode_times(),
    }
    if aborted:
        contents[layout.TXN_INDEX_SUFFIX] = encode_aborted(aborted)
    for suffix, data in contents.items():
        path = segment.path(suffix + layout.CLEANED_SUFFIX)
        overwrite(disk, path, data)
        file = disk.open(path)
        try:
            file.sync()
        finally:
            file.close()
