"""Offset requests between the wire and the groups: topic ids and names, several groups, topics that do not exist.

OffsetCommit 10, OffsetFetch 10   topics by id (KIP-848); an id nobody knows is UNKNOWN_TOPIC_ID
OffsetFetch 2+                    no topics means all; an error of the group as a whole
OffsetFetch 7+                    require_stable: the answer waits for what is being written (KIP-447)
OffsetFetch 8+                    several groups (KIP-709)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from odradek.coordinator.errors import fetch_error
from odradek.coordinator.group.context import GroupContext, TopicResolver
from odradek.coordinator.group.offset_codec import offset_tombstone
from odradek.coordinator.group.offsets import fetch_offsets
from odradek.coordinator.group.shard import GroupShard
from odradek.coordinator.runtime import CoordinatorRuntime, Outcome
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)
from odradek.wire.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestTopic,
    OffsetDeleteResponse,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
)
from odradek.wire.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
)
from odradek.wire.uuid import ZERO_UUID

PROOF = offset_tombstone("", "", 0)
"""A record that changes nothing: only who leads the partition gets it committed."""
TOPIC_IDS_FROM = 10
"""OffsetCommit and OffsetFetch name topics by id alone."""
GROUPS_FROM = 8
GROUP_ERROR_FROM = 2

# -- commit ------------------------------------------------------------------------------------------------------


def split_commit(
    context: GroupContext, request: OffsetCommitRequest, topics: TopicResolver
) -> tuple[OffsetCommitRequest, OffsetCommitResponse]:
    """What can be committed, with names and ids; and the answer so far, to the partitions that do not exist."""
    known = OffsetCommitRequest(
        group_id=request.group_id,
        generation_id_or_member_epoch=request.generation_id_or_member_epoch,
        member_id=request.member_id,
        group_instance_id=request.group_instance_id,
        retention_time_ms=request.retention_time_ms,
    )
    answer = OffsetCommitResponse()
    for topic in request.topics:
        name, topic_id, error = _identify(context, topic, topics)
        unknown: list[int] = []
        found = OffsetCommitRequestTopic(name, topic_id)
        for partition in topic.partitions:
            if error is ErrorCode.NONE and topics.has_partition(name, partition.partition_index):
                found.partitions.append(partition)
            else:
                unknown.append(partition.partition_index)
        if found.partitions:
            known.topics.append(found)
        if unknown:
            code = error or ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            answer.topics.append(_commit_answer(name, topic_id, unknown, code))
    return known, answer


def _identify(
    context: GroupContext, topic: OffsetCommitRequestTopic, topics: TopicResolver
) -> tuple[str, bytes, ErrorCode]:
    if context.api_version >= TOPIC_IDS_FROM:
        name = topics.topic_name(topic.topic_id)
        if name is None:
            return "", topic.topic_id, ErrorCode.UNKNOWN_TOPIC_ID
        return name, topic.topic_id, ErrorCode.NONE
    topic_id = topics.topic_id(topic.name)
    if topic_id is None:
        return topic.name, ZERO_UUID, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    return topic.name, topic_id, ErrorCode.NONE


def commit_error(request: OffsetCommitRequest, error: ErrorCode) -> OffsetCommitResponse:
    """OffsetCommit has no error of the whole: every partition gets it."""
    return OffsetCommitResponse(
        topics=[
            _commit_answer(topic.name, topic.topic_id, [p.partition_index for p in topic.partitions], error)
            for topic in request.topics
        ]
    )


def merge_commit(
    context: GroupContext, answer: OffsetCommitResponse, result: OffsetCommitResponse
) -> OffsetCommitResponse:
    """The two answers as one, a topic in both only once."""
    by_id = context.api_version >= TOPIC_IDS_FROM
    merged: dict[str | bytes, OffsetCommitResponseTopic] = {}
    for topic in answer.topics + result.topics:
        key = topic.topic_id if by_id else topic.name
        if key in merged:
            merged[key].partitions += topic.partitions
        else:
            merged[key] = topic
    return OffsetCommitResponse(topics=list(merged.values()))


def _commit_answer(
    name: str, topic_id: bytes, partitions: list[int], error: ErrorCode
) -> OffsetCommitResponseTopic:
    answers = [OffsetCommitResponsePartition(partition, error) for partition in partitions]
    return OffsetCommitResponseTopic(name, topic_id, answers)


# -- delete ------------------------------------------------------------------------------------------------------


def split_delete(
    request: OffsetDeleteRequest, topics: TopicResolver
) -> tuple[OffsetDeleteRequest, OffsetDeleteResponse]:
    """What can be deleted, and the answer to the partitions that do not exist."""
    known = OffsetDeleteRequest(request.group_id)
    answer = OffsetDeleteResponse()
    for topic in request.topics:
        found = [p for p in topic.partitions if topics.has_partition(topic.name, p.partition_index)]
        unknown = [
            OffsetDeleteResponsePartition(p.partition_index, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            for p in topic.partitions
            if p not in found
        ]
        if found:
            known.topics.append(OffsetDeleteRequestTopic(topic.name, found))
        if unknown:
            answer.topics.append(OffsetDeleteResponseTopic(topic.name, unknown))
    return known, answer


def merge_delete(answer: OffsetDeleteResponse, result: OffsetDeleteResponse) -> OffsetDeleteResponse:
    """The two answers as one; an error of the whole leaves no topics."""
    if result.error_code:
        return result
    merged: dict[str, OffsetDeleteResponseTopic] = {}
    for topic in answer.topics + result.topics:
        if topic.name in merged:
            merged[topic.name].partitions += topic.partitions
        else:
            merged[topic.name] = topic
    return OffsetDeleteResponse(topics=list(merged.values()))


# -- fetch -------------------------------------------------------------------------------------------------------


def fetch(
    runtime: CoordinatorRuntime[GroupShard],
    partition_for: Callable[[str], int],
    topics: TopicResolver,
    context: GroupContext,
    request: OffsetFetchRequest,
    done: Callable[[OffsetFetchResponse], None],
) -> None:
    """Ask every group, and answer when all have answered."""
    groups = _groups_of(context, request)
    results: list[OffsetFetchResponseGroup | None] = [None] * len(groups)
    waiting = len(groups)

    def add(position: int, result: OffsetFetchResponseGroup) -> None:
        nonlocal waiting
        results[position] = result
        waiting -= 1
        if waiting == 0:
            done(_in_version(context, [result for result in results if result is not None]))

    if not groups:
        done(OffsetFetchResponse())
    for position, group in enumerate(groups):
        _fetch_group(
            runtime, partition_for, topics, context, group, request.require_stable, partial(add, position)
        )


def _fetch_group(
    runtime: CoordinatorRuntime[GroupShard],
    partition_for: Callable[[str], int],
    topics: TopicResolver,
    context: GroupContext,
    group: OffsetFetchRequestGroup,
    require_stable: bool,
    done: Callable[[OffsetFetchResponseGroup], None],
) -> None:
    by_id = context.api_version >= TOPIC_IDS_FROM
    known, unknown = _name_topics(group, topics) if by_id else (group, [])

    def respond(result: OffsetFetchResponseGroup) -> None:
        if by_id and group.topics is None:
            result.topics = _with_ids(result.topics, topics)
        result.topics += unknown
        done(result)

    def failed(code: ErrorCode) -> None:
        done(_group_error(context, group, fetch_error(code)))

    index = partition_for(group.group_id)
    proof = [PROOF] if runtime.must_prove() else []
    if require_stable or proof:
        runtime.write(
            index,
            lambda shard: Outcome(fetch_offsets(shard, known, latest=require_stable), proof),
            respond,
            failed,
        )
        return
    try:
        result = fetch_offsets(runtime.read(index), known, latest=False)
    except KafkaError as error:
        failed(error.code)
        return
    respond(result)


def _groups_of(context: GroupContext, request: OffsetFetchRequest) -> list[OffsetFetchRequestGroup]:
    if context.api_version >= GROUPS_FROM:
        return request.groups
    topics = None
    if request.topics is not None:
        topics = [
            OffsetFetchRequestTopics(topic.name, partition_indexes=topic.partition_indexes)
            for topic in request.topics
        ]
    return [OffsetFetchRequestGroup(request.group_id, topics=topics)]


def _name_topics(
    group: OffsetFetchRequestGroup, topics: TopicResolver
) -> tuple[OffsetFetchRequestGroup, list[OffsetFetchResponseTopics]]:
    """Give every topic its name; those that have none are answered."""
    if group.topics is None:
        return group, []
    known: list[OffsetFetchRequestTopics] = []
    unknown: list[OffsetFetchResponseTopics] = []
    for topic in group.topics:
        name = topics.topic_name(topic.topic_id)
        if name is not None:
            known.append(OffsetFetchRequestTopics(name, topic.topic_id, topic.partition_indexes))
            continue
        answers = [
            OffsetFetchResponsePartitions(partition, -1, error_code=ErrorCode.UNKNOWN_TOPIC_ID)
            for partition in topic.partition_indexes
        ]
        unknown.append(OffsetFetchResponseTopics("", topic.topic_id, answers))
    return OffsetFetchRequestGroup(group.group_id, group.member_id, group.member_epoch, known), unknown


def _with_ids(
    answers: list[OffsetFetchResponseTopics], topics: TopicResolver
) -> list[OffsetFetchResponseTopics]:
    """A topic without an id cannot be told of in a version that has only ids."""
    with_ids: list[OffsetFetchResponseTopics] = []
    for topic in answers:
        topic_id = topics.topic_id(topic.name)
        if topic_id is not None:
            topic.topic_id = topic_id
            with_ids.append(topic)
    return with_ids


def _group_error(
    context: GroupContext, group: OffsetFetchRequestGroup, error: ErrorCode
) -> OffsetFetchResponseGroup:
    if context.api_version >= GROUP_ERROR_FROM:
        return OffsetFetchResponseGroup(group.group_id, error_code=error)
    return OffsetFetchResponseGroup(
        group.group_id,
        [
            OffsetFetchResponseTopics(
                topic.name,
                partitions=[
                    OffsetFetchResponsePartitions(partition, -1, error_code=error)
                    for partition in topic.partition_indexes
                ],
            )
            for topic in group.topics or []
        ],
    )


def _in_version(context: GroupContext, groups: list[OffsetFetchResponseGroup]) -> OffsetFetchResponse:
    if context.api_version >= GROUPS_FROM:
        return OffsetFetchResponse(groups=groups)
    (group,) = groups
    topics = [
        OffsetFetchResponseTopic(
            topic.name,
            [
                OffsetFetchResponsePartition(
                    answer.partition_index,
                    answer.committed_offset,
                    answer.committed_leader_epoch,
                    answer.metadata,
                    answer.error_code,
                )
                for answer in topic.partitions
            ],
        )
        for topic in group.topics
    ]
    return OffsetFetchResponse(topics=topics, error_code=group.error_code)
