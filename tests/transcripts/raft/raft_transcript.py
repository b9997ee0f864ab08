"""Runs a transcript: commands to a small cluster of cores, and what they did, as text that a person can
review.

A transcript is a text file of blocks: lines of one or more commands, a line of four dashes, the expected
output, an empty line. Lines that begin with # are for the reader. Nothing happens by itself: time passes by
`tick` and `wait`, messages arrive by `deliver`, writes become durable by `persist` and `sync`. The commands
are the methods `do_…` below.

python tests/transcripts/raft/raft_transcript.py FILE…      rewrites the expected outputs; review the diff
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from odradek.raft.config import RaftConfig
from odradek.raft.effects import (
    AddVoter,
    AdvanceLogStart,
    AppendEntries,
    BecameLeader,
    Committed,
    Effect,
    Fatal,
    InstallSnapshot,
    LeaderChanged,
    LostLeadership,
    PeerUnreachable,
    PersistQuorumState,
    Propose,
    RemoveVoter,
    Resign,
    SendMessage,
    Sync,
    Tick,
    TruncateLog,
    VoterChangeEnded,
    WriteSnapshotChunk,
)
from odradek.raft.log_index import SnapshotId
from odradek.raft.messages import (
    Batch,
    BeginQuorumEpochRequest,
    ControlKind,
    EndQuorumEpochRequest,
    FetchRequest,
    FetchResponse,
    FetchSnapshotRequest,
    FetchSnapshotResponse,
    Message,
    Response,
    VoteRequest,
    VoteResponse,
)
from odradek.raft.testing.replica import DurableState, MemoryReplica, Snapshot
from odradek.raft.voters import ReplicaKey, Voter, VoterSet
from odradek.wire.errors import ErrorCode

SETTLE_ROUNDS_MAX = 200


class Watched(MemoryReplica):
    """Notes every effect as it is executed."""

    diary: list[str]

    def _apply(self, effect: Effect) -> None:
        self.diary.append(f"{self.me.id}: {describe(effect)}")
        super()._apply(effect)


class NodeRandom(Random):
    """Draws that depend on nothing but the node: the timeouts of node N are N eighths of the way to their maximum."""

    def __init__(self, node: int) -> None:
        super().__init__(node)
        self._node = node
        self._count = 0

    def randrange(self, stop: int) -> int:  # type: ignore[override]
        return stop * self._node // 8

    def getrandbits(self, k: int) -> int:
        self._count += 1
        return (self._node << 40) + self._count


def key(text: str) -> ReplicaKey:
    return ReplicaKey(int(text), bytes([int(text)]) * 16)


class Transcript:
    """The cluster that a file talks to."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.rngs: dict[int, NodeRandom] = {}
        self.config = RaftConfig()
        self.bootstrap = VoterSet()
        self.disks: dict[int, DurableState] = {}
        self.replicas: dict[int, Watched] = {}
        self.in_flight: list[tuple[int, int, Message]] = []
        self.diary: list[str] = []

    def run(self, commands: list[str]) -> str:
        self.diary.clear()
        for command in commands:
            name, *args = command.split()
            getattr(self, f"do_{name.replace('-', '_')}")(*args)
        return "\n".join(self.diary) or "(nothing)"

    def _act(self, replica: Watched, action: Callable[[], object]) -> None:
        before = status(replica)
        action()
        for send in replica.outbox:
            self.in_flight.append((replica.me.id, send.to.id, send.message))
        replica.outbox.clear()
        replica.notices.clear()
        if status(replica) != before:
            self.diary.append(f"{replica.me.id}= {status(replica)}")

    # ---- commands

    def do_cluster(self, *args: str) -> None:
        """cluster voters=1,2,3 [retained=1]: the static or first voters, and settings."""
        values = dict(arg.split("=") for arg in args)
        self.bootstrap = VoterSet.of(Voter(key(one)) for one in values["voters"].split(","))
        self.config = RaftConfig(snapshots_retained=int(values.get("retained", 2)), snapshot_chunk_bytes=16)

    def do_start(self, *names: str) -> None:
        """start N…: the process begins, on what the disk holds."""
        for name in names:
            node = int(name)
            disk = self.disks.setdefault(node, DurableState())
            rng = self.rngs.setdefault(node, NodeRandom(node))
            replica = Watched(key(name), self.bootstrap, self.config, disk, rng, self._find_snapshot)
            replica.diary = self.diary
            self.replicas[node] = replica
            self._act(replica, lambda replica=replica: replica.start(self.now_ms))  # type: ignore[misc]
            self.diary.append(f"{node}= {status(replica)}")

    def do_crash(self, *names: str) -> None:
        """crash N…: power loss; what was not durable is gone."""
        for name in names:
            self.replicas.pop(int(name)).crash()

    def do_tick(self, name: str) -> None:
        """tick N: time moves to the next deadline of N, which hears of it."""
        replica = self.replicas[int(name)]
        deadline_ms = replica.core.next_deadline_ms()
        assert deadline_ms is not None, f"{name} has no deadline"
        self.now_ms = max(self.now_ms, deadline_ms)
        self.diary.append(f"t={self.now_ms}")
        self._act(replica, lambda: replica.step(Tick(), self.now_ms))

    def do_wait(self, duration_ms: str) -> None:
        """wait MS: time passes, nobody looks at it yet."""
        self.now_ms += int(duration_ms)

    def do_persist(self, name: str) -> None:
        """persist N: the oldest vote-file write of N becomes durable."""
        replica = self.replicas[int(name)]
        self._act(replica, lambda: replica.complete_persist(self.now_ms))

    def do_sync(self, name: str) -> None:
        """sync N: the fsync under way at N is done."""
        replica = self.replicas[int(name)]
        self._act(replica, lambda: replica.complete_sync(self.now_ms))

    def do_install(self, name: str) -> None:
        """install N: the downloaded snapshot is durable at N."""
        replica = self.replicas[int(name)]
        self._act(replica, lambda: replica.complete_install(self.now_ms))

    def do_deliver(self, *routes: str) -> None:
        """deliver A-B…: everything in flight from A to B arrives, in order. `*` stands for any node."""
        for route in routes:
            for sender, to, message in self._take(route):
                if to in self.replicas:
                    self.diary.append(f"{sender} → {to}: {describe_message(message)}")
                    replica = self.replicas[to]
                    self._act(replica, lambda: replica.step(message, self.now_ms))  # noqa: B023 - called at once

    def do_drop(self, *routes: str) -> None:
        """drop A-B…: everything in flight from A to B is lost."""
        for route in routes:
            for _ in self._take(route):
                pass

    def _take(self, route: str) -> Iterator[tuple[int, int, Message]]:
        a, b = route.split("-")
        taken = [m for m in self.in_flight if a in ("*", str(m[0])) and b in ("*", str(m[1]))]
        self.in_flight = [m for m in self.in_flight if m not in taken]
        yield from taken

    def do_settle(self, *names: str) -> None:
        """settle [N…]: messages arrive and disks work among these (all) nodes until nothing moves; prints
        the outcome.
        """
        among = {int(name) for name in names} or set(self.replicas)
        for _ in range(SETTLE_ROUNDS_MAX):
            if not self._settle_one(among):
                break
        else:
            raise AssertionError("does not settle")
        self.diary.clear()
        self.do_state()

    def _settle_one(self, among: set[int]) -> bool:
        for node in sorted(among & set(self.replicas)):
            replica = self.replicas[node]
            if replica.pending_persists:
                self.do_persist(str(node))
                return True
            if replica.pending_sync is not None:
                self.do_sync(str(node))
                return True
            if replica.pending_install is not None:
                self.do_install(str(node))
                return True
        for at, (sender, to, message) in enumerate(self.in_flight):
            if to in self.replicas and {sender, to} <= among:
                del self.in_flight[at]
                replica = self.replicas[to]
                self._act(replica, lambda: replica.step(message, self.now_ms))  # noqa: B023 - called at once
                return True
        return False

    def do_propose(self, name: str, count: str = "1") -> None:
        """propose N [COUNT]: the leader's application appends a batch."""
        replica = self.replicas[int(name)]
        self._act(
            replica,
            lambda: replica.step(Propose(int(count), self.rngs[int(name)].getrandbits(60)), self.now_ms),
        )

    def do_snapshot(self, name: str) -> None:
        """snapshot N: of everything committed there."""
        replica = self.replicas[int(name)]
        self._act(replica, lambda: replica.create_snapshot(self.now_ms))

    def do_resign(self, name: str) -> None:
        replica = self.replicas[int(name)]
        self._act(replica, lambda: replica.step(Resign(), self.now_ms))

    def do_unreachable(self, name: str, peer: str) -> None:
        """unreachable N PEER: N's connection to PEER was refused."""
        replica = self.replicas[int(name)]
        self._act(replica, lambda: replica.step(PeerUnreachable(int(peer)), self.now_ms))

    def do_add_voter(self, name: str, voter: str) -> None:
        replica = self.replicas[int(name)]
        self._act(replica, lambda: replica.step(AddVoter(Voter(key(voter))), self.now_ms))

    def do_remove_voter(self, name: str, voter: str) -> None:
        replica = self.replicas[int(name)]
        self._act(replica, lambda: replica.step(RemoveVoter(key(voter)), self.now_ms))

    def do_state(self) -> None:
        """state: every running node."""
        for node in sorted(self.replicas):
            self.diary.append(f"{node}= {status(self.replicas[node])}")

    def _find_snapshot(self, snapshot: SnapshotId) -> Snapshot:
        return next(disk.snapshots[snapshot] for disk in self.disks.values() if snapshot in disk.snapshots)


# ---- how things are written


def status(replica: MemoryReplica) -> str:
    core = replica.core
    log = core.log
    epochs = " ".join(f"{epoch}@{offset}" for offset, epoch in log.epochs) or "empty"
    start = f" from {log.start.offset}" if log.start.offset else ""
    voted = "" if core.voted is None else f" voted={core.voted.id}"
    known = "none" if core.leader_id < 0 else str(core.leader_id)
    observer = "" if core.is_voter else " (observer)"
    return (
        f"{core.state.value}{observer} epoch={core.epoch} leader={known}{voted} "
        f"log[{epochs}{start} to {log.end_offset}, fsynced {log.synced_end}] hw={core.high_watermark}"
    )


def describe_batch(batch: Batch) -> str:
    kind = "" if batch.control is ControlKind.NONE else f" {batch.control.value}"
    voters = "" if batch.voters is None else f" voters={','.join(map(str, batch.voters.ids))}"
    return f"[{batch.base_offset}, {batch.end_offset}) epoch {batch.epoch}{kind}{voters}"


def describe(effect: Effect) -> str:
    match effect:
        case PersistQuorumState(sequence, state):
            voted = "nobody" if state.voted is None else state.voted.id
            leader = "none" if state.leader_id < 0 else state.leader_id
            return f"persist #{sequence} epoch={state.epoch} leader={leader} voted={voted}"
        case AppendEntries(batches):
            return "append " + ", ".join(map(describe_batch, batches))
        case Sync(_, end_offset):
            return f"fsync to {end_offset}"
        case TruncateLog(end_offset):
            return f"truncate to {end_offset}"
        case SendMessage(to, message, after):
            held = f"  (after persist #{after})" if after else ""
            return f"send {to.id}: {describe_message(message)}{held}"
        case Committed(high_watermark):
            return f"committed to {high_watermark}"
        case BecameLeader(epoch, start):
            return f"leads epoch {epoch} from {start}"
        case LostLeadership(epoch):
            return f"leads epoch {epoch} no more"
        case LeaderChanged(epoch, leader_id):
            return f"leader of {epoch} is {'unknown' if leader_id < 0 else leader_id}"
        case WriteSnapshotChunk(snapshot, position, data):
            return f"write {len(data)} bytes at {position} of snapshot {snapshot}"
        case InstallSnapshot(snapshot):
            return f"install snapshot {snapshot}"
        case AdvanceLogStart(start, obsolete):
            return f"delete below {start.offset}, snapshots {list(obsolete)}"
        case VoterChangeEnded(error, reason):
            return "voter change done" if error is ErrorCode.NONE else f"voter change: {error.name}, {reason}"
        case Fatal(reason):
            return f"FATAL {reason}"
    raise AssertionError(effect)


def describe_message(message: Message) -> str:
    text = type(message).__name__.removesuffix("Request").replace("Response", "-reply")
    text = f"{text} epoch={message.epoch}"
    match message:
        case VoteRequest():
            text += f" end={message.last.offset}/{message.last.epoch}"
            text = text.replace("Vote", "PreVote", 1) if message.pre_vote else text
        case VoteResponse():
            text += " granted" if message.granted else " refused"
            text = text.replace("Vote", "PreVote", 1) if message.pre_vote else text
        case EndQuorumEpochRequest():
            text += f" successors={','.join(str(one.id) for one in message.successors)}"
        case FetchRequest():
            text += f" from={message.fetch_offset}/{message.last_fetched_epoch} hw={message.high_watermark}"
        case FetchResponse():
            text += f" hw={message.high_watermark}"
            text += (
                f" diverging={message.diverging.offset}/{message.diverging.epoch}"
                if message.diverging
                else ""
            )
            text += f" snapshot={message.snapshot}" if message.snapshot else ""
            text += "".join(f" {describe_batch(batch)}" for batch in message.batches)
        case FetchSnapshotRequest():
            text += f" {message.snapshot} at {message.position}"
        case FetchSnapshotResponse():
            text += f" {message.snapshot} at {message.position} of {message.size}: {len(message.data)} bytes"
        case BeginQuorumEpochRequest():
            pass
    if isinstance(message, Response):
        text += "" if message.leader_id < 0 else f" leader={message.leader_id}"
        text += "" if message.error is ErrorCode.NONE else f" {message.error.name}"
    return text


# ---- files


def blocks(text: str) -> Iterator[tuple[list[str], list[str], str]]:
    """(comment and empty lines before, commands, expected output) of each block."""
    comments: list[str] = []
    commands: list[str] = []
    lines = iter(text.splitlines())
    for line in lines:
        if line == "----":
            output: list[str] = []
            for expected in lines:
                if not expected:
                    break
                output.append(expected)
            yield comments, commands, "\n".join(output)
            comments, commands = [], []
        elif not line or line.startswith("#"):
            comments.append(line)
        else:
            commands.append(line)
    assert not commands, f"commands without output: {commands}"


def play(text: str) -> str:
    """The same transcript with the outputs that the core gives today."""
    transcript = Transcript()
    parts: list[str] = []
    for comments, commands, _ in blocks(text):
        parts += comments
        parts += [*commands, "----", transcript.run(commands), ""]
    return "\n".join(parts)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(play(path.read_text(encoding="utf-8")), encoding="utf-8")
