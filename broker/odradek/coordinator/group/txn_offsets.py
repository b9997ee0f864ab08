"""TxnOffsetCommit 0-5 (key 28): offsets that become the group's when a transaction commits (KIP-98, KIP-447).

The coordinator of the transaction is asked first whether it is open (KIP-890); then the offsets are written as a batch
of the transaction, and wait for its marker (`pending_offsets`). From version 3 on the client says as which member it
consumes, so that one whose partitions have gone to others is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from odradek.coordinator.group.context import GroupContext, TopicResolver
from odradek.coordinator.group.offset_codec import offset_record
from odradek.coordinator.group.offsets import is_metadata_too_long, offset_value
from odradek.coordinator.group.record import GroupRecord
from odradek.coordinator.group.state import ShardState
from odradek.coordinator.runtime import Outcome, Producer
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestTopic,
    TxnOffsetCommitResponse,
    TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
)
from odradek.wire.uuid import ZERO_UUID

LOADING_KNOWN_FROM = 2
"""Older clients may crash over COORDINATOR_LOAD_IN_PROGRESS (KAFKA-7296)."""
PARTITION_BYTES = 250
"""About what one decoded partition takes beside its metadata."""


class Verification(Protocol):
    """Whether a transaction is open, and this partition of `__consumer_offsets` in it."""

    def verify(
        self,
        transactional_id: str,
        producer: Producer,
        partition: int,
        api_version: int,
        size: int,
        done: Callable[[ErrorCode], None],
    ) -> None:
        """`done(error)`, at once or later. What is written in that very call is part of the transaction.

        `size`: about how many bytes of memory wait for the answer.
        """
        ...


class NoVerification:
    """Believes everybody."""

    def verify(
        self,
        transactional_id: str,
        producer: Producer,
        partition: int,
        api_version: int,
        size: int,
        done: Callable[[ErrorCode], None],
    ) -> None:
        done(ErrorCode.NONE)


def split(
    request: TxnOffsetCommitRequest, topics: TopicResolver
) -> tuple[list[TxnOffsetCommitRequestTopic], TxnOffsetCommitResponse]:
    """What can be committed, and the answer to the partitions that do not exist."""
    known: list[TxnOffsetCommitRequestTopic] = []
    answer = TxnOffsetCommitResponse()
    for topic in request.topics:
        found = [each for each in topic.partitions if topics.has_partition(topic.name, each.partition_index)]
        if found:
            known.append(TxnOffsetCommitRequestTopic(topic.name, found))
        unknown = [each.partition_index for each in topic.partitions if each not in found]
        if unknown:
            error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            answer.topics.append(_answer(topic.name, unknown, error))
    return known, answer


def size_of(topics: list[TxnOffsetCommitRequestTopic]) -> int:
    """About what these decoded topics take in memory, in bytes."""
    return sum(
        PARTITION_BYTES + len(partition.committed_metadata or "")
        for topic in topics
        for partition in topic.partitions
    )


def refusal(
    topics: list[TxnOffsetCommitRequestTopic], error: ErrorCode, api_version: int
) -> TxnOffsetCommitResponse:
    """TxnOffsetCommit has no error of the whole: every partition gets it."""
    if error is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS and api_version < LOADING_KNOWN_FROM:
        error = ErrorCode.COORDINATOR_NOT_AVAILABLE
    return TxnOffsetCommitResponse(
        topics=[
            _answer(topic.name, [each.partition_index for each in topic.partitions], error)
            for topic in topics
        ]
    )


def merge(answer: TxnOffsetCommitResponse, result: TxnOffsetCommitResponse) -> TxnOffsetCommitResponse:
    """The two answers as one, a topic in both only once."""
    merged: dict[str, TxnOffsetCommitResponseTopic] = {}
    for topic in answer.topics + result.topics:
        if topic.name in merged:
            merged[topic.name].partitions += topic.partitions
        else:
            merged[topic.name] = topic
    return TxnOffsetCommitResponse(topics=list(merged.values()))


def commit(
    shard: ShardState,
    context: GroupContext,
    request: TxnOffsetCommitRequest,
    topics: list[TxnOffsetCommitRequestTopic],
) -> Outcome[TxnOffsetCommitResponse]:
    """Write the offsets of these topics. KafkaError refuses them all."""
    _validate(shard, context, request, topics)
    wall_ms = shard.wall_ms()
    records: list[GroupRecord] = []
    response = TxnOffsetCommitResponse()
    for topic in topics:
        answers: list[TxnOffsetCommitResponsePartition] = []
        for partition in topic.partitions:
            error = ErrorCode.NONE
            if is_metadata_too_long(shard, partition.committed_metadata):
                error = ErrorCode.OFFSET_METADATA_TOO_LARGE
            else:
                value = offset_value(partition, ZERO_UUID, wall_ms, -1)
                records.append(offset_record(request.group_id, topic.name, partition.partition_index, value))
            answers.append(TxnOffsetCommitResponsePartition(partition.partition_index, error))
        response.topics.append(TxnOffsetCommitResponseTopic(topic.name, answers))
    shard.metrics.offset_commits += len(records)
    return Outcome(response, records, transaction=Producer(request.producer_id, request.producer_epoch))


def _validate(
    shard: ShardState,
    context: GroupContext,
    request: TxnOffsetCommitRequest,
    topics: list[TxnOffsetCommitRequestTopic],
) -> None:
    group = shard.groups.get(request.group_id)
    if group is None:
        if request.generation_id >= 0:
            raise KafkaError(ErrorCode.ILLEGAL_GENERATION)
        return
    try:
        check = group.validate_offset_commit(
            request.member_id,
            request.group_instance_id,
            request.generation_id,
            context.api_version,
            transactional=True,
        )
        if check is not None:
            for topic in topics:
                for partition in topic.partitions:
                    check(topic.name, shard.topics.id_of(topic.name) or ZERO_UUID, partition.partition_index)
    except KafkaError as error:
        if error.code is ErrorCode.STALE_MEMBER_EPOCH:
            raise KafkaError(ErrorCode.ILLEGAL_GENERATION) from None
        raise


def _answer(name: str, partitions: list[int], error: ErrorCode) -> TxnOffsetCommitResponseTopic:
    return TxnOffsetCommitResponseTopic(
        name, [TxnOffsetCommitResponsePartition(partition, error) for partition in partitions]
    )
