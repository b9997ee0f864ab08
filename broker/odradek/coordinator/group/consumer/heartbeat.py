"""ConsumerGroupHeartbeat, versions 0 and 1 (key 68): all that a member of the consumer protocol says (KIP-848).

    member epoch > 0   alive; with what has changed since, or everything after an error
                 0     joins, or joins again with nothing in its hands
                 -1    leaves
                 -2    a static member leaves for a while; its partitions wait for it

Version 1 has expressions, and members make their ids themselves. A refusal is an answer with a text of Kafka's.
"""

from __future__ import annotations

from dataclasses import replace

from odradek.coordinator.group.classic.group import EMPTY
from odradek.coordinator.group.classic.records import group_tombstone
from odradek.coordinator.group.consumer.change import Change, assign, move, update
from odradek.coordinator.group.consumer.convert import upgrade
from odradek.coordinator.group.consumer.fence import remove_members
from odradek.coordinator.group.consumer.group import ConsumerGroup
from odradek.coordinator.group.consumer.member import (
    LEAVE_EPOCH,
    STATIC_LEAVE_EPOCH,
    ConsumerMember,
    PartitionEpochs,
    with_epoch,
    without_epochs,
)
from odradek.coordinator.group.consumer.reconcile import OwnedPartitions
from odradek.coordinator.group.consumer.records import (
    current_record,
    member_record,
    member_tombstones,
    target_record,
)
from odradek.coordinator.group.consumer.regex import Lookup, refresh
from odradek.coordinator.group.context import GroupContext
from odradek.coordinator.group.record import GroupRecord
from odradek.coordinator.group.state import ShardState, nothing
from odradek.coordinator.runtime import Outcome
from odradek.coordinator.timeline import Timeline
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.consumer_group_heartbeat import (
    Assignment,
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
    ConsumerGroupHeartbeatResponseTopicPartitions,
)
from odradek.wire.uuid import random_uuid, uuid_to_string

OWN_MEMBER_IDS_FROM = 1
"""From this version on a member makes its id itself."""

LOOKUP_PAUSE_MS = 1
"""Between two steps of a lookup of expressions."""

Response = ConsumerGroupHeartbeatResponse


def validate(request: ConsumerGroupHeartbeatRequest, version: int, assignors: tuple[str, ...]) -> None:
    """What Kafka checks before it looks at the group. KafkaError INVALID_REQUEST, UNSUPPORTED_ASSIGNOR."""
    epoch = request.member_epoch
    if version >= OWN_MEMBER_IDS_FROM or epoch > 0 or epoch == LEAVE_EPOCH:
        _not_blank(request.member_id, "MemberId")
    _not_blank(request.group_id, "GroupId")
    _not_blank(request.instance_id, "InstanceId")
    _not_blank(request.rack_id, "RackId")
    problem = None
    if epoch == 0:
        if request.rebalance_timeout_ms == -1:
            problem = "RebalanceTimeoutMs must be provided in first request."
        elif request.topic_partitions is None or request.topic_partitions:
            problem = "TopicPartitions must be empty when (re-)joining."
        elif request.subscribed_topic_names is None and request.subscribed_topic_regex is None:
            problem = (
                "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining."
            )
    elif epoch == STATIC_LEAVE_EPOCH and request.instance_id is None:
        problem = "InstanceId can't be null."
    elif epoch < STATIC_LEAVE_EPOCH:
        problem = "MemberEpoch is invalid."
    if problem is not None:
        raise KafkaError(ErrorCode.INVALID_REQUEST, problem)
    if request.server_assignor is not None and request.server_assignor not in assignors:
        text = (
            f"ServerAssignor {request.server_assignor} is not supported. "
            f"Supported assignors: {', '.join(assignors)}."
        )
        raise KafkaError(ErrorCode.UNSUPPORTED_ASSIGNOR, text)


def _not_blank(text: str | None, name: str) -> None:
    if text is not None and not text.strip():
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"{name} can't be empty.")


def heartbeat(
    shard: ShardState, context: GroupContext, request: ConsumerGroupHeartbeatRequest
) -> Outcome[Response]:
    """Decide on a heartbeat that is valid in itself."""
    try:
        if request.member_epoch < 0:
            return _leave(shard, request)
        return _beat(shard, context, request)
    except KafkaError as error:
        return Outcome(refusal(error))


def refusal(error: KafkaError) -> Response:
    text = error.code.message if error.message is None else error.message
    return Response(error_code=error.code, error_message=text)


# -- alive -------------------------------------------------------------------------------------------------------


def _beat(
    shard: ShardState, context: GroupContext, request: ConsumerGroupHeartbeatRequest
) -> Outcome[Response]:
    records: list[GroupRecord] = []
    group = _group_of(shard, request, records)
    member_id = request.member_id or uuid_to_string(random_uuid(shard.rng))
    check_room(shard, group, request.member_id)
    owned: OwnedPartitions | None = None
    if request.topic_partitions is not None:
        owned = [(topic.topic_id, topic.partitions) for topic in request.topic_partitions]
    old = _member_of(group, request, member_id, owned, records)
    change = Change(shard, group, old, _updated(old, context, request), records)
    update(change)
    assign(change)
    move(change, owned)
    new = change.new
    shard.consumer_timers.keep_session(
        group.group_id, member_id, shard.settings.session_timeout_ms(group.group_id)
    )
    response = Response(
        member_id=member_id,
        member_epoch=new.member_epoch,
        heartbeat_interval_ms=shard.settings.heartbeat_interval_ms(group.group_id),
    )
    if request.member_epoch == 0 or _is_full(request) or new.assigned != old.assigned:
        response.assignment = _assignment(new)
    if change.refresh_regexes:
        # After this step: an answer does not wait for the names of all topics.
        shard.answer(shard.submit, lambda later: refresh_regexes(later, request.group_id))
    return Outcome(response, records)


def _group_of(
    shard: ShardState, request: ConsumerGroupHeartbeatRequest, records: list[GroupRecord]
) -> ConsumerGroup:
    """The group; who joins brings it into being, or turns a classic one into it."""
    group_id = request.group_id
    group = shard.groups.get(group_id)
    if isinstance(group, ConsumerGroup):
        return group
    joins = request.member_epoch == 0
    if group is None:
        if not joins:
            raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, f"Consumer group {group_id} not found.")
        return ConsumerGroup(group_id, Timeline())
    if not joins:
        raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, f"Group {group_id} is not a consumer group.")
    if group.state is EMPTY:
        records.append(group_tombstone(group_id))
        return ConsumerGroup(group_id, Timeline())
    return upgrade(shard, group, records)


def check_room(shard: ShardState, group: ConsumerGroup, member_id: str) -> None:
    """KafkaError GROUP_MAX_SIZE_REACHED for one member too many."""
    most = shard.config.group_consumer_max_size
    if group.size >= most and (not member_id or member_id not in group.members):
        text = f"The consumer group has reached its maximum capacity of {most} members."
        raise KafkaError(ErrorCode.GROUP_MAX_SIZE_REACHED, text)


def _member_of(
    group: ConsumerGroup,
    request: ConsumerGroupHeartbeatRequest,
    member_id: str,
    owned: OwnedPartitions | None,
    records: list[GroupRecord],
) -> ConsumerMember:
    """The member as the group knows it, blank if it is new."""
    joins = request.member_epoch == 0
    instance_id = request.instance_id
    if instance_id is None:
        known = group.members.get(member_id)
        if known is None:
            return ConsumerMember(member_id) if joins else group.member(member_id)
        _check_epoch(known, request.member_epoch, owned)
        return known
    existing = group.static_member(instance_id)
    if not joins:
        existing = check_instance(existing, member_id, instance_id)
        _check_epoch(existing, request.member_epoch, owned)
        return existing
    if existing is None:
        return group.members.get(member_id) or ConsumerMember(member_id)
    if existing.classic is None and existing.member_epoch != STATIC_LEAVE_EPOCH:
        text = (
            f"Static member {member_id} with instance id {instance_id} cannot join the group because the "
            f"instance id is owned by {existing.member_id} member."
        )
        raise KafkaError(ErrorCode.UNRELEASED_INSTANCE_ID, text)
    return replace_static(group, existing, member_id, records)


def check_instance(existing: ConsumerMember | None, member_id: str, instance_id: str) -> ConsumerMember:
    """KafkaError UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID unless the instance is this member."""
    if existing is None:
        raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID, f"Instance id {instance_id} is unknown.")
    if existing.member_id != member_id:
        text = (
            f"Static member {member_id} with instance id {instance_id} was fenced by member "
            f"{existing.member_id}."
        )
        raise KafkaError(ErrorCode.FENCED_INSTANCE_ID, text)
    return existing


def replace_static(
    group: ConsumerGroup, existing: ConsumerMember, member_id: str, records: list[GroupRecord]
) -> ConsumerMember:
    """A static member is back under another id, and takes over all that waited for it."""
    new = replace(existing, member_id=member_id, member_epoch=0, previous_member_epoch=0)
    group_id = group.group_id
    records += member_tombstones(group_id, existing.member_id)
    records += [
        member_record(group_id, new),
        target_record(group_id, member_id, group.target_of(existing.member_id)),
        current_record(group_id, new),
    ]
    return new


def _check_epoch(member: ConsumerMember, received: int, owned: OwnedPartitions | None) -> None:
    """KafkaError FENCED_MEMBER_EPOCH. The previous epoch will do for a member that has nothing it was not given: the
    answer with the new one may have been lost.
    """
    epoch = member.member_epoch
    if received in (0, epoch):
        return
    if received == member.previous_member_epoch and received < epoch and _is_subset(owned, member.assigned):
        return
    text = (
        f"The consumer group member has a {'greater' if received > epoch else 'smaller'} member epoch "
        f"({received}) than the one known by the group coordinator ({epoch}). The member must abandon all its "
        "partitions and rejoin."
    )
    raise KafkaError(ErrorCode.FENCED_MEMBER_EPOCH, text)


def _is_subset(owned: OwnedPartitions | None, assigned: PartitionEpochs) -> bool:
    if owned is None:
        return False
    return all(number in assigned.get(topic_id, {}) for topic_id, numbers in owned for number in numbers)


def _updated(
    old: ConsumerMember, context: GroupContext, request: ConsumerGroupHeartbeatRequest
) -> ConsumerMember:
    """What it does not say stays; most heartbeats say nothing at all."""
    names, regex = request.subscribed_topic_names, request.subscribed_topic_regex
    if (
        names is None
        and regex is None
        and request.rebalance_timeout_ms == -1
        and request.server_assignor is None
        and request.rack_id is None
        and request.instance_id in (None, old.instance_id)
        and (old.client_id, old.client_host, old.classic) == (context.client_id, context.client_host, None)
    ):
        return old
    return replace(
        old,
        instance_id=old.instance_id if request.instance_id is None else request.instance_id,
        rack_id=old.rack_id if request.rack_id is None else request.rack_id,
        rebalance_timeout_ms=old.rebalance_timeout_ms
        if request.rebalance_timeout_ms == -1
        else request.rebalance_timeout_ms,
        server_assignor=old.server_assignor if request.server_assignor is None else request.server_assignor,
        topic_names=old.topic_names if names is None else frozenset(names),
        topic_regex=old.topic_regex if regex is None else regex,
        client_id=context.client_id,
        client_host=context.client_host,
        classic=None,
    )


def _is_full(request: ConsumerGroupHeartbeatRequest) -> bool:
    """A member that says everything wants to be told everything: it has missed something."""
    subscribed = request.subscribed_topic_names is not None or request.subscribed_topic_regex is not None
    return request.rebalance_timeout_ms != -1 and subscribed and request.topic_partitions is not None


def _assignment(member: ConsumerMember) -> Assignment:
    return Assignment(
        [
            ConsumerGroupHeartbeatResponseTopicPartitions(topic_id, list(epochs))
            for topic_id, epochs in member.assigned.items()
        ]
    )


def refresh_regexes(shard: ShardState, group_id: str) -> Outcome[None]:
    """Begin to look up what the group's expressions mean."""
    group = shard.groups.get(group_id)
    if not isinstance(group, ConsumerGroup) or group_id in shard.lookups:
        return nothing()
    lookup = Lookup(group_id, group.regex_counts, shard.topics)
    shard.lookups[group_id] = lookup
    return _look_on(shard, lookup)


def _look_on(shard: ShardState, lookup: Lookup) -> Outcome[None]:
    if shard.lookups.get(lookup.group_id) is not lookup:
        return nothing()  # begun by an earlier coordinator in this place
    if not lookup.step():
        shard.after(LOOKUP_PAUSE_MS, lambda later: _look_on(later, lookup))
        return nothing()
    del shard.lookups[lookup.group_id]
    group = shard.groups.get(lookup.group_id)
    if not isinstance(group, ConsumerGroup):
        return nothing()
    return Outcome(None, refresh(group, lookup, shard.topics, shard.wall_ms()))


# -- gone --------------------------------------------------------------------------------------------------------


def _leave(shard: ShardState, request: ConsumerGroupHeartbeatRequest) -> Outcome[Response]:
    group_id, member_id, instance_id = request.group_id, request.member_id, request.instance_id
    group = shard.groups.get(group_id)
    if group is None:
        raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, f"Group {group_id} not found.")
    if not isinstance(group, ConsumerGroup):
        raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, f"Group {group_id} is not a consumer group.")
    response = Response(member_id=member_id, member_epoch=request.member_epoch)
    if instance_id is None:
        member = group.member(member_id)
    else:
        member = check_instance(group.static_member(instance_id), member_id, instance_id)
        if request.member_epoch == STATIC_LEAVE_EPOCH:
            shard.consumer_timers.revoked(group_id, member_id)
            away = replace(
                member,
                member_epoch=STATIC_LEAVE_EPOCH,
                assigned=with_epoch(without_epochs(member.assigned), 0),
                pending_revocation={},
            )
            return Outcome(response, [current_record(group_id, away)])
    return remove_members(shard, group, [member], response, f"{member.member_id} left")
