"""`listeners`, `advertised.listeners`, their security protocols and the controller quorum, parsed and judged.

Grammar, defaults and texts are Kafka 4.3's (`SocketServerConfigs`, `AbstractKafkaConfig`, `QuorumConfig`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from odradek.metadata.config_def import ConfigError

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
SERVED_PROTOCOLS = frozenset(("PLAINTEXT",))
"""TLS and SASL are not there yet; a listener that asks for them is an error, never silently open."""

_LISTENER = re.compile(r"(.*)://\[?([0-9a-zA-Z\-%._:]*)\]?:(-?[0-9]+)", re.ASCII | re.DOTALL)
_HOST_PORT = re.compile(r"(?:\[([0-9a-zA-Z\-%._:]*)\]|([0-9a-zA-Z\-%._]*)):([0-9]+)", re.ASCII)
_IPV4 = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}", re.ASCII)


class Listener(NamedTuple):
    """A named address. An empty host binds to every interface; port 0 takes any free one."""

    name: str
    host: str
    port: int
    protocol: str

    def __str__(self) -> str:
        return f"{self.name}://{bracketed(self.host)}:{self.port}"


class Voter(NamedTuple):
    """An entry of `controller.quorum.voters`."""

    node_id: int
    host: str
    port: int


def bracketed(host: str) -> str:
    """An IPv6 address as it stands before a port."""
    return f"[{host}]" if ":" in host else host


def parse_listeners(
    entries: Sequence[str], protocols: Mapping[str, str], *, distinct_ports: bool
) -> tuple[Listener, ...]:
    """ConfigError with Kafka's text for an entry that does not parse, a name without a protocol, or two
    alike.
    """
    shown = f"[{', '.join(entries)}]"
    try:
        found = tuple(_parse_listener(entry, protocols) for entry in entries)
        if len({listener.name for listener in found}) != len(found):
            raise ConfigError(f"Each listener must have a different name, listeners: {shown}")
        if distinct_ports:
            _require_distinct_ports(found, shown)
    except ConfigError as error:
        raise ConfigError(f"Error creating broker listeners from '{shown}': {error}") from None
    return found


def _parse_listener(entry: str, protocols: Mapping[str, str]) -> Listener:
    matched = _LISTENER.fullmatch(entry)
    if matched is None:
        raise ConfigError(f"Unable to parse {entry} to a broker endpoint")
    name, host, port = matched[1].upper(), matched[2], int(matched[3])
    if not 0 <= port <= 65535:
        raise ConfigError(f"Unable to parse {entry} to a broker endpoint: no port has the number {port}")
    protocol = protocols.get(name)
    if protocol is None:
        raise ConfigError(f"No security protocol defined for listener {name}")
    return Listener(name, host, port, protocol)


def _require_distinct_ports(listeners: Sequence[Listener], shown: str) -> None:
    """One port may serve one IPv4 and one IPv6 address; port 0 is free for all."""
    by_port: dict[int, list[Listener]] = {}
    for listener in listeners:
        if listener.port:
            by_port.setdefault(listener.port, []).append(listener)
    for port, sharing in by_port.items():
        if len(sharing) == 1:
            continue
        versions = sorted(_ip_version(listener.host) for listener in sharing)
        if versions == [4, 6]:
            continue
        if 0 in versions:
            raise ConfigError(f"Each listener must have a different port, listeners: {shown}")
        if len(sharing) == 2:
            raise ConfigError(
                "If you have two listeners on the same port then one needs to be IPv4 and the other IPv6, "
                f"listeners: {shown}, port: {port}"
            )
        raise ConfigError(
            "Each listener must have a different port unless exactly one listener has an IPv4 address "
            f"and the other IPv6 address, listeners: {shown}, port: {port}"
        )


def _ip_version(host: str) -> int:
    """4, 6, or 0 for a name."""
    if ":" in host:
        return 6
    return 4 if _IPV4.fullmatch(host) else 0


def security_protocols(
    text: str, *, explicit: bool, controller_names: Sequence[str], listeners: Sequence[str]
) -> dict[str, str]:
    """Listener name to security protocol (`listener.security.protocol.map`).

    Unless the map was written out, controller listeners count as PLAINTEXT as long as nothing uses SSL or
    SASL.
    """
    protocols: dict[str, str] = {}
    key = "listener.security.protocol.map"
    for entry in (part.strip() for part in text.split(",")):
        if not entry:
            continue
        name, colon, protocol = entry.rpartition(":")
        if not colon:
            raise ConfigError(
                f"Error parsing configuration property '{key}': {entry} is not of the form name:protocol"
            )
        if protocol.strip().upper() not in PROTOCOLS:
            raise ConfigError(f"Invalid security protocol `{protocol.strip()}` defined in {key}")
        protocols[name.strip().upper()] = protocol.strip().upper()
    secured = set(PROTOCOLS) - {"PLAINTEXT"}
    named = {entry.partition(":")[0].upper() for entry in listeners} | set(controller_names)
    if not explicit and not named & secured:
        protocols |= {name.upper(): "PLAINTEXT" for name in controller_names if name != "PLAINTEXT"}
    return protocols


def parse_voters(entries: Sequence[str]) -> tuple[Voter, ...]:
    """`controller.quorum.voters`: `1@host:9093,2@…`."""
    key = "controller.quorum.voters"
    form = "Each entry should be in the form `{id}@{host}:{port}`."
    voters: dict[int, Voter] = {}
    for entry in entries:
        number, at, address = entry.partition("@")
        if not at or "@" in address:
            raise ConfigError(f"Invalid configuration value for {key}. {form}")
        if not re.fullmatch(r"[+-]?[0-9]{1,10}", number, re.ASCII):
            raise ConfigError(f"Failed to parse voter ID as an integer from {number}")
        host_port = parse_host_port(address)
        if host_port is None:
            raise ConfigError(
                f"Failed to parse host name from entry {entry} for the configuration {key}. {form}"
            )
        voters[int(number)] = Voter(int(number), *host_port)
    return tuple(voters.values())


def parse_bootstrap_servers(entries: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """`controller.quorum.bootstrap.servers`: `host:9093,…`."""
    found: list[tuple[str, int]] = []
    for entry in entries:
        host_port = parse_host_port(entry)
        if host_port is None:
            raise ConfigError(
                f"Failed to parse host name from {entry} for the configuration "
                'controller.quorum.bootstrap.servers. Each entry should be in the form "{host}:{port}"'
            )
        found.append(host_port)
    return tuple(found)


def parse_host_port(text: str) -> tuple[str, int] | None:
    """`host:port` or `[ipv6]:port`; None if it is neither."""
    matched = _HOST_PORT.fullmatch(text)
    if matched is None or int(matched[3]) > 65535:
        return None
    host = matched[1] if matched[1] is not None else matched[2]
    return (host, int(matched[3])) if host else None
