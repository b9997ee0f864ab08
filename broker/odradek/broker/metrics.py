"""What a node counts: plain ints, added to on the request path and read when somebody scrapes.

Nothing here formats, locks or knows Prometheus; metrics_export.py gives these numbers the names Kafka's
exporters use.
"""

from __future__ import annotations

from collections.abc import Iterator

BUCKET_COUNT = 40
"""A request that took `ns` counts in bucket `ns.bit_length()`: each bucket is twice as wide as the one
before it.
"""


class TopicMetrics:
    """One topic on this node. Handlers add to the attributes."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "failed_fetch",
        "failed_produce",
        "fetch_requests",
        "messages_in",
        "produce_requests",
    )

    def __init__(self) -> None:
        self.messages_in = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.produce_requests = 0
        self.fetch_requests = 0
        self.failed_produce = 0
        self.failed_fetch = 0

    def add(self, other: TopicMetrics) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class ApiMetrics:
    """One Kafka API: how often, how long."""

    __slots__ = ("buckets", "errors", "requests", "time_ns_total")

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.time_ns_total = 0
        self.buckets = [0] * BUCKET_COUNT

    def observe(self, ns: int, count: int = 1) -> None:
        """`count` requests were answered `ns` after they had been read."""
        self.requests += count
        self.time_ns_total += ns * count
        bucket = ns.bit_length()
        self.buckets[bucket if bucket < BUCKET_COUNT else BUCKET_COUNT - 1] += count


class BrokerMetrics:
    """All counters of a node. Topics that are deleted leave their counts in the totals and go."""

    def __init__(self) -> None:
        self.topics: dict[str, TopicMetrics] = {}
        self.apis: dict[int, ApiMetrics] = {}
        self.connections_opened = 0
        self.bad_requests = 0
        """Connections closed for what they sent."""
        self._gone = TopicMetrics()

    def topic(self, name: str) -> TopicMetrics:
        """The topic's counters; callers keep them."""
        found = self.topics.get(name)
        if found is None:
            found = self.topics[name] = TopicMetrics()
        return found

    def api(self, key: int) -> ApiMetrics:
        """The API's counters; callers keep them."""
        found = self.apis.get(key)
        if found is None:
            found = self.apis[key] = ApiMetrics()
        return found

    def drop_topic(self, name: str) -> None:
        """Forget a deleted topic, so that names do not pile up."""
        found = self.topics.pop(name, None)
        if found is not None:
            self._gone.add(found)

    def all_topics(self) -> TopicMetrics:
        """The sum over all topics there ever were: it never falls."""
        total = TopicMetrics()
        for each in (self._gone, *self.topics.values()):
            total.add(each)
        return total

    def by_topic(self) -> Iterator[tuple[str, TopicMetrics]]:
        return iter(sorted(self.topics.items()))


def quantile_ms(buckets: list[int], quantile: float) -> float:
    """The duration below which this share of requests stayed, in ms, as exact as doubling buckets allow.

    Within a bucket requests are taken to be spread evenly; no requests is 0.
    """
    total = sum(buckets)
    if not total:
        return 0.0
    wanted = quantile * total
    below = 0
    for index, count in enumerate(buckets):
        if count and below + count >= wanted:
            low = 0 if index == 0 else 1 << (index - 1)
            high = 0 if index == 0 else 1 << index
            share = (wanted - below) / count
            return (low + (high - low) * share) / 1e6
        below += count
    return float(1 << (BUCKET_COUNT - 1)) / 1e6
