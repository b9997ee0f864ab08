"""Random requests, commits and changes of leadership: replay gives what was live, the invariants always hold."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from odradek.controller.internal import BrokerUnreachableRequest
from odradek.metadata.delta import MetadataDelta
from odradek.metadata.image import MetadataImage, PartitionImage, TopicImage
from odradek.metadata.publisher import MetadataLoader
from odradek.metadata.records import RECOVERING, decode
from odradek.wire.errors import ErrorCode
from odradek.wire.messages import incremental_alter_configs as incremental
from odradek.wire.messages.allocate_producer_ids import AllocateProducerIdsRequest
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
from odradek.wire.messages.create_partitions import CreatePartitionsRequest, CreatePartitionsTopic
from odradek.wire.messages.create_topics import CreateTopicsRequest
from odradek.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from odradek.wire.messages.elect_leaders import ElectLeadersRequest
from odradek.wire.messages.unregister_broker import UnregisterBrokerRequest
from support.examples import examples
from unit.controller.controller_harness import Harness, directory, new_topic, registration, violations

BROKERS = st.integers(0, 4)
TOPICS = st.sampled_from(["a", "b.c", "b_c", "d"])


class ControllerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.harness = Harness(
            lead=False, leader_imbalance_check_interval_ms=9_000, unclean_election_interval_ms=7_000
        )
        self.harness.commits = False
        self.harness.become_leader()
        self.before = MetadataImage()
        self.committed = MetadataImage()
        self.incarnations = 0

    @initialize()
    def brokers(self) -> None:
        for broker_id in range(4):
            self.send(registration(broker_id, log_dirs=directories(broker_id)))
        self.harness.commit()
        for broker_id in range(4):
            self.beat(broker_id, "alive", True)
        self.create("a", 2, 3)
        self.configure("a", ("min.insync.replicas", "2"))

    def send(self, request: Any) -> None:
        self.before = self.harness.state.image.private_copy()
        self.harness.send(request)

    # -- brokers

    @rule(broker_id=BROKERS, clean=st.booleans(), again=st.booleans(), new_disk=st.booleans())
    def register(self, broker_id: int, clean: bool, again: bool, new_disk: bool) -> None:
        self.incarnations += not again
        disks = directories(broker_id)
        if new_disk:
            disks[-1] = directory(1_000 + self.incarnations)
        request = registration(broker_id, self.incarnations, log_dirs=disks)
        present = self.harness.state.image.brokers.get(broker_id)
        if clean and present is not None:
            request.previous_broker_epoch = present.epoch
        self.send(request)

    @rule(
        broker_id=BROKERS,
        wants=st.sampled_from(["alive", "alive", "alive", "fence", "shutdown", "no directory"]),
        caught_up=st.booleans(),
    )
    def beat(self, broker_id: int, wants: str, caught_up: bool) -> None:
        broker = self.harness.state.image.brokers.get(broker_id)
        epoch = broker.epoch if broker is not None else 5
        request = BrokerHeartbeatRequest(
            broker_id=broker_id,
            broker_epoch=epoch,
            current_metadata_offset=self.harness.state.next_offset if caught_up else epoch - 1,
            want_fence=wants == "fence",
            want_shut_down=wants == "shutdown",
            offline_log_dirs=list(broker.directories[:1])
            if broker is not None and wants == "no directory"
            else [],
        )
        self.send(request)

    @rule(broker_id=BROKERS, stale=st.booleans())
    def refuse_connections(self, broker_id: int, stale: bool) -> None:
        broker = self.harness.state.image.brokers.get(broker_id)
        if broker is not None:
            self.send(BrokerUnreachableRequest(broker_id, broker.epoch - stale))

    @rule(broker_id=BROKERS, which=st.integers(0, 1), seed=st.integers(0, 2**32))
    def assign_directory(self, broker_id: int, which: int, seed: int) -> None:
        """A broker says that some replica is in this or that directory of its own."""
        image = self.harness.state.image
        found = self.some_partition(seed, lambda partition: broker_id in partition.replicas)
        if found is None or broker_id not in image.brokers:
            return
        topic, number, _ = found
        wanted = AssignReplicasToDirsRequestTopicData(
            topic.id, [AssignReplicasToDirsRequestPartitionData(number)]
        )
        where = AssignReplicasToDirsRequestDirectoryData(directories(broker_id)[-which], [wanted])
        self.send(AssignReplicasToDirsRequest(broker_id, image.brokers[broker_id].epoch, [where]))

    def some_partition(
        self, seed: int, fits: Callable[[PartitionImage], bool]
    ) -> tuple[TopicImage, int, PartitionImage] | None:
        found = [
            (topic, number, partition)
            for topic in self.harness.state.image.topics.values()
            for number, partition in topic.partitions.items()
            if fits(partition)
        ]
        return Random(seed).choice(found) if found else None

    @rule(broker_id=BROKERS)
    def unregister(self, broker_id: int) -> None:
        self.send(UnregisterBrokerRequest(broker_id))

    @rule(ms=st.sampled_from([500, 2_000, 4_000]), but=BROKERS)
    def silence(self, ms: int, but: int) -> None:
        """Time in which one broker alone is heard of."""
        self.beat(but, "alive", True)
        self.before = self.harness.state.image.private_copy()
        self.harness.pass_time(ms)

    # -- topics

    @rule(name=TOPICS, partitions=st.integers(1, 3), factor=st.integers(1, 3))
    def create(self, name: str, partitions: int, factor: int) -> None:
        self.send(CreateTopicsRequest([new_topic(name, partitions=partitions, factor=factor)]))

    @rule(name=TOPICS)
    def delete(self, name: str) -> None:
        self.send(DeleteTopicsRequest([DeleteTopicState(name)]))

    @rule(name=TOPICS, count=st.integers(1, 5))
    def grow(self, name: str, count: int) -> None:
        self.send(CreatePartitionsRequest([CreatePartitionsTopic(name, count, None)]))

    @rule(
        name=st.none() | TOPICS,
        value=st.sampled_from(
            [("min.insync.replicas", "1"), ("min.insync.replicas", "2"), ("min.insync.replicas", "3")]
        )
        | st.sampled_from(
            [("unclean.leader.election.enable", "true"), ("unclean.leader.election.enable", "false")]
        ),
    )
    def configure(self, name: str | None, value: tuple[str, str]) -> None:
        key, text = value
        resource = incremental.AlterConfigsResource(
            4 if name is None else 2, name or "", [incremental.AlterableConfig(key, 0, text)]
        )
        self.send(incremental.IncrementalAlterConfigsRequest([resource]))

    @rule(election_type=st.integers(0, 1))
    def elect(self, election_type: int) -> None:
        self.send(ElectLeadersRequest(election_type, None))

    @rule(seed=st.integers(0, 2**32), stale=st.booleans())
    def alter_isr(self, seed: int, stale: bool) -> None:
        """The leader of some partition proposes some ISR."""
        rng = Random(seed)
        image = self.harness.state.image
        found = self.some_partition(seed, lambda partition: partition.has_leader)
        if found is None:
            return
        topic, number, partition = found
        others = [replica for replica in partition.replicas if replica != partition.leader]
        isr = [partition.leader, *rng.sample(others, rng.randint(0, len(others)))]
        self.send(
            AlterPartitionRequest(
                partition.leader,
                image.brokers[partition.leader].epoch,
                [AlterPartitionRequestTopicData(topic.id, [_proposal(image, number, partition, isr, stale)])],
            )
        )

    @rule(seed=st.integers(0, 2**32))
    def catch_up(self, seed: int) -> None:
        """The leader of some partition takes every replica that may join into the ISR."""
        image = self.harness.state.image
        found = self.some_partition(seed, lambda partition: partition.has_leader)
        if found is None:
            return
        topic, number, partition = found
        isr = [replica for replica in partition.replicas if self.harness.state.is_active(replica)]
        data = _proposal(image, number, partition, isr, stale=False)
        leader = image.brokers[partition.leader]
        topics = [AlterPartitionRequestTopicData(topic.id, [data])]
        self.send(AlterPartitionRequest(leader.id, leader.epoch, topics))

    @rule(seed=st.integers(0, 2**32), goal=st.none() | st.lists(BROKERS, max_size=4, unique=True))
    def reassign(self, seed: int, goal: list[int] | None) -> None:
        found = self.some_partition(seed, lambda partition: True)
        if found is not None:
            topic, number, _ = found
            wanted = ReassignableTopic(topic.name, [ReassignablePartition(number, goal)])
            self.send(AlterPartitionReassignmentsRequest(topics=[wanted]))

    @rule(broker_id=BROKERS)
    def allocate(self, broker_id: int) -> None:
        broker = self.harness.state.image.brokers.get(broker_id)
        self.send(AllocateProducerIdsRequest(broker_id, broker.epoch if broker is not None else 0))

    # -- Raft

    @rule(batches=st.integers(0, 3))
    def commit_some(self, batches: int) -> None:
        self.harness.commit(batches)

    @precondition(lambda self: self.harness.controller.active)
    @rule(lost=st.integers(0, 5))
    def lose_leadership(self, lost: int) -> None:
        """Another controller led meanwhile, which did not have our last batches; then we lead again."""
        harness = self.harness
        waiting = harness.controller.pending
        harness.controller.on_resign()
        assert harness.controller.pending == 0, f"{waiting} requests were waiting"
        harness.log.truncate(max(harness.log.committed, len(harness.log.batches) - lost))
        harness.commit()
        harness.become_leader()
        self.before = harness.image

    # -- what always holds

    @invariant()
    def invariants_hold(self) -> None:
        assert list(violations(self.harness.state, self.before)) == []
        image = self.harness.image
        assert list(violations(committed_state(self.harness), self.committed)) == []
        self.committed = image

    @invariant()
    def the_committed_image_is_the_replayed_log(self) -> None:
        harness = self.harness
        loader = MetadataLoader(harness.config.cluster_id)
        loader.on_commit(harness.log.batches[: harness.log.committed])
        assert loader.image == harness.image

    @invariant()
    def the_controllers_image_is_the_replayed_log_with_what_is_not_committed(self) -> None:
        harness = self.harness
        loader = MetadataLoader(harness.config.cluster_id)
        loader.on_commit(harness.log.batches)
        assert loader.image == harness.state.image

    @invariant()
    def a_snapshot_gives_the_same_image(self) -> None:
        image = self.harness.image
        delta = MetadataDelta(MetadataImage(cluster_id=image.cluster_id))
        for record in image.records():
            delta.replay(decode(record.encode()))
        assert delta.apply(image.offset, image.epoch) == image

    @invariant()
    def a_leader_that_recovers_is_alone_in_the_isr(self) -> None:
        for topic in self.harness.state.image.topics.values():
            for number, partition in topic.partitions.items():
                if partition.leader_recovery_state == RECOVERING:
                    assert len(partition.isr) <= 1, f"{topic.name}-{number} {partition}"

    @invariant()
    def names_do_not_collide(self) -> None:
        names = [name.replace(".", "_") for name in self.harness.state.image.topics]
        assert len(set(names)) == len(names)


def directories(broker_id: int) -> list[bytes]:
    """Every second broker has two."""
    return [directory(broker_id), directory(100 + broker_id)][: 1 + broker_id % 2]


def committed_state(harness: Harness) -> Any:
    from dataclasses import replace

    return replace(harness.state, image=harness.image)


def _proposal(
    image: MetadataImage, number: int, partition: PartitionImage, isr: list[int], stale: bool
) -> AlterPartitionRequestPartitionData:
    return AlterPartitionRequestPartitionData(
        partition_index=number,
        leader_epoch=partition.leader_epoch - stale,
        partition_epoch=partition.partition_epoch,
        new_isr_with_epochs=[
            BrokerState(replica, image.brokers[replica].epoch if replica in image.brokers else -1)
            for replica in isr
        ],
    )


ControllerMachine.TestCase.settings = settings(
    examples(120), stateful_step_count=50, suppress_health_check=list(HealthCheck)
)
TestController = ControllerMachine.TestCase


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ({"isr": (1, 9)}, "ISR outside replicas"),
        ({"isr": (1, 2)}, "fenced broker in ISR"),
        ({"elr": (1,)}, "ISR and ELR overlap"),
        ({"elr": (2,)}, "ELR beside an ISR"),
        ({"isr": (0,)}, "leader outside ISR"),
        ({"partition_epoch": -1}, "an epoch of a-0 fell"),
        ({"leader_epoch": -1, "partition_epoch": 5}, "an epoch of a-0 fell"),
        ({"leader": -1, "partition_epoch": 5}, "without a new leader epoch"),
        ({"isr": (), "elr": (1,)}, "changed without a new partition epoch"),
    ],
)
def test_damage_to_an_image_is_found(damage: dict[str, Any], found: str) -> None:
    """The checks above can fail."""
    harness = Harness()
    harness.start_brokers(0, 1, 2)
    assert harness.create("a", [1, 2, 0]).error_code == ErrorCode.NONE
    harness.fence(2)
    assert list(violations(harness.state, harness.image)) == []
    partition = harness.state.image.topics["a"].partitions[0]
    before = harness.image
    fields = {name: getattr(partition, name) for name in PartitionImage.__slots__} | damage
    harness.state.image.topics["a"].partitions[0] = PartitionImage(**fields)
    assert any(found in each for each in violations(harness.state, before))
