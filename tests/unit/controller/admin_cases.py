"""Admin requests in order, and what Apache Kafka 4.3.1 answered to each: the yardstick of test_admin_answers.py.

The answers in admin_answers.json were recorded from a fresh single node (node.id=1, process.roles=broker,controller,
otherwise defaults) with

    PYTHONPATH=proto python tests/unit/controller/admin_cases.py localhost:19400

which is to be repeated when cases are added. Ids that the server draws are replaced by a mark.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from odradek.wire.apis import response_class, response_header_version
from odradek.wire.frame import encode_request
from odradek.wire.messages import alter_configs as legacy
from odradek.wire.messages import incremental_alter_configs as incremental
from odradek.wire.messages.create_partitions import (
    CreatePartitionsAssignment,
    CreatePartitionsRequest,
    CreatePartitionsTopic,
)
from odradek.wire.messages.create_topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
)
from odradek.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from odradek.wire.messages.elect_leaders import ElectLeadersRequest, TopicPartitions
from odradek.wire.messages.update_features import FeatureUpdateKey, UpdateFeaturesRequest
from odradek.wire.primitives import Message, Struct

ANSWERS = Path(__file__).with_name("admin_answers.json")
TOPIC, BROKER = 2, 4
SET, DELETE, APPEND, SUBTRACT = 0, 1, 2, 3
NO_ID = bytes(16)
SOME_ID = bytes(range(16))


def topic(
    name: str, partitions: int = 1, factor: int = 1, *, replicas: Any = None, configs: Any = None
) -> CreatableTopic:
    return CreatableTopic(
        name,
        partitions,
        factor,
        [CreatableReplicaAssignment(number, brokers) for number, brokers in replicas or ()],
        [CreatableTopicConfig(key, value) for key, value in (configs or {}).items()],
    )


def create(*topics: CreatableTopic, validate_only: bool = False) -> CreateTopicsRequest:
    return CreateTopicsRequest(list(topics), 30_000, validate_only)


def delete(*names: str | None, ids: list[tuple[str | None, bytes]] | None = None) -> DeleteTopicsRequest:
    states = [DeleteTopicState(name, NO_ID) for name in names]
    return DeleteTopicsRequest(
        topics=states + [DeleteTopicState(*each) for each in ids or ()], timeout_ms=30_000
    )


def more(name: str, count: int, assignments: list[list[int]] | None = None) -> CreatePartitionsTopic:
    given = None if assignments is None else [CreatePartitionsAssignment(each) for each in assignments]
    return CreatePartitionsTopic(name, count, given)


def grow(*topics: CreatePartitionsTopic, validate_only: bool = False) -> CreatePartitionsRequest:
    return CreatePartitionsRequest(list(topics), 30_000, validate_only)


def change(
    type_: int, name: str, *changes: tuple[str, int, str | None], validate_only: bool = False
) -> incremental.IncrementalAlterConfigsRequest:
    configs = [incremental.AlterableConfig(*each) for each in changes]
    return incremental.IncrementalAlterConfigsRequest(
        [incremental.AlterConfigsResource(type_, name, configs)], validate_only
    )


def merged(
    one: incremental.IncrementalAlterConfigsRequest, other: incremental.IncrementalAlterConfigsRequest
) -> incremental.IncrementalAlterConfigsRequest:
    return incremental.IncrementalAlterConfigsRequest(one.resources + other.resources)


def replace(
    type_: int, name: str, validate_only: bool = False, **values: str | None
) -> legacy.AlterConfigsRequest:
    configs = [legacy.AlterableConfig(key.replace("_", "."), value) for key, value in values.items()]
    return legacy.AlterConfigsRequest([legacy.AlterConfigsResource(type_, name, configs)], validate_only)


def elect(type_: int, *partitions: tuple[str, list[int]]) -> ElectLeadersRequest:
    return ElectLeadersRequest(type_, [TopicPartitions(*each) for each in partitions], 30_000)


def level(
    feature: str, level: int, upgrade_type: int = 1, validate_only: bool = False
) -> UpdateFeaturesRequest:
    return UpdateFeaturesRequest(
        30_000, [FeatureUpdateKey(feature, level, False, upgrade_type)], validate_only
    )


CASES: list[tuple[Message, int]] = [
    # CreateTopics
    (create(topic("plain")), 7),
    (create(topic("plain")), 7),
    (create(topic("old", 3)), 2),
    (create(topic("defaults", -1, -1)), 7),
    (create(topic("only.validated", 2), validate_only=True), 7),
    (create(topic("v4", -1, -1)), 4),
    (create(topic("configured", configs={"retention.ms": "1000", "cleanup.policy": "compact"})), 7),
    (create(topic("twice"), topic("once.twice"), topic("twice")), 7),
    (create(topic("")), 7),
    (create(topic(".")), 7),
    (create(topic("..")), 7),
    (create(topic("../etc/passwd")), 7),
    (create(topic("a b")), 7),
    (create(topic("ünicode")), 7),
    (create(topic("x" * 249)), 7),
    (create(topic("x" * 250)), 7),
    (create(topic("__cluster_metadata")), 7),
    (create(topic("once_twice")), 7),
    (create(topic("no-partitions", 0)), 7),
    (create(topic("minus-two", -2)), 7),
    (create(topic("no-replicas", 1, 0)), 7),
    (create(topic("factor-minus-two", 1, -2)), 7),
    (create(topic("both-bad", 0, 0)), 7),
    (create(topic("two-replicas", 1, 2)), 7),
    (create(topic("many", 10_001)), 7),
    (create(topic("many", 10_000)), 7),
    (create(topic("innocent"), topic("many", 10_001)), 7),
    (create(topic("manual", -1, -1, replicas=[(0, [1]), (1, [1])])), 7),
    (create(topic("m1", 2, -1, replicas=[(0, [1])])), 7),
    (create(topic("m2", -1, 1, replicas=[(0, [1])])), 7),
    (create(topic("m3", -1, -1, replicas=[(0, [9])])), 7),
    (create(topic("m4", -1, -1, replicas=[(0, [1, 1])])), 7),
    (create(topic("m5", -1, -1, replicas=[(0, [1]), (2, [1])])), 7),
    (create(topic("m6", -1, -1, replicas=[(0, [1]), (0, [1])])), 7),
    (create(topic("m7", -1, -1, replicas=[(0, [])])), 7),
    (create(topic("m8", -1, -1, replicas=[(0, [1]), (1, [1, 9])])), 7),
    (create(topic("c1", configs={"retention.ms": "soon"})), 7),
    (create(topic("c2", configs={"no.such.config": "1"})), 7),
    (create(topic("c3", configs={"retention.ms": None})), 7),
    (create(topic("c4", configs={"max.message.bytes": "-1"})), 7),
    (create(topic("c5", configs={"retention.ms": "5", "segment.bytes": "x"})), 7),
    (create(topic("good"), topic("bad", 0), topic("also good")), 7),
    # CreatePartitions
    (grow(more("plain", 3)), 3),
    (grow(more("plain", 3)), 3),
    (grow(more("plain", 2)), 3),
    (grow(more("plain", 0)), 3),
    (grow(more("plain", -1)), 3),
    (grow(more("nowhere", 3)), 3),
    (grow(more("plain", 5), validate_only=True), 3),
    (grow(more("plain", 5, [[1], [1]])), 3),
    (grow(more("plain", 7, [[1]])), 3),
    (grow(more("plain", 6, [[9]])), 3),
    (grow(more("plain", 6, [[1, 1]])), 3),
    (grow(more("plain", 6, [[]])), 3),
    (grow(more("plain", 6), more("old", 4), more("plain", 7)), 3),
    # IncrementalAlterConfigs
    (change(TOPIC, "plain", ("retention.ms", SET, "5000")), 1),
    (change(TOPIC, "plain", ("cleanup.policy", APPEND, "compact")), 1),
    (change(TOPIC, "plain", ("cleanup.policy", SUBTRACT, "delete")), 1),
    (change(TOPIC, "plain", ("cleanup.policy", SUBTRACT, "compact")), 1),
    (change(TOPIC, "plain", ("cleanup.policy", APPEND, "shred")), 1),
    (change(TOPIC, "plain", ("retention.ms", APPEND, "1")), 1),
    (change(TOPIC, "plain", ("retention.ms", DELETE, None)), 1),
    (change(TOPIC, "plain", ("retention.ms", DELETE, "5000")), 1),
    (change(TOPIC, "plain", ("retention.ms", SET, None)), 1),
    (change(TOPIC, "plain", ("retention.ms", SET, "soon")), 1),
    (change(TOPIC, "plain", ("no.such.config", SET, "1")), 1),
    (change(TOPIC, "plain", ("no.such.config", DELETE, None)), 1),
    (change(TOPIC, "plain", ("retention.ms", SET, "1"), ("retention.ms", SET, "2")), 1),
    (change(TOPIC, "plain", ("retention.ms", SET, "7"), ("segment.ms", SET, "x")), 1),
    (change(TOPIC, "plain", ("retention.ms", SET, "7"), validate_only=True), 1),
    (change(TOPIC, "nowhere", ("retention.ms", SET, "1")), 1),
    (change(TOPIC, "", ("retention.ms", SET, "1")), 1),
    (change(TOPIC, "a b", ("retention.ms", SET, "1")), 1),
    (change(BROKER, "1", ("log.retention.ms", SET, "100000")), 1),
    (change(BROKER, "", ("log.retention.ms", SET, "100000")), 1),
    (change(BROKER, "", ("log.retention.ms", SET, "soon")), 1),
    (change(BROKER, "", ("log.retention.ms", DELETE, None)), 1),
    (change(BROKER, "", ("log.cleanup.policy", APPEND, "compact")), 1),
    (change(BROKER, "", ("log.retention.ms", APPEND, "1")), 1),
    (change(BROKER, "", ("node.id", SET, "4")), 1),
    (change(BROKER, "x", ("log.retention.ms", SET, "1")), 1),
    (change(BROKER, "", ("min.insync.replicas", SET, "1")), 1),
    (change(BROKER, "", ("min.insync.replicas", DELETE, None)), 1),
    (change(BROKER, "1", ("min.insync.replicas", SET, "1")), 1),
    (change(64, "1", ("a", SET, "1")), 1),
    (change(BROKER, "", ("log.retention.ms", 9, "1")), 1),
    (change(BROKER, "-1", ("log.retention.ms", SET, "1")), 1),
    (change(BROKER, "7", ("log.retention.ms", SET, "1")), 1),
    (change(BROKER, "", ("no.such.config", SET, "1")), 1),
    (change(BROKER, "", ("no.such.config", APPEND, "1")), 1),
    (change(BROKER, "", ("listener.name.plaintext.ssl.keystore.location", SET, "/x")), 1),
    (change(BROKER, "1", ("num.partitions", SET, "5"), ("log.cleaner.threads", SET, "2")), 1),
    (change(BROKER, "1", ("log.cleaner.threads", SET, "1")), 1),
    (
        merged(
            change(TOPIC, "plain", ("retention.ms", SET, "1")),
            change(TOPIC, "plain", ("segment.ms", SET, "1")),
        ),
        1,
    ),
    (
        merged(
            change(TOPIC, "nowhere", ("retention.ms", SET, "1")),
            change(TOPIC, "old", ("retention.ms", SET, "1")),
        ),
        1,
    ),
    # AlterConfigs
    (replace(TOPIC, "configured", retention_ms="9000"), 2),
    (replace(TOPIC, "configured", retention_ms=None), 2),
    (replace(TOPIC, "configured", retention_ms="soon"), 2),
    (replace(TOPIC, "configured", validate_only=True, segment_ms="9000"), 2),
    (replace(TOPIC, "configured"), 2),
    (replace(TOPIC, "nowhere", retention_ms="9000"), 2),
    (replace(BROKER, "", min_insync_replicas="1"), 2),
    (replace(BROKER, "", log_retention_ms="9000"), 2),
    # ElectLeaders
    (elect(0, ("plain", [0, 1])), 2),
    (elect(1, ("plain", [0])), 2),
    (elect(0, ("plain", [99]), ("nowhere", [0])), 2),
    (elect(7, ("plain", [0])), 2),
    # UpdateFeatures
    (level("metadata.version", 30), 2),
    (level("metadata.version", 31), 2),
    (level("metadata.version", -1), 2),
    (level("metadata.version", 31, validate_only=True), 1),
    (level("metadata.version", 30, upgrade_type=9), 2),
    (level("no.such.feature", 1), 2),
    (level("no.such.feature", 1), 1),
    # DeleteTopics
    (delete("nowhere"), 6),
    (delete("manual"), 6),
    (delete("manual"), 6),
    (delete("old", "old", "defaults"), 6),
    (delete(ids=[(None, SOME_ID), (None, NO_ID), ("plain", SOME_ID)]), 6),
    (delete(ids=[(None, SOME_ID), (None, SOME_ID)]), 6),
    (DeleteTopicsRequest(topic_names=["old", "nowhere"], timeout_ms=30_000), 5),
    (DeleteTopicsRequest(topic_names=["good", "good"], timeout_ms=30_000), 1),
]


def plain(value: Any) -> Any:
    """A message as JSON: lists of named things by name, drawn ids as a mark."""
    if isinstance(value, Struct):
        fields = {name: plain(getattr(value, name)) for name in value.__slots__}
        return {
            name: each
            for name, each in fields.items()
            if name not in ("unknown_tagged_fields", "throttle_time_ms")
        }
    if isinstance(value, list):
        items = [plain(item) for item in value]
        return sorted(items, key=lambda item: json.dumps(item, sort_keys=True))
    if isinstance(value, bytes):
        return "none" if value == NO_ID else value.hex() if value == SOME_ID else "drawn"
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def ask(connection: socket.socket, request: Message, version: int) -> Message:
    connection.sendall(encode_request(request.API_KEY, version, 1, "cases", request.encode(version)))
    [size] = struct.unpack(">i", connection.recv(4, socket.MSG_WAITALL))
    frame = connection.recv(size, socket.MSG_WAITALL)
    start = 5 if response_header_version(request.API_KEY, version) else 4
    return response_class(request.API_KEY).decode(frame, version, start)


def record(address: str) -> None:
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        answers = [plain(ask(connection, request, version)) for request, version in CASES]
    lines = ",\n".join(json.dumps(answer, sort_keys=True) for answer in answers)
    ANSWERS.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    record(sys.argv[1])
