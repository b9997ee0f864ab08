"""A data directory that Apache Kafka has written: our engine finds the same records at the same offsets, and after
`odradek storage adopt` a node serves them.

Needs a JVM and Kafka's jars (see real_kafka.py); skips naming what is missing.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from interop import real_kafka
from interop.cluster import PATIENCE_S, Node, eventually, free_ports, tool, unique
from odradek.storage.log import Log
from odradek.storage.manager import LogManager
from odradek.storage.memory_disk import StepSyncer
from odradek.storage.real_disk import RealDisk
from odradek.wire.records import read_records

pytestmark = [pytest.mark.usefixtures("kafka_tools"), pytest.mark.timeout(900)]
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
PLAIN, COMPACTED = "orders", "addresses"
COMMITTED = 17
Seen = list[tuple[int, bytes | None, bytes | None]]


@dataclass
class Kafkas:
    """What a Kafka has written, and what its own clients read of it."""

    directory: Path
    """Stopped in order."""
    killed: Path
    """A copy of how it was while Kafka ran: indexes preallocated, no marker."""
    everything: dict[tuple[str, int], Seen]
    committed: dict[tuple[str, int], Seen]


def read(bootstrap: str, isolation: str) -> dict[tuple[str, int], Seen]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": unique("reader"),
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
    found: dict[tuple[str, int], Seen] = {}
    deadline = time.monotonic() + PATIENCE_S
    for topic, partition in ((PLAIN, 0), (PLAIN, 1), (COMPACTED, 0)):
        consumer.assign([TopicPartition(topic, partition, 0)])
        seen = found[topic, partition] = []
        at_end = False
        while not at_end:
            assert time.monotonic() < deadline, f"{topic}-{partition} does not end"
            for message in consumer.consume(500, 0.2):
                if message.error() is None:
                    seen.append((message.offset(), message.key(), message.value()))
                else:
                    at_end = message.error().code() == KafkaError._PARTITION_EOF
    consumer.close()
    return found


def fill(bootstrap: str) -> None:
    """Every codec, an idempotent producer, transactions of both outcomes, keys that come again, committed offsets."""
    from kafka import KafkaConsumer, KafkaProducer
    from kafka import TopicPartition as Where
    from kafka.admin import KafkaAdminClient, NewTopic
    from kafka.structs import OffsetAndMetadata

    rng = Random(3)
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    compact = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01", "segment.ms": "1000"}
    admin.create_topics([NewTopic("gone", 1, 1), NewTopic(PLAIN, 2, 1, topic_configs={"retention.ms": "-1"}),
                         NewTopic(COMPACTED, 1, 1, topic_configs=compact)])  # fmt: skip
    admin.delete_topics(["gone"])
    admin.close()
    common: dict[str, Any] = {"bootstrap_servers": bootstrap, "acks": "all"}
    for codec in CODECS:
        settings = {"compression.type": codec, "enable.idempotence": codec == "lz4", "linger.ms": 50}
        plain = Producer({"bootstrap.servers": bootstrap, "log_level": 0, **settings})
        for number in range(40):
            plain.produce(PLAIN, key=b"k%d" % number, value=rng.randbytes(1500) * 2, partition=number % 2)
            if number % 5 == 4:
                plain.flush(PATIENCE_S)
    transactional = KafkaProducer(transactional_id="billing", **common)
    transactional.init_transactions()
    for number in range(6):
        transactional.begin_transaction()
        for partition in range(2):
            transactional.send(PLAIN, value=b"in transaction %d" % number, partition=partition)
        transactional.flush()
        if number % 2:
            transactional.abort_transaction()
        else:
            transactional.commit_transaction()
    transactional.close()
    producer = KafkaProducer(**common)
    for life in range(3):
        for number in range(60):
            producer.send(COMPACTED, key=b"k%d" % (number % 7), value=b"%d/%d" % (life, number))
        producer.flush()
        time.sleep(1.1)  # segment.ms is over
    producer.send(COMPACTED, key=b"last", value=b"last")
    producer.close()
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id="audit", enable_auto_commit=False)
    where = Where(PLAIN, 1)
    consumer.assign([where])
    consumer.commit({where: OffsetAndMetadata(COMMITTED, "", -1)})
    consumer.close()


def is_cleaned(data: Path) -> bool:
    path = data / "cleaner-offset-checkpoint"
    return path.exists() and f"{COMPACTED} 0 " in path.read_text()


@pytest.fixture(scope="module")
def kafkas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafkas]:
    root = tmp_path_factory.mktemp("kafka")
    settings = {
        "log.segment.bytes": "1048576", "log.index.size.max.bytes": "65536", "log.cleaner.backoff.ms": "200",
        "offsets.topic.num.partitions": "3", "transaction.state.log.num.partitions": "3",
    }  # fmt: skip
    kafka = real_kafka.RealKafka(root / "kafka", free_ports(2)[0], settings=settings)
    kafka.start()
    try:
        fill(kafka.bootstrap)
        data = kafka.directory / "data"
        eventually(
            lambda: is_cleaned(data), PATIENCE_S, "Kafka's cleaner has not come to the topic", every_s=0.2
        )
        found = Kafkas(
            data,
            root / "killed",
            read(kafka.bootstrap, "read_uncommitted"),
            read(kafka.bootstrap, "read_committed"),
        )
        shutil.copytree(data, found.killed)
    finally:
        kafka.stop()
    yield found


def records_of(log: Log) -> Seen:
    """Data records as they lie in the log."""
    seen: Seen = []
    offset = log.log_start_offset
    while offset < log.written_end_offset:
        result = log.read(offset, 1 << 20, end_offset=log.written_end_offset)
        position, view = 0, memoryview(result.data)
        while position < len(view):
            size = int.from_bytes(view[position + 8 : position + 12], "big") + 12
            batch = view[position : position + size]
            if not int.from_bytes(batch[21:23], "big") & 0x20:
                seen += [(each.offset, each.key, each.value) for each in read_records(batch, limit=1 << 24)]
            position += size
        offset = result.next_offset
    return seen


@pytest.mark.parametrize("clean", [True, False])
def test_our_engine_finds_what_kafkas_clients_found(kafkas: Kafkas, tmp_path: Path, clean: bool) -> None:
    copy = tmp_path / "data"
    shutil.copytree(kafkas.directory if clean else kafkas.killed, copy)
    manager = LogManager(RealDisk(), StepSyncer(), [str(copy)], rng=Random(1))
    manager.start(node_id=1, cluster_id=real_kafka.CLUSTER_ID)
    assert manager.clean is clean
    report = manager.open_all(int(time.time() * 1000))
    assert (report.failed, report.foreign) == ([], [])
    for key, theirs in kafkas.everything.items():
        log = manager.logs[key]
        assert records_of(log) == theirs
        assert log.corrupt_offset is None
        assert log.last_stable_offset(log.log_end_offset) == log.log_end_offset
    offsets = [offset for offset, _, _ in kafkas.everything[COMPACTED, 0]]
    assert len(offsets) < offsets[-1], "nothing was compacted"
    for partition in range(2):
        log = manager.logs[PLAIN, partition]
        committed = {offset for offset, _, _ in kafkas.committed[PLAIN, partition]}
        aborted = [offset for offset, _, _ in kafkas.everything[PLAIN, partition] if offset not in committed]
        assert [first for _, first in log.aborted_transactions(0, log.log_end_offset)] == aborted
        assert len(aborted) == 3
        assert log.epochs.entries == [(0, 0)]
        known = {each.producer_id: each.last_offset for each in log.active_producers()}
        assert len(known) == 2
        assert all(0 < offset < log.log_end_offset for offset in known.values())
        checked = log.lookup_timestamp(0)
        assert checked is not None
        assert checked[1] == 0
    manager.close()


def test_a_node_serves_a_directory_that_it_has_adopted(kafkas: Kafkas, tmp_path: Path) -> None:
    from kafka import KafkaConsumer, KafkaProducer
    from kafka import TopicPartition as Where

    node = Node(tmp_path)
    shutil.copytree(kafkas.directory, node.data)
    with pytest.raises(AssertionError, match="odradek storage adopt"):
        node.start()
    node.process = None
    properties = tmp_path / "server.properties"
    properties.write_text(f"node.id=1\nprocess.roles=broker,controller\nlog.dirs={node.data}\n"
                          f"listeners=PLAINTEXT://localhost:{node.port}\n")  # fmt: skip
    done = tool("storage", "adopt", "--config", str(properties))
    assert done.returncode == 0, done.stderr.decode()
    told = done.stdout.decode()
    assert f"{PLAIN}: 2 partitions" in told
    assert "gone" not in told
    node.start()
    try:
        assert read(node.bootstrap, "read_uncommitted") == kafkas.everything
        assert read(node.bootstrap, "read_committed") == kafkas.committed
        consumer = KafkaConsumer(bootstrap_servers=node.bootstrap, group_id="audit")
        assert consumer.committed(Where(PLAIN, 1)) == COMMITTED
        consumer.close()
        configs = tool("configs", "--bootstrap-server", node.bootstrap, "--describe", "--topic", COMPACTED)
        assert b"cleanup.policy=compact" in configs.stdout
        producer = KafkaProducer(bootstrap_servers=node.bootstrap, transactional_id="billing", acks="all")
        producer.init_transactions()
        producer.begin_transaction()
        sent = producer.send(PLAIN, value=b"ours", partition=0).get(PATIENCE_S)
        producer.commit_transaction()
        producer.close()
        assert sent.offset > kafkas.everything[PLAIN, 0][-1][0]
        node.restart()
        assert read(node.bootstrap, "read_committed")[PLAIN, 0] == [
            *kafkas.committed[PLAIN, 0], (sent.offset, None, b"ours")
        ]  # fmt: skip
    finally:
        node.stop()
    again = tool("storage", "adopt", "--config", str(properties))
    assert again.returncode == 1
    assert b"not written by Apache Kafka" in again.stderr
