"""Waiting for commits, losing leadership, and what goes wrong in between."""

from __future__ import annotations

from typing import Any

import pytest

from odradek.controller import quorum_controller, topics
from odradek.controller.quorum_controller import handler_of
from odradek.controller.responses import error_response
from odradek.controller.settings import SUPPORTED_FEATURES
from odradek.controller.state import ControllerState, Decision
from odradek.metadata.records import RemoveTopicRecord
from odradek.wire.apis import ApiKey, request_class
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.allocate_producer_ids import AllocateProducerIdsRequest
from odradek.wire.messages.alter_configs import AlterConfigsRequest
from odradek.wire.messages.alter_configs import AlterConfigsResource as LegacyResource
from odradek.wire.messages.create_partitions import CreatePartitionsRequest, CreatePartitionsTopic
from odradek.wire.messages.create_topics import CreateTopicsRequest
from odradek.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from odradek.wire.messages.elect_leaders import ElectLeadersRequest, TopicPartitions
from odradek.wire.messages.fetch import FetchRequest
from odradek.wire.messages.incremental_alter_configs import (
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
)
from odradek.wire.messages.update_features import UpdateFeaturesRequest
from odradek.wire.primitives import Message
from unit.controller.controller_harness import Harness, new_topic, registration


def creation(name: str) -> CreateTopicsRequest:
    return CreateTopicsRequest([new_topic(name)])


@pytest.fixture
def harness() -> Harness:
    """A controller with one broker, whose log commits when told to."""
    harness = Harness()
    harness.start_broker(0)
    harness.commits = False
    return harness


def test_an_empty_log_begins_with_the_feature_levels_and_min_insync_replicas() -> None:
    harness = Harness(static_configs={"min.insync.replicas": "2"})
    assert harness.image.features == {name: high for name, (_, high) in SUPPORTED_FEATURES.items()}
    assert harness.image.features["transaction.version"] == 2
    assert harness.image.config(4, "") == {"min.insync.replicas": "2"}
    offset = harness.log.end_offset
    harness.controller.on_resign()
    harness.become_leader()
    assert harness.log.end_offset == offset + 1, "only the first leader writes them"


def test_a_response_waits_until_its_records_are_committed(harness: Harness) -> None:
    answers = harness.send(creation("a"))
    assert (answers, harness.controller.pending) == ([], 1)
    assert "a" not in harness.image.topics
    assert "a" in harness.state.image.topics
    harness.commit()
    assert answers[0].topics[0].error_code == ErrorCode.NONE
    assert harness.controller.pending == 0


def test_the_image_is_published_before_the_response_is_sent(harness: Harness) -> None:
    seen: list[bool] = []

    def done(_response: Any) -> None:
        seen.append("a" in harness.publisher.images[-1].topics)

    harness.controller.handle(creation("a"), 7, harness.now_ms, done)
    harness.commit()
    assert seen == [True]
    assert harness.publisher.deltas[-1].topics_created == {"a"}


def test_a_decision_sees_what_is_not_committed_yet(harness: Harness) -> None:
    first, second = harness.send(creation("a")), harness.send(creation("a"))
    assert second == [], "that the topic exists is not certain yet"
    harness.commit()
    assert first[0].topics[0].error_code == ErrorCode.NONE
    assert second[0].topics[0].error_code == ErrorCode.TOPIC_ALREADY_EXISTS


def test_responses_come_in_the_order_of_their_commits(harness: Harness) -> None:
    answers = [harness.send(creation(name)) for name in "abc"]
    harness.commit(1)
    assert [len(each) for each in answers] == [1, 0, 0]
    harness.commit(2)
    assert [len(each) for each in answers] == [1, 1, 1]


def test_a_request_that_writes_nothing_is_answered_at_once_if_nothing_is_open(harness: Harness) -> None:
    answers = harness.send(CreateTopicsRequest([new_topic("")]))
    assert answers[0].topics[0].error_code == ErrorCode.INVALID_TOPIC_EXCEPTION


def test_a_standby_has_no_answer() -> None:
    harness = Harness(lead=False)
    assert harness.call(creation("a")) is None


def test_waiting_requests_get_no_answer_when_leadership_is_lost(harness: Harness) -> None:
    answers = harness.send(creation("a"))
    harness.controller.on_resign()
    assert answers == [None]
    assert "a" not in harness.state.image.topics
    harness.controller.on_resign()
    assert len(answers) == 1


def test_what_was_appended_may_be_committed_after_leadership_was_lost(harness: Harness) -> None:
    harness.send(creation("a"))
    harness.controller.on_resign()
    harness.commit()
    assert "a" in harness.image.topics
    harness.become_leader()
    harness.commits = True
    assert harness.create("a").error_code == ErrorCode.TOPIC_ALREADY_EXISTS


def test_what_was_appended_may_be_gone_after_leadership_was_lost(harness: Harness) -> None:
    harness.send(creation("a_b"))
    harness.controller.on_resign()
    harness.log.truncate(harness.log.committed)
    harness.become_leader()
    harness.commits = True
    assert harness.create("a.b").error_code == ErrorCode.NONE


def test_a_new_controller_knows_names_and_sessions_from_the_log(harness: Harness) -> None:
    harness.commits = True
    harness.create("a_b")
    harness.controller.on_resign()
    harness.become_leader()
    assert harness.create("a.b").error_code == ErrorCode.INVALID_TOPIC_EXCEPTION
    harness.pass_time(10_000)
    assert harness.image.brokers[0].fenced


def test_no_more_than_so_many_requests_wait(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quorum_controller, "PENDING_REQUESTS_MAX", 3)
    for number in range(3):
        harness.send(creation(f"t{number}"))
    answer = harness.call(creation("t3"))
    assert answer.topics[0].error_code == ErrorCode.REQUEST_TIMED_OUT
    harness.commit()
    assert harness.send(creation("t3")) == []


def test_a_log_that_takes_nothing_ends_the_controllers_time(harness: Harness) -> None:
    waiting = harness.send(creation("a"))
    harness.log.failure = KafkaError(ErrorCode.NOT_CONTROLLER)
    assert harness.call(creation("b")) is None
    assert waiting == [None]
    assert not harness.controller.active
    assert harness.state.image is harness.image
    assert harness.log.resigned


def test_a_log_that_fails_while_a_broker_is_fenced_ends_the_controllers_time(harness: Harness) -> None:
    harness.log.failure = KafkaError(ErrorCode.NOT_CONTROLLER)
    harness.pass_time(10_000)
    assert not harness.controller.active
    assert not harness.image.brokers[0].fenced


def test_a_record_that_cannot_be_replayed_never_reaches_the_log(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(state: ControllerState, request: Any, version: int) -> Decision:
        return Decision([RemoveTopicRecord(bytes(16))], None)

    monkeypatch.setattr(topics, "delete_topics", mistaken)
    end = harness.log.end_offset
    with pytest.raises(ValueError, match="no topic with id"):
        harness.send(DeleteTopicsRequest([DeleteTopicState("a")]))
    assert harness.log.end_offset == end
    assert not harness.controller.active
    assert harness.log.resigned


def test_an_answer_that_cannot_be_sent_stops_nothing_when_somebody_is_told() -> None:
    told: list[str] = []
    harness = Harness(warn=lambda text, **details: told.append(f"{text}: {details['error']}"))
    harness.start_broker(0)
    harness.commits = False

    def fail(_response: Any) -> None:
        raise ValueError("no such version")

    harness.controller.handle(creation("a"), 7, harness.now_ms, fail)
    after = harness.send(creation("b"))
    harness.commit()
    assert len(after) == 1
    assert told == ["an answer of the controller was lost: ValueError('no such version')"]


def test_a_request_whose_records_are_too_many_bytes_is_refused(harness: Harness) -> None:
    harness.commits = True
    value = "x" * 30_000
    huge = [
        new_topic(f"t{number}", configs={"leader.replication.throttled.replicas": value})
        for number in range(300)
    ]
    for each in huge:
        each.configs[0].value = "*"
    answer = harness.call(CreateTopicsRequest(huge))
    assert answer.topics[0].error_code == ErrorCode.NONE
    numbers = ",".join(f"{number}:{number}" for number in range(2_000))
    many = [
        new_topic(f"u{n}", configs={"leader.replication.throttled.replicas": numbers}) for n in range(500)
    ]
    answer = harness.call(CreateTopicsRequest(many))
    assert {topic.error_code for topic in answer.topics} == {ErrorCode.POLICY_VIOLATION}
    assert harness.controller.active
    assert "u0" not in harness.image.topics


def test_changes_of_many_partitions_are_cut_into_batches_each_of_them_valid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quorum_controller, "RECORDS_PER_REQUEST_MAX", 10)
    harness = Harness()
    harness.start_brokers(0, 1)
    harness.create("a", *[[0, 1]] * 25)
    harness.commits = False
    before = len(harness.log.batches)
    harness.pass_time(10_000)
    assert [len(batch.records) for batch in harness.log.batches[before:]] == [10, 10, 6] * 2
    harness.commit(1)
    assert not harness.image.brokers[0].fenced
    harness.commit()
    assert harness.image.brokers[0].fenced


def test_producer_ids_come_in_blocks_that_are_handed_out_once(harness: Harness) -> None:
    harness.commits = True
    request = AllocateProducerIdsRequest(0, harness.epochs[0])
    blocks = [harness.call(request) for _ in range(3)]
    assert [(block.producer_id_start, block.producer_id_len) for block in blocks] == [
        (0, 1000),
        (1000, 1000),
        (2000, 1000),
    ]
    assert harness.image.next_producer_id == 3000
    stale = harness.call(AllocateProducerIdsRequest(0, 0))
    assert stale.error_code == ErrorCode.STALE_BROKER_EPOCH
    harness.controller.on_resign()
    harness.become_leader()
    assert harness.call(request).producer_id_start == 3000
    harness.state.image.next_producer_id = 2**63 - 1_000
    assert harness.call(request).error_code == ErrorCode.UNKNOWN_SERVER_ERROR


REFUSABLE: list[Message] = [
    creation("a"),
    DeleteTopicsRequest([DeleteTopicState("a")]),
    CreatePartitionsRequest([CreatePartitionsTopic("a", 2)]),
    IncrementalAlterConfigsRequest([AlterConfigsResource(2, "a")]),
    AlterConfigsRequest([LegacyResource(2, "a")]),
    ElectLeadersRequest(0, [TopicPartitions("a", [0])]),
    UpdateFeaturesRequest(),
    registration(1),
]


@pytest.mark.parametrize("request_", REFUSABLE, ids=lambda request: type(request).__name__)
def test_every_refusal_carries_the_error_and_encodes_in_every_version(request_: Message) -> None:
    for version in range(request_.MIN_VERSION, request_.MAX_VERSION + 1):
        response = error_response(request_, version, ErrorCode.NOT_CONTROLLER)
        assert "NOT_CONTROLLER" in repr(response)
        response.encode(version)


def test_what_the_controller_does_not_serve_is_unsupported(harness: Harness) -> None:
    with pytest.raises(KafkaError) as caught:
        handler_of(ApiKey.FETCH)
    assert caught.value.code is ErrorCode.UNSUPPORTED_VERSION
    assert harness.call(FetchRequest()).error_code == ErrorCode.UNSUPPORTED_VERSION


def test_every_api_of_the_controller_has_a_handler() -> None:
    for key in (18 + 1, 20, 33, 37, 43, 44, 56, 57, 62, 63, 64, 67):
        assert callable(handler_of(key)), request_class(key).__name__


def test_records_of_raft_itself_between_those_of_the_controller_change_nothing(harness: Harness) -> None:
    """A voter was added: its record has an offset, and is no record of the controller (KIP-853)."""
    harness.log.end_offset += 1
    [refused] = harness.send(creation("a/b"))
    assert refused.topics[0].error_code == ErrorCode.INVALID_TOPIC_EXCEPTION, "it waits for no commit"
    answers = harness.send(creation("a"))
    assert answers == []
    harness.commit()
    assert answers[0].topics[0].error_code == ErrorCode.NONE
    assert harness.image.topics["a"].partitions[0].leader == 0
