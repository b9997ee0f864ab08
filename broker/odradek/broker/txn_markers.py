"""Markers that end transactions in their partitions (WriteTxnMarkers, KIP-98): on their way to the leaders, and there.

The transaction coordinator decides and tries again; here each marker goes once, to whom metadata calls the leader. What
is written in one turn of the event loop goes to a broker in one request. A marker counts when it is committed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from odradek.broker.topic_creation import OFFSETS_TOPIC
from odradek.coordinator.runtime import Marker, Producer
from odradek.wire.apis import ApiKey
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerPartitionResult,
    WritableTxnMarkerResult,
    WritableTxnMarkerTopic,
    WritableTxnMarkerTopicResult,
    WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
)

if TYPE_CHECKING:
    from odradek.broker.between_brokers import BetweenBrokers
    from odradek.broker.replica_manager import ReplicaManager
    from odradek.coordinator.group_coordinator import GroupCoordinator
    from odradek.metadata.image import MetadataImage
    from odradek.ports.clock import Clock
    from odradek.ports.timers import TimerQueue

VERSION = 2
"""The first with the version of transactions, by which leaders judge epochs (KIP-890)."""
OLDEST_VERSION = 1
REQUEST_TIMEOUT_MS = 30_000
"""How long a leader waits for markers to be committed: Kafka's default of `request.timeout.ms`."""
PARTITIONS_MAX = 10_000
"""What one request may carry; more go in further ones."""

TopicPartition = tuple[str, int]
Outcomes = dict[TopicPartition, ErrorCode]


@dataclass(slots=True)
class _Order:
    """One call of `write`: who waits, and for how many requests."""

    done: Callable[[Outcomes], None]
    outcomes: Outcomes = field(default_factory=dict)
    waiting: int = 0


class TxnMarkers:
    """The coordinator's `Markers`, and what answers WriteTxnMarkers."""

    def __init__(
        self,
        between: BetweenBrokers,
        replicas: ReplicaManager,
        groups: GroupCoordinator,
        clock: Clock,
        timers: TimerQueue,
        image: Callable[[], MetadataImage],
    ) -> None:
        self._between = between
        self._replicas = replicas
        self._groups = groups
        self._clock = clock
        self._timers = timers
        self._image = image
        self._queued: dict[int, list[tuple[WritableTxnMarker, _Order]]] = {}
        between.serve(ApiKey.WRITE_TXN_MARKERS, OLDEST_VERSION, self.serve)

    # -- sending -------------------------------------------------------------------------------------------------

    def write(
        self,
        marker: Marker,
        partitions: list[TopicPartition],
        done: Callable[[Outcomes], None],
    ) -> None:
        """Try once; `done` once, later, with what became of each partition.

        Without an answer: NETWORK_EXCEPTION. Before it is sent: LEADER_NOT_AVAILABLE; UNKNOWN_TOPIC_OR_PARTITION for
        one that metadata does not have, or no more.
        """
        order = _Order(done)
        by_leader = self._by_leader(partitions, order)
        if not by_leader:
            self._timers.at(self._clock.monotonic_ms(), lambda _now: done(order.outcomes))
            return
        if not self._queued:
            self._timers.at(self._clock.monotonic_ms(), self._send)
        for leader, there in by_leader.items():
            queue = self._queued.setdefault(leader, [])
            for at in range(0, len(there), PARTITIONS_MAX):
                order.waiting += 1
                queue.append((_writable(marker, there[at : at + PARTITIONS_MAX]), order))

    def _by_leader(self, partitions: list[TopicPartition], order: _Order) -> dict[int, list[TopicPartition]]:
        image = self._image()
        found: dict[int, list[TopicPartition]] = {}
        for name, index in partitions:
            topic = image.topics.get(name)
            known = topic.partitions.get(index) if topic is not None else None
            if known is None:
                order.outcomes[name, index] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            elif known.leader < 0:
                order.outcomes[name, index] = ErrorCode.LEADER_NOT_AVAILABLE
            else:
                found.setdefault(known.leader, []).append((name, index))
        return found

    def _send(self, _now_ms: int) -> None:
        queued, self._queued = self._queued, {}
        for leader, markers in queued.items():
            while markers:
                count, size = 0, _size(markers[0][0])
                while size <= PARTITIONS_MAX:
                    count += 1
                    if count == len(markers):
                        break
                    size += _size(markers[count][0])
                together, markers = markers[:count], markers[count:]
                request = WriteTxnMarkersRequest(markers=[marker for marker, _ in together])
                self._between.ask(leader, request, VERSION, partial(self._answered, together))

    def _answered(
        self, together: list[tuple[WritableTxnMarker, _Order]], response: WriteTxnMarkersResponse | None
    ) -> None:
        """Results come in the order of the markers: a producer may have two in one request."""
        results = response.markers if response is not None else []
        for position, (marker, order) in enumerate(together):
            for topic in marker.topics:
                for index in topic.partition_indexes:
                    order.outcomes[topic.name, index] = ErrorCode.NETWORK_EXCEPTION
            if position < len(results):
                for answer in results[position].topics:
                    for one in answer.partitions:
                        order.outcomes[answer.name, one.partition_index] = ErrorCode.told(one.error_code)
            order.waiting -= 1
            if order.waiting == 0:
                order.done(order.outcomes)

    # -- at the leader -------------------------------------------------------------------------------------------

    def serve(self, request: WriteTxnMarkersRequest, version: int, done: Callable[[Any], None]) -> None:
        """Answered when every marker is committed, refused, or has waited too long (REQUEST_TIMED_OUT)."""
        response = WriteTxnMarkersResponse()
        open_results: dict[int, WritableTxnMarkerPartitionResult] = {}
        answered = False

        def answer() -> None:
            nonlocal answered
            if not answered:
                answered = True
                timer.cancel()
                done(response)

        def expire(_now_ms: int) -> None:
            for result in open_results.values():
                result.error_code = ErrorCode.REQUEST_TIMED_OUT
            answer()

        def written(number: int, code: int) -> None:
            result = open_results.pop(number)
            if not answered:
                result.error_code = code
                if not open_results:
                    answer()

        timer = self._timers.at(self._clock.monotonic_ms() + REQUEST_TIMEOUT_MS, expire)
        open_results[-1] = WritableTxnMarkerPartitionResult()  # so that nothing is over before all have begun
        number = 0
        for marker in request.markers:
            producer = Producer(marker.producer_id, marker.producer_epoch)
            end = Marker(
                producer,
                marker.coordinator_epoch,
                marker.transaction_result,
                marker.transaction_version if version >= VERSION else 0,
            )
            results = WritableTxnMarkerResult(producer_id=marker.producer_id)
            response.markers.append(results)
            for topic in marker.topics:
                answers = WritableTxnMarkerTopicResult(topic.name)
                results.topics.append(answers)
                for index in topic.partition_indexes:
                    result = open_results[number] = WritableTxnMarkerPartitionResult(index)
                    answers.partitions.append(result)
                    self._append(end, topic.name, index, partial(written, number))
                    number += 1
        written(-1, ErrorCode.NONE)

    def _append(self, marker: Marker, topic: str, index: int, done: Callable[[int], None]) -> None:
        if topic == OFFSETS_TOPIC:
            self._groups.complete_transaction(index, marker, done)
            return
        try:
            leader = self._replicas.leader_of(topic, index)
            leader.refuse_if_too_few_in_sync()
            result = leader.append_marker(marker, self._clock.wall_ms())
        except KafkaError as error:
            done(error.code)
            return
        leader.when_committed(result.last_offset + 1, done)


def _writable(marker: Marker, partitions: list[TopicPartition]) -> WritableTxnMarker:
    topics: dict[str, list[int]] = {}
    for name, index in partitions:
        topics.setdefault(name, []).append(index)
    return WritableTxnMarker(
        producer_id=marker.producer.id,
        producer_epoch=marker.producer.epoch,
        transaction_result=marker.commit,
        topics=[WritableTxnMarkerTopic(name, indexes) for name, indexes in topics.items()],
        coordinator_epoch=marker.coordinator_epoch,
        transaction_version=marker.transaction_version,
    )


def _size(marker: WritableTxnMarker) -> int:
    return sum(len(topic.partition_indexes) for topic in marker.topics)
