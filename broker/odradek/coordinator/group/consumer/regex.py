"""Expressions that members subscribe to: Google's RE2 syntax, as in Kafka, matched in linear time.

Members are strangers, and a backtracking matcher would take exponential time for what some expressions ask. RE2 never
does; its memory is bounded here, and an expression that needs more is invalid. An expression means the topics whose
whole name it matches. It is looked up after the heartbeat that brought it, and again when topics came into being, at
most every ten seconds for one group.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from odradek.coordinator.group.consumer.group import ConsumerGroup, ResolvedRegex, Subscriptions
from odradek.coordinator.group.consumer.records import epoch_record, regex_record
from odradek.coordinator.group.consumer.topics import TopicCatalog
from odradek.coordinator.group.record import GroupRecord
from odradek.wire.errors import ErrorCode, KafkaError

REFRESH_MS_MIN = 10_000
"""Between two lookups of one group's expressions."""
MEMORY_MAX = 1 << 20
"""For one compiled expression."""
COMPILED_MAX = 1_000
"""Expressions kept compiled."""

_WORDS = {
    "missing ]": "missing closing ]",
    "missing )": "missing closing )",
    "unexpected )": "regexp/syntax: internal error",
    "no argument for repetition operator": "missing argument to repetition operator",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid repetition size": "invalid repeat count",
    "invalid escape sequence": "invalid escape sequence",
    "trailing \\": "trailing backslash at end of expression",
    "invalid character class range": "invalid character class range",
    "invalid character class": "invalid character class",
    "invalid named capture group": "invalid named capture",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "invalid UTF-8": "invalid UTF-8",
}
"""How RE2 begins what is wrong, and how Kafka's port of it (RE2/J) says that."""


@lru_cache(maxsize=COMPILED_MAX)
def compiled(regex: str) -> Any:
    """KafkaError INVALID_REGULAR_EXPRESSION."""
    import re2  # 10 ms that only members with expressions cost

    options = re2.Options()
    options.log_errors = False
    options.max_mem = MEMORY_MAX
    try:
        return re2.compile(regex, options=options)
    except re2.error as error:
        reason = _reason(error)
    except UnicodeError:
        reason = "invalid UTF-8"
    text = f"SubscribedTopicRegex `{regex}` is not a valid regular expression: {reason}."
    raise KafkaError(ErrorCode.INVALID_REGULAR_EXPRESSION, text)


def _reason(error: Exception) -> str:
    detail = error.args[0] if error.args else ""
    text = detail.decode("utf-8", "replace") if isinstance(detail, bytes) else str(detail)
    return next((words for start, words in _WORDS.items() if text.startswith(start)), text)


def resolve(regex: str, topics: TopicCatalog, wall_ms: int) -> ResolvedRegex:
    return ResolvedRegex(topics.matching(regex, compiled), topics.metadata_version, wall_ms)


def needs_refresh(
    group: ConsumerGroup, regexes: dict[str, int], topics: TopicCatalog, wall_ms: int, interval_ms: int
) -> bool:
    """Whether the group's expressions (`regexes`, with those of a member about to change) are to be looked up."""
    latest = next(group.regexes.values(), None)
    if latest is None:
        return bool(regexes)
    if wall_ms <= latest.timestamp_ms + REFRESH_MS_MIN:
        return False
    resolved = sum(1 for _ in group.regexes.values())
    return (
        len(regexes) != resolved
        or latest.version < topics.created_at
        or wall_ms > latest.timestamp_ms + interval_ms
    ) and bool(regexes)


def refresh(group: ConsumerGroup, topics: TopicCatalog, wall_ms: int) -> list[GroupRecord]:
    """Look up what the group's expressions mean now; a new group epoch if that has changed anything."""
    records: list[GroupRecord] = []
    by_regex = dict(group.regex_topics)
    changed = False
    for regex in group.regex_counts:
        resolved = resolve(regex, topics, wall_ms)
        before = group.regexes.get(regex)
        old_topics = frozenset() if before is None else before.topics
        if old_topics != resolved.topics:
            changed = True
            for name in old_topics - resolved.topics:
                by_regex[name] = by_regex.get(name, 0) - 1
            for name in resolved.topics - old_topics:
                by_regex[name] = by_regex.get(name, 0) + 1
        records.append(regex_record(group.group_id, regex, resolved))
    by_regex = {name: count for name, count in by_regex.items() if count > 0}
    metadata_hash = topics.hash_of(Subscriptions(group.name_counts, group.regex_counts, by_regex).topics())
    if changed or metadata_hash != group.metadata_hash:
        records.append(epoch_record(group.group_id, group.epoch + 1, metadata_hash))
    return records
