"""The ISR of one partition as its leader knows it, and the one proposal it may have with the controller. Pure.

States of a proposal, and what ends them (README.md has the words):

    none      | propose          → unsent
    unsent    | asked            → in flight
    in flight | applied          → none, the answer is the committed ISR
              | not applied      → none if no earlier try is in doubt, else waiting
              | unknown          → unsent, in doubt, after a back-off
              | refused, but the controller has seen nothing of it (stale broker epoch) → unsent
              | outdated         → waiting
    waiting   | (only metadata)
    any       | newer metadata   → none

A try that was not answered may be applied later, as long as its partition epoch is the current one. So an answer that
proves something of a later try takes nothing back; the controller raises the partition epoch when it refuses a member
(INELIGIBLE_REPLICA), and metadata that says so proves it of all tries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from odradek.wire.errors import ErrorCode

NO_LEADER: Final = -1


class Peer(NamedTuple):
    """A broker as metadata has it."""

    epoch: int
    fenced: bool
    in_controlled_shutdown: bool = False
    rack: str | None = None

    @property
    def active(self) -> bool:
        return not self.fenced and not self.in_controlled_shutdown


class PartitionState(NamedTuple):
    """A partition as metadata, or the answer to a proposal, has it."""

    leader: int
    leader_epoch: int
    partition_epoch: int
    isr: tuple[int, ...]
    replicas: tuple[int, ...]


class Proposal:
    """Another ISR, as it is put to the controller. Compared by identity: an answer belongs to one try of one."""

    __slots__ = ("isr", "leader_epoch", "members", "partition_epoch")

    def __init__(
        self, isr: Iterable[int], broker_epochs: Mapping[int, int], leader_epoch: int, partition_epoch: int
    ) -> None:
        self.members = frozenset(isr)
        self.isr = tuple((member, broker_epochs.get(member, -1)) for member in sorted(self.members))
        """(broker id, broker epoch); -1: any, for members that have not fetched in this leader epoch."""
        self.leader_epoch = leader_epoch
        self.partition_epoch = partition_epoch

    def __repr__(self) -> str:
        return f"Proposal({sorted(self.members)} at {self.leader_epoch}/{self.partition_epoch})"


NOT_APPLIED: Final = frozenset({ErrorCode.INELIGIBLE_REPLICA, ErrorCode.OPERATION_NOT_ATTEMPTED})
"""The controller looked at this partition epoch, and left it."""
OUTDATED: Final = frozenset(
    {
        ErrorCode.FENCED_LEADER_EPOCH,
        ErrorCode.INVALID_UPDATE_VERSION,
        ErrorCode.NEW_LEADER_ELECTED,
        ErrorCode.INVALID_REQUEST,
        ErrorCode.UNKNOWN_TOPIC_ID,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    }
)
"""The controller is ahead: by somebody else's change or by an earlier try of ours. Metadata will tell."""
NOT_SEEN: Final = frozenset({ErrorCode.STALE_BROKER_EPOCH})
"""Refused before the partition was looked at; the next try carries the newer broker epoch."""


class IsrState:
    """Attributes are plain and read-only to others; `maximal` is read per acknowledgement."""

    __slots__ = (
        "_backoff_max_ms", "_backoff_ms", "_leader_epoch", "committed", "doubts", "in_flight", "maximal",
        "not_before_ms", "partition_epoch", "proposal", "tries", "unsent",
    )  # fmt: skip

    def __init__(self, state: PartitionState, backoff_ms: int = 50, backoff_max_ms: int = 1_000) -> None:
        self._leader_epoch = state.leader_epoch
        self.partition_epoch = state.partition_epoch
        self.committed = frozenset(state.isr)
        self.maximal = self.committed
        """Committed ∪ proposed: whoever may be in the controller's ISR."""
        self.proposal: Proposal | None = None
        self.unsent = False
        """There is a proposal to be asked, at `not_before_ms` or later."""
        self.in_flight = False
        self.doubts = 0
        """Tries at this partition epoch of which it is not known whether they were, or will be, applied."""
        self.tries = 0
        self.not_before_ms = 0
        self._backoff_ms = backoff_ms
        self._backoff_max_ms = backoff_max_ms

    def may_propose(self, now_ms: int) -> bool:
        """Nothing is proposed, and what was refused last is some time ago."""
        return self.proposal is None and now_ms >= self.not_before_ms

    def propose(self, members: Iterable[int], broker_epochs: Mapping[int, int]) -> None:
        assert self.proposal is None, "one at a time"
        self.proposal = Proposal(members, broker_epochs, self._leader_epoch, self.partition_epoch)
        self.maximal = self.committed | self.proposal.members
        self.unsent = True

    def take(self) -> Proposal:
        """The proposal, now asked."""
        assert self.proposal is not None and self.unsent and not self.in_flight
        self.unsent = False
        self.in_flight = True
        return self.proposal

    # What comes back ---------------------------------------------------------------------------------------------

    def applied(self, proposal: Proposal, state: PartitionState, now_ms: int) -> bool:
        """The controller answered with this state; whether the ISR may have changed."""
        if proposal is not self.proposal or state.leader_epoch != self._leader_epoch:
            return False
        if state.partition_epoch > self.partition_epoch:
            return self.adopt(state)
        if state.partition_epoch == self.partition_epoch and not self.doubts:
            self._reset(state.isr)  # there was nothing to change
            return True
        self._again(now_ms)
        return False

    def refused(self, proposal: Proposal, error: ErrorCode | None, now_ms: int) -> bool:
        """An error, or None for no answer in time; whether the ISR may have changed."""
        if proposal is not self.proposal:
            return False
        if error in OUTDATED:
            self.in_flight = False
            return False
        if error in NOT_APPLIED:
            return self._not_applied(now_ms)
        if error not in NOT_SEEN:
            self._in_doubt(now_ms)
        self._again(now_ms)
        return False

    def adopt(self, state: PartitionState) -> bool:
        """Metadata says; whether it is news."""
        if state.partition_epoch <= self.partition_epoch:
            return False
        self.partition_epoch = state.partition_epoch
        self.tries = 0
        self.not_before_ms = 0
        self._reset(state.isr)
        return True

    # Parts -------------------------------------------------------------------------------------------------------

    def _not_applied(self, now_ms: int) -> bool:
        self._again(now_ms)
        if self.doubts:
            self.unsent = False
            return False
        self._reset(self.committed)
        return True

    def _in_doubt(self, now_ms: int) -> None:
        self.doubts += 1

    def _again(self, now_ms: int) -> None:
        self.in_flight = False
        self.unsent = True
        self.not_before_ms = now_ms + min(self._backoff_ms << min(self.tries, 10), self._backoff_max_ms)
        self.tries += 1

    def _reset(self, isr: Iterable[int]) -> None:
        """Nothing is proposed. A back-off that was set stays: it keeps what was refused from coming right back."""
        self.committed = self.maximal = frozenset(isr)
        self.proposal = None
        self.unsent = self.in_flight = False
        self.doubts = 0
