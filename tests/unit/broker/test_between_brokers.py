"""Requests from broker to broker: what another broker may say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from odradek.broker.between_brokers import BetweenBrokers
from odradek.broker.dispatch import ELEMENTS_MAX
from odradek.wire.apis import ApiKey
from odradek.wire.messages.write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerPartitionResult,
    WritableTxnMarkerResult,
    WritableTxnMarkerTopic,
    WritableTxnMarkerTopicResult,
    WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
)

KEY, VERSION = ApiKey.WRITE_TXN_MARKERS, 2
HERE, THERE = 1, 2


class Channel:
    """Another broker, which answers `body` to everything."""

    def __init__(self) -> None:
        self.body: bytes | None = None

    def ask(
        self, node_id: int, api_key: int, version: int, body: bytes, done: Callable[[bytes | None], object],
        timeout_ms: int | None = None,
    ) -> None:  # fmt: skip
        assert (node_id, api_key, version) == (THERE, KEY, VERSION)
        done(self.body)


class Lab:
    def __init__(self) -> None:
        self.warnings: list[tuple[str, dict[str, Any]]] = []
        self.served: list[Any] = []
        self.channel = Channel()
        self.between = BetweenBrokers(
            HERE, self.channel, lambda event, **values: self.warnings.append((event, values))
        )
        self.between.serve(KEY, 1, self._serve)

    def _serve(self, request: Any, version: int, done: Callable[[Any], None]) -> None:
        self.served.append(request)
        done(WriteTxnMarkersResponse())

    def asked(self, body: bytes) -> bytes | None:
        """What another broker gets that asks `body`."""
        replies: list[bytes | None] = []
        self.between.answer(KEY, VERSION, body, replies.append)
        (reply,) = replies
        return reply

    def ask(self) -> Any:
        answers: list[Any] = []
        self.between.ask(THERE, WriteTxnMarkersRequest(), VERSION, answers.append)
        (answer,) = answers
        return answer


def request(partitions: int) -> bytes:
    topic = WritableTxnMarkerTopic("t", list(range(partitions)))
    return WriteTxnMarkersRequest(markers=[WritableTxnMarker(topics=[topic])]).encode(VERSION)


def response(partitions: int) -> bytes:
    topic = WritableTxnMarkerTopicResult(
        "t", [WritableTxnMarkerPartitionResult(index) for index in range(partitions)]
    )
    return WriteTxnMarkersResponse(markers=[WritableTxnMarkerResult(topics=[topic])]).encode(VERSION)


def test_a_request_of_another_broker_is_answered() -> None:
    lab = Lab()
    assert lab.asked(request(10_000)) == WriteTxnMarkersResponse().encode(VERSION)
    assert len(lab.served[0].markers[0].topics[0].partition_indexes) == 10_000


def test_a_request_of_another_broker_that_names_too_much_is_not_carried_out() -> None:
    lab = Lab()
    assert lab.asked(request(ELEMENTS_MAX)) is None
    assert lab.served == []
    assert "names more than" in lab.warnings[0][1]["error"]


def test_an_answer_of_another_broker_that_names_too_much_is_none() -> None:
    lab = Lab()
    lab.channel.body = response(10_000)
    assert len(lab.ask().markers[0].topics[0].partitions) == 10_000
    lab.channel.body = response(ELEMENTS_MAX)
    assert lab.ask() is None
    assert "names more than" in lab.warnings[0][1]["error"]


def test_bytes_that_make_no_sense_are_none_on_either_side() -> None:
    lab = Lab()
    assert lab.asked(request(1)[:-3]) is None
    lab.channel.body = response(1)[:-3]
    assert lab.ask() is None
    assert [event for event, _ in lab.warnings] == [
        "a request of another broker cannot be read",
        "an answer of another broker cannot be read",
    ]
