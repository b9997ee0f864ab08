"""Containers whose kernel has no netem: what they say to each other passes proxies on this machine, and is late.

In each container's network namespace, connections to another node are sent to a proxy by iptables (DNAT). Those that
are open are reset once, when the detour begins and when it ends: only new ones can be sent elsewhere.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from odradek.chaos.proxy import Proxies, Wire

CHAIN = "ODRADEK-DETOUR"
_TABLES = ("nat", "filter")
_END = " ".join(
    f"iptables -w -t {table} {words};"
    for table in _TABLES
    for words in (f"-D OUTPUT -j {CHAIN}", f"-F {CHAIN}", f"-X {CHAIN}")
)


@dataclass(frozen=True, slots=True)
class Place:
    """Of a node: its address, the ports where others reach it, and this machine as it sees it."""

    address: str
    ports: tuple[int, ...]
    gateway: str


class Detour:
    """`everywhere`: runs a shell's command line in the network namespace of each of these nodes. TargetError."""

    def __init__(self, everywhere: Callable[[Mapping[int, str]], None]) -> None:
        self._everywhere = everywhere
        self._proxies = Proxies()

    def begin(self, places: Mapping[int, Place], settings: Mapping[str, Any]) -> None:
        wires = {pair: _wire(settings) for pair in itertools.permutations(places, 2)}
        commands = {node: [f"-t {table} -N {CHAIN}" for table in _TABLES] for node in places}
        for dialer, node in wires:
            gateway, there = places[dialer].gateway, places[node]
            for port in there.ports:
                proxy = _free_port(gateway)
                self._proxies.add(
                    proxy,
                    lambda port=port: port,  # type: ignore[misc]
                    wires[dialer, node],
                    wires[node, dialer],
                    listens=gateway,
                    host=there.address,
                )
                to = f"-p tcp -d {there.address} --dport {port}"
                commands[dialer] += [
                    f"-t nat -A {CHAIN} {to} -j DNAT --to-destination {gateway}:{proxy}",
                    # What was open before. The reset of this end still goes out, and the other one hears of it.
                    f"-A {CHAIN} {to} ! --tcp-flags RST RST -j REJECT --reject-with tcp-reset",
                ]
        for found in commands.values():
            found += [f"-t {table} -I OUTPUT -j {CHAIN}" for table in _TABLES]
        self._everywhere(
            {node: " && ".join(f"iptables -w {words}" for words in found) for node, found in commands.items()}
        )

    def end(self, nodes: Iterable[int]) -> None:
        self._everywhere(dict.fromkeys(nodes, f"{{ {_END} }} 2>/dev/null; true"))
        self._proxies.close()


def _wire(settings: Mapping[str, Any]) -> Wire:
    wire = Wire()
    wire.delay_s = settings["delay_ms"] / 1000
    wire.jitter_s = settings.get("jitter_ms", 0) / 1000
    return wire


def _free_port(host: str) -> int:
    with socket.socket() as sock:
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
        return port
