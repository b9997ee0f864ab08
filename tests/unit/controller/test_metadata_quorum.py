"""The whole metadata node on its real Raft log: starts, restarts, crashes, snapshots, and disks that fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from odradek.controller import topics
from odradek.controller.controller_node import MetadataQuorum
from odradek.controller.state import Decision
from odradek.metadata.records import NO_LEADER, FeatureLevelRecord, RemoveTopicRecord
from odradek.ports.timers import TimerQueue
from odradek.raft.testing.node import VirtualClock
from odradek.storage.memory_disk import MemoryDisk, StepSyncer
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.broker_heartbeat import BrokerHeartbeatRequest
from odradek.wire.messages.create_topics import CreateTopicsRequest
from odradek.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from odradek.wire.messages.describe_quorum import (
    DescribeQuorumRequest,
    DescribeQuorumRequestPartitionData,
    DescribeQuorumRequestTopicData,
)
from odradek.wire.primitives import Message
from unit.controller.controller_harness import CLUSTER, Publisher, new_topic, registration, violations

DIR = "/data"
LOG_DIR = f"{DIR}/__cluster_metadata-0"


@dataclass(frozen=True)
class Config:
    num_partitions: int = 1
    default_replication_factor: int = 1
    broker_session_timeout_ms: int = 3_000
    request_timeout_ms: int = 30_000
    controller_quorum_election_timeout_ms: int = 1_000
    controller_quorum_election_backoff_max_ms: int = 200
    controller_quorum_fetch_timeout_ms: int = 1_000
    delete_topic_enable: bool = True
    metadata_log_max_record_bytes_between_snapshots: int = 20 << 20
    metadata_log_max_snapshot_interval_ms: int = 3_600_000
    static: Mapping[str, str] = field(default_factory=dict)


class MetadataNode:
    """A process with its quorum of one. `disk` outlives it."""

    def __init__(
        self, disk: MemoryDisk | None = None, config: Config | None = None, voters: tuple[int, ...] = ()
    ) -> None:
        self.disk = disk or MemoryDisk()
        self.disk.makedirs(DIR)
        self.syncer = StepSyncer()
        self.clock = VirtualClock()
        self.timers = TimerQueue()
        self.config = config or Config()
        self.warnings: list[str] = []
        self.fatal: list[str] = []
        self.quorum = MetadataQuorum(
            disk=self.disk,
            dir=DIR,
            syncer=self.syncer,
            clock=self.clock,
            timers=self.timers,
            rng=Random(7),
            node_id=0,
            cluster_id=CLUSTER,
            config=self.config,
            voters=voters or None,
            warn=lambda text, **details: self.warnings.append(text),
        )
        self.quorum.stop_node = self.fatal.append
        self.publisher = Publisher()
        self.quorum.add_publisher(self.publisher)
        self.incarnation = 1
        self.epoch = -1

    def start(self) -> MetadataNode:
        self.quorum.start(self.clock.now_ms)
        self.syncer.drain()
        return self

    def send(self, request: Message, version: int | None = None) -> list[Any]:
        answers: list[Any] = []
        wanted = request.MAX_VERSION if version is None else version
        self.quorum.handle(request, wanted, self.clock.now_ms, answers.append)
        return answers

    def call(self, request: Message, version: int | None = None) -> Any:
        answers = self.send(request, version)
        self.syncer.drain()
        [answer] = answers
        return answer

    def join(self, incarnation: int = 1) -> None:
        """Register this node's broker and unfence it."""
        response = self.call(registration(0, incarnation))
        assert response.error_code == ErrorCode.NONE
        self.epoch = response.broker_epoch
        assert not self.heartbeat().is_fenced

    def heartbeat(self, **changes: bool) -> Any:
        return self.call(BrokerHeartbeatRequest(0, self.epoch, self.quorum.image.offset, **changes))

    def create(self, name: str) -> int:
        code = self.call(CreateTopicsRequest([new_topic(name)])).topics[0].error_code
        assert isinstance(code, int)
        return code

    def pass_time(self, ms: int) -> None:
        self.clock.now_ms += ms
        self.timers.advance(self.clock.now_ms)
        self.syncer.drain()

    def stop(self) -> MetadataNode:
        self.quorum.close()
        self.syncer.forget()
        return MetadataNode(self.disk, self.config)

    def kill(self) -> MetadataNode:
        self.syncer.forget()
        self.disk.kill()
        return MetadataNode(self.disk, self.config)

    def power_off(self) -> MetadataNode:
        self.syncer.forget()
        self.disk.crash()
        return MetadataNode(self.disk, self.config)


def test_a_new_node_leads_itself_and_takes_a_broker_and_topics() -> None:
    node = MetadataNode()
    assert not node.quorum.has_leader
    node.start()
    assert node.quorum.has_leader
    assert node.quorum.image.controller_id == 0
    node.join()
    assert node.create("a") == ErrorCode.NONE
    assert node.quorum.image.topics["a"].partitions[0].leader == 0
    assert node.publisher.images[-1] is node.quorum.image


def test_requests_that_come_before_there_is_a_leader_wait_for_it() -> None:
    node = MetadataNode()
    node.quorum.start(node.clock.now_ms)
    answers = node.send(registration(0))
    assert answers == []
    node.syncer.drain()
    assert answers[0].error_code == ErrorCode.NONE


def test_requests_do_not_wait_for_a_leader_for_ever() -> None:
    node = MetadataNode(voters=(0, 1, 2)).start()
    answers = node.send(registration(0))
    node.pass_time(29_499)
    assert answers == []
    node.pass_time(1)
    assert answers[0].error_code == ErrorCode.REQUEST_TIMED_OUT


def test_closing_answers_whoever_waits() -> None:
    node = MetadataNode(voters=(0, 1, 2)).start()
    early = node.send(registration(0))
    node.quorum.close()
    assert early[0].error_code == ErrorCode.NOT_CONTROLLER
    node = MetadataNode().start()
    waiting = node.send(registration(0))
    node.quorum.close()
    assert waiting[0].error_code == ErrorCode.REQUEST_TIMED_OUT, "it may be carried out yet"
    assert node.send(registration(0))[0].error_code == ErrorCode.NOT_CONTROLLER


@pytest.mark.parametrize("how", ["stop", "kill", "power_off"])
def test_what_was_answered_is_there_after_a_restart(how: str) -> None:
    node = MetadataNode().start()
    node.join()
    for name in ("a", "b", "c"):
        assert node.create(name) == ErrorCode.NONE
    node.call(DeleteTopicsRequest([DeleteTopicState("b")]))
    before = node.quorum.image
    again: MetadataNode = getattr(node, how)().start()
    image = again.quorum.image
    assert (image.topics, image.brokers, image.configs) == (before.topics, before.brokers, before.configs)
    assert len(again.publisher.images) == 1, "history is not published"
    assert again.publisher.deltas[0].topics_created == {"a", "c"}
    again.join(incarnation=2)
    assert again.quorum.image.topics["a"].partitions[0].leader == 0
    assert (
        again.quorum.image.topics["a"].partitions[0].leader_epoch
        > before.topics["a"].partitions[0].leader_epoch
    )


def test_nothing_is_answered_before_it_is_durable() -> None:
    node = MetadataNode().start()
    node.join()
    answers = node.send(CreateTopicsRequest([new_topic("a")]))
    assert answers == []
    again = node.power_off().start()
    assert answers == []
    assert "a" not in again.quorum.image.topics


def test_a_graceful_stop_leaves_partitions_without_leader_but_with_an_eligible_replica() -> None:
    node = MetadataNode().start()
    node.join()
    node.create("a")
    assert not node.heartbeat(want_shut_down=True).should_shut_down
    assert node.heartbeat(want_shut_down=True).should_shut_down
    again = node.stop().start()
    partition = again.quorum.image.topics["a"].partitions[0]
    assert (partition.leader, partition.elr) == (NO_LEADER, (0,))
    again.join(incarnation=2)
    assert again.quorum.image.topics["a"].partitions[0].leader == 0


def test_snapshots_are_written_by_size_and_a_restart_uses_them() -> None:
    config = Config(metadata_log_max_record_bytes_between_snapshots=2_000)
    node = MetadataNode(config=config).start()
    node.join()
    for number in range(60):
        node.create(f"t{number}")
    snapshots = [name for name in node.disk.listdir(LOG_DIR) if name.endswith(".checkpoint")]
    assert snapshots
    before = node.quorum.image
    again = node.kill().start()
    assert again.quorum.image.topics == before.topics
    assert again.quorum.image.features == before.features
    assert list(violations(again.quorum.controller.state)) == []
    again.join(incarnation=2)
    assert again.create("t60") == ErrorCode.NONE


def test_snapshots_are_written_by_time_if_anything_is_new() -> None:
    node = MetadataNode(config=Config(metadata_log_max_snapshot_interval_ms=60_000)).start()

    def snapshots() -> int:
        return sum(name.endswith(".checkpoint") for name in node.disk.listdir(LOG_DIR))

    node.join()
    before = snapshots()
    node.pass_time(60_000)
    assert snapshots() == before + 1
    node.pass_time(5_000)  # the broker is fenced, which is new
    node.pass_time(55_000)
    newest = snapshots()
    for _ in range(3):
        node.pass_time(60_000)
    assert snapshots() == newest


def test_a_log_that_cannot_be_written_stops_the_node() -> None:
    node = MetadataNode().start()
    node.join()
    node.disk.faults.fail_change_at = node.disk.faults.changes
    answers = node.send(CreateTopicsRequest([new_topic("a")]))
    node.syncer.drain()
    assert [each.topics[0].error_code for each in answers] == [ErrorCode.REQUEST_TIMED_OUT]
    assert len(node.fatal) == 1
    assert not node.quorum.has_leader
    assert node.send(registration(0))[0].error_code == ErrorCode.NOT_CONTROLLER


def test_an_fsync_that_fails_stops_the_node_and_nothing_is_promised() -> None:
    node = MetadataNode().start()
    node.join()
    node.disk.faults.fail_sync_at = node.disk.faults.syncs
    answers = node.send(CreateTopicsRequest([new_topic("a")]))
    node.syncer.drain()
    assert [each.topics[0].error_code for each in answers] == [ErrorCode.REQUEST_TIMED_OUT]
    assert len(node.fatal) == 1


def test_a_committed_record_that_cannot_be_applied_stops_the_node_with_its_offset() -> None:
    node = MetadataNode().start()
    offset = node.quorum.raft.append([b"\x81\xa1t\x63"])  # {"t": 99}
    node.syncer.drain()
    assert len(node.fatal) == 1
    assert f"offset {offset}" in node.fatal[0]
    assert "unknown record type 99" in node.fatal[0]


@pytest.mark.parametrize(
    ("name", "level"), [("metadata.version", 31), ("metadata.version", 29), ("flying", 1)]
)
def test_a_cluster_of_another_version_is_refused_with_a_word_on_what_to_do(name: str, level: int) -> None:
    node = MetadataNode().start()
    node.quorum.raft.append([FeatureLevelRecord(name, level).encode()])
    node.syncer.drain()
    assert f"finalized {name} {level}" in node.fatal[0]
    again = node.kill().start()
    assert "start the version that wrote it" in again.fatal[0]
    assert not again.quorum.has_leader


def test_after_a_mistake_of_ours_the_node_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    node = MetadataNode().start()
    node.join()
    with monkeypatch.context() as patch:
        patch.setattr(topics, "delete_topics", lambda *_: Decision([RemoveTopicRecord(bytes(16))], None))
        [answer] = node.send(DeleteTopicsRequest([DeleteTopicState("a")]))
    assert answer.responses[0].error_code == ErrorCode.UNKNOWN_SERVER_ERROR
    assert node.warnings == ["a request failed in the controller"]
    assert not node.quorum.controller.active
    node.syncer.drain()
    node.pass_time(5_000)
    assert node.quorum.controller.active, "the only voter is elected again"
    assert node.fatal == []
    assert node.create("a") in (ErrorCode.NONE, ErrorCode.INVALID_REPLICATION_FACTOR)


def quorum_of(topic: str, partition: int) -> DescribeQuorumRequest:
    return DescribeQuorumRequest(
        [DescribeQuorumRequestTopicData(topic, [DescribeQuorumRequestPartitionData(partition)])]
    )


def test_the_quorum_describes_itself() -> None:
    node = MetadataNode().start()
    node.join()
    response = node.call(quorum_of("__cluster_metadata", 0))
    [partition] = response.topics[0].partitions
    assert (response.error_code, partition.error_code, partition.leader_id) == (0, 0, 0)
    assert partition.high_watermark == node.quorum.raft.end_offset
    assert [(voter.replica_id, voter.log_end_offset) for voter in partition.current_voters] == [
        (0, partition.high_watermark)
    ]
    assert [each.node_id for each in response.nodes] == [0]
    for version in range(3):
        node.call(quorum_of("__cluster_metadata", 0), version).encode(version)
    unknown = node.call(quorum_of("a", 0)).topics[0].partitions[0]
    assert unknown.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_who_does_not_lead_does_not_describe_the_quorum() -> None:
    node = MetadataNode(voters=(0, 1, 2)).start()
    answers = node.send(quorum_of("__cluster_metadata", 0))
    node.pass_time(5_000)
    assert answers[0].error_code == ErrorCode.REQUEST_TIMED_OUT
    assert "majority of the controllers" in answers[0].error_message


def test_an_answer_that_cannot_be_sent_is_a_warning() -> None:
    node = MetadataNode().start()
    node.join()

    def fail(_response: Any) -> None:
        raise ValueError("gone")

    node.quorum.handle(CreateTopicsRequest([new_topic("a")]), 7, node.clock.now_ms, fail)
    node.syncer.drain()
    assert (len(node.warnings), node.fatal) == (1, [])
    assert node.create("b") == ErrorCode.NONE
