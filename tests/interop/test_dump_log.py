"""Our dump tool and Apache Kafka's, on the same files, print the same: standard output and standard error."""

from __future__ import annotations

import struct
from collections import Counter
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Any

import pytest

from interop import real_kafka
from interop.test_kafka_dump_log import SMALL, fill
from odradek.cli import dump_log
from odradek.raft.testing.node import METADATA_DIR, single_node
from odradek.storage.compaction import measure
from odradek.storage.config import LogConfig
from odradek.storage.log import Log
from odradek.storage.real_disk import RealDisk
from odradek.wire.messages.consumer_group_current_member_assignment_key import (
    ConsumerGroupCurrentMemberAssignmentKey,
)
from odradek.wire.messages.consumer_group_current_member_assignment_value import (
    ConsumerGroupCurrentMemberAssignmentValue,
    TopicPartitions,
)
from odradek.wire.messages.group_metadata_key import GroupMetadataKey
from odradek.wire.messages.group_metadata_value import GroupMetadataValue, MemberMetadata
from odradek.wire.messages.offset_commit_key import OffsetCommitKey
from odradek.wire.messages.offset_commit_value import OffsetCommitValue
from odradek.wire.messages.transaction_log_key import TransactionLogKey
from odradek.wire.messages.transaction_log_value import PartitionsSchema, TransactionLogValue
from odradek.wire.primitives import Message
from odradek.wire.records import Codec, Record, build_batch, end_txn_marker, simple_batch
from support.compaction import clean

NOW = 1_700_000_000_000
DUMP = "org.apache.kafka.tools.DumpLogSegments"
pytestmark = pytest.mark.usefixtures("kafka_tools")


def open_log(directory: Path, config: LogConfig | None = None) -> Log:
    return Log.open(
        RealDisk(), str(directory), config or LogConfig(), topic="orders", partition=0, wall_ms=NOW
    )


def compare(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Both tools with the same arguments; what they print."""
    theirs = real_kafka.run_tool(DUMP, arguments)
    assert theirs.returncode == 0, theirs.stderr.decode()
    capfd.readouterr()
    assert dump_log.main(list(arguments)) == 0
    ours = capfd.readouterr()
    assert ours.out.splitlines() == theirs.stdout.decode().splitlines()
    assert ours.err.splitlines() == sound(theirs.stderr.decode().splitlines())
    return ours.out


def sound(lines: list[str]) -> list[str]:
    """Without what Kafka 4.3's tool says of the first record of every segment but the log's first: that -1 precedes."""
    kept = [line for line in lines if not line.startswith("  -1 is followed by ")]
    title = "Non-consecutive offsets in "
    return [
        line
        for line, after in zip_longest(kept, kept[1:], fillvalue="")
        if not line.startswith(title) or after.startswith("  ")
    ]


def random_compacted(directory: Path, seed: int) -> Log:
    """Transactions of both outcomes, tombstones and every codec, compacted now and then."""
    rng, now, clean_below = Random(seed), NOW, 0
    config = LogConfig(
        segment_bytes=rng.choice((2000, 6000)),
        index_interval_bytes=200,
        cleanup_compact=True,
        delete_retention_ms=1000,
    )
    log = open_log(directory, config)
    sequences: Counter[int] = Counter()
    open_: set[int] = set()
    for number in range(250):
        now += rng.randint(0, 30)
        if open_ and rng.random() < 0.25:
            producer_id = open_.pop()
            marker = end_txn_marker(
                producer_id, 0, commit=rng.random() < 0.5, coordinator_epoch=1, base_offset=0, timestamp=now
            )
            log.append_as_leader(memoryview(marker), number // 80, now, allow_control=True)
        else:
            items = [
                (b"k%d" % rng.randrange(7), None if rng.random() < 0.25 else b"v%d" % number)
                for _ in range(rng.choice((1, 1, 2, 5)))
            ]
            producer_id = rng.choice((-1, -1, -1, 11, 12, 13))
            options: dict[str, Any] = {}
            if producer_id >= 0:
                open_.add(producer_id)
                options = {"producer_id": producer_id, "producer_epoch": 0, "transactional": True}
                options["base_sequence"] = sequences[producer_id]
                sequences[producer_id] += len(items)
            codec = Codec(rng.choice((0, 0, 1, 2, 3, 4)))
            batch = simple_batch(items, base_offset=0, timestamp=now, codec=codec, **options)
            log.append_as_leader(memoryview(batch), number // 80, now, transactional=producer_id >= 0)
        log.write_staged()
        if number % 60 == 59:
            log.roll(now)
            log.flush_blocking()
            log.epochs.write(durable=False)
            dirty = measure(log, clean_below, log.last_stable_offset(log.log_end_offset), now)
            if dirty is not None:
                clean_below = clean(log, dirty, now, 1 << 20, RealDisk()).end_offset
            now += rng.choice((0, 1500))
    log.flush_blocking()
    log.close()
    return log


def test_random_logs_with_transactions_that_were_compacted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logs = [random_compacted(tmp_path / f"t{seed}-0", seed) for seed in range(10)]
    kept = (".log", ".index", ".timeindex", ".txnindex", ".snapshot")
    paths = sorted(
        str(path)
        for log in logs
        for path in Path(log.dir).iterdir()
        if path.suffix in kept and path.stat().st_size
    )
    arguments = ("--files", ",".join(paths), "--print-data-log", "--deep-iteration")
    theirs = real_kafka.run_tool(DUMP, arguments)
    capfd.readouterr()
    assert dump_log.main(list(arguments)) == 0
    ours = capfd.readouterr()
    assert ours.out.splitlines() == theirs.stdout.decode().splitlines()
    assert sum(line.startswith("baseOffset") for line in ours.out.splitlines()) > 500
    # Files come in the order of a hash table there.
    assert sorted(ours.err.splitlines()) == sorted(sound(theirs.stderr.decode().splitlines()))


def files_of(log: Log) -> str:
    names = (path for path in Path(log.dir).iterdir() if path.name != "leader-epoch-checkpoint")
    return ",".join(map(str, sorted(names)))


def test_segments_of_every_codec_with_indexes_and_producers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = open_log(tmp_path / "orders-0", SMALL)
    fill(log)
    log.close()
    text = compare(capfd, "--files", files_of(log), "--deep-iteration")
    assert text.count("| offset: ") == log.log_end_offset
    compare(capfd, "--files", files_of(log), "--index-sanity-check")


def test_contents_headers_times_of_the_broker_gaps_and_a_torn_end(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = open_log(tmp_path / "orders-0", LogConfig(timestamp_type="LogAppendTime"))
    records = [
        Record(0, 5, "ключ".encode(), b"plain", [("h", b"x"), ("i", None)]),
        Record(1, 6, None, b"\xff"),
        Record(2, 7, b"", None),
    ]
    log.append_as_leader(memoryview(build_batch(records)), 3, NOW)
    log.write_staged()
    gap = simple_batch([(b"k", b"v"), (b"k", b"v")], base_offset=9, timestamp=NOW, leader_epoch=3)
    log.append_as_follower(memoryview(gap))
    log.close()
    path = Path(log.dir) / f"{0:020}.log"
    with path.open("ab") as file:
        file.write(bytes(gap[:80]))
    compare(capfd, "--files", f"{path},{tmp_path}/some.text", "--print-data-log")
    compare(capfd, "--files", str(path), "--print-data-log", "--skip-record-metadata")
    compare(capfd, "--files", str(path), "--max-bytes", "100")


def test_aborted_transactions_and_markers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = open_log(tmp_path / "orders-0")
    for producer_id in (1, 2):
        batch = simple_batch(
            [(b"k", b"v")] * 3, base_offset=0, timestamp=NOW, producer_id=producer_id, producer_epoch=4,
            base_sequence=0, transactional=True,
        )  # fmt: skip
        log.append_as_leader(memoryview(batch), 0, NOW, transactional=True)
    for producer_id in (1, 2):
        marker = end_txn_marker(
            producer_id, 4, commit=producer_id == 2, coordinator_epoch=9, base_offset=0, timestamp=NOW
        )
        log.append_as_leader(memoryview(marker), 0, NOW, allow_control=True)
    log.close()
    text = compare(capfd, "--files", files_of(log), "--print-data-log")
    assert "endTxnMarker: ABORT" in text
    assert "firstOffset: 0" in text


def test_indexes_that_do_not_fit_their_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = open_log(tmp_path / "orders-0", LogConfig(index_interval_bytes=100))
    for number in range(6):
        batch = simple_batch([(b"k", bytes(200))], base_offset=0, timestamp=NOW + number * 10)
        log.append_as_leader(memoryview(batch), 0, NOW)
    log.close()
    index, times = (Path(log.dir) / f"{0:020}{suffix}" for suffix in (".index", ".timeindex"))
    entries = bytearray(index.read_bytes())
    assert len(entries) >= 24
    entries[:4] = struct.pack(">i", struct.unpack(">i", entries[:4])[0] + 1)
    index.write_bytes(entries)
    timed = bytearray(times.read_bytes())
    assert len(timed) >= 36
    timed[12:20] = timed[:8]
    times.write_bytes(timed)
    compare(capfd, "--files", f"{index},{times}")
    compare(capfd, "--files", f"{index},{times}", "--verify-index-only")


def coordinator_bytes(number: int, message: Message, version: int) -> bytes:
    out = bytearray(struct.pack(">h", number))
    message.write(out, version)
    return bytes(out)


def test_records_of_the_coordinators(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def offset(topic: str) -> bytes:
        return coordinator_bytes(1, OffsetCommitKey("g", topic, 3), 0)

    member = MemberMetadata("m", None, "c", "h", 1, 2, b"sub", b"ass")
    assigned = ConsumerGroupCurrentMemberAssignmentValue(
        3, 2, 1, [TopicPartitions(bytes(range(16)), [0, 1])], []
    )
    groups = [
        (offset("tö"), coordinator_bytes(3, OffsetCommitValue(5, 2, "m", 7), 3)),
        (offset("t"), coordinator_bytes(4, OffsetCommitValue(5, 2, 'm"\\', 7, -1, bytes(range(16))), 4)),
        (offset("t"), coordinator_bytes(4, OffsetCommitValue(5, 2, "", 7), 4)),
        (offset("t"), None),
        (
            coordinator_bytes(2, GroupMetadataKey("g"), 0),
            coordinator_bytes(3, GroupMetadataValue("consumer", 4, "range", "l", 99, [member]), 3),
        ),
        (
            coordinator_bytes(8, ConsumerGroupCurrentMemberAssignmentKey("g", "m"), 0),
            coordinator_bytes(0, assigned, 0),
        ),
        (b"\0\x4d", b"\0\1x"),
    ]
    value = TransactionLogValue(
        producer_id=5, previous_producer_id=4, transaction_status=1,
        transaction_partitions=[PartitionsSchema("t", [0, 1])],
    )  # fmt: skip
    key = coordinator_bytes(0, TransactionLogKey("tx"), 0)
    transactions = [
        (key, coordinator_bytes(1, value, 1)),
        (key, coordinator_bytes(0, TransactionLogValue(producer_id=5, transaction_partitions=None), 0)),
        (key, None),
    ]
    for name, items, option in (
        ("groups", groups, "--offsets-decoder"),
        ("transactions", transactions, "--transaction-log-decoder"),
    ):
        log = open_log(tmp_path / f"{name}-0")
        log.append_as_leader(memoryview(simple_batch(items, base_offset=0, timestamp=NOW)), 0, NOW)
        log.close()
        compare(capfd, "--files", f"{log.dir}/{0:020}.log", option)


def test_the_metadata_log_and_its_snapshots(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    node = single_node()
    for _ in range(2):
        node.start()
        node.settle()
        node.append(b"one", b"two")
        node.settle()
        assert node.snapshot()
        node.settle()
        node.stop()
    directory = f"{METADATA_DIR}/__cluster_metadata-0"
    for name in node.disk.listdir(directory):
        (tmp_path / name).write_bytes(node.disk.read_file(f"{directory}/{name}"))
    paths = [path for path in sorted(tmp_path.iterdir()) if path.suffix in (".log", ".checkpoint")]
    assert {path.suffix for path in paths} == {".log", ".checkpoint"}
    text = compare(capfd, "--files", ",".join(map(str, paths)), "--print-data-log")
    assert "LeaderChange" in text
    assert "KRaftVoters" in text
