"""The nodes under test as child processes: ours, and a single-node Apache Kafka from its published jars.

Both run with their defaults on directories of the same file system. Kafka gets the JVM flags and the heap of its own
start script and the values of its own `config/server.properties`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

from bench.procstat import ProcessMeter, on_cpus
from bench.raw_client import HOST, Admin, BenchError

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0
RESUMED_S = 3.0
"""How long a node must have answered after a pause: its controller may fence it first."""

# bin/kafka-run-class.sh and bin/kafka-server-start.sh of Apache Kafka 4.3
KAFKA_JVM_FLAGS = (
    "-Xmx1G",
    "-Xms1G",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-XX:MaxInlineLevel=15",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)

# config/server.properties of Apache Kafka 4.3, without the paths and ports
KAFKA_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "num.network.threads": "3",
    "num.io.threads": "8",
    "socket.send.buffer.bytes": "102400",
    "socket.receive.buffer.bytes": "102400",
    "socket.request.max.bytes": "104857600",
    "num.partitions": "1",
    "num.recovery.threads.per.data.dir": "1",
    "offsets.topic.replication.factor": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "log.retention.hours": "168",
    "log.segment.bytes": "1073741824",
    "log.retention.check.interval.ms": "300000",
}

CLUSTER_ID = "4L6g3nShT-eMCtK--X86sw"


class Server:
    """One node in its own directory. Subclasses say how to prepare the directory and what to run."""

    label = "?"

    def __init__(self, directory: Path, port: int, cpus: frozenset[int]) -> None:
        self.directory = directory
        self.port = port
        self.cpus = cpus
        self.process: subprocess.Popen[bytes] | None = None
        self.spawned_at = 0.0

    @property
    def bootstrap(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def meter(self) -> ProcessMeter:
        assert self.process is not None, "not started"
        return ProcessMeter(self.process.pid)

    def prepare(self) -> None:
        """What is done once before the first start and is no part of it."""
        self.directory.mkdir(parents=True, exist_ok=True)

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str] | None:
        """None: this process's own."""
        return None

    def spawn(self) -> None:
        """Start the process; `spawned_at` is the time just before."""
        self.prepare()
        if not is_free(self.port):
            raise BenchError(f"something else listens on port {self.port}")
        with on_cpus(self.cpus), (self.directory / "node.out").open("ab") as out:
            self.spawned_at = time.perf_counter()
            self.process = subprocess.Popen(
                self.command(),
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env=self.environment(),
            )

    def start(self) -> None:
        """Start and wait until Metadata names a broker."""
        self.spawn()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            self.check_alive()
            if time.monotonic() > deadline:
                raise BenchError(
                    f"{self.label} was not ready after {START_TIMEOUT_S:.0f} s: {self.last_words()}"
                )
            time.sleep(0.05)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError, BenchError), Admin(self.port, timeout_s=5.0) as admin:
            return bool(admin.metadata("bench-probe", create=False).brokers)
        return False

    def check_alive(self) -> None:
        if self.process is None or self.process.poll() is not None:
            raise BenchError(f"{self.label} ended: {self.last_words()}")

    def last_words(self) -> str:
        """The end of its output, without paths."""
        with contextlib.suppress(OSError):
            text = (self.directory / "node.out").read_text(errors="replace")[-600:]
            return text.replace(str(self.directory), "<data>").replace(str(ROOT), "<repo>").strip()
        return "no output"

    def pause(self) -> None:
        """Not even the threads of an idle JVM run: 3 % of the CPU that the other side is measured on."""
        if self.process is not None:
            self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on, and wait until it has got over what its sessions make of the pause."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + START_TIMEOUT_S
        good_since = time.monotonic()
        while time.monotonic() - good_since < RESUMED_S:
            self.check_alive()
            if not self._answers():
                good_since = time.monotonic()
            if time.monotonic() > deadline:
                raise BenchError(f"{self.label} did not come back from a pause: {self.last_words()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that does not help."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


class OdradekServer(Server):
    label = "odradek"

    def command(self) -> list[str]:
        return [
            sys.executable, "-m", "odradek.cli.main", "start", "--port", str(self.port),
            "--data", str(self.directory / "data"), "--override", "odradek.metrics.port=-1",
        ]  # fmt: skip


class KafkaServer(Server):
    label = "kafka"

    def __init__(self, directory: Path, port: int, cpus: frozenset[int]) -> None:
        super().__init__(directory, port, cpus)
        self._controller_port = port + 1
        self.overrides: dict[str, str] = {}

    def prepare(self) -> None:
        super().prepare()
        properties = self._write_properties()
        if (self.directory / "data" / "meta.properties").exists():
            return
        command = [java(), "-Xmx256m", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
        command += ["-cp", class_path(), "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID]
        command += ["-c", str(properties)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise BenchError(f"formatting Kafka's storage failed: {done.stderr[-500:]}")

    def command(self) -> list[str]:
        return [
            java(), *KAFKA_JVM_FLAGS, "-cp", class_path(), "kafka.Kafka", str(self.directory / "server.properties"),
        ]  # fmt: skip

    def _write_properties(self) -> Path:
        values = {
            **KAFKA_PROPERTIES,
            "controller.quorum.voters": f"1@{HOST}:{self._controller_port}",
            "listeners": f"PLAINTEXT://{HOST}:{self.port},CONTROLLER://{HOST}:{self._controller_port}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self.port}",
            "log.dirs": str(self.directory / "data"),
            **self.overrides,
        }
        path = self.directory / "server.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in values.items()))
        return path


class FreeKafkaServer(KafkaServer):
    """Kafka on all CPUs, which it then shares with the client."""

    label = "kafka-all-cpus"


SIDES: dict[str, type[Server]] = {one.label: one for one in (OdradekServer, KafkaServer, FreeKafkaServer)}


def jvm() -> ModuleType:
    """The tests' module that finds the JVM and fetches Kafka's jars."""
    folder = str(ROOT / "tests" / "interop")
    if folder not in sys.path:
        sys.path.append(folder)
    return import_module("jvm")


def java() -> str:
    return str(jvm().tool("java"))


def class_path() -> str:
    """Kafka's server and tools, and a logger, from Maven Central (once) or from ODRADEK_KAFKA_LIBS."""
    return os.pathsep.join(sorted({f"{jar.parent}{os.sep}*" for jar in jvm().server_jars()}))


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now, each followed by another one that is free; below the ephemeral ones."""
    found: list[int] = []
    first = 19500 + os.getpid() % 500 * 20
    for port in range(first, 32000, 2):
        if all(is_free(one) for one in (port, port + 1)):
            found.append(port)
            if len(found) == count:
                return found
    raise BenchError("no free ports")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def only_run() -> Iterator[None]:
    """Two runs at a time would measure each other. BenchError if there is another."""
    with (Path(tempfile.gettempdir()) / "odradek-bench.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BenchError("another benchmark is running on this machine") from None
        yield


@contextlib.contextmanager
def data_root(given: str | None) -> Iterator[Path]:
    """A directory for all data of a run, removed at its end; inside `given`, or where temporary files go."""
    with tempfile.TemporaryDirectory(prefix="odradek-bench-", dir=given, ignore_cleanup_errors=True) as path:
        yield Path(path)
