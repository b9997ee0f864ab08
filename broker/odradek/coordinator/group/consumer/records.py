"""The records of consumer groups in Kafka's formats: types 3 to 8 and 16 of `__consumer_offsets`, all in version 0.

    3   ConsumerGroupMetadata                   group epoch, hash of the topics' metadata
    4   ConsumerGroupPartitionMetadata          of Kafka before 4.1; read to be deleted
    5   ConsumerGroupMemberMetadata             who a member is and what it wants
    6   ConsumerGroupTargetAssignmentMetadata   epoch and time of the target assignment
    7   ConsumerGroupTargetAssignmentMember     what a member shall have
    8   ConsumerGroupCurrentMemberAssignment    what it has, its epoch and state
    16  ConsumerGroupRegularExpression          which topics an expression means

A member comes with 5, 7 and 8 in this order, and goes with their tombstones in the order 8, 7, 5.
"""

from __future__ import annotations

from collections.abc import Iterable

from odradek.coordinator.group.consumer.group import (
    GROUP,
    LEGACY,
    TARGET,
    ConsumerGroup,
    Numbers,
    ResolvedRegex,
)
from odradek.coordinator.group.consumer.member import (
    LEAVE_EPOCH,
    NO_PARTITIONS,
    ClassicMetadata,
    ConsumerMember,
    MemberState,
    PartitionEpochs,
    Partitions,
)
from odradek.coordinator.group.record import GroupRecord
from odradek.wire.messages import consumer_group_current_member_assignment_value as current
from odradek.wire.messages import consumer_group_target_assignment_member_value as target
from odradek.wire.messages.consumer_group_current_member_assignment_key import (
    ConsumerGroupCurrentMemberAssignmentKey,
)
from odradek.wire.messages.consumer_group_member_metadata_key import ConsumerGroupMemberMetadataKey
from odradek.wire.messages.consumer_group_member_metadata_value import (
    ClassicMemberMetadata,
    ClassicProtocol,
    ConsumerGroupMemberMetadataValue,
)
from odradek.wire.messages.consumer_group_metadata_key import ConsumerGroupMetadataKey
from odradek.wire.messages.consumer_group_metadata_value import ConsumerGroupMetadataValue
from odradek.wire.messages.consumer_group_partition_metadata_key import ConsumerGroupPartitionMetadataKey
from odradek.wire.messages.consumer_group_partition_metadata_value import ConsumerGroupPartitionMetadataValue
from odradek.wire.messages.consumer_group_regular_expression_key import ConsumerGroupRegularExpressionKey
from odradek.wire.messages.consumer_group_regular_expression_value import ConsumerGroupRegularExpressionValue
from odradek.wire.messages.consumer_group_target_assignment_member_key import (
    ConsumerGroupTargetAssignmentMemberKey,
)
from odradek.wire.messages.consumer_group_target_assignment_metadata_key import (
    ConsumerGroupTargetAssignmentMetadataKey,
)
from odradek.wire.messages.consumer_group_target_assignment_metadata_value import (
    ConsumerGroupTargetAssignmentMetadataValue,
)
from odradek.wire.primitives import Message

KEYS: dict[int, tuple[type[Message], type[Message]]] = {
    3: (ConsumerGroupMetadataKey, ConsumerGroupMetadataValue),
    4: (ConsumerGroupPartitionMetadataKey, ConsumerGroupPartitionMetadataValue),
    5: (ConsumerGroupMemberMetadataKey, ConsumerGroupMemberMetadataValue),
    6: (ConsumerGroupTargetAssignmentMetadataKey, ConsumerGroupTargetAssignmentMetadataValue),
    7: (ConsumerGroupTargetAssignmentMemberKey, target.ConsumerGroupTargetAssignmentMemberValue),
    8: (ConsumerGroupCurrentMemberAssignmentKey, current.ConsumerGroupCurrentMemberAssignmentValue),
    16: (ConsumerGroupRegularExpressionKey, ConsumerGroupRegularExpressionValue),
}
"""Key and value of each type."""

# -- to be written -----------------------------------------------------------------------------------------------


def member_record(group_id: str, member: ConsumerMember) -> GroupRecord:
    classic = member.classic
    value = ConsumerGroupMemberMetadataValue(
        instance_id=member.instance_id,
        rack_id=member.rack_id,
        client_id=member.client_id,
        client_host=member.client_host,
        subscribed_topic_names=sorted(member.topic_names),
        subscribed_topic_regex=member.topic_regex,
        rebalance_timeout_ms=member.rebalance_timeout_ms,
        server_assignor=member.server_assignor,
        classic_member_metadata=None
        if classic is None
        else ClassicMemberMetadata(
            classic.session_timeout_ms,
            [ClassicProtocol(name, metadata) for name, metadata in classic.protocols],
        ),
    )
    return GroupRecord(ConsumerGroupMemberMetadataKey(group_id, member.member_id), value)


def epoch_record(group_id: str, epoch: int, metadata_hash: int) -> GroupRecord:
    return GroupRecord(ConsumerGroupMetadataKey(group_id), ConsumerGroupMetadataValue(epoch, metadata_hash))


def target_record(group_id: str, member_id: str, partitions: Partitions) -> GroupRecord:
    topics = [target.TopicPartition(topic_id, sorted(numbers)) for topic_id, numbers in partitions.items()]
    return GroupRecord(
        ConsumerGroupTargetAssignmentMemberKey(group_id, member_id),
        target.ConsumerGroupTargetAssignmentMemberValue(topics),
    )


def target_epoch_record(group_id: str, epoch: int, wall_ms: int) -> GroupRecord:
    return GroupRecord(
        ConsumerGroupTargetAssignmentMetadataKey(group_id),
        ConsumerGroupTargetAssignmentMetadataValue(epoch, wall_ms),
    )


def current_record(group_id: str, member: ConsumerMember) -> GroupRecord:
    value = current.ConsumerGroupCurrentMemberAssignmentValue(
        member_epoch=member.member_epoch,
        previous_member_epoch=member.previous_member_epoch,
        state=int(member.state),
        assigned_partitions=_with_epochs(member.assigned),
        partitions_pending_revocation=_with_epochs(member.pending_revocation),
    )
    return GroupRecord(ConsumerGroupCurrentMemberAssignmentKey(group_id, member.member_id), value)


def regex_record(group_id: str, regex: str, resolved: ResolvedRegex) -> GroupRecord:
    value = ConsumerGroupRegularExpressionValue(
        sorted(resolved.topics), resolved.version, resolved.timestamp_ms
    )
    return GroupRecord(ConsumerGroupRegularExpressionKey(group_id, regex), value)


def regex_tombstone(group_id: str, regex: str) -> GroupRecord:
    return GroupRecord(ConsumerGroupRegularExpressionKey(group_id, regex), None)


def legacy_tombstone(group_id: str) -> GroupRecord:
    return GroupRecord(ConsumerGroupPartitionMetadataKey(group_id), None)


def member_tombstones(group_id: str, member_id: str) -> list[GroupRecord]:
    return [
        GroupRecord(ConsumerGroupCurrentMemberAssignmentKey(group_id, member_id), None),
        GroupRecord(ConsumerGroupTargetAssignmentMemberKey(group_id, member_id), None),
        GroupRecord(ConsumerGroupMemberMetadataKey(group_id, member_id), None),
    ]


def group_tombstones(group: ConsumerGroup, member_ids: Iterable[str] | None = None) -> list[GroupRecord]:
    """Everything of the group goes. `member_ids`: its members if the group itself does not know them yet."""
    group_id = group.group_id
    ids = [member_id for member_id, _ in group.members.items()] if member_ids is None else list(member_ids)
    return [
        *(GroupRecord(ConsumerGroupCurrentMemberAssignmentKey(group_id, each), None) for each in ids),
        *(GroupRecord(ConsumerGroupTargetAssignmentMemberKey(group_id, each), None) for each in ids),
        GroupRecord(ConsumerGroupTargetAssignmentMetadataKey(group_id), None),
        *(GroupRecord(ConsumerGroupMemberMetadataKey(group_id, each), None) for each in ids),
        *(regex_tombstone(group_id, regex) for regex, _ in group.regexes.items()),
        legacy_tombstone(group_id),
        GroupRecord(ConsumerGroupMetadataKey(group_id), None),
    ]


def all_records(group: ConsumerGroup) -> list[GroupRecord]:
    """The whole group as it is."""
    group_id = group.group_id
    members = list(group.members.values())
    return [
        *(member_record(group_id, member) for member in members),
        epoch_record(group_id, group.epoch, group.metadata_hash),
        *(target_record(group_id, each.member_id, group.target_of(each.member_id)) for each in members),
        target_epoch_record(group_id, group.assignment_epoch, group.assignment_timestamp_ms),
        *(current_record(group_id, member) for member in members),
    ]


def _with_epochs(partitions: PartitionEpochs) -> list[current.TopicPartitions]:
    return [
        current.TopicPartitions(topic_id, list(epochs), list(epochs.values()))
        for topic_id, epochs in partitions.items()
    ]


# -- replay ------------------------------------------------------------------------------------------------------


def is_group_tombstone(record: GroupRecord) -> bool:
    """After which the group is no more."""
    return isinstance(record.key, ConsumerGroupMetadataKey) and record.value is None


def apply(group: ConsumerGroup, record: GroupRecord) -> None:
    """One record of this group. Tombstones of what is not there are no error: a compacted log has such."""
    key, value = record.key, record.value
    if isinstance(key, ConsumerGroupMemberMetadataKey):
        assert value is None or isinstance(value, ConsumerGroupMemberMetadataValue)
        _apply_member(group, key.member_id, value)
    elif isinstance(key, ConsumerGroupCurrentMemberAssignmentKey):
        assert value is None or isinstance(value, current.ConsumerGroupCurrentMemberAssignmentValue)
        _apply_current(group, key.member_id, value)
    elif isinstance(key, ConsumerGroupTargetAssignmentMemberKey):
        if value is None:
            group.targets.remove(key.member_id)
        else:
            assert isinstance(value, target.ConsumerGroupTargetAssignmentMemberValue)
            group.targets[key.member_id] = {
                each.topic_id: frozenset(each.partitions) for each in value.topic_partitions
            }
    elif isinstance(key, ConsumerGroupRegularExpressionKey):
        if value is None:
            group.regexes.remove(key.regular_expression)
        else:
            assert isinstance(value, ConsumerGroupRegularExpressionValue)
            group.regexes[key.regular_expression] = ResolvedRegex(
                frozenset(value.topics), value.version, value.timestamp
            )
    else:
        _apply_numbers(group, record)


def _apply_numbers(group: ConsumerGroup, record: GroupRecord) -> None:
    key, value = record.key, record.value
    if isinstance(key, ConsumerGroupMetadataKey):
        assert value is None or isinstance(value, ConsumerGroupMetadataValue)
        group.set_numbers(GROUP, None if value is None else Numbers(value.epoch, value.metadata_hash))
    elif isinstance(key, ConsumerGroupTargetAssignmentMetadataKey):
        assert value is None or isinstance(value, ConsumerGroupTargetAssignmentMetadataValue)
        group.set_numbers(
            TARGET,
            None if value is None else Numbers(value.assignment_epoch, value.assignment_timestamp),
        )
    else:
        assert isinstance(key, ConsumerGroupPartitionMetadataKey)
        group.set_numbers(LEGACY, None if value is None else Numbers(0, 0))


def _apply_member(
    group: ConsumerGroup, member_id: str, value: ConsumerGroupMemberMetadataValue | None
) -> None:
    if value is None:
        group.members.remove(member_id)
        return
    old = group.members.get(member_id) or ConsumerMember(member_id)
    classic = value.classic_member_metadata
    group.members[member_id] = ConsumerMember(
        member_id,
        old.member_epoch,
        old.previous_member_epoch,
        old.state,
        instance_id=value.instance_id,
        rack_id=value.rack_id,
        rebalance_timeout_ms=value.rebalance_timeout_ms,
        client_id=value.client_id,
        client_host=value.client_host,
        topic_names=frozenset(value.subscribed_topic_names),
        topic_regex=value.subscribed_topic_regex or "",
        server_assignor=value.server_assignor,
        assigned=old.assigned,
        pending_revocation=old.pending_revocation,
        classic=None
        if classic is None
        else ClassicMetadata(
            classic.session_timeout_ms,
            tuple((protocol.name, protocol.metadata) for protocol in classic.supported_protocols),
        ),
    )


def _apply_current(
    group: ConsumerGroup, member_id: str, value: current.ConsumerGroupCurrentMemberAssignmentValue | None
) -> None:
    old = group.members.get(member_id)
    if value is None:
        if old is None:
            return
        epoch = previous = LEAVE_EPOCH
        state, assigned, pending = old.state, NO_PARTITIONS, NO_PARTITIONS
    else:
        epoch, previous = value.member_epoch, value.previous_member_epoch
        state = MemberState(value.state) if value.state in (0, 1, 2) else MemberState.UNKNOWN
        assigned = _epochs_from(value.assigned_partitions, epoch)
        pending = _epochs_from(value.partitions_pending_revocation, epoch)
    old = old or ConsumerMember(member_id)
    group.members[member_id] = ConsumerMember(
        member_id,
        epoch,
        previous,
        state,
        old.instance_id,
        old.rack_id,
        old.rebalance_timeout_ms,
        old.client_id,
        old.client_host,
        old.topic_names,
        old.topic_regex,
        old.server_assignor,
        assigned,
        pending,
        old.classic,
    )


def _epochs_from(topics: list[current.TopicPartitions], epoch: int) -> PartitionEpochs:
    """Kafka before 4.2 wrote no epochs: then all are the member's."""
    result: dict[bytes, dict[int, int]] = {}
    for topic in topics:
        epochs = topic.assignment_epochs or []
        if len(epochs) != len(topic.partitions):
            epochs = [max(epoch, 0)] * len(topic.partitions)
        result[topic.topic_id] = dict(zip(topic.partitions, epochs, strict=True))
    return result
