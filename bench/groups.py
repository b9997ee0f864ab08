"""What groups cost, beside Apache Kafka: two parts of `python -m bench coordinators`.

    idle    groups with one member and one committed offset each, then nothing: memory per group
    crowd   members of one group: all come, one leaves, all leave; the time until everybody has its share each time,
            and the node's CPU time for it

For both protocols. The members are one process with a connection each (the crowd) or a few (the idle ones), and do
as clients do: they give up at once, and come again when they are told to.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.procstat import ProcessMeter
from bench.raw_client import HOST, BenchError
from bench.rows import Metrics
from bench.servers import KafkaServer, OdradekServer, Server
from odradek.wire.apis import response_class
from odradek.wire.errors import ErrorCode
from odradek.wire.frame import decode_response_header, encode_request
from odradek.wire.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatRequestTopicPartitions,
)
from odradek.wire.messages.consumer_protocol_assignment import ConsumerProtocolAssignment, TopicPartition
from odradek.wire.messages.consumer_protocol_subscription import ConsumerProtocolSubscription
from odradek.wire.messages.create_topics import CreatableTopic, CreateTopicsRequest
from odradek.wire.messages.find_coordinator import FindCoordinatorRequest
from odradek.wire.messages.heartbeat import HeartbeatRequest
from odradek.wire.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from odradek.wire.messages.leave_group import LeaveGroupRequest, MemberIdentity
from odradek.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from odradek.wire.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment

TOPIC, IDLE_TOPIC = "bench-groups", "bench-idle-groups"
IDLE_CONNECTIONS = 50
CLASSIC, CONSUMER = "classic", "consumer"
PROTOCOLS = (CLASSIC, CONSUMER)
ACTS = ("all come", "one leaves", "all leave")
BEAT_S = 0.5
"""Between two heartbeats of a member of the crowd; what the broker tells is not waited for, to measure its work."""
SESSION_MS = 1_800_000
PATIENCE_S = 180.0
JOIN_VERSION, SYNC_VERSION, HEARTBEAT_VERSION, COMMIT_VERSION, LEAVE_VERSION = 9, 5, 4, 9, 5

RETRIABLE = (
    ErrorCode.NOT_COORDINATOR,
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
)


class Connection:
    """Requests one after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> Connection:
        return cls(*await asyncio.open_connection(HOST, port))

    async def ask(self, request: Any, version: int) -> Any:
        key = request.API_KEY
        self._writer.write(encode_request(key, version, 1, "bench", request.encode(version)))
        size = int.from_bytes(await self._reader.readexactly(4), "big")
        frame = await self._reader.readexactly(size)
        _, position = decode_response_header(frame, key, version)
        return response_class(key).decode(frame, version, position)

    async def insist(self, request: Any, version: int) -> Any:
        """Again while the coordinator is not ready: the offsets topic has just been made."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            response = await self.ask(request, version)
            if response.error_code not in RETRIABLE or time.monotonic() > deadline:
                return response
            await asyncio.sleep(0.1)

    def close(self) -> None:
        self._writer.close()


@dataclass
class Crowd:
    """What all members of one group know together."""

    topic_id: bytes
    partitions: int
    group: str
    members: list[Member] = field(default_factory=list)
    quiet: bool = False
    """Nobody heartbeats any more."""

    def settled(self) -> bool:
        """Every partition has one owner, and no member more than another and one."""
        sizes = [len(member.owned) for member in self.members]
        owned = {part for member in self.members for part in member.owned}
        epochs = {member.epoch for member in self.members}
        return (
            sum(sizes) == self.partitions == len(owned)
            and max(sizes) - min(sizes) <= 1
            and len(epochs) == 1
            and all(member.at_rest for member in self.members)
        )


class Member:
    """One member of either protocol."""

    def __init__(self, crowd: Crowd, number: int, protocol: str, connection: Connection) -> None:
        self.crowd, self.number, self.protocol, self.connection = crowd, number, protocol, connection
        self.member_id = f"member-{number}" if protocol == CONSUMER else ""
        self.epoch = 0
        self.owned: set[int] = set()
        self.at_rest = False

    async def live(self) -> None:
        while not self.crowd.quiet:
            await (self.beat() if self.protocol == CONSUMER else self.classic())
            if not self.crowd.quiet:
                await asyncio.sleep(BEAT_S)

    async def beat(self) -> None:
        """What a client would try again (on a busy machine a node may lose its place for a moment), it does too."""
        topics = [ConsumerGroupHeartbeatRequestTopicPartitions(self.crowd.topic_id, sorted(self.owned))]
        request = ConsumerGroupHeartbeatRequest(
            group_id=self.crowd.group,
            member_id=self.member_id,
            member_epoch=self.epoch,
            rebalance_timeout_ms=60_000 if self.epoch == 0 else -1,
            subscribed_topic_names=[TOPIC] if self.epoch == 0 else None,
            topic_partitions=topics if self.owned else [],
        )
        response = await self.connection.ask(request, 1)
        if response.error_code in RETRIABLE:
            return
        check(response)
        self.at_rest = self.epoch == response.member_epoch and response.assignment is None
        self.epoch = response.member_epoch
        if response.assignment is not None:
            parts = [part for topic in response.assignment.topic_partitions for part in topic.partitions]
            self.owned = set(parts)

    async def classic(self) -> None:
        if self.epoch:
            request = HeartbeatRequest(self.crowd.group, self.epoch, self.member_id)
            code = (await self.connection.ask(request, HEARTBEAT_VERSION)).error_code
            if code in RETRIABLE:
                return
            self.at_rest = code == ErrorCode.NONE
            if self.at_rest:
                return
        await self.rejoin()

    async def rejoin(self) -> None:
        """Join and sync until the member is in; the leader shares the partitions out."""
        while True:
            joined = await self.connection.insist(
                join_request(self.crowd.group, self.member_id), JOIN_VERSION
            )
            if joined.error_code == ErrorCode.MEMBER_ID_REQUIRED:
                self.member_id = joined.member_id
                continue
            check(joined)
            self.member_id = joined.member_id
            shares = [
                SyncGroupRequestAssignment(
                    each.member_id, assignment(range(index, self.crowd.partitions, len(joined.members)))
                )
                for index, each in enumerate(joined.members)
            ]
            synced = await self.connection.ask(
                sync_request(self.crowd.group, joined, self.member_id, shares), SYNC_VERSION
            )
            if synced.error_code == ErrorCode.REBALANCE_IN_PROGRESS:
                continue
            check(synced)
            self.epoch = joined.generation_id
            assigned = ConsumerProtocolAssignment.decode(synced.assignment, 0, 2).assigned_partitions
            self.owned = {part for topic in assigned for part in topic.partitions}
            self.at_rest = True
            return

    async def leave(self) -> None:
        if self.protocol == CONSUMER:
            request: Any = ConsumerGroupHeartbeatRequest(
                group_id=self.crowd.group, member_id=self.member_id, member_epoch=-1
            )
            check(await self.connection.ask(request, 1))
            return
        members = [MemberIdentity(self.member_id)]
        check(await self.connection.ask(LeaveGroupRequest(self.crowd.group, members=members), LEAVE_VERSION))


def check(response: Any) -> None:
    if response.error_code != ErrorCode.NONE:
        raise BenchError(f"{type(response).__name__}: {ErrorCode(response.error_code).name}")


def join_request(group: str, member_id: str) -> JoinGroupRequest:
    metadata = b"\0\0" + ConsumerProtocolSubscription([TOPIC]).encode(0)
    return JoinGroupRequest(
        group_id=group,
        session_timeout_ms=SESSION_MS,
        rebalance_timeout_ms=60_000,
        member_id=member_id,
        protocol_type="consumer",
        protocols=[JoinGroupRequestProtocol("range", metadata)],
    )


def sync_request(
    group: str, joined: Any, member_id: str, shares: list[SyncGroupRequestAssignment]
) -> SyncGroupRequest:
    return SyncGroupRequest(
        group, joined.generation_id, member_id, None, "consumer", joined.protocol_name, shares
    )


def assignment(partitions: range) -> bytes:
    return b"\0\0" + ConsumerProtocolAssignment([TopicPartition(TOPIC, list(partitions))]).encode(0)


# -- idle --------------------------------------------------------------------------------------------------------


async def idle(port: int, count: int, protocol: str, serial: int) -> None:
    """Make the groups, a few at a time, and leave them alone."""
    names = [f"idle-{protocol}-{serial}-{number}" for number in range(count)]
    connections = [await Connection.open(port) for _ in range(IDLE_CONNECTIONS)]

    async def make(connection: Connection, mine: list[str]) -> None:
        for name in mine:
            if protocol == CONSUMER:
                request = ConsumerGroupHeartbeatRequest(
                    group_id=name,
                    member_id="member",
                    rebalance_timeout_ms=60_000,
                    subscribed_topic_names=[IDLE_TOPIC],
                    topic_partitions=[],
                )
                response = await connection.insist(request, 1)
                check(response)
                await commit(connection, name, "member", response.member_epoch)
                continue
            required = await connection.insist(join_request(name, ""), JOIN_VERSION)
            joined = await connection.ask(join_request(name, required.member_id), JOIN_VERSION)
            check(joined)
            shares = [SyncGroupRequestAssignment(joined.member_id, assignment(range(1)))]
            check(await connection.ask(sync_request(name, joined, joined.member_id, shares), SYNC_VERSION))
            await commit(connection, name, joined.member_id, joined.generation_id)

    await asyncio.gather(*(make(each, names[at::IDLE_CONNECTIONS]) for at, each in enumerate(connections)))
    for connection in connections:
        connection.close()


async def commit(connection: Connection, group: str, member_id: str, generation: int) -> None:
    parts = [OffsetCommitRequestPartition(0, 1, -1, "")]
    request = OffsetCommitRequest(
        group, generation, member_id, None, -1, [OffsetCommitRequestTopic(IDLE_TOPIC, partitions=parts)]
    )
    answer = await connection.ask(request, COMMIT_VERSION)
    check(answer.topics[0].partitions[0])


# -- crowd -------------------------------------------------------------------------------------------------------


async def crowd(
    port: int, topic_id: bytes, count: int, protocol: str, name: str, meter: ProcessMeter
) -> dict[str, Metrics]:
    """What each act took."""
    group = Crowd(topic_id, count, name)
    for number in range(count):
        group.members.append(Member(group, number, protocol, await Connection.open(port)))
    acts: dict[str, Metrics] = {}
    loops = [asyncio.create_task(member.live()) for member in group.members]

    async def settle() -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not group.settled():
            failed = [loop.exception() for loop in loops if loop.done() and not loop.cancelled()]
            if any(failed):
                raise BenchError(f"a member ended: {next(filter(None, failed))}")
            if time.monotonic() > deadline:
                raise BenchError(f"{count} members did not settle within {PATIENCE_S:.0f} s")
            await asyncio.sleep(0.02)

    async def act(what: str, work: Callable[[], Awaitable[None]]) -> None:
        began, cpu = time.perf_counter(), meter.cpu_s()
        await work()
        acts[what] = {"seconds": time.perf_counter() - began, "cpu_s": meter.cpu_s() - cpu}

    async def one_leaves() -> None:
        gone = group.members.pop()
        loops.pop().cancel()
        # Its connection may be in the middle of a request: another one says good-bye.
        gone.connection.close()
        gone.connection = await Connection.open(port)
        await gone.leave()
        await settle()

    async def all_leave() -> None:
        group.quiet = True
        await asyncio.gather(*loops)
        await asyncio.gather(*(member.leave() for member in group.members))

    for what, work in zip(ACTS, (settle, one_leaves, all_leave), strict=True):
        await act(what, work)
    for member in group.members:
        member.connection.close()
    return acts


# -- sides -------------------------------------------------------------------------------------------------------


def measure_idle(server: Server, count: int, protocol: str, serial: int) -> Metrics:
    """Memory that `count` more groups take."""
    before = server.meter.rss_mb()
    began = time.perf_counter()
    asyncio.run(idle(server.port, count, protocol, serial))
    took = time.perf_counter() - began
    grown = server.meter.rss_mb() - before
    return {"mb": grown, "kb_each": grown * 1e3 / count, "made_s": took}


def measure_crowd(
    server: Server, topic_id: bytes, count: int, protocol: str, serial: int
) -> dict[str, Metrics]:
    return asyncio.run(
        crowd(server.port, topic_id, count, protocol, f"crowd-{protocol}-{serial}", server.meter)
    )


async def prepare(port: int, partitions: int) -> bytes:
    """Make the topics, and wait until the offsets topic is served; the id of the crowd's topic."""
    connection = await Connection.open(port)
    topics = [CreatableTopic(TOPIC, partitions, 1), CreatableTopic(IDLE_TOPIC, 1, 1)]
    created = await connection.ask(CreateTopicsRequest(topics=topics, timeout_ms=30_000), 7)
    for topic in created.topics:
        check(topic)
    topic_id: bytes = next(topic.topic_id for topic in created.topics if topic.name == TOPIC)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        request = FindCoordinatorRequest(key_type=0, coordinator_keys=["bench"])
        answer = await connection.ask(request, 4)
        if answer.coordinators[0].error_code == ErrorCode.NONE:
            connection.close()
            return topic_id
        await asyncio.sleep(0.2)
    raise BenchError("no coordinator")


QUICK_GROUPS = {
    "group.initial.rebalance.delay.ms": "0",
    "group.consumer.max.session.timeout.ms": "3600000",
    "group.consumer.session.timeout.ms": "3600000",
}
"""Without the wait for a group's first members, which would be most of what is measured; and idle members stay."""


class QuickKafka(KafkaServer):
    """With QUICK_GROUPS."""

    def __init__(self, directory: Path, port: int, cpus: frozenset[int]) -> None:
        super().__init__(directory, port, cpus)
        self.overrides = dict(QUICK_GROUPS)


class QuickOdradek(OdradekServer):
    """With QUICK_GROUPS."""

    def command(self) -> list[str]:
        overrides = (("--override", f"{key}={value}") for key, value in QUICK_GROUPS.items())
        return [*super().command(), *(part for each in overrides for part in each)]
