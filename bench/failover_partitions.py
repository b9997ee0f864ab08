"""Many partitions lose their leader at once: kill -9 of a node that leads a third of them.

What the two other nodes take *after* the failure was noticed counts: from the moment a survivor's Metadata no longer
names the dead node (it is fenced) to the moment every partition it led has another leader, and to the acknowledgement
(acks=all) of a record in each of them. How long noticing takes stands beside it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection

from bench.clusters import Cluster, brokers_of, describe, until
from bench.raw_client import CREATE_TOPICS_VERSION, PRODUCE_VERSION, Admin, BenchError, check
from bench.raw_frames import BatchShape
from bench.rows import Metrics
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.create_topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from odradek.wire.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)

TOPIC_SIZE = 1_000
PATIENCE_S = 180.0
POLL_S = 0.005
ATTEMPT_MS = 5_000
WITHIN_S = 30.0
"""Noticing, electing and serving may take so long, Kafka's session of 9 s included."""

Partition = tuple[str, int]
Say = Callable[[str], None]


def topics_of(count: int) -> dict[str, int]:
    """Names and sizes of topics with `count` partitions together."""
    sizes = [TOPIC_SIZE] * (count // TOPIC_SIZE) + [count % TOPIC_SIZE] * bool(count % TOPIC_SIZE)
    return {f"many-{number}": size for number, size in enumerate(sizes)}


def measure_partitions(cluster: Cluster, count: int, rounds: int, say: Say) -> list[Metrics]:
    """Start `cluster`, create the partitions, and kill a node `rounds` times."""
    cluster.start()
    topics = topics_of(count)
    began = time.monotonic()
    create(cluster, topics)
    created_s = time.monotonic() - began
    say(f"{cluster.label}: {count} partitions in sync after {created_s:.1f} s")
    found = []
    for number in range(1, rounds + 1):
        metrics = one_round(cluster, topics)
        metrics["created_s"] = created_s
        found.append(metrics)
        say(
            f"{cluster.label} {number}/{rounds} {count} partitions: {metrics['moved']} moved; noticed after "
            f"{metrics['fenced_ms']:.0f} ms, then led after {metrics['led_ms']:.0f} ms, serving after "
            f"{metrics['serving_ms']:.0f} ms; all in sync {metrics['in_sync_s']:.1f} s after the restart"
        )
    return found


def create(cluster: Cluster, topics: dict[str, int]) -> None:
    """One topic at a time; all replicas in sync, and a record in each partition."""
    for name, size in topics.items():
        topic = CreatableTopic(
            name=name,
            num_partitions=size,
            replication_factor=len(cluster.nodes),
            configs=[CreatableTopicConfig(name="min.insync.replicas", value="2")],
        )
        request = CreateTopicsRequest(topics=[topic], timeout_ms=60_000)
        with Admin(cluster.port, timeout_s=PATIENCE_S) as admin:
            answer = admin.ask(request, CREATE_TOPICS_VERSION, CreateTopicsResponse)
        error = answer.topics[0].error_code
        if error != ErrorCode.TOPIC_ALREADY_EXISTS:  # a broker that had no answer asked the controller again
            check(error, f"CreateTopics {name}")
        until(lambda name=name, size=size: in_sync(cluster, {name: size}), f"{name}: not in sync", PATIENCE_S)  # type: ignore[misc]
    produce_everywhere(cluster, leaders(cluster, topics), topics, time.monotonic() + PATIENCE_S)


def one_round(cluster: Cluster, topics: dict[str, int]) -> Metrics:
    controller = cluster.controller()
    led = Counter(leaders(cluster, topics).values())
    del led[controller]  # an election of controllers is another measurement
    victim, moved = led.most_common(1)[0]
    before = leaders(cluster, topics)
    mine = {partition for partition, leader in before.items() if leader == victim}
    survivor = cluster.survivor(victim)
    began = time.monotonic()
    cluster.kill(victim)
    deadline = began + WITHIN_S
    with Admin(survivor.port, timeout_s=WITHIN_S) as admin:
        until(lambda: victim not in brokers_of(admin), "the node was not fenced", WITHIN_S, poll_s=POLL_S)
        fenced = time.monotonic()
        until(
            lambda: moved_on(admin, topics, mine, victim),
            "partitions without a leader",
            WITHIN_S,
            poll_s=POLL_S,
        )
        led_at = time.monotonic()
    after = leaders(cluster, topics)
    produce_everywhere(cluster, {partition: after[partition] for partition in mine}, topics, deadline)
    serving = time.monotonic()
    resident = max(cluster.resident_mb())
    restarted = time.monotonic()
    cluster.ready_s(victim)
    until(lambda: in_sync(cluster, topics), "not in sync again", PATIENCE_S, poll_s=0.1)
    return {
        "moved": moved,
        "fenced_ms": (fenced - began) * 1_000,
        "led_ms": (led_at - fenced) * 1_000,
        "serving_ms": (serving - fenced) * 1_000,
        "in_sync_s": time.monotonic() - restarted,
        "node_rss_mb": resident,
    }


def leaders(cluster: Cluster, topics: dict[str, int]) -> dict[Partition, int]:
    with Admin(cluster.port, timeout_s=PATIENCE_S) as admin:
        answer = describe(admin, topics)
    return {
        (topic.name or "", each.partition_index): each.leader_id
        for topic in answer.topics
        for each in topic.partitions
    }


def moved_on(admin: Admin, topics: dict[str, int], mine: Collection[Partition], victim: int) -> bool:
    """Whether each of the partitions in `mine` has a living leader in this node's Metadata."""
    answer = describe(admin, topics)
    return sum(
        each.leader_id not in (victim, -1)
        for topic in answer.topics
        for each in topic.partitions
        if (topic.name, each.partition_index) in mine
    ) == len(mine)


def in_sync(cluster: Cluster, topics: dict[str, int]) -> bool:
    with Admin(cluster.port, timeout_s=PATIENCE_S) as admin:
        answer = describe(admin, topics)
    partitions = [each for topic in answer.topics for each in topic.partitions]
    nodes = len(cluster.nodes)
    return len(partitions) == sum(topics.values()) and all(
        each.leader_id > 0 and len(each.isr_nodes) == nodes for each in partitions
    )


def produce_everywhere(
    cluster: Cluster, wanted: dict[Partition, int], topics: dict[str, int], deadline: float
) -> None:
    """A record (acks=all) into each partition of `wanted` (and its leader), those that are refused again."""
    left = dict(wanted)
    while left:
        left = dict.fromkeys(refused(cluster, left), -1)
        if left:
            if time.monotonic() > deadline:
                raise BenchError(f"{len(left)} of {len(wanted)} partitions take no record")
            known = leaders(cluster, topics)
            left = {partition: known[partition] for partition in left}


def refused(cluster: Cluster, left: dict[Partition, int]) -> list[Partition]:
    """Send every leader one request with all its partitions; which of them were not taken."""
    bad = [partition for partition, leader in left.items() if leader not in cluster.nodes]
    asked = []
    for node_id, node in cluster.nodes.items():
        own = [partition for partition, leader in left.items() if leader == node_id]
        if own and node.process is None:
            bad += own
        elif own:
            request = produce_request(own)
            admin = Admin(node.port, timeout_s=PATIENCE_S)
            admin.send(request, PRODUCE_VERSION)
            asked.append((admin, request))
    for admin, request in asked:
        with admin:
            answer = admin.receive(request, PRODUCE_VERSION, ProduceResponse)
        bad += [
            (topic.name, each.index)
            for topic in answer.responses
            for each in topic.partition_responses
            if each.error_code != ErrorCode.NONE
        ]
    return bad


def produce_request(partitions: list[Partition]) -> ProduceRequest:
    batch = BatchShape(1, 100).build()
    by_topic: dict[str, list[PartitionProduceData]] = {}
    for name, index in partitions:
        by_topic.setdefault(name, []).append(PartitionProduceData(index=index, records=batch))
    return ProduceRequest(
        acks=-1,
        timeout_ms=ATTEMPT_MS,
        topic_data=[TopicProduceData(name=name, partition_data=data) for name, data in by_topic.items()],
    )
