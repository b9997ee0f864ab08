"""confluent-kafka (librdkafka), unmodified: idempotent producers, codecs, groups of processes, the admin client."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from interop.cluster import PATIENCE_S, ended, eventually, script, unique

CreateTopic = Callable[..., str]


@pytest.fixture
def admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap})


def produce(bootstrap: str, topic: str, records: list[dict[str, Any]], **settings: Any) -> list[Any]:
    """Produce and flush; delivery reports in order of arrival. Raises for a record that failed."""
    reports: list[Any] = []

    def delivered(error: KafkaError | None, message: Any) -> None:
        if error is not None:
            raise KafkaException(error)
        reports.append(message)

    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, **settings})
    for record in records:
        producer.produce(topic, on_delivery=delivered, **record)
        producer.poll(0)
    assert producer.flush(PATIENCE_S) == 0, "records were not delivered"
    return reports


def read(bootstrap: str, topic: str, count: int, partitions: int = 1, **settings: Any) -> list[Any]:
    """`count` messages from the beginning, without the group's help."""
    base = {"bootstrap.servers": bootstrap, "group.id": unique("reader"), "auto.offset.reset": "earliest"}
    consumer = Consumer({**base, "enable.auto.commit": False, **settings})
    consumer.assign([TopicPartition(topic, part, 0) for part in range(partitions)])
    try:
        return consume(consumer, count)
    finally:
        consumer.close()


def consume(consumer: Consumer, count: int, timeout_s: float = PATIENCE_S) -> list[Any]:
    """`count` messages without error."""
    messages: list[Any] = []
    deadline = time.monotonic() + timeout_s
    while len(messages) < count:
        assert time.monotonic() < deadline, f"{len(messages)} of {count} messages came"
        message = consumer.poll(0.5)
        if message is not None:
            assert message.error() is None, message.error()
            messages.append(message)
    return messages


def test_the_snippet_of_the_introduction(bootstrap: str) -> None:
    topic = unique("purchases")
    reports = produce(
        bootstrap, topic, [{"key": "jsmith", "value": "batteries"}, {"key": "eabara", "value": "book"}]
    )
    assert [(message.partition(), message.offset()) for message in reports] == [(0, 0), (0, 1)]
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": unique("shop"), "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    messages = consume(consumer, 2)
    assert [(message.key(), message.value()) for message in messages] == [
        (b"jsmith", b"batteries"),
        (b"eabara", b"book"),
    ]
    consumer.close()


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_every_codec_with_an_idempotent_producer(bootstrap: str, new_topic: CreateTopic, codec: str) -> None:
    topic = new_topic("codec")
    values = [os.urandom(10) * 50 for _ in range(500)]
    produce(
        bootstrap,
        topic,
        [{"value": value} for value in values],
        **{"enable.idempotence": True, "compression.type": codec},
    )
    messages = read(bootstrap, topic, 500, **{"check.crcs": True})
    assert [message.value() for message in messages] == values
    assert [message.offset() for message in messages] == list(range(500))


def test_null_values_null_headers_and_empty_ones(bootstrap: str, new_topic: CreateTopic) -> None:
    topic = new_topic("nulls")
    headers = [("null", None), ("empty", b""), ("utf-8", "é".encode())]
    produce(
        bootstrap, topic, [{"key": b"k", "value": None, "headers": headers}, {"key": None, "value": None}]
    )
    first, second = read(bootstrap, topic, 2)
    assert (first.key(), first.value(), first.headers()) == (b"k", None, headers)
    assert (second.key(), second.value(), second.headers()) == (None, None, None)


def test_a_message_too_large_is_named_as_such(bootstrap: str, new_topic: CreateTopic) -> None:
    topic = new_topic("large", 1, **{"max.message.bytes": "2000"})
    with pytest.raises(KafkaException) as refused:
        produce(bootstrap, topic, [{"value": os.urandom(5_000)}])
    assert refused.value.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE
    produce(bootstrap, topic, [{"value": os.urandom(1_000)}])


def test_a_batch_of_ten_megabytes_where_the_topic_allows_it(bootstrap: str, new_topic: CreateTopic) -> None:
    topic = new_topic("huge", 1, **{"max.message.bytes": str(12 << 20)})
    body = os.urandom(10 << 20)
    produce(bootstrap, topic, [{"value": body}], **{"message.max.bytes": 12 << 20})
    [message] = read(bootstrap, topic, 1, **{"fetch.message.max.bytes": 1 << 20})
    assert message.value() == body


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_many_small_batches_stay_in_order(bootstrap: str, new_topic: CreateTopic, acks: str) -> None:
    topic = new_topic("ordered")
    settings = {"acks": acks, "linger.ms": 0, "batch.num.messages": 3, "max.in.flight": 5}
    produce(bootstrap, topic, [{"value": b"%d" % number} for number in range(600)], **settings)
    assert [int(message.value()) for message in read(bootstrap, topic, 600)] == list(range(600))


def test_watermarks_and_offsets_for_times(bootstrap: str, new_topic: CreateTopic) -> None:
    topic = new_topic("times")
    base = int(time.time() * 1000) - 3_600_000
    produce(bootstrap, topic, [{"value": b"v", "timestamp": base + number * 10} for number in range(50)])
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": unique("times")})
    assert consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=PATIENCE_S) == (0, 50)
    [found] = consumer.offsets_for_times([TopicPartition(topic, 0, base + 205)], timeout=PATIENCE_S)
    assert found.offset == 21
    consumer.close()


def test_commits_resume_where_the_last_member_stopped(bootstrap: str, new_topic: CreateTopic) -> None:
    topic, group = new_topic("resume"), unique("group")
    produce(bootstrap, topic, [{"value": b"%d" % number} for number in range(100)])
    settings = {"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest"}
    settings["enable.auto.commit"] = False
    first = Consumer(settings)
    first.subscribe([topic])
    last = consume(first, 37)[-1]
    first.commit(message=last, asynchronous=False)
    first.close()
    second = Consumer(settings)
    second.subscribe([topic])
    assert [int(message.value()) for message in consume(second, 63)] == list(range(37, 100))
    assert second.committed([TopicPartition(topic, 0)], timeout=PATIENCE_S)[0].offset == 37
    second.close()


# --- groups of processes ---------------------------------------------------------------------------------------------

MEMBER = """
import json, sys
from confluent_kafka import Consumer

settings, topic = json.loads(sys.argv[1]), sys.argv[2]
consumer = Consumer(settings)
consumer.subscribe([topic])
shown = None
while True:
    message = consumer.poll(0.1)
    share = sorted(part.partition for part in consumer.assignment())
    if share != shown:
        shown = share
        print(json.dumps({"share": share}), flush=True)
    if message is not None and message.error() is None:
        print(json.dumps({"value": message.value().decode(), "partition": message.partition()}), flush=True)
"""


class Group:
    """Members of a group, each a process; what they print is read as it comes."""

    def __init__(self, settings: dict[str, Any], topic: str) -> None:
        self.settings = settings
        self.topic = topic
        self.members: dict[str, Any] = {}
        self.lines: dict[str, bytes] = {}

    def add(self, name: str, **settings: Any) -> None:
        import json

        process = script(MEMBER, json.dumps({**self.settings, "client.id": name, **settings}), self.topic)
        os.set_blocking(process.stdout.fileno(), False)  # type: ignore[union-attr]
        self.members[name], self.lines[name] = process, b""

    def kill(self, name: str) -> None:
        """SIGKILL: the member cannot say good-bye."""
        process = self.members.pop(name)
        self._read(name, process)
        ended([process])

    def _read(self, name: str, process: Any) -> None:
        self.lines[name] += process.stdout.read() or b""
        assert process.poll() is None, process.stderr.read().decode()

    def _events(self, name: str) -> list[dict[str, Any]]:
        import json

        return [json.loads(line) for line in self.lines[name].split(b"\n")[:-1]]

    def shares(self) -> dict[str, list[int]]:
        """The last share each living member printed."""
        for name, process in self.members.items():
            self._read(name, process)
        found = {}
        for name in self.members:
            shares = [event["share"] for event in self._events(name) if "share" in event]
            found[name] = shares[-1] if shares else []
        return found

    def generations(self, name: str) -> int:
        """How many different shares a member has had."""
        return sum("share" in event for event in self._events(name))

    def values(self) -> list[str]:
        """What all members read, the dead ones too."""
        self.shares()
        return [event["value"] for name in self.lines for event in self._events(name) if "value" in event]

    def balanced(self, partitions: int) -> bool:
        shares = list(self.shares().values())
        complete = sorted(part for share in shares for part in share) == list(range(partitions))
        return complete and max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.fixture
def new_group(bootstrap: str) -> Iterator[Callable[..., Group]]:
    groups: list[Group] = []

    def create(topic: str, **settings: Any) -> Group:
        base = {
            "bootstrap.servers": bootstrap,
            "group.id": unique("group"),
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 500,
        }
        groups.append(Group({**base, **settings}, topic))
        return groups[-1]

    yield create
    for group in groups:
        ended(list(group.members.values()))


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_two_members_take_over_from_a_killed_third(
    bootstrap: str, new_topic: CreateTopic, new_group: Callable[..., Group], strategy: str
) -> None:
    topic = new_topic("shared", 6)
    group = new_group(topic, **{"partition.assignment.strategy": strategy})
    for name in ("a", "b", "c"):
        group.add(name)
    eventually(lambda: group.balanced(6), PATIENCE_S, "three members did not share six partitions")
    produce(bootstrap, topic, [{"value": b"%d" % number, "partition": number % 6} for number in range(60)])
    eventually(lambda: len(group.values()) >= 60, PATIENCE_S, "records before the kill are missing")
    group.kill("b")
    produce(
        bootstrap, topic, [{"value": b"%d" % number, "partition": number % 6} for number in range(60, 120)]
    )
    eventually(lambda: group.balanced(6), PATIENCE_S, "two members did not take over")
    eventually(
        lambda: set(group.values()) == {str(number) for number in range(120)}, 20, "records are missing"
    )


def test_a_static_member_comes_back_to_its_share(
    new_topic: CreateTopic, new_group: Callable[..., Group], bootstrap: str
) -> None:
    topic = new_topic("static", 4)
    group = new_group(topic, **{"session.timeout.ms": 300_000})
    group.add("a", **{"group.instance.id": "instance-a"})
    group.add("b", **{"group.instance.id": "instance-b"})
    eventually(lambda: group.balanced(4), PATIENCE_S, "two members did not share four partitions")
    before, changes = group.shares(), group.generations("a")
    group.kill("b")
    group.add("again", **{"group.instance.id": "instance-b"})
    eventually(
        lambda: group.shares().get("again") == before["b"],
        PATIENCE_S,
        "the instance did not get its share back",
    )
    assert group.shares()["a"] == before["a"]
    assert group.generations("a") == changes, "the other member was rebalanced"


# --- admin -----------------------------------------------------------------------------------------------------------


def test_topics_and_configs_through_the_admin_client(bootstrap: str, admin: AdminClient) -> None:
    topic = unique("managed")
    admin.create_topics([NewTopic(topic, 2, 1, config={"retention.ms": "60000"})])[topic].result(PATIENCE_S)
    described = eventually(
        lambda: admin.list_topics(timeout=PATIENCE_S).topics.get(topic), PATIENCE_S, "the topic is not listed"
    )
    assert sorted(described.partitions) == [0, 1]
    with pytest.raises(KafkaException) as refused:
        admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(PATIENCE_S)
    assert refused.value.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS

    admin.create_partitions([NewPartitions(topic, 5)])[topic].result(PATIENCE_S)
    eventually(
        lambda: len(admin.list_topics(topic, timeout=PATIENCE_S).topics[topic].partitions) == 5,
        PATIENCE_S,
        "five did not come",
    )

    entry = ConfigEntry("max.message.bytes", "4096", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(PATIENCE_S)

    def configs() -> dict[str, Any]:
        asked = ConfigResource(ResourceType.TOPIC, topic)
        return dict(admin.describe_configs([asked])[asked].result(PATIENCE_S))

    eventually(
        lambda: configs()["max.message.bytes"].value == "4096", PATIENCE_S, "the config did not change"
    )
    assert configs()["retention.ms"].value == "60000"
    assert configs()["cleanup.policy"].is_default
    bad = ConfigEntry("retention.ms", "soon", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[bad])
    with pytest.raises(KafkaException) as refused:
        admin.incremental_alter_configs([resource])[resource].result(PATIENCE_S)
    assert refused.value.args[0].code() == KafkaError.INVALID_CONFIG

    admin.delete_topics([topic])[topic].result(PATIENCE_S)
    eventually(
        lambda: topic not in admin.list_topics(timeout=PATIENCE_S).topics,
        PATIENCE_S,
        "the topic is still listed",
    )


def test_offsets_and_records_through_the_admin_client(
    bootstrap: str, new_topic: CreateTopic, admin: AdminClient
) -> None:
    topic = new_topic("offsets")
    part = TopicPartition(topic, 0)
    base = int(time.time() * 1000) - 3_600_000
    produce(bootstrap, topic, [{"value": b"v", "timestamp": base + stamp} for stamp in (0, 500, 300)])

    def offset(spec: OffsetSpec) -> int:
        return int(admin.list_offsets({part: spec})[part].result(PATIENCE_S).offset)

    assert offset(OffsetSpec.earliest()) == 0
    assert offset(OffsetSpec.latest()) == 3
    assert offset(OffsetSpec.max_timestamp()) == 1
    assert offset(OffsetSpec.for_timestamp(base + 200)) == 1
    deleted = admin.delete_records([TopicPartition(topic, 0, 2)])
    assert next(iter(deleted.values())).result(PATIENCE_S).low_watermark == 2
    assert offset(OffsetSpec.earliest()) == 2


def test_groups_through_the_admin_client(bootstrap: str, new_topic: CreateTopic, admin: AdminClient) -> None:
    topic, group = new_topic("grouped"), unique("group")
    produce(bootstrap, topic, [{"value": b"v"}] * 10)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    consume(consumer, 10)
    described = admin.describe_consumer_groups([group])[group].result(PATIENCE_S)
    assert described.state.name == "STABLE"
    assert [part.topic for part in described.members[0].assignment.topic_partitions] == [topic]
    consumer.close()

    listed = admin.list_consumer_groups().result(PATIENCE_S)
    assert not listed.errors
    assert group in [entry.group_id for entry in listed.valid]
    wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 4)])
    admin.alter_consumer_group_offsets([wanted])[group].result(PATIENCE_S)
    asked = ConsumerGroupTopicPartitions(group)
    found = admin.list_consumer_group_offsets([asked])[group].result(PATIENCE_S)
    assert [part.offset for part in found.topic_partitions] == [4]
    admin.delete_consumer_groups([group])[group].result(PATIENCE_S)
    assert group not in [entry.group_id for entry in admin.list_consumer_groups().result(PATIENCE_S).valid]


def test_the_cluster_describes_itself(bootstrap: str, admin: AdminClient) -> None:
    described = admin.describe_cluster().result(PATIENCE_S)
    assert len(described.cluster_id) == 22
    assert f"{described.nodes[0].host}:{described.nodes[0].port}" == bootstrap
    assert described.controller.id == described.nodes[0].id
