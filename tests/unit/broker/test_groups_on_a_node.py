"""Groups and offsets through a whole node: what is in `__consumer_offsets` is what a restart brings back."""

from __future__ import annotations

import pytest

from odradek.wire.errors import ErrorCode
from odradek.wire.messages.find_coordinator import FindCoordinatorRequest
from odradek.wire.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from odradek.wire.messages.leave_group import LeaveGroupRequest
from odradek.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from odradek.wire.messages.offset_fetch import OffsetFetchRequest, OffsetFetchRequestGroup
from support.node_harness import NodeHarness


@pytest.fixture
def node() -> NodeHarness:
    harness = NodeHarness(offsets__topic__num__partitions="3")
    harness.create_topic("t", 2)
    found = harness.client().ask(FindCoordinatorRequest(coordinator_keys=["g"], key_type=0), 4)
    assert found.coordinators[0].error_code == 0
    return harness


def commit(node: NodeHarness, group: str, offsets: dict[int, int]) -> list[int]:
    partitions = [
        OffsetCommitRequestPartition(partition_index=index, committed_offset=offset, committed_metadata="m")
        for index, offset in offsets.items()
    ]
    request = OffsetCommitRequest(
        group_id=group, topics=[OffsetCommitRequestTopic(name="t", partitions=partitions)]
    )
    response = node.client().ask(request, 8)
    return [each.error_code for each in response.topics[0].partitions]


def committed(node: NodeHarness, group: str) -> dict[int, int]:
    request = OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group_id=group, topics=None)])
    response = node.client().ask(request, 8).groups[0]
    assert response.error_code == 0
    return {
        each.partition_index: each.committed_offset for topic in response.topics for each in topic.partitions
    }


@pytest.mark.parametrize("clean", [True, False])
def test_committed_offsets_survive_a_restart_all_of_them(node: NodeHarness, clean: bool) -> None:
    groups = [f"g{number}" for number in range(20)]
    for round_ in range(3):
        for number, group in enumerate(groups):
            assert commit(node, group, {0: 100 * round_ + number, 1: round_}) == [0, 0]
    node.restart(clean=clean)
    for number, group in enumerate(groups):
        assert committed(node, group) == {0: 200 + number, 1: 2}


def test_an_offset_commit_is_answered_when_its_record_is_in_the_log(node: NodeHarness) -> None:
    assert commit(node, "g", {0: 5}) == [0]
    index = node.node.groups.partition_for("g")
    assert node.node.partitions["__consumer_offsets", index].log.written_end_offset == 1


def test_deleting_a_topic_forgets_its_offsets(node: NodeHarness) -> None:
    from odradek.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState

    commit(node, "g", {0: 5})
    node.client().ask(DeleteTopicsRequest(topics=[DeleteTopicState(name="t")], timeout_ms=1000), 6)
    assert committed(node, "g") == {}


def test_coordinators_of_other_kinds_say_that_they_are_not_served(node: NodeHarness) -> None:
    found = node.client().ask(FindCoordinatorRequest(coordinator_keys=["s"], key_type=2), 4).coordinators[0]
    assert found.error_code == ErrorCode.INVALID_REQUEST
    assert "not served" in (found.error_message or "")


def test_the_log_tells_how_a_group_comes_and_goes(node: NodeHarness) -> None:
    protocol = JoinGroupRequestProtocol(name="range", metadata=b"")
    join = JoinGroupRequest(
        group_id="g",
        session_timeout_ms=10_000,
        rebalance_timeout_ms=10_000,
        protocol_type="consumer",
        protocols=[protocol],
    )
    client = node.client()
    waiting = client.send(join, 3)
    node.advance(10_000)
    member = client.take(11, 3, waiting).member_id
    client.ask(LeaveGroupRequest(group_id="g", member_id=member), 2)
    told = [
        (event, values.get("reason")) for _, event, values in node.log.lines if event.startswith("group ")
    ]
    assert told == [
        ("group rebalances", f"new member {member}"),
        ("group complete", None),
        ("group rebalances", f"{member} left"),
        ("group empty", None),
    ]


def test_the_partitions_that_there_are_count_and_not_those_configured_since() -> None:
    """Else a changed `offsets.topic.num.partitions` would hide every offset that was committed before."""
    node = NodeHarness(offsets__topic__num__partitions="3", transaction__state__log__num__partitions="3")
    node.create_topic("t", 1)
    client = node.client()
    client.ask(FindCoordinatorRequest(coordinator_keys=["audit"], key_type=0), 4)
    assert commit(node, "audit", {0: 17}) == [0]
    node.settings |= {
        "offsets__topic__num__partitions": "50",
        "transaction__state__log__num__partitions": "50",
    }
    node.restart()
    assert committed(node, "audit") == {0: 17}
    assert node.node.transactions.partition_count == 50, "there is no topic yet"
