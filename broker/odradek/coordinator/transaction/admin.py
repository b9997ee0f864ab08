"""DescribeTransactions 0 (key 65) and ListTransactions 0–2 (key 66), within one partition (KIP-664, 994, 1152)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from odradek.coordinator.transaction.shard import TransactionShard
from odradek.coordinator.transaction.state import BY_NAME, TopicPartition, TransactionState
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.describe_transactions import TopicData
from odradek.wire.messages.describe_transactions import TransactionState as Described
from odradek.wire.messages.list_transactions import ListTransactionsRequest
from odradek.wire.messages.list_transactions import TransactionState as Listed

PATTERN_MEMORY_MAX = 1 << 20
"""For one compiled pattern."""


def describe(shard: TransactionShard, transactional_id: str) -> Described:
    """What is committed of an id. While markers are written: the partitions that still wait for theirs."""
    known = shard.known(transactional_id)
    if known is None:
        return Described(error_code=ErrorCode.TRANSACTIONAL_ID_NOT_FOUND, transactional_id=transactional_id)
    completion = shard.completions.get(transactional_id)
    return Described(
        transactional_id=transactional_id,
        producer_id=known.producer_id,
        producer_epoch=known.producer_epoch,
        transaction_state=known.state.text,
        transaction_timeout_ms=known.timeout_ms,
        transaction_start_time_ms=known.start_ms,
        topics=_topics(known.partitions if completion is None else completion.left),
    )


def _topics(partitions: Iterable[TopicPartition]) -> list[TopicData]:
    topics: dict[str, TopicData] = {}
    for topic, index in partitions:
        topics.setdefault(topic, TopicData(topic)).partitions.append(index)
    return list(topics.values())


@dataclass(slots=True)
class Filter:
    """What ListTransactions asks for; an empty set means everything."""

    states: frozenset[TransactionState]
    any_state: bool
    producer_ids: frozenset[int]
    longer_than_ms: int
    """Of all that began longer ago than this; negative: of all. One that is not open began in 1970, as in Kafka."""
    matches: Callable[[str], Any] | None

    @classmethod
    def of(cls, request: ListTransactionsRequest) -> tuple[Filter, list[str]]:
        """The filter, and the names that are no state. KafkaError INVALID_REGULAR_EXPRESSION."""
        pattern = request.transactional_id_pattern
        states = frozenset(BY_NAME[name] for name in request.state_filters if name in BY_NAME)
        unknown = list(dict.fromkeys(name for name in request.state_filters if name not in BY_NAME))
        wanted = cls(
            states,
            not request.state_filters,
            frozenset(request.producer_id_filters),
            request.duration_filter,
            _matcher(pattern) if pattern else None,
        )
        return wanted, unknown


def list_transactions(shard: TransactionShard, wanted: Filter, wall_ms: int) -> list[Listed]:
    return [
        Listed(transactional_id, known.producer_id, known.state.text)
        for transactional_id, known in shard.transactions.committed_items()
        if (wanted.any_state or known.state in wanted.states)
        and (not wanted.producer_ids or known.producer_id in wanted.producer_ids)
        and (wanted.longer_than_ms < 0 or wall_ms - known.start_ms > wanted.longer_than_ms)
        and (wanted.matches is None or wanted.matches(transactional_id))
    ]


def _matcher(pattern: str) -> Callable[[str], Any]:
    """RE2, as in Kafka: strangers send these, and it matches in linear time and bounded memory."""
    import re2  # 10 ms that only who asks with a pattern pays

    options = re2.Options()
    options.log_errors = False
    options.max_mem = PATTERN_MEMORY_MAX
    try:
        fullmatch: Callable[[str], Any] = re2.compile(pattern, options=options).fullmatch
    except (re2.error, UnicodeError):
        raise KafkaError(ErrorCode.INVALID_REGULAR_EXPRESSION) from None
    return fullmatch
