"""Several drivers whose messages pass through a queue: what a transport has to add for a real quorum is
only that.
"""

from __future__ import annotations

import pytest

from odradek.raft.config import RaftConfig
from odradek.raft.raft_driver import NotLeader
from odradek.raft.testing.node import DriverCluster, DriverNode


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
