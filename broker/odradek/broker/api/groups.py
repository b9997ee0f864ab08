"""The APIs of groups: clients that FindCoordinator sent here.

JoinGroup 11 (0-9), Heartbeat 12 (0-4), LeaveGroup 13 (0-5), SyncGroup 14 (0-5), DescribeGroups 15 (0-6),
ListGroups 16 (0-5), DeleteGroups 42 (0-2), OffsetCommit 8 (2-10), OffsetFetch 9 (1-10), OffsetDelete 47 (0),
ConsumerGroupHeartbeat 68 (0-1), ConsumerGroupDescribe 69 (0-1). The last two ask for the feature group.version 1.
Everything is decided by the group coordinator; here requests only find their way to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from odradek.coordinator.group_coordinator import GroupContext
from odradek.wire.apis import ApiKey
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.consumer_group_describe import ConsumerGroupDescribeResponse, DescribedGroup
from odradek.wire.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatResponse

if TYPE_CHECKING:
    from odradek.broker.dispatch import Done, Function, RequestContext
    from odradek.broker.node import Node


def _to_coordinator(method: str) -> Function:
    def forward(node: Node, context: RequestContext, request: Any, done: Done) -> None:
        group_context = GroupContext(context.client_id, context.client_host, context.api_version)
        getattr(node.groups, method)(group_context, request, done)

    return forward


def _describe_groups(node: Node, context: RequestContext, request: Any, done: Done) -> None:
    """Each group once: its answer may be a thousand times as long as its name."""
    request.groups = list(dict.fromkeys(request.groups))
    _to_coordinator("describe_groups")(node, context, request, done)


def _fetch_offsets(node: Node, context: RequestContext, request: Any, done: Done) -> None:
    """A group's offsets of all topics once, as above."""
    seen: set[str] = set()
    request.groups = [
        group
        for group in request.groups
        if group.topics is not None or not (group.group_id in seen or seen.add(group.group_id))  # type: ignore[func-returns-value]
    ]
    _to_coordinator("fetch_offsets")(node, context, request, done)


def _consumer_group_heartbeat(node: Node, context: RequestContext, request: Any, done: Done) -> None:
    if not node.serves_consumer_protocol:
        text = ErrorCode.UNSUPPORTED_VERSION.message
        done(ConsumerGroupHeartbeatResponse(error_code=ErrorCode.UNSUPPORTED_VERSION, error_message=text))
        return
    _to_coordinator("consumer_group_heartbeat")(node, context, request, done)


def _consumer_group_describe(node: Node, context: RequestContext, request: Any, done: Done) -> None:
    """Each group once, as for classic ones."""
    request.group_ids = list(dict.fromkeys(request.group_ids))
    if not node.serves_consumer_protocol:
        error = ErrorCode.UNSUPPORTED_VERSION
        groups = [DescribedGroup(group_id=group_id, error_code=error) for group_id in request.group_ids]
        done(ConsumerGroupDescribeResponse(groups=groups))
        return
    _to_coordinator("describe_consumer_groups")(node, context, request, done)


FUNCTIONS: dict[int, Function] = {
    ApiKey.JOIN_GROUP: _to_coordinator("join_group"),
    ApiKey.HEARTBEAT: _to_coordinator("heartbeat"),
    ApiKey.LEAVE_GROUP: _to_coordinator("leave_group"),
    ApiKey.SYNC_GROUP: _to_coordinator("sync_group"),
    ApiKey.DESCRIBE_GROUPS: _describe_groups,
    ApiKey.LIST_GROUPS: _to_coordinator("list_groups"),
    ApiKey.DELETE_GROUPS: _to_coordinator("delete_groups"),
    ApiKey.OFFSET_COMMIT: _to_coordinator("commit_offsets"),
    ApiKey.OFFSET_FETCH: _fetch_offsets,
    ApiKey.TXN_OFFSET_COMMIT: _to_coordinator("commit_transactional_offsets"),
    ApiKey.OFFSET_DELETE: _to_coordinator("delete_offsets"),
    ApiKey.CONSUMER_GROUP_HEARTBEAT: _consumer_group_heartbeat,
    ApiKey.CONSUMER_GROUP_DESCRIBE: _consumer_group_describe,
}
