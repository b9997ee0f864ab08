"""The core's index of its log, against a list with one epoch per record."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odradek.raft.log_index import LogIndex, OffsetAndEpoch, SnapshotId

epoch_lists = st.lists(st.integers(1, 6), max_size=30).map(sorted)


def index_of(epochs: list[int]) -> LogIndex:
    index = LogIndex()
    for offset, epoch in enumerate(epochs):
        index.append(offset, 1, epoch)
    return index


@given(epoch_lists, st.integers(0, 7))
def test_the_end_of_an_epoch_is_where_the_first_larger_one_begins(epochs: list[int], epoch: int) -> None:
    known = [e for e in epochs if e <= epoch]
    expected = OffsetAndEpoch(len(known), known[-1]) if known else OffsetAndEpoch(0, 0)
    assert index_of(epochs).end_offset_for_epoch(epoch) == expected


@given(epoch_lists)
def test_the_epoch_below_each_offset(epochs: list[int]) -> None:
    index = index_of(epochs)
    assert [index.epoch_below(end) for end in range(len(epochs) + 1)] == [0, *epochs]


@given(epoch_lists, epoch_lists)
def test_divergence_ends_at_the_longest_common_prefix_and_takes_at_most_one_round_per_epoch(
    shared: list[int], others: list[int]
) -> None:
    """A leader's log and a follower's, equal up to a point; after it their epochs differ, as in Raft."""
    last = shared[-1] if shared else 0
    leader_tail = [last + 2 * e for e in others[::2]]
    follower_tail = [last + 2 * e - 1 for e in others[1::2]]
    leader, follower = index_of(shared + sorted(leader_tail)), index_of(shared + sorted(follower_tail))
    for _ in range(20):
        where = leader.check_position(follower.end_offset, follower.last_epoch)
        if where is None:
            break
        mine = follower.end_offset_for_epoch(where.epoch)
        follower.truncate_to(min(mine.offset, where.offset) if mine.epoch == where.epoch else mine.offset)
    assert follower.end_offset == len(shared) or not follower_tail


@given(epoch_lists, st.data())
def test_truncation_forgets_exactly_what_was_cut(epochs: list[int], data: st.DataObject) -> None:
    end = data.draw(st.integers(0, len(epochs)))
    index = index_of(epochs)
    index.synced_end = len(epochs)
    index.truncate_to(end)
    assert (index.epochs, index.end_offset, index.synced_end) == (index_of(epochs[:end]).epochs, end, end)


@given(epoch_lists.filter(bool), st.data())
def test_a_log_that_starts_at_a_snapshot_answers_like_the_whole_one(
    epochs: list[int], data: st.DataObject
) -> None:
    start = data.draw(st.integers(1, len(epochs)))
    index, whole = index_of(epochs), index_of(epochs)
    snapshot = SnapshotId(start, whole.epoch_below(start))
    index.snapshots = [snapshot]
    index.advance_start(snapshot)
    assert index.last_epoch == whole.last_epoch
    for end in range(start, len(epochs) + 1):
        assert index.epoch_below(end) == whole.epoch_below(end)
        assert index.check_position(end, whole.epoch_below(end)) is None
    for end in range(start):
        assert index.check_position(end, whole.epoch_below(end)) == snapshot
    assert index.check_position(start, snapshot.epoch - 1) == snapshot


def test_an_fsync_from_before_a_truncation_proves_nothing() -> None:
    index = index_of([1, 1, 1])
    index.truncate_to(1)
    index.append(1, 2, 2)
    assert not index.mark_synced(0, 3)
    assert index.synced_end == 0
    assert index.mark_synced(1, 3)
    assert index.is_synced


def test_an_installed_snapshot_replaces_the_log() -> None:
    index = index_of([1, 2, 3])
    index.restart_at(SnapshotId(50, 9))
    assert (index.start, index.end_offset, index.last_epoch) == (OffsetAndEpoch(50, 9), 50, 9)
    assert index.check_position(50, 9) is None
    index.append(50, 1, 9)
    assert index.epoch_below(51) == 9


@pytest.mark.parametrize(("base", "epoch"), [(2, 3), (4, 3), (3, 2)])
def test_a_batch_that_does_not_follow_is_our_mistake(base: int, epoch: int) -> None:
    with pytest.raises(AssertionError):
        index_of([1, 2, 3]).append(base, 1, epoch)


def test_file_names_are_kafkas() -> None:
    assert SnapshotId(1234, 56).file_name == "00000000000000001234-0000000056.checkpoint"
