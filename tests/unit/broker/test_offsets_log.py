"""Committed group offsets on a whole node: what `__consumer_offsets` keeps over restarts."""

from __future__ import annotations

from odradek.wire.errors import ErrorCode
from odradek.wire.messages.find_coordinator import FindCoordinatorRequest
from odradek.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from odradek.wire.messages.offset_fetch import OffsetFetchRequest, OffsetFetchRequestTopic
from support.node_harness import Client, NodeHarness


def commit(client: Client, group: str, offset: int, metadata: str = "") -> int:
    partition = OffsetCommitRequestPartition(
        partition_index=0, committed_offset=offset, committed_metadata=metadata
    )
    request = OffsetCommitRequest(
        group_id=group,
        generation_id_or_member_epoch=-1,
        topics=[OffsetCommitRequestTopic(name="t", partitions=[partition])],
    )
    code: int = client.ask(request, 8).topics[0].partitions[0].error_code
    return code


def committed(client: Client, group: str) -> int:
    wanted = [OffsetFetchRequestTopic(name="t", partition_indexes=[0])]
    response = client.ask(OffsetFetchRequest(group_id=group, topics=wanted), 7)
    assert response.error_code == 0
    offset: int = response.topics[0].partitions[0].committed_offset
    return offset


def node_with_offsets_topic() -> NodeHarness:
    node = NodeHarness(offsets__topic__num__partitions="2")
    node.create_topic("t")
    node.client().ask(FindCoordinatorRequest(coordinator_keys=["g"]), 4)
    return node


def test_more_than_one_read_of_offsets_is_loaded() -> None:
    node = node_with_offsets_topic()
    client = node.client()
    for number in range(400):
        assert commit(client, f"g{number % 4}", number, "m" * 4000) == 0
    node.restart()
    client = node.client()
    assert [committed(client, f"g{number}") for number in range(4)] == [396, 397, 398, 399]


def test_a_damaged_offsets_partition_is_told_and_does_not_stop_the_node() -> None:
    node = node_with_offsets_topic()
    client = node.client()
    assert commit(client, "g", 1) == 0
    assert commit(client, "g", 2) == 0
    index = node.node.coordinator.partition_for("g")
    path = f"/data/__consumer_offsets-{index}/{0:020}.log"
    node.stop()
    file = node.disk.open(path)
    damaged = bytearray(file.pread(1 << 20, 0))
    damaged[70] ^= 1
    file.truncate(0)
    file.append([bytes(damaged)])
    file.close()
    node.clock.now_ms += 1000
    node._boot()
    wanted = [OffsetFetchRequestTopic(name="t", partition_indexes=[0])]
    response = node.client().ask(OffsetFetchRequest(group_id="g", topics=wanted), 7)
    assert response.error_code == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert {line[1] for line in node.log.of_level("warning")} == {
        "the groups of a partition cannot be loaded"
    }
