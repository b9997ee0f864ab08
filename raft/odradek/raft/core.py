"""The Raft core of the metadata log, sans-IO: one replica's state machine (KIP-595, 630, 853, 996; Raft
dissertation).

All state changes of the protocol are in this file. `step(event, now_ms)` takes a message, a completion or a
tick, and returns effects (`effects.py`) that the driver executes in order. Nothing here reads a clock, a
disk or a socket; the same events give the same effects. Times are monotonic milliseconds.

| state       | what it knows         | leaves for                                                           |
|-------------|-----------------------|----------------------------------------------------------------------|
| UNATTACHED  | an epoch, no leader   | FOLLOWER: a leader appears. PROSPECTIVE: a voter's election timeout  |
| PROSPECTIVE | perhaps a leader      | CANDIDATE: a majority pre-votes. FOLLOWER, UNATTACHED: it does not   |
| CANDIDATE   | it voted for itself   | LEADER: a majority votes. PROSPECTIVE: lost, timed out. FOLLOWER     |
| LEADER      | it leads the epoch    | RESIGNED: no majority fetches, asked to stop, or voted out           |
| FOLLOWER    | the leader            | PROSPECTIVE: a voter's fetch timeout                                 |
| RESIGNED    | it led the epoch      | UNATTACHED in the next epoch: the election timeout                   |
| every state |                       | UNATTACHED, FOLLOWER: a higher epoch. FAILED: a promise is broken    |

OBSERVER is not a state but a role: a replica outside the voter set is only ever UNATTACHED or FOLLOWER; it
fetches, and is not counted. A restarted leader starts RESIGNED; a restarted candidate starts UNATTACHED
with its vote given: neither may act in that epoch again, because what it appended there may be gone. A
quorum of one passes PROSPECTIVE and CANDIDATE at once, and leads as soon as its vote is durable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from odradek.raft.effects import (
    AddVoter,
    BecameLeader,
    Contact,
    Effect,
    Event,
    Fatal,
    LeaderChanged,
    LogSynced,
    LostLeadership,
    PeerUnreachable,
    Propose,
    QuorumStatePersisted,
    RemoveVoter,
    Resign,
    SnapshotCreated,
    SnapshotInstalled,
    Tick,
    VoterChangeEnded,
)
from odradek.raft.leader_state import LeaderState
from odradek.raft.log_core import LogCore
from odradek.raft.log_index import LogIndex, OffsetAndEpoch
from odradek.raft.messages import (
    Batch,
    BeginQuorumEpochRequest,
    BeginQuorumEpochResponse,
    ControlKind,
    EndQuorumEpochRequest,
    EndQuorumEpochResponse,
    FetchRequest,
    FetchResponse,
    FetchSnapshotRequest,
    FetchSnapshotResponse,
    LeaderChange,
    Message,
    Response,
    VoteRequest,
    VoteResponse,
)
from odradek.raft.quorum_state import NO_LEADER, QuorumState
from odradek.raft.voters import ReplicaKey, VoterHistory, VoterSet
from odradek.wire.errors import ErrorCode
from odradek.wire.uuid import ZERO_UUID

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from odradek.raft.config import RaftConfig


class State(Enum):
    UNATTACHED = "unattached"
    PROSPECTIVE = "prospective"
    CANDIDATE = "candidate"
    LEADER = "leader"
    FOLLOWER = "follower"
    RESIGNED = "resigned"
    FAILED = "failed"


CONTACTS_MAX = 32
"""Nodes remembered that may know who leads."""
TURN_FIRST_MS = 10
TURN_STEP_MS = 50
TURN_JITTER_MS = 20
"""When the leader is known to be gone, voters stand one after the other, in the order of their ids: the first after
10 ms, in which the others can hear of it too, the next 50 ms later. Standing in the same moment splits the vote.
"""
_ANY = frozenset({State.UNATTACHED, State.FOLLOWER, State.FAILED})
TRANSITIONS: dict[State, frozenset[State]] = {
    State.UNATTACHED: _ANY | {State.PROSPECTIVE},
    State.PROSPECTIVE: _ANY | {State.CANDIDATE},
    State.CANDIDATE: _ANY | {State.LEADER, State.PROSPECTIVE},
    State.LEADER: _ANY | {State.RESIGNED},
    State.FOLLOWER: _ANY | {State.PROSPECTIVE},
    State.RESIGNED: _ANY,
    State.FAILED: frozenset(),
}


@dataclass(slots=True, eq=False)
class Ballots:
    """Answers to one round of (pre-)votes."""

    granted: set[ReplicaKey] = field(default_factory=set)
    rejected: set[ReplicaKey] = field(default_factory=set)
    gone: set[ReplicaKey] = field(default_factory=set)
    """Whose process was not there when it was to be asked: they are not waited for."""
    resend_at_ms: int = 0
    decided: bool = False


class RaftCore(LogCore):
    """One replica. Create it from what its disk holds, `start` it, then feed events to `step`.

    After every step the driver executes the effects in order and calls again at `next_deadline_ms()`.
    """

    def __init__(
        self,
        config: RaftConfig,
        me: ReplicaKey,
        voters: VoterHistory,
        stored: QuorumState,
        log: LogIndex,
        rng: Random,
    ) -> None:
        super().__init__(config, me, voters, stored, log, rng.getrandbits(40) << 20)
        self.state = State.UNATTACHED
        self.has_fetched = False
        """As follower: whether this leader has answered a fetch. It is taken for alive then, and pre-votes
        refused.
        """
        self.leader_heard_ms = -1
        """When a leader last answered a fetch of this replica; -1: never."""
        self._rng = rng
        self._deadline_ms = 0
        """Of the election or the fetch, by state."""
        self._ballots = Ballots()
        self._losses = 0
        """Elections lost in a row."""
        self._gone: set[int] = set()
        """Peers whose address refused a connection, and that have said nothing since."""
        self._contacts: dict[int, ReplicaKey] = {}
        """By id: who else may know the leader. A replica formatted without voters knows nobody at first."""
        self._announced = (stored.epoch, NO_LEADER)
        self._handlers: dict[type, Callable[..., None]] = {
            Tick: lambda _event, now_ms: self._on_tick(now_ms),
            Propose: self._on_propose,
            QuorumStatePersisted: self._on_persisted,
            LogSynced: self._on_synced,
            SnapshotCreated: self._on_snapshot_created,
            SnapshotInstalled: self._on_snapshot_installed,
            AddVoter: self._on_voter_change,
            RemoveVoter: self._on_voter_change,
            Resign: lambda _event, now_ms: self._resign(now_ms),
            PeerUnreachable: self._on_peer_unreachable,
            Contact: self._on_contact,
            VoteRequest: self._on_vote_request,
            VoteResponse: self._on_vote_response,
            BeginQuorumEpochRequest: self._on_begin_epoch,
            BeginQuorumEpochResponse: self._on_plain_response,
            EndQuorumEpochRequest: self._on_end_epoch,
            EndQuorumEpochResponse: self._on_plain_response,
            FetchRequest: self._on_fetch_request,
            FetchResponse: self._on_fetch_response,
            FetchSnapshotRequest: self._on_snapshot_request,
            FetchSnapshotResponse: self._on_snapshot_response,
        }

    # ---- entry points

    def start(self, now_ms: int) -> list[Effect]:
        """Take up the stored state. Call once, before any event."""
        if self.log.last_epoch > self.epoch:
            # A lost vote file: nothing in the log's epochs may be done a second time.
            self.epoch, self.leader_id, self.voted = self.log.last_epoch, NO_LEADER, None
        if self.is_only_voter:
            self._become_prospective(now_ms)
        elif self.leader_id == self.me.id:
            self.state = State.RESIGNED
            self._deadline_ms = now_ms + self._election_timeout_ms()
            self._send_end_epoch(self.voters.current, ())
        elif self.leader_id != NO_LEADER:
            self._become_follower(self.epoch, self.leader_id, now_ms)
        else:
            self._become_unattached(self.epoch, now_ms)
            self._deadline_ms = min(self._deadline_ms, now_ms + self._turn_ms())
        return self._finish(now_ms)

    def step(self, event: Event, now_ms: int) -> list[Effect]:
        """One event in, its effects out. A core that has failed stays silent."""
        if self.state is State.FAILED:
            return []
        if self._gone and isinstance(event, Message):
            self._gone.discard(event.sender.id)
        self._handlers[type(event)](event, now_ms)
        return self._finish(now_ms)

    def next_deadline_ms(self) -> int | None:
        """When a `Tick` is due; may lie in the past, and is None if only an event can change anything."""
        deadlines: list[int] = []
        if self.state is State.LEADER:
            assert self.leader is not None
            return self.leader.next_deadline_ms(self.voters.current)
        if self.state is State.FAILED:
            return None
        if self.may_stand or self.state is State.RESIGNED:
            deadlines.append(self._deadline_ms)
        if self.state in (State.PROSPECTIVE, State.CANDIDATE) and not self._ballots.decided:
            deadlines.append(self._ballots.resend_at_ms)
        if (
            self.state in (State.FOLLOWER, State.UNATTACHED)
            and (fetch := self._fetch_deadline_ms()) is not None
        ):
            deadlines.append(fetch)
        return min(deadlines, default=None)

    def _finish(self, now_ms: int) -> list[Effect]:
        """Carry on with whatever the event made possible, and hand out the effects."""
        if self.state is not State.FAILED:
            self._maybe_sync()
            self._maybe_fetch(now_ms)
            self._write_quorum_state()
            known = (self.epoch, self.known_leader)
            if known != self._announced:
                self._announced = known
                self._out.append(LeaderChanged(*known))
        out, self._out = self._out, []
        return out

    # ---- transitions

    def _enter(self, state: State) -> None:
        assert state in TRANSITIONS[self.state], f"{self.state} may not become {state}"
        if self.state is State.LEADER:
            self._lose_leadership()
        self.state = state

    def _become_unattached(self, epoch: int, now_ms: int) -> None:
        self._enter(State.UNATTACHED)
        self._adopt_epoch(epoch, NO_LEADER)
        self._deadline_ms = now_ms if self.is_only_voter else now_ms + self._election_timeout_ms()

    def _become_follower(self, epoch: int, leader_id: int, now_ms: int) -> None:
        assert leader_id not in (NO_LEADER, self.me.id)
        self._enter(State.FOLLOWER)
        self._adopt_epoch(epoch, leader_id)
        self.has_fetched = False
        self._losses = 0
        self._deadline_ms = now_ms + self._fetch_timeout_ms()

    def _adopt_epoch(self, epoch: int, leader_id: int) -> None:
        assert epoch >= self.epoch, f"epoch {epoch} after {self.epoch}"
        if epoch > self.epoch:
            self.voted = None
        self.epoch, self.leader_id = epoch, leader_id
        self._fetcher.reset()
        self._persist(QuorumState(self.epoch, self.leader_id, self.voted))

    def _become_prospective(self, now_ms: int) -> None:
        """Ask whether an election could be won, without disturbing anybody's epoch (KIP-996)."""
        self._enter(State.PROSPECTIVE)
        self._fetcher.reset()
        self._begin_round(now_ms)
        self._count_own_ballot(now_ms)

    def _become_candidate(self, now_ms: int) -> None:
        """A new epoch, and the own vote in it. That counts once it is durable.

        In a quorum of one this vote elects, so the same write already names the leader.
        """
        self._enter(State.CANDIDATE)
        self.epoch, self.leader_id, self.voted = self.epoch + 1, NO_LEADER, self.me
        self._persist(QuorumState(self.epoch, self.me.id if self.is_only_voter else NO_LEADER, self.me))
        self._begin_round(now_ms)

    def _become_leader(self, now_ms: int) -> None:
        """Append the leader change record; with it, once, the voters that so far were configuration only."""
        granted = tuple(sorted(self._ballots.granted))
        self._enter(State.LEADER)
        self._losses = 0
        self.leader_id = self.me.id
        self._persist(QuorumState(self.epoch, self.leader_id, self.voted))
        self.leader = LeaderState(self.config, self.me, self.epoch, self.log.end_offset, now_ms, now_ms)
        self._out.append(BecameLeader(self.epoch, self.log.end_offset))
        current = self.voters.current
        first = current if self.voters.last_offset < 0 and current.has_all_directories else None
        change = LeaderChange(self.me, current, granted)
        count = 1 if first is None else 3
        self._append_own(
            Batch(self.log.end_offset, count, self.epoch, change, ControlKind.LEADER_CHANGE, first)
        )
        self._announce_epoch(now_ms)

    def _resign(self, now_ms: int) -> None:
        """Step down without a successor: this epoch is over for this replica (check-quorum, stop, voted
        out).
        """
        if self.leader is None:
            return
        voters, successors = self.voters.current, self.leader.successors(self.voters.current)
        self._enter(State.RESIGNED)
        self._deadline_ms = now_ms + self._election_timeout_ms()
        self._send_end_epoch(voters, successors)

    def _lose_leadership(self) -> None:
        leader, self.leader = self.leader, None
        assert leader is not None
        self._out.append(LostLeadership(leader.epoch))
        for progress in leader.progress.values():
            if progress.parked is not None:
                self._reply(progress.parked, FetchResponse, ErrorCode.NOT_LEADER_OR_FOLLOWER)
        if self._voter_change_offset >= 0:
            self._voter_change_offset = -1
            self._out.append(
                VoterChangeEnded(
                    ErrorCode.NOT_LEADER_OR_FOLLOWER, "leadership was lost; the outcome is not known"
                )
            )

    def _fail(self, reason: str) -> None:
        self._out.append(Fatal(reason))
        self.state, self.leader = State.FAILED, None

    # ---- what the moving of the log asks of the state machine

    @property
    def known_leader(self) -> int:
        """Not itself once it has given up, although the vote file goes on saying so."""
        gave_up = self.leader_id == self.me.id and self.leader is None
        return NO_LEADER if gave_up else self.leader_id

    def _fetch_source(self, now_ms: int) -> ReplicaKey | None:
        """Whom to pull from: the leader; without one, or when it is silent, any voter, which may know of
        one.
        """
        if self.state is State.FOLLOWER and (self.may_stand or now_ms < self._deadline_ms):
            leader_id = self.leader_id
            return next(
                (v.key for v in self.voters.current.voters if v.id == leader_id), ReplicaKey(leader_id)
            )
        if self.state is State.FOLLOWER or self.state is State.UNATTACHED:
            others = self._others(self.voters.current) or list(self._contacts.values())
            return others[self._rng.randrange(len(others))] if others else None
        return None

    def _follows(self, response: Response) -> bool:
        following = self.state is State.FOLLOWER and response.epoch == self.epoch
        return following and response.sender.id == self.leader_id

    def _heard_from_leader(self, now_ms: int) -> None:
        self.has_fetched = True
        self.leader_heard_ms = now_ms
        self._deadline_ms = now_ms + self._fetch_timeout_ms()

    def _learn(self, epoch: int, leader_id: int, now_ms: int) -> None:
        """What another replica says of epoch and leader, in a response."""
        if leader_id == self.me.id:
            leader_id = NO_LEADER  # of an epoch in which this replica gave up, or never knew that it won
        if epoch > self.epoch:
            if leader_id == NO_LEADER:
                self._become_unattached(epoch, now_ms)
            else:
                self._become_follower(epoch, leader_id, now_ms)
        elif epoch == self.epoch and leader_id != NO_LEADER and self.leader_id == NO_LEADER:
            self._become_follower(epoch, leader_id, now_ms)

    # ---- time

    def _on_tick(self, now_ms: int) -> None:
        self._fetcher.expire(now_ms)
        if self.state is State.LEADER:
            self._tick_leader(now_ms)
        elif now_ms >= self._deadline_ms:
            self._on_deadline(now_ms)
        elif (
            self.state in (State.PROSPECTIVE, State.CANDIDATE)
            and not self._ballots.decided
            and now_ms >= self._ballots.resend_at_ms
        ):
            self._ask_for_votes(now_ms)

    def _on_deadline(self, now_ms: int) -> None:
        if self.state is State.RESIGNED:
            self._become_unattached(self.epoch + 1, now_ms)
        elif self.state is State.PROSPECTIVE:
            self._give_up_prospect(now_ms)
        elif not self.may_stand:
            return
        elif self._fetcher.is_installing:
            self._deadline_ms = now_ms + self._fetch_timeout_ms()
        else:
            self._become_prospective(now_ms)

    def _tick_leader(self, now_ms: int) -> None:
        leader, voters = self.leader, self.voters.current
        assert leader is not None
        lapse = leader.quorum_deadline_ms(voters)
        if lapse is not None and now_ms >= lapse:
            self._resign(now_ms)
            return
        if now_ms >= leader.next_begin_ms:
            self._announce_epoch(now_ms)
        for progress in leader.progress.values():
            if progress.parked is not None and now_ms >= progress.parked_until_ms:
                self._answer(progress)

    def _announce_epoch(self, now_ms: int) -> None:
        leader = self.leader
        assert leader is not None
        leader.next_begin_ms = now_ms + leader.begin_interval_ms
        for key in leader.voters_to_begin(self.voters.current, now_ms):
            self._send(key, BeginQuorumEpochRequest(self.me, self.epoch, self._request_id()))

    def _on_peer_unreachable(self, event: PeerUnreachable, now_ms: int) -> None:
        if event.node_id in self.voters.current.ids:
            self._gone.add(event.node_id)
        if self.state is State.FOLLOWER and event.node_id == self.leader_id:
            self.has_fetched = False
            self._deadline_ms = min(self._deadline_ms, now_ms + self._turn_ms())
            self._fetcher.request_id = -1
            self._fetcher.back_off(now_ms)
        elif self.state in (State.PROSPECTIVE, State.CANDIDATE):
            self._note_gone()
            self._count_ballots(now_ms)

    def _turn_ms(self) -> int:
        """When it is this voter's turn to stand, the leader being gone or unknown."""
        before = sum(1 for each in self.voters.current.ids if each < self.me.id and each != self.leader_id)
        return TURN_FIRST_MS + before * TURN_STEP_MS + self._rng.randrange(TURN_JITTER_MS)

    def _pause_after_loss_ms(self) -> int:
        """Turns that grow apart with every split vote in a row: what separates voters is the time of a vote."""
        pause_ms, longest_ms = self._turn_ms() << min(self._losses, 4), self.config.election_backoff_max_ms
        self._losses += 1
        return pause_ms if pause_ms <= longest_ms else longest_ms + self._backoff_ms()

    def _note_gone(self) -> None:
        """A peer whose earlier answer counts is not among them."""
        ballots = self._ballots
        ballots.gone = {key for key in self._others(self.voters.current) if key.id in self._gone}
        ballots.gone -= ballots.granted

    def _on_contact(self, event: Contact, now_ms: int) -> None:
        if event.node_id != self.me.id and len(self._contacts) < CONTACTS_MAX:
            self._contacts[event.node_id] = ReplicaKey(event.node_id)
            self._fetcher.retry_at_ms = min(self._fetcher.retry_at_ms, now_ms)

    def _election_timeout_ms(self) -> int:
        return self.config.election_timeout_ms + self._rng.randrange(self.config.election_timeout_ms)

    def _fetch_timeout_ms(self) -> int:
        return self.config.fetch_timeout_ms + self._rng.randrange(self.config.fetch_timeout_jitter_ms + 1)

    def _backoff_ms(self) -> int:
        return self._rng.randrange(self.config.election_backoff_max_ms + 1)

    # ---- elections

    def _begin_round(self, now_ms: int) -> None:
        self._ballots = Ballots()
        self._deadline_ms = now_ms + self._election_timeout_ms()
        self._ask_for_votes(now_ms)
        self._note_gone()

    def _ask_for_votes(self, now_ms: int) -> None:
        ballots = self._ballots
        ballots.resend_at_ms = now_ms + self.config.request_timeout_ms
        last = OffsetAndEpoch(self.log.end_offset, self.log.last_epoch)
        pre_vote = self.state is State.PROSPECTIVE
        for key in self._others(self.voters.current):
            if key not in ballots.granted and key not in ballots.rejected:
                request_id = self._request_id()
                self._send(
                    key, VoteRequest(self.me, self.epoch, request_id, pre_vote, last, key.directory_id)
                )

    def _count_own_ballot(self, now_ms: int) -> None:
        if self.is_voter:
            self._ballots.granted.add(self.voters.current.canonical(self.me))
        self._count_ballots(now_ms)

    def _count_ballots(self, now_ms: int) -> None:
        ballots, voters = self._ballots, self.voters.current
        if ballots.decided:
            return
        if len(ballots.granted) >= voters.majority:
            ballots.decided = True
            if self.state is State.PROSPECTIVE:
                self._become_candidate(now_ms)
            else:
                self._become_leader(now_ms)
        elif len(voters) - len(ballots.rejected | ballots.gone) < voters.majority:
            ballots.decided = True
            if self.state is State.PROSPECTIVE:
                self._give_up_prospect(now_ms)
            else:
                self._deadline_ms = now_ms + self._pause_after_loss_ms()

    def _give_up_prospect(self, now_ms: int) -> None:
        """It is asked again soon where nobody leads: the question disturbs nobody."""
        if self.leader_id in (NO_LEADER, self.me.id):
            self._become_unattached(self.epoch, now_ms)
            self._deadline_ms = min(self._deadline_ms, now_ms + self._turn_ms() + self._backoff_ms())
        else:
            self._become_follower(self.epoch, self.leader_id, now_ms)

    def _on_vote_request(self, request: VoteRequest, now_ms: int) -> None:
        """Any replica may vote, observer or not: whether it is a voter, the candidate may know better
        (KIP-853).
        """
        error, granted = ErrorCode.NONE, False
        if request.epoch < self.epoch:
            error = ErrorCode.FENCED_LEADER_EPOCH
        elif request.voter_directory_id not in (ZERO_UUID, self.me.directory_id):
            error = ErrorCode.INVALID_VOTER_KEY
        else:
            if request.epoch > self.epoch:
                self._become_unattached(request.epoch, now_ms)
            granted = self._grants(request)
            if granted and not request.pre_vote and self.voted != request.sender:
                self.voted = request.sender
                self._persist(QuorumState(self.epoch, self.leader_id, self.voted))
                self._deadline_ms = now_ms + self._election_timeout_ms()
        self._reply(request, VoteResponse, error, pre_vote=request.pre_vote, granted=granted)

    def _grants(self, request: VoteRequest) -> bool:
        complete = (request.last.epoch, request.last.offset) >= (self.log.last_epoch, self.log.end_offset)
        if request.pre_vote:
            lives = self.state is State.LEADER or (self.state is State.FOLLOWER and self.has_fetched)
            return complete and not lives
        if self.state not in (State.UNATTACHED, State.PROSPECTIVE):
            return False
        if self.voted is not None:
            return self.voted == request.sender
        return complete and self.leader_id == NO_LEADER

    def _on_vote_response(self, response: VoteResponse, now_ms: int) -> None:
        self._learn(response.epoch, response.leader_id, now_ms)
        asking = State.PROSPECTIVE if response.pre_vote else State.CANDIDATE
        voter = self.voters.current.find(response.sender)
        if self.state is not asking or response.epoch != self.epoch or voter is None:
            return
        (self._ballots.granted if response.granted else self._ballots.rejected).add(voter.key)
        self._ballots.gone.discard(voter.key)
        if not response.granted and self.state is State.CANDIDATE:
            # A rival has that vote: if neither wins, there is no point in waiting for those who are silent.
            pause_ms = max(self.config.request_timeout_ms // 2, self.config.election_backoff_max_ms)
            self._deadline_ms = min(self._deadline_ms, now_ms + pause_ms + self._backoff_ms())
        self._count_ballots(now_ms)

    def _on_persisted(self, event: QuorumStatePersisted, now_ms: int) -> None:
        self._persisted_sequence = max(self._persisted_sequence, event.sequence)
        if self.state is State.CANDIDATE and self._vote_is_durable:
            self._count_own_ballot(now_ms)

    def _on_begin_epoch(self, request: BeginQuorumEpochRequest, now_ms: int) -> None:
        error = ErrorCode.NONE
        if request.epoch < self.epoch:
            error = ErrorCode.FENCED_LEADER_EPOCH
        elif request.epoch == self.epoch and self.leader_id not in (NO_LEADER, request.sender.id):
            self._fail(f"{request.sender} and {self.leader_id} both lead epoch {self.epoch}")
            return
        elif request.epoch > self.epoch or self.state is not State.FOLLOWER:
            self._become_follower(request.epoch, request.sender.id, now_ms)
        self._reply(request, BeginQuorumEpochResponse, error)

    def _on_end_epoch(self, request: EndQuorumEpochRequest, now_ms: int) -> None:
        """The leader is gone for good: the most complete voter stands at once, the others a little later."""
        error = ErrorCode.NONE
        if request.epoch < self.epoch:
            error = ErrorCode.FENCED_LEADER_EPOCH
        else:
            if request.epoch > self.epoch:
                self._become_unattached(request.epoch, now_ms)
            if self.leader_id in (NO_LEADER, request.sender.id) and self.state in (
                State.FOLLOWER,
                State.UNATTACHED,
            ):
                self.has_fetched = False
                rank = next((i for i, key in enumerate(request.successors) if key.id == self.me.id), 1)
                self._deadline_ms = now_ms + (0 if rank == 0 else self._backoff_ms() * rank)
        self._reply(request, EndQuorumEpochResponse, error)

    def _on_plain_response(self, response: Response, now_ms: int) -> None:
        self._learn(response.epoch, response.leader_id, now_ms)

    def _send_end_epoch(self, voters: VoterSet, successors: tuple[ReplicaKey, ...]) -> None:
        for key in self._others(voters):
            self._send(key, EndQuorumEpochRequest(self.me, self.epoch, self._request_id(), successors))
