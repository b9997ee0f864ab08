"""DescribeGroups 0–6 (key 15), ListGroups 0–5 (key 16), DeleteGroups 0–2 (key 42), within one partition.

Describe and list look at groups whose first record is committed, as they are at this moment. From version 6 on
a group that does not exist is GROUP_ID_NOT_FOUND; before, it is a Dead group without an error (KIP-1043).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from odradek.coordinator.group.classic.group import DEAD, EMPTY, STABLE, ClassicGroup
from odradek.coordinator.group.classic.rebalance import abandon
from odradek.coordinator.group.consumer.group import ConsumerGroup
from odradek.coordinator.group.context import GroupContext
from odradek.coordinator.group.offsets import offset_tombstones, tombstones_of
from odradek.coordinator.group.record import GroupRecord
from odradek.coordinator.group.state import ShardState
from odradek.coordinator.runtime import Outcome
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.delete_groups import DeletableGroupResult
from odradek.wire.messages.describe_groups import DescribedGroup, DescribedGroupMember
from odradek.wire.messages.list_groups import ListedGroup

CLASSIC_TYPE, CONSUMER_TYPE = "classic", "consumer"
ERROR_ON_UNKNOWN_FROM = 6


def describe_group(shard: ShardState, context: GroupContext, group_id: str) -> DescribedGroup:
    """One group with its members; what they are assigned, and subscribed to once the group is Stable."""
    group = shard.groups.get_committed(group_id)
    if not isinstance(group, ClassicGroup):
        described = DescribedGroup(group_id=group_id, group_state=DEAD.value)
        if context.api_version >= ERROR_ON_UNKNOWN_FROM:
            described.error_code = ErrorCode.GROUP_ID_NOT_FOUND
            what = "not found" if group is None else "is not a classic group"
            described.error_message = f"Group {group_id} {what}."
        return described
    stable = group.state is STABLE
    return DescribedGroup(
        group_id=group_id,
        group_state=group.state.value,
        protocol_type=group.protocol_type or "",
        protocol_data=(group.protocol or "") if stable else "",
        members=[
            DescribedGroupMember(
                member_id=member.member_id,
                group_instance_id=member.instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                member_metadata=member.metadata_of(group.protocol) if stable else b"",
                member_assignment=member.assignment,
            )
            for member in group.members.values()
        ],
    )


def list_groups(shard: ShardState, states: Sequence[str], types: Sequence[str]) -> list[ListedGroup]:
    """The groups in these states and of these types; no filter means all. Case does not count."""
    wanted_types = {name.lower() for name in types}
    wanted = {name.lower().strip() for name in states}
    listed: list[ListedGroup] = []
    for group_id, group in shard.groups.committed_items():
        kind = CONSUMER_TYPE if isinstance(group, ConsumerGroup) else CLASSIC_TYPE
        if wanted_types and kind not in wanted_types:
            continue
        state = (group.committed_state if isinstance(group, ConsumerGroup) else group.state).value
        if not wanted or state.lower() in wanted:
            listed.append(ListedGroup(group_id, group.protocol_type or "", state, kind))
    return listed


def delete_groups(shard: ShardState, group_ids: Sequence[str]) -> Outcome[list[DeletableGroupResult]]:
    """Delete groups without members, and their offsets."""
    records: list[GroupRecord] = []
    results: list[DeletableGroupResult] = []
    deleted: list[ClassicGroup] = []
    for group_id in group_ids:
        group = shard.groups.get(group_id)
        error = ErrorCode.NONE
        if group is None:
            error = ErrorCode.GROUP_ID_NOT_FOUND
        elif group.state is not EMPTY:
            error = ErrorCode.NON_EMPTY_GROUP
        else:
            records += offset_tombstones(shard, group_id)
            records += tombstones_of(group)
            if isinstance(group, ClassicGroup):
                deleted.append(group)
        results.append(DeletableGroupResult(group_id, error))
    return Outcome(results, records, written=partial(on_groups_deleted, shard, deleted))


def on_groups_deleted(shard: ShardState, groups: Sequence[ClassicGroup], error: ErrorCode) -> None:
    """Ids that were given out for them are void with the group."""
    for group in groups:
        if error is ErrorCode.NONE and shard.groups.get(group.group_id) is not group:
            abandon(shard, group, ErrorCode.UNKNOWN_MEMBER_ID)
