"""What probes are told of a process: whether it is alive, has started, and is ready. Pure.

    live      the event loop answers, and a log directory is left
    started   what the last process left on disk is recovered; depends on nobody else
    ready     it does all that it should: a broker is unfenced, and each of its replicas is in sync and served

Live and started never depend on other nodes: who restarts a process for what others lack makes an outage of a pause.
Ready means that the cluster would miss this node: a rolling restart that waits for it never takes the replica that
`min.insync.replicas` still needs. It says nothing about whether clients may talk to the node, and addresses of single
brokers must not depend on it: what is behind in one partition leads others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from odradek.broker.controller_process import ControllerProcess
    from odradek.broker.node import Node
    from odradek.controller.controller_node import MetadataQuorum
    from odradek.metadata.image import PartitionImage
    from odradek.storage.opening import RecoveryProgress

NAMES_MAX = 5
"""Partitions named in one reason."""
VERDICT_KEPT_MS = 200
"""Readiness looks at every replica; it is not looked at again for whoever asks more often."""


class Verdict(NamedTuple):
    """An answer to a probe: yes or no, and what stands in its body."""

    ok: bool
    body: dict[str, Any]


@dataclass(slots=True)
class Recovery:
    """How far the opening of the logs has come. Written by the thread that does it."""

    opened: int = 0
    total: int = 0
    last: str = ""
    """Name of the log that was opened last."""

    def progress(self, opened: int, total: int, last: str) -> None:
        self.opened, self.total, self.last = opened, total, last

    def __str__(self) -> str:
        last = f", the last one {self.last}" if self.last else ""
        return f"{self.opened} of {self.total} logs opened{last}"


class Health:
    """Of one process; there from before its logs are open. `node` is set when they are."""

    def __init__(self, monotonic_ms: Callable[[], int]) -> None:
        self.node: Node | ControllerProcess | None = None
        self.recovery = Recovery()
        self.counts: RecoveryProgress | None = None
        """The same by directory and segment."""
        self._monotonic_ms = monotonic_ms
        self._ready: Verdict | None = None
        self._ready_until_ms = 0

    def live(self) -> Verdict:
        """The event loop answers; that it does is most of the answer."""
        logs = self.node.logs.dirs if self.node is not None else []
        reasons = ["no log directory is online"] if logs and all(each.offline for each in logs) else []
        return verdict("live", reasons)

    def started(self) -> Verdict:
        recovery = self.recovery
        reasons = [f"recovering: {recovery}"] if self.node is None else []
        found = verdict("started", reasons)
        segments = sum(self.counts.segments_left.values()) if self.counts is not None else 0
        found.body["recovery"] = {
            "opened": recovery.opened, "logs": recovery.total, "last": recovery.last, "segmentsLeft": segments,
        }  # fmt: skip
        return found

    def ready(self) -> Verdict:
        """What is missing, in words; at most `VERDICT_KEPT_MS` old."""
        if self.node is None:
            return verdict("ready", [f"recovering: {self.recovery}"])
        now_ms = self._monotonic_ms()
        if self._ready is None or now_ms >= self._ready_until_ms:
            self._ready = verdict("ready", self.node.readiness()[1])
            self._ready_until_ms = now_ms + VERDICT_KEPT_MS
        return self._ready


def verdict(name: str, reasons: list[str]) -> Verdict:
    """Yes, unless there are reasons."""
    return Verdict(not reasons, {name: not reasons, "reasons": reasons})


def missing_of_quorum(quorum: MetadataQuorum) -> Iterator[str]:
    """What a controller lacks. Everything committed must be here before another controller may go."""
    raft = quorum.raft
    if not quorum.has_leader:
        yield "the metadata quorum has no leader"
    elif raft.applied_offset < raft.high_watermark:
        yield f"metadata is applied up to offset {raft.applied_offset} of {raft.high_watermark}"


def missing_of_broker(node: Node) -> Iterator[str]:
    """What a broker lacks, worst first."""
    lifecycle, replicas = node.lifecycle, node.replicas
    if node.stopping:
        yield "the node is shutting down"
    elif lifecycle.leaving:
        yield "the broker is leaving: its leaderships move to others"
    if not node.unfenced:
        yield from missing_of_quorum(node.quorum)
        yield "the broker is not registered and unfenced yet"
    elif (silent_ms := lifecycle.unanswered_ms()) > node.config.broker_session_timeout_ms:
        yield f"no controller has answered a heartbeat for {silent_ms / 1000:.1f} s: the broker may be fenced"
    if not node.listening:
        yield "clients are not let in yet"
    yield from (f"log directory {path} is offline" for path, online in node.log_directories() if not online)
    if node.unfenced and replicas.applied_offset < node.image.offset:
        yield f"metadata is applied up to offset {replicas.applied_offset} of {node.image.offset}"
    yield from missing_of_replicas(node)


def missing_of_replicas(node: Node) -> Iterator[str]:
    """Replicas that the cluster could not rely on, were another one lost now."""
    node_id = node.config.node_id
    unserved: list[str] = []
    behind: list[str] = []
    for (topic, index), partition in node.partitions.items():
        known = node.image.topics.get(topic)
        state = known.partitions.get(index) if known is not None else None
        if state is None:
            continue
        if waits_to_lead(state, node_id):
            if not partition.is_leader:
                unserved.append(f"{topic}-{index}")
        elif is_behind(state, node_id):
            behind.append(f"{topic}-{index}")
    if unserved:
        yield f"partitions to be led here, and not served yet: {some(unserved)}"
    if behind:
        yield f"replicas not in sync: {some(behind)}"


def waits_to_lead(state: PartitionImage, node_id: int) -> bool:
    """Whether the partition is led here, or is about to be: nobody leads it, and this replica can be elected."""
    if state.has_leader:
        return state.leader == node_id
    return node_id in state.isr or node_id in state.elr


def is_behind(state: PartitionImage, node_id: int) -> bool:
    """Whether this replica counts, and is not in sync. One that is being added does not count yet, one that is being
    removed no more. One that follows nobody waits for others: nothing that happens here would make it ready.
    """
    moving = node_id in state.adding or node_id in state.removing
    return state.has_leader and node_id in state.replicas and node_id not in state.isr and not moving


def some(names: list[str]) -> str:
    """The first few, and how many there are."""
    more = len(names) - NAMES_MAX
    return f"{', '.join(names[:NAMES_MAX])}{f' and {more} more' if more > 0 else ''} ({len(names)})"
