"""The lives of five brokers, request by request, and what the controller of Apache Kafka 4.3.1 made of them: the
yardstick of test_cluster_answers.py.

Nobody is behind these brokers: they are registrations, heartbeats and proposals sent by hand to a node that is nothing
but a controller (node.id=3000, process.roles=controller, broker.session.timeout.ms=3000, otherwise defaults). What
Kafka answered, and what its metadata log says of every partition after every step, is in cluster_answers.json, recorded
with

    PYTHONPATH=tests python tests/unit/controller/cluster_cases.py localhost:19330 DATA_DIR CLUSTER_ID DUMP

where DUMP is a command that prints segments as kafka-dump-log --cluster-metadata-decoder --print-data-log does. It is
to be repeated when cases are added.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from odradek.metadata.image import PartitionImage
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.alter_partition import (
    AlterPartitionRequest,
    AlterPartitionRequestPartitionData,
    AlterPartitionRequestTopicData,
    AlterPartitionResponse,
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
from odradek.wire.messages.broker_registration import BrokerRegistrationRequest, Feature
from odradek.wire.messages.create_topics import CreateTopicsRequest
from odradek.wire.messages.describe_quorum import (
    DescribeQuorumRequest,
    DescribeQuorumRequestPartitionData,
    DescribeQuorumRequestTopicData,
)
from odradek.wire.messages.elect_leaders import ElectLeadersRequest, TopicPartitions
from odradek.wire.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
)
from odradek.wire.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsTopics,
)
from odradek.wire.messages.unregister_broker import UnregisterBrokerRequest
from odradek.wire.primitives import Message
from unit.controller.admin_cases import ask, plain
from unit.controller.controller_harness import Harness, directory, new_topic, registration

ANSWERS = Path(__file__).with_name("cluster_answers.json")
SESSION_MS = 3_000
FAR = 1_000_000
"""A metadata offset beyond all: these brokers have always applied everything."""
FEATURES = [
    ("metadata.version", 7, 30),
    ("kraft.version", 0, 1),
    ("transaction.version", 0, 2),
    ("group.version", 0, 1),
    ("eligible.leader.replicas.version", 0, 1),
    ("share.version", 0, 1),
    ("streams.version", 0, 1),
]


class World:
    """Our controller, and what the next request needs to know of the brokers and topics in it."""

    def __init__(self) -> None:
        self.harness = Harness(node_id=3000, broker_session_timeout_ms=SESSION_MS)
        self.epochs: dict[int, int] = {}
        self.ahead: Counter[tuple[str, int]] = Counter()
        """How far our partition epochs are ahead: a refusal as ineligible, and min.insync.replicas that grows,
        do not raise them in Kafka.
        """

    def step(self, step: Step) -> Message:
        """Take a step; the answer as it comes over the wire."""
        ids = Ids(self, self.epochs)
        if isinstance(step, Silence):
            for _ in range(8):
                for request in step.others(ids):
                    self.call(request)
                self.harness.pass_time(SESSION_MS // 6)
        return self.call(step(ids))

    def call(self, request: Message) -> Message:
        version = request.MAX_VERSION
        before = {(name, number): partition for name, number, partition in self._all()}
        response: Message = self.harness.call(type(request).decode(request.encode(version), version))
        self.note(self.epochs, request, response)
        if isinstance(response, AlterPartitionResponse):
            names = self.harness.image.topic_names
            for topic in response.topics:
                for each in topic.partitions:
                    if each.error_code == ErrorCode.INELIGIBLE_REPLICA:
                        self.ahead[names[topic.topic_id], each.partition_index] += 1
        elif isinstance(request, IncrementalAlterConfigsRequest):
            for name, number, partition in self._all():
                was = before[name, number]
                grown = replace(was, partition_epoch=was.partition_epoch + 1) == partition
                self.ahead[name, number] += grown
        return type(response).decode(response.encode(version), version)

    @staticmethod
    def note(epochs: dict[int, int], request: Message, response: Any) -> None:
        if isinstance(request, BrokerRegistrationRequest) and response.error_code == 0:
            epochs[request.broker_id] = response.broker_epoch

    def partitions(self) -> dict[str, Any]:
        return {
            f"{name}-{number}": describe(partition, self.ahead[name, number])
            for name, number, partition in self._all()
        }

    def _all(self) -> list[tuple[str, int, PartitionImage]]:
        topics = self.harness.image.topics.values()
        return [(topic.name, *each) for topic in topics for each in topic.partitions.items()]


def describe(partition: PartitionImage, ahead: int) -> dict[str, Any]:
    return {
        "replicas": list(partition.replicas),
        "isr": sorted(partition.isr),
        "elr": sorted(partition.elr),
        "last": list(partition.last_known_elr),
        "leader": partition.leader,
        "leader_epoch": partition.leader_epoch,
        "partition_epoch": partition.partition_epoch - ahead,
        "adding": sorted(partition.adding),
        "removing": sorted(partition.removing),
        "recovering": partition.leader_recovery_state,
        "directories": [each.hex() for each in partition.directories],
    }


class Ids:
    """Epochs and topic ids, which differ between our controller and Kafka's, as the request to be made needs them."""

    def __init__(
        self, world: World, epochs: dict[int, int], topic_ids: dict[str, bytes] | None = None
    ) -> None:
        self.world = world
        self.epochs = epochs
        self._topic_ids = topic_ids

    def topic_id(self, name: str) -> bytes:
        if self._topic_ids is not None:
            return self._topic_ids[name]
        return self.world.harness.image.topics[name].id

    def partition(self, name: str, number: int) -> tuple[int, int]:
        """(leader epoch, partition epoch)"""
        partition = self.world.harness.image.topics[name].partitions[number]
        lead = 0 if self._topic_ids is None else self.world.ahead[name, number]
        return partition.leader_epoch, partition.partition_epoch - lead


Step = Callable[[Ids], Message]


class Silence(NamedTuple):
    """A broker is not heard of until its session has ended; then the step's request is a heartbeat of another."""

    broker_id: int
    other: int

    def __call__(self, ids: Ids) -> Message:
        return beat(self.other)(ids)

    def others(self, ids: Ids) -> list[Message]:
        """What keeps all others alive meanwhile."""
        brokers = ids.world.harness.state.image.brokers.values()
        return [beat(each.id)(ids) for each in brokers if not each.fenced and each.id != self.broker_id]


def join(broker_id: int, incarnation: int = 1, clean: bool = False, dirs: list[bytes] | None = None) -> Step:
    def make(ids: Ids) -> Message:
        request = registration(
            broker_id, incarnation, cluster_id="c1", log_dirs=dirs or [directory(broker_id)]
        )
        request.features = [Feature(*each) for each in FEATURES]
        request.previous_broker_epoch = ids.epochs.get(broker_id, -1) if clean else -1
        return request

    return make


def beat(broker_id: int, **wants: Any) -> Step:
    return lambda ids: BrokerHeartbeatRequest(broker_id, ids.epochs.get(broker_id, 5), FAR, **wants)


def stale_beat(broker_id: int) -> Step:
    return lambda ids: BrokerHeartbeatRequest(broker_id, ids.epochs[broker_id] - 1, FAR)


def fence(broker_id: int) -> Step:
    return beat(broker_id, want_fence=True)


def create(name: str, *replicas: list[int], **configs: str) -> Step:
    values = {key.replace("_", "."): value for key, value in configs.items()}
    return lambda ids: CreateTopicsRequest(
        [new_topic(name, *replicas, configs=dict(values))], timeout_ms=10_000
    )


def isr(name: str, leader: int, members: list[int], number: int = 0, **changes: int) -> Step:
    def make(ids: Ids) -> Message:
        leader_epoch, partition_epoch = ids.partition(name, number)
        data = AlterPartitionRequestPartitionData(
            partition_index=number,
            leader_epoch=leader_epoch + changes.get("leader_epoch", 0),
            partition_epoch=partition_epoch + changes.get("partition_epoch", 0),
            new_isr_with_epochs=[
                BrokerState(member, ids.epochs.get(member, 0) + changes.get("broker_epoch", 0))
                for member in members
            ],
            leader_recovery_state=changes.get("recovery", 0),
        )
        topics = [AlterPartitionRequestTopicData(ids.topic_id(name), [data])]
        return AlterPartitionRequest(leader, ids.epochs[leader], topics)

    return make


def move(name: str, target: list[int] | None, number: int = 0, allow: bool = True) -> Step:
    topic = ReassignableTopic(name, [ReassignablePartition(number, target)])
    return lambda ids: AlterPartitionReassignmentsRequest(
        topics=[topic], allow_replication_factor_change=allow, timeout_ms=10_000
    )


def moves(*named: tuple[str, list[int]]) -> Step:
    topics = None if not named else [ListPartitionReassignmentsTopics(name, parts) for name, parts in named]
    return lambda ids: ListPartitionReassignmentsRequest(topics=topics)


def elect(kind: int, *named: tuple[str, list[int]]) -> Step:
    topics = [TopicPartitions(*each) for each in named] or None
    return lambda ids: ElectLeadersRequest(kind, topics, 10_000)


def config(topic: str, name: str, value: str | None) -> Step:
    operation = 0 if value is not None else 1
    resource = AlterConfigsResource(2 if topic else 4, topic, [AlterableConfig(name, operation, value)])
    return lambda ids: IncrementalAlterConfigsRequest([resource])


def place(broker_id: int, where: bytes, name: str, number: int = 0) -> Step:
    def make(ids: Ids) -> Message:
        topic_id = ids.topic_id(name) if name else bytes(range(16))
        partitions = [AssignReplicasToDirsRequestPartitionData(number)]
        data = [AssignReplicasToDirsRequestTopicData(topic_id, partitions)]
        directories = [AssignReplicasToDirsRequestDirectoryData(where, data)]
        return AssignReplicasToDirsRequest(broker_id, ids.epochs[broker_id], directories)

    return make


MIN_ISR, UNCLEAN = "min.insync.replicas", "unclean.leader.election.enable"
D1, D2 = directory(51), directory(52)

STEPS: list[Step] = [
    *(join(number) for number in (1, 2, 3, 4)),
    join(5, dirs=[D1, D2]),
    beat(1, want_fence=True),
    *(beat(number) for number in (1, 2, 3, 4, 5)),
    stale_beat(1),
    beat(9),
    join(1, 2),
    # ISR and ELR
    create("e", [1, 2, 3], min_insync_replicas="2"),
    isr("e", 1, [1]),
    isr("e", 1, [1, 2]),
    isr("e", 1, [1]),
    fence(1),
    beat(1),
    isr("e", 2, [2, 1, 3]),
    fence(3),
    fence(2),
    fence(1),
    beat(3),
    beat(1),
    beat(2),
    isr("e", 1, [1, 3]),
    # proposals that do not fit
    isr("e", 1, [1], leader_epoch=1),
    isr("e", 1, [1], partition_epoch=1),
    isr("e", 1, [1], leader_epoch=-1),
    isr("e", 1, [1], partition_epoch=-1),
    isr("e", 2, [2]),
    isr("e", 1, [2, 3]),
    isr("e", 1, [1, 5]),
    isr("e", 1, [1, 1]),
    isr("e", 1, [1], recovery=1),
    isr("e", 1, [1, 3]),
    isr("e", 1, [1], number=0, broker_epoch=0),
    # min.insync.replicas changes while there is an ELR
    config("e", MIN_ISR, "1"),
    config("e", MIN_ISR, "3"),
    isr("e", 1, [1, 2, 3]),
    isr("e", 1, [1, 2]),
    config("e", MIN_ISR, "2"),
    config("", MIN_ISR, "2"),
    # clean and unclean stops
    create("s", [2, 3], min_insync_replicas="2"),
    fence(2),
    join(2, 2, clean=True),
    Silence(2, 1),
    join(2, 2, clean=True),
    beat(2),
    isr("s", 3, [3, 2]),
    Silence(2, 1),
    join(2, 3),
    beat(2),
    isr("s", 3, [3, 2]),
    Silence(3, 1),
    Silence(2, 1),
    join(2, 4),
    join(3, 4),
    beat(3),
    beat(2),
    isr("s", 2, [2]),
    isr("s", 2, [2, 3]),
    # growth, shrinking, exchange
    create("m", [1], min_insync_replicas="1"),
    move("m", [1, 2, 3]),
    moves(),
    moves(("m", [0, 5]), ("nowhere", [0])),
    isr("m", 1, [1, 3]),
    isr("m", 1, [1, 3, 2]),
    moves(),
    move("m", [3, 1]),
    move("m", [2, 4]),
    isr("m", 1, [3, 1, 2]),
    isr("m", 1, [3, 1, 2, 4]),
    isr("m", 2, [2, 4]),
    move("m", [4, 2]),
    move("m", [4, 2]),
    move("m", [1, 3]),
    isr("m", 2, [2, 4, 3]),
    move("m", None),
    move("m", None),
    isr("m", 2, [2]),
    move("m", [4]),
    isr("m", 2, [2, 4]),
    move("m", [1, 2, 3], allow=False),
    move("m", [2], allow=False),
    isr("m", 4, [4, 2]),
    move("m", [5], allow=False),
    moves(),
    move("m", None),
    move("m", [9]),
    move("m", []),
    move("m", [1, 1]),
    move("m", [-1]),
    move("m", [1], number=7),
    move("nowhere", [1]),
    move("m", [1, 2, 5]),
    isr("m", 2, [2, 1]),
    fence(2),
    move("m", None),
    beat(2),
    # preferred leaders, leaders of last resort
    create("p", [1, 2, 3], [2, 3, 1], [3, 1, 2], min_insync_replicas="1"),
    fence(3),
    beat(3),
    elect(0, ("p", [0, 2])),
    isr("p", 1, [1, 2, 3], number=2),
    elect(0, ("p", [2])),
    elect(0),
    create("u", [3, 4], min_insync_replicas="1"),
    isr("u", 3, [3]),
    fence(3),
    elect(0, ("u", [0])),
    elect(1, ("u", [0])),
    isr("u", 4, [4], recovery=1),
    isr("u", 4, [4, 3]),
    beat(3),
    isr("u", 4, [4, 3], recovery=1),
    isr("u", 4, [4, 3]),
    config("u", UNCLEAN, "true"),
    isr("u", 4, [4]),
    fence(4),
    beat(4),
    # directories
    create("d", [5, 1], min_insync_replicas="1"),
    place(5, D1, "d"),
    place(5, D1, "d"),
    place(5, D2, "d"),
    place(4, directory(4), "d"),
    place(5, D1, ""),
    place(5, D1, "d", number=9),
    # controlled shutdown
    create("c", [4, 1], [1, 4], [4, 3]),
    beat(4, want_shut_down=True),
    isr("c", 1, [1, 4]),
    *(beat(number) for number in (1, 2, 3, 5)),
    beat(4, want_shut_down=True),
    Silence(4, 1),
    join(4, 5, clean=True),
    beat(4),
    # unregistered
    lambda ids: UnregisterBrokerRequest(5),
    beat(5),
    lambda ids: UnregisterBrokerRequest(5),
    join(5, 9),
    beat(5),
]


def record(address: str, data_dir: str, cluster_id: str, dump: list[str]) -> None:
    """Ask Kafka and ourselves side by side: our controller says which epochs its next request must name."""
    host, port = address.rsplit(":", 1)
    world, epochs, topic_ids = World(), dict[int, int](), dict[str, bytes]()
    answers, ends = [], []
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        for step in STEPS:
            ids = Ids(world, epochs, topic_ids)
            if isinstance(step, Silence):
                for _ in range(10):
                    for beat_ in step.others(ids):
                        ask(connection, beat_, beat_.MAX_VERSION)
                    time.sleep(SESSION_MS / 6_000)
            request: Any = step(ids)
            if isinstance(request, BrokerRegistrationRequest):
                request.cluster_id = cluster_id
            response: Any = ask(connection, request, request.MAX_VERSION)
            World.note(epochs, request, response)
            if isinstance(request, CreateTopicsRequest):
                topic_ids[response.topics[0].name] = response.topics[0].topic_id
            answers.append(plain(response))
            ends.append(_high_watermark(connection))
            world.step(step)
        names = {topic_id: name for name, topic_id in topic_ids.items()}
    states = _states(data_dir, dump, names, ends)
    rows = [{"answer": answer, "partitions": state} for answer, state in zip(answers, states, strict=True)]
    lines = ",\n".join(json.dumps(row, sort_keys=True) for row in _only_changes(rows))
    ANSWERS.write_text(f"[\n{lines}\n]\n")


def _only_changes(rows: list[Any]) -> list[Any]:
    """Partitions as they were in the row before are left out."""
    before: dict[str, Any] = {}
    thin = []
    for row in rows:
        changed = {name: each for name, each in row["partitions"].items() if before.get(name) != each}
        before = row["partitions"]
        thin.append({"answer": row["answer"], "partitions": changed})
    return thin


def _high_watermark(connection: socket.socket) -> int:
    topic = DescribeQuorumRequestTopicData("__cluster_metadata", [DescribeQuorumRequestPartitionData(0)])
    response: Any = ask(connection, DescribeQuorumRequest([topic]), 2)
    return int(response.topics[0].partitions[0].high_watermark)


def _states(data_dir: str, dump: list[str], names: dict[bytes, str], ends: list[int]) -> list[dict[str, Any]]:
    from odradek.wire.uuid import uuid_from_string

    segments = sorted(str(path) for path in Path(data_dir, "__cluster_metadata-0").glob("*.log"))
    printed = subprocess.run([*dump, ",".join(segments)], capture_output=True, text=True, check=True).stdout
    records = []
    for line in printed.splitlines():
        if "payload: " in line and "offset: " in line:
            offset = int(line.split("offset: ")[1].split()[0])
            records.append((offset, json.loads(line.split("payload: ", 1)[1])))
    state: dict[str, Any] = {}
    states = []
    position = 0
    for end in ends:
        while position < len(records) and records[position][0] < end:
            record = records[position][1]
            data = record["data"]
            if record["type"] in ("PARTITION_RECORD", "PARTITION_CHANGE_RECORD"):
                key = f"{names[uuid_from_string(data['topicId'])]}-{data['partitionId']}"
                state = state | {key: _changed(state.get(key), data)}
            elif record["type"] == "CLEAR_ELR_RECORD":
                state = {key: _cleared(key, each, data["topicName"]) for key, each in state.items()}
            position += 1
        states.append(state)
    return states


def _cleared(key: str, before: dict[str, Any], topic: str) -> dict[str, Any]:
    """Without ELR; a record without a topic is about all."""
    named = not topic or key.startswith(topic + "-")
    if not named or not (before["elr"] or before["last"]):
        return before
    return before | {"elr": [], "last": [], "partition_epoch": before["partition_epoch"] + 1}


def _changed(before: dict[str, Any] | None, data: dict[str, Any]) -> dict[str, Any]:
    """A partition after a record as Kafka's tool prints it."""
    from odradek.wire.uuid import uuid_from_string

    after = dict(
        before or {"elr": [], "last": [], "adding": [], "removing": [], "recovering": 0, "directories": []}
    )
    if before is not None:
        after["partition_epoch"] += 1
        after["leader_epoch"] += data.get("leader", -2) != -2
    if "directories" in data:
        after["directories"] = [uuid_from_string(each).hex() for each in data["directories"] or []]
    for theirs, ours, ordered in (
        ("replicas", "replicas", True),
        ("isr", "isr", False),
        ("eligibleLeaderReplicas", "elr", False),
        ("lastKnownElr", "last", True),
        ("leader", "leader", True),
        ("leaderEpoch", "leader_epoch", True),
        ("partitionEpoch", "partition_epoch", True),
        ("addingReplicas", "adding", False),
        ("removingReplicas", "removing", False),
        ("leaderRecoveryState", "recovering", True),
    ):
        if theirs in data and not (theirs == "leader" and data[theirs] == -2):
            value = data[theirs]
            after[ours] = value if ordered else sorted(value or [])
    return after


if __name__ == "__main__":
    record(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
