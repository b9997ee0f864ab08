"""Replication with one rule broken each: what the simulation must catch (CORRECTNESS: the tester proves itself)."""

from __future__ import annotations

from typing import Any

from odradek.replication.driver import ReplicationDriver
from odradek.replication.follower import Decision, FollowerLog, FollowerState
from odradek.replication.isr import IsrState, Proposal
from odradek.replication.leader import FollowerProgress, LeaderState
from odradek.replication.messages import FetchData
from odradek.wire.errors import ErrorCode


class IsrInsteadOfMaximal(LeaderState):
    __slots__ = ()

    def _maximal(self) -> frozenset[int]:
        return self.isr.committed


class NoEpochStart(LeaderState):
    """Whoever has the high watermark may join, however little this replica knows of the true one."""

    __slots__ = ()

    def _may_grow(self) -> bool:
        return True

    def _growth_floor(self) -> int:
        return self.high_watermark


class NotFetchedInThisEpoch(LeaderState):
    """What followers said in an earlier epoch counts."""

    __slots__ = ()
    remembered: dict[Any, dict[int, FollowerProgress]] = {}  # noqa: RUF012 - the mutant's memory, on purpose

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        earlier = self.remembered.get(id(self._peers), {})
        for broker_id, progress in earlier.items():
            self.followers[broker_id] = progress
        self.remembered[id(self._peers)] = self.followers


class NoBrokerEpoch(LeaderState):
    __slots__ = ()

    def _is_eligible(self, progress: FollowerProgress) -> bool:
        peer = self._peers.get(progress.id)
        return peer is not None and peer.active

    def _broker_epochs(self) -> dict[int, int]:
        return {}


class _HastyIsr(IsrState):
    __slots__ = ()

    def refused(self, proposal: Proposal, error: ErrorCode | None, now_ms: int) -> bool:
        if proposal is self.proposal and error is None:
            self._reset(self.committed)
            return True
        return super().refused(proposal, error, now_ms)


class RollBackOnTimeout(LeaderState):
    __slots__ = ()
    isr_class = _HastyIsr


class UnderMinIsr(LeaderState):
    __slots__ = ()

    def _has_min_isr(self) -> bool:
        return True


class HighWatermarkBeforeDivergence(FollowerState):
    __slots__ = ()

    def decide(self, data: FetchData, log: FollowerLog, now_ms: int) -> Decision:
        if data.generation == self.generation and data.error is ErrorCode.NONE:
            self.high_watermark = max(self.high_watermark, min(data.high_watermark, log.log_end_offset))
        return super().decide(data, log, now_ms)

    def truncated(self, log_end: int) -> None:
        """The high watermark has been dealt with."""


def driver_with(part: type[LeaderState] | type[FollowerState]) -> type[ReplicationDriver]:
    """A driver in which this class takes the place of the sound one."""
    field = "leader_class" if issubclass(part, LeaderState) else "follower_class"
    return type(part.__name__, (ReplicationDriver,), {field: part})


MUTANTS: tuple[type[LeaderState] | type[FollowerState], ...] = (
    IsrInsteadOfMaximal,
    NoEpochStart,
    NotFetchedInThisEpoch,
    NoBrokerEpoch,
    RollBackOnTimeout,
    UnderMinIsr,
    HighWatermarkBeforeDivergence,
)
