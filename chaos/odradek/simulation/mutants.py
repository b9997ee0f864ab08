"""Deliberately broken versions of the product, each by its name: the simulator has to catch every one.

First those of CORRECTNESS.md; the others break what else is promised: of one node, of voters that come and go, of
transactions, of groups. A mutant replaces functions for the time of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from odradek.broker.coordinator_log import CoordinatorLog
from odradek.broker.log_compaction import LogCompaction
from odradek.broker.node import Node
from odradek.broker.txn_verification import Support, TxnVerification
from odradek.coordinator.group import offsets
from odradek.coordinator.group.classic.group import ClassicGroup
from odradek.coordinator.group.consumer.group import ConsumerGroup
from odradek.coordinator.group.shard import GroupShard
from odradek.raft.core import RaftCore, State
from odradek.raft.effects import RemoveVoter
from odradek.raft.log_core import LogCore
from odradek.raft.metadata_log import MetadataLog
from odradek.raft.quorum_state import FILE_NAME
from odradek.raft.voters import Voter
from odradek.replication.driver import ReplicationDriver
from odradek.replication.follower import FollowerState
from odradek.replication.isr import IsrState
from odradek.replication.leader import LeaderState
from odradek.storage import checkpoints, cleaner, layout, recovery
from odradek.storage.cleaner import CleaningJob, Outcome
from odradek.storage.data_dir import DataDir
from odradek.storage.log import Log
from odradek.storage.memory_disk import MemoryFile
from odradek.storage.producers import ProducerEntry, ProducerStates
from odradek.storage.reads import LogReads
from odradek.storage.state import LogState
from odradek.wire.errors import ErrorCode, KafkaError

Patch = tuple[Any, str, Any]


@dataclass(frozen=True, slots=True)
class Mutant:
    """What it breaks, how, and the scenario that has to show it."""

    about: str
    patches: Callable[[], list[Patch]]
    scenario: str


def _isr_instead_of_maximal() -> list[Patch]:
    return [(LeaderState, "_maximal", lambda self: self.isr.committed)]


def _no_epoch_start() -> list[Patch]:
    return [
        (LeaderState, "_may_grow", lambda self: True),
        (LeaderState, "_growth_floor", lambda self: self.high_watermark),
    ]


def _not_fetched_in_this_epoch() -> list[Patch]:
    leave, serve = ReplicationDriver._leave, ReplicationDriver._serve
    remembered: dict[Any, Any] = {}

    def remember(self: Any, replica: Any) -> None:
        if replica.leader is not None:
            remembered[replica] = replica.leader.followers
        leave(self, replica)

    def carry_over(self: Any, replica: Any, start: int) -> None:
        serve(self, replica, start)
        followers = replica.leader.followers
        for broker_id, progress in remembered.get(replica, {}).items():
            if broker_id in followers:
                followers[broker_id] = progress

    return [(ReplicationDriver, "_leave", remember), (ReplicationDriver, "_serve", carry_over)]


def _no_broker_epoch() -> list[Patch]:
    def eligible(self: Any, progress: Any) -> bool:
        peer = self._peers.get(progress.id)
        return peer is not None and peer.active

    return [(LeaderState, "_is_eligible", eligible), (LeaderState, "_broker_epochs", lambda self: {})]


def _roll_back_on_timeout() -> list[Patch]:
    refused = IsrState.refused

    def hasty(self: Any, proposal: Any, error: ErrorCode | None, now_ms: int) -> bool:
        if proposal is self.proposal and error is None:
            self._reset(self.committed)
            return True
        return refused(self, proposal, error, now_ms)

    return [(IsrState, "refused", hasty)]


def _under_min_isr() -> list[Patch]:
    return [(LeaderState, "_has_min_isr", lambda self: True)]


def _high_watermark_before_divergence() -> list[Patch]:
    decide = FollowerState.decide

    def early(self: Any, data: Any, log: Any, now_ms: int) -> Any:
        if data.generation == self.generation and data.error is ErrorCode.NONE:
            self.high_watermark = max(self.high_watermark, min(data.high_watermark, log.log_end_offset))
        return decide(self, data, log, now_ms)

    return [(FollowerState, "decide", early), (FollowerState, "truncated", lambda self, log_end: None)]


def _vote_without_fsync() -> list[Patch]:
    def write(self: Any, state: Any) -> None:
        path = f"{self._dir}/{FILE_NAME}"
        file = self._disk.open(path + ".tmp", create=True)
        file.truncate(0)
        file.append([state.encode()])
        file.sync()
        self._disk.rename(path + ".tmp", path)  # and the directory is not synced

    return [(MetadataLog, "write_quorum_state", write)]


def _ex_leader_resumes() -> list[Patch]:
    start = RaftCore.start

    def resume(self: Any, now_ms: int) -> Any:
        if self.voted != self.me or self.is_only_voter:
            return start(self, now_ms)
        self.state, self.leader_id = State.CANDIDATE, -1
        self._begin_round(now_ms)
        self._count_own_ballot(now_ms)
        return self._finish(now_ms)

    return [(RaftCore, "start", resume)]


def _acknowledge_before_fsync() -> list[Patch]:
    sound = Log.sync

    def sync(self: Any, syncer: Any, done: Callable[[OSError | None], None]) -> None:
        if self.topic == "__cluster_metadata":
            sound(self, syncer, done)
        else:
            self.write_staged()
            syncer.run(lambda: None, done)

    return [(Log, "sync", sync)]


def _answer_after_failed_append() -> list[Patch]:
    flush = Node.flush

    def careless(self: Any) -> bool:
        flush(self)
        return True

    return [(Node, "flush", careless)]


def _forget_sequences() -> list[Patch]:
    return [
        (ProducerEntry, "duplicate_of", lambda self, header: None),
        (ProducerEntry, "check", lambda self, header, where, sequences=True: None),
    ]


def _snapshot_without_older_batches() -> list[Patch]:
    load = ProducerStates.load_snapshot

    def shorten(self: Any, data: bytes) -> None:
        load(self, data)
        for entry in self.entries.values():
            del entry.batches[:-1]

    return [(ProducerStates, "load_snapshot", shorten)]


def _boot_id_ignored() -> list[Patch]:
    def read(self: Any, _boot_id: str) -> None:
        path = f"{self.path}/{layout.REGISTRATION}"
        if self._disk.exists(path):
            self.broker_epoch = checkpoints.parse_registration(self._disk.read_file(path).decode())[1]

    def note(self: Any, boot_id: str, broker_epoch: int) -> None:
        text = checkpoints.render_registration(boot_id, broker_epoch)
        self._disk.write_file_atomic(f"{self.path}/{layout.REGISTRATION}", text.encode(), durable=True)

    return [(DataDir, "_read_registration", read), (DataDir, "note_registration", note)]


def _lso_inclusive() -> list[Patch]:
    sound = LogState.last_stable_offset

    def inclusive(self: Any, high_watermark: int) -> int:
        stable = sound(self, high_watermark)
        return stable + 1 if stable < high_watermark else stable

    return [(LogState, "last_stable_offset", inclusive)]


def _nothing_aborted() -> list[Patch]:
    return [(LogReads, "aborted_transactions", lambda self, start, end: [])]


def _coordinator_answers_early() -> list[Patch]:
    def hasty(self: Any, partition: int, append: Callable[[Any], Any], done: Callable[[int], None]) -> None:
        try:
            append(self._replicas.leader_of(self._topic, partition))
        except KafkaError as error:
            done(error.code)
            return
        self._timers.at(self._clock.monotonic_ms(), lambda _now: done(ErrorCode.NONE))

    return [(CoordinatorLog, "_run", hasty)]


def _aborted_offsets_stay() -> list[Patch]:
    sound = GroupShard.replay_marker

    def committed(self: Any, producer_id: int, producer_epoch: int, commit: bool) -> None:
        sound(self, producer_id, producer_epoch, True)

    return [(GroupShard, "replay_marker", committed)]


def _any_marker() -> list[Patch]:
    def accept(
        self: Any, header: Any, coordinator_epoch: int, where: str, transaction_version: int = 0
    ) -> None:
        """Whoever sends it, and for whichever transaction."""

    return [(ProducerEntry, "check_marker", accept)]


def _nobody_verifies() -> list[Patch]:
    sound = TxnVerification.ask

    def ask(
        self: Any, transactional_id: str, producer_id: int, producer_epoch: int, partition: tuple[str, int],
        support: Support, done: Callable[[ErrorCode], None],
    ) -> None:  # fmt: skip
        if support is Support.IMPLICIT:  # which would add the partition as well
            sound(self, transactional_id, producer_id, producer_epoch, partition, support, done)
        else:
            self._timers.at(self._clock.monotonic_ms(), lambda _now: done(ErrorCode.NONE))

    return [(TxnVerification, "ask", ask)]


def _any_generation_commits() -> list[Patch]:
    sound = offsets.commit_offsets

    def lenient(shard: Any, context: Any, request: Any) -> Any:
        group = shard.groups.get(request.group_id)
        generation = request.generation_id_or_member_epoch
        if isinstance(group, ClassicGroup) and group.members and 0 <= generation < group.generation:
            request = copy(request)
            request.generation_id_or_member_epoch, request.member_id = (
                group.generation,
                next(iter(group.members)),
            )
        return sound(shard, context, request)

    return [(offsets, "commit_offsets", lenient)]


def _any_member_epoch_commits() -> list[Patch]:
    return [(ConsumerGroup, "validate_offset_commit", lambda self, *args, **options: None)]


def _voter_by_id() -> list[Patch]:
    return [(Voter, "is_same_as", lambda self, key: self.key.id == key.id)]


def _two_voter_changes() -> list[Patch]:
    sound = LogCore._voter_change_refusal

    def hasty(self: Any, event: Any, now_ms: int) -> Any:
        refusal = sound(self, event, now_ms)
        if refusal is None or "to commit the latest voter change" not in refusal.reason:
            return refusal
        if isinstance(event, RemoveVoter):
            return self._removal_refusal(event.key)
        return self._addition_refusal(event.voter.key, now_ms)

    return [(LogCore, "_voter_change_refusal", hasty)]


def _cleaner_above_stable() -> list[Patch]:
    return [(LogCompaction, "_last_stable_offset", lambda self, log: log.log_end_offset)]


def _swap_without_fsync() -> list[Patch]:
    sound = cleaner.attempt

    def attempt(job: CleaningJob, disk: Any) -> Outcome:
        with patch.object(MemoryFile, "sync", lambda self: None):
            return sound(job, disk)

    return [(cleaner, "attempt", attempt)]


def _aborted_supersedes() -> list[Patch]:
    sound = cleaner._last_offsets
    return [(cleaner, "_last_offsets", lambda job, disk: sound(replace(job, aborted=()), disk))]


def _tombstones_at_once() -> list[Patch]:
    sound = cleaner.attempt
    return [(cleaner, "attempt", lambda job, disk: sound(replace(job, delete_retention_ms=0), disk))]


def _swap_undone() -> list[Patch]:
    def undo(log: Log, swaps: list[str]) -> None:
        for name in swaps:
            log._pool.disk.unlink(f"{log.dir}/{name}")

    return [(recovery, "_finish_swaps", undo)]


MUTANTS: dict[str, Mutant] = {
    "isr-instead-of-maximal": Mutant(
        "the high watermark goes by the committed ISR, not by all who may be in it",
        _isr_instead_of_maximal,
        "isr-growth",
    ),
    "no-epoch-start": Mutant(
        "who has the high watermark joins the ISR, before the epoch's start is reached",
        _no_epoch_start,
        "isr-shrink",
    ),
    "not-fetched-in-this-epoch": Mutant(
        "what followers said to an earlier epoch counts", _not_fetched_in_this_epoch, "isr-elections"
    ),
    "no-broker-epoch": Mutant(
        "an earlier incarnation's fetch lets a broker join the ISR", _no_broker_epoch, "isr-losses"
    ),
    "roll-back-on-timeout": Mutant(
        "a proposal without an answer counts as not applied", _roll_back_on_timeout, "isr-growth"
    ),
    "under-min-isr": Mutant(
        "the high watermark moves below min.insync.replicas", _under_min_isr, "isr-shrink"
    ),
    "high-watermark-before-divergence": Mutant(
        "a follower takes the high watermark before it truncates",
        _high_watermark_before_divergence,
        "isr-elections",
    ),
    "boot-id-ignored": Mutant(
        "a broker that lost power registers as complete", _boot_id_ignored, "isr-shrink"
    ),
    "last-stable-offset-inclusive": Mutant(
        "read_committed readers see the first batch of an open transaction", _lso_inclusive, "transactions"
    ),
    "vote-without-fsync": Mutant("the vote file is not fsynced", _vote_without_fsync, "votes"),
    "ex-leader-resumes": Mutant("a restarted leader carries on in its epoch", _ex_leader_resumes, "votes"),
    "acknowledge-before-fsync": Mutant(
        "flush.messages=1 is acknowledged without an fsync", _acknowledge_before_fsync, "one-power"
    ),
    "answer-after-failed-append": Mutant(
        "responses leave although their append failed", _answer_after_failed_append, "one-disk"
    ),
    "forget-sequences": Mutant("retries are appended again", _forget_sequences, "one-kill"),
    "snapshot-without-older-batches": Mutant(
        "a restart forgets all but the last batch of a producer", _snapshot_without_older_batches, "one-kill"
    ),
    "voter-by-id": Mutant("a voter whose disk was replaced votes on", _voter_by_id, "voters"),
    "two-voter-changes": Mutant(
        "a voter is added or removed before the last change is committed", _two_voter_changes, "voters"
    ),
    "nothing-aborted": Mutant(
        "read_committed readers are not told what was aborted", _nothing_aborted, "transactions"
    ),
    "coordinator-answers-early": Mutant(
        "coordinators answer before their records are committed", _coordinator_answers_early, "three-groups"
    ),
    "aborted-offsets-stay": Mutant(
        "offsets of an aborted transaction become the group's", _aborted_offsets_stay, "transactions"
    ),
    "any-marker": Mutant(
        "a marker that comes late, from a coordinator that is none any more, is taken",
        _any_marker,
        "transactions-stale",
    ),
    "nobody-verifies": Mutant(
        "a late write of a transaction that has ended begins another (KIP-890)",
        _nobody_verifies,
        "transactions-late",
    ),
    "any-generation-commits": Mutant(
        "a member of an outdated generation commits offsets", _any_generation_commits, "one-groups"
    ),
    "any-member-epoch-commits": Mutant(
        "a member of an outdated epoch commits offsets (KIP-848)", _any_member_epoch_commits, "one-groups"
    ),
    "cleaner-above-stable": Mutant(
        "what is not below the last stable offset is compacted, and supersedes what is",
        _cleaner_above_stable,
        "one-compaction",
    ),
    "aborted-supersedes": Mutant(
        "the last value of a key goes for one of an aborted transaction",
        _aborted_supersedes,
        "one-compaction",
    ),
    "tombstones-at-once": Mutant(
        "tombstones go before delete.retention.ms is over", _tombstones_at_once, "one-compaction"
    ),
    "swap-undone": Mutant(
        "a start removes new segments whose swap was interrupted",
        _swap_undone,
        "one-compaction",
    ),
    "swap-without-fsync": Mutant(
        "compacted segments take the place of others before they are fsynced",
        _swap_without_fsync,
        "three-compaction",
    ),
}


@contextmanager
def applied(name: str | None) -> Iterator[None]:
    """Break the product for a while. KeyError for a name that there is not."""
    with ExitStack() as stack:
        if name is not None:
            for target, attribute, replacement in MUTANTS[name].patches():
                stack.enter_context(patch.object(target, attribute, replacement))
        yield
