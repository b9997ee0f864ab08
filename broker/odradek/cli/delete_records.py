"""`kafka-delete-records`: delete what lies below an offset, for the partitions named in a JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from odradek.cli.options import ToolError, ToolParser, add_bootstrap, program_name, run_tool
from odradek.wire.errors import ErrorCode


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: exit code 0, or 1 with one line that says why."""
    return run_tool(run, argv)


def run(argv: list[str]) -> int:
    """Parse and execute; 1 when a partition failed."""
    parser = build_parser()
    options = parser.parse(argv)
    parser.require(options, "bootstrap-server", "offset-json-file")
    wanted = read_offsets(options.offset_json_file)
    from odradek.cli.admin import ClusterError, TopicPartition, connect

    with connect(options.bootstrap_server, options.command_config) as admin:
        print("Executing records delete operation", flush=True)
        existing = set(admin.topic_names())
        known = {TopicPartition(*part): offset for part, offset in wanted.items() if part[0] in existing}
        found, failed = admin.delete_records(known)
        print("Records delete operation completed:")
        for part in sorted(TopicPartition(*part) for part in wanted):
            if part in found:
                print(f"partition: {part}\tlow_watermark: {found[part]}")
                continue
            error = failed.get(part) or ClusterError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, None)
            print(f"partition: {part}\terror: {error.java}")
    return 0 if len(found) == len(wanted) else 1


def build_parser() -> ToolParser:
    parser = ToolParser(
        prog=program_name("odradek delete-records"),
        description="This tool helps to delete records of the given partitions down to the specified offset.",
    )
    add_bootstrap(parser)
    parser.add_argument(
        "--offset-json-file", metavar="FILE",
        help='REQUIRED: {"partitions": [{"topic": "foo", "partition": 1, "offset": 1}], "version": 1}; '
        "offset -1 deletes all.",
    )  # fmt: skip
    parser.add_version()
    return parser


def read_offsets(path: str) -> dict[tuple[str, int], int]:
    """Offsets by (topic, partition); ToolError naming what is wrong in the file."""
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    except OSError as error:
        raise ToolError(f"Unable to read file {path}: {error.strerror}") from error
    except ValueError as error:
        raise ToolError(f"The input string is not a valid JSON ({path}: {error})") from error
    if not isinstance(data, dict) or not isinstance(data.get("partitions"), list):
        raise ToolError("Missing partitions field")
    if data.get("version", 1) != 1:
        raise ToolError(f"Not supported version field value {data['version']}")
    offsets: dict[tuple[str, int], int] = {}
    repeated = []
    for entry in data["partitions"]:
        topic, partition, offset = (
            _field(entry, name, kind) for name, kind in (("topic", str), ("partition", int), ("offset", int))
        )
        if (topic, partition) in offsets:
            repeated.append(f"{topic}-{partition}")
        offsets[topic, partition] = offset
    if repeated:
        raise ToolError(f"Offset json file contains duplicate topic partitions: {','.join(repeated)}")
    return offsets


def _field(entry: Mapping[str, Any], name: str, kind: type) -> Any:
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        what = "text" if kind is str else "a number"
        raise ToolError(f'Each entry of partitions needs a "{name}" that is {what}, not {json.dumps(entry)}')
    return value
