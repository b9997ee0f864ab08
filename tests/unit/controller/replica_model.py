"""The controller with brokers that replicate by the book: does it ever let somebody lead who lacks records?

Brokers here are a model of CORRECTNESS: leaders with maximal ISRs, followers that truncate to what the leader has,
views of the metadata that lag, proposals that are delayed, repeated and lost, processes that are killed, lose power,
disks, or are only called dead. What is checked after every step is P2: whoever is eligible for leadership (in ISR or
ELR) has every acknowledged record, unless an unclean election has given some up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from odradek.controller.internal import BrokerUnreachableRequest
from odradek.metadata.image import MetadataImage, PartitionImage
from odradek.metadata.records import RECOVERING
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.alter_partition import (
    AlterPartitionRequest,
    AlterPartitionRequestPartitionData,
    AlterPartitionRequestTopicData,
    BrokerState,
)
from odradek.wire.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    ReassignablePartition,
    ReassignableTopic,
)
from odradek.wire.messages.assign_replicas_to_dirs import (
    AssignReplicasToDirsRequest,
    AssignReplicasToDirsRequestDirectoryData,
    AssignReplicasToDirsRequestPartitionData,
    AssignReplicasToDirsRequestTopicData,
)
from odradek.wire.messages.broker_heartbeat import BrokerHeartbeatRequest
from odradek.wire.messages.elect_leaders import ElectLeadersRequest
from unit.controller.controller_harness import Harness, registration, set_config, violations

Key = tuple[str, int]
Entry = tuple[int, int]
"""(leader epoch, number) of a record."""
MIN_ISR, UNCLEAN = "min.insync.replicas", "unclean.leader.election.enable"


@dataclass
class Replica:
    directory: bytes
    log: list[Entry] = field(default_factory=list)


@dataclass
class Leading:
    """A leadership as the leader knows it: by the metadata that it has applied, or by a newer answer."""

    epoch: int
    start: int
    high_watermark: int = 0
    ends: dict[int, int] = field(default_factory=dict)
    """What followers have fetched in this epoch."""
    fetched_by: dict[int, int] = field(default_factory=dict)
    """Broker epochs in which they did."""
    proposed: tuple[int, dict[int, int]] | None = None
    """(partition epoch it is based on, ISR with broker epochs) of the proposal whose fate is not known. Asked
    again, it names the epochs it named first.
    """
    answered: PartitionImage | None = None
    """The partition after a proposal of this leader, as the controller answered."""


@dataclass
class Process:
    id: int
    view: MetadataImage
    directories: list[bytes]
    replicas: dict[Key, Replica] = field(default_factory=dict)
    leading: dict[Key, Leading] = field(default_factory=dict)
    offline: set[bytes] = field(default_factory=set)
    running: bool = False
    incarnation: int = 0
    epoch: int = -1
    complete_epoch: int = -1
    """What the next registration says."""
    seen: int = 0
    gone: set[Key] = field(default_factory=set)
    """Replicas lost with a disk, which the next registration will tell of."""

    def usable(self, key: Key) -> Replica | None:
        replica = self.replicas.get(key)
        return None if replica is None or replica.directory in self.offline else replica


class BatchHarness(Harness):
    """Publishes every batch by itself, so that no state in between is overlooked."""

    def commit(self, batches: int | None = None) -> None:
        while self.log.committed < len(self.log.batches):
            super().commit(1)


class Violation(AssertionError):  # noqa: N818 - what it is
    pass


class Model:
    """One seeded run. `step` does something at random, then checks."""

    def __init__(self, seed: int, brokers: int = 4) -> None:
        self.rng = Random(seed)
        self.harness = BatchHarness(
            seed=seed, unclean_election_interval_ms=20_000, leader_imbalance_check_interval_ms=15_000
        )
        self.acked: dict[Key, list[Entry]] = {}
        self.unclean_epoch: dict[Key, int] = {}
        self.in_flight: list[tuple[int, int, Key, AlterPartitionRequest]] = []
        """(broker, incarnation, partition, proposal); a copy may be delivered again."""
        self.counts: dict[str, int] = {}
        self.forgiven = 0
        self._directories = 0
        self._records = 0
        self.processes = {
            number: Process(number, self.harness.image, [self.new_directory(), self.new_directory()])
            for number in range(brokers)
        }
        for process in self.processes.values():
            self.start(process)
            self.learn(process)
            self.beat(process)
        topics = [("a", 3), ("b", 2), ("u", 3)]
        for name, factor in self.rng.sample(topics, self.rng.randint(1, 3)):
            configs: dict[str, str | None] = {MIN_ISR: "2"}
            if name == "u":
                configs[UNCLEAN] = "true"
            self.harness.create(name, partitions=self.rng.randint(1, 2), factor=factor, configs=configs)
        for process in self.processes.values():
            self.learn(process)
        self.weights = {
            action: weight * self.rng.choice([0.2, 1, 1, 4])
            for action, weight in {
                self.some_fetch: 90,
                self.some_produce: 40,
                self.some_learn: 120,
                self.some_beat: 60,
                self.some_proposal: 40,
                self.some_delivery: 30,
                self.some_assignment: 8,
                self.some_stop: 2,
                self.some_start: 12,
                self.some_restart: 1,
                self.some_blip: 3,
                self.some_accusation: 4,
                self.some_reassignment: 3,
                self.some_config: 2,
                self.some_election: 1,
                self.change_controller: 1,
                self.pass_time: 5,
            }.items()
        }
        """Every seed has another mixture, so that one's troubles are not always the others'."""

    def new_directory(self) -> bytes:
        self._directories += 1
        return (0xA_0000 + self._directories).to_bytes(16, "big")

    # -- steps -------------------------------------------------------------------------------------------------

    def step(self) -> None:
        [action] = self.rng.choices(list(self.weights), list(self.weights.values()))
        done = action()
        if done is not None:
            self.counts[done] = self.counts.get(done, 0) + 1
        self.check(done or action.__name__)

    def alive(self) -> list[Process]:
        return [process for process in self.processes.values() if process.running]

    def some_learn(self) -> str | None:
        for process in self.rng.sample(self.alive(), min(1, len(self.alive()))):
            self.learn(process, self.rng.random() < 0.3)
        return None

    def learn(self, process: Process, partly: bool = False) -> None:
        """Apply metadata, all there is or a part."""
        images = self.harness.publisher.images
        if process.seen >= len(images):
            return
        last = self.rng.randrange(process.seen, len(images)) if partly else len(images) - 1
        process.seen = last + 1
        view = process.view = images[last]
        me = view.brokers.get(process.id)
        if me is None or me.epoch != process.epoch:
            return  # what it reads is about an earlier life: it must not lead or follow by that
        for name, topic in view.topics.items():
            for number, partition in topic.partitions.items():
                self.follow(process, (name, number), partition)

    def follow(self, process: Process, key: Key, partition: PartitionImage) -> None:
        """What a broker does when a partition has changed."""
        leading = process.leading.get(key)
        if process.id not in partition.replicas:
            process.replicas.pop(key, None)
            self.replica_deleted(process, key)
        elif key not in process.replicas:
            online = [each for each in process.directories if each not in process.offline]
            if online:
                process.replicas[key] = Replica(self.rng.choice(online))
        replica = process.usable(key)
        if partition.leader != process.id or replica is None:
            process.leading.pop(key, None)
        elif leading is None or leading.epoch != partition.leader_epoch:
            process.leading[key] = Leading(partition.leader_epoch, len(replica.log))
        elif leading.proposed is not None and partition.partition_epoch > leading.proposed[0]:
            leading.proposed = None
        self.move_high_watermark(process, key)

    def replica_deleted(self, process: Process, key: Key) -> None:
        """It was no replica for a while. If it has been elected uncleanly since, that gave up what it had."""
        now = self.harness.image.topics[key[0]].partitions[key[1]]
        if now.leader == process.id and now.leader_recovery_state == RECOVERING:
            self.acked[key] = []

    def some_beat(self) -> str | None:
        for process in self.rng.sample(self.alive(), min(1, len(self.alive()))):
            self.beat(process)
        return None

    def beat(self, process: Process, *, shut_down: bool = False, fence: bool = False) -> Any:
        if process.epoch < 0:
            return None
        request = BrokerHeartbeatRequest(
            process.id,
            process.epoch,
            process.view.offset,
            want_fence=fence,
            want_shut_down=shut_down,
            offline_log_dirs=sorted(process.offline),
        )
        return self.harness.call(request)

    def led(self) -> list[tuple[Process, Key, Leading]]:
        return [(process, key, each) for process in self.alive() for key, each in process.leading.items()]

    def some_produce(self) -> str | None:
        if led := self.led():
            process, key, leading = self.rng.choice(led)
            for _ in range(self.rng.randint(1, 3)):
                self._records += 1
                process.replicas[key].log.append((leading.epoch, self._records))
            self.move_high_watermark(process, key)
        return None

    def some_fetch(self) -> str | None:
        """A follower fetches from whom it takes for the leader, if that one agrees on the epoch."""
        wishes = [
            (process, key, view)
            for process in self.alive()
            for key in process.replicas
            if (view := self.seen_by(process, key)) is not None and process.usable(key) is not None
        ]
        if not wishes:
            return None
        follower, key, view = self.rng.choice(wishes)
        leader = self.processes.get(view.leader)
        if leader is None or leader is follower or not leader.running:
            return None
        leading = leader.leading.get(key)
        if leading is None or leading.epoch != view.leader_epoch:
            return None
        source, copy = leader.replicas[key].log, follower.replicas[key].log
        agree = common(source, copy)
        del copy[agree:]
        copy += source[agree : agree + self.rng.choice([1, 3, 100, 100])]
        leading.ends[follower.id] = len(copy)
        leading.fetched_by[follower.id] = follower.epoch
        self.move_high_watermark(leader, key)
        return None

    def seen_by(self, process: Process, key: Key) -> PartitionImage | None:
        topic = process.view.topics.get(key[0])
        partition = None if topic is None else topic.partitions.get(key[1])
        leading = process.leading.get(key)
        if partition is None or leading is None or leading.answered is None:
            return partition
        return leading.answered if leading.answered.partition_epoch > partition.partition_epoch else partition

    def move_high_watermark(self, process: Process, key: Key) -> None:
        leading, replica = process.leading.get(key), process.usable(key)
        partition = self.seen_by(process, key)
        if leading is None or replica is None or partition is None:
            return
        own = process.view.config(2, key[0]).get(MIN_ISR) or process.view.config(4, "").get(MIN_ISR) or "1"
        if len(partition.isr) < min(int(own), len(partition.replicas)):
            return
        leading.ends[process.id] = len(replica.log)
        maximal = {*partition.isr, *(leading.proposed[1] if leading.proposed is not None else ())}
        position = min(leading.ends.get(member, 0) for member in maximal)
        if position > leading.high_watermark:
            leading.high_watermark = position
            self.acknowledge(key, leading.epoch, replica.log[:position])

    def acknowledge(self, key: Key, epoch: int, records: list[Entry]) -> None:
        if epoch < self.unclean_epoch.get(key, -1):
            return
        known = self.acked.setdefault(key, [])
        shorter = min(len(known), len(records))
        if known[:shorter] != records[:shorter]:
            raise Violation(f"{key}: what was acknowledged is replaced: {known} by {records}")
        if len(records) > len(known):
            self.counts["acknowledged"] = self.counts.get("acknowledged", 0) + 1
            self.acked[key] = list(records)

    def some_proposal(self) -> str | None:
        """A leader takes somebody into the ISR or out of it, or asks again."""
        led = self.led()
        if not led:
            return None
        process, key, leading = self.rng.choice(led)
        partition = self.seen_by(process, key)
        assert partition is not None
        if leading.proposed is not None:
            if leading.proposed[0] == partition.partition_epoch:
                self.propose(process, key, partition, leading.proposed[1])
            return None
        isr = list(partition.isr)
        fit = [follower for follower in partition.replicas if self.may_join(process, leading, follower, isr)]
        if fit and self.rng.random() < 0.8:
            isr += fit if self.rng.random() < 0.5 else [self.rng.choice(fit)]
        elif len(isr) > 1 and self.rng.random() < 0.3:
            isr.remove(self.rng.choice([member for member in isr if member != process.id]))
        elif partition.leader_recovery_state != RECOVERING:
            return None
        epochs = {member: process.view.brokers[member].epoch for member in isr}
        epochs |= {member: epoch for member, epoch in leading.fetched_by.items() if member in epochs}
        leading.proposed = (partition.partition_epoch, epochs)
        self.propose(process, key, partition, leading.proposed[1])
        return "proposal"

    def may_join(self, process: Process, leading: Leading, follower: int, isr: list[int]) -> bool:
        broker = process.view.brokers.get(follower)
        end = leading.ends.get(follower, -1)
        return (
            follower not in isr
            and broker is not None
            and broker.active
            and broker.epoch == leading.fetched_by.get(follower)
            and end >= leading.high_watermark
            and end >= leading.start
        )

    def propose(self, process: Process, key: Key, partition: PartitionImage, isr: dict[int, int]) -> None:
        data = AlterPartitionRequestPartitionData(
            partition_index=key[1],
            leader_epoch=partition.leader_epoch,
            partition_epoch=partition.partition_epoch,
            new_isr_with_epochs=[BrokerState(member, epoch) for member, epoch in isr.items()],
        )
        topics = [AlterPartitionRequestTopicData(process.view.topics[key[0]].id, [data])]
        request = AlterPartitionRequest(process.id, process.epoch, topics)
        self.in_flight.append((process.id, process.incarnation, key, request))
        del self.in_flight[:-20]

    def some_delivery(self) -> str | None:
        """A proposal arrives, perhaps once more than once, and its answer, perhaps."""
        if not self.in_flight:
            return None
        index = self.rng.randrange(len(self.in_flight))
        broker_id, incarnation, key, request = self.in_flight[index]
        if self.rng.random() < 0.5:
            del self.in_flight[index]
        response = self.harness.call(AlterPartitionRequest.decode(request.encode(3), 3))
        process = self.processes[broker_id]
        if response.error_code or not process.running or process.incarnation != incarnation:
            return None
        [answer] = response.topics[0].partitions
        leading, based_on = process.leading.get(key), request.topics[0].partitions[0].partition_epoch
        if answer.error_code == 0 and leading is not None and leading.epoch == answer.leader_epoch:
            self.adopt(process, key, leading, answer)
        elif (
            answer.error_code == ErrorCode.INELIGIBLE_REPLICA
            and self.rng.random() < 0.7
            and leading is not None
            and leading.proposed is not None
            and leading.proposed[0] == based_on
        ):
            leading.proposed = None  # it is certain not to be applied
            self.move_high_watermark(process, key)
        return f"proposal {answer.error_code}"

    def adopt(self, process: Process, key: Key, leading: Leading, answer: Any) -> None:
        """The leader knows of its success before the metadata tells."""
        known = self.seen_by(process, key)
        if known is None or answer.partition_epoch <= known.partition_epoch:
            return
        leading.answered = replace(
            known,
            isr=tuple(answer.isr),
            partition_epoch=answer.partition_epoch,
            leader_recovery_state=answer.leader_recovery_state,
        )
        if leading.proposed is not None and leading.proposed[0] < answer.partition_epoch:
            leading.proposed = None
        self.move_high_watermark(process, key)

    def some_assignment(self) -> str | None:
        """A broker says where a replica is."""
        for process in self.rng.sample(self.alive(), min(1, len(self.alive()))):
            placed = [
                (key, replica) for key, replica in process.replicas.items() if key[0] in process.view.topics
            ]
            if not placed or process.epoch < 0:
                continue
            (name, number), replica = self.rng.choice(placed)
            topic_id = process.view.topics[name].id
            wanted = AssignReplicasToDirsRequestTopicData(
                topic_id, [AssignReplicasToDirsRequestPartitionData(number)]
            )
            where = AssignReplicasToDirsRequestDirectoryData(replica.directory, [wanted])
            self.harness.call(AssignReplicasToDirsRequest(process.id, process.epoch, [where]))
        return None

    # -- processes ---------------------------------------------------------------------------------------------

    def some_stop(self) -> str | None:
        alive = self.alive()
        if not alive:
            return None
        return self.stop(self.rng.choice(alive))

    def stop(self, process: Process) -> str | None:
        ways = ["kill", "kill", "shutdown", "power", "wipe", "disk lost", "disk fails", "disk fails"]
        how = self.rng.choice(ways)
        if how == "disk fails":
            process.offline.add(self.rng.choice(process.directories))
            if len(process.offline) < len(process.directories):
                for key in list(process.leading):
                    if process.usable(key) is None:
                        del process.leading[key]
                return how
        elif how == "shutdown":
            answer = self.beat(process, shut_down=True)
            if answer is None or not answer.should_shut_down:
                return None
        process.running = False
        process.leading.clear()
        if process.epoch >= 0:
            process.complete_epoch = process.epoch
        if how == "power":
            process.complete_epoch = -1
            for replica in process.replicas.values():
                del replica.log[self.rng.randint(0, len(replica.log)) :]
        elif how == "wipe":
            process.complete_epoch = -1
            process.replicas.clear()
            process.directories = [self.new_directory(), self.new_directory()]
        elif how in ("disk lost", "disk fails"):
            self.replace_disk(process, self.rng.choice(process.directories))
        for failed in [each for each in process.directories if each in process.offline]:
            self.replace_disk(process, failed)
        process.offline.clear()
        return how

    def replace_disk(self, process: Process, failed: bytes) -> None:
        process.directories = [
            self.new_directory() if each == failed else each for each in process.directories
        ]
        lost = [key for key, replica in process.replicas.items() if replica.directory == failed]
        for key in lost:
            del process.replicas[key]
        process.gone.update(lost)

    def some_start(self) -> str | None:
        waiting = [process for process in self.processes.values() if process.epoch < 0 or not process.running]
        return self.start(self.rng.choice(waiting)) if waiting else None

    def start(self, process: Process) -> str | None:
        if not process.running:
            process.running, process.epoch = True, -1
            process.incarnation += 1
        request = registration(
            process.id,
            process.incarnation,
            log_dirs=list(process.directories),
            previous_broker_epoch=process.complete_epoch,
        )
        response = self.harness.call(request)
        if response.error_code != ErrorCode.NONE:
            return f"registration {response.error_code}"
        process.epoch = response.broker_epoch
        process.gone.clear()
        return None

    def some_restart(self) -> str | None:
        """A process dies, is missed, and is back before anything else happens."""
        process = self.rng.choice(list(self.processes.values()))
        how = self.stop(process) if process.running else None
        broker = self.harness.image.brokers.get(process.id)
        if process.running or broker is None:
            return how
        self.harness.call(BrokerUnreachableRequest(process.id, broker.epoch))
        self.start(process)
        self.learn(process)
        self.beat(process)
        return how

    def some_blip(self) -> str | None:
        """A follower is fenced, for the length of a heartbeat."""
        for process in self.rng.sample(self.alive(), min(1, len(self.alive()))):
            self.beat(process, fence=True)
        return None

    def some_accusation(self) -> str | None:
        """Mostly of the dead."""
        dead = [process.id for process in self.processes.values() if not process.running]
        accused = self.rng.choice(dead if dead and self.rng.random() < 0.9 else list(self.processes))
        broker = self.harness.image.brokers.get(accused)
        if broker is not None:
            self.harness.call(BrokerUnreachableRequest(accused, broker.epoch))
        return None

    # -- people, time and the controller -----------------------------------------------------------------------

    def some_reassignment(self) -> str | None:
        name = self.rng.choice(list(self.harness.image.topics))
        number = self.rng.randrange(len(self.harness.image.topics[name].partitions))
        goal = self.rng.sample(list(self.processes), self.rng.randint(1, 3))
        wanted = ReassignablePartition(number, None if self.rng.random() < 0.3 else goal)
        topic = ReassignableTopic(name, [wanted])
        response = self.harness.call(AlterPartitionReassignmentsRequest(topics=[topic]))
        return f"reassignment {response.responses[0].partitions[0].error_code}"

    def some_config(self) -> str | None:
        name = self.rng.choice(["", *self.harness.image.topics])
        set_config(self.harness, name, MIN_ISR, self.rng.choice(["1", "2", "2", "3"]))
        return None

    def some_election(self) -> str | None:
        self.harness.call(ElectLeadersRequest(0, None))
        return None

    def change_controller(self) -> str | None:
        self.harness.controller.on_resign()
        self.harness.become_leader()
        return None

    def pass_time(self) -> str | None:
        for process in self.alive():
            if self.rng.random() < 0.8:
                self.beat(process)
        self.harness.pass_time(self.rng.choice([200, 500, 500, 1_000, 1_000, 2_000, 3_500]))
        return None

    # -- what must hold ----------------------------------------------------------------------------------------

    def check(self, after: str) -> None:
        images = self.harness.publisher.images
        for image in images[self.forgiven :]:
            for found in violations(replace(self.harness.state, image=image)):
                raise Violation(f"after {after}: {found}")
            for key, partition in partitions(image):
                self.forgive(key, partition)
        self.forgiven = len(images)
        for key, partition in partitions(self.harness.image):
            for member in (*partition.isr, *partition.elr):
                self.check_member(key, partition, self.processes[member], after)

    def forgive(self, key: Key, partition: PartitionImage) -> None:
        """An unclean election: what the new leader has not is given up."""
        unclean = partition.leader_recovery_state == RECOVERING and partition.has_leader
        if not unclean or self.unclean_epoch.get(key, -1) >= partition.leader_epoch:
            return
        self.counts["unclean election"] = self.counts.get("unclean election", 0) + 1
        self.unclean_epoch[key] = partition.leader_epoch
        replica = self.processes[partition.leader].replicas.get(key)
        acked = self.acked.get(key, [])
        self.acked[key] = acked[: common(acked, replica.log if replica is not None else [])]

    def check_member(self, key: Key, partition: PartitionImage, process: Process, after: str) -> None:
        """Whoever is registered, or will be again without losing its standing, has all acknowledged records."""
        broker = self.harness.image.brokers[process.id]
        counts = process.epoch if process.running and process.epoch >= 0 else process.complete_epoch
        if counts != broker.epoch or partition.directory(process.id) in process.offline:
            return
        acked = self.acked.get(key, [])
        replica = process.replicas.get(key)
        if key in process.gone or (replica is None and not process.running):
            return
        if replica is not None and replica.directory in process.offline:
            return  # the controller hears of that with the next heartbeat
        log = [] if replica is None else replica.log
        if log[: len(acked)] != acked:
            raise Violation(
                f"after {after}: {key} {partition}: {process.id} has {log}, acknowledged is {acked}"
            )


def partitions(image: MetadataImage) -> Iterator[tuple[Key, PartitionImage]]:
    for name, topic in image.topics.items():
        for number, partition in topic.partitions.items():
            yield (name, number), partition


def common(one: list[Entry], other: list[Entry]) -> int:
    """Length of the common prefix."""
    for position, pair in enumerate(zip(one, other, strict=False)):
        if pair[0] != pair[1]:
            return position
    return min(len(one), len(other))
