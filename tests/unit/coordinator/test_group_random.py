"""Many members, a slow and failing log, coordinators that change: groups under a seeded random load.

The invariants are those of the group's correctness list:

    G1  assignments of one generation are disjoint, and a new owner of a partition means that the old one is fenced
    G2  a fetched offset is the last committed one of the coordinator's log
    G3  a commit of a stale generation is refused
    G4  what a replay of the log gives is what the coordinator has

G1 and G3 are checked over the log: an offset stands behind the record of the very generation it was committed in, by
a member which that record assigns the partition to.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import pytest

from odradek.coordinator.group.classic.group import EMPTY, STABLE, ClassicGroup
from odradek.coordinator.group.classic.records import group_record
from odradek.coordinator.group.decode import decode
from odradek.coordinator.group_coordinator import GroupConfig, GroupCoordinator
from odradek.coordinator.runtime import PartitionState
from odradek.ports.timers import TimerQueue
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.group_metadata_value import GroupMetadataValue
from odradek.wire.messages.heartbeat import HeartbeatRequest
from odradek.wire.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse
from odradek.wire.messages.leave_group import LeaveGroupRequest, MemberIdentity
from odradek.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from odradek.wire.messages.offset_commit_value import OffsetCommitValue
from odradek.wire.messages.offset_fetch import OffsetFetchRequest, OffsetFetchRequestGroup
from odradek.wire.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse
from unit.coordinator.group_harness import Topics, VirtualClock, context

GROUPS = ("alpha", "beta")
CLIENTS = 14
TOPIC_PARTITIONS = 8
DURATION_MS = 400_000
NOTHING_WRITTEN = (
    ErrorCode.NOT_ENOUGH_REPLICAS,
    ErrorCode.NOT_LEADER_OR_FOLLOWER,
    ErrorCode.MESSAGE_TOO_LARGE,
)


class ShakyLog:
    """The offsets topic: slow, refusing some appends, answering some too late; in order always."""

    def __init__(self, rng: Random, timers: TimerQueue, clock: VirtualClock) -> None:
        self.rng = rng
        self.timers = timers
        self.clock = clock
        self.records: list[tuple[bytes, bytes | None]] = []
        self.committed = 0
        """How many records are committed."""
        self.known = 0
        """How many the present coordinator knows to be committed."""
        self.epoch = 0
        self._last_ms = 0

    def append(
        self, partition: int, records: list[tuple[bytes, bytes | None]], done: Callable[[int], None]
    ) -> None:
        chance = self.rng.random()
        if chance < 0.03:
            done(int(self.rng.choice(NOTHING_WRITTEN)))
            return
        self.records.extend(records)
        end = len(self.records)
        if chance < 0.3:
            self._commit(end, done, ErrorCode.NONE)
            return
        error = ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND if chance > 0.97 else ErrorCode.NONE
        self._last_ms = max(self._last_ms, self.clock.now_ms + self.rng.choice((1, 20, 200, 7_000)))
        epoch = self.epoch
        self.timers.at(self._last_ms, lambda _: self._complete(epoch, end, done, error))

    def _complete(self, epoch: int, end: int, done: Callable[[int], None], error: ErrorCode) -> None:
        if epoch == self.epoch:
            self._commit(end, done, error)

    def _commit(self, end: int, done: Callable[[int], None], error: ErrorCode) -> None:
        if error is ErrorCode.NONE:
            self.known = self.committed = max(self.committed, end)
        done(int(error))

    def change_leader(self) -> None:
        """The next leader has all that is committed, and perhaps some of what is not."""
        self.epoch += 1
        keep = self.rng.randint(self.committed, len(self.records))
        del self.records[keep:]
        self.known = self.committed = keep


class Member:
    """A client of its own pace. It may pause for long and go on with what it believed, or crash and come back."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.rng = world.rng
        self.name = f"c{number}"
        self.group = self.rng.choice(GROUPS)
        self.instance = f"i{number}" if number % 3 == 0 else None
        self.version = self.rng.choice((3, 5, 9)) if self.instance is None else self.rng.choice((5, 9))
        self.restart()

    def restart(self) -> None:
        self.incarnation = object()
        self.member_id = ""
        self.generation = -1
        self.owned: list[int] = []
        self.busy = False
        self.weight = self.rng.randint(0, 3)

    def step(self, now_ms: int) -> None:
        rng = self.rng
        pause = rng.choice((50, 300, 1_000, 2_500))
        if rng.random() < 0.03:
            self.restart()
        elif rng.random() < 0.02:
            pause = rng.choice((8_000, 15_000))
        elif not self.busy:
            self._act()
        self.world.timers.at(now_ms + pause, self.step)

    def _act(self) -> None:
        action = self.rng.random()
        if self.generation < 0 or action < 0.04:
            self._join()
        elif action < 0.06:
            self._leave()
        elif action < 0.4 and self.owned:
            self._commit(self.rng.choice(self.owned))
        elif action < 0.5:
            self.world.fetch(self.group)
        else:
            self._heartbeat()

    def _then(self, handle: Callable[[Any], None]) -> Callable[[Any], None]:
        """An answer that reaches the client after a while, if it is still the one that asked."""
        self.busy = True
        incarnation = self.incarnation

        def later(response: Any, _: int) -> None:
            if incarnation is self.incarnation:
                self.busy = False
                handle(response)

        def answered(response: Any) -> None:
            delay = self.rng.choice((0, 0, 5, 700))
            self.world.timers.at(self.world.clock.now_ms + delay, partial(later, response))

        return answered

    def _join(self) -> None:
        self.owned = []  # eager: revoke, then join
        metadata = b"weight" + bytes([self.weight])
        request = JoinGroupRequest(
            self.group,
            6_000,
            9_000,
            self.member_id,
            self.instance,
            "consumer",
            [JoinGroupRequestProtocol("range", metadata), JoinGroupRequestProtocol(f"odd{self.name}", b"")],
        )
        self.world.coordinator.join_group(
            context(self.version, self.name), request, self._then(self._on_join)
        )

    def _on_join(self, response: JoinGroupResponse) -> None:
        if response.error_code == ErrorCode.MEMBER_ID_REQUIRED:
            self.member_id = response.member_id
            self._join()
        elif response.error_code in (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID):
            self.member_id, self.generation = "", -1
        elif response.error_code == ErrorCode.NONE:
            self.member_id, self.generation = response.member_id, response.generation_id
            leads = response.leader == response.member_id and not response.skip_assignment
            self._sync(response, self._assign(response) if leads else [])

    def _assign(self, response: JoinGroupResponse) -> list[SyncGroupRequestAssignment]:
        members = sorted(member.member_id for member in response.members)
        shares: dict[str, list[int]] = {member: [] for member in members}
        for partition in range(TOPIC_PARTITIONS):
            shares[self.rng.choice(members)].append(partition)
        return [SyncGroupRequestAssignment(member, bytes(share)) for member, share in shares.items()]

    def _sync(self, joined: JoinGroupResponse, assignments: list[SyncGroupRequestAssignment]) -> None:
        request = SyncGroupRequest(
            self.group,
            self.generation,
            self.member_id,
            self.instance,
            "consumer",
            joined.protocol_name,
            assignments,
        )
        self.world.coordinator.sync_group(context(5), request, self._then(self._on_sync))

    def _on_sync(self, response: SyncGroupResponse) -> None:
        if response.error_code == ErrorCode.NONE:
            self.owned = list(response.assignment)
        else:
            self._on_error(response.error_code)

    def _heartbeat(self) -> None:
        request = HeartbeatRequest(self.group, self.generation, self.member_id, self.instance)
        self.world.coordinator.heartbeat(
            context(4), request, self._then(lambda response: self._on_error(response.error_code))
        )

    def _leave(self) -> None:
        request = LeaveGroupRequest(self.group, members=[MemberIdentity(self.member_id, self.instance)])
        self.world.coordinator.leave_group(context(5), request, self._then(lambda response: self.restart()))

    def _commit(self, partition: int) -> None:
        offset = self.world.next_offset(self.group, self.generation, self.member_id, partition)
        request = OffsetCommitRequest(
            self.group,
            self.generation,
            self.member_id,
            self.instance,
            topics=[
                OffsetCommitRequestTopic(
                    "orders", partitions=[OffsetCommitRequestPartition(partition, offset)]
                )
            ],
        )
        self.world.coordinator.commit_offsets(
            context(9), request, self._then(partial(self._on_commit, offset))
        )

    def _on_commit(self, offset: int, response: Any) -> None:
        error = response.topics[0].partitions[0].error_code
        self.world.answered(offset, ErrorCode(error))
        self._on_error(error)

    def _on_error(self, code: int) -> None:
        """As Java's consumer: lost the membership, or has to join again; anything else is tried again."""
        if code in (
            ErrorCode.UNKNOWN_MEMBER_ID,
            ErrorCode.FENCED_INSTANCE_ID,
            ErrorCode.ILLEGAL_GENERATION,
            ErrorCode.GROUP_ID_NOT_FOUND,
        ):
            self.member_id, self.generation, self.owned = "", -1, []
        elif code == ErrorCode.REBALANCE_IN_PROGRESS:
            self._join()


class World:
    """One coordinator at a time over one partition, its log, and the clients."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.clock = VirtualClock()
        self.timers = TimerQueue()
        self.log = ShakyLog(self.rng, self.timers, self.clock)
        self.config = GroupConfig(
            group_initial_rebalance_delay_ms=500, group_max_size=9, offsets_commit_timeout_ms=3_000
        )
        self.topics = Topics(orders=TOPIC_PARTITIONS)
        self.commits: dict[int, tuple[str, int, str, int]] = {}
        """Of each offset ever sent: group, generation, member, partition."""
        self.outcomes: dict[int, ErrorCode] = {}
        self.transcript: list[str] = []
        self.coordinator = self.make()
        self.load(self.coordinator)
        for number in range(CLIENTS):
            self.timers.at(self.rng.randint(0, 5_000), Member(self, number).step)
        self.timers.at(20_000, self.fail_over)
        self.timers.at(1_000, self.check)

    def make(self) -> GroupCoordinator:
        return GroupCoordinator(
            self.config,
            self.timers,
            self.clock,
            self.log,
            Random(self.rng.random()),
            1,
            topics=self.topics,
            on_failed=lambda _: self.replace_coordinator(),
        )

    def load(self, coordinator: GroupCoordinator) -> None:
        coordinator.runtime.load_begin(0, self.log.epoch)
        for key, value in self.log.records:
            coordinator.runtime.load_record(0, key, value)
        coordinator.runtime.load_end(0)

    def run(self) -> None:
        while self.clock.now_ms < DURATION_MS:
            deadline = self.timers.next_deadline_ms()
            assert deadline is not None
            self.clock.now_ms = max(self.clock.now_ms, deadline)
            self.timers.advance(self.clock.now_ms)

    def fail_over(self, now_ms: int) -> None:
        self.replace_coordinator()
        self.timers.at(now_ms + self.rng.randint(5_000, 60_000), self.fail_over)

    def replace_coordinator(self) -> None:
        self.coordinator.runtime.unload(0)
        self.log.change_leader()
        self.coordinator = self.make()
        self.load(self.coordinator)

    # -- what clients do through the world ------------------------------------------------------------------------

    def next_offset(self, group: str, generation: int, member_id: str, partition: int) -> int:
        offset = len(self.commits)
        self.commits[offset] = (group, generation, member_id, partition)
        return offset

    def answered(self, offset: int, error: ErrorCode) -> None:
        self.outcomes[offset] = error
        self.transcript.append(f"{self.clock.now_ms} {offset} {error.name}")

    def fetch(self, group: str) -> None:
        """G2: at once, what is committed and known to be."""
        request = OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group, topics=None)])
        responses: list[Any] = []
        self.coordinator.fetch_offsets(context(9), request, responses.append)
        (result,) = responses[0].groups
        assert result.error_code == 0
        fetched = {
            entry.partition_index: entry.committed_offset
            for topic in result.topics
            for entry in topic.partitions
        }
        expected: dict[int, int] = {}
        for key, value in self.log.records[: self.log.known]:
            record = decode(key, value)
            if (
                record is not None
                and isinstance(record.value, OffsetCommitValue)
                and record.key.group == group
            ):
                expected[record.key.partition] = record.value.offset  # type: ignore[union-attr]
        assert fetched == expected

    # -- invariants ------------------------------------------------------------------------------------------------

    def check(self, now_ms: int) -> None:
        self.timers.at(now_ms + 5_000, self.check)
        self.check_replay()

    def check_log(self) -> None:
        """G1 and G3."""
        stored: dict[str, GroupMetadataValue] = {}
        for key, value in self.log.records:
            record = decode(key, value)
            assert record is not None
            group = record.key.group
            if isinstance(record.value, GroupMetadataValue):
                if group in stored:
                    assert record.value.generation >= stored[group].generation or not stored[group].members
                shares = [partition for member in record.value.members for partition in member.assignment]
                assert len(shares) == len(set(shares)), "G1: two owners in one generation"
                stored[group] = record.value
            elif isinstance(record.value, OffsetCommitValue):
                sent = self.commits[record.value.offset]
                owners = {
                    partition: member.member_id
                    for member in stored[group].members
                    for partition in member.assignment
                }
                assert sent[:2] == (group, stored[group].generation), "G3: a stale commit was accepted"
                assert owners.get(sent[3]) == sent[2], "G1: a commit of another than the owner"

    def check_acknowledged(self) -> None:
        """Whatever was answered with success is in the log."""
        in_log = {
            record.value.offset
            for record in (decode(key, value) for key, value in self.log.records)
            if record is not None and isinstance(record.value, OffsetCommitValue)
        }
        acknowledged = {offset for offset, error in self.outcomes.items() if error is ErrorCode.NONE}
        assert acknowledged <= in_log
        refused = {offset for offset, error in self.outcomes.items() if error is ErrorCode.ILLEGAL_GENERATION}
        assert not refused & in_log

    def check_replay(self) -> None:
        """G4, when nothing is under way."""
        context_of = self.coordinator.runtime._partitions[0]
        if context_of.state is not PartitionState.ACTIVE or context_of.committed != context_of.last_write:
            return
        twin = self.make()
        self.load(twin)
        live, loaded = context_of.shard, twin.runtime.read(0)
        offsets = {group: dict(known.items()) for group, known in live.offsets.items() if not known.is_void()}
        assert offsets == {
            group: dict(known.items()) for group, known in loaded.offsets.items() if not known.is_void()
        }
        assert {name for name, _ in live.groups.items()} == {name for name, _ in loaded.groups.items()}
        for name, group in live.groups.items():
            stored = loaded.groups.get(name)
            assert stored is not None
            if group.state is STABLE:
                assert durable(group) == durable(stored)
            else:
                assert stored.generation <= group.generation
                assert stored.state is not EMPTY or group.state is EMPTY or not stored.members
        twin.runtime.unload(0)


def durable(group: ClassicGroup) -> Any:
    """The group as it would be written now. When it became stable is written before it does."""
    record = group_record(group, {member.member_id: member.assignment for member in group.members.values()})
    assert isinstance(record.value, GroupMetadataValue)
    record.value.current_state_timestamp = 0
    record.value.members.sort(key=lambda member: member.member_id)
    return record


@pytest.mark.parametrize("seed", range(8))
def test_groups_keep_their_promises(seed: int) -> None:
    world = World(seed)
    world.run()
    world.check_log()
    world.check_acknowledged()
    outcomes = list(world.outcomes.values())
    assert outcomes.count(ErrorCode.NONE) > 50, "the load reaches nothing"
    assert ErrorCode.ILLEGAL_GENERATION in outcomes or ErrorCode.UNKNOWN_MEMBER_ID in outcomes


def test_the_same_seed_gives_the_same_run() -> None:
    first, second = World(99), World(99)
    first.run()
    second.run()
    assert first.transcript == second.transcript
    assert first.log.records == second.log.records
