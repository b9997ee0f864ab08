"""A producer as stock clients are: batches per partition, up to five in flight, retries in order, idempotent or not.

Follows the Java producer where it matters for correctness: with idempotence the same batch keeps its sequence over all
retries, a retried batch goes alone until it is the oldest, and a batch given up with its fate unknown makes the
producer take the next epoch for that partition (KIP-360).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from odradek.simulation.client import Client, Link, error_of
from odradek.simulation.compaction import keyed, without_keys
from odradek.simulation.history import Fate, Sent
from odradek.simulation.scheduler import MS, SECOND
from odradek.simulation.trace import InvariantViolation
from odradek.storage.batch import HEADER
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.init_producer_id import InitProducerIdRequest
from odradek.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from odradek.wire.records import simple_batch

if TYPE_CHECKING:
    from odradek.simulation.cluster import Cluster
    from odradek.simulation.partition_model import PartitionModel

IN_FLIGHT_MAX = 5
PARTITIONS_PER_REQUEST_MAX = 3
TOPIC_IDS_FROM = 13
_SURELY_NOT_WRITTEN = frozenset(
    {
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.UNKNOWN_TOPIC_ID,
        ErrorCode.LEADER_NOT_AVAILABLE,
        ErrorCode.NOT_ENOUGH_REPLICAS,
        ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
        ErrorCode.INVALID_PRODUCER_EPOCH,
        ErrorCode.INVALID_RECORD,
        ErrorCode.INVALID_TIMESTAMP,
        ErrorCode.CORRUPT_MESSAGE,
        ErrorCode.MESSAGE_TOO_LARGE,
        ErrorCode.FENCED_LEADER_EPOCH,
        ErrorCode.UNKNOWN_LEADER_EPOCH,
    }
)
"""NOT_LEADER_OR_FOLLOWER may also tell that leadership was lost while a batch waited: see `_answered`."""


@dataclass(slots=True)
class ProducerSettings:
    acks: int = -1
    idempotent: bool = True
    interval_ms: tuple[int, int] = (5, 60)
    delivery_timeout_us: int = 120 * SECOND
    version: int = 12
    request_timeout_ms: int = 1_500
    bursts: bool = False
    """Now and then nothing is sent for up to two seconds."""


@dataclass(slots=True, eq=False)
class Batch:
    sent: Sent
    encoded: bytes
    deadline_us: int
    records: list[tuple[bytes | None, bytes | None]]
    timestamp: int
    producer_epoch: int = -1
    sequence: int = -1
    attempts: int = 0


@dataclass(slots=True, eq=False)
class Lane:
    """What goes to one partition."""

    topic: str
    index: int
    waiting: deque[Batch] = field(default_factory=deque)
    """To be sent, in order of their sequences."""
    in_flight: list[Batch] = field(default_factory=list)
    next_number: int = 0
    not_before_us: int = 0
    """It failed: nothing is sent until then (retry.backoff.ms)."""
    epoch: int = -1
    next_sequence: int = 0
    acked_sequence: int = -1
    """The largest of this epoch that was acknowledged."""
    must_bump: bool = False
    """A batch was given up, and it is not known whether it was written: its sequence cannot be used again."""


class Producer(Client):
    """Sends until `stop_sending`, then goes on until everything has a fate."""

    def __init__(self, cluster: Cluster, name: str, rng: Random, settings: ProducerSettings) -> None:
        super().__init__(cluster, name, rng)
        self.settings = settings
        self.producer_id = -1
        self.epoch = -1
        self.lanes: dict[tuple[str, int], Lane] = {}
        self._sending = True
        self._asking_id = False
        self._pumping = False
        self._will_pump = False
        self._numbers = 0
        self._owed: list[tuple[str, int]] = []

    def start(self) -> None:
        self.refresh()
        if self.settings.idempotent:
            self._ask_producer_id()
        self.after(self.between(1, 50), self._produce)

    def stop_sending(self) -> None:
        self._sending = False

    def write_everywhere(self) -> None:
        """One batch to each partition, and no more: instead of `start`."""
        self._sending = False
        self._owed = [
            (topic, index) for topic in self.topics for index in range(self.cluster.partitions_of(topic))
        ]
        self.refresh()
        self._ask_producer_id()

    @property
    def done(self) -> bool:
        return not self._owed and all(
            (not lane.waiting and not lane.in_flight) or self._is_dead(lane) for lane in self.lanes.values()
        )

    def _is_dead(self, lane: Lane) -> bool:
        model = self.cluster.invariants.models.get((self.topic_ids.get(lane.topic, b""), lane.index))
        return model is not None and model.dead

    def unfinished(self) -> list[str]:
        """What it waits for, for people."""
        return [
            f"{self.name}: {lane.topic}-{lane.index} has {len(lane.waiting)} waiting, {len(lane.in_flight)} in flight, "
            f"leader {self.leaders.get((lane.topic, lane.index))}"
            for lane in self.lanes.values()
            if lane.waiting or lane.in_flight
        ]

    def on_metadata(self) -> None:
        for topic, index in [each for each in self._owed if each[0] in self.topic_ids]:
            self._owed.remove((topic, index))
            lane = self.lanes[topic, index] = Lane(topic, index)
            self._make_batch(lane, self.topic_ids[topic])
        self._pump()

    # -- producer id ---------------------------------------------------------------------------------------------

    def _ask_producer_id(self) -> None:
        if self._asking_id or self.stopped:
            return
        self._asking_id = True
        request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000)
        self.ask(self.any_host(), request, self.rng.choice((2, 4, 5)), self._got_producer_id)

    def _got_producer_id(self, response: Any) -> None:
        self._asking_id = False
        if response is None or response.error_code:
            self.after(self.between(20, 200), self._ask_producer_id)
            return
        self.cluster.producer_id_given(response.producer_id, self.name)
        self.producer_id, self.epoch = response.producer_id, response.producer_epoch
        self._pump()

    # -- records -------------------------------------------------------------------------------------------------

    def _produce(self) -> None:
        if not self._sending:
            return
        topic = self.rng.choice(self.topics)
        model_topic = self.topic_ids.get(topic)
        quiet = self.now_us < self.cluster.quiet_until_us
        if (
            model_topic is not None
            and not quiet
            and sum(len(lane.waiting) for lane in self.lanes.values()) < 200
        ):
            index = self.rng.randrange(self.cluster.partitions_of(topic))
            lane = self.lanes.setdefault((topic, index), Lane(topic, index))
            self._make_batch(lane, model_topic)
            self._pump()
        silence = self.settings.bursts and self.rng.random() < 0.03
        self.after(
            self.between(200, 2_000) if silence else self.between(*self.settings.interval_ms), self._produce
        )

    def _make_batch(self, lane: Lane, topic_id: bytes) -> None:
        self._numbers += 1
        count = self.rng.choice((1, 1, 2, 5))
        size = self.rng.choice((0, 10, 200))
        values = [f"{self.name}/{self._numbers}/{i}".encode() + bytes(size) for i in range(count)]
        compacted = self.cluster.compacts(lane.topic)
        records = keyed(values, self.rng, self.settings.idempotent) if compacted else without_keys(values)
        sent = Sent(
            self.name,
            lane.next_number,
            (topic_id, lane.index),
            count,
            0,
            self.settings.acks,
            self.settings.idempotent,
        )
        lane.next_number += 1
        deadline_us = self.now_us + self.settings.delivery_timeout_us
        lane.waiting.append(Batch(sent, b"", deadline_us, records, self.cluster.true_wall_ms()))
        self.after(self.settings.delivery_timeout_us + MS, lambda: self._expire(lane))

    def _seal(self, lane: Lane, batch: Batch) -> None:
        """Give it its sequence and its bytes, once."""
        if self.settings.idempotent:
            if lane.epoch < 0:
                lane.epoch = self.epoch
            batch.producer_epoch, batch.sequence = lane.epoch, lane.next_sequence
            lane.next_sequence += len(batch.records)
        encoded = simple_batch(
            batch.records,
            base_offset=0,
            timestamp=batch.timestamp,
            producer_id=self.producer_id if self.settings.idempotent else -1,
            producer_epoch=batch.producer_epoch,
            base_sequence=batch.sequence,
        )
        if batch.encoded:
            del self.cluster.history.sent[batch.sent.crc]
        batch.encoded = bytes(encoded)
        batch.sent.crc = HEADER.unpack_from(encoded)[4]
        self.cluster.history.send(batch.sent)

    # -- sending -------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Send what can be sent, a request per leader."""
        if self._pumping or (self.settings.idempotent and self.producer_id < 0):
            return
        self._pumping = True
        by_leader: dict[str, list[tuple[Lane, Batch]]] = {}
        backing_off = False
        for lane in self.lanes.values():
            leader = self.leaders.get((lane.topic, lane.index))
            if leader is None or lane.not_before_us > self.now_us or self._is_dead(lane):
                continue
            if self.link(leader[0]) is None:
                backing_off = True
            elif (batch := self._next_batch(lane)) is not None:
                by_leader.setdefault(leader[0], []).append((lane, batch))
        for host, chosen in by_leader.items():
            for start in range(0, len(chosen), PARTITIONS_PER_REQUEST_MAX):
                self._send(self.links[host], chosen[start : start + PARTITIONS_PER_REQUEST_MAX])
        self._pumping = False
        if backing_off and not self._will_pump:
            self._will_pump = True
            self.refresh()
            self.after(self.between(20, 100), self._pump_later)

    def _pump_later(self) -> None:
        self._will_pump = False
        self._pump()

    def _next_batch(self, lane: Lane) -> Batch | None:
        if not lane.waiting or len(lane.in_flight) >= IN_FLIGHT_MAX:
            return None
        batch = lane.waiting[0]
        retrying = batch.attempts > 0 or any(each.attempts > 1 for each in lane.in_flight)
        if lane.in_flight and (retrying and self.settings.idempotent):
            return None
        if lane.must_bump:
            if lane.in_flight:
                return None
            self._bump(lane)
            if not lane.waiting:
                return None
            batch = lane.waiting[0]
        if batch.sequence < 0 or not batch.encoded:
            if batch.encoded and not self.settings.idempotent:
                return batch
            self._seal(lane, batch)
        return batch

    def _bump(self, lane: Lane) -> None:
        """KIP-360. Batches that may have been written already must not be sent under other sequences."""
        lane.must_bump = False
        self.epoch += 1
        lane.epoch, lane.next_sequence, lane.acked_sequence = self.epoch, 0, -1
        self.cluster.trace.count("producer: epoch bumped")
        kept: deque[Batch] = deque()
        for batch in lane.waiting:
            if batch.sent.doubts:
                self._settle(batch, Fate.UNKNOWN)
            else:
                batch.sequence = batch.producer_epoch = -1
                batch.attempts = 0
                kept.append(batch)
        lane.waiting = kept

    def _send(self, link: Link, chosen: list[tuple[Lane, Batch]]) -> None:
        version = self.settings.version
        topics: dict[str, TopicProduceData] = {}
        for lane, batch in chosen:
            lane.waiting.popleft()
            lane.in_flight.append(batch)
            batch.attempts += 1
            topic = topics.get(lane.topic)
            if topic is None:
                by_id = version >= TOPIC_IDS_FROM
                topic = topics[lane.topic] = (
                    TopicProduceData(topic_id=self.topic_ids[lane.topic])
                    if by_id
                    else TopicProduceData(name=lane.topic)
                )
            topic.partition_data.append(PartitionProduceData(index=lane.index, records=batch.encoded))
        request = ProduceRequest(
            acks=self.settings.acks,
            timeout_ms=self.settings.request_timeout_ms,
            topic_data=list(topics.values()),
        )
        if self.settings.acks == 0:
            link.ask(request, version, None, 0)
            for lane, batch in chosen:
                lane.in_flight.remove(batch)
                self._settle(batch, Fate.ACKED)
            self.after(MS, self._pump)
        else:
            host = link.host
            link.ask(
                request,
                version,
                lambda response: self._answered(host, chosen, response),
                self.request_timeout_us,
            )

    # -- answers -------------------------------------------------------------------------------------------------

    def _answered(self, host: str, chosen: list[tuple[Lane, Batch]], response: Any) -> None:
        answers: dict[tuple[object, int], Any] = {}
        if response is not None:
            for topic in response.responses:
                named = topic.topic_id if self.settings.version >= TOPIC_IDS_FROM else topic.name
                for answer in topic.partition_responses:
                    answers[named, answer.index] = answer
        pause_us = self.between(20, 100)
        failed = False
        for lane, batch in chosen:
            if batch not in lane.in_flight:
                continue  # given up meanwhile
            lane.in_flight.remove(batch)
            named = self._name_in_answer(lane)
            answer = answers.get((named, lane.index))
            if answer is None:
                batch.sent.doubts += 1
                self._again(lane, batch)
            elif not self._judge(lane, batch, answer, host):
                continue
            failed = True
            lane.not_before_us = self.now_us + pause_us
        if failed:
            self.refresh()
            self.after(pause_us, self._pump)
        self._pump()

    def _name_in_answer(self, lane: Lane) -> object:
        return self.topic_ids[lane.topic] if self.settings.version >= TOPIC_IDS_FROM else lane.topic

    def _judge(self, lane: Lane, batch: Batch, answer: Any, host: str) -> bool:
        """Take one partition's answer; whether it failed."""
        code = error_of(answer.error_code)
        if code is ErrorCode.NONE:
            if batch.producer_epoch == lane.epoch:
                lane.acked_sequence = max(lane.acked_sequence, batch.sequence)
            self._settle(batch, Fate.ACKED, answer.base_offset, host)
            return False
        self.cluster.trace.count(f"produce: {code.name}")
        if code is ErrorCode.DUPLICATE_SEQUENCE_NUMBER:
            self._settle(batch, Fate.ACKED, by=host)
            return False
        if code not in _SURELY_NOT_WRITTEN or code is ErrorCode.NOT_LEADER_OR_FOLLOWER:
            batch.sent.doubts += 1
        if code is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER and not lane.must_bump:
            self._out_of_order(lane, batch, host)
        elif code.retriable or code is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER:
            self._again(lane, batch)
        else:
            self._give_up(lane, batch)
        return True

    def _out_of_order(self, lane: Lane, batch: Batch, host: str) -> None:
        """Expected only behind an older batch that is being retried; or, as in Kafka, when the leader began to lead
        between this one and the next, which it took for the first that it has of this producer.
        """
        older = [each for each in (*lane.in_flight, *lane.waiting) if 0 <= each.sequence < batch.sequence]
        model = self.cluster.invariants.models.get(batch.sent.key)
        lossy = (
            model is None
            or model.losses
            or model.loss_allowed
            or model.dead
            or self.cluster.is_deleted(batch.sent.key)
        )
        overtaken = lane.acked_sequence > batch.sequence
        forgotten = self.cluster.compacts(lane.topic) and self._is_written(batch, model)
        if overtaken:
            self.cluster.trace.count("producer: first batch overtaken")
        elif forgotten:
            self.cluster.trace.count("producer: batch compacted before it was acknowledged")
        elif not older and not lossy:
            raise InvariantViolation(
                f"I1: {lane.topic}-{lane.index}: {host} refuses sequence {batch.sequence} of {self.name} (producer "
                f"{self.producer_id} epoch {batch.producer_epoch}) although everything before it is acknowledged"
            )
        if older:
            self._again(lane, batch)
        else:
            self._give_up(lane, batch)

    @staticmethod
    def _is_written(batch: Batch, model: PartitionModel | None) -> bool:
        """It is in the log, or was: of a producer's batches compaction leaves the last, as Kafka's, and after a restart
        no other is known (I2).
        """
        return model is not None and any(each.crc == batch.sent.crc for each in model.batches)

    def _again(self, lane: Lane, batch: Batch) -> None:
        """Back into the queue, at its place."""
        if self.now_us >= batch.deadline_us or (self.stopped and not self.settings.idempotent):
            self._give_up(lane, batch)
            return
        at = 0
        while at < len(lane.waiting) and self._is_before(lane.waiting[at], batch):
            at += 1
        lane.waiting.insert(at, batch)

    @staticmethod
    def _is_before(one: Batch, other: Batch) -> bool:
        return one.sent.number < other.sent.number

    def _expire(self, lane: Lane) -> None:
        """delivery.timeout.ms: what waits too long is given up, in flight or not."""
        now_us = self.now_us
        for batch in [each for each in lane.waiting if each.deadline_us <= now_us]:
            lane.waiting.remove(batch)
            self._give_up(lane, batch)
        for batch in [each for each in lane.in_flight if each.deadline_us <= now_us]:
            lane.in_flight.remove(batch)
            batch.sent.doubts += 1
            self._give_up(lane, batch)

    def _give_up(self, lane: Lane, batch: Batch) -> None:
        self.cluster.trace.count("producer: gave up a batch")
        if batch.sequence >= 0 and self.settings.idempotent:
            lane.must_bump = True
        self._settle(batch, Fate.UNKNOWN if batch.sent.doubts else Fate.FAILED)

    def _settle(self, batch: Batch, fate: Fate, base: int = -1, by: str = "") -> None:
        model = self.cluster.invariants.models.get(batch.sent.key)
        if not batch.encoded:
            return  # it was never sent
        self.cluster.history.settle(batch.sent, fate, base, model, by)
        self.cluster.trace.note(
            self.name, f"{fate.value}", model.name if model else "?", batch.sent.number, base
        )
