"""Record batches before the Java classes of Kafka: they read what we build; the fixtures are theirs."""

from pathlib import Path

import pytest

from interop import jvm
from odradek.wire.records import (
    Codec,
    ControlType,
    Record,
    build_batch,
    control_batch,
    end_txn_marker,
    parse_header,
    read_records,
    simple_batch,
)

SOURCE = Path(__file__).parent / "java" / "RecordBatches.java"
FIXTURE = Path(__file__).parents[1] / "unit" / "wire" / "record_batches_java.txt"
T = 1_700_000_000_000
RECORDS = [
    Record(70, T, b"key", b"value", [("a", b"1"), ("a", None), ("\u00fc\U0001f600", b"")]),
    Record(71, T - 3, None, None),
    Record(75, T + 9, b"", b"x" * 70_000),
    *(Record(n, T + n, b"key-%d" % n, b"value-%d " % n * 30) for n in range(80, 400)),
]
LEVELS = {Codec.GZIP: (1, 9), Codec.LZ4: (1, 9, 17), Codec.ZSTD: (-131072, 1, 22)}


@pytest.fixture(scope="module")
def classpath(tmp_path_factory: pytest.TempPathFactory) -> str:
    try:
        path = jvm.classpath(*jvm.kafka("kafka-clients"))
        return jvm.compile_java(SOURCE, path, tmp_path_factory.mktemp("classes"))
    except jvm.Unavailable as missing:
        pytest.skip(str(missing))


def batches() -> dict[str, bytearray]:
    """One of each kind that we build, by a name without spaces."""
    built = {f"codec-{codec.name}": build_batch(RECORDS, codec=codec, leader_epoch=3) for codec in Codec}
    for codec, levels in LEVELS.items():
        for level in levels:
            built[f"{codec.name}-level{level}"] = build_batch(RECORDS, codec=codec, level=level)
    producer = {"producer_id": 2**62, "producer_epoch": 32767, "base_sequence": 2**31 - 2}
    built["transactional"] = build_batch(RECORDS, codec=Codec.LZ4, transactional=True, **producer)
    built["log_append_time"] = build_batch(RECORDS, log_append_time=T + 5)
    built["thinned"] = build_batch(RECORDS, base_offset=60, last_offset=1000)
    built["simple"] = simple_batch([(b"k", None), (None, b"v")], base_offset=2**40, timestamp=-1)
    built["commit"] = end_txn_marker(7, 2, commit=True, coordinator_epoch=9, base_offset=5, timestamp=T)
    built["control"] = control_batch([(ControlType.SNAPSHOT_FOOTER, b"\0\0\0")], base_offset=5, timestamp=T)
    return built


def verdict(batch: bytes | bytearray) -> str:
    """What RecordBatches.java says of a batch, said by us."""

    def text(content: bytes | None) -> str:
        return "null" if content is None else content.hex()

    header = parse_header(batch)
    fields = [
        header.base_offset,
        header.last_offset,
        header.leader_epoch,
        header.codec.name.lower(),
        "LogAppendTime" if header.is_log_append_time else "CreateTime",
        header.max_timestamp,
        header.producer_id,
        header.producer_epoch,
        header.base_sequence,
        header.last_sequence,
        str(header.is_transactional).lower(),
        str(header.is_control).lower(),
    ]
    lines = [" ".join(map(str, fields))]
    for record in read_records(batch, header, limit=1 << 20):
        parts = [str(record.offset), str(record.timestamp), text(record.key), text(record.value)]
        parts += [f"{key.encode().hex()}={text(value)}" for key, value in record.headers]
        lines.append(" ".join(parts))
    return "|".join(lines)


def test_java_reads_every_batch_that_we_build(classpath: str) -> None:
    built = batches()
    asked = "".join(f"{name} {batch.hex()}\n" for name, batch in built.items())
    answered = jvm.run_java("RecordBatches", classpath, asked.encode()).decode().splitlines()
    assert dict(line.split(" ", 1) for line in answered) == {name: verdict(b) for name, b in built.items()}


def test_the_fixtures_are_what_java_writes(classpath: str) -> None:
    """Compressed ones may differ with the version of a compressor; what they hold may not."""
    now = dict(map(str.split, jvm.run_java("RecordBatches", classpath, b"").decode().splitlines()))
    then = dict(map(str.split, FIXTURE.read_text().splitlines()))
    assert now.keys() == then.keys()
    for name, text in then.items():
        old, new = bytes.fromhex(text), bytes.fromhex(now[name])
        if parse_header(old).codec is Codec.NONE:
            assert new == old, name
        assert verdict(new) == verdict(old), name
