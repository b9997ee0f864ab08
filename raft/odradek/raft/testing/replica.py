"""One replica on a disk of memory that forgets what was not fsynced: executes the core's effects, decides
nothing.

Whoever drives it (a transcript, the simulation) chooses when a write becomes durable, and when the process
dies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from random import Random

from odradek.raft.config import RaftConfig
from odradek.raft.core import RaftCore
from odradek.raft.effects import (
    AdvanceLogStart,
    AppendEntries,
    BecameLeader,
    Committed,
    Effect,
    Event,
    Fatal,
    InstallSnapshot,
    LeaderChanged,
    LogRange,
    LogSynced,
    LostLeadership,
    PersistQuorumState,
    QuorumStatePersisted,
    SendMessage,
    SnapshotCreated,
    SnapshotInstalled,
    SnapshotRange,
    Sync,
    TruncateLog,
    VoterChangeEnded,
    WriteSnapshotChunk,
)
from odradek.raft.log_index import ORIGIN, LogIndex, OffsetAndEpoch, SnapshotId
from odradek.raft.messages import Batch, FetchResponse, FetchSnapshotResponse
from odradek.raft.quorum_state import QuorumState
from odradek.raft.voters import ReplicaKey, VoterHistory, VoterSet
from odradek.wire.errors import ErrorCode


@dataclass(frozen=True, slots=True)
class Entry:
    """A batch with a digest of the whole log up to its end: equal digests mean equal prefixes."""

    batch: Batch
    digest: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The effect of a prefix is its digest; `voters` as in the real file, None if no record set them."""

    snapshot: SnapshotId
    digest: int
    voters: VoterSet | None

    @property
    def data(self) -> bytes:
        return b"%020d" % (self.digest & (1 << 63) - 1)


@dataclass(slots=True)
class DurableState:
    """What survives a crash."""

    vote: QuorumState = field(default_factory=QuorumState)
    start: OffsetAndEpoch = ORIGIN
    start_digest: int = 0
    entries: list[Entry] = field(default_factory=list)
    snapshots: dict[SnapshotId, Snapshot] = field(default_factory=dict)


SnapshotSource = Callable[[SnapshotId], Snapshot]


class MemoryReplica:
    """A running replica. After `crash()` it is gone; a new one is made from the same `DurableState`."""

    def __init__(
        self,
        me: ReplicaKey,
        bootstrap: VoterSet,
        config: RaftConfig,
        disk: DurableState,
        rng: Random,
        find_snapshot: SnapshotSource,
        core_class: type[RaftCore] = RaftCore,
    ) -> None:
        self.me = me
        self.disk = disk
        self._recover()
        self.entries = list(disk.entries)
        self.outbox: list[SendMessage] = []
        """Messages that may leave now; whoever drives the replica takes them."""
        self.held: list[SendMessage] = []
        self.pending_persists: deque[PersistQuorumState] = deque()
        self.pending_sync: Sync | None = None
        self.pending_install: SnapshotId | None = None
        self.notices: list[Effect] = []
        """Effects that only inform: commits, leadership, fatal errors."""
        self.truncations = 0
        self._persisted_sequence = 0
        self._rng = rng
        self._find_snapshot = find_snapshot
        self.core = core_class(config, me, self._read_voters(bootstrap), disk.vote, self._read_index(), rng)

    def _recover(self) -> None:
        """A snapshot beyond the end of the log: whatever the log held below is part of it, so restart
        there.
        """
        disk = self.disk
        newest = max(disk.snapshots, default=None)
        end = disk.entries[-1].batch.end_offset if disk.entries else disk.start.offset
        if newest is not None and newest.offset > end:
            snapshot = disk.snapshots[newest]
            disk.snapshots = {newest: snapshot}
            disk.start, disk.start_digest, disk.entries = OffsetAndEpoch(*newest), snapshot.digest, []

    def _read_index(self) -> LogIndex:
        disk = self.disk
        index = LogIndex(start=disk.start, end_offset=disk.start.offset, synced_end=disk.start.offset)
        index.snapshots = sorted(disk.snapshots)
        for entry in disk.entries:
            index.append(entry.batch.base_offset, entry.batch.count, entry.batch.epoch)
        return index

    def _read_voters(self, bootstrap: VoterSet) -> VoterHistory:
        history = VoterHistory(bootstrap)
        oldest = self.disk.snapshots.get(SnapshotId(*self.disk.start))
        if oldest is not None:
            history.restart_at(oldest.snapshot.offset, oldest.voters)
        for entry in self.disk.entries:
            if entry.batch.voters is not None:
                history.append(entry.batch.end_offset - 1, entry.batch.voters)
        return history

    # ---- running

    def start(self, now_ms: int) -> None:
        self._execute(self.core.start(now_ms))

    def step(self, event: Event, now_ms: int) -> None:
        self._execute(self.core.step(event, now_ms))

    def complete_persist(self, now_ms: int) -> None:
        """The oldest vote-file write is durable now."""
        effect = self.pending_persists.popleft()
        self.disk.vote = effect.state
        self._persisted_sequence = effect.sequence
        self.outbox += (send for send in self.held if send.after <= effect.sequence)
        self.held = [send for send in self.held if send.after > effect.sequence]
        self.step(QuorumStatePersisted(effect.sequence), now_ms)

    def complete_sync(self, now_ms: int) -> None:
        """The fsync under way is done: everything it was asked for is durable, unless it was truncated
        since.
        """
        effect, self.pending_sync = self.pending_sync, None
        assert effect is not None
        if effect.generation == self.core.log.generation:
            self._make_durable(effect.end_offset)
        self.step(LogSynced(effect.generation, effect.end_offset), now_ms)

    def complete_install(self, now_ms: int) -> None:
        """The downloaded snapshot is durable; the log restarts at its end."""
        snapshot_id, self.pending_install = self.pending_install, None
        assert snapshot_id is not None
        snapshot = self._find_snapshot(snapshot_id)
        disk = self.disk
        disk.snapshots = {snapshot_id: snapshot}
        disk.start, disk.start_digest = OffsetAndEpoch(*snapshot_id), snapshot.digest
        disk.entries, self.entries = [], []
        self.step(SnapshotInstalled(snapshot_id, True, snapshot.voters), now_ms)

    def create_snapshot(self, now_ms: int) -> SnapshotId | None:
        """Snapshot everything committed; None if there is nothing new."""
        core = self.core
        offset, newest = core.high_watermark, core.log.latest_snapshot
        if offset <= core.log.start.offset or (newest is not None and offset <= newest.offset):
            return None
        snapshot_id = SnapshotId(offset, core.log.epoch_below(offset))
        digest = self.digest_at(offset)
        assert digest is not None
        self.disk.snapshots[snapshot_id] = Snapshot(snapshot_id, digest, core.voters.at(offset))
        self.step(SnapshotCreated(snapshot_id), now_ms)
        return snapshot_id

    def crash(self, keep_unsynced: int = 0) -> DurableState:
        """Lose what is not durable, but for `keep_unsynced` batches that the system happened to write out."""
        durable = len(self._common_prefix())
        if keep_unsynced:
            self.disk.entries = self.entries[: durable + keep_unsynced]
        return self.disk

    def digest_at(self, end_offset: int) -> int | None:
        """Digest of the log below `end_offset`; None if no batch ends there or it is not held any more."""
        return digest_at(self.disk, self.entries, end_offset)

    @property
    def end_digest(self) -> int:
        return self.entries[-1].digest if self.entries else self.disk.start_digest

    # ---- effects

    def _execute(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            self._apply(effect)
        assert self.core.log.end_offset == self._end_offset, "the core's index and the log disagree"

    def _apply(self, effect: Effect) -> None:
        match effect:
            case PersistQuorumState():
                self.pending_persists.append(effect)
            case AppendEntries():
                self._append(effect.batches)
            case Sync():
                assert self.pending_sync is None
                self.pending_sync = effect
            case TruncateLog():
                self.truncations += 1
                while self.entries and self.entries[-1].batch.end_offset > effect.end_offset:
                    self.entries.pop()
            case SendMessage():
                send = self._fill(effect)
                (self.held if send.after > self._persisted_sequence else self.outbox).append(send)
            case InstallSnapshot():
                self.pending_install = effect.snapshot
            case AdvanceLogStart():
                self._advance_start(effect)
            case WriteSnapshotChunk():
                pass
            case (
                Committed()
                | BecameLeader()
                | LostLeadership()
                | LeaderChanged()
                | VoterChangeEnded()
                | Fatal()
            ):
                self.notices.append(effect)

    @property
    def _end_offset(self) -> int:
        return self.entries[-1].batch.end_offset if self.entries else self.disk.start.offset

    def _append(self, batches: tuple[Batch, ...]) -> None:
        for batch in batches:
            if not isinstance(batch.data, int):  # a control batch: content enough to tell two leaders apart
                batch = batch._replace(data=self._rng.getrandbits(60))
            digest = hash((self.end_digest, batch.base_offset, batch.count, batch.epoch, batch.data))
            self.entries.append(Entry(batch, digest))

    def _fill(self, send: SendMessage) -> SendMessage:
        read, message = send.read, send.message
        if isinstance(read, LogRange):
            assert isinstance(message, FetchResponse)
            found = [e.batch for e in self.entries if read.offset <= e.batch.base_offset < read.end_offset]
            return send._replace(
                message=replace(message, batches=tuple(found[: max(read.max_bytes // 100, 1)]))
            )
        if isinstance(read, SnapshotRange):
            assert isinstance(message, FetchSnapshotResponse)
            data = self.disk.snapshots[read.snapshot].data
            if read.position >= len(data):
                return send._replace(message=replace(message, error=ErrorCode.POSITION_OUT_OF_RANGE))
            chunk = data[read.position : read.position + read.max_bytes]
            return send._replace(message=replace(message, size=len(data), data=chunk))
        return send

    def _common_prefix(self) -> list[Entry]:
        count = 0
        for mine, durable in zip(self.entries, self.disk.entries, strict=False):
            if mine.digest != durable.digest:
                break
            count += 1
        return self.entries[:count]

    def _make_durable(self, end_offset: int) -> None:
        self.disk.entries = [entry for entry in self.entries if entry.batch.end_offset <= end_offset]

    def _advance_start(self, effect: AdvanceLogStart) -> None:
        disk, start = self.disk, effect.start
        digest = self.digest_at(start.offset)
        assert digest is not None
        disk.start, disk.start_digest = OffsetAndEpoch(*start), digest
        self.entries = [entry for entry in self.entries if entry.batch.base_offset >= start.offset]
        disk.entries = [entry for entry in disk.entries if entry.batch.base_offset >= start.offset]
        for snapshot_id in effect.obsolete:
            disk.snapshots.pop(snapshot_id, None)


def digest_at(disk: DurableState, entries: list[Entry], end_offset: int) -> int | None:
    """The digest of a log (running: `entries`; after a crash: `disk.entries`) below `end_offset`."""
    if end_offset == disk.start.offset:
        return disk.start_digest
    for entry in reversed(entries):
        if entry.batch.end_offset == end_offset:
            return entry.digest
        if entry.batch.end_offset < end_offset:
            break
    return None
