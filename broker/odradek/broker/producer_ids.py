"""Producer ids of this node: blocks from the controller (AllocateProducerIds), handed out one by one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from odradek.wire.errors import ErrorCode
from odradek.wire.messages.allocate_producer_ids import AllocateProducerIdsRequest

Allocated = Callable[[ErrorCode, int], None]
WAITING_MAX = 10_000
"""Producers that may wait for a block at once; more are told to come back."""


class ProducerIds:
    """Ids are unique in the cluster; a restart leaves the rest of its block unused, as in Kafka."""

    def __init__(
        self, ask_controller: Callable[[AllocateProducerIdsRequest, Callable[[Any], None]], None]
    ) -> None:
        self._ask_controller = ask_controller
        self._next = 0
        self._end = 0
        self._asking = False
        self._waiting: deque[Allocated] = deque()
        self.broker_id = -1
        self.broker_epoch = -1

    def next(self, allocated: Allocated) -> None:
        """Call `allocated(error, producer_id)`, at once while the block lasts."""
        if self._next < self._end:
            self._next += 1
            allocated(ErrorCode.NONE, self._next - 1)
            return
        if len(self._waiting) >= WAITING_MAX:
            allocated(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, -1)
            return
        self._waiting.append(allocated)
        if not self._asking:
            self._asking = True
            request = AllocateProducerIdsRequest(broker_id=self.broker_id, broker_epoch=self.broker_epoch)
            self._ask_controller(request, self._answered)

    def _answered(self, response: Any) -> None:
        self._asking = False
        waiting, self._waiting = self._waiting, deque()
        if response.error_code != 0:
            for allocated in waiting:
                allocated(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, -1)
            return
        self._next = response.producer_id_start
        self._end = response.producer_id_start + response.producer_id_len
        for allocated in waiting:
            self.next(allocated)
