"""Questions about transactions on their way to coordinators: joined, bounded, translated, asked again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from odradek.broker import txn_verification
from odradek.broker.txn_verification import Support, TxnVerification, produce_error
from odradek.ports.timers import TimerQueue
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.add_partitions_to_txn import (
    AddPartitionsToTxnPartitionResult,
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse,
    AddPartitionsToTxnResult,
    AddPartitionsToTxnTopicResult,
)
from support.node_harness import FakeClock

OK = ErrorCode.NONE
A, B = ("t", 0), ("t", 1)


class Asker:
    """Coordinators that answer with `code`, or when told to."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.timers = TimerQueue()
        self.settings = {
            txn_verification.ENABLE: "true",
            txn_verification.RETRY_MS: "20",
            txn_verification.RETRY_MS_MAX: "100",
        }
        self.coordinators = {"id": 1, "other": 2, "near": 1, "lost": -1}
        self.asked: list[tuple[int, AddPartitionsToTxnRequest]] = []
        self.held: list[Callable[[Any], None]] | None = None
        self.code: ErrorCode | None = OK
        self.told: list[tuple[str, ErrorCode]] = []
        self.verification = TxnVerification(
            self,  # type: ignore[arg-type]
            self.coordinators.__getitem__,
            self.settings.get,
            self.clock,
            self.timers,
        )

    def ask(self, broker_id: int, request: AddPartitionsToTxnRequest, version: int, done: Any) -> None:
        """In place of BetweenBrokers."""
        assert version == 5
        self.asked.append((broker_id, request))
        if self.held is not None:
            self.held.append(done)
        else:
            done(self.answer(request))

    def answer(self, request: AddPartitionsToTxnRequest) -> AddPartitionsToTxnResponse | None:
        if self.code is None:
            return None
        return AddPartitionsToTxnResponse(
            results_by_transaction=[
                AddPartitionsToTxnResult(
                    transaction.transactional_id,
                    [
                        AddPartitionsToTxnTopicResult(
                            topic.name,
                            [AddPartitionsToTxnPartitionResult(each, self.code) for each in topic.partitions],
                        )
                        for topic in transaction.topics
                    ],
                )
                for transaction in request.transactions
            ]
        )

    def want(
        self,
        name: str,
        partition: tuple[str, int] = A,
        transactional_id: str = "id",
        producer_id: int = 7,
        epoch: int = 0,
        support: Support = Support.ABORTABLE,
    ) -> None:
        self.verification.ask(
            transactional_id,
            producer_id,
            epoch,
            partition,
            support,
            lambda code: self.told.append((name, code)),
        )

    def run(self, ms: int = 0) -> None:
        end = self.clock.now_ms + ms
        while (deadline := self.timers.next_deadline_ms()) is not None and deadline <= end:
            self.clock.now_ms = max(deadline, self.clock.now_ms)
            self.timers.advance(self.clock.now_ms)
        self.clock.now_ms = end


@pytest.fixture
def asker() -> Asker:
    return Asker()


def test_what_is_asked_in_one_turn_goes_in_one_request_to_each_coordinator(asker: Asker) -> None:
    asker.want("1", A)
    asker.want("2", B)
    asker.want("3", A, "near", producer_id=8)
    asker.want("4", A, "other", producer_id=9)
    assert asker.told == [], "never from within"
    asker.run()
    assert [broker for broker, _ in asker.asked] == [1, 2]
    (first, second) = asker.asked[0][1].transactions
    assert (first.transactional_id, first.producer_id, first.verify_only) == ("id", 7, True)
    assert [(topic.name, topic.partitions) for topic in first.topics] == [("t", [0, 1])]
    assert second.transactional_id == "near"
    assert asker.told == [("1", OK), ("2", OK), ("3", OK), ("4", OK)]


def test_two_epochs_of_one_id_do_not_meet_in_a_request(asker: Asker) -> None:
    """The answer names no epoch."""
    asker.want("old", epoch=0)
    asker.want("new", epoch=1)
    asker.want("new too", B, epoch=1)
    asker.run()
    assert [[each.producer_epoch for each in request.transactions] for _, request in asker.asked] == [
        [0],
        [1],
    ]
    assert [name for name, _ in asker.told] == ["old", "new", "new too"]


def test_who_comes_while_it_is_being_asked_waits_for_the_same_answer(asker: Asker) -> None:
    asker.held = []
    asker.want("1")
    asker.run()
    asker.want("2")
    asker.want("3")
    asker.run()
    assert len(asker.asked) == 1
    asker.held[0](asker.answer(asker.asked[0][1]))
    assert asker.told == [("1", OK), ("2", OK), ("3", OK)]
    asker.held = None
    asker.want("4")
    asker.run()
    assert len(asker.asked) == 2


def test_clients_that_add_no_partitions_have_them_added(asker: Asker) -> None:
    asker.want("1", support=Support.IMPLICIT)
    asker.run()
    assert asker.asked[0][1].transactions[0].verify_only is False


def test_the_end_of_the_transaction_before_is_waited_for_a_moment(asker: Asker) -> None:
    asker.code = ErrorCode.CONCURRENT_TRANSACTIONS
    asker.want("1", support=Support.IMPLICIT)
    asker.run(50)
    assert len(asker.asked) == 3
    asker.code = OK
    asker.run(20)
    assert asker.told == [("1", OK)]
    asker.code = ErrorCode.CONCURRENT_TRANSACTIONS
    asker.want("2", support=Support.IMPLICIT)
    asker.run(200)
    assert asker.told[1:] == [("2", ErrorCode.CONCURRENT_TRANSACTIONS)]
    assert len(asker.asked) == 4 + 6, "20 ms apart, for 100 ms"
    asker.want("3", support=Support.ABORTABLE)
    asker.run()
    assert asker.told[-1] == ("3", ErrorCode.CONCURRENT_TRANSACTIONS), "who verifies only hears it at once"


@pytest.mark.parametrize(
    ("code", "support", "told"),
    [
        (ErrorCode.TRANSACTION_ABORTABLE, Support.NOTHING, ErrorCode.INVALID_TXN_STATE),
        (ErrorCode.TRANSACTION_ABORTABLE, Support.ABORTABLE, ErrorCode.TRANSACTION_ABORTABLE),
        (ErrorCode.PRODUCER_FENCED, Support.IMPLICIT, ErrorCode.INVALID_PRODUCER_EPOCH),
        (ErrorCode.INVALID_PRODUCER_ID_MAPPING, Support.NOTHING, ErrorCode.INVALID_PRODUCER_ID_MAPPING),
        (None, Support.IMPLICIT, ErrorCode.NETWORK_EXCEPTION),
    ],
)
def test_what_clients_are_told(
    asker: Asker, code: ErrorCode | None, support: Support, told: ErrorCode
) -> None:
    asker.code = code
    asker.want("1", support=support)
    asker.run()
    assert asker.told == [("1", told)]


def test_without_a_coordinator_nobody_is_asked(asker: Asker) -> None:
    asker.want("1", transactional_id="lost")
    asker.run()
    assert asker.asked == []
    assert asker.told == [("1", ErrorCode.COORDINATOR_NOT_AVAILABLE)]


def test_an_answer_that_leaves_a_partition_out_is_none_for_it(asker: Asker) -> None:
    asker.held = []
    asker.want("1")
    asker.run()
    asker.held[0](AddPartitionsToTxnResponse())
    asker.want("2")
    asker.run()
    asker.held[1](AddPartitionsToTxnResponse(error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED))
    assert asker.told == [
        ("1", ErrorCode.NETWORK_EXCEPTION),
        ("2", ErrorCode.INVALID_TXN_STATE),
    ]


def test_so_many_may_wait_and_no_more(asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txn_verification, "WAITING_MAX", 2)
    asker.held = []
    for name in "123":
        asker.want(name)
    asker.run()
    assert asker.told == [("3", ErrorCode.COORDINATOR_NOT_AVAILABLE)]
    asker.held[0](asker.answer(asker.asked[0][1]))
    asker.want("4")
    asker.run()
    assert len(asker.asked) == 2


def test_batches_that_wait_may_hold_so_many_bytes_or_be_one_that_holds_more(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(txn_verification, "WAITING_BYTES_MAX", 100)
    hold, release = asker.verification.hold, asker.verification.release
    assert [hold(500), hold(1)] == [True, False]
    release(500)
    assert [hold(60), hold(40), hold(1)] == [True, True, False]
    release(60)
    assert hold(1)


def test_who_names_another_transactional_id_is_not_told_the_answer_for_this_one(asker: Asker) -> None:
    asker.held = []
    asker.want("mine")
    asker.want("stranger", transactional_id="near")
    asker.run()
    answers = [each.transactional_id for _, request in asker.asked for each in request.transactions]
    assert sorted(answers) == ["id", "near"]


def test_verification_can_be_spared_and_adding_cannot(asker: Asker) -> None:
    assert all(asker.verification.is_needed(support) for support in Support)
    asker.settings[txn_verification.ENABLE] = "false"
    needed = [support for support in Support if asker.verification.is_needed(support)]
    assert needed == [Support.IMPLICIT]


def test_versions_of_requests_say_what_clients_know() -> None:
    produce = [Support.of_produce(version) for version in (3, 10, 11, 12, 13)]
    assert produce == [
        Support.NOTHING,
        Support.NOTHING,
        Support.ABORTABLE,
        Support.IMPLICIT,
        Support.IMPLICIT,
    ]
    offsets = [Support.of_offset_commit(version) for version in (0, 3, 4, 5)]
    assert offsets == [Support.NOTHING, Support.NOTHING, Support.ABORTABLE, Support.IMPLICIT]


def test_what_is_not_known_yet_makes_producers_of_any_age_try_again() -> None:
    for code in txn_verification.NOT_KNOWN_YET:
        assert produce_error(code).code is ErrorCode.NOT_ENOUGH_REPLICAS
    assert produce_error(ErrorCode.INVALID_PRODUCER_EPOCH).code is ErrorCode.INVALID_PRODUCER_EPOCH


def test_a_code_of_a_later_version_is_an_unknown_error(asker: Asker) -> None:
    asker.code = 999  # type: ignore[assignment]
    asker.want("w")
    asker.run()
    assert asker.told == [("w", ErrorCode.UNKNOWN_SERVER_ERROR)]
