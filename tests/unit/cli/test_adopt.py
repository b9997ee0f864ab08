"""Taking over the directories of an Apache Kafka: what is read of its metadata, and when nothing is touched."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from odradek.broker.config import BrokerConfig
from odradek.broker.config_builder import build_config, zero_config
from odradek.broker.kafka_metadata import BadKafkaRecord, KafkaMetadata, is_kafkas, replay
from odradek.cli.adopt import adopt
from odradek.cli.options import ToolError
from odradek.metadata import records as ours
from odradek.raft import snapshots
from odradek.storage.config import LogConfig
from odradek.storage.data_dir import DataDir
from odradek.storage.log import Log
from odradek.storage.memory_disk import MemoryDisk
from odradek.wire.records import simple_batch

NOW = 1_700_000_000_000
DATA = "/data"
ORDERS, GONE = bytes(15) + b"\1", bytes(15) + b"\2"


def text(value: str | None) -> bytes:
    return b"\0" if value is None else bytes((len(value) + 1,)) + value.encode()


def topic(topic_id: bytes, name: str) -> bytes:
    return b"\1\2\0" + text(name) + topic_id + b"\0"


def partition(topic_id: bytes, index: int, *replicas: int) -> bytes:
    numbers = bytes((len(replicas) + 1,)) + b"".join(each.to_bytes(4, "big") for each in replicas)
    return b"\1\3\2" + index.to_bytes(4, "big") + topic_id + numbers + numbers + bytes(20)


def config_of(name: str, key: str, value: str | None) -> bytes:
    return b"\1\4\0\2" + text(name) + text(key) + text(value) + b"\0"


KAFKAS = [
    b"\1\x0c\0" + text("metadata.version") + b"\0\x1d\0",
    topic(ORDERS, "orders"),
    partition(ORDERS, 0, 1),
    partition(ORDERS, 1, 1),
    config_of("orders", "cleanup.policy", "compact"),
    config_of("orders", "retention.ms", "5"),
    config_of("orders", "retention.ms", None),
    config_of("orders", "of.no.version.that.we.know", "x"),
    topic(GONE, "gone"),
    partition(GONE, 0, 1),
    b"\1\x0e\0" + b"\1\0\0",
    b"\1\x0f\0" + (1).to_bytes(4, "big") + bytes(8) + (3000).to_bytes(8, "big") + b"\0",
    b"\1\x09\0" + GONE + b"\0",
]  # fmt: skip


def kafkas_disk(records: list[bytes] = KAFKAS) -> MemoryDisk:
    """A directory with its metadata log and two logs, one of which had three leaders."""
    disk = MemoryDisk()
    data_dir = DataDir(disk, DATA)
    data_dir.take()
    data_dir.write_meta(1, "4L6g3nShT-eMCtK--X86sw", Random(1))
    for name, epoch in (("orders-0", 2), ("orders-1", 0)):
        log = Log.open(disk, f"{DATA}/{name}", LogConfig(), topic="orders", partition=0, wall_ms=NOW)
        for each in range(epoch + 1):
            batch = simple_batch([(b"k", b"v")], base_offset=0, timestamp=NOW)
            log.append_as_leader(memoryview(batch), each, NOW)
        log.close()
        data_dir.write_topic_id(log.dir, ORDERS)
    log = Log.open(disk, f"{DATA}/__cluster_metadata-0", LogConfig(), topic="m", partition=0, wall_ms=NOW)
    for each in records:
        batch = simple_batch([(None, each)], base_offset=0, timestamp=NOW)
        log.append_as_leader(memoryview(batch), 1, NOW)
    log.close()
    data_dir.release()
    return disk


def config(node_id: int = 1) -> BrokerConfig:
    return replace(build_config(zero_config(data=DATA), {}), node_id=node_id)


def test_topics_configs_and_producer_ids_are_taken_over() -> None:
    disk = kafkas_disk()
    assert is_kafkas(disk, DATA)
    told = adopt(config(), disk, NOW)
    (name,) = [name for name in disk.listdir(f"{DATA}/__cluster_metadata-0") if name.endswith(".checkpoint")]
    found = snapshots.decode(disk.read_file(f"{DATA}/__cluster_metadata-0/{name}"))
    records = [ours.decode(each) for each in found.records]
    directory = DataDir(disk, DATA)
    directory.read_meta(1)
    placed = {"replicas": (1,), "isr": (1,), "leader": -1, "directories": (directory.directory_id,)}
    assert records == [
        ours.TopicRecord("orders", ORDERS),
        ours.PartitionRecord(ORDERS, 0, leader_epoch=3, **placed),  # type: ignore[arg-type]
        ours.PartitionRecord(ORDERS, 1, leader_epoch=1, **placed),  # type: ignore[arg-type]
        ours.ConfigRecord(2, "orders", "cleanup.policy", "compact"),
        ours.ProducerIdsRecord(1, -1, 3000),
    ]
    assert told[0].startswith("orders: 2 partitions")
    assert any("of.no.version.that.we.know" in line for line in told)
    assert "Left behind: 1 client quotas." in told
    assert disk.isdir(f"{DATA}/__cluster_metadata-0.kafka")
    assert not is_kafkas(disk, DATA)
    with pytest.raises(ToolError, match="was not written by Apache Kafka"):
        adopt(config(), disk, NOW)


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ([topic(ORDERS, "orders"), partition(ORDERS, 0, 1, 2)], "Brokers 2 have replicas too"),
        ([topic(ORDERS, "orders"), partition(ORDERS, 0, 1)[:20]], "cannot be read: 20 bytes end too early"),
        ([topic(ORDERS, "orders"), b"\2"], "cannot be read: a record begins with 02"),
    ],
)
def test_nothing_is_touched_where_it_cannot_be_done(records: list[bytes], why: str) -> None:
    disk = kafkas_disk(records)
    before = disk.listdir(DATA)
    with pytest.raises(ToolError, match=why):
        adopt(config(), disk, NOW)
    assert disk.listdir(DATA) == before
    assert is_kafkas(disk, DATA)


def test_the_directory_of_another_node_is_refused() -> None:
    with pytest.raises(ToolError, match="Stored node id 1 doesn't match node id 7"):
        adopt(config(7), kafkas_disk(), NOW)


def test_an_unformatted_directory_is_refused() -> None:
    disk = MemoryDisk()
    disk.makedirs(DATA)
    with pytest.raises(ToolError, match=r"has no meta\.properties"):
        adopt(config(), disk, NOW)
    assert disk.listdir(DATA) == []


def test_no_bytes_make_the_reader_do_anything_but_refuse() -> None:
    rng = Random(1)
    for record in KAFKAS:
        for _ in range(200):
            damaged = bytearray(record)
            damaged[rng.randrange(len(record))] ^= 1 << rng.randrange(8)
            del damaged[rng.randrange(1, len(record) + 1) :]
            try:
                replay(KafkaMetadata(), bytes(damaged))
            except BadKafkaRecord:
                continue
