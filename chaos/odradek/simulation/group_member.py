"""A member of a consumer group (classic protocol, eager): joins, is assigned partitions, commits their offsets, leaves.

What is checked: two members never hold a partition in one generation (G1); a commit that was sent when a later
generation had already begun is refused (G3); who takes a partition over finds at least what was acknowledged (G2).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from odradek.simulation.client import Client, error_of
from odradek.simulation.scheduler import MS
from odradek.simulation.trace import InvariantViolation
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.consumer_protocol_assignment import ConsumerProtocolAssignment, TopicPartition
from odradek.wire.messages.consumer_protocol_subscription import ConsumerProtocolSubscription
from odradek.wire.messages.find_coordinator import FindCoordinatorRequest
from odradek.wire.messages.heartbeat import HeartbeatRequest
from odradek.wire.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from odradek.wire.messages.leave_group import LeaveGroupRequest, MemberIdentity
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
from odradek.wire.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment

if TYPE_CHECKING:
    from odradek.simulation.cluster import Cluster

GROUP = "g-members"
SESSION_TIMEOUT_MS = 2_500
HEARTBEAT_US = 300 * MS
Unit = tuple[str, int]
"""(topic, partition)."""


@dataclass(slots=True)
class GroupTruth:
    """What all members together have learned of the group."""

    owners: dict[tuple[int, Unit], str] = field(default_factory=dict)
    """(generation, partition) → member id."""
    newest: int = -1
    """The latest generation that somebody has an assignment of."""
    acked: dict[Unit, int] = field(default_factory=dict)
    tried: dict[Unit, int] = field(default_factory=dict)


class GroupMember(Client):
    """Lives until `stopped`; `done` once it has held an assignment, and committed, after `finish`."""

    abandons = True
    """A request that is given up must not arrive later: a commit may not overtake the next one."""

    def __init__(self, cluster: Cluster, name: str, rng: Random, truth: GroupTruth) -> None:
        super().__init__(cluster, name, rng)
        self.truth = truth
        self.member_id = ""
        self.generation = -1
        self.offsets: dict[Unit, int] = {}
        """Partitions held, and the next offset to commit; empty while joining."""
        self._coordinator: str | None = None
        self._life = 0
        self._finishing = False
        self._asleep_until_us = 0
        self.done = False

    def start(self) -> None:
        self._rejoin()

    def finish(self) -> None:
        self._finishing = True

    # -- steps ---------------------------------------------------------------------------------------------------

    def _rejoin(self, *, forget: bool = False) -> None:
        """Give everything up and join, after a moment. `forget`: as a new member."""
        self._life += 1
        self.offsets = {}
        if forget:
            self.member_id, self.generation = "", -1
        life = self._life
        self.after(self.between(5, 120), lambda: self._begin(life))

    def _begin(self, life: int) -> None:
        if life != self._life or self.stopped:
            return
        if self._coordinator is None:
            self._find(life)
        else:
            self._join(life)

    def _find(self, life: int) -> None:
        def done(response: Any) -> None:
            if response is not None and response.coordinators[0].error_code == 0:
                self._coordinator = response.coordinators[0].host
            if life == self._life:
                self._rejoin()

        self.ask(self.any_host(), FindCoordinatorRequest(key_type=0, coordinator_keys=[GROUP]), 4, done)

    def _failed(self, code: int | None) -> None:
        """Any step was refused or not answered."""
        if code is None:
            self._coordinator = None
            self._rejoin()
            return
        error = error_of(code)
        self.cluster.trace.count(f"group: {error.name}")
        if error in (ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE):
            self._coordinator = None
        self._rejoin(forget=error in (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID))

    # -- joining -------------------------------------------------------------------------------------------------

    def _join(self, life: int) -> None:
        subscription = ConsumerProtocolSubscription(topics=list(self.topics))
        metadata = b"\0\1" + subscription.encode(1)
        request = JoinGroupRequest(
            group_id=GROUP,
            session_timeout_ms=SESSION_TIMEOUT_MS,
            rebalance_timeout_ms=2_000,
            member_id=self.member_id,
            protocol_type="consumer",
            protocols=[JoinGroupRequestProtocol(name="range", metadata=metadata)],
        )

        def done(response: Any) -> None:
            if life != self._life:
                return
            if response is not None and response.error_code == ErrorCode.MEMBER_ID_REQUIRED:
                self.member_id = response.member_id
                self._join(life)
            elif response is None or response.error_code:
                self._failed(None if response is None else response.error_code)
            else:
                self.member_id, self.generation = response.member_id, response.generation_id
                self._sync(life, response)

        assert self._coordinator is not None
        self.ask(self._coordinator, request, 9, done)

    def _units(self) -> list[Unit]:
        return [(topic, index) for topic in self.topics for index in range(self.cluster.partitions_of(topic))]

    def _assign(self, members: list[str]) -> list[SyncGroupRequestAssignment]:
        """By the leader: partitions in turns."""
        shares: dict[str, list[Unit]] = {member: [] for member in sorted(members)}
        names = list(shares)
        for number, unit in enumerate(self._units()):
            shares[names[number % len(names)]].append(unit)
        assignments = []
        for member, units in shares.items():
            parts = [TopicPartition(topic=topic, partitions=[index]) for topic, index in units]
            encoded = b"\0\0" + ConsumerProtocolAssignment(assigned_partitions=parts, user_data=None).encode(
                0
            )
            assignments.append(SyncGroupRequestAssignment(member_id=member, assignment=encoded))
        return assignments

    def _sync(self, life: int, joined: Any) -> None:
        leads = joined.leader == joined.member_id
        request = SyncGroupRequest(
            group_id=GROUP,
            generation_id=self.generation,
            member_id=self.member_id,
            protocol_type="consumer",
            protocol_name="range",
            assignments=self._assign([member.member_id for member in joined.members]) if leads else [],
        )

        def done(response: Any) -> None:
            if life != self._life:
                return
            if response is None or response.error_code:
                self._failed(None if response is None else response.error_code)
            else:
                self._hold(life, response.assignment)

        assert self._coordinator is not None
        self.ask(self._coordinator, request, 5, done)

    def _hold(self, life: int, assignment: bytes) -> None:
        decoded = ConsumerProtocolAssignment.decode(assignment, 0, 2)
        units = [(part.topic, index) for part in decoded.assigned_partitions for index in part.partitions]
        truth = self.truth
        self.cluster.trace.note(self.name, "assigned", self.generation, str(units))
        for unit in units:
            other = truth.owners.setdefault((self.generation, unit), self.member_id)
            if other != self.member_id and not self._lossy():
                raise InvariantViolation(
                    f"G1: in generation {self.generation} both {other} and {self.member_id} hold {unit}"
                )
        truth.newest = max(truth.newest, self.generation)
        self._fetch(life, units)
        self.after(HEARTBEAT_US, lambda: self._heartbeat(life))

    def _lossy(self) -> bool:
        return self.cluster.offsets_may_be_lost()

    # -- while it holds partitions -------------------------------------------------------------------------------

    def _heartbeat(self, life: int) -> None:
        if life != self._life or self.stopped:
            return
        if self.now_us < self._asleep_until_us:
            self.after(self._asleep_until_us - self.now_us + HEARTBEAT_US, lambda: self._heartbeat(life))
            return
        if self._finishing and self.done and self.rng.random() < 0.3:
            self._leave(life)
            return
        request = HeartbeatRequest(group_id=GROUP, generation_id=self.generation, member_id=self.member_id)

        def done(response: Any) -> None:
            if life != self._life:
                return
            if response is None or response.error_code:
                self._failed(None if response is None else response.error_code)
            else:
                self.after(HEARTBEAT_US, lambda: self._heartbeat(life))

        assert self._coordinator is not None
        self.ask(self._coordinator, request, 4, done)

    def _leave(self, life: int) -> None:
        request = LeaveGroupRequest(group_id=GROUP, members=[MemberIdentity(member_id=self.member_id)])

        def done(response: Any) -> None:
            if life == self._life:
                self._rejoin(forget=True)

        assert self._coordinator is not None
        self.ask(self._coordinator, request, 5, done)

    def _fetch(self, life: int, units: list[Unit]) -> None:
        """Where the ones before have come to."""
        acked = {unit: self.truth.acked.get(unit, 0) for unit in units}
        topics = [OffsetFetchRequestTopics(name=topic, partition_indexes=[index]) for topic, index in units]
        request = OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group_id=GROUP, topics=topics)])

        def done(response: Any) -> None:
            if life != self._life:
                return
            code = None if response is None else response.groups[0].error_code
            if code != 0:
                self._failed(code)
                return
            for topic in response.groups[0].topics:
                for part in topic.partitions:
                    self._found((topic.name, part.partition_index), part, acked)
            self._plan_commit(life)

        assert self._coordinator is not None
        self.ask(self._coordinator, request, 9, done)

    def _found(self, unit: Unit, part: Any, acked: dict[Unit, int]) -> None:
        found = max(0, part.committed_offset)
        tried = self.truth.tried.get(unit, 0)
        if part.error_code == 0 and not acked.get(unit, 0) <= found <= tried and not self._lossy():
            raise InvariantViolation(
                f"G2: {GROUP} has committed {acked.get(unit, 0)} of {unit}, tried {tried}, and {self.name} finds "
                f"{found}"
            )
        self.offsets[unit] = found
        if self._lossy():
            self.truth.acked[unit] = found

    def _plan_commit(self, life: int) -> None:
        if not self._finishing and self.rng.random() < 0.02:
            # As a process that was stopped: it wakes up when others have its partitions, and commits first of all.
            self.cluster.trace.count("group member: asleep beyond its session")
            self._asleep_until_us = self.now_us + self.between(
                SESSION_TIMEOUT_MS + 100, 2 * SESSION_TIMEOUT_MS
            )
            self.after(self._asleep_until_us - self.now_us, lambda: self._commit(life))
        else:
            self.after(self.between(20, 250), lambda: self._commit(life))

    def _commit(self, life: int) -> None:
        if life != self._life or self.stopped:
            return
        if not self.offsets:
            self.done |= self._finishing
            self._plan_commit(life)
            return
        unit = self.rng.choice(sorted(self.offsets))
        offset = self.offsets[unit] = max(self.offsets[unit], self.truth.tried.get(unit, 0)) + 1
        self.truth.tried[unit] = offset
        newest = self.truth.newest
        generation = self.generation
        partition = OffsetCommitRequestPartition(
            partition_index=unit[1], committed_offset=offset, committed_metadata=""
        )
        request = OffsetCommitRequest(
            group_id=GROUP,
            generation_id_or_member_epoch=generation,
            member_id=self.member_id,
            topics=[OffsetCommitRequestTopic(name=unit[0], partitions=[partition])],
        )

        def done(response: Any) -> None:
            code = None if response is None else response.topics[0].partitions[0].error_code
            if code == 0:
                self._committed(unit, offset, generation, newest)
            if life != self._life:
                return
            if code != 0:
                self._failed(code)
            else:
                self.done |= self._finishing
                self._plan_commit(life)

        assert self._coordinator is not None
        self.ask(self._coordinator, request, 9, done)

    def _committed(self, unit: Unit, offset: int, generation: int, newest: int) -> None:
        if newest > generation and not self._lossy():
            raise InvariantViolation(
                f"G3: {self.name} committed {offset} of {unit} in generation {generation}, when {newest} had begun"
            )
        self.cluster.trace.note(self.name, "committed", str(unit), offset, generation)
        self.truth.acked[unit] = max(self.truth.acked.get(unit, 0), offset)
