"""Consumer and mixed groups under a seeded random load: a slow and failing log, coordinators that change, members of
both protocols that pause, crash, come back and go on with what they believed.

    G1  no two members own a partition, not in any state the coordinator was in; nobody is assigned what another has
    G2  a fetched offset is the last committed one of the coordinator's log
    G3  a commit of a stale member epoch is refused: an offset in the log is of a member that had the partition
    G4  what a replay of the log gives is what the coordinator has
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import pytest

from odradek.coordinator.group.classic.group import ClassicGroup
from odradek.coordinator.group.consumer.embedded import read_assignment
from odradek.coordinator.group.consumer.group import ConsumerGroup
from odradek.coordinator.group.consumer.records import all_records
from odradek.coordinator.group.decode import decode
from odradek.coordinator.group_coordinator import GroupConfig, GroupCoordinator
from odradek.coordinator.runtime import PartitionState
from odradek.ports.timers import TimerQueue
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatRequestTopicPartitions,
)
from odradek.wire.messages.consumer_protocol_assignment import ConsumerProtocolAssignment
from odradek.wire.messages.consumer_protocol_assignment import TopicPartition as Assigned
from odradek.wire.messages.consumer_protocol_subscription import (
    ConsumerProtocolSubscription,
    TopicPartition,
)
from odradek.wire.messages.heartbeat import HeartbeatRequest
from odradek.wire.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from odradek.wire.messages.leave_group import LeaveGroupRequest, MemberIdentity
from odradek.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from odradek.wire.messages.offset_commit_key import OffsetCommitKey
from odradek.wire.messages.offset_commit_value import OffsetCommitValue
from odradek.wire.messages.offset_fetch import OffsetFetchRequest, OffsetFetchRequestGroup
from odradek.wire.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment
from unit.coordinator.group_harness import Topics, VirtualClock, context
from unit.coordinator.test_group_random import ShakyLog

GROUPS = ("alpha", "beta")
CLIENTS = 10
DURATION_MS = 300_000
HEARTBEAT_MS = 1_000
WANTED = (("orders",), ("orders", "users"), ("users",), ("orders", "late"))


class Client:
    """A member of either protocol. What it has it gives up a little later than it is told."""

    def __init__(self, world: World, number: int, classic: bool) -> None:
        self.world = world
        self.rng = world.rng
        self.name = f"c{number}"
        self.group = self.rng.choice(GROUPS)
        self.instance = f"i{number}" if number % 3 == 0 else None
        self.classic = classic
        self.topics = self.rng.choice(WANTED)
        self.lives = 0
        self.start()

    def start(self) -> None:
        self.lives += 1
        self.member_id = "" if self.classic else f"{self.name}-{self.lives}"
        self.epoch = 0
        self.owned: set[tuple[str, int]] = set()
        self.busy = False
        self.joined = False

    def live(self) -> None:
        """One step of its life, and the next one later."""
        world, rng = self.world, self.rng
        chance = rng.random()
        pause_ms = rng.randint(HEARTBEAT_MS // 2, HEARTBEAT_MS * 2)
        if chance < 0.01:
            pause_ms = rng.choice((5_000, 20_000))  # asleep; wakes up with what it believed
        elif chance < 0.02:
            self.start()  # crashed; static ones come back as who they were
        elif chance < 0.035 and self.joined:
            self.leave(-2 if self.instance is not None and not self.classic and rng.random() < 0.5 else -1)
            self.start()
            if rng.random() < 0.3:
                self.classic = not self.classic
                self.start()
        elif chance < 0.06:
            self.topics = rng.choice(WANTED)
            self.step(subscribe=True)
        else:
            self.step()
        if self.joined and self.owned and rng.random() < 0.5:
            self.commit()
        world.timers.at(world.clock.now_ms + pause_ms, lambda _: self.live())

    def step(self, *, subscribe: bool = False) -> None:
        if self.busy:
            return
        if self.classic:
            if self.joined and not subscribe:
                self.heartbeat()
            else:
                self.join()
        else:
            self.beat(subscribe)

    def _done(self, handle: Callable[[Any], None]) -> Callable[[Any], None]:
        """Answers of an earlier life do not matter."""
        life = self.lives
        self.busy = True

        def done(response: Any) -> None:
            if self.lives == life:
                self.busy = False
                handle(response)

        return done

    # -- the consumer protocol -----------------------------------------------------------------------------------

    def beat(self, subscribe: bool) -> None:
        full = self.epoch == 0 or subscribe
        owned: dict[str, list[int]] = {}
        for topic, number in sorted(self.owned):
            owned.setdefault(topic, []).append(number)
        ids = self.world.topics.ids
        request = ConsumerGroupHeartbeatRequest(
            group_id=self.group,
            member_id=self.member_id,
            member_epoch=self.epoch,
            instance_id=self.instance,
            rebalance_timeout_ms=8_000 if full else -1,
            subscribed_topic_names=list(self.topics) if full else None,
            subscribed_topic_regex=self.rng.choice(("", "", "l.*")) if full else None,
            server_assignor=self.rng.choice((None, "range", "uniform")) if full else None,
            topic_partitions=[
                ConsumerGroupHeartbeatRequestTopicPartitions(ids[topic], numbers)
                for topic, numbers in owned.items()
            ],
        )
        coordinator = self.world.coordinator
        coordinator.consumer_group_heartbeat(context(1, self.name), request, self._done(self._beaten))

    def _beaten(self, response: Any) -> None:
        error = ErrorCode(response.error_code)
        self.world.seen[error] = self.world.seen.get(error, 0) + 1
        if error in (
            ErrorCode.FENCED_MEMBER_EPOCH,
            ErrorCode.UNKNOWN_MEMBER_ID,
            ErrorCode.GROUP_ID_NOT_FOUND,
        ):
            self.epoch, self.owned, self.joined = 0, set(), False
        elif error in (ErrorCode.FENCED_INSTANCE_ID, ErrorCode.UNRELEASED_INSTANCE_ID):
            self.start()
        elif error is ErrorCode.NONE:
            self.epoch, self.joined = response.member_epoch, True
            if response.assignment is not None:
                name_of = self.world.topics.topic_name
                assigned = {
                    (name_of(topic.topic_id) or "", number)
                    for topic in response.assignment.topic_partitions
                    for number in topic.partitions
                }
                self.world.timers.at(
                    self.world.clock.now_ms + self.rng.choice((0, 0, 500, 3_000)),
                    lambda _, life=self.lives: self._take(life, assigned),
                )

    def _take(self, life: int, assigned: set[tuple[str, int]]) -> None:
        if life == self.lives and self.joined:
            self.owned = assigned

    def leave(self, epoch: int) -> None:
        if self.classic:
            member = MemberIdentity(self.member_id, self.instance)
            self.world.coordinator.leave_group(
                context(5), LeaveGroupRequest(self.group, members=[member]), lambda _: None
            )
            return
        request = ConsumerGroupHeartbeatRequest(
            group_id=self.group, member_id=self.member_id, member_epoch=epoch, instance_id=self.instance
        )
        self.world.coordinator.consumer_group_heartbeat(context(1), request, lambda _: None)

    # -- the classic protocol ------------------------------------------------------------------------------------

    def join(self) -> None:
        owned: dict[str, list[int]] = {}
        for topic, number in sorted(self.owned):
            owned.setdefault(topic, []).append(number)
        subscription = ConsumerProtocolSubscription(
            list(self.topics), owned_partitions=[TopicPartition(*entry) for entry in owned.items()]
        )
        metadata = b"\0\1" + subscription.encode(1)
        request = JoinGroupRequest(
            group_id=self.group,
            session_timeout_ms=10_000,
            rebalance_timeout_ms=8_000,
            member_id=self.member_id,
            group_instance_id=self.instance,
            protocol_type="consumer",
            protocols=[JoinGroupRequestProtocol("range", metadata)],
        )
        self.world.coordinator.join_group(context(9, self.name), request, self._done(self._after_join))

    def _after_join(self, response: Any) -> None:
        error = ErrorCode(response.error_code)
        if error is ErrorCode.MEMBER_ID_REQUIRED:
            self.member_id = response.member_id
        elif error in (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID):
            self.start()
        elif error is ErrorCode.NONE:
            self.member_id, self.epoch = response.member_id, response.generation_id
            leads = response.leader == response.member_id
            assignments = [
                SyncGroupRequestAssignment(each.member_id, self.world.share(index, len(response.members)))
                for index, each in enumerate(response.members if leads else [])
            ]
            request = SyncGroupRequest(
                self.group,
                self.epoch,
                self.member_id,
                self.instance,
                "consumer",
                "range",
                assignments,
            )
            self.world.coordinator.sync_group(context(5), request, self._done(self._after_sync))

    def _after_sync(self, response: Any) -> None:
        error = ErrorCode(response.error_code)
        if error in (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID):
            self.start()
        elif error is ErrorCode.NONE:
            self.joined = True
            assigned = read_assignment(response.assignment).assigned_partitions if response.assignment else []
            self.owned = {(topic.topic, number) for topic in assigned for number in topic.partitions}

    def heartbeat(self) -> None:
        request = HeartbeatRequest(self.group, self.epoch, self.member_id, self.instance)
        self.world.coordinator.heartbeat(context(4), request, self._done(self._after_heartbeat))

    def _after_heartbeat(self, response: Any) -> None:
        error = ErrorCode(response.error_code)
        if error is ErrorCode.REBALANCE_IN_PROGRESS:
            self.join()
        elif error is ErrorCode.ILLEGAL_GENERATION:
            self.owned, self.joined = set(), False
        elif error in (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID):
            self.start()

    # -- offsets -------------------------------------------------------------------------------------------------

    def commit(self) -> None:
        topic, number = self.rng.choice(sorted(self.owned))
        offset = self.world.next_offset()
        self.world.commits[offset] = (self.member_id, self.epoch, topic, number)
        request = OffsetCommitRequest(
            self.group,
            self.epoch,
            self.member_id,
            self.instance,
            -1,
            [
                OffsetCommitRequestTopic(
                    topic, partitions=[OffsetCommitRequestPartition(number, offset, -1, "")]
                )
            ],
        )
        self.world.coordinator.commit_offsets(
            context(9, self.name), request, partial(self.world.committed, offset)
        )


class World:
    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.clock = VirtualClock()
        self.timers = TimerQueue()
        self.log = ShakyLog(self.rng, self.timers, self.clock)
        self.topics = Topics(orders=6, users=3)
        self.seen: dict[ErrorCode, int] = {}
        self.outcomes: dict[int, ErrorCode] = {}
        self.commits: dict[int, tuple[str, int, str, int]] = {}
        """Who tried to commit an offset: member id, epoch, topic and partition."""
        self.offset = 0
        self.coordinator = self.make()
        self.coordinator.runtime.load_begin(0, 0)
        self.coordinator.runtime.load_end(0)
        self.clients = [Client(self, number, classic=number % 2 == 0) for number in range(CLIENTS)]

    def make(self) -> GroupCoordinator:
        config = GroupConfig(
            group_min_session_timeout_ms=100,
            group_initial_rebalance_delay_ms=500,
            group_consumer_min_session_timeout_ms=5_000,
            group_consumer_session_timeout_ms=10_000,
            group_consumer_min_heartbeat_interval_ms=500,
            group_consumer_heartbeat_interval_ms=HEARTBEAT_MS,
        )
        made = GroupCoordinator(
            config,
            self.timers,
            self.clock,
            self.log,  # type: ignore[arg-type]  # takes no part in transactions
            Random(self.rng.random()),
            1,
            topics=self.topics,
            on_failed=lambda _: self.change_leader(),
        )
        made.on_topics_changed(set(self.topics.partitions), created=True)
        return made

    def share(self, index: int, count: int) -> bytes:
        """What a classic leader assigns: each `count`-th partition."""
        topics = [
            Assigned(name, [n for n in range(partitions) if n % count == index])
            for name, partitions in self.topics.partitions.items()
        ]
        return b"\0\1" + ConsumerProtocolAssignment(topics).encode(1)

    def next_offset(self) -> int:
        self.offset += 1
        return self.offset

    def committed(self, offset: int, response: Any) -> None:
        (topic,) = response.topics
        self.outcomes[offset] = ErrorCode(topic.partitions[0].error_code)

    def change_leader(self) -> None:
        self.coordinator.runtime.unload(0)
        self.log.change_leader()
        self.coordinator = self.make()
        self.load(self.coordinator)
        for client in self.clients:
            client.busy = False

    def load(self, coordinator: GroupCoordinator) -> None:
        coordinator.runtime.load_begin(0, self.log.epoch)
        for key, value in self.log.records:
            coordinator.runtime.load_record(0, key, value)
        coordinator.runtime.load_end(0)

    def run(self) -> None:
        for client in self.clients:
            self.timers.at(self.rng.randint(0, 5_000), lambda _, client=client: client.live())
        next_change_ms = 40_000
        while (deadline := self.timers.next_deadline_ms()) is not None and deadline <= DURATION_MS:
            self.clock.now_ms = max(self.clock.now_ms, deadline)
            self.timers.advance(self.clock.now_ms)
            self.check()
            if self.clock.now_ms > next_change_ms:
                next_change_ms += self.rng.randint(20_000, 60_000)
                if self.rng.random() < 0.5:
                    self.change_topics()
                else:
                    self.check_replay()
                    self.change_leader()

    def change_topics(self) -> None:
        name = self.rng.choice(("orders", "late"))
        created = name not in self.topics.partitions
        if created:
            self.topics.add(name, 2)
        else:
            self.topics.partitions[name] += 1
        self.coordinator.on_topics_changed({name}, created=created)

    # -- invariants ----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """G1, and that what is counted is what is there."""
        state = self.coordinator.runtime._partitions.get(0)
        if state is None or state.state is not PartitionState.ACTIVE:
            return
        for group in state.shard.groups.values():
            if not isinstance(group, ConsumerGroup):
                continue
            owners: dict[tuple[bytes, int], str] = {}
            for member in group.members.values():
                for place in member.owned():
                    assert owners.setdefault(place, member.member_id) == member.member_id, "G1"
            counted = {(t, n): c for t, numbers in group.owners.items() for n, c in numbers.items()}
            assert counted == dict.fromkeys(owners, 1)
            assert group.size == sum(1 for _ in group.members.values())
            assert group.classic_members < max(group.size, 1), "without others it is classic again"

    def check_replay(self) -> None:
        """G2 and G4, when nothing is under way."""
        state = self.coordinator.runtime._partitions[0]
        if state.state is not PartitionState.ACTIVE or state.committed != state.last_write:
            return
        twin = self.make()
        self.load(twin)
        live, loaded = state.shard, twin.runtime.read(0)
        assert {name for name, _ in live.groups.items()} == {name for name, _ in loaded.groups.items()}
        for name, group in live.groups.items():
            stored = loaded.groups.get(name)
            assert type(stored) is type(group)
            if isinstance(group, ConsumerGroup):
                assert isinstance(stored, ConsumerGroup)
                assert _durable(stored) == _durable(group), "G4"
            else:
                assert isinstance(stored, ClassicGroup)
                assert stored.generation <= group.generation
        for name in GROUPS:
            known = live.offsets.get(name)
            last: dict[tuple[str, int], int] = {}
            for record in (decode(key, value) for key, value in self.log.records):
                if record is None or getattr(record.key, "group", None) != name:
                    continue
                if isinstance(record.key, OffsetCommitKey) and isinstance(record.value, OffsetCommitValue):
                    last[record.key.topic, record.key.partition] = record.value.offset
            answers: list[Any] = []
            request = OffsetFetchRequest(groups=[OffsetFetchRequestGroup(name, topics=None)])
            self.coordinator.fetch_offsets(context(9), request, answers.append)
            fetched = {
                (topic.name, each.partition_index): each.committed_offset
                for topic in answers[0].groups[0].topics
                for each in topic.partitions
            }
            assert fetched == last, "G2"
            assert known is None or len(known) == len(last)
        twin.runtime.unload(0)

    def check_log(self) -> None:
        """G3, and that nothing acknowledged is missing."""
        in_log = {
            record.value.offset
            for record in (decode(key, value) for key, value in self.log.records)
            if record is not None and isinstance(record.value, OffsetCommitValue)
        }
        self._check_owners()
        stale = (ErrorCode.STALE_MEMBER_EPOCH, ErrorCode.ILLEGAL_GENERATION, ErrorCode.UNKNOWN_MEMBER_ID)
        assert not {offset for offset, error in self.outcomes.items() if error in stale} & in_log, "G3"
        assert {offset for offset, error in self.outcomes.items() if error is ErrorCode.NONE} <= in_log

    def _check_owners(self) -> None:
        """Where an offset stands in the log of a consumer group, its member has the epoch it was committed in, or has
        had the partition since then.
        """
        twin = self.make()
        twin.runtime.load_begin(0, self.log.epoch)
        groups = twin.runtime._partitions[0].shard.groups
        for key, value in self.log.records:
            record = decode(key, value)
            if (
                record is not None
                and isinstance(record.key, OffsetCommitKey)
                and isinstance(record.value, OffsetCommitValue)
            ):
                group = groups.get(record.key.group)
                if isinstance(group, ConsumerGroup):
                    self._check_owner(group, *self.commits[record.value.offset])
            twin.runtime.load_record(0, key, value)

    def _check_owner(self, group: ConsumerGroup, member_id: str, epoch: int, topic: str, number: int) -> None:
        member = group.members.get(member_id)
        assert member is not None, "G3"
        if epoch != member.member_epoch:
            topic_id = self.topics.ids[topic]
            since = {**member.assigned.get(topic_id, {}), **member.pending_revocation.get(topic_id, {})}
            assert number in since, "G3"
            assert since[number] <= epoch < member.member_epoch, "G3"


def _durable(group: ConsumerGroup) -> list[tuple[bytes, bytes | None]]:
    return sorted((record.encode() for record in all_records(group)), key=lambda pair: pair[0])


@pytest.mark.parametrize("seed", range(10))
def test_groups_of_both_protocols_keep_their_promises(seed: int) -> None:
    world = World(seed)
    world.run()
    world.check_log()
    outcomes = list(world.outcomes.values())
    assert outcomes.count(ErrorCode.NONE) > 50, "the load reaches nothing"
    assert world.seen[ErrorCode.NONE] > 200
    assert {ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_MEMBER_EPOCH} & world.seen.keys()


def test_the_same_seed_gives_the_same_log() -> None:
    first, second = World(77), World(77)
    first.run()
    second.run()
    assert first.log.records == second.log.records
