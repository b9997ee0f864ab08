"""One member of a classic group."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from odradek.ports.timers import Timer
from odradek.wire.messages.join_group import JoinGroupResponse
from odradek.wire.messages.sync_group import SyncGroupResponse

Protocols = Sequence[tuple[str, bytes]]
"""Name and metadata of each assignment strategy a member supports, the most wanted first."""


class Member:
    """What the group knows of a member, and whom to answer when its join or sync is decided.

    A member is *static* if it has a group instance id (KIP-345). `awaiting_join` and `awaiting_sync` are the
    pending requests of the member; it has at most one of each, and a newer one takes the place of an older one.
    """

    __slots__ = (
        "assignment",
        "awaiting_join",
        "awaiting_sync",
        "client_host",
        "client_id",
        "instance_id",
        "is_new",
        "member_id",
        "protocol_type",
        "protocols",
        "rebalance_timeout_ms",
        "session_deadline_ms",
        "session_timeout_ms",
        "session_timer",
    )

    def __init__(
        self,
        member_id: str,
        instance_id: str | None,
        client_id: str,
        client_host: str,
        rebalance_timeout_ms: int,
        session_timeout_ms: int,
        protocol_type: str,
        protocols: Protocols,
        assignment: bytes = b"",
    ) -> None:
        self.member_id = member_id
        self.instance_id = instance_id
        self.client_id = client_id
        self.client_host = client_host
        self.rebalance_timeout_ms = rebalance_timeout_ms
        self.session_timeout_ms = session_timeout_ms
        self.protocol_type = protocol_type
        self.protocols = protocols
        self.assignment = assignment
        self.awaiting_join: Callable[[JoinGroupResponse], None] | None = None
        self.awaiting_sync: Callable[[SyncGroupResponse], None] | None = None
        self.is_new = False
        """Joined for the first time and not yet answered: it cannot heartbeat, so its join itself may expire."""
        self.session_timer: Timer | None = None
        self.session_deadline_ms = 0
        """When the session ends. Heartbeats move this alone; the timer finds out when it fires early."""

    @property
    def is_static(self) -> bool:
        return self.instance_id is not None

    def metadata_of(self, protocol: str | None) -> bytes:
        """The member's metadata for the group's protocol, which it supports by the group's own rules."""
        for name, metadata in self.protocols:
            if name == protocol:
                return metadata
        raise AssertionError(f"member {self.member_id} does not support protocol {protocol}")

    def vote(self, candidates: Collection[str]) -> str:
        """Its most wanted protocol among those that every member supports."""
        for name, _ in self.protocols:
            if name in candidates:
                return name
        raise AssertionError(f"member {self.member_id} supports none of the candidates")

    def is_held_by_request(self) -> bool:
        """Whether a waiting join or sync keeps the session alive in place of heartbeats."""
        return not self.is_new and (self.awaiting_join is not None or self.awaiting_sync is not None)
