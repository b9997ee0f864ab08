"""`python -m bench compaction`: the log cleaner's speed, and what it and retention cost those who produce meanwhile.

    clean     2 GB of records of 1 KB with 10 % distinct keys, from when they may be compacted to the cleaner's note
    beside    produce p99 of another topic while that goes on, and 1 GB is deleted, beside that of the quiet node

The first of ours twice: as pure Python, and with the record-level modules compiled (`make compiled`). Nothing is
pinned: node, worker and client share the CPUs, as Kafka's threads do. Written to
bench/results/<date>-<label>.{json,md,png}.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench import compaction_data, compaction_report
from bench.clusters import until
from bench.compaction_report import BESIDE, CLEAN, COMPILED, PARTS
from bench.parts import Parts, add, find_parts, parser_of
from bench.procstat import ProcessMeter
from bench.raw_client import CREATE_TOPICS_VERSION, Admin, BenchError, check
from bench.raw_frames import BatchShape
from bench.raw_latency import Pacer, percentile
from bench.recovery import kill
from bench.recovery_data import put_recovery_points
from bench.report import OURS, PEER
from bench.rows import Metrics
from bench.runner import guarded, settle
from bench.servers import ROOT, KafkaServer, OdradekServer, Server, free_ports
from bench.terminal import say
from odradek.storage import checkpoints, layout
from odradek.wire.messages.create_topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from odradek.wire.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)

SIDES = (OURS, COMPILED, PEER)
OVERRIDES = {"log.cleaner.backoff.ms": "100", "log.retention.check.interval.ms": "1000"}
COMPACTED, AGING = "compacted", "aging"
NEVER = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "1"}
"""No log is more than wholly dirty."""
KEPT = {"cleanup.policy": "delete", "file.delete.delay.ms": "500"}
ALTER_VERSION, TOPIC_RESOURCE = 1, 2
RATE, CONNECTIONS = 500, 4
IDLE_S, WARMUP_S = 3.0, 3.0
CLEANING_TIMEOUT_S = 300.0
POLL_S = 0.02
MB = 1_000_000


class PureServer(OdradekServer):
    wire = "pure"
    """Folder of the run in which its `odradek.wire` is."""

    def command(self) -> list[str]:
        extra = [part for key, value in OVERRIDES.items() for part in ("--override", f"{key}={value}")]
        return [*super().command(), *extra]

    def environment(self) -> dict[str, str] | None:
        paths = [str(self.directory.parent / self.wire), os.environ.get("PYTHONPATH", "")]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


class CompiledServer(PureServer):
    label = COMPILED
    wire = "compiled"


def main(argv: list[str]) -> int:
    options = parse(argv)
    return find_parts("compaction", options, Run, compaction_report, notes(options))


def parse(argv: list[str]) -> argparse.Namespace:
    parser = parser_of("compaction", "The log cleaner.", PARTS, SIDES, "one round of 300 MB")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--mb", type=int, default=2_000, help="to be compacted; half of it is to be deleted")
    parser.add_argument("--seconds", type=float, default=10.0, help="of the quiet node")
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds, options.mb, options.seconds = 1, 300, 4.0
    return options


class Run:
    """Everything measured."""

    def __init__(self, options: argparse.Namespace, root: Path) -> None:
        self.samples: Parts = {}
        self._options = options
        self._root = root
        self._dirty, self._old = root / "template" / f"{COMPACTED}-0", root / "template" / f"{AGING}-0"
        self._end = 0

    def measure(self) -> None:
        options = self._options
        self._prepare()
        parts = {CLEAN: self._clean, BESIDE: self._beside}
        row = f"{options.mb / 1000:g} GB of 1 KB, 10 % distinct keys"
        for part in options.only:
            for _ in range(options.rounds):
                for side in options.sides:
                    if part == BESIDE and side == COMPILED:
                        continue  # the same, over sooner
                    settle()
                    metrics = guarded(lambda part=part, side=side: self._round(side, parts[part]))  # type: ignore[misc]
                    add(self.samples, part, row, side, metrics)

    def _prepare(self) -> None:
        size = self._options.mb * MB
        say("making logs")
        self._end = compaction_data.make_log(self._dirty, size, 256 << 20, keys=size // 10_250)
        if BESIDE in self._options.only:
            compaction_data.make_log(self._old, size // 2, 64 << 20, keys=1_000)
        for kind in (PureServer.wire, CompiledServer.wire):
            package = Path("odradek", "wire")
            ignored = shutil.ignore_patterns("*.so", "__pycache__")
            shutil.copytree(ROOT / "proto" / package, self._root / kind / package, ignore=ignored)
        if COMPILED in self._options.sides:
            spec = importlib.util.spec_from_file_location("compile_script", ROOT / "proto" / "compile.py")
            assert spec is not None and spec.loader is not None
            script = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(script)
            try:
                script.compile_into(self._root / CompiledServer.wire)
            except (RuntimeError, OSError) as error:
                say(f"without {COMPILED}, which does not compile: {str(error).splitlines()[-1]}")
                self._options.sides.remove(COMPILED)

    def _round(self, side: str, part: Callable[[Server], Metrics]) -> Metrics:
        kinds: dict[str, type[Server]] = {OURS: PureServer, COMPILED: CompiledServer, PEER: KafkaServer}
        server = kinds[side](self._root / "node", free_ports(1)[0], frozenset())
        if isinstance(server, KafkaServer):
            server.overrides = dict(OVERRIDES)
        try:
            self._lay_out(server)
            server.start()
            time.sleep(WARMUP_S)
            return part(server)
        finally:
            kill(server)
            server.remove()

    def _lay_out(self, server: Server) -> None:
        """A node that was killed, with logs that nobody has touched yet."""
        server.start()
        data = server.directory / "data"
        logs = {COMPACTED: (NEVER, self._dirty), AGING: (KEPT, self._old)}
        logs = {name: log for name, log in logs.items() if log[1].exists()}
        try:
            with Admin(server.port) as admin:
                for name, (configs, _) in logs.items():
                    create(admin, name, configs)
            until(
                lambda: all((data / f"{name}-0" / layout.PARTITION_METADATA).exists() for name in logs),
                "some logs are not there",
                30.0,
            )
        finally:
            kill(server)
        ends = {}
        for name, (_, template) in logs.items():
            compaction_data.place(template, data / f"{name}-0")
            ends[name, 0] = max(layout.file_offset(path.name) or 0 for path in template.iterdir())
        noted = data / layout.RECOVERY_POINT_CHECKPOINT
        if noted.exists() and not noted.stat().st_size:
            noted.unlink()  # Kafka makes it when it starts, and writes to it later
        put_recovery_points(data, ends)

    def _clean(self, server: Server) -> Metrics:
        tree = Tree(server)
        self._release(server)
        before, began = tree.cpu_s(), time.perf_counter()
        self._await_clean(server)
        seconds, cpu_s = time.perf_counter() - began, tree.cpu_s() - before
        before, began = tree.cpu_s(), time.perf_counter()
        time.sleep(IDLE_S)
        idle = (tree.cpu_s() - before) / (time.perf_counter() - began)
        left = compaction_data.size_of(server.directory / "data" / f"{COMPACTED}-0")
        if left > self._options.mb * MB * 0.12:
            raise BenchError(f"{left / MB:.0f} MB are left")
        return {
            "seconds": seconds,
            "cpu_s": cpu_s - idle * seconds,
            "left_mb": left / MB,
            "peak_mb": tree.peak_mb,
        }

    def _release(self, server: Server) -> None:
        with Admin(server.port) as admin:
            alter(admin, COMPACTED, {"min.cleanable.dirty.ratio": "0.01"})

    def _await_clean(self, server: Server) -> None:
        path = server.directory / "data" / layout.CLEANER_CHECKPOINT

        def clean() -> bool:
            server.check_alive()
            with contextlib.suppress(OSError, checkpoints.CheckpointError):
                return checkpoints.parse_offsets(path.read_text()).get((COMPACTED, 0), 0) >= self._end
            return False

        until(clean, "the log is not clean", CLEANING_TIMEOUT_S, poll_s=POLL_S)

    def _beside(self, server: Server) -> Metrics:
        pacer = Pacer(server.port, "probe", BatchShape(1, 1_000), connections=CONNECTIONS, spin=False)
        pacer.run(RATE, WARMUP_S)
        quiet = sorted(pacer.run(RATE, self._options.seconds).latencies_ms)
        maintenance = Maintenance(self, server)
        maintenance.start()
        busy: list[float] = []
        while maintenance.is_alive() and not maintenance.is_over:
            busy += pacer.run(RATE, 1.0).latencies_ms
        maintenance.join()
        if maintenance.problem is not None:
            raise maintenance.problem
        pacer.close()
        busy.sort()
        return {
            "ratio": percentile(busy, 99) / percentile(quiet, 99),
            "p99_ms": percentile(busy, 99),
            "quiet_p99_ms": percentile(quiet, 99),
            "max_ms": busy[-1],
            "quiet_max_ms": quiet[-1],
            "busy_s": maintenance.seconds,
        }

    def maintain(self, server: Server) -> None:
        """Compaction and deletion, until both are over."""
        with Admin(server.port) as admin:
            alter(admin, AGING, {"retention.bytes": "0"})
            alter(admin, COMPACTED, {"min.cleanable.dirty.ratio": "0.01"})
        self._await_clean(server)
        directory = server.directory / "data" / f"{AGING}-0"
        until(lambda: len(list(directory.glob("*.log*"))) == 1, "old segments are still there", 60.0)


class Maintenance(threading.Thread):
    """It goes on while the load is measured; nearly all of its time is sleep."""

    def __init__(self, run: Run, server: Server) -> None:
        super().__init__(daemon=True)
        self._run_, self._server = run, server
        self.problem: Exception | None = None
        self.is_over = False
        self.seconds = 0.0

    def run(self) -> None:
        began = time.perf_counter()
        try:
            self._run_.maintain(self._server)
        except Exception as problem:  # noqa: BLE001  raised by who waits for it
            self.problem = problem
        self.seconds = time.perf_counter() - began
        self.is_over = True


class Tree:
    """CPU and memory of a node and the processes that it has started."""

    def __init__(self, server: Server) -> None:
        assert server.process is not None
        self._pid = server.process.pid
        self._seen: dict[int, float] = {}
        self.peak_mb = 0.0

    def cpu_s(self) -> float:
        """Children that have ended count with what they had when they were last looked at."""
        memory = 0.0
        for pid in (self._pid, *self._children()):
            with contextlib.suppress(OSError, IndexError, ValueError):
                meter = ProcessMeter(pid)
                self._seen[pid] = meter.cpu_s()
                memory += meter.peak_rss_mb()
        self.peak_mb = max(self.peak_mb, memory)
        return sum(self._seen.values())

    def _children(self) -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError, IndexError, ValueError):
                if int(path.read_text().rpartition(")")[2].split()[1]) == self._pid:
                    found.append(int(path.parent.name))
        return found


def create(admin: Admin, name: str, configs: dict[str, str]) -> None:
    topic = CreatableTopic(
        name=name,
        num_partitions=1,
        replication_factor=1,
        configs=[CreatableTopicConfig(name=key, value=value) for key, value in configs.items()],
    )
    request = CreateTopicsRequest(topics=[topic], timeout_ms=30_000)
    answer = admin.ask(request, CREATE_TOPICS_VERSION, CreateTopicsResponse)
    check(answer.topics[0].error_code, f"CreateTopics {name}")


def alter(admin: Admin, topic: str, configs: dict[str, str]) -> None:
    changes = [AlterableConfig(name=key, config_operation=0, value=value) for key, value in configs.items()]
    resource = AlterConfigsResource(resource_type=TOPIC_RESOURCE, resource_name=topic, configs=changes)
    request = IncrementalAlterConfigsRequest(resources=[resource])
    answer = admin.ask(request, ALTER_VERSION, IncrementalAlterConfigsResponse)
    check(answer.responses[0].error_code, f"IncrementalAlterConfigs {topic}")


def notes(options: argparse.Namespace) -> list[str]:
    return [
        f"{options.rounds} rounds, the sides in turn, each on a fresh node with the same files: batches of "
        f"{compaction_data.RECORDS_PER_BATCH} records in closed segments of 256 MB, in the page cache.",
        "Compaction counts from the change of min.cleanable.dirty.ratio that allows it to the note in "
        "cleaner-offset-checkpoint. CPU is that of the node and its worker, without what the idle node takes. All "
        "defaults, but log.cleaner.backoff.ms=100.",
        f"Produce: {RATE} requests/s of 1 KB, open loop, acks=1, over {CONNECTIONS} connections. The quiet node first, "
        "then until the log is clean and the files of the other one are gone. Nothing is pinned; the generator sleeps "
        "between requests.",
    ]
