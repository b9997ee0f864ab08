"""Replication quotas (KIP-73): bytes per second for the throttled replicas of a node, as a token bucket."""

from __future__ import annotations

from collections.abc import Container
from typing import Final

UNLIMITED: Final = (1 << 63) - 1
"""Kafka's default of `leader.` and `follower.replication.throttled.rate`."""
LOOK_AGAIN_MS: Final = 1_000
"""Who waits asks again so often: the rate may have been raised meanwhile, or the throttle taken away."""


class TokenBucket:
    """`rate` bytes per second on average, one second of it at once. May be overdrawn by what was already decided."""

    __slots__ = ("_at_ms", "_tokens", "rate")

    def __init__(self, rate: int, now_ms: int) -> None:
        assert rate > 0
        self.rate = rate
        self._tokens = float(rate)
        self._at_ms = now_ms

    def wait_ms(self, now_ms: int) -> int:
        """How long until something may be sent; 0: now."""
        self._refill(now_ms)
        return 0 if self._tokens > 0 else 1 + int(-self._tokens * 1000 / self.rate)

    def consume(self, size: int, now_ms: int) -> None:
        self._refill(now_ms)
        self._tokens -= size

    def _refill(self, now_ms: int) -> None:
        earned = (now_ms - self._at_ms) * self.rate / 1000
        self._tokens = min(self._tokens + earned, float(self.rate))
        self._at_ms = now_ms


class ReplicationQuota:
    """One direction of a node. `rate` is the broker's config, `throttled` the replicas that topics list for it."""

    __slots__ = ("_bucket", "throttled")

    def __init__(self) -> None:
        self._bucket: TokenBucket | None = None
        self.throttled: Container[tuple[str, int]] = frozenset()

    def configure(self, rate: int, throttled: Container[tuple[str, int]], now_ms: int) -> None:
        """Both may change at any time; what was spent under the same rate stays spent."""
        self.throttled = throttled
        if rate >= UNLIMITED:
            self._bucket = None
        elif self._bucket is None or self._bucket.rate != rate:
            self._bucket = TokenBucket(rate, now_ms)

    def applies(self, key: tuple[str, int]) -> bool:
        """Whether this replica is to be asked about at all: one attribute where there is no quota."""
        return self._bucket is not None and key in self.throttled

    def wait_ms(self, now_ms: int) -> int:
        return 0 if self._bucket is None else self._bucket.wait_ms(now_ms)

    def consume(self, size: int, now_ms: int) -> None:
        if self._bucket is not None:
            self._bucket.consume(size, now_ms)
