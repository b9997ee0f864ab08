"""The reading half of `kafka-consumer-groups`: `--list` and `--describe`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from odradek.cli.admin import Admin, Committed, TopicPartition
from odradek.cli.options import ToolError, UsageError, warn
from odradek.cli.tables import print_table

STATES = ("PreparingRebalance", "CompletingRebalance", "Stable", "Dead", "Empty", "Assigning", "Reconciling")
TYPES = ("Classic", "Consumer")
NONE = "-"  # what an absent value looks like


# --- list ------------------------------------------------------------------------------------------------------------


def consumer_groups(
    admin: Admin, states: Sequence[str] = (), types: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Groups of consumers (or only with offsets), not those of Connect, Streams or share consumers."""
    groups = admin.list_groups(states, types)
    return [
        group
        for group in groups
        if group["protocol_type"] in ("", "consumer")
        and group.get("group_type", "").lower() not in ("share", "streams")
    ]


def list_groups(admin: Admin, options: argparse.Namespace) -> int:
    """`--list`: names, one per line; with --state or --type a table."""
    states, types = chosen(options.state, STATES, "state"), chosen(options.type, TYPES, "type")
    groups = consumer_groups(admin, states, types)
    if options.state is None and options.type is None:
        for group in groups:
            print(group["group_id"])
        return 0
    width = max((max(15, len(group["group_id"])) for group in groups), default=15) + 10
    columns: list[tuple[str, Callable[[dict[str, Any]], str]]] = []
    if options.type is not None:
        columns.append(("TYPE", lambda group: str(group.get("group_type") or "Unknown").capitalize()))
    if options.state is not None:
        columns.append(("STATE", lambda group: str(group.get("group_state") or "Unknown")))
    print("GROUP".ljust(width) + "".join(" " + name.ljust(20) for name, _ in columns))
    for group in groups:
        print(group["group_id"].ljust(width) + "".join(" " + of(group).ljust(20) for _, of in columns))
    return 0


def chosen(value: str | None, known: Sequence[str], what: str) -> list[str]:
    """The states or types of a filter, however they are capitalised."""
    if not value:
        return []
    by_name = {name.lower().replace("_", ""): name for name in known}
    names = [part.strip().lower().replace("-", "").replace("_", "") for part in value.split(",")]
    if any(name not in by_name for name in names):
        plural = f"{what}s"
        raise UsageError(
            f"Invalid {what if what == 'state' else plural} list '{value}'. Valid {plural} are: {', '.join(known)}"
        )
    return [by_name[name] for name in names]


# --- describe --------------------------------------------------------------------------------------------------------


def describe(admin: Admin, options: argparse.Namespace) -> int:
    """`--describe`: offsets, members or state of each group."""
    groups = [group["group_id"] for group in consumer_groups(admin)] if options.all_groups else options.group
    described = {group: admin.describe_group(group) for group in sorted(set(groups))}
    show = members if options.members else state if options.state is not None else offsets
    for description in described.values():
        show(admin, description, options.verbose)
    return 0


def worth_showing(description: Mapping[str, Any], rows: int) -> bool:
    """Say what is special about the group's state; whether a table follows."""
    group, group_state = description["group_id"], description["group_state"]
    if group_state == "Empty":
        warn(f"\nConsumer group '{group}' has no active members.")
    elif group_state in ("PreparingRebalance", "CompletingRebalance", "Assigning", "Reconciling"):
        warn(f"\nWarning: Consumer group '{group}' is rebalancing.")
    elif group_state != "Stable":
        raise ToolError(f"Expected a valid consumer group state, but found '{group_state}'.")
    return rows > 0


def offsets(admin: Admin, description: Mapping[str, Any], verbose: bool) -> None:
    """The table of offsets and lag: partitions of members first, the largest share first, then those of nobody."""
    committed = admin.committed(description["group_id"])
    shares = [(assignment(member), member) for member in description["members"]]
    shares = sorted((share for share in shares if share[0]), key=lambda share: -len(share[0]))
    assigned = {part for parts, _ in shares for part in parts}
    orphans = [part for part in committed if part not in assigned]
    ends = end_offsets(admin, [*assigned, *orphans])
    rows: list[list[str]] = []
    for parts, member in shares:
        owner = (member["member_id"], member["client_host"], member["client_id"])
        rows += [
            offset_row(description["group_id"], part, committed, ends, owner, verbose)
            for part in sorted(parts)
        ]
    rows += [
        offset_row(description["group_id"], part, committed, ends, (NONE,) * 3, verbose)
        for part in sorted(orphans)
    ]
    if not worth_showing(description, len(rows)):
        return
    headers = [
        "GROUP",
        "TOPIC",
        "PARTITION",
        "CURRENT-OFFSET",
        "LOG-END-OFFSET",
        "LAG",
        "CONSUMER-ID",
        "HOST",
        "CLIENT-ID",
    ]
    widths = [15, 15, 10, 15, 15, 15, 15, 15, 0]
    if verbose:
        headers.insert(3, "LEADER-EPOCH")
        widths.insert(3, 15)
    print_table(headers, rows, widths, emphasis="LAG")


def offset_row(
    group: str,
    part: TopicPartition,
    committed: Mapping[TopicPartition, Committed],
    ends: Mapping[TopicPartition, int],
    owner: tuple[str, str, str],
    verbose: bool,
) -> list[str]:
    """One partition of the table."""
    entry, end = committed.get(part), ends.get(part)
    lag = NONE if entry is None or end is None else str(end - entry.offset)
    row = [group, part.topic, str(part.partition), text(entry and entry.offset), text(end), lag, *owner]
    if verbose:
        row.insert(3, text(entry and entry.leader_epoch))
    return row


def end_offsets(admin: Admin, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """End offsets of the partitions that still exist and have a leader."""
    topics = set(admin.topic_names())
    found, _ = admin.list_offsets([part for part in partitions if part.topic in topics], -1)
    return found


def members(admin: Admin, description: Mapping[str, Any], verbose: bool) -> None:
    """The table of members."""
    group = description["group_id"]
    rows = []
    static = any(member.get("group_instance_id") for member in description["members"])
    migrating = {member.get("member_type") for member in description["members"]} >= {0, 1}
    for member in description["members"]:
        parts = assignment(member)
        row = [group, member["member_id"], member["client_host"], member["client_id"], str(len(parts))]
        if static:
            row.insert(2, member.get("group_instance_id") or "")
        if verbose:
            target = assignment_text(assignment(member, "target"))
            epochs = text(member.get("member_epoch")), text(member.get("target_epoch"))
            row += [epochs[0], assignment_text(parts) or NONE, epochs[1], target or NONE]
            if migrating:
                row.append("true" if member["member_type"] == 1 else "false")
        rows.append(row)
    if not worth_showing(description, 1):
        return
    headers, widths = ["GROUP", "CONSUMER-ID", "HOST", "CLIENT-ID", "#PARTITIONS"], [15, 15, 15, 15, 15]
    if static:
        headers.insert(2, "GROUP-INSTANCE-ID")
        widths.insert(2, 17)
    if verbose:
        headers += ["CURRENT-EPOCH", "CURRENT-ASSIGNMENT", "TARGET-EPOCH", "TARGET-ASSIGNMENT"]
        widths += [15, 20, 15, 20]
        if migrating:
            headers.append("UPGRADED")
            widths.append(0)
    else:
        headers, rows, widths = [*headers, ""], [[*row, ""] for row in rows], [*widths, 0]
    print_table(headers, rows, widths)


def state(admin: Admin, description: Mapping[str, Any], verbose: bool) -> None:
    """The one-line table of the group's state."""
    if not worth_showing(description, 1):
        return
    node = description["coordinator"]
    row = [
        description["group_id"],
        f"{node['host']}:{node['port']}  ({node['node_id']})",
        description["protocol_data"] or NONE,
        description["group_state"],
        str(len(description["members"])),
    ]
    headers, widths = (
        ["GROUP", "COORDINATOR (ID)", "ASSIGNMENT-STRATEGY", "STATE", "#MEMBERS"],
        [15, 25, 20, 20, 0],
    )
    if verbose:
        headers[4:4], widths[4:4], row[4:4] = (
            ["GROUP-EPOCH", "TARGET-ASSIGNMENT-EPOCH"],
            [15, 25],
            [text(description.get("group_epoch")), text(description.get("assignment_epoch"))],
        )
    print_table(headers, [row], widths)


def assignment(member: Mapping[str, Any], which: str = "member_assignment") -> list[TopicPartition]:
    """Partitions of a member; none while its (classic) group is rebalancing."""
    assigned = member.get(which)
    if not isinstance(assigned, dict):
        return []
    return [
        TopicPartition(entry["topic"], part)
        for entry in assigned["assigned_partitions"]
        for part in entry["partitions"]
    ]


def assignment_text(parts: Sequence[TopicPartition]) -> str:
    """`orders:0,1;users:2`."""
    topics: dict[str, list[int]] = {}
    for part in parts:
        topics.setdefault(part.topic, []).append(part.partition)
    return ";".join(
        sorted(f"{topic}:{','.join(map(str, sorted(numbers)))}" for topic, numbers in topics.items())
    )


def text(value: int | None) -> str:
    """A number, or the sign of absence."""
    return NONE if value is None else str(value)
