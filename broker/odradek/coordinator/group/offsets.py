"""Committed offsets: OffsetCommit 2–10 (key 8), OffsetFetch 1–10 (key 9), OffsetDelete 0 (key 47), and their expiry.

A commit is a record, and what is committed is what the last record says. Members of a group commit in their
generation; anybody may commit for a group without members, which makes a *simple* group if there is none. Requests
come in here with names beside topic ids, and only with topics and partitions that exist (`group_coordinator`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

from odradek.coordinator.group.classic.group import (
    CONSUMER_PROTOCOL_TYPE,
    EMPTY,
    PREPARING_REBALANCE,
    STABLE,
    ClassicGroup,
    PartitionCheck,
)
from odradek.coordinator.group.classic.rebalance import keep_session
from odradek.coordinator.group.classic.records import group_tombstone
from odradek.coordinator.group.consumer.group import ConsumerGroup
from odradek.coordinator.group.consumer.records import group_tombstones
from odradek.coordinator.group.context import GroupContext
from odradek.coordinator.group.offset_codec import offset_record, offset_tombstone
from odradek.coordinator.group.record import GroupRecord
from odradek.coordinator.group.state import AnyGroup, Offsets, ShardState, TopicPartition
from odradek.coordinator.partitioning import utf16_length
from odradek.coordinator.runtime import Outcome
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)
from odradek.wire.messages.offset_commit_value import OffsetCommitValue
from odradek.wire.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteResponse,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
)
from odradek.wire.messages.offset_fetch import (
    OffsetFetchRequestGroup,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopics,
)
from odradek.wire.messages.txn_offset_commit import TxnOffsetCommitRequestPartition
from odradek.wire.uuid import ZERO_UUID

GROUP_ID_NOT_FOUND_FROM = 9
"""OffsetCommit versions whose clients know GROUP_ID_NOT_FOUND; older ones get ILLEGAL_GENERATION."""

# -- commit ------------------------------------------------------------------------------------------------------


def commit_offsets(
    shard: ShardState, context: GroupContext, request: OffsetCommitRequest
) -> Outcome[OffsetCommitResponse]:
    """Write the offsets. KafkaError refuses the whole request; metadata that is too long refuses its partition."""
    group = shard.groups.get(request.group_id)
    check = _validate_commit(group, context, request)
    if isinstance(group, ClassicGroup) and group.state in (STABLE, PREPARING_REBALANCE):
        keep_session(shard, group, group.members[request.member_id])
    wall_ms = shard.wall_ms()
    expire_ms = -1 if request.retention_time_ms == -1 else wall_ms + request.retention_time_ms
    records: list[GroupRecord] = []
    response = OffsetCommitResponse()
    for topic in request.topics:
        answers: list[OffsetCommitResponsePartition] = []
        for partition in topic.partitions:
            error = ErrorCode.NONE
            if is_metadata_too_long(shard, partition.committed_metadata):
                error = ErrorCode.OFFSET_METADATA_TOO_LARGE
            else:
                if check is not None:
                    check(topic.name, topic.topic_id, partition.partition_index)
                value = offset_value(partition, topic.topic_id, wall_ms, expire_ms)
                records.append(offset_record(request.group_id, topic.name, partition.partition_index, value))
            answers.append(OffsetCommitResponsePartition(partition.partition_index, error))
        response.topics.append(OffsetCommitResponseTopic(topic.name, topic.topic_id, answers))
    shard.metrics.offset_commits += len(records)
    return Outcome(response, records)


def _validate_commit(
    group: AnyGroup | None, context: GroupContext, request: OffsetCommitRequest
) -> PartitionCheck | None:
    generation = request.generation_id_or_member_epoch
    if group is None:
        if generation < 0:
            return None
        if context.api_version >= GROUP_ID_NOT_FOUND_FROM:
            raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, f"Group {request.group_id} not found.")
        raise KafkaError(ErrorCode.ILLEGAL_GENERATION)
    return group.validate_offset_commit(
        request.member_id, request.group_instance_id, generation, context.api_version, transactional=False
    )


def is_metadata_too_long(shard: ShardState, metadata: str | None) -> bool:
    """`offset.metadata.max.bytes`, counted as Kafka counts."""
    longest = shard.config.offset_metadata_max_bytes
    return metadata is not None and len(metadata) * 2 > longest and utf16_length(metadata) > longest


def offset_value(
    partition: OffsetCommitRequestPartition | TxnOffsetCommitRequestPartition,
    topic_id: bytes,
    wall_ms: int,
    expire_ms: int,
) -> OffsetCommitValue:
    return OffsetCommitValue(
        offset=partition.committed_offset,
        leader_epoch=partition.committed_leader_epoch,
        metadata=partition.committed_metadata or "",
        commit_timestamp=wall_ms,
        expire_timestamp=expire_ms,
        topic_id=topic_id,
    )


# -- fetch -------------------------------------------------------------------------------------------------------


def fetch_offsets(
    shard: ShardState, request: OffsetFetchRequestGroup, *, latest: bool
) -> OffsetFetchResponseGroup:
    """The offsets of one group, all of them if no topics are named. `latest` looks at what is not committed yet too
    (for `require_stable`, whose answer then waits for it), and at open transactions: what one of them holds an offset
    of is UNSTABLE_OFFSET_COMMIT."""
    groups = shard.groups
    group = groups.get(request.group_id) if latest else groups.get_committed(request.group_id)
    if group is not None:
        group.validate_offset_fetch(request.member_id, request.member_epoch, latest=latest)
    known = None if group is None else shard.offsets.get(request.group_id)
    if request.topics is None:
        topics = [] if known is None else _all_offsets(known, latest)
        if latest:
            _refuse_unstable(shard, request.group_id, topics)
        return OffsetFetchResponseGroup(request.group_id, topics)
    answers = [
        OffsetFetchResponseTopics(
            topic.name,
            topic.topic_id,
            [
                _fetched(partition, _lookup(known, (topic.name, partition), latest), topic.topic_id)
                for partition in topic.partition_indexes
            ],
        )
        for topic in request.topics
    ]
    if latest:
        _refuse_unstable(shard, request.group_id, answers)
    return OffsetFetchResponseGroup(request.group_id, answers)


def _refuse_unstable(shard: ShardState, group_id: str, topics: list[OffsetFetchResponseTopics]) -> None:
    """The marker of an open transaction may change these offsets: come again (KIP-447)."""
    open_of_group = set(shard.pending.of_group(group_id))
    if not open_of_group:
        return
    for topic in topics:
        for partition in topic.partitions:
            if (topic.name, partition.partition_index) in open_of_group:
                partition.committed_offset = partition.committed_leader_epoch = -1
                partition.metadata = ""
                partition.error_code = ErrorCode.UNSTABLE_OFFSET_COMMIT


def _lookup(known: Offsets | None, key: TopicPartition, latest: bool) -> OffsetCommitValue | None:
    if known is None:
        return None
    return known.get(key) if latest else known.get_committed(key)


def _all_offsets(known: Offsets, latest: bool) -> list[OffsetFetchResponseTopics]:
    topics: dict[str, OffsetFetchResponseTopics] = {}
    for (name, partition), value in known.items() if latest else known.committed_items():
        topic = topics.get(name)
        if topic is None:
            topic = topics[name] = OffsetFetchResponseTopics(name)
        topic.partitions.append(_fetched(partition, value, ZERO_UUID))
    return list(topics.values())


def _fetched(
    partition: int, value: OffsetCommitValue | None, topic_id: bytes
) -> OffsetFetchResponsePartitions:
    """What was committed for another topic of the same name does not count."""
    if value is None or (ZERO_UUID not in (value.topic_id, topic_id) and value.topic_id != topic_id):
        return OffsetFetchResponsePartitions(partition, -1, -1, "")
    return OffsetFetchResponsePartitions(partition, value.offset, value.leader_epoch, value.metadata)


# -- delete ------------------------------------------------------------------------------------------------------


def delete_offsets(shard: ShardState, request: OffsetDeleteRequest) -> Outcome[OffsetDeleteResponse]:
    """Forget offsets of topics that no member is subscribed to (KIP-496). KafkaError refuses the whole request."""
    group = shard.groups.get(request.group_id)
    if group is None:
        raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, f"Group {request.group_id} not found.")
    if group.state is not EMPTY and group.protocol_type != CONSUMER_PROTOCOL_TYPE:
        raise KafkaError(ErrorCode.NON_EMPTY_GROUP)
    known = shard.offsets.get(request.group_id)
    records: list[GroupRecord] = []
    response = OffsetDeleteResponse()
    for topic in request.topics:
        subscribed = group.is_subscribed_to(topic.name)
        error = ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC if subscribed else ErrorCode.NONE
        answer = OffsetDeleteResponseTopic(topic.name)
        for partition in topic.partitions:
            index = partition.partition_index
            answer.partitions.append(OffsetDeleteResponsePartition(index, error))
            where = topic.name, index
            there = (known is not None and where in known) or shard.pending.is_open(request.group_id, where)
            if there and not subscribed:
                records.append(offset_tombstone(request.group_id, topic.name, index))
        response.topics.append(answer)
    shard.metrics.offset_deletions += len(records)
    return Outcome(response, records)


def offset_tombstones(shard: ShardState, group_id: str) -> list[GroupRecord]:
    """Tombstones for all offsets of a group that is being deleted, those of open transactions included."""
    known = shard.offsets.get(group_id)
    wheres = dict.fromkeys(shard.pending.of_group(group_id))
    if known is not None:
        wheres |= dict.fromkeys(where for where, _ in known.items())
    return [offset_tombstone(group_id, topic, partition) for topic, partition in wheres]


def tombstones_of_topics(
    shard: ShardState, names: AbstractSet[str], topic_ids: Mapping[str, bytes]
) -> Iterator[GroupRecord]:
    """Tombstones for the offsets of deleted topics: those committed for the deleted id, or for none in particular."""
    for group_id, known in shard.offsets.items():
        for (topic, partition), value in known.items():
            if topic in names and value.topic_id in (ZERO_UUID, topic_ids.get(topic, value.topic_id)):
                yield offset_tombstone(group_id, topic, partition)


# -- expiry ------------------------------------------------------------------------------------------------------


def expired(shard: ShardState) -> Iterator[GroupRecord]:
    """Tombstones for offsets past their retention, and for groups that are Empty and have none left (KIP-211)."""
    for group_id, group in shard.groups.items():
        known = shard.offsets.get(group_id)
        left = sum(1 for _ in shard.pending.of_group(group_id))
        if known is not None:
            for (topic, partition), value in known.items():
                pending = shard.pending.is_open(group_id, (topic, partition))
                if not pending and _is_expired(shard, group, topic, value):
                    yield offset_tombstone(group_id, topic, partition)
                else:
                    left += 1
        if left == 0 and group.state is EMPTY:
            yield from tombstones_of(group)


def tombstones_of(group: AnyGroup) -> list[GroupRecord]:
    """The end of a group without members."""
    return group_tombstones(group) if isinstance(group, ConsumerGroup) else [group_tombstone(group.group_id)]


def drop_void(shard: ShardState) -> None:
    """Forget the empty tables of groups whose offsets are all deleted, and of transactions that are over."""
    shard.pending.drop_void()
    for group_id in [group_id for group_id, known in shard.offsets.items() if known.is_void()]:
        del shard.offsets[group_id]


def _is_expired(shard: ShardState, group: AnyGroup, topic: str, value: OffsetCommitValue) -> bool:
    """Retention runs from the commit, or from when the group lost its last member. While a group has members, only
    offsets of topics it is known not to want expire."""
    since_ms = value.commit_timestamp
    if isinstance(group, ClassicGroup) and group.protocol_type is not None:
        if group.state is EMPTY:
            since_ms = (
                value.commit_timestamp if group.state_since_wall_ms is None else group.state_since_wall_ms
            )
        elif group.state is not STABLE or group.subscribed_topics is None:
            return False
    if group.is_subscribed_to(topic):
        return False
    wall_ms = shard.wall_ms()
    if value.expire_timestamp != -1:
        return wall_ms >= value.expire_timestamp
    return wall_ms - since_ms >= shard.config.offsets_retention_ms
