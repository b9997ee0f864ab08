"""A group coordinator with virtual time, a log in memory and clients that remember their answers."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from odradek.coordinator.group.decode import decode
from odradek.coordinator.group.record import GroupRecord
from odradek.coordinator.group_coordinator import GroupConfig, GroupContext, GroupCoordinator
from odradek.ports.timers import TimerQueue
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.consumer_protocol_subscription import ConsumerProtocolSubscription
from odradek.wire.messages.delete_groups import DeleteGroupsRequest
from odradek.wire.messages.describe_groups import DescribedGroup, DescribeGroupsRequest
from odradek.wire.messages.heartbeat import HeartbeatRequest
from odradek.wire.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse
from odradek.wire.messages.leave_group import LeaveGroupRequest, LeaveGroupResponse, MemberIdentity
from odradek.wire.messages.list_groups import ListGroupsRequest
from odradek.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from odradek.wire.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
)
from odradek.wire.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
)
from odradek.wire.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse
from unit.coordinator.memory import Answer, MemoryLog, VirtualClock

GROUP = "group"
PARTITIONS = 4


class MemoryWriter(MemoryLog):
    """The offsets topic."""

    def records(self) -> list[GroupRecord]:
        """All records of all partitions, decoded."""
        decoded = [decode(key, value) for log in self.logs.values() for key, value in log]
        return [record for record in decoded if record is not None]


class Topics:
    """A metadata image of a few topics."""

    def __init__(self, **partitions: int) -> None:
        self.version = 0
        self.partitions = partitions
        self.ids = {name: name.encode().ljust(16, b".")[:16] for name in partitions}

    def add(self, name: str, partitions: int) -> None:
        self.partitions[name] = partitions
        self.ids[name] = name.encode().ljust(16, b".")[:16]
        self.version += 1

    def remove(self, name: str) -> None:
        del self.partitions[name], self.ids[name]
        self.version += 1

    def topic_id(self, name: str) -> bytes | None:
        return self.ids.get(name)

    def topic_name(self, topic_id: bytes) -> str | None:
        return next((name for name, known in self.ids.items() if known == topic_id), None)

    def has_partition(self, name: str, partition: int) -> bool:
        return 0 <= partition < self.partitions.get(name, 0)

    def partition_count(self, name: str) -> int:
        return self.partitions.get(name, 0)

    def partition_racks(self, name: str) -> list[list[str]]:
        return [[] for _ in range(self.partitions[name])]

    def topic_names(self) -> list[str]:
        return list(self.partitions)

    def metadata_version(self) -> int:
        return self.version


class Harness:
    """One coordinator, all of whose partitions are loaded unless `load=False`."""

    def __init__(self, *, load: bool = True, seed: int = 0, **config: Any) -> None:
        self.clock = VirtualClock()
        self.timers = TimerQueue()
        self.writer = MemoryWriter()
        self.topics = Topics(orders=8, users=4, other=2)
        self.config = GroupConfig(**config)
        self.failed_partitions: list[int] = []
        self.group_configs: dict[str, dict[str, str]] = {}
        self.coordinator = self.make(seed)
        if load:
            self.load_all(self.coordinator, epoch=0)

    def make(self, seed: int = 0) -> GroupCoordinator:
        return GroupCoordinator(
            self.config,
            self.timers,
            self.clock,
            self.writer,
            Random(seed),
            PARTITIONS,
            topics=self.topics,
            group_configs=self.configs_of,
            on_failed=self.failed_partitions.append,
        )

    def configs_of(self, group_id: str) -> dict[str, str]:
        """What one group has configured."""
        return self.group_configs.get(group_id, {})

    def load_all(self, coordinator: GroupCoordinator, epoch: int) -> None:
        for partition in range(PARTITIONS):
            if coordinator.runtime.load_begin(partition, epoch):
                for key, value in self.writer.logs.get(partition, []):
                    coordinator.runtime.load_record(partition, key, value)
                coordinator.runtime.load_end(partition)

    def successor(self) -> GroupCoordinator:
        """Another broker takes all partitions over: it loads what is in the log."""
        for partition in range(PARTITIONS):
            self.coordinator.runtime.unload(partition)
        self.coordinator = self.make(seed=1)
        self.load_all(self.coordinator, epoch=1)
        return self.coordinator

    def advance(self, ms: int) -> None:
        self.clock.advance(self.timers, ms)

    # -- requests ------------------------------------------------------------------------------------------------

    def join(
        self,
        member_id: str = "",
        *,
        group: str = GROUP,
        instance: str | None = None,
        protocols: Sequence[tuple[str, bytes]] = (("range", b"metadata"),),
        protocol_type: str = "consumer",
        session_ms: int = 10_000,
        rebalance_ms: int = 60_000,
        version: int = 9,
        client: str = "client",
    ) -> Answer:
        request = JoinGroupRequest(
            group_id=group,
            session_timeout_ms=session_ms,
            rebalance_timeout_ms=rebalance_ms,
            member_id=member_id,
            group_instance_id=instance,
            protocol_type=protocol_type,
            protocols=[JoinGroupRequestProtocol(name, metadata) for name, metadata in protocols],
        )
        answer = Answer()
        self.coordinator.join_group(context(version, client), request, answer)
        if answer.response is not None:
            answer.response.encode(version)
        return answer

    def join_fully(self, **kwargs: Any) -> Answer:
        """As clients do since KIP-394: fetch an id, and join with it."""
        first = self.join(**kwargs)
        assert first.error is ErrorCode.MEMBER_ID_REQUIRED
        return self.join(first.response.member_id, **kwargs)

    def sync(
        self,
        joined: JoinGroupResponse,
        assignments: dict[str, bytes] | None = None,
        *,
        group: str = GROUP,
        instance: str | None = None,
        generation: int | None = None,
        protocol: str | None = None,
        version: int = 5,
    ) -> Answer:
        request = SyncGroupRequest(
            group_id=group,
            generation_id=joined.generation_id if generation is None else generation,
            member_id=joined.member_id,
            group_instance_id=instance,
            protocol_type=joined.protocol_type,
            protocol_name=protocol or joined.protocol_name,
            assignments=[SyncGroupRequestAssignment(*entry) for entry in (assignments or {}).items()],
        )
        answer = Answer()
        self.coordinator.sync_group(context(version), request, answer)
        return answer

    def heartbeat(
        self, member_id: str, generation: int, *, group: str = GROUP, instance: str | None = None
    ) -> Answer:
        answer = Answer()
        request = HeartbeatRequest(group, generation, member_id, instance)
        self.coordinator.heartbeat(context(4), request, answer)
        return answer

    def leave(
        self, *members: str | tuple[str, str], group: str = GROUP, version: int = 5
    ) -> LeaveGroupResponse:
        """Members by id, or by (id or "", instance id)."""
        identities = [
            MemberIdentity(member) if isinstance(member, str) else MemberIdentity(*member)
            for member in members
        ]
        request = LeaveGroupRequest(group, members=identities)
        if version < 3:
            request = LeaveGroupRequest(group, identities[0].member_id)
        answer = Answer()
        self.coordinator.leave_group(context(version), request, answer)
        response = answer.response
        assert isinstance(response, LeaveGroupResponse)
        response.encode(version)
        return response

    def commit(
        self,
        offsets: dict[tuple[str, int], int],
        *,
        group: str = GROUP,
        member_id: str = "",
        generation: int = -1,
        instance: str | None = None,
        metadata: str | None = "",
        retention_ms: int = -1,
        version: int = 9,
    ) -> Answer:
        topics: dict[str, OffsetCommitRequestTopic] = {}
        for (name, partition), offset in offsets.items():
            topic_id = self.topics.ids.get(name, b"?" * 16)
            topic = topics.setdefault(name, OffsetCommitRequestTopic(name if version < 10 else "", topic_id))
            topic.partitions.append(OffsetCommitRequestPartition(partition, offset, 5, metadata))
        request = OffsetCommitRequest(
            group, generation, member_id, instance, retention_ms, list(topics.values())
        )
        answer = Answer()
        self.coordinator.commit_offsets(context(version), request, answer)
        if answer.response is not None:
            answer.response.encode(version)
        return answer

    def commit_errors(self, offsets: dict[tuple[str, int], int], **kwargs: Any) -> list[ErrorCode]:
        """The error of each partition."""
        return errors_of(self.commit(offsets, **kwargs))

    def fetch(
        self,
        partitions: Sequence[tuple[str, int]] | None = None,
        *,
        groups: Sequence[str] = (GROUP,),
        stable: bool = False,
        version: int = 9,
    ) -> Answer:
        """Several partitions of each group, or all."""
        topics: list[OffsetFetchRequestTopics] | None = None
        if partitions is not None:
            topics = [
                OffsetFetchRequestTopics(
                    name if version < 10 else "", self.topics.ids.get(name, b"?" * 16), [partition]
                )
                for name, partition in partitions
            ]
        requests = [OffsetFetchRequestGroup(group, topics=topics) for group in groups]
        answer = Answer()
        request = OffsetFetchRequest(groups=requests, require_stable=stable)
        self.coordinator.fetch_offsets(context(version), request, answer)
        if answer.response is not None:
            answer.response.encode(version)
        return answer

    def committed(self, group: str = GROUP) -> dict[tuple[str, int], int]:
        """All offsets of a group, as a client of any version sees them."""
        response = self.fetch(None, groups=[group]).response
        assert isinstance(response, OffsetFetchResponse)
        (result,) = response.groups
        assert result.error_code == 0
        return {
            (topic.name, entry.partition_index): entry.committed_offset
            for topic in result.topics
            for entry in topic.partitions
        }

    def delete_offsets(self, *partitions: tuple[str, int], group: str = GROUP) -> Answer:
        topics = [
            OffsetDeleteRequestTopic(name, [OffsetDeleteRequestPartition(partition)])
            for name, partition in partitions
        ]
        answer = Answer()
        self.coordinator.delete_offsets(context(0), OffsetDeleteRequest(group, topics), answer)
        return answer

    def describe(self, group: str = GROUP, *, version: int = 6, operations: bool = False) -> DescribedGroup:
        answer = Answer()
        request = DescribeGroupsRequest([group], operations)
        self.coordinator.describe_groups(context(version), request, answer)
        answer.response.encode(version)
        (described,) = answer.response.groups
        assert isinstance(described, DescribedGroup)
        return described

    def state(self, group: str = GROUP) -> str:
        return self.describe(group).group_state

    def list(self, states: Sequence[str] = (), types: Sequence[str] = (), version: int = 5) -> Answer:
        answer = Answer()
        request = ListGroupsRequest(list(states), list(types))
        self.coordinator.list_groups(context(version), request, answer)
        answer.response.encode(version)
        return answer

    def delete_groups(self, *groups: str) -> dict[str, ErrorCode]:
        answer = Answer()
        self.coordinator.delete_groups(context(2), DeleteGroupsRequest(list(groups)), answer)
        return {result.group_id: ErrorCode(result.error_code) for result in answer.response.results}

    # -- whole scenes --------------------------------------------------------------------------------------------

    def stable(self, members: int = 1, **kwargs: Any) -> list[JoinGroupResponse]:
        """A Stable group of dynamic members, the leader first; member i is assigned b"<i>"."""
        answers = [self.join_fully(**kwargs) for _ in range(members)]
        self.advance(self.config.group_initial_rebalance_delay_ms * 2)
        return self.finish(answers, group=kwargs.get("group", GROUP))

    def finish(
        self, answers: Sequence[Answer], *, group: str = GROUP, instances: Sequence[str | None] | None = None
    ) -> list[JoinGroupResponse]:
        """All members sync, the leader last; the leader comes first in the result."""
        joined: list[JoinGroupResponse] = [answer.response for answer in answers]
        assert all(response.error_code == 0 for response in joined), joined
        assignments = {response.member_id: b"%d" % index for index, response in enumerate(joined)}
        names = instances or [None] * len(joined)
        syncs: list[Answer] = []
        for leads in (False, True):
            for response, instance in zip(joined, names, strict=True):
                if (response.leader == response.member_id) is leads:
                    sync = self.sync(response, assignments if leads else None, group=group, instance=instance)
                    syncs.append(sync)
        assert all(sync.error is ErrorCode.NONE for sync in syncs)
        return sorted(joined, key=lambda response: response.leader != response.member_id)


def context(version: int, client: str = "client") -> GroupContext:
    return GroupContext(client_id=client, client_host="/127.0.0.1", api_version=version)


def subscription(*topics: str, version: int = 1) -> bytes:
    """A member's metadata as Java's consumer writes it."""
    body = ConsumerProtocolSubscription(topics=list(topics)).encode(version)
    return version.to_bytes(2, "big") + body


def errors_of(answer: Answer) -> list[ErrorCode]:
    """The error of each partition of an offset response."""
    return [ErrorCode(p.error_code) for topic in answer.response.topics for p in topic.partitions]


def sync_response(answer: Answer) -> SyncGroupResponse:
    assert isinstance(answer.response, SyncGroupResponse)
    return answer.response
