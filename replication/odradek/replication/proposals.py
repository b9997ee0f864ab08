"""ISR proposals of all partitions that this node leads, on their way to the controller: AlterPartition v3.

One request in flight, with everything that is due when it is sent; what comes up meanwhile goes with the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from odradek.replication.isr import PartitionState, Proposal
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.alter_partition import (
    AlterPartitionRequest,
    AlterPartitionRequestPartitionData,
    AlterPartitionRequestTopicData,
    AlterPartitionResponse,
    BrokerState,
)

if TYPE_CHECKING:
    from odradek.ports.timers import Timer, TimerQueue
    from odradek.replication.leader import LeaderState
    from odradek.replication.metrics import ReplicationMetrics
    from odradek.replication.ports import ControllerPort
    from odradek.replication.replica import PartitionKey, Replica

VERSION: Final = 3
PARTITIONS_MAX: Final = 2000
"""Of one request."""

_Asked = tuple["Replica", "LeaderState", Proposal]


class ProposalsHost(Protocol):
    node_id: int
    broker_epoch: int
    closed: bool
    metrics: ReplicationMetrics
    timers: TimerQueue

    def now_ms(self) -> int: ...
    def settled(self, replica: Replica, change: Callable[[], bool]) -> None: ...
    def flush(self) -> None: ...


class Proposals:
    __slots__ = ("_asking", "_controller", "_host", "_timer", "_waiting")

    def __init__(self, host: ProposalsHost, controller: ControllerPort) -> None:
        self._host = host
        self._controller = controller
        self._waiting: dict[Replica, None] = {}
        self._asking = False
        self._timer: Timer | None = None

    def add(self, replica: Replica) -> None:
        """To be called whenever something happened to a leader; whether it proposes is found out here."""
        leader = replica.leader
        if leader is not None and leader.isr.unsent:
            self._waiting[replica] = None

    def discard(self, replica: Replica) -> None:
        self._waiting.pop(replica, None)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def ask(self) -> None:
        """Send what is due, unless a request is in flight."""
        if self._asking or not self._waiting:
            return
        now_ms = self._host.now_ms()
        asked: list[_Asked] = []
        later: int | None = None
        for replica in list(self._waiting):
            leader = replica.leader
            if leader is None or not leader.isr.unsent:
                del self._waiting[replica]
            elif leader.isr.not_before_ms > now_ms:
                due = leader.isr.not_before_ms
                later = due if later is None else min(later, due)
            elif len(asked) < PARTITIONS_MAX:
                del self._waiting[replica]
                asked.append((replica, leader, leader.isr.take()))
        if asked:
            self._asking = True
            self._controller.alter_partition(self._request(asked), VERSION, partial(self._answered, asked))
        elif later is not None:
            self.close()
            self._timer = self._host.timers.at(later, lambda _now: self._host.flush())

    def _request(self, asked: Iterable[_Asked]) -> AlterPartitionRequest:
        topics: dict[bytes, list[AlterPartitionRequestPartitionData]] = {}
        for replica, _, proposal in asked:
            topic_id, partition = replica.key
            topics.setdefault(topic_id, []).append(
                AlterPartitionRequestPartitionData(
                    partition_index=partition,
                    leader_epoch=proposal.leader_epoch,
                    new_isr_with_epochs=[BrokerState(member, epoch) for member, epoch in proposal.isr],
                    partition_epoch=proposal.partition_epoch,
                )
            )
        return AlterPartitionRequest(
            broker_id=self._host.node_id,
            broker_epoch=self._host.broker_epoch,
            topics=[AlterPartitionRequestTopicData(*each) for each in topics.items()],
        )

    def _answered(self, asked: list[_Asked], response: AlterPartitionResponse | None) -> None:
        self._asking = False
        host = self._host
        if host.closed:
            return
        error = None if response is None or not response.error_code else ErrorCode.told(response.error_code)
        answers = {} if response is None else _answers(response)
        now_ms = host.now_ms()
        for replica, leader, proposal in asked:
            answer = answers.get(replica.key, error)
            if not isinstance(answer, PartitionState):
                host.metrics.failed_isr_updates += 1
            if replica.leader is leader:
                host.settled(replica, partial(leader.answered, proposal, answer, now_ms))
                if leader.isr.proposal is None and leader.isr.not_before_ms > now_ms:
                    host.timers.at(leader.isr.not_before_ms, partial(self._reconsider, replica, leader))
        host.flush()

    def _reconsider(self, replica: Replica, leader: LeaderState, now_ms: int) -> None:
        if replica.leader is leader and not self._host.closed:
            self._host.settled(replica, partial(leader.reconsider, now_ms))
            self._host.flush()


def _answers(response: AlterPartitionResponse) -> dict[PartitionKey, PartitionState | ErrorCode]:
    answers: dict[PartitionKey, PartitionState | ErrorCode] = {}
    for topic in response.topics:
        for each in topic.partitions:
            key = (topic.topic_id, each.partition_index)
            if each.error_code:
                answers[key] = ErrorCode.told(each.error_code)
            else:
                isr = tuple(each.isr)
                answers[key] = PartitionState(
                    each.leader_id, each.leader_epoch, each.partition_epoch, isr, ()
                )
    return answers
