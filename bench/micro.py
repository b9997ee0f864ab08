"""Microseconds of the pieces, without sockets: `python -m bench micro`.

Each figure is the median over repetitions of a short loop, with the fastest beside it: on a shared machine the
fastest says what the code costs, the median what it got.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

from bench.raw_frames import BatchShape

REPETITIONS = 40
EVENT_BYTES = 1 << 18
"""What one readable event of the node brings at most: appends are written in groups of this size."""
APPEND_SHAPES = {
    "1 KB": BatchShape(1, 1024),
    "16 KB": BatchShape(16, 1024),
    "100 KB": BatchShape(100, 1024),
    "1 MB": BatchShape(1000, 1024),
}


@dataclass(frozen=True, slots=True)
class MicroResult:
    name: str
    median_us: float
    best_us: float


def run_all() -> list[MicroResult]:
    gc.collect()
    gc.disable()
    try:
        return [*appends(), *metadata_encoding(), *record_parsing()]
    finally:
        gc.enable()


def as_json(results: list[MicroResult]) -> list[dict[str, Any]]:
    return [asdict(result) for result in results]


def result_of(name: str, seconds: list[float], per_loop: int) -> MicroResult:
    scale = 1e6 / per_loop
    return MicroResult(name, statistics.median(seconds) * scale, min(seconds) * scale)


def timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


# The log ---------------------------------------------------------------------------------------------------------


def appends() -> list[MicroResult]:
    """`append_as_leader` (check, CRC-32C, patch, stage) and the gathered write behind it, per batch."""
    results = []
    for label, shape in APPEND_SHAPES.items():
        staging, writing, count = append_times(shape)
        results.append(result_of(f"append_as_leader {label}", staging, count))
        results.append(result_of(f"write_staged {label}", writing, count))
    return results


def append_times(shape: BatchShape) -> tuple[list[float], list[float], int]:
    from odradek.storage.config import LogConfig
    from odradek.storage.log import Log
    from odradek.storage.real_disk import RealDisk

    batch = shape.build()
    count = max(1, EVENT_BYTES // len(batch))
    views = [memoryview(bytearray(batch)) for _ in range(count)]
    wall_ms = time.time_ns() // 1_000_000
    staging, writing = [], []
    with tempfile.TemporaryDirectory(prefix="odradek-bench-") as root:
        log = Log.open(
            RealDisk(), f"{root}/bench-0", LogConfig(), topic="bench", partition=0, wall_ms=wall_ms
        )

        def stage() -> None:
            append = log.append_as_leader
            for view in views:
                append(view, 0, wall_ms)

        for _ in range(REPETITIONS):
            staging.append(timed(stage))
            writing.append(timed(log.write_staged))
        log.close_files()
    return staging[1:], writing[1:], count


# Metadata --------------------------------------------------------------------------------------------------------


def metadata_encoding(topics: int = 100, partitions: int = 10) -> list[MicroResult]:
    """The body of a Metadata answer about all topics, version 12, nothing cached."""
    from odradek.broker.api.metadata import encode_body
    from odradek.wire.messages.metadata import MetadataRequest

    node = stand_in_node(topics, partitions)
    request = MetadataRequest(topics=None)
    seconds = [timed(lambda: encode_body(node, request, 12, "PLAINTEXT")) for _ in range(REPETITIONS * 5)]
    return [result_of(f"Metadata {topics} topics x {partitions} partitions", seconds, 1)]


def stand_in_node(topics: int, partitions: int) -> Any:
    """As much of a node as the encoder looks at: an image with one broker that leads everything."""
    from odradek.metadata.image import MetadataImage, PartitionImage, TopicImage

    named = {}
    for number in range(topics):
        name = f"topic-{number:03d}"
        images = {
            index: PartitionImage(replicas=(1,), isr=(1,), leader=1, leader_epoch=0, partition_epoch=0)
            for index in range(partitions)
        }
        named[name] = TopicImage(name=name, id=number.to_bytes(16, "big"), partitions=images)
    image = MetadataImage(topics=named, topic_names={topic.id: name for name, topic in named.items()})
    broker = SimpleNamespace(id=1, host="localhost", port=9092, rack=None)
    return SimpleNamespace(
        image=image,
        brokers_on=lambda _listener: [broker],
        controller_to_tell=lambda _brokers: 1,
        internal_topics=frozenset(),
    )


# Records ---------------------------------------------------------------------------------------------------------


def record_parsing() -> list[MicroResult]:
    """Reading every record of an uncompressed batch, per record."""
    from odradek.wire.records import read_records

    results = []
    for size in (100, 1024):
        shape = BatchShape(100, size)
        batch = memoryview(shape.build())
        seconds = [timed(lambda: read_records(batch, limit=1 << 24)) for _ in range(REPETITIONS)]  # noqa: B023
        results.append(result_of(f"parse a record of {size} B", seconds, shape.records))
    return results
