"""Which replica a consumer should rather read from (KIP-392), as Kafka's RackAwareReplicaSelector chooses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from odradek.replication.isr import Peer
from odradek.replication.leader import FollowerProgress, LeaderState

RACK_AWARE: Final = "org.apache.kafka.common.replica.RackAwareReplicaSelector"
LEADER: Final = "org.apache.kafka.common.replica.LeaderSelector"


def preferred_read_replica(
    leader: LeaderState, peers: Mapping[int, Peer], client_rack: str, fetch_offset: int
) -> int | None:
    """Broker id of the best replica in the client's rack, None if that is the leader itself or there is none.

    Only live members of the ISR that hold `fetch_offset`; of these the furthest, then the one caught up last.
    """
    own = peers.get(leader.local_id)
    if not client_rack or (own is not None and own.rack == client_rack):
        return None
    best: FollowerProgress | None = None
    for progress in leader.followers.values():
        peer = peers.get(progress.id)
        if peer is None or peer.fenced or peer.rack != client_rack or progress.id not in leader.isr.committed:
            continue
        if not 0 <= progress.start <= fetch_offset <= progress.end:
            continue
        if best is None or _rank(progress) > _rank(best):
            best = progress
    return best.id if best is not None else None


def _rank(progress: FollowerProgress) -> tuple[int, int, int]:
    return progress.end, progress.caught_up_ms, -progress.id
