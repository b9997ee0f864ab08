"""Who waits for the high watermark of a partition (acks=all)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from odradek.broker.partition import WAITERS_UNCHECKED, Partition
from odradek.broker.pending import Pending
from odradek.wire.errors import ErrorCode


class Leader:
    """Everything below `high_watermark` is acknowledged."""

    def __init__(self) -> None:
        self.high_watermark = 0

    def acknowledgement(self, end_offset: int) -> ErrorCode | None:
        return ErrorCode.NONE if end_offset <= self.high_watermark else None


def led_partition() -> tuple[Any, Leader]:
    log: Any = SimpleNamespace(log_end_offset=0, config=SimpleNamespace(flush_messages=0))
    partition: Any = Partition("t", bytes(16), 0, log, SimpleNamespace(), SimpleNamespace(dirty=[]))  # type: ignore[arg-type]
    leader = Leader()
    partition.replica = SimpleNamespace(leader=leader, state=None, high_watermark=0, on_follower_told=None)
    return partition, leader


def move(partition: Any, leader: Leader, high_watermark: int) -> None:
    leader.high_watermark = partition.replica.high_watermark = high_watermark
    partition.high_watermark_moved(partition.replica)


def test_each_is_answered_once_in_order_when_committed() -> None:
    partition, leader = led_partition()
    answered: list[int] = []
    for end in (1, 2, 3):
        partition.when_committed(end, lambda error, end=end: answered.append(end))
    move(partition, leader, 2)
    assert answered == [1, 2]
    move(partition, leader, 3)
    assert answered == [1, 2, 3]


def test_requests_that_were_answered_meanwhile_do_not_pile_up() -> None:
    partition, leader = led_partition()
    answered: list[int] = []
    partition.when_committed(1, lambda error: answered.append(1), Pending())
    partition.when_committed(2, lambda error: answered.append(2))
    for end in range(3, 10 * WAITERS_UNCHECKED):
        request = Pending()
        partition.when_committed(end, lambda error: answered.append(-1), request)
        request.complete(b"timed out")
    partition.forget_answered()
    assert len(partition._commit_waiters) == 2
    move(partition, leader, 10 * WAITERS_UNCHECKED)
    assert answered == [1, 2]


def test_resigning_answers_whoever_waits() -> None:
    partition, _ = led_partition()
    answered: list[ErrorCode] = []
    partition.when_committed(1, answered.append)
    partition.when_committed(2, answered.append, Pending())
    partition.resign(ErrorCode.NOT_LEADER_OR_FOLLOWER)
    assert answered == [ErrorCode.NOT_LEADER_OR_FOLLOWER] * 2


def test_deletions_are_answered_when_the_slowest_live_replica_has_followed() -> None:
    partition, leader = led_partition()
    partition.log.log_start_offset = 5
    starts = {2: 0, 3: 5}
    leader.low_watermark = lambda own: min(own, *starts.values())  # type: ignore[attr-defined]
    answered: list[tuple[ErrorCode, int]] = []
    partition.when_deleted(1, 5, lambda *answer: answered.append(answer))
    partition.when_deleted(2, 3, lambda *answer: answered.append(answer))
    assert not answered
    starts[2] = 3
    partition.replica.on_follower_told()
    assert answered == [(ErrorCode.NONE, 3)]
    starts[2] = 7
    partition.isr_changed(partition.replica)
    assert answered[1:] == [(ErrorCode.NONE, 5)]
    assert partition.replica.on_follower_told is None


def test_resigning_answers_deletions_and_forgotten_ones_are_not() -> None:
    partition, leader = led_partition()
    partition.log.log_start_offset = 5
    leader.low_watermark = lambda own: 0  # type: ignore[attr-defined]
    answered: list[tuple[ErrorCode, int]] = []
    for key in (1, 2):
        partition.when_deleted(key, 5, lambda *answer: answered.append(answer))
    partition.forget_deletion(1)
    partition.resign(ErrorCode.NOT_LEADER_OR_FOLLOWER)
    assert answered == [(ErrorCode.NOT_LEADER_OR_FOLLOWER, -1)]
    assert partition.replica.on_follower_told is None
