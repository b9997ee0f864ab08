"""kafka-python, unmodified: the snippets of its documentation, and what applications do with it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import MessageSizeTooLargeError, TopicAlreadyExistsError, UnknownTopicOrPartitionError
from kafka.structs import OffsetAndMetadata

from interop.cluster import PATIENCE_S, eventually, unique

CreateTopic = Callable[..., str]


@pytest.fixture
def admin(bootstrap: str) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=bootstrap)
    yield client
    client.close()


def read(bootstrap: str, topic: str, count: int, **settings: Any) -> list[Any]:
    """`count` records of a topic from its beginning, without a group."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", **settings)
    parts = eventually(lambda: consumer.partitions_for_topic(topic), PATIENCE_S, f"{topic} is unknown")
    consumer.assign([TopicPartition(topic, part) for part in parts])
    try:
        return poll(consumer, count)
    finally:
        consumer.close()


def poll(consumer: KafkaConsumer, count: int, timeout_s: float = PATIENCE_S) -> list[Any]:
    """At least `count` records from `poll`."""
    records: list[Any] = []
    deadline = time.monotonic() + timeout_s
    while len(records) < count:
        assert time.monotonic() < deadline, f"{len(records)} of {count} records came"
        for batch in consumer.poll(timeout_ms=500).values():
            records += batch
    return records


def test_the_snippet_of_the_introduction(bootstrap: str) -> None:
    producer = KafkaProducer(
        bootstrap_servers=bootstrap,
        value_serializer=lambda v: json.dumps(v).encode("utf-8"),
        acks="all",
        retries=3,
    )
    group = unique("analytics")
    topic = unique("user-events")  # not created before: it comes into being with the first record
    for number in range(20):
        producer.send(topic, value={"user_id": number, "action": "click"})
    producer.flush()
    producer.close()

    def consumer() -> KafkaConsumer:
        return KafkaConsumer(
            topic,
            bootstrap_servers=bootstrap,
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            value_deserializer=lambda m: json.loads(m.decode("utf-8")),
        )

    first = consumer()
    seen = []
    for message in first:
        seen.append(message.value["user_id"])
        if len(seen) == 12:
            break
    committed = {
        TopicPartition(topic, 0): OffsetAndMetadata(12, "", -1),
    }
    first.commit(committed)
    first.close()
    assert seen == list(range(12))

    second = consumer()
    assert [record.value["user_id"] for record in poll(second, 8)] == list(range(12, 20))
    second.close()


@pytest.mark.parametrize("acks", [0, 1, "all"])
def test_each_level_of_acknowledgement(bootstrap: str, new_topic: CreateTopic, acks: Any) -> None:
    topic = new_topic("acks")
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks=acks)
    futures = [producer.send(topic, b"%d" % number) for number in range(50)]
    producer.flush()
    offsets = [future.get(PATIENCE_S).offset for future in futures]
    producer.close()
    if acks != 0:  # without acknowledgement the client makes offsets up
        assert offsets == list(range(50))
    assert [record.value for record in read(bootstrap, topic, 50)] == [b"%d" % number for number in range(50)]


@pytest.mark.parametrize("codec", [None, "gzip", "lz4"])
def test_compression(bootstrap: str, new_topic: CreateTopic, codec: str | None) -> None:
    topic = new_topic("codec")
    values = [os.urandom(20) * 40 for _ in range(300)]
    producer = KafkaProducer(bootstrap_servers=bootstrap, compression_type=codec, linger_ms=20)
    for value in values:
        producer.send(topic, value)
    producer.close()
    assert [record.value for record in read(bootstrap, topic, 300)] == values


def test_keys_headers_nulls_and_tombstones(bootstrap: str, new_topic: CreateTopic) -> None:
    topic = new_topic("fields", 1, **{"cleanup.policy": "compact"})
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    producer.send(
        topic, b"value", b"key", headers=[("trace", b"\x00\xff"), ("trace", b"again"), ("empty", b"")]
    )
    producer.send(topic, None, b"key")
    producer.send(topic, b"", "schlüssel".encode())
    producer.close()
    records = read(bootstrap, topic, 3)
    assert [(record.key, record.value) for record in records] == [
        (b"key", b"value"),
        (b"key", None),
        ("schlüssel".encode(), b""),
    ]
    assert list(records[0].headers) == [("trace", b"\x00\xff"), ("trace", b"again"), ("empty", b"")]
    assert list(records[1].headers) == []


def test_a_compacted_topic_refuses_records_without_key(bootstrap: str, new_topic: CreateTopic) -> None:
    topic = new_topic("compacted", 1, **{"cleanup.policy": "compact"})
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    with pytest.raises(Exception, match=r"InvalidRecord|CorruptRecord|invalid"):
        producer.send(topic, b"no key").get(PATIENCE_S)
    producer.close()


def test_records_of_a_megabyte_and_one_that_is_too_large(bootstrap: str, new_topic: CreateTopic) -> None:
    topic = new_topic("large")
    # The client gives up a whole idempotent session for one refused batch, so this one has none.
    producer = KafkaProducer(bootstrap_servers=bootstrap, max_request_size=4 << 20, enable_idempotence=False)
    body = os.urandom(1_000_000)
    assert producer.send(topic, body).get(PATIENCE_S).offset == 0
    with pytest.raises(MessageSizeTooLargeError):
        producer.send(topic, os.urandom(1_100_000)).get(PATIENCE_S)
    assert producer.send(topic, b"after").get(PATIENCE_S).offset == 1
    producer.close()
    assert [record.value for record in read(bootstrap, topic, 2)] == [body, b"after"]


@pytest.mark.parametrize("batch_size", [1, 200, 16384, 1 << 20])
def test_batches_of_many_sizes(bootstrap: str, new_topic: CreateTopic, batch_size: int) -> None:
    topic = new_topic("batches", 2)
    producer = KafkaProducer(bootstrap_servers=bootstrap, batch_size=batch_size, linger_ms=5)
    values = [b"%06d" % number + b"x" * (number % 700) for number in range(400)]
    for number, value in enumerate(values):
        producer.send(topic, value, partition=number % 2)
    producer.close()
    records = read(bootstrap, topic, 400)
    for part in (0, 1):
        mine = [record for record in records if record.partition == part]
        assert [record.offset for record in mine] == list(range(200))
        assert [record.value for record in mine] == values[part::2]


def test_seeking_and_offsets_by_position_and_time(bootstrap: str, new_topic: CreateTopic) -> None:
    topic = new_topic("seek")
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    base = int(time.time() * 1000) - 3_600_000
    for number in range(100):
        producer.send(topic, b"%d" % number, timestamp_ms=base + number * 1000)
    producer.close()
    part = TopicPartition(topic, 0)
    consumer = KafkaConsumer(bootstrap_servers=bootstrap)
    consumer.assign([part])
    assert consumer.beginning_offsets([part]) == {part: 0}
    assert consumer.end_offsets([part]) == {part: 100}
    found = consumer.offsets_for_times({part: base + 41_500})[part]
    assert (found.offset, found.timestamp) == (42, base + 42_000)
    assert consumer.offsets_for_times({part: base + 1_000_000})[part] is None
    consumer.seek(part, 90)
    assert poll(consumer, 10)[0].value == b"90"
    consumer.seek_to_beginning(part)
    assert poll(consumer, 1)[0].offset == 0
    consumer.seek_to_end(part)
    assert consumer.position(part) == 100
    consumer.close()


def test_log_append_time(bootstrap: str, new_topic: CreateTopic) -> None:
    topic = new_topic("stamped", 1, **{"message.timestamp.type": "LogAppendTime"})
    before = int(time.time() * 1000)
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    assert producer.send(topic, b"v", timestamp_ms=before - 3_600_000).get(PATIENCE_S).timestamp >= before
    producer.close()
    record = read(bootstrap, topic, 1)[0]
    assert record.timestamp_type == 1
    assert record.timestamp >= before


def test_a_waiting_fetch_answers_when_data_comes(bootstrap: str, new_topic: CreateTopic) -> None:
    """The broker may wait longer than the reader does: an answer that only comes with the limit is too late."""
    topic = new_topic("longpoll")
    got: list[Any] = []
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        fetch_max_wait_ms=200_000,
        request_timeout_ms=240_000,
        auto_offset_reset="earliest",
    )
    consumer.assign([TopicPartition(topic, 0)])
    reader = threading.Thread(target=lambda: got.extend(poll(consumer, 1)))
    reader.start()
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    producer.send(topic, b"news").get(PATIENCE_S)
    producer.close()
    reader.join(PATIENCE_S)
    assert [record.value for record in got] == [b"news"]
    consumer.close()


def test_min_bytes_holds_a_fetch_back(bootstrap: str, new_topic: CreateTopic) -> None:
    topic = new_topic("minbytes")
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    producer.send(topic, b"x" * 100).get(PATIENCE_S)
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        fetch_min_bytes=5_000,
        fetch_max_wait_ms=200_000,
        request_timeout_ms=240_000,
        auto_offset_reset="earliest",
    )
    consumer.assign([TopicPartition(topic, 0)])
    assert consumer.poll(timeout_ms=700) == {}
    producer.send(topic, b"y" * 6_000).get(PATIENCE_S)
    assert len(poll(consumer, 2)) == 2
    producer.close()
    consumer.close()


class Member(threading.Thread):
    """A consumer of a group in a thread of its own; `assignment` is what it had after its last poll."""

    def __init__(self, bootstrap: str, topic: str, group: str, **settings: Any) -> None:
        super().__init__(daemon=True)
        self.assignment: set[TopicPartition] = set()
        self.values: list[bytes] = []
        self._leave = threading.Event()
        self._settings = {
            "bootstrap_servers": bootstrap,
            "group_id": group,
            "auto_offset_reset": "earliest",
            **settings,
        }
        self._topic = topic
        self.start()

    def run(self) -> None:
        consumer = KafkaConsumer(self._topic, **self._settings)
        while not self._leave.is_set():
            for records in consumer.poll(timeout_ms=100).values():
                self.values += [record.value for record in records]
            self.assignment = set(consumer.assignment())
        consumer.close()

    def leave(self) -> None:
        """Close the consumer, which leaves the group."""
        self._leave.set()
        self.join(PATIENCE_S)


def share(members: list[Member], partitions: int) -> bool:
    """Whether the members hold all partitions, each one once, in equal parts."""
    shares = [set(member.assignment) for member in members]
    together = set().union(*shares)
    return len(together) == partitions and all(len(one) == partitions // len(members) for one in shares)


@pytest.mark.parametrize("strategy", ["eager", "cooperative"])
def test_three_members_share_and_take_over_when_one_leaves(
    bootstrap: str, new_topic: CreateTopic, strategy: str
) -> None:
    assignor = RangePartitionAssignor if strategy == "eager" else CooperativeStickyAssignor
    topic, group = new_topic("shared", 6), unique("group")
    members = [Member(bootstrap, topic, group, partition_assignment_strategy=[assignor]) for _ in range(3)]
    eventually(lambda: share(members, 6), PATIENCE_S, "three members did not share six partitions")
    members[2].leave()
    eventually(lambda: share(members[:2], 6), PATIENCE_S, "two members did not take over")
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    for number in range(60):
        producer.send(topic, b"%d" % number, partition=number % 6)
    producer.close()
    eventually(lambda: sum(len(member.values) for member in members) >= 60, PATIENCE_S, "records are missing")
    for member in members[:2]:
        member.leave()
    values = sorted(int(value) for member in members for value in member.values)
    assert values == list(range(60))


def test_topics_through_the_admin_client(bootstrap: str, admin: KafkaAdminClient) -> None:
    topic = unique("managed")
    admin.create_topics(
        {topic: {"num_partitions": 2, "replication_factor": 1, "configs": {"retention.ms": "60000"}}}
    )
    assert topic in admin.list_topics()
    described = admin.describe_topics([topic])[0]
    assert [part["partition_index"] for part in described["partitions"]] == [0, 1]
    assert all(part["leader_id"] == part["replica_nodes"][0] for part in described["partitions"])
    with pytest.raises(TopicAlreadyExistsError):
        admin.create_topics([topic])

    admin.create_partitions({topic: 4})
    eventually(
        lambda: len(admin.describe_topics([topic])[0]["partitions"]) == 4, 10, "the partitions did not come"
    )

    def overrides() -> dict[str, str]:
        configs = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])["topic"][topic]
        return {name: entry["value"] for name, entry in configs.items()}

    wanted = {"retention.ms": "120000", "cleanup.policy": "compact"}
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, dict(wanted))])
    eventually(lambda: overrides() == wanted, PATIENCE_S, "the configs did not change")
    admin.reset_configs([ConfigResource(ConfigResourceType.TOPIC, topic, ["cleanup.policy"])])
    eventually(lambda: overrides() == {"retention.ms": "120000"}, PATIENCE_S, "the config was not reset")

    admin.delete_topics([topic])
    eventually(lambda: topic not in admin.list_topics(), PATIENCE_S, "the topic is still listed")
    with pytest.raises(UnknownTopicOrPartitionError):
        admin.delete_topics([topic])


def test_delete_records(bootstrap: str, new_topic: CreateTopic, admin: KafkaAdminClient) -> None:
    topic = new_topic("trimmed")
    part = TopicPartition(topic, 0)
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    for number in range(30):
        producer.send(topic, b"%d" % number)
    producer.close()
    assert admin.delete_records({part: 12})[part]["low_watermark"] == 12
    offsets = admin.list_partition_offsets({part: OffsetSpec.EARLIEST})
    assert offsets[part].offset == 12
    assert [record.offset for record in read(bootstrap, topic, 18)] == list(range(12, 30))


def test_groups_through_the_admin_client(
    bootstrap: str, new_topic: CreateTopic, admin: KafkaAdminClient
) -> None:
    topic, group = new_topic("grouped", 2), unique("group")
    parts = [TopicPartition(topic, part) for part in (0, 1)]
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    for number in range(20):
        producer.send(topic, b"v", partition=number % 2)
    producer.close()
    consumer = KafkaConsumer(
        topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest", client_id="observer"
    )
    poll(consumer, 20)
    consumer.commit()
    described = admin.describe_groups([group])[group]
    assert described["group_state"] == "Stable"
    assert [member["client_id"] for member in described["members"]] == ["observer"]
    assert group in [entry["group_id"] for entry in admin.list_groups(states_filter=["Stable"])]
    consumer.close()

    assert {
        part: entry.offset for part, entry in admin.list_group_offsets([group])[group].items()
    } == dict.fromkeys(parts, 10)
    admin.reset_group_offsets(group, {parts[0]: OffsetSpec.EARLIEST, parts[1]: 4})
    offsets = admin.list_group_offsets([group])[group]
    assert [offsets[part].offset for part in parts] == [0, 4]
    admin.delete_group_offsets(group, [parts[1]])
    assert set(admin.list_group_offsets([group])[group]) == {parts[0]}
    assert admin.delete_groups([group]) == {group: "OK"}
    assert group not in [entry["group_id"] for entry in admin.list_groups()]


def test_commits_keep_their_metadata(bootstrap: str, new_topic: CreateTopic) -> None:
    topic, group = new_topic("notes"), unique("group")
    part = TopicPartition(topic, 0)
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    consumer.assign([part])
    assert consumer.committed(part) is None
    consumer.commit({part: OffsetAndMetadata(7, "half-way", -1)})
    kept = consumer.committed(part, metadata=True)
    assert (kept.offset, kept.metadata) == (7, "half-way")
    consumer.close()
