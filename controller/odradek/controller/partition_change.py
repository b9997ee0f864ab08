"""One change of one partition: the ISR, the ELR and the leader that follow from each other (KIP-966).

Callers say what they want (`isr`, `unclean_replicas`, `election`, `replicas` …) and `build` gives the
record, or None when nothing changes. What it sees to, in this order:

1. ELR: while the ISR is below min ISR, what leaves the ISR stays eligible, unless it stopped uncleanly; from
   min ISR on the ELR is empty (M3).
2. Election: the present leader if it may stay, else the first acceptable replica of the ISR, else, with an
   empty ISR, of the ELR; else the last known leader; else, if the topic allows it, any acceptable replica;
   else none. The last two may lose records, so the leader starts RECOVERING and alone in the ISR.
3. Leader epoch: a named leader raises it, and it must also rise when a replica is taken away.

As Kafka's PartitionChangeBuilder with eligible leader replicas on, which here they always are.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TypeVar

from odradek.metadata.image import PartitionImage
from odradek.metadata.records import (
    NO_LEADER,
    NO_LEADER_CHANGE,
    RECOVERING,
    Ints,
    PartitionChangeRecord,
    Uuids,
)

T = TypeVar("T")


class Election(Enum):
    ONLINE = "online"
    """Keep the leader if it may stay."""
    PREFERRED = "preferred"
    """Rather the first replica than the present leader."""
    UNCLEAN = "unclean"
    """Rather any replica than none."""


class PartitionChange:
    """Collects what shall become of a partition. `acceptable` says of a replica whether it may lead now."""

    def __init__(
        self,
        topic_id: bytes,
        partition_id: int,
        partition: PartitionImage,
        acceptable: Callable[[int], bool],
        min_isr: int,
    ) -> None:
        self._topic_id = topic_id
        self._partition_id = partition_id
        self._before = partition
        self._acceptable = acceptable
        self._min_isr = min_isr
        self._unclean_election = False
        self.election = Election.ONLINE
        self.isr: Ints = partition.isr
        self.elr: Ints = partition.elr
        self.replicas: Ints = partition.replicas
        self.directories: Uuids = partition.directories
        self.adding: Ints = partition.adding
        self.removing: Ints = partition.removing
        self.unclean_replicas: Ints = ()
        """Replicas that stopped without a clean shutdown: no longer eligible."""
        self.leader_recovery_state = partition.leader_recovery_state

    def build(self) -> PartitionChangeRecord | None:
        """The record of the change, None if there is none."""
        before = self._before
        self._fill_elr()
        leader = self._elect()
        if leader != before.leader:
            self._install(leader)
        if len(self.isr) >= self._min_isr:
            self.elr = ()
        elects = leader != before.leader or not set(before.replicas) <= set(self.replicas)
        record = PartitionChangeRecord(
            self._topic_id,
            self._partition_id,
            leader=leader if elects else NO_LEADER_CHANGE,
            isr=_changed(self.isr, before.isr),
            replicas=_changed(self.replicas, before.replicas),
            directories=_changed(self.directories, before.directories),
            adding_replicas=_changed(self.adding, before.adding),
            removing_replicas=_changed(self.removing, before.removing),
            elr=_changed(self.elr, before.elr),
            last_known_elr=_changed(self._last_known(leader), before.last_known_elr),
            leader_recovery_state=_changed(self.leader_recovery_state, before.leader_recovery_state),
        )
        return None if record == PartitionChangeRecord(self._topic_id, self._partition_id) else record

    def _fill_elr(self) -> None:
        if len(self.isr) >= self._min_isr:
            self.elr = ()
            return
        candidates = self.elr + tuple(replica for replica in self._before.isr if replica not in self.elr)
        gone = {*self.isr, *self.unclean_replicas}
        self.elr = tuple(each for each in candidates if each not in gone and each in self.replicas)

    def _elect(self) -> int:
        before = self._before
        first = self.replicas[0]
        if self.election is Election.PREFERRED and self._may_lead(first):
            return first
        for replica in (before.leader, *self.replicas):
            if self._may_lead(replica):
                return replica
        if not self.isr and not self.elr and len(before.last_known_elr) == 1:
            last = before.last_known_elr[0]
            if last in self.replicas and self._acceptable(last):
                self._unclean_election = True
                return last
        if self.election is Election.UNCLEAN:
            for replica in self.replicas:
                if self._acceptable(replica):
                    self._unclean_election = True
                    return replica
        return NO_LEADER

    def _may_lead(self, replica: int) -> bool:
        eligible = replica in self.isr or (not self.isr and replica in self.elr)
        return eligible and self._acceptable(replica)

    def _install(self, leader: int) -> None:
        """A new leader that was not in the ISR is the whole ISR."""
        if self._unclean_election:
            self.isr, self.elr = (leader,), ()
            self.leader_recovery_state = RECOVERING
        elif leader in self.elr:
            self.isr = (leader,)
            self.elr = tuple(replica for replica in self.elr if replica != leader)

    def _last_known(self, leader: int) -> Ints:
        """The leader that the partition lost together with its ISR; nothing while there is a leader."""
        before = self._before
        if leader != NO_LEADER:
            return ()
        if before.leader != NO_LEADER and not self.isr:
            return (before.leader,)
        return before.last_known_elr


def _changed(after: T, before: T) -> T | None:
    return None if after == before else after
