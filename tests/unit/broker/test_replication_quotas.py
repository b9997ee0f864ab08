"""From the configurations of topics and brokers to the quotas of replication (KIP-73)."""

from __future__ import annotations

from odradek.broker.replication_quotas import ReplicationQuotas
from odradek.replication.throttle import ReplicationQuota

TOPIC, BROKER = 2, 4
LEADERS = "leader.replication.throttled.replicas"
FOLLOWERS = "follower.replication.throttled.replicas"
LEADER_RATE = "leader.replication.throttled.rate"
FOLLOWER_RATE = "follower.replication.throttled.rate"


class Bench:
    """Broker 1."""

    def __init__(self) -> None:
        self.leader, self.follower = ReplicationQuota(), ReplicationQuota()
        self.quotas = ReplicationQuotas(1, self.leader, self.follower)
        self.configs: dict[tuple[int, str], dict[str, str]] = {}

    def set(self, kind: int, resource: str, **values: str) -> None:
        self.configs[kind, resource] = {key.replace("_", "."): value for key, value in values.items()}
        self.quotas.configs_changed({(kind, resource)}, self.configs, 0)

    def remove(self, kind: int, resource: str) -> None:
        del self.configs[kind, resource]
        self.quotas.configs_changed({(kind, resource)}, self.configs, 0)


def test_listed_replicas_of_this_broker_are_throttled_once_there_is_a_rate() -> None:
    bench = Bench()
    bench.set(TOPIC, "t", **{LEADERS: "0:1,1:2,2:1", FOLLOWERS: "1:1"})
    assert not bench.leader.applies(("t", 0)), "no rate"
    bench.set(BROKER, "1", **{LEADER_RATE: "1000"})
    assert [bench.leader.applies(("t", index)) for index in range(4)] == [True, False, True, False]
    assert not bench.leader.applies(("u", 0))
    assert not bench.follower.applies(("t", 1)), "it has a rate of its own"
    bench.set(BROKER, "1", **{LEADER_RATE: "1000", FOLLOWER_RATE: "5"})
    assert bench.follower.applies(("t", 1))


def test_a_star_stands_for_all_replicas() -> None:
    bench = Bench()
    bench.set(BROKER, "1", **{FOLLOWER_RATE: "1000"})
    bench.set(TOPIC, "t", **{FOLLOWERS: "*"})
    assert bench.follower.applies(("t", 77))
    assert not bench.leader.applies(("t", 77))


def test_the_default_of_all_brokers_counts_where_this_one_has_none() -> None:
    bench = Bench()
    bench.set(TOPIC, "t", **{LEADERS: "*"})
    bench.set(BROKER, "", **{LEADER_RATE: "100"})
    bench.leader.consume(300, 0)
    assert bench.leader.wait_ms(0) == 2_001
    bench.set(BROKER, "2", **{LEADER_RATE: "7"})
    assert bench.leader.wait_ms(0) == 2_001, "another broker's"
    bench.set(BROKER, "1", **{LEADER_RATE: "1000"})
    assert bench.leader.wait_ms(0) == 0, "another rate begins anew"


def test_a_throttle_that_is_removed_is_over() -> None:
    bench = Bench()
    bench.set(TOPIC, "t", **{LEADERS: "*"})
    bench.set(BROKER, "1", **{LEADER_RATE: "100"})
    bench.remove(TOPIC, "t")
    assert not bench.leader.applies(("t", 0))
    bench.set(TOPIC, "t", **{LEADERS: "*"})
    bench.remove(BROKER, "1")
    assert not bench.leader.applies(("t", 0))
