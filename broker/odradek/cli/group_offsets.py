"""The writing half of `kafka-consumer-groups`: `--reset-offsets` and `--delete-offsets`."""

from __future__ import annotations

import argparse
import csv
import re
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime

from odradek.cli.admin import Admin, ClusterError, TopicPartition
from odradek.cli.group_describe import consumer_groups
from odradek.cli.options import ToolError, UsageError, warn
from odradek.cli.tables import print_table
from odradek.wire.errors import ErrorCode

Plan = dict[TopicPartition, int]

EARLIEST, LATEST = -2, -1  # timestamps that ListOffsets takes for positions


# --- reset -----------------------------------------------------------------------------------------------------------


def reset(admin: Admin, options: argparse.Namespace) -> int:
    """Plan for each group, carry it out with --execute, and print it as a table or (--export) as CSV."""
    groups = [group["group_id"] for group in consumer_groups(admin)] if options.all_groups else options.group
    plans: dict[str, Plan] = {}
    code = 0
    for group in groups:
        busy = active_state(admin, group)
        if busy:
            print(
                f"\nError: Assignments can only be reset if the group '{group}' is inactive, but the current state "
                f"is {busy}."
            )
            plans[group], code = {}, 1
            continue
        plans[group] = plan(admin, group, options)
        if options.execute and plans[group]:
            admin.commit(group, plans[group])
    if options.export:
        export(plans, with_group=len(options.group) != 1)
    else:
        show(plans)
    return code


def active_state(admin: Admin, group: str) -> str | None:
    """The state of a group that has members; None for one that may be reset, or is not there yet."""
    try:
        state = str(admin.describe_group(group)["group_state"])
    except ClusterError as error:
        if error.code == ErrorCode.GROUP_ID_NOT_FOUND:
            return None
        raise
    return None if state in ("Empty", "Dead") else state


def plan(admin: Admin, group: str, options: argparse.Namespace) -> Plan:
    """New offsets by partition."""
    parts = scope(admin, group, options)
    check_partitions(admin, parts)
    if options.to_offset is not None:
        return within_log(admin, dict.fromkeys(parts, options.to_offset))
    if options.to_earliest:
        return positions(admin, parts, EARLIEST)
    if options.to_latest:
        return positions(admin, parts, LATEST)
    if options.to_datetime is not None:
        return at_time(admin, parts, parse_datetime(options.to_datetime))
    if options.by_duration is not None:
        return at_time(admin, parts, int(time.time() * 1000) - parse_duration(options.by_duration))
    if options.from_file is not None:
        return from_file(admin, group, options)
    committed = {part: entry.offset for part, entry in admin.committed(group).items()}
    if options.shift_by is not None:
        missing = [part for part in parts if part not in committed]
        if missing:
            raise UsageError(
                f"Cannot shift offset for partition {missing[0]} since there is no current committed offset"
            )
        return within_log(admin, {part: committed[part] + options.shift_by for part in parts})
    fresh = positions(admin, [part for part in parts if part not in committed], LATEST)
    return {part: committed[part] if part in committed else fresh[part] for part in parts}


def scope(admin: Admin, group: str, options: argparse.Namespace) -> list[TopicPartition]:
    """The partitions that are meant, sorted."""
    if options.all_topics:
        return sorted(admin.committed(group))
    return parse_topics(admin, options.topic)


def parse_topics(admin: Admin, arguments: Sequence[str]) -> list[TopicPartition]:
    """`topic` means all its partitions, `topic:0,2` those."""
    parts = []
    for argument in arguments:
        topic, colon, numbers = argument.partition(":")
        if not colon:
            parts += [
                TopicPartition(topic, part["partition_index"]) for part in admin.partitions([topic])[topic]
            ]
            continue
        if not topic or not numbers or ":" in numbers:
            raise UsageError(f"Invalid topic arg '{argument}', expected topic name and partitions")
        for number in numbers.split(","):
            if not number.isdigit():
                raise UsageError(f"Invalid partition '{number}' specified in topic arg '{argument}'")
            parts.append(TopicPartition(topic, int(number)))
    return sorted(set(parts))


def check_partitions(admin: Admin, parts: Sequence[TopicPartition]) -> None:
    """Each must exist and have a leader."""
    existing = {
        (topic, part["partition_index"]): part["leader_id"]
        for topic, topic_parts in admin.partitions(part.topic for part in parts).items()
        for part in topic_parts
    }
    unknown = [part for part in parts if part not in existing]
    if unknown:
        raise ClusterError(
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            f'The partitions "{",".join(map(str, unknown))}" do not exist',
        )
    leaderless = [part for part in parts if existing[part] < 0]
    if leaderless:
        raise ClusterError(
            ErrorCode.LEADER_NOT_AVAILABLE,
            f'The partitions "{",".join(map(str, leaderless))}" have no leader',
        )


def positions(admin: Admin, parts: Sequence[TopicPartition], timestamp: int) -> Plan:
    """Offsets by ListOffsets; the first failure is raised."""
    found, failed = admin.list_offsets(parts, timestamp)
    for error in failed.values():
        raise error
    return found


def within_log(admin: Admin, wanted: Mapping[TopicPartition, int]) -> Plan:
    """The offsets, moved to the nearest end of the log where they lie outside it, with a warning."""
    starts, ends = positions(admin, list(wanted), EARLIEST), positions(admin, list(wanted), LATEST)
    moved = {}
    for part, offset in wanted.items():
        moved[part] = max(min(offset, ends[part]), starts[part])
        if moved[part] != offset:
            bound = "higher than latest" if offset > ends[part] else "lower than earliest"
            warn(
                f"WARN New offset ({offset}) is {bound} offset for topic partition {part}. "
                f"Value will be set to {moved[part]}"
            )
    return moved


def at_time(admin: Admin, parts: Sequence[TopicPartition], timestamp: int) -> Plan:
    """The first offset at or after a time; the end of the log where there is none."""
    found = positions(admin, parts, timestamp)
    without = [part for part in parts if found[part] < 0]
    for part in without:
        print(
            f"\nWarn: Partition {part.partition} from topic {part.topic} is empty. Falling back to latest known offset."
        )
    return {**found, **positions(admin, without, LATEST)}


def from_file(admin: Admin, group: str, options: argparse.Namespace) -> Plan:
    """The plan that an earlier `--export` printed: topic,partition,offset or group,topic,partition,offset."""
    only = options.group[0] if len(options.group) == 1 else None
    wanted: dict[str, Plan] = {}
    try:
        with open(options.from_file, newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.reader(file), 1):
                if row:
                    name, part, offset = _plan_row(row, only, f"{options.from_file}, line {number}")
                    wanted.setdefault(name, {})[part] = offset
    except OSError as error:
        raise ToolError(f"Unable to read file {options.from_file}: {error.strerror}") from error
    if group not in wanted:
        print(f"\nError: No reset plan for group {group} found")
        return {}
    check_partitions(admin, list(wanted[group]))
    return within_log(admin, wanted[group])


def _plan_row(row: Sequence[str], only: str | None, where: str) -> tuple[str, TopicPartition, int]:
    """One line of a plan; `only` is the group of lines that name none."""
    if len(row) not in (3, 4) or not row[-1].isdigit() or not row[-2].isdigit():
        raise ToolError(f"{where}: expected topic,partition,offset or group,topic,partition,offset")
    group = row[0] if len(row) == 4 else only
    if group is None:
        raise ToolError(f"{where}: several groups need the form group,topic,partition,offset")
    return group, TopicPartition(row[-3], int(row[-2])), int(row[-1])


_DATETIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?(Z|[+-]\d{2}:?\d{2})?")


def parse_datetime(text: str) -> int:
    """Milliseconds since the epoch of `YYYY-MM-DDThh:mm:ss.sss`, UTC unless it says `Z`, `+hh:mm`."""
    if "T" not in text:
        raise ToolError(
            "java.text.ParseException: Error parsing timestamp. It does not contain a 'T' according to ISO8601 format"
        )
    if _DATETIME.fullmatch(text) is None:
        raise ToolError(f'java.text.ParseException: Unparseable date: "{text}"')
    zoned = text if re.search(r"(Z|[+-]\d{2}:?\d{2})$", text) else text + "+00:00"
    try:
        return int(datetime.fromisoformat(zoned).timestamp() * 1000)
    except ValueError:
        raise ToolError(f'java.text.ParseException: Unparseable date: "{text}"') from None


_DURATION = re.compile(
    r"(?P<sign>[-+])?P(?:(?P<days>[-+]?\d+)D)?"
    r"(?:T(?:(?P<hours>[-+]?\d+)H)?(?:(?P<minutes>[-+]?\d+)M)?(?:(?P<seconds>[-+]?\d+(?:[.,]\d{0,9})?)S)?)?",
    re.IGNORECASE,
)


def parse_duration(text: str) -> int:
    """Milliseconds of an ISO 8601 duration of days and smaller, as java.time.Duration reads it."""
    match = _DURATION.fullmatch(text)
    if match is None or text.upper().endswith(("P", "T")):
        raise ToolError("Text cannot be parsed to a Duration")
    days, hours, minutes = (int(match[unit] or 0) for unit in ("days", "hours", "minutes"))
    seconds = float((match["seconds"] or "0").replace(",", "."))
    total = round((((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000)
    return -total if match["sign"] == "-" else total


def show(plans: Mapping[str, Plan]) -> None:
    """Kafka's table of new offsets."""
    rows = [
        [group, part.topic, str(part.partition), str(offset)]
        for group, moves in plans.items()
        for part, offset in sorted(moves.items())
    ]
    if plans:
        print_table(["GROUP", "TOPIC", "PARTITION", "NEW-OFFSET"], rows, [15, 15, 10, 0])


def export(plans: Mapping[str, Plan], *, with_group: bool) -> None:
    """The same as CSV, for `--from-file`."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for group, moves in plans.items():
        for part, offset in sorted(moves.items()):
            writer.writerow([*([group] if with_group else []), part.topic, part.partition, offset])
    print()


# --- delete ----------------------------------------------------------------------------------------------------------


def delete(admin: Admin, options: argparse.Namespace) -> int:
    """Delete offsets of one group; a table with the fate of each partition. 1 when one failed."""
    group = options.group[-1]
    results: dict[TopicPartition, ClusterError | None] = {}
    parts: list[TopicPartition] = []
    for argument in options.topic:
        try:
            parts += parse_topics(admin, [argument])
        except ClusterError as error:
            results[TopicPartition(argument, -1)] = error
    whole, codes = request_deletion(admin, group, parts)
    for part in parts:
        code = whole or codes.get(part, 0)
        results[part] = ClusterError(code, None) if code else None
    if whole:
        print(f"\nError: {ClusterError(whole, None)}")
    elif any(codes.values()):
        print("\nError: Encountered some partition-level error, see the follow-up details.")
    else:
        print(f"Request succeeded for deleting offsets from group {group}.")
    width = max([15, *(len(part.topic) for part in results)])
    print("\n" + f"{'TOPIC':<{width}} {'PARTITION':<10} {'STATUS':<15}", end="")
    for part, refusal in sorted(results.items()):
        number = str(part.partition) if part.partition >= 0 else "-"
        status = f"Error: {refusal.java}" if refusal else "Successful"
        print("\n" + f"{part.topic:<{width}} {number:<10} {status:<15}", end="")
    print()
    return 1 if any(results.values()) else 0


def request_deletion(
    admin: Admin, group: str, parts: Sequence[TopicPartition]
) -> tuple[int, dict[TopicPartition, int]]:
    """Error codes of the request and of its partitions."""
    return admin.delete_offsets(group, parts) if parts else (0, {})
