"""What a leader knows of the other replicas: how far they have fetched, who waits, whether a majority is
there.

Bookkeeping only; the transitions that follow from it are in `core.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from odradek.raft.config import RaftConfig
from odradek.raft.messages import FetchRequest
from odradek.raft.voters import ReplicaKey, Voter, VoterSet


@dataclass(slots=True, eq=False)
class ReplicaProgress:
    """One follower or observer as this leader sees it, in this epoch."""

    key: ReplicaKey
    end_offset: int = -1
    """Fsynced there; -1 until it has fetched from a position that this leader's log agrees with."""
    last_fetch_ms: int = -1
    last_caught_up_ms: int = -1
    parked: FetchRequest | None = None
    parked_until_ms: int = 0


@dataclass(slots=True, eq=False)
class LeaderState:
    """Leadership of one epoch, from election to resignation."""

    config: RaftConfig
    me: ReplicaKey
    epoch: int
    epoch_start: int
    """Offset of the leader change record."""
    began_ms: int
    next_begin_ms: int
    """When the epoch is announced again to voters that do not fetch."""
    progress: dict[ReplicaKey, ReplicaProgress] = field(default_factory=dict)
    established: bool = False
    """Whether an entry of this epoch is committed; before, the high watermark may not be told."""

    def record_contact(self, key: ReplicaKey, now_ms: int) -> ReplicaProgress:
        """A request of this epoch came from the replica: it lives, whatever its position."""
        progress = self.progress.get(key)
        if progress is None:
            progress = self.progress[key] = ReplicaProgress(key)
        progress.last_fetch_ms = now_ms
        return progress

    def record_position(self, progress: ReplicaProgress, offset: int, leader_end: int, now_ms: int) -> None:
        """The replica has fsynced everything below `offset`, which this log agrees with.

        Within an epoch a replica that agreed never truncates below that, so an older request that
        arrives late cannot lower it.
        """
        progress.end_offset = max(progress.end_offset, offset)
        if offset >= leader_end:
            progress.last_caught_up_ms = now_ms

    def majority_end(self, voters: VoterSet, own_synced_end: int) -> int:
        """The largest offset below which everything is fsynced on a majority of the voters; -1 if none is
        known.
        """
        ends = sorted((self._end_of(voter, own_synced_end) for voter in voters.voters), reverse=True)
        return ends[voters.majority - 1] if ends else -1

    def _end_of(self, voter: Voter, own_synced_end: int) -> int:
        if voter.is_same_as(self.me):
            return own_synced_end
        progress = self.progress.get(voter.key)
        return -1 if progress is None else progress.end_offset

    def may_commit(self, end_offset: int) -> bool:
        """Raft's commit rule (dissertation 3.6.2): only an entry of the own epoch commits, and all before
        it with it.
        """
        return end_offset > self.epoch_start

    def quorum_deadline_ms(self, voters: VoterSet) -> int | None:
        """When leadership lapses unless a majority fetches; None for a quorum of one."""
        contacts = sorted((self._contact_of(voter) for voter in self._others(voters)), reverse=True)
        needed = voters.majority - (1 if voters.contains(self.me) else 0)
        return contacts[needed - 1] + self.config.check_quorum_ms if needed > 0 else None

    def voters_to_begin(self, voters: VoterSet, now_ms: int) -> list[ReplicaKey]:
        """Voters that have not fetched of late and may not know who leads; a waiting fetch shows that one
        does.
        """
        since = now_ms - self.begin_interval_ms
        return [
            voter.key
            for voter in self._others(voters)
            if self._last_fetch_of(voter) <= since and not self._has_parked(voter)
        ]

    @property
    def begin_interval_ms(self) -> int:
        return max(self.config.fetch_timeout_ms // 4, 1)

    def successors(self, voters: VoterSet) -> tuple[ReplicaKey, ...]:
        """The other voters, most complete first."""
        keyed = [(-self._end_of(voter, -1), voter.id, voter.key) for voter in self._others(voters)]
        return tuple(key for _, _, key in sorted(keyed))

    def next_deadline_ms(self, voters: VoterSet) -> int | None:
        deadlines = [p.parked_until_ms for p in self.progress.values() if p.parked is not None]
        if (quorum := self.quorum_deadline_ms(voters)) is not None:
            deadlines += (quorum, self.next_begin_ms)
        return min(deadlines, default=None)

    def forget_silent_observers(self, voters: VoterSet, now_ms: int) -> None:
        limit = now_ms - self.config.observer_session_ms
        for key in [key for key, p in self.progress.items() if p.last_fetch_ms < limit]:
            if not voters.contains(key):
                del self.progress[key]

    def _others(self, voters: VoterSet) -> list[Voter]:
        return [voter for voter in voters.voters if not voter.is_same_as(self.me)]

    def _last_fetch_of(self, voter: Voter) -> int:
        progress = self.progress.get(voter.key)
        return -1 if progress is None else progress.last_fetch_ms

    def _has_parked(self, voter: Voter) -> bool:
        progress = self.progress.get(voter.key)
        return progress is not None and progress.parked is not None

    def _contact_of(self, voter: Voter) -> int:
        return max(self._last_fetch_of(voter), self.began_ms)
