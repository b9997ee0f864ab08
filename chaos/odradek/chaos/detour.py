"""Containers whose kernel has no netem: what they say to each other passes proxies on this machine, and is late.

In each container's network namespace, connections to another node are sent to a proxy by iptables (DNAT). Those that
are open are reset once, when the detour begins and when it ends: only new ones can be sent elsewhere.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from odradek.chaos.proxy import Proxies, Wire
from odradek.chaos.target import TargetError

CHAIN = "ODRADEK-DETOUR"


@dataclass(frozen=True, slots=True)
class Place:
    """Of a node: its address, the ports where others reach it, and this machine as it sees it."""

    address: str
    ports: tuple[int, ...]
    gateway: str


class Detour:
    """`inside(node, *command)` runs a command in the node's network namespace; TargetError if it fails."""

    def __init__(self, inside: Callable[..., None]) -> None:
        self._inside = inside
        self._proxies: Proxies | None = None
        self._nodes: list[int] = []

    def begin(self, places: Mapping[int, Place], settings: Mapping[str, Any]) -> None:
        self._nodes = list(places)
        proxies = self._proxies = Proxies()
        wires = {pair: self._wire(settings) for pair in itertools.permutations(places, 2)}
        for node in places:
            for table in ("nat", "filter"):
                self._inside(node, "iptables", "-t", table, "-N", CHAIN)
        for dialer, node in wires:
            gateway, there = places[dialer].gateway, places[node]
            for port in there.ports:
                proxy = _free_port(gateway)
                proxies.add(
                    proxy,
                    lambda port=port: port,  # type: ignore[misc]
                    wires[dialer, node],
                    wires[node, dialer],
                    listens=gateway,
                    host=there.address,
                )
                to = ("-p", "tcp", "-d", there.address, "--dport", str(port))
                self._inside(dialer, "iptables", "-t", "nat", "-A", CHAIN, *to, "-j", "DNAT",
                             "--to-destination", f"{gateway}:{proxy}")  # fmt: skip
                # Of a connection that was open before: the other end hears of it too.
                self._inside(dialer, "iptables", "-A", CHAIN, *to, "!", "--tcp-flags", "RST", "RST",
                             "-j", "REJECT", "--reject-with", "tcp-reset")  # fmt: skip
        for node in places:
            for table in ("nat", "filter"):
                self._inside(node, "iptables", "-t", table, "-I", "OUTPUT", "-j", CHAIN)

    @staticmethod
    def _wire(settings: Mapping[str, Any]) -> Wire:
        wire = Wire()
        wire.delay_s = settings["delay_ms"] / 1000
        wire.jitter_s = settings.get("jitter_ms", 0) / 1000
        return wire

    def end(self) -> None:
        """As often as one likes."""
        for node in self._nodes:
            for table in ("nat", "filter"):
                for words in (("-D", "OUTPUT", "-j", CHAIN), ("-F", CHAIN), ("-X", CHAIN)):
                    with contextlib.suppress(TargetError):  # there is none, or no container
                        self._inside(node, "iptables", "-t", table, *words)
        self._nodes = []
        if self._proxies is not None:
            self._proxies.close()
            self._proxies = None


def _free_port(host: str) -> int:
    with socket.socket() as sock:
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
        return port
