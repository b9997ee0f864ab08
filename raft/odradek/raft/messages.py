"""What replicas of the metadata log say to each other: Kafka's Raft RPCs as plain data (KIP-595, 630, 853,
996).

Every message names its sender and the sender's epoch. `request_id` ties an answer to its question: an
answer that was not asked for, or is late, is dropped after its epoch has been looked at.

Nobody changes a message. The classes are not frozen because that quadruples what each of them costs at
start-up.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from odradek.raft.log_index import OffsetAndEpoch, SnapshotId
from odradek.raft.voters import ReplicaKey, VoterSet
from odradek.wire.errors import ErrorCode
from odradek.wire.uuid import ZERO_UUID


class ControlKind(Enum):
    """Which control batch a leader asks its driver to encode."""

    NONE = "none"
    LEADER_CHANGE = "leader-change"
    """A leader change record; with `voters`, followed by kraft.version 1 and the bootstrap voters."""
    VOTERS = "voters"


class LeaderChange(NamedTuple):
    """Content of the leader change record: who leads, who could vote, who granted."""

    leader: ReplicaKey
    voters: VoterSet
    granted: tuple[ReplicaKey, ...]


class Batch(NamedTuple):
    """Consecutive records of one epoch; the unit that is appended, sent and truncated.

    `data` is the encoded record batch, or None for a control batch that the driver has yet to encode. The
    core never looks inside: `voters` says that the batch puts another voter set in force.
    """

    base_offset: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls on it
    epoch: int
    data: object = None
    control: ControlKind = ControlKind.NONE
    voters: VoterSet | None = None

    @property
    def end_offset(self) -> int:
        return self.base_offset + self.count


@dataclass(slots=True, eq=False)
class Message:
    sender: ReplicaKey
    epoch: int
    request_id: int


@dataclass(slots=True, eq=False)
class Response(Message):
    leader_id: int
    """The leader of `epoch` as far as the sender knows, or -1."""
    error: ErrorCode


@dataclass(slots=True, eq=False)
class VoteRequest(Message):
    """With `pre_vote`, a question that binds nobody: would you vote for me in the next epoch?"""

    pre_vote: bool
    last: OffsetAndEpoch
    """End offset and last epoch of the candidate's log."""
    voter_directory_id: bytes = ZERO_UUID
    """The directory id that the candidate takes the receiver to have."""


@dataclass(slots=True, eq=False)
class VoteResponse(Response):
    pre_vote: bool
    granted: bool


@dataclass(slots=True, eq=False)
class BeginQuorumEpochRequest(Message):
    """The sender leads `epoch`. Repeated to voters that do not fetch."""


@dataclass(slots=True, eq=False)
class BeginQuorumEpochResponse(Response):
    pass


@dataclass(slots=True, eq=False)
class EndQuorumEpochRequest(Message):
    """The sender no longer leads `epoch`; `successors` are ordered by how far they fetched, best first."""

    successors: tuple[ReplicaKey, ...]


@dataclass(slots=True, eq=False)
class EndQuorumEpochResponse(Response):
    pass


@dataclass(slots=True, eq=False)
class FetchRequest(Message):
    """Pull. A voter's `fetch_offset` is an acknowledgement: everything below it is fsynced there."""

    fetch_offset: int
    last_fetched_epoch: int
    high_watermark: int
    """What the sender knows; a leader that knows more answers at once (KIP-1166)."""


@dataclass(slots=True, eq=False)
class FetchResponse(Response):
    """Exactly one of: an error, a `diverging` point, a `snapshot` to load first, or batches (or none)."""

    high_watermark: int = -1
    diverging: OffsetAndEpoch | None = None
    snapshot: SnapshotId | None = None
    batches: tuple[Batch, ...] = ()
    """Filled in by the driver from the log, see `SendMessage.records`."""


@dataclass(slots=True, eq=False)
class FetchSnapshotRequest(Message):
    snapshot: SnapshotId
    position: int


@dataclass(slots=True, eq=False)
class FetchSnapshotResponse(Response):
    """`data` from byte `position` of a snapshot of `size` bytes; filled in by the driver."""

    snapshot: SnapshotId
    position: int
    size: int = 0
    data: bytes = b""
