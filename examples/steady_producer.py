"""Records into a topic at a steady pace, slow enough that leaders die on the way; none is lost, none comes twice."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from flights import Failed

QUICK = {
    "retry.backoff.ms": 20,
    "retry.backoff.max.ms": 200,
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 200,
    "log_level": 0,
}
"""Settings of a librdkafka client that looks for a new leader without delay, and is silent about the old one."""
FLUSH_S = 120


class Deliveries:
    """What was acknowledged, and the longest time without."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.longest_s = 0.0
        self._last = 0.0

    def delivered(self, error: Any, _message: Any) -> None:
        now = time.monotonic()
        if self._last:
            self.longest_s = max(self.longest_s, now - self._last)
        self._last = now
        if error is not None:
            self.failures.append(str(error))


def produce_steadily(
    bootstrap: str, topic: str, records: Iterable[tuple[bytes | None, bytes]], per_s: float
) -> Deliveries:
    """Every (key, value), `per_s` of them in a second; Failed if one was not acknowledged."""
    from confluent_kafka import Producer

    deliveries = Deliveries()
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",  # the partition that a Java client would choose
            "compression.type": "lz4",
            "linger.ms": 5,
            **QUICK,
        }
    )
    began = time.monotonic()
    for number, (key, value) in enumerate(records):
        while True:
            try:
                producer.produce(topic, value, key, on_delivery=deliveries.delivered)
                break
            except BufferError:
                producer.poll(0.1)
        if number % 100 == 0:
            producer.poll(0)
            while (early_s := began + number / per_s - time.monotonic()) > 0:
                producer.poll(early_s)
    left = producer.flush(FLUSH_S)
    if left or deliveries.failures:
        count = left + len(deliveries.failures)
        raise Failed(f"{count:,} records were not delivered: {deliveries.failures[:1]}")
    return deliveries
