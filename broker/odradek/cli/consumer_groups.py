"""`kafka-consumer-groups`: list, describe, delete consumer groups; reset and delete their offsets.

Output and sentences are those of Kafka's ConsumerGroupCommand. Where Kafka's tool reports an error and still ends
with 0, this one ends with 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from odradek.cli.options import (
    ToolError,
    ToolParser,
    UsageError,
    add_bootstrap,
    given,
    program_name,
    run_tool,
    warn,
)

if TYPE_CHECKING:
    from odradek.cli.admin import Admin

ACTIONS = ("list", "describe", "delete", "reset-offsets", "delete-offsets", "validate-regex")
SCENARIOS = (
    "to-offset",
    "shift-by",
    "to-datetime",
    "by-duration",
    "to-earliest",
    "to-latest",
    "to-current",
    "from-file",
)

# Options that only mean something beside an action.
SUB_OPTIONS = {
    "members": ("describe",),
    "offsets": ("describe",),
    "verbose": ("describe",),
    "state": ("describe", "list"),
    "type": ("list",),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: exit code 0, or 1 with a sentence that says why."""
    return run_tool(run, argv)


def run(argv: list[str]) -> int:
    """Parse and execute."""
    parser = build_parser()
    options = parser.parse(argv)
    check(parser, options)
    if options.validate_regex is not None:
        return validate_regex(options.validate_regex)
    from odradek.cli import group_describe, group_offsets
    from odradek.cli.admin import ClusterError, connect

    action: Callable[[Admin, argparse.Namespace], int]
    if options.list:
        action = group_describe.list_groups
    elif options.describe:
        action = group_describe.describe
    elif options.delete:
        action = delete
    else:
        action = group_offsets.reset if options.reset_offsets else group_offsets.delete
    with connect(options.bootstrap_server, options.command_config) as admin:
        try:
            return action(admin, options)
        except UsageError:
            raise
        except ClusterError as error:
            raise ToolError(
                f"\nError: Executing consumer group command failed due to {error.java}", to_stdout=True
            ) from error
        except ToolError as error:
            raise ToolError(
                f"\nError: Executing consumer group command failed due to {error}", to_stdout=True
            ) from error


def build_parser() -> ToolParser:
    parser = ToolParser(
        prog=program_name("odradek consumer-groups"),
        description="This tool helps to list all consumer groups, describe a consumer group, delete consumer "
        "group info, or reset consumer group offsets.",
    )
    add_bootstrap(parser)
    _add_actions(parser)
    _add_choices(parser)
    _add_resets(parser)
    parser.add_argument("--timeout", type=int, metavar="MS", help=argparse.SUPPRESS)
    parser.add_argument("--new-consumer", action="store_true", help=argparse.SUPPRESS)
    parser.add_version()
    return parser


def _add_actions(parser: ToolParser) -> None:
    parser.add_argument("--list", action="store_true", help="List all consumer groups.")
    parser.add_argument(
        "--describe", action="store_true", help="Describe a group: offsets and lag, --members, or --state."
    )
    parser.add_argument(
        "--delete", action="store_true", help="Delete groups with their offsets, e.g. --group g1 --group g2."
    )
    parser.add_argument(
        "--reset-offsets",
        action="store_true",
        help="Reset the offsets of an inactive group; --dry-run (the default) or --execute.",
    )
    parser.add_argument(
        "--delete-offsets", action="store_true", help="Delete offsets of one group for topics."
    )
    parser.add_argument("--validate-regex", metavar="REGEX", help="Check that a regular expression is valid.")


def _add_choices(parser: ToolParser) -> None:
    """Of what, and how much of it."""
    parser.add_argument(
        "--group", action="append", default=[], help="The consumer group to act on. Repeatable."
    )
    parser.add_argument("--all-groups", action="store_true", help="Apply to all consumer groups.")
    parser.add_argument(
        "--topic",
        action="append",
        default=[],
        metavar="TOPIC[:N,N]",
        help="Topic, or partitions of it. Repeatable.",
    )
    parser.add_argument(
        "--all-topics", action="store_true", help="All topics that the group has offsets for."
    )
    parser.add_argument("--members", action="store_true", help="With --describe: the members of the group.")
    parser.add_argument(
        "--offsets", action="store_true", help="With --describe: offsets and lag (the default)."
    )
    parser.add_argument(
        "--state",
        nargs="?",
        const="",
        metavar="STATES",
        help="With --describe: the state of the group. With --list: the states, or only groups in these.",
    )
    parser.add_argument(
        "--type",
        nargs="?",
        const="",
        metavar="TYPES",
        help="With --list: the types, or only groups of these.",
    )
    parser.add_argument("--verbose", action="store_true", help="With --describe: more columns.")


def _add_resets(parser: ToolParser) -> None:
    """Where --reset-offsets goes."""
    parser.add_argument("--to-earliest", action="store_true", help="Reset to the earliest offset.")
    parser.add_argument("--to-latest", action="store_true", help="Reset to the latest offset.")
    parser.add_argument("--to-current", action="store_true", help="Reset to the current offset.")
    parser.add_argument("--to-offset", type=int, metavar="N", help="Reset to this offset.")
    parser.add_argument(
        "--shift-by", type=int, metavar="N", help="Move by N records, forward or (negative) back."
    )
    parser.add_argument("--to-datetime", metavar="WHEN", help="Reset to a time, 'YYYY-MM-DDThh:mm:ss.sss'.")
    parser.add_argument(
        "--by-duration", metavar="DURATION", help="Reset to a time so long ago, 'PnDTnHnMnS'."
    )
    parser.add_argument("--from-file", metavar="CSV", help="Reset to the offsets of a CSV file.")
    parser.add_argument("--dry-run", action="store_true", help="Only show what a reset would do.")
    parser.add_argument("--execute", action="store_true", help="Carry the reset out.")
    parser.add_argument("--export", action="store_true", help="Print the offsets of a reset as CSV.")


def check(parser: ToolParser, options: argparse.Namespace) -> None:
    """Which options may meet, as in Kafka."""
    if sum(given(options, action) for action in ACTIONS) != 1:
        parser.error(
            "Command must include exactly one action: " + ", ".join(f"--{action}" for action in ACTIONS)
        )
    if options.validate_regex is None and not options.bootstrap_server:
        parser.error('Missing required argument "[bootstrap-server]"')
    for option, actions in SUB_OPTIONS.items():
        if given(options, option) and not any(given(options, action) for action in actions):
            parser.error(f"Option(s) [{option}] are unavailable given other options on the command line")
    for action in ("describe", "delete", "reset-offsets"):
        if given(options, action) and not options.group and not options.all_groups:
            parser.error(f"Option [{action}] takes one of these options: [group], [all-groups]")
    if options.describe:
        if sum(given(options, name) for name in ("members", "offsets", "state")) > 1:
            parser.error(
                "Option [describe] takes at most one of these options: [members], [offsets], [state]"
            )
        if options.state:
            parser.error("Option [describe] does not take a value for [state]")
    if options.delete and options.topic:
        parser.error("The consumer does not support topic-specific offset deletion from a consumer group.")
    if options.delete_offsets and not (options.group and options.topic):
        parser.error("Option [delete-offsets] takes the following options: [group], [topic]")
    if options.reset_offsets:
        _check_reset(parser, options)
    parser.forbid(options, "group", "all-groups", "list")
    parser.forbid(options, "topic", "list", "describe")


def _check_reset(parser: ToolParser, options: argparse.Namespace) -> None:
    if options.dry_run and options.execute:
        parser.error("Option [reset-offsets] only accepts one of [execute] and [dry-run]")
    for scenario in SCENARIOS:
        parser.forbid(options, scenario, *(other for other in SCENARIOS if other != scenario))
    if not any(given(options, scenario) for scenario in SCENARIOS):
        named = ", ".join(f"[{scenario}]" for scenario in SCENARIOS)
        parser.error(f"Option '[reset-offsets]' requires one of the following scenarios: [{named}]")
    if not (options.all_topics or options.topic or options.from_file):
        parser.error("One of the reset scopes should be defined: --all-topics, --topic.")
    if not options.dry_run and not options.execute:
        warn(
            "WARN: No action will be performed as the --execute option is missing. In version 5.0, this command "
            "will require either --dry-run or --execute to be specified. You should add the --dry-run option "
            "explicitly if you are scripting this command and want to keep the current default behavior without "
            "prompting."
        )


def validate_regex(regex: str) -> int:
    """Say whether members may subscribe to a pattern."""
    from odradek.coordinator.group.consumer.regex import compiled
    from odradek.wire.errors import KafkaError

    try:
        compiled(regex)
    except KafkaError as error:
        reason = (error.message or "").partition("is not a valid regular expression: ")[2]
        print(f"The regular expression `{regex}` is invalid: {reason}")
        return 1
    print(f"The regular expression `{regex}` is valid.")
    return 0


def delete(admin: Admin, options: argparse.Namespace) -> int:
    """Delete groups, each for itself; 1 when one could not be."""
    from odradek.cli.admin import ClusterError
    from odradek.cli.group_describe import consumer_groups

    groups = (
        [group["group_id"] for group in consumer_groups(admin)] if options.all_groups else list(options.group)
    )
    failed: dict[str, ClusterError] = {}
    for group in groups:
        try:
            admin.delete_group(group)
        except ClusterError as error:
            failed[group] = error
    deleted = ", ".join(f"'{group}'" for group in groups if group not in failed)
    if not failed:
        print(f"Deletion of requested consumer groups ({deleted}) was successful.")
        return 0
    print("\nError: Deletion of some consumer groups failed:")
    for group, refusal in failed.items():
        print(f"* Group '{group}' could not be deleted due to: {refusal.java}")
    if deleted:
        print(f"\nThese consumer groups were deleted successfully: {deleted}")
    return 1
