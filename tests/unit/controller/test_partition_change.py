"""Who leads, who is in sync, who stays eligible: the cases of KIP-966, each as Kafka decides it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from odradek.controller.partition_change import Election, PartitionChange
from odradek.metadata.delta import merge
from odradek.metadata.image import PartitionImage
from odradek.metadata.records import NO_LEADER, NO_LEADER_CHANGE, RECOVERED, RECOVERING

ID = bytes(16)


def partition(**fields: Any) -> PartitionImage:
    return PartitionImage(**({"replicas": (1, 2, 3), "isr": (1, 2, 3), "leader": 1} | fields))


def change(
    before: PartitionImage, active: tuple[int, ...], min_isr: int = 2, **wishes: Any
) -> PartitionImage:
    """The partition after a change with these brokers active; `before` itself if nothing changes."""
    builder = PartitionChange(ID, 0, before, active.__contains__, min_isr)
    for name, value in wishes.items():
        setattr(builder, name, value)
    record = builder.build()
    return before if record is None else merge(before, record)


def test_nothing_changes_while_the_leader_may_stay() -> None:
    before = partition(leader=2)
    assert change(before, (1, 2, 3)) is before


def test_a_follower_that_goes_leaves_the_isr_and_the_leader_stays() -> None:
    after = change(partition(), (1, 3), isr=(1, 3))
    assert (after.leader, after.leader_epoch, after.isr, after.elr) == (1, 0, (1, 3), ())
    assert after.partition_epoch == 1


def test_the_next_replica_of_the_isr_leads_when_the_leader_goes() -> None:
    after = change(partition(replicas=(1, 3, 2)), (2, 3), isr=(2, 3))
    assert (after.leader, after.leader_epoch) == (3, 1)


def test_what_leaves_the_isr_below_min_isr_stays_eligible() -> None:
    after = change(partition(isr=(1, 2)), (1,), isr=(1,))
    assert (after.leader, after.isr, after.elr) == (1, (1,), (2,))
    later = change(after, (), isr=())
    assert (later.leader, later.isr, later.elr, later.last_known_elr) == (NO_LEADER, (), (2, 1), (1,))


def test_what_stopped_uncleanly_is_not_eligible() -> None:
    before = partition(isr=(1,), elr=(2,))
    after = change(before, (1,), isr=(1,), unclean_replicas=(2,))
    assert (after.isr, after.elr) == ((1,), ())
    after = change(before, (), isr=(), unclean_replicas=(1,))
    assert (after.isr, after.elr, after.last_known_elr) == ((), (2,), (1,))


def test_an_eligible_replica_leads_when_the_isr_is_empty() -> None:
    before = partition(isr=(), elr=(2, 3), leader=NO_LEADER, last_known_elr=(1,))
    after = change(before, (3,))
    assert (after.leader, after.isr, after.elr, after.last_known_elr) == (3, (3,), (2,), ())
    assert after.leader_recovery_state == RECOVERED


def test_an_eligible_replica_does_not_lead_beside_an_isr() -> None:
    before = partition(isr=(1,), elr=(2,), leader=NO_LEADER)
    assert change(before, (2,)) is before


def test_an_isr_of_min_isr_needs_no_eligible_replicas() -> None:
    assert change(partition(isr=(1,), elr=(2, 3)), (1, 2, 3), isr=(1, 2)).elr == ()
    before = partition(isr=(), elr=(2, 3), leader=NO_LEADER)
    assert change(before, (3,), min_isr=1).elr == ()


def test_the_last_known_leader_leads_when_nobody_is_eligible_and_has_to_recover() -> None:
    before = partition(isr=(), elr=(), leader=NO_LEADER, last_known_elr=(2,))
    assert change(before, (1, 3)) is before
    after = change(before, (1, 2, 3))
    assert (after.leader, after.isr, after.last_known_elr) == (2, (2,), ())
    assert after.leader_recovery_state == RECOVERING


def test_an_unclean_election_takes_any_replica_that_is_there() -> None:
    before = partition(isr=(), elr=(1,), leader=NO_LEADER)
    assert change(before, (3,)) is before
    after = change(before, (3,), election=Election.UNCLEAN)
    assert (after.leader, after.isr, after.elr, after.leader_recovery_state) == (3, (3,), (), RECOVERING)


def test_an_unclean_election_prefers_the_isr() -> None:
    after = change(partition(leader=NO_LEADER, isr=(2,)), (1, 2, 3), election=Election.UNCLEAN)
    assert (after.leader, after.leader_recovery_state) == (2, RECOVERED)


def test_the_preferred_replica_leads_if_it_is_in_sync() -> None:
    after = change(partition(leader=2), (1, 2, 3), election=Election.PREFERRED)
    assert (after.leader, after.leader_epoch) == (1, 1)
    before = partition(leader=2, isr=(2, 3))
    assert change(before, (1, 2, 3), election=Election.PREFERRED) is before


def test_losing_a_replica_raises_the_leader_epoch_though_the_leader_stays() -> None:
    after = change(partition(), (1, 2), replicas=(1, 2), isr=(1, 2))
    assert (after.leader, after.leader_epoch) == (1, 1)
    assert change(partition(), (1, 2, 3), adding=(4,)).leader_epoch == 0


def test_an_unchanged_leader_is_not_in_the_record() -> None:
    record = PartitionChange(ID, 0, partition(), (1, 2).__contains__, 2)
    record.isr = (1, 2)
    built = record.build()
    assert built is not None
    assert (built.leader, built.isr, built.elr) == (NO_LEADER_CHANGE, (1, 2), None)


SUBSETS = st.sets(st.integers(1, 4)).map(lambda some: tuple(sorted(some)))


@st.composite
def valid_partitions(draw: st.DrawFn) -> tuple[PartitionImage, int]:
    replicas = draw(st.permutations([1, 2, 3, 4]).map(tuple))
    min_isr = draw(st.integers(1, 4))
    isr = draw(SUBSETS)
    elr = () if len(isr) >= min_isr else tuple(set(draw(SUBSETS)) - set(isr))
    leader = draw(st.sampled_from((NO_LEADER, *isr)))
    last = (draw(st.integers(1, 4)),) if leader == NO_LEADER and draw(st.booleans()) else ()
    return PartitionImage(replicas, isr, leader, 5, 9, elr, last), min_isr


@given(valid_partitions(), SUBSETS, SUBSETS, SUBSETS, st.sampled_from(Election))
def test_whatever_is_asked_the_partition_stays_valid(
    given_: tuple[PartitionImage, int],
    active: tuple[int, ...],
    leaving: tuple[int, ...],
    unclean: tuple[int, ...],
    election: Election,
) -> None:
    before, min_isr = given_
    isr = tuple(replica for replica in before.isr if replica not in leaving + unclean)
    gone = {*leaving, *unclean}
    alive = tuple(replica for replica in active if replica not in gone)
    after = change(before, alive, min_isr, isr=isr, unclean_replicas=unclean, election=election)
    assert not set(after.isr) & set(after.elr)
    assert len(after.isr) < min_isr or not after.elr
    assert after.leader == NO_LEADER or (after.leader in after.isr and after.leader in alive)
    assert not set(unclean) & {*after.isr, *after.elr}
    unclean_leader = after.leader_recovery_state == RECOVERING
    assert unclean_leader or {*after.isr, *after.elr} <= {*before.isr, *before.elr}
    if after != before:
        assert after.partition_epoch == before.partition_epoch + 1
        assert after.leader_epoch == before.leader_epoch + (after.leader != before.leader)
