"""R1 to R8 and M1 over the metadata logs of all nodes, after each step of one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from odradek.raft.messages import Message, VoteResponse
from odradek.raft.raft_driver import CommittedBatch
from odradek.raft.voters import ReplicaKey, Voter, VoterHistory
from odradek.simulation.partition_model import Mirror
from odradek.simulation.trace import InvariantViolation
from odradek.storage.batch import HEADER, HEADER_SIZE, LOG_OVERHEAD
from odradek.storage.checkpoints import parse_properties
from odradek.storage.layout import LOG_SUFFIX, META_PROPERTIES, METADATA_LOG_DIR
from odradek.wire.uuid import ZERO_UUID, uuid_from_string

if TYPE_CHECKING:
    from odradek.simulation.machine import Machine, Process
    from odradek.storage.memory_disk import MemoryDisk


class RaftView:
    """What was seen last of one life of a node."""

    def __init__(self, mirror: Mirror) -> None:
        self.mirror = mirror
        self.signature: tuple[object, ...] = ()
        self.leading_epoch = -1
        self.epoch_start = -1
        self.high_watermark = 0


class RaftChecks:
    """What has been seen so far over all lives."""

    def __init__(self, machines: dict[int, Machine]) -> None:
        self._machines = machines
        self._leaders: dict[int, int] = {}
        self._votes: dict[tuple[int, int], ReplicaKey] = {}
        self._told: dict[int, int] = {}
        """Highest epoch that a node has spoken in."""
        self._digests: dict[tuple[int, int], int] = {}
        self._committed: dict[int, int] = {0: 0}
        self._commits: dict[int, int] = {}
        """How far the leader of each epoch committed: binds leaders of later epochs (R3)."""
        self.committed_end = 0
        self._claimed_end = 0
        """What leaders that failed in the same event may have told others to be committed."""
        self._applied: dict[int, int] = {}
        """CRC of each committed batch that any node has applied, by base offset (M1)."""
        self._views: dict[Process, RaftView] = {}
        self._last_voters = -1

    # -- lives ---------------------------------------------------------------------------------------------------

    def attach(self, process: Process) -> None:
        """Before the node starts: listen to what it applies."""
        quorum = process.node.quorum
        inner = quorum.on_commit

        def on_commit(batches: list[CommittedBatch]) -> None:
            self._check_applied(process, batches)
            inner(batches)

        quorum.on_commit = on_commit  # type: ignore[method-assign]

    def detach(self, process: Process) -> None:
        self._views.pop(process, None)

    def after_start(self, process: Process) -> None:
        """R4: what was said in the name of an epoch is still known after a crash."""
        machine = process.machine
        epoch = process.node.quorum.raft.epoch
        told = self._told.get(machine.id, 0)
        if epoch < told:
            raise InvariantViolation(f"R4: {machine.host} spoke in epoch {told} and remembers {epoch}")
        log = process.node.quorum.raft._log
        assert log is not None
        self._views[process] = RaftView(Mirror(machine.disk, log._log, self._digest_at))
        self.after_step(process)

    def _digest_at(self, offset: int) -> int:
        return self._committed.get(offset, 0)

    # -- steps ---------------------------------------------------------------------------------------------------

    def after_step(self, process: Process) -> None:
        view = self._views.get(process)
        if view is None:
            return
        core = process.node.quorum.raft._core
        assert core is not None
        log = view.mirror.log
        signature = (
            core.epoch, core.is_leader, core.high_watermark, log.written_end_offset, log._truncations,
            core.log.start.offset,
        )  # fmt: skip
        if signature == view.signature:
            return
        view.signature = signature
        self._check_matching(process, view)
        led = view.leading_epoch  # its last act in this event may have been to commit its own removal
        if core.is_leader and view.leading_epoch != core.epoch:
            self._check_leader(process, view, core.epoch)
        elif not core.is_leader:
            view.leading_epoch = -1
        if core.is_leader:
            self._check_voters(process, core.voters)
        if core.is_leader and not core.log.is_synced:
            process.machine.cluster.nemesis.on_unsynced(process.machine)
        if core.high_watermark > view.high_watermark:
            leads = core.epoch if core.is_leader else led if core.high_watermark > self.committed_end else -1
            self._check_commit(process, view, core.high_watermark, leads)
        self._check_start(process, view)

    def after_failure(self, process: Process) -> None:
        """The node gives up. Its core may believe in what its disk has just refused, so it is not looked at; but what
        it committed before, in the same event, it may have told.
        """
        core = process.node.quorum.raft._core
        if core is not None and core.is_leader:
            self._claimed_end = max(self._claimed_end, core.high_watermark)

    def _check_matching(self, process: Process, view: RaftView) -> None:
        """R2 and R6."""
        mirror = view.mirror
        for batch in mirror.follow():
            known = self._digests.setdefault((batch.end, batch.epoch), batch.digest)
            if known != batch.digest and mirror.start == 0:
                raise InvariantViolation(
                    f"R2: two logs with different batches below offset {batch.end} of epoch {batch.epoch}, one at "
                    f"{process.machine.host}"
                )
        if mirror.truncated and mirror.end < view.high_watermark:
            raise InvariantViolation(
                f"R6: {process.machine.host} truncates to {mirror.end}, below its high watermark {view.high_watermark}"
            )

    def _check_leader(self, process: Process, view: RaftView, epoch: int) -> None:
        node = process.machine.id
        other = self._leaders.setdefault(epoch, node)
        if other != node:
            raise InvariantViolation(f"R1: nodes {other} and {node} both lead epoch {epoch}")
        process.machine.cluster.trace.note(process.machine.host, "leads the quorum", epoch)
        process.machine.cluster.trace.count("raft: elected")
        view.leading_epoch, view.epoch_start = epoch, view.mirror.end
        earlier = max((end for each, end in self._commits.items() if each < epoch), default=0)
        if earlier > view.mirror.start:
            found = view.mirror.digest_below(earlier)
            if found != self._committed[earlier]:
                raise InvariantViolation(
                    f"R3: node {node} leads epoch {epoch} without what is committed below {earlier}"
                )

    def _check_voters(self, process: Process, history: VoterHistory) -> None:
        """R8: one change at a time, by one voter."""
        node = process.machine.id
        if sum(offset >= self.committed_end for offset in history.offsets) > 1:
            raise InvariantViolation(f"R8: two uncommitted voter changes at node {node}")
        if history.offsets and history.last_offset != self._last_voters:
            self._last_voters = history.last_offset
            process.machine.cluster.trace.note(process.machine.host, "voters", str(history.current.voters))
            if len(history.offsets) > 1 and history.previous.changes_to(history.current) > 1:
                raise InvariantViolation(
                    f"R8: from {history.previous} to {history.current} more than one voter changes"
                )

    def _check_commit(self, process: Process, view: RaftView, end: int, leads: int) -> None:
        """`leads`: the epoch in which this node has committed it, -1 if it follows."""
        node = process.machine.id
        view.high_watermark = end
        digest = view.mirror.digest_below(end)
        if digest is None:
            if end == view.mirror.start and not view.mirror.batches:
                return  # restarted at a snapshot
            if end > view.mirror.start:
                raise InvariantViolation(f"R3: node {node} commits {end}, where no batch of its log ends")
            return
        if self._committed.setdefault(end, digest) != digest:
            raise InvariantViolation(f"R3: node {node} commits another prefix below {end}")
        if leads >= 0:
            batch = view.mirror.at(end - 1)
            if batch is None or batch.epoch != leads:
                raise InvariantViolation(
                    f"R5: node {node} commits {end} before an entry of its epoch {leads}"
                )
            self._commits[leads] = end
            self._check_durable(process, end)
        elif end > max(self.committed_end, self._claimed_end):
            raise InvariantViolation(f"R5: node {node} follows to {end}, which no leader has committed")
        self.committed_end = max(self.committed_end, end)

    def _check_durable(self, process: Process, end: int) -> None:
        core = process.node.quorum.raft._core
        assert core is not None
        voters = core.voters.current
        holders = [voter.id for voter in voters.voters if self._holds(voter, end)]
        if len(holders) < voters.majority:
            raise InvariantViolation(
                f"R5: node {process.machine.id} commits {end}, which is durable on {holders} of {list(voters.ids)} only"
            )

    def _holds(self, voter: Voter, end: int) -> bool:
        """On the disk that this voter is; another one in its machine is another voter."""
        disk = self._machines[voter.id].disk
        own = voter.key.directory_id
        return own in (ZERO_UUID, directory_id(disk)) and durable_end(disk) >= end

    def _check_start(self, process: Process, view: RaftView) -> None:
        core = process.node.quorum.raft._core
        assert core is not None
        start = core.log.start
        if start.offset > 0 and not any(tuple(each) == tuple(start) for each in core.log.snapshots):
            raise InvariantViolation(
                f"R7: the log of {process.machine.host} starts at {start} without a snapshot of that"
            )

    # -- what is said and applied --------------------------------------------------------------------------------

    def on_message(self, process: Process, to: ReplicaKey, message: Message) -> None:
        """R4: a node speaks in epochs that never fall, and votes once in each."""
        node = process.machine.id
        self._told[node] = max(self._told.get(node, 0), message.epoch)
        if isinstance(message, VoteResponse) and message.granted and not message.pre_vote:
            process.machine.cluster.nemesis.on_vote(process.machine)
            before = self._votes.setdefault((node, message.epoch), to)
            if before.id != to.id:
                raise InvariantViolation(
                    f"R4: node {node} votes for {before.id} and {to.id} in epoch {message.epoch}"
                )

    def forget_disk(self, node: int) -> None:
        """The disk was replaced: another voter, which has promised nothing."""
        self._told.pop(node, None)
        self._votes = {key: to for key, to in self._votes.items() if key[0] != node}

    def _check_applied(self, process: Process, batches: list[CommittedBatch]) -> None:
        for batch in batches:
            crc = 0
            for record in batch.records:
                crc = crc32(record, crc)
            if self._applied.setdefault(batch.base_offset, crc) != crc:
                raise InvariantViolation(
                    f"M1: {process.machine.host} applies other records at {batch.base_offset} than another node"
                )


def directory_id(disk: MemoryDisk, directory: str = "/data") -> bytes:
    """Of the directory on a disk; ZERO_UUID if nobody has begun to use it."""
    path = f"{directory}/{META_PROPERTIES}"
    if not disk.exists(path):
        return ZERO_UUID
    return uuid_from_string(parse_properties(disk.read_file(path).decode())["directory.id"])


def durable_end(disk: MemoryDisk, directory: str = f"/data/{METADATA_LOG_DIR}") -> int:
    """Where the log on a disk would end after the worst power loss that is possible now."""
    end = 0
    try:
        node = disk._dir(directory)
    except OSError:
        return 0
    for name in sorted(node.durable):
        if not name.endswith(LOG_SUFFIX):
            continue
        file = node.durable[name]
        end = max(end, int(name.removesuffix(LOG_SUFFIX)))
        data, size = file.data, file.synced  # type: ignore[union-attr]
        if file.shadow is not None:  # type: ignore[union-attr]
            size = min(size, len(data))
        position = 0
        while position + HEADER_SIZE <= size:
            base, length, _, _, _, _, delta, *_ = HEADER.unpack_from(data, position)
            position += length + LOG_OVERHEAD
            if position > size:
                break
            end = base + delta + 1
    return end
