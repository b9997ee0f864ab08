"""What a coordinator knows is the same whether its internal topic was compacted or not (G4)."""

from __future__ import annotations

from random import Random

import pytest

from odradek.storage.compaction import measure
from odradek.wire.messages.delete_groups import DeleteGroupsRequest
from odradek.wire.messages.find_coordinator import FindCoordinatorRequest
from odradek.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from odradek.wire.messages.offset_fetch import OffsetFetchRequest, OffsetFetchRequestTopic
from support.compaction import clean
from support.node_harness import Client, NodeHarness

GROUPS = [f"g{number}" for number in range(6)]
PARTITIONS = 3


@pytest.fixture
def node() -> NodeHarness:
    node = NodeHarness(offsets__topic__num__partitions="2")
    node.create_topic("t", partitions=PARTITIONS)
    node.client().ask(FindCoordinatorRequest(coordinator_keys=["g"]), 4)
    return node


def commit(client: Client, group: str, partition: int, offset: int) -> None:
    entry = OffsetCommitRequestPartition(
        partition_index=partition, committed_offset=offset, committed_metadata=str(offset)
    )
    request = OffsetCommitRequest(
        group_id=group,
        generation_id_or_member_epoch=-1,
        topics=[OffsetCommitRequestTopic(name="t", partitions=[entry])],
    )
    assert client.ask(request, 8).topics[0].partitions[0].error_code == 0


def committed(client: Client) -> dict[str, list[tuple[int, str | None]]]:
    found = {}
    wanted = [OffsetFetchRequestTopic(name="t", partition_indexes=list(range(PARTITIONS)))]
    for group in GROUPS:
        response = client.ask(OffsetFetchRequest(group_id=group, topics=wanted), 7)
        assert response.error_code == 0
        found[group] = [(entry.committed_offset, entry.metadata) for entry in response.topics[0].partitions]
    return found


def compact(node: NodeHarness) -> int:
    """Every partition of the topic, but for what is written after this; how many records have gone."""
    node.advance(1_000)  # the starts of leader epochs are saved: nothing later can be noted as recovered
    gone = 0
    for (topic, _), partition in node.node.partitions.items():
        if topic != "__consumer_offsets":
            continue
        log, now = partition.log, node.clock.wall_ms()
        log.roll(now)
        log.flush_blocking()
        dirty = measure(log, 0, log.last_stable_offset(partition.high_watermark), now)
        if dirty is None:
            continue
        cleaned = clean(log, dirty, now, 1 << 20, node.disk)
        gone += cleaned.records_read - cleaned.records_kept
    return gone


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("later_ms", [0, 48 * 3600 * 1000])
def test_a_load_of_a_compacted_topic_comes_to_the_same_offsets(
    node: NodeHarness, seed: int, later_ms: int
) -> None:
    rng = Random(seed)
    client = node.client()
    for _ in range(3):
        for _ in range(60):
            group = rng.choice(GROUPS)
            if rng.random() < 0.1:
                client.ask(DeleteGroupsRequest(groups_names=[group]), 2)
            else:
                commit(client, group, rng.randrange(PARTITIONS), rng.randrange(1000))
        before = committed(client)
        assert compact(node) > 0
        node.clock.now_ms += later_ms  # tombstones of the cleaning before may go
        assert committed(client) == before
        node.restart()
        client = node.client()
        assert committed(client) == before
    assert any(entry[0] >= 0 for offsets in before.values() for entry in offsets)
