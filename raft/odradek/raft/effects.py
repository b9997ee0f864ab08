"""What goes into the core and what comes out of it, as data.

Effects are executed in the order in which they are listed. `SendMessage.after` says which vote-file write
must be durable before the message may leave; everything else that must wait for the disk is waited for
inside the core, which then hears `QuorumStatePersisted` or `LogSynced`. An effect is never wrong when its
completion comes late: completions name the sequence number or the generation that they belong to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from odradek.raft.log_index import SnapshotId
from odradek.raft.messages import Batch, Message
from odradek.raft.quorum_state import QuorumState
from odradek.raft.voters import ReplicaKey, Voter, VoterSet
from odradek.wire.errors import ErrorCode

# ---- in


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; due at `RaftCore.next_deadline_ms`."""


@dataclass(frozen=True, slots=True)
class Propose:
    """Leader only: append one batch of `count` records. The core assigns offset and epoch."""

    count: int
    data: object


@dataclass(frozen=True, slots=True)
class QuorumStatePersisted:
    sequence: int


@dataclass(frozen=True, slots=True)
class LogSynced:
    generation: int
    end_offset: int


@dataclass(frozen=True, slots=True)
class SnapshotCreated:
    """A local snapshot of committed records is durable under its final name."""

    snapshot: SnapshotId


@dataclass(frozen=True, slots=True)
class SnapshotInstalled:
    """The downloaded snapshot is durable and the log restarted at its end; or it was damaged (`ok` false)."""

    snapshot: SnapshotId
    ok: bool
    voters: VoterSet | None = None


@dataclass(frozen=True, slots=True)
class AddVoter:
    voter: Voter


@dataclass(frozen=True, slots=True)
class RemoveVoter:
    key: ReplicaKey


@dataclass(frozen=True, slots=True)
class Resign:
    """Give up leadership, if there is any: a graceful stop, or the application failed to lead."""


@dataclass(frozen=True, slots=True)
class PeerUnreachable:
    """The operating system refused the connection: this node's process is gone, no need to wait for a
    timeout.
    """

    node_id: int


Event: TypeAlias = (
    Message
    | Tick
    | Propose
    | QuorumStatePersisted
    | LogSynced
    | SnapshotCreated
    | SnapshotInstalled
    | AddVoter
    | RemoveVoter
    | Resign
    | PeerUnreachable
)

# ---- out


@dataclass(frozen=True, slots=True)
class PersistQuorumState:
    """Write the vote file; when it is durable, answer with `QuorumStatePersisted(sequence)`, in sequence."""

    sequence: int
    state: QuorumState


@dataclass(frozen=True, slots=True)
class AppendEntries:
    """Append to the page cache. `as_leader`: encode and stamp (else the bytes are stored as they came)."""

    batches: tuple[Batch, ...]
    as_leader: bool


@dataclass(frozen=True, slots=True)
class Sync:
    """fsync the log up to `end_offset`, then answer with `LogSynced(generation, end_offset)`. One is under
    way at most.
    """

    generation: int
    end_offset: int


@dataclass(frozen=True, slots=True)
class TruncateLog:
    end_offset: int


@dataclass(frozen=True, slots=True)
class LogRange:
    """Whole batches from `offset`, below `end_offset`; about `max_bytes`, but at least one."""

    offset: int
    end_offset: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class SnapshotRange:
    snapshot: SnapshotId
    position: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Send once vote-file write `after` is durable (0: at once), with the records or snapshot bytes named,
    if any.
    """

    to: ReplicaKey
    message: Message
    after: int
    read: LogRange | SnapshotRange | None = None


@dataclass(frozen=True, slots=True)
class Committed:
    """The high watermark rose: everything below may be shown to the application."""

    high_watermark: int


@dataclass(frozen=True, slots=True)
class BecameLeader:
    """The application leads once it has seen everything up to and with `epoch_start_offset` committed."""

    epoch: int
    epoch_start_offset: int


@dataclass(frozen=True, slots=True)
class LostLeadership:
    epoch: int


@dataclass(frozen=True, slots=True)
class LeaderChanged:
    """The epoch or the known leader (-1: none) changed."""

    epoch: int
    leader_id: int


@dataclass(frozen=True, slots=True)
class WriteSnapshotChunk:
    """Append to the temporary file of a download (position 0 starts it anew)."""

    snapshot: SnapshotId
    position: int
    data: bytes


@dataclass(frozen=True, slots=True)
class InstallSnapshot:
    """The download is complete: check, fsync, rename, restart the log at its end, answer
    `SnapshotInstalled`.
    """

    snapshot: SnapshotId


@dataclass(frozen=True, slots=True)
class AdvanceLogStart:
    """Delete the log below `start`, then the snapshots in `obsolete`."""

    start: SnapshotId
    obsolete: tuple[SnapshotId, ...]


@dataclass(frozen=True, slots=True)
class VoterChangeEnded:
    """An `AddVoter` or `RemoveVoter` is committed (`NONE`) or was refused or given up, with the reason."""

    error: ErrorCode
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Fatal:
    """A promise would be broken: stop the process. The core takes no further events."""

    reason: str


Effect: TypeAlias = (
    PersistQuorumState
    | AppendEntries
    | Sync
    | TruncateLog
    | SendMessage
    | Committed
    | BecameLeader
    | LostLeadership
    | LeaderChanged
    | WriteSnapshotChunk
    | InstallSnapshot
    | AdvanceLogStart
    | VoterChangeEnded
    | Fatal
)
