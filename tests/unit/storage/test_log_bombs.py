"""Batches of a few KB that hold millions of records: nobody else waits for them to be opened."""

from __future__ import annotations

import pytest

from odradek.storage.config import LogConfig
from odradek.storage.conversion import OPENED_RECORDS_MAX, open_batch
from odradek.storage.log import Log
from odradek.storage.memory_disk import MemoryDisk, StepSyncer
from odradek.wire.compression import Codec, compress
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.records import ATTRIBUTES_AT, HEADER_SIZE, Record, build_batch, seal

WALL_MS = 1_700_000_000_000


def bomb(count: int, size: int = 0) -> bytearray:
    records = [Record(i, WALL_MS, b"k", bytes(size)) for i in range(count)]
    return build_batch(records, codec=Codec.ZSTD)


def log(**config: object) -> Log:
    disk = MemoryDisk(1)
    disk.makedirs("/d/t-0")
    settings = LogConfig(**config)  # type: ignore[arg-type]
    return Log.open(disk, "/d/t-0", settings, topic="t", partition=0, wall_ms=WALL_MS, syncer=StepSyncer())


@pytest.mark.parametrize(("count", "size"), [(OPENED_RECORDS_MAX + 1, 0), (40, 1 << 20)])
def test_a_topic_that_opens_batches_refuses_what_is_too_much(count: int, size: int) -> None:
    batch = bomb(count, size)
    assert len(batch) < 1_000_000
    compacted = log(cleanup_compact=True, cleanup_delete=False)
    compacted.epochs.assign(0, 0)
    with pytest.raises(KafkaError) as refused:
        compacted.append_as_leader(memoryview(batch), 0, WALL_MS)
    assert refused.value.code is ErrorCode.MESSAGE_TOO_LARGE
    assert compacted.log_end_offset == 0


@pytest.mark.parametrize(("count", "size"), [(OPENED_RECORDS_MAX + 1, 0), (40, 1 << 20)])
def test_a_time_inside_such_a_batch_is_answered_by_its_start(count: int, size: int) -> None:
    plain = log()
    plain.epochs.assign(0, 0)
    plain.append_as_leader(memoryview(bomb(count, size)), 0, WALL_MS)
    plain.write_staged()
    assert plain.lookup_timestamp(WALL_MS) == (WALL_MS, 0, 0)


def test_a_batch_that_lies_about_its_count_is_invalid() -> None:
    with pytest.raises(KafkaError):
        batch = bomb(1000)
        batch[57:61] = (10).to_bytes(4, "big")
        open_batch(memoryview(batch))


LIES = {
    "a key longer than its record": lambda body: body[:4] + b"\x7e" + body[5:],
    "a key longer than any memory": lambda body: body[:4] + b"\xfe\xff\xff\xff\x0f" + body[5:],
    "a record longer than the batch": lambda body: b"\x7e" + body[1:],
    "a record that ends before its key": lambda body: b"\x08" + body[1:],
    "a key of a negative length": lambda body: body[:4] + b"\x03" + body[5:],
    "bytes behind the last record": lambda body: body + b"junk",
}


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("lie", LIES)
def test_records_that_lie_about_their_lengths_are_refused_where_they_are_opened(
    codec: Codec, lie: str
) -> None:
    plain = build_batch([Record(0, WALL_MS, b"k", b"value")])
    body = compress(codec, LIES[lie](bytes(plain[HEADER_SIZE:])))
    batch = plain[:HEADER_SIZE] + body
    batch[8:12] = (len(batch) - 12).to_bytes(4, "big")
    batch[ATTRIBUTES_AT : ATTRIBUTES_AT + 2] = int(codec).to_bytes(2, "big")
    seal(batch)
    compacted = log(cleanup_compact=True, cleanup_delete=False)
    with pytest.raises(KafkaError) as refused:
        compacted.append_as_leader(memoryview(batch), 0, WALL_MS)
    assert refused.value.code in (ErrorCode.INVALID_RECORD, ErrorCode.CORRUPT_MESSAGE)
    assert compacted.log_end_offset == 0 and not compacted.offline
