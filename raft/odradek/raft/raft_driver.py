"""The core on a real log: executes its effects, keeps its timer, and shows the application what is
committed.

One thread. The application (the controller) is a `RaftListener`: it sees every committed record exactly
once and in order, from the newest snapshot or the log's start, then `on_leader` if this replica leads, by
which time it has seen everything. Callbacks run after all effects of a step have been executed, so they may
call `append` and `create_snapshot` freely.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import NamedTuple, Protocol

from odradek.ports.clock import Clock
from odradek.ports.disk import Disk, Syncer
from odradek.ports.timers import Timer, TimerQueue
from odradek.raft.config import RaftConfig
from odradek.raft.control_records import BATCH_BYTES_MAX
from odradek.raft.core import RaftCore
from odradek.raft.effects import (
    AddVoter,
    AdvanceLogStart,
    AppendEntries,
    BecameLeader,
    Committed,
    Contact,
    Effect,
    Event,
    Fatal,
    InstallSnapshot,
    LeaderChanged,
    LogRange,
    LogSynced,
    LostLeadership,
    PeerUnreachable,
    PersistQuorumState,
    Propose,
    QuorumStatePersisted,
    RemoveVoter,
    Resign,
    SendMessage,
    SnapshotCreated,
    SnapshotInstalled,
    SnapshotRange,
    Sync,
    Tick,
    TruncateLog,
    VoterChangeEnded,
    WriteSnapshotChunk,
)
from odradek.raft.log_index import SnapshotId
from odradek.raft.messages import FetchResponse, FetchSnapshotResponse, Message
from odradek.raft.metadata_log import CorruptMetadata, MetadataLog
from odradek.raft.quorum_state import NO_LEADER
from odradek.raft.snapshots import SnapshotContent
from odradek.raft.voters import ReplicaKey, VoterSet
from odradek.wire.errors import ErrorCode, KafkaError


class CommittedBatch(NamedTuple):
    """Records of the application with consecutive offsets from `base_offset`, written in `epoch`."""

    base_offset: int
    epoch: int
    records: Sequence[bytes]


class NotLeader(Exception):  # noqa: N818 - Kafka's word
    """This replica does not lead, or not any more; `leader_id` is who does, -1 if nobody is known to."""

    def __init__(self, leader_id: int) -> None:
        super().__init__(f"not the leader of the metadata quorum; that is {leader_id}")
        self.leader_id = leader_id


class RaftListener(Protocol):
    """The application. An exception out of a callback stops the driver: state machines must not diverge."""

    def on_commit(self, batches: list[CommittedBatch]) -> None:
        """The next committed records, in order; never the same twice."""

    def on_snapshot(self, end_offset: int, epoch: int, records: Sequence[bytes]) -> None:
        """Forget everything: this is the state below `end_offset`; what follows comes by `on_commit`."""

    def on_leader(self, epoch: int) -> None:
        """This replica leads, and everything committed before its epoch has been handed over."""

    def on_resign(self, epoch: int) -> None:
        """It leads no more; what it appended and has not seen committed may be lost or not."""

    def on_leader_change(self, leader_id: int, epoch: int) -> None:
        """Who leads now, -1 while nobody is known to."""

    def on_fatal(self, reason: str) -> None:
        """The log failed, or a promise would be broken. The process must stop; no callback follows."""


class Transport(Protocol):
    """Takes messages to peers, by `to.id`. May drop, delay and reorder; must not call back at once."""

    def send(self, to: ReplicaKey, message: Message) -> None: ...


class ReplicaStatus(NamedTuple):
    """One line of DescribeQuorum (KIP-595, 836). Times are wall-clock ms, -1 if not known."""

    key: ReplicaKey
    log_end_offset: int
    last_fetch_ms: int
    last_caught_up_ms: int


class QuorumStatus(NamedTuple):
    leader_id: int
    epoch: int
    high_watermark: int
    voters: tuple[ReplicaStatus, ...]
    observers: tuple[ReplicaStatus, ...]


VoterChangeDone = Callable[[ErrorCode, str], object]
_LOST = VoterChangeEnded(ErrorCode.NOT_LEADER_OR_FOLLOWER, "this replica stops; the outcome is not known")


class RaftDriver:
    """Create, `start`, then `append` while `is_leader`. `receive` takes what peers send."""

    def __init__(
        self,
        disk: Disk,
        metadata_dir: str,
        syncer: Syncer,
        clock: Clock,
        timers: TimerQueue,
        rng: Random,
        me: ReplicaKey,
        voters: VoterSet,
        listener: RaftListener,
        *,
        config: RaftConfig | None = None,
        transport: Transport | None = None,
    ) -> None:
        """`voters`: the static or first voters; a voters record in the log overrules them.

        `metadata_dir` exists and is locked by the caller; the log is its subdirectory `__cluster_metadata-0`.
        """
        self._disk = disk
        self._metadata_dir = metadata_dir
        self._syncer = syncer
        self._clock = clock
        self._timers = timers
        self._rng = rng
        self._me = me
        self._bootstrap = voters
        self._listener = listener
        self._config = config or RaftConfig()
        self._transport = transport
        self._core: RaftCore | None = None
        self._log: MetadataLog | None = None
        self._timer: Timer | None = None
        self._events: deque[Event] = deque()
        self._stepping = False
        self._stopped = False
        self._persisted_sequence = 0
        self._held: list[SendMessage] = []
        """Messages that wait for the vote file."""
        self._snapshot_under_way = False
        self.on_voters: Callable[[VoterSet], object] = lambda _voters: None
        """Told of the voter set in force, committed or not, at the start and whenever it changes."""
        self._told_voters: VoterSet | None = None
        self._asked_changes: deque[VoterChangeDone] = deque()
        """Of the voter changes among the events, in their order."""
        self._asked_change: VoterChangeDone | None = None
        """Of the one that is being decided."""
        self._begun_change: VoterChangeDone | None = None
        """Of the one that waits for its commit: there is one at most (R8)."""
        self._ended_changes: deque[tuple[VoterChangeDone, VoterChangeEnded]] = deque()
        # What the application has yet to be told, in this order of precedence:
        self._delivering = False
        self._resigned_epoch = -1
        self._loaded: tuple[SnapshotId, SnapshotContent] | None = None
        self._leader_change: LeaderChanged | None = None
        self._elected: BecameLeader | None = None
        self._applied = 0
        self._leading_epoch = -1

    # ---- for the application

    def start(self, now_ms: int) -> None:
        """Recover the log, load the newest snapshot, take up the stored state. CorruptMetadata, OSError.

        A quorum of one is elected by what this sets in motion: one write of the vote file, then one fsync
        of the log.
        """
        log = MetadataLog.open(
            self._disk, self._metadata_dir, self._bootstrap, self._clock.wall_ms(), self._syncer
        )
        self._check_identity(log)
        self._log = log
        self._core = RaftCore(self._config, self._me, log.voters, log.stored, log.index, self._rng)
        self._applied = log.index.start.offset
        self._loaded = log.take_newest_snapshot()
        self._stepping = True
        self._execute(self._core.start(now_ms))
        self._stepping = False
        self._drain()

    def _check_identity(self, log: MetadataLog) -> None:
        current = log.voters.current
        if self._bootstrap.is_only(self._me) and len(current) == 1 and not current.contains(self._me):
            raise CorruptMetadata(
                f"the metadata log in {self._metadata_dir} belongs to voter {current.voters[0].key.id} with another "
                f"directory id: restore meta.properties, or remove the data directory to begin anew"
            )
        if not log.has_quorum_state and not log.is_empty and len(current) > 1:
            raise CorruptMetadata(
                f"quorum-state is missing in {self._metadata_dir} although its log is not empty; what this node voted "
                f"is not known: remove the directory so that the node joins the quorum anew as another voter"
            )

    @property
    def is_leader(self) -> bool:
        """From `on_leader` on until leadership is lost."""
        return self._leading_epoch >= 0 and self._core is not None and self._core.is_leader

    @property
    def epoch(self) -> int:
        return self._core.epoch if self._core is not None else 0

    @property
    def leader_id(self) -> int:
        return self._core.known_leader if self._core is not None else NO_LEADER

    @property
    def high_watermark(self) -> int:
        """Everything below is committed."""
        return self._core.high_watermark if self._core is not None else 0

    @property
    def end_offset(self) -> int:
        return self._core.log.end_offset if self._core is not None else 0

    @property
    def applied_offset(self) -> int:
        """Everything below has been handed to the application."""
        return self._applied

    @property
    def latest_snapshot(self) -> SnapshotId | None:
        return self._core.log.latest_snapshot if self._core is not None else None

    def append(self, records: Sequence[bytes]) -> int:
        """Append as one batch, which becomes committed as a whole or not at all; the offset of its last
        record.

        NotLeader; ValueError for an empty or too large batch (`RaftConfig.append_max_records`, 8 MiB).
        """
        core = self._core
        if core is None or not self.is_leader or self._stopped:
            raise NotLeader(self.leader_id)
        if not 0 < len(records) <= self._config.append_max_records:
            raise ValueError(
                f"a batch has 1 to {self._config.append_max_records} records, not {len(records)}"
            )
        if (size := sum(map(len, records)) + 24 * len(records)) > BATCH_BYTES_MAX:
            raise ValueError(f"a batch has at most {BATCH_BYTES_MAX} bytes, not {size}")
        last_offset = core.log.end_offset + len(records) - 1
        self._post(Propose(len(records), list(records)))
        if self._stopped:
            raise NotLeader(NO_LEADER)
        return last_offset

    def create_snapshot(self, end_offset: int, epoch: int, records: Sequence[bytes]) -> bool:
        """Write the state below `end_offset` (applied, at the end of a batch of `epoch`) in the background.

        False if one is being written or the newest is as new. ValueError if the position is none of this log.
        """
        core, log = self._core, self._log
        if core is None or log is None or self._stopped or self._snapshot_under_way:
            return False
        newest = core.log.latest_snapshot
        if end_offset <= (core.log.start.offset if newest is None else newest.offset):
            return False
        if end_offset > self._applied:
            raise ValueError(f"a snapshot must end at {self._applied} at the latest, not at {end_offset}")
        if core.log.epoch_below(end_offset) != epoch or not log.is_batch_end(end_offset):
            raise ValueError(f"no batch of epoch {epoch} ends at {end_offset}")
        snapshot = SnapshotId(end_offset, epoch)
        self._snapshot_under_way = True
        work = partial(
            log.write_snapshot, snapshot, core.voters.at(end_offset), records, self._clock.wall_ms()
        )
        self._syncer.run(work, partial(self._snapshot_written, snapshot))
        return True

    def _snapshot_written(self, snapshot: SnapshotId, error: OSError | None) -> None:
        self._snapshot_under_way = False
        if error is not None:
            self._fail(f"snapshot {snapshot.file_name}: {error}")
        else:
            self._post(SnapshotCreated(snapshot))

    def receive(self, message: Message) -> None:
        """A message of a peer. Batches in it must have been checked by `control_records.decode_batches`."""
        self._post(message)

    def peer_unreachable(self, node_id: int) -> None:
        """The connection to a peer was refused: its process is gone. May be told often."""
        self._post(PeerUnreachable(node_id))

    def resign(self) -> None:
        """Give up leadership, so that another voter takes over at once."""
        self._post(Resign())

    def contact(self, node_id: int) -> None:
        """A node that may know who leads, and that the transport can reach."""
        self._post(Contact(node_id))

    @property
    def voters(self) -> VoterSet:
        """In force, committed or not."""
        return self._core.voters.current if self._core is not None else self._bootstrap

    @property
    def leader_heard_ms(self) -> int:
        """When a leader last answered this replica, monotonic; -1: never."""
        return self._core.leader_heard_ms if self._core is not None else -1

    @property
    def me(self) -> ReplicaKey:
        return self._me

    def change_voters(self, change: AddVoter | RemoveVoter, done: VoterChangeDone) -> None:
        """Leader only (KIP-853). `done(NONE, "")` when the change is committed, else the refusal in Kafka's words;
        NOT_LEADER_OR_FOLLOWER: ask the next leader, nobody knows whether it was carried out. At once or later.
        """
        if self._core is None or self._stopped:
            done(_LOST.error, _LOST.reason)
            return
        self._asked_changes.append(done)
        self._post(change)

    def describe_quorum(self) -> QuorumStatus:
        """As the leader sees it; others know no replica but themselves."""
        core = self._core
        assert core is not None, "start first"
        ages = self._clock.wall_ms() - self._clock.monotonic_ms()
        voters = core.voters.current
        progress = core.leader.progress if core.leader is not None else {}
        statuses = {
            key: ReplicaStatus(
                key, p.end_offset, _wall(p.last_fetch_ms, ages), _wall(p.last_caught_up_ms, ages)
            )
            for key, p in progress.items()
        }
        me, now_ms = voters.canonical(self._me), self._clock.wall_ms()
        statuses[me] = ReplicaStatus(me, core.log.end_offset, now_ms, now_ms)
        return QuorumStatus(
            self.leader_id,
            self.epoch,
            self.high_watermark,
            tuple(statuses.get(v.key, ReplicaStatus(v.key, -1, -1, -1)) for v in voters.voters),
            tuple(status for key, status in statuses.items() if not voters.contains(key)),
        )

    def close(self) -> None:
        """Stop: hand leadership on if there are others, flush, close the files. No callback follows."""
        if (
            self._core is not None
            and not self._stopped
            and self._core.is_leader
            and not self._core.is_only_voter
        ):
            self.resign()
        self._stop()
        self._tell_outside()
        if self._log is not None:
            self._log.close()

    # ---- stepping

    def _post(self, event: Event) -> None:
        """Events that arise while effects are executed wait for their turn."""
        self._events.append(event)
        if not self._stepping:
            self._drain()

    def _drain(self) -> None:
        core = self._core
        assert core is not None
        self._stepping = True
        try:
            while self._events and not self._stopped:
                event = self._events.popleft()
                if isinstance(event, AddVoter | RemoveVoter):
                    self._asked_change = self._asked_changes.popleft()
                self._execute(core.step(event, self._clock.monotonic_ms()))
                if self._asked_change is not None:  # not refused
                    self._begun_change, self._asked_change = self._asked_change, None
        except Exception as error:
            self._fail(f"our mistake: {error!r}")
            raise
        finally:
            self._stepping = False
        self._arm_timer()
        self._deliver()
        self._tell_outside()

    def _execute(self, effects: Iterable[Effect]) -> None:
        core, log = self._core, self._log
        assert core is not None and log is not None
        try:
            for effect in effects:
                self._apply(effect, log)
        except (OSError, KafkaError, CorruptMetadata) as error:
            self._fail(str(error) or repr(error))
            return
        assert self._stopped or log.end_offset == core.log.end_offset, "the core's index and the log disagree"

    def _arm_timer(self) -> None:
        deadline_ms = self._core.next_deadline_ms() if self._core is not None and not self._stopped else None
        timer = self._timer
        if timer is not None and timer.active and timer.deadline_ms == deadline_ms:
            return
        if timer is not None:
            timer.cancel()
        self._timer = None if deadline_ms is None else self._timers.at(deadline_ms, self._on_timer)

    def _on_timer(self, _now_ms: int) -> None:
        self._post(Tick())

    def _fail(self, reason: str) -> None:
        if not self._stopped:
            self._stop()
            self._listener.on_fatal(reason)

    def _stop(self) -> None:
        self._stopped, self._leading_epoch = True, -1
        self._events.clear()
        self._held.clear()
        lost = [*self._asked_changes, self._asked_change, self._begun_change]
        self._ended_changes += [(done, _LOST) for done in lost if done is not None]
        self._asked_changes.clear()
        self._asked_change = self._begun_change = None
        if self._timer is not None:
            self._timer.cancel()

    # ---- effects

    def _apply(self, effect: Effect, log: MetadataLog) -> None:
        match effect:
            case AppendEntries(batches, as_leader=True):
                for batch in batches:
                    log.append_as_leader(batch, self._clock.wall_ms())
            case AppendEntries(batches):
                log.append_as_follower(batches, self._clock.wall_ms())
            case Sync(generation, end_offset):
                log.sync(self._syncer, partial(self._synced, LogSynced(generation, end_offset)))
            case SendMessage():
                self._send(effect, log)
            case PersistQuorumState(sequence, state):
                self._syncer.run(
                    partial(log.write_quorum_state, state), partial(self._quorum_state_written, sequence)
                )
            case TruncateLog(end_offset):
                log.truncate_to(end_offset)
            case WriteSnapshotChunk(snapshot, position, data):
                log.write_chunk(snapshot, position, data)
            case InstallSnapshot(snapshot):
                self._install(snapshot, log)
            case AdvanceLogStart(start, obsolete):
                log.advance_start(start, obsolete, self._clock.wall_ms())
            case BecameLeader():
                self._elected = effect
            case LostLeadership():
                self._elected = None
                self._resigned_epoch, self._leading_epoch = self._leading_epoch, -1
            case LeaderChanged():
                self._leader_change = effect
            case Fatal(reason):
                self._fail(reason)
            case VoterChangeEnded():
                self._voter_change_ended(effect)
            case Committed():
                pass  # the high watermark is looked at in `_deliver`

    def _voter_change_ended(self, ended: VoterChangeEnded) -> None:
        """A refusal comes with the step that was asked; any other end is that of the change begun before."""
        done = self._asked_change
        if done is not None:
            self._asked_change = None
        else:
            done, self._begun_change = self._begun_change, None
        if done is not None:
            self._ended_changes.append((done, ended))

    def _quorum_state_written(self, sequence: int, error: OSError | None) -> None:
        if error is not None:
            self._fail(f"quorum-state: {error}")
            return
        self._persisted_sequence = sequence
        ready = [send for send in self._held if send.after <= sequence]
        self._held = [send for send in self._held if send.after > sequence]
        for send in ready:
            self._hand_over(send)
        self._post(QuorumStatePersisted(sequence))

    def _synced(self, event: LogSynced, error: OSError | None) -> None:
        if error is not None:
            self._fail(f"fsync of the metadata log: {error}")
        else:
            self._post(event)

    def _install(self, snapshot: SnapshotId, log: MetadataLog) -> None:
        work = log.finish_download(snapshot)
        content: list[SnapshotContent | None] = []
        self._syncer.run(
            lambda: content.append(work()), lambda error: self._installed(snapshot, content, error)
        )

    def _installed(
        self, snapshot: SnapshotId, content: list[SnapshotContent | None], error: OSError | None
    ) -> None:
        log = self._log
        assert log is not None
        if error is not None:
            self._fail(f"snapshot {snapshot.file_name}: {error}")
        elif self._stopped:
            return
        elif content[0] is None:
            self._post(SnapshotInstalled(snapshot, ok=False))
        else:
            try:
                log.restart_at(snapshot, self._clock.wall_ms())
            except (OSError, KafkaError) as failure:
                self._fail(f"snapshot {snapshot.file_name}: {failure}")
                return
            self._loaded = snapshot, content[0]
            self._post(SnapshotInstalled(snapshot, True, content[0].voters))

    def _send(self, send: SendMessage, log: MetadataLog) -> None:
        message = send.message
        if isinstance(send.read, LogRange):
            assert isinstance(message, FetchResponse)
            message = replace(message, batches=log.read_range(send.read))
        elif isinstance(send.read, SnapshotRange):
            assert isinstance(message, FetchSnapshotResponse)
            size, data = log.read_chunk(send.read)
            error = ErrorCode.NONE if data else ErrorCode.POSITION_OUT_OF_RANGE
            message = replace(message, size=size, data=data, error=error)
        filled = send._replace(message=message, read=None)
        if send.after > self._persisted_sequence:
            self._held.append(filled)
        else:
            self._hand_over(filled)

    def _hand_over(self, send: SendMessage) -> None:
        if self._transport is not None and not self._stopped:
            self._transport.send(send.to, send.message)

    def _tell_outside(self) -> None:
        """Who votes now, and what became of changes to that. Either may call back."""
        if not self._stopped and self.voters is not self._told_voters:
            self._told_voters = self.voters
            self.on_voters(self.voters)
        while self._ended_changes:
            done, ended = self._ended_changes.popleft()
            done(ended.error, ended.reason)

    # ---- telling the application

    def _deliver(self) -> None:
        if self._delivering:
            return
        self._delivering = True
        try:
            while not self._stopped and self._deliver_next():
                pass
        except Exception as error:  # noqa: BLE001 - whatever it is: this state machine has left the others
            self._fail(f"applying the metadata log at offset {self._applied}: {error!r}")
        finally:
            self._delivering = False

    def _deliver_next(self) -> bool:
        """Tell one thing; whether there was one."""
        listener, core = self._listener, self._core
        assert core is not None
        if self._resigned_epoch >= 0:
            epoch, self._resigned_epoch = self._resigned_epoch, -1
            listener.on_resign(epoch)
        elif self._loaded is not None:
            (snapshot, content), self._loaded = self._loaded, None
            self._applied = snapshot.offset
            listener.on_snapshot(snapshot.offset, snapshot.epoch, content.records)
        elif self._leader_change is not None:
            change, self._leader_change = self._leader_change, None
            listener.on_leader_change(change.leader_id, change.epoch)
        elif self._applied < core.high_watermark:
            self._deliver_committed(core.high_watermark)
        elif self._elected is not None and self._applied > self._elected.epoch_start_offset:
            self._leading_epoch, self._elected = self._elected.epoch, None
            listener.on_leader(self._leading_epoch)
        else:
            return False
        return True

    def _deliver_committed(self, high_watermark: int) -> None:
        assert self._log is not None
        found, self._applied = self._log.read_committed(self._applied, high_watermark)
        if found:
            self._listener.on_commit([CommittedBatch(*batch) for batch in found])


def _wall(monotonic_ms: int, wall_minus_monotonic_ms: int) -> int:
    return -1 if monotonic_ms < 0 else monotonic_ms + wall_minus_monotonic_ms
