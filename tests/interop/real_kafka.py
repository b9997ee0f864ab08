"""A single-node Apache Kafka (KRaft, both roles) as a child process, from its published jars.

It is the yardstick: the same interop tests run against it (``ODRADEK_TEST_BOOTSTRAP=localhost:19400``), the tools'
output is compared with its tools' output, and the benchmark measures it beside the node.

    PYTHONPATH=tests python -m interop.real_kafka --port 19400 --dir /tmp/kafka      # runs until Ctrl-C

The jars come from Maven Central, once, the way `jvm` fetches them. Needs ``java`` (17 or later) and ``mvn``.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from interop import jvm
from interop.cluster import PATIENCE_S, port_is_open

VERSION = jvm.KAFKA_VERSION
CLUSTER_ID = "4L6g3nShT-eMCtK--X86sw"  # any well-formed id; fixed so that data directories can be reused

Unavailable = jvm.Unavailable


def libs() -> Path:
    """The directory with Kafka's jars, fetched on first use (about 130 MB)."""
    return jvm.server_jars()[0].parent


def java() -> str:
    """Path of the JVM, or Unavailable."""
    return jvm.tool("java")


def run_tool(
    main_class: str, args: Sequence[str], *, stdin: bytes = b"", timeout: float = 2 * PATIENCE_S
) -> subprocess.CompletedProcess[bytes]:
    """One of Kafka's own tools, e.g. ``org.apache.kafka.tools.TopicCommand``; logging is kept off its output."""
    command = [
        java(), "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=off", "-cp", f"{libs()}/*", main_class, *args,
    ]  # fmt: skip
    return subprocess.run(command, input=stdin, capture_output=True, timeout=timeout, check=False)


class RealKafka:
    """One node. ``directory`` keeps its data, its properties and its log (``kafka.log``)."""

    def __init__(
        self, directory: Path, port: int, *, heap: str = "512m", settings: Mapping[str, str] | None = None
    ) -> None:
        self.directory = directory
        self.port = port
        self.bootstrap = f"localhost:{port}"
        self.heap = heap
        self.settings = dict(settings or {})
        self.process: subprocess.Popen[bytes] | None = None

    def _properties(self) -> Path:
        values = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@localhost:{self.port + 1}",
            "listeners": f"PLAINTEXT://localhost:{self.port},CONTROLLER://localhost:{self.port + 1}",
            "advertised.listeners": f"PLAINTEXT://localhost:{self.port}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.directory / "data"),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "10",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
        }
        values.update(self.settings)
        path = self.directory / "server.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in values.items()))
        return path

    def start(self, timeout: float = 5 * PATIENCE_S) -> None:
        """Format the data directory if it is new, start the process and wait until it answers."""
        self.directory.mkdir(parents=True, exist_ok=True)
        properties = self._properties()
        if not (self.directory / "data" / "meta.properties").exists():
            done = run_tool("kafka.tools.StorageTool", ["format", "-t", CLUSTER_ID, "-c", str(properties)])
            if done.returncode != 0:
                raise RuntimeError(f"kafka-storage format failed: {done.stderr.decode()}")
        command = [
            java(), f"-Xmx{self.heap}", f"-Xms{self.heap}", "-XX:+UseG1GC",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-cp", f"{libs()}/*", "kafka.Kafka", str(properties),
        ]  # fmt: skip
        with (self.directory / "kafka.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self._await_ready(timeout)

    def _await_ready(self, timeout: float) -> None:
        """Ready means that Metadata names a broker: the port opens before the broker is unfenced."""
        from kafka import KafkaAdminClient
        from kafka.errors import KafkaError

        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError(f"Apache Kafka did not start; see {self.directory / 'kafka.log'}")
            if not port_is_open(self.port):
                time.sleep(0.1)
                continue
            try:
                KafkaAdminClient(bootstrap_servers=self.bootstrap, bootstrap_timeout_ms=2000).close()
                return
            except KafkaError:
                time.sleep(0.1)
        raise RuntimeError(
            f"Apache Kafka was not ready after {timeout:.0f} s; see {self.directory / 'kafka.log'}"
        )

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """SIGTERM, and SIGKILL where that takes too long."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    @property
    def pid(self) -> int:
        assert self.process is not None, "not started"
        return self.process.pid


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a single-node Apache Kafka until Ctrl-C.")
    parser.add_argument("--port", type=int, default=19400)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--heap", default="512m")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a server property")
    args = parser.parse_args()
    node = RealKafka(
        args.dir, args.port, heap=args.heap, settings=dict(pair.split("=", 1) for pair in args.set)
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        node.start()
        print(f"Apache Kafka {VERSION} at {node.bootstrap}, pid {node.pid}", flush=True)
        assert node.process is not None
        return node.process.wait()
    except KeyboardInterrupt:
        return 0
    except Unavailable as missing:
        print(missing, file=sys.stderr)
        return 1
    finally:
        node.stop()


if __name__ == "__main__":
    sys.exit(main())
