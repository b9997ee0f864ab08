"""Three nodes of either side as child processes, each a controller and a broker: what `servers.py` is for one node.

Ours are laid out as `odradek cluster start` does it; Kafka's have its distribution's `server.properties` and JVM flags.
A `Cluster` looks like a `Server` to the rows: one port to begin with, one meter over all nodes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from bench.procstat import ProcessMeter
from bench.raw_client import HOST, Admin, BenchError
from bench.servers import START_TIMEOUT_S, KafkaServer, Server
from odradek.wire.messages.describe_quorum import (
    DescribeQuorumRequest,
    DescribeQuorumRequestPartitionData,
    DescribeQuorumRequestTopicData,
    DescribeQuorumResponse,
)
from odradek.wire.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponse

if TYPE_CHECKING:
    from odradek.cli.cluster_layout import ClusterNode, Layout

NODES = 3
PORTS_APART = 40
"""Between the first ports of two clusters: clients, controllers, metrics."""
POLL_S = 0.01
METADATA_VERSION = 9
QUORUM_VERSION = 1


class OdradekNode(Server):
    """A node of a layout of `odradek cluster`."""

    label = "odradek"

    def __init__(self, layout: Layout, node: ClusterNode, cpus: frozenset[int]) -> None:
        assert node.port is not None
        super().__init__(layout.node_directory(node), node.port, cpus)
        self._layout, self._node = layout, node

    def command(self) -> list[str]:
        return [
            sys.executable, "-m", "odradek.cli.main", "server", str(self._layout.properties_file(self._node)),
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("KAFKA_", "ODRADEK_"))}
        return kept | {"CLUSTER_ID": self._layout.cluster_id}


class KafkaNode(KafkaServer):
    """One of several combined nodes; `overrides` are on top of the distribution's file."""

    def __init__(
        self,
        directory: Path,
        node_id: int,
        ports: dict[int, int],
        cpus: frozenset[int],
        overrides: dict[str, str],
    ) -> None:
        super().__init__(directory, ports[node_id], cpus)
        voters = ",".join(f"{each}@{HOST}:{controller_port(port)}" for each, port in ports.items())
        self.overrides = {"node.id": str(node_id), "controller.quorum.voters": voters, **overrides}


def controller_port(port: int) -> int:
    return port + 1


class ClusterMeter:
    """CPU of all nodes together; memory of the largest."""

    def __init__(self, meters: list[ProcessMeter]) -> None:
        self._meters = meters

    def cpu_s(self) -> float:
        return sum(meter.cpu_s() for meter in self._meters)

    def rss_mb(self) -> float:
        return max(meter.rss_mb() for meter in self._meters)

    def peak_rss_mb(self) -> float:
        return max(meter.peak_rss_mb() for meter in self._meters)

    def reset_peak(self) -> None:
        for meter in self._meters:
            meter.reset_peak()


class Cluster:
    """Nodes by id, from 1. Subclasses lay them out."""

    label = "?"

    def __init__(
        self, directory: Path, port: int, cpus: frozenset[int] = frozenset(), overrides: dict[str, str] | None = None
    ) -> None:  # fmt: skip
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.cpus = cpus
        self.nodes = self.lay_out(port, overrides or {})

    def lay_out(self, port: int, overrides: dict[str, str]) -> dict[int, Server]:
        raise NotImplementedError

    # What rows ask of a Server -----------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """Of the first node that runs."""
        return next(node.port for node in self.nodes.values() if node.process is not None)

    @property
    def bootstrap(self) -> str:
        return ",".join(node.bootstrap for node in self.nodes.values())

    @property
    def meter(self) -> ClusterMeter:
        return ClusterMeter([node.meter for node in self.nodes.values() if node.process is not None])

    def start(self) -> None:
        self.ready_s()

    def check_alive(self) -> None:
        for node in self.nodes.values():
            node.check_alive()

    def remove(self) -> None:
        for node in self.nodes.values():
            if node.process is not None:
                node.process.kill()
                node.process.wait()
                node.process = None
        shutil.rmtree(self.directory, ignore_errors=True)

    # Life and death ----------------------------------------------------------------------------------------------

    def ready_s(self, *ids: int) -> float:
        """Start these nodes, or all; seconds until each of them names all that run to a client."""
        chosen = [self.nodes[node_id] for node_id in ids or self.nodes]
        for node in chosen:
            node.prepare()
        began = time.perf_counter()
        for node in chosen:
            node.spawn()
        running = sum(node.process is not None for node in self.nodes.values())
        until(
            lambda: all(self._knows(node, running) for node in chosen),
            f"{self.label}: not ready",
            START_TIMEOUT_S,
            poll_s=0.02,
        )
        return time.perf_counter() - began

    @staticmethod
    def _knows(node: Server, count: int) -> bool:
        node.check_alive()
        with contextlib.suppress(OSError, BenchError), Admin(node.port, timeout_s=5.0) as admin:
            return len(brokers_of(admin)) >= count
        return False

    def kill(self, node_id: int) -> None:
        """kill -9. When it returns the process is gone."""
        node = self.nodes[node_id]
        assert node.process is not None, "not started"
        node.process.kill()
        node.process.wait()
        node.process = None

    def resident_mb(self) -> list[float]:
        return [node.meter.rss_mb() for node in self.nodes.values() if node.process is not None]

    # What it says about itself -----------------------------------------------------------------------------------

    def survivor(self, *gone: int) -> Server:
        return next(node for node_id, node in self.nodes.items() if node_id not in gone)

    def controller(self, *gone: int) -> int:
        """Node id of the active controller, as another node knows it; 0 if it does not."""
        topic = DescribeQuorumRequestTopicData(
            topic_name="__cluster_metadata",
            partitions=[DescribeQuorumRequestPartitionData(partition_index=0)],
        )
        with (
            contextlib.suppress(OSError, BenchError),
            Admin(self.survivor(*gone).port, timeout_s=5.0) as admin,
        ):
            answer = admin.ask(DescribeQuorumRequest(topics=[topic]), QUORUM_VERSION, DescribeQuorumResponse)
            if not answer.error_code and answer.topics and not answer.topics[0].partitions[0].error_code:
                return max(0, answer.topics[0].partitions[0].leader_id)
        return 0


class OdradekCluster(Cluster):
    label = "odradek"

    def lay_out(self, port: int, overrides: dict[str, str]) -> dict[int, Server]:
        from odradek.cli.cluster_layout import create

        layout = create(self.directory, nodes=NODES, controllers=0, base_port=port, overrides=overrides)
        layout.write()
        return {node.id: OdradekNode(layout, node, self.cpus) for node in layout.nodes}


class KafkaCluster(Cluster):
    label = "kafka"

    def lay_out(self, port: int, overrides: dict[str, str]) -> dict[int, Server]:
        ports = {number + 1: port + 2 * number for number in range(NODES)}
        return {
            node_id: KafkaNode(self.directory / f"node-{node_id}", node_id, ports, self.cpus, overrides)
            for node_id in ports
        }


CLUSTERS: dict[str, type[Cluster]] = {one.label: one for one in (OdradekCluster, KafkaCluster)}


def brokers_of(admin: Admin) -> list[int]:
    """Ids of the brokers that are not fenced."""
    answer = admin.ask(MetadataRequest(topics=[]), METADATA_VERSION, MetadataResponse)
    return [broker.node_id for broker in answer.brokers]


def describe(admin: Admin, topics: Iterable[str]) -> MetadataResponse:
    wanted = [MetadataRequestTopic(name=name) for name in topics]
    request = MetadataRequest(topics=wanted, allow_auto_topic_creation=False)
    return admin.ask(request, METADATA_VERSION, MetadataResponse)


def until(condition: Callable[[], bool], otherwise: str, timeout_s: float, *, poll_s: float = POLL_S) -> None:
    """Wait for `condition`; BenchError with `otherwise` when it does not come true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"{otherwise} after {timeout_s:.0f} s")
        time.sleep(poll_s)
