"""The rows of `python -m bench three-nodes`: replication factor 3, acks=all, min.insync.replicas=2.

Three nodes and the client share all CPUs of the machine, on both sides: the kernel decides who runs where.
"""

from __future__ import annotations

import time
from dataclasses import replace

from bench.clusters import Cluster
from bench.raw_frames import BatchShape
from bench.rows import (
    CHEAPER,
    FASTER,
    FULL,
    KB,
    ONE_RECORD,
    QUICK,
    Metrics,
    Row,
    Target,
    run_client_produce,
    run_latency,
    run_produce,
)

LOW_RATE = 200
IDLE_AFTER_S = 3.0
REPLICATED = {"replicas": 3, "acks": "all"}

CLUSTER_FULL = replace(
    FULL, rounds=3, client_rounds=3, seconds=5.0, warmup_s=4.0, payload_max=600_000_000, latency_s=12.0,
    client_payload=300_000_000, client_records_max=300_000, connections=12, latency_connections=6,
)  # fmt: skip
CLUSTER_QUICK = replace(
    QUICK, rounds=1, client_rounds=1, seconds=2.0, payload_max=200_000_000, latency_s=4.0, client_payload=60_000_000,
    client_records_max=60_000, connections=12, latency_connections=6,
)  # fmt: skip
START_ROUNDS = 3


def measure_start(cluster: Cluster) -> Metrics:
    """From three empty directories (formatted before, for Kafka) to three nodes that all name all three."""
    try:
        ready = cluster.ready_s()
        time.sleep(IDLE_AFTER_S)
        return {
            "ready_s": ready,
            "node_rss_mb": max(cluster.resident_mb()),
            "all_rss_mb": cluster.resident_mb(),
        }
    finally:
        cluster.remove()


def produce_row(name: str, title: str, shape: BatchShape) -> Row:
    return Row(
        name, title, "replicated", run_produce, (FASTER, CHEAPER), shape, options=REPLICATED
    )  # fmt: skip


def client_row(name: str, title: str, shape: BatchShape) -> Row:
    options = REPLICATED | {"client": "rdkafka", "partitions": 6}
    return Row(
        name, title, "replicated-client", run_client_produce, (FASTER, CHEAPER), shape, options=options
    )


CLUSTER_ROWS: tuple[Row, ...] = (
    produce_row("r3-produce-1k", "produce, 1 KB requests", ONE_RECORD),
    produce_row("r3-produce-16k", "produce, 16 KB batches", BatchShape(16, KB)),
    produce_row("r3-produce-1m", "produce, 1 MB batches", BatchShape(1000, KB)),
    client_row("r3-rdkafka-1k", "librdkafka producer, 1 KB", ONE_RECORD),
    client_row("r3-rdkafka-16k", "librdkafka producer, 16 KB records", BatchShape(1, 16 * KB)),
    Row(
        "r3-latency", f"produce latency, {LOW_RATE}/s of 1 KB", "replicated-latency", run_latency,
        (Target("p50_ms", at_least=False, value=1.0), Target("p99_ms", at_least=False, factor=0.5)),
        options=REPLICATED | {"rate": LOW_RATE},
    ),
)  # fmt: skip
CLUSTER_START_ROW = "r3-start"
CLUSTER_ROW_NAMES = (CLUSTER_START_ROW, *(row.name for row in CLUSTER_ROWS))
CLUSTER_START_TARGETS = (
    Target("ready_s", at_least=False, value=2.0),
    Target("node_rss_mb", at_least=False, value=120),
)
