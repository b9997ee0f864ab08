"""When members of consumer groups are given up: sessions, revocations, and joins and syncs of classic members.

Timers go by group and member id, not by objects: what they do is an operation that looks whether the member is still
there. They are not durable; after loading every member has a whole session.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeAlias

from odradek.ports.timers import Timer

Fence: TypeAlias = Callable[[str, str, str], None]
"""(group id, member id, reason)"""


class Clockwork(Protocol):
    """The part of a shard that timers need."""

    def now_ms(self) -> int: ...

    def at(self, deadline_ms: int, callback: Callable[[int], None]) -> Timer: ...


class MemberTimers:
    """Of one member."""

    __slots__ = ("join", "rebalance", "session", "session_deadline_ms", "sync")

    def __init__(self) -> None:
        self.session: Timer | None = None
        self.session_deadline_ms = 0
        """Heartbeats move this alone; the timer finds out when it fires early."""
        self.rebalance: Timer | None = None
        self.join: Timer | None = None
        self.sync: Timer | None = None


class ConsumerTimers:
    """Of all consumer groups of one partition."""

    def __init__(self, clock: Clockwork, fence: Fence) -> None:
        """`fence` runs the removal of a member as an operation of its own."""
        self._clock = clock
        self._fence = fence
        self._members: dict[tuple[str, str], MemberTimers] = {}

    def __len__(self) -> int:
        return len(self._members)

    def keep_session(self, group_id: str, member_id: str, timeout_ms: int) -> None:
        """A sign of life."""
        timers = self._of(group_id, member_id)
        timers.session_deadline_ms = self._clock.now_ms() + timeout_ms
        if timers.session is not None and timers.session.active:
            if timers.session.deadline_ms <= timers.session_deadline_ms:
                return
            timers.session.cancel()
        self._watch(group_id, member_id, timers)

    def await_revocation(self, group_id: str, member_id: str, timeout_ms: int, *, again: bool) -> None:
        """`again`: what it has to give up has changed, so that its time begins anew."""
        timers = self._of(group_id, member_id)
        if timers.rebalance is not None:
            if not again and timers.rebalance.active:
                return
            timers.rebalance.cancel()
        reason = f"it has not revoked its partitions within {timeout_ms}ms"
        timers.rebalance = self._later(group_id, member_id, timeout_ms, reason)

    def revoked(self, group_id: str, member_id: str) -> None:
        timers = self._members.get((group_id, member_id))
        if timers is not None and timers.rebalance is not None:
            timers.rebalance.cancel()
            timers.rebalance = None

    def await_join(self, group_id: str, member_id: str, timeout_ms: int) -> None:
        """A classic member was told to join again. The first telling counts."""
        timers = self._of(group_id, member_id)
        if timers.join is None or not timers.join.active:
            reason = "the classic member failed to join within the rebalance timeout"
            timers.join = self._later(group_id, member_id, timeout_ms, reason)

    def joined(self, group_id: str, member_id: str, sync_timeout_ms: int) -> None:
        """A classic member has joined: its sync must follow."""
        timers = self._of(group_id, member_id)
        if timers.join is not None:
            timers.join.cancel()
            timers.join = None
        if timers.sync is not None:
            timers.sync.cancel()
        reason = "the member failed to sync within timeout"
        timers.sync = self._later(group_id, member_id, sync_timeout_ms, reason)

    def synced(self, group_id: str, member_id: str) -> None:
        timers = self._members.get((group_id, member_id))
        if timers is not None and timers.sync is not None:
            timers.sync.cancel()
            timers.sync = None

    def forget(self, group_id: str, member_id: str) -> None:
        """The member is gone."""
        timers = self._members.pop((group_id, member_id), None)
        if timers is not None:
            _cancel(timers)

    def close(self) -> None:
        for timers in self._members.values():
            _cancel(timers)
        self._members.clear()

    def _of(self, group_id: str, member_id: str) -> MemberTimers:
        key = group_id, member_id
        timers = self._members.get(key)
        if timers is None:
            timers = self._members[key] = MemberTimers()
        return timers

    def _later(self, group_id: str, member_id: str, timeout_ms: int, reason: str) -> Timer:
        deadline_ms = self._clock.now_ms() + max(timeout_ms, 0)
        return self._clock.at(deadline_ms, lambda _: self._fence(group_id, member_id, reason))

    def _watch(self, group_id: str, member_id: str, timers: MemberTimers) -> None:
        on_timer = partial(self._on_session, group_id, member_id, timers)
        timers.session = self._clock.at(timers.session_deadline_ms, on_timer)

    def _on_session(self, group_id: str, member_id: str, timers: MemberTimers, now_ms: int) -> None:
        if now_ms < timers.session_deadline_ms:
            self._watch(group_id, member_id, timers)
        else:
            self._fence(group_id, member_id, "the member session expired")


def _cancel(timers: MemberTimers) -> None:
    for timer in (timers.session, timers.rebalance, timers.join, timers.sync):
        if timer is not None:
            timer.cancel()
