"""Times and bounds of replication."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class ReplicationConfig:
    """Times in ms, sizes in bytes. A name with dots is Kafka's key."""

    replica_lag_time_max_ms: int = 5_000
    """`replica.lag.time.max.ms`: a follower that has not been caught up for longer leaves the ISR."""
    partition_window_bytes: int = 2 << 20
    """What a leader sends of one partition before the follower acknowledges some of it."""
    stream_window_bytes: int = 8 << 20
    """What a follower lets one leader have under way: its credit."""
    high_watermark_linger_ms: int = 5
    """How long a newer high watermark waits for batches to travel with."""
    join_linger_ms: int = 5
    """How long small batches wait at most for an acknowledgement, so that they travel together."""
    fetch_backoff_ms: int = 50
    """After a leader refused a partition; doubles up to `backoff_max_ms`."""
    reconnect_backoff_ms: int = 50
    """After a stream ended; doubles up to `backoff_max_ms`."""
    alter_backoff_ms: int = 50
    """Before the controller is asked again; doubles up to `backoff_max_ms`."""
    backoff_max_ms: int = 1_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name.endswith("linger_ms") else 1
            if value < least:
                raise ValueError(f"{field.name}: {value} is below {least}")
