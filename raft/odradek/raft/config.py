"""Settings of the quorum, in Kafka's words (`controller.quorum.*`), all times in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class RaftConfig:
    """Every field is checked on creation; ValueError names the one that is wrong."""

    election_timeout_ms: int = 1000
    """`controller.quorum.election.timeout.ms`: a candidate waits this long plus up to as much again, at
    random.
    """
    fetch_timeout_ms: int = 1000
    """`controller.quorum.fetch.timeout.ms`: silence of the leader after which a follower starts a pre-vote.
    """
    fetch_timeout_jitter_ms: int = 200
    """Up to this much is added to the fetch timeout, so that followers rarely stand for election together."""
    election_backoff_max_ms: int = 200
    """`controller.quorum.election.backoff.max.ms`: longest random pause after a lost election."""
    request_timeout_ms: int = 600
    """`controller.quorum.request.timeout.ms`: when an unanswered request is given up; above
    `fetch_max_wait_ms`.
    """
    retry_backoff_ms: int = 20
    """`controller.quorum.retry.backoff.ms`: pause before asking again after an error."""
    fetch_max_wait_ms: int = 300
    """How long a leader holds a fetch for which it has nothing new; below the fetch timeout."""
    fetch_max_bytes: int = 1 << 20
    """Record bytes in one answer (one batch larger than this is sent whole)."""
    snapshot_chunk_bytes: int = 512 * 1024
    """Snapshot bytes in one answer."""
    snapshots_retained: int = 2
    """Snapshots kept; the log starts at the oldest. Two let a follower finish loading while a new one
    appears.
    """
    observer_session_ms: int = 300_000
    """An observer that has not fetched for so long is forgotten."""
    append_max_records: int = 100_000
    """Most records of one append; bounds what one batch can cost."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            low = 0 if item.name in ("fetch_timeout_jitter_ms", "election_backoff_max_ms") else 1
            if not low <= value < 1 << 31:
                raise ValueError(f"{item.name} must be from {low} to {(1 << 31) - 1}, not {value}")
        if self.fetch_max_wait_ms >= min(self.fetch_timeout_ms, self.request_timeout_ms):
            raise ValueError("fetch_max_wait_ms must be below fetch_timeout_ms and request_timeout_ms")

    @property
    def check_quorum_ms(self) -> int:
        """A leader that no majority has fetched from for so long resigns: 1.5 × the fetch timeout, as in
        Kafka.
        """
        return self.fetch_timeout_ms * 3 // 2
