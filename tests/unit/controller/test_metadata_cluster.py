"""Three metadata nodes on real Raft: requests find the active controller from anywhere, and survive its death."""

from __future__ import annotations

from typing import Any

import pytest

from odradek.controller.internal import BROKER_UNREACHABLE
from odradek.metadata.image import PartitionImage
from odradek.wire.apis import ApiKey
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.create_topics import CreateTopicsRequest
from unit.controller.controller_harness import new_topic, violations
from unit.controller.metadata_cluster import ClusterNode, MetadataCluster
from unit.controller.test_metadata_quorum import quorum_of

NONE = ErrorCode.NONE


def creation(name: str, **options: Any) -> CreateTopicsRequest:
    return CreateTopicsRequest([new_topic(name, **options)], timeout_ms=10_000)


def codes(answers: list[Any]) -> list[int]:
    return [answer.topics[0].error_code for answer in answers]


def partition(node: ClusterNode, name: str) -> PartitionImage:
    return node.quorum.image.topics[name].partitions[0]


@pytest.fixture
def cluster() -> MetadataCluster:
    cluster = MetadataCluster()
    cluster.join(*cluster.nodes.values())
    return cluster


def test_brokers_join_and_topics_are_created_through_any_node(cluster: MetadataCluster) -> None:
    for node in cluster.running():
        assert codes([cluster.call(node, creation(f"t{node.id}", factor=3))]) == [NONE]
    cluster.run(50)
    for node in cluster.running():
        assert set(node.quorum.image.topics) == {"t1", "t2", "t3"}
        assert node.quorum.image.controller_id == cluster.leader.id
    leader = cluster.leader
    assert {to for _, to, _ in cluster.network.asked} == {leader.id}
    assert list(violations(leader.quorum.controller.state)) == []


def test_an_observer_reaches_the_controllers_and_sees_what_they_decide() -> None:
    cluster = MetadataCluster(observers=1)
    observer = cluster.nodes[4]
    cluster.join(observer)
    assert codes([cluster.call(observer, creation("a"))]) == [NONE]
    cluster.run(50)
    assert partition(observer, "a").leader == 4
    assert not observer.quorum.controller.active


def test_a_refusal_of_the_controller_comes_back_as_it_is(cluster: MetadataCluster) -> None:
    answer = cluster.call(cluster.follower, creation("a/b"))
    assert codes([answer]) == [ErrorCode.INVALID_TOPIC_EXCEPTION]


def test_requests_that_wait_when_the_controller_dies_are_answered_by_the_next(
    cluster: MetadataCluster,
) -> None:
    old, node = cluster.leader, cluster.follower
    old.kill()
    answers = node.request(creation("a", factor=2))
    cluster.settle()
    assert answers == []
    cluster.run(4_000, beating=True)
    assert codes(answers) == [NONE]
    assert cluster.leader is not old


def test_a_request_whose_answer_was_lost_is_asked_again_and_finds_itself_done(
    cluster: MetadataCluster,
) -> None:
    node = cluster.follower
    answers = node.request(creation("a"))
    cluster.network.queue.popleft()()  # the controller has it
    link = frozenset((node.id, cluster.leader.id))
    cluster.network.cut.add(link)
    cluster.settle()
    cluster.network.cut.clear()
    cluster.run(200)
    assert codes(answers) == [ErrorCode.TOPIC_ALREADY_EXISTS]


def test_without_a_majority_requests_wait_and_are_refused_with_a_reason(cluster: MetadataCluster) -> None:
    first, second, node = *[each for each in cluster.running() if each is not cluster.leader], cluster.leader
    first.kill()
    second.kill()
    handed = node.request(creation("a"))
    cluster.run(3_000)
    waiting = node.request(creation("b"))
    cluster.run(6_400)
    assert handed == waiting == []
    cluster.run(100)
    assert codes(handed) == [ErrorCode.REQUEST_TIMED_OUT]
    cluster.run(3_000)
    assert codes(waiting) == [ErrorCode.REQUEST_TIMED_OUT]
    assert "majority of the controllers" in waiting[0].topics[0].error_message
    late = node.request(creation("c"))
    first.start()
    cluster.run(5_000)
    assert codes(late) in ([NONE], [ErrorCode.INVALID_REPLICATION_FACTOR])
    assert "b" not in node.quorum.image.topics


def test_a_controller_cut_off_hands_its_requests_to_the_one_elected_meanwhile(
    cluster: MetadataCluster,
) -> None:
    old = cluster.leader
    others = [node.id for node in cluster.running() if node is not old]
    cluster.network.cut = {frozenset((old.id, other)) for other in others}
    answers = old.request(creation("a"))
    cluster.run(4_000, beating=True)
    assert answers == []
    assert cluster.nodes[others[0]].quorum.image.controller_id in others
    cluster.network.cut.clear()
    cluster.run(2_000, beating=True)
    assert codes(answers) == [NONE]
    assert cluster.leader is not old


def test_a_dead_broker_is_fenced_at_once_by_whoever_is_refused(cluster: MetadataCluster) -> None:
    cluster.call(cluster.leader, CreateTopicsRequest([new_topic("a", [3, 1, 2], [1, 2, 3], [2, 3, 1])]))
    cluster.run(50)
    dead = next(node for node in cluster.running() if node is not cluster.leader)
    witness = next(node for node in cluster.running() if node not in (dead, cluster.leader))
    epoch = dead.epoch
    dead.kill()
    for _ in range(5):
        witness.quorum.broker_unreachable(dead.id, epoch)
    cluster.settle()
    image = cluster.leader.quorum.image
    assert image.brokers[dead.id].fenced
    for each in image.topics["a"].partitions.values():
        assert dead.id not in each.isr
        assert each.leader != dead.id
    assert [key for _, _, key in cluster.network.asked].count(BROKER_UNREACHABLE) == 1, "said once"


def test_the_death_of_the_controllers_own_broker_is_told_to_the_next_controller(
    cluster: MetadataCluster,
) -> None:
    dead = cluster.leader
    cluster.call(dead, CreateTopicsRequest([new_topic("a", [dead.id, *({1, 2, 3} - {dead.id})])]))
    cluster.run(50)
    epoch = dead.epoch
    dead.kill()
    witness = cluster.running()[0]
    witness.quorum.broker_unreachable(dead.id, epoch)
    elected_ms = fenced_ms = -1
    for elapsed_ms in range(0, 5_000, 10):
        cluster.run(10, beating=True)
        if elected_ms < 0 and any(node.quorum.controller.active for node in cluster.running()):
            elected_ms = elapsed_ms
        if fenced_ms < 0 and witness.quorum.image.brokers[dead.id].fenced:
            fenced_ms = elapsed_ms
    assert 0 <= elected_ms <= fenced_ms <= elected_ms + 20
    assert partition(witness, "a").leader != dead.id


def test_a_restarted_broker_is_not_blamed_for_its_predecessors_death(cluster: MetadataCluster) -> None:
    node, witness = cluster.follower, cluster.leader
    epoch = node.epoch
    node.kill()
    witness.quorum.broker_unreachable(node.id, epoch)
    node.start()
    cluster.run(500, beating=True)
    cluster.join(node)
    witness.quorum.broker_unreachable(node.id, epoch)
    cluster.run(100)
    assert not witness.quorum.image.brokers[node.id].fenced


def test_every_node_describes_the_quorum_with_the_addresses_of_its_voters(cluster: MetadataCluster) -> None:
    for node in cluster.running():
        response = cluster.call(node, quorum_of("__cluster_metadata", 0))
        [data] = response.topics[0].partitions
        assert (data.leader_id, data.leader_epoch) == (cluster.leader.id, cluster.leader.quorum.raft.epoch)
        assert [each.replica_id for each in data.current_voters] == [1, 2, 3]
        shown = [(each.node_id, each.listeners[0].name, each.listeners[0].port) for each in response.nodes]
        assert shown == [(number, "CONTROLLER", 9093) for number in (1, 2, 3)]


def test_what_cannot_be_read_gets_no_answer(cluster: MetadataCluster) -> None:
    replies: list[bytes | None] = []
    leader = cluster.leader.quorum
    leader.answer(ApiKey.CREATE_TOPICS, 7, b"\x05", replies.append)
    leader.answer(ApiKey.CREATE_TOPICS, 99, b"", replies.append)
    leader.answer(12_345, 0, b"", replies.append)
    assert replies == [None, None, None]
    assert len(cluster.leader.warnings) == 3


def test_who_is_not_the_controller_says_so_instead_of_passing_on(cluster: MetadataCluster) -> None:
    replies: list[bytes | None] = []
    request = creation("a")
    cluster.follower.quorum.answer(ApiKey.CREATE_TOPICS, 7, request.encode(7), replies.append)
    assert replies == [None]


def test_closing_a_node_answers_whoever_waits_there(cluster: MetadataCluster) -> None:
    node = cluster.follower
    answers = node.request(creation("a"))
    node.quorum.close()
    assert codes(answers) == [ErrorCode.REQUEST_TIMED_OUT]
    assert codes(node.request(creation("a"))) == [ErrorCode.NOT_CONTROLLER]
