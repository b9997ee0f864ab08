"""A compacted topic on three nodes that are killed while it is written to: the last value of each key, everywhere."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from integration.clients import create_topic, settings
from integration.conftest import MakeCluster
from integration.machines import PATIENCE_S, TIMEOUT_S, Cluster
from interop.cluster import eventually, unique

pytestmark = pytest.mark.timeout(TIMEOUT_S)

TOPIC = "last-flights"
KEYS = 40
VALUE = bytes(2_000)
END = b"the end"
Found = dict[bytes, tuple[int, int]]
"""By key: how many records, and the number of the last."""


class Updates:
    """Writes the keys round after round, and remembers what must be left."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.expected: Found = {}
        self.failures: list[str] = []
        self.producer = Producer(settings(cluster, enable_idempotence=True, acks="all", linger_ms=2))
        self.number = 0
        self.last = -1
        """Offset of the last record that was acknowledged with one."""

    def write(self, count: int) -> None:
        for _ in range(count):
            key = b"N%d" % (self.number % KEYS)
            self.expected[key] = 1, self.number
            self.producer.produce(TOPIC, b"%d %b" % (self.number, VALUE), key, on_delivery=self._delivered)
            self.number += 1
        assert self.producer.flush(PATIENCE_S) == 0
        assert not self.failures

    def end(self) -> None:
        """Two records that do not fit one segment: all others are in closed ones now."""
        for _ in range(2):
            self.producer.produce(TOPIC, bytes(900_000), END, on_delivery=self._delivered)
        assert self.producer.flush(PATIENCE_S) == 0
        assert not self.failures

    def _delivered(self, error: object, message: Any) -> None:
        if error is not None:
            self.failures.append(str(error))
        else:
            self.last = max(self.last, message.offset() or -1)


def read(cluster: Cluster, last: int) -> Found:
    """Up to `last` at least: a leader that has just been elected tells for a moment of an earlier end."""
    consumer = Consumer(settings(cluster, group_id=unique("g")))
    consumer.assign([TopicPartition(TOPIC, 0, 0)])
    found: Found = {}
    position = [-1]

    def at_end() -> bool:
        for message in consumer.consume(1_000, 0.1):
            if message.error() is not None:
                continue
            position[0] = message.offset()
            if message.key() != END:
                count, _ = found.get(message.key(), (0, 0))
                found[message.key()] = count + 1, int(message.value().split(b" ", 1)[0])
        return position[0] >= last

    eventually(at_end, PATIENCE_S, "the topic cannot be read to its end", every_s=0)
    consumer.close()
    return found


def await_compacted(cluster: Cluster, updates: Updates) -> None:
    """The values are right all the time; in the end there is one of each."""
    expected = updates.expected

    def compacted() -> bool:
        found = read(cluster, updates.last)
        assert {key: number for key, (_, number) in found.items()} == {
            key: number for key, (_, number) in expected.items()
        }
        return found == expected

    eventually(compacted, PATIENCE_S, f"there are more than {len(expected)} records left", every_s=0.3)


def workers_of(cluster: Cluster, node: int) -> list[int]:
    """Processes that compact for the node."""
    parent = cluster.processes[node].pid()
    found: list[int] = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = status.read_text()
        except OSError:  # it has just ended
            continue
        if int(text.rpartition(")")[2].split()[1]) == parent:
            found.append(int(status.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")
def test_every_replica_keeps_the_last_value_of_each_key_whoever_is_killed(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(log_cleaner_backoff_ms="200")
    cluster.start()
    configs = {"cleanup_policy": "compact", "segment_bytes": str(1 << 20), "min_cleanable_dirty_ratio": "0"}
    create_topic(cluster, TOPIC, **configs)
    updates = Updates(cluster)
    updates.write(2_000)
    leader = cluster.leader(TOPIC)

    def worker_is_killed() -> bool:
        try:
            os.kill(workers_of(cluster, leader)[0], signal.SIGKILL)
        except (IndexError, ProcessLookupError):  # there is none now
            return False
        return True

    eventually(worker_is_killed, PATIENCE_S, "nobody compacts")
    updates.write(1_000)
    cluster.kill(leader)
    updates.write(1_000)
    cluster.start(leader)
    cluster.await_isr(TOPIC, 3)
    updates.write(1_000)
    updates.end()
    await_compacted(cluster, updates)
    for _ in range(2):
        leader = cluster.leader(TOPIC)
        cluster.kill(leader)
        await_compacted(cluster, updates)
        cluster.start(leader)
        cluster.await_isr(TOPIC, 3)
