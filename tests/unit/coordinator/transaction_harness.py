"""A transaction coordinator with virtual time, a log in memory, and partitions that take markers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from odradek.coordinator.runtime import Marker
from odradek.coordinator.transaction.config import TransactionConfig
from odradek.coordinator.transaction.records import TransactionRecord, decode
from odradek.coordinator.transaction.state import TopicPartition, Transaction
from odradek.coordinator.transaction_coordinator import TransactionCoordinator
from odradek.ports.timers import TimerQueue
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
from odradek.wire.messages.add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnTopic,
)
from odradek.wire.messages.end_txn import EndTxnRequest, EndTxnResponse
from odradek.wire.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from unit.coordinator.memory import Answer, MemoryLog, VirtualClock

PARTITIONS = 4
TX = "tx"
ORDERS = ("orders", 0)
USERS = ("users", 1)


class Written(NamedTuple):
    """A marker in a partition."""

    partition: TopicPartition
    producer_id: int
    producer_epoch: int
    coordinator_epoch: int
    commit: bool
    transaction_version: int


class MemoryMarkers:
    """The leaders of all partitions. They take markers at once, or when told to; or refuse."""

    def __init__(self) -> None:
        self.written: list[Written] = []
        self.tries = 0
        self.errors: dict[TopicPartition, ErrorCode] = {}
        self.holding = False
        self.held: list[Callable[[], None]] = []

    def write(
        self,
        marker: Marker,
        partitions: list[TopicPartition],
        done: Callable[[dict[TopicPartition, ErrorCode]], None],
    ) -> None:
        self.tries += 1
        markers = [
            Written(
                each, *marker.producer, marker.coordinator_epoch, marker.commit, marker.transaction_version
            )
            for each in partitions
        ]
        if self.holding:
            self.held.append(partial(self._take, markers, done))
        else:
            self._take(markers, done)

    def _take(self, markers: list[Written], done: Callable[[dict[TopicPartition, ErrorCode]], None]) -> None:
        results = {marker.partition: self.errors.get(marker.partition, ErrorCode.NONE) for marker in markers}
        self.written += [marker for marker in markers if results[marker.partition] is ErrorCode.NONE]
        done(results)

    def release(self) -> None:
        held, self.held = self.held, []
        for take in held:
            take()


class CountingIds:
    """Producer ids from 1000 on, at once or when told to."""

    def __init__(self) -> None:
        self.last = 999
        self.holding = False
        self.held: list[Callable[[ErrorCode, int], None]] = []
        self.error = ErrorCode.NONE

    def next(self, allocated: Callable[[ErrorCode, int], None]) -> None:
        if self.holding:
            self.held.append(allocated)
        elif self.error is not ErrorCode.NONE:
            allocated(self.error, -1)
        else:
            self.last += 1
            allocated(ErrorCode.NONE, self.last)

    def release(self) -> None:
        self.holding = False
        held, self.held = self.held, []
        for allocated in held:
            self.next(allocated)


class Topics:
    """A metadata image of a few topics."""

    def __init__(self, **partitions: int) -> None:
        self.partitions = partitions

    def has_partition(self, name: str, partition: int) -> bool:
        return 0 <= partition < self.partitions.get(name, 0)


class TransactionHarness:
    """One coordinator, all of whose partitions are loaded unless `load=False`."""

    def __init__(self, *, load: bool = True, version: int = 2, **config: int) -> None:
        self.clock = VirtualClock()
        self.timers = TimerQueue()
        self.writer = MemoryLog()
        self.markers = MemoryMarkers()
        self.producer_ids = CountingIds()
        self.topics = Topics(orders=8, users=4, __consumer_offsets=1, __transaction_state=PARTITIONS)
        self.config = TransactionConfig(**config)
        self.version = version
        self.epoch = 0
        self.failed_partitions: list[int] = []
        self.coordinator = self.make()
        if load:
            self.load_all()

    def make(self) -> TransactionCoordinator:
        return TransactionCoordinator(
            self.config,
            self.timers,
            self.clock,
            self.writer,
            PARTITIONS,
            producer_ids=self.producer_ids,
            markers=self.markers,
            topics=self.topics,
            offsets_partition_for=lambda _: ("__consumer_offsets", 0),
            transaction_version=lambda: self.version,
            on_failed=self.failed_partitions.append,
        )

    def load_all(self) -> None:
        for partition in range(PARTITIONS):
            self.load(partition)

    def load(self, partition: int) -> None:
        if self.coordinator.runtime.load_begin(partition, self.epoch):
            for key, value in self.writer.logs.get(partition, []):
                self.coordinator.runtime.load_record(partition, key, value)
            self.coordinator.runtime.load_end(partition)

    def successor(self) -> TransactionCoordinator:
        """Another broker takes all partitions over: it loads what is in the log."""
        for partition in range(PARTITIONS):
            self.coordinator.runtime.unload(partition)
        self.writer.held.clear()
        self.coordinator = self.make()
        self.epoch += 1
        self.load_all()
        return self.coordinator

    def advance(self, ms: int) -> None:
        self.clock.advance(self.timers, ms)

    # -- requests ------------------------------------------------------------------------------------------------

    def ask_init(
        self,
        transactional_id: str | None = TX,
        *,
        timeout_ms: int = 10_000,
        producer: tuple[int, int] = (-1, -1),
        version: int = 5,
    ) -> Answer:
        answer = Answer()
        request = InitProducerIdRequest(transactional_id, timeout_ms, *producer)
        self.coordinator.init_producer_id(version, request, answer)
        return answer

    def init(self, transactional_id: str = TX, **kwargs: Any) -> tuple[int, int]:
        """The producer id and epoch."""
        response = self.ask_init(transactional_id, **kwargs).response
        assert isinstance(response, InitProducerIdResponse)
        assert response.error_code == 0, ErrorCode(response.error_code)
        return response.producer_id, response.producer_epoch

    def ask_add(
        self,
        producer: tuple[int, int],
        *partitions: TopicPartition,
        transactional_id: str = TX,
        version: int = 3,
    ) -> Answer:
        answer = Answer()
        request = AddPartitionsToTxnRequest(
            v3_and_below_transactional_id=transactional_id,
            v3_and_below_producer_id=producer[0],
            v3_and_below_producer_epoch=producer[1],
            v3_and_below_topics=[AddPartitionsToTxnTopic(name, [index]) for name, index in partitions],
        )
        self.coordinator.add_partitions_to_txn(version, request, answer)
        return answer

    def add(self, producer: tuple[int, int], *partitions: TopicPartition, **kwargs: Any) -> ErrorCode:
        """The error of the first partition."""
        response = self.ask_add(producer, *(partitions or (ORDERS,)), **kwargs).response
        topic = response.results_by_topic_v3_and_below[0]
        return ErrorCode(topic.results_by_partition[0].partition_error_code)

    def offsets(self, producer: tuple[int, int], transactional_id: str = TX, version: int = 4) -> Answer:
        answer = Answer()
        request = AddOffsetsToTxnRequest(transactional_id, *producer, "group")
        self.coordinator.add_offsets_to_txn(version, request, answer)
        return answer

    def ask_end(
        self,
        producer: tuple[int, int],
        *,
        commit: bool = True,
        transactional_id: str = TX,
        version: int = 5,
    ) -> Answer:
        answer = Answer()
        self.coordinator.end_txn(version, EndTxnRequest(transactional_id, *producer, commit), answer)
        return answer

    def end(self, producer: tuple[int, int], **kwargs: Any) -> tuple[int, int]:
        """The producer id and epoch to go on with."""
        response = self.ask_end(producer, **kwargs).response
        assert isinstance(response, EndTxnResponse)
        assert response.error_code == 0, ErrorCode(response.error_code)
        return response.producer_id, response.producer_epoch

    # -- what is there -------------------------------------------------------------------------------------------

    def known(self, transactional_id: str = TX) -> Transaction:
        partition = self.coordinator.partition_for(transactional_id)
        known = self.coordinator.runtime.read(partition).known(transactional_id)
        assert known is not None
        return known

    def state(self, transactional_id: str = TX) -> str:
        return self.known(transactional_id).state.text

    def records(self, transactional_id: str = TX) -> list[TransactionRecord]:
        log = self.writer.logs.get(self.coordinator.partition_for(transactional_id), [])
        decoded = [decode(key, value) for key, value in log]
        return [each for each in decoded if each is not None and each.transactional_id == transactional_id]

    def states_in_log(self, transactional_id: str = TX) -> list[str]:
        return [
            "tombstone" if record.value is None else record.value.state.text
            for record in self.records(transactional_id)
        ]
