"""The half of the core that moves the log: fsync, commit, fetches served and sent, snapshots, voter
changes.

It changes neither state nor epoch: where the protocol asks for that, it calls the hooks at the end of the
class, which `core.py` implements.
"""

from __future__ import annotations

from typing import TypeVar

from odradek.raft.config import RaftConfig
from odradek.raft.effects import (
    AddVoter,
    AdvanceLogStart,
    AppendEntries,
    Committed,
    Effect,
    InstallSnapshot,
    LogRange,
    LogSynced,
    PersistQuorumState,
    Propose,
    RemoveVoter,
    SendMessage,
    SnapshotCreated,
    SnapshotInstalled,
    SnapshotRange,
    Sync,
    TruncateLog,
    VoterChangeEnded,
    WriteSnapshotChunk,
)
from odradek.raft.fetcher import Download, Fetcher
from odradek.raft.leader_state import LeaderState, ReplicaProgress
from odradek.raft.log_index import LogIndex, OffsetAndEpoch, SnapshotId
from odradek.raft.messages import (
    Batch,
    ControlKind,
    FetchRequest,
    FetchResponse,
    FetchSnapshotRequest,
    FetchSnapshotResponse,
    Message,
    Response,
)
from odradek.raft.quorum_state import QuorumState
from odradek.raft.voters import ReplicaKey, VoterHistory, VoterSet
from odradek.wire.errors import ErrorCode

AnyResponse = TypeVar("AnyResponse", bound=Response)


class LogCore:
    """Shared state of the replica, and everything that is about its log rather than about who leads."""

    def __init__(
        self,
        config: RaftConfig,
        me: ReplicaKey,
        voters: VoterHistory,
        stored: QuorumState,
        log: LogIndex,
        first_request_id: int,
    ) -> None:
        self.config = config
        self.me = me
        self.voters = voters
        self.log = log
        self.epoch = stored.epoch
        self.leader_id = stored.leader_id
        self.voted = stored.voted
        snapshot = log.latest_snapshot
        self.high_watermark = snapshot.offset if snapshot else log.start.offset
        """Exclusive; never falls while the process lives. A snapshot holds only what is committed."""
        self.leader: LeaderState | None = None
        """Set exactly while this replica leads."""
        self._fetcher = Fetcher(config.request_timeout_ms, config.retry_backoff_ms)
        self._stored = stored
        self._unwritten: QuorumState | None = None
        self._persist_sequence = 0
        self._binding_sequence = 0
        """The last vote-file write that changed epoch or vote: messages leave after it."""
        self._persisted_sequence = 0
        self._sync_under_way = False
        self._voter_change_offset = -1
        """Of the uncommitted voters record of an `AddVoter` or `RemoveVoter` of this leader, or -1."""
        self._next_request_id = first_request_id
        """Of a range of its own for each life of the process: an answer to the life before must not be
        taken for one to this life. It may tell to truncate what has been agreed on since.
        """
        self._out: list[Effect] = []

    @property
    def is_leader(self) -> bool:
        return self.leader is not None

    @property
    def is_voter(self) -> bool:
        return self.voters.current.contains(self.me)

    @property
    def is_only_voter(self) -> bool:
        return self.voters.current.is_only(self.me)

    @property
    def may_stand(self) -> bool:
        """Whether an election may be held here: as a voter, or as one that is being voted out.

        Until the record that removes it is committed, a removed voter may be the only one whose log is
        complete enough to be elected (Raft dissertation 4.2.2). It does not count itself.
        """
        if self.is_voter:
            return True
        return self.voters.last_offset >= self.high_watermark and self.voters.previous.contains(self.me)

    # ---- vote file and messages

    def _persist(self, state: QuorumState) -> None:
        """Note what must be durable; written once per step, before the first message that depends on it."""
        self._unwritten = state

    def _write_quorum_state(self) -> None:
        state, self._unwritten = self._unwritten, None
        if state is None or state == self._stored:
            return
        self._persist_sequence += 1
        if (state.epoch, state.voted) != (self._stored.epoch, self._stored.voted):
            self._binding_sequence = self._persist_sequence
        self._stored = state
        self._out.append(PersistQuorumState(self._persist_sequence, state))

    @property
    def _vote_is_durable(self) -> bool:
        return self._persisted_sequence >= self._binding_sequence

    def _send(self, to: ReplicaKey, message: Message, read: LogRange | SnapshotRange | None = None) -> None:
        """Nothing leaves before the epoch and the vote that it was said under are durable."""
        self._write_quorum_state()
        after = 0 if self._vote_is_durable else self._binding_sequence
        self._out.append(SendMessage(to, message, after, read))

    def _reply(
        self, request: Message, kind: type[AnyResponse], error: ErrorCode = ErrorCode.NONE, **fields: object
    ) -> None:
        self._send(request.sender, self._response(request, kind, error, **fields))

    def _response(
        self, request: Message, kind: type[AnyResponse], error: ErrorCode, **fields: object
    ) -> AnyResponse:
        leader_id = self.known_leader
        return kind(self.me, self.epoch, request.request_id, leader_id, error, **fields)

    def _request_id(self) -> int:
        self._next_request_id += 1
        return self._next_request_id

    def _others(self, voters: VoterSet) -> list[ReplicaKey]:
        return [voter.key for voter in voters.voters if not voter.is_same_as(self.me)]

    # ---- append, fsync, commit

    def _on_propose(self, event: Propose, _now_ms: int) -> None:
        assert self.leader is not None, "only a leader appends"
        self._append_own(Batch(self.log.end_offset, event.count, self.epoch, event.data))

    def _append_own(self, batch: Batch) -> None:
        self._index(batch)
        self._out.append(AppendEntries((batch,), as_leader=True))
        self._answer_parked()

    def _index(self, batch: Batch) -> None:
        self.log.append(batch.base_offset, batch.count, batch.epoch)
        if batch.voters is not None:
            self.voters.append(batch.end_offset - 1, batch.voters)

    def _maybe_sync(self) -> None:
        """One fsync at a time; what is appended meanwhile shares the next one."""
        if self.is_only_voter and self.leader is None:
            return  # about to lead: the fsync of its first entry covers the recovered log as well
        if not self.log.is_synced and not self._sync_under_way:
            self._sync_under_way = True
            self._out.append(Sync(self.log.generation, self.log.end_offset))

    def _on_synced(self, event: LogSynced, now_ms: int) -> None:
        """An fsync asked for before a truncation proves nothing of what was written since: see
        `generation`.
        """
        self._sync_under_way = False
        if self.log.mark_synced(event.generation, event.end_offset) and self.leader is not None:
            self._update_high_watermark(now_ms)

    def _update_high_watermark(self, now_ms: int) -> None:
        leader = self.leader
        assert leader is not None
        end = leader.majority_end(self.voters.current, self.log.synced_end)
        if not leader.may_commit(end):
            return
        leader.established = True
        if self._raise_high_watermark(end):
            self._answer_parked()
            self._end_voter_change(now_ms)

    def _raise_high_watermark(self, end_offset: int) -> bool:
        if end_offset <= self.high_watermark:
            return False
        assert end_offset <= self.log.end_offset
        self.high_watermark = end_offset
        self._out.append(Committed(end_offset))
        return True

    # ---- serving fetches

    def _refusal(self, request: Message) -> ErrorCode:
        """Why a request that only the leader of exactly its epoch may answer is not answered; NONE if it
        is.
        """
        if request.epoch < self.epoch:
            return ErrorCode.FENCED_LEADER_EPOCH
        if request.epoch > self.epoch:
            return ErrorCode.UNKNOWN_LEADER_EPOCH
        return ErrorCode.NONE if self.leader is not None else ErrorCode.NOT_LEADER_OR_FOLLOWER

    def _on_fetch_request(self, request: FetchRequest, now_ms: int) -> None:
        """A position is counted only if this log agrees with it; divergence neither sends data nor moves
        it.
        """
        if (error := self._refusal(request)) is not ErrorCode.NONE:
            self._reply(request, FetchResponse, error)
            return
        progress = self._contact(request, now_ms)
        where = self.log.check_position(request.fetch_offset, request.last_fetched_epoch)
        if isinstance(where, SnapshotId):
            self._reply(request, FetchResponse, snapshot=where)
        elif where is not None:
            self._reply(request, FetchResponse, diverging=where)
        else:
            self._serve(progress, request, now_ms)

    def _contact(self, request: Message, now_ms: int) -> ReplicaProgress:
        leader, voters = self.leader, self.voters.current
        assert leader is not None
        key = voters.canonical(request.sender)
        if key not in leader.progress:
            leader.forget_silent_observers(voters, now_ms)
        return leader.record_contact(key, now_ms)

    def _serve(self, progress: ReplicaProgress, request: FetchRequest, now_ms: int) -> None:
        """Answer at once if there is anything the follower does not have or know, else hold the request."""
        assert self.leader is not None
        self.leader.record_position(progress, request.fetch_offset, self.log.end_offset, now_ms)
        progress.parked = request
        progress.parked_until_ms = now_ms + self.config.fetch_max_wait_ms
        self._update_high_watermark(now_ms)
        if progress.parked is request and self._has_news_for(request):
            self._answer(progress)

    def _has_news_for(self, request: FetchRequest) -> bool:
        return (
            self.log.end_offset > request.fetch_offset or self._told_high_watermark > request.high_watermark
        )

    @property
    def _told_high_watermark(self) -> int:
        leader = self.leader
        return self.high_watermark if leader is not None and leader.established else -1

    def _answer(self, progress: ReplicaProgress) -> None:
        request, progress.parked = progress.parked, None
        assert request is not None
        offset, end = request.fetch_offset, self.log.end_offset
        response = self._response(
            request, FetchResponse, ErrorCode.NONE, high_watermark=self._told_high_watermark
        )
        read = LogRange(offset, end, self.config.fetch_max_bytes) if end > offset else None
        self._send(request.sender, response, read)

    def _answer_parked(self) -> None:
        if self.leader is None:
            return
        for progress in self.leader.progress.values():
            if progress.parked is not None and self._has_news_for(progress.parked):
                self._answer(progress)

    # ---- sending fetches

    def _may_fetch(self) -> bool:
        """A fetch acknowledges everything below it, so it waits until that is fsynced."""
        fetcher = self._fetcher
        return not fetcher.is_waiting and not fetcher.is_installing and self.log.is_synced

    def _fetch_deadline_ms(self) -> int | None:
        return self._fetcher.deadline_ms() if self._fetcher.is_waiting or self._may_fetch() else None

    def _maybe_fetch(self, now_ms: int) -> None:
        if self.leader is not None or not self._may_fetch() or now_ms < self._fetcher.retry_at_ms:
            return
        source = self._fetch_source(now_ms)
        if source is None:  # until a `Contact` or the log names somebody
            self._fetcher.retry_at_ms = now_ms + self.config.request_timeout_ms
            return
        request_id = self._request_id()
        self._fetcher.sent(request_id, now_ms)
        download = self._fetcher.download
        message: Message
        if download is not None:
            message = FetchSnapshotRequest(
                self.me, self.epoch, request_id, download.snapshot, download.position
            )
        else:
            end, hw = self.log.end_offset, self.high_watermark
            message = FetchRequest(self.me, self.epoch, request_id, end, self.log.last_epoch, hw)
        self._send(source, message)

    def _take_answer(self, response: Response, now_ms: int) -> bool:
        """Whether this is the awaited answer of the leader that is followed. Its epoch is looked at in any
        case.
        """
        awaited = self._fetcher.answered(response.request_id)
        if awaited:
            self._fetcher.back_off(now_ms)  # unless it turns out well
        self._learn(response.epoch, response.leader_id, now_ms)
        if not awaited or not self._follows(response) or response.error is not ErrorCode.NONE:
            return False
        self._heard_from_leader(now_ms)
        self._fetcher.retry_at_ms = now_ms
        return True

    def _on_fetch_response(self, response: FetchResponse, now_ms: int) -> None:
        if not self._take_answer(response, now_ms):
            return
        if response.diverging is not None:
            self._truncate(response.diverging)
        elif response.snapshot is not None:
            self._begin_download(response.snapshot)
        elif self._accepts(response.batches):
            for batch in response.batches:
                self._index(batch)
            if response.batches:
                self._out.append(AppendEntries(response.batches, as_leader=False))
            self._raise_high_watermark(min(response.high_watermark, self.log.end_offset))
        else:
            self._fetcher.back_off(now_ms)

    def _accepts(self, batches: tuple[Batch, ...]) -> bool:
        """The peer's mistake, not ours, if batches do not follow on: they are refused whole."""
        end, epoch = self.log.end_offset, self.log.last_epoch
        for batch in batches:
            if batch.base_offset != end or batch.count < 1 or not epoch <= batch.epoch <= self.epoch:
                return False
            end, epoch = batch.end_offset, batch.epoch
        return True

    def _truncate(self, diverging: OffsetAndEpoch) -> None:
        """Cut to the last point both logs can share; never below what is committed (R6)."""
        mine = self.log.end_offset_for_epoch(diverging.epoch)
        target = min(mine.offset, diverging.offset) if mine.epoch == diverging.epoch else mine.offset
        if target < self.high_watermark or target >= self.log.end_offset:
            self._fail(
                f"the leader of epoch {self.epoch} asks to truncate {self.log.end_offset} to {target} "
                f"({diverging}), the high watermark is {self.high_watermark}"
            )
            return
        self.log.truncate_to(target)
        self.voters.truncate_to(target)
        self._out.append(TruncateLog(target))

    # ---- snapshots

    def _begin_download(self, snapshot: SnapshotId) -> None:
        if snapshot.offset < self.high_watermark:
            self._fail(f"told to load snapshot {snapshot}, but {self.high_watermark} is committed here")
        else:
            self._fetcher.download = Download(snapshot)

    def _on_snapshot_request(self, request: FetchSnapshotRequest, now_ms: int) -> None:
        error = self._refusal(request)
        if error is ErrorCode.NONE:
            self._contact(request, now_ms)
            if request.snapshot not in self.log.snapshots:
                error = ErrorCode.SNAPSHOT_NOT_FOUND
        response = self._response(
            request, FetchSnapshotResponse, error, snapshot=request.snapshot, position=request.position
        )
        read = SnapshotRange(request.snapshot, request.position, self.config.snapshot_chunk_bytes)
        self._send(request.sender, response, read if error is ErrorCode.NONE else None)

    def _on_snapshot_response(self, response: FetchSnapshotResponse, now_ms: int) -> None:
        download = self._fetcher.download
        if not self._take_answer(response, now_ms):
            gone = response.error in (ErrorCode.SNAPSHOT_NOT_FOUND, ErrorCode.POSITION_OUT_OF_RANGE)
            if gone and download is not None and not download.installing:
                self._fetcher.download = None  # the next fetch names a newer one
            return
        if (
            download is None
            or (response.snapshot, response.position) != (download.snapshot, download.position)
            or not response.data
        ):
            self._fetcher.back_off(now_ms)
            return
        self._out.append(WriteSnapshotChunk(download.snapshot, download.position, response.data))
        download.position += len(response.data)
        if download.position >= response.size:
            download.installing = True
            self._out.append(InstallSnapshot(download.snapshot))

    def _on_snapshot_installed(self, event: SnapshotInstalled, now_ms: int) -> None:
        self._fetcher.download = None
        self._fetcher.back_off(now_ms)
        if event.ok:
            self.log.restart_at(event.snapshot)
            self.voters.restart_at(event.snapshot.offset, event.voters)
            self.high_watermark = max(self.high_watermark, event.snapshot.offset)

    def _on_snapshot_created(self, event: SnapshotCreated, _now_ms: int) -> None:
        """Keep the newest few; the log starts at the oldest kept, never above the newest durable one (R7)."""
        snapshot, log = event.snapshot, self.log
        assert snapshot.offset <= self.high_watermark, f"snapshot {snapshot} of what is not committed"
        if log.latest_snapshot is not None and snapshot.offset <= log.latest_snapshot.offset:
            return
        log.snapshots.append(snapshot)
        obsolete = tuple(log.snapshots[: -self.config.snapshots_retained])
        del log.snapshots[: len(obsolete)]
        start = log.snapshots[0]
        if start.offset > log.start.offset and (obsolete or self.config.snapshots_retained == 1):
            log.advance_start(start)
            self.voters.trim(start.offset)
            self._out.append(AdvanceLogStart(start, obsolete))

    # ---- voter changes

    def _on_voter_change(self, event: AddVoter | RemoveVoter, now_ms: int) -> None:
        """Append the voter set that differs by one, if nothing stands against it (KIP-853)."""
        refusal = self._voter_change_refusal(event, now_ms)
        if refusal is not None:
            self._out.append(refusal)
            return
        current = self.voters.current
        changed = (
            current.with_voter(event.voter) if isinstance(event, AddVoter) else current.without(event.key)
        )
        assert current.changes_to(changed) == 1
        self._voter_change_offset = self.log.end_offset
        self._append_own(Batch(self.log.end_offset, 1, self.epoch, None, ControlKind.VOTERS, changed))

    def _voter_change_refusal(self, event: AddVoter | RemoveVoter, now_ms: int) -> VoterChangeEnded | None:
        """Why the change cannot begin, in Kafka's words; None if it can."""
        leader, voters = self.leader, self.voters.current
        if leader is None:
            return VoterChangeEnded(ErrorCode.NOT_LEADER_OR_FOLLOWER, "this replica does not lead the quorum")
        if not leader.established:
            why = "Request timed out waiting for leader to establish HWM and fence previous voter changes"
            return VoterChangeEnded(ErrorCode.REQUEST_TIMED_OUT, why)
        if not voters.has_all_directories:
            doing = "adding" if isinstance(event, AddVoter) else "removing"
            why = f"Cluster doesn't support {doing} voter because the kraft.version feature is 0"
            return VoterChangeEnded(ErrorCode.UNSUPPORTED_VERSION, why)
        if self.voters.last_offset >= self.high_watermark:
            why = (
                "Request timed out waiting for voters to commit the latest voter change at "
                f"{self.voters.last_offset} with HWM {self.high_watermark}"
            )
            return VoterChangeEnded(ErrorCode.REQUEST_TIMED_OUT, why)
        if isinstance(event, RemoveVoter):
            return self._removal_refusal(event.key)
        return self._addition_refusal(event.voter.key, now_ms)

    def _removal_refusal(self, key: ReplicaKey) -> VoterChangeEnded | None:
        voters = self.voters.current
        if voters.contains(key) and len(voters) > 1:
            return None
        why = f"Cannot remove voter {key!s} from the set of voters {voters}"
        return VoterChangeEnded(ErrorCode.VOTER_NOT_FOUND, why)

    def _addition_refusal(self, key: ReplicaKey, now_ms: int) -> VoterChangeEnded | None:
        voters = self.voters.current
        if key.id in voters.ids:
            why = f"The voter id for {key!s} is already part of the set of voters {voters}."
            return VoterChangeEnded(ErrorCode.DUPLICATE_VOTER, why)
        if not self._is_caught_up(key, now_ms):
            why = f"Aborted add voter operation for {key!s} since it is lagging behind"
            return VoterChangeEnded(ErrorCode.REQUEST_TIMED_OUT, why)
        return None

    def _is_caught_up(self, key: ReplicaKey, now_ms: int) -> bool:
        """It fetches, and had everything a moment ago: while the log grows, nobody has it all at all times."""
        progress = self.leader.progress.get(key) if self.leader is not None else None
        limit = now_ms - self.config.fetch_timeout_ms
        if progress is None or progress.last_fetch_ms < limit:
            return False
        return progress.end_offset >= self.high_watermark or progress.last_caught_up_ms >= limit

    def _end_voter_change(self, now_ms: int) -> None:
        if 0 <= self._voter_change_offset < self.high_watermark:
            self._voter_change_offset = -1
            self._out.append(VoterChangeEnded(ErrorCode.NONE))
        if not self.is_voter and self.voters.last_offset < self.high_watermark:
            self._resign(now_ms)

    # ---- what `core.py` decides

    @property
    def known_leader(self) -> int:
        raise NotImplementedError

    def _fetch_source(self, now_ms: int) -> ReplicaKey | None:
        raise NotImplementedError

    def _follows(self, response: Response) -> bool:
        raise NotImplementedError

    def _heard_from_leader(self, now_ms: int) -> None:
        raise NotImplementedError

    def _learn(self, epoch: int, leader_id: int, now_ms: int) -> None:
        raise NotImplementedError

    def _resign(self, now_ms: int) -> None:
        raise NotImplementedError

    def _fail(self, reason: str) -> None:
        raise NotImplementedError
