"""`kafka-topics`: create, list, describe, alter and delete topics.

Output and sentences are those of Kafka's TopicCommand. Topics are described by DescribeTopicPartitions (KIP-966), so
that the eligible leader replicas show.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from odradek.cli.options import ToolError, ToolParser, add_bootstrap, given, program_name, run_tool, warn
from odradek.wire.errors import ErrorCode

if TYPE_CHECKING:
    from odradek.cli.admin import Admin

ACTIONS = ("list", "describe", "create", "alter", "delete")
REPORTS = (
    "under-replicated-partitions",
    "under-min-isr-partitions",
    "at-min-isr-partitions",
    "unavailable-partitions",
)
INTERNAL = frozenset(("__consumer_offsets", "__transaction_state", "__share_group_state"))
DEFAULT_CONFIG_SOURCE = 5
COLLISION = (
    "WARNING: Due to limitations in metric names, topics with a period ('.') or underscore ('_') could collide. "
    "To avoid issues it is best to use either, but not both."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: exit code 0, or 1 with one line that says why."""
    return run_tool(run, argv)


def run(argv: list[str]) -> int:
    """Parse and execute."""
    parser = build_parser()
    options = parser.parse(argv)
    check(parser, options)
    from odradek.cli.admin import connect

    with connect(options.bootstrap_server, options.command_config) as admin:
        action = next(name for name in ACTIONS if getattr(options, name))
        try:
            {"list": list_topics, "describe": describe, "create": create, "alter": alter, "delete": delete}[
                action
            ](admin, options)
        except ToolError as error:
            raise ToolError(f"Error while executing topic command : {error}", to_stdout=True) from error
    return 0


def build_parser() -> ToolParser:
    parser = ToolParser(
        prog=program_name("odradek topics"),
        description="This tool helps to create, delete, describe, or change a topic.",
    )
    add_bootstrap(parser)
    parser.add_argument("--list", action="store_true", help="List all available topics.")
    parser.add_argument("--create", action="store_true", help="Create a new topic.")
    parser.add_argument("--describe", action="store_true", help="List details for the given topics.")
    parser.add_argument(
        "--alter",
        action="store_true",
        help="Alter the number of partitions. (Configurations: kafka-configs.)",
    )
    parser.add_argument("--delete", action="store_true", help="Delete a topic.")
    parser.add_argument("--topic", help="The topic; a regular expression too, except for --create.")
    parser.add_argument("--topic-id", help="The topic-id to describe.")
    _add_settings(parser)
    parser.add_argument(
        "--if-exists", action="store_true", help="Alter, delete or describe only if the topic exists."
    )
    parser.add_argument(
        "--if-not-exists", action="store_true", help="Do not fail --create if the topic already exists."
    )
    _add_reports(parser)
    parser.add_version()
    return parser


def _add_settings(parser: ToolParser) -> None:
    """What a topic gets that is created or altered."""
    parser.add_argument(
        "--partitions", type=int, metavar="N", help="The number of partitions. Without it --create takes the cluster's "
        "default. More partitions change which partition a key goes to.",
    )  # fmt: skip
    parser.add_argument(
        "--replication-factor", type=int, metavar="N", help="Replicas of each partition of the new topic."
    )
    parser.add_argument(
        "--replica-assignment",
        metavar="ID:ID,ID:ID",
        help="Brokers of each partition of a topic being created or altered.",
    )
    parser.add_argument(
        "--config", action="append", default=[], metavar="NAME=VALUE",
        help="A configuration override for the topic being created, e.g. retention.ms=3600000. Repeatable.",
    )  # fmt: skip
    parser.add_argument("--delete-config", help=argparse.SUPPRESS)


def _add_reports(parser: ToolParser) -> None:
    """What --list and --describe leave out."""
    parser.add_argument(
        "--exclude-internal", action="store_true", help="List or describe without internal topics."
    )
    parser.add_argument(
        "--topics-with-overrides",
        action="store_true",
        help="Describe only topics that have overridden configs.",
    )
    parser.add_argument(
        "--under-replicated-partitions",
        action="store_true",
        help="Describe only under-replicated partitions.",
    )
    parser.add_argument(
        "--under-min-isr-partitions",
        action="store_true",
        help="Describe only partitions below min.insync.replicas.",
    )
    parser.add_argument(
        "--at-min-isr-partitions",
        action="store_true",
        help="Describe only partitions at min.insync.replicas.",
    )
    parser.add_argument(
        "--unavailable-partitions",
        action="store_true",
        help="Describe only partitions without a live leader.",
    )
    parser.add_argument(
        "--partition-size-limit-per-response", type=int, default=2000, metavar="N",
        help="Partitions asked for in one DescribeTopicPartitions response.",
    )  # fmt: skip


def check(parser: ToolParser, options: argparse.Namespace) -> None:
    """Which options may meet, as in Kafka."""
    if sum(bool(getattr(options, action)) for action in ACTIONS) != 1:
        parser.error(
            "Command must include exactly one action: --list, --describe, --create, --alter or --delete"
        )
    if options.delete_config:
        warn(
            "delete-config option is no longer supported and deprecated since version 4.0. See kafka-configs."
        )
    if not options.bootstrap_server:
        parser.error(
            "--bootstrap-server must be specified (a node on this machine: --bootstrap-server localhost:9092)"
        )
    if options.describe and options.if_exists and not (options.topic or options.topic_id):
        parser.error("--topic or --topic-id is required to describe a topic")
    if not (options.list or options.describe):
        parser.require(options, "topic")
    if options.alter:
        if options.config:
            parser.error(
                'Option combination "[bootstrap-server],[config]" can\'t be used with option "[alter]" '
                "(use kafka-configs)"
            )
        parser.require(options, "partitions")
    for option, allowed in (
        ("config", ("alter", "create")),
        ("partitions", ("alter", "create")),
        ("replication-factor", ("create",)),
        ("replica-assignment", ("alter", "create")),
        ("if-exists", ("alter", "delete", "describe")),
        ("if-not-exists", ("create",)),
        ("exclude-internal", ("list", "describe")),
        ("topics-with-overrides", ("describe",)),
        *((report, ("describe",)) for report in REPORTS),
    ):
        parser.forbid(options, option, *(action for action in ACTIONS if action not in allowed))
    if options.create:
        parser.forbid(options, "replica-assignment", "partitions", "replication-factor")
    for report in REPORTS:
        parser.forbid(options, report, "topics-with-overrides")


# --- actions ---------------------------------------------------------------------------------------------------------


def list_topics(admin: Admin, options: argparse.Namespace) -> None:
    """One name per line; an empty line when there is none, as Kafka prints."""
    print("\n".join(matching(admin, options.topic, options.exclude_internal)))


def create(admin: Admin, options: argparse.Namespace) -> None:
    """`Created topic NAME.`; nothing when it was there and --if-not-exists is given."""
    name = options.topic
    if "." in name or "_" in name:
        print(COLLISION)
    if options.replication_factor is not None and not 1 <= options.replication_factor <= 32767:
        raise ToolError("The replication factor must be between 1 and 32767 inclusive")
    if options.partitions is not None and options.partitions < 1:
        raise ToolError("The partitions must be greater than 0")
    assignment = parse_assignment(options.replica_assignment) if options.replica_assignment else {}
    from odradek.cli.admin import ClusterError

    try:
        admin.create_topic(
            name,
            options.partitions or -1,
            options.replication_factor or -1,
            assignment,
            parse_configs(options.config),
        )
    except ClusterError as error:
        if error.code == ErrorCode.TOPIC_ALREADY_EXISTS and options.if_not_exists:
            return
        raise
    print(f"Created topic {name}.")


def alter(admin: Admin, options: argparse.Namespace) -> None:
    """Raise the number of partitions of the matching topics. Prints nothing."""
    topics = existing(matching(admin, options.topic, False), options)
    if not topics:
        return
    counts: dict[str, int | dict[str, Any]] = dict.fromkeys(topics, options.partitions)
    if options.replica_assignment:
        assignment = parse_assignment(options.replica_assignment)
        for topic, parts in admin.partitions(topics).items():
            added = [brokers for partition, brokers in assignment.items() if partition >= len(parts)]
            counts[topic] = {"count": options.partitions, "assignments": added}
    admin.create_partitions(counts)


def delete(admin: Admin, options: argparse.Namespace) -> None:
    """Delete the matching topics. Prints nothing."""
    topics = existing(matching(admin, options.topic, False), options)
    if topics:
        admin.delete_topics(topics)


def describe(admin: Admin, options: argparse.Namespace) -> None:
    """Kafka's two kinds of lines: one per topic, one per partition."""
    topics = described_topics(admin, options)
    if not topics:
        return
    described = sorted(
        admin.describe_topics(topics, options.partition_size_limit_per_response),
        key=lambda topic: str(topic["name"]),
    )
    configs = admin.describe_configs(2, topics)
    live = set(admin.broker_ids()) if options.unavailable_partitions else set()
    reports = [report for report in REPORTS if given(options, report)]
    for topic in described:
        entries = configs[topic["name"]]
        overrides = {
            entry["name"]: entry["value"]
            for entry in entries
            if entry["config_source"] != DEFAULT_CONFIG_SOURCE
        }
        partitions = sorted(topic["partitions"], key=lambda part: int(part["partition_index"]))
        if not reports and (overrides or not options.topics_with_overrides):
            print(topic_line(topic, partitions, overrides))
        if options.topics_with_overrides:
            continue
        min_isr = next(
            (int(entry["value"]) for entry in entries if entry["name"] == "min.insync.replicas"), 1
        )
        for part in partitions:
            if not reports or any(reported(report, part, min_isr, live) for report in reports):
                print(partition_line(topic["name"], part))


def described_topics(admin: Admin, options: argparse.Namespace) -> list[str]:
    """The names asked for, by id or by pattern."""
    if options.topic_id and options.topic_id != "A" * 22:
        name = admin.topic_ids(internal=not options.exclude_internal).get(options.topic_id)
        if name is None and not options.if_exists:
            raise ToolError(f"TopicId '{options.topic_id}' does not exist as expected")
        return [name] if name else []
    return existing(matching(admin, options.topic, options.exclude_internal), options)


# --- parts -----------------------------------------------------------------------------------------------------------


def include_pattern(text: str) -> re.Pattern[str]:
    """Kafka's include list: a regular expression in which a comma means "or" and spaces and quotes do not count."""
    cleaned = text.strip().replace(",", "|").replace(" ", "").strip("\"'")
    try:
        return re.compile(cleaned)
    except re.error as error:
        raise ToolError(f"{cleaned} is an invalid regex.") from error


def matching(admin: Admin, topic: str | None, exclude_internal: bool) -> list[str]:
    """Names of the topics that the pattern includes, sorted."""
    names = admin.topic_names(internal=not exclude_internal)
    if topic is None:
        return names
    pattern = include_pattern(topic)
    return [name for name in names if pattern.fullmatch(name)]


def existing(topics: list[str], options: argparse.Namespace) -> list[str]:
    """`topics`, or Kafka's complaint when the one asked for is not there."""
    if options.topic and not topics and not options.if_exists:
        raise ToolError(f"Topic '{options.topic}' does not exist as expected")
    return topics


def parse_configs(pairs: Sequence[str]) -> dict[str, str]:
    """`name=value` overrides."""
    configs = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not value.strip():
            raise ToolError(
                'requirement failed: Invalid topic config: all configs to be added must be in the format "key=val".'
            )
        configs[name.strip()] = value.strip()
    return configs


def parse_assignment(text: str) -> dict[int, list[int]]:
    """`1:2,2:3` as brokers by partition."""
    assignment: dict[int, list[int]] = {}
    for partition, part in enumerate(text.split(",")):
        try:
            brokers = [int(broker) for broker in part.split(":")]
        except ValueError:
            raise ToolError(
                f"'{part.strip()}' in the replica assignment is not a list of broker ids like 1:2:3"
            ) from None
        repeated = sorted({broker for broker in brokers if brokers.count(broker) > 1})
        if repeated:
            raise ToolError(
                "Partition replica lists may not contain duplicate entries: " + ",".join(map(str, repeated))
            )
        if assignment and len(brokers) != len(assignment[0]):
            raise ToolError(f"Partition {partition} has different replication factor: {brokers}")
        assignment[partition] = brokers
    return assignment


def topic_line(
    topic: Mapping[str, Any], partitions: Sequence[Mapping[str, Any]], overrides: Mapping[str, Any]
) -> str:
    """The line that opens a topic's description."""
    from odradek.cli.admin import uuid_text

    replicas = len(partitions[0]["replica_nodes"]) if partitions else 0
    configs = ",".join(f"{name}={'null' if value is None else value}" for name, value in overrides.items())
    return (
        f"Topic: {topic['name']}\tTopicId: {uuid_text(topic['topic_id'])}\tPartitionCount: {len(partitions)}"
        f"\tReplicationFactor: {replicas}\tConfigs: {configs}"
    )


def partition_line(topic: str, part: Mapping[str, Any]) -> str:
    """One partition's line."""

    def ids(nodes: Sequence[int] | None) -> str:
        return "N/A" if nodes is None else ",".join(map(str, nodes))

    leader = part["leader_id"]
    return (
        f"\tTopic: {topic}\tPartition: {part['partition_index']}\tLeader: {leader if leader >= 0 else 'none'}"
        f"\tReplicas: {ids(part['replica_nodes'])}\tIsr: {ids(part['isr_nodes'])}"
        f"\tElr: {ids(part['eligible_leader_replicas'])}\tLastKnownElr: {ids(part['last_known_elr'])}"
    )


def reported(report: str, part: Mapping[str, Any], min_isr: int, live: set[int]) -> bool:
    """Whether a partition belongs into a report."""
    isr, leader = len(part["isr_nodes"]), part["leader_id"]
    if report == "under-replicated-partitions":
        return isr < len(part["replica_nodes"])
    if report == "under-min-isr-partitions":
        return leader < 0 or isr < min_isr
    if report == "at-min-isr-partitions":
        return isr == min_isr
    return leader < 0 or leader not in live
