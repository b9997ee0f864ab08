"""OffsetForLeaderEpoch (key 23), versions 2-4 (KIP-101, KIP-320): where a leader epoch ends in this log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odradek.wire.errors import KafkaError
from odradek.wire.messages.offset_for_leader_epoch import (
    EpochEndOffset,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderTopicResult,
)

if TYPE_CHECKING:
    from odradek.broker.dispatch import Done, RequestContext
    from odradek.broker.node import Node


def offset_for_leader_epoch(
    node: Node, context: RequestContext, request: OffsetForLeaderEpochRequest, done: Done
) -> None:
    """Answers at once. An epoch above the log's gives (-1, -1)."""
    topics = []
    for topic in request.topics:
        answers = []
        for wanted in topic.partitions:
            answer = EpochEndOffset(partition=wanted.partition)
            try:
                partition = node.leader_of(topic.topic, wanted.partition)
                partition.check_leader_epoch(wanted.current_leader_epoch)
                if wanted.leader_epoch == partition.leader_epoch:
                    answer.leader_epoch, answer.end_offset = wanted.leader_epoch, partition.log.log_end_offset
                else:
                    answer.leader_epoch, answer.end_offset = partition.log.end_offset_for_epoch(
                        wanted.leader_epoch
                    )
            except KafkaError as error:
                answer.error_code = error.code
            answers.append(answer)
        topics.append(OffsetForLeaderTopicResult(topic=topic.topic, partitions=answers))
    done(OffsetForLeaderEpochResponse(topics=topics))
