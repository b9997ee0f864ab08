"""`odradek container`: the first process of a container, with the conventions of Apache Kafka's official image.

    KAFKA_NODE_ID=1 …           every key of server.properties as a variable, by the rule of that image
    KAFKA_…_FILE, CLUSTER_ID_FILE   the value is in a file: a mounted secret
    /mnt/shared/config/server.properties   a mounted file; variables beat it
    CLUSTER_ID                  id of the cluster, which formats new storage
    KEY=VALUE …                 arguments are variables, too
    ODRADEK_STOP_GRACE_SECONDS  how long the container may take to stop, told by whoever starts it; checked only

Without any of them it is the node of `odradek start`: alone, advertised as localhost:9092. Storage is formatted by
the node itself when its directory is new, and never again. Nothing is written anywhere else, so that the root file
system may be read-only. As process 1 of a container this one gets no default treatment of signals from the kernel:
until the node handles SIGTERM itself, `main` does.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

from odradek.storage.layout import LOCK_FILE, META_PROPERTIES

if TYPE_CHECKING:
    from odradek.broker.config import BrokerConfig
    from odradek.broker.properties import Setting

DATA = "/var/lib/kafka/data"
MOUNTED = "/mnt/shared/config/server.properties"
SECRET_BYTES_MAX = 1 << 20
"""A larger file is not a secret."""
GRACE_S_MIN = 15
"""A controlled shutdown may take 10 s, the last answers 2 s, and what is left to write the rest."""
REGISTRATION_TIMEOUT_MS = 60_000
"""Kafka's default: a broker that no controller registers in this time ends, and whoever runs it may start it again."""
_FILE = "_FILE"


def run(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """The exit code, once the node has stopped."""
    if "--help" in argv:
        print(__doc__)
        return 0
    _end_on_signals()
    from odradek.broker.config import StartupError
    from odradek.broker.properties import PropertiesError

    try:
        config = configure(argv, os.environ if environment is None else environment)
        require_writable(config.log_dirs)
        from odradek.broker.server import run as serve

        return serve(config)
    except (StartupError, PropertiesError) as error:
        print(f"odradek: {error}", file=sys.stderr, flush=True)
        return 1


def configure(
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    mounted: str = MOUNTED,
    data: str = DATA,
    hostname: Callable[[], str] | None = None,
) -> BrokerConfig:
    """From variables, arguments and the mounted file to a configuration. StartupError, PropertiesError."""
    from odradek.broker.config import StartupError
    from odradek.broker.config_builder import DEFAULT_METRICS_PORT, build_config, settings_of, zero_config
    from odradek.broker.properties import parse_properties
    from odradek.cli.serve import host_name, read_properties, settings_from_environment

    variables = with_secrets({**environment, **arguments(argv)})
    check_grace(variables)
    file = parse_properties(read_properties(mounted), mounted) if os.path.exists(mounted) else {}
    given = {**file, **settings_from_environment(variables)}
    base = settings_of(
        {
            "log.dirs": data,
            "odradek.metrics.host": "",  # every interface: what is let in is the business of the container's network
            "odradek.metrics.port": str(DEFAULT_METRICS_PORT),
            "initial.broker.registration.timeout.ms": str(REGISTRATION_TIMEOUT_MS),
        },
        "the image",
    )
    if "process.roles" not in given:  # nothing says that it is one of several
        alone = zero_config(data=data)
        if {"listeners", "advertised.listeners"} & given.keys():
            del alone["listeners"], alone["advertised.listeners"]
        base = {**alone, **base}
    listeners = derived_listeners(given)
    config = build_config(
        base,
        listeners,
        given,
        cluster_id=variables.get("CLUSTER_ID", "").strip() or None,
        hostname=(hostname or host_name)(),
    )
    several = not config.alone and not any(_is_formatted(path) for path in config.log_dirs)
    if several and config.cluster_id is None:
        raise StartupError(
            "CLUSTER_ID environment variable not set: the storage in "
            f"{', '.join(config.log_dirs)} is new, and all nodes of a cluster need the same id. "
            "kafka-storage.sh random-uuid makes one"
        )
    return config


def arguments(argv: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE …`, as the official image's `run` takes them. StartupError for anything else."""
    from odradek.broker.config import StartupError

    found: dict[str, str] = {}
    for word in argv:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            raise StartupError(f"{word}: expected KEY=VALUE, such as KAFKA_NODE_ID=1")
        found[key] = value
    return found


def with_secrets(variables: Mapping[str, str]) -> dict[str, str]:
    """`KAFKA_…_FILE` replaced by the variable whose value is in that file. StartupError if it cannot be read.

    A key of Kafka's that ends in `.file` itself is left as it is. One line end at the end of the file is no part of
    the value: most tools that write secrets leave one.
    """
    from odradek.broker.config import StartupError

    found = dict(variables)
    for name in sorted(variables):
        if not _names_a_secret(name):
            continue
        target = name.removesuffix(_FILE)
        if variables.get(target):
            raise StartupError(f"both {name} and {target} are set: leave one of them out")
        path = found.pop(name)
        try:
            with open(path, "rb") as file:
                value = file.read(SECRET_BYTES_MAX + 1)
            text = value.decode()
        except OSError as error:
            raise StartupError(f"{name}: cannot read {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise StartupError(f"{name}: {path} is not text in UTF-8") from error
        if len(value) > SECRET_BYTES_MAX:
            raise StartupError(f"{name}: {path} is larger than {SECRET_BYTES_MAX} bytes")
        found[target] = text.removesuffix("\n").removesuffix("\r")
    return found


def _names_a_secret(name: str) -> bool:
    from odradek.broker.properties import from_environment
    from odradek.metadata.configs import is_known_broker_config

    if name == "CLUSTER_ID_FILE":
        return True
    if not name.endswith(_FILE):
        return False
    if name.startswith("ODRADEK_"):
        return not is_known_broker_config(name.lower().replace("_", "."))
    return name.startswith("KAFKA_") and not any(map(is_known_broker_config, from_environment({name: ""})))


def derived_listeners(given: Mapping[str, Setting]) -> dict[str, Setting]:
    """As the official image does: without listeners, a broker listens on all interfaces at the ports it advertises."""
    from odradek.broker.config import StartupError

    roles = given["process.roles"].value.replace(" ", "") if "process.roles" in given else ""
    advertised = given.get("advertised.listeners")
    if advertised is None:
        return {}
    if roles == "controller":
        if not advertised.value.strip():
            return {}
        raise StartupError("KAFKA_ADVERTISED_LISTENERS is not supported on a KRaft controller.")
    if "listeners" in given:
        return {}
    entries = []
    for entry in advertised.value.split(","):
        name, _, address = entry.strip().partition("://")
        entries.append(f"{name}://0.0.0.0:{address.rpartition(':')[2]}")
    return {"listeners": advertised._replace(value=",".join(entries))}


def check_grace(variables: Mapping[str, str]) -> None:
    """StartupError for a grace period in which no controlled shutdown fits: the node would be killed in the middle."""
    from odradek.broker.config import StartupError

    name = "ODRADEK_STOP_GRACE_SECONDS"
    text = variables.get(name, "").strip().removesuffix("s")
    if not text:
        return
    if not text.isascii() or not text.isdecimal():
        raise StartupError(f"{name}={variables[name]}: expected a number of seconds")
    if int(text) < GRACE_S_MIN:
        raise StartupError(
            f"{name}={text}: a controlled shutdown may take {GRACE_S_MIN} s, and a node that is killed before it ends "
            "gives its partitions away late. Let stop_grace_period (or terminationGracePeriodSeconds) be longer"
        )


def require_writable(directories: Sequence[str]) -> None:
    """StartupError for a volume that belongs to somebody else, with what helps. Nothing is created."""
    for path in directories:
        there = os.path.abspath(path)
        while not os.path.exists(there):
            there = os.path.dirname(there)
        if os.path.isdir(there):
            _require_access(there, os.R_OK | os.W_OK | os.X_OK)
        for name in (LOCK_FILE, META_PROPERTIES):  # of a node that ran as another user
            if os.path.exists(os.path.join(path, name)):
                _require_access(os.path.join(path, name), os.R_OK | os.W_OK)


def _require_access(path: str, mode: int) -> None:
    from odradek.broker.config import StartupError

    if os.access(path, mode):
        return
    status = os.stat(path)
    raise StartupError(
        f"{path} is not writable for this process (uid {os.getuid()}, gid {os.getgid()}): it belongs to uid "
        f"{status.st_uid}, gid {status.st_gid}, mode {status.st_mode & 0o7777:o}. Give the volume to this "
        f"user (chown -R {os.getuid()}, or fsGroup in Kubernetes), or run the container as its owner"
    )


def _is_formatted(path: str) -> bool:
    return os.path.exists(os.path.join(path, META_PROPERTIES))


def _end_on_signals() -> None:
    def end(signum: int, _frame: object) -> NoReturn:
        raise SystemExit(128 + signum)

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, end)
