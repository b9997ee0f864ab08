"""What comes in with a group request beside its body."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

ALL_GROUP_OPERATIONS = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11
"""READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS and ALTER_CONFIGS as a bit field of Kafka's AclOperation codes."""


@dataclass(frozen=True, slots=True)
class GroupContext:
    """Who asks, and in which version of the API."""

    client_id: str
    client_host: str
    """As Kafka writes an address: `/127.0.0.1`."""
    api_version: int
    authorized_operations: int = ALL_GROUP_OPERATIONS
    """What the asker may do with groups, for DescribeGroups; without an authorizer that is everything."""


class TopicResolver(Protocol):
    """What the coordinator has to know of topics: the broker's metadata image."""

    def topic_id(self, name: str) -> bytes | None: ...

    def topic_name(self, topic_id: bytes) -> str | None: ...

    def has_partition(self, name: str, partition: int) -> bool: ...

    def partition_count(self, name: str) -> int:
        """0 if there is no such topic."""
        ...

    def partition_racks(self, name: str) -> list[list[str]]:
        """Of each partition the racks of its replicas' brokers, as far as they have one."""
        ...

    def topic_names(self) -> Iterable[str]: ...

    def metadata_version(self) -> int:
        """The offset of the metadata image."""
        ...
