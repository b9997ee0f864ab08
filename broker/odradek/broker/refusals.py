"""When a node must see that it does not belong here: refused for some time, and without a leader. Pure.

A refusal may be the peer's fault, or pass: a controller may not have noticed yet that the process before this one is
gone. Being unreachable is no refusal. And whoever the leader of the quorum talks to belongs, whatever others say.
"""

from __future__ import annotations

PATIENCE_MS = 8_000
"""Longer than a broken connection can go unnoticed: see `bulk_keepalive_timeout_ms`."""


class Refusals:
    """Peers are named by id, or by address while nobody knows who is there."""

    def __init__(self) -> None:
        self._since: dict[int | str, tuple[int, str]] = {}

    def heard(self, peer: int | str, text: str | None, now_ms: int) -> None:
        """`text`: why there is no talk with this peer; None: there is."""
        if text is None:
            self._since.pop(peer, None)
        else:
            self._since[peer] = self._since.get(peer, (now_ms, ""))[0], text

    def verdict(self, leader_heard_ms: int, now_ms: int) -> str | None:
        """Why this node must stop; None while it need not. `leader_heard_ms`: when the leader last answered it."""
        for since_ms, text in self._since.values():
            if now_ms - max(since_ms, leader_heard_ms) >= PATIENCE_MS:
                return text
        return None


def others_remembered(directory: str, brokers: list[int]) -> str:
    """Why a node that is alone may not go on with metadata that knows others: it would make a second history of it."""
    return (
        f"{directory} belongs to a cluster with the brokers {', '.join(map(str, brokers))}, and this node was started "
        "alone: start it with its cluster (odradek server with its server.properties, or odradek cluster start), "
        "or choose another directory."
    )
