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
    from odradek.broker.partition import Partition
    from odradek.ports.timers import Timer

HIGH_WATERMARK = -1
WAIT_MS_MAX = 300_000
"""Nobody waits longer for a follower, whatever the request says: who has gone would be remembered for weeks."""


def delete_records(node: Node, context: RequestContext, request: DeleteRecordsRequest, done: Done) -> None:
    """Answers when all live replicas have followed, at the latest after the request's timeout. The segments go later,
    off the request path.
    """
    operation = _Operation(node, done)
    for topic in request.topics:
        answers = [
            operation.delete(topic.name, wanted.partition_index, wanted.offset) for wanted in topic.partitions
        ]
        operation.response.topics.append(DeleteRecordsTopicResult(name=topic.name, partitions=answers))
    operation.answer_within(max(request.timeout_ms, 0))


class _Operation:
    """One request, until each of its partitions has an answer."""

    def __init__(self, node: Node, done: Done) -> None:
        self._node = node
        self._done = done
        self._timer: Timer | None = None
        self._open: dict[int, tuple[Partition, DeleteRecordsPartitionResult]] = {}
        """What waits for followers, by identity of the answer."""
        self._started = False
        self.response = DeleteRecordsResponse()

    def delete(self, topic: str, index: int, offset: int) -> DeleteRecordsPartitionResult:
        answer = DeleteRecordsPartitionResult(partition_index=index, low_watermark=-1)
        try:
            partition, target = _delete_to(self._node, topic, index, offset)
        except KafkaError as error:
            answer.error_code = error.code
            return answer
        key = id(answer)
        self._open[key] = partition, answer

        def deleted(error: ErrorCode, low_watermark: int) -> None:
            del self._open[key]
            answer.error_code, answer.low_watermark = error, low_watermark
            self._answer_if_complete()

        partition.when_deleted(key, target, deleted)
        return answer

    def answer_within(self, timeout_ms: int) -> None:
        self._started = True
        if self._open:
            self._timer = self._node.timers.at(
                self._node.monotonic_ms() + min(timeout_ms, WAIT_MS_MAX), self._expire
            )
        self._answer_if_complete()

    def _expire(self, _now_ms: int) -> None:
        for key, (partition, answer) in self._open.items():
            partition.forget_deletion(key)
            answer.error_code = ErrorCode.REQUEST_TIMED_OUT
        self._open.clear()
        self._answer_if_complete()

    def _answer_if_complete(self) -> None:
        if self._open or not self._started:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._done(self.response)


def _delete_to(node: Node, topic: str, index: int, offset: int) -> tuple[Partition, int]:
    """Move the log start of this leader; (partition, the offset that the others have to reach)."""
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
    return partition, target
