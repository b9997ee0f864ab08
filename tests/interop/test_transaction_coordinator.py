"""The transaction coordinator of one node, as stock clients and Kafka's own tools see it."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer
from kafka import KafkaAdminClient

from interop import jvm, real_kafka
from interop.cluster import PATIENCE_S, Node, eventually, tool
from interop.transactional_writers import ConfluentWriter, JavaWriter, Writer
from odradek.cli.main import main as odradek
from odradek.wire.apis import ApiKey
from odradek.wire.frame import decode_response_header, encode_request
from odradek.wire.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from odradek.wire.records import simple_batch

TOPIC = "ledger"
PARTITIONS = 3
MakeWriter = Callable[[str], Writer]


@pytest.fixture(params=["confluent", "java"])
def make_writer(request: pytest.FixtureRequest, tmp_path: Path) -> MakeWriter:
    """One kind of client after the other."""

    def make(bootstrap: str) -> Writer:
        if request.param == "confluent":
            return ConfluentWriter(bootstrap, TOPIC, PARTITIONS, "writer")
        try:
            writer = JavaWriter(tmp_path, bootstrap, TOPIC, PARTITIONS, "writer")
        except jvm.Unavailable as missing:
            pytest.skip(str(missing))
        request.addfinalizer(writer.kill)
        return writer

    return make


def create(bootstrap: str, topic: str = TOPIC, partitions: int = PARTITIONS) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics(
        {topic: {"num_partitions": partitions, "replication_factor": 1}}, wait_for_metadata=True
    )
    admin.close()


def producer(bootstrap: str, transactional_id: str, timeout_ms: int = 600_000) -> Producer:
    made = Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": transactional_id,
            "transaction.timeout.ms": timeout_ms,
            "log_level": 0,
        }
    )
    made.init_transactions(PATIENCE_S)
    return made


def described(bootstrap: str, transactional_id: str) -> dict[str, str]:
    """What `kafka-transactions describe` says, by column."""
    done = tool(
        "transactions", "--bootstrap-server", bootstrap, "describe", "--transactional-id", transactional_id
    )
    assert done.returncode == 0, done.stderr.decode()
    header, row = done.stdout.decode().splitlines()
    return dict(
        zip(
            (cell.strip() for cell in header.split("\t")),
            (cell.strip() for cell in row.split("\t")),
            strict=True,
        )
    )


def test_a_node_that_is_killed_again_and_again(own_node: Node, make_writer: MakeWriter) -> None:
    own_node.start()
    create(own_node.bootstrap)
    writer = make_writer(own_node.bootstrap)
    for _ in range(4):
        writer.await_more()
        own_node.restart()
    writer.await_more()
    writer.finish()
    writer.check()


def test_a_second_producer_fences_the_first(bootstrap: str, new_topic: Callable[..., str]) -> None:
    topic = new_topic("fenced")
    first = producer(bootstrap, topic)
    first.begin_transaction()
    first.produce(topic, b"of the first")
    first.flush(PATIENCE_S)
    second = producer(bootstrap, topic)
    with pytest.raises(KafkaException) as failure:
        first.commit_transaction(PATIENCE_S)
    assert failure.value.args[0].fatal()
    second.begin_transaction()
    second.produce(topic, b"of the second")
    second.commit_transaction(PATIENCE_S)
    assert described(bootstrap, topic)["TransactionState"] == "CompleteCommit"


def test_a_transaction_past_its_timeout_is_aborted(own_node: Node) -> None:
    own_node.overrides = ("transaction.abort.timed.out.transaction.cleanup.interval.ms=200",)
    own_node.start()
    create(own_node.bootstrap)
    patient = producer(own_node.bootstrap, "patient", timeout_ms=600_000)
    slow = producer(own_node.bootstrap, "slow", timeout_ms=1_000)
    for each in (patient, slow):
        each.begin_transaction()
        each.produce(TOPIC, b"too late", partition=0)
        each.flush(PATIENCE_S)
    eventually(
        lambda: described(own_node.bootstrap, "slow")["TransactionState"] == "CompleteAbort",
        PATIENCE_S,
        "nobody aborts it",
    )
    with pytest.raises(KafkaException):
        slow.commit_transaction(PATIENCE_S)
    state = described(own_node.bootstrap, "patient")
    assert (state["TransactionState"], state["TopicPartitions"]) == ("Ongoing", f"{TOPIC}-0")


def test_kafka_reads_the_log_of_transactions(own_node: Node, kafka_tools: None) -> None:
    """kafka-dump-log --transaction-log-decoder."""
    own_node.overrides = ("transaction.state.log.num.partitions=1",)
    own_node.start()
    create(own_node.bootstrap)
    writer = producer(own_node.bootstrap, "dumped", timeout_ms=12_345)
    for commit in (True, False):
        writer.begin_transaction()
        writer.produce(TOPIC, b"x", partition=1)
        writer.flush(PATIENCE_S)
        (writer.commit_transaction if commit else writer.abort_transaction)(30)
    eventually(
        lambda: described(own_node.bootstrap, "dumped")["TransactionState"] == "CompleteAbort",
        PATIENCE_S,
        "it does not end",
    )
    own_node.stop()
    (log,) = own_node.data.rglob("__transaction_state-0/*.log")
    done = real_kafka.run_tool(
        "org.apache.kafka.tools.DumpLogSegments", ["--transaction-log-decoder", "--files", str(log)]
    )
    found = re.findall(r"key: (\{.*\}) payload: (\{.*\})", done.stdout.decode())
    assert {json.loads(key)["data"]["transactionalId"] for key, _ in found} == {"dumped"}
    values = [json.loads(payload)["data"] for _, payload in found]
    assert [value["transactionStatus"] for value in values] == [0, 1, 2, 4, 1, 3, 5]
    assert {value["transactionTimeoutMs"] for value in values} == {12_345}
    assert values[1]["transactionPartitions"] == [{"topic": TOPIC, "partitionIds": [1]}]


def test_levels_of_transaction_version(own_node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    own_node.start()
    create(own_node.bootstrap)
    at = ["features", "--bootstrap-server", own_node.bootstrap]
    assert odradek([*at, "describe"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "transaction.version" in line)
    assert line.split()[:8] == [
        *("Feature:", "transaction.version", "SupportedMinVersion:", "0"),
        *("SupportedMaxVersion:", "2", "FinalizedVersionLevel:", "2"),
    ]
    for level in (1, 0):
        assert odradek([*at, "downgrade", "--feature", f"transaction.version={level}"]) == 0
        one = producer(own_node.bootstrap, f"level-{level}")
        one.begin_transaction()
        one.produce(TOPIC, b"x", partition=0)
        one.commit_transaction(PATIENCE_S)
    assert odradek([*at, "upgrade", "--feature", "transaction.version=2"]) == 0
    one = producer(own_node.bootstrap, "level-0")
    one.begin_transaction()
    one.produce(TOPIC, b"x", partition=0)
    one.commit_transaction(PATIENCE_S)


def hang(port: int, topic: str, producer_id: int, ago_ms: int) -> None:
    """Begin a transaction that no coordinator knows of, as a producer could before KIP-890."""
    batch = simple_batch(
        [(b"k", b"v")],
        base_offset=0,
        timestamp=int(time.time() * 1000) - ago_ms,
        producer_id=producer_id,
        producer_epoch=3,
        base_sequence=0,
        transactional=True,
    )
    data = TopicProduceData(topic, partition_data=[PartitionProduceData(0, bytes(batch))])
    request = ProduceRequest("nobody", -1, 10_000, [data])
    with socket.create_connection(("localhost", port), timeout=PATIENCE_S) as connection:
        connection.sendall(encode_request(ApiKey.PRODUCE, 9, 1, "test", request.encode(9)))
        size = int.from_bytes(connection.recv(4, socket.MSG_WAITALL), "big")
        frame = connection.recv(size, socket.MSG_WAITALL)
    _, position = decode_response_header(frame, ApiKey.PRODUCE, 9)
    (answer,) = ProduceResponse.decode(frame, 9, position).responses
    assert answer.partition_responses[0].error_code == 0


def test_a_transaction_that_hangs_is_found_and_aborted(own_node: Node, kafka_tools: None) -> None:
    own_node.overrides = ("transaction.partition.verification.enable=false",)
    own_node.start()
    create(own_node.bootstrap)
    hang(own_node.port, TOPIC, 4_711, ago_ms=3_600_000)
    at = ["--bootstrap-server", own_node.bootstrap]
    search = [*at, "find-hanging", "--topic", TOPIC]
    found = tool("transactions", *search).stdout.decode()
    header, row = found.splitlines()
    assert row.split()[:6] == [TOPIC, "0", "4711", "3", "-1", "0"]
    kafkas = real_kafka.run_tool("org.apache.kafka.tools.TransactionsCommand", search).stdout.decode()
    assert kafkas.splitlines()[0] == header
    assert kafkas.splitlines()[1].split()[:7] == row.split()[:7]
    where = ["--topic", TOPIC, "--partition", "0", "--start-offset", "0"]
    done = tool("transactions", *at, "abort", *where)
    assert (done.returncode, done.stdout) == (0, b""), done.stderr.decode()
    assert tool("transactions", *search).stdout.decode().split() == header.split()


def test_force_terminate_aborts_what_is_open(bootstrap: str, new_topic: Callable[..., str]) -> None:
    topic = new_topic("forced")
    open_one = producer(bootstrap, topic)
    open_one.begin_transaction()
    open_one.produce(topic, b"x")
    open_one.flush(PATIENCE_S)
    done = tool(
        "transactions",
        "--bootstrap-server",
        bootstrap,
        "forceTerminateTransaction",
        "--transactionalId",
        topic,
    )
    assert (done.returncode, done.stdout) == (0, b""), done.stderr.decode()
    with pytest.raises(KafkaException):
        open_one.commit_transaction(PATIENCE_S)
