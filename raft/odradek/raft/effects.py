"""What goes into the core and what comes out of it, as data.

Effects are executed in the order in which they are listed. `SendMessage.after` says which vote-file write
must be durable before the message may leave; everything else that must wait for the disk is waited for
inside the core, which then hears `QuorumStatePersisted` or `LogSynced`. An effect is never wrong when its
completion comes late: completions name the sequence number or the generation that they belong to.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from odradek.raft.log_index import SnapshotId
from odradek.raft.messages import Batch, Message
from odradek.raft.quorum_state import QuorumState
from odradek.raft.voters import ReplicaKey, Voter, VoterSet
from odradek.wire.errors import ErrorCode

# ---- in


class Tick(NamedTuple):
    """Time has passed; due at `RaftCore.next_deadline_ms`."""


class Propose(NamedTuple):
    """Leader only: append one batch of `count` records. The core assigns offset and epoch."""

    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls on it
    data: object


class QuorumStatePersisted(NamedTuple):
    sequence: int


class LogSynced(NamedTuple):
    generation: int
    end_offset: int


class SnapshotCreated(NamedTuple):
    """A local snapshot of committed records is durable under its final name."""

    snapshot: SnapshotId


class SnapshotInstalled(NamedTuple):
    """The downloaded snapshot is durable and the log restarted at its end; or it was damaged (`ok` false)."""

    snapshot: SnapshotId
    ok: bool
    voters: VoterSet | None = None


class AddVoter(NamedTuple):
    voter: Voter


class RemoveVoter(NamedTuple):
    key: ReplicaKey


class Resign(NamedTuple):
    """Give up leadership, if there is any: a graceful stop, or the application failed to lead."""


class PeerUnreachable(NamedTuple):
    """The operating system refused the connection: this node's process is gone, no need to wait for a
    timeout.
    """

    node_id: int


class Contact(NamedTuple):
    """A node that may know who leads, for a replica that knows no voter yet (`controller.quorum.bootstrap.servers`)."""

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
    | Contact
)

# ---- out


class PersistQuorumState(NamedTuple):
    """Write the vote file; when it is durable, answer with `QuorumStatePersisted(sequence)`, in sequence."""

    sequence: int
    state: QuorumState


class AppendEntries(NamedTuple):
    """Append to the page cache. `as_leader`: encode and stamp (else the bytes are stored as they came)."""

    batches: tuple[Batch, ...]
    as_leader: bool


class Sync(NamedTuple):
    """fsync the log up to `end_offset`, then answer with `LogSynced(generation, end_offset)`. One is under
    way at most.
    """

    generation: int
    end_offset: int


class TruncateLog(NamedTuple):
    end_offset: int


class LogRange(NamedTuple):
    """Whole batches from `offset`, below `end_offset`; about `max_bytes`, but at least one."""

    offset: int
    end_offset: int
    max_bytes: int


class SnapshotRange(NamedTuple):
    snapshot: SnapshotId
    position: int
    max_bytes: int


class SendMessage(NamedTuple):
    """Send once vote-file write `after` is durable (0: at once), with the records or snapshot bytes named,
    if any.
    """

    to: ReplicaKey
    message: Message
    after: int
    read: LogRange | SnapshotRange | None = None


class Committed(NamedTuple):
    """The high watermark rose: everything below may be shown to the application."""

    high_watermark: int


class BecameLeader(NamedTuple):
    """The application leads once it has seen everything up to and with `epoch_start_offset` committed."""

    epoch: int
    epoch_start_offset: int


class LostLeadership(NamedTuple):
    epoch: int


class LeaderChanged(NamedTuple):
    """The epoch or the known leader (-1: none) changed."""

    epoch: int
    leader_id: int


class WriteSnapshotChunk(NamedTuple):
    """Append to the temporary file of a download (position 0 starts it anew)."""

    snapshot: SnapshotId
    position: int
    data: bytes


class InstallSnapshot(NamedTuple):
    """The download is complete: check, fsync, rename, restart the log at its end, answer
    `SnapshotInstalled`.
    """

    snapshot: SnapshotId


class AdvanceLogStart(NamedTuple):
    """Delete the log below `start`, then the snapshots in `obsolete`."""

    start: SnapshotId
    obsolete: tuple[SnapshotId, ...]


class VoterChangeEnded(NamedTuple):
    """An `AddVoter` or `RemoveVoter` is committed (`NONE`) or was refused or given up, with the reason."""

    error: ErrorCode
    reason: str = ""


class Fatal(NamedTuple):
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
