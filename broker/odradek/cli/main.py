"""`odradek`: one program whose sub-commands are the node and Kafka's tools.

Each sub-command is imported when it is called: start-up time is part of the product. Every tool is also installed
under Kafka's names (`kafka-topics`, `kafka-topics.sh`), which call the tool's own `main`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from odradek.cli.options import run_tool, version_text

SECTIONS: dict[str, dict[str, str]] = {
    "Nodes": {
        "start": "start a node: no configuration needed",
        "server": "start a node from a server.properties file",
        "container": "start a node by the conventions of Kafka's container image",
        "pod": "the same in a pod of a StatefulSet: node.id is its ordinal",
        "health": "how a node does: live, started, ready; for container health checks",
    },
    "Clusters": {
        "cluster": "start, watch, kill, stop a cluster on this machine; cluster id and endpoints",
        "chaos": "break a real cluster under stock clients, and judge what they saw",
        "simulate": "whole clusters on virtual time under faults, every promise checked",
    },
    "Kafka's tools": {
        "topics": "create, list, describe, alter, delete topics",
        "console-producer": "write lines to a topic",
        "console-consumer": "print a topic's records",
        "consumer-groups": "list, describe, reset, delete consumer groups",
        "groups": "list groups of every type",
        "transactions": "list, describe, abort transactions, find those that hang",
        "configs": "describe and alter topic and broker configurations",
        "features": "describe, upgrade, downgrade the features of a cluster",
        "get-offsets": "offsets of partitions, by position or time",
        "delete-records": "delete records below an offset",
        "reassign-partitions": "move replicas to other brokers and log directories",
        "log-dirs": "log directories of brokers and the size of what lies in them",
        "metadata-quorum": "status of the metadata quorum; add and remove controllers",
        "broker-api-versions": "the API versions each broker speaks",
        "dump-log": "print segments, indexes and snapshots, and check them",
        "storage": "random ids, format and inspect data directories, adopt those of an Apache Kafka",
    },
}
COMMANDS = {name: text for commands in SECTIONS.values() for name, text in commands.items()}
"""What each is for."""
ELSEWHERE = {"start": ("serve", "run_start"), "server": ("serve", "run_server")}
"""Module and function of those that are not `run` of the module of their name."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `odradek`: exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 1
    if arguments[0] in ("--version", "version"):
        print(version_text())
        return 0
    command = arguments[0].removeprefix("kafka-").removesuffix(".sh")
    if command not in COMMANDS:
        print(
            f"odradek: there is no command '{arguments[0]}'.{suggestion(arguments[0])} See odradek --help",
            file=sys.stderr,
        )
        return 1
    module, function = ELSEWHERE.get(command, (module_of(command), "run"))
    run: Callable[[list[str]], int] = getattr(import_module(f"odradek.cli.{module}"), function)
    return run_tool(run, arguments[1:])


def module_of(command: str) -> str:
    return command.replace("-", "_")


def usage() -> str:
    """What `odradek --help` prints."""
    width = max(map(len, COMMANDS))
    lines = []
    for title, commands in SECTIONS.items():
        lines += ["", f"{title}:", *(f"  {name:<{width}}  {text}" for name, text in commands.items())]
    return "\n".join(
        (
            "usage: odradek <command> [options]",
            "",
            "Apache Kafka's protocol and promises, as a cluster you can pip install.",
            *lines,
            "",
            "The tools answer to Kafka's own names too: kafka-topics, kafka-topics.sh …",
            "odradek <command> --help shows its options.",
        )
    )


def suggestion(typed: str) -> str:
    """` Did you mean 'x'?` where something is close."""
    from difflib import get_close_matches

    close = get_close_matches(typed, COMMANDS, 1)
    return f" Did you mean '{close[0]}'?" if close else ""


if __name__ == "__main__":
    sys.exit(main())
