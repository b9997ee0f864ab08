"""A cluster of real processes, and what they say of themselves."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from interop.cluster import PATIENCE_S as PATIENCE_S
from interop.cluster import eventually
from odradek.cli.cluster_layout import ClusterNode, create, is_free
from odradek.cli.cluster_processes import NodeProcess, await_end, await_ready
from odradek.cli.cluster_view import Peer, ask_quorum
from odradek.metadata.records import Record, decode
from odradek.wire.errors import MalformedMessage
from odradek.wire.messages.metadata import MetadataRequest, MetadataResponse
from odradek.wire.records import iter_batches, read_records

TIMEOUT_S = 400
"""Of one test, all it awaits together."""
ANSWER_S = 5.0

STEADY = {"broker_session_timeout_ms": "60000"}
"""For tests that rely on leaders that stay: three seconds without the processor end a session. Who is killed is noticed
at once all the same, by refused connections.
"""

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
        left = await_end(chosen, PATIENCE_S, lambda _: None)
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
        return eventually(self._agreed_controller, PATIENCE_S, "nobody knows the active controller")

    def next_controller(self, before: int) -> int:
        """Another one than before, as the living brokers agree."""

        def replaced() -> int:
            found = self._agreed_controller()
            return 0 if found == before else found

        return eventually(replaced, PATIENCE_S, f"{before} stays the active controller")

    def _agreed_controller(self) -> int:
        found = {quorum.leader_id for node in self._asked() if (quorum := ask_quorum(node)) is not None}
        return found.pop() if len(found) == 1 else 0

    def partitions(self, topic: str, ask: int) -> dict[int, Any] | None:
        """Partitions by index, as this broker knows them; None if it does not answer now."""
        port = self.layout.node(ask).port
        assert port is not None
        try:
            with Peer(port, ANSWER_S) as peer:
                answer = peer.ask(MetadataRequest(topics=None), 12, MetadataResponse)
        except (OSError, MalformedMessage):  # it has just died, or is very busy
            return None
        return {
            each.partition_index: each
            for found in answer.topics
            if found.name == topic
            for each in found.partitions
        }

    def partition(self, topic: str, index: int = 0, ask: int | None = None) -> Any:
        """Leader, replicas, ISR as a living broker (or the one that is named) knows them; None if it does not."""
        for node_id in [node.id for node in self._asked()] if ask is None else [ask]:
            found = self.partitions(topic, node_id)
            if found and index in found:
                return found[index]
        return None

    def leader(self, topic: str, index: int = 0) -> int:
        """Whoever it is; brokers that have not heard of a change yet name the one before."""

        def found() -> int:
            partition = self.partition(topic, index)
            return 0 if partition is None else max(0, partition.leader_id)

        return eventually(found, PATIENCE_S, f"{topic}-{index} has no leader")

    def await_all(
        self,
        topic: str,
        holds: Callable[[Any], bool],
        otherwise: str,
        *,
        partitions: int = 1,
        indexes: Iterable[int] | None = None,
    ) -> None:
        """Every living broker says so of every partition, or of those that are named."""
        wanted = list(range(partitions) if indexes is None else indexes)

        def known() -> bool:
            said = [self.partitions(topic, node.id) for node in self._asked()]
            return bool(said) and all(
                found is not None and all(index in found and holds(found[index]) for index in wanted)
                for found in said
            )

        eventually(known, PATIENCE_S, f"{topic}: {otherwise}")

    def await_isr(self, topic: str, size: int = 3, partitions: int = 1) -> None:
        """Every partition of the topic has so many in-sync replicas."""
        self.await_all(
            topic,
            lambda partition: len(partition.isr_nodes) == size,
            f"no {size} in-sync replicas",
            partitions=partitions,
        )

    def await_led_without(
        self, topic: str, node_id: int, partitions: int = 1, indexes: Iterable[int] | None = None
    ) -> None:
        """The node has no part in these partitions: others lead, and it is not counted on."""
        self.await_all(
            topic,
            lambda partition: partition.leader_id not in (-1, node_id) and node_id not in partition.isr_nodes,
            f"{node_id} is not replaced",
            partitions=partitions,
            indexes=indexes,
        )

    def await_gone(self, topic: str) -> None:
        """Every living broker answers and does not know it."""

        def gone() -> bool:
            said = [self.partitions(topic, node.id) for node in self._asked()]
            return bool(said) and all(found == {} for found in said)

        eventually(gone, PATIENCE_S, f"{topic} is still there")

    def metadata_records(self, node_id: int) -> list[Record]:
        """What the node's metadata log has, in order; without what a snapshot has replaced."""
        found = []
        for path in sorted(self.data(node_id).glob("__cluster_metadata-0/*.log")):
            data = memoryview(path.read_bytes())
            for position, header in iter_batches(data):
                if not header.is_control:
                    batch = read_records(data[position:], header, limit=1 << 30)
                    found += [decode(bytes(record.value or b"")) for record in batch]
        return found

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
