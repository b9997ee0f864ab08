"""Producers that retry, lose answers and are fenced, a slow and failing log, coordinators that change: a seeded load.

The invariants are those of the list in CORRECTNESS.md:

    T3  a late or repeated marker never contradicts the first one of its transaction
    T4  a durable PrepareCommit always ends committed (and a PrepareAbort aborted), by every coordinator after it
    T5  each transaction ends within its timeout plus one coordinator failover
    T6  EndTxn of epoch e never touches the transaction of epoch e+1

T3, T4 and T6 are checked over the log and over the markers as they are written, T5 at the end. Beside these, nobody is
told a lie: what a producer was told to be committed is committed in the log, and replay gives the state that is.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from odradek.coordinator.runtime import Marker
from odradek.coordinator.transaction.completion import RETRY_MAX_MS
from odradek.coordinator.transaction.decisions import EPOCH_BUMP_FROM
from odradek.coordinator.transaction.records import decode
from odradek.coordinator.transaction.state import PREVIOUS, TopicPartition, Transaction
from odradek.wire.errors import ErrorCode
from unit.coordinator.memory import Answer
from unit.coordinator.transaction_harness import PARTITIONS, TransactionHarness

IDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")
PRODUCERS = 8
DURATION_MS = 120_000
TIMEOUT_MS = 4_000
ABORT_MS = 1_000
WRITE_TIMEOUT_MS = 2_000
QUIET_MS = 30_000
NOTHING_WRITTEN = (
    ErrorCode.NOT_ENOUGH_REPLICAS,
    ErrorCode.NOT_LEADER_OR_FOLLOWER,
    ErrorCode.MESSAGE_TOO_LARGE,
)
MARKER_ERRORS = (
    ErrorCode.NOT_LEADER_OR_FOLLOWER,
    ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    ErrorCode.REQUEST_TIMED_OUT,
    ErrorCode.NETWORK_EXCEPTION,
)


class ShakyLog:
    """`__transaction_state`: slow, refusing some appends, losing some; committed in order."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.logs: dict[int, list[tuple[bytes, bytes | None]]] = {}
        self.generation = 0
        self.calm = False
        self.last_ms = 0
        self.committed: dict[int, int] = {}

    def append(
        self, partition: int, records: list[tuple[bytes, bytes | None]], done: Callable[[int], None]
    ) -> None:
        rng = self.world.rng
        chance = 1.0 if self.calm else rng.random()
        if chance < 0.05:
            done(int(rng.choice(NOTHING_WRITTEN)))
            return
        log = self.logs.setdefault(partition, [])
        log.extend(records)
        end = len(log)
        if chance > 0.6:
            self._commit(partition, end, done)
            return
        slow = chance < 0.08
        now_ms = self.world.clock.now_ms
        # Commits of one log come in order, as its high watermark moves.
        self.last_ms = max(self.last_ms, now_ms + rng.randrange(1, WRITE_TIMEOUT_MS * 2 if slow else 50))
        generation = self.generation

        def later(_now_ms: int) -> None:
            if generation == self.generation:
                self._commit(partition, end, done)

        def doubt(_now_ms: int) -> None:
            """The ISR has shrunk: nobody knows what becomes of it, until it is committed."""
            if generation == self.generation and self.committed.get(partition, 0) < end:
                done(int(ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND))

        if slow and rng.random() < 0.5:
            self.world.timers.at(now_ms, doubt)
        self.world.timers.at(self.last_ms, later)

    def _commit(self, partition: int, end: int, done: Callable[[int], None]) -> None:
        if self.last_ms > self.world.clock.now_ms:
            generation = self.generation

            def later(_now_ms: int) -> None:
                if generation == self.generation:
                    self._commit(partition, end, done)

            self.world.timers.at(self.last_ms, later)
            return
        self._move(partition, end)
        done(0)

    def _move(self, partition: int, end: int) -> None:
        """The high watermark."""
        start = self.committed.get(partition, 0)
        for key, value in self.logs[partition][start:end]:
            record = decode(key, value)
            assert record is not None
            assert record.value is not None, "nothing expires here"
            self.world.committed(record.transactional_id, record.value)
        self.committed[partition] = max(start, end)

    def fail_over(self, keep: Callable[[int], int]) -> None:
        """The next leader has what is committed, and perhaps some of the rest: `keep(uncommitted)` of it."""
        self.generation += 1
        for partition, log in self.logs.items():
            committed = self.committed.get(partition, 0)
            del log[committed + keep(len(log) - committed) :]
            self._move(partition, len(log))


class ShakyMarkers:
    """Leaders that take markers late, twice, or not at all, and that forget to answer."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.calm = False
        self.first: dict[tuple[TopicPartition, str, int], bool] = {}
        """How a transaction ended in a partition, by (partition, transactional id, number of its Prepare record)."""
        self.seen = 0

    def write(
        self,
        marker: Marker,
        partitions: list[TopicPartition],
        done: Callable[[dict[TopicPartition, ErrorCode]], None],
    ) -> None:
        world, rng = self.world, self.world.rng
        transaction = world.check_marker(*marker.producer, marker.commit, partitions)
        results: dict[TopicPartition, ErrorCode] = {}
        for partition in partitions:
            if not self.calm and rng.random() < 0.2:
                results[partition] = rng.choice(MARKER_ERRORS)
                if rng.random() < 0.5:
                    continue  # written all the same, or not
            else:
                results[partition] = ErrorCode.NONE
            self.seen += 1
            first = self.first.setdefault((partition, *transaction), marker.commit)
            assert first is marker.commit, f"T3: {partition} of {marker.producer} ended both ways"
        if not self.calm and rng.random() < 0.1:
            results = {}
        delay_ms = 0 if self.calm else rng.choice((0, 0, 5, 100, 3_000))
        if delay_ms:
            world.timers.at(world.clock.now_ms + delay_ms, lambda _now: done(results))
        else:
            done(results)


class Producer:
    """A client that may be one of several with its transactional id, and knows only what it was told."""

    def __init__(self, world: World, transactional_id: str) -> None:
        self.world = world
        self.transactional_id = transactional_id
        self.version = world.rng.choice((4, 5, 5))
        self.identity: tuple[int, int] | None = None
        self.added = False
        self.ending: bool | None = None
        """How it has asked for its transaction to end, for as long as it has no answer."""
        self.waits = False
        """For an answer; when it gets none, it asks again, and the first answer is lost."""

    def step(self) -> None:
        rng = self.world.rng
        if self.waits:
            return
        if rng.random() < 0.01:
            self.identity, self.added, self.ending = None, False, None  # a new process
            self.version = rng.choice((4, 5, 5))
        if self.identity is None:
            self._ask("init", self.world.harness.ask_init, self.transactional_id, timeout_ms=TIMEOUT_MS)
        elif self.ending is not None:
            self._end(self.ending)
        elif not self.added or rng.random() < 0.5:
            partition = ("orders", rng.randrange(3))
            self._ask(
                "add",
                self.world.harness.ask_add,
                self.identity,
                partition,
                transactional_id=self.transactional_id,
            )
        else:
            self._end(rng.random() < 0.7)

    def _end(self, commit: bool) -> None:
        assert self.identity is not None
        self.ending = commit
        self._ask(
            "end",
            self.world.harness.ask_end,
            self.identity,
            commit=commit,
            transactional_id=self.transactional_id,
            version=self.version,
        )

    def _ask(self, what: str, ask: Callable[..., Answer], *args: Any, **kwargs: Any) -> None:
        answer = ask(*args, **kwargs)
        rng = self.world.rng
        self.waits = True

        def look(_now_ms: int) -> None:
            self.waits = False
            if answer.response is not None and rng.random() > 0.05:
                self._answered(what, answer.response)

        self.world.timers.at(self.world.clock.now_ms + rng.choice((1, 20, 100, 500)), look)

    def _answered(self, what: str, response: Any) -> None:
        if what == "add":
            topic = response.results_by_topic_v3_and_below[0]
            error = ErrorCode(topic.results_by_partition[0].partition_error_code)
        else:
            error = ErrorCode(response.error_code)
        if error in (
            ErrorCode.PRODUCER_FENCED,
            ErrorCode.INVALID_PRODUCER_ID_MAPPING,
            ErrorCode.INVALID_TXN_STATE,
        ):
            self.identity, self.added, self.ending = None, False, None
            self.world.refused[error.name] = self.world.refused.get(error.name, 0) + 1
        if error is not ErrorCode.NONE:
            return
        if what == "init":
            self.identity, self.added = (response.producer_id, response.producer_epoch), False
        elif what == "add":
            self.added = True
        else:
            assert self.identity is not None
            assert self.ending is not None
            self.world.told_ended(self, self.identity, self.ending)
            if self.version >= 5:
                self.identity = (response.producer_id, response.producer_epoch)
            self.added, self.ending = False, None


class World:
    """All of it."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.harness = TransactionHarness(
            load=False,
            version=self.rng.choice((0, 2, 2)),
            abort_interval_ms=ABORT_MS,
            write_timeout_ms=WRITE_TIMEOUT_MS,
        )
        self.clock = self.harness.clock
        self.timers = self.harness.timers
        self.log = ShakyLog(self)
        self.markers = ShakyMarkers(self)
        self.harness.writer = self.log  # type: ignore[assignment]
        self.harness.markers = self.markers  # type: ignore[assignment]
        self.harness.coordinator = self.harness.make()
        self.harness.load_all()
        # Most ids have one producer, some have two that fence each other.
        self.producers = [Producer(self, IDS[number % len(IDS)]) for number in range(PRODUCERS)]
        self.history: dict[str, list[Transaction]] = {}
        """The committed records of each id."""
        self.told = 0
        self.fail_overs = 0
        self.refused: dict[str, int] = {}

    # -- what happens --------------------------------------------------------------------------------------------

    def run(self) -> None:
        while self.clock.now_ms < DURATION_MS:
            self._reload_failed()
            if self.rng.random() < 0.004:
                self._fail_over()
            for _ in range(self.rng.randrange(3)):
                self.rng.choice(self.producers).step()
            self.harness.advance(self.rng.choice((0, 1, 10, 50, 200)))

    def settle(self) -> None:
        """Producers go away, log and leaders get well; perhaps one more failover."""
        self.log.calm = self.markers.calm = True
        if self.rng.random() < 0.5:
            self._fail_over()
        for _ in range(QUIET_MS // 100):
            self._reload_failed()
            self.harness.advance(100)

    def _reload_failed(self) -> None:
        """A write was lost: the node reads the partition again from its log, of which nobody else took over."""
        failed, self.harness.failed_partitions[:] = list(self.harness.failed_partitions), []
        for partition in failed:
            self.harness.load(partition)

    def _fail_over(self) -> None:
        self.fail_overs += 1
        rng = self.rng
        self.log.fail_over(lambda uncommitted: rng.randint(0, uncommitted))
        for partition in range(PARTITIONS):
            self.harness.coordinator.runtime.unload(partition)
        self.harness.coordinator = self.harness.make()
        self.harness.epoch += 1
        self.harness.load_all()

    # -- what must hold ------------------------------------------------------------------------------------------

    def committed(self, name: str, after: Transaction) -> None:
        """T4 and T6: the committed records of an id are a walk through the state table, epochs never fall, what is
        prepared ends so, and each end comes under the epoch of its own transaction.
        """
        history = self.history.setdefault(name, [])
        if history:
            before = history[-1]
            assert before.state in PREVIOUS[after.state], (name, before.state, after.state)
            if after.producer_id == before.producer_id:
                assert after.producer_epoch in (before.producer_epoch, before.producer_epoch + 1)
            if after.state.text.startswith("Prepare"):
                assert after.partitions == before.partitions
                bumped = after.client_version >= EPOCH_BUMP_FROM
                assert not bumped or after.producer_epoch == before.producer_epoch + 1
        history.append(after)

    def check_marker(
        self, producer_id: int, producer_epoch: int, commit: bool, partitions: list[TopicPartition]
    ) -> tuple[str, int]:
        """Only what is committed as prepared gets markers, and just the right ones. Which transaction it is."""
        for name, history in self.history.items():
            if history[-1].producer_id == producer_id:
                last = history[-1]
                assert last.state.text == ("PrepareCommit" if commit else "PrepareAbort")
                assert last.producer_epoch == producer_epoch
                assert set(partitions) <= set(last.partitions)
                return name, len(history) - 1
        raise AssertionError("a marker of a producer that nobody knows")

    def told_ended(self, producer: Producer, identity: tuple[int, int], commit: bool) -> None:
        """Who is told that its transaction has ended is told the truth, and about its own transaction."""
        self.told += 1
        producer_id, epoch = identity
        prepared = "PrepareCommit" if commit else "PrepareAbort"
        marker_epoch = epoch + 1 if producer.version >= 5 else epoch
        assert any(
            each.producer_id == producer_id
            and each.producer_epoch == marker_epoch
            and each.state.text == prepared
            for each in self.history[producer.transactional_id]
        ), "T6: told of an end that is not there"

    def check_end(self) -> None:
        """T4 and T5: nothing is left open, and nothing half done."""
        for name, history in self.history.items():
            assert history[-1].state.text in ("Empty", "CompleteCommit", "CompleteAbort"), (
                f"T5: {name} is {history[-1].state.text} {QUIET_MS} ms after the last request"
            )
            shard = self.harness.coordinator.runtime.read(self.harness.coordinator.partition_for(name))
            known = shard.known(name)
            assert shard.record(name, known).encode() == shard.record(name, history[-1]).encode()
            assert shard.completions == {}
            for number, known in enumerate(history):
                if known.state.text.startswith("Prepare"):
                    commit = known.state.text == "PrepareCommit"
                    for partition in known.partitions:
                        key = (partition, name, number)
                        assert self.markers.first.get(key) is commit, f"T4: {key} has no marker"


@pytest.mark.parametrize("seed", range(12))
def test_transactions_end_as_they_were_told_to(seed: int) -> None:
    assert QUIET_MS > TIMEOUT_MS + ABORT_MS + RETRY_MAX_MS + WRITE_TIMEOUT_MS
    world = World(seed)
    world.run()
    world.settle()
    world.check_end()
    print(
        world.told,
        world.refused,
        world.fail_overs,
        world.markers.seen,
        {k: len(v) for k, v in world.history.items()},
    )
    assert world.told > 50
    assert world.fail_overs > 2
    assert world.markers.seen > 100
