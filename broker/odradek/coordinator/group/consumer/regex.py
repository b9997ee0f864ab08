"""Expressions that members subscribe to: Google's RE2 syntax, as in Kafka, matched in linear time.

Members are strangers, and a backtracking matcher would take exponential time for what some expressions ask. RE2 never
does; its memory is bounded here, and an expression that needs more is invalid. An expression means the topics whose
whole name it matches. It is looked up after the heartbeat that brought it, and again when topics came into being, at
most every ten seconds for one group.
"""

from __future__ import annotations

from collections.abc import Iterable
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
MATCHES_PER_STEP = 4_000
"""About 10 ms: others have their turn in between."""
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


class Lookup:
    """What the expressions of one group mean, found out a step at a time.

    A match takes 2.4 us, and a stranger may bring as many expressions as it likes.
    """

    def __init__(self, group_id: str, regexes: Iterable[str], topics: TopicCatalog) -> None:
        self.group_id = group_id
        self.found: dict[str, frozenset[str]] = {}
        self.metadata_version = topics.metadata_version
        self._topics = topics
        self._version = topics.version
        self._names = list(topics.names())
        self._left = list(regexes)
        self._matching: list[str] = []
        """Of the first expression left, as far as it has been looked at."""
        self._at = 0

    def step(self) -> bool:
        """Some more; whether everything is known."""
        budget = MATCHES_PER_STEP
        while self._left and budget > 0:
            regex = self._left[0]
            known = self._topics.known_matches(regex) if self._at == 0 else None
            if known is None:
                names = self._names[self._at : self._at + budget]
                matches = compiled(regex).fullmatch
                self._matching += [name for name in names if matches(name) is not None]
                self._at += len(names)
                budget -= len(names) + 1
                if self._at < len(self._names):
                    break
                known = frozenset(self._matching)
                self._topics.remember_matches(regex, self._version, known)
            self.found[regex] = known
            self._matching, self._at = [], 0
            del self._left[0]
            budget -= 1
        return not self._left


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


def refresh(group: ConsumerGroup, lookup: Lookup, topics: TopicCatalog, wall_ms: int) -> list[GroupRecord]:
    """Write down what was found; a new group epoch if that has changed anything."""
    records: list[GroupRecord] = []
    by_regex = dict(group.regex_topics)
    changed = False
    for regex, names in lookup.found.items():
        if regex not in group.regex_counts:
            continue  # nobody wants it any more
        before = group.regexes.get(regex)
        old_names = frozenset() if before is None else before.topics
        if old_names != names:
            changed = True
            for name in old_names - names:
                by_regex[name] = by_regex.get(name, 0) - 1
            for name in names - old_names:
                by_regex[name] = by_regex.get(name, 0) + 1
        resolved = ResolvedRegex(names, lookup.metadata_version, wall_ms)
        records.append(regex_record(group.group_id, regex, resolved))
    by_regex = {name: count for name, count in by_regex.items() if count > 0}
    metadata_hash = topics.hash_of(Subscriptions(group.name_counts, group.regex_counts, by_regex).topics())
    if changed or metadata_hash != group.metadata_hash:
        records.append(epoch_record(group.group_id, group.epoch + 1, metadata_hash))
    return records
