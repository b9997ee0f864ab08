"""Apache Kafka's own dump tool reads our segments, indexes and snapshots; we open what a real Kafka wrote, and it ours.

Needs a JVM and Kafka's jars (see real_kafka.py); skips naming what is missing.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from interop import real_kafka
from interop.cluster import free_ports
from odradek.storage.compaction import measure
from odradek.storage.config import LogConfig
from odradek.storage.log import Log
from odradek.storage.manager import LogManager
from odradek.storage.memory_disk import StepSyncer
from odradek.storage.real_disk import RealDisk
from odradek.wire.records import Codec, Record, build_batch, end_txn_marker, read_records, simple_batch
from support.compaction import clean

NOW = 1_700_000_000_000
pytestmark = [pytest.mark.usefixtures("kafka_tools"), pytest.mark.timeout(900)]

DUMP = "org.apache.kafka.tools.DumpLogSegments"
SMALL = LogConfig(segment_bytes=60_000, index_interval_bytes=4096)


def fill(log: Log, count: int = 300) -> None:
    """Batches of all codecs, of an idempotent producer and of a transaction; times out of order; several epochs."""
    rng = Random(1)
    sequence = 0
    for number in range(count):
        items = [(b"k%d" % at, rng.randbytes(rng.choice((10, 200, 900)))) for at in range(rng.choice((1, 3)))]
        producer = {}
        if number % 3 == 0:
            producer = {"producer_id": 77, "producer_epoch": 2, "base_sequence": sequence}
            sequence += len(items)
        when = NOW + rng.randint(-1000, 1000) + number
        batch = simple_batch(items, base_offset=0, timestamp=when, codec=Codec(number % 5), **producer)
        log.append_as_leader(memoryview(batch), number // 100, NOW)
        log.write_staged()
    options = {"producer_id": 99, "producer_epoch": 0, "transactional": True}
    for at in range(2):
        batch = simple_batch([(b"k", b"t")], base_offset=0, timestamp=NOW, base_sequence=at, **options)
        log.append_as_leader(memoryview(batch), 9, NOW, transactional=True)
        if at == 0:
            marker = end_txn_marker(99, 0, commit=True, coordinator_epoch=5, base_offset=0, timestamp=NOW)
            log.append_as_leader(memoryview(marker), 9, NOW, allow_control=True)
    log.write_staged()


def everything(log: Log) -> list[Record]:
    records: list[Record] = []
    offset = log.log_start_offset
    while offset < log.written_end_offset:
        result = log.read(offset, 1 << 20, end_offset=log.written_end_offset)
        position, view = 0, memoryview(result.data)
        while position < len(view):
            size = int.from_bytes(view[position + 8 : position + 12], "big") + 12
            records += read_records(view[position : position + size], limit=1 << 24)
            position += size
        offset = result.next_offset
    return records


def dump(*arguments: str) -> str:
    done = real_kafka.run_tool(DUMP, arguments)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_the_dump_tool_reads_our_files(tmp_path: Path) -> None:
    log = Log.open(RealDisk(), str(tmp_path / "orders-0"), SMALL, topic="orders", partition=0, wall_ms=NOW)
    fill(log)
    log.close()
    files = sorted(path for path in Path(log.dir).iterdir() if path.name != "leader-epoch-checkpoint")
    assert len([path for path in files if path.suffix == ".log"]) > 3
    text = dump("--files", ",".join(map(str, files)), "--deep-iteration")

    batches = re.findall(r"baseOffset: (\d+) lastOffset: (\d+) count: (\d+) .*? isvalid: (\w+)", text)
    assert {valid for *_, valid in batches} == {"true"}
    spans = sorted((int(base), int(last)) for base, last, *_ in batches)
    assert [base for base, _ in spans] == [0] + [last + 1 for _, last in spans[:-1]]
    assert spans[-1][1] + 1 == log.log_end_offset
    records = re.findall(r"^\| offset: (\d+) ", text, re.M)
    assert len(records) == log.log_end_offset
    for complaint in ("mismatch", "Mismatches", "not found", "out of order", "Index timestamp", "Found"):
        assert complaint not in text
    assert re.search(r"producerId: 77 producerEpoch: 2 .* lastSequence: \d+", text)
    assert re.search(
        r"producerId: 99 producerEpoch: 0 coordinatorEpoch: 5 currentTxnFirstOffset: OptionalLong\[\d+]", text
    )

    indexes = [str(path) for path in files if path.suffix == ".index"]
    checked = dump("--files", ",".join(indexes), "--index-sanity-check")
    assert checked.count("passed sanity check") == len(indexes)


def test_the_dump_tool_reads_what_compaction_leaves(tmp_path: Path) -> None:
    """Thinned and emptied batches of every codec, delete horizons, markers; and their indexes."""
    config = LogConfig(segment_bytes=60_000, cleanup_compact=True)
    log = Log.open(RealDisk(), str(tmp_path / "orders-0"), config, topic="orders", partition=0, wall_ms=NOW)
    fill(log)
    for number in range(20):
        tombstone = [Record(0, NOW, b"gone-%d" % number, None), Record(1, NOW, b"k%d" % number, b"v")]
        log.append_as_leader(memoryview(build_batch(tombstone, codec=Codec(number % 5))), 9, NOW)
    options = {"producer_id": 98, "producer_epoch": 0, "base_sequence": 0, "transactional": True}
    batch = simple_batch([(b"k", b"bad")], base_offset=0, timestamp=NOW, **options)
    log.append_as_leader(memoryview(batch), 9, NOW, transactional=True)
    marker = end_txn_marker(98, 0, commit=False, coordinator_epoch=5, base_offset=0, timestamp=NOW)
    log.append_as_leader(memoryview(marker), 9, NOW, allow_control=True)
    log.roll(NOW)
    log.flush_blocking()
    end = log.log_end_offset
    dirty = measure(log, 0, end, NOW)
    assert dirty is not None
    clean(log, dirty, NOW, 1 << 20, log._pool.disk)
    log.close()
    files = sorted(
        path for path in Path(log.dir).iterdir() if path.suffix in (".log", ".index", ".timeindex")
    )
    text = dump("--files", ",".join(map(str, files)), "--deep-iteration")

    batches = re.findall(r"baseOffset: (\d+) lastOffset: (\d+) count: (\d+) .*? isvalid: (\w+)", text)
    assert {valid for *_, valid in batches} == {"true"}
    assert int(batches[-1][1]) + 1 == end
    assert 0 in {int(count) for _, _, count, _ in batches}
    assert len(re.findall(rf"deleteHorizonMs: OptionalLong\[{NOW + 24 * 3600 * 1000}]", text)) == 20
    records = re.findall(r"^\| offset: (\d+) ", text, re.M)
    assert list(map(int, records)) == [record.offset for record in everything(reopened(log))]
    for complaint in ("mismatch", "Mismatches", "not found", "out of order", "Index timestamp", "Found"):
        assert complaint not in text


def reopened(log: Log) -> Log:
    return Log.open(
        RealDisk(),
        log.dir,
        log.config,
        topic="orders",
        partition=0,
        wall_ms=NOW,
        recovery_point=log.recovery_point,
    )


# A data directory that both use in turn


@pytest.fixture
def port() -> int:
    """The first of two neighbouring free ports."""
    return free_ports(2)[0]


@pytest.fixture
def peer(tmp_path: Path, port: int) -> Iterator[real_kafka.RealKafka]:
    settings = {
        "log.segment.bytes": "1048576",
        "log.index.size.max.bytes": "65536",
        "log.roll.jitter.ms": "0",
    }
    kafka = real_kafka.RealKafka(tmp_path / "kafka", port, settings=settings)
    kafka.start()
    yield kafka
    kafka.stop()


def produce(bootstrap: str, count: int) -> None:
    from kafka import KafkaProducer

    producer = KafkaProducer(
        bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, compression_type="gzip"
    )
    for number in range(count):
        producer.send("orders", key=b"k%d" % (number % 7), value=value(number), partition=0)
        if number % 50 == 49:
            producer.flush()
    producer.close()


def value(number: int) -> bytes:
    """Does not compress, so that segments are rolled."""
    return Random(number).randbytes(4000)


def consume(bootstrap: str) -> list[tuple[int, bytes | None, bytes | None]]:
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
    )
    where = TopicPartition("orders", 0)
    consumer.assign([where])
    end = consumer.end_offsets([where])[where]
    found = []
    while consumer.position(where) < end:
        for records in consumer.poll(5000).values():
            found += [(record.offset, record.key, record.value) for record in records]
    consumer.close()
    return found


def open_as_ours(path: Path) -> tuple[LogManager, Log]:
    manager = LogManager(RealDisk(), StepSyncer(), [str(path)], rng=Random(1))
    manager.start(node_id=1, cluster_id=real_kafka.CLUSTER_ID)
    report = manager.open_all(NOW)
    assert report.failed == []
    return manager, manager.logs["orders", 0]


def test_a_data_directory_goes_from_kafka_to_us_and_back(peer: real_kafka.RealKafka, tmp_path: Path) -> None:
    produce(peer.bootstrap, 500)
    theirs = consume(peer.bootstrap)
    assert len(theirs) == 500
    killed = tmp_path / "killed"
    shutil.copytree(
        peer.directory / "data", killed
    )  # as it is while Kafka runs: indexes full of zeros, no marker
    peer.stop()

    manager, log = open_as_ours(killed)
    assert not manager.clean
    assert [(record.offset, record.key, record.value) for record in everything(log)] == theirs
    manager.close()

    manager, log = open_as_ours(peer.directory / "data")
    assert manager.clean
    assert manager.cluster_id == real_kafka.CLUSTER_ID
    assert log.topic_id is not None
    assert log.log_end_offset == 500
    assert len(log.segments) > 1
    assert [(record.offset, record.key, record.value) for record in everything(log)] == theirs
    middle = everything(log)[250]
    found = log.lookup_timestamp(middle.timestamp)
    assert found is not None
    assert found[0] == middle.timestamp
    [producer] = log.active_producers()
    assert producer.last_offset == 499
    ours = simple_batch([(b"k", b"from odradek")], base_offset=0, timestamp=middle.timestamp + 1000)
    log.append_as_leader(memoryview(ours), log.epochs.latest, middle.timestamp + 1000)
    log.write_staged()
    with (peer.directory / "kafka.log").open("a") as told:
        told.write("---- ours\n")
    manager.close({key: one.log_end_offset for key, one in manager.logs.items()}, broker_epoch=1)

    peer.start()
    assert consume(peer.bootstrap) == [*theirs, (500, b"k", b"from odradek")]
    heard = (peer.directory / "kafka.log").read_text().partition("---- ours\n")[2]
    assert "orders-0" not in heard, "Kafka had something to recover or to complain about"
    produce(peer.bootstrap, 3)
    assert consume(peer.bootstrap)[-1] == (503, b"k2", value(2))


def test_the_dump_tool_reads_our_transaction_index_and_markers(tmp_path: Path) -> None:
    log = Log.open(
        RealDisk(), str(tmp_path / "payments-0"), LogConfig(), topic="payments", partition=0, wall_ms=NOW
    )
    for number, producer_id in enumerate((1, 2, 1, 2)):
        batch = simple_batch(
            [(b"k", b"v")] * 3, base_offset=0, timestamp=NOW, producer_id=producer_id, producer_epoch=4,
            base_sequence=number // 2 * 3, transactional=True,
        )  # fmt: skip
        log.append_as_leader(memoryview(batch), 0, NOW, transactional=True)
    for producer_id, commit in ((1, False), (2, True)):
        marker = end_txn_marker(
            producer_id, 4, commit=commit, coordinator_epoch=9, base_offset=0, timestamp=NOW
        )
        log.append_as_leader(memoryview(marker), 0, NOW, allow_control=True)
    log.close()
    index = dump("--files", f"{log.dir}/{0:020}.txnindex")
    assert "version: 0 producerId: 1 firstOffset: 0 lastOffset: 12 lastStableOffset: 3" in index
    assert index.count("producerId") == 1
    told = dump("--files", f"{log.dir}/{0:020}.log", "--print-data-log")
    assert "isTransactional: true isControl: true" in told
    assert re.search(r"offset: 12 .*endTxnMarker: ABORT coordinatorEpoch: 9", told)
    assert re.search(r"offset: 13 .*endTxnMarker: COMMIT coordinatorEpoch: 9", told)


def test_the_dump_tool_reads_what_we_have_recompressed(tmp_path: Path) -> None:
    """`compression.type` of a topic: batches of every codec become batches of every other one."""
    values = [b"value %d " % number * 40 for number in range(5)]
    logs = []
    for name in ("uncompressed", "gzip", "snappy", "lz4", "zstd"):
        config = LogConfig(compression_type=name)
        log = Log.open(RealDisk(), str(tmp_path / f"{name}-0"), config, topic=name, partition=0, wall_ms=NOW)
        for codec in Codec:
            items = [(b"k", value) for value in values]
            batch = simple_batch(items, base_offset=0, timestamp=NOW, codec=codec)
            log.append_as_leader(memoryview(batch), 3, NOW)
        log.close()
        logs.append((name, f"{log.dir}/{0:020}.log"))
    told = dump("--files", ",".join(path for _, path in logs), "--print-data-log")
    for (name, _), part in zip(logs, told.split("Dumping ")[1:], strict=True):
        found = re.findall(r"compresscodec: (\w+) crc: \d+ isvalid: (\w+)", part)
        assert found == [("none" if name == "uncompressed" else name, "true")] * len(Codec)
        assert re.findall(r"offset: (\d+) C", part) == [str(at) for at in range(5 * len(Codec))]
        assert re.findall(r"payload: (.*)", part) == [value.decode() for value in values] * len(Codec)
