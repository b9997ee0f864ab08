"""A member of a consumer group by the consumer protocol (KIP-848): one heartbeat says and hears everything.

What is checked: nobody is given a partition that another member holds whom the coordinator cannot have fenced yet
(G1); who takes a partition over finds at least what was acknowledged (G2); a commit that was sent after somebody else
took the partition is refused (G3).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from odradek.simulation.client import Client, error_of
from odradek.simulation.scheduler import MS
from odradek.simulation.trace import InvariantViolation
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatRequestTopicPartitions,
)
from odradek.wire.messages.find_coordinator import FindCoordinatorRequest
from odradek.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from odradek.wire.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
)
from odradek.wire.uuid import random_uuid, uuid_to_string

if TYPE_CHECKING:
    from odradek.simulation.cluster import Cluster

GROUP = "g-consumers"
SESSION_MS = 2_500
HEARTBEAT_US = 300 * MS
REBALANCE_TIMEOUT_MS = 60_000
CERTAIN_SESSION_US = SESSION_MS * MS * 97 // 100
"""Clocks of machines drift."""
Unit = tuple[str, int]
"""(topic, partition)."""


@dataclass(slots=True)
class ConsumerGroupTruth:
    """What all members together have learned."""

    holders: dict[Unit, ConsumerMember] = field(default_factory=dict)
    taken_us: dict[Unit, int] = field(default_factory=dict)
    acked: dict[Unit, int] = field(default_factory=dict)
    tried: dict[Unit, int] = field(default_factory=dict)


class ConsumerMember(Client):
    """Lives until `stopped`; `done` once it is in the group and has committed, if it has anything, after `finish`."""

    abandons = True
    """A request that is given up must not arrive later: a commit may not overtake the next one."""

    def __init__(self, cluster: Cluster, name: str, rng: Random, truth: ConsumerGroupTruth) -> None:
        super().__init__(cluster, name, rng)
        self.truth = truth
        self.member_id = uuid_to_string(random_uuid(rng))
        self.epoch = 0
        self.owned: dict[Unit, int] = {}
        """With the next offset to commit; -1 until the last one is known."""
        self.heard_us = 0
        """When the last heartbeat was sent that was answered: its session lasts at least from then on."""
        self._coordinator: str | None = None
        self._target: set[Unit] = set()
        self._tell_all = True
        self._told: set[Unit] | None = None
        self._asleep_until_us = 0
        self._finishing = False
        self.done = False

    def start(self) -> None:
        self.refresh()
        self._later(1)
        self._plan_commit()

    def finish(self) -> None:
        self._finishing = True

    def _later(self, delay_us: int = HEARTBEAT_US) -> None:
        self.after(delay_us, self._beat)

    # -- heartbeats ----------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        if self.stopped:
            return
        if self.now_us < self._asleep_until_us:
            self._later(self._asleep_until_us - self.now_us + 100 * MS)
        elif not all(topic in self.topic_ids for topic in self.topics):
            self.refresh()
            self._later(50 * MS)
        elif self._coordinator is None:
            self._find()
        else:
            self._ask_heartbeat(self._coordinator)

    def _find(self) -> None:
        def done(response: Any) -> None:
            if response is not None and response.coordinators[0].error_code == 0:
                self._coordinator = response.coordinators[0].host
            self._later(self.between(5, 100))

        self.ask(self.any_host(), FindCoordinatorRequest(key_type=0, coordinator_keys=[GROUP]), 4, done)

    def _ask_heartbeat(self, coordinator: str) -> None:
        everything = self._tell_all or self.epoch == 0
        owned = set(self.owned)
        sent_us = self.now_us
        request = ConsumerGroupHeartbeatRequest(
            group_id=GROUP,
            member_id=self.member_id,
            member_epoch=self.epoch,
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS if everything else -1,
            subscribed_topic_names=list(self.topics) if everything else None,
            topic_partitions=self._partitions(owned) if everything or owned != self._told else None,
        )

        def done(response: Any) -> None:
            if self.stopped:
                return
            if response is None or response.error_code:
                self._failed(None if response is None else response.error_code)
            else:
                self._told, self._tell_all = owned, False
                self.heard_us = max(self.heard_us, sent_us)
                self._take(response)

        self.ask(coordinator, request, 1, done)

    def _partitions(self, units: set[Unit]) -> list[ConsumerGroupHeartbeatRequestTopicPartitions]:
        by_topic: dict[bytes, list[int]] = {}
        for topic, index in sorted(units):
            by_topic.setdefault(self.topic_ids[topic], []).append(index)
        return [ConsumerGroupHeartbeatRequestTopicPartitions(*each) for each in by_topic.items()]

    def _failed(self, code: int | None) -> None:
        self._tell_all = True
        error = error_of(code) if code is not None else None
        if error is not None:
            self.cluster.trace.count(f"consumer group: {error.name}")
        if error in (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_MEMBER_EPOCH):
            self._release(set(self.owned))
            self._target = set()
            self.epoch = 0
        elif error is not ErrorCode.COORDINATOR_LOAD_IN_PROGRESS:
            self._coordinator = None
        self._later(self.between(20, 200))

    def _take(self, response: Any) -> None:
        """Give up first what is not assigned any more; it takes a while."""
        self.epoch = response.member_epoch
        if response.assignment is not None:
            names = {topic_id: name for name, topic_id in self.topic_ids.items()}
            self._target = {
                (names[each.topic_id], index)
                for each in response.assignment.topic_partitions
                for index in each.partitions
            }
            self.cluster.trace.note(self.name, "assigned", self.epoch, str(sorted(self._target)))
        lost = set(self.owned) - self._target
        if lost:
            self.after(self.between(1, 150), lambda: self._reconcile(lost))
        else:
            self._reconcile(lost)

    def _reconcile(self, lost: set[Unit]) -> None:
        self._release(lost)
        new = self._target - set(self.owned)
        for unit in sorted(new):
            self._own(unit)
        if new:
            self._fetch(sorted(new))
        self._later(self.between(1, 30) if new or lost else HEARTBEAT_US)

    def _release(self, units: set[Unit]) -> None:
        for unit in units:
            self.owned.pop(unit, None)
            if self.truth.holders.get(unit) is self:
                del self.truth.holders[unit]

    def _own(self, unit: Unit) -> None:
        truth = self.truth
        other = truth.holders.get(unit)
        if other is not None and other is not self and not self._lossy():
            if self.now_us < other.heard_us + CERTAIN_SESSION_US:
                raise InvariantViolation(
                    f"G1: {self.name} is given {unit} in epoch {self.epoch}, which {other.name} holds in epoch "
                    f"{other.epoch}, heard {(self.now_us - other.heard_us) // MS} ms ago"
                )
            self.cluster.trace.count("consumer group: taken from a member that is gone")
        truth.holders[unit], truth.taken_us[unit] = self, self.now_us
        self.owned[unit] = -1

    def _lossy(self) -> bool:
        return self.cluster.offsets_may_be_lost()

    # -- offsets -------------------------------------------------------------------------------------------------

    def _fetch(self, units: list[Unit]) -> None:
        """Where the ones before have come to."""
        acked = {unit: self.truth.acked.get(unit, 0) for unit in units}
        topics = [OffsetFetchRequestTopics(name=topic, partition_indexes=[index]) for topic, index in units]
        request = OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group_id=GROUP, topics=topics)])

        def done(response: Any) -> None:
            group = response.groups[0] if response is not None else None
            if self.stopped:
                return
            if group is None or group.error_code:
                left = [unit for unit in units if unit in self.owned]
                self.after(self.between(20, 150), lambda: self._fetch(left) if left else None)
                return
            for topic in group.topics:
                for part in topic.partitions:
                    self._found((topic.name, part.partition_index), part, acked)

        if self._coordinator is None:
            self.after(self.between(20, 150), lambda: self._fetch(units))
        else:
            self.ask(self._coordinator, request, 9, done)

    def _found(self, unit: Unit, part: Any, acked: dict[Unit, int]) -> None:
        if part.error_code or unit not in self.owned:
            return
        found, tried = max(0, part.committed_offset), self.truth.tried.get(unit, 0)
        if not acked[unit] <= found <= tried and not self._lossy():
            raise InvariantViolation(
                f"G2: {GROUP} has committed {acked[unit]} of {unit}, tried {tried}, and {self.name} finds {found}"
            )
        self.owned[unit] = found
        if self._lossy():
            self.truth.acked[unit] = found

    def _plan_commit(self) -> None:
        if not self._finishing and self.rng.random() < 0.02:
            # As a process that was stopped: others take its partitions, and it commits first of all when it wakes up.
            self.cluster.trace.count("consumer group: a member is asleep beyond its session")
            self._asleep_until_us = self.now_us + self.between(SESSION_MS + 100, 2 * SESSION_MS)
            self.after(self._asleep_until_us - self.now_us, self._commit)
        else:
            self.after(self.between(20, 250), self._commit)

    def _commit(self) -> None:
        if self.stopped:
            return
        known = sorted(unit for unit, offset in self.owned.items() if offset >= 0)
        if not known or self._coordinator is None or self.epoch <= 0:
            self.done |= self._finishing and self.epoch > 0 and not self.owned
            self._plan_commit()
            return
        unit = self.rng.choice(known)
        offset = self.owned[unit] = max(self.owned[unit], self.truth.tried.get(unit, 0)) + 1
        self.truth.tried[unit] = offset
        sent_us = self.now_us
        partition = OffsetCommitRequestPartition(
            partition_index=unit[1], committed_offset=offset, committed_metadata=""
        )
        request = OffsetCommitRequest(
            group_id=GROUP,
            generation_id_or_member_epoch=self.epoch,
            member_id=self.member_id,
            topics=[OffsetCommitRequestTopic(name=unit[0], partitions=[partition])],
        )

        def done(response: Any) -> None:
            code = None if response is None else response.topics[0].partitions[0].error_code
            if code == 0:
                self._committed(unit, offset, sent_us)
                self.done |= self._finishing
            elif code is not None:
                self.cluster.trace.count(f"consumer group, commit: {error_of(code).name}")
            self._plan_commit()

        self.ask(self._coordinator, request, 9, done)

    def _committed(self, unit: Unit, offset: int, sent_us: int) -> None:
        holder = self.truth.holders.get(unit)
        taken_us = self.truth.taken_us.get(unit, 0)
        if holder is not None and holder is not self and taken_us < sent_us and not self._lossy():
            raise InvariantViolation(
                f"G3: {self.name} commits {offset} of {unit} after {holder.name} has taken that"
            )
        self.cluster.trace.note(self.name, "committed", str(unit), offset, self.epoch)
        self.truth.acked[unit] = max(self.truth.acked.get(unit, 0), offset)
