"""When a node must see that it does not belong: refused by most of the other controllers, and for some time. Pure.

A single refusal may be the peer's fault, or pass: a controller may not have noticed yet that the process before this
one is gone. Being unreachable is no refusal, and being accepted by one controller takes its earlier refusals back.
"""

from __future__ import annotations

from collections.abc import Collection

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

    def verdict(self, controllers: Collection[int | str], now_ms: int) -> str | None:
        """Why this node must stop; None while it need not."""
        texts = [
            text
            for peer, (since_ms, text) in self._since.items()
            if peer in controllers and now_ms - since_ms >= PATIENCE_MS
        ]
        return texts[0] if 2 * len(texts) > len(controllers) else None
