"""Seeded lives of a cluster (replica_model.py): nobody becomes eligible who lacks acknowledged records. And the
same with the controller's rules broken one at a time: the model must notice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from odradek.controller import brokers, configs, partition_change, partitions, replicas
from odradek.controller.partition_change import PartitionChange
from odradek.metadata.records import RECOVERED
from unit.controller.replica_model import Model, Violation

STEPS = 600
MUTANT_SEEDS_MAX = 100


def test_whoever_is_eligible_has_every_acknowledged_record() -> None:
    counts = Counter[str]()
    for seed in range(60):
        model = Model(seed)
        for number in range(STEPS):
            try:
                model.step()
            except Violation as violation:
                raise AssertionError(f"Model({seed}), step {number}: {violation}") from violation
        counts.update(model.counts)
    for what in (
        "acknowledged",
        "proposal 0",
        "proposal 95",
        "unclean election",
        "reassignment 0",
        "disk lost",
    ):
        assert counts[what] > 20, f"{what} is too rare to prove anything: {counts}"


def unclean_stops_are_overlooked(patch: pytest.MonkeyPatch) -> None:
    original = replicas.without_broker
    patch.setattr(
        replicas,
        "without_broker",
        lambda state, broker_id, unclean=False, lost=None: original(state, broker_id, lost=lost),
    )


def lost_disks_are_overlooked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(replicas, "not_there", lambda broker, online: lambda partition: False)


def replicas_on_a_failed_disk_stay_eligible(patch: pytest.MonkeyPatch) -> None:
    original = replicas.take_out
    patch.setattr(
        replicas, "take_out", lambda change, broker_id, unclean: original(change, broker_id, unclean=False)
    )


def reassignments_end_before_new_replicas_are_in_sync(patch: pytest.MonkeyPatch) -> None:
    def complete(change: PartitionChange) -> None:
        staying = [replica for replica in change.replicas if replica not in change.removing]
        change.isr = tuple(replica for replica in change.isr if replica in staying) or tuple(staying[:1])
        change.replicas, change.adding, change.removing = tuple(staying), (), ()

    patch.setattr(PartitionChange, "_complete_reassignment", complete)


def every_replica_is_eligible(patch: pytest.MonkeyPatch) -> None:
    def fill(change: Any) -> None:
        gone = {*change.isr, *change.unclean_replicas}
        change.elr = tuple(replica for replica in change.replicas if replica not in gone)

    patch.setattr(PartitionChange, "_fill_elr", fill)


def more_must_be_in_sync_than_the_leader_asks_for(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        partition_change,
        "effective_min_isr",
        lambda configured, replicas, adding=0: min(configured + 1, replicas),
    )


def partition_epochs_are_not_compared(patch: pytest.MonkeyPatch) -> None:
    original = partitions._isr_error

    def error(state: Any, broker_id: int, partition: Any, wanted: Any) -> Any:
        if partition is not None:
            wanted.partition_epoch = partition.partition_epoch
        return original(state, broker_id, partition, wanted)

    patch.setattr(partitions, "_isr_error", error)


def every_stop_counts_as_clean(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(brokers, "_is_clean", lambda existing, complete_epoch: True)


def unclean_leaders_pass_for_clean_ones(patch: pytest.MonkeyPatch) -> None:
    original = PartitionChange._install

    def install(change: PartitionChange, leader: int) -> None:
        original(change, leader)
        change.leader_recovery_state = RECOVERED

    patch.setattr(PartitionChange, "_install", install)


def a_smaller_min_isr_leaves_the_elr_as_it_is(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(configs, "_freed_elrs", lambda state, records: [])


@pytest.mark.parametrize(
    "mutate",
    [
        unclean_stops_are_overlooked,
        lost_disks_are_overlooked,
        replicas_on_a_failed_disk_stay_eligible,
        reassignments_end_before_new_replicas_are_in_sync,
        every_replica_is_eligible,
        more_must_be_in_sync_than_the_leader_asks_for,
        partition_epochs_are_not_compared,
        every_stop_counts_as_clean,
        unclean_leaders_pass_for_clean_ones,
        a_smaller_min_isr_leaves_the_elr_as_it_is,
    ],
    ids=lambda mutate: mutate.__name__,
)
def test_the_model_notices(
    mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    for seed in range(MUTANT_SEEDS_MAX):
        model = Model(seed)
        try:
            for _ in range(1_000):
                model.step()
        except (Violation, KeyError):  # KeyError: of a replica that is none
            return
    raise AssertionError(f"not within {MUTANT_SEEDS_MAX} seeds")
