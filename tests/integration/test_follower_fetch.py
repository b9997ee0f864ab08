"""A consumer reads from the replica in its own rack (KIP-392), and goes on elsewhere when that dies."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, TopicPartition

from integration.clients import TOPIC, Writer, create_topic, settings
from integration.conftest import MakeCluster
from integration.machines import PATIENCE_S, STEADY, TIMEOUT_S, Cluster
from interop.cluster import eventually, unique

pytestmark = pytest.mark.timeout(TIMEOUT_S)

RACK_AWARE = "org.apache.kafka.common.replica.RackAwareReplicaSelector"


@pytest.fixture
def racks(make_cluster: MakeCluster) -> Cluster:
    """Three nodes, each in a rack of its own that is named after it."""
    cluster = make_cluster(replica_selector_class=RACK_AWARE, **STEADY)
    for node in cluster.layout.nodes:
        with cluster.layout.properties_file(node).open("a") as file:
            file.write(f"\nbroker.rack=rack-{node.id}\n")
    cluster.start()
    return cluster


def bytes_out(cluster: Cluster, node_id: int) -> float:
    """What this node has sent to consumers of the topic, as its metrics have it."""
    port = cluster.layout.node(node_id).metrics_port
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.findall(
        rf'^kafka_server_brokertopicmetrics_bytesout_total{{topic="{TOPIC}"}} (\S+)$', text, re.M
    )
    return sum(map(float, found))


@pytest.fixture
def consumers() -> Iterator[list[Consumer]]:
    made: list[Consumer] = []
    yield made
    for consumer in made:
        consumer.close()


def reader(cluster: Cluster, rack: str, made: list[Consumer]) -> Consumer:
    """From the beginning, and whatever comes."""
    consumer = Consumer(
        settings(
            cluster,
            group_id=unique("reader"),
            client_rack=rack,
            enable_auto_commit=False,
            fetch_wait_max_ms=100,
            auto_offset_reset="earliest",
        )
    )
    consumer.assign([TopicPartition(TOPIC, 0, 0)])
    made.append(consumer)
    return consumer


def read_until(consumer: Consumer, number: int, found: list[int]) -> None:
    def there() -> bool:
        found.extend(int(each.value()) for each in consumer.consume(500, 0.2) if each.error() is None)
        return bool(found) and found[-1] >= number

    eventually(there, PATIENCE_S, f"number {number} was not read, the last is {found[-1:]}", every_s=0)


def test_a_consumer_reads_from_the_replica_in_its_rack_and_goes_on_when_that_dies(
    racks: Cluster, consumers: list[Consumer]
) -> None:
    create_topic(racks)
    writer = Writer(racks)
    writer.await_more()
    leader = racks.leader(TOPIC)
    near, other = (node for node in racks.ids if node != leader)
    if near == racks.controller():
        near, other = other, near
    consumer = reader(racks, f"rack-{near}", consumers)
    found: list[int] = []

    def from_near_only() -> bool:
        """The leader sends it there; what it has sent before that, or had in hand, it has sent itself."""
        read_until(consumer, writer.sent, found)
        before = {node: bytes_out(racks, node) for node in racks.ids}
        read_until(consumer, writer.sent + 500, found)
        served = {node: bytes_out(racks, node) - before[node] for node in racks.ids}
        return served[near] > 0 and not served[leader] and not served[other]

    eventually(from_near_only, PATIENCE_S, f"it does not read from {near}, the leader is {leader}")
    racks.kill(near)
    writer.await_more()
    read_until(consumer, writer.sent - 100, found)
    writer.finish()
    read_until(consumer, writer.sent - 1, found)
    assert found == list(range(writer.sent))


def test_a_consumer_whose_rack_has_no_replica_reads_from_the_leader(
    racks: Cluster, consumers: list[Consumer]
) -> None:
    create_topic(racks)
    writer = Writer(racks)
    writer.await_more()
    writer.finish()
    leader = racks.leader(TOPIC)
    found: list[int] = []
    read_until(reader(racks, "elsewhere", consumers), writer.sent - 1, found)
    assert found == list(range(writer.sent))
    assert [node for node in racks.ids if bytes_out(racks, node)] == [leader]
