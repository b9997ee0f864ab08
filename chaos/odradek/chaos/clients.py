"""Stock clients that write down everything they are told: each a thread, each lives again and again until stopped.

They are confluent-kafka's. What a client cannot know is recorded as UNKNOWN. A *life* ends at random, most often
without a farewell, as processes do.
"""

from __future__ import annotations

import random
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from odradek.chaos.history import FAILED, OK, UNKNOWN, Assigned, Commit, Poll, Recorder, Send, Transaction

NEVER_SENT = frozenset({KafkaError._PURGE_QUEUE, KafkaError.MSG_SIZE_TOO_LARGE, KafkaError._QUEUE_FULL})
"""After these a record is not in the log, for certain."""
QUICK = {
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 250,
    "retry.backoff.ms": 20,
    "retry.backoff.max.ms": 200,
    "topic.metadata.refresh.interval.ms": 5_000,
    "log_level": 0,
}
"""Clients that find a new leader as soon as there is one."""


@dataclass(frozen=True, slots=True)
class Topic:
    name: str
    partitions: int


@dataclass(slots=True)
class World:
    """What clients share."""

    bootstrap: str
    recorder: Recorder
    stop: threading.Event
    trouble: list[str]
    """What no client should ever meet; makes a run fail."""

    def settings(self, **more: Any) -> dict[str, Any]:
        named = {key.replace("_", "."): value for key, value in more.items()}
        return {"bootstrap.servers": self.bootstrap, **QUICK, **named}


def now() -> int:
    """Nanoseconds of the history's clock."""
    return time.monotonic_ns()


class Client(threading.Thread):
    """Lives, ends, lives again. `progress` counts what succeeded, for the display."""

    def __init__(
        self, name: str, world: World, seed: int, *, life_s: tuple[float, float] = (15.0, 60.0)
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.world = world
        self.rng = random.Random(f"{seed} {name}")
        self.progress = 0
        self.process = name
        self.last_problem = ""
        self._life_s = life_s
        self._life_ends = 0.0

    def run(self) -> None:
        life = 0
        while not self.world.stop.is_set():
            life += 1
            self.process = f"{self.name}.{life}"
            self._life_ends = time.monotonic() + self.rng.uniform(*self._life_s)
            try:
                self.live()
            except KafkaException as problem:
                # Told by the client to begin anew; what it was about to do is recorded by `live`.
                self.world.stop.wait(0.1)
                self.last_problem = str(problem)
            except Exception as problem:  # noqa: BLE001  a bug of this harness must not look like a quiet client
                self.world.trouble.append(f"{self.process}: {type(problem).__name__}: {problem}")
                return

    def going_on(self) -> bool:
        return not self.world.stop.is_set() and time.monotonic() < self._life_ends

    def live(self) -> None:
        raise NotImplementedError


class _Sends:
    """The records of one producer that are under way."""

    def __init__(self, client: Client, producer: Producer) -> None:
        self._client = client
        self._producer = producer
        self._count = 0
        self.pending: dict[str, Send] = {}
        self.done: list[Send] = []

    def send(
        self, topic: Topic, partition: int, transaction: str | None = None, origin: str | None = None
    ) -> None:
        self._count += 1
        value = f"{self._client.process}:{self._count}"
        if origin is not None:
            value += f"<{origin}"
        send = Send(
            self._client.process, topic.name, partition, value, UNKNOWN, None, now(), 0, transaction, origin
        )
        self.pending[value] = send
        while True:
            try:
                self._producer.produce(
                    topic.name, value.encode(), partition=partition, on_delivery=self._delivered
                )
                return
            except BufferError:
                self._producer.poll(0.05)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        value = message.value()
        send = self.pending.pop(value.decode()) if value is not None else None
        if send is None:
            return
        if error is None:
            send.outcome, send.offset = OK, message.offset()
            self._client.progress += 1
        elif error.code() in NEVER_SENT:
            send.outcome = FAILED
        self._write(send)

    def _write(self, send: Send) -> None:
        send.completed = now()
        self._client.world.recorder.add(send)

    def abandon(self) -> None:
        """The producer is gone: what it had not heard of may be there or not."""
        self._producer.purge()
        self._producer.poll(0)
        for send in self.pending.values():
            self._write(send)
        self.pending.clear()


class Writer(Client):
    """An idempotent producer that writes round the partitions, some records at a time."""

    def __init__(self, name: str, world: World, seed: int, topic: Topic, per_s: int = 200) -> None:
        super().__init__(name, world, seed)
        self._topic = topic
        self._pause_s = 5 / per_s

    def live(self) -> None:
        producer = Producer(
            self.world.settings(enable_idempotence=True, acks="all", linger_ms=2, message_timeout_ms=120_000)
        )
        sends = _Sends(self, producer)
        try:
            while self.going_on():
                for _ in range(5):
                    sends.send(self._topic, self.rng.randrange(self._topic.partitions))
                producer.poll(0)
                self.world.stop.wait(self._pause_s)
            if self.world.stop.is_set() or self.rng.random() < 0.3:
                producer.flush(30)
        finally:
            sends.abandon()


class TransactionalWriter(Client):
    """Transactions over several partitions: most are committed, some aborted, some left open by a client that dies."""

    def __init__(self, name: str, world: World, seed: int, topic: Topic) -> None:
        super().__init__(name, world, seed)
        self._topic = topic
        self._number = 0

    def live(self) -> None:
        producer = Producer(
            self.world.settings(transactional_id=self.name, transaction_timeout_ms=10_000, linger_ms=0)
        )
        sends = _Sends(self, producer)
        try:
            producer.init_transactions(30)
            while self.going_on():
                self._transaction(producer, sends)
        finally:
            sends.abandon()

    def _transaction(self, producer: Producer, sends: _Sends) -> None:
        self._number += 1
        name = f"{self.name}/{self._number}"
        producer.begin_transaction()
        for _ in range(self.rng.randint(1, 8)):
            sends.send(self._topic, self.rng.randrange(self._topic.partitions), name)
            if self.rng.random() < 0.2:
                producer.poll(0.01)
        if self.rng.random() < 0.02:
            # It dies here: never committed, so the next life's init_transactions aborts it.
            self.world.recorder.add(Transaction(self.process, name, FAILED, now(), now()))
            self._life_ends = 0.0
            return
        end(self, producer, name, commit=self.rng.random() > 0.1)
        self.world.stop.wait(self.rng.uniform(0, 0.02))


def end(client: Client, producer: Producer, name: str, *, commit: bool) -> str:
    """Commit or abort, and record what became of it. KafkaException: the producer is of no more use."""
    invoked = now()
    outcome = UNKNOWN if commit else FAILED
    try:
        if commit:
            try:
                _until_done(client, lambda: producer.commit_transaction(10))
                outcome = OK
                client.progress += 1
            except KafkaException as problem:
                if not problem.args[0].txn_requires_abort():
                    raise
                _until_done(client, lambda: producer.abort_transaction(10))
                outcome = FAILED
        else:
            _until_done(client, lambda: producer.abort_transaction(10))
    finally:
        client.world.recorder.add(Transaction(client.process, name, outcome, invoked, now()))
    return outcome


def _until_done(client: Client, step: Callable[[], None]) -> None:
    """As long as the client says that trying again is right."""
    while True:
        try:
            step()
            return
        except KafkaException as problem:
            if not problem.args[0].retriable() or client.world.stop.is_set():
                raise
            time.sleep(0.05)  # the client has just said "again": nothing else to wait for


class Reader(Client):
    """Reads partitions that it chose itself, to the end and on; begins each life at the beginning or at the end."""

    def __init__(
        self, name: str, world: World, seed: int, topics: list[Topic], *, committed_only: bool
    ) -> None:
        super().__init__(name, world, seed)
        self._topics = topics
        self._committed_only = committed_only

    def live(self) -> None:
        consumer = Consumer(
            self.world.settings(
                group_id=self.name,
                enable_auto_commit=False,
                isolation_level="read_committed" if self._committed_only else "read_uncommitted",
                auto_offset_reset="error",
            )
        )
        consumer.assign(
            [
                TopicPartition(topic.name, index, OFFSET_BEGINNING)
                for topic in self._topics
                for index in range(topic.partitions)
            ]
        )
        try:
            while self.going_on():
                self._poll(consumer)
        finally:
            consumer.close()

    def _poll(self, consumer: Consumer) -> None:
        found = []
        for message in consumer.consume(500, 0.2):
            error = message.error()
            if error is None:
                found.append(record_of(message))
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                self.world.trouble.append(f"{self.process}: {error.str()}")
        if found:
            self.progress += len(found)
            self.world.recorder.add(Poll(self.process, 0, now(), found, self._committed_only))


def record_of(message: Message) -> tuple[str, int, int, str]:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None and partition is not None and offset is not None, "no message of the broker"
    return topic, partition, offset, (message.value() or b"").decode(errors="replace")


class Member(Client):
    """A member of a group that commits what it has read."""

    def __init__(
        self, name: str, world: World, seed: int, topic: Topic, group: str, *, protocol: str, **more: Any
    ) -> None:
        super().__init__(name, world, seed)
        self._topic = topic
        self._group = group
        self._more = {"group_protocol": protocol, **more}
        if protocol == "classic":
            self._more["session_timeout_ms"] = 6_000
        self._session = 0
        self._owned: set[tuple[str, int]] = set()

    def live(self) -> None:
        consumer = Consumer(
            self.world.settings(
                group_id=self._group,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
                **self._more,
            )
        )
        self._owned.clear()
        consumer.subscribe(
            [self._topic.name], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )
        polite = self.rng.random() < 0.5
        try:
            while self.going_on():
                self._work(consumer)
        finally:
            if polite:
                consumer.close()
            else:
                # As near as a thread comes to dying: it leaves nothing but a session that ends.
                consumer.unassign()
                del consumer

    def _work(self, consumer: Consumer) -> None:
        found = [record_of(each) for each in consumer.consume(100, 0.2) if each.error() is None]
        if not found:
            return
        self.progress += len(found)
        self.world.recorder.add(Poll(self.process, self._session, now(), found))
        ends = {(topic, partition): offset + 1 for topic, partition, offset, _ in found}
        self._commit(consumer, {at: offset for at, offset in ends.items() if at in self._owned})

    def _commit(self, consumer: Consumer, ends: dict[tuple[str, int], int]) -> None:
        if not ends:
            return
        generation = generation_of(consumer)
        invoked = now()
        failed: set[tuple[str, int]] = set()
        try:
            told = consumer.commit(
                offsets=[TopicPartition(*at, offset) for at, offset in ends.items()], asynchronous=False
            )
            failed = {(each.topic, each.partition) for each in told or [] if each.error is not None}
            outcome = OK
        except KafkaException as problem:
            outcome = FAILED if problem.args[0].code() in COMMIT_REFUSED else UNKNOWN
        completed = now()
        for (topic, partition), offset in ends.items():
            one = UNKNOWN if (topic, partition) in failed else outcome
            self.world.recorder.add(
                Commit(
                    self.process, self._group, topic, partition, offset, one, invoked, completed, generation
                )
            )

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._changed(consumer, self._owned | {(each.topic, each.partition) for each in partitions})

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._changed(consumer, self._owned - {(each.topic, each.partition) for each in partitions})

    def _changed(self, consumer: Consumer, owned: set[tuple[str, int]]) -> None:
        gained = owned - self._owned
        self._owned = owned
        self._session += 1
        if gained:
            self.world.recorder.add(
                Assigned(self.process, self._group, sorted(owned), now(), generation_of(consumer))
            )


COMMIT_REFUSED = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.FENCED_MEMBER_EPOCH,
        KafkaError._NO_OFFSET,
    }
)
_METADATA_MAGIC = b"CGMDv2:"


def generation_of(consumer: Consumer) -> int | None:
    """The generation (or member epoch) a librdkafka consumer is in: the only place where it shows it."""
    metadata = consumer.consumer_group_metadata()
    if not isinstance(metadata, bytes) or not metadata.startswith(_METADATA_MAGIC):
        return None
    (generation,) = struct.unpack_from("=i", metadata, len(_METADATA_MAGIC))
    return int(generation) if generation >= 0 else None


class Mover(Client):
    """Consume, transform, produce: what it reads goes to another topic, and its offsets with it, in one transaction."""

    def __init__(
        self,
        name: str,
        world: World,
        seed: int,
        source: Topic,
        sink: Topic,
        group: str,
        protocol: str = "classic",
    ) -> None:
        super().__init__(name, world, seed)
        self._source, self._sink, self._group, self._protocol = source, sink, group, protocol
        self._number = 0
        self._session = 0

    def live(self) -> None:
        more = {"session_timeout_ms": 6_000} if self._protocol == "classic" else {}
        consumer = Consumer(
            self.world.settings(
                group_id=self._group,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
                group_protocol=self._protocol,
                **more,
            )
        )
        producer = Producer(
            self.world.settings(transactional_id=self.name, transaction_timeout_ms=10_000, linger_ms=0)
        )
        sends = _Sends(self, producer)
        try:
            producer.init_transactions(30)
            consumer.subscribe([self._source.name], on_assign=self._changed, on_revoke=self._changed)
            while self.going_on():
                self._move(consumer, producer, sends)
        finally:
            sends.abandon()
            consumer.close()

    def _changed(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._session += 1

    def _move(self, consumer: Consumer, producer: Producer, sends: _Sends) -> None:
        found = [record_of(each) for each in consumer.consume(50, 0.2) if each.error() is None]
        if not found:
            return
        self.world.recorder.add(Poll(self.process, self._session, now(), found))
        self._number += 1
        name = f"{self.name}/{self._number}"
        producer.begin_transaction()
        for _, partition, _, value in found:
            sends.send(self._sink, partition % self._sink.partitions, name, origin=value)
        generation = generation_of(consumer)
        ends = {(topic, partition): offset + 1 for topic, partition, offset, _ in found}
        invoked = now()
        added = False
        try:
            offsets = [TopicPartition(*at, offset) for at, offset in ends.items()]
            _until_done(
                self,
                lambda: producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 10),
            )
            added = True
        finally:
            # Offsets that were not added may have been; without its commit the transaction gives them no effect.
            for (topic, partition), offset in ends.items():
                self.world.recorder.add(
                    Commit(
                        self.process, self._group, topic, partition, offset, OK if added else UNKNOWN, invoked,
                        now(), generation, name,
                    )
                )  # fmt: skip
            if not added:
                self.world.recorder.add(Transaction(self.process, name, FAILED, now(), now()))
        if end(self, producer, name, commit=True) != OK:
            raise KafkaException(
                KafkaError(KafkaError._STATE, "a transaction was aborted: begin anew from the offsets")
            )
