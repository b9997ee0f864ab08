"""The invariants of CORRECTNESS.md §2 over the global state, after each step of one node.

Only what that step can have changed is looked at: each log is read as it grows, each check compares digests. Raft and
M1 are in raft_checks.py, the committed log of a partition in partition_model.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from odradek.raft.messages import Message
from odradek.raft.voters import ReplicaKey
from odradek.simulation.compaction_model import CommittedRecords
from odradek.simulation.decision_log import check_ends
from odradek.simulation.metadata_checks import MetadataChecks
from odradek.simulation.partition_model import Mirror, PartitionModel
from odradek.simulation.partition_probe import leader_view, serving_epoch
from odradek.simulation.producer_checks import check_producer_state
from odradek.simulation.raft_checks import RaftChecks
from odradek.simulation.trace import InvariantViolation
from odradek.storage.state import NO_LIMIT

if TYPE_CHECKING:
    from odradek.broker.partition import Partition
    from odradek.metadata.delta import MetadataDelta
    from odradek.metadata.image import MetadataImage, PartitionImage
    from odradek.simulation.cluster import Cluster
    from odradek.simulation.machine import Machine, Process

Key = tuple[bytes, int]


class Replica:
    """One partition of one life of a node, as seen last."""

    __slots__ = ("led", "log_start", "mirror", "model", "partition", "signature")

    def __init__(self, partition: Partition, mirror: Mirror, model: PartitionModel) -> None:
        self.partition = partition
        self.mirror = mirror
        self.model = model
        self.signature: tuple[object, ...] = ()
        self.led = False
        self.log_start = partition.log.log_start_offset


class Invariants:
    """Attach each process before its node starts; `after_step` after each of its events."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.models: dict[Key, PartitionModel] = {}
        self.raft = RaftChecks(cluster.machines)
        self.metadata = MetadataChecks(cluster)
        self._replicas: dict[Process, dict[tuple[str, int], Replica]] = {}
        self._tainted: dict[Key, dict[int, int]] = {}
        """Replicas that lost power, and the broker epoch they had then, until they are in the ISR again."""
        self._rotten: dict[tuple[Key, int], int] = {}
        """(partition, node) → the lowest offset at which its log is damaged, until it was cut there."""

    # -- lives ---------------------------------------------------------------------------------------------------

    def attach(self, process: Process) -> None:
        self._replicas[process] = {}
        self.raft.attach(process)
        process.node.quorum.add_publisher(_Publisher(self, process))

    def after_start(self, process: Process) -> None:
        self.raft.after_start(process)
        self.after_step(process)

    def detach(self, process: Process) -> None:
        self._replicas.pop(process, None)
        self.raft.detach(process)

    def power_lost(self, machine: Machine) -> None:
        """Note what the promises still cover: D2 up to min.insync.replicas - 1 of the replicas, D3 any number."""
        for key, model in self.models.items():
            if not self._cluster.flushes(model.topic):
                self._taint(machine, key, model)

    def disk_lost(self, machine: Machine) -> None:
        """Everything on it, flushed or not."""
        for key, model in self.models.items():
            self._rotten.pop((key, machine.id), None)
            self._taint(machine, key, model)
        self.raft.forget_disk(machine.id)

    def rotten(self, machine: Machine, topic_id: bytes, index: int, offset: int) -> None:
        """A batch at this offset is damaged on one machine: when it is found, nothing there is relied on any more."""
        key = topic_id, index
        self._rotten[key, machine.id] = min(offset, self._rotten.get((key, machine.id), offset))
        for each, model in self.models.items():
            self._taint(machine, each, model)

    def given_up(self, partition: Partition) -> None:
        """Its only replica is damaged where somebody wants to read."""
        self.models[partition.topic_id, partition.index].dead = True

    def is_rotten(self, machine: Machine) -> bool:
        return any(node == machine.id for _, node in self._rotten)

    def _taint(self, machine: Machine, key: Key, model: PartitionModel) -> None:
        found = self.metadata.partition(key)
        if found is None or machine.id not in found.replicas:
            return
        broker = self.metadata.image.brokers.get(machine.id)
        tainted = self._tainted.setdefault(key, {})
        tainted[machine.id] = broker.epoch if broker is not None else -1
        if len(tainted) >= self._cluster.min_isr(model.topic, len(found.replicas)):
            model.loss_allowed = True
            self._cluster.trace.count("more lost than the promises cover")

    def survives_loss(self, machine: Machine, *, all_of_it: bool = False) -> bool:
        """Whether nothing acknowledged may be lost if this machine loses power now (D2), or `all_of_it`."""
        return all(
            self._survives_loss_of(machine, key)
            for key, model in self.models.items()
            if all_of_it or not self._cluster.flushes(model.topic)
        )

    def _survives_loss_of(self, machine: Machine, key: Key) -> bool:
        found = self.metadata.partition(key)
        if found is None or machine.id not in found.replicas:
            return True
        lost = {machine.id, *self._tainted.get(key, ())}
        return len(lost) < self._cluster.min_isr(self.models[key].topic, len(found.replicas))

    def on_message(self, process: Process, to: ReplicaKey, message: Message) -> None:
        self.raft.on_message(process, to, message)

    # -- steps ---------------------------------------------------------------------------------------------------

    def after_step(self, process: Process, *, failed: bool = False) -> None:
        """`failed`: the node gives up."""
        if failed:
            self.raft.after_failure(process)
        else:
            self.raft.after_step(process)
        known = self._replicas[process]
        for name, partition in process.node.partitions.items():
            log = partition.log
            signature: tuple[object, ...] = (
                partition.high_watermark, log.written_end_offset, partition.is_leader, partition.leader_epoch,
                log._truncations, log.log_start_offset,
            )  # fmt: skip
            replica = known.get(name)
            if replica is not None and replica.mirror.compacted:
                signature += tuple(map(id, log._segments))
            if replica is not None and replica.partition is partition and replica.mirror.log is not log:
                self._cluster.trace.count("replica moved to another directory")
                replica = None
            if replica is None or replica.partition is not partition:
                replica = known[name] = self._first_seen(process, partition)
            if signature != replica.signature:
                replica.signature = signature
                self._changed(process, replica)
        if len(known) > len(process.node.partitions):
            for name in [name for name in known if name not in process.node.partitions]:
                del known[name]

    def _first_seen(self, process: Process, partition: Partition) -> Replica:
        key = partition.topic_id, partition.index
        model = self.models.get(key)
        if model is None:
            model = self.models[key] = self._new_model(partition)
        compacted = self._cluster.compacts(partition.topic)
        mirror = Mirror(process.machine.disk, partition.log, model.digest_below, compacted=compacted)
        replica = Replica(partition, mirror, model)
        replica.mirror.follow()
        check_producer_state(partition.log, replica.mirror, process.machine.host)
        return replica

    def _new_model(self, partition: Partition) -> PartitionModel:
        scheduler = self._cluster.scheduler
        model = PartitionModel(partition.topic, partition.index, lambda: scheduler.now_us)
        if self._cluster.compacts(partition.topic):
            retention_ms = partition.log.config.delete_retention_ms
            model.records = CommittedRecords(model.name, model.transactions, retention_ms)
        return model

    def _changed(self, process: Process, replica: Replica) -> None:
        """One partition of this node has moved."""
        partition, mirror, model = replica.partition, replica.mirror, replica.model
        replaced = mirror.replaced
        mirror.follow()
        if mirror.replaced > replaced:
            self._cluster.trace.count("compaction: segments replaced")
        self._check_log_start(process, replica)
        if model.dead or self._is_dead(replica):
            return
        epoch = serving_epoch(partition)
        led = replica.led  # its last act in this event may have been to move the high watermark
        replica.led = epoch >= 0
        if epoch >= 0 or led:
            if epoch >= 0:
                self._leads(process, replica, epoch)
            model.log_start = max(model.log_start, partition.log.log_start_offset)
            if partition.high_watermark > model.high_watermark:
                self._check_leader(process, replica)
                decided = len(model.decisions.decisions)
                model.commit(mirror, partition.high_watermark, process.machine.host)
                if model.transactions.ended_last:
                    check_ends(model, self.models.values())
                if len(model.decisions.decisions) > decided:
                    self._cluster.nemesis.on_decision(process.machine, model.decisions.decisions[-1])
                self._cluster.nemesis.on_transaction(model.transactions)
                self.check_members(partition.topic_id, partition.index, model)
        elif partition.leader_epoch >= 0 and partition.high_watermark > model.high_watermark:
            raise InvariantViolation(
                f"P6: {process.machine.host} follows {model.name} to high watermark {partition.high_watermark}; no "
                f"leader has had more than {model.high_watermark}"
            )
        if partition.leader_epoch >= 0 and not model.loss_allowed:
            self._check_local(process, replica)
        if mirror.truncated:
            self._cut(process, replica)
            process.machine.cluster.trace.count("log truncated")
            process.machine.cluster.trace.note(process.machine.host, "truncated", model.name, mirror.end)
            self.check_members(partition.topic_id, partition.index, model)

    def _check_log_start(self, process: Process, replica: Replica) -> None:
        """It only rises in the life of a process, unless the log begins anew; and only where records are deleted."""
        start = replica.partition.log.log_start_offset
        if start < replica.log_start and not replica.mirror.truncated:
            raise InvariantViolation(
                f"C6: {replica.model.name} at {process.machine.host} started at {replica.log_start}, now at {start}"
            )
        if start > 0 and replica.mirror.compacted and not self._cluster.deletes(replica.model.topic):
            raise InvariantViolation(
                f"C6: {replica.model.name} at {process.machine.host} starts at {start}, and nothing is deleted of it"
            )
        replica.log_start = start
        replica.model.log_start_somewhere = max(replica.model.log_start_somewhere, start)

    def _cut(self, process: Process, replica: Replica) -> None:
        """What is damaged is gone with the rest."""
        rotten = (replica.partition.topic_id, replica.model.index), process.machine.id
        if replica.mirror.end <= self._rotten.get(rotten, -1):
            del self._rotten[rotten]

    def _check_local(self, process: Process, replica: Replica) -> None:
        """P4: what a replica takes for committed is committed, and it has it."""
        partition, mirror = replica.partition, replica.mirror
        end = partition.high_watermark
        if end > partition.log.log_end_offset:
            raise InvariantViolation(
                f"P4: {process.machine.host} has high watermark {end} of {replica.model.name}, and its log ends at "
                f"{partition.log.log_end_offset}"
            )
        model = replica.model
        model.check_prefix(mirror, min(end, mirror.end), f"P4: {process.machine.host}")
        if model.losses or mirror.log.log_start_offset or end > model.high_watermark:
            return
        stable, wanted = partition.last_stable_offset, model.transactions.stable_end(end)
        if stable != wanted and mirror.log.readable_end == NO_LIMIT:
            raise InvariantViolation(
                f"T2: {process.machine.host} has last stable offset {stable} of {model.name} at high watermark {end}, "
                f"the log says {wanted}"
            )

    def _is_dead(self, replica: Replica) -> bool:
        """Damage in the middle of the only replica, where a loss of power may have done that: nobody can repair it."""
        model, log = replica.model, replica.partition.log
        found = self.metadata.partition((replica.partition.topic_id, model.index))
        if log.readable_end == NO_LIMIT or found is None or len(found.replicas) > 1:
            return False
        if not model.loss_allowed and not model.losses:
            raise InvariantViolation(
                f"D3: {model.name} is damaged at {log.readable_end}, and nothing explains it"
            )
        self._cluster.trace.count("the only replica is damaged")
        model.dead = True
        return True

    def _leads(self, process: Process, replica: Replica, epoch: int) -> None:
        """P3: who begins to lead holds everything committed."""
        model, node = replica.model, process.machine.id
        if model.leaders and model.leaders[-1][0] >= epoch:
            return
        process.machine.cluster.trace.note(
            process.machine.host, "leads", model.name, epoch, replica.mirror.end
        )
        if model.loss_allowed:
            try:
                model.check_prefix(replica.mirror, model.high_watermark, "P3")
            except InvariantViolation:
                self._cluster.trace.count("allowed loss happened")
            model.begin_anew(replica.mirror)
            self._tainted.pop((replica.partition.topic_id, replica.partition.index), None)
        else:
            model.check_prefix(
                replica.mirror, model.high_watermark, f"P3: {process.machine.host} leads epoch {epoch} of"
            )
        if model.leaders:
            self._cluster.trace.count(
                "partition: leader changed"
                if model.leaders[-1][1] != node
                else "partition: same leader again"
            )
        model.leaders.append((epoch, node))

    def _check_leader(self, process: Process, replica: Replica) -> None:
        """P5: the high watermark moved."""
        view = leader_view(replica.partition)
        if view is None:
            return
        model, end = replica.model, replica.partition.high_watermark
        if len(view.committed) < view.min_isr:
            raise InvariantViolation(
                f"P5: {process.machine.host} moves the high watermark of {model.name} to {end} with "
                f"{sorted(view.committed)} in sync, {view.min_isr} needed"
            )
        lost = self._tainted.get((replica.partition.topic_id, model.index), {})
        for member in sorted(view.maximal):
            if member in lost:
                continue  # it acknowledged this before it lost power; whoever is in sync now is looked at by P2
            other = self._running_replica(member, model, replica.partition.topic_id)
            if other is not None and other.mirror.end < end and not model.loss_allowed:
                raise InvariantViolation(
                    f"P5: {process.machine.host} moves the high watermark of {model.name} to {end}, the log of node "
                    f"{member} ends at {other.mirror.end}"
                )

    def _check_maximal(self, key: Key, model: PartitionModel, found: PartitionImage) -> None:
        """P1 for the leader of the newest epoch. (Of who is in the ELR, the leader knows nothing: P2 is about them.)"""
        replica = self._running_replica(found.leader, model, key[0]) if found.leader >= 0 else None
        view = leader_view(replica.partition) if replica is not None else None
        if view is None or replica is None or view.leader_epoch != found.leader_epoch:
            return
        if not set(found.isr) <= view.maximal:
            raise InvariantViolation(
                f"P1: the controller has {list(found.isr)} in sync for {model.name}, its leader {found.leader} only "
                f"{sorted(view.maximal)}"
            )

    # -- members -------------------------------------------------------------------------------------------------

    def check_members(self, topic_id: bytes, index: int, model: PartitionModel) -> None:
        """P2: every running member of ISR and ELR has everything up to the true high watermark."""
        found = self.metadata.partition((topic_id, index))
        if found is None or model.loss_allowed or model.dead:
            return
        for member in (*found.isr, *found.elr):
            replica = self._running_replica(member, model, topic_id)
            if replica is not None:
                role = "ISR" if member in found.isr else "ELR"
                model.check_prefix(
                    replica.mirror,
                    model.high_watermark,
                    f"P2: node {member} ({role} of epoch {found.leader_epoch})",
                )

    def _running_replica(self, member: int, model: PartitionModel, topic_id: bytes) -> Replica | None:
        process = self._cluster.machines[member].process
        if process is None or process not in self._replicas or not process.replicates:
            return None
        broker = self.metadata.image.brokers.get(member)
        if broker is None or process.node.broker_epoch != broker.epoch:
            return None  # another life of it is registered, or none
        replica = self._replicas[process].get((model.topic, model.index))
        if replica is None or replica.partition.topic_id != topic_id or replica.partition.log.offline:
            return None
        return replica

    # -- metadata ------------------------------------------------------------------------------------------------

    def on_metadata(self, process: Process, delta: MetadataDelta, image: MetadataImage) -> None:
        for key, partition in self.metadata.on_metadata(process, delta, image):
            model = self.models.get(key)
            if model is not None:
                self._untaint(key, partition)
                self.check_members(*key, model)
                self._check_maximal(key, model, partition)

    def _untaint(self, key: Key, partition: PartitionImage) -> None:
        tainted = self._tainted.get(key)
        if not tainted:
            return
        for member in list(tainted):
            broker = self.metadata.image.brokers.get(member)
            if (key, member) in self._rotten:
                continue
            if member in partition.isr and broker is not None and broker.epoch > tainted[member]:
                del tainted[member]


class _Publisher:
    """A metadata publisher of one node."""

    def __init__(self, invariants: Invariants, process: Process) -> None:
        self._invariants = invariants
        self._process = process

    def on_metadata(self, delta: MetadataDelta, image: MetadataImage) -> None:
        self._invariants.on_metadata(self._process, delta, image)
