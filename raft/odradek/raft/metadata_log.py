"""The metadata log on a disk: Kafka's `__cluster_metadata-0` with vote file and snapshots, by the storage
engine.

It executes what the core decided and knows no protocol. What waits for the medium (`write_snapshot`,
`finish_download`, `write_quorum_state`) is a plain blocking function that the driver gives to a syncer; it
touches no shared state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from odradek.ports.disk import Disk, File, Syncer
from odradek.raft import quorum_state, snapshots
from odradek.raft.control_records import (
    BATCH_BYTES_MAX,
    CorruptBatch,
    decode_batches,
    encode_batch,
    read_batches,
    read_values,
)
from odradek.raft.effects import LogRange, SnapshotRange
from odradek.raft.log_index import ORIGIN, LogIndex, OffsetAndEpoch, SnapshotId
from odradek.raft.messages import Batch
from odradek.raft.quorum_state import CorruptQuorumState, QuorumState
from odradek.raft.snapshots import SnapshotContent
from odradek.raft.voters import VoterHistory, VoterSet
from odradek.storage.config import UNLIMITED, LogConfig
from odradek.storage.layout import METADATA_LOG_DIR
from odradek.storage.log import Log
from odradek.storage.state import NO_LIMIT
from odradek.wire.errors import ErrorCode, KafkaError

_Done: TypeAlias = Callable[[OSError | None], None]
TOPIC = "__cluster_metadata"
_READ_BYTES = 1 << 20

CONFIG = LogConfig(
    segment_bytes=64 * 1024 * 1024,
    retention_ms=-1,
    retention_bytes=-1,
    cleanup_delete=False,
    max_message_bytes=BATCH_BYTES_MAX + 4096,
    timestamp_after_max_ms=UNLIMITED,
)
"""Only snapshots delete from this log; segments small enough that what they cover goes soon."""


class CorruptMetadata(Exception):  # noqa: N818 - named after what was found
    """The metadata directory cannot be used as it is; the text says what to do."""


class MetadataLog:
    """Open with `MetadataLog.open`; `index`, `voters` and `stored` are then what a core starts from."""

    def __init__(
        self,
        disk: Disk,
        log: Log,
        index: LogIndex,
        voters: VoterHistory,
        stored: QuorumState,
        contents: dict[SnapshotId, SnapshotContent],
    ) -> None:
        self.index = index
        self.voters = voters
        self.stored = stored
        self._disk = disk
        self._log = log
        self._dir = log.dir
        self._contents = contents
        """Of the snapshots found at the start, until the newest is handed over."""
        self._download: File | None = None
        self._reading: tuple[SnapshotId, File] | None = None
        """The snapshot that is being served, kept open between its chunks."""

    # ---- opening

    @classmethod
    def open(
        cls, disk: Disk, metadata_dir: str, bootstrap: VoterSet, wall_ms: int, syncer: Syncer
    ) -> MetadataLog:
        """Recover the directory. `syncer` unlinks old segments. CorruptMetadata, OSError."""
        path = f"{metadata_dir}/{METADATA_LOG_DIR}"
        if not disk.isdir(path):
            disk.makedirs(path)
            disk.sync_dir(metadata_dir)
        contents = _read_snapshots(disk, path)
        kept = sorted(contents)
        start = OffsetAndEpoch(*kept[0]) if kept else ORIGIN
        log = Log.open(
            disk,
            path,
            CONFIG,
            topic=TOPIC,
            partition=0,
            wall_ms=wall_ms,
            log_start_offset=start.offset,
            syncer=syncer,
        )
        if log.readable_end != NO_LIMIT:
            raise CorruptMetadata(
                f"{path} is damaged at offset {log.readable_end}. This node may not vote with it: "
                f"{_remedy(bootstrap, path)}."
            )
        if log.log_start_offset > start.offset:
            raise CorruptMetadata(
                f"{path} begins at offset {log.log_start_offset}, but there is no sound snapshot of what was before, "
                f"a .checkpoint file: {_remedy(bootstrap, path)}."
            )
        index, voters = LogIndex(start=start, snapshots=kept), VoterHistory(bootstrap)
        opened = cls(disk, log, index, voters, QuorumState(), contents)
        opened._scan(wall_ms)
        opened.stored = _read_quorum_state(disk, path, bootstrap, voters.current)
        return opened

    def _scan(self, wall_ms: int) -> None:
        """Fill index and voters from the oldest snapshot and the batches behind it."""
        index, voters, log = self.index, self.voters, self._log
        index.end_offset = index.synced_end = index.start.offset
        if index.snapshots:
            oldest = index.snapshots[0]
            voters.restart_at(oldest.offset, self._contents[oldest].voters)
        for batch in self._batches(index.start.offset, log.log_end_offset):
            index.append(batch.base_offset, batch.count, batch.epoch)
            if batch.voters is not None:
                voters.append(batch.end_offset - 1, batch.voters)
        newest = index.latest_snapshot
        if newest is None:
            return
        beyond = newest.offset > index.end_offset
        if beyond or index.epoch_below(newest.offset) != newest.epoch:
            # Installed, but the log was not restarted behind it before the crash: do it now.
            self.restart_at(newest, wall_ms)
            voters.restart_at(newest.offset, self._contents[newest].voters)
            index.restart_at(newest)

    def _batches(self, offset: int, end_offset: int) -> Iterator[Batch]:
        while offset < end_offset:
            data = self._read(offset, end_offset, _READ_BYTES)
            for batch in decode_batches(data):
                if batch.base_offset < offset:
                    raise CorruptMetadata(f"{self._dir}: the batch at {batch.base_offset} crosses {offset}")
                yield batch
                offset = batch.end_offset

    @property
    def end_offset(self) -> int:
        return self._log.log_end_offset

    @property
    def has_quorum_state(self) -> bool:
        return self._disk.exists(f"{self._dir}/{quorum_state.FILE_NAME}")

    @property
    def is_empty(self) -> bool:
        return self.index.end_offset == 0

    # ---- the log

    def append_as_leader(self, batch: Batch, wall_ms: int) -> None:
        """Encode, append, hand to the kernel. OSError, KafkaError."""
        encoded = encode_batch(batch, wall_ms)
        self._note_epoch(batch)
        result = self._log.append_as_leader(
            memoryview(encoded), batch.epoch, wall_ms, allow_control=True, trusted=True
        )
        assert result.base_offset == batch.base_offset and result.last_offset == batch.end_offset - 1
        self._log.write_staged()

    def append_as_follower(self, batches: Sequence[Batch], wall_ms: int) -> None:
        for batch in batches:
            self._note_epoch(batch)
            assert isinstance(batch.data, memoryview)
            self._log.append_as_follower(batch.data, wall_ms)
        self._log.write_staged()

    def _note_epoch(self, batch: Batch) -> None:
        """Here, so that the log does not fsync its epoch file: this log reads its epochs from its batches."""
        if batch.epoch > self._log.epochs.latest:
            self._log.epochs.assign(batch.epoch, batch.base_offset, durable=False)

    def truncate_to(self, end_offset: int) -> None:
        self._log.truncate_to(end_offset)

    def sync(self, syncer: Syncer, done: _Done) -> None:
        self._log.sync(syncer, done)

    def read_range(self, wanted: LogRange) -> tuple[Batch, ...]:
        """For a follower: whole batches with their bytes."""
        return decode_batches(self._read(wanted.offset, wanted.end_offset, wanted.max_bytes))

    def read_committed(self, offset: int, end_offset: int) -> tuple[list[tuple[int, int, list[bytes]]], int]:
        """(base offset, epoch, values) of some data batches from `offset` on, and the offset behind them."""
        found: list[tuple[int, int, list[bytes]]] = []
        for header, batch in read_batches(self._read(offset, end_offset, _READ_BYTES)):
            if not header.is_control:
                found.append((header.base_offset, header.leader_epoch, read_values(header, batch)))
            offset = header.last_offset + 1
        return found, offset

    def _read(self, offset: int, end_offset: int, max_bytes: int) -> memoryview:
        try:
            result = self._log.read(offset, max_bytes, end_offset=end_offset, min_one=True)
        except KafkaError as error:
            if error.code is ErrorCode.CORRUPT_MESSAGE:
                raise CorruptMetadata(f"{self._dir}: {error}") from error
            raise
        if result.next_offset <= offset:
            raise CorruptMetadata(f"{self._dir}: no batch ends between {offset} and {end_offset}")
        return memoryview(result.data)

    def is_batch_end(self, offset: int) -> bool:
        """Whether a batch, or the log, ends at `offset`: snapshots end there."""
        return offset == self._log.log_end_offset or self._log.batch_base_before(offset) == offset

    def advance_start(self, start: SnapshotId, obsolete: Sequence[SnapshotId], wall_ms: int) -> None:
        """Everything below `start` is in a durable snapshot: delete it, then the snapshots nobody needs."""
        self._log.advance_log_start(start.offset)
        self._log.delete_old_segments(wall_ms, start.offset)
        for snapshot in obsolete:
            self._delete(snapshot.file_name)

    def restart_at(self, snapshot: SnapshotId, wall_ms: int) -> None:
        """The log continues, empty, at the end of an installed snapshot; older snapshots go."""
        self._log.truncate_fully_and_start_at(snapshot.offset, wall_ms)
        for name in self._disk.listdir(self._dir):
            other = snapshots.parse_name(name)
            if other is not None and other != snapshot:
                self._delete(name)

    def close(self) -> None:
        """What was promised is durable before; a disk that fails now costs the next start a scan, and no more."""
        self._stop_reading()
        try:
            self._log.close()
        except (OSError, KafkaError):
            self._log.close_files()

    # ---- vote file

    def write_quorum_state(self, state: QuorumState) -> None:
        """Blocking: durable, with its directory entry, when it returns."""
        path = f"{self._dir}/{quorum_state.FILE_NAME}"
        self._disk.write_file_atomic(path, state.encode(), durable=True)

    # ---- snapshots

    def take_newest_snapshot(self) -> tuple[SnapshotId, SnapshotContent] | None:
        """What the application starts from, once; None if it starts from the log's beginning."""
        newest, contents = self.index.latest_snapshot, self._contents
        self._contents = {}
        return None if newest is None else (newest, contents[newest])

    def write_snapshot(
        self, snapshot: SnapshotId, voters: VoterSet | None, records: Sequence[bytes], wall_ms: int
    ) -> None:
        """Blocking: write aside, fsync, rename, fsync the directory."""
        partial = self._path(snapshot, snapshots.PARTIAL_SUFFIX)
        file = self._create(partial)
        try:
            for batch in snapshots.encode(snapshot, voters, records, wall_ms):
                file.append([batch])
            file.sync()
        finally:
            file.close()
        self._disk.rename(partial, self._path(snapshot))
        self._disk.sync_dir(self._dir)

    def write_chunk(self, snapshot: SnapshotId, position: int, data: bytes) -> None:
        """Continue, or at position 0 begin, a download."""
        if position == 0:
            self._close_download()
            self._download = self._create(self._path(snapshot, snapshots.PARTIAL_SUFFIX))
        assert self._download is not None
        self._download.append([data])

    def finish_download(self, snapshot: SnapshotId) -> Callable[[], SnapshotContent | None]:
        """Blocking work: check, fsync, rename, fsync the directory. It returns None if the bytes are
        damaged.
        """
        partial = self._path(snapshot, snapshots.PARTIAL_SUFFIX)
        file, self._download = self._download, None
        assert file is not None

        def work() -> SnapshotContent | None:
            try:
                content = snapshots.decode(file.pread(file.size(), 0))
                file.sync()
            except CorruptBatch:
                self._disk.unlink(partial)
                return None
            finally:
                file.close()
            self._disk.rename(partial, self._path(snapshot))
            self._disk.sync_dir(self._dir)
            return content

        return work

    def read_chunk(self, wanted: SnapshotRange) -> tuple[int, bytes]:
        """(size of the file, some bytes from the position); no bytes if that lies outside."""
        if self._reading is None or self._reading[0] != wanted.snapshot:
            self._stop_reading()
            self._reading = wanted.snapshot, self._disk.open(self._path(wanted.snapshot))
        file = self._reading[1]
        return file.size(), file.pread(wanted.max_bytes, wanted.position)

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading[1].close()
            self._reading = None

    def _close_download(self) -> None:
        if self._download is not None:
            self._download.close()
            self._download = None

    def _create(self, path: str) -> File:
        if self._disk.exists(path):
            self._disk.unlink(path)
        return self._disk.open(path, create=True, exclusive=True)

    def _delete(self, name: str) -> None:
        if self._reading is not None and self._reading[0].file_name == name:
            self._stop_reading()
        self._disk.unlink(f"{self._dir}/{name}")

    def _path(self, snapshot: SnapshotId, suffix: str = snapshots.SUFFIX) -> str:
        return f"{self._dir}/{snapshot.file_name.removesuffix(snapshots.SUFFIX)}{suffix}"


def _read_snapshots(disk: Disk, path: str) -> dict[SnapshotId, SnapshotContent]:
    """Complete and sound ones. Half-written ones go; a damaged one is set aside for a person to look at."""
    sound: dict[SnapshotId, SnapshotContent] = {}
    for name in disk.listdir(path):
        if name.endswith(snapshots.PARTIAL_SUFFIX):
            disk.unlink(f"{path}/{name}")
        snapshot = snapshots.parse_name(name)
        if snapshot is None:
            continue
        try:
            sound[snapshot] = snapshots.decode(disk.read_file(f"{path}/{name}"))
        except CorruptBatch:
            disk.rename(f"{path}/{name}", f"{path}/{name}.corrupt")
    return sound


def _remedy(bootstrap: VoterSet, path: str) -> str:
    """What a person can do about a metadata directory that is damaged."""
    if len(bootstrap) == 1:
        return (
            f"restore it from a copy. No other controller has what was in it: without {path}, the cluster begins anew, "
            f"and the logs of its topics are set aside"
        )
    return (
        f"restore it from a copy, or remove {path} so that this node joins the quorum anew as another voter"
    )


def _read_quorum_state(disk: Disk, path: str, bootstrap: VoterSet, current: VoterSet) -> QuorumState:
    """What this node remembers of elections. Who is the only voter may have forgotten that: a damaged file is set aside
    then. CorruptMetadata for others.
    """
    name = f"{path}/{quorum_state.FILE_NAME}"
    if not disk.exists(name):
        return QuorumState()
    try:
        return QuorumState.decode(disk.read_file(name))
    except CorruptQuorumState as error:
        if len(bootstrap) == len(current) == 1:
            disk.rename(name, f"{name}.corrupt")
            return QuorumState()
        raise CorruptMetadata(
            f"{name} cannot be read ({error}). What this node voted is not known: {_remedy(bootstrap, path)}."
        ) from error


def write_bootstrap_voters(disk: Disk, metadata_dir: str, voters: VoterSet, wall_ms: int) -> None:
    """Format a directory with the first voters: a snapshot that ends at 0 (KIP-853)."""
    path = f"{metadata_dir}/{METADATA_LOG_DIR}"
    if not disk.isdir(path):
        disk.makedirs(path)
        disk.sync_dir(metadata_dir)
    first = SnapshotId(0, 0)
    data = b"".join(snapshots.encode(first, voters, (), wall_ms))
    disk.write_file_atomic(f"{path}/{first.file_name}", data, durable=True)
