"""What classic members say inside of JoinGroup and SyncGroup: Kafka's consumer protocol of old.

A version (int16), then the message in that version; one newer than all known is read as the newest known.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from odradek.coordinator.group.consumer.member import Partitions
from odradek.coordinator.group.consumer.reconcile import OwnedPartitions
from odradek.coordinator.group.consumer.topics import TopicCatalog
from odradek.wire.errors import MalformedMessage
from odradek.wire.messages.consumer_protocol_assignment import ConsumerProtocolAssignment, TopicPartition
from odradek.wire.messages.consumer_protocol_subscription import ConsumerProtocolSubscription


def version_of(data: bytes) -> int:
    """MalformedMessage."""
    if len(data) < 2:
        raise MalformedMessage("the consumer protocol begins with a version")
    version = int.from_bytes(data[:2], "big", signed=True)
    if version < 0:
        raise MalformedMessage(f"version {version} of the consumer protocol")
    return version


def read_subscription(data: bytes) -> ConsumerProtocolSubscription:
    """MalformedMessage."""
    version = min(version_of(data), ConsumerProtocolSubscription.MAX_VERSION)
    return ConsumerProtocolSubscription.decode(data, version, 2)


def read_assignment(data: bytes) -> ConsumerProtocolAssignment:
    """MalformedMessage."""
    version = min(version_of(data), ConsumerProtocolAssignment.MAX_VERSION)
    return ConsumerProtocolAssignment.decode(data, version, 2)


def owned_partitions(subscription: ConsumerProtocolSubscription, topics: TopicCatalog) -> OwnedPartitions:
    """What the member says it has, of topics that exist."""
    named = ((topics.id_of(topic.topic), topic.partitions) for topic in subscription.owned_partitions)
    return [(topic_id, partitions) for topic_id, partitions in named if topic_id is not None]


def assigned_partitions(assignment: ConsumerProtocolAssignment, topics: TopicCatalog) -> Partitions:
    result: dict[bytes, frozenset[int]] = {}
    for topic in assignment.assigned_partitions:
        topic_id = topics.id_of(topic.topic)
        if topic_id is not None and topic.partitions:
            result[topic_id] = frozenset(topic.partitions)
    return result


def write_assignment(
    partitions: Mapping[bytes, AbstractSet[int]], topics: TopicCatalog, metadata: bytes
) -> bytes:
    """In the version in which the member itself speaks (`metadata`). MalformedMessage."""
    version = min(version_of(metadata), ConsumerProtocolAssignment.MAX_VERSION)
    named = ((topics.name_of(topic_id), sorted(numbers)) for topic_id, numbers in partitions.items())
    body = ConsumerProtocolAssignment(
        [TopicPartition(name, numbers) for name, numbers in named if name is not None]
    )
    return version.to_bytes(2, "big") + body.encode(version)
