"""`kafka-configs`: describe and alter configurations of topics, brokers, groups and client metrics.

Output and sentences are those of Kafka's ConfigCommand. Quotas and SCRAM credentials (users, clients, ips) are named
in the options, so that the answer to them is a sentence and not "not recognized".
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from odradek.cli.options import ToolError, ToolParser, add_bootstrap, given, program_name, run_tool
from odradek.cli.properties import load_properties

if TYPE_CHECKING:
    from odradek.cli.admin import Admin

# entity type → (type of config resource on the wire, source of its dynamic configs); None: all sources
RESOURCES: dict[str, tuple[int, int | None]] = {
    "topics": (2, 1),
    "brokers": (4, 2),
    "broker-loggers": (8, None),
    "client-metrics": (16, 7),
    "groups": (32, 8),
}
DYNAMIC_DEFAULT_BROKER = 3
UNSERVED = ("clients", "users", "ips")
ENTITY_TYPES = ("topics", "clients", "users", "brokers", "ips", "client-metrics", "groups", "broker-loggers")
SOURCES = (
    "UNKNOWN", "DYNAMIC_TOPIC_CONFIG", "DYNAMIC_BROKER_CONFIG", "DYNAMIC_DEFAULT_BROKER_CONFIG", "STATIC_BROKER_CONFIG",
    "DEFAULT_CONFIG", "DYNAMIC_BROKER_LOGGER_CONFIG", "DYNAMIC_CLIENT_METRICS_CONFIG", "DYNAMIC_GROUP_CONFIG",
)  # fmt: skip
# Options that are an entity type and a name at once, and those that name its default.
ENTITY_FLAGS = {
    "topic": "topics", "client": "clients", "user": "users", "broker": "brokers", "broker-logger": "broker-loggers",
    "ip": "ips", "client-metrics": "client-metrics", "group": "groups",
}  # fmt: skip
DEFAULT_FLAGS = {
    "client-defaults": "clients",
    "user-defaults": "users",
    "broker-defaults": "brokers",
    "ip-defaults": "ips",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: exit code 0, or 1 with one line that says why."""
    return run_tool(run, argv)


def run(argv: list[str]) -> int:
    """Parse and execute."""
    parser = build_parser()
    options = parser.parse(argv)
    kind, names = check(parser, options)
    from odradek.cli.admin import ClusterError, connect

    with connect(options.bootstrap_server, options.command_config) as admin:
        try:
            if options.alter:
                alter(admin, kind, names[0], options)
            else:
                describe(admin, kind, names, options)
        except ClusterError as error:
            raise ToolError(
                f"Error while executing config command with args '{' '.join(argv)}': {error.java}"
            ) from error
    return 0


def build_parser() -> ToolParser:
    parser = ToolParser(
        prog=program_name("odradek configs"),
        description="This tool helps to manipulate and describe entity config for a topic, client, user, broker, "
        "ip, client-metrics or group",
    )
    add_bootstrap(parser)
    parser.add_argument("--bootstrap-controller", help=argparse.SUPPRESS)
    parser.add_argument("--describe", action="store_true", help="List configs for the given entity.")
    parser.add_argument("--alter", action="store_true", help="Alter the configuration for the entity.")
    parser.add_argument(
        "--all", action="store_true", help="List all configs, including static and default ones."
    )
    parser.add_argument(
        "--entity-type",
        action="append",
        default=[],
        metavar="TYPE",
        help="One of " + ", ".join(ENTITY_TYPES) + ".",
    )
    parser.add_argument(
        "--entity-name",
        dest="entity_name",
        action="append",
        default=[],
        metavar="NAME",
        help="Name of the entity.",
    )
    parser.add_argument(
        "--entity-default",
        dest="entity_name",
        action="append_const",
        const="",
        help="The default of all entities of the type.",
    )
    parser.add_argument(
        "--add-config",
        metavar="K=V,K=[V,V]",
        help="Configs to set. Square brackets group values which contain commas.",
    )
    parser.add_argument("--add-config-file", metavar="FILE", help="A properties file with configs to set.")
    parser.add_argument("--delete-config", metavar="K,K", help="Configs to return to their defaults.")
    parser.add_argument("--topic", help="The topic's name.")
    parser.add_argument("--broker", metavar="ID", help="The broker's ID.")
    parser.add_argument("--broker-defaults", action="store_true", help="The config defaults for all brokers.")
    parser.add_argument("--broker-logger", metavar="ID", help="The broker's ID for its logger config.")
    parser.add_argument("--group", help="The group's ID.")
    parser.add_argument("--client-metrics", metavar="NAME", help="The client metrics config resource name.")
    for flag in ("client", "user", "ip"):
        parser.add_argument(f"--{flag}", help=argparse.SUPPRESS)
        parser.add_argument(f"--{flag}-defaults", action="store_true", help=argparse.SUPPRESS)
    parser.add_removed("--force", "it is not needed; leave it out")
    parser.add_version()
    return parser


def check(parser: ToolParser, options: argparse.Namespace) -> tuple[str, list[str]]:
    """Kafka's checks; the entity type and the names given ("" is the default entity)."""
    if options.alter == options.describe:
        parser.error("Command must include exactly one action: --describe, --alter")
    parser.forbid(options, "describe", "add-config", "add-config-file", "delete-config")
    if options.bootstrap_controller and not options.bootstrap_server:
        parser.error("--bootstrap-controller: the controllers speak to nodes only; use --bootstrap-server")
    if not options.bootstrap_server:
        parser.error("Either --bootstrap-server or --bootstrap-controller must be specified.")
    kinds, names = entities(parser, options)
    for kind in kinds:
        if kind not in ENTITY_TYPES:
            parser.error(
                f"Invalid entity type {kind}, the entity type must be one of {', '.join(ENTITY_TYPES)} "
                "with a --bootstrap-server or --bootstrap-controller argument"
            )
    if not kinds:
        parser.error("At least one entity type must be specified")
    kind = kinds[0]
    if kind in UNSERVED:
        raise ToolError(
            f"Quotas and SCRAM credentials ('{kind}') are not served by this release; topics, brokers and groups are."
        )
    if len(kinds) > 1:
        parser.error("Only 'users' and 'clients' entity types may be specified together")
    if kind.startswith("broker"):
        for name in names:
            if name and not name.isdigit():
                parser.error(
                    f"The entity name for {kind} must be a valid integer broker id, but it is: {name}"
                )
    if options.describe and "" in names and kind != "brokers":
        parser.error(f"--entity-default must not be specified with --describe of {kind}")
    if options.describe and kind == "broker-loggers" and not names:
        parser.error("An entity name must be specified with --describe of broker-loggers")
    if options.alter:
        _check_alter(parser, options, kind, names)
    return kind, names


def _check_alter(parser: ToolParser, options: argparse.Namespace, kind: str, names: Sequence[str]) -> None:
    if not names and kind == "brokers":
        parser.error(
            "An entity-name or default entity must be specified with --alter of users, clients, brokers or ips"
        )
    if not any(names) and kind != "brokers":
        parser.error(f"An entity name must be specified with --alter of {kind}")
    if options.add_config and options.add_config_file:
        parser.error("Only one of --add-config or --add-config-file must be specified")
    if not (options.add_config or options.add_config_file or options.delete_config):
        parser.error(
            "At least one of --add-config, --add-config-file, or --delete-config must be specified with --alter"
        )


def entities(parser: ToolParser, options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Entity types and names, from either way of writing them."""
    flags = [
        (kind, getattr(options, flag.replace("-", "_")))
        for flag, kind in ENTITY_FLAGS.items()
        if given(options, flag)
    ]
    flags += [(kind, "") for flag, kind in DEFAULT_FLAGS.items() if given(options, flag)]
    if flags and (options.entity_type or options.entity_name):
        parser.error(
            "--entity-{type,name,default} should not be used in conjunction with specific entity flags"
        )
    if flags:
        return [kind for kind, _ in flags], [name for _, name in flags]
    return list(options.entity_type), list(options.entity_name)


# --- alter -----------------------------------------------------------------------------------------------------------


def alter(admin: Admin, kind: str, name: str, options: argparse.Namespace) -> None:
    """Deletions and settings in one request."""
    sets = load_properties(options.add_config_file) if options.add_config_file else {}
    if options.add_config:
        sets.update(parse_configs(options.add_config))
    for key in sets:
        if re.fullmatch(r"[$a-zA-Z0-9._-]*", key) is None:
            raise ToolError(f"Invalid character found for config key: {key}")
    deletes = [key.strip() for key in (options.delete_config or "").split(",") if key.strip()]
    admin.alter_configs(RESOURCES[kind][0], name, sets, deletes)
    if name:
        print(f"Completed updating config for {kind[:-1]} {name}.")
    else:
        print(f"Completed updating default config for {kind} in the cluster.")


def parse_configs(text: str) -> dict[str, str]:
    """`a=1,b=[x,y],c=` as a mapping; commas inside square brackets belong to the value."""
    outside = r"(?=[^\]]*(?:\[|$))"
    configs = {}
    for pair in re.split("," + outside, text):
        parts = re.split(r"\s*=\s*" + outside, pair)
        if len(parts) != 2:
            raise ToolError(
                'requirement failed: Invalid entity config: all configs to be added must be in the format "key=val" or '
                ' "key=[val1,val2]" to group values which contain commas.'
            )
        configs[parts[0].strip()] = re.sub(r"[\[\]]", "", parts[1]).strip()
    return configs


# --- describe --------------------------------------------------------------------------------------------------------


def describe(admin: Admin, kind: str, names: Sequence[str], options: argparse.Namespace) -> None:
    """One block per entity: a heading, and a line per config with where its values come from."""
    if names and not options.all and not exists(admin, kind, names[0]):
        print(f"The {kind[:-1]} '{names[0]}' doesn't exist and doesn't have dynamic config.")
        return
    entities_shown = [names[0]] if names else all_entities(admin, kind)
    resource, source = RESOURCES[kind]
    described = admin.describe_configs(resource, entities_shown, synonyms=True) if entities_shown else {}
    for name in entities_shown:
        if name:
            print(f"{'All' if options.all else 'Dynamic'} configs for {kind[:-1]} {name} are:")
        else:
            print(f"Default configs for {kind} in the cluster are:")
        wanted = DYNAMIC_DEFAULT_BROKER if kind == "brokers" and not name else source
        for entry in sorted(described.get(name, []), key=lambda entry: str(entry["name"])):
            if options.all or wanted is None or entry["config_source"] == wanted:
                print(config_line(entry))


def config_line(entry: Mapping[str, Any]) -> str:
    """`  name=value sensitive=false synonyms={SOURCE:name=value, …}`."""
    synonyms = ", ".join(
        f"{SOURCES[synonym['source']]}:{synonym['name']}={shown(synonym['value'])}"
        for synonym in entry["synonyms"]
    )
    sensitive = "true" if entry["is_sensitive"] else "false"
    return f"  {entry['name']}={shown(entry['value'])} sensitive={sensitive} synonyms={{{synonyms}}}"


def shown(value: str | None) -> str:
    """Java's text of a value that may be absent."""
    return "null" if value is None else value


def exists(admin: Admin, kind: str, name: str) -> bool:
    """Whether there is such an entity."""
    return name == "" or name in all_entities(admin, kind)


def all_entities(admin: Admin, kind: str) -> list[str]:
    """Names of all entities of a type; "" stands for the defaults of all brokers, last."""
    if kind == "topics":
        return admin.topic_names()
    if kind in ("brokers", "broker-loggers"):
        return [*map(str, admin.broker_ids()), ""]
    if kind == "groups":
        return sorted(
            {group["group_id"] for group in admin.list_groups()} | set(admin.list_config_resources(32))
        )
    return admin.list_config_resources(RESOURCES[kind][0])
