"""DeleteRecords (key 21), versions 0-2: move the log start offset up; -1 means the high watermark."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.delete_records import (
    DeleteRecordsPartitionResult,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopicResult,
)

if TYPE_CHECKING:
    from odradek.broker.dispatch import Done, RequestContext
    from odradek.broker.node import Node

HIGH_WATERMARK = -1


def delete_records(node: Node, context: RequestContext, request: DeleteRecordsRequest, done: Done) -> None:
    """Answers at once; the segments go later, off the request path."""
    topics = []
    for topic in request.topics:
        answers = []
        for wanted in topic.partitions:
            answer = DeleteRecordsPartitionResult(partition_index=wanted.partition_index, low_watermark=-1)
            try:
                answer.low_watermark = _delete_to(node, topic.name, wanted.partition_index, wanted.offset)
            except KafkaError as error:
                answer.error_code = error.code
            answers.append(answer)
        topics.append(DeleteRecordsTopicResult(name=topic.name, partitions=answers))
    done(DeleteRecordsResponse(topics=topics))


def _delete_to(node: Node, topic: str, index: int, offset: int) -> int:
    partition = node.leader_of(topic, index)
    if topic in node.internal_topics:
        raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION)
    log = partition.log
    if not log.config.cleanup_delete:
        raise KafkaError(ErrorCode.POLICY_VIOLATION)
    target = partition.high_watermark if offset == HIGH_WATERMARK else offset
    if not 0 <= target <= partition.high_watermark:
        raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE)
    if target > log.log_start_offset:
        log.advance_log_start(target)
        node.log_start_moved(partition)
    return log.log_start_offset
