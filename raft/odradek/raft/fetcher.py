"""The pulling side: the one request that is under way, when to ask again, and the download of a snapshot.

Bookkeeping only; what an answer changes is decided in `core.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from odradek.raft.log_index import SnapshotId


@dataclass(slots=True, eq=False)
class Download:
    """A snapshot on its way from the leader."""

    snapshot: SnapshotId
    position: int = 0
    installing: bool = False
    """All bytes are here; nothing is fetched, and no election is held, until the log restarts at its end."""


@dataclass(slots=True, eq=False)
class Fetcher:
    """At most one fetch is under way; its answer is known by its request id."""

    request_timeout_ms: int
    retry_backoff_ms: int
    request_id: int = -1
    """Of the request under way, or -1."""
    timeout_at_ms: int = 0
    retry_at_ms: int = 0
    download: Download | None = None

    @property
    def is_waiting(self) -> bool:
        return self.request_id != -1

    @property
    def is_installing(self) -> bool:
        return self.download is not None and self.download.installing

    def sent(self, request_id: int, now_ms: int) -> None:
        assert not self.is_waiting
        self.request_id = request_id
        self.timeout_at_ms = now_ms + self.request_timeout_ms

    def answered(self, request_id: int) -> bool:
        """Whether this answer is the one waited for; it is no longer waited for then."""
        if request_id != self.request_id:
            return False
        self.request_id = -1
        return True

    def back_off(self, now_ms: int) -> None:
        self.retry_at_ms = now_ms + self.retry_backoff_ms

    def reset(self) -> None:
        """Another leader or epoch: whatever was under way no longer counts. An installation runs to its
        end.
        """
        self.request_id = -1
        self.retry_at_ms = 0
        if not self.is_installing:
            self.download = None

    def expire(self, now_ms: int) -> None:
        if self.is_waiting and now_ms >= self.timeout_at_ms:
            self.request_id = -1

    def deadline_ms(self) -> int:
        return self.timeout_at_ms if self.is_waiting else self.retry_at_ms
