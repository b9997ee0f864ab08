"""Fetch sessions (KIP-227)."""

from __future__ import annotations

import random

import pytest

from odradek.broker.fetch_session import (
    EVICTION_MS,
    PARTITIONS_MAX,
    PARTITIONS_OF_ALL_MAX,
    FetchContext,
    FetchSessions,
)
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.fetch import FetchPartition, FetchRequest, FetchTopic, ForgottenTopic


def request(
    session_id: int,
    epoch: int,
    partitions: dict[tuple[str, int], int],
    forget: list[tuple[str, int]] | None = None,
) -> FetchRequest:
    topics: dict[str, FetchTopic] = {}
    for (name, index), offset in partitions.items():
        topic = topics.setdefault(name, FetchTopic(topic=name))
        topic.partitions.append(FetchPartition(partition=index, fetch_offset=offset, partition_max_bytes=100))
    return FetchRequest(
        session_id=session_id,
        session_epoch=epoch,
        topics=list(topics.values()),
        forgotten_topics_data=[
            ForgottenTopic(topic=name, partitions=[index]) for name, index in forget or []
        ],
    )


def sessions(slots: int = 10) -> FetchSessions:
    return FetchSessions(slots, random.Random(1))


def wanted(context: FetchContext) -> list[tuple[object, int, int]]:
    return [(entry.topic, entry.index, entry.fetch_offset) for entry in context.wanted]


def test_a_session_remembers_partitions_and_takes_changes() -> None:
    known = sessions()
    first = known.context(request(0, 0, {("a", 0): 5, ("a", 1): 6}), 11, 0)
    assert first.session_id > 0
    second = known.context(request(first.session_id, 1, {("a", 1): 9, ("b", 0): 1}, [("a", 0)]), 11, 0)
    assert second.incremental
    assert wanted(second) == [("a", 1, 9), ("b", 0, 1)]
    third = known.context(request(first.session_id, 2, {}), 11, 0)
    assert wanted(third) == [("a", 1, 9), ("b", 0, 1)]


@pytest.mark.parametrize(
    ("session_id_offset", "epoch", "version", "expected"),
    [
        (1, 1, 11, ErrorCode.FETCH_SESSION_ID_NOT_FOUND),
        (0, 2, 11, ErrorCode.INVALID_FETCH_SESSION_EPOCH),
        (0, 1, 13, ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR),
    ],
)
def test_wrong_session_epoch_or_naming_is_refused(
    session_id_offset: int, epoch: int, version: int, expected: ErrorCode
) -> None:
    known = sessions()
    opened = known.context(request(0, 0, {("a", 0): 0}), 11, 0)
    with pytest.raises(KafkaError) as refused:
        known.context(request(opened.session_id + session_id_offset, epoch, {}), version, 0)
    assert refused.value.code is expected


def test_epoch_minus_one_closes_the_session_and_fetches_without() -> None:
    known = sessions()
    opened = known.context(request(0, 0, {("a", 0): 0}), 11, 0)
    final = known.context(request(opened.session_id, -1, {("a", 0): 3}), 11, 0)
    assert final.session is None
    assert wanted(final) == [("a", 0, 3)]
    assert len(known) == 0


def test_a_full_cache_gives_no_session_until_one_is_old() -> None:
    known = sessions(slots=1)
    known.context(request(0, 0, {("a", 0): 0}), 11, 0)
    assert known.context(request(0, 0, {("b", 0): 0}), 11, EVICTION_MS - 1).session_id == 0
    assert known.context(request(0, 0, {("b", 0): 0}), 11, EVICTION_MS).session_id > 0
    assert len(known) == 1


def test_partitions_with_data_go_to_the_end() -> None:
    known = sessions()
    context = known.context(request(0, 0, {("a", 0): 0, ("a", 1): 0, ("a", 2): 0}), 11, 0)
    assert context.session is not None
    known.served(context.session, [context.wanted[0]])
    again = known.context(request(context.session_id, 1, {}), 11, 0)
    assert [entry.index for entry in again.wanted] == [1, 2, 0]


def test_a_stranger_cannot_grow_a_session_without_bound() -> None:
    known = sessions()
    opened = known.context(request(0, 0, {("a", 0): 0}), 11, 0)
    many = {("a", index): 0 for index in range(1, PARTITIONS_MAX + 1)}
    with pytest.raises(KafkaError):
        known.context(request(opened.session_id, 1, many), 11, 0)
    assert len(known) == 0
    assert (
        known.context(request(0, 0, {("a", index): 0 for index in range(PARTITIONS_MAX + 1)}), 11, 0).session
        is None
    )


def test_forgetting_everything_ends_the_session() -> None:
    known = sessions()
    opened = known.context(request(0, 0, {("a", 0): 0}), 11, 0)
    left = known.context(request(opened.session_id, 1, {}, [("a", 0)]), 11, 0)
    assert left.session_id == 0
    assert len(known) == 0


def test_versions_before_sessions_name_everything_every_time() -> None:
    known = sessions()
    assert known.context(request(0, 0, {("a", 0): 0}), 6, 0).session is None


def test_all_sessions_together_remember_a_bounded_number_of_partitions() -> None:
    known = sessions(1000)
    large = {("t", index): 0 for index in range(PARTITIONS_MAX)}
    opened = [
        known.context(request(0, 0, large), 11, now) for now in range(PARTITIONS_OF_ALL_MAX // PARTITIONS_MAX)
    ]
    assert all(context.session_id for context in opened)
    assert known.partition_count == PARTITIONS_OF_ALL_MAX
    assert known.context(request(0, 0, {("a", 0): 0}), 11, 100).session_id == 0, "fetches without a session"
    with pytest.raises(KafkaError):
        known.context(request(opened[1].session_id, 1, {("a", 0): 0}), 11, 100)
    assert known.partition_count == PARTITIONS_OF_ALL_MAX - PARTITIONS_MAX
    known.context(request(opened[2].session_id, -1, {}), 11, 100)
    assert known.partition_count == PARTITIONS_OF_ALL_MAX - 2 * PARTITIONS_MAX
    forgotten = request(opened[3].session_id, 1, {}, list(large))
    known.context(forgotten, 11, 100)
    assert known.partition_count == PARTITIONS_OF_ALL_MAX - 3 * PARTITIONS_MAX
    assert known.context(request(0, 0, large), 11, EVICTION_MS + 50).session_id
    assert len(known) == PARTITIONS_OF_ALL_MAX // PARTITIONS_MAX - 2
