"""A process that did not run for as long as its session lasts: whom it believes, and when it serves again."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from odradek.broker.broker_lifecycle import BrokerLifecycle
from odradek.ports.timers import TimerQueue
from odradek.wire.apis import ApiKey
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.broker_heartbeat import BrokerHeartbeatResponse
from odradek.wire.messages.broker_registration import BrokerRegistrationResponse

EPOCH = 7
FETCH_TIMEOUT_MS = 1_000


class Bench:
    """Broker 1, registered and unfenced; tests answer its heartbeats."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.timers = TimerQueue()
        self.asked: list[Callable[[Any], None]] = []
        self.trusted = 0
        self.quorum = SimpleNamespace(
            handle=self._handle,
            registration_features=list,
            has_leader=True,
            controller=SimpleNamespace(active=False),
        )
        config = SimpleNamespace(
            node_id=1, broker_rack=None, advertised=[SimpleNamespace(name="L", host="h", port=1)],
            inter_broker_listener="L", broker_heartbeat_interval_ms=500, static={},
            controller_quorum_fetch_timeout_ms=FETCH_TIMEOUT_MS,
        )  # fmt: skip
        ports = SimpleNamespace(
            peers=SimpleNamespace(port=2),
            clock=SimpleNamespace(monotonic_ms=lambda: self.now_ms),
            timers=self.timers,
            log=SimpleNamespace(warning=lambda text, **values: None),
            rng=Random(1),
        )
        logs = SimpleNamespace(
            cluster_id="c", dirs=[], complete_epoch=-1, note_registration=lambda epoch: None
        )
        self.lifecycle = BrokerLifecycle(
            config,  # type: ignore[arg-type]
            ports,  # type: ignore[arg-type]
            logs,  # type: ignore[arg-type]
            self.quorum,  # type: ignore[arg-type]
            metadata_offset=lambda: 10,
            on_registered=lambda epoch: None,
            on_unfenced=lambda: None,
            on_refused=lambda reason: None,
            on_trusted=self._trusted,
        )
        self.lifecycle.start({})
        self.answer()
        assert self.lifecycle.unfenced

    def _handle(self, request: Any, version: int, now_ms: int, done: Callable[[Any], None]) -> None:
        if request.API_KEY == ApiKey.BROKER_REGISTRATION:
            done(BrokerRegistrationResponse(broker_epoch=EPOCH))
        else:
            self.asked.append(done)

    def _trusted(self) -> None:
        self.trusted += 1

    def answer(self, *, fenced: bool = False, error: ErrorCode = ErrorCode.NONE) -> None:
        """The heartbeat that was sent last."""
        self.asked.pop()(BrokerHeartbeatResponse(is_fenced=fenced, error_code=error))

    def advance(self, ms: int) -> None:
        self.now_ms += ms
        self.timers.advance(self.now_ms)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_an_answer_to_what_was_asked_since_ends_the_doubt(bench: Bench) -> None:
    bench.lifecycle.doubt()
    assert (len(bench.asked), bench.trusted) == (1, 0), "asked at once"
    bench.answer()
    assert bench.trusted == 1
    bench.advance(500)
    bench.answer()
    assert bench.trusted == 1, "once"


def test_what_was_asked_before_tells_nothing(bench: Bench) -> None:
    bench.advance(500)
    [before] = bench.asked
    bench.lifecycle.doubt()
    before(BrokerHeartbeatResponse(is_fenced=False))
    assert bench.trusted == 0
    bench.answer()
    assert bench.trusted == 1


def test_a_fenced_broker_stays_in_doubt_until_it_is_not(bench: Bench) -> None:
    bench.lifecycle.doubt()
    bench.answer(fenced=True)
    assert (bench.trusted, bench.lifecycle.unfenced) == (0, False)
    bench.advance(500)
    bench.answer()
    assert (bench.trusted, bench.lifecycle.unfenced) == (1, True)


def test_so_does_one_that_has_to_register_anew(bench: Bench) -> None:
    bench.lifecycle.doubt()
    bench.answer(error=ErrorCode.STALE_BROKER_EPOCH)
    assert bench.trusted == 0
    bench.answer()
    assert bench.trusted == 1


def test_the_controller_in_the_same_process_is_believed_once_it_would_have_resigned(bench: Bench) -> None:
    bench.quorum.controller.active = True
    bench.lifecycle.doubt()
    bench.answer()
    bench.advance(2 * FETCH_TIMEOUT_MS - 1)
    bench.answer()
    assert bench.trusted == 0
    bench.advance(500)
    bench.answer()
    assert bench.trusted == 1
