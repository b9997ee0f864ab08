"""Several drivers whose messages pass through a queue: what a transport has to add for a real quorum is
only that.
"""

from __future__ import annotations

import pytest

from odradek.raft.config import RaftConfig
from odradek.raft.effects import AddVoter, RemoveVoter
from odradek.raft.raft_driver import NotLeader
from odradek.raft.testing.node import DriverCluster, DriverNode
from odradek.raft.voters import ReplicaKey, Voter, VoterSet
from odradek.wire.errors import ErrorCode


def started(voters: int, observers: int = 0, config: RaftConfig | None = None) -> DriverCluster:
    cluster = DriverCluster(voters, observers, config=config)
    cluster.start()
    cluster.run(3000)
    return cluster


def fill(cluster: DriverCluster, count: int, label: bytes = b"record") -> None:
    leader = cluster.leader()
    for number in range(count):
        leader.append(b"%s %d" % (label, number), b"and")
    cluster.run(500)


def states(cluster: DriverCluster) -> list[list[bytes]]:
    return [node.listener.records for node in cluster.running()]


def assert_equal_states(cluster: DriverCluster, count: int) -> None:
    first, *others = states(cluster)
    assert len(first) == count
    assert all(other == first for other in others)
    assert [node.listener.fatal for node in cluster.running()] == [None] * len(cluster.running())


@pytest.mark.parametrize(("voters", "observers"), [(3, 0), (3, 2), (5, 0), (2, 0), (1, 2)])
def test_what_the_leader_appends_every_replica_applies(voters: int, observers: int) -> None:
    cluster = started(voters, observers)
    fill(cluster, 20)
    assert_equal_states(cluster, 40)
    assert {node.driver.leader_id for node in cluster.running()} == {cluster.leader().me.id}


def test_another_voter_takes_over_when_the_leader_dies_and_the_old_one_follows_later() -> None:
    cluster = started(3)
    fill(cluster, 5)
    old = cluster.leader()
    old.crash()
    cluster.run(3000)
    new = cluster.leader()
    assert new.driver.epoch > 1
    fill(cluster, 5, b"later")
    old.start()
    cluster.run(2000)
    assert not old.driver.is_leader
    assert_equal_states(cluster, 20)


def test_what_a_cut_off_leader_appended_is_truncated_and_never_shown() -> None:
    cluster = started(3)
    fill(cluster, 2)
    old = cluster.leader()
    cluster.network.cut_off.add(old.me.id)
    old.append(b"never committed")
    cluster.run(4000)
    assert not old.driver.is_leader
    assert old.listener.diary[-1] == "resign 1"
    with pytest.raises(NotLeader):
        old.append(b"nor this")
    fill(cluster, 3, b"other")
    cluster.network.cut_off.clear()
    cluster.run(4000)
    assert_equal_states(cluster, 10)


def test_a_leader_that_stops_hands_over_without_a_timeout() -> None:
    cluster = started(3)
    fill(cluster, 2)
    cluster.leader().stop()
    cluster.run(300)
    assert cluster.leader().driver.epoch == 2


def test_a_follower_that_fell_behind_the_log_start_loads_the_snapshot() -> None:
    cluster = started(3, config=RaftConfig(snapshots_retained=1, snapshot_chunk_bytes=100))
    fill(cluster, 5)
    behind = next(node for node in cluster.running() if not node.driver.is_leader)
    behind.kill()
    fill(cluster, 20)
    assert cluster.leader().snapshot()
    fill(cluster, 2, b"after")
    behind.start()
    cluster.run(3000)
    assert any(line.startswith("snapshot 5") for line in behind.listener.diary), behind.listener.diary
    assert_equal_states(cluster, 54)
    behind.crash()
    behind.start()
    cluster.run(1000)
    assert_equal_states(cluster, 54)
    voters = behind.driver._core.voters.current  # type: ignore[union-attr]
    assert voters.ids == (1, 2, 3)


def test_an_empty_observer_loads_the_snapshot_of_a_quorum_of_one() -> None:
    cluster = DriverCluster(1, 1, config=RaftConfig(snapshots_retained=1))
    (node, observer) = cluster.nodes.values()
    node.start()
    cluster.run(100)
    fill(cluster, 10)
    assert node.snapshot()
    fill(cluster, 1)
    observer.start()
    cluster.run(1000)
    assert observer.listener.diary[0] == "snapshot 23-1"
    assert_equal_states(cluster, 22)


def test_a_damaged_download_is_fetched_again() -> None:
    cluster = DriverCluster(1, 1, config=RaftConfig(snapshots_retained=1))
    (node, observer) = cluster.nodes.values()
    node.start()
    cluster.run(100)
    fill(cluster, 10)
    assert node.snapshot()
    fill(cluster, 1)
    observer.start()
    _flip_first_chunk(observer)
    cluster.run(1000)
    assert_equal_states(cluster, 22)


def _flip_first_chunk(observer: DriverNode) -> None:
    log = observer.driver._log
    assert log is not None
    plain = log.write_chunk

    def damaged(snapshot, position, data):  # type: ignore[no-untyped-def]
        log.write_chunk = plain  # type: ignore[method-assign]
        plain(snapshot, position, bytes([data[0] ^ 1]) + data[1:])

    log.write_chunk = damaged  # type: ignore[method-assign]


def test_the_leader_describes_followers_and_observers() -> None:
    cluster = started(3, 1)
    fill(cluster, 3)
    status = cluster.leader().driver.describe_quorum()
    end = cluster.leader().driver.end_offset
    assert [(replica.key.id, replica.log_end_offset) for replica in status.voters] == [
        (1, end),
        (2, end),
        (3, end),
    ]
    assert [(replica.key.id, replica.log_end_offset) for replica in status.observers] == [(4, end)]
    assert all(replica.last_fetch_ms > 1_600_000_000_000 for replica in status.voters + status.observers)


def changed(node: DriverNode, change: AddVoter | RemoveVoter) -> list[tuple[ErrorCode, str]]:
    """Ask for the change; where its outcome will stand."""
    ends: list[tuple[ErrorCode, str]] = []
    node.driver.change_voters(change, lambda error, reason: ends.append((error, reason)))
    return ends


def test_an_observer_that_keeps_up_becomes_a_voter_and_everybody_is_told() -> None:
    cluster = started(3, observers=1)
    fill(cluster, 5)
    told: list[tuple[int, ...]] = []
    cluster.nodes[4].driver.on_voters = lambda voters: told.append(voters.ids)
    ends = changed(cluster.leader(), AddVoter(Voter(cluster.nodes[4].me)))
    assert ends == []
    cluster.run(500)
    assert ends == [(ErrorCode.NONE, "")]
    assert told == [(1, 2, 3, 4)]
    assert {node.driver.voters.ids for node in cluster.running()} == {(1, 2, 3, 4)}


def test_one_change_of_the_voters_at_a_time_and_each_asker_hears_of_its_own() -> None:
    cluster = started(3, observers=2)
    fill(cluster, 5)
    leader = cluster.leader()
    first = changed(leader, AddVoter(Voter(cluster.nodes[4].me)))
    second = changed(leader, AddVoter(Voter(cluster.nodes[5].me)))
    assert first == []
    assert [error for error, _ in second] == [ErrorCode.REQUEST_TIMED_OUT]
    cluster.run(500)
    assert first == [(ErrorCode.NONE, "")]
    assert len(second) == 1
    assert leader.driver.voters.ids == (1, 2, 3, 4)


def test_a_leader_that_is_removed_answers_and_makes_room_and_all_restart_without_it() -> None:
    cluster = started(3)
    fill(cluster, 5)
    old = cluster.leader()
    ends = changed(old, RemoveVoter(old.me))
    cluster.run(3000)
    assert ends == [(ErrorCode.NONE, "")]
    left = tuple(sorted(set(cluster.nodes) - {old.me.id}))
    assert cluster.leader() is not old
    for node in cluster.nodes.values():
        node.crash()
    cluster.start()
    cluster.run(3000)
    assert {node.driver.voters.ids for node in cluster.running()} == {left}
    fill(cluster, 2)
    assert_equal_states(cluster, 14)


def test_a_change_whose_leader_stops_or_is_none_is_told_that_nobody_knows() -> None:
    cluster = started(3, observers=1)
    leader = cluster.leader()
    follower = next(node for node in cluster.running() if node is not leader)
    change = AddVoter(Voter(cluster.nodes[4].me))
    assert [error for error, _ in changed(follower, change)] == [ErrorCode.NOT_LEADER_OR_FOLLOWER]
    ends = changed(leader, change)
    assert ends == []
    leader.stop()
    assert [error for error, _ in ends] == [ErrorCode.NOT_LEADER_OR_FOLLOWER]
    assert [error for error, _ in changed(leader, change)] == [ErrorCode.NOT_LEADER_OR_FOLLOWER]


def test_a_node_without_voters_finds_the_leader_through_a_contact() -> None:
    cluster = started(3)
    fill(cluster, 5)
    key = ReplicaKey(9, bytes([9]) * 16)
    joiner = DriverNode(key, VoterSet(), seed=9, clock=cluster.clock, network=cluster.network)
    cluster.nodes[9] = joiner
    joiner.start()
    cluster.run(1000)
    assert joiner.listener.records == []
    follower = next(node for node in cluster.running() if not node.driver.is_leader)
    joiner.driver.contact(follower.me.id)
    cluster.run(1000)
    assert_equal_states(cluster, 10)
    assert joiner.driver.voters.ids == (1, 2, 3)
