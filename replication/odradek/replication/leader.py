"""What the leader of one partition decides, in one leader epoch. Pure: positions and times in, high watermark and ISR
proposals out. A new epoch is a new `LeaderState`: nothing a follower said before counts.

Rules, in the order of CORRECTNESS §4 (Kafka's Partition.scala; KIP-101, 279, 320, 497, 841, 903, 966):

    fetch      exactly this leader epoch; offset ≥ log start, then divergence; only then the position counts
    high wm    least end over the maximal ISR (and over those that wait to join it), while |ISR| ≥ min ISR
    caught up  at the log end, or at what was the log end at an earlier moment: then, as of that moment
    join       high wm ≥ epoch start, or |ISR| < min ISR; end ≥ high wm and ≥ epoch start; fetched in this
               epoch; broker epoch as in metadata; not fenced, not shutting down
    leave      not caught up for `replica.lag.time.max.ms`, or found to have less than the high watermark
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Final, Protocol

from odradek.replication.config import ReplicationConfig
from odradek.replication.isr import IsrState, PartitionState, Peer, Proposal
from odradek.wire.errors import ErrorCode

UNKNOWN_OFFSET: Final = -1
NEVER: Final = -(1 << 62)


class LogPosition(Protocol):
    """The part of a log that a position is checked against."""

    log_start_offset: int
    log_end_offset: int

    def end_offset_for_epoch(self, epoch: int) -> tuple[int, int]: ...


def check_position(
    log: LogPosition, fetch_offset: int, last_fetched_epoch: int
) -> tuple[ErrorCode, tuple[int, int] | None]:
    """Whether a log that ends at `fetch_offset` with `last_fetched_epoch` (-1: empty) is a prefix of `log`.

    (NONE, None) if it is; OFFSET_OUT_OF_RANGE; or (NONE, (epoch, end offset)) of where it diverges (KIP-595).
    """
    if fetch_offset < log.log_start_offset:
        return ErrorCode.OFFSET_OUT_OF_RANGE, None
    if last_fetched_epoch >= 0:
        epoch, end = log.end_offset_for_epoch(last_fetched_epoch)
        if epoch < 0:
            return ErrorCode.OFFSET_OUT_OF_RANGE, None
        if epoch < last_fetched_epoch or end < fetch_offset:
            return ErrorCode.NONE, (epoch, end)
    if fetch_offset > log.log_end_offset:
        return ErrorCode.OFFSET_OUT_OF_RANGE, None
    return ErrorCode.NONE, None


class FollowerProgress:
    """What the leader knows of one follower in this epoch."""

    __slots__ = ("broker_epoch", "caught_up_ms", "end", "id", "sampled_end", "sampled_ms", "start")

    def __init__(self, broker_id: int, caught_up_ms: int) -> None:
        self.id = broker_id
        self.end = UNKNOWN_OFFSET
        """Acknowledged log end; unknown until it has fetched in this epoch."""
        self.start = UNKNOWN_OFFSET
        self.broker_epoch = -1
        self.caught_up_ms = caught_up_ms
        """When it was last known to have all there was."""
        self.sampled_end = 0
        self.sampled_ms = NEVER
        """The log end at a moment, to be compared with what the follower acknowledges later."""


class LeaderState:
    """Attributes are plain and read-only to others: produce and fetch handlers read them per request."""

    __slots__ = (
        "_lag_max_ms", "_now_ms", "_peers", "counted_end", "effective_min_isr", "epoch_start_offset", "followers",
        "high_watermark", "isr", "leader_epoch", "local_broker_epoch", "local_id", "log_end", "min_isr", "replicas",
    )  # fmt: skip

    isr_class: ClassVar[type[IsrState]] = IsrState

    def __init__(
        self,
        local_id: int,
        local_broker_epoch: int,
        state: PartitionState,
        peers: Mapping[int, Peer],
        config: ReplicationConfig,
        *,
        epoch_start_offset: int,
        high_watermark: int,
        counted_end: int,
        min_isr: int,
        now_ms: int,
    ) -> None:
        """`epoch_start_offset` is the log end, and noted durably; `high_watermark` is what this replica knew of it;
        `counted_end` is what of its own log counts for the high watermark (fsynced, where the topic asks).
        """
        assert local_id == state.leader
        self.local_id = local_id
        self.local_broker_epoch = local_broker_epoch
        self.leader_epoch = state.leader_epoch
        self.epoch_start_offset = epoch_start_offset
        self.high_watermark = high_watermark
        self.log_end = epoch_start_offset
        self.counted_end = counted_end
        self.isr = self.isr_class(state, config.alter_backoff_ms, config.backoff_max_ms)
        self.replicas: tuple[int, ...] = ()
        self.followers: dict[int, FollowerProgress] = {}
        self.min_isr = self.effective_min_isr = min_isr
        self._peers = peers
        self._lag_max_ms = config.replica_lag_time_max_ms
        self._now_ms = now_ms
        self._set_replicas(state.replicas)
        self._advance()

    # Fetches -----------------------------------------------------------------------------------------------------

    def check_epoch(self, current_leader_epoch: int) -> ErrorCode:
        """Only this epoch is answered (KIP-320)."""
        if current_leader_epoch == self.leader_epoch:
            return ErrorCode.NONE
        if current_leader_epoch < self.leader_epoch:
            return ErrorCode.FENCED_LEADER_EPOCH
        return ErrorCode.UNKNOWN_LEADER_EPOCH

    def check_follower(self, follower_id: int, broker_epoch: int) -> ErrorCode:
        """Whether it holds a replica, and is not an earlier incarnation of one that has fetched already."""
        progress = self.followers.get(follower_id)
        if progress is None:
            return ErrorCode.NOT_LEADER_OR_FOLLOWER
        if broker_epoch < progress.broker_epoch:
            return ErrorCode.STALE_BROKER_EPOCH
        return ErrorCode.NONE

    def fetched(self, follower_id: int, end: int, start: int, broker_epoch: int, now_ms: int) -> bool:
        """A follower, checked, acknowledges everything below `end`; whether the high watermark moved."""
        progress = self.followers[follower_id]
        self._now_ms = now_ms
        progress.end = end
        progress.start = start
        progress.broker_epoch = broker_epoch
        if end >= self.log_end:
            progress.caught_up_ms = progress.sampled_ms = now_ms
            progress.sampled_end = self.log_end
        elif end >= progress.sampled_end:
            progress.caught_up_ms = max(progress.caught_up_ms, progress.sampled_ms)
            progress.sampled_end, progress.sampled_ms = self.log_end, now_ms
        isr = self.isr
        if end < self.high_watermark and follower_id in isr.committed:
            self._drop((follower_id,))  # it has lost records: it must not be elected meanwhile
        moved = self._advance()
        if len(isr.maximal) < len(self.replicas):
            self._consider_growth()
            return self._advance() or moved
        return moved

    # The own log -------------------------------------------------------------------------------------------------

    def appended(self, log_end: int, counted_end: int, now_ms: int) -> bool:
        """The own log was written up to `log_end`; whether the high watermark moved."""
        before = self.log_end
        self._now_ms = now_ms
        if log_end > before:
            for progress in self.followers.values():
                if progress.end >= before:
                    progress.caught_up_ms = now_ms  # until now; nothing else is said while nothing is sent
            self.log_end = log_end
        self.counted_end = counted_end
        moved = self._advance()
        if moved and len(self.isr.maximal) < len(self.replicas):
            self._consider_growth()
        return moved

    # acks=all ----------------------------------------------------------------------------------------------------

    @property
    def under_min_isr(self) -> bool:
        return len(self.isr.committed) < self.effective_min_isr

    def refusal(self) -> ErrorCode:
        """Before an append with acks=all: NOT_ENOUGH_REPLICAS, or NONE."""
        return ErrorCode.NOT_ENOUGH_REPLICAS if self.under_min_isr else ErrorCode.NONE

    def acknowledgement(self, end_offset: int) -> ErrorCode | None:
        """What to answer to an append that ended at `end_offset` (exclusive); None: wait.

        To be asked again when the high watermark moves or the ISR changes, in the same step in which leadership was
        checked. Kafka lets a producer wait for its timeout when the ISR has shrunk below min ISR; here it hears at
        once what it would hear then, that the outcome is unknown.
        """
        if self.high_watermark >= end_offset:
            return ErrorCode.NONE
        return ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND if self.under_min_isr else None

    def latest_offset_error(self) -> ErrorCode:
        """ListOffsets(latest): until the high watermark has reached the epoch's start it may be too small to tell."""
        if self.high_watermark < self.epoch_start_offset:
            return ErrorCode.OFFSET_NOT_AVAILABLE
        return ErrorCode.NONE

    def low_watermark(self, own_log_start: int) -> int:
        """Least log start over all live replicas (DeleteRecords, KIP-107); -1 while one has not said."""
        starts = [
            progress.start for broker_id, progress in self.followers.items()
            if (peer := self._peers.get(broker_id)) is not None and not peer.fenced
        ]  # fmt: skip
        return min([own_log_start, *starts])

    # The ISR -----------------------------------------------------------------------------------------------------

    def shrink(self, now_ms: int) -> None:
        """Propose to drop who has not been caught up for too long. To be called every half of that time."""
        self._now_ms = now_ms
        if not self.isr.may_propose(now_ms):
            return
        lagging = [
            broker_id
            for broker_id in self.isr.committed
            if broker_id != self.local_id and not self._is_caught_up(self.followers[broker_id])
        ]
        if lagging:
            self._drop(lagging)

    def peers_changed(self, now_ms: int) -> bool:
        """Brokers were registered, fenced or unfenced; whether the high watermark moved."""
        self._now_ms = now_ms
        return len(self.isr.committed) < len(self.replicas) and self._settled()

    def answered(self, proposal: Proposal, answer: PartitionState | ErrorCode | None, now_ms: int) -> bool:
        """What the controller said of a proposal: the new state, an error, or None for nothing in time; whether the
        high watermark moved.
        """
        self._now_ms = now_ms
        if isinstance(answer, PartitionState):
            changed = self.isr.applied(proposal, answer, now_ms)
        else:
            changed = self.isr.refused(proposal, answer, now_ms)
        return changed and self._settled()

    def metadata(self, state: PartitionState, now_ms: int) -> bool:
        """A newer state in the same leader epoch; whether the high watermark moved."""
        assert state.leader_epoch == self.leader_epoch and state.leader == self.local_id
        self._now_ms = now_ms
        self.isr.adopt(state)
        if state.replicas != self.replicas:
            self._set_replicas(state.replicas)
        return self._settled()

    def reconsider(self, now_ms: int) -> bool:
        """After `isr.not_before_ms`: what was refused may be proposed again; whether the high watermark moved."""
        self._now_ms = now_ms
        return self._settled()

    def configure(self, min_isr: int, now_ms: int) -> bool:
        """`min.insync.replicas` changed; whether the high watermark moved."""
        self._now_ms = now_ms
        self.min_isr = min_isr
        self.effective_min_isr = min(min_isr, len(self.replicas))
        return self._settled()

    # Parts -------------------------------------------------------------------------------------------------------

    def _maximal(self) -> frozenset[int]:
        return self.isr.maximal

    def _has_min_isr(self) -> bool:
        return len(self.isr.committed) >= self.effective_min_isr

    def _growth_floor(self) -> int:
        """What a follower must have of the log before it may join."""
        return max(self.epoch_start_offset, self.high_watermark)

    def _may_grow(self) -> bool:
        """Before it has reached the epoch's start, the high watermark may be behind the true one.

        Below min ISR it cannot move before the ISR has grown; there, having all up to the epoch's start has to do.
        """
        return self.high_watermark >= self.epoch_start_offset or not self._has_min_isr()

    def _is_eligible(self, progress: FollowerProgress) -> bool:
        """Whether the controller would let it join: this very incarnation, alive."""
        peer = self._peers.get(progress.id)
        return peer is not None and peer.active and peer.epoch == progress.broker_epoch

    def _is_caught_up(self, progress: FollowerProgress) -> bool:
        return progress.end >= self.log_end or self._now_ms - progress.caught_up_ms <= self._lag_max_ms

    def _advance(self) -> bool:
        """Move the high watermark as far as it may go; whether it moved."""
        if not self._has_min_isr():
            return False
        least = self.counted_end
        maximal = self._maximal()
        for progress in self.followers.values():
            # Who is caught up and about to join holds it too: else, under load, it would never reach it and join.
            if progress.end < least and (
                progress.id in maximal or (self._is_caught_up(progress) and self._is_eligible(progress))
            ):
                least = progress.end
        if least <= self.high_watermark:
            return False
        self.high_watermark = least
        return True

    def _settled(self) -> bool:
        moved = self._advance()
        self._consider_growth()
        return moved

    def _consider_growth(self) -> None:
        isr = self.isr
        if not isr.may_propose(self._now_ms) or not self._may_grow():
            return
        floor = self._growth_floor()
        joining = [
            progress.id
            for progress in self.followers.values()
            if progress.id not in isr.committed and progress.end >= floor and self._is_eligible(progress)
        ]
        if joining:
            isr.propose(isr.committed.union(joining), self._broker_epochs())

    def _drop(self, leaving: Iterable[int]) -> None:
        if self.isr.may_propose(self._now_ms):
            self.isr.propose(self.isr.committed.difference(leaving), self._broker_epochs())

    def _broker_epochs(self) -> dict[int, int]:
        epochs = {broker_id: progress.broker_epoch for broker_id, progress in self.followers.items()}
        epochs[self.local_id] = self.local_broker_epoch
        return epochs

    def _set_replicas(self, replicas: tuple[int, ...]) -> None:
        self.replicas = replicas
        self.effective_min_isr = min(self.min_isr, len(replicas))
        followers = {}
        for broker_id in replicas:
            if broker_id != self.local_id:
                since = self._now_ms if broker_id in self.isr.committed else NEVER
                followers[broker_id] = self.followers.get(broker_id) or FollowerProgress(broker_id, since)
        self.followers = followers
