"""`odradek start` and `odradek server`: from a command line to a running node.

`start` needs nothing: one node for everything, clients connect to localhost:9092, data in ./data. `server`
takes Kafka's server.properties. Both take KAFKA_* variables by the rule of Kafka's official image, ODRADEK_*
for Odradek's own keys, and `--override key=value`, each stronger than what stands before it in this sentence.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping

from odradek.broker.config import BrokerConfig, StartupError
from odradek.broker.config_builder import (
    DEFAULT_METRICS_PORT,
    DEFAULT_PORT,
    build_config,
    settings_of,
    zero_config,
)
from odradek.broker.properties import (
    FILE_BYTES_MAX,
    PropertiesError,
    Setting,
    from_environment,
    parse_overrides,
    parse_properties,
)
from odradek.cli.options import ToolParser
from odradek.metadata.configs import BROKERS

START = f"""\
Start a node. Nothing needs to be configured: it is broker and controller in one process, clients connect to
localhost:{DEFAULT_PORT}, and what they write is kept in ./data until you delete the directory.
"""
START_EXAMPLES = """\
examples:
  odradek start                                    on localhost:9092
  odradek start --port 9192 --data /var/lib/kafka  somewhere else
  odradek start --advertise kafka.example.com      reachable from other machines
  odradek start --override log.retention.hours=1   with any key of Kafka's server.properties

KAFKA_* variables are read as by Kafka's official image: KAFKA_LOG_RETENTION_HOURS=1. Ctrl-C stops the node.
"""
SERVER = """\
Start a node from a server.properties file as Apache Kafka takes it.
"""
SERVER_EXAMPLES = """\
examples:
  odradek server server.properties
  odradek server server.properties --override listeners=PLAINTEXT://:9192 --override log.dirs=/tmp/logs

KAFKA_* variables beat the file, --override beats both, as with Kafka's official image.
"""

_LEVELS = {
    "TRACE": "debug",
    "DEBUG": "debug",
    "INFO": "info",
    "WARN": "warning",
    "ERROR": "error",
    "FATAL": "error",
}


def run_start(argv: list[str], environment: Mapping[str, str] | None = None) -> int:
    """`odradek start`: the exit code, once the node has stopped."""
    options = _start_parser().parse_args(argv)
    return _run(lambda: start_config(options, _environment(environment)))


def run_server(argv: list[str], environment: Mapping[str, str] | None = None) -> int:
    """`odradek server FILE`: the exit code, once the node has stopped."""
    options = _server_parser().parse_args(argv)
    return _run(lambda: server_config(options, _environment(environment)))


def start_config(options: argparse.Namespace, environment: Mapping[str, str]) -> BrokerConfig:
    """The zero-config node as the environment and the options change it. StartupError, PropertiesError."""
    port = DEFAULT_PORT if options.port is None else options.port
    base = zero_config(port=port, data=options.data or "data", advertise=options.advertise)
    surroundings = settings_from_environment(environment)
    overrides = parse_overrides(options.override)
    if "listeners" in (surroundings | overrides) and not options.advertise:
        del base["advertised.listeners"]  # it belonged to the listener that is replaced
    named = _named_on_the_command_line(options, base)
    return build_config(
        base,
        surroundings,
        named,
        overrides,
        cluster_id=_cluster_id(options, environment),
        hostname="localhost",
    )


def server_config(options: argparse.Namespace, environment: Mapping[str, str]) -> BrokerConfig:
    """What the file says, as the environment and the overrides change it. StartupError, PropertiesError."""
    file = parse_properties(read_properties(options.file), options.file)
    return build_config(
        file,
        settings_from_environment(environment),
        _named_on_the_command_line(options, {}),
        parse_overrides(options.override),
        cluster_id=_cluster_id(options, environment),
        hostname=host_name(),
    )


def _run(configure: Callable[[], BrokerConfig]) -> int:
    try:
        config = configure()
        from odradek.broker.server import run

        return run(config)
    except (StartupError, PropertiesError) as error:
        print(f"odradek: {error}", file=sys.stderr, flush=True)
        return 1


def _start_parser() -> ToolParser:
    parser = _parser("odradek start", START, START_EXAMPLES)
    parser.add_argument(
        "--port", type=_port, metavar="PORT", help=f"where clients connect (default: {DEFAULT_PORT})"
    )
    parser.add_argument("--data", metavar="DIR", help="where everything is kept (default: ./data)")
    parser.add_argument(
        "--advertise",
        metavar="HOST[:PORT]",
        help="the address clients are told to use (default: localhost); other machines need one they can reach",
    )
    _add_common(parser, DEFAULT_METRICS_PORT)
    return parser


def _server_parser() -> ToolParser:
    parser = _parser("odradek server", SERVER, SERVER_EXAMPLES)
    parser.add_argument("file", metavar="FILE", help="a server.properties file")
    _add_common(parser, int(BROKERS["odradek.metrics.port"].default or -1))
    return parser


def _parser(name: str, description: str, examples: str) -> ToolParser:
    return ToolParser(
        prog=name,
        description=description,
        examples=examples,
    )


def _add_common(parser: ToolParser, metrics_port: int) -> None:
    parser.add_argument(
        "--override",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="set a key of server.properties; may be given again",
    )
    shown = "none" if metrics_port < 0 else metrics_port
    parser.add_argument(
        "--metrics-port",
        type=_port_or_none,
        metavar="PORT",
        help=f"port of /metrics and the probes, on localhost; 0 takes any, -1 none (default: {shown})",
    )
    parser.add_argument(
        "--log-format",
        choices=("auto", "text", "json"),
        metavar="FORMAT",
        help="how log lines look: text, json, or auto: text on a terminal, json elsewhere (default: auto)",
    )
    parser.add_argument(
        "--cluster-id", metavar="ID", help="id of a new cluster (default: $CLUSTER_ID, or a new one)"
    )


def _named_on_the_command_line(
    options: argparse.Namespace, base: Mapping[str, Setting]
) -> dict[str, Setting]:
    """Options that stand for keys: they beat the environment as `--override` does."""
    found: dict[str, Setting] = {}
    if options.metrics_port is not None:
        found["odradek.metrics.port"] = Setting(str(options.metrics_port), "--metrics-port")
    if options.log_format is not None:
        found["odradek.log.format"] = Setting(options.log_format, "--log-format")
    if getattr(options, "port", None) is not None:
        found["listeners"] = base["listeners"]._replace(origin="--port")
    if getattr(options, "data", None) is not None:
        found["log.dirs"] = base["log.dirs"]._replace(origin="--data")
    if getattr(options, "advertise", None) is not None:
        found["advertised.listeners"] = base["advertised.listeners"]._replace(origin="--advertise")
    return found


def settings_from_environment(environment: Mapping[str, str]) -> dict[str, Setting]:
    """KAFKA_*, ODRADEK_*, and the level of KAFKA_LOG4J_ROOT_LOGLEVEL."""
    found: dict[str, Setting] = {}
    level = _LEVELS.get(environment.get("KAFKA_LOG4J_ROOT_LOGLEVEL", "").upper())
    if level is not None:
        found |= settings_of({"odradek.log.level": level}, "environment variable KAFKA_LOG4J_ROOT_LOGLEVEL")
    found |= from_environment(environment)
    for variable, value in environment.items():
        key = variable.lower().replace("_", ".")
        if key.startswith("odradek.") and key in BROKERS:
            found[key] = Setting(value.strip(), f"environment variable {variable}")
    return found


def _environment(given: Mapping[str, str] | None) -> Mapping[str, str]:
    return os.environ if given is None else given


def _cluster_id(options: argparse.Namespace, environment: Mapping[str, str]) -> str | None:
    return options.cluster_id or environment.get("CLUSTER_ID") or None


def read_properties(path: str) -> str:
    """A properties file as Java reads it: ISO 8859-1, whatever is in it. StartupError says why it cannot
    be read.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise StartupError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > FILE_BYTES_MAX:
        raise StartupError(f"{path} is larger than {FILE_BYTES_MAX} bytes: is it a properties file?")
    return data.decode("latin-1")


def host_name() -> str:
    """What is advertised for a listener on all interfaces, as Kafka does: the name of this machine."""
    import socket

    return socket.gethostname() or "localhost"


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port (0 to 65535)")
    return number


def _port_or_none(text: str) -> int:
    return -1 if text.strip() == "-1" else _port(text)
