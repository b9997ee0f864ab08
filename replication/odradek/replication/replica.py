"""A replica that this node holds, and the role it plays. The driver changes it; the broker reads it."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from odradek.replication.follower import FollowerState
    from odradek.replication.isr import PartitionState
    from odradek.replication.leader import LeaderState
    from odradek.replication.leader_session import Outgoing
    from odradek.storage.log import Log
    from odradek.storage.reads import ReadResult

PartitionKey = tuple[bytes, int]
"""(topic id, partition)."""


class Role(Enum):
    IDLE = "idle"
    STARTING = "starting"
    """To lead as soon as (epoch, start offset) is durable."""
    LEADER = "leader"
    FOLLOWER = "follower"
    FAILED = "failed"


class ReplicaEvents(Protocol):
    """What a replica tells the broker's partition. Called on the owner's thread, in the middle of an event: a flush of
    the driver follows.
    """

    def leading(self, replica: Replica) -> None:
        """`replica.leader` is there: appends and reads may begin."""
        ...

    def high_watermark_moved(self, replica: Replica) -> None:
        """On a leader forward; on a follower also backward, when it loses what its leader does not have."""
        ...

    def isr_changed(self, replica: Replica) -> None:
        """The committed ISR of a leader."""
        ...

    def failed(self, replica: Replica, error: OSError) -> None:
        """The log is offline: it is neither led nor followed any more."""
        ...


class Replica:
    """`high_watermark` is read on the hot path."""

    __slots__ = (
        "events", "follower", "high_watermark", "key", "leader", "log", "memo", "min_isr", "on_follower_told",
        "outgoing", "role", "state", "sync_before_ack", "synced_end_offset", "topic",
    )  # fmt: skip

    def __init__(
        self, topic: str, topic_id: bytes, partition: int, log: Log, events: ReplicaEvents, *,
        high_watermark: int, min_isr: int,
    ) -> None:  # fmt: skip
        self.topic = topic
        self.key: PartitionKey = (topic_id, partition)
        self.log = log
        self.events = events
        self.role = Role.IDLE
        self.state: PartitionState | None = None
        """The newest that metadata said."""
        self.leader: LeaderState | None = None
        """Only in role LEADER."""
        self.follower: FollowerState | None = None
        """Only in role FOLLOWER."""
        self.high_watermark = max(log.log_start_offset, min(high_watermark, log.log_end_offset))
        self.min_isr = min_isr
        self.synced_end_offset = log.recovery_point
        self.sync_before_ack = False
        self.outgoing: list[Outgoing] = []
        """Followers that are being sent this partition."""
        self.memo: tuple[int, int, ReadResult] | None = None
        """(offset, end, what was read there) for the next follower that wants the same in this event."""
        self.on_follower_told: Callable[[], None] | None = None
        """Called when a follower of this leader has told its log's start and end; set while somebody waits for it."""
        self.configured()

    def __repr__(self) -> str:
        return f"Replica({self.topic}-{self.key[1]}, {self.role.value}, {self.log})"

    def configured(self) -> None:
        """Take over what the log's configuration says about acknowledging."""
        self.sync_before_ack = self.log.config.flush_messages == 1

    @property
    def name(self) -> tuple[str, int]:
        return self.topic, self.key[1]

    @property
    def counted_end_offset(self) -> int:
        """What of the own log counts for the high watermark."""
        return self.synced_end_offset if self.sync_before_ack else self.log.written_end_offset
