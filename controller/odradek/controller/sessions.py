"""Broker sessions: who was heard of when. Soft state of the active controller, gone with its leadership.

After a change of controller every registered broker has a whole session timeout to be heard of; but a
broker counts as *alive*, and its id as taken, only after a heartbeat has reached this very controller. A
restarted node therefore gets its own id back at once, and what an older incarnation may still say is
refused by its epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

NEVER = 2**63 - 1
TRUSTED_SESSIONS = 10
"""For so many session timeouts a broker is believed that was heard of after it was called unreachable."""


@dataclass(slots=True)
class Session:
    epoch: int
    fenced: bool
    last_contact_ms: int
    """Time from which the timeout counts: of the last heartbeat, the registration, or the activation."""
    metadata_offset: int = -1
    """How far the broker has applied metadata, as it said last."""
    heard: bool = False
    """A heartbeat of this epoch has reached this controller, and nothing that says that its process ended."""
    shutdown_offset: int = -1
    """Set in controlled shutdown: the other brokers must have applied this offset before the broker may go.
    """
    fenced_at: int = -1
    """Offset of the record that fenced the broker for its silence: it must have applied it to come back."""
    accused: bool = False
    """It was called unreachable, and not heard of since."""
    trusted_until_ms: int = -1


class Sessions:
    """Sessions of registered brokers, by id. Times in monotonic milliseconds."""

    def __init__(self, timeout_ms: int) -> None:
        self._timeout_ms = timeout_ms
        self._sessions: dict[int, Session] = {}

    def __getitem__(self, broker_id: int) -> Session:
        return self._sessions[broker_id]

    def clear(self) -> None:
        self._sessions.clear()

    def register(self, broker_id: int, epoch: int, fenced: bool, now_ms: int) -> None:
        """A broker registered, or is known to be registered. An amended registration keeps its session."""
        session = self._sessions.get(broker_id)
        if session is not None and session.epoch == epoch:
            session.fenced, session.last_contact_ms = fenced, now_ms
            if fenced:
                session.shutdown_offset = -1
        else:
            self._sessions[broker_id] = Session(epoch, fenced, now_ms)

    def remove(self, broker_id: int) -> None:
        self._sessions.pop(broker_id, None)

    def touch(self, broker_id: int, fenced: bool, metadata_offset: int, now_ms: int) -> None:
        """A heartbeat came."""
        session = self._sessions[broker_id]
        session.last_contact_ms = now_ms
        session.metadata_offset = metadata_offset
        session.heard = True
        session.fenced = fenced
        if fenced:
            session.shutdown_offset = -1
        if session.accused and metadata_offset >= session.fenced_at:
            session.accused = False
            session.trusted_until_ms = now_ms + TRUSTED_SESSIONS * self._timeout_ms

    def fence(self, broker_id: int, offset: int) -> None:
        """The broker is fenced by the record at `offset`, without having asked for it."""
        session = self._sessions[broker_id]
        session.fenced = True
        session.heard = False
        session.fenced_at = offset

    def ended(self, broker_id: int) -> None:
        """The broker has been told that it may go."""
        self._sessions[broker_id].heard = False

    def accuse(self, broker_id: int, now_ms: int) -> bool:
        """Somebody's connection to the broker was refused; whether that is believed."""
        session = self._sessions[broker_id]
        session.accused = now_ms >= session.trusted_until_ms
        return session.accused

    def is_alive(self, broker_id: int, now_ms: int) -> bool:
        """Whether a running process holds this id: it was heard of here, within the timeout."""
        session = self._sessions.get(broker_id)
        if session is None or not session.heard:
            return False
        return session.last_contact_ms + self._timeout_ms >= now_ms

    def stale(self, now_ms: int) -> list[int]:
        """Unfenced brokers whose session has run out, the longest silent first."""
        limit = now_ms - self._timeout_ms
        unfenced = ((s.last_contact_ms, broker_id) for broker_id, s in self._sessions.items() if not s.fenced)
        return [broker_id for contact_ms, broker_id in sorted(unfenced) if contact_ms < limit]

    def next_check_ms(self) -> int:
        """When the next session can run out; NEVER without unfenced brokers."""
        contacts = [session.last_contact_ms for session in self._sessions.values() if not session.fenced]
        return min(contacts) + self._timeout_ms + 1 if contacts else NEVER

    def lowest_active_offset(self) -> int:
        """Metadata offset that all unfenced brokers which are not shutting down have applied; NEVER without
        any.
        """
        active = (s for s in self._sessions.values() if not s.fenced and s.shutdown_offset < 0)
        return min((session.metadata_offset for session in active), default=NEVER)
