"""One change of one partition: the ISR, the ELR and the leader that follow from each other (KIP-966).

Callers say what they want (`isr`, `unclean_replicas`, `election`, `replicas` …) and `build` gives the
record, or None when nothing changes. What it sees to, in this order:

1. Reassignment (KIP-455): it is completed once every replica that is being added is in sync, and one that
   takes more away than it adds once all that stay are. Then the replicas that go are gone.
2. ELR: while the ISR is below min ISR, what leaves the ISR stays eligible, unless it stopped uncleanly; from
   min ISR on the ELR is empty (M3).
3. Election: the present leader if it may stay, else the first acceptable replica of the ISR, else, with an
   empty ISR, of the ELR; else the last known leader; else, if the topic allows it, any acceptable replica;
   else none. The last two may lose records, so the leader starts RECOVERING and alone in the ISR.
4. Leader epoch: a named leader raises it, and it must also rise when a replica is taken away.

As Kafka's PartitionChangeBuilder with eligible leader replicas on, which here they always are.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TypeVar

from odradek.metadata.image import UNASSIGNED_DIRECTORY, PartitionImage
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


def effective_min_isr(configured: int, replicas: int, adding: int = 0) -> int:
    """How many replicas must be in sync: never more than the partition has; those that a reassignment is
    adding do not count before it is complete, or moving a partition of one replica would stop its writes.

    A leader may ask for more, never for less: what leaves an ISR of this size is not kept eligible.
    """
    return min(configured, replicas - adding)


def _anywhere(_broker_id: int) -> bytes:
    return UNASSIGNED_DIRECTORY


class PartitionChange:
    """Collects what shall become of a partition."""

    def __init__(
        self,
        topic_id: bytes,
        partition_id: int,
        partition: PartitionImage,
        acceptable: Callable[[int], bool],
        min_isr: int,
        default_directory: Callable[[int], bytes] = _anywhere,
    ) -> None:
        """`acceptable` says of a replica whether it may lead now, `min_isr` is as configured, and
        `default_directory` says where a broker puts a new replica.
        """
        self.before = partition
        self.acceptable = acceptable
        self._topic_id = topic_id
        self._partition_id = partition_id
        self._configured_min_isr = min_isr
        self._min_isr = min_isr
        self._default_directory = default_directory
        self._unclean_election = False
        self.election = Election.ONLINE
        self.isr: Ints = partition.isr
        self.elr: Ints = partition.elr
        self.replicas: Ints = partition.replicas
        self.moved: dict[int, bytes] = {}
        """New directories of replicas, by broker."""
        self.adding: Ints = partition.adding
        self.removing: Ints = partition.removing
        self.unclean_replicas: Ints = ()
        """Replicas that stopped without a clean shutdown: no longer eligible."""
        self.leader_recovery_state = partition.leader_recovery_state

    def build(self) -> PartitionChangeRecord | None:
        """The record of the change, None if there is none."""
        before = self.before
        self._complete_reassignment()
        self._min_isr = effective_min_isr(self._configured_min_isr, len(self.replicas), len(self.adding))
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
            directories=_changed(self._directories(), before.directories),
            adding_replicas=_changed(self.adding, before.adding),
            removing_replicas=_changed(self.removing, before.removing),
            elr=_changed(self.elr, before.elr),
            last_known_elr=_changed(self._last_known(leader), before.last_known_elr),
            leader_recovery_state=_changed(self.leader_recovery_state, before.leader_recovery_state),
        )
        return None if record == PartitionChangeRecord(self._topic_id, self._partition_id) else record

    def _complete_reassignment(self) -> None:
        """Let go of the replicas to be removed, if those that stay can take over."""
        adding, removing = set(self.adding), set(self.removing)
        if not adding and not removing:
            return
        isr = tuple(replica for replica in self.isr if replica not in removing)
        replicas = tuple(replica for replica in self.replicas if replica not in removing)
        if not isr or not adding <= set(isr):
            return
        if len(adding) < len(removing) and not set(replicas) <= set(isr):
            return
        self.isr, self.replicas, self.adding, self.removing = isr, replicas, (), ()

    def _directories(self) -> Uuids:
        before = self.before
        if self.replicas == before.replicas and not self.moved:
            return before.directories
        return tuple(map(self._directory, self.replicas))

    def _directory(self, broker_id: int) -> bytes:
        if broker_id in self.moved:
            return self.moved[broker_id]
        known = broker_id in self.before.replicas
        return self.before.directory(broker_id) if known else self._default_directory(broker_id)

    def _fill_elr(self) -> None:
        if len(self.isr) >= self._min_isr:
            self.elr = ()
            return
        candidates = self.elr + tuple(replica for replica in self.before.isr if replica not in self.elr)
        gone = {*self.isr, *self.unclean_replicas}
        self.elr = tuple(each for each in candidates if each not in gone and each in self.replicas)

    def _elect(self) -> int:
        before = self.before
        first = self.replicas[0]
        if self.election is Election.PREFERRED and self._may_lead(first):
            return first
        for replica in (before.leader, *self.replicas):
            if self._may_lead(replica):
                return replica
        if not self.isr and not self.elr and len(before.last_known_elr) == 1:
            last = before.last_known_elr[0]
            if last in self.replicas and self.acceptable(last):
                self._unclean_election = True
                return last
        if self.election is Election.UNCLEAN:
            for replica in self.replicas:
                if self.acceptable(replica):
                    self._unclean_election = True
                    return replica
        return NO_LEADER

    def _may_lead(self, replica: int) -> bool:
        eligible = replica in self.isr or (not self.isr and replica in self.elr)
        return eligible and self.acceptable(replica)

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
        before = self.before
        if leader != NO_LEADER:
            return ()
        lost_now = before.leader != NO_LEADER and not self.isr
        last = (before.leader,) if lost_now else before.last_known_elr
        return tuple(replica for replica in last if replica in self.replicas)


def _changed(after: T, before: T) -> T | None:
    return None if after == before else after
