"""A cluster of real processes, and what they say of themselves."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from interop.cluster import eventually
from odradek.cli.cluster_layout import ClusterNode, create, is_free
from odradek.cli.cluster_processes import NodeProcess, await_end, await_ready
from odradek.cli.cluster_view import ask_metadata, ask_quorum

PATIENCE_S = 40.0

SMALL = {"offsets.topic.num.partitions": "4"}
"""Fifty partitions for offsets would be most of what a small machine recovers and moves in these tests."""


class Cluster:
    """Nodes by id. `start` makes them serve; `destroy` leaves none behind."""

    def __init__(
        self, directory: Path, *, nodes: int = 3, controllers: int = 0, base_port: int = 0, **overrides: str
    ) -> None:
        settings = SMALL | {key.replace("_", "."): value for key, value in overrides.items()}
        self.layout = create(
            directory,
            nodes=nodes,
            controllers=controllers,
            base_port=base_port or free_base(nodes),
            overrides=settings,
        )
        self.layout.write()
        self.processes = {node.id: NodeProcess(self.layout, node) for node in self.layout.nodes}
        self.bootstrap = self.layout.bootstrap
        self.at_end: list[Callable[[], None]] = []
        """What ends with the cluster: clients of a failed test must not meet the next cluster on these ports."""

    @property
    def ids(self) -> list[int]:
        return list(self.processes)

    @property
    def brokers(self) -> list[int]:
        return [node.id for node in self.layout.nodes if node.port is not None]

    def log(self, node_id: int) -> str:
        """What the node wrote so far."""
        return self.layout.log_file(self.layout.node(node_id)).read_text(errors="replace")

    def data(self, node_id: int) -> Path:
        return self.layout.data_directory(self.layout.node(node_id))

    # --- what happens to machines ---

    def start(self, *node_ids: int, ready: bool = True) -> None:
        """These nodes, or all; by default until they serve."""
        chosen = [self.processes[node_id] for node_id in node_ids or self.ids]
        for process in chosen:
            process.spawn()
        if ready:
            await_ready(chosen, lambda _: None)

    def kill(self, *node_ids: int) -> None:
        """kill -9, at once."""
        self._end(signal.SIGKILL, node_ids)

    def stop(self, *node_ids: int) -> None:
        """SIGTERM, until they are gone."""
        self._end(signal.SIGTERM, node_ids)

    def _end(self, number: signal.Signals, node_ids: tuple[int, ...]) -> None:
        chosen = [self.processes[node_id] for node_id in node_ids]
        for process in chosen:
            process.signal(number)
        left = await_end(chosen, 20.0, lambda _: None)
        assert not left, f"{left[0].name} did not end on {number.name}:\n{self.log(left[0].node.id)[-2000:]}"

    def pause(self, node_id: int) -> None:
        self.processes[node_id].signal(signal.SIGSTOP)

    def resume(self, node_id: int) -> None:
        self.processes[node_id].signal(signal.SIGCONT)

    def restart(self, node_id: int) -> None:
        """In order, and serving again."""
        self.stop(node_id)
        self.start(node_id)

    def wipe(self, node_id: int) -> None:
        """The disk is lost."""
        shutil.rmtree(self.data(node_id))

    def destroy(self) -> None:
        for end in self.at_end:
            end()
        alive = [process for process in self.processes.values() if process.pid() is not None]
        for process in alive:
            process.signal(signal.SIGKILL)
        await_end(alive, 10.0, lambda _: None)

    # --- what the nodes say ---

    def controller(self) -> int:
        """The active one, as the living brokers agree."""

        def agreed() -> int:
            found = {quorum.leader_id for node in self._asked() if (quorum := ask_quorum(node)) is not None}
            return found.pop() if len(found) == 1 else 0

        return eventually(agreed, PATIENCE_S, "nobody knows the active controller")

    def partition(self, topic: str, index: int = 0, ask: int | None = None) -> Any:
        """Leader, replicas, ISR as a living broker (or the one that is named) knows them; None if it does not."""
        nodes = self._asked() if ask is None else [self.layout.node(ask)]
        for node in nodes:
            metadata = ask_metadata(node)
            for found in metadata.topics if metadata is not None else ():
                if found.name == topic:
                    for partition in found.partitions:
                        if partition.partition_index == index:
                            return partition
        return None

    def leader(self, topic: str, index: int = 0) -> int:
        def found() -> int:
            partition = self.partition(topic, index)
            return 0 if partition is None else max(0, partition.leader_id)

        return eventually(found, PATIENCE_S, f"{topic}-{index} has no leader")

    def await_isr(self, topic: str, size: int = 3, partitions: int = 1) -> None:
        """Every partition of the topic has so many in-sync replicas."""
        for index in range(partitions):

            def complete(index: int = index) -> bool:
                partition = self.partition(topic, index)
                return partition is not None and len(partition.isr_nodes) == size

            eventually(complete, PATIENCE_S, f"{topic}-{index} has no {size} in-sync replicas")

    def await_logged(self, node_id: int, *texts: str) -> str:
        """The first line of the node's log with one of the texts."""

        def line() -> str | None:
            lines = self.log(node_id).splitlines()
            return next((each for each in lines if any(text in each for text in texts)), None)

        return eventually(line, PATIENCE_S, f"node {node_id} does not say {texts}") or ""

    def await_end_of(self, node_id: int) -> None:
        """The process ends by itself."""
        left = await_end([self.processes[node_id]], PATIENCE_S, lambda _: None)
        assert not left, f"node {node_id} goes on:\n{self.log(node_id)[-2000:]}"

    def _asked(self) -> list[ClusterNode]:
        return [
            process.node
            for process in self.processes.values()
            if process.node.port is not None and process.state() == "running"
        ]


def free_base(nodes: int) -> int:
    """Where a run of client ports is free; workers of one test run keep apart."""
    worker = int("".join(filter(str.isdigit, os.environ.get("PYTEST_XDIST_WORKER", "0"))) or 0)
    rng = random.Random()
    return eventually(
        lambda: first_free(nodes, 12_000 + worker % 8 * 2_000 + rng.randrange(24) * 40), 10, "no free ports"
    )


def first_free(nodes: int, base: int) -> int:
    return base if all(map(is_free, range(base, base + nodes))) else 0
