"""Kafka's own command-line tools on the node, and ours beside them: the same words on standard output."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from kafka import KafkaConsumer, KafkaProducer

from interop import jvm
from interop.cluster import PATIENCE_S, eventually, tool, unique
from odradek.cli.main import main as odradek

SOURCE = Path(__file__).parent / "clients" / "KafkaTools.java"
CLASSES = {
    "topics": "org.apache.kafka.tools.TopicCommand",
    "console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "configs": "kafka.admin.ConfigCommand",
    "get-offsets": "org.apache.kafka.tools.GetOffsetShell",
    "delete-records": "org.apache.kafka.tools.DeleteRecordsCommand",
    "broker-api-versions": "org.apache.kafka.tools.BrokerApiVersionsCommand",
    "cluster": "org.apache.kafka.tools.ClusterTool",
    "log-dirs": "org.apache.kafka.tools.LogDirsCommand",
    "reassign-partitions": "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
    "metadata-quorum": "org.apache.kafka.tools.MetadataQuorumCommand",
    "features": "org.apache.kafka.tools.FeatureCommand",
    "transactions": "org.apache.kafka.tools.TransactionsCommand",
}

CreateTopic = Callable[..., str]


class KafkaTools:
    """One JVM that runs Kafka's tools on demand."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def __call__(self, name: str, *args: str, stdin: bytes = b"") -> tuple[int, str]:
        """Exit code and standard output."""
        assert self._process.stdin is not None and self._process.stdout is not None
        line = "\t".join((CLASSES[name], base64.b64encode(stdin).decode(), *args))
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        code, _, output = self._process.stdout.readline().decode().partition("\t")
        assert code, f"Kafka's {name} ended its JVM"
        return int(code), base64.b64decode(output).decode()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def kafkas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaTools]:
    try:
        path = os.pathsep.join(map(str, jvm.server_jars()))
        java = jvm.tool("java")
        path = jvm.compile_java(SOURCE, path, tmp_path_factory.mktemp("tools"))
    except jvm.Unavailable as missing:
        pytest.skip(str(missing))
    options = [
        "-Xmx384m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=off",
    ]
    tools = KafkaTools([java, *options, "-cp", path, "KafkaTools"])
    yield tools
    tools.close()


def ours(name: str, *args: str, stdin: bytes = b"") -> tuple[int, str]:
    """Exit code and standard output of our tool; in this process where it does not need one of its own."""
    if not name.startswith("console-"):
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
            code = odradek([name, *args])
        return code, output.getvalue()
    done = tool(name, *args, stdin=stdin)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done.returncode, done.stdout.decode()


@pytest.fixture
def orders(bootstrap: str, new_topic: CreateTopic) -> str:
    """A topic of three partitions with 30 records, ten in each."""
    topic = new_topic("orders", 3, **{"retention.ms": "86400000"})
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    base = int(time.time() * 1000) - 3_600_000
    for number in range(30):
        producer.send(
            topic,
            b"value %d" % number,
            b"key %d" % (number % 5),
            partition=number % 3,
            timestamp_ms=base + number,
            headers=[("trace", b"7")] if number % 2 else None,
        )
    producer.close()
    return topic


@pytest.fixture
def group(bootstrap: str, orders: str) -> str:
    """A group without members that has read half of the topic."""
    name = unique("group")
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=name, enable_auto_commit=False)
    from kafka import TopicPartition
    from kafka.structs import OffsetAndMetadata

    parts = [TopicPartition(orders, part) for part in range(3)]
    consumer.assign(parts)
    consumer.commit({part: OffsetAndMetadata(4 + part.partition, "", -1) for part in parts})
    consumer.close()
    return name


def test_topics(kafkas: KafkaTools, bootstrap: str, orders: str) -> None:
    at = ("--bootstrap-server", bootstrap)
    for args in (
        ("--describe", "--topic", orders),
        ("--describe", "--topic", orders, "--topics-with-overrides"),
        ("--describe", "--topic", orders, "--under-replicated-partitions"),
        ("--describe", "--topic", orders, "--unavailable-partitions"),
        ("--describe", "--topic", orders, "--at-min-isr-partitions"),
        ("--describe", "--topic", "not-there"),
        ("--describe", "--topic", "not-there", "--if-exists"),
        ("--list", "--topic", "orders-.*"),
        ("--create", "--topic", orders),
        ("--create", "--topic", orders, "--if-not-exists"),
        ("--create", "--topic", "bad name"),
        ("--create", "--topic", "zero", "--partitions", "0"),
        ("--create", "--topic", "odd", "--config", "no.such.config=1"),
        ("--create", "--topic", "odd", "--config", "retention.ms"),
        ("--create", "--topic", "odd", "--replica-assignment", "1:1"),
        ("--alter", "--topic", orders, "--partitions", "2"),
        ("--alter", "--topic", "not-there", "--partitions", "2"),
        ("--delete", "--topic", "not-there"),
    ):
        assert ours("topics", *at, *args) == kafkas("topics", *at, *args), args


def test_each_creates_what_the_other_describes_and_deletes(kafkas: KafkaTools, bootstrap: str) -> None:
    at = ("--bootstrap-server", bootstrap)
    for one, other in ((ours, kafkas), (kafkas, ours)):
        topic = unique("made.by_one")
        code, said = one(
            "topics", *at, "--create", "--topic", topic, "--partitions", "2", "--replication-factor", "1"
        )
        assert (code, said.splitlines()[-1]) == (0, f"Created topic {topic}.")
        assert said.startswith("WARNING: Due to limitations in metric names")
        assert one("topics", *at, "--alter", "--topic", topic, "--partitions", "3") == (0, "")
        eventually(
            lambda other=other, topic=topic: (
                "PartitionCount: 3" in other("topics", *at, "--describe", "--topic", topic)[1]
            ),
            PATIENCE_S,
            "three partitions did not show",
        )
        assert other("topics", *at, "--delete", "--topic", topic) == (0, "")
        eventually(
            lambda one=one, topic=topic: topic not in one("topics", *at, "--list")[1],
            PATIENCE_S,
            "the topic is still listed",
        )


def test_consumer_groups(kafkas: KafkaTools, bootstrap: str, orders: str, group: str, tmp_path: Path) -> None:
    at = ("--bootstrap-server", bootstrap)
    plan = tmp_path / "plan.csv"
    plan.write_text(f"{orders},0,1\n{orders},1,99\n")
    reset = ("--reset-offsets", "--group", group, "--dry-run")
    for args in (
        ("--describe", "--group", group),
        ("--describe", "--group", group, "--verbose"),
        ("--describe", "--group", group, "--members"),
        ("--describe", "--group", group, "--members", "--verbose"),
        ("--describe", "--group", group, "--state"),
        ("--describe", "--group", group, "--state", "--verbose"),
        (*reset, "--topic", orders, "--to-earliest"),
        (*reset, "--topic", orders, "--to-latest"),
        (*reset, "--topic", orders, "--to-current"),
        (*reset, "--topic", f"{orders}:0,2", "--to-offset", "7"),
        (*reset, "--topic", f"{orders}:1", "--to-offset", "700"),
        (*reset, "--all-topics", "--shift-by", "-2"),
        (*reset, "--all-topics", "--shift-by", "100"),
        (*reset, "--topic", orders, "--by-duration", "PT2H"),
        (*reset, "--topic", orders, "--to-datetime", "2035-01-01T00:00:00.000"),
        (*reset, "--topic", f"{orders}:0", "--to-offset", "1", "--export"),
        (*reset, "--from-file", str(plan)),
    ):
        assert in_order(ours("consumer-groups", *at, *args)) == in_order(
            kafkas("consumer-groups", *at, *args)
        ), args


def in_order(said: tuple[int, str]) -> tuple[int, list[str]]:
    """Kafka plans resets in the order of a hash map; ours are sorted."""
    return said[0], sorted(said[1].splitlines())


def test_consumer_groups_with_a_member(kafkas: KafkaTools, bootstrap: str, orders: str) -> None:
    at, name = ("--bootstrap-server", bootstrap), unique("busy")
    consumer = KafkaConsumer(orders, bootstrap_servers=bootstrap, group_id=name, auto_offset_reset="earliest")

    def ready() -> bool:
        consumer.poll(timeout_ms=200)
        return len(consumer.assignment()) == 3

    eventually(ready, PATIENCE_S, "the member got no partitions")
    consumer.commit()
    for args in (
        ("--describe", "--group", name),
        ("--describe", "--group", name, "--members"),
        ("--describe", "--group", name, "--members", "--verbose"),
        ("--describe", "--group", name, "--state"),
        ("--list", "--state", "stable"),
    ):
        said = ours("consumer-groups", *at, *args), kafkas("consumer-groups", *at, *args)
        assert in_order(said[0]) == in_order(said[1]), args
    consumer.close()


def test_what_one_writes_to_a_group_the_other_sees(
    kafkas: KafkaTools, bootstrap: str, orders: str, group: str
) -> None:
    at = ("--bootstrap-server", bootstrap)
    reset = ("--reset-offsets", "--group", group, "--topic", orders, "--execute")
    planned = ours("consumer-groups", *at, *reset, "--to-offset", "3")
    assert in_order(planned) == in_order(kafkas("consumer-groups", *at, *reset, "--to-current"))
    planned = kafkas("consumer-groups", *at, *reset, "--to-latest")
    assert in_order(planned) == in_order(ours("consumer-groups", *at, *reset, "--to-current"))
    args = ("--delete-offsets", "--group", group, "--topic")
    assert ours("consumer-groups", *at, *args, f"{orders}:0") == kafkas(
        "consumer-groups", *at, *args, f"{orders}:0"
    )
    assert ours("consumer-groups", *at, "--delete", "--group", group) == (
        0,
        f"Deletion of requested consumer groups ('{group}') was successful.\n",
    )
    assert group not in kafkas("consumer-groups", *at, "--list")[1]


def test_configs(kafkas: KafkaTools, bootstrap: str, orders: str) -> None:
    at = ("--bootstrap-server", bootstrap)
    code, said = ours(
        "configs", *at, "--alter", "--topic", orders, "--add-config", "cleanup.policy=[compact,delete]"
    )
    assert (code, said) == (0, f"Completed updating config for topic {orders}.\n")
    for args in (
        ("--describe", "--entity-type", "topics", "--entity-name", orders),
        ("--describe", "--topic", orders, "--all"),
        ("--describe", "--topic", "not-there"),
        ("--describe", "--entity-type", "brokers", "--entity-name", "1"),
        ("--describe", "--broker", "1", "--all"),
        ("--describe", "--broker-defaults"),
        ("--alter", "--topic", orders, "--delete-config", "cleanup.policy"),
    ):
        assert ours("configs", *at, *args) == kafkas("configs", *at, *args), args


def test_offsets_and_deleting_records(
    kafkas: KafkaTools, bootstrap: str, orders: str, tmp_path: Path
) -> None:
    at = ("--bootstrap-server", bootstrap)
    for args in (
        ("--topic", orders),
        ("--topic", orders, "--time", "earliest"),
        ("--topic", orders, "--time", "-3"),
        ("--topic", orders, "--partitions", "0,2"),
        ("--topic-partitions", f"{orders}:1-"),
        ("--topic", orders, "--time", str(int(time.time() * 1000))),
    ):
        assert ours("get-offsets", *at, *args) == kafkas("get-offsets", *at, *args), args
    file = tmp_path / "offsets.json"
    wanted = [{"topic": orders, "partition": 0, "offset": 3}, {"topic": orders, "partition": 1, "offset": -1}]
    file.write_text(json.dumps({"partitions": wanted, "version": 1}))
    _, said = ours("delete-records", *at, "--offset-json-file", str(file))
    _, kafka_said = kafkas("delete-records", *at, "--offset-json-file", str(file))
    assert sorted(said.splitlines()) == sorted(kafka_said.splitlines())
    assert f"partition: {orders}-1\tlow_watermark: 10" in said


def test_the_cluster(kafkas: KafkaTools, bootstrap: str) -> None:
    at = ("--bootstrap-server", bootstrap)
    assert ours("broker-api-versions", *at) == kafkas("broker-api-versions", *at)
    assert ours("cluster", "cluster-id", *at) == kafkas("cluster", "cluster-id", *at)
    assert ours("cluster", "list-endpoints", *at) == kafkas("cluster", "list-endpoints", *at)

    def but_moving(said: tuple[int, str]) -> list[str]:
        return [line for line in said[1].splitlines() if not line.startswith("HighWatermark")]

    status = (*at, "describe", "--status")
    assert but_moving(ours("metadata-quorum", *status)) == but_moving(kafkas("metadata-quorum", *status))


def test_features(kafkas: KafkaTools, bootstrap: str) -> None:
    at = ("--bootstrap-server", bootstrap)

    def but_epoch(said: tuple[int, str]) -> tuple[int, str]:
        return said[0], re.sub(r"Epoch: \d+", "", said[1])

    assert but_epoch(ours("features", *at, "describe")) == but_epoch(kafkas("features", *at, "describe"))
    for args in (
        ("version-mapping",),
        ("version-mapping", "--release-version", "4.0-IV3"),
        ("version-mapping", "--release-version", "9"),
        ("feature-dependencies", "--feature", "eligible.leader.replicas.version=1"),
        ("feature-dependencies", "--feature", "transaction.version=2", "--feature", "metadata.version=25"),
        ("feature-dependencies", "--feature", "transaction.version=3"),
        ("upgrade", "--feature", "transaction.version=2"),
        ("upgrade", "--feature", "transaction.version"),
        ("upgrade", "--feature", "no.such.feature=1"),
        ("downgrade", "--feature", "transaction.version=1", "--dry-run"),
        ("downgrade", "--feature", "transaction.version=5"),
        ("disable", "--feature", "transaction.version", "--dry-run"),
        ("upgrade",),
    ):
        assert ours("features", *at, *args) == kafkas("features", *at, *args), args


def transaction(bootstrap: str, topic: str, transactional_id: str, *, commit: bool) -> Producer:
    """One with a record in partition 0, committed or left open."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": transactional_id,
            "transaction.timeout.ms": 600_000,
            "log_level": 0,
        }
    )
    producer.init_transactions(PATIENCE_S)
    producer.begin_transaction()
    producer.produce(topic, b"value", partition=0)
    producer.flush(PATIENCE_S)
    if commit:
        producer.commit_transaction(PATIENCE_S)
    return producer


def test_transactions(kafkas: KafkaTools, bootstrap: str, new_topic: CreateTopic) -> None:
    at = ("--bootstrap-server", bootstrap)
    topic, done, still_open = new_topic("ledger", 2), unique("done"), unique("open")
    transaction(bootstrap, topic, done, commit=True)
    held = transaction(bootstrap, topic, still_open, commit=False)
    of_topic = ("--topic", topic, "--partition", "0")
    for args in (
        ("list", "--transactional-id-pattern", still_open),
        ("list", "--transactional-id-pattern", "nobody-.*"),
        ("list", "--transactional-id-pattern", still_open, "--duration-filter", "3600000"),
        ("list", "--transactional-id-pattern", "("),
        ("describe", "--transactional-id", "nobody"),
        ("describe-producers", *of_topic),
        ("describe-producers", *of_topic, "--broker-id", "1"),
        ("describe-producers", "--topic", topic, "--partition", "1"),
        ("find-hanging", "--topic", topic),
        ("find-hanging", "--topic", topic, "--max-transaction-timeout", "0"),
        ("find-hanging", "--partition", "0"),
        ("find-hanging",),
        ("abort", *of_topic),
        ("abort", *of_topic, "--start-offset", "0"),
        ("abort", *of_topic, "--producer-id", "1"),
    ):
        assert ours("transactions", *at, *args) == kafkas("transactions", *at, *args), args

    def but_duration(said: tuple[int, str]) -> tuple[int, list[str]]:
        lines = said[1].splitlines()
        return said[0], [re.sub(r"(\d{13} *\t)\d+( +\t)", r"\1\2", line).replace(" ", "") for line in lines]

    for transactional_id in (done, still_open):
        args = (*at, "describe", "--transactional-id", transactional_id)
        assert but_duration(ours("transactions", *args)) == but_duration(kafkas("transactions", *args))
    listed = ours("transactions", *at, "list")[1].splitlines()
    assert {" ".join(line.split()) for line in listed} == {
        " ".join(line.split()) for line in kafkas("transactions", *at, "list")[1].splitlines()
    }
    assert held.flush(1) == 0


def test_either_aborts_a_transaction_that_is_open(
    kafkas: KafkaTools, bootstrap: str, new_topic: CreateTopic
) -> None:
    at = ("--bootstrap-server", bootstrap)
    for one, other in ((ours, kafkas), (kafkas, ours)):
        topic = new_topic("hangs")
        held = transaction(bootstrap, topic, topic, commit=False)
        of_topic = ("--topic", topic, "--partition", "0")
        assert one("transactions", *at, "abort", *of_topic, "--start-offset", "0") == (0, "")
        header, row = other("transactions", *at, "describe-producers", *of_topic)[1].splitlines()
        assert header.split()[-1] == "CurrentTransactionStartOffset"
        assert row.split()[-1] == "None"
        assert held.flush(1) == 0


def test_console_producer_and_consumer(kafkas: KafkaTools, bootstrap: str, new_topic: CreateTopic) -> None:
    """What either writes, both read the same way."""
    topic = new_topic("console")
    at = ("--bootstrap-server", bootstrap, "--topic", topic)
    keyed = ("--reader-property", "parse.key=true", "--reader-property", "key.separator=:")
    assert ours("console-producer", *at, *keyed, stdin="k:v\nschlüssel:größe\n:\n".encode())[0] == 0
    assert kafkas("console-producer", *at, *keyed, stdin=b"k2:v2\nk3:\n")[0] == 0
    headed = ("--property", "parse.headers=true", "--property", "null.marker=NULL")
    assert ours("console-producer", *at, *headed, stdin=b"a:1,b:2\tvalue\nNULL\tNULL\n")[0] == 0
    shown = [
        *("--formatter-property", "print.timestamp=true", "--formatter-property", "print.key=true"),
        *("--formatter-property", "print.partition=true", "--formatter-property", "print.offset=true"),
        *("--formatter-property", "print.headers=true"),
    ]
    args = (*at, "--from-beginning", "--max-messages", "7")
    assert ours("console-consumer", *args, *shown) == kafkas("console-consumer", *args, *shown)
    at_offset = (*at, "--partition", "0", "--offset", "4", "--max-messages", "2")
    assert ours("console-consumer", *at_offset) == kafkas("console-consumer", *at_offset)
    assert ours("console-consumer", *at_offset) == (0, "\nvalue\n")


def test_log_directories(bootstrap: str, orders: str, kafkas: KafkaTools) -> None:
    at = "--bootstrap-server", bootstrap, "--describe", "--topic-list", orders
    (code, text), (kafkas_code, kafkas_text) = ours("log-dirs", *at), kafkas("log-dirs", *at)
    assert code == kafkas_code == 0
    *said, told = text.splitlines()
    *kafkas_said, kafkas_told = kafkas_text.splitlines()
    assert said == kafkas_said
    by_place = re.compile(r'\{"partition":[^}]*\}')
    assert sorted(by_place.findall(told)) == sorted(by_place.findall(kafkas_told))
    assert by_place.sub("", told) == by_place.sub("", kafkas_told)
    (broker,) = json.loads(told)["brokers"]
    (directory,) = broker["logDirs"]
    assert [each["partition"] for each in directory["partitions"]] == [
        f"{orders}-{part}" for part in range(3)
    ]
    assert all(each["size"] > 0 for each in directory["partitions"])
    assert ours("log-dirs", *at, "--broker-list", "98,99")[0] == 1


def test_reassignments(bootstrap: str, orders: str, kafkas: KafkaTools, tmp_path: Path) -> None:
    at = "--bootstrap-server", bootstrap
    _, told = ours("log-dirs", *at, "--describe")
    directory = json.loads(told.splitlines()[-1])["brokers"][0]["logDirs"][0]["logDir"]
    broker = json.loads(told.splitlines()[-1])["brokers"][0]["broker"]

    def file(name: str, data: object) -> str:
        (tmp_path / name).write_text(json.dumps(data))
        return str(tmp_path / name)

    def plan(name: str, **values: object) -> str:
        entry = {"topic": orders, "partition": 1, "replicas": [broker]} | values
        return file(name, {"version": 1, "partitions": [entry]})

    here, anywhere = plan("here", log_dirs=[directory]), plan("anywhere")
    topics = file("topics", {"version": 1, "topics": [{"topic": orders}]})
    for args in (
        ("--list",),
        ("--execute", "--reassignment-json-file", here),
        ("--verify", "--reassignment-json-file", here),
        ("--execute", "--reassignment-json-file", anywhere, "--throttle", "100000"),
        ("--verify", "--reassignment-json-file", anywhere, "--preserve-throttles"),
        ("--cancel", "--reassignment-json-file", here),
        ("--generate", "--topics-to-move-json-file", topics, "--broker-list", str(broker)),
    ):
        assert ours("reassign-partitions", *at, *args) == kafkas("reassign-partitions", *at, *args), args
    for name, values in (
        ("broker", {"replicas": [98]}),
        ("topic", {"topic": "nowhere"}),
        ("partition", {"partition": 9}),
        ("twice", {"replicas": [broker, broker]}),
        ("lengths", {"log_dirs": []}),
    ):
        args = ("--execute", "--reassignment-json-file", plan(name, **values))
        (code, said), (kafkas_code, kafkas_said) = (
            tools("reassign-partitions", *at, *args) for tools in (ours, kafkas)
        )
        assert code == kafkas_code == 1
        assert said == kafkas_said.splitlines()[0] + "\n", "the same line, and no stack trace"
