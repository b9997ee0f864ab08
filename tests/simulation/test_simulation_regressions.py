"""Seeds that once found something. What they meet moves with the product: each cure has a test of its own as well."""

from __future__ import annotations

import pytest

from odradek.simulation.cluster import Cluster
from odradek.simulation.runner import run_seed
from odradek.simulation.scenario import SCENARIOS

pytestmark = pytest.mark.timeout(1_200)
"""Seeds that take a minute alone take many on a busy machine."""

FOUND = [
    ("three-all", 190, "the simulator started a node again that had stopped at the end"),
    ("three-crashes", 128, "a broker that stopped before it was registered forgot that it was complete (P2)"),
    ("three-groups", 149, "the same, killed (P2)"),
    ("three-groups", 152, "the same, killed (P2)"),
    (
        "isr-violent",
        141,
        "a registration and a smaller ISR in one step: the high watermark moved between them (P5)",
    ),
    ("isr-violent", 148, "an old, unexplained P5, most likely that one"),
    ("isr-any", 148, "the same"),
    (
        "disks",
        5,
        "the controller took a replaced disk for gone ever after: no leader after the next kill -9 (A1)",
    ),
    ("disks", 296, "a lost index behind damage kept a node from starting (crash)"),
    ("disks", 307, "the simulator relied on other partitions of a broker that had found damage in one (P2)"),
    (
        "one-disk",
        317,
        "the simulator did not see what a node had done in the event in which it gave up (lost-write)",
    ),
    (
        "transactions",
        349,
        "a Prepare record whose fate was unknown blocked its transactional id for ever (T5)",
    ),
    ("transactions", 348, "the simulator stopped a client while its commit was under way (T6)"),
    (
        "three-all",
        345,
        "the simulator did not expect that the first batch of a producer may be overtaken (I1)",
    ),
    ("three-all", 11, "a write that kill -9 cut short cost a broker its standing (P2)"),
    ("voters", 360, "the simulator took a voter's disk while a removal was on its way (A1)"),
    ("disks", 502, "the simulator replayed a log in which a bit had flipped (crash)"),
    (
        "three-all",
        17,
        "the simulator did not know what a leader committed in the event in which its disk failed (R5)",
    ),
    ("three-all", 601, "the simulator believed the Raft core of a node whose disk had just failed (R3)"),
    ("disks", 15, "the same, in a controlled shutdown (A1)"),
]


@pytest.mark.parametrize(("scenario", "seed"), [(scenario, seed) for scenario, seed, _ in FOUND])
def test_what_was_found_once_is_not_found_again(scenario: str, seed: int) -> None:
    result = run_seed(seed, scenario)
    assert result.violation is None, "\n".join((*result.last_steps, "", result.violation))


def test_nobody_starts_a_node_while_all_of_them_stop() -> None:
    """three-all 190: what restarts a node that a failing disk has stopped came after the end."""
    cluster = Cluster(1, SCENARIOS["three-crashes"])
    machine = cluster.machines[1]
    cluster.ending = True
    machine.start()
    assert machine.process is None and machine.lives == 0
