"""Counters of replication: plain ints, read at scrape. Kafka's meters that they feed are named beside them."""

from __future__ import annotations


class ReplicationMetrics:
    __slots__ = (
        "bytes_in", "bytes_out", "corrupt_batches", "divergences", "dropped", "failed_isr_updates",
        "fetch_errors", "isr_expands", "isr_shrinks", "messages_in", "messages_out", "offset_resets",
        "streams_ended", "streams_opened", "throttled", "truncated_offsets",
    )  # fmt: skip

    def __init__(self) -> None:
        self.bytes_in = 0
        """ReplicationBytesInPerSec."""
        self.bytes_out = 0
        """ReplicationBytesOutPerSec."""
        self.messages_in = 0
        self.messages_out = 0
        self.isr_shrinks = 0
        """IsrShrinksPerSec."""
        self.isr_expands = 0
        """IsrExpandsPerSec."""
        self.failed_isr_updates = 0
        """FailedIsrUpdatesPerSec."""
        self.fetch_errors = 0
        """Answers with an error that this node got as a follower."""
        self.divergences = 0
        self.truncated_offsets = 0
        self.offset_resets = 0
        """Replicas begun anew at the leader's log start."""
        self.corrupt_batches = 0
        """Batches from a leader that were refused."""
        self.dropped = 0
        """Answers to an earlier session or generation."""
        self.throttled = 0
        self.streams_opened = 0
        self.streams_ended = 0
