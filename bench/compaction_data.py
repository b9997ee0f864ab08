"""Logs that are to be compacted, or deleted, made rather than written: both sides get the same files."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

from odradek.storage import layout
from odradek.storage.config import LogConfig
from odradek.storage.log import Log
from odradek.storage.real_disk import RealDisk
from odradek.wire.records import simple_batch

VALUE_SIZE = 1_000
RECORDS_PER_BATCH = 16
"""What a producer sends with Kafka's default batch.size of 16 KB."""


def make_log(directory: Path, size: int, segment_bytes: int, keys: int) -> int:
    """Closed segments of some `size` bytes of records of 1 KB, their keys drawn from so many; where the empty one
    behind them begins.
    """
    log = Log.open(
        RealDisk(), str(directory), LogConfig(segment_bytes=segment_bytes), topic=directory.name, partition=0,
        wall_ms=0,
    )  # fmt: skip
    rng = random.Random(1)
    values = [os.urandom(VALUE_SIZE) for _ in range(64)]
    now = time.time_ns() // 1_000_000
    while log.size_bytes < size:
        items: list[tuple[bytes | None, bytes | None]] = [
            (b"key-%010d" % rng.randrange(keys), values[rng.randrange(64)]) for _ in range(RECORDS_PER_BATCH)
        ]
        log.append_as_leader(memoryview(simple_batch(items, base_offset=0, timestamp=now)), 0, now)
        log.write_staged()
    log.roll(now)
    log.close()
    return log.log_end_offset


def place(template: Path, directory: Path) -> None:
    """Put those files into the directory of a log; closed segments are links, for nobody writes to them."""
    identity = (directory / layout.PARTITION_METADATA).read_bytes()
    shutil.rmtree(directory)
    directory.mkdir()
    (directory / layout.PARTITION_METADATA).write_bytes(identity)
    active = max(path.name for path in template.glob(f"*{layout.LOG_SUFFIX}"))
    for path in template.iterdir():
        if path.suffix == layout.LOG_SUFFIX and path.name != active:
            os.link(path, directory / path.name)
        else:
            shutil.copy(path, directory / path.name)


def size_of(directory: Path) -> int:
    """Bytes of the records that are there."""
    return sum(path.stat().st_size for path in directory.glob(f"*{layout.LOG_SUFFIX}"))
