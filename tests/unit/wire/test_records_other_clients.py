"""Record batches against the code of kafka-python and aiokafka: each reads what the other wrote."""

from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatch as AioBatch
from aiokafka.record.default_records import DefaultRecordBatchBuilder as AioBuilder
from kafka import codec as kafka_python_codecs
from kafka.record.default_records import DefaultRecordBatch as PyBatch
from kafka.record.default_records import DefaultRecordBatchBuilder as PyBuilder

from odradek.wire.records import Codec, Record, build_batch, crc_ok, parse_header, read_records

T = 1_700_000_000_000
LIMIT = 1 << 20
RECORDS = [
    Record(0, T, b"k", b"v"),
    Record(1, T + 1, None, b"x" * 9000, [("h", b"1"), ("h", b""), ("überschrift", b"\xff")]),
    Record(2, T - 100, b"", None),
    *(Record(n, T + 200 * n, b"key-%d" % n, b"value-%d " % n * 20) for n in range(3, 300)),
]
PRODUCER = {"producer_id": 4242, "producer_epoch": 3, "base_sequence": 17}


def clients() -> Iterator[Any]:
    """kafka-python has gzip and lz4 only unless libraries are there that nobody else needs."""
    available = {
        Codec.NONE: True,
        Codec.GZIP: True,
        Codec.SNAPPY: kafka_python_codecs.has_snappy(),
        Codec.LZ4: kafka_python_codecs.has_lz4(),
        Codec.ZSTD: kafka_python_codecs.has_zstd(),
    }
    for codec in Codec:
        yield pytest.param(AioBuilder, AioBatch, codec, id=f"aiokafka-{codec.name}")
        if available[codec]:
            yield pytest.param(PyBuilder, PyBatch, codec, id=f"kafka_python-{codec.name}")


@pytest.mark.parametrize("builder, batch, codec", list(clients()))
def test_what_they_build_is_read(builder: Any, batch: Any, codec: Codec) -> None:
    theirs = builder(magic=2, compression_type=codec, is_transactional=True, batch_size=LIMIT, **PRODUCER)
    for record in RECORDS:
        theirs.append(record.offset, record.timestamp, record.key, record.value, record.headers)
    built = bytes(theirs.build())
    assert crc_ok(built)
    header = parse_header(built)
    assert header.codec is codec and header.is_transactional
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (4242, 3, 17)
    assert read_records(built, header, limit=LIMIT) == RECORDS


@pytest.mark.parametrize("builder, batch, codec", list(clients()))
def test_what_we_build_is_read_by_them(builder: Any, batch: Any, codec: Codec) -> None:
    theirs = batch(bytes(build_batch(RECORDS, codec=codec, transactional=True, **PRODUCER)))
    assert theirs.validate_crc()
    assert theirs.is_transactional and theirs.compression_type == codec
    assert [Record(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in theirs] == RECORDS


@pytest.mark.parametrize("builder, batch, codec", [c for c in clients() if c.values[2] is Codec.NONE])
def test_uncompressed_batches_are_the_same_bytes(builder: Any, batch: Any, codec: Codec) -> None:
    theirs = builder(magic=2, compression_type=0, is_transactional=False, batch_size=LIMIT, **PRODUCER)
    for record in RECORDS:
        theirs.append(record.offset, record.timestamp, record.key, record.value, record.headers)
    ours = build_batch(RECORDS, leader_epoch=0, **PRODUCER)
    # They disagree on the leader epoch in front, which no client knows.
    assert bytes(ours)[16:] == bytes(theirs.build())[16:]
