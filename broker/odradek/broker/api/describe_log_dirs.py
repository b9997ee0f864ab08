"""DescribeLogDirs (key 35), versions 1-5: each log directory with its space and the size of its replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odradek.wire.errors import ErrorCode
from odradek.wire.messages.describe_log_dirs import (
    DescribeLogDirsPartition,
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
    DescribeLogDirsResult,
    DescribeLogDirsTopic,
)

if TYPE_CHECKING:
    from odradek.broker.dispatch import Done, RequestContext
    from odradek.broker.node import Node


def describe_log_dirs(
    node: Node, context: RequestContext, request: DescribeLogDirsRequest, done: Done
) -> None:
    """Answers at once; without topics, all of them."""
    asked = (
        None if request.topics is None else {topic.topic: set(topic.partitions) for topic in request.topics}
    )
    results = []
    for directory, online in node.log_directories():
        if not online:
            results.append(DescribeLogDirsResult(error_code=ErrorCode.KAFKA_STORAGE_ERROR, log_dir=directory))
            continue
        total, usable = node.disk_space(directory)
        topics: dict[str, DescribeLogDirsTopic] = {}
        for partition in node.partitions.values():
            if partition.log.dir.rpartition("/")[0] != directory:
                continue
            if asked is not None and partition.index not in asked.get(partition.topic, ()):
                continue
            topic = topics.setdefault(partition.topic, DescribeLogDirsTopic(name=partition.topic))
            topic.partitions.append(
                DescribeLogDirsPartition(
                    partition_index=partition.index,
                    partition_size=partition.log.size_bytes,
                    offset_lag=max(0, partition.high_watermark - partition.log.log_end_offset),
                )
            )
        results.append(
            DescribeLogDirsResult(
                error_code=0,
                log_dir=directory,
                topics=list(topics.values()),
                total_bytes=total,
                usable_bytes=usable,
            )
        )
    done(DescribeLogDirsResponse(results=results))
