"""Settings of Java clients, for the options that take them (`--command-config` and kin).

`client_settings` turns the settings of the Java clients
(`acks`, `sasl.jaas.config`, …) into keyword arguments of kafka-python, whose names are the same with underscores, apart
from security. What the Python client has no counterpart for is named in one warning and left out, as Kafka's own
clients do with settings that they do not know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from odradek.broker.properties import FILE_BYTES_MAX, PropertiesError, parse_properties
from odradek.cli.options import ToolError, warn


def load_properties(path: str) -> dict[str, str]:
    """The settings of a properties file; ToolError names the file, and the line where one is wrong."""
    try:
        with open(path, "rb") as file:
            text = file.read(FILE_BYTES_MAX).decode("latin-1")  # Java's encoding of such files
        return {key: setting.value for key, setting in parse_properties(text, path).items()}
    except OSError as error:
        raise ToolError(f"Unable to read file {path}: {error.strerror}") from error
    except PropertiesError as error:
        raise ToolError(str(error)) from error


RECONNECT_MS = 1_000  # the longest wait between two tries to connect, as in Java; kafka-python's own is 30 s

_TEXT = frozenset(
    ("client_id", "client_rack", "compression_type", "group_id", "group_instance_id", "transactional_id",
     "sasl_mechanism", "client_dns_lookup")
)  # fmt: skip
_NUMBER = frozenset(("receive_buffer_bytes", "send_buffer_bytes", "retries"))
# Settings whose effect is the tool's own business, or that change nothing here: dropped in silence.
_DROPPED = frozenset(
    ("key.serializer", "value.serializer", "key.deserializer", "value.deserializer", "bootstrap.servers",
     "sasl.jaas.config", "socket.connection.setup.timeout.ms", "socket.connection.setup.timeout.max.ms",
     "default.api.timeout.ms", "enable.metrics.push")
)  # fmt: skip
_ASSIGNORS = {
    "RangeAssignor": ("range", "RangePartitionAssignor"),
    "RoundRobinAssignor": ("roundrobin", "RoundRobinPartitionAssignor"),
    "StickyAssignor": ("sticky.sticky_assignor", "StickyPartitionAssignor"),
    "CooperativeStickyAssignor": ("cooperative_sticky", "CooperativeStickyAssignor"),
}


def client_settings(properties: Mapping[str, str], known: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments for a kafka-python client whose `DEFAULT_CONFIG` is `known`."""
    settings: dict[str, Any] = {"reconnect_backoff_max_ms": RECONNECT_MS}
    unused = []
    for name, value in properties.items():
        key = name.replace(".", "_")
        if name in _DROPPED or name.startswith(("ssl.", "sasl.")):
            continue
        if name == "partition.assignment.strategy" and key in known:
            settings[key] = [_assignor(part.strip()) for part in value.split(",")]
        elif name == "acks" and key in known:
            settings[key] = "all" if value in ("all", "-1") else _number(name, value)
        elif key in known:
            settings[key] = _converted(name, value, known[key])
        else:
            unused.append(name)
    if unused:
        warn(f"WARN These configurations '[{', '.join(unused)}]' were supplied but are not used yet.")
    settings.update(_security(properties))
    return settings


def _converted(name: str, value: str, default: Any) -> Any:
    key = name.replace(".", "_")
    if isinstance(default, bool):
        if value.strip().lower() not in ("true", "false"):
            raise ToolError(
                f"Invalid value {value} for configuration {name}: Expected value to be either true or false"
            )
        return value.strip().lower() == "true"
    if isinstance(default, int) or key in _NUMBER:
        return _number(name, value)
    if key == "compression_type":
        return None if value == "none" else value
    if isinstance(default, str) or key in _TEXT:
        return value
    raise ToolError(f"{name} cannot be set from a properties file for this tool")


def _number(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise ToolError(f"Invalid value {value} for configuration {name}: Not a number of type INT") from None


def _assignor(java_class: str) -> Any:
    from importlib import import_module

    simple = java_class.rpartition(".")[2]
    if simple not in _ASSIGNORS:
        raise ToolError(
            f"Invalid value {java_class} for configuration partition.assignment.strategy: Class could not be found."
        )
    module, name = _ASSIGNORS[simple]
    return getattr(import_module(f"kafka.coordinator.assignors.{module}"), name)


def _security(properties: Mapping[str, str]) -> dict[str, Any]:
    """TLS from PEM files, and the user and password that Java keeps in a JAAS line."""
    settings: dict[str, Any] = {}
    if "security.protocol" in properties:
        settings["security_protocol"] = properties["security.protocol"].upper()
    if "sasl.mechanism" in properties:
        settings["sasl_mechanism"] = properties["sasl.mechanism"]
    jaas = properties.get("sasl.jaas.config", "")
    for field in ("username", "password"):
        found = re.search(rf'{field}\s*=\s*"((?:\\.|[^"\\])*)"', jaas)
        if found:
            settings[f"sasl_plain_{field}"] = found.group(1)
    for store, key in (("truststore", "ssl_cafile"), ("keystore", "ssl_certfile")):
        location = properties.get(f"ssl.{store}.location")
        if location is None:
            continue
        if properties.get(f"ssl.{store}.type", "JKS").upper() != "PEM":
            raise ToolError(
                f"ssl.{store}.location={location}: only PEM files are read; set ssl.{store}.type=PEM and name one"
            )
        settings[key] = location
        if store == "keystore":
            settings["ssl_keyfile"] = location
    if "ssl.key.password" in properties:
        settings["ssl_password"] = properties["ssl.key.password"]
    if properties.get("ssl.endpoint.identification.algorithm") == "":
        settings["ssl_check_hostname"] = False
    return settings
