"""A controller that adds itself to the voters: `controller.quorum.auto.join.enable` (KIP-853).

One that comes back with a new disk has another directory id: the voter that it was is removed first. Both are ordinary
requests to the active controller, which refuses them until this replica has caught up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from odradek.wire.errors import ErrorCode
from odradek.wire.messages.add_raft_voter import AddRaftVoterRequest, Listener
from odradek.wire.messages.remove_raft_voter import RemoveRaftVoterRequest

if TYPE_CHECKING:
    from odradek.controller.controller_node import MetadataQuorum
    from odradek.ports.clock import Clock
    from odradek.ports.timers import TimerQueue
    from odradek.raft.voters import Endpoint

KEY = "controller.quorum.auto.join.enable"
PAUSE_MS = 500
"""Before the first request and between two: a replica needs a moment to catch up."""
TIMEOUT_MS = 5_000


class QuorumJoin:
    """Call `voters_changed` whenever they do."""

    def __init__(
        self,
        quorum: MetadataQuorum,
        cluster_id: str,
        endpoints: tuple[Endpoint, ...],
        clock: Clock,
        timers: TimerQueue,
    ) -> None:
        self._quorum = quorum
        self._cluster_id = cluster_id
        self._endpoints = endpoints
        self._clock = clock
        self._timers = timers
        self._trying = False

    def voters_changed(self) -> None:
        if not self._trying and self._is_outside:
            self._trying = True
            self._later()

    @property
    def _is_outside(self) -> bool:
        """There are voters that can be changed, and this replica is none of them."""
        raft = self._quorum.raft
        return raft.voters.has_all_directories and not raft.voters.contains(raft.me)

    def _later(self) -> None:
        self._timers.at(self._clock.monotonic_ms() + PAUSE_MS, self._try)

    def _try(self, now_ms: int) -> None:
        if not self._is_outside:
            self._trying = False
            return
        request = self._request()
        self._quorum.handle(request, request.MAX_VERSION, now_ms, self._answered, timeout_ms=TIMEOUT_MS)

    def _request(self) -> Any:
        raft = self._quorum.raft
        former = next((voter for voter in raft.voters.voters if voter.id == raft.me.id), None)
        if former is not None:
            return RemoveRaftVoterRequest(
                cluster_id=self._cluster_id, voter_id=former.id, voter_directory_id=former.key.directory_id
            )
        return AddRaftVoterRequest(
            cluster_id=self._cluster_id,
            timeout_ms=TIMEOUT_MS,
            voter_id=raft.me.id,
            voter_directory_id=raft.me.directory_id,
            listeners=[Listener(*endpoint) for endpoint in self._endpoints],
        )

    def _answered(self, response: Any) -> None:
        """Whatever it says: the log tells whether this replica votes now."""
        if response.error_code == ErrorCode.UNSUPPORTED_VERSION:
            self._trying = False  # static voters: until they change
        else:
            self._later()
