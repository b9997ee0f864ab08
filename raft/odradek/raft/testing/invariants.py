"""R1 to R8, checked over the whole cluster after each step of one replica. Digests make each check cheap."""

from __future__ import annotations

from odradek.raft.effects import BecameLeader, Committed, Fatal, LostLeadership
from odradek.raft.messages import VoteResponse
from odradek.raft.testing.replica import DurableState, MemoryReplica, digest_at
from odradek.raft.voters import ReplicaKey, VoterSet


class InvariantViolation(AssertionError):  # noqa: N818 - the word of the specification
    """The cluster broke a promise; the text starts with its number."""


class Invariants:
    """What has been seen so far: leaders and votes by epoch, digests by (offset, epoch), the committed
    prefix.
    """

    def __init__(self, disks: dict[ReplicaKey, DurableState]) -> None:
        self._disks = disks
        self._leaders: dict[int, ReplicaKey] = {}
        self._votes: dict[tuple[ReplicaKey, int], ReplicaKey] = {}
        self._leading: dict[ReplicaKey, BecameLeader] = {}
        self._told_epochs: dict[ReplicaKey, int] = {}
        self._digests: dict[tuple[int, int], int] = {}
        self._committed: dict[int, int] = {0: 0}
        self._commits: dict[int, int] = {}
        """How far the leader of each epoch committed. R3 binds leaders of later epochs, not those elected
        later: a candidate of a past epoch may still collect the votes it was given.
        """
        self.committed_end = 0

    def on_restart(self, replica: MemoryReplica) -> None:
        """R4: what was said in the name of an epoch is still known after a crash."""
        self._leading.pop(replica.me, None)
        told = self._told_epochs.get(replica.me, 0)
        if replica.disk.vote.epoch < told:
            raise InvariantViolation(
                f"R4: {replica.me} said epoch {told}, remembers {replica.disk.vote.epoch}"
            )

    def after_step(self, replica: MemoryReplica) -> None:
        """Look at everything that this step of this replica can have changed."""
        for notice in replica.notices:
            if isinstance(notice, Fatal):
                raise InvariantViolation(f"R6: {replica.me} stopped: {notice.reason}")
            if isinstance(notice, BecameLeader):
                self._check_leader(replica, notice.epoch)
                self._leading[replica.me] = notice
            elif isinstance(notice, LostLeadership):
                del self._leading[replica.me]
            elif isinstance(notice, Committed):
                self._check_commit(replica, notice.high_watermark)
        self._check_matching(replica)
        self._check_outbox(replica)
        start = replica.core.log.start
        if start.offset > 0 and not any(tuple(s) == tuple(start) for s in replica.disk.snapshots):
            raise InvariantViolation(
                f"R7: the log of {replica.me} starts at {start}, without a snapshot of that"
            )

    def _check_leader(self, replica: MemoryReplica, epoch: int) -> None:
        other = self._leaders.setdefault(epoch, replica.me)
        if other != replica.me:
            raise InvariantViolation(f"R1: {other} and {replica.me} both lead epoch {epoch}")
        earlier = max((end for other, end in self._commits.items() if other < epoch), default=0)
        if not self._holds(replica, earlier):
            raise InvariantViolation(
                f"R3: leader {replica.me} of {epoch} lacks what is committed below {earlier}"
            )

    def _holds(self, replica: MemoryReplica, end_offset: int) -> bool:
        if end_offset < replica.core.log.start.offset:
            return True  # it starts at a snapshot of committed records, see `_check_matching`
        return replica.digest_at(end_offset) == self._committed[end_offset]

    def _check_commit(self, replica: MemoryReplica, end_offset: int) -> None:
        digest = replica.digest_at(end_offset)
        if self._committed.setdefault(end_offset, digest or 0) != digest:
            raise InvariantViolation(f"R3: {replica.me} commits another prefix below {end_offset}")
        if (leader := self._leading.get(replica.me)) is not None:
            if end_offset <= leader.epoch_start_offset:
                raise InvariantViolation(
                    f"R5: {replica.me} commits {end_offset} before an entry of {leader.epoch}"
                )
            self._commits[leader.epoch] = end_offset
            self._check_durable(replica.core.voters.current, end_offset, digest)
            history = replica.core.voters
            if sum(offset >= end_offset for offset in history.offsets) > 1:
                raise InvariantViolation(
                    f"R8: two uncommitted voter changes at {replica.me}: {history.offsets}"
                )
        elif end_offset > self.committed_end:
            raise InvariantViolation(f"R5: {replica.me} follows to {end_offset}, which no leader committed")
        self.committed_end = max(self.committed_end, end_offset)

    def _check_durable(self, voters: VoterSet, end_offset: int, digest: int | None) -> None:
        holders = [
            key
            for key, disk in self._disks.items()
            if voters.contains(key) and _is_durable(disk, end_offset, digest)
        ]
        if len(holders) < voters.majority:
            raise InvariantViolation(
                f"R5: {end_offset} is committed, but durable on {holders} of {voters.ids} only"
            )

    def _check_matching(self, replica: MemoryReplica) -> None:
        """R2 for the batches at the end that nobody held before: one that is known vouches for all below
        it.
        """
        for entry in reversed(replica.entries):
            position = (entry.batch.end_offset, entry.batch.epoch)
            known = self._digests.get(position)
            if known is None:
                self._digests[position] = entry.digest
            elif known == entry.digest:
                return
            else:
                raise InvariantViolation(f"R2: two prefixes end at {position}, one of them at {replica.me}")

    def _check_outbox(self, replica: MemoryReplica) -> None:
        for send in replica.outbox:
            message = send.message
            told = self._told_epochs.get(replica.me, 0)
            self._told_epochs[replica.me] = max(told, message.epoch)
            if isinstance(message, VoteResponse) and message.granted and not message.pre_vote:
                before = self._votes.setdefault((replica.me, message.epoch), send.to)
                if before != send.to:
                    raise InvariantViolation(
                        f"R4: {replica.me} votes for {before} and {send.to} in {message.epoch}"
                    )


def _is_durable(disk: DurableState, end_offset: int, digest: int | None) -> bool:
    return end_offset < disk.start.offset or digest_at(disk, disk.entries, end_offset) == digest
