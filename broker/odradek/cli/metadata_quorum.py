"""`kafka-metadata-quorum`: status and replication of the metadata log; its voters added and removed."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from odradek.cli.options import ToolError, ToolParser, program_name, run_tool
from odradek.cli.tables import tabbed_table

if TYPE_CHECKING:
    from odradek.cli.admin import Admin

NO_DIRECTORY = "A" * 22


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: exit code 0, or 1 with one line that says why."""
    return run_tool(run, argv)


def run(argv: list[str]) -> int:
    """Parse and execute."""
    options = build_parser().parse(argv)
    if options.bootstrap_controller and not options.bootstrap_server:
        raise ToolError("--bootstrap-controller: the controllers speak to nodes only; use --bootstrap-server")
    if options.command != "describe":
        return change(options)
    if options.status == options.replication:
        both = "Only one of --status or --replication should be specified with describe sub-command"
        raise ToolError(
            both
            if options.status
            else "One of --status or --replication must be specified with describe sub-command"
        )
    if options.status and options.human_readable:
        raise ToolError("The option --human-readable is only supported along with --replication")
    from odradek.cli.admin import connect

    with connect(options.bootstrap_server, options.command_config) as admin:
        answer = admin.quorum()
        partition = answer["topics"][0]["partitions"][0]
        if partition["error"]:
            raise ToolError(str(partition["error"]))
        if options.status:
            status(admin, answer, partition)
        else:
            replication(partition, options.human_readable)
    return 0


def change(options: argparse.Namespace) -> int:
    """add-controller, remove-controller."""
    from odradek.cli import raft_voters
    from odradek.cli.admin import connect

    adding = options.command == "add-controller"
    if adding and options.command_config is None:
        raise ToolError(
            "You must supply the configuration file of the controller you are adding when using add-controller."
        )
    # The file of add-controller is a node's, not a client's.
    with connect(options.bootstrap_server, None if adding else options.command_config) as admin:
        if adding:
            raft_voters.add_controller(admin, options.command_config, options.dry_run)
        else:
            node_id, directory_id = options.controller_id, options.controller_directory_id
            raft_voters.remove_controller(admin, node_id, directory_id, options.dry_run)
    return 0


def build_parser() -> ToolParser:
    parser = ToolParser(
        prog=program_name("odradek metadata-quorum"),
        description="This tool describes kraft metadata quorum status.",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--bootstrap-server", help="A comma-separated list of host:port pairs to connect to.")
    where.add_argument("--bootstrap-controller", help=argparse.SUPPRESS)
    parser.add_argument(
        "--command-config",
        metavar="FILE",
        help="Property file containing configs to be passed to Admin Client. For add-controller, the file is used to "
        "specify the controller properties as well.",
    )
    parser.add_version()
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="{describe,add-controller,remove-controller}"
    )
    describe = commands.add_parser("describe", help="Describe the metadata quorum info")
    describe.add_argument("--status", action="store_true", help="A short summary of the quorum status.")
    describe.add_argument("--replication", action="store_true", help="The status of each replica.")
    describe.add_argument(
        "--human-readable", action="store_true", help="With --replication: times as distances from now."
    )
    add = commands.add_parser("add-controller", help="Add a controller to the KRaft controller cluster")
    remove = commands.add_parser(
        "remove-controller", help="Remove a controller from the KRaft controller cluster"
    )
    remove.add_argument(
        "--controller-id", "-i", type=int, required=True, help="The id of the controller to remove."
    )
    remove.add_argument(
        "--controller-directory-id",
        "-d",
        required=True,
        help="The directory ID of the controller to remove.",
    )
    for command in (add, remove):
        command.add_argument(
            "--dry-run",
            action="store_true",
            help="True if we should print what would be done, but not do it.",
        )
    return parser


def status(admin: Admin, answer: Mapping[str, Any], partition: Mapping[str, Any]) -> None:
    """Kafka's summary."""
    voters = partition["current_voters"]
    leader = leader_of(partition)
    furthest = min(voters, key=lambda voter: int(voter["log_end_offset"]))
    lag = leader["log_end_offset"] - furthest["log_end_offset"]
    if furthest is leader:
        lag_ms = 0
    else:
        times = leader["last_caught_up_timestamp"], furthest["last_caught_up_timestamp"]
        lag_ms = times[0] - times[1] if min(times) >= 0 else -1
    for name, value in (
        ("ClusterId", admin.cluster()["cluster_id"]),
        ("LeaderId", partition["leader_id"]),
        ("LeaderEpoch", partition["leader_epoch"]),
        ("HighWatermark", partition["high_watermark"]),
        ("MaxFollowerLag", lag),
        ("MaxFollowerLagTimeMs", lag_ms),
        ("CurrentVoters", replicas_text(answer, voters)),
        ("CurrentObservers", replicas_text(answer, partition["observers"])),
    ):
        print(f"{name + ':':<24}{value}")


def replicas_text(answer: Mapping[str, Any], replicas: Sequence[Mapping[str, Any]]) -> str:
    """`[{"id": 1, "directoryId": "…", "endpoints": ["CONTROLLER://host:port"]}]`."""
    from odradek.cli.admin import uuid_text

    nodes = {node["node_id"]: node["listeners"] for node in answer.get("nodes") or []}
    texts = []
    for replica in replicas:
        parts = [f'"id": {replica["replica_id"]}']
        directory = uuid_text(replica["replica_directory_id"])
        if directory != NO_DIRECTORY:
            parts.append(f'"directoryId": "{directory}"')
        endpoints = [
            f'"{listener["name"]}://{listener["host"]}:{listener["port"]}"'
            for listener in nodes.get(replica["replica_id"], [])
        ]
        if endpoints:
            parts.append(f'"endpoints": [{", ".join(endpoints)}]')
        texts.append("{" + ", ".join(parts) + "}")
    return "[" + ", ".join(texts) + "]"


def replication(partition: Mapping[str, Any], human: bool) -> None:
    """Kafka's table: the leader, the followers, the observers."""
    from odradek.cli.admin import uuid_text

    leader = leader_of(partition)
    ranked = [(leader, "Leader")]
    ranked += [(voter, "Follower") for voter in partition["current_voters"] if voter is not leader]
    ranked += [(observer, "Observer") for observer in partition["observers"]]
    rows = [
        [
            "NodeId",
            "DirectoryId",
            "LogEndOffset",
            "Lag",
            "LastFetchTimestamp",
            "LastCaughtUpTimestamp",
            "Status",
        ]
    ]
    for replica, role in ranked:
        rows.append(
            [
                str(replica["replica_id"]),
                uuid_text(replica["replica_directory_id"]),
                str(replica["log_end_offset"]),
                str(leader["log_end_offset"] - replica["log_end_offset"]),
                moment(replica["last_fetch_timestamp"], human),
                moment(replica["last_caught_up_timestamp"], human),
                role,
            ]
        )
    tabbed_table(rows[0], rows[1:])


def leader_of(partition: Mapping[str, Any]) -> Mapping[str, Any]:
    """The voter that leads."""
    for voter in partition["current_voters"]:
        if voter["replica_id"] == partition["leader_id"]:
            return dict(voter) if not isinstance(voter, dict) else voter
    raise ToolError("The metadata quorum has no leader at present; ask again in a moment")


def moment(timestamp_ms: int, human: bool) -> str:
    """A timestamp, or how long it is ago."""
    if timestamp_ms < 0:
        return "-1"
    return f"{max(0, int(time.time() * 1000) - timestamp_ms)} ms ago" if human else str(timestamp_ms)
