"""The rows of the table: what each measures, on what load, and what the project wants of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.clients import java_consume, java_produce, rdkafka_consume, rdkafka_produce
from bench.memory import warm_page_cache
from bench.procstat import MachineTime
from bench.raw_client import Admin
from bench.raw_fetch import Fetcher, Partition, fill_partition
from bench.raw_frames import BatchShape, produce_frame
from bench.raw_latency import Pacer, percentile
from bench.raw_produce import Limits, Producer, Window
from bench.servers import Server

if TYPE_CHECKING:
    from bench.clusters import Cluster

GB = 1_000_000_000
KB = 1024
RATE = 5000
ONE_RECORD = BatchShape(1, KB)
CURVE_PERCENTS = (50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.8, 99.9, 99.95, 99.99)

Metrics = dict[str, Any]
"""Numbers of one measurement: mb_s, messages_s, cpu_s_per_gb, node_busy, client_busy, others_busy, rss_mb …"""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how much. Sizes are bytes of record values."""

    rounds: int
    client_rounds: int
    seconds: float
    warmup_s: float
    payload_max: int
    partition_payload: int
    latency_s: float
    client_payload: int
    client_records_max: int
    connections: int
    fetch_connections: int
    latency_connections: int


FULL = Plan(
    rounds=5, client_rounds=3, seconds=6.0, warmup_s=3.0, payload_max=2 * GB, partition_payload=950_000_000,
    latency_s=15.0, client_payload=1 * GB, client_records_max=3_000_000, connections=16, fetch_connections=4,
    latency_connections=5,
)  # fmt: skip
QUICK = Plan(
    rounds=2, client_rounds=1, seconds=2.0, warmup_s=1.5, payload_max=1 * GB, partition_payload=400_000_000,
    latency_s=4.0, client_payload=200_000_000, client_records_max=500_000, connections=16, fetch_connections=4,
    latency_connections=5,
)  # fmt: skip


@dataclass(slots=True)
class Bench:
    """One side during one row: its node, and what the row's set-up left for its rounds."""

    server: Server | Cluster
    plan: Plan
    serial: int = 0
    prepared: Any = None

    def topic(self, row: str) -> str:
        """A new name, always equally long within a row."""
        self.serial += 1
        return f"bench-{row}-{self.serial:04d}"

    def warm_memory(self, payload: int) -> None:
        """Before `payload` bytes of values are produced; headers of records and batches come on top."""
        warm_page_cache(self.server.directory, payload + payload // 5)


@dataclass(frozen=True, slots=True)
class Target:
    """`metric` of our side must be at least (or at most) `value`, or `factor` × the peer's where `value` is None."""

    metric: str
    at_least: bool
    value: float | None = None
    factor: float = 1.0


FASTER = Target("mb_s", at_least=True)
CHEAPER = Target("cpu_s_per_gb", at_least=False)


@dataclass(frozen=True, slots=True)
class Row:
    """`run` measures once; `set_up` and `tear_down` surround all rounds of the row on one side."""

    name: str
    title: str
    group: str
    run: Callable[[Bench, Row], Metrics]
    targets: tuple[Target, ...] = ()
    shape: BatchShape = ONE_RECORD
    set_up: Callable[[Bench, Row], None] | None = None
    tear_down: Callable[[Bench, Row], None] | None = None
    options: dict[str, Any] = field(default_factory=dict)


class Meter:
    """Node, client and everybody else over one measurement."""

    def __init__(self, server: Server | Cluster) -> None:
        self._process = server.meter
        self._process.reset_peak()
        self._cpu_s = self._process.cpu_s()
        self._machine = MachineTime.now()

    def metrics(self, *, payload: int, records: int, wall_s: float, client_cpu_s: float) -> Metrics:
        node = self._process.cpu_s() - self._cpu_s
        machine = MachineTime.now()
        others = machine.busy_s - self._machine.busy_s - node - client_cpu_s
        return {
            "mb_s": payload / 1e6 / wall_s,
            "messages_s": records / wall_s,
            "cpu_s_per_gb": node / (payload / GB),
            "node_busy": node / wall_s,
            "client_busy": client_cpu_s / wall_s,
            "others_busy": max(0.0, others) / wall_s,
            "steal": (machine.steal_s - self._machine.steal_s) / wall_s,
            "rss_mb": self._process.peak_rss_mb(),
            "wall_s": wall_s,
        }


def copies(row: Row) -> int:
    """Replicas of each partition."""
    return int(row.options.get("replicas", 1))


def replication(row: Row) -> dict[str, int]:
    """What the raw generators need to know of it."""
    return {"replicas": copies(row), "acks": -1 if row.options.get("acks") == "all" else 1}


# Raw ---------------------------------------------------------------------------------------------------------------


def run_produce(bench: Bench, row: Row) -> Metrics:
    plan = bench.plan
    topic = bench.topic(row.name)
    producer = Producer(
        bench.server.port, topic, row.shape,
        connections=plan.connections, partitions=plan.connections, window=Window(), **replication(row),
    )  # fmt: skip
    try:
        producer.run(Limits(plan.warmup_s, plan.payload_max // 2))
        bench.warm_memory(plan.payload_max * copies(row))
        meter = Meter(bench.server)
        result = producer.run(Limits(plan.seconds, plan.payload_max))
        metrics = meter.metrics(
            payload=result.payload,
            records=result.records,
            wall_s=result.wall_s,
            client_cpu_s=result.client_cpu_s,
        )
        producer.verify()
    finally:
        producer.close()
    return {**metrics, "requests_s": result.requests / result.wall_s}


def set_up_fetch(bench: Bench, row: Row) -> None:
    bench.prepared = fill_partition(
        bench.server.port, bench.topic(row.name), row.shape, bench.plan.partition_payload
    )


def run_fetch(bench: Bench, row: Row) -> Metrics:
    plan, partition = bench.plan, bench.prepared
    assert isinstance(partition, Partition)
    fetcher = Fetcher(bench.server.port, partition, connections=plan.fetch_connections)
    try:
        fetcher.run(Limits(plan.warmup_s, 8 * plan.payload_max))
        meter = Meter(bench.server)
        result = fetcher.run(Limits(plan.seconds, 16 * plan.payload_max))
        metrics = meter.metrics(
            payload=result.payload,
            records=result.records,
            wall_s=result.wall_s,
            client_cpu_s=result.client_cpu_s,
        )
    finally:
        fetcher.close()
    return {**metrics, "requests_s": result.answers / result.wall_s}


def tear_down_fetch(bench: Bench, _row: Row) -> None:
    with Admin(bench.server.port) as admin:
        admin.delete_topic(bench.prepared.topic)


def run_latency(bench: Bench, row: Row) -> Metrics:
    plan = bench.plan
    rate = row.options.get("rate", RATE)
    pacer = Pacer(
        bench.server.port, bench.topic(row.name), row.shape, connections=plan.latency_connections,
        spin=copies(row) == 1, **replication(row),
    )  # fmt: skip
    try:
        pacer.run(rate, plan.warmup_s)
        meter = Meter(bench.server)
        result = pacer.run(rate, plan.latency_s)
        metrics = meter.metrics(
            payload=result.requests * row.shape.payload,
            records=result.requests,
            wall_s=result.requests / result.achieved_rate,
            client_cpu_s=result.client_cpu_s,
        )
    finally:
        pacer.close()
    ordered = sorted(result.latencies_ms)
    return {
        **metrics,
        "p50_ms": percentile(ordered, 50),
        "p99_ms": percentile(ordered, 99),
        "p999_ms": percentile(ordered, 99.9),
        "max_ms": ordered[-1],
        "curve_ms": [percentile(ordered, percent) for percent in CURVE_PERCENTS],
        "lateness_p999_ms": result.lateness_p999_ms,
    }


# Real clients --------------------------------------------------------------------------------------------------------


def client_records(bench: Bench, size: int) -> int:
    return min(bench.plan.client_records_max, bench.plan.client_payload // size)


def new_topic(bench: Bench, row: Row, partitions: int = 1) -> str:
    """A topic that is ready; a first record is in every partition."""
    topic = bench.topic(row.name)
    batch = BatchShape(1, row.shape.value_size).build()
    frames = [produce_frame(topic, partition, batch) for partition in range(partitions)]
    with Admin(bench.server.port) as admin:
        admin.create_topic(topic, partitions, frames, replicas=copies(row))
    return topic


def run_client_produce(bench: Bench, row: Row) -> Metrics:
    topic = new_topic(bench, row, row.options.get("partitions", 1))
    size, acks = row.shape.value_size, row.options["acks"]
    records = client_records(bench, size)
    bootstrap = bench.server.bootstrap
    if row.options["client"] == "rdkafka":
        rdkafka_produce(bootstrap, topic, records=records // 5, size=size, acks=acks)
    bench.warm_memory(2 * records * size * copies(row))
    meter = Meter(bench.server)
    if row.options["client"] == "rdkafka":
        result = rdkafka_produce(bootstrap, topic, records=records, size=size, acks=acks)
        payload = result.payload
    else:
        warmup = records // 3
        result = java_produce(bootstrap, topic, records=records, size=size, acks=acks, warmup=warmup)
        payload = result.payload + warmup * size
    metrics = meter.metrics(
        payload=result.payload, records=result.records, wall_s=result.wall_s, client_cpu_s=result.client_cpu_s
    )
    metrics["cpu_s_per_gb"] *= result.payload / payload  # the node also served the records that are not timed
    with Admin(bench.server.port) as admin:
        admin.delete_topic(topic)
    return timed_by_client(row, metrics)


def set_up_client_consume(bench: Bench, row: Row) -> None:
    bench.prepared = new_topic(bench, row)
    size = row.shape.value_size
    records = client_records(bench, size) - 1
    rdkafka_produce(bench.server.bootstrap, bench.prepared, records=records, size=size, acks="1")


def run_client_consume(bench: Bench, row: Row) -> Metrics:
    size = row.shape.value_size
    records = client_records(bench, size)
    bootstrap, topic = bench.server.bootstrap, bench.prepared
    meter = Meter(bench.server)
    if row.options["client"] == "rdkafka":
        result = rdkafka_consume(bootstrap, topic, partitions=1, records=records, size=size)
    else:
        result = java_consume(bootstrap, topic, records=records, size=size)
    metrics = meter.metrics(
        payload=result.payload, records=result.records, wall_s=result.wall_s, client_cpu_s=result.client_cpu_s
    )
    return timed_by_client(row, metrics)


def timed_by_client(row: Row, metrics: Metrics) -> Metrics:
    """Kafka's tools time a part of their life: shares of a CPU over that part would be wrong."""
    if row.options["client"] == "java":
        for share in ("node_busy", "others_busy", "steal"):
            del metrics[share]
    return metrics


def tear_down_client_consume(bench: Bench, _row: Row) -> None:
    with Admin(bench.server.port) as admin:
        admin.delete_topic(bench.prepared)


# The table -----------------------------------------------------------------------------------------------------------


def produce_row(name: str, title: str, shape: BatchShape, mb_s: float | None = None) -> Row:
    wanted = () if mb_s is None else (Target("mb_s", at_least=True, value=mb_s),)
    return Row(name, title, "produce", run_produce, (*wanted, FASTER, CHEAPER), shape)


def fetch_row(name: str, title: str, shape: BatchShape, mb_s: float | None = None) -> Row:
    wanted = () if mb_s is None else (Target("mb_s", at_least=True, value=mb_s),)
    return Row(
        name, title, "fetch", run_fetch, (*wanted, FASTER, CHEAPER), shape, set_up_fetch, tear_down_fetch
    )


def client_rows() -> list[Row]:
    rows = []
    for client, label in (("rdkafka", "librdkafka"), ("java", "Java")):
        for size, size_label in ((100, "100 B"), (KB, "1 KB")):
            shape, suffix = BatchShape(1, size), size_label.replace(" ", "").lower()
            targets = (FASTER, CHEAPER)
            for acks in ("1", "all"):
                name, title = (
                    f"{client}-produce-{suffix}-acks{acks}",
                    f"{label} producer, {size_label}, acks={acks}",
                )
                options = {"client": client, "acks": acks}
                rows.append(Row(name, title, "client", run_client_produce, targets, shape, options=options))
            name, title = f"{client}-consume-{suffix}", f"{label} consumer, {size_label}"
            around = (set_up_client_consume, tear_down_client_consume)
            rows.append(
                Row(name, title, "client", run_client_consume, targets, shape, *around, {"client": client})
            )
    return rows


ROWS: tuple[Row, ...] = (
    produce_row("produce-100b", "produce, 100 B requests", BatchShape(1, 100)),
    produce_row("produce-1k", "produce, 1 KB requests", BatchShape(1, KB), 200),
    produce_row("produce-16k", "produce, 16 KB batches", BatchShape(16, KB), 1000),
    produce_row("produce-100k", "produce, 100 KB batches", BatchShape(100, KB)),
    produce_row("produce-1m", "produce, 1 MB batches", BatchShape(1000, KB), 2000),
    Row(
        "latency", f"produce latency, {RATE}/s of 1 KB", "latency", run_latency,
        (Target("p99_ms", at_least=False),), options={"alone": True},
    ),
    fetch_row("fetch-1m", "fetch 1 MB, of 16 KB batches", BatchShape(16, KB), 2500),
    fetch_row("fetch-1m-1k", "fetch 1 MB, of 1 KB batches", BatchShape(1, KB)),
    fetch_row("fetch-1m-1m", "fetch 1 MB, of 1 MB batches", BatchShape(1000, KB), 2500),
    *client_rows(),
)  # fmt: skip
START_ROW = "start"
MICRO_ROW = "micro"
ROW_NAMES = (START_ROW, *(row.name for row in ROWS), MICRO_ROW)

START_TARGETS = (
    Target("fresh_s", at_least=False, value=0.8),
    Target("idle_rss_mb", at_least=False, value=90),
)
METADATA_MAX_US = 500.0
