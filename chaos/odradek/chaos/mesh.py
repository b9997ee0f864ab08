"""The network between nodes that run on one machine: a proxy for each of them on the way to each other one.

Node 0 stands for all clients. What is said here of a pair holds for every connection between the two, whoever
opened it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import permutations
from typing import Any

from odradek.chaos.proxy import Proxies, Wire

CLIENTS = 0


class Mesh:
    """`peers[i, j]`: the port where node i finds node j. `clients[j]`: where clients find node j."""

    def __init__(
        self,
        ids: Iterable[int],
        first_port: int,
        internal_port: Callable[[int], int | None],
        client_ports: Mapping[int, int],
        seed: int = 0,
    ) -> None:
        self._ids = sorted(ids)
        self._proxies = Proxies(seed)
        self._wires = {
            pair: Wire() for pair in permutations((CLIENTS, *self._ids), 2)
        }  # fmt: skip
        ports = iter(range(first_port, 65_536))
        self.peers: dict[tuple[int, int], int] = {}
        self.clients: dict[int, int] = {}
        for dialer, node in permutations(self._ids, 2):
            self.peers[dialer, node] = next(ports)
            self._add(self.peers[dialer, node], dialer, node, lambda node=node: internal_port(node))  # type: ignore[misc]
        for node, port in client_ports.items():
            self.clients[node] = next(ports)
            self._add(self.clients[node], CLIENTS, node, lambda port=port: port)  # type: ignore[misc]

    def _add(self, port: int, dialer: int, node: int, target: Callable[[], int | None]) -> None:
        self._proxies.add(port, target, self._wires[dialer, node], self._wires[node, dialer])

    def silence(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Nothing that the first of a pair sends reaches the second."""
        self._change([self._wires[pair] for pair in pairs], Wire.silence)

    def shape(self, *, clients: bool = False, **settings: Any) -> None:
        """Between all nodes; to and from clients too if asked. Attributes of `Wire`."""

        def set_all(wire: Wire) -> None:
            for name, value in settings.items():
                setattr(wire, name, value)

        chosen = [wire for pair, wire in self._wires.items() if clients or CLIENTS not in pair]
        self._change(chosen, set_all)

    def heal(self) -> None:
        self._change(list(self._wires.values()), Wire.heal)

    def _change(self, wires: list[Wire], step: Callable[[Wire], object]) -> None:
        self._proxies.change(lambda: [step(wire) for wire in wires])

    def close(self) -> None:
        self._proxies.close()


def pairs_of(kind: str, node: int, others: Iterable[int], direction: str = "out") -> list[tuple[int, int]]:
    """What is silent: (from, to). `others`: those the fault is about, without `node`."""
    rest = sorted(others)
    out = [(node, other) for other in rest]
    into = [(other, node) for other in rest]
    if kind in ("isolate", "cut-followers"):
        return out + into
    if kind == "one-way":
        return out if direction == "out" else into
    if kind == "bridge":
        half = (len(rest) + 1) // 2
        return [
            pair for pair in permutations(rest, 2) if (pair[0] in rest[:half]) != (pair[1] in rest[:half])
        ]
    raise ValueError(f"{kind} is no partition")
