"""Stock clients that write one transaction after the other, in the background, while a test breaks what they write to.

Each transaction is one record, its number, to every partition; every fifth is aborted on purpose. `check` compares what
a read_committed consumer finds with what the writer was told.
"""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from interop import jvm
from interop.cluster import PATIENCE_S, eventually

ABORT_EVERY = 5
SOURCE = Path(__file__).parent / "clients" / "TransactionalClient.java"


class Writer:
    """What a writer was told, by number of the transaction."""

    def __init__(self, bootstrap: str, topic: str, partitions: int, transactional_id: str) -> None:
        self.bootstrap = bootstrap
        self.topic = topic
        self.partitions = partitions
        self.transactional_id = transactional_id
        self.committed: list[int] = []
        self.aborted: list[int] = []
        self.unknown: list[int] = []
        self.said: list[str] = []
        """Errors, in the client's words."""

    def await_more(self, count: int = 10) -> None:
        """So many more transactions are committed."""
        enough = len(self.committed) + count
        eventually(
            lambda: len(self.committed) >= enough,
            PATIENCE_S,
            f"{self.transactional_id} does not go on: {self.said[-5:]}",
        )

    def note(self, what: str, number: int, error: object = None) -> None:
        getattr(self, what).append(number)
        if error:
            self.said.append(f"{number}: {error}")

    def finish(self) -> None:
        """Stop after the transaction under way."""
        raise NotImplementedError

    def check(self) -> None:
        """All or nothing, in every partition, in order, once."""
        found = read_committed(self.bootstrap, self.topic, self.partitions)
        assert self.committed, self.said
        assert self.aborted
        certain, possible = set(self.committed), set(self.committed) | set(self.unknown)
        for partition, numbers in found.items():
            assert numbers == sorted(set(numbers)), f"partition {partition}: twice, or out of order"
            assert certain <= set(numbers), f"partition {partition} lost {sorted(certain - set(numbers))}"
            assert set(numbers) <= possible, f"partition {partition} has {sorted(set(numbers) - possible)}"
        assert len(set(map(tuple, found.values()))) == 1, "a transaction is in some partitions only"


class ConfluentWriter(Writer):
    """librdkafka, in a thread."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def finish(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), self.said[-5:]

    def _producer(self) -> Producer:
        while True:
            producer = Producer(
                {
                    "bootstrap.servers": self.bootstrap,
                    "transactional.id": self.transactional_id,
                    "transaction.timeout.ms": 15_000,
                    "log_level": 0,
                }
            )
            try:
                producer.init_transactions(PATIENCE_S)
            except KafkaException as error:
                self.said.append(f"init: {error}")
                if self._stop.is_set():
                    raise
            else:
                return producer

    def _run(self) -> None:
        producer = self._producer()
        number = 0
        while not self._stop.is_set():
            number += 1
            abort = number % ABORT_EVERY == 0
            ending = False
            try:
                producer.begin_transaction()
                for partition in range(self.partitions):
                    producer.produce(self.topic, b"%d" % number, partition=partition)
                if abort:
                    producer.flush(PATIENCE_S)
                    producer.abort_transaction(PATIENCE_S)
                else:
                    ending = True
                    self._commit(producer)
                self.note("aborted" if abort else "committed", number)
            except KafkaException as failure:
                over = failure.args[0].txn_requires_abort() and self._abort(producer)
                self.note("aborted" if over or not ending else "unknown", number, failure)
                if not over:
                    producer = self._producer()

    def _commit(self, producer: Producer) -> None:
        while True:
            try:
                producer.commit_transaction(PATIENCE_S)
                return
            except KafkaException as failure:
                if not failure.args[0].retriable():
                    raise

    def _abort(self, producer: Producer) -> bool:
        try:
            producer.abort_transaction(PATIENCE_S)
        except KafkaException as failure:
            self.said.append(f"abort: {failure}")
            return False
        return True


class JavaWriter(Writer):
    """Kafka's Java client, in a process. Unavailable where there is no JVM."""

    def __init__(self, classes: Path, *args: Any) -> None:
        super().__init__(*args)
        path = jvm.classpath(*jvm.kafka("kafka-clients"), jvm.LOGGER)
        path = jvm.compile_java(SOURCE, path, classes)
        command = [jvm.tool("java"), "-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        command += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=off", "-cp", path, "TransactionalClient"]
        command += [self.bootstrap, self.topic, str(self.partitions), self.transactional_id]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            what, number, *error = line.rstrip("\n").split(" ", 2)
            self.note(what, int(number), "".join(error))

    def finish(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        try:
            assert self.process.wait(PATIENCE_S) == 0, self.said[-5:]
        finally:
            self.kill()
        self._thread.join(PATIENCE_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def read_committed(bootstrap: str, topic: str, partitions: int) -> dict[int, list[int]]:
    """The numbers in each partition, to its last stable offset."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reads-committed",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
        }
    )
    consumer.assign([TopicPartition(topic, index, 0) for index in range(partitions)])
    found: dict[int, list[int]] = {index: [] for index in range(partitions)}
    left = set(found)

    def step() -> bool:
        message = consumer.poll(1.0)
        if message is None:
            return False
        error = message.error()
        if error is None:
            found[message.partition()].append(int(message.value()))
        elif error.code() == KafkaError._PARTITION_EOF:
            left.discard(message.partition())
        return not left

    try:
        eventually(step, PATIENCE_S, "read_committed does not reach the end", every_s=0)
    finally:
        consumer.close()
    return found
