"""The tester proves itself: each broken version of the product is caught within a bounded number of seeds."""

from __future__ import annotations

import pytest

from odradek.simulation.mutants import MUTANTS, applied
from odradek.simulation.runner import run_seed

pytestmark = pytest.mark.timeout(1_200)
"""Seeds that take a minute alone take many on a busy machine."""

SEEDS_MAX = 200
"""A mutant that shows in one seed of fifty is caught though a change of the product has moved all of them."""
LIKELY = {
    "isr-instead-of-maximal": 2,
    "no-epoch-start": 3,
    "not-fetched-in-this-epoch": 49,
    "roll-back-on-timeout": 2,
    "high-watermark-before-divergence": 14,
    "boot-id-ignored": 10,
    "ex-leader-resumes": 14,
    "answer-after-failed-append": 3,
    "snapshot-without-older-batches": 3,
    "voter-by-id": 7,
    "two-voter-changes": 3,
    "aborted-offsets-stay": 2,
    "any-marker": 1,
    "nobody-verifies": 7,
    "any-generation-commits": 2,
    "any-member-epoch-commits": 8,
    "tombstones-at-once": 2,
}
"""Where to look first. A change of the product moves such seeds; then the others are tried."""


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str) -> None:
    first = LIKELY.get(name, 1)
    seeds = [first, *(seed for seed in range(1, SEEDS_MAX + 1) if seed != first)]
    for seed in seeds:
        if run_seed(seed, MUTANTS[name].scenario, mutant=name).violation is not None:
            return
    pytest.fail(f"{name} survived {SEEDS_MAX} seeds of {MUTANTS[name].scenario}")


def test_a_mutant_is_gone_after_its_run() -> None:
    for name, mutant in MUTANTS.items():
        before = [getattr(target, attribute) for target, attribute, _ in mutant.patches()]
        with applied(name):
            pass
        assert before == [getattr(target, attribute) for target, attribute, _ in mutant.patches()], name
