"""Stock clients that remember, and the comparison of what they were told with what is there."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from integration.machines import PATIENCE_S, Cluster
from interop.cluster import eventually, unique

T = TypeVar("T")

TOPIC = "events"
PAUSE_S = 0.01
BURST = 10
"""A thousand a second: writers that keep two cores busy would only make what they wait for late."""
AHEAD_MAX = 2_000
"""Records that wait for their acknowledgement."""


def settings(cluster: Cluster, **more: Any) -> dict[str, Any]:
    """Of a client that is quick to try again, and keeps its log to itself."""
    return {
        "bootstrap.servers": cluster.bootstrap,
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 200,
        "log_level": 0,
        **{key.replace("_", "."): value for key, value in more.items()},
    }


def create_topic(
    cluster: Cluster, topic: str = TOPIC, partitions: int = 1, replication: int = 3, **configs: str
) -> str:
    """Created, led, and in sync everywhere."""
    admin = AdminClient(settings(cluster))
    new = NewTopic(
        topic, partitions, replication, config={k.replace("_", "."): v for k, v in configs.items()}
    )
    admin.create_topics([new], request_timeout=PATIENCE_S)[topic].result(PATIENCE_S)
    cluster.await_isr(topic, replication, partitions)
    return topic


def persist(step: Callable[[], T]) -> T:
    """Its result, once the client does not say any more that it may be done again."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return step()
        except KafkaException as error:
            # librdkafka hands the second one to whoever asks for committed offsets, and calls it final.
            again = error.args[0].retriable() or error.args[0].code() == KafkaError.NOT_COORDINATOR
            if not again or time.monotonic() > deadline:
                raise
        time.sleep(0.05)


class Writer(threading.Thread):
    """Writes with one idempotent producer, round the partitions, until it is told to stop; it waits only while
    AHEAD_MAX records are on their way.

    `acknowledged` has (partition, offset, number) in the order of the acknowledgements; `failures` what was not
    delivered; `longest_gap_s` the longest time without an acknowledgement.
    """

    def __init__(self, cluster: Cluster, topic: str = TOPIC, partitions: int = 1, **more: Any) -> None:
        super().__init__(daemon=True)
        self.topic, self.partitions = topic, partitions
        self.acknowledged: list[tuple[int, int | None, int]] = []
        self.failures: list[str] = []
        self.sent = 0
        self.longest_gap_s = 0.0
        self._last = time.monotonic()
        self._stop_asked = threading.Event()
        self._abandoned = False
        self._producer = Producer(
            settings(
                cluster,
                enable_idempotence=True,
                acks="all",
                linger_ms=1,
                retry_backoff_ms=20,
                retry_backoff_max_ms=200,
                message_timeout_ms=int(2 * PATIENCE_S * 1_000),
                **more,
            )
        )
        cluster.at_end.append(self.abandon)
        self.start()

    def run(self) -> None:
        while not self._stop_asked.is_set():
            for _ in range(BURST if len(self._producer) < AHEAD_MAX else 0):
                partition = self.sent % self.partitions
                self._producer.produce(
                    self.topic, b"%d" % self.sent, b"k%d" % partition, partition, on_delivery=self._delivered
                )
                self.sent += 1
            self._producer.poll(PAUSE_S)
        while self._producer.flush(0.1) and not self._abandoned:
            continue

    def _delivered(self, error: Any, message: Any) -> None:
        now = time.monotonic()
        if self.acknowledged:
            self.longest_gap_s = max(self.longest_gap_s, now - self._last)
        self._last = now
        if error is not None:
            self.failures.append(str(error))
        else:
            self.acknowledged.append((message.partition(), message.offset(), int(message.value())))

    def await_more(self, count: int = 250) -> None:
        """So many acknowledgements of records that are sent from now on."""
        begin = self.sent

        def arrived() -> bool:
            return sum(number >= begin for _, _, number in self.acknowledged[-2 * count :]) >= count

        eventually(arrived, PATIENCE_S, f"no {count} acknowledgements; failures: {self.failures[:1]}")

    def abandon(self) -> None:
        """Give up what is not acknowledged."""
        self._abandoned = True
        self._stop_asked.set()
        self._producer.purge()
        self.join(10)

    def finish(self) -> None:
        """Everything that was sent is acknowledged."""
        self._stop_asked.set()
        self.join(2 * PATIENCE_S + 10)
        assert not self.is_alive(), "the producer did not finish"
        assert self.failures == []
        assert len(self.acknowledged) == self.sent


def read(
    cluster: Cluster, topic: str, partitions: int = 1, count: int = 0
) -> dict[int, list[tuple[int, int]]]:
    """(offset, number) of every record by partition, to the end as it is now, or until there are `count`."""
    consumer = Consumer(
        settings(cluster, group_id=unique("reader"), enable_partition_eof=True, enable_auto_commit=False)
    )
    consumer.assign([TopicPartition(topic, index, 0) for index in range(partitions)])
    found: dict[int, list[tuple[int, int]]] = defaultdict(list)
    total, ended = 0, set()
    deadline = time.monotonic() + PATIENCE_S
    while total < count or (not count and len(ended) < partitions):
        assert time.monotonic() < deadline, f"{total} of {count} records were read"
        for message in consumer.consume(1_000, 0.2):
            if message.error() is not None:
                ended.add(message.partition())
                continue
            found[message.partition()].append((message.offset(), int(message.value())))
            total += 1
    consumer.close()
    return dict(found)


def verify(cluster: Cluster, writer: Writer) -> None:
    """Nothing acknowledged is missing or elsewhere, nothing is there twice, each partition is in order.

    librdkafka takes a batch whose answer was lost for written when a later one is acknowledged; then without an offset.
    """
    found = read(cluster, writer.topic, writer.partitions, len(writer.acknowledged))
    for partition, records in found.items():
        numbers = [number for _, number in records]
        assert numbers == sorted(set(numbers)), f"partition {partition} is out of order or has duplicates"
        there, present = dict(records), set(numbers)
        wrong = [
            (offset, number, there.get(offset))
            for part, offset, number in writer.acknowledged
            if part == partition
            and (number not in present if offset is None else there.get(offset) != number)
        ]
        assert not wrong, f"{len(wrong)} acknowledged records are not where they were, such as {wrong[:3]}"
    assert sum(map(len, found.values())) == writer.sent
