"""Whole clusters of the core under seeds: R1 to R8 after every step, progress afterwards, and mutants that
must be caught.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from odradek.raft.core import RaftCore, State
from odradek.raft.effects import Effect, LogRange, SendMessage, SnapshotRange
from odradek.raft.log_index import OffsetAndEpoch
from odradek.raft.messages import Message, VoteRequest
from odradek.raft.testing.invariants import InvariantViolation
from odradek.raft.testing.simulation import Cluster
from odradek.raft.voters import ReplicaKey

SHAPES = ((3, 0), (5, 0), (3, 1), (3, 2), (1, 1), (2, 0))
"""(voters, observers); voter changes make every other size of them."""
SEEDS = 50
MUTANT_SEEDS_MAX = 300


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}-voters-{shape[1]}-observers")
def test_no_seed_breaks_an_invariant_and_every_cluster_recovers(shape: tuple[int, int]) -> None:
    for seed in range(SEEDS):
        try:
            Cluster(seed, *shape).run()
        except InvariantViolation as violation:
            pytest.fail(f"seed {seed}, shape {shape}: {violation}")


def test_the_simulation_reaches_the_rare_branches() -> None:
    reached: dict[str, int] = {}
    for seed in range(60):
        cluster = Cluster(seed, 3, 2)
        cluster.run()
        for what, times in cluster.coverage.items():
            reached[what] = reached.get(what, 0) + times
    rare = (
        "crash-while-writing",
        "snapshot",
        "installed",
        "LostLeadership",
        "VoterChangeEnded",
        "truncated",
        "refused",
    )
    assert {what: reached.get(what, 0) > 3 for what in rare} == dict.fromkeys(rare, True), reached


def test_a_seed_replays_exactly() -> None:
    first, second = Cluster(7, 3, 1), Cluster(7, 3, 1)
    first.run()
    second.run()
    assert first.trace() == second.trace()


def test_a_seed_replays_exactly_in_another_process_with_other_string_hashes() -> None:
    program = (
        "from odradek.raft.testing.simulation import Cluster\n"
        "cluster = Cluster(7, 3, 1); cluster.run(); print(cluster.trace())"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    traces = [
        subprocess.run(
            [sys.executable, "-c", program],
            env=environment | {"PYTHONHASHSEED": str(hash_seed)},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for hash_seed in (1, 2)
    ]
    assert traces[0] == traces[1]


# ---- mutants: cores that break one rule


class SkipsVoteFsync(RaftCore):
    """Sends, and counts its own vote, before the vote file is durable."""

    @property
    def _vote_is_durable(self) -> bool:
        return True

    def _send(self, to: ReplicaKey, message: Message, read: LogRange | SnapshotRange | None = None) -> None:
        self._out.append(SendMessage(to, message, 0, read))


class CountsUnsyncedEnd(RaftCore):
    """As leader counts its own end before it is fsynced."""

    def _update_high_watermark(self, now_ms: int) -> None:
        synced = self.log.synced_end
        self.log.synced_end = self.log.end_offset
        super()._update_high_watermark(now_ms)
        self.log.synced_end = synced


class CommitsEntriesOfOtherEpochs(RaftCore):
    """Exposes what a majority holds before an entry of its own epoch is among it (figure 8 of the Raft
    paper).
    """

    def _update_high_watermark(self, now_ms: int) -> None:
        assert self.leader is not None
        epoch_start, self.leader.epoch_start = self.leader.epoch_start, -1
        super()._update_high_watermark(now_ms)
        if self.leader is not None:
            self.leader.epoch_start = epoch_start


class FollowerFetchesBeforeFsync(RaftCore):
    """Acknowledges what it has not fsynced."""

    def _may_fetch(self) -> bool:
        return not self._fetcher.is_waiting and not self._fetcher.is_installing


class VotesForShorterLogs(RaftCore):
    """Grants without comparing logs."""

    def _grants(self, request: VoteRequest) -> bool:
        return super()._grants(replace(request, last=OffsetAndEpoch(1 << 40, 1 << 30)))


class ResumesLeadership(RaftCore):
    """A restarted leader or candidate carries on in its epoch."""

    def start(self, now_ms: int) -> list[Effect]:
        if self.voted != self.me or self.is_only_voter:
            return super().start(now_ms)
        self.state, self.leader_id = State.CANDIDATE, -1
        self._begin_round(now_ms)
        self._count_own_ballot(now_ms)
        return self._finish(now_ms)


MUTANTS = (
    (SkipsVoteFsync, "R4|R1"),
    (CountsUnsyncedEnd, "R5"),
    (CommitsEntriesOfOtherEpochs, "R5|R3"),
    (FollowerFetchesBeforeFsync, "R5|R3"),
    (VotesForShorterLogs, "R3"),
    (ResumesLeadership, "R1|R2|R3"),
)


@pytest.mark.parametrize(("mutant", "broken"), MUTANTS, ids=lambda item: getattr(item, "__name__", item))
def test_the_simulation_catches(mutant: type[RaftCore], broken: str) -> None:
    for seed in range(MUTANT_SEEDS_MAX):
        try:
            Cluster(seed, 3, core_class=mutant).run()
        except InvariantViolation as violation:
            if str(violation).split(":")[0] in broken.split("|"):
                return
    pytest.fail(f"{mutant.__name__} survived {MUTANT_SEEDS_MAX} seeds")
