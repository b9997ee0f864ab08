"""`kafka-broker-api-versions`: what each broker speaks, and the version that would be used with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from odradek.cli.options import ToolError, ToolParser, add_bootstrap, program_name, run_tool


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: exit code 0, or 1 with one line that says why."""
    return run_tool(run, argv)


def run(argv: list[str]) -> int:
    """Parse and execute; 1 when a broker could not be asked."""
    parser = ToolParser(
        prog=program_name("odradek broker-api-versions"),
        description="This tool helps to retrieve broker version information.",
    )
    add_bootstrap(parser)
    parser.add_version()
    options = parser.parse(argv)
    parser.require(options, "bootstrap-server")
    from odradek.cli.admin import connect

    code = 0
    with connect(options.bootstrap_server, options.command_config) as admin:
        for broker in sorted(admin.cluster()["brokers"], key=lambda broker: int(broker["broker_id"])):
            try:
                print(f"{node_text(broker)} -> {versions_text(admin.api_versions(broker['broker_id']))}")
            except ToolError as error:
                print(f"{node_text(broker)} -> ERROR: {error}")
                code = 1
    return code


def node_text(broker: Mapping[str, Any]) -> str:
    """Java's text of a node."""
    rack = broker["rack"] or "null"
    fenced = str(bool(broker.get("is_fenced", False))).lower()
    return f"{broker['host']}:{broker['port']} (id: {broker['broker_id']} rack: {rack} isFenced: {fenced})"


def versions_text(ranges: Mapping[int, tuple[int, int]]) -> str:
    """A line per API of Kafka 4.3 that clients may call; what the broker does not list is UNSUPPORTED."""
    from odradek.wire.apis import APIS

    lines = []
    names = {key: api.name for key, api in APIS.items() if "broker" in api.listeners}
    for key in sorted(set(names) | set(ranges)):
        name = names.get(key, "UNKNOWN")
        if key not in ranges:
            lines.append(f"{name}({key}): UNSUPPORTED")
            continue
        low, high = ranges[key]
        span = str(low) if low == high else f"{low} to {high}"
        usable = latest_usable(key, low, high)
        lines.append(
            f"{name}({key}): {span} [{'unusable: UNSUPPORTED' if usable is None else f'usable: {usable}'}]"
        )
    return "(\n\t" + ",\n\t".join(lines) + "\n)"


def latest_usable(key: int, low: int, high: int) -> int | None:
    """The highest version both sides have; None when there is none."""
    from odradek.wire.apis import APIS

    ours = APIS.get(key)
    if ours is None:
        return None
    best = min(high, ours.stable_max_version)
    return best if best >= max(low, ours.min_version) else None
