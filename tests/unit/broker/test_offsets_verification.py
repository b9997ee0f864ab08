"""Offsets of a transaction that wait for its coordinator: how much of them may."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from odradek.broker import txn_verification
from odradek.broker.offsets_verification import OffsetsVerification
from odradek.broker.txn_verification import TxnVerification
from odradek.coordinator.runtime import Producer
from odradek.ports.timers import TimerQueue
from odradek.storage.producers import ProducerStates
from odradek.wire.errors import ErrorCode
from support.node_harness import FakeClock


class Setup:
    """A partition of `__consumer_offsets` without a transaction, and a coordinator that is slow to answer."""

    def __init__(self) -> None:
        self.told: list[tuple[str, ErrorCode]] = []
        self.held: list[Any] = []
        self.clock, self.timers = FakeClock(), TimerQueue()
        between = SimpleNamespace(ask=lambda broker, request, version, done: self.held.append(done))
        log = SimpleNamespace(producers=ProducerStates(), in_transaction=lambda producer_id, epoch: False)
        node: Any = SimpleNamespace(
            leader_of=lambda topic, partition: SimpleNamespace(log=log),
            txn_verification=TxnVerification(
                between,  # type: ignore[arg-type]
                lambda transactional_id: 1,
                {txn_verification.ENABLE: "true"}.get,
                self.clock,
                self.timers,
            ),
        )
        self.verification = OffsetsVerification(node)

    def verify(self, name: str, size: int, producer_id: int) -> None:
        def told(code: ErrorCode) -> None:
            self.told.append((name, code))

        self.verification.verify(name, Producer(producer_id, 0), 0, 5, size, told)
        self.timers.advance(self.clock.monotonic_ms())


def test_what_waits_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txn_verification, "WAITING_BYTES_MAX", 1_000)
    setup = Setup()
    setup.verify("first", 600, 1)
    setup.verify("too much", 600, 2)
    assert setup.told == [("too much", ErrorCode.COORDINATOR_NOT_AVAILABLE)]
    setup.held.pop()(None)
    assert setup.told[1:] == [("first", ErrorCode.NETWORK_EXCEPTION)]
    setup.verify("again", 600, 2)
    assert len(setup.told) == 2, "what was answered waits no more"
