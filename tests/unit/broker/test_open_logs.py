"""What a node tells of a recovery: lines, probes, metrics; and that it can be given up."""

from __future__ import annotations

from random import Random
from typing import Any

from odradek.broker.health import Health
from odradek.broker.metrics_export import recovery_snapshot, render
from odradek.broker.open_logs import RecoveryLines
from odradek.storage.manager import LogManager
from odradek.storage.memory_disk import MemoryDisk, StepSyncer
from odradek.storage.opening import RecoveryProgress
from odradek.wire.records import simple_batch

NOW = 1_700_000_000_000


class Lines:
    def __init__(self) -> None:
        self.told: list[str] = []

    def info(self, event: str, **values: Any) -> None:
        self.told.append(event)


def opened(tick_s: float) -> list[str]:
    """Three logs after kill -9, with a clock that moves at every look."""
    disk = MemoryDisk()
    for _ in range(2):
        manager = LogManager(disk, StepSyncer(), ["/data"], rng=Random(1))
        manager.start(node_id=1, cluster_id="c")
        lines = Lines()
        now = [0.0]

        def clock(now: list[float] = now) -> float:
            now[0] += tick_s
            return now[0]

        recovery = RecoveryLines(manager, lines, clock)
        manager.open_all(NOW)
        recovery.end()
        for partition in range(3):
            log = manager.create_log("orders", partition, bytes(16), wall_ms=NOW)
            log.append_as_leader(
                memoryview(simple_batch([(b"k", b"v")], base_offset=0, timestamp=NOW)), 0, NOW
            )
            log.write_staged()
        disk.kill()
    return lines.told


def test_a_long_recovery_says_so_in_kafkas_words() -> None:
    assert opened(tick_s=0.6) == [
        "Recovering 3 logs from /data since no clean shutdown file was found",
        "Completed load of orders-0 (1/3 completed in /data)",
        "Completed load of orders-1 (2/3 completed in /data)",
        "Completed load of orders-2 (3/3 completed in /data)",
        "Loaded 3 logs in 4200ms (unclean log dirs = /data)",
    ]
    assert opened(tick_s=2.0)[:3] == [
        "Recovering 3 logs from /data since no clean shutdown file was found",
        "Recovering unflushed segment 0. 1/1 recovered for orders-0.",
        "Completed load of orders-0 (1/3 completed in /data)",
    ]


def test_a_short_one_is_one_line() -> None:
    assert opened(tick_s=0.001) == ["Loaded 3 logs in 7ms (unclean log dirs = /data)"]


def test_metrics_and_probes_say_what_is_left() -> None:
    progress = RecoveryProgress()
    progress.expect("/data", 4, 9)
    body, _ = render(recovery_snapshot(progress))
    assert b'kafka_log_logmanager_remaininglogstorecover{dir="/data"} 4.0' in body
    assert b'kafka_log_logmanager_remainingsegmentstorecover{dir="/data"} 9.0' in body
    assert b"kafka_server_kafkaserver_brokerstate 2.0" in body
    health = Health(lambda: 0)
    health.counts = progress
    assert health.started().body["recovery"]["segmentsLeft"] == 9
    assert b"remaininglogs" not in render(recovery_snapshot(RecoveryProgress()))[0]
