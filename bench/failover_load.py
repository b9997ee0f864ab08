"""The producer of `python -m bench failover`: a real client that writes all the time, and remembers when."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from typing import Any

from bench.raw_client import BenchError

AFTERWARDS_S = 1.0
"""The gap is looked for until acknowledgements have flowed for so long again."""
FRESH_S = 0.2
LOOKED_AT = 4_000
CLIENT = {
    "enable.idempotence": True,
    "acks": "all",
    "linger.ms": 0,
    "retry.backoff.ms": 20,
    "retry.backoff.max.ms": 100,
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 100,
    "socket.timeout.ms": 2_000,
    "request.timeout.ms": 2_000,
    "message.timeout.ms": 60_000,
    "log_level": 0,
}


class Load(threading.Thread):
    """A record every few milliseconds to each partition in turn; when each was acknowledged, by partition."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        super().__init__(daemon=True)
        from confluent_kafka import Producer

        self.topic = topic
        self.acknowledged: list[list[float]] = [[] for _ in range(partitions)]
        self.errors: list[str] = []
        """Records the client gave up: what an application sees of a failure."""
        self._producer = Producer({"bootstrap.servers": bootstrap, **CLIENT})
        self._stop_asked = threading.Event()

    def run(self) -> None:
        number = 0
        while not self._stop_asked.is_set():
            partition = number % len(self.acknowledged)
            self._producer.produce(self.topic, b"x" * 100, partition=partition, on_delivery=self._delivered)
            number += 1
            self._producer.poll(0.001)

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self.errors.append(str(error))
        else:
            self.acknowledged[message.partition()].append(time.monotonic())

    def finish(self) -> None:
        """BenchError if records are left."""
        self._stop_asked.set()
        self.join(40)
        left = self._producer.flush(30)
        if left:
            raise BenchError(f"{left} records were not delivered")

    @property
    def has_begun(self) -> bool:
        """Whether every partition has acknowledged something."""
        return all(self.acknowledged)

    def flows_since(self, moment: float) -> bool:
        """Whether every partition has been acknowledged lately, and has been for a while since `moment`."""
        now = time.monotonic()
        return now - moment > AFTERWARDS_S and all(
            times
            and now - times[-1] < FRESH_S
            and any(moment < when < now - AFTERWARDS_S for when in times[-LOOKED_AT:])
            for times in self.acknowledged
        )

    def gap_ms(self, moment: float) -> float:
        """The longest time without an acknowledgement of one partition that had not ended at `moment`."""
        return max(longest_gap(times, moment) for times in self.acknowledged) * 1_000


def longest_gap(times: list[float], moment: float) -> float:
    """Seconds, counted from `moment`, between two of `times` (ascending)."""
    later = [moment, *(when for when in times if when > moment)]
    return max((after - before for before, after in pairwise(later)), default=0.0)
