"""`kafka-log-dirs`: the log directories of brokers and what lies in them, as the JSON of Kafka's tool."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from odradek.cli.options import ToolError, ToolParser, program_name, run_tool


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: exit code 0, or 1 with one line that says why."""
    return run_tool(run, argv)


def run(argv: list[str]) -> int:
    """Parse and execute."""
    parser = build_parser()
    options = parser.parse(argv)
    parser.require(options, "bootstrap-server", "describe")
    topics = {name for name in options.topic_list.split(",") if name}
    wanted = broker_ids(options.broker_list)
    from kafka.protocol.admin import DescribeLogDirsRequest

    from odradek.cli.admin import connect

    with connect(options.bootstrap_server, options.command_config, "log-dirs-tool") as admin:
        there = admin.broker_ids()
        unknown = sorted(wanted - set(there))
        if unknown:
            raise ToolError(
                f"ERROR: The given brokers do not exist from --broker-list: {_joined(unknown)}. "
                f"Current existent brokers: {_joined(there)}"
            )
        asked = sorted(wanted) or there
        print("Querying brokers for log directories information", flush=True)
        answers = {
            broker: admin.send(DescribeLogDirsRequest(topics=None), broker).to_dict() for broker in asked
        }
    brokers = [{"broker": broker, "logDirs": directories(answers[broker], topics)} for broker in asked]
    print(f"Received log directory information from brokers {_joined(asked)}")
    print(json.dumps({"brokers": brokers, "version": 1}, separators=(",", ":")))
    return 0


def build_parser() -> ToolParser:
    parser = ToolParser(
        prog=program_name("odradek log-dirs"),
        description="This tool helps to query log directory usage on the specified brokers.",
    )
    parser.add_argument(
        "--bootstrap-server", metavar="HOST:PORT", help="REQUIRED: The server(s) to connect to."
    )
    parser.add_argument(
        "--command-config",
        metavar="FILE",
        help="Property file containing configs to be passed to Admin Client.",
    )
    parser.add_argument("--describe", action="store_true", help="REQUIRED: Describe the log directories.")
    parser.add_argument(
        "--topic-list", default="", metavar="A,B", help="Only replicas of these topics; without it, of all."
    )
    parser.add_argument(
        "--broker-list", default="", metavar="0,1", help="Only these brokers; without it, all of the cluster."
    )
    parser.add_version()
    return parser


def broker_ids(text: str) -> set[int]:
    """`0,1,2` as numbers; empty for none. ToolError for what is no number."""
    parts = [part for part in text.split(",") if part]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ToolError(f"--broker-list: '{text}' is no list of broker ids like 0,1,2")
    return set(map(int, parts))


def directories(answer: Mapping[str, Any], topics: set[str]) -> list[dict[str, Any]]:
    """The directories of one broker; with `topics`, only the replicas of those."""
    from odradek.cli.admin import ClusterError

    if answer.get("error_code"):
        raise ClusterError(answer["error_code"], None)
    found = []
    for result in answer["results"]:
        code = result["error_code"]
        replicas = [
            {
                "partition": f"{topic['name']}-{each['partition_index']}",
                "size": each["partition_size"],
                "offsetLag": each["offset_lag"],
                "isFuture": each["is_future_key"],
            }
            for topic in sorted(result["topics"], key=lambda topic: str(topic["name"]))
            if not topics or topic["name"] in topics
            for each in sorted(topic["partitions"], key=lambda each: int(each["partition_index"]))
        ]
        error = ClusterError(code, None).java.partition(":")[0] if code else None
        found.append({"partitions": replicas, "error": error, "logDir": result["log_dir"]})
    return found


def _joined(brokers: Sequence[int]) -> str:
    return ",".join(map(str, brokers))
