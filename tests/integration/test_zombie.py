"""A leader that hangs past its session and goes on: it acknowledges nothing, with acks=1 neither."""

from __future__ import annotations

import socket
from typing import TypeVar

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from integration.clients import TOPIC, Writer, create_topic, read, settings, verify
from integration.conftest import MakeCluster
from integration.machines import PATIENCE_S, TIMEOUT_S, Cluster
from interop.cluster import eventually
from odradek.wire.frame import decode_response_header, encode_request
from odradek.wire.messages.find_coordinator import FindCoordinatorRequest, FindCoordinatorResponse
from odradek.wire.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
)
from odradek.wire.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from odradek.wire.primitives import Struct
from odradek.wire.records import simple_batch

pytestmark = pytest.mark.timeout(TIMEOUT_S)

VERSION = 9
PRODUCE, OFFSET_FETCH, FIND = 0, 9, 10
FETCH_VERSION, FIND_VERSION = 8, 4
M = TypeVar("M", bound=Struct)
ZOMBIES_RECORD = 999_999
IMPATIENT = {"socket_timeout_ms": 2_000, "request_timeout_ms": 2_000}
"""A client learns that a machine hangs by its own timeouts only; librdkafka's are 60 s and 30 s unless set."""


def produce_frame(value: int, acks: int = -1) -> bytes:
    """A Produce request for partition 0 of the topic."""
    batch = simple_batch([(None, b"%d" % value)], base_offset=0, timestamp=1)
    data = [TopicProduceData(name=TOPIC, partition_data=[PartitionProduceData(index=0, records=batch)])]
    request = ProduceRequest(acks=acks, timeout_ms=5_000, topic_data=data)
    return encode_request(PRODUCE, VERSION, 1, "zombie", request.encode(VERSION))


def answer_of(connection: socket.socket, response: type[M], key: int, version: int) -> M | None:
    """None where the connection ends without an answer."""
    data = b""
    while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):
        try:
            chunk = connection.recv(65_536)
        except ConnectionError:
            return None
        if not chunk:
            return None
        data += chunk
    _, start = decode_response_header(data[4:], key, version)
    return response.decode(data[4:], version, start)


def error_of(connection: socket.socket) -> int | None:
    """The error code of the one partition that was produced to; None where the connection ends without an answer."""
    answer = answer_of(connection, ProduceResponse, PRODUCE, VERSION)
    return answer and int(answer.responses[0].partition_responses[0].error_code)


def coordinator_of(cluster: Cluster, group: str, ask: int) -> int:
    """As one node sees it; -1: there is none now."""
    request = FindCoordinatorRequest(key_type=0, coordinator_keys=[group])
    with socket.create_connection(("127.0.0.1", cluster.layout.node(ask).port), timeout=PATIENCE_S) as asked:
        asked.sendall(encode_request(FIND, FIND_VERSION, 1, "zombie", request.encode(FIND_VERSION)))
        answer = answer_of(asked, FindCoordinatorResponse, FIND, FIND_VERSION)
    return answer.coordinators[0].node_id if answer else -1


def commit(cluster: Cluster, group: str, offset: int) -> None:
    """With a stock client, until it is taken."""
    consumer = Consumer({**settings(cluster), "group.id": group, "socket.timeout.ms": 2_000})

    def taken() -> bool:
        try:
            consumer.commit(offsets=[TopicPartition(TOPIC, 0, offset)], asynchronous=False)
        except KafkaException:
            return False
        return True

    eventually(taken, PATIENCE_S, f"offset {offset} was not committed")
    consumer.close()


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> Cluster:
    """Only who is paused is silent for so long, on a busy machine too."""
    three = make_cluster(broker_session_timeout_ms="6000", controller_quorum_fetch_timeout_ms="4000")
    three.start()
    return three


def led_by(cluster: Cluster, leader: int) -> None:
    """The topic, with a replica on every node."""
    replicas = [leader, *(node for node in cluster.ids if node != leader)]
    admin = AdminClient(settings(cluster))
    admin.create_topics([NewTopic(TOPIC, 1, replica_assignment=[replicas])])[TOPIC].result(PATIENCE_S)
    cluster.await_isr(TOPIC)


@pytest.mark.parametrize("controls", [False, True])
def test_a_leader_paused_past_its_session_acknowledges_nothing_afterwards(
    cluster: Cluster, controls: bool
) -> None:
    """`controls`: it is the active controller too, which would vouch for itself."""
    controller = cluster.controller()
    zombie = next(node for node in cluster.ids if (node == controller) is controls)
    led_by(cluster, zombie)
    writer = Writer(cluster, **IMPATIENT)
    writer.await_more()
    address = "127.0.0.1", cluster.layout.node(zombie).port
    with (
        socket.create_connection(address, timeout=PATIENCE_S) as connection,
        socket.create_connection(address, timeout=PATIENCE_S) as careless,
    ):
        connection.sendall(produce_frame(1))  # a record of an ordinary client: this connection works
        assert error_of(connection) == 0
        cluster.pause(zombie)
        others = [node for node in cluster.ids if node != zombie]

        def replaced() -> bool:
            found = cluster.partition(TOPIC, ask=others[0])
            return found is not None and found.leader_id in others

        eventually(replaced, PATIENCE_S, "nobody took over from the paused leader")
        connection.sendall(produce_frame(ZOMBIES_RECORD))
        careless.sendall(produce_frame(ZOMBIES_RECORD, acks=1))
        writer.await_more()
        cluster.resume(zombie)
        assert error_of(careless) != 0
        assert error_of(connection) != 0
    cluster.await_isr(TOPIC, 3)
    writer.await_more()
    writer.finish()
    numbers = [number for _, number in read(cluster, TOPIC)[0]]
    assert ZOMBIES_RECORD not in numbers
    assert numbers.count(1) == 2  # the writer's, and the one above
    assert sorted(numbers)[1:] == [1, *range(1, writer.sent)]


def test_a_coordinator_paused_past_its_session_tells_nothing_of_the_past(cluster: Cluster) -> None:
    """What it holds in memory its successor has gone beyond (chaos seed 31: an offset fell back by 400 records)."""
    group = "commits"
    create_topic(cluster)
    commit(cluster, group, 1)
    zombie = eventually(
        lambda: max(0, coordinator_of(cluster, group, cluster.ids[0])), PATIENCE_S, "nobody coordinates it"
    )
    topics = [OffsetFetchRequestTopics(name=TOPIC, partition_indexes=[0])]
    request = OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group_id=group, topics=topics)])
    frame = encode_request(OFFSET_FETCH, FETCH_VERSION, 1, "zombie", request.encode(FETCH_VERSION))
    address = "127.0.0.1", cluster.layout.node(zombie).port
    with socket.create_connection(address, timeout=PATIENCE_S) as connection:

        def told() -> tuple[int, int] | None:
            """(error, offset); None where the connection ends without an answer."""
            answer = answer_of(connection, OffsetFetchResponse, OFFSET_FETCH, FETCH_VERSION)
            if answer is None:
                return None
            [found] = answer.groups
            offset = found.topics[0].partitions[0].committed_offset if found.topics else -1
            return found.error_code, offset

        connection.sendall(frame)
        assert told() == (0, 1)
        cluster.pause(zombie)
        others = [node for node in cluster.ids if node != zombie]
        eventually(
            lambda: coordinator_of(cluster, group, others[0]) in others,
            PATIENCE_S,
            "nobody took over the group",
        )
        commit(cluster, group, 2)
        connection.sendall(frame)
        cluster.resume(zombie)
        answer = told()
    assert answer is None or answer[0] != 0, f"told {answer}"
    cluster.await_isr(TOPIC, 3)


def test_a_paused_active_controller_is_replaced_and_gives_way(cluster: Cluster) -> None:
    create_topic(cluster)
    writer = Writer(cluster, **IMPATIENT)
    writer.await_more()
    paused = cluster.controller()
    cluster.pause(paused)
    writer.await_more()
    successor = cluster.next_controller(paused)
    cluster.resume(paused)
    cluster.await_isr(TOPIC, 3)
    assert cluster.controller() == successor
    create_topic(cluster, "afterwards")
    writer.finish()
    verify(cluster, writer)
