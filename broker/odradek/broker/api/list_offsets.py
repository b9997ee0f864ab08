"""ListOffsets (key 2), versions 1-11: earliest (-2), latest (-1), max timestamp (-3), local (-4), by time.

A debugging consumer (replica id -2) may ask a follower; latest is then where that replica's own log ends.
Tiered storage does not exist here: "earliest local" (-4) is the log start, "latest tiered" (-5) is none, "earliest
pending upload" (-6) is none. Latest is the high watermark, or the last stable offset for read_committed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsPartitionResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopicResponse,
)

if TYPE_CHECKING:
    from odradek.broker.dispatch import Done, RequestContext
    from odradek.broker.node import Node

LATEST = -1
EARLIEST = -2
MAX_TIMESTAMP = -3
EARLIEST_LOCAL = -4
LATEST_TIERED = -5
EARLIEST_PENDING_UPLOAD = -6
FIRST_VERSION_OF = {MAX_TIMESTAMP: 7, EARLIEST_LOCAL: 8, LATEST_TIERED: 9, EARLIEST_PENDING_UPLOAD: 11}
LEADER_EPOCHS_FROM = 4
READ_COMMITTED = 1
DEBUGGING_REPLICA_ID = -2


def list_offsets(node: Node, context: RequestContext, request: ListOffsetsRequest, done: Done) -> None:
    """Answers at once."""
    seen: set[tuple[str, int]] = set()
    twice = {
        key
        for topic in request.topics
        for partition in topic.partitions
        if (key := (topic.name, partition.partition_index)) in seen or seen.add(key)  # type: ignore[func-returns-value]
    }
    topics = []
    for topic in request.topics:
        answers = []
        for wanted in topic.partitions:
            try:
                if (topic.name, wanted.partition_index) in twice:
                    raise KafkaError(ErrorCode.INVALID_REQUEST)
                if request.replica_id == DEBUGGING_REPLICA_ID and wanted.timestamp == LATEST:
                    answers.append(_log_end(node, topic.name, wanted.partition_index))
                    continue
                answers.append(_one(node, topic.name, wanted, request.isolation_level, context.api_version))
            except KafkaError as error:
                answers.append(
                    ListOffsetsPartitionResponse(
                        partition_index=wanted.partition_index, error_code=error.code, timestamp=-1, offset=-1
                    )
                )
        topics.append(ListOffsetsTopicResponse(name=topic.name, partitions=answers))
    done(ListOffsetsResponse(topics=topics))


def _log_end(node: Node, topic: str, index: int) -> ListOffsetsPartitionResponse:
    partition = node.partitions.get((topic, index))
    if partition is None:
        node.leader_of(topic, index)  # says what is wrong
        raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
    return ListOffsetsPartitionResponse(partition_index=index, offset=partition.log.log_end_offset)


def _one(
    node: Node, topic: str, wanted: ListOffsetsPartition, isolation_level: int, version: int
) -> ListOffsetsPartitionResponse:
    partition = node.leader_of(topic, wanted.partition_index)
    partition.check_leader_epoch(wanted.current_leader_epoch)
    log = partition.log
    limit = partition.last_stable_offset if isolation_level == READ_COMMITTED else partition.high_watermark
    when = wanted.timestamp
    if when < EARLIEST and version < FIRST_VERSION_OF.get(when, 1 << 15):
        raise KafkaError(ErrorCode.UNSUPPORTED_VERSION)
    timestamp, offset, epoch = -1, -1, -1
    if when == LATEST:
        partition.refuse_if_latest_is_unknown()
        offset, epoch = limit, partition.leader_epoch
    elif when in (EARLIEST, EARLIEST_LOCAL):
        offset = log.log_start_offset
        epoch = log.epochs.epoch_at(offset)
    elif when == MAX_TIMESTAMP:
        found = log.max_timestamp()
        if found is not None and found[1] < limit:
            timestamp, offset, epoch = found
    elif when >= 0:
        found = log.lookup_timestamp(when)
        if found is not None and found[1] < limit:
            timestamp, offset, epoch = found
    return ListOffsetsPartitionResponse(
        partition_index=wanted.partition_index,
        error_code=0,
        timestamp=timestamp,
        offset=offset,
        leader_epoch=epoch if version >= LEADER_EPOCHS_FROM else -1,
    )
