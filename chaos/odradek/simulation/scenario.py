"""What is simulated, as data: nodes, topics, clients, and which faults come how often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TopicPlan:
    partitions: int = 2
    replication: int = 1
    configs: Mapping[str, str] = field(default_factory=dict)

    @property
    def flushes(self) -> bool:
        """Whether it acknowledges only what is fsynced."""
        return self.configs.get("flush.messages") == "1"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of run; the seed draws everything that is left open here."""

    name: str
    about: str
    nodes: int = 1
    """Machines with both roles, unless `controllers` says otherwise."""
    controllers: int = 0
    """Machines with the controller role alone; the others are then brokers alone."""
    dynamic: bool = False
    """The last of the controllers is no voter at first; voters come and go (KIP-853)."""
    topics: Mapping[str, TopicPlan] = field(default_factory=dict)
    producers: int = 2
    plain_producers: int = 1
    consumers: int = 1
    committers: int = 1
    group_members: int = 0
    consumer_members: int = 0
    """By the consumer protocol (KIP-848), in a group of their own."""
    transactional: int = 0
    """Transactional ids, each used by two clients that fence one another."""
    lone: bool = False
    """Each by one client instead: what of it comes late, no other's epoch stops."""
    plain_acks: tuple[int, ...] = (-1, 1, 1, 0)
    """Acks of producers without idempotence, one of these each."""
    bursts: bool = False
    """Whether producers are silent for a while now and then: what a crash finds has stood still then."""
    admin: bool = False
    """Whether topics are created and deleted meanwhile."""
    chaos_ms: int = 4_000
    heal_ms: int = 60_000
    faults: Mapping[str, int] = field(default_factory=dict)
    """Name of a fault (`faults.py`) → weight."""
    fault_interval_ms: tuple[int, int] = (150, 900)
    settings: Mapping[str, str] = field(default_factory=dict)
    """Of every node, over the defaults of the simulation."""
    compaction: bool = False
    """Logs are small and are compacted and cut at their start all the time; somebody asks for DeleteRecords too."""
    within_promises: bool = False
    """Power is lost only where the promises cover it."""


_ONE = {"plain": TopicPlan(2), "flushed": TopicPlan(2, configs={"flush.messages": "1"})}
_BRIEF = {"flushed": TopicPlan(2, configs={"flush.messages": "1"})}
_FLUSHED = {"flushed": TopicPlan(3, configs={"flush.messages": "1"})}
_THREE = {"three": TopicPlan(2, 3), "flushed": TopicPlan(1, 3, {"flush.messages": "1"})}
_SAFE = {"min.insync.replicas": "2"}
_HASTY = {
    **_SAFE,
    "replica.lag.time.max.ms": "600",
    "replica.fetch.wait.max.ms": "300",
    "broker.session.timeout.ms": "900",
    "broker.heartbeat.interval.ms": "150",
}
_SNAPSHOTS = {"metadata.log.max.record.bytes.between.snapshots": "6000"}
_COMPACTS = {
    "log.cleaner.backoff.ms": "150",
    "log.cleaner.min.cleanable.ratio": "0.01",
    "log.cleaner.delete.retention.ms": "3000",
    "log.roll.ms": "250",
    "log.segment.delete.delay.ms": "400",
    "log.retention.check.interval.ms": "600",
}


def _compacted(replicas: int) -> dict[str, TopicPlan]:
    return {
        "compact": TopicPlan(2, replicas, {"cleanup.policy": "compact"}),
        "both": TopicPlan(1, replicas, {"cleanup.policy": "compact,delete", "retention.ms": "2500"}),
        "deleted": TopicPlan(1, replicas, {"retention.ms": "2000"}),
    }


_CRASHES = {
    "kill": 6,
    "kill all": 1,
    "restart": 3,
    "pause": 4,
    "slow disk": 2,
    "clock jump": 1,
    "cut streams": 3,
}
_AWAY = {"isolate leader": 3, "pause": 2, "kill": 4, "power loss": 4}
_VIOLENT = {**_AWAY, "cut streams": 4, "lossy controller": 3, "one-way partition": 2, "slow disk": 1}
_VOTER_FAULTS = {"kill": 3, "power loss": 2, "isolate": 3, "pause": 2, "slow disk": 2, "bad network": 1}
_DAMAGE = {"rot": 8, "files lost": 7, "disk replaced": 6}
_PARTITIONS = {
    "slow link": 3,
    "partition": 4,
    "one-way partition": 3,
    "bridge partition": 2,
    "isolate": 5,
    "bad network": 4,
}
_PROCESS = {
    "kill": 6,
    "restart": 3,
    "pause": 3,
    "slow disk": 2,
    "clock jump": 2,
    "bad network": 2,
    "cut clients": 2,
}

SCENARIOS: dict[str, Scenario] = {
    each.name: each
    for each in (
        *(
            Scenario(
                f"brief-{name}",
                f"one node for a second, {about}: many different runs in little time",
                topics=_BRIEF,
                producers=1,
                committers=1,
                group_members=1,
                chaos_ms=900,
                faults=faults,
                fault_interval_ms=(30, 300),
                settings={"log.flush.interval.messages": "1"},
            )
            for name, about, faults in (
                ("kill", "killed", {"kill": 6, "restart": 3, "pause": 2, "files lost": 2, "clock jump": 1}),
                ("power", "power lost", {"power loss": 6, "kill": 2, "restart": 1, "slow disk": 2}),
                ("disk", "its disk full or failing", {"disk full": 3, "disk error": 3, "fsync error": 4}),
            )
        ),
        Scenario(
            "one-kill",
            "one node: kill -9, restarts, pauses, jumping clocks; nothing acknowledged is lost (D1)",
            topics=_ONE,
            faults=_PROCESS,
        ),
        Scenario(
            "one-power",
            "one node: power loss as well; what is fsynced before it is acknowledged stays (D3, D4)",
            topics={**_FLUSHED, "plain": TopicPlan(1, configs={"flush.messages": "1000000"})},
            faults={**_PROCESS, "power loss": 8},
            settings={"log.flush.interval.messages": "1"},
        ),
        Scenario(
            "one-disk",
            "one node: full and failing disks; no partial acknowledgement, nothing lost",
            topics=_ONE,
            faults={"kill": 2, "disk full": 4, "disk error": 4, "slow disk": 3, "fsync error": 4},
        ),
        Scenario(
            "one-write-points",
            "one node: its disk fails at an append, a roll, a vote, a checkpoint, a read (nothing lost, nothing wrong)",
            topics={"plain": TopicPlan(2, configs={"segment.ms": "300"}), "flushed": _ONE["flushed"]},
            producers=1,
            group_members=1,
            transactional=1,
            admin=True,
            chaos_ms=5_000,
            faults={"disk fails at": 8, "kill": 1, "restart": 1},
            fault_interval_ms=(100, 600),
            settings=_SNAPSHOTS,
        ),
        Scenario(
            "three-write-points",
            "three nodes: their disks fail at chosen writes and reads; replicas stay equal, nothing is lost",
            nodes=3,
            topics={"three": TopicPlan(2, 3, {"segment.ms": "300"}), "flushed": _THREE["flushed"]},
            producers=1,
            group_members=1,
            transactional=1,
            admin=True,
            chaos_ms=5_000,
            faults={"disk fails at": 10, "kill": 1, "restart": 1, "isolate": 1},
            fault_interval_ms=(100, 600),
            settings={**_SAFE, **_SNAPSHOTS},
            within_promises=True,
        ),
        Scenario(
            "one-rot",
            "one node: bits flip, indexes, snapshots and checkpoints vanish; nothing wrong is served",
            topics={"plain": TopicPlan(3, configs={"segment.ms": "400"}), "flushed": _ONE["flushed"]},
            faults={"kill": 3, "restart": 2, "files lost": 6, "rot": 1, "power loss": 1},
        ),
        Scenario(
            "one-groups",
            "one node: offsets and group members through kills and power loss (G1 to G4)",
            topics=_FLUSHED,
            producers=1,
            plain_producers=0,
            committers=2,
            group_members=3,
            consumer_members=3,
            chaos_ms=7_000,
            faults={**_PROCESS, "power loss": 2},
            settings={"log.flush.interval.messages": "1"},
        ),
        Scenario(
            "one-topics",
            "one node: topics come and go under load, through kills and power loss (D4)",
            topics=_FLUSHED,
            producers=1,
            admin=True,
            faults={**_PROCESS, "power loss": 2},
        ),
        Scenario(
            "three-crashes",
            "three nodes, replication 3, min.insync 2: crashes, stops, pauses, power loss of one (D1, D2)",
            nodes=3,
            topics=_THREE,
            faults={**_CRASHES, "power loss": 3},
            settings=_SAFE,
            within_promises=True,
        ),
        Scenario(
            "three-partitions",
            "three nodes: partitions of every kind, bad networks, a crash now and then",
            nodes=3,
            topics=_THREE,
            faults={**_PARTITIONS, "kill": 2, "pause": 2, "cut streams": 2, "cut clients": 2},
            settings=_SAFE,
            within_promises=True,
        ),
        Scenario(
            "disks",
            "a controller and three brokers: bits flip, files vanish, disks are replaced (D2)",
            nodes=3,
            controllers=1,
            topics={"three": TopicPlan(2, 3, {"segment.ms": "400"}), "flushed": _THREE["flushed"]},
            committers=1,
            group_members=2,
            chaos_ms=6_000,
            faults={**_DAMAGE, **_CRASHES, "kill all": 0, "power loss": 1},
            settings=_SAFE,
            within_promises=True,
        ),
        Scenario(
            "two-directories",
            "three nodes of two log directories: replicas move between them, and everything else goes wrong (KIP-113)",
            nodes=3,
            topics={"three": TopicPlan(2, 3, {"segment.ms": "400"}), "flushed": _THREE["flushed"]},
            transactional=1,
            committers=1,
            chaos_ms=6_000,
            faults={**_CRASHES, "move": 25, "kill all": 1, "disk error": 2, "fsync error": 1, "slow disk": 2},
            settings={**_SAFE, "log.dirs": "/data,/second", "metadata.log.dir": "/data"},
            within_promises=True,
        ),
        Scenario(
            "one-compaction",
            "one node: logs compacted and cut at their start while it is killed in the middle of swaps (C1 to C7)",
            topics=_compacted(1),
            transactional=1,
            plain_producers=0,
            compaction=True,
            chaos_ms=5_000,
            faults={"ends at": 10, "disk fails at": 3, "kill": 2, "restart": 2, "slow disk": 1},
            fault_interval_ms=(100, 600),
            settings=_COMPACTS,
            within_promises=True,
        ),
        Scenario(
            "three-compaction",
            "three nodes: replicas compacted each in its own time; kills, power loss, failing disks (C1 to C7)",
            nodes=3,
            topics=_compacted(3),
            producers=1,
            transactional=1,
            compaction=True,
            chaos_ms=5_000,
            faults={
                "ends at": 12,
                "disk fails at": 3,
                "kill": 2,
                "restart": 2,
                "power loss": 3,
                "pause": 2,
                "isolate": 2,
                "cut streams": 1,
            },
            fault_interval_ms=(100, 600),
            settings={**_SAFE, **_COMPACTS},
            within_promises=True,
        ),
        Scenario(
            "three-groups",
            "three nodes: group coordinators fail over under members and committers (G1 to G4)",
            nodes=3,
            topics={"three": TopicPlan(3, 3)},
            producers=0,
            plain_producers=0,
            consumers=0,
            committers=2,
            group_members=4,
            consumer_members=4,
            chaos_ms=9_000,
            faults={**_CRASHES, "isolate": 3, "power loss": 2, "cut clients": 2, "pause a coordinator": 5},
            settings=_SAFE,
            within_promises=True,
        ),
        Scenario(
            "one-transactions",
            "one node: transactions through kills, pauses and jumping clocks (T1 to T6)",
            topics=_ONE,
            transactional=2,
            producers=1,
            plain_producers=0,
            consumers=2,
            committers=0,
            chaos_ms=6_000,
            faults=_PROCESS,
        ),
        Scenario(
            "transactions",
            "three nodes: transactions while leaders and coordinators crash, stop, pause, lose power (T1 to T6)",
            nodes=3,
            topics={"three": TopicPlan(3, 3)},
            transactional=3,
            producers=1,
            plain_producers=0,
            consumers=2,
            committers=0,
            chaos_ms=6_000,
            faults={**_CRASHES, "power loss": 3, "cut clients": 3, "pause a coordinator": 5},
            settings=_SAFE,
            within_promises=True,
        ),
        Scenario(
            "transactions-apart",
            "three nodes: transactions across partitions of the network and bad ones (T1 to T6)",
            nodes=3,
            topics={"three": TopicPlan(3, 3)},
            transactional=3,
            producers=0,
            plain_producers=0,
            consumers=2,
            committers=0,
            chaos_ms=6_000,
            faults={
                **_PARTITIONS,
                "kill": 3,
                "pause": 3,
                "cut streams": 3,
                "cut clients": 3,
                "mute a coordinator": 5,
                "mute a client": 8,
            },
            settings=_HASTY,
            within_promises=True,
        ),
        Scenario(
            "transactions-late",
            "three nodes: what transactional producers send arrives when their transaction is over (KIP-890)",
            nodes=3,
            topics={"three": TopicPlan(3, 3)},
            transactional=4,
            lone=True,
            producers=0,
            plain_producers=0,
            consumers=1,
            committers=0,
            chaos_ms=9_000,
            faults={"mute a client": 16, "pause": 1, "kill": 1},
            fault_interval_ms=(100, 500),
            settings=_SAFE,
            within_promises=True,
        ),
        Scenario(
            "transactions-stale",
            "three nodes: markers of a coordinator arrive when another has ended that transaction (T3, T4)",
            nodes=3,
            topics={"three": TopicPlan(2, 3)},
            transactional=4,
            lone=True,
            producers=0,
            plain_producers=0,
            consumers=1,
            committers=0,
            chaos_ms=9_000,
            faults={"kill at a decision": 1},
            fault_interval_ms=(200, 900),
            settings=_HASTY,
            within_promises=True,
        ),
        Scenario(
            "three-all",
            "three nodes: everything at once",
            nodes=3,
            topics=_THREE,
            group_members=2,
            consumer_members=2,
            admin=True,
            faults={**_CRASHES, **_PARTITIONS, "power loss": 3, "disk error": 1, "fsync error": 1},
            settings=_SAFE,
            within_promises=True,
        ),
        Scenario(
            "isr-violent",
            "three nodes, short and violent: leaders cut off, paused and killed while the ISR moves",
            nodes=3,
            topics={"three": TopicPlan(2, 3)},
            committers=0,
            chaos_ms=8_000,
            faults=_VIOLENT,
            fault_interval_ms=(100, 900),
            settings=_HASTY,
            within_promises=True,
        ),
        Scenario(
            "isr-any",
            "a controller and three brokers: whatever goes wrong just when the ISR changes, under writes in bursts",
            nodes=3,
            controllers=1,
            topics={"three": TopicPlan(1, 3)},
            producers=1,
            committers=0,
            bursts=True,
            chaos_ms=9_000,
            faults={"at growth": 8, "at shrink": 8, "dance": 4, **_AWAY},
            fault_interval_ms=(100, 700),
            settings=_HASTY,
            within_promises=True,
        ),
        *(
            Scenario(
                f"isr-{name}",
                f"a controller and three brokers under writes in bursts: {about}",
                nodes=3,
                controllers=1,
                topics={"three": TopicPlan(1, 3)},
                producers=1,
                plain_producers=1,
                committers=0,
                plain_acks=(1,),
                bursts=True,
                chaos_ms=12_000,
                faults=faults,
                fault_interval_ms=(200, 1_000),
                settings={
                    **_SAFE,
                    "replica.lag.time.max.ms": "800" if name == "elections" else "300",
                    "replica.fetch.wait.max.ms": "200",
                    "broker.session.timeout.ms": "1500",
                    "broker.heartbeat.interval.ms": "250",
                },
                within_promises=True,
            )
            for name, about, faults in (
                (
                    "growth",
                    "the leader does not hear that somebody joined",
                    {"at growth": 6, "kill": 3, "pause": 1},
                ),
                (
                    "shrink",
                    "the leader goes just when the ISR has shrunk",
                    {"at shrink": 6, "kill": 4, "power loss": 2},
                ),
                ("losses", "power is lost while nothing moves", {"quiet loss": 6, "kill": 1}),
                ("elections", "leaders go and come back", {"dance": 6, "pause": 1}),
            )
        ),
        Scenario(
            "votes",
            "three controllers that lose power just when they have voted, or just when they lead",
            nodes=3,
            topics={},
            producers=0,
            plain_producers=0,
            consumers=0,
            committers=0,
            admin=True,
            chaos_ms=10_000,
            faults={
                "power loss": 2,
                "kill": 2,
                "isolate": 3,
                "power loss at a vote": 8,
                "kill the controller": 4,
                "power loss while writing": 8,
                "slow disk": 3,
            },
            fault_interval_ms=(100, 700),
            settings={
                "controller.quorum.fetch.timeout.ms": "400",
                "controller.quorum.election.timeout.ms": "400",
            },
        ),
        Scenario(
            "voters",
            "four controllers of which three vote at first: voters are added, removed, lose power and their disks",
            controllers=4,
            dynamic=True,
            topics={},
            producers=0,
            plain_producers=0,
            consumers=0,
            committers=0,
            admin=True,
            chaos_ms=12_000,
            faults={
                **_VOTER_FAULTS,
                "kill the controller": 3,
                "power loss while writing": 4,
                "power loss at a vote": 3,
                "voter replaced": 5,
            },
            fault_interval_ms=(100, 800),
            settings={
                "controller.quorum.fetch.timeout.ms": "400",
                "controller.quorum.election.timeout.ms": "400",
            },
        ),
        Scenario(
            "apart",
            "three controllers and three brokers as separate nodes: crashes and partitions",
            nodes=3,
            controllers=3,
            topics={"three": TopicPlan(2, 3)},
            faults={**_CRASHES, **_PARTITIONS, "power loss": 2},
            settings=_SAFE,
            within_promises=True,
        ),
    )
}
DEFAULT = tuple(SCENARIOS)
"""Seeds go through these in turn."""
