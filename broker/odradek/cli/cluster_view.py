"""What `odradek cluster status` knows: the processes, and what one of them says about the cluster.

Nodes are asked with plain sockets and short patience: a paused node must not stall the picture of the others.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from odradek.cli.cluster_layout import ClusterNode, Layout
from odradek.cli.cluster_processes import PAUSED, RUNNING, STARTING, NodeProcess, resident_mb
from odradek.wire.apis import response_class
from odradek.wire.errors import MalformedMessage
from odradek.wire.frame import decode_response_header, encode_request
from odradek.wire.messages.describe_quorum import (
    DescribeQuorumRequest,
    DescribeQuorumRequestPartitionData,
    DescribeQuorumRequestTopicData,
    DescribeQuorumResponse,
)
from odradek.wire.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
)
from odradek.wire.messages.metadata import MetadataRequest, MetadataResponse
from odradek.wire.primitives import Message

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

ANSWER_TIMEOUT_S = 1.0
RESPONSE_BYTES_MAX = 100_000_000
LATEST = -1
AS_A_DEBUGGER = -2
"""The replica id that makes a follower answer ListOffsets, with its own log end."""
ROWS_MAX = 24

M = TypeVar("M", bound=Message)


class NodeView(NamedTuple):
    """A row of the table, and an object of `--json`."""

    id: int
    pid: int | None
    roles: tuple[str, ...]
    state: str
    kafka: str | None
    controller: bool
    leaders: int | None
    replicas: int | None
    in_sync: int | None
    lag: int | None
    metadata_lag: int | None
    rss_mb: float | None
    metrics: str
    log: str


@dataclass(slots=True)
class PartitionView:
    """A row of the lower table."""

    topic: str
    partition: int
    leader: int
    replicas: list[int]
    isr: list[int]
    ends: dict[int, int] = field(default_factory=dict)
    """Log end offsets by node, of those that answered."""

    def lag_of(self, node_id: int) -> int | None:
        """Records that a replica is behind its leader; None where one of them does not say."""
        if self.leader not in self.ends or node_id not in self.ends:
            return None
        return max(0, self.ends[self.leader] - self.ends[node_id])


@dataclass(slots=True)
class ClusterView:
    """The whole at one moment."""

    nodes: list[NodeView]
    partitions: list[PartitionView]
    bootstrap: str
    cluster_id: str
    answered: bool

    def as_json(self) -> dict[str, Any]:
        return {"nodes": [{**node._asdict(), "roles": list(node.roles)} for node in self.nodes]}


class Peer:
    """One connection to one broker."""

    def __init__(self, port: int, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, request: Message, version: int, answer: type[M]) -> M:
        """OSError (timeouts included) or MalformedMessage where there is no good answer."""
        key = request.API_KEY
        self._socket.sendall(encode_request(key, version, 1, "odradek-cluster", request.encode(version)))
        size = int.from_bytes(self._read(4), "big")
        if size > RESPONSE_BYTES_MAX:
            raise MalformedMessage(f"a response of {size} bytes")
        body = self._read(size)
        _, start = decode_response_header(body, key, version)
        assert response_class(key) is answer
        return answer.decode(body, version, start)

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            chunk = self._socket.recv(min(size - len(data), 1 << 20))
            if not chunk:
                raise ConnectionResetError("the node closed the connection")
            data += chunk
        return bytes(data)


def look(layout: Layout, processes: list[NodeProcess]) -> ClusterView:
    """Ask the system for the processes, and the nodes for the rest."""
    states = {process.node.id: (process.pid(), process.state()) for process in processes}
    serving = [node for node in layout.nodes if node.port is not None and states[node.id][1] == RUNNING]
    metadata, quorum = None, None
    for node in serving:
        metadata, quorum = metadata or ask_metadata(node), quorum or ask_quorum(node)
        if metadata is not None and quorum is not None:
            break
    partitions = partitions_of(metadata)
    for node in serving:
        ask_ends(node, partitions)
    nodes = [
        view_of(layout, node, *states[node.id], partitions if metadata is not None else None, quorum)
        for node in layout.nodes
    ]
    return ClusterView(nodes, partitions, layout.bootstrap, layout.cluster_id, metadata is not None)


def ask_metadata(node: ClusterNode) -> MetadataResponse | None:
    return ask(node, MetadataRequest(topics=None), 12, MetadataResponse)


def ask_quorum(node: ClusterNode) -> Any:
    """The quorum's one partition; None where nobody knows, for example without a majority."""
    topic = DescribeQuorumRequestTopicData(
        topic_name="__cluster_metadata", partitions=[DescribeQuorumRequestPartitionData(partition_index=0)]
    )
    answer = ask(node, DescribeQuorumRequest(topics=[topic]), 1, DescribeQuorumResponse)
    if answer is None or answer.error_code or not answer.topics:
        return None
    partition = answer.topics[0].partitions[0]
    return None if partition.error_code else partition


def ask_ends(node: ClusterNode, partitions: list[PartitionView]) -> None:
    """Where the logs of this node's replicas end."""
    held = [each for each in partitions if node.id in each.replicas]
    topics: dict[str, list[ListOffsetsPartition]] = {}
    for each in held:
        wanted = ListOffsetsPartition(partition_index=each.partition, timestamp=LATEST)
        topics.setdefault(each.topic, []).append(wanted)
    request = ListOffsetsRequest(
        replica_id=AS_A_DEBUGGER,
        topics=[ListOffsetsTopic(name=name, partitions=asked) for name, asked in topics.items()],
    )
    answer = ask(node, request, 7, ListOffsetsResponse) if held else None
    ends = {
        (topic.name, found.partition_index): found.offset
        for topic in (answer.topics if answer is not None else ())
        for found in topic.partitions
        if not found.error_code
    }
    for each in held:
        end = ends.get((each.topic, each.partition))
        if end is not None:
            each.ends[node.id] = end


def ask(node: ClusterNode, request: Message, version: int, answer: type[M]) -> M | None:
    assert node.port is not None
    with contextlib.suppress(OSError, MalformedMessage), Peer(node.port) as peer:
        return peer.ask(request, version, answer)
    return None


def partitions_of(metadata: MetadataResponse | None) -> list[PartitionView]:
    if metadata is None:
        return []
    found = [
        PartitionView(
            topic.name or "", part.partition_index, part.leader_id, part.replica_nodes, part.isr_nodes
        )
        for topic in metadata.topics
        for part in topic.partitions
    ]
    return sorted(found, key=lambda each: (each.topic.startswith("__"), each.topic, each.partition))


def view_of(
    layout: Layout,
    node: ClusterNode,
    pid: int | None,
    state: str,
    partitions: list[PartitionView] | None,
    quorum: Any,
) -> NodeView:
    """What is known of one node; None stands for unknown."""
    leaders = replicas = in_sync = lag = metadata_lag = None
    if partitions is not None and "broker" in node.roles:
        held = [each for each in partitions if node.id in each.replicas]
        leaders, replicas = sum(each.leader == node.id for each in held), len(held)
        in_sync = sum(node.id in each.isr for each in held)
        lags = [each.lag_of(node.id) for each in held]
        known = [each for each in lags if each is not None]
        lag = sum(known) if known or not lags else None
    if quorum is not None and pid is not None:  # of a process that is gone, the others tell the past
        ends = {each.replica_id: each.log_end_offset for each in (*quorum.current_voters, *quorum.observers)}
        end = ends.get(node.id, -1)
        metadata_lag = max(0, ends.get(quorum.leader_id, 0) - end) if end >= 0 else None
    return NodeView(
        id=node.id,
        pid=pid,
        roles=node.roles,
        state=state,
        kafka=node.kafka,
        controller=quorum is not None and pid is not None and quorum.leader_id == node.id,
        leaders=leaders,
        replicas=replicas,
        in_sync=in_sync,
        lag=lag,
        metadata_lag=metadata_lag,
        rss_mb=None if pid is None else resident_mb(pid),
        metrics=f"http://localhost:{node.metrics_port}/metrics",
        log=str(layout.log_file(node)),
    )


# --- for people ------------------------------------------------------------------------------------------------------

COLORS = {RUNNING: "green", STARTING: "yellow", PAUSED: "yellow"}


def draw(view: ClusterView, width: int, rows_max: int = ROWS_MAX) -> RenderableType:
    """The tables of `status`, for a terminal of `width` columns."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [node_table(view, width)]
    if view.partitions:
        parts.append(partition_table(view, rows_max))
    elif not view.answered:
        parts.append(Text("No node answers questions about topics.", style="yellow"))
    if view.answered and not any(node.controller for node in view.nodes):
        voting = ", ".join(str(node.id) for node in view.nodes if "controller" in node.roles)
        said = f"No controller is active: most of {voting} must run for anything to change."
        parts.append(Text(said, style="yellow"))
    # A line for each, so that they can be copied from a narrow terminal too.
    parts.append(Text(f"bootstrap.servers={view.bootstrap}", style="dim", overflow="fold"))
    parts.append(Text(f"cluster {view.cluster_id}", style="dim"))
    return Group(*parts)


def node_table(view: ClusterView, width: int) -> RenderableType:
    """Every column at any width from 80 on: on a narrow terminal, roles and addresses are said in fewer letters."""
    wide = _node_table(view, narrow=False)
    return wide if _columns(wide) <= width else _node_table(view, narrow=True)


def _columns(table: Table) -> int:
    """How many it takes when nothing is cut."""
    from rich.console import Console

    console = Console(width=1_000)
    return console.measure(table).maximum


def _node_table(view: ClusterView, *, narrow: bool) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    padding = (0, 0) if narrow else (0, 1)
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=padding)
    for name in ("NODE", "ROLES", "STATE", "PID", "PORT" if narrow else "CLIENTS"):
        table.add_column(name, justify="right" if name in ("NODE", "PID", "PORT") else "left", no_wrap=True)
    for name in ("LEADERS", "IN SYNC", "LAG", "METADATA", "MB"):
        table.add_column(name, justify="right", no_wrap=True)
    for node in view.nodes:
        in_sync = "-" if node.in_sync is None else f"{node.in_sync}/{node.replicas}"
        metadata = "controller" if node.controller else number(node.metadata_lag, before="-")
        behind = node.in_sync != node.replicas
        table.add_row(
            str(node.id),
            "combined" if narrow and len(node.roles) > 1 else ", ".join(node.roles),
            Text(node.state, style=COLORS.get(node.state, "red")),
            number(node.pid),
            (node.kafka or "-").rpartition(":")[2] if narrow else node.kafka or "-",
            number(node.leaders),
            Text(in_sync, style="yellow" if behind else ""),
            number(node.lag),
            Text(metadata, style="bold" if node.controller else ""),
            "-" if node.rss_mb is None else f"{node.rss_mb:.0f}",
        )
    return table


def partition_table(view: ClusterView, rows_max: int) -> RenderableType:
    """Partitions; topics of the system, and what does not fit, as a line each."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for name in ("TOPIC", "PARTITION", "LEADER", "REPLICAS", "ISR", "END", "LAG"):
        table.add_column(name, justify="left" if name in ("TOPIC", "REPLICAS", "ISR") else "right")
    users = [each for each in view.partitions if not each.topic.startswith("__")]
    singly = users[:rows_max]
    for each in singly:
        lags = [lag for node in each.replicas if (lag := each.lag_of(node)) is not None]
        table.add_row(
            each.topic,
            str(each.partition),
            Text("none", style="red") if each.leader < 0 else str(each.leader),
            ",".join(map(str, each.replicas)),
            Text(",".join(map(str, each.isr)), style="yellow" if len(each.isr) < len(each.replicas) else ""),
            number(each.ends.get(each.leader)),
            number(max(lags, default=None)),
        )
    rest: dict[str, list[PartitionView]] = {}
    for each in (*users[rows_max:], *(each for each in view.partitions if each.topic.startswith("__"))):
        rest.setdefault(each.topic, []).append(each)
    for topic, those in rest.items():
        short = sum(len(each.isr) < len(each.replicas) for each in those)
        offline = sum(each.leader < 0 for each in those)
        said = f"{short} under-replicated" if short else "in sync"
        count = f"{len(those)} more" if singly and topic == singly[-1].topic else f"all {len(those)}"
        leaderless = Text(f"{offline} none", style="red") if offline else Text("")
        table.add_row(topic, count, leaderless, "", Text(said, style="yellow" if short else "dim"), "", "")
    return table


def number(value: int | None, before: str = "") -> str:
    return "-" if value is None else f"{before if value else ''}{value:,}" if before else str(value)
