"""TxnOffsetCommit: whether offsets belong to an open transaction (KIP-890), for the group coordinator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odradek.broker.api.produce_transactional import ASKS_MAX
from odradek.broker.topic_creation import OFFSETS_TOPIC
from odradek.broker.txn_verification import Support
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
        verification, producers = self._node.txn_verification, log.producers
        if log.in_transaction(*producer) or not verification.is_needed(support):
            done(ErrorCode.NONE)
            return
        if not verification.hold(size):
            done(ErrorCode.COORDINATOR_NOT_AVAILABLE)
            return
        where = OFFSETS_TOPIC, partition
        asked = 0

        def ask() -> None:
            nonlocal asked
            asked += 1
            guard = producers.begin_verification(producer.id, 0)
            verification.ask(transactional_id, *producer, where, support, lambda code: answered(code, guard))

        def answered(code: ErrorCode, guard: Verification) -> None:
            current = producers.verifying.get(producer.id) is guard
            if code is not ErrorCode.NONE:
                if current:
                    del producers.verifying[producer.id]
            elif not current and not log.in_transaction(*producer):
                if asked < ASKS_MAX:
                    ask()
                    return
                code = ErrorCode.INVALID_TXN_STATE
            verification.release(size)
            done(code)

        ask()
