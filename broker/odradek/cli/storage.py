"""`kafka-storage`: random ids; format and inspect the data directories that a server.properties names.

Formatting is optional here: a node formats a new directory when it starts. The command is for set-ups that do it
beforehand, as Kafka's guides do, to give all nodes of a cluster the same cluster id.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from odradek.cli.options import ToolError, ToolParser, program_name, run_tool

if TYPE_CHECKING:
    from odradek.broker.config import BrokerConfig
    from odradek.raft.voters import Voter

METADATA_VERSION = "4.3-IV0"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: exit code 0, or 1 with one line that says why."""
    return run_tool(run, argv)


def run(argv: list[str]) -> int:
    """Parse and execute."""
    options = build_parser().parse(argv)
    if options.command == "random-uuid":
        from odradek.wire.uuid import random_uuid, uuid_to_string

        print(uuid_to_string(random_uuid(random.SystemRandom())))
        return 0
    config = read_config(options.config)
    if options.command == "adopt":
        return adopt_dirs(config)
    return info(config) if options.command == "info" else format_dirs(config, options)


def build_parser() -> ToolParser:
    parser = ToolParser(prog=program_name("odradek storage"), description="The Kafka storage tool.")
    parser.add_version()
    commands = parser.add_subparsers(dest="command", required=True, metavar="{info,format,adopt,random-uuid}")
    inspect = commands.add_parser(
        "info", help="Get information about the Kafka log directories on this node."
    )
    form = commands.add_parser("format", help="Format the Kafka log directories on this node.")
    take_over = commands.add_parser(
        "adopt",
        help="Take over the directories of an Apache Kafka that was a cluster of one node, and is stopped.",
    )
    for command in (inspect, form, take_over):
        command.add_argument(
            "--config", "-c", required=True, metavar="FILE", help="The Kafka configuration file to use."
        )
    form.add_argument("--cluster-id", "-t", required=True, metavar="ID", help="The cluster ID to use.")
    form.add_argument(
        "--ignore-formatted", "-g", action="store_true", help="Skip directories that are already formatted."
    )
    voters = form.add_mutually_exclusive_group()
    voters.add_argument(
        "--standalone",
        "-s",
        action="store_true",
        help="Used to initialize a controller as a single-node dynamic quorum.",
    )
    voters.add_argument(
        "--no-initial-controllers",
        "-N",
        action="store_true",
        help="Used to initialize a server without a dynamic quorum topology.",
    )
    voters.add_argument(
        "--initial-controllers",
        "-I",
        metavar="CONTROLLERS",
        help="Used to initialize a server with a specific dynamic quorum topology. The argument is a comma-separated "
        "list of id@hostname:port:directory. The same values must be used to format all nodes.",
    )
    commands.add_parser("random-uuid", help="Print a random UUID.")
    return parser


def read_config(path: str) -> BrokerConfig:
    """The configuration of a node from its file alone."""
    from odradek.broker.config import StartupError
    from odradek.broker.properties import PropertiesError
    from odradek.cli.serve import server_config

    options = argparse.Namespace(file=path, override=[], metrics_port=None, log_format=None, cluster_id=None)
    try:
        return server_config(options, {})
    except (StartupError, PropertiesError) as error:
        raise ToolError(str(error)) from error


def directories(config: BrokerConfig) -> list[str]:
    """All data directories, sorted."""
    return sorted({*config.log_dirs, config.metadata_dir})


def initial_voters(config: BrokerConfig, options: argparse.Namespace) -> list[Voter]:
    """The first voters of a dynamic quorum, as the options say; none for static voters, or for a node that joins."""
    from odradek.broker.quorum_members import own_endpoints
    from odradek.raft.voters import ReplicaKey, Voter
    from odradek.wire.uuid import random_uuid

    if config.voters and (options.standalone or options.initial_controllers):
        raise ToolError(
            "You cannot use --standalone or --initial-controllers while controller.quorum.voters is set: its voters "
            "are static. Leave it out, and set controller.quorum.bootstrap.servers."
        )
    if options.initial_controllers:
        return parse_initial_controllers(options.initial_controllers, config.controller_listener_names[0])
    if options.standalone:
        if "controller" not in config.roles:
            raise ToolError("You can only use --standalone on a controller.")
        if not config.controller_advertised:
            return []  # a node for everything, which has no address for others
        key = ReplicaKey(config.node_id, random_uuid(random.SystemRandom()))
        return [Voter(key, own_endpoints(config, 0))]
    needed = "controller" in config.roles and not config.voters and not config.alone and not config.standalone
    if needed and not options.no_initial_controllers:
        raise ToolError(
            "Because controller.quorum.voters is not set on this controller, you must specify one of the following: "
            "--standalone, --initial-controllers, or --no-initial-controllers."
        )
    return []


def parse_initial_controllers(text: str, listener: str) -> list[Voter]:
    """`0@example.com:8082:JEXY6aqzQY-32P5TStzaFg,…`. ToolError in Kafka's words."""
    from odradek.broker.listeners import parse_host_port
    from odradek.raft.voters import Endpoint, ReplicaKey, Voter
    from odradek.wire.uuid import uuid_from_string

    found: dict[int, Voter] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        number, at, rest = entry.partition("@")
        if not at:
            raise ToolError("No @ found in dynamic voter string.")
        if not number.isascii() or not number.isdecimal():
            raise ToolError("Failed to parse node id in dynamic voter string.")
        address, _, directory = rest.rpartition(":")
        where = parse_host_port(address)
        if where is None:
            raise ToolError("No colon following port could be found.")
        try:
            key = ReplicaKey(int(number), uuid_from_string(directory))
        except ValueError as error:
            raise ToolError("Failed to parse directory ID in dynamic voter string.") from error
        if key.id in found:
            raise ToolError(f"Node id {key.id} was specified more than once.")
        found[key.id] = Voter(key, (Endpoint(listener, *where),))
    if not found:
        raise ToolError("No voters given.")
    return list(found.values())


def format_dirs(config: BrokerConfig, options: argparse.Namespace) -> int:
    """Write meta.properties into each directory; nothing is written when one of them is in use or another's."""
    from odradek.raft.metadata_log import write_bootstrap_voters
    from odradek.raft.voters import VoterSet
    from odradek.storage.data_dir import DataDir, DataDirError
    from odradek.storage.real_disk import RealDisk

    disk = RealDisk()
    voters = initial_voters(config, options)
    opened: list[tuple[DataDir, str | None]] = []
    try:
        for path in directories(config):
            directory = DataDir(disk, os.path.abspath(path))
            directory.take()
            opened.append((directory, directory.read_meta(config.node_id)))
        for directory, cluster_id in opened:
            if cluster_id is not None and not options.ignore_formatted:
                raise ToolError(
                    f"Log directory {directory.path} is already formatted. Use --ignore-formatted to ignore this "
                    "directory and format the others."
                )
            if cluster_id not in (None, options.cluster_id):
                raise ToolError(
                    f"Invalid cluster.id in: {directory.path}/meta.properties. Expected {options.cluster_id}, "
                    f"but read {cluster_id}"
                )
        fresh = [directory for directory, cluster_id in opened if cluster_id is None]
        if not fresh:
            print("All of the log directories are already formatted.")
        for directory in fresh:
            kind = "metadata" if directory.path == os.path.abspath(config.metadata_dir) else "data"
            if kind == "metadata":
                chosen = any(voter.id == config.node_id for voter in voters)
                kind = "dynamic metadata voter" if chosen else "dynamic metadata" if voters else kind
            print(f"Formatting {kind} directory {directory.path} with metadata.version {METADATA_VERSION}.")
            own = next((voter.key.directory_id for voter in voters if voter.id == config.node_id), None)
            if directory.path == os.path.abspath(config.metadata_dir) and own is not None:
                directory.directory_id = own
            directory.write_meta(config.node_id, options.cluster_id, random.SystemRandom())
            if directory.path == os.path.abspath(config.metadata_dir) and voters:
                write_bootstrap_voters(disk, directory.path, VoterSet.of(voters), int(time.time() * 1000))
    except DataDirError as error:
        raise ToolError(str(error)) from error
    finally:
        for directory, _ in opened:
            directory.release()
    return 0


def adopt_dirs(config: BrokerConfig) -> int:
    """Kafka's own logs under our metadata."""
    from odradek.cli.adopt import adopt
    from odradek.storage.real_disk import RealDisk

    for line in adopt(config, RealDisk(), int(time.time() * 1000)):
        print(line)
    print("Adopted. The first start of the node serves these topics; Kafka's metadata is kept beside ours.")
    return 0


def info(config: BrokerConfig) -> int:
    """What is in the directories, and what is wrong with them; 1 when something is."""
    from odradek.storage.checkpoints import parse_properties

    found, problems, metadata = [], [], []
    for path in directories(config):
        meta = os.path.join(path, "meta.properties")
        if not os.path.isdir(path):
            problems.append(
                f"{path} is not a directory" if os.path.exists(path) else f"{path} does not exist"
            )
            continue
        found.append(path)
        try:
            with open(meta, encoding="utf-8") as file:
                metadata.append(parse_properties(file.read()))
        except FileNotFoundError:
            problems.append(f"{path} is not formatted.")
        except (OSError, ValueError) as error:
            problems.append(f"Error loading {meta}: {error}")
    if len({values.get("cluster.id") for values in metadata}) > 1:
        problems.append("Mismatched cluster IDs between storage directories.")
    elif len({values.get("node.id") for values in metadata}) > 1:
        problems.append("Mismatched node IDs between storage directories.")
    _paragraph("Found log directory:", "Found log directories:", found)
    if metadata:
        print(
            "Found metadata: {"
            + ", ".join(f"{key}={value}" for key, value in sorted(metadata[-1].items()))
            + "}\n"
        )
    _paragraph("Found problem:", "Found problems:", problems)
    return 1 if problems else 0


def _paragraph(one: str, many: str, lines: Sequence[str]) -> None:
    if lines:
        print(one if len(lines) == 1 else many, *(f"  {line}" for line in lines), "", sep="\n")
