"""Stock clients (confluent-kafka's) that write down what they do and are told. Each is a process: it may be killed.

An event is written before it is asked for and again when its end is known, see `history.py`.
"""

from __future__ import annotations

import random
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from odradek.chaos.history import FAILED, OK, UNKNOWN, Assigned, Commit, Poll, Recorder, Send, Transaction

NEVER_SENT = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError._QUEUE_FULL})
"""After these a record is not in the log, for certain. Not after a purge of the queue: what waits there for another
attempt may have been taken in the first one.
"""
CALL_S = 10.0
"""What a call may take."""
START_S = 1.0
"""How long one partition is asked where it begins or ends, before others are read."""
QUICK = {
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 250,
    "retry.backoff.ms": 20,
    "retry.backoff.max.ms": 200,
    "topic.metadata.refresh.interval.ms": 1_000,
    "log_level": 0,
}
"""Clients that find a new leader as soon as there is one. A leader that is cut off does not tell them: they look."""


@dataclass(frozen=True, slots=True)
class Topic:
    name: str
    partitions: int


@dataclass(slots=True)
class World:
    """What a client has of the world."""

    bootstrap: str
    recorder: Recorder
    stop: threading.Event
    timeout_s: float | None = None
    """Of requests, in place of the library's own."""

    def settings(self, **more: Any) -> dict[str, Any]:
        named = {key.replace("_", "."): value for key, value in more.items()}
        if self.timeout_s is not None:
            named["socket.timeout.ms"] = int(self.timeout_s * 1000)
            if {"acks", "linger.ms"} & named.keys():  # a producer
                named["request.timeout.ms"] = int(self.timeout_s * 1000)
        return {"bootstrap.servers": self.bootstrap, **QUICK, **named}


class TroubleError(Exception):
    """What no client should ever meet; makes a run fail."""


def now() -> int:
    """Nanoseconds of the history's clock."""
    return time.monotonic_ns()


class Client:
    """`live` works until `world.stop`; a KafkaException ends this life, and the next process begins anew.

    `name` lasts, `process` is this life's.
    """

    def __init__(self, name: str, process: str, world: World, seed: int) -> None:
        self.name = name
        self.process = process
        self.world = world
        self.rng = random.Random(f"{seed} {process}")
        self.overdue = False
        """Whether a call took much longer than it was allowed to: what comes of that is the library's doing."""

    def going_on(self) -> bool:
        return not self.world.stop.is_set()

    def live(self) -> None:
        raise NotImplementedError


class Sends:
    """The records of one producer that are under way."""

    def __init__(self, client: Client, producer: Producer) -> None:
        self._client = client
        self._producer = producer
        self._count = 0
        self._pending: dict[str, Send] = {}

    def send(
        self, topic: Topic, partition: int, transaction: str | None = None, origin: str | None = None
    ) -> None:
        self._count += 1
        value = f"{self._client.process}:{self._count}"
        send = Send(
            self._client.process, topic.name, partition, value, UNKNOWN, None, now(), 0, transaction, origin
        )
        self._pending[value] = send
        self._client.world.recorder.add(send)
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
        send = self._pending.pop(value.decode()) if value is not None else None
        if send is None:
            return
        if error is None:
            send.outcome, send.offset = OK, message.offset()
        elif error.code() in NEVER_SENT:
            send.outcome = FAILED
        send.completed = now()
        self._client.world.recorder.add(send)


class Writer(Client):
    """An idempotent producer that writes round the partitions, some records at a time."""

    def __init__(self, *who: Any, topic: Topic, per_s: int = 200) -> None:
        super().__init__(*who)
        self._topic = topic
        self._pause_s = 5 / per_s

    def live(self) -> None:
        producer = Producer(
            self.world.settings(enable_idempotence=True, acks="all", linger_ms=2, message_timeout_ms=120_000)
        )
        sends = Sends(self, producer)
        while self.going_on():
            for _ in range(5):
                sends.send(self._topic, self.rng.randrange(self._topic.partitions))
            producer.poll(0)
            self.world.stop.wait(self._pause_s)
        producer.flush(60)


class TransactionalWriter(Client):
    """Transactions over several partitions: most are committed, some aborted, one left open when it is killed.

    `hasty`: it also aborts before its records have left, which librdkafka now and then takes for a fatal error.
    """

    def __init__(self, *who: Any, topic: Topic, hasty: bool = False) -> None:
        super().__init__(*who)
        self._topic = topic
        self._hasty = hasty
        self._number = 0

    def live(self) -> None:
        producer = Producer(
            self.world.settings(transactional_id=self.name, transaction_timeout_ms=10_000, linger_ms=0)
        )
        sends = Sends(self, producer)
        producer.init_transactions(30)
        while self.going_on():
            self._transaction(producer, sends)

    def _transaction(self, producer: Producer, sends: Sends) -> None:
        self._number += 1
        name = f"{self.process}/{self._number}"
        producer.begin_transaction()
        for _ in range(self.rng.randint(1, 8)):
            sends.send(self._topic, self.rng.randrange(self._topic.partitions), name)
            if self.rng.random() < 0.2:
                producer.poll(0.01)
        commit = self.rng.random() > 0.1
        if not commit and not (self._hasty and self.rng.random() < 0.2):
            producer.flush(10)
        end(self, producer, name, commit=commit)
        self.world.stop.wait(self.rng.uniform(0, 0.02))


def end(client: Client, producer: Producer, name: str, *, commit: bool) -> str:
    """Commit or abort, and record what became of it. KafkaException: the producer is of no more use."""
    invoked = now()
    if not commit:
        _until_done(client, lambda: producer.abort_transaction(10))
        client.world.recorder.add(Transaction(client.process, name, FAILED, invoked, now()))
        return FAILED
    client.world.recorder.add(Transaction(client.process, name, UNKNOWN, invoked, 0))
    try:
        _until_done(client, lambda: producer.commit_transaction(10))
        outcome = OK
    except KafkaException as problem:
        if not problem.args[0].txn_requires_abort():
            raise
        _until_done(client, lambda: producer.abort_transaction(10))
        outcome = FAILED
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


class Starts:
    """Where a reader begins in each partition: asked for here, and assigned as an offset.

    librdkafka (2.16) asks once more, half a second later, for OFFSET_END and OFFSET_BEGINNING whenever a broker that
    does not lead any more answers its first question, though the new leader has answered since and records were given
    out: a reader that began while a leader was paused jumps when that one goes on (`rd_kafka_toppar_handle_Offset`,
    "outdated offset response"). What it left out then, or gave out again, would say nothing of the cluster.
    """

    def __init__(self, consumer: Consumer, topics: list[Topic], *, at_end: bool) -> None:
        self._consumer = consumer
        self._at_end = at_end
        self._left = deque((topic.name, index) for topic in topics for index in range(topic.partitions))

    def more(self) -> None:
        """Assign all that answer; the first that does not ends this round, and is the last one of the next."""
        while self._left:
            at = self._left[0]
            try:
                low, high = self._consumer.get_watermark_offsets(TopicPartition(*at), timeout=START_S)
            except KafkaException:
                self._left.rotate(-1)  # its leader is dead or paused: others are read meanwhile
                return
            self._consumer.incremental_assign([TopicPartition(*at, high if self._at_end else low)])
            self._left.popleft()


class Reader(Client):
    """Reads partitions that it chose itself, to their ends and on: from the beginnings in its first life and in some
    later ones, else from the ends (every time would make a long run's history grow with the square of its time).
    """

    def __init__(self, *who: Any, topics: list[Topic], committed_only: bool) -> None:
        super().__init__(*who)
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
        everything = self.process.endswith(".1") or self.rng.random() < 0.2
        starts = Starts(consumer, self._topics, at_end=not everything)
        try:
            while self.going_on():
                starts.more()
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
                raise TroubleError(error.str())
        if found:
            self.world.recorder.add(Poll(self.process, 0, now(), found, self._committed_only))


class SlowReader(Client):
    """Takes a few records at a time from a small queue, and then does something else for a while: what it has not
    fetched yet grows all the time.
    """

    PAUSE_S = 0.5
    AT_ONCE = 10

    def __init__(self, *who: Any, topic: Topic) -> None:
        super().__init__(*who)
        self._topic = topic

    def live(self) -> None:
        consumer = Consumer(
            self.world.settings(
                group_id=self.name,
                enable_auto_commit=False,
                auto_offset_reset="error",
                queued_min_messages=1,
                queued_max_messages_kbytes=1,
                fetch_message_max_bytes=1_024,
            )
        )
        starts = Starts(consumer, [self._topic], at_end=False)
        try:
            while self.going_on():
                starts.more()
                found = [
                    record_of(each) for each in consumer.consume(self.AT_ONCE, 0.2) if each.error() is None
                ]
                if found:
                    self.world.recorder.add(Poll(self.process, 0, now(), found))
                self.world.stop.wait(self.PAUSE_S)
        finally:
            consumer.close()


def record_of(message: Message) -> tuple[str, int, int, str]:
    """(topic, partition, offset, value)"""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None and partition is not None and offset is not None, "no message of the broker"
    return topic, partition, offset, (message.value() or b"").decode(errors="replace")


def ends_of(found: list[tuple[str, int, int, str]]) -> dict[tuple[str, int], int]:
    """The offset after the last record of each partition."""
    return {(topic, partition): offset + 1 for topic, partition, offset, _ in found}


class Member(Client):
    """A member of a group that commits what it has read."""

    def __init__(self, *who: Any, topic: Topic, group: str, protocol: str, **more: Any) -> None:
        super().__init__(*who)
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
        consumer.subscribe(
            [self._topic.name], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )
        try:
            while self.going_on():
                self._work(consumer)
        finally:
            consumer.close()

    def _work(self, consumer: Consumer) -> None:
        found = [record_of(each) for each in consumer.consume(100, 0.2) if each.error() is None]
        if found:
            self.world.recorder.add(Poll(self.process, self._session, now(), found))
            ends = {at: offset for at, offset in ends_of(found).items() if at in self._owned}
            if ends:
                self._commit(consumer, ends)

    def _commit(self, consumer: Consumer, ends: dict[tuple[str, int], int]) -> None:
        commits = _begin_commits(self, self._group, ends, generation_of(consumer), None)
        failed: set[tuple[str, int]] = set()
        try:
            told = consumer.commit(
                offsets=[TopicPartition(*at, offset) for at, offset in ends.items()], asynchronous=False
            )
            failed = {(each.topic, each.partition) for each in told or [] if each.error is not None}
            outcome = OK
        except KafkaException as problem:
            # Even when it was refused: the client tries again by itself, and an attempt before may have taken effect.
            outcome = FAILED if problem.args[0].code() == KafkaError._NO_OFFSET else UNKNOWN
        for commit in commits:
            at = commit.topic, commit.partition
            commit.outcome, commit.completed = UNKNOWN if at in failed else outcome, now()
            self.world.recorder.add(commit)

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._changed(consumer, self._owned | {(each.topic, each.partition) for each in partitions})

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._changed(consumer, self._owned - {(each.topic, each.partition) for each in partitions})

    def _changed(self, consumer: Consumer, owned: set[tuple[str, int]]) -> None:
        gained = owned - self._owned
        self._owned = owned
        self._session += 1
        if gained:
            # A static member that comes back is the one it was, within its generation.
            owner = self.name if "group_instance_id" in self._more else self.process
            self.world.recorder.add(
                Assigned(self.process, owner, self._group, sorted(owned), now(), generation_of(consumer))
            )


def _begin_commits(
    client: Client,
    group: str,
    ends: dict[tuple[str, int], int],
    generation: int | None,
    transaction: str | None,
) -> list[Commit]:
    """Written down before they are asked for."""
    commits = [
        Commit(
            client.process, group, topic, partition, offset, UNKNOWN, now(), 0, generation, transaction
        )
        for (topic, partition), offset in ends.items()
    ]  # fmt: skip
    for commit in commits:
        client.world.recorder.add(commit)
    return commits


_METADATA_MAGIC = b"CGMDv2:"


def generation_of(consumer: Consumer) -> int | None:
    """The generation (or member epoch) a librdkafka consumer is in: the only place where it shows it."""
    metadata = consumer.consumer_group_metadata()
    if not isinstance(metadata, bytes) or not metadata.startswith(_METADATA_MAGIC):
        return None
    (generation,) = struct.unpack_from("=i", metadata, len(_METADATA_MAGIC))
    return int(generation) if generation >= 0 else None


class Mover(Client):
    """Consume, transform, produce: what it reads goes to another topic, with its offsets, in one transaction."""

    def __init__(
        self, *who: Any, source: Topic, sink: Topic, group: str, protocol: str = "classic"
    ) -> None:  # fmt: skip
        super().__init__(*who)
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
        sends = Sends(self, producer)
        try:
            producer.init_transactions(30)
            consumer.subscribe([self._source.name], on_assign=self._changed, on_revoke=self._changed)
            while self.going_on():
                self._move(consumer, producer, sends)
        finally:
            consumer.close()

    def _changed(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._session += 1

    def _move(self, consumer: Consumer, producer: Producer, sends: Sends) -> None:
        found = [record_of(each) for each in consumer.consume(50, 0.2) if each.error() is None]
        if not found:
            return
        self.world.recorder.add(Poll(self.process, self._session, now(), found))
        self._number += 1
        name = f"{self.process}/{self._number}"
        producer.begin_transaction()
        for _, partition, _, value in found:
            sends.send(self._sink, partition % self._sink.partitions, name, origin=value)
        ends = ends_of(found)
        commits = _begin_commits(self, self._group, ends, generation_of(consumer), name)
        offsets = [TopicPartition(*at, offset) for at, offset in ends.items()]
        began = time.monotonic()
        try:
            _until_done(
                self,
                lambda: producer.send_offsets_to_transaction(
                    offsets, consumer.consumer_group_metadata(), CALL_S
                ),
            )
        finally:
            # librdkafka waits for ever for a group coordinator that metadata does not name any more, as it does not
            # name a broker that is dead (its issues 5456 and 5511); meanwhile the transaction times out.
            self.overdue = time.monotonic() - began > CALL_S
        for commit in commits:
            commit.outcome, commit.completed = OK, now()
            self.world.recorder.add(commit)
        if end(self, producer, name, commit=True) != OK:
            raise KafkaException(KafkaError(KafkaError._STATE, "a transaction was aborted: begin anew"))
