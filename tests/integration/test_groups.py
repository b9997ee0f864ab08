"""Consumer groups when the node that coordinates them dies."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from integration.clients import TOPIC, Writer, create_topic, persist, settings
from integration.conftest import MakeCluster
from integration.machines import ANSWER_S, PATIENCE_S, TIMEOUT_S, Cluster
from interop.cluster import eventually, unique
from odradek.cli.cluster_view import Peer
from odradek.wire.errors import MalformedMessage
from odradek.wire.messages.find_coordinator import FindCoordinatorRequest, FindCoordinatorResponse

pytestmark = pytest.mark.timeout(TIMEOUT_S)


def coordinator(cluster: Cluster, group: str) -> int:
    """The node that coordinates the group, as all living nodes agree."""

    def said_by(port: int) -> int | None:
        request = FindCoordinatorRequest(key_type=0, coordinator_keys=[group])
        try:
            with Peer(port, ANSWER_S) as peer:
                answer = peer.ask(request, 4, FindCoordinatorResponse).coordinators[0]
        except (OSError, MalformedMessage):  # it has just died, or is very busy
            return None
        return None if answer.error_code else int(answer.node_id)

    def found() -> int:
        living = {
            node.id: said_by(node.port)
            for node in cluster.layout.nodes
            if node.port is not None and cluster.processes[node.id].state() == "running"
        }
        said = set(living.values())
        agreed = said.pop() if len(said) == 1 else None
        return agreed if agreed in living else 0

    return eventually(found, PATIENCE_S, f"nobody coordinates {group}")


def test_committed_offsets_survive_their_coordinator(cluster: Cluster) -> None:
    create_topic(cluster, partitions=3)
    group = unique("group")
    parts = [TopicPartition(TOPIC, index, 10 + index) for index in range(3)]
    consumer = Consumer(settings(cluster, group_id=group, enable_auto_commit=False))
    persist(lambda: consumer.commit(offsets=parts, asynchronous=False))
    cluster.await_isr("__consumer_offsets", 3, partitions=4)
    for round_ in range(2):
        dead = coordinator(cluster, group)
        cluster.kill(dead)
        asked = [TopicPartition(TOPIC, index) for index in range(3)]
        kept = persist(lambda asked=asked: consumer.committed(asked, timeout=PATIENCE_S))
        assert [part.offset for part in kept] == [10 + index + round_ for index in range(3)]
        assert coordinator(cluster, group) != dead
        for part in parts:
            part.offset += 1
        persist(lambda: consumer.commit(offsets=parts, asynchronous=False))
        cluster.start(dead)
        cluster.await_isr("__consumer_offsets", 3, partitions=4)
    consumer.close()


CLASSIC = {"session_timeout_ms": 30_000, "heartbeat_interval_ms": 500}
STICKY = {**CLASSIC, "partition_assignment_strategy": "cooperative-sticky"}
CONSUMER = {"group_protocol": "consumer"}


@pytest.mark.parametrize("protocol", [CLASSIC, STICKY, CONSUMER], ids=["classic", "sticky", "consumer"])
def test_members_read_on_when_their_coordinator_dies(
    make_cluster: MakeCluster, protocol: dict[str, Any]
) -> None:
    """Two members see every record at least once, and none twice that was committed before."""
    cluster = make_cluster(
        group_consumer_min_heartbeat_interval_ms="500", group_consumer_heartbeat_interval_ms="500"
    )
    cluster.start()
    create_topic(cluster, partitions=4)
    group = unique("group")
    options = settings(
        cluster, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False, **protocol
    )
    members = [Consumer(options), Consumer(options)]
    for member in members:
        member.subscribe([TOPIC])
    writer = Writer(cluster, partitions=4)
    seen: dict[tuple[int, int], int] = {}

    def read_on(until: int) -> bool:
        for member in members:
            messages = [each for each in member.consume(500, 0.05) if each.error() is None]
            for message in messages:
                seen[message.partition(), message.offset()] = int(message.value())
            if messages:
                member.commit(asynchronous=True)
        return len(seen) >= until

    def both_have_work() -> bool:
        read_on(0)
        return all(len(member.assignment()) == 2 for member in members)

    eventually(both_have_work, PATIENCE_S, "the members did not share the topic", every_s=0)
    cluster.await_isr("__consumer_offsets", 3, partitions=4)
    for _ in range(2):
        dead = coordinator(cluster, group)
        cluster.kill(dead)
        target = len(seen) + 500
        eventually(lambda: read_on(target), PATIENCE_S, "the members do not read on", every_s=0)  # noqa: B023
        cluster.start(dead)
    writer.finish()
    eventually(lambda: read_on(writer.sent), PATIENCE_S, "the members did not read the rest", every_s=0)
    assert sorted(seen.values()) == list(range(writer.sent))
    admin = AdminClient(settings(cluster))

    def is_as_before() -> bool:
        read_on(0)  # members that are not asked for records do not take part
        described = persist(lambda: admin.describe_consumer_groups([group])[group].result(PATIENCE_S))
        return described.state.name == "STABLE" and len(described.members) == 2

    eventually(is_as_before, PATIENCE_S, "the group is not stable")
    for member in members:
        member.close()
