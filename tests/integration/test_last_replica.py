"""The only broker that has everything is killed. It comes back as what it was, unless it has lost something: with the
same boot id of the machine and no damage, the page cache has all that was acknowledged.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from integration.clients import TOPIC, Writer, create_topic, verify
from integration.machines import PATIENCE_S, TIMEOUT_S, Cluster
from interop.cluster import eventually
from odradek.metadata.records import RegisterBrokerRecord
from odradek.wire.records import iter_batches

pytestmark = [
    pytest.mark.timeout(TIMEOUT_S),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the boot id is read on Linux only"),
]


def left_alone_and_killed(cluster: Cluster) -> tuple[Writer, int, int]:
    """(what one replica has acknowledged alone, the other replica, this one): both are dead."""
    create_topic(cluster, replication=2, min_insync_replicas="1")
    writer = Writer(cluster)
    writer.await_more()
    last = cluster.leader(TOPIC)
    other = next(node for node in cluster.partition(TOPIC).replica_nodes if node != last)
    cluster.kill(other)
    cluster.await_led_without(TOPIC, other)
    writer.await_more()
    cluster.kill(last)
    return writer, other, last


def registrations(cluster: Cluster, broker_id: int) -> list[RegisterBrokerRecord]:
    """As the broker's own metadata log has them, in order."""
    return [
        record
        for record in cluster.metadata_records(broker_id)
        if isinstance(record, RegisterBrokerRecord) and record.broker_id == broker_id
    ]


def test_a_killed_last_replica_leads_again(cluster: Cluster) -> None:
    writer, other, last = left_alone_and_killed(cluster)
    cluster.start(other)
    found = eventually(lambda: cluster.partition(TOPIC, ask=other), PATIENCE_S, "the topic is not known")
    assert found.leader_id != other
    cluster.start(last)
    assert cluster.leader(TOPIC) == last
    cluster.await_isr(TOPIC, 2)
    writer.await_more()
    writer.finish()
    verify(cluster, writer)
    first, second = registrations(cluster, last)
    assert second.complete_epoch == first.broker_epoch


def newest_segment(directory: Path) -> Path:
    return max(directory.glob(f"{TOPIC}-0/*.log"))


def test_a_last_replica_whose_tail_was_interrupted_has_lost_nothing(cluster: Cluster) -> None:
    """What kill -9 leaves of a write in the middle: the beginning of a batch of which nobody was told."""
    writer, other, last = left_alone_and_killed(cluster)
    path = newest_segment(cluster.data(last))
    batch = bytearray(path.read_bytes()[:100])
    batch[:12] = (1 << 40).to_bytes(8, "big") + (10_000).to_bytes(4, "big")
    with path.open("ab") as file:
        file.write(batch)
    cluster.start(other)
    cluster.start(last)
    assert cluster.leader(TOPIC) == last
    writer.await_more()
    writer.finish()
    verify(cluster, writer)
    first, second = registrations(cluster, last)
    assert second.complete_epoch == first.broker_epoch


def test_a_last_replica_whose_tail_is_damaged_comes_back_as_one_that_lost_something(cluster: Cluster) -> None:
    """It leads all the same, as Kafka's last known leader, which metadata remembers as an unclean election."""
    writer, other, last = left_alone_and_killed(cluster)
    writer.abandon()
    path = newest_segment(cluster.data(last))
    content = bytearray(path.read_bytes())
    # Behind the last whole batch kill -9 can have left the beginning of one, which would not be missed.
    end = max(position + header.size for position, header in iter_batches(content))
    content[end - 3] ^= 1
    path.write_bytes(content[:end])
    cluster.start(other)
    cluster.start(last)
    assert cluster.leader(TOPIC) == last
    assert registrations(cluster, last)[-1].complete_epoch == -1
