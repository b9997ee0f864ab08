"""`odradek`: one program whose sub-commands are the node and Kafka's tools.

Each sub-command is imported when it is called: start-up time is part of the product. Every tool is also installed
under Kafka's names (`kafka-topics`, `kafka-topics.sh`), which call the tool's own `main`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from odradek.cli.options import run_tool, version_text

# name → (module, function, what it is for)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "start": ("serve", "run_start", "start a node: no configuration needed"),
    "server": ("serve", "run_server", "start a node from a server.properties file"),
    "topics": ("topics", "run", "create, list, describe, alter, delete topics"),
    "console-producer": ("console_producer", "run", "write lines to a topic"),
    "console-consumer": ("console_consumer", "run", "print a topic's records"),
    "consumer-groups": ("consumer_groups", "run", "list, describe, reset, delete consumer groups"),
    "health": ("health", "run", "how a node does: live, started, ready; for container health checks"),
    "groups": ("groups", "run", "list groups of every type"),
    "configs": ("configs", "run", "describe and alter topic and broker configurations"),
    "get-offsets": ("get_offsets", "run", "offsets of partitions, by position or time"),
    "delete-records": ("delete_records", "run", "delete records below an offset"),
    "broker-api-versions": ("broker_api_versions", "run", "the API versions each broker speaks"),
    "chaos": ("chaos", "run", "break a real cluster under stock clients, and judge what they saw"),
    "cluster": (
        "cluster",
        "run",
        "start, watch, kill, stop a cluster on this machine; cluster id and endpoints",
    ),
    "container": ("container", "run", "start a node by the conventions of Kafka's container image"),
    "dump-log": ("dump_log", "run", "print segments, indexes and snapshots, and check them"),
    "features": ("features", "run", "describe, upgrade, downgrade the features of a cluster"),
    "log-dirs": ("log_dirs", "run", "log directories of brokers and the size of what lies in them"),
    "metadata-quorum": (
        "metadata_quorum",
        "run",
        "status of the metadata quorum; add and remove controllers",
    ),
    "pod": ("pod", "run", "the same in a pod of a StatefulSet: node.id is its ordinal"),
    "reassign-partitions": (
        "reassign_partitions",
        "run",
        "move replicas to other brokers and log directories",
    ),
    "simulate": ("simulate", "run", "whole clusters on virtual time under faults, every promise checked"),
    "transactions": ("transactions", "run", "list, describe, abort transactions, find those that hang"),
    "storage": ("storage", "run", "random ids, format and inspect data directories"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `odradek`: exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 1
    if arguments[0] in ("--version", "version"):
        print(version_text())
        return 0
    command = COMMANDS.get(arguments[0].removeprefix("kafka-").removesuffix(".sh"))
    if command is None:
        print(
            f"odradek: there is no command '{arguments[0]}'.{suggestion(arguments[0])} See odradek --help",
            file=sys.stderr,
        )
        return 1
    module, function, _ = command
    run: Callable[[list[str]], int] = getattr(import_module(f"odradek.cli.{module}"), function)
    return run_tool(run, arguments[1:])


def usage() -> str:
    """What `odradek --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, _, text) in COMMANDS.items()]
    return "\n".join(
        (
            "usage: odradek <command> [options]",
            "",
            "Apache Kafka's protocol and promises, as a cluster you can pip install.",
            "",
            *lines,
            "",
            "Each tool answers to Kafka's own names too: kafka-topics, kafka-topics.sh …",
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
