"""`python -m bench recovery`: starts after kill -9, and what many segments and partitions cost.

    crash     100 GB in 1,000 segments (sparse), with nothing and with 1 GB past the recovery point
    many      10,000 partitions on one node: start after kill -9, memory, idle CPU
    lookup    ListOffsets by time in a log of 1,000 segments

A start counts from the process to a record acknowledged behind the last one that was there. Nothing is pinned: a
recovery may use all CPUs on either side. Written to bench/results/<date>-<label>.{json,md,png}.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench import recovery_data, recovery_report
from bench.clusters import until
from bench.parts import Parts, add, find_parts, parser_of
from bench.raw_client import CREATE_TOPICS_VERSION, LIST_OFFSETS_VERSION, Admin, BenchError, check
from bench.raw_frames import BatchShape, produce_frame
from bench.raw_latency import percentile
from bench.recovery_report import CRASH, LOOKUP, MANY, PARTS
from bench.report import OURS, PEER
from bench.rows import Metrics
from bench.runner import guarded, settle
from bench.servers import KafkaServer, OdradekServer, Server, free_ports
from odradek.wire.messages.create_topics import CreatableTopic, CreateTopicsRequest, CreateTopicsResponse
from odradek.wire.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
)

SIDES = (OURS, PEER)
TOPIC = "killed"
PARTITIONS, SEGMENTS_EACH, SEGMENT_BYTES = 100, 10, 100 << 20
GB = 1_000_000_000
TAILS = {
    "100 GB, nothing past the recovery point": (0, 16_384),
    "100 GB, 1 GB past it in batches of 16 KB": (GB, 16_384),
    "100 GB, 1 GB past it in batches of 1 KB": (GB, 1_024),
}
LOOKUP_SEGMENTS, LOOKUPS = 1_000, 300
TOPIC_PARTITIONS_MAX = 1_000
IDLE_AFTER_S, IDLE_S = 5.0, 10.0
START_TIMEOUT_S = 120.0
RETRY_S = 0.005


def main(argv: list[str]) -> int:
    options = parse(argv)
    return find_parts("recovery", options, Run, recovery_report, notes(options))


def parse(argv: list[str]) -> argparse.Namespace:
    parser = parser_of("recovery", "Starts after kill -9.", PARTS, SIDES, "one round, 2,000 partitions")
    parser.add_argument("--rounds", type=int, default=3, help="of starts; Kafka's are at most two")
    parser.add_argument("--partitions", type=int, default=10_000, help="of one node")
    parser.add_argument(
        "--kafka-partitions", type=int, default=0, help="the same on Kafka's side; 10,000 take it minutes"
    )
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds, options.partitions = 1, 2_000
    return options


class Run:
    """Everything measured."""

    def __init__(self, options: argparse.Namespace, root: Path) -> None:
        self.samples: Parts = {}
        self._options = options
        self._root = root

    def measure(self) -> None:
        parts = {CRASH: self._crash, MANY: self._many, LOOKUP: self._lookup}
        for part in self._options.only:
            servers = self._servers(part)
            try:
                parts[part](servers)
            finally:
                for server in servers.values():
                    server.remove()

    def _servers(self, part: str) -> dict[str, Server]:
        kinds: dict[str, type[Server]] = {OURS: OdradekServer, PEER: KafkaServer}
        ports = free_ports(len(self._options.sides))
        return {
            side: kinds[side](self._root / f"{part}-{side}", port, frozenset())
            for side, port in zip(self._options.sides, ports, strict=True)
        }

    def _add(self, part: str, row: str, side: str, work: Callable[[], Metrics]) -> bool:
        metrics = add(self.samples, part, row, side, guarded(work))
        settle()
        return "error" not in metrics

    def _crash(self, servers: dict[str, Server]) -> None:
        logs = {side: Killed(server) for side, server in servers.items()}
        for row, (size, batch_bytes) in TAILS.items():
            for number in range(self._options.rounds):
                for side, killed in logs.items():
                    if side == OURS or number < 2:
                        self._add(CRASH, row, side, partial(killed.round, size, batch_bytes))

    def _many(self, servers: dict[str, Server]) -> None:
        for side, server in servers.items():
            count = self._options.partitions if side == OURS else self._options.kafka_partitions
            if count:
                self._add(MANY, f"{count:,} partitions", side, partial(many_partitions, server, count))

    def _lookup(self, servers: dict[str, Server]) -> None:
        for side, server in servers.items():
            self._add(LOOKUP, f"{LOOKUP_SEGMENTS:,} segments", side, partial(lookups, server))


class Killed:
    """A node with a topic of large logs, that is killed and started."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._data = server.directory / "data"
        self._base = 0

    def round(self, size: int, batch_bytes: int) -> Metrics:
        """Start with so many bytes past the recovery points, of all logs together."""
        server = self._server
        if not self._base:
            self._begin()
        data, end = (
            recovery_data.tail(self._base, size // PARTITIONS, batch_bytes) if size else (b"", self._base)
        )
        for directory in self._directories():
            recovery_data.put_tail(directory, self._base, data)
        recovery_data.put_recovery_points(self._data, {(TOPIC, at): self._base for at in range(PARTITIONS)})
        try:
            server.spawn()
            seconds = written_after(server, {(TOPIC, at): end for at in (0, PARTITIONS - 1)})
            total = len(data) * PARTITIONS
            metrics: Metrics = {
                "seconds": seconds,
                "cpu_s": server.meter.cpu_s(),
                "mb": server.meter.rss_mb(),
            }
            return metrics | ({"gb": total / GB} if total else {})
        finally:
            kill(server)

    def _begin(self) -> None:
        self._server.start()
        try:
            create(self._server, {TOPIC: PARTITIONS})
        finally:
            kill(self._server)
        for directory in self._directories():
            self._base = recovery_data.make_segments(directory, SEGMENTS_EACH, SEGMENT_BYTES)

    def _directories(self) -> list[Path]:
        return [self._data / f"{TOPIC}-{number}" for number in range(PARTITIONS)]


def many_partitions(server: Server, count: int) -> Metrics:
    """One start with a record in each partition; then what the idle node takes."""
    topics = {
        f"many-{number}": min(TOPIC_PARTITIONS_MAX, count - number * TOPIC_PARTITIONS_MAX)
        for number in range(-(-count // TOPIC_PARTITIONS_MAX))
    }
    server.start()
    try:
        create(server, topics)
    finally:
        kill(server)
    data, end = recovery_data.tail(0, 1, 200)
    data_dir = server.directory / "data"
    for topic, partitions in topics.items():
        for number in range(partitions):
            recovery_data.put_tail(data_dir / f"{topic}-{number}", 0, data)
    recovery_data.put_recovery_points(data_dir, {})
    try:
        server.spawn()
        wanted = {(topic, at): end for topic, partitions in topics.items() for at in (0, partitions - 1)}
        seconds = written_after(server, wanted)
        meter = server.meter
        cpu_s, peak = meter.cpu_with_children_s(), meter.peak_rss_mb()
        time.sleep(IDLE_AFTER_S)
        before, began = meter.cpu_s(), time.perf_counter()
        time.sleep(IDLE_S)
        percent = (meter.cpu_s() - before) / (time.perf_counter() - began) * 100
        return {
            "seconds": seconds,
            "cpu_s": cpu_s,
            "mb": meter.rss_mb(),
            "peak_mb": peak,
            "idle_percent": percent,
        }
    finally:
        kill(server)


def lookups(server: Server) -> Metrics:
    """The first lookup after a start, which nobody has prepared, and then some hundred at random times."""
    server.start()
    try:
        create(server, {TOPIC: 1})
    finally:
        kill(server)
    data = server.directory / "data"
    directory = data / f"{TOPIC}-0"
    identity = (directory / "partition.metadata").read_bytes()
    base, first, last = recovery_data.make_many_segments(directory, LOOKUP_SEGMENTS)
    (directory / "partition.metadata").write_bytes(identity)
    recovery_data.put_recovery_points(data, {(TOPIC, 0): base})
    rng = random.Random(1)
    try:
        server.start()
        times: list[float] = []
        with Admin(server.port) as admin:
            for number in range(LOOKUPS):
                # The first goes to the end: through all segments.
                timestamp = last - 100 if number == 0 else rng.randrange(first, last - 50)
                began = time.perf_counter()
                found = offset_at(admin, timestamp)
                times.append((time.perf_counter() - began) * 1e3)
                expected = -((first - timestamp) // 50)
                if found != expected:
                    raise BenchError(
                        f"{timestamp - first} ms after the first record is offset {expected}, not {found}"
                    )
        rest = sorted(times[1:])
        return {"ms": percentile(rest, 50), "p99_ms": percentile(rest, 99), "first_ms": times[0]}
    finally:
        kill(server)


def offset_at(admin: Admin, timestamp: int) -> int:
    wanted = ListOffsetsPartition(partition_index=0, timestamp=timestamp)
    request = ListOffsetsRequest(replica_id=-1, topics=[ListOffsetsTopic(name=TOPIC, partitions=[wanted])])
    found = admin.ask(request, LIST_OFFSETS_VERSION, ListOffsetsResponse).topics[0].partitions[0]
    check(found.error_code, "ListOffsets")
    return found.offset


def create(server: Server, topics: dict[str, int]) -> None:
    """Topics with so many partitions, all led, and their directories there."""
    with Admin(server.port, timeout_s=START_TIMEOUT_S) as admin:
        for name, partitions in topics.items():
            topic = CreatableTopic(name=name, num_partitions=partitions, replication_factor=1)
            request = CreateTopicsRequest(topics=[topic], timeout_ms=60_000)
            answer = admin.ask(request, CREATE_TOPICS_VERSION, CreateTopicsResponse)
            check(answer.topics[0].error_code, f"CreateTopics {name}")
            admin.leader_ports(name, partitions, 1)
    wanted = [
        f"{name}-{at}/partition.metadata" for name, partitions in topics.items() for at in range(partitions)
    ]
    until(
        lambda: all((server.directory / "data" / each).exists() for each in wanted),
        "some logs are not there",
        START_TIMEOUT_S,
    )


def written_after(server: Server, ends: dict[tuple[str, int], int]) -> float:
    """Seconds from the spawn until each of these partitions has taken a record, at the offset that it must have."""
    batch = BatchShape(1, 100).build()
    left = dict(ends)
    deadline = server.spawned_at + START_TIMEOUT_S
    while time.perf_counter() < deadline:
        server.check_alive()
        with contextlib.suppress(OSError), Admin(server.port, timeout_s=10.0) as admin:
            while left and time.perf_counter() < deadline:
                (topic, partition), end = next(iter(left.items()))
                error, offset = admin.produce(produce_frame(topic, partition, batch))
                if error:
                    time.sleep(RETRY_S)
                elif offset != end:
                    raise BenchError(f"{topic}-{partition} ends at {offset} after the recovery, not at {end}")
                else:
                    del left[topic, partition]
            if not left:
                return time.perf_counter() - server.spawned_at
        time.sleep(RETRY_S)
    raise BenchError(f"{server.label}: no record was taken in {START_TIMEOUT_S:.0f} s: {server.last_words()}")


def kill(server: Server) -> None:
    """kill -9."""
    if server.process is not None:
        server.process.kill()
        server.process.wait()
        server.process = None


def notes(options: argparse.Namespace) -> list[str]:
    return [
        f"{options.rounds} starts of each kind on our side, at most two on Kafka's. Both sides have the same files: "
        f"{PARTITIONS} logs of {SEGMENTS_EACH} closed segments of 100 MB (sparse: nobody is to read them), and one "
        "that was written to, of an idempotent producer, in the page cache.",
        "A start counts from the process to a record acknowledged in the first and the last partition, at the offset "
        "behind the last that was there. Nothing is pinned. Kafka recovers with num.recovery.threads.per.data.dir=1, "
        "as in its config/server.properties.",
        "Memory is that of the node right after the start; of many partitions, when it has been idle for 15 s.",
        f"ListOffsets: {LOOKUPS} times one partition by a random time, one request at a time; the first after the "
        "start stands apart, for it looks into every segment.",
    ]
