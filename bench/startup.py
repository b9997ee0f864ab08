"""From the start of the process to the first acknowledged record, and what the node occupies when idle."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

from bench.raw_client import Admin, BenchError
from bench.raw_frames import BatchShape, produce_frame
from bench.servers import START_TIMEOUT_S, Server

TOPIC = "first"
IDLE_AFTER_S = 4.0
RETRY_S = 0.003


@dataclass(frozen=True, slots=True)
class StartResult:
    fresh_s: float
    existing_s: float
    idle_rss_mb: float
    idle_pss_mb: float
    idle_cpu_percent: float


def measure_start(server: Server) -> StartResult:
    """Start on an empty directory (formatted before, for Kafka), then again on what that left behind."""
    try:
        fresh = start_to_first_record(server)
        meter = server.meter
        time.sleep(IDLE_AFTER_S)
        cpu, began = meter.cpu_s(), time.perf_counter()
        time.sleep(IDLE_AFTER_S)
        percent = (meter.cpu_s() - cpu) / (time.perf_counter() - began) * 100
        idle_rss, idle_pss = meter.rss_mb(), meter.pss_mb()
        server.stop()
        return StartResult(fresh, start_to_first_record(server), idle_rss, idle_pss, percent)
    finally:
        server.remove()


def start_to_first_record(server: Server) -> float:
    """Seconds. The client asks as a client would: Metadata, which creates the topic, then Produce."""
    frame = produce_frame(TOPIC, 0, BatchShape(1, 1024).build())
    server.prepare()
    server.spawn()
    deadline = server.spawned_at + START_TIMEOUT_S
    while time.perf_counter() < deadline:
        server.check_alive()
        with contextlib.suppress(OSError), Admin(server.port, timeout_s=10.0) as admin:
            while not leader_is_known(admin):
                time.sleep(RETRY_S)
                if time.perf_counter() > deadline:
                    break
            admin.produce_until_acknowledged(frame)
            seconds = time.perf_counter() - server.spawned_at
            server.check_alive()
            return seconds
        time.sleep(RETRY_S)
    raise BenchError(f"{server.label}: no record was taken in {START_TIMEOUT_S:.0f} s: {server.last_words()}")


def leader_is_known(admin: Admin) -> bool:
    answer = admin.metadata(TOPIC, create=True)
    return bool(
        answer.topics and answer.topics[0].partitions and answer.topics[0].partitions[0].leader_id >= 0
    )
