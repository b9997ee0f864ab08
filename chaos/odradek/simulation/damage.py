"""What becomes of disks by themselves: bits flip, files vanish, a disk is replaced. And the operator who sees to it.

Bits flip only where a CRC covers them (the records of a batch): of the rest Kafka's format says nothing. Files vanish
only if they can be made anew from the log. A damaged replica counts as lost until it was copied from the leader again.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from odradek.simulation.machine import DATA
from odradek.simulation.scheduler import MS
from odradek.simulation.voter_admin import VOTERS_MIN
from odradek.storage import layout
from odradek.storage.batch import HEADER, HEADER_SIZE, LOG_OVERHEAD
from odradek.storage.state import NO_LIMIT

if TYPE_CHECKING:
    from odradek.broker.partition import Partition
    from odradek.raft.voters import VoterSet
    from odradek.simulation.cluster import Cluster
    from odradek.simulation.machine import Machine
    from odradek.storage.log import Log
    from odradek.storage.memory_disk import MemoryDisk

DERIVED_SUFFIXES = (
    layout.INDEX_SUFFIX,
    layout.TIME_INDEX_SUFFIX,
    layout.TXN_INDEX_SUFFIX,
    layout.SNAPSHOT_SUFFIX,
)
DERIVED_FILES = (
    layout.RECOVERY_POINT_CHECKPOINT,
    layout.HIGH_WATERMARK_CHECKPOINT,
    layout.LOG_START_OFFSET_CHECKPOINT,
)
LOOK_AGAIN_US = 500 * MS


class DiskDamage:
    """Part of the nemesis: `note` tells of a fault, `later` does something unless the chaos is over by then."""

    def __init__(
        self,
        cluster: Cluster,
        rng: Random,
        note: Callable[..., None],
        later: Callable[[int, int, Callable[[], None]], None],
    ) -> None:
        self._cluster = cluster
        self._rng = rng
        self._note = note
        self._later = later

    # -- files ---------------------------------------------------------------------------------------------------

    def lose_files(self) -> None:
        """The process dies, and before it is back some of what can be made anew from the logs is gone."""
        machine = self._any_running()
        if machine is None:
            return
        machine.kill()
        lost = [path for path in derived_files(machine.disk) if self._rng.random() < 0.5]
        for path in lost:
            lose_file(machine.disk, path)
        self._note("files lost", machine.host, len(lost))
        self._later(20, 1_000, machine.start)

    # -- disks ---------------------------------------------------------------------------------------------------

    def replace(self) -> None:
        """A broker gets another, empty disk. Not a voter: its votes would be forgotten (KIP-853 has a way for that)."""
        cluster = self._cluster
        brokers = [m for m in self._running() if not cluster.is_controller(m.id)]
        if not brokers:
            return
        machine = self._rng.choice(brokers)
        if not cluster.may_lose_disk(machine):
            return
        self._note("disk replaced", machine.host)
        machine.kill()
        cluster.invariants.disk_lost(machine)
        machine.wipe()
        self._later(20, 2_000, machine.start)

    def replace_voter(self) -> None:
        """A controller of a dynamic quorum gets an empty disk, which makes it another voter. The next one is replaced
        only once this one is removed: a majority of the voters' disks survives (D4).
        """
        admin = self._cluster.voter_admin
        voters = admin.voters() if admin is not None else None
        if admin is None or voters is None or len(voters) < VOTERS_MIN or admin.gone(voters):
            return
        machine = self._cluster.machines[self._rng.choice(voters.ids)]
        if not admin.is_settled or not self._is_known(voters):
            return
        self._note("voter replaced", machine.host)
        machine.kill()
        self._cluster.invariants.disk_lost(machine)
        machine.wipe()
        self._later(20, 2_000, machine.start)

    def _is_known(self, voters: VoterSet) -> bool:
        """Whether all controllers that run agree on who votes: no change is under way."""
        nodes = [machine.node for machine in self._cluster.machines.values() if machine.node is not None]
        return all(node.quorum.raft.voters == voters for node in nodes)

    # -- bits ----------------------------------------------------------------------------------------------------

    def rot(self) -> None:
        """One bit of one batch. Found by whoever reads that batch, or at a start that scans it."""
        machine = self._any_running()
        if machine is None or machine.node is None or not self._cluster.is_broker(machine.id):
            return
        partitions = [each for each in machine.node.partitions.values() if self._may_rot(machine, each)]
        if not partitions:
            return
        partition = self._rng.choice(partitions)
        found = self._pick_batch(machine.disk, partition.log)
        if found is None:
            return
        path, start, end, offset = found
        machine.disk.flip_bit(path, self._rng.randrange(start, end), self._rng.randrange(8))
        self._note("rot", machine.host, partition.topic, partition.index, offset)
        self._cluster.invariants.rotten(machine, partition.topic_id, partition.index, offset)
        if self._rng.random() < 0.5:
            machine.kill()
            self._later(20, 1_000, machine.start)
        self._cluster.scheduler.after(LOOK_AGAIN_US, lambda: self._look_after(machine))

    def _may_rot(self, machine: Machine, partition: Partition) -> bool:
        """A sole replica only of a topic whose end costs nobody else: nobody can repair it."""
        if partition.log.offline:
            return False
        if _is_sole(partition):
            return partition.topic in self._cluster.topics
        return self._cluster.may_lose_disk(machine)

    def _pick_batch(self, disk: MemoryDisk, log: Log) -> tuple[str, int, int, int] | None:
        """(file, where its records begin, where they end, base offset) of some batch."""
        found: list[tuple[str, int, int, int]] = []
        for segment in log.segments:
            path = segment.path(layout.LOG_SUFFIX)
            data, position = disk.read_file(path), 0
            while position + HEADER_SIZE < min(len(data), segment.written):
                base, length, *_ = HEADER.unpack_from(data, position)
                after = position + length + LOG_OVERHEAD
                if length <= 0 or after > len(data):
                    break
                if after > position + HEADER_SIZE:
                    found.append((path, position + HEADER_SIZE, after, base))
                position = after
        return self._rng.choice(found) if found else None

    # -- the operator --------------------------------------------------------------------------------------------

    def _look_after(self, machine: Machine) -> None:
        """Where a broker says that a log is damaged, it is started anew without its recovery points: it then scans all,
        and what is behind the damage is copied from the leader.
        """
        if self._cluster.ending or not self._cluster.invariants.is_rotten(machine):
            return
        damaged = _damaged(machine)
        for partition in damaged:
            if _is_sole(partition):
                self._cluster.invariants.given_up(partition)
        if not all(map(_is_sole, damaged)):
            self._note("damage seen to", machine.host)
            machine.kill()
            lose_file(machine.disk, f"{DATA}/{layout.RECOVERY_POINT_CHECKPOINT}")
            machine.start()
        self._cluster.scheduler.after(LOOK_AGAIN_US, lambda: self._look_after(machine))

    def _running(self) -> list[Machine]:
        return [machine for machine in self._cluster.machines.values() if machine.running]

    def _any_running(self) -> Machine | None:
        running = self._running()
        return self._rng.choice(running) if running else None


def _damaged(machine: Machine) -> list[Partition]:
    """Whose damage was found by a read; what recovery finds it deals with itself."""
    if not machine.running or machine.node is None:
        return []
    partitions = machine.node.partitions.values()
    return [p for p in partitions if p.log.corrupt_offset is not None and p.log.readable_end == NO_LIMIT]


def _is_sole(partition: Partition) -> bool:
    state = partition.replica.state if partition.replica is not None else None
    return state is not None and len(state.replicas) == 1


def derived_files(disk: MemoryDisk) -> list[str]:
    """What is on a broker's disk and follows from its logs."""
    found = [f"{DATA}/{name}" for name in DERIVED_FILES if disk.exists(f"{DATA}/{name}")]
    for directory in disk.listdir(DATA):
        path = f"{DATA}/{directory}"
        if directory == layout.METADATA_LOG_DIR or not disk.isdir(path):
            continue
        found += [
            f"{path}/{name}"
            for name in disk.listdir(path)
            if name.endswith(DERIVED_SUFFIXES) or name == layout.LEADER_EPOCH_CHECKPOINT
        ]
    return found


def lose_file(disk: MemoryDisk, path: str) -> None:
    """Gone from the medium and the cache alike. Nothing if there is none."""
    directory, name = disk._parent(path)
    directory.entries.pop(name, None)
    directory.durable.pop(name, None)
    directory.journal = [
        {each: node for each, node in changes.items() if each != name} for changes in directory.journal
    ]
