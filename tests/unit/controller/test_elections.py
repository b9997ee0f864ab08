"""Elections that the controller holds on its own: for preferred leaders, and where there is no leader."""

from __future__ import annotations

import pytest

from odradek.controller import elections
from odradek.controller.quorum_controller import NEXT_ROUND_MS
from odradek.metadata.records import NO_LEADER, RECOVERED, RECOVERING
from odradek.wire.errors import ErrorCode, KafkaError
from unit.controller.controller_harness import Harness, alter_isr, set_config, violations

UNCLEAN = "unclean.leader.election.enable"


class Cluster(Harness):
    """Brokers 1 to 3, which are heard of as time passes."""

    def live(self, ms: int) -> None:
        for _ in range(ms // 1_000):
            for broker in list(self.image.brokers.values()):
                if not broker.fenced:
                    self.heartbeat(broker.id)
            self.pass_time(1_000)


def cluster(**config: object) -> Cluster:
    cluster = Cluster(**config)
    cluster.start_brokers(1, 2, 3)
    return cluster


def leaders(cluster: Cluster, name: str) -> list[int]:
    return [partition.leader for partition in cluster.image.topics[name].partitions.values()]


def after_a_restart_of_broker_1(cluster: Cluster, *replicas: list[int]) -> None:
    """Broker 1 is in sync again, and leads nothing."""
    cluster.create("a", *replicas)
    cluster.fence(1)
    cluster.heartbeat(1)
    for number in range(len(replicas)):
        partition = cluster.partition("a", number)
        alter_isr(cluster, "a", partition.leader, sorted(partition.replicas), number)


def test_leadership_goes_back_to_preferred_replicas_in_time() -> None:
    harness = cluster(leader_imbalance_check_interval_ms=20_000)
    after_a_restart_of_broker_1(harness, [1, 2, 3], [2, 1, 3], [1, 3, 2])
    assert leaders(harness, "a") == [2, 2, 3]
    harness.live(19_000)
    assert leaders(harness, "a") == [2, 2, 3]
    harness.live(2_000)
    assert leaders(harness, "a") == [1, 2, 1]
    assert list(violations(harness.state)) == []


def test_leadership_does_not_go_to_a_replica_that_is_not_in_sync() -> None:
    harness = cluster(leader_imbalance_check_interval_ms=20_000)
    after_a_restart_of_broker_1(harness, [1, 2, 3])
    alter_isr(harness, "a", 2, [2, 3])
    harness.live(21_000)
    assert leaders(harness, "a") == [2]
    alter_isr(harness, "a", 2, [1, 2, 3])
    harness.live(20_000)
    assert leaders(harness, "a") == [1]


def test_leadership_stays_where_rebalancing_is_off() -> None:
    harness = cluster(leader_imbalance_check_interval_ms=20_000, auto_leader_rebalance_enable=False)
    after_a_restart_of_broker_1(harness, [1, 2, 3])
    harness.live(60_000)
    assert leaders(harness, "a") == [2]


def test_many_elections_are_held_in_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elections, "ELECTIONS_PER_ROUND_MAX", 2)
    harness = cluster(leader_imbalance_check_interval_ms=20_000)
    after_a_restart_of_broker_1(harness, *[[1, 2]] * 5)
    harness.live(20_000)
    assert leaders(harness, "a").count(1) == 2
    harness.pass_time(NEXT_ROUND_MS)
    assert leaders(harness, "a").count(1) == 4
    harness.pass_time(NEXT_ROUND_MS)
    assert leaders(harness, "a").count(1) == 5
    offset = harness.log.end_offset
    harness.live(21_000)
    assert harness.log.end_offset == offset


def lose_leader(harness: Cluster) -> None:
    """Topic a of brokers 1 and 2: 2 falls behind, then 1 dies; 2 is there, but not eligible."""
    harness.create("a", [1, 2], configs={"min.insync.replicas": "1"})
    alter_isr(harness, "a", 1, [1])
    harness.fence(1)
    assert (harness.partition("a").leader, harness.partition("a").elr) == (NO_LEADER, (1,))


def test_a_topic_that_begins_to_allow_unclean_elections_gets_a_leader_at_once() -> None:
    harness = cluster()
    lose_leader(harness)
    set_config(harness, "a", UNCLEAN, "true")
    partition = harness.partition("a")
    assert (partition.leader, partition.isr, partition.elr) == (2, (2,), ())
    assert partition.leader_recovery_state == RECOVERING


def test_the_clusters_default_counts_for_topics_without_a_choice_of_their_own() -> None:
    harness = cluster()
    lose_leader(harness)
    set_config(harness, "a", UNCLEAN, "false")
    set_config(harness, "", UNCLEAN, "true")
    assert harness.partition("a").leader == NO_LEADER
    set_config(harness, "a", UNCLEAN, None)
    assert harness.partition("a").leader == 2


def test_leaders_are_looked_for_from_time_to_time() -> None:
    harness = cluster(unclean_election_interval_ms=20_000)
    lose_leader(harness)
    harness.state.image.topics["a"].partitions[0].elr = (2,)  # as if an occasion had been missed
    harness.loader.image.topics["a"].partitions[0].elr = (2,)
    harness.live(19_000)
    assert harness.partition("a").leader == NO_LEADER
    harness.live(2_000)
    assert (harness.partition("a").leader, harness.partition("a").leader_recovery_state) == (2, RECOVERED)


def test_a_new_controller_holds_elections_too_and_the_old_one_none() -> None:
    harness = cluster(leader_imbalance_check_interval_ms=20_000)
    after_a_restart_of_broker_1(harness, [1, 2, 3])
    harness.controller.on_resign()
    assert len(harness.timers) == 0
    harness.become_leader()
    harness.live(21_000)
    assert leaders(harness, "a") == [1]


def test_losing_leadership_in_an_election_ends_the_rounds() -> None:
    harness = cluster(leader_imbalance_check_interval_ms=2_000)
    after_a_restart_of_broker_1(harness, [1, 2, 3])
    harness.log.failure = KafkaError(ErrorCode.NOT_CONTROLLER)
    harness.pass_time(2_000)
    assert not harness.controller.active
    assert len(harness.timers) == 0
