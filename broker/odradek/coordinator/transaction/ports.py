"""What the transaction coordinator needs of the broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from odradek.coordinator.runtime import Marker
from odradek.coordinator.transaction.state import TopicPartition
from odradek.wire.errors import ErrorCode


class ProducerIds(Protocol):
    """Ids that are unique in the cluster."""

    def next(self, allocated: Callable[[ErrorCode, int], None]) -> None:
        """Call `allocated(error, producer_id)`, at once or later."""
        ...


class Markers(Protocol):
    """The way of an end-of-transaction marker to the leaders of its partitions."""

    def write(
        self,
        marker: Marker,
        partitions: list[TopicPartition],
        done: Callable[[dict[TopicPartition, ErrorCode]], None],
    ) -> None:
        """Try once; `done` once, with what became of each. A partition without an answer counts as one that failed."""
        ...


class TopicPartitions(Protocol):
    """The broker's metadata image."""

    def has_partition(self, name: str, partition: int) -> bool: ...
