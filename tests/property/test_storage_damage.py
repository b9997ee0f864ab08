"""Random damage to any file of a log that was stopped or killed: what is served afterwards is right or refused.

Never is a wrong record served, never is a record lost silently from the middle, never does anything but KafkaError or
OSError come out. (The leader epoch in a batch header is under no checksum in Kafka's format, and a torn tail past the
recovery point may be cut.)
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from odradek.storage.config import LogConfig
from odradek.storage.log import Log
from odradek.storage.memory_disk import MemoryDisk
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.records import Record, read_records, simple_batch

NOW = 1_700_000_000_000
DIR = "/data/t-0"
COUNT = 60
CONFIG = LogConfig(segment_bytes=1500, index_interval_bytes=200)
REFUSALS = (ErrorCode.CORRUPT_MESSAGE, ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.OFFSET_OUT_OF_RANGE)


def written(rng: Random, *, clean: bool) -> tuple[MemoryDisk, int, list[int]]:
    """A disk with a log of 60 records in some twenty segments, its recovery point, the records' times."""
    times: list[int] = []
    disk = MemoryDisk(rng.randrange(1 << 30))
    disk.makedirs("/data")
    log = opened(disk, 0, clean=False)
    offset = sequence = 0
    while offset < COUNT:
        count = min(rng.choice((1, 1, 3)), COUNT - offset)
        items = [(b"k", b"v%d" % number * rng.choice((1, 40))) for number in range(offset, offset + count)]
        producer: dict[str, Any] = {}
        if rng.random() < 0.5:
            producer = {"producer_id": 5, "producer_epoch": 0, "base_sequence": sequence}
            sequence += count
        batch = simple_batch(items, base_offset=0, timestamp=NOW + offset, **producer)
        log.append_as_leader(memoryview(batch), offset // 20, NOW)
        log.write_staged()
        times += [NOW + offset] * count
        offset += count
    if clean:
        log.close()
        return disk, COUNT, times
    log.close_files()
    return disk, rng.choice((0, 20, log.active_segment.base_offset)), times


def opened(disk: MemoryDisk, recovery_point: int, *, clean: bool) -> Log:
    return Log.open(
        disk, DIR, CONFIG, topic="t", partition=0, wall_ms=NOW, recovery_point=recovery_point, clean=clean
    )


def damage(disk: MemoryDisk, rng: Random) -> str:
    """Harm one file in one way; what was done."""
    name = rng.choice(disk.listdir(DIR))
    path = f"{DIR}/{name}"
    data = bytearray(disk.read_file(path))
    how = rng.choice(("flip", "flip", "flip", "zero", "garbage", "truncate", "append", "unlink"))
    at = rng.randrange(len(data)) if data else 0
    if how == "unlink" and not name.endswith(
        ".log"
    ):  # a whole segment gone leaves a hole in the names: its own test
        disk.unlink(path)
        return f"{name}: unlink"
    if how == "flip" and data:
        data[at] ^= 1 << rng.randrange(8)
    elif how == "truncate":
        del data[at:]
    elif how == "append":
        data += rng.randbytes(rng.randrange(1, 200)) if rng.random() < 0.5 else bytes(rng.randrange(1, 200))
    else:
        size = rng.randrange(1, 100)
        data[at : at + size] = bytes(size) if how == "zero" else rng.randbytes(size)
    disk.write_file_atomic(path, bytes(data), durable=False)
    return f"{name}: {how} at {at}"


def records_from(log: Log, offset: int) -> tuple[list[Record], bool]:
    """Records from `offset` on, and whether reading ended at damage."""
    records: list[Record] = []
    while offset < log.written_end_offset:
        try:
            result = log.read(offset, 4000, end_offset=log.written_end_offset)
        except KafkaError as error:
            assert error.code in REFUSALS
            return records, True
        assert result.next_offset > offset, "a read that does not advance"
        view, position = memoryview(result.data), 0
        while position < len(view):
            size = int.from_bytes(view[position + 8 : position + 12], "big") + 12
            records += read_records(view[position : position + size], limit=1 << 20)
            position += size
        offset = result.next_offset
    return records, False


def check(log: Log, times: list[int], *, tail_may_be_cut: bool) -> None:
    for start in range(log.log_start_offset, min(log.log_end_offset, COUNT + 9), 7):
        records, refused = records_from(log, start)
        offsets = [record.offset for record in records]
        assert offsets == list(range(offsets[0], offsets[0] + len(offsets))) if offsets else True
        assert not offsets or offsets[0] <= start
        for record in records:
            assert record.timestamp <= NOW + record.offset
            assert (record.value or b"").startswith(b"v%d" % record.offset)
        if not refused:
            assert offsets[-1] == log.log_end_offset - 1
    assert log.log_end_offset == COUNT or tail_may_be_cut or log.corrupt_offset is not None
    for offset in range(0, COUNT, 9):
        try:
            found = log.lookup_timestamp(NOW + offset)
        except KafkaError as error:
            assert error.code in REFUSALS
            continue
        if found is not None and log.corrupt_offset is None:
            expected = next(number for number in range(COUNT) if times[number] >= found[0])
            assert found[:2] == (times[found[1]], expected)
            assert expected == 0 or times[expected - 1] < NOW + offset <= found[0]


def append_or_refuse(log: Log) -> None:
    try:
        if (
            log.epochs.latest >= 99
        ):  # the unprotected epoch of a last batch was believed; a new leader puts that right
            log.epochs.assign(99, log.log_end_offset)
        batch = simple_batch([(b"k", b"v%d" % log.log_end_offset)], base_offset=0, timestamp=NOW)
        log.append_as_leader(memoryview(batch), 99, NOW)
        log.write_staged()
    except KafkaError as error:
        assert error.code is ErrorCode.KAFKA_STORAGE_ERROR


def damaged_life(seed: int) -> None:
    rng = Random(seed)
    clean = rng.random() < 0.5
    disk, recovery_point, times = written(rng, clean=clean)
    done = [damage(disk, rng) for _ in range(rng.choice((1, 1, 2)))]
    log = opened(disk, recovery_point, clean=clean)
    tail_may_be_cut = not clean or any(".log" in one or ".snapshot" in one for one in done)
    try:
        check(log, times, tail_may_be_cut=tail_may_be_cut)
        append_or_refuse(log)
        log.delete_old_segments(NOW + 1000, log.written_end_offset)
        log.close()
        again = opened(disk, log.recovery_point, clean=not log.offline)
        assert again.log_end_offset >= log.written_end_offset or again.corrupt_offset is not None
        records_from(again, again.log_start_offset)
    except BaseException as error:
        error.add_note(f"damaged_life({seed}): clean={clean}, {done}")
        raise


@pytest.mark.parametrize("seed", range(0, 1000, 200))
def test_damage_is_never_served(seed: int) -> None:
    for number in range(seed, seed + 200):
        damaged_life(number)
