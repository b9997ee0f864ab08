"""Apache Kafka's log cleaner and ours leave the same batches of the same log.

Needs a JVM and Kafka's jars (see real_kafka.py); skips naming what is missing.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from interop import real_kafka
from interop.cluster import PATIENCE_S, free_ports
from odradek.storage.batch import scan_batches
from odradek.storage.compaction import measure
from odradek.storage.config import LogConfig
from odradek.storage.log import Log
from odradek.storage.real_disk import RealDisk
from odradek.wire.records import BatchHeader, Record, read_records
from support.compaction import clean

pytestmark = [pytest.mark.usefixtures("kafka_tools"), pytest.mark.timeout(900)]

SEGMENT_BYTES = 1 << 20
HEADER_OF_THIS_CLEANING = {"crc": 0, "length": 0, "base_timestamp": 0}
"""The delete horizon depends on when the cleaning was; what compresses differently has another length."""


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[real_kafka.RealKafka]:
    """With its cleaner off."""
    port, _ = free_ports(2)
    settings = {
        "log.cleaner.enable": "false",
        "log.segment.bytes": str(SEGMENT_BYTES),
        "log.index.size.max.bytes": "65536",
    }
    node = real_kafka.RealKafka(tmp_path / "kafka", port, settings=settings)
    node.start()
    yield node
    node.stop()


def produce(bootstrap: str) -> None:
    """Plain, idempotent and transactional producers; all codecs of the client; tombstones; aborted transactions."""
    from kafka import KafkaProducer

    rng = Random(5)
    common = {"bootstrap_servers": bootstrap, "acks": "all", "linger_ms": 2}
    plain = KafkaProducer(enable_idempotence=False, compression_type="gzip", **common)
    idempotent = KafkaProducer(enable_idempotence=True, compression_type="lz4", **common)
    transactional = KafkaProducer(transactional_id="t", **common)
    transactional.init_transactions()

    def send(producer: KafkaProducer, count: int) -> None:
        for _ in range(count):
            value = None if rng.random() < 0.2 else rng.randbytes(rng.choice((10, 4000)))
            producer.send("orders", key=b"k%d" % rng.randrange(40), value=value, partition=0)

    for number in range(60):
        send(plain, rng.randrange(8))
        plain.flush()
        if number < 50:
            send(idempotent, rng.randrange(8))
            idempotent.flush()
        if number % 3 == 0:
            transactional.begin_transaction()
            send(transactional, 1 + rng.randrange(6))
            transactional.flush()
            if number % 2:
                transactional.abort_transaction()
            else:
                transactional.commit_transaction()
    for _ in range(300):  # the active segment is not cleaned
        plain.send("orders", key=b"last", value=rng.randbytes(4000), partition=0)
    for producer in (plain, idempotent, transactional):
        producer.close()


def create_topic(bootstrap: str) -> None:
    from kafka.admin import KafkaAdminClient, NewTopic

    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    configs = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01"}
    admin.create_topics([NewTopic("orders", 1, 1, topic_configs=configs)])
    admin.close()


def await_cleaning(kafka: real_kafka.RealKafka, timeout_s: float = PATIENCE_S) -> int:
    """The offset below which Kafka has cleaned."""
    checkpoint = kafka.directory / "data" / "cleaner-offset-checkpoint"
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for line in checkpoint.read_text().splitlines() if checkpoint.exists() else ():
            if line.startswith("orders 0 "):
                return int(line.split()[2])
        time.sleep(0.1)
    raise AssertionError("Kafka's cleaner has not come to the topic")


def batches(directory: Path, end: int) -> list[tuple[BatchHeader, bool, list[Record]]]:
    """(header without what may differ, whether there is a delete horizon, records) of each batch below `end`."""
    found = []
    for path in sorted(directory.glob("*.log")):
        file = RealDisk().open(str(path))
        for _, header, batch in scan_batches(file, 0, file.size()):
            if header.base_offset < end:
                records = read_records(batch, header, limit=1 << 24)
                has_horizon = header.delete_horizon_ms is not None
                found.append((header._replace(**HEADER_OF_THIS_CLEANING), has_horizon, records))
        file.close()
    return found


def test_kafka_and_we_leave_the_same_batches(kafka: real_kafka.RealKafka, tmp_path: Path) -> None:
    create_topic(kafka.bootstrap)
    produce(kafka.bootstrap)
    kafka.stop()
    theirs = kafka.directory / "data" / "orders-0"
    ours = tmp_path / "orders-0"
    shutil.copytree(theirs, ours)
    kafka.settings |= {"log.cleaner.enable": "true", "log.cleaner.backoff.ms": "100"}
    kafka.start()
    end = await_cleaning(kafka)
    kafka.stop()

    now = int(time.time() * 1000)
    config = LogConfig(cleanup_compact=True, segment_bytes=SEGMENT_BYTES)
    log = Log.open(RealDisk(), str(ours), config, topic="orders", partition=0, wall_ms=now)
    log.flush_blocking()
    before = batches(ours, end)
    dirty = measure(log, 0, log.last_stable_offset(log.log_end_offset), now)
    assert dirty is not None
    assert dirty.end_offset == end
    clean(log, dirty, now, 1 << 24, RealDisk())
    log.close()

    mine = batches(ours, end)
    assert mine == batches(theirs, end)
    assert len(mine) < len(before)
    assert any(has_horizon for _, has_horizon, _ in mine)
    assert any(header.count == 0 for header, _, _ in mine)
    assert any(header.is_control for header, _, _ in mine)
