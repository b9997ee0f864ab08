"""`kafka-cluster`: the cluster's id, its endpoints, and brokers that will not come back.

`odradek cluster` starts and stops local clusters besides.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from odradek.cli.options import ToolError, ToolParser, program_name, run_tool

if TYPE_CHECKING:
    from odradek.cli.admin import Admin

KAFKAS_COMMANDS = ("cluster-id", "unregister", "list-endpoints")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: exit code 0, or 1 with one line that says why."""
    return run_tool(run_tool_of_kafka, argv)


def run(argv: list[str]) -> int:
    """`odradek cluster …`: Kafka's commands are answered here, those for local clusters in `cluster_nodes`."""
    if argv and argv[0] in KAFKAS_COMMANDS:
        return run_tool_of_kafka(argv)
    from odradek.cli import cluster_nodes

    return cluster_nodes.run(argv)


def run_tool_of_kafka(argv: list[str]) -> int:
    """Parse and execute."""
    parser = build_parser()
    options = parser.parse(argv)
    from odradek.cli.admin import connect

    if options.bootstrap_controller and not options.bootstrap_server:
        raise ToolError("--bootstrap-controller: the controllers speak to nodes only; use --bootstrap-server")
    with connect(options.bootstrap_server, options.command_config) as admin:
        commands = {"cluster-id": cluster_id, "unregister": unregister, "list-endpoints": list_endpoints}
        commands[options.command](admin, options)
    return 0


def build_parser() -> ToolParser:
    parser = ToolParser(prog=program_name("odradek cluster"), description="The Kafka cluster tool.")
    parser.add_version()
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="{cluster-id,unregister,list-endpoints}"
    )
    for name, text in (
        ("cluster-id", "Get information about the ID of a cluster."),
        ("unregister", "Unregister a broker."),
        ("list-endpoints", "List endpoints"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        where = command.add_mutually_exclusive_group(required=True)
        where.add_argument("--bootstrap-server", "-b", help="A list of host/port pairs to connect to.")
        where.add_argument("--bootstrap-controller", "-C", help=argparse.SUPPRESS)
        command.add_argument(
            "--command-config", "--config", "-c", help="Config properties file for the Admin client."
        )
        if name == "unregister":
            command.add_argument(
                "--id", "-i", type=int, required=True, help="The ID of the broker to unregister."
            )
        if name == "list-endpoints":
            command.add_argument(
                "--include-fenced-brokers", action="store_true", help="Whether to include fenced brokers."
            )
    return parser


def cluster_id(admin: Admin, _: argparse.Namespace) -> None:
    """`Cluster ID: …`"""
    print(f"Cluster ID: {admin.cluster()['cluster_id']}")


def unregister(admin: Admin, options: argparse.Namespace) -> None:
    """The cluster forgets a broker. ClusterError where it knows none with this id."""
    from odradek.cli.admin import ClusterError
    from odradek.cli.unregister_messages import UnregisterBrokerRequest

    answer = admin.send(UnregisterBrokerRequest(broker_id=options.id)).to_dict()
    if answer["error_code"]:
        raise ClusterError(answer["error_code"], answer["error_message"])
    print(f"Broker {options.id} is no longer registered.")


def list_endpoints(admin: Admin, options: argparse.Namespace) -> None:
    """A line per broker."""
    brokers = sorted(
        admin.cluster(fenced=options.include_fenced_brokers)["brokers"],
        key=lambda broker: int(broker["broker_id"]),
    )
    hosts = max((len(broker["host"]) for broker in brokers), default=100)
    racks = max((len(broker["rack"]) for broker in brokers if broker["rack"]), default=10)

    def line(*cells: object) -> str:
        return "{:<10} {:<{hosts}} {:<10} {:<{racks}} {:<10} {:<15}".format(
            *map(str, cells), hosts=hosts, racks=racks
        )

    print(line("ID", "HOST", "PORT", "RACK", "STATE", "ENDPOINT_TYPE"))
    for broker in brokers:
        state = "fenced" if broker.get("is_fenced") else "unfenced"
        print(
            line(
                broker["broker_id"], broker["host"], broker["port"], broker["rack"] or "null", state, "broker"
            )
        )
