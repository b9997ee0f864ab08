"""A cluster on this machine: which nodes it has, their ports, directories and generated `server.properties`.

Everything lies in one directory: `cluster.json` says what was decided at the first start, and each node has a
directory of its own (`node-1/server.properties`, `node.log`, `pid`, `data/`). Ports between the nodes are chosen once
and kept, below the range that the kernel takes for outgoing connections: a node that is down gets its port back.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from odradek.cli.options import ToolError

NODES_MAX = 99
VOTERS_MAX = 5
FIRST_CONTROLLER_ID = 101
INTERNAL_DISTANCE = 1_000
"""How far above the clients' ports the search for the nodes' own ports begins."""
EPHEMERAL_FROM = 32_768
BOTH = ("broker", "controller")
PROGRAM = "odradek.cli.main"


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """One process. `port` is where clients connect, None for a node that is a controller only."""

    id: int
    roles: tuple[str, ...]
    port: int | None
    internal_port: int
    metrics_port: int

    @property
    def kafka(self) -> str | None:
        """What a client puts into `bootstrap.servers`."""
        return None if self.port is None else f"localhost:{self.port}"

    @property
    def ports(self) -> tuple[int, ...]:
        own = (self.internal_port, self.metrics_port)
        return own if self.port is None else (self.port, *own)


@dataclass(frozen=True, slots=True)
class Layout:
    """What was decided at the first start."""

    directory: Path
    cluster_id: str
    nodes: tuple[ClusterNode, ...]
    overrides: Mapping[str, str]
    program: str = PROGRAM
    """The module that is run as `python -m PROGRAM server FILE`."""

    @property
    def bootstrap(self) -> str:
        return ",".join(node.kafka for node in self.nodes if node.kafka)

    @property
    def voters(self) -> str:
        """`controller.quorum.voters`."""
        voting = [node for node in self.nodes if "controller" in node.roles]
        return ",".join(f"{node.id}@127.0.0.1:{node.internal_port}" for node in voting)

    def node(self, node_id: int) -> ClusterNode:
        """ToolError where there is no such node."""
        for node in self.nodes:
            if node.id == node_id:
                return node
        known = ", ".join(str(node.id) for node in self.nodes)
        raise ToolError(f"There is no node {node_id} in {shown(self.directory)}: its nodes are {known}")

    def node_directory(self, node: ClusterNode) -> Path:
        return self.directory / f"node-{node.id}"

    def properties_file(self, node: ClusterNode) -> Path:
        return self.node_directory(node) / "server.properties"

    def data_directory(self, node: ClusterNode) -> Path:
        return self.node_directory(node) / "data"

    def log_file(self, node: ClusterNode) -> Path:
        return self.node_directory(node) / "node.log"

    def properties(self, node: ClusterNode) -> dict[str, str]:
        """The node's `server.properties`: what differs from the defaults, then the user's overrides."""
        brokers = sum("broker" in each.roles for each in self.nodes)
        copies = min(3, brokers)
        in_sync = 2 if copies >= 3 else 1
        listeners = []
        if node.port is not None:
            listeners.append(f"PLAINTEXT://:{node.port}")
        if "controller" in node.roles:
            listeners.append(f"CONTROLLER://127.0.0.1:{node.internal_port}")
        found = {
            "node.id": str(node.id),
            "process.roles": ",".join(node.roles),
            "listeners": ",".join(listeners),
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": self.voters,
            "log.dirs": str(self.data_directory(node)),
            "default.replication.factor": str(copies),
            "min.insync.replicas": str(in_sync),
            "offsets.topic.replication.factor": str(copies),
            "transaction.state.log.replication.factor": str(copies),
            "transaction.state.log.min.isr": str(in_sync),
            "share.coordinator.state.topic.replication.factor": str(copies),
            "share.coordinator.state.topic.min.isr": str(in_sync),
            "group.initial.rebalance.delay.ms": "100",
            "odradek.metrics.port": str(node.metrics_port),
            "odradek.log.format": "text",
        }
        if node.port is not None:
            found["advertised.listeners"] = f"PLAINTEXT://localhost:{node.port}"
        if "controller" not in node.roles:
            found["odradek.replication.port"] = str(node.internal_port)
        return found | dict(self.overrides)

    def write(self) -> None:
        """`cluster.json`, and each node's directory with its `server.properties`."""
        for node in self.nodes:
            self.node_directory(node).mkdir(parents=True, exist_ok=True)
            lines = [f"{key}={value}\n" for key, value in self.properties(node).items()]
            head = "# Written by `odradek cluster start`, anew each time.\n"
            self.properties_file(node).write_text(head + "".join(lines), encoding="latin-1")
        content = {
            "cluster_id": self.cluster_id,
            "overrides": dict(self.overrides),
            "nodes": [asdict(node) for node in self.nodes],
            "program": self.program,
        }
        path = self.directory / "cluster.json"
        fresh = path.with_suffix(".tmp")
        fresh.write_text(json.dumps(content, indent=1) + "\n")
        fresh.replace(path)


def load(directory: Path) -> Layout | None:
    """The layout in `directory`, None where there is none. ToolError if it cannot be understood."""
    path = directory / "cluster.json"
    try:
        content = json.loads(path.read_text())
        nodes = tuple(ClusterNode(**{**each, "roles": tuple(each["roles"])}) for each in content["nodes"])
        program = content.get("program", PROGRAM)
        return Layout(directory, content["cluster_id"], nodes, content["overrides"], program)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ToolError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ToolError(f"{path} is damaged ({error}); delete {shown(directory)} to start anew") from error


def create(
    directory: Path, *, nodes: int, controllers: int, base_port: int, overrides: Mapping[str, str]
) -> Layout:
    """A new layout; nothing is written yet. ToolError where the numbers or the ports do not fit.

    Without separate controllers the first nodes are controllers too: the largest odd number up to five, because an
    even one survives no more failures than the odd one below it.
    """
    if not 1 <= nodes <= NODES_MAX:
        raise ToolError(f"--nodes {nodes}: between 1 and {NODES_MAX}")
    if not 0 <= controllers <= NODES_MAX:
        raise ToolError(f"--controllers {controllers}: between 0 and {NODES_MAX}")
    if not 1 <= base_port <= 65_535 - nodes:
        raise ToolError(f"--base-port {base_port}: the nodes' ports must lie between 1 and 65535")
    for character in ",\n\\":
        if character in str(directory):
            raise ToolError(f"--dir {directory}: the path must not contain {character!r}")
    import random

    from odradek.wire.uuid import random_uuid, uuid_to_string

    total = nodes + controllers
    client_ports = range(base_port, base_port + nodes)
    own = internal_ports(2 * total, base_port, client_ports)
    combined = 0 if controllers else min(VOTERS_MAX, nodes - (nodes + 1) % 2)
    found = []
    for index in range(total):
        is_broker = index < nodes
        roles: tuple[str, ...] = BOTH if index < combined else ("broker",) if is_broker else ("controller",)
        node_id = index + 1 if is_broker else FIRST_CONTROLLER_ID + index - nodes
        port = base_port + index if is_broker else None
        found.append(ClusterNode(node_id, roles, port, own[index], own[total + index]))
    return Layout(directory, uuid_to_string(random_uuid(random.SystemRandom())), tuple(found), overrides)


def internal_ports(count: int, base_port: int, taken: Iterable[int]) -> list[int]:
    """A free run of ports for what nodes say to each other and for metrics."""
    reserved = set(taken)
    start = base_port + INTERNAL_DISTANCE
    if start + count >= EPHEMERAL_FROM:
        start = 10_000 + base_port % 1_000
    for first in range(start, EPHEMERAL_FROM - count, max(20, count)):
        block = range(first, first + count)
        if not reserved.intersection(block) and all(map(is_free, block)):
            return list(block)
    raise ToolError(f"no {count} free ports between {start} and {EPHEMERAL_FROM}: choose another --base-port")


def is_free(port: int) -> bool:
    """Whether a node could listen on the port, on all interfaces."""
    dual = socket.has_dualstack_ipv6()
    with socket.socket(socket.AF_INET6 if dual else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            if dual:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe.bind(("", port))
        except OSError:
            return False
    return True


def shown(directory: Path) -> str:
    """A path as short as it can be said from here."""
    try:
        return f"./{directory.relative_to(Path.cwd())}"
    except (ValueError, OSError):
        return str(directory)
