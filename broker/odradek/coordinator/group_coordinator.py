"""The group coordinator as the broker sees it: one method per API. What loads its partitions calls its `runtime`.

Requests and responses are the generated messages; `done(response)` is called once, at once or later, in the form of
the request's version. Everything that Kafka checks before it looks at a group is checked here (group ids, session
timeouts, whether topics exist); everything else happens in the shard of the group's partition (`group/`), run by
`CoordinatorRuntime`. FindCoordinator is the broker's: it knows who leads `partition_for(group_id)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from random import Random
from typing import Any, TypeVar

from odradek.coordinator.config import GroupConfig
from odradek.coordinator.errors import client_error
from odradek.coordinator.group import admin, offset_requests, offsets, txn_offsets
from odradek.coordinator.group.classic import join, leave, sync
from odradek.coordinator.group.classic.group import GroupState
from odradek.coordinator.group.consumer import heartbeat as consumer_heartbeat
from odradek.coordinator.group.consumer.describe import describe_consumer_group
from odradek.coordinator.group.consumer.settings import ConsumerSettings
from odradek.coordinator.group.consumer.topics import TopicCatalog
from odradek.coordinator.group.context import GroupContext, TopicResolver
from odradek.coordinator.group.shard import GroupShard
from odradek.coordinator.group.state import GroupMetrics
from odradek.coordinator.partitioning import partition_for
from odradek.coordinator.runtime import (
    CoordinatorRuntime,
    EventLog,
    Marker,
    NullLog,
    Outcome,
    PartitionWriter,
    Producer,
)
from odradek.ports.clock import Clock
from odradek.ports.timers import TimerQueue
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.consumer_group_describe import (
    ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse,
)
from odradek.wire.messages.consumer_group_describe import DescribedGroup as ConsumerDescribedGroup
from odradek.wire.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
)
from odradek.wire.messages.delete_groups import (
    DeletableGroupResult,
    DeleteGroupsRequest,
    DeleteGroupsResponse,
)
from odradek.wire.messages.describe_groups import (
    DescribedGroup,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
)
from odradek.wire.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from odradek.wire.messages.join_group import JoinGroupRequest, JoinGroupResponse
from odradek.wire.messages.leave_group import LeaveGroupRequest, LeaveGroupResponse, MemberIdentity
from odradek.wire.messages.list_groups import ListedGroup, ListGroupsRequest, ListGroupsResponse
from odradek.wire.messages.offset_commit import OffsetCommitRequest, OffsetCommitResponse
from odradek.wire.messages.offset_delete import OffsetDeleteRequest, OffsetDeleteResponse
from odradek.wire.messages.offset_fetch import OffsetFetchRequest, OffsetFetchResponse
from odradek.wire.messages.sync_group import SyncGroupRequest, SyncGroupResponse
from odradek.wire.messages.txn_offset_commit import TxnOffsetCommitRequest, TxnOffsetCommitResponse

R = TypeVar("R")
OffsetsWriter = PartitionWriter
__all__ = ["GroupConfig", "GroupContext", "GroupCoordinator", "OffsetsWriter", "TopicResolver"]


class GroupCoordinator:
    """See the module. All times are the clock's; all calls come from one thread."""

    def __init__(
        self,
        config: GroupConfig,
        timers: TimerQueue,
        clock: Clock,
        writer: OffsetsWriter,
        rng: Random,
        partition_count: int,
        *,
        topics: TopicResolver,
        group_configs: Callable[[str], Mapping[str, str]] | None = None,
        broker_config: Callable[[str], str | None] = lambda _key: None,
        verification: txn_offsets.Verification | None = None,
        log: EventLog | None = None,
        on_failed: Callable[[int], None] | None = None,
    ) -> None:
        """`group_configs(group id)`: what a group has configured of its own; `broker_config(key)`: what was set for
        this broker while it runs; `verification`: of transactions, without which everybody is believed.
        `on_failed(partition)`: a write was lost, the partition must be loaded again.
        """
        self.config = config
        self.timers = timers
        self.clock = clock
        self.rng = rng
        self.partition_count = partition_count
        self.topics = topics
        self.verification = verification or txn_offsets.NoVerification()
        self.log: EventLog = log or NullLog()
        self.metrics = GroupMetrics()
        self.catalog = TopicCatalog(topics)
        self.settings = ConsumerSettings(config, group_configs or _no_configs, broker_config)
        self.runtime: CoordinatorRuntime[GroupShard] = CoordinatorRuntime(
            lambda partition: GroupShard(partition, self),
            writer,
            timers,
            clock,
            write_timeout_ms=config.offsets_commit_timeout_ms,
            log=self.log,
            on_failed=on_failed,
        )

    # -- partitions ----------------------------------------------------------------------------------------------

    def partition_for(self, group_id: str) -> int:
        """The partition of `__consumer_offsets` that a group belongs to, whoever leads it."""
        return partition_for(group_id, self.partition_count)

    def on_topics_changed(self, names: AbstractSet[str], *, created: bool) -> None:
        """Topics were created (`created`), deleted, or changed: consumer groups that want them look at their next
        heartbeats.
        """
        self.catalog.changed(names, created=created)

    def on_topics_deleted(
        self, names: AbstractSet[str], topic_ids: Mapping[str, bytes] | None = None
    ) -> None:
        """Forget the offsets of deleted topics; with their ids, what was committed for a namesake stays."""
        for partition in self.runtime.partitions():
            if self.runtime.error_of(partition) is ErrorCode.NONE:
                self.runtime.read(partition).on_topics_deleted(names, topic_ids or {})

    def complete_transaction(self, partition: int, marker: Marker, done: Callable[[int], None]) -> None:
        """A transaction ends in a partition of `__consumer_offsets`: the leader's part of WriteTxnMarkers."""

        def failed(code: ErrorCode) -> None:
            # Whoever writes the marker looks for the leader anew, or waits.
            elsewhere = code in (
                ErrorCode.NOT_COORDINATOR,
                ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
                ErrorCode.COORDINATOR_NOT_AVAILABLE,
            )
            done(ErrorCode.NOT_LEADER_OR_FOLLOWER if elsewhere else code)

        self.runtime.complete_transaction(partition, marker, lambda _none: done(ErrorCode.NONE), failed)

    # -- members -------------------------------------------------------------------------------------------------

    def join_group(
        self, context: GroupContext, request: JoinGroupRequest, done: Callable[[JoinGroupResponse], None]
    ) -> None:
        """Answered when the join phase of the rebalance is over."""

        def respond(response: JoinGroupResponse) -> None:
            # Null where a version can say so, empty where it cannot.
            name = response.protocol_name or None
            response.protocol_name = (name or "") if context.api_version < 7 else name
            done(response)

        error = ErrorCode.NONE
        config = self.config
        if not request.group_id:
            error = ErrorCode.INVALID_GROUP_ID
        elif not (
            config.group_min_session_timeout_ms
            <= request.session_timeout_ms
            <= config.group_max_session_timeout_ms
        ):
            error = ErrorCode.INVALID_SESSION_TIMEOUT
        if error is not ErrorCode.NONE:
            respond(JoinGroupResponse(error_code=error, member_id=request.member_id))
            return
        self._step(
            request.group_id,
            lambda shard: join.join_group(shard, context, request, respond),
            respond,
            lambda code: respond(JoinGroupResponse(error_code=code)),
        )

    def sync_group(
        self, context: GroupContext, request: SyncGroupRequest, done: Callable[[SyncGroupResponse], None]
    ) -> None:
        """Answered when the leader's assignments are stored."""
        error = ErrorCode.NONE
        if context.api_version >= 5 and (request.protocol_type is None or request.protocol_name is None):
            error = ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        elif not request.group_id:
            error = ErrorCode.INVALID_GROUP_ID
        if error is not ErrorCode.NONE:
            done(SyncGroupResponse(error_code=error))
            return
        self._step(
            request.group_id,
            lambda shard: sync.sync_group(shard, request, done),
            done,
            lambda code: done(SyncGroupResponse(error_code=code)),
        )

    def heartbeat(
        self, context: GroupContext, request: HeartbeatRequest, done: Callable[[HeartbeatResponse], None]
    ) -> None:
        """While the partition loads nobody is expired, so that a heartbeat is simply fine."""

        def failed(code: ErrorCode) -> None:
            loading = code is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
            done(HeartbeatResponse(error_code=ErrorCode.NONE if loading else code))

        if not request.group_id:
            done(HeartbeatResponse(error_code=ErrorCode.INVALID_GROUP_ID))
            return
        self._write(request.group_id, lambda shard: sync.heartbeat(shard, request), done, failed)

    def consumer_group_heartbeat(
        self,
        context: GroupContext,
        request: ConsumerGroupHeartbeatRequest,
        done: Callable[[ConsumerGroupHeartbeatResponse], None],
    ) -> None:
        """The consumer protocol (KIP-848): joining, being there, leaving."""
        try:
            consumer_heartbeat.validate(request, context.api_version, self.config.group_consumer_assignors)
        except KafkaError as error:
            done(consumer_heartbeat.refusal(error))
            return

        def failed(code: ErrorCode) -> None:
            done(consumer_heartbeat.refusal(KafkaError(code)))

        self._write(
            request.group_id,
            lambda shard: consumer_heartbeat.heartbeat(shard, context, request),
            done,
            failed,
        )

    def leave_group(
        self, context: GroupContext, request: LeaveGroupRequest, done: Callable[[LeaveGroupResponse], None]
    ) -> None:
        """One member per request before version 3, whose error is that of the whole."""

        def respond(response: LeaveGroupResponse) -> None:
            if context.api_version < 3:
                error = response.error_code or response.members[0].error_code
                response = LeaveGroupResponse(error_code=error)
            done(response)

        def failed(code: ErrorCode) -> None:
            respond(LeaveGroupResponse(error_code=code))

        if not request.group_id:
            failed(ErrorCode.INVALID_GROUP_ID)
            return
        if context.api_version < 3:
            request = LeaveGroupRequest(request.group_id, members=[MemberIdentity(request.member_id)])
        self._write(request.group_id, lambda shard: leave.leave_group(shard, request), respond, failed)

    # -- offsets -------------------------------------------------------------------------------------------------

    def commit_offsets(
        self,
        context: GroupContext,
        request: OffsetCommitRequest,
        done: Callable[[OffsetCommitResponse], None],
    ) -> None:
        """Answered when the offsets are committed. The empty group id is a group like any other here."""
        known, answer = offset_requests.split_commit(context, request, self.topics)
        if not known.topics:
            done(answer)
            return

        def respond(response: OffsetCommitResponse) -> None:
            done(offset_requests.merge_commit(context, answer, response))

        def failed(code: ErrorCode) -> None:
            respond(offset_requests.commit_error(known, code))

        self._write(
            request.group_id, lambda shard: offsets.commit_offsets(shard, context, known), respond, failed
        )

    def commit_transactional_offsets(
        self,
        context: GroupContext,
        request: TxnOffsetCommitRequest,
        done: Callable[[TxnOffsetCommitResponse], None],
    ) -> None:
        """Answered when the offsets are written and committed; they count from the marker of the transaction on."""
        version = context.api_version
        if not request.group_id:
            done(txn_offsets.refusal(request.topics, ErrorCode.INVALID_GROUP_ID, version))
            return
        known, answer = txn_offsets.split(request, self.topics)
        if not known:
            done(answer)
            return
        index = self.partition_for(request.group_id)

        def respond(response: TxnOffsetCommitResponse) -> None:
            done(txn_offsets.merge(answer, response))

        def failed(code: ErrorCode) -> None:
            respond(txn_offsets.refusal(known, client_error(code), version))

        def verified(code: ErrorCode) -> None:
            if code is not ErrorCode.NONE:
                failed(code)
                return
            self.runtime.write(
                index, lambda shard: txn_offsets.commit(shard, context, request, known), respond, failed
            )

        error = self.runtime.error_of(index)
        if error is not ErrorCode.NONE:
            failed(error)
            return
        producer = Producer(request.producer_id, request.producer_epoch)
        size = txn_offsets.size_of(known)
        self.verification.verify(request.transactional_id, producer, index, version, size, verified)

    def fetch_offsets(
        self, context: GroupContext, request: OffsetFetchRequest, done: Callable[[OffsetFetchResponse], None]
    ) -> None:
        """Committed offsets of one group, or from version 8 on of several."""
        offset_requests.fetch(self.runtime, self.partition_for, self.topics, context, request, done)

    def delete_offsets(
        self,
        context: GroupContext,
        request: OffsetDeleteRequest,
        done: Callable[[OffsetDeleteResponse], None],
    ) -> None:
        def failed(code: ErrorCode) -> None:
            done(OffsetDeleteResponse(error_code=code))

        if not request.group_id:
            failed(ErrorCode.INVALID_GROUP_ID)
            return
        known, answer = offset_requests.split_delete(request, self.topics)

        def respond(response: OffsetDeleteResponse) -> None:
            done(offset_requests.merge_delete(answer, response))

        self._write(request.group_id, lambda shard: offsets.delete_offsets(shard, known), respond, failed)

    # -- groups --------------------------------------------------------------------------------------------------

    def describe_groups(
        self,
        context: GroupContext,
        request: DescribeGroupsRequest,
        done: Callable[[DescribeGroupsResponse], None],
    ) -> None:
        """At once, in the order of the request."""
        response = DescribeGroupsResponse()
        for group_id in request.groups:
            try:
                shard = self.runtime.read(self.partition_for(group_id))
                described = admin.describe_group(shard, context, group_id)
            except KafkaError as error:
                described = DescribedGroup(group_id=group_id, error_code=client_error(error.code))
            if request.include_authorized_operations and described.error_code == ErrorCode.NONE:
                described.authorized_operations = context.authorized_operations
            response.groups.append(described)
        done(response)

    def describe_consumer_groups(
        self,
        context: GroupContext,
        request: ConsumerGroupDescribeRequest,
        done: Callable[[ConsumerGroupDescribeResponse], None],
    ) -> None:
        """At once, in the order of the request."""
        response = ConsumerGroupDescribeResponse()
        for group_id in request.group_ids:
            if not group_id:
                described = ConsumerDescribedGroup(error_code=ErrorCode.INVALID_GROUP_ID)
            else:
                try:
                    shard = self.runtime.read(self.partition_for(group_id))
                    described = describe_consumer_group(shard, group_id)
                except KafkaError as error:
                    described = ConsumerDescribedGroup(group_id=group_id, error_code=client_error(error.code))
            if request.include_authorized_operations and described.error_code == ErrorCode.NONE:
                described.authorized_operations = context.authorized_operations
            response.groups.append(described)
        done(response)

    def list_groups(
        self, context: GroupContext, request: ListGroupsRequest, done: Callable[[ListGroupsResponse], None]
    ) -> None:
        """The groups of the partitions led here; an error without groups while one of them loads."""
        groups: list[ListedGroup] = []
        for partition in self.runtime.partitions():
            error = self.runtime.error_of(partition)
            if error is ErrorCode.NONE:
                shard = self.runtime.read(partition)
                groups += admin.list_groups(shard, request.states_filter, request.types_filter)
            elif error is not ErrorCode.NOT_COORDINATOR:
                done(ListGroupsResponse(error_code=error))
                return
        done(ListGroupsResponse(groups=groups))

    def delete_groups(
        self,
        context: GroupContext,
        request: DeleteGroupsRequest,
        done: Callable[[DeleteGroupsResponse], None],
    ) -> None:
        """One write per partition; answered when all are committed. A group named twice counts once."""
        by_partition: dict[int, list[str]] = {}
        for group_id in dict.fromkeys(request.groups_names):
            by_partition.setdefault(self.partition_for(group_id), []).append(group_id)
        response = DeleteGroupsResponse()
        waiting = len(by_partition)

        def add(results: list[DeletableGroupResult]) -> None:
            nonlocal waiting
            response.results += results
            waiting -= 1
            if waiting == 0:
                done(response)

        def failed(group_ids: list[str], code: ErrorCode) -> None:
            add([DeletableGroupResult(group_id, client_error(code)) for group_id in group_ids])

        if not by_partition:
            done(response)
        for index, group_ids in by_partition.items():
            operation = partial(admin.delete_groups, group_ids=group_ids)
            self.runtime.write(index, operation, add, partial(failed, group_ids))

    def gauges(self) -> dict[str, int]:
        """How many groups and offsets there are, under the names of Kafka's GroupMetadataManager metrics."""
        gauges = {f"NumGroups{state.value}": 0 for state in GroupState}
        gauges["NumGroups"] = gauges["NumOffsets"] = 0
        for partition in self.runtime.partitions():
            if self.runtime.error_of(partition) is ErrorCode.NONE:
                shard = self.runtime.read(partition)
                for group in shard.groups.values():
                    gauges["NumGroups"] += 1
                    gauges[f"NumGroups{group.state.value}"] += 1
                gauges["NumOffsets"] += sum(len(known) for known in shard.offsets.values())
        return gauges

    # -- for the shards (ShardHost) ------------------------------------------------------------------------------

    def answer(self, done: Callable[[R], None], response: R) -> None:
        self.runtime.answer(done, response)

    def submit(self, partition: int, operation: Callable[[Any], Outcome[None]]) -> None:
        self.runtime.write(partition, operation, _ignore, _ignore)

    # -- inside --------------------------------------------------------------------------------------------------

    def _write(
        self,
        group_id: str,
        operation: Callable[[GroupShard], Outcome[R]],
        done: Callable[[R], None],
        failed: Callable[[ErrorCode], None],
    ) -> None:
        self.runtime.write(
            self.partition_for(group_id), operation, done, lambda code: failed(client_error(code))
        )

    def _step(
        self,
        group_id: str,
        operation: Callable[[GroupShard], Outcome[R | None]],
        done: Callable[[R], None],
        failed: Callable[[ErrorCode], None],
    ) -> None:
        """A join or sync: it answers for itself unless it could not even be decided, or has a response."""
        answers_itself = False

        def decide(shard: GroupShard) -> Outcome[R | None]:
            nonlocal answers_itself
            outcome = operation(shard)
            answers_itself = outcome.response is None
            return outcome

        def written(response: R | None) -> None:
            if response is not None:
                done(response)

        def undecided(code: ErrorCode) -> None:
            if not answers_itself:
                failed(client_error(code))

        self.runtime.write(self.partition_for(group_id), decide, written, undecided)


def _no_configs(_group_id: str) -> Mapping[str, str]:
    return {}


def _ignore(_: object) -> None:
    """Nobody asked."""
