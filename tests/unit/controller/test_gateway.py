"""A request on its way to the active controller: tries, pauses, answers that come late or never."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from odradek.controller import gateway
from odradek.controller.gateway import RETRY_BACKOFF_MS, ControllerGateway
from odradek.ports.timers import TimerQueue
from odradek.raft.testing.node import VirtualClock
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.allocate_producer_ids import (
    AllocateProducerIdsRequest,
    AllocateProducerIdsResponse,
)
from odradek.wire.primitives import Message

ME = 1
REQUEST = AllocateProducerIdsRequest(7, 8)
ANSWER = AllocateProducerIdsResponse(producer_id_start=1_000, producer_id_len=1_000)


class Setup:
    """A gateway of node 1, whose questions are kept for the test to answer."""

    def __init__(self, leader: int) -> None:
        self.leader = leader
        self.clock = VirtualClock()
        self.timers = TimerQueue()
        self.served: list[Callable[[Any], None]] = []
        self.asked: list[tuple[int, int, bytes]] = []
        self.replies: list[Callable[[bytes | None], None]] = []
        self.timeouts_ms: list[int | None] = []
        self.warnings: list[str] = []
        self.answers: list[Any] = []
        self.gateway = ControllerGateway(
            ME,
            lambda: self.leader,
            self.serve,
            self.clock,
            self.timers,
            self,
            lambda text, **details: self.warnings.append(text),
        )

    def serve(self, request: Message, version: int, now_ms: int, done: Callable[[Any], None]) -> None:
        assert (request, version, now_ms) == (REQUEST, 0, self.clock.now_ms)
        self.served.append(done)

    def ask(
        self,
        controller_id: int,
        api_key: int,
        version: int,
        body: bytes,
        done: Callable[[bytes | None], None],
        timeout_ms: int | None = None,
    ) -> None:
        self.asked.append((controller_id, api_key, body))
        self.replies.append(done)
        self.timeouts_ms.append(timeout_ms)

    def send(self, timeout_ms: int = 10_000) -> None:
        self.gateway.ask(REQUEST, 0, timeout_ms, self.answers.append)

    def pass_time(self, ms: int) -> None:
        self.clock.now_ms += ms
        self.timers.advance(self.clock.now_ms)

    def change_leader(self, leader: int) -> None:
        self.leader = leader
        self.gateway.leader_changed()


def test_work_that_takes_long_is_not_asked_for_twice() -> None:
    """While one node leads, an answer is waited for to the deadline."""
    setup = Setup(leader=2)
    setup.send(timeout_ms=30_000)
    assert setup.timeouts_ms == [30_000]
    setup.replies[0](None)
    setup.pass_time(RETRY_BACKOFF_MS)
    assert setup.timeouts_ms[1:] == [30_000 - RETRY_BACKOFF_MS]


def test_this_nodes_controller_is_asked_without_detour() -> None:
    setup = Setup(ME)
    setup.send()
    setup.served[0](ANSWER)
    assert setup.answers == [ANSWER]
    assert (setup.asked, len(setup.gateway), len(setup.timers)) == ([], 0, 0)


def test_another_controller_is_asked_in_kafkas_encoding() -> None:
    setup = Setup(2)
    setup.send()
    assert setup.asked == [(2, 67, REQUEST.encode(0))]
    setup.replies[0](ANSWER.encode(0))
    assert setup.answers == [ANSWER]
    assert (len(setup.gateway), len(setup.timers)) == (0, 0)


def test_pauses_between_tries_grow_to_a_bound() -> None:
    setup = Setup(2)
    setup.send()
    pauses = []
    for number in range(7):
        setup.replies[number](None)
        before = setup.clock.now_ms
        while len(setup.asked) == number + 1:
            setup.pass_time(1)
        pauses.append(setup.clock.now_ms - before)
    assert pauses == [20, 40, 80, 160, 200, 200, 200]


def test_who_waits_for_a_leader_is_not_asked_about() -> None:
    setup = Setup(-1)
    setup.send()
    setup.pass_time(9_000)
    assert setup.asked == []
    setup.change_leader(3)
    assert [to for to, _, _ in setup.asked] == [3]


def test_a_new_leader_is_asked_at_once_while_the_old_one_is_silent() -> None:
    setup = Setup(2)
    setup.send()
    setup.change_leader(-1)
    setup.change_leader(3)
    setup.change_leader(3)
    assert [to for to, _, _ in setup.asked] == [2, 3]
    setup.replies[0](None)
    setup.pass_time(1_000)
    assert len(setup.asked) == 2, "that of the old one does not count any more"
    setup.replies[1](ANSWER.encode(0))
    assert setup.answers == [ANSWER]


def test_the_first_answer_counts_whoever_gives_it() -> None:
    setup = Setup(2)
    setup.send()
    setup.change_leader(ME)
    setup.replies[0](ANSWER.encode(0))
    setup.served[0](AllocateProducerIdsResponse())
    assert setup.answers == [ANSWER]


def test_a_controller_that_is_none_any_more_is_asked_again_when_it_may_be() -> None:
    setup = Setup(ME)
    setup.send()
    setup.served[0](None)
    setup.pass_time(19)
    assert len(setup.served) == 1
    setup.pass_time(1)
    setup.served[1](ANSWER)
    assert setup.answers == [ANSWER]


@pytest.mark.parametrize("leader", [-1, 2])
def test_at_the_deadline_the_sender_hears_that_time_is_up(leader: int) -> None:
    setup = Setup(leader)
    setup.send(timeout_ms=500)
    setup.pass_time(499)
    assert setup.answers == []
    setup.pass_time(1)
    assert [answer.error_code for answer in setup.answers] == [ErrorCode.REQUEST_TIMED_OUT]
    for reply in setup.replies:
        reply(ANSWER.encode(0))
    setup.change_leader(3)
    assert (len(setup.answers), len(setup.gateway), len(setup.timers)) == (1, 0, 0)


def test_an_answer_that_cannot_be_read_is_none() -> None:
    setup = Setup(2)
    setup.send()
    setup.replies[0](b"\x01")
    assert (setup.answers, len(setup.warnings)) == ([], 1)
    setup.pass_time(20)
    setup.replies[1](ANSWER.encode(0))
    assert setup.answers == [ANSWER]


def test_without_a_channel_only_this_node_can_be_asked() -> None:
    setup = Setup(2)
    setup.gateway = ControllerGateway(
        ME, lambda: setup.leader, setup.serve, setup.clock, setup.timers, None, None
    )
    setup.send()
    setup.change_leader(ME)
    setup.served[0](ANSWER)
    assert setup.answers == [ANSWER]


def test_no_more_than_so_many_requests_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "PENDING_REQUESTS_MAX", 2)
    setup = Setup(-1)
    for _ in range(3):
        setup.send()
    assert [answer.error_code for answer in setup.answers] == [ErrorCode.NOT_CONTROLLER]


def test_a_sender_may_send_again_from_within_the_answer() -> None:
    setup = Setup(ME)

    def again(response: Any) -> None:
        setup.answers.append(response)
        setup.send()

    setup.gateway.ask(REQUEST, 0, 1_000, again)
    setup.gateway.close()
    assert [answer.error_code for answer in setup.answers] == [
        ErrorCode.REQUEST_TIMED_OUT,
        ErrorCode.NOT_CONTROLLER,
    ]
