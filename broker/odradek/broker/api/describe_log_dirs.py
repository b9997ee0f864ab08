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
    from odradek.storage.log import Log


def describe_log_dirs(
    node: Node, context: RequestContext, request: DescribeLogDirsRequest, done: Done
) -> None:
    """Answers at once; without topics, all of them."""
    asked = (
        None if request.topics is None else {topic.topic: set(topic.partitions) for topic in request.topics}
    )
    results = []
    by_directory = _by_directory(node, asked)
    for directory, online in node.log_directories():
        if not online:
            results.append(DescribeLogDirsResult(error_code=ErrorCode.KAFKA_STORAGE_ERROR, log_dir=directory))
            continue
        try:
            total, usable = node.disk_space(directory)
        except OSError:  # removed, and nobody has noticed yet
            results.append(DescribeLogDirsResult(error_code=ErrorCode.KAFKA_STORAGE_ERROR, log_dir=directory))
            continue
        topics = by_directory.get(directory, {})
        results.append(
            DescribeLogDirsResult(
                error_code=0,
                log_dir=directory,
                topics=list(topics.values()),
                total_bytes=total,
                usable_bytes=usable,
                is_cordoned=directory in node.logs.cordoned,
            )
        )
    done(DescribeLogDirsResponse(results=results))


def _by_directory(
    node: Node, asked: dict[str, set[int]] | None
) -> dict[str, dict[str, DescribeLogDirsTopic]]:
    """Replicas by path of their directory and topic; those on their way to another one are in both."""
    found: dict[str, dict[str, DescribeLogDirsTopic]] = {}

    def add(log: Log, lag: int, *, future: bool) -> None:
        topic, index = log.key
        if asked is None or index in asked.get(topic, ()):
            topics = found.setdefault(log.dir.rpartition("/")[0], {})
            if topic not in topics:
                topics[topic] = DescribeLogDirsTopic(name=topic)
            topics[topic].partitions.append(DescribeLogDirsPartition(index, log.size_bytes, lag, future))

    for partition in node.partitions.values():
        log = partition.log
        add(log, max(0, partition.high_watermark - log.log_end_offset), future=False)
    for key, log in node.logs.futures.logs.items():
        if key in node.partitions:
            add(log, node.partitions[key].log.log_end_offset - log.log_end_offset, future=True)
    return found
