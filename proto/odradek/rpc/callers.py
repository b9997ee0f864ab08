"""Which process may call under which node id. Pure."""

from __future__ import annotations

from collections import Counter, deque

from odradek.rpc.identity import Mismatch, NodeIdentity, check_caller

NODES_MAX = 1_000
OUTDATED_MAX = 8
"""Earlier processes remembered of each node."""
REFUSALS_MAX = 64
REFUSAL_PAUSE_S = 60.0
"""The same refusal is worth a line so often: who is refused tries again every two seconds."""


class Callers:
    """The newest process of each node that has called, with the number of its streams.

    Of two processes with one id and one directory the newer one counts, and the older one stays out from then on:
    it may have been stopped for a while, or be a copy. With another directory, the one that is connected counts.
    """

    def __init__(self, me: NodeIdentity) -> None:
        self._me = me
        self._newest: dict[int, NodeIdentity] = {}
        self._streams: Counter[int] = Counter()
        self._outdated: dict[int, deque[bytes]] = {}
        """Incarnations that another process of the node has followed."""
        self._refusals: dict[str, float] = {}

    def admit(self, caller: NodeIdentity) -> None:
        """One more stream of this process. Mismatch if it is not to be served."""
        if caller == self._me:
            self._streams[caller.node_id] += 1  # this node has found itself
            return
        check_caller(self._me, caller)
        node_id = caller.node_id
        known = self._newest.get(node_id)
        if known is not None and known != caller:
            self._judge(known, caller)
            outdated = self._outdated.setdefault(node_id, deque(maxlen=OUTDATED_MAX))
            if known.incarnation != caller.incarnation:
                outdated.append(known.incarnation)
        if known is None and len(self._newest) >= NODES_MAX:
            self._forget_one()
        self._newest[node_id] = caller
        self._streams[node_id] += 1

    def _judge(self, known: NodeIdentity, caller: NodeIdentity) -> None:
        node_id = caller.node_id
        if known.directory_id != caller.directory_id and self._streams[node_id]:
            raise Mismatch(
                f"{caller} calls while node {node_id} with another directory is connected: two nodes have "
                f"node.id={node_id}; give each node an id of its own"
            )
        if caller.incarnation in self._outdated.get(node_id, ()):
            raise Mismatch(
                f"{caller} calls, but another process has been started as node {node_id} since: stop the older one; "
                f"if they are two nodes, give each node an id of its own"
            )

    def _forget_one(self) -> None:
        for node_id in self._newest:
            if not self._streams[node_id]:
                del self._newest[node_id]
                self._outdated.pop(node_id, None)
                return
        raise Mismatch(f"{NODES_MAX} nodes are connected already")

    def ended(self, caller: NodeIdentity) -> None:
        """A stream of an admitted process is over."""
        self._streams[caller.node_id] -= 1
        if not self._streams[caller.node_id]:
            del self._streams[caller.node_id]

    def is_news(self, refusal: str, now_s: float) -> bool:
        """Whether this refusal was not told within the last minute."""
        told_s = self._refusals.get(refusal)
        if told_s is not None and now_s - told_s < REFUSAL_PAUSE_S:
            return False
        if told_s is None and len(self._refusals) >= REFUSALS_MAX:
            self._refusals.clear()
        self._refusals[refusal] = now_s
        return True
