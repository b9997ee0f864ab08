"""Voter sets, and their history along a log that grows, is truncated and trimmed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odradek.raft.testing.node import static_voters
from odradek.raft.voters import ReplicaKey, Voter, VoterHistory, VoterSet


def key(replica_id: int, directory: int = 7) -> ReplicaKey:
    return ReplicaKey(replica_id, bytes([directory]) * 16)


def voters(*ids: int) -> VoterSet:
    return VoterSet.of(Voter(key(replica_id)) for replica_id in ids)


def test_a_wiped_disk_is_another_voter() -> None:
    assert voters(1, 2).contains(key(1))
    assert not voters(1, 2).contains(key(1, directory=8))


def test_a_static_voter_is_known_by_its_id_alone() -> None:
    static = static_voters(3, 1, 2)
    assert static.ids == (1, 2, 3)
    assert static.contains(key(1, directory=8))
    assert static.canonical(key(1, directory=8)) == ReplicaKey(1)
    assert not static.has_all_directories
    assert voters(1).has_all_directories


@pytest.mark.parametrize(("size", "majority"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_majority(size: int, majority: int) -> None:
    assert voters(*range(size)).majority == majority


def test_changes_are_counted_by_voter() -> None:
    assert voters(1, 2).changes_to(voters(1, 2, 3)) == 1
    assert voters(1, 2).changes_to(voters(1, 3)) == 2
    assert voters(1, 2).with_voter(Voter(key(0))).without(key(1)).ids == (0, 2)


def test_an_id_is_in_a_set_once() -> None:
    with pytest.raises(AssertionError):
        voters(1).with_voter(Voter(key(1, directory=9)))


def test_the_last_record_counts_and_truncation_brings_the_one_before_back() -> None:
    history = VoterHistory(voters(1))
    history.append(4, voters(1, 2))
    history.append(9, voters(1, 2, 3))
    assert (history.current, history.previous, history.last_offset) == (voters(1, 2, 3), voters(1, 2), 9)
    assert (history.at(10), history.at(9), history.at(4)) == (voters(1, 2, 3), voters(1, 2), None)
    history.truncate_to(9)
    assert (history.current, history.previous) == (voters(1, 2), voters(1))
    history.truncate_to(0)
    assert (history.current, history.last_offset) == (voters(1), -1)


@given(st.sets(st.integers(0, 30)), st.integers(0, 31))
def test_a_snapshot_and_the_trimmed_history_name_the_same_voters(offsets: set[int], start: int) -> None:
    full, trimmed = VoterHistory(voters(9)), VoterHistory(voters(9))
    for offset in sorted(offsets):
        full.append(offset, voters(9, 10 + offset))
        trimmed.append(offset, voters(9, 10 + offset))
    trimmed.trim(start)
    assert [trimmed.at(end) for end in range(start, 33)] == [full.at(end) for end in range(start, 33)]
    assert trimmed.current == full.current


def test_a_snapshot_restarts_the_history() -> None:
    history = VoterHistory(voters(1))
    history.append(3, voters(1, 2))
    history.restart_at(20, voters(1, 5))
    assert (history.current, history.at(20)) == (voters(1, 5), voters(1, 5))
    history.truncate_to(20)
    assert history.current == voters(1, 5)
    history.restart_at(30, None)
    assert history.current == voters(1)
