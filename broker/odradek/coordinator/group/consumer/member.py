"""One member of a consumer group, as its records say. Values: a change is a new object.

STABLE                 has what its target says, at its epoch
UNREVOKED_PARTITIONS   has to give partitions up, and stays at its epoch until it has
UNRELEASED_PARTITIONS  waits, at the target's epoch, for partitions that others have not given up yet
UNKNOWN                a state of a newer Kafka: it has to start anew
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TypeAlias

from odradek.wire.errors import ErrorCode, KafkaError

LEAVE_EPOCH = -1
"""A member epoch that says: gone."""
STATIC_LEAVE_EPOCH = -2
"""A static member that is away and will be back: its partitions wait for it."""

Partitions: TypeAlias = Mapping[bytes, AbstractSet[int]]
"""Topic id to partitions; nothing that is empty. Never changed in place."""
PartitionEpochs: TypeAlias = Mapping[bytes, Mapping[int, int]]
"""Topic id to partition to the member epoch in which it was assigned (KIP-1251). Never changed in place."""
NO_PARTITIONS: PartitionEpochs = {}


class MemberState(IntEnum):
    """The value is that of the record."""

    STABLE = 0
    UNREVOKED_PARTITIONS = 1
    UNRELEASED_PARTITIONS = 2
    UNKNOWN = 127


@dataclass(frozen=True, slots=True)
class ClassicMetadata:
    """What a member of the classic protocol said in its JoinGroup."""

    session_timeout_ms: int
    protocols: tuple[tuple[str, bytes], ...]
    """Name and metadata; the most wanted first."""


@dataclass(frozen=True, slots=True)
class ConsumerMember:
    """See the module. Names are Kafka's."""

    member_id: str
    member_epoch: int = 0
    previous_member_epoch: int = -1
    state: MemberState = MemberState.STABLE
    instance_id: str | None = None
    rack_id: str | None = None
    rebalance_timeout_ms: int = -1
    client_id: str = ""
    client_host: str = ""
    topic_names: frozenset[str] = frozenset()
    """What it subscribed to by name."""
    topic_regex: str = ""
    """What it subscribed to by expression; empty for none."""
    server_assignor: str | None = None
    assigned: PartitionEpochs = field(default_factory=dict)
    pending_revocation: PartitionEpochs = field(default_factory=dict)
    """What it has been told to give up and has not: still its own."""
    classic: ClassicMetadata | None = None
    """Set while it uses the classic protocol."""

    def is_reconciled_to(self, epoch: int) -> bool:
        return self.state is MemberState.STABLE and self.member_epoch == epoch

    def at_epoch(self, epoch: int) -> ConsumerMember:
        """The epoch it had becomes the previous one: a member whose answer was lost may still come with it."""
        return replace(self, member_epoch=epoch, previous_member_epoch=self.member_epoch)

    def owned(self) -> Iterator[tuple[bytes, int]]:
        """Everything it may be consuming: assigned or not given up yet."""
        for partitions in (self.assigned, self.pending_revocation):
            for topic_id, epochs in partitions.items():
                for partition in epochs:
                    yield topic_id, partition

    def check_commit(self, received: int, topic: str, topic_id: bytes, partition: int) -> None:
        """A commit of an older epoch counts for partitions that are its own since then (KIP-1251)."""
        epoch = self.assigned.get(topic_id, {}).get(partition)
        if epoch is None:
            epoch = self.pending_revocation.get(topic_id, {}).get(partition)
        if epoch is None:
            text = f"Partition {topic}-{partition} is not assigned or pending revocation for member."
            raise KafkaError(self.stale_error, text)
        if received < epoch:
            what = "member epoch" if self.classic is None else "generation id"
            raise KafkaError(
                self.stale_error,
                f"Received {what} {received} is older than assignment epoch {epoch} "
                f"for partition {topic}-{partition}.",
            )

    @property
    def stale_error(self) -> ErrorCode:
        """Each protocol has a word of its own for an epoch that is not the current one."""
        return ErrorCode.STALE_MEMBER_EPOCH if self.classic is None else ErrorCode.ILLEGAL_GENERATION


def without_epochs(partitions: PartitionEpochs) -> dict[bytes, frozenset[int]]:
    return {topic_id: frozenset(epochs) for topic_id, epochs in partitions.items()}


def with_epoch(partitions: Partitions, epoch: int) -> dict[bytes, dict[int, int]]:
    return {topic_id: dict.fromkeys(sorted(numbers), epoch) for topic_id, numbers in partitions.items()}
