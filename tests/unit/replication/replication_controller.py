"""A controller of one partition that follows Kafka's rules for ISR, ELR and leader, and the log of what it decided.

The rules themselves are the product's (`PartitionChange`); registration, fencing and AlterPartition are short versions
of its handlers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from odradek.controller.partition_change import PartitionChange
from odradek.metadata.delta import merge
from odradek.metadata.image import PartitionImage
from odradek.metadata.records import PartitionChangeRecord
from odradek.replication.isr import PartitionState, Peer
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.alter_partition import (
    AlterPartitionRequest,
    AlterPartitionRequestPartitionData,
    AlterPartitionResponse,
    AlterPartitionResponsePartitionData,
    AlterPartitionResponseTopicData,
)

TOPIC_ID = b"t" * 16


class Entry(NamedTuple):
    """The whole state after one record: what a broker that has read so far knows."""

    state: PartitionState
    peers: dict[int, Peer]


@dataclass
class Broker:
    epoch: int
    fenced: bool = True
    shutting_down: bool = False


class FakeController:
    def __init__(self, replicas: tuple[int, ...], min_isr: int) -> None:
        self.min_isr = min_isr
        self.brokers = {broker: Broker(0, fenced=False) for broker in replicas}
        self.partition = PartitionImage(replicas, replicas, replicas[0], 0, 0)
        self.log: list[Entry] = []
        self.answers: dict[str, int] = {}
        self._publish()

    def state(self) -> PartitionState:
        image = self.partition
        return PartitionState(
            image.leader, image.leader_epoch, image.partition_epoch, image.isr, image.replicas
        )

    def is_active(self, broker: int) -> bool:
        known = self.brokers[broker]
        return not known.fenced and not known.shutting_down

    # Brokers -----------------------------------------------------------------------------------------------------

    def register(self, broker: int, *, clean: bool) -> int:
        """A new incarnation; its broker epoch is the number of its entry."""
        self._remove(broker, unclean=not clean)
        epoch = len(self.log)
        self.brokers[broker] = Broker(epoch)
        self._publish()
        return epoch

    def fence(self, broker: int) -> None:
        if not self.brokers[broker].fenced:
            self.brokers[broker] = replace(self.brokers[broker], fenced=True)
            self._remove(broker)
            self._publish()

    def unfence(self, broker: int) -> None:
        self.brokers[broker] = replace(self.brokers[broker], fenced=False)
        if self.partition.leader < 0:
            self._change(lambda change: None)
        self._publish()

    def shut_down(self, broker: int) -> None:
        self.brokers[broker].shutting_down = True
        self._remove(broker)
        self._publish()

    def elect(self, broker: int) -> None:
        """As a preferred leader election does."""
        image = self.partition
        if broker in image.isr and self.is_active(broker) and broker != image.leader:
            self._apply(PartitionChangeRecord(TOPIC_ID, 0, leader=broker))
            self._publish()

    def _remove(self, broker: int, *, unclean: bool = False) -> None:
        image = self.partition
        if broker not in image.isr and not (unclean and broker in image.elr):
            return

        def leave(change: PartitionChange) -> None:
            change.isr = tuple(each for each in change.isr if each != broker)
            if unclean:
                change.unclean_replicas = (broker,)

        self._change(leave, lambda other: other != broker and self.is_active(other))

    # AlterPartition ----------------------------------------------------------------------------------------------

    def alter_partition(self, request: AlterPartitionRequest) -> AlterPartitionResponse:
        if request.broker_epoch != self.brokers[request.broker_id].epoch:
            return AlterPartitionResponse(error_code=ErrorCode.STALE_BROKER_EPOCH)
        topics = []
        for topic in request.topics:
            outcomes = [self._alter(request.broker_id, wanted) for wanted in topic.partitions]
            topics.append(AlterPartitionResponseTopicData(topic.topic_id, outcomes))
        return AlterPartitionResponse(topics=topics)

    def _alter(
        self, leader: int, wanted: AlterPartitionRequestPartitionData
    ) -> AlterPartitionResponsePartitionData:
        error = self._refusal(leader, wanted)
        name = ErrorCode.NONE.name if error is None else error.name
        self.answers[name] = self.answers.get(name, 0) + 1
        if error is ErrorCode.INELIGIBLE_REPLICA:  # as the product does: no earlier copy may be applied later
            self._apply(PartitionChangeRecord(TOPIC_ID, 0))
            self._publish()
        if error is not None:
            return AlterPartitionResponsePartitionData(0, error)

        def change_isr(change: PartitionChange) -> None:
            change.isr = tuple(sorted(each.broker_id for each in wanted.new_isr_with_epochs))

        self._change(change_isr)
        self._publish()
        image = self.partition
        if image.leader != leader:
            return AlterPartitionResponsePartitionData(0, ErrorCode.NEW_LEADER_ELECTED)
        return AlterPartitionResponsePartitionData(
            0, 0, image.leader, image.leader_epoch, list(image.isr), partition_epoch=image.partition_epoch
        )

    def _refusal(self, leader: int, wanted: AlterPartitionRequestPartitionData) -> ErrorCode | None:
        image = self.partition
        if wanted.leader_epoch > image.leader_epoch or wanted.partition_epoch > image.partition_epoch:
            return ErrorCode.NOT_CONTROLLER
        if wanted.leader_epoch < image.leader_epoch:
            return ErrorCode.FENCED_LEADER_EPOCH
        if leader != image.leader:
            return ErrorCode.INVALID_REQUEST
        if wanted.partition_epoch < image.partition_epoch:
            return ErrorCode.INVALID_UPDATE_VERSION
        for each in wanted.new_isr_with_epochs:
            current = self.brokers[each.broker_id].epoch
            if not self.is_active(each.broker_id) or each.broker_epoch not in (-1, current):
                return ErrorCode.INELIGIBLE_REPLICA
        return None

    # Parts -------------------------------------------------------------------------------------------------------

    def _change(
        self, adjust: Callable[[PartitionChange], None], acceptable: Callable[[int], bool] | None = None
    ) -> None:
        change = PartitionChange(TOPIC_ID, 0, self.partition, acceptable or self.is_active, self.min_isr)
        adjust(change)
        record = change.build()
        if record is not None:
            self._apply(record)

    def _apply(self, record: PartitionChangeRecord) -> None:
        before = self.partition
        after = merge(before, record)
        assert not set(after.isr) & set(after.elr)
        assert len(after.isr) < self.min_isr or not after.elr
        assert after.leader in (-1, *after.isr)
        self.partition = after

    def _publish(self) -> None:
        peers = {
            broker: Peer(known.epoch, known.fenced, known.shutting_down, f"rack-{broker}")
            for broker, known in self.brokers.items()
        }
        self.log.append(Entry(self.state(), peers))
