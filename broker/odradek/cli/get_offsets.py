"""`kafka-get-offsets`: `topic:partition:offset` lines, by position or by time (Kafka's GetOffsetShell)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from odradek.cli.options import ToolError, ToolParser, UsageError, add_bootstrap, program_name, run_tool, warn
from odradek.cli.topics import INTERNAL, include_pattern

POSITIONS = {
    "latest": -1,
    "earliest": -2,
    "max-timestamp": -3,
    "earliest-local": -4,
    "latest-tiered": -5,
    "earliest-pending-upload": -6,
}
RULE = re.compile(r"([^:,]*)(?::(?:([0-9]*)|(?:([0-9]*)-([0-9]*))))?")

Filter = Callable[[str, int], bool]


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: exit code 0, or 1 with one line that says why."""
    return run_tool(run, argv)


def run(argv: list[str]) -> int:
    """Parse and execute."""
    parser = build_parser()
    options = parser.parse(argv)
    if not options.bootstrap_server:
        parser.error('Missing required argument "[bootstrap-server]"')
    from odradek.cli.admin import TopicPartition, connect

    try:
        if options.topic_partitions and (options.topic or options.partitions):
            raise ToolError("--topic-partitions cannot be used with --topic or --partitions")
        timestamp = parse_time(options.time)
        wanted = (
            by_rules(options.topic_partitions)
            if options.topic_partitions
            else by_topic(options.topic, options.partitions)
        )
        with connect(options.bootstrap_server, options.command_config, "GetOffsetShell") as admin:
            names = [
                name
                for name in admin.topic_names()
                if not (options.exclude_internal_topics and name in INTERNAL)
            ]
            parts = [
                TopicPartition(name, part["partition_index"])
                for name, entries in admin.partitions(names).items()
                for part in entries
                if wanted(name, part["partition_index"])
            ]
            if not parts:
                raise ToolError("Could not match any topic-partitions with the specified filters")
            found, failed = admin.list_offsets(parts, timestamp)
    except UsageError:
        raise
    except ToolError as error:
        raise ToolError(f"Error occurred: {error}") from error
    for part, failure in failed.items():
        warn(f"Skip getting offsets for topic-partition {part} due to error: {failure.java}")
    for part in sorted(found):
        if found[part] >= 0:
            print(f"{part.topic}:{part.partition}:{found[part]}")
    return 1 if failed else 0


def build_parser() -> ToolParser:
    parser = ToolParser(
        prog=program_name("odradek get-offsets"),
        description="An interactive shell for getting topic-partition offsets.",
    )
    add_bootstrap(parser)
    parser.add_argument("--topic", help="The topic, or a regular expression of topics; all without it.")
    parser.add_argument("--partitions", metavar="N,N", help="Partition ids; all without it.")
    parser.add_argument(
        "--topic-partitions",
        metavar="RULES",
        help="topic1:1,topic2:0-3,topic3,topic4:5-,topic5:-3 (upper ends are not included).",
    )
    parser.add_argument(
        "--time",
        default="latest",
        help="A timestamp in ms, -1 or latest, -2 or earliest, -3 or max-timestamp (default: latest).",
    )
    parser.add_argument("--exclude-internal-topics", action="store_true", help="Leave internal topics out.")
    parser.add_version()
    return parser


def parse_time(text: str) -> int:
    """A position's number, or the timestamp itself."""
    if text in POSITIONS:
        return POSITIONS[text]
    try:
        return int(text)
    except ValueError:
        raise ToolError(
            f"Malformed time argument {text}. Please use -1 or latest / -2 or earliest / -3 or max-timestamp / "
            "-4 or earliest-local / -5 or latest-tiered / -6 or earliest-pending-upload, or a specified long "
            "format timestamp"
        ) from None


def by_topic(topic: str | None, partitions: str | None) -> Filter:
    """One pattern of topics, and a set of partitions."""
    pattern = include_pattern(topic or ".*")
    if partitions and re.fullmatch(r"[0-9]+(,[0-9]+)*", partitions) is None:
        raise ToolError(
            f"--partitions expects a comma separated list of numeric partition ids, but received: {partitions}"
        )
    ids = {int(part) for part in partitions.split(",")} if partitions else None
    return lambda name, partition: pattern.fullmatch(name) is not None and (ids is None or partition in ids)


def by_rules(text: str) -> Filter:
    """Any of several rules."""
    rules = [parse_rule(rule) for rule in text.split(",")]
    return lambda name, partition: any(rule(name, partition) for rule in rules)


def parse_rule(text: str) -> Filter:
    """`pattern:partition`, `pattern:from-to`, either part may be missing."""
    match = RULE.fullmatch(text)
    if match is None:
        raise ToolError(f"Invalid rule specification: {text}")
    topic, one, low, high = match.groups()
    pattern = include_pattern(topic or ".*")
    if one:
        return lambda name, partition: pattern.fullmatch(name) is not None and partition == int(one)
    first, end = int(low or 0), int(high or 2**31 - 1)
    return lambda name, partition: pattern.fullmatch(name) is not None and first <= partition < end
