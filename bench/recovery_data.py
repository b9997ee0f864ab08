"""Data directories of nodes that were killed, made rather than written: what a week of records leaves, in seconds.

Closed segments are sparse files that nobody is to look into; what lies past the recovery point is real. Both sides get
the same files, for both have the same format.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path

from odradek.storage import checkpoints, layout
from odradek.storage.checkpoints import CheckpointError
from odradek.storage.config import LogConfig
from odradek.storage.log import Log
from odradek.storage.producers import ProducerStates
from odradek.storage.real_disk import RealDisk
from odradek.wire.records import simple_batch

OFFSETS_PER_SEGMENT = 100_000
PRODUCER_ID = 4711


def tail(base_offset: int, size: int, batch_bytes: int) -> tuple[bytes, int]:
    """Batches of one record each, of an idempotent producer; and the offset behind them."""
    value = os.urandom(batch_bytes - 80)
    parts: list[bytes] = []
    offset, total = base_offset, 0
    now = time.time_ns() // 1_000_000
    while total < size:
        batch = simple_batch(
            [(None, value)], base_offset=offset, timestamp=now, leader_epoch=0, producer_id=PRODUCER_ID,
            producer_epoch=0, base_sequence=offset - base_offset,
        )  # fmt: skip
        parts.append(bytes(batch))
        total += len(batch)
        offset += 1
    return b"".join(parts), offset


def make_segments(directory: Path, count: int, size: int) -> int:
    """So many closed segments of that size in the directory of a log; where the one that is written to begins."""
    for path in directory.iterdir():
        if path.name != layout.PARTITION_METADATA:
            path.unlink()
    for number in range(count):
        base = number * OFFSETS_PER_SEGMENT
        with (directory / layout.file_name(base, layout.LOG_SUFFIX)).open("wb") as file:
            file.truncate(size)
        for suffix in (layout.INDEX_SUFFIX, layout.TIME_INDEX_SUFFIX):
            (directory / layout.file_name(base, suffix)).touch()
    (directory / layout.LEADER_EPOCH_CHECKPOINT).write_text(checkpoints.render_pairs([(0, 0)]))
    return count * OFFSETS_PER_SEGMENT


def put_tail(directory: Path, base_offset: int, data: bytes) -> None:
    """The segment that was written to when the node was killed, and nothing behind it."""
    for path in directory.iterdir():
        offset = layout.file_offset(path.name)
        if offset is not None and offset >= base_offset:
            path.unlink()
    (directory / layout.file_name(base_offset, layout.LOG_SUFFIX)).write_bytes(data)
    for suffix in (layout.INDEX_SUFFIX, layout.TIME_INDEX_SUFFIX):
        (directory / layout.file_name(base_offset, suffix)).touch()
    snapshot = directory / layout.file_name(base_offset, layout.SNAPSHOT_SUFFIX)
    snapshot.write_bytes(ProducerStates().encode_snapshot())


def put_recovery_points(data: Path, points: dict[tuple[str, int], int]) -> None:
    """And high watermarks, which were no lower: where one is, Kafka looks at the batch. Those of other logs stay."""
    for name in (layout.RECOVERY_POINT_CHECKPOINT, layout.HIGH_WATERMARK_CHECKPOINT):
        known: dict[tuple[str, int], int] = {}
        with contextlib.suppress(FileNotFoundError, CheckpointError):  # Kafka begins with an empty one
            known = checkpoints.parse_offsets((data / name).read_text())
        (data / name).write_text(checkpoints.render_offsets(known | points))
    (data / layout.CLEAN_SHUTDOWN_MARKER).unlink(missing_ok=True)


def make_many_segments(directory: Path, count: int) -> tuple[int, int, int]:
    """A log of so many small segments of real records, one a second; (offset at which the last begins, first and last
    time in ms).
    """
    shutil.rmtree(directory)
    first = time.time_ns() // 1_000_000 - 3600 * 1000
    config = LogConfig(segment_bytes=40_000)
    log = Log.open(RealDisk(), str(directory), config, topic=directory.name, partition=0, wall_ms=first)
    now = first
    while len(log.segments) < count:
        batch = simple_batch([(None, bytes(900))], base_offset=0, timestamp=now)
        log.append_as_leader(memoryview(batch), 0, now)
        log.write_staged()
        now += 50
    log.close()
    return log.active_segment.base_offset, first, now
