"""Offsets committed in transactions: pending until the marker, and gone without it (T1, G2, G3, G4)."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from odradek.coordinator.group.decode import decode
from odradek.coordinator.group_coordinator import GroupContext, GroupCoordinator
from odradek.coordinator.runtime import Marker, Producer
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)
from unit.coordinator.group_harness import GROUP, PARTITIONS, Answer, Harness, MemoryWriter

OK = ErrorCode.NONE
A, B, C = ("orders", 0), ("orders", 1), ("users", 0)
Records = list[tuple[bytes, bytes | None]]


class Writer(MemoryWriter):
    """The offsets topic with transactions: everything in log order."""

    def __init__(self) -> None:
        super().__init__()
        self.journal: dict[int, list[tuple[Producer | None, Marker | None, Records]]] = {}

    def append(self, partition: int, records: Records, done: Callable[[int], None]) -> None:
        self._take(partition, (None, None, records), records, done)

    def append_transactional(
        self,
        partition: int,
        producer_id: int,
        producer_epoch: int,
        records: Records,
        done: Callable[[int], None],
    ) -> None:
        self._take(partition, (Producer(producer_id, producer_epoch), None, records), records, done)

    def append_marker(self, partition: int, marker: Marker, done: Callable[[int], None]) -> None:
        self._take(partition, (None, marker, []), [], done)

    def _take(self, partition: int, entry: Any, records: Records, done: Callable[[int], None]) -> None:
        if self.refuse_with is OK:
            self.journal.setdefault(partition, []).append(entry)
        super().append(partition, records, done)


class Group(Harness):
    """Commits of transactions, and their ends, on one group."""

    def __init__(self, **config: int) -> None:
        super().__init__(load=False, **config)
        self.writer: Writer = Writer()
        self.asked: list[Any] = []
        self.answer_verification: Callable[[], ErrorCode] | None = lambda: OK
        self.coordinator = self.make()
        self.load_all(self.coordinator, 0)

    def make(self, seed: int = 0) -> GroupCoordinator:
        coordinator = super().make(seed)
        coordinator.verification = self
        return coordinator

    def verify(self, *question: Any) -> None:
        self.asked.append(question)
        if self.answer_verification is not None:
            question[-1](self.answer_verification())

    def load_all(self, coordinator: GroupCoordinator, epoch: int) -> None:
        for partition in range(PARTITIONS):
            if coordinator.runtime.load_begin(partition, epoch):
                for producer, marker, records in self.writer.journal.get(partition, []):
                    if marker is not None:
                        coordinator.runtime.load_marker(partition, *marker.producer, marker.commit)
                    for key, value in records:
                        if producer is None:
                            coordinator.runtime.load_record(partition, key, value)
                        else:
                            coordinator.runtime.load_transactional_record(partition, *producer, key, value)
                coordinator.runtime.load_end(partition)

    def txn_commit(
        self,
        offsets: dict[tuple[str, int], int],
        producer_id: int = 1,
        *,
        group: str = GROUP,
        member_id: str = "",
        generation: int = -1,
        instance: str | None = None,
        metadata: str = "",
        version: int = 5,
    ) -> Answer:
        topics: dict[str, TxnOffsetCommitRequestTopic] = {}
        for (name, partition), offset in offsets.items():
            topic = topics.setdefault(name, TxnOffsetCommitRequestTopic(name))
            topic.partitions.append(TxnOffsetCommitRequestPartition(partition, offset, -1, metadata))
        request = TxnOffsetCommitRequest(
            "id", group, producer_id, 0, generation, member_id, instance, list(topics.values())
        )
        answer = Answer()
        context = GroupContext("client", "/127.0.0.1", version)
        self.coordinator.commit_transactional_offsets(context, request, answer)
        return answer

    def txn_errors(self, offsets: dict[tuple[str, int], int], *args: Any, **kwargs: Any) -> list[ErrorCode]:
        response = self.txn_commit(offsets, *args, **kwargs).response
        return [ErrorCode(each.error_code) for topic in response.topics for each in topic.partitions]

    def end(self, producer_id: int = 1, *, commit: bool = True, group: str = GROUP) -> int:
        codes: list[int] = []
        marker = Marker(Producer(producer_id, 0), 0, commit)
        self.coordinator.complete_transaction(self.coordinator.partition_for(group), marker, codes.append)
        (code,) = codes
        return code

    def stable(self, *partitions: tuple[str, int], group: str = GROUP) -> dict[tuple[str, int], Any]:
        """With require_stable: offsets, or the error."""
        response = self.fetch(partitions or None, groups=[group], stable=True).response
        return {
            (topic.name, each.partition_index): ErrorCode(each.error_code) or each.committed_offset
            for topic in response.groups[0].topics
            for each in topic.partitions
        }


UNSTABLE = ErrorCode.UNSTABLE_OFFSET_COMMIT


def test_offsets_count_from_the_commit_marker_on() -> None:
    g = Group()
    assert g.txn_errors({A: 5, B: 6}) == [OK, OK]
    assert g.committed() == {}
    assert g.stable(A, B, C) == {A: UNSTABLE, B: UNSTABLE, C: -1}
    assert g.end() == OK
    assert g.committed() == {A: 5, B: 6}
    assert g.stable(A, B) == {A: 5, B: 6}


def test_an_aborted_transaction_leaves_what_was_there() -> None:
    g = Group()
    g.commit({A: 1})
    g.txn_commit({A: 5, B: 6})
    assert g.stable() == {A: UNSTABLE}
    assert g.committed() == {A: 1}, "without require_stable the old offset is given"
    assert g.end(commit=False) == OK
    assert g.committed() == {A: 1}
    assert g.stable(A, B) == {A: 1, B: -1}


def test_a_later_plain_commit_is_not_undone_by_the_marker() -> None:
    """G2: the last commit in log order counts."""
    g = Group()
    g.txn_commit({A: 5, B: 6})
    g.commit({A: 9})
    assert g.stable(A) == {A: UNSTABLE}
    g.end()
    assert g.committed() == {A: 9, B: 6}


def test_of_two_transactions_the_one_that_wrote_last_counts() -> None:
    g = Group()
    g.txn_commit({A: 5}, 1)
    g.txn_commit({A: 6}, 2)
    g.end(2)
    assert g.committed() == {A: 6}
    assert g.stable(A) == {A: UNSTABLE}
    g.end(1)
    assert g.committed() == {A: 6}
    g.txn_commit({A: 7}, 1)
    g.txn_commit({A: 8}, 2)
    g.end(1)
    g.end(2)
    assert g.committed() == {A: 8}


def test_the_last_of_several_commits_in_a_transaction_counts() -> None:
    g = Group()
    g.txn_commit({A: 5})
    g.txn_commit({A: 7})
    g.end()
    assert g.committed() == {A: 7}


def test_a_marker_that_ends_nothing_changes_nothing() -> None:
    g = Group()
    g.commit({A: 1})
    assert g.end(77) == OK
    g.txn_commit({A: 5})
    g.end()
    g.end(commit=False)
    assert g.committed() == {A: 5}


@pytest.mark.parametrize("commit", [True, False])
def test_pending_offsets_survive_a_failover(commit: bool) -> None:
    g = Group()
    g.commit({A: 1})
    g.txn_commit({A: 5, B: 6})
    g.successor()
    assert g.stable(A, B) == {A: UNSTABLE, B: UNSTABLE}
    assert g.committed() == {A: 1}
    g.end(commit=commit)
    g.successor()
    assert g.committed() == ({A: 5, B: 6} if commit else {A: 1})
    assert g.stable(A, B) == ({A: 5, B: 6} if commit else {A: 1, B: -1})


def test_what_is_not_written_is_not_pending() -> None:
    g = Group()
    g.writer.refuse_with = ErrorCode.INVALID_PRODUCER_EPOCH
    assert g.txn_errors({A: 5}) == [ErrorCode.INVALID_PRODUCER_EPOCH]
    g.writer.refuse_with = OK
    assert g.stable(A) == {A: -1}
    g.txn_commit({A: 5})
    g.writer.refuse_with = ErrorCode.NOT_ENOUGH_REPLICAS
    assert g.end() == ErrorCode.NOT_ENOUGH_REPLICAS
    g.writer.refuse_with = OK
    assert g.stable(A) == {A: UNSTABLE}
    g.end()
    assert g.committed() == {A: 5}


def test_an_answer_waits_until_the_offsets_are_committed_in_the_log() -> None:
    g = Group()
    g.writer.holding = True
    answer = g.txn_commit({A: 5})
    fetched = g.fetch([A], stable=True)
    assert answer.waits
    assert fetched.waits
    g.writer.release()
    assert not answer.waits
    assert fetched.response.groups[0].topics[0].partitions[0].error_code == UNSTABLE


def test_a_member_whose_generation_is_over_is_refused() -> None:
    """KIP-447, G3."""
    g = Group()
    first = g.join()
    joined = g.join(first.response.member_id)
    g.clock.now_ms += 3_000
    g.timers.advance(g.clock.now_ms)
    member_id, generation = joined.response.member_id, joined.response.generation_id
    assert g.txn_errors({A: 1}, member_id=member_id, generation=generation) == [OK]
    assert g.txn_errors({A: 1}, member_id=member_id, generation=generation - 1) == [
        ErrorCode.ILLEGAL_GENERATION
    ]
    assert g.txn_errors({A: 1}, member_id="else", generation=generation) == [ErrorCode.UNKNOWN_MEMBER_ID]
    assert g.txn_errors({A: 1}, member_id=member_id, generation=generation, instance="i") == [
        ErrorCode.UNKNOWN_MEMBER_ID
    ]
    assert g.txn_errors({A: 1}, version=2) == [OK], "older clients do not say who they are"


def test_a_generation_of_a_group_that_is_not_there_is_refused() -> None:
    g = Group()
    assert g.txn_errors({A: 1}, member_id="m", generation=1) == [ErrorCode.ILLEGAL_GENERATION]


def test_errors_of_single_partitions_and_of_the_whole() -> None:
    g = Group(offset_metadata_max_bytes=4)
    response = g.txn_commit({A: 1, ("gone", 0): 1, ("orders", 99): 1}).response
    assert {
        (topic.name, each.partition_index): each.error_code
        for topic in response.topics
        for each in topic.partitions
    } == {
        A: OK,
        ("gone", 0): ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ("orders", 99): ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    }
    assert len(response.topics) == 2
    assert g.txn_errors({A: 1}, metadata="longer") == [ErrorCode.OFFSET_METADATA_TOO_LARGE]
    assert g.txn_errors({A: 1}, group="") == [ErrorCode.INVALID_GROUP_ID]
    g.coordinator.runtime.unload(g.coordinator.partition_for(GROUP))
    assert g.txn_errors({A: 1}) == [ErrorCode.NOT_COORDINATOR]
    assert g.coordinator.runtime.load_begin(g.coordinator.partition_for(GROUP), 5)
    assert g.txn_errors({A: 1}) == [ErrorCode.COORDINATOR_LOAD_IN_PROGRESS]
    assert g.txn_errors({A: 1}, version=1) == [ErrorCode.COORDINATOR_NOT_AVAILABLE]
    assert g.end() == ErrorCode.NOT_LEADER_OR_FOLLOWER


def test_the_transaction_is_verified_first() -> None:
    """KIP-890."""
    g = Group()
    g.answer_verification = lambda: ErrorCode.INVALID_TXN_STATE
    assert g.txn_errors({A: 1}) == [ErrorCode.INVALID_TXN_STATE]
    g.answer_verification = lambda: ErrorCode.NETWORK_EXCEPTION
    assert g.txn_errors({A: 1}) == [ErrorCode.COORDINATOR_LOAD_IN_PROGRESS]
    assert g.asked[0][:4] == ("id", Producer(1, 0), g.coordinator.partition_for(GROUP), 5)
    assert g.stable(A) == {A: -1}
    g.answer_verification = None
    answer = g.txn_commit({A: 1})
    assert answer.waits
    g.asked[-1][-1](OK)
    assert not answer.waits
    assert g.stable(A) == {A: UNSTABLE}


def test_pending_offsets_do_not_expire() -> None:
    g = Group(offsets_retention_minutes=1, offsets_retention_check_interval_ms=10_000)

    def let_time_pass() -> None:
        for _ in range(20):
            g.clock.now_ms += 10_000
            g.timers.advance(g.clock.now_ms)

    g.commit({A: 1, B: 2})
    g.txn_commit({A: 5})
    let_time_pass()
    assert g.committed() == {A: 1}
    assert g.stable(A) == {A: UNSTABLE}
    g.end(commit=False)
    let_time_pass()
    assert g.committed() == {}


def test_deleted_offsets_do_not_come_back_with_the_marker() -> None:
    g = Group()
    g.txn_commit({A: 5, B: 6})
    g.delete_offsets(A)
    assert g.stable(A, B) == {A: -1, B: UNSTABLE}
    g.end()
    assert g.committed() == {B: 6}
    g.successor()
    assert g.committed() == {B: 6}


@pytest.mark.parametrize("seed", range(20))
def test_any_mixture_is_as_the_log_says(seed: int) -> None:
    """Against a model that reads the journal: T1 for offsets, G2, and G4 over failovers and refused writes."""
    rng = Random(seed)
    g = Group()
    partitions = [A, B, C]
    for step in range(150):
        choice = rng.random()
        producer_id = rng.randrange(3)
        some = dict.fromkeys(rng.sample(partitions, rng.randint(1, 3)), step)
        g.writer.refuse_with = ErrorCode.NOT_ENOUGH_REPLICAS if rng.random() < 0.1 else OK
        if choice < 0.4:
            g.txn_commit(some, producer_id)
        elif choice < 0.6:
            g.commit(some)
        elif choice < 0.65:
            g.delete_offsets(next(iter(some)))
        elif choice < 0.95:
            g.end(producer_id, commit=rng.random() < 0.6)
        else:
            g.writer.refuse_with = OK
            g.successor()
        g.writer.refuse_with = OK
        committed, unstable = model(g)
        assert g.committed() == committed
        shown = g.stable(*partitions)
        assert {where for where, found in shown.items() if found is UNSTABLE} == unstable


def model(g: Group) -> tuple[dict[tuple[str, int], int], set[tuple[str, int]]]:
    """(offsets, partitions with open transactions) from the journal alone, each value with its place in the log."""
    values: dict[tuple[str, int], tuple[int, int]] = {}
    pending: dict[int, dict[tuple[str, int], tuple[int, int]]] = {}
    journal = g.writer.journal.get(g.coordinator.partition_for(GROUP), [])
    for place, (producer, marker, records) in enumerate(journal):
        if marker is not None:
            for where, value in pending.pop(marker.producer.id, {}).items():
                if marker.commit and value[0] > values.get(where, (-1, 0))[0]:
                    values[where] = value
        for key, value_bytes in records:
            record: Any = decode(key, value_bytes)
            where = record.key.topic, record.key.partition
            if record.value is None:
                values.pop(where, None)
                for each in pending.values():
                    each.pop(where, None)
            elif producer is None:
                values[where] = place, record.value.offset
            else:
                pending.setdefault(producer.id, {})[where] = place, record.value.offset
    return (
        {where: offset for where, (_, offset) in values.items()},
        {where for each in pending.values() for where in each},
    )
