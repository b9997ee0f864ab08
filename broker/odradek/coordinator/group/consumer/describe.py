"""ConsumerGroupDescribe, versions 0 and 1 (key 69), within one partition: what is committed."""

from __future__ import annotations

from collections.abc import Iterable

from odradek.coordinator.group.consumer.group import NOTHING, ConsumerGroup
from odradek.coordinator.group.consumer.member import ConsumerMember, Partitions
from odradek.coordinator.group.consumer.topics import TopicCatalog
from odradek.coordinator.group.state import ShardState
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.consumer_group_describe import (
    Assignment,
    DescribedGroup,
    Member,
    TopicPartitions,
)

CLASSIC_MEMBER, CONSUMER_MEMBER = 0, 1


def describe_consumer_group(shard: ShardState, group_id: str) -> DescribedGroup:
    group = shard.groups.get_committed(group_id)
    if not isinstance(group, ConsumerGroup):
        what = "not found" if group is None else "is not a consumer group"
        return DescribedGroup(
            group_id=group_id,
            error_code=ErrorCode.GROUP_ID_NOT_FOUND,
            error_message=f"Group {group_id} {what}.",
        )
    epoch, assignment_epoch = group.committed_epochs
    members = [member for _, member in group.members.committed_items()]
    return DescribedGroup(
        group_id=group_id,
        group_state=group.committed_state.value,
        group_epoch=epoch,
        assignment_epoch=assignment_epoch,
        assignor_name=_assignor(members) or shard.config.group_consumer_assignors[0],
        members=[
            _member(each, group.targets.get_committed(each.member_id) or NOTHING, shard.topics)
            for each in members
        ],
    )


def _assignor(members: Iterable[ConsumerMember]) -> str | None:
    """What most of them ask for."""
    asked = [member.server_assignor for member in members if member.server_assignor is not None]
    return max(sorted(set(asked)), key=asked.count, default=None)


def _member(member: ConsumerMember, target: Partitions, topics: TopicCatalog) -> Member:
    """What it has to give up is its own until it has."""
    owned: dict[bytes, list[int]] = {}
    for topic_id, partition in member.owned():
        owned.setdefault(topic_id, []).append(partition)
    return Member(
        member_id=member.member_id,
        instance_id=member.instance_id,
        rack_id=member.rack_id,
        member_epoch=member.member_epoch,
        client_id=member.client_id,
        client_host=member.client_host,
        subscribed_topic_names=sorted(member.topic_names),
        subscribed_topic_regex=member.topic_regex,
        assignment=_assignment(owned, topics),
        target_assignment=_assignment(
            {topic_id: sorted(numbers) for topic_id, numbers in target.items()}, topics
        ),
        member_type=CONSUMER_MEMBER if member.classic is None else CLASSIC_MEMBER,
    )


def _assignment(partitions: dict[bytes, list[int]], topics: TopicCatalog) -> Assignment:
    """Topics that are gone are left out."""
    named = ((topic_id, topics.name_of(topic_id), numbers) for topic_id, numbers in partitions.items())
    return Assignment(
        [TopicPartitions(topic_id, name, numbers) for topic_id, name, numbers in named if name is not None]
    )
