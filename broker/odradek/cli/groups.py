"""`kafka-groups`: lists groups of every type.

Columns and filters are those of Kafka's GroupsCommand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from odradek.cli.options import ToolError, ToolParser, add_bootstrap, program_name, run_tool

TYPES = ("classic", "consumer", "share", "streams")
FILTERS = ("consumer", "group-type", "protocol", "share", "streams")
WIDTH_MIN = 20


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: exit code 0, or 1 with one line that says why."""
    return run_tool(run, argv)


def run(argv: list[str]) -> int:
    """Parse and execute."""
    parser = ToolParser(
        prog=program_name("odradek groups"), description="This tool helps to list groups of all types."
    )
    add_bootstrap(parser)
    parser.add_argument("--list", action="store_true", help="List the groups.")
    parser.add_argument("--group-type", metavar="TYPE", help="Only groups of this type.")
    parser.add_argument("--protocol", help="Only groups of this protocol type.")
    parser.add_argument(
        "--consumer", action="store_true", help="Only groups of consumers: consumer, classic and simple ones."
    )
    parser.add_argument("--share", action="store_true", help="Only share groups.")
    parser.add_argument("--streams", action="store_true", help="Only streams groups.")
    parser.add_version()
    options = parser.parse(argv)
    if not options.list:
        parser.error("Command must include exactly one action: --list.")
    if not options.bootstrap_server:
        parser.error('Missing required argument "[bootstrap-server]"')
    for name in ("consumer", "share", "streams"):
        parser.forbid(options, name, *(other for other in FILTERS if other != name))
    kind = options.group_type and options.group_type.lower()
    if kind and kind not in TYPES:
        raise ToolError(f"--group-type must be a valid group type: {', '.join(TYPES)}.")
    from odradek.cli.admin import connect

    with connect(options.bootstrap_server, options.command_config) as admin:
        groups = [group for group in admin.list_groups() if shown(group, options, kind)]
    print_groups(groups)
    return 0


def shown(group: Mapping[str, Any], options: Any, kind: str | None) -> bool:
    """Whether a group passes the filters."""
    its_type, protocol = str(group.get("group_type") or "").lower(), group["protocol_type"]
    if options.consumer:
        return its_type == "consumer" or (its_type == "classic" and protocol in ("", "consumer"))
    if options.share or options.streams:
        return its_type == ("share" if options.share else "streams")
    return (kind is None or its_type == kind) and (options.protocol is None or protocol == options.protocol)


def print_groups(groups: Sequence[Mapping[str, Any]]) -> None:
    """A table whose columns are all as wide as the widest text."""
    rows = [
        (group["group_id"], str(group.get("group_type") or "").capitalize(), group["protocol_type"])
        for group in groups
    ]
    width = max([WIDTH_MIN, *(len(text) for row in rows for text in row)])
    print(" ".join(name.ljust(width) for name in ("GROUP", "TYPE", "PROTOCOL")))
    for row in rows:
        print("".join(text.ljust(width) + " " for text in row))
