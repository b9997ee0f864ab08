"""The classic group protocol's APIs: clients that FindCoordinator sent here.

JoinGroup 11 (0-9), Heartbeat 12 (0-4), LeaveGroup 13 (0-5), SyncGroup 14 (0-5), DescribeGroups 15 (0-6),
ListGroups 16 (0-5), DeleteGroups 42 (0-2), OffsetCommit 8 (2-10), OffsetFetch 9 (1-10), OffsetDelete 47 (0).
Everything is decided by the group coordinator; here requests only find their way to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from odradek.coordinator.group_coordinator import GroupContext
from odradek.wire.apis import ApiKey

if TYPE_CHECKING:
    from odradek.broker.dispatch import Done, Function, RequestContext
    from odradek.broker.node import Node


def _to_coordinator(method: str) -> Function:
    def forward(node: Node, context: RequestContext, request: Any, done: Done) -> None:
        group_context = GroupContext(context.client_id, context.client_host, context.api_version)
        getattr(node.coordinator, method)(group_context, request, done)

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
    ApiKey.OFFSET_DELETE: _to_coordinator("delete_offsets"),
}
