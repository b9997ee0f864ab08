"""TxnOffsetCommit: whether offsets belong to an open transaction (KIP-890), for the group coordinator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odradek.broker.topic_creation import OFFSETS_TOPIC
from odradek.broker.txn_verification import Support, is_overtaken
from odradek.wire.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    from collections.abc import Callable

    from odradek.broker.node import Node
    from odradek.coordinator.runtime import Producer
    from odradek.storage.producers import Verification


class OffsetsVerification:
    """The group coordinator's `Verification`: of the partition of `__consumer_offsets` that is led here."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def verify(
        self,
        transactional_id: str,
        producer: Producer,
        partition: int,
        api_version: int,
        size: int,
        done: Callable[[ErrorCode], None],
    ) -> None:
        """If a transaction has ended here while the coordinator was asked, it is asked again: a producer does not wait
        for the markers of one before it begins the next. In the end, INVALID_TXN_STATE. COORDINATOR_NOT_AVAILABLE if
        too much waits already.
        """
        support = Support.of_offset_commit(api_version)
        try:
            log = self._node.leader_of(OFFSETS_TOPIC, partition).log
        except KafkaError as error:
            done(error.code)
            return
        verification = self._node.txn_verification
        if log.in_transaction(*producer) or not verification.is_needed(support):
            done(ErrorCode.NONE)
            return
        if not verification.hold(size):
            done(ErrorCode.COORDINATOR_NOT_AVAILABLE)
            return

        def answered(code: ErrorCode, guard: Verification) -> None:
            if code is ErrorCode.NONE and is_overtaken(log, producer, guard):
                code = ErrorCode.INVALID_TXN_STATE
            verification.release(size)
            done(code)

        where = OFFSETS_TOPIC, partition
        verification.ask_guarded(log, transactional_id, producer, 0, where, support, answered)
