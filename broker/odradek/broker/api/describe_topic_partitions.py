"""DescribeTopicPartitions (key 75), version 0 (KIP-966): topics page by page, with their eligible leader replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odradek.broker.api.metadata import ALL_TOPIC_OPERATIONS
from odradek.controller.topic_names import topic_name_error
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.describe_topic_partitions import (
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponseCursor,
    DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
)

if TYPE_CHECKING:
    from odradek.broker.dispatch import Done, RequestContext
    from odradek.broker.node import Node
    from odradek.metadata.image import PartitionImage, TopicImage


def describe_topic_partitions(
    node: Node, context: RequestContext, request: DescribeTopicPartitionsRequest, done: Done
) -> None:
    """Topics in order of their names, from the cursor on; a next cursor where the answer was cut: by what the client
    asked for, at most by `max.request.partition.size.limit`.
    """
    image = node.image
    names = sorted({topic.name for topic in request.topics}) or sorted(image.topics)
    start_topic, start_index = "", 0
    if request.cursor is not None:
        start_topic, start_index = request.cursor.topic_name, request.cursor.partition_index
        names = [name for name in names if name >= start_topic]
    left = max(1, min(request.response_partition_limit, node.config.max_request_partition_size_limit))
    live = {broker.id for broker in node.brokers_on(context.listener)}
    response = DescribeTopicPartitionsResponse()
    for name in names:
        topic = image.topics.get(name)
        if topic is None:
            code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            if topic_name_error(name) is not None:
                code = ErrorCode.INVALID_TOPIC_EXCEPTION
            response.topics.append(DescribeTopicPartitionsResponseTopic(error_code=code, name=name))
            continue
        if left == 0:
            response.next_cursor = DescribeTopicPartitionsResponseCursor(topic_name=name, partition_index=0)
            break
        first = start_index if name == start_topic else 0
        chosen = [index for index in topic.partitions if index >= first]
        response.topics.append(_topic(node, topic, chosen[:left], live))
        if len(chosen) > left:
            response.next_cursor = DescribeTopicPartitionsResponseCursor(
                topic_name=name, partition_index=chosen[left]
            )
            break
        left -= len(chosen)
    done(response)


def _topic(
    node: Node, topic: TopicImage, indexes: list[int], live: set[int]
) -> DescribeTopicPartitionsResponseTopic:
    return DescribeTopicPartitionsResponseTopic(
        error_code=0,
        name=topic.name,
        topic_id=topic.id,
        is_internal=topic.name in node.internal_topics,
        partitions=[_partition(index, topic.partitions[index], live) for index in indexes],
        topic_authorized_operations=ALL_TOPIC_OPERATIONS,
    )


def _partition(
    index: int, partition: PartitionImage, live: set[int]
) -> DescribeTopicPartitionsResponsePartition:
    leader = partition.leader if partition.leader in live else -1
    return DescribeTopicPartitionsResponsePartition(
        error_code=0 if leader >= 0 else ErrorCode.LEADER_NOT_AVAILABLE,
        partition_index=index,
        leader_id=leader,
        leader_epoch=partition.leader_epoch,
        replica_nodes=list(partition.replicas),
        isr_nodes=list(partition.isr),
        eligible_leader_replicas=list(partition.elr),
        last_known_elr=list(partition.last_known_elr),
        offline_replicas=[replica for replica in partition.replicas if replica not in live],
    )
