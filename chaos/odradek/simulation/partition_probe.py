"""What the invariants ask of a node's partitions. The only place that knows how the broker keeps replication state."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from odradek.broker.partition import Partition


class LeaderView(NamedTuple):
    """What a leader believes of those in sync."""

    leader_epoch: int
    committed: frozenset[int]
    maximal: frozenset[int]
    min_isr: int


def serving_epoch(partition: Partition) -> int:
    """The leader epoch in which this node leads the partition, if only for its followers; -1 if it does not."""
    return partition.leader_epoch if partition.leads else -1


def leader_view(partition: Partition) -> LeaderView | None:
    """None if this node does not lead."""
    leader = partition.replica.leader if partition.replica is not None else None
    if leader is None:
        return None
    isr = leader.isr
    return LeaderView(leader.leader_epoch, isr.committed, isr.maximal, leader.effective_min_isr)
