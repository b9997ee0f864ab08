"""AlterReplicaLogDirs (key 34), versions 1-2: moves replicas of this broker to other log directories (KIP-113).

Answers at once; how far the copies are is told by DescribeLogDirs. A replica that is moved to where it is already is
not moved any more. Per partition: LOG_DIR_NOT_FOUND, KAFKA_STORAGE_ERROR, INVALID_REPLICA_ASSIGNMENT (the directory is
cordoned, KIP-1066), INVALID_TOPIC_EXCEPTION (its name is too long); REPLICA_NOT_AVAILABLE if there is no such replica:
one that comes later will be created there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from odradek.wire.messages.alter_replica_log_dirs import (
    AlterReplicaLogDirPartitionResult,
    AlterReplicaLogDirsRequest,
    AlterReplicaLogDirsResponse,
    AlterReplicaLogDirTopicResult,
)

if TYPE_CHECKING:
    from odradek.broker.dispatch import Done, RequestContext
    from odradek.broker.node import Node


def alter_replica_log_dirs(
    node: Node, context: RequestContext, request: AlterReplicaLogDirsRequest, done: Done
) -> None:
    """A partition that is named twice goes where it was named last, as in Kafka."""
    wanted = {
        (topic.name, index): directory.path
        for directory in request.dirs
        for topic in directory.topics
        for index in topic.partitions
    }
    results: dict[str, AlterReplicaLogDirTopicResult] = {}
    for (topic, index), path in wanted.items():
        code = node.replicas.moves.alter((topic, index), path)
        result = results.setdefault(topic, AlterReplicaLogDirTopicResult(topic))
        result.partitions.append(AlterReplicaLogDirPartitionResult(index, code))
    done(AlterReplicaLogDirsResponse(results=list(results.values())))
