"""Brokers that are known to be gone before the controller has said so.

A client whose connection broke asks another broker for metadata at once, often some milliseconds before the controller
has elected new leaders; told the old leader, stock clients come back only a second later. So answers about leaders
wait while a broker's process is gone and metadata does not know it yet: a failover takes milliseconds for such clients
instead of seconds. Never longer than `DOUBT_MS_MAX`: without a controller, the old answer is the best there is.

A client may be quicker than the news of a broken connection between nodes. So in a cluster each such answer is held
back for `HOLD_MS` first: measured, librdkafka then goes on 0.1 s after a kill -9 of the leader, and 2 s without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from odradek.metadata.image import MetadataImage
    from odradek.ports.clock import Clock
    from odradek.ports.timers import Timer, TimerQueue

HOLD_MS = 25
DOUBT_MS_MAX = 1_500
DOUBT_PAUSE_MS = 10_000
"""A broker whose doubt ran out is not doubted again for so long: nobody decides about it."""


class Doubts:
    """Owned by the node; told by its ways to other nodes, and by new images."""

    def __init__(
        self, image: Callable[[], MetadataImage], clock: Clock, timers: TimerQueue, hold_ms: int
    ) -> None:
        self.hold_ms = hold_ms
        """0 for a lone node, which has nobody to doubt."""
        self._image = image
        self._clock = clock
        self._timers = timers
        self._about: dict[int, Timer] = {}
        self._not_before: dict[int, int] = {}
        self._waiting: list[Callable[[], None]] = []

    def __bool__(self) -> bool:
        return bool(self._about)

    def add(self, broker_id: int) -> None:
        """Nobody listens any more where this broker was. May be told often."""
        now_ms = self._clock.monotonic_ms()
        if broker_id in self._about or now_ms < self._not_before.get(broker_id, now_ms):
            return
        self._not_before[broker_id] = now_ms + DOUBT_PAUSE_MS
        self._about[broker_id] = self._timers.at(now_ms + DOUBT_MS_MAX, lambda _now: self._settle(broker_id))

    def image_changed(self) -> None:
        """Metadata may know by now."""
        for broker_id in list(self._about):
            broker = self._image().brokers.get(broker_id)
            if broker is None or broker.fenced:
                self._not_before.pop(broker_id, None)
                self._settle(broker_id)

    def after_hold(self, done: Callable[[], None]) -> None:
        """Call `done` after `hold_ms`, and not before there is no doubt left."""
        self._timers.at(self._clock.monotonic_ms() + self.hold_ms, lambda _now: self.when_none(done))

    def when_none(self, done: Callable[[], None]) -> None:
        """Call `done` once there is no doubt left."""
        if self._about:
            self._waiting.append(done)
        else:
            done()

    def _settle(self, broker_id: int) -> None:
        timer = self._about.pop(broker_id, None)
        if timer is not None:
            timer.cancel()
        if not self._about:
            waiting, self._waiting = self._waiting, []
            for done in waiting:
                done()
