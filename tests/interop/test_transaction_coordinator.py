"""The transaction coordinator of one node, as stock clients and Kafka's own tools see it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer
from kafka import KafkaAdminClient

from interop import jvm, real_kafka
from interop.cluster import Node, eventually, tool
from interop.transactional_writers import ConfluentWriter, JavaWriter, Writer
from odradek.cli.main import main as odradek

pytestmark = pytest.mark.timeout(150)

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


def producer(bootstrap: str, transactional_id: str, timeout_ms: int = 60_000) -> Producer:
    made = Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": transactional_id,
            "transaction.timeout.ms": timeout_ms,
            "log_level": 0,
        }
    )
    made.init_transactions(30)
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
    first.flush(30)
    second = producer(bootstrap, topic)
    with pytest.raises(KafkaException) as failure:
        first.commit_transaction(30)
    assert failure.value.args[0].fatal()
    second.begin_transaction()
    second.produce(topic, b"of the second")
    second.commit_transaction(30)
    assert described(bootstrap, topic)["TransactionState"] == "CompleteCommit"


def test_a_transaction_past_its_timeout_is_aborted(own_node: Node) -> None:
    own_node.overrides = ("transaction.abort.timed.out.transaction.cleanup.interval.ms=200",)
    own_node.start()
    create(own_node.bootstrap)
    slow = producer(own_node.bootstrap, "slow", timeout_ms=1_000)
    slow.begin_transaction()
    slow.produce(TOPIC, b"too late", partition=0)
    slow.flush(30)
    state = described(own_node.bootstrap, "slow")
    assert (state["TransactionState"], state["TopicPartitions"]) == ("Ongoing", f"{TOPIC}-0")
    eventually(
        lambda: described(own_node.bootstrap, "slow")["TransactionState"] == "CompleteAbort",
        20,
        "nobody aborts it",
    )
    with pytest.raises(KafkaException):
        slow.commit_transaction(30)


def test_kafka_reads_the_log_of_transactions(own_node: Node, kafka_tools: None) -> None:
    """kafka-dump-log --transaction-log-decoder."""
    own_node.overrides = ("transaction.state.log.num.partitions=1",)
    own_node.start()
    create(own_node.bootstrap)
    writer = producer(own_node.bootstrap, "dumped", timeout_ms=12_345)
    for commit in (True, False):
        writer.begin_transaction()
        writer.produce(TOPIC, b"x", partition=1)
        writer.flush(30)
        (writer.commit_transaction if commit else writer.abort_transaction)(30)
    eventually(
        lambda: described(own_node.bootstrap, "dumped")["TransactionState"] == "CompleteAbort",
        20,
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
        one.commit_transaction(30)
    assert odradek([*at, "upgrade", "--feature", "transaction.version=2"]) == 0
    one = producer(own_node.bootstrap, "level-0")
    one.begin_transaction()
    one.produce(TOPIC, b"x", partition=0)
    one.commit_transaction(30)


def test_force_terminate_aborts_what_is_open(bootstrap: str, new_topic: Callable[..., str]) -> None:
    topic = new_topic("forced")
    open_one = producer(bootstrap, topic)
    open_one.begin_transaction()
    open_one.produce(topic, b"x")
    open_one.flush(30)
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
        open_one.commit_transaction(30)
