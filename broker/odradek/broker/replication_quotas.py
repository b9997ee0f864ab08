"""Replication quotas (KIP-73): from configurations to what replication goes by.

    leader.replication.throttled.rate, follower.replication.throttled.rate            brokers: bytes a second
    leader.replication.throttled.replicas, follower.replication.throttled.replicas    topics: partition:broker,... or *

The rates are dynamic configurations only, of the broker or the default of all, as in Kafka. Replicas in the ISR are
never throttled: a quota would otherwise stop producers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from odradek.metadata.image import BROKER_RESOURCE, TOPIC_RESOURCE
from odradek.replication.throttle import UNLIMITED, ReplicationQuota

Configs = Mapping[tuple[int, str], Mapping[str, str]]
ALL = "*"


class ThrottledReplicas:
    """The replicas of this broker that topics list; contains (topic, partition)."""

    def __init__(self, node_id: int) -> None:
        self._node_id = node_id
        self._listed: dict[str, frozenset[int] | None] = {}
        """Partitions by topic; None: all."""

    def __contains__(self, key: object) -> bool:
        assert isinstance(key, tuple)
        topic, partition = key
        if topic not in self._listed:
            return False
        listed = self._listed[topic]
        return listed is None or partition in listed

    def update(self, topic: str, value: str | None) -> None:
        """`value` was checked by the controller."""
        self._listed.pop(topic, None)
        if not value:
            return
        if value.strip() == ALL:
            self._listed[topic] = None
            return
        pairs = (each.strip().split(":") for each in value.split(","))
        mine = frozenset(int(partition) for partition, broker in pairs if int(broker) == self._node_id)
        if mine:
            self._listed[topic] = mine


class ReplicationQuotas:
    """Told of changed configurations."""

    def __init__(self, node_id: int, leader: ReplicationQuota, follower: ReplicationQuota) -> None:
        self._node_id = node_id
        self._directions = [
            (name, quota, ThrottledReplicas(node_id))
            for name, quota in (("leader", leader), ("follower", follower))
        ]

    def configs_changed(self, changed: Collection[tuple[int, str]], configs: Configs, now_ms: int) -> None:
        """`changed`: (resource type, name)."""
        if not changed:
            return
        topics = [name for kind, name in changed if kind == TOPIC_RESOURCE]
        for direction, quota, throttled in self._directions:
            for topic in topics:
                listed = configs.get((TOPIC_RESOURCE, topic), {})
                throttled.update(topic, listed.get(f"{direction}.replication.throttled.replicas"))
            rate = self._rate(f"{direction}.replication.throttled.rate", configs)
            quota.configure(rate, throttled, now_ms)

    def alter_log_dirs_rate(self, configs: Configs) -> int:
        """Bytes a second that moves between log directories may copy (KIP-113)."""
        return self._rate("replica.alter.log.dirs.io.max.bytes.per.second", configs)

    def _rate(self, name: str, configs: Configs) -> int:
        for resource in (str(self._node_id), ""):
            value = configs.get((BROKER_RESOURCE, resource), {}).get(name)
            if value is not None:
                return max(1, int(value))
        return UNLIMITED
