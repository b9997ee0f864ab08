"""Record batches against Apache Kafka's own code: the same bytes out, the same records in.

`record_batches_java.txt` is what `tests/interop/java/RecordBatches.java` prints with the jars of Kafka 4.3.1.
Compressed batches are compared by what they hold: compressors are free in their output.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from odradek.wire.compression import Codec
from odradek.wire.records import (
    ControlType,
    EndTxnMarker,
    Record,
    build_batch,
    control_batch,
    control_type,
    crc_ok,
    end_txn_marker,
    iter_batches,
    parse_end_txn_marker,
    parse_header,
    read_records,
)

T = 1_700_000_000_000
FIXTURE = Path(__file__).parent / "record_batches_java.txt"
JAVA = {name: bytes.fromhex(text) for name, text in map(str.split, FIXTURE.read_text().splitlines())}
LIMIT = 1 << 20


def plain(base: int, step: int = 1) -> list[Record]:
    return [
        Record(base, T, b"k1", b"v1"),
        Record(base + step, T + 5, None, b"v2"),
        Record(base + 2 * step, T - 70, b"k3", None),
        Record(base + 3 * step, T + 100_000, None, None),
        Record(base + 4 * step, T + 1, b"", b""),
    ]


def rich(base: int) -> list[Record]:
    return [
        Record(base, T, b"key", b"value", [("a", b"1"), ("", b""), ("null", None)]),
        Record(base + 1, T, "ключ".encode(), "значение".encode(), [("заголовок", "да".encode())]),
        Record(base + 2, T + 63, b"big", b"x" * 8200, [("big", b"b" * 100)]),
        Record(base + 3, T + 64, b"y" * 63, b"z" * 64),
    ]


def large() -> list[Record]:
    return [Record(i, T + i, b"key-%d" % i, b"value-%d " % i * 400) for i in range(20)]


LEADER_CHANGE = bytes.fromhex("0000000000010200000001000100")
SNAPSHOT_HEADER = bytes.fromhex("00000000018bcfe5680000")
KRAFT_VERSION = bytes.fromhex("0000000100")

BUILT: dict[str, Callable[[], bytearray]] = {
    "plain": lambda: build_batch(plain(0)),
    "rich": lambda: build_batch(rich(1 << 32), leader_epoch=7),
    "sparse": lambda: build_batch(plain(100, 9000), leader_epoch=3),
    "idempotent": lambda: build_batch(plain(0), producer_id=4242, producer_epoch=3, base_sequence=2**31 - 3),
    "transactional": lambda: build_batch(
        plain(12),
        producer_id=1 << 40,
        producer_epoch=32767,
        base_sequence=17,
        transactional=True,
        leader_epoch=0,
    ),
    "log_append_time": lambda: build_batch(plain(5), log_append_time=T + 999, leader_epoch=1),
    "no_timestamp": lambda: build_batch([Record(5, -1, b"k", b"v")]),
    "commit": lambda: end_txn_marker(
        9000, 2, commit=True, coordinator_epoch=11, base_offset=77, timestamp=T, leader_epoch=4
    ),
    "abort": lambda: end_txn_marker(
        9000, 2, commit=False, coordinator_epoch=-1, base_offset=78, timestamp=T, leader_epoch=4
    ),
    "leader_change": lambda: control_batch(
        [(ControlType.LEADER_CHANGE, LEADER_CHANGE)], base_offset=3, timestamp=T, leader_epoch=9
    ),
    "snapshot_header": lambda: control_batch(
        [(ControlType.SNAPSHOT_HEADER, SNAPSHOT_HEADER)], base_offset=0, timestamp=T, leader_epoch=9
    ),
    "kraft_version": lambda: control_batch(
        [(ControlType.KRAFT_VERSION, KRAFT_VERSION)], base_offset=0, timestamp=T, leader_epoch=9
    ),
}
READ = {
    "plain": plain(0),
    "rich": rich(1 << 32),
    "sparse": plain(100, 9000),
    "idempotent": plain(0),
    "transactional": plain(12),
    "no_timestamp": [Record(5, -1, b"k", b"v")],
    "empty": [],
    **dict.fromkeys(["gzip", "snappy", "lz4", "zstd", "gzip_9", "lz4_17", "zstd_22"], rich(10)),
    **dict.fromkeys(["gzip_large", "snappy_large", "lz4_large", "zstd_large"], large()),
}
CODECS = {"gzip": Codec.GZIP, "snappy": Codec.SNAPPY, "lz4": Codec.LZ4, "zstd": Codec.ZSTD}


@pytest.mark.parametrize("name", BUILT)
def test_batches_are_built_byte_for_byte_as_by_java(name: str) -> None:
    assert BUILT[name]().hex() == JAVA[name].hex()


@pytest.mark.parametrize("name", JAVA)
def test_checksums_of_java_are_right(name: str) -> None:
    assert crc_ok(JAVA[name])
    assert parse_header(JAVA[name]).size == len(JAVA[name])


@pytest.mark.parametrize("name", READ)
def test_records_of_java_are_read(name: str) -> None:
    assert read_records(JAVA[name], limit=LIMIT) == READ[name]


@pytest.mark.parametrize("name", [name for name in JAVA if name.partition("_")[0] in CODECS])
def test_codecs_of_java_are_recognised(name: str) -> None:
    assert parse_header(JAVA[name]).codec is CODECS[name.partition("_")[0]]


@pytest.mark.parametrize("name", ["snappy", "lz4"])
def test_compressed_records_open_with_the_framing_of_java(name: str) -> None:
    """The Java client reads one kind of lz4 frame only, and old clients one framing of snappy."""
    ours = build_batch(rich(10), codec=CODECS[name], leader_epoch=2)
    header = 16 if name == "snappy" else 7
    assert ours[61 : 61 + header].hex() == JAVA[name][61 : 61 + header].hex()


def test_log_append_time_is_the_time_of_every_record() -> None:
    records = read_records(JAVA["log_append_time"], limit=LIMIT)
    assert {record.timestamp for record in records} == {T + 999}
    assert [record.offset for record in records] == [5, 6, 7, 8, 9]


def test_header_fields_of_java_are_read() -> None:
    header = parse_header(JAVA["idempotent"])
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (4242, 3, 2**31 - 3)
    assert header.last_sequence == 1
    header = parse_header(JAVA["transactional"])
    assert header.is_transactional and not header.is_control
    assert (header.base_offset, header.last_offset, header.leader_epoch) == (12, 16, 0)


def test_an_empty_batch_keeps_offsets_and_sequence() -> None:
    """What compaction leaves of a producer's last batch."""
    header = parse_header(JAVA["empty"])
    assert (header.base_offset, header.last_offset, header.count, header.last_sequence) == (10, 14, 0, 10)


@pytest.mark.parametrize("name, marker", [("commit", (True, 11)), ("abort", (False, -1))])
def test_end_markers_of_java_are_read(name: str, marker: tuple[bool, int]) -> None:
    header = parse_header(JAVA[name])
    assert header.is_control and header.is_transactional
    (record,) = read_records(JAVA[name], header, limit=LIMIT)
    assert parse_end_txn_marker(record) == EndTxnMarker(*marker)


def test_control_types_of_java_are_read() -> None:
    for name in ("leader_change", "snapshot_header", "kraft_version"):
        (record,) = read_records(JAVA[name], limit=LIMIT)
        assert control_type(record.key) is ControlType[name.upper()]


def test_a_log_of_batches_is_gone_through() -> None:
    log = b"".join(JAVA.values())
    assert [log[pos : pos + header.size] for pos, header in iter_batches(log)] == list(JAVA.values())
