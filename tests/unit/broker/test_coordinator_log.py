"""What a coordinator finds in its internal topic again: group offsets over restarts, and loads in slices."""

from __future__ import annotations

from typing import Any

import pytest

from odradek.broker.coordinator_log import SLICE_NS, CoordinatorLog
from odradek.broker.partition import Partition
from odradek.coordinator.runtime import Marker, Producer
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
    index = node.node.groups.partition_for("g")
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
        "a partition of a coordinator cannot be loaded"
    }


class Owner:
    """A coordinator that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def load_begin(self, partition: int, epoch: int) -> bool:
        self.told.append(("begin", partition, epoch))
        return True

    def load_record(self, partition: int, key: bytes, value: bytes | None) -> None:
        self.told.append((key, value))

    def load_transactional_record(
        self, partition: int, producer_id: int, producer_epoch: int, key: bytes, value: bytes | None
    ) -> None:
        self.told.append((producer_id, producer_epoch, key, value))

    def load_marker(self, partition: int, producer_id: int, producer_epoch: int, commit: bool) -> None:
        self.told.append((producer_id, producer_epoch, commit))

    def load_end(self, partition: int) -> None:
        self.told.append(("end",))

    def unload(self, partition: int) -> None:
        raise AssertionError("nobody unloads it")


class TickingClock:
    """Each look at it takes half a slice."""

    def __init__(self, node: NodeHarness) -> None:
        self.node = node

    def monotonic_ms(self) -> int:
        return self.node.clock.now_ms

    def monotonic_ns(self) -> int:
        self.node.clock.now_ms += SLICE_NS // 2_000_000
        return self.node.clock.monotonic_ns()

    def wall_ms(self) -> int:
        return self.node.clock.wall_ms()


class Loading:
    """A node, a partition of an internal topic, and a log that loads it slowly."""

    def __init__(self) -> None:
        self.node = NodeHarness()
        self.node.create_topic("internal", partitions=2, cleanup__policy="compact")
        node = self.node.node
        self.log = CoordinatorLog(
            "internal",
            node.replicas,
            TickingClock(self.node),
            node.timers,
            node.ports.syncer,
            node.ports.log.warning,
        )
        self.owner = Owner()
        self.answers: list[int] = []

    def partition(self, index: int = 0) -> Partition:
        return self.node.node.partitions["internal", index]

    def put(self, key: bytes, value: bytes | None, index: int = 0) -> None:
        self.log.append(index, [(key, value)], self.answers.append)
        self.node.settle()

    def run_slices(self, count: int) -> None:
        for _ in range(count):
            deadline = self.node.timers.next_deadline_ms()
            assert deadline is not None
            self.node.timers.advance(max(deadline, self.node.clock.now_ms))


def test_a_load_hands_over_records_transactions_and_markers_in_log_order() -> None:
    loading = Loading()
    loading.put(b"a", b"1")
    loading.log.append_transactional(0, 7, 2, [(b"b", b"2"), (b"c", None)], loading.answers.append)
    loading.log.append_marker(0, Marker(Producer(7, 2), 5, True), loading.answers.append)
    loading.log.append_transactional(0, 8, 0, [(b"d", b"3")], loading.answers.append)
    loading.log.append_marker(0, Marker(Producer(8, 0), 5, False), loading.answers.append)
    loading.node.settle()
    loading.log.load(loading.partition(), loading.owner)
    loading.node.advance(1000)
    assert loading.answers == [0] * 5
    assert loading.owner.told == [
        ("begin", 0, 0),
        (b"a", b"1"),
        (7, 2, b"b", b"2"),
        (7, 2, b"c", None),
        (7, 2, True),
        (8, 0, b"d", b"3"),
        (8, 0, False),
        ("end",),
    ]


def test_a_load_leaves_the_loop_to_others_after_each_slice() -> None:
    loading = Loading()
    for number in range(10):
        loading.put(b"%d" % number, b"")
    loading.log.load(loading.partition(), loading.owner)
    assert len(loading.owner.told) == 1, "nothing is read inside the event that gave the leadership"
    slices = 0
    while loading.owner.told[-1] != ("end",):
        before = len(loading.owner.told)
        loading.run_slices(1)
        slices += 1
        assert len(loading.owner.told) - before <= 2
    assert len(loading.owner.told) == 12
    assert slices > 5


def test_loads_of_two_partitions_take_turns() -> None:
    loading = Loading()
    for number in range(10):
        loading.put(b"%d" % number, b"", number % 2)
    first, second = Owner(), Owner()
    loading.log.load(loading.partition(0), first)
    loading.log.load(loading.partition(1), second)
    while ("end",) not in first.told and ("end",) not in second.told:
        loading.run_slices(1)
    assert len(first.told) > 4
    assert len(second.told) > 4


def test_a_load_stops_when_the_leadership_of_its_epoch_is_over() -> None:
    loading = Loading()
    for number in range(10):
        loading.put(b"%d" % number, b"")
    loading.log.load(loading.partition(), loading.owner)
    loading.run_slices(3)
    told = len(loading.owner.told)
    assert 1 < told < 11
    loading.partition().leader_epoch += 1
    loading.node.advance(1000)
    assert len(loading.owner.told) == told


def test_a_second_load_takes_the_place_of_the_first() -> None:
    loading = Loading()
    for number in range(10):
        loading.put(b"%d" % number, b"")
    loading.log.load(loading.partition(), loading.owner)
    loading.run_slices(3)
    anew = Owner()
    told = len(loading.owner.told)
    loading.log.load(loading.partition(), anew)
    loading.node.advance(1000)
    assert len(loading.owner.told) == told
    assert anew.told[-1] == ("end",)
    assert len(anew.told) == 12


def test_a_load_ends_only_when_everything_it_has_read_is_committed() -> None:
    loading = Loading()
    loading.put(b"a", b"1")
    partition = loading.partition()
    committed = partition.high_watermark
    partition.high_watermark = 0
    loading.log.load(partition, loading.owner)
    loading.node.advance(1000)
    assert loading.owner.told == [("begin", 0, 0), (b"a", b"1")]
    partition.high_watermark = committed
    partition._wake_readers()
    assert loading.owner.told[-1] == ("end",)


def test_a_write_whose_fate_was_unknown_is_told_when_it_is_committed_after_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loading = Loading()
    partition = loading.partition()
    waiting: list[Any] = []
    monkeypatch.setattr(Partition, "when_committed", lambda _self, _end, done: waiting.append(done))
    loading.put(b"a", b"1")
    partition.high_watermark = 0
    waiting[0](ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND)
    partition._wake_readers()
    assert loading.answers == [ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND]
    partition.high_watermark = 1
    partition._wake_readers()
    partition._wake_readers()
    assert loading.answers == [ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND, ErrorCode.NONE]


def test_nothing_more_is_told_of_it_once_the_leadership_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    loading = Loading()
    partition = loading.partition()
    waiting: list[Any] = []
    monkeypatch.setattr(Partition, "when_committed", lambda _self, _end, done: waiting.append(done))
    loading.put(b"a", b"1")
    partition.high_watermark = 0
    waiting[0](ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND)
    partition.leader_epoch += 1
    partition.high_watermark = 1
    partition._wake_readers()
    assert loading.answers == [ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND]
