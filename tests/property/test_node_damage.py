"""Random damage to any file of a stopped or killed node: the next start serves what is right, or says in a line what
to do. No file is left out: segments, indexes, snapshots, checkpoints, meta.properties, quorum-state, the metadata log.

(Under no checksum in Kafka's formats: leader epochs of batches; digits in text files that are still numbers.)
"""

from __future__ import annotations

import copy
from functools import cache
from random import Random
from typing import Any

import pytest

from odradek.raft.metadata_log import CorruptMetadata
from odradek.storage.data_dir import DataDirError
from odradek.storage.memory_disk import MemoryDisk
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.end_txn import EndTxnRequest
from odradek.wire.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from odradek.wire.messages.find_coordinator import FindCoordinatorRequest
from odradek.wire.messages.init_producer_id import InitProducerIdRequest
from odradek.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from odradek.wire.messages.offset_fetch import OffsetFetchRequest, OffsetFetchRequestGroup
from odradek.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from odradek.wire.records import CONTROL_FLAG, iter_batches, read_records, simple_batch
from support.node_harness import DATA, NodeHarness

SETTINGS = {"offsets__topic__num__partitions": "1", "transaction__state__log__num__partitions": "1"}
TOPIC = "orders"
PARTITIONS = 2
COMMITTED = {0: 7, 1: 3}
REFUSALS = {
    ErrorCode.CORRUPT_MESSAGE, ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.OFFSET_OUT_OF_RANGE,
    ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.OFFSET_NOT_AVAILABLE,
    ErrorCode.LEADER_NOT_AVAILABLE, ErrorCode.UNKNOWN_TOPIC_ID,
}  # fmt: skip
"""What a reader may be told in place of records."""
HOW = ("flip", "flip", "flip", "zero", "garbage", "truncate", "append", "unlink", "empty", "swap")


class Told(Exception):  # noqa: N818 - how the node ended
    """The node does not start; the text is its line for people."""


class DamagedNode(NodeHarness):
    """Boots as a process does: what stops it is told, not raised."""

    def _boot(self) -> None:
        try:
            super()._boot()
        except (CorruptMetadata, DataDirError) as error:
            raise Told(str(error)) from error
        except AssertionError as error:
            node = getattr(self, "node", None)
            reason = getattr(getattr(node, "quorum", None), "fatal_reason", None)
            if not reason:
                raise
            raise Told(reason) from error


def produce(node: NodeHarness, index: int, batch: bytes, *, transactional_id: str | None = None) -> None:
    data = TopicProduceData(name=TOPIC, partition_data=[PartitionProduceData(index=index, records=batch)])
    request = ProduceRequest(transactional_id=transactional_id, acks=-1, timeout_ms=1000, topic_data=[data])
    (answer,) = node.client().ask(request, 12).responses[0].partition_responses
    assert answer.error_code == 0, ErrorCode(answer.error_code)


def value(index: int, offset: int) -> bytes:
    return b"%d/%d " % (index, offset) * (1 + offset % 7)


@cache
def written(clean: bool) -> tuple[MemoryDisk, tuple[int, ...]]:
    """A disk with everything on it that a node writes; the log ends of the topic."""
    node = NodeHarness(**SETTINGS)
    node.create_topic(TOPIC, PARTITIONS)
    ends = [0, 0]

    def fill(count: int, **options: Any) -> None:
        for number in range(count):
            index = number % PARTITIONS
            values = [value(index, ends[index] + at) for at in range(1 + number % 3)]
            batch = bytes(
                simple_batch(
                    [(b"k", each) for each in values],
                    base_offset=0,
                    timestamp=node.clock.wall_ms(),
                    **options,
                )
            )
            produce(node, index, batch)
            ends[index] += len(values)

    fill(12)
    for name, kind in (("g", 0), ("tx", 1)):
        node.client().ask(FindCoordinatorRequest(coordinator_keys=[name], key_type=kind), 4)
    partitions = [
        OffsetCommitRequestPartition(partition_index=at, committed_offset=COMMITTED[at]) for at in COMMITTED
    ]
    request = OffsetCommitRequest(
        group_id="g", topics=[OffsetCommitRequestTopic(name=TOPIC, partitions=partitions)]
    )
    assert node.client().ask(request, 8).topics[0].partitions[0].error_code == 0
    for commit in (True, False):
        init = node.client().ask(InitProducerIdRequest("tx", 10_000), 5)
        options = {"producer_id": init.producer_id, "producer_epoch": init.producer_epoch, "base_sequence": 0}
        batch = simple_batch(
            [(b"k", value(0, ends[0]))],
            base_offset=0,
            timestamp=node.clock.wall_ms(),
            transactional=True,
            **options,
        )
        produce(node, 0, bytes(batch), transactional_id="tx")
        ended = node.client().ask(EndTxnRequest("tx", init.producer_id, init.producer_epoch, commit), 5)
        assert ended.error_code == 0
        node.settle()
        ends[0] += 2
    for partition in node.node.partitions.values():
        partition.log.roll(node.clock.wall_ms())
    fill(6)
    node.node.quorum._begin_snapshot()
    node.settle()
    node.restart(clean=False)
    node.create_topic("behind-the-snapshot")
    fill(6)
    node.node._checkpoint()
    if clean:
        node.stop()
    else:
        node.disk.kill()
    assert [node.node.partitions[TOPIC, index].log.log_end_offset for index in range(PARTITIONS)] == ends
    names = {path.rpartition("/")[2] for path in files(node.disk)}
    for kind in (".log", ".index", ".timeindex", ".txnindex", ".snapshot", "leader-epoch-checkpoint",
                 "partition.metadata", "meta.properties", "quorum-state", ".checkpoint",
                 "recovery-point-offset-checkpoint", "replication-offset-checkpoint"):  # fmt: skip
        assert any(name.endswith(kind) for name in names), (kind, sorted(names))
    return node.disk, tuple(ends)


def files(disk: MemoryDisk, directory: str = DATA) -> list[str]:
    found: list[str] = []
    for name in disk.listdir(directory):
        path = f"{directory}/{name}"
        found += files(disk, path) if disk.isdir(path) else [path]
    return found


def damage(disk: MemoryDisk, rng: Random) -> str:
    """Harm one file in one way; what was done. Each kind of file is as likely, however many there are of it."""
    by_kind: dict[str, list[str]] = {}
    for path in files(disk):
        where = "metadata" if "__cluster_metadata" in path else "__" if "/__" in path else ""
        by_kind.setdefault(where + path.rpartition("/")[2].lstrip("0123456789-"), []).append(path)
    path = rng.choice(by_kind[rng.choice(sorted(by_kind))])
    data = bytearray(disk.read_file(path))
    how = rng.choice(HOW)
    at = rng.randrange(len(data)) if data else 0
    if how == "unlink":
        disk.unlink(path)
        return f"{path}: unlink"
    if how == "flip" and data:
        data[at] ^= 1 << rng.randrange(8)
    elif how == "truncate":
        del data[at:]
    elif how == "empty":
        data.clear()
    elif how == "append":
        data += rng.randbytes(rng.randrange(1, 200)) if rng.random() < 0.5 else bytes(rng.randrange(1, 200))
    elif how == "swap":  # a file of another kind under this name
        kind = path.rpartition(".")[2]
        others = [each for each in files(disk) if each.rpartition(".")[2] != kind]
        data = bytearray(disk.read_file(rng.choice(others)))
    else:
        size = rng.randrange(1, 100)
        data[at : at + size] = bytes(size) if how == "zero" else rng.randbytes(size)
    disk.write_file_atomic(path, bytes(data), durable=False)
    return f"{path}: {how} at {at}"


def served(node: NodeHarness, index: int) -> tuple[list[int], bool]:
    """The offsets that a reader gets, all with their own values, and whether it was refused what follows."""
    offsets: list[int] = []
    offset = 0
    while True:
        wanted = FetchPartition(partition=index, fetch_offset=offset, partition_max_bytes=1 << 20)
        request = FetchRequest(max_wait_ms=0, min_bytes=0, max_bytes=1 << 20,
                               topics=[FetchTopic(topic=TOPIC, partitions=[wanted])])  # fmt: skip
        answer = node.client().ask(request, 12).responses[0].partitions[0]
        if answer.error_code:
            assert ErrorCode(answer.error_code) in REFUSALS, ErrorCode(answer.error_code)
            return offsets, True
        if not answer.records:
            return offsets, False
        view = memoryview(answer.records)
        for position, header in iter_batches(view):
            assert header.base_offset >= offset
            offset = header.last_offset + 1
            for record in read_records(view[position : position + header.size], header, limit=1 << 20):
                offsets.append(record.offset)
                if not header.attributes & CONTROL_FLAG:
                    assert record.value == value(index, record.offset)


def check(node: NodeHarness, done: list[str], ends: tuple[int, ...]) -> None:
    metadata_hit = any("__cluster_metadata" in one for one in done)
    for index in range(PARTITIONS):
        offsets, refused = served(node, index)
        assert offsets == list(range(len(offsets))), "a hole"
        hit = metadata_hit or any(f"/{TOPIC}-{index}/" in one or "checkpoint" in one for one in done)
        assert len(offsets) == ends[index] or refused or hit
        if refused and not metadata_hit:
            assert hit, "refused without a reason"
    request = OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group_id="g", topics=None)])
    group = node.client().ask(request, 8).groups[0]
    found = {one.partition_index: one.committed_offset for topic in group.topics for one in topic.partitions}
    assert found == COMMITTED or any(
        "__consumer_offsets" in one or "__cluster" in one or "checkpoint" in one for one in done
    )
    assert all(COMMITTED[at] == offset for at, offset in found.items())
    assert not node.log.of_level("error"), node.log.of_level("error")


def damaged_life(seed: int) -> None:
    rng = Random(seed)
    disk, ends = written(clean=rng.random() < 0.5)
    disk = copy.deepcopy(disk)
    disk.kill()
    done = [damage(disk, rng) for _ in range(rng.choice((1, 1, 1, 2)))]
    try:
        try:
            node = DamagedNode(disk, **SETTINGS)
        except Told as told:
            assert "\n" not in str(told)
            assert DATA in str(told), "the line names the file or directory"
            return
        check(node, done, ends)
        node.restart()
        check(node, done, ends)
    except BaseException as error:
        error.add_note(f"damaged_life({seed}): {done}")
        raise


@pytest.mark.parametrize("seed", range(0, 400, 100))
def test_a_damaged_node_serves_what_is_right_or_says_what_to_do(seed: int) -> None:
    for number in range(seed, seed + 100):
        damaged_life(number)
