"""What the follower of one partition does with what its leader sends, in one leader epoch. Pure: it decides, its
session carries out (follower_session.py), and reports back.

    phase        | on                                             | next
    SYNCING      | the log is fsynced                             | FETCHING, in the next generation
    FETCHING     | batches that continue the log, newer offsets   | FETCHING
                 | a divergence                                   | truncate; FETCHING, in the next generation
                 | OFFSET_OUT_OF_RANGE, and the log cannot matter | begin anew at the leader's log start; as above
                 | batches that do not fit, a corrupt batch       | BACKING_OFF, deaf to the rest of the generation
                 | FENCED_LEADER_EPOCH                            | STOPPED
                 | any other error                                | BACKING_OFF
    BACKING_OFF  | time                                           | FETCHING, in the next generation
                 | an answer without an error (leader caught up)  | as FETCHING
    any          | the disk fails                                 | FAILED

A divergence is dealt with before anything else that comes with it: the high watermark of the leader says nothing about
offsets above the point where the logs part.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple, Protocol

from odradek.replication.messages import FetchData
from odradek.wire.errors import ErrorCode

_DOUBLINGS_MAX: Final = 10


class FollowerLog(Protocol):
    """The part of a log that decisions are made from."""

    log_start_offset: int
    log_end_offset: int

    def end_offset_for_epoch(self, epoch: int) -> tuple[int, int]: ...


class Phase(Enum):
    SYNCING = "syncing"
    FETCHING = "fetching"
    BACKING_OFF = "backing off"
    STOPPED = "stopped"
    FAILED = "failed"


class Step(Enum):
    DROP = "drop"
    """Of an earlier generation."""
    TAKE = "take"
    """Append the batches if there are any, then call `taken`."""
    TRUNCATE = "truncate"
    """To `offset`, then call `truncated` and start over."""
    START_ANEW = "start anew"
    """Drop the whole log and let it begin at `offset`; then as after a truncation."""
    RETRY = "retry"
    """Start over at `retry_at_ms`."""
    STOP = "stop"


class Decision(NamedTuple):
    step: Step
    offset: int = -1


_DROP: Final = Decision(Step.DROP)
_TAKE: Final = Decision(Step.TAKE)
_RETRY: Final = Decision(Step.RETRY)
_STOP: Final = Decision(Step.STOP)


class FollowerState:
    """Attributes are plain and read-only to others."""

    __slots__ = (
        "_backoff_max_ms", "_backoff_ms", "failures", "generation", "high_watermark", "leader_epoch",
        "leader_high_watermark", "leader_id", "phase", "retry_at_ms",
    )  # fmt: skip

    def __init__(
        self, leader_id: int, leader_epoch: int, high_watermark: int, backoff_ms: int = 50,
        backoff_max_ms: int = 1_000,
    ) -> None:  # fmt: skip
        self.leader_id = leader_id
        self.leader_epoch = leader_epoch
        self.high_watermark = high_watermark
        """Of this replica; never above its log end."""
        self.leader_high_watermark = -1
        """As last heard, for lag and throttling."""
        self.generation = 0
        """0: nothing that the leader may have sent is wanted."""
        self.phase = Phase.FETCHING
        self.failures = 0
        self.retry_at_ms = 0
        self._backoff_ms = backoff_ms
        self._backoff_max_ms = backoff_max_ms

    def begin(self, generation: int) -> None:
        """A new start at the present log end."""
        self.generation = generation
        self.phase = Phase.FETCHING

    def decide(self, data: FetchData, log: FollowerLog, now_ms: int) -> Decision:
        """What to do with `data`. Nothing is changed but the phase."""
        if data.generation != self.generation or self.phase in (Phase.STOPPED, Phase.FAILED, Phase.SYNCING):
            return _DROP
        if data.error is not ErrorCode.NONE:
            return self._refused(data, log, now_ms)
        if data.leader_epoch != self.leader_epoch:
            return _DROP
        if data.diverging is not None:
            offset = truncation_offset(data.diverging, log)
            return Decision(Step.TRUNCATE, offset) if offset < log.log_end_offset else self.reject(now_ms)
        if data.batches and data.fetch_offset != log.log_end_offset:
            return self.reject(now_ms)
        return _TAKE

    def taken(self, data: FetchData, log_end: int) -> bool:
        """What `data` held is in the log, which ends at `log_end`; whether the high watermark moved."""
        self.phase = Phase.FETCHING
        self.failures = 0
        self.leader_high_watermark = data.high_watermark
        # A new leader may know less of the high watermark than this replica: what was committed stays so.
        high_watermark = min(data.high_watermark, log_end)
        if high_watermark <= self.high_watermark:
            return False
        self.high_watermark = high_watermark
        return True

    def truncated(self, log_end: int) -> None:
        """The log was cut. What it holds of producers and epochs is rebuilt by then; the high watermark is last."""
        self.high_watermark = min(self.high_watermark, log_end)

    def restarted_at(self, log_start: int) -> None:
        """The log was dropped and begins at the leader's log start; everything below that is committed."""
        self.high_watermark = log_start

    def reject(self, now_ms: int) -> Decision:
        """What came does not fit: start over, but not at once, and take nothing more of this generation."""
        self.generation = 0
        return self._back_off(now_ms)

    def _back_off(self, now_ms: int) -> Decision:
        delay = min(self._backoff_ms << min(self.failures, _DOUBLINGS_MAX), self._backoff_max_ms)
        self.failures += 1
        self.retry_at_ms = now_ms + delay
        self.phase = Phase.BACKING_OFF
        return _RETRY

    def fail(self) -> None:
        self.phase = Phase.FAILED

    def _refused(self, data: FetchData, log: FollowerLog, now_ms: int) -> Decision:
        if data.error is ErrorCode.FENCED_LEADER_EPOCH:
            self.phase = Phase.STOPPED
            return _STOP
        if data.error is ErrorCode.OFFSET_OUT_OF_RANGE:
            empty = log.log_end_offset == log.log_start_offset
            if log.log_end_offset < data.log_start_offset or empty:
                return Decision(Step.START_ANEW, data.log_start_offset)
        return self._back_off(now_ms)


def truncation_offset(diverging: tuple[int, int], log: FollowerLog) -> int:
    """Where to cut: min(leader's end, own end of the largest epoch ≤ the leader's) (KIP-279)."""
    epoch, end = diverging
    own_epoch, own_end = log.end_offset_for_epoch(epoch)
    if own_epoch < 0:
        own_end = log.log_end_offset  # no epoch above `epoch` in this log
    return min(end, own_end, log.log_end_offset)
