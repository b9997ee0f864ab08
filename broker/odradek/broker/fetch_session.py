"""Incremental fetch sessions (KIP-227): a consumer names its partitions once and then only what changed.

Session epoch 0 asks for a new session, -1 closes one or fetches without; any other epoch continues one. A session
is remembered for `max.incremental.fetch.session.cache.slots` clients; a full cache evicts a session that has not been
used for `EVICTION_MS`, else the client simply gets no session (id 0) and sends full requests.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from odradek.wire.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    import random

    from odradek.wire.messages.fetch import FetchPartition, FetchRequest

INITIAL_EPOCH = 0
FINAL_EPOCH = -1
EVICTION_MS = 120_000
PARTITIONS_MAX = 10_000
"""Partitions one session remembers; a client that wants more fetches without a session."""
PARTITIONS_OF_ALL_MAX = 400_000
"""Partitions that all sessions together remember, at some 350 bytes each; beyond, there are no new sessions."""
TOPIC_IDS_FROM = 13

Key = tuple[object, int]
"""(topic name or topic id, partition index): whichever the request's version names topics by."""


class Wanted:
    """One partition that a fetch asks for, with what its session last told about it."""

    __slots__ = (
        "current_leader_epoch",
        "fetch_offset",
        "index",
        "last_fetched_epoch",
        "max_bytes",
        "sent_high_watermark",
        "sent_log_start",
        "topic",
    )

    def __init__(self, topic: str | bytes, data: FetchPartition) -> None:
        self.topic = topic
        self.index = data.partition
        self.sent_high_watermark = -1
        self.sent_log_start = -1
        self.update(data)

    def update(self, data: FetchPartition) -> None:
        self.fetch_offset = data.fetch_offset
        self.max_bytes = data.partition_max_bytes
        self.current_leader_epoch = data.current_leader_epoch
        self.last_fetched_epoch = data.last_fetched_epoch


class FetchSession:
    __slots__ = ("epoch", "id", "last_used_ms", "partitions", "uses_topic_ids")

    def __init__(self, session_id: int, uses_topic_ids: bool, now_ms: int) -> None:
        self.id = session_id
        self.epoch = 1
        self.uses_topic_ids = uses_topic_ids
        self.last_used_ms = now_ms
        self.partitions: OrderedDict[Key, Wanted] = OrderedDict()


class FetchContext:
    """What one request wants: the partitions in order, and the session that remembers them, if any."""

    __slots__ = ("incremental", "read_committed", "session", "wanted")

    def __init__(self, wanted: list[Wanted], session: FetchSession | None, incremental: bool) -> None:
        self.wanted = wanted
        self.session = session
        self.incremental = incremental
        self.read_committed = False

    @property
    def session_id(self) -> int:
        return 0 if self.session is None else self.session.id


class FetchSessions:
    """All sessions of a node; the single writer is the fetch handler."""

    def __init__(self, slots: int, rng: random.Random) -> None:
        self.slots = slots
        self._rng = rng
        self._sessions: OrderedDict[int, FetchSession] = OrderedDict()
        """Least recently used first."""
        self.partition_count = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def context(self, request: FetchRequest, version: int, now_ms: int) -> FetchContext:
        """KafkaError FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH or FETCH_SESSION_TOPIC_ID_ERROR."""
        by_id = version >= TOPIC_IDS_FROM
        if version < 7 or request.session_epoch == FINAL_EPOCH:
            self._close(request.session_id)
            return FetchContext(_wanted(request, by_id), None, False)
        if request.session_epoch == INITIAL_EPOCH:
            self._close(request.session_id)
            return self._open(_wanted(request, by_id), by_id, now_ms)
        return self._continue(request, by_id, now_ms)

    def _open(self, wanted: list[Wanted], by_id: bool, now_ms: int) -> FetchContext:
        if not 0 < len(wanted) <= PARTITIONS_MAX or not self._make_room(len(wanted), now_ms):
            return FetchContext(wanted, None, False)
        session_id = 0
        while session_id == 0 or session_id in self._sessions:
            session_id = self._rng.randrange(1, 2**31)
        session = FetchSession(session_id, by_id, now_ms)
        session.partitions.update(((entry.topic, entry.index), entry) for entry in wanted)
        self._sessions[session_id] = session
        self.partition_count += len(session.partitions)
        return FetchContext(list(session.partitions.values()), session, False)

    def _continue(self, request: FetchRequest, by_id: bool, now_ms: int) -> FetchContext:
        session = self._sessions.get(request.session_id)
        if session is None:
            raise KafkaError(ErrorCode.FETCH_SESSION_ID_NOT_FOUND)
        if session.epoch != request.session_epoch:
            raise KafkaError(ErrorCode.INVALID_FETCH_SESSION_EPOCH)
        if session.uses_topic_ids != by_id:
            raise KafkaError(ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR)
        partitions = session.partitions
        before = len(partitions)
        for topic in request.topics:
            name = topic.topic_id if by_id else topic.topic
            for data in topic.partitions:
                known = partitions.get((name, data.partition))
                if known is None:
                    partitions[name, data.partition] = Wanted(name, data)
                else:
                    known.update(data)
        for forgotten in request.forgotten_topics_data:
            name = forgotten.topic_id if by_id else forgotten.topic
            for index in forgotten.partitions:
                partitions.pop((name, index), None)
        self.partition_count += len(partitions) - before
        if len(partitions) > PARTITIONS_MAX or self.partition_count > PARTITIONS_OF_ALL_MAX:
            self._close(session.id)
            raise KafkaError(ErrorCode.FETCH_SESSION_ID_NOT_FOUND)
        if not partitions:
            self._close(session.id)
            return FetchContext([], None, True)
        session.epoch = session.epoch + 1 if session.epoch < 2**31 - 1 else 1
        session.last_used_ms = now_ms
        self._sessions.move_to_end(session.id)
        return FetchContext(list(partitions.values()), session, True)

    def served(self, session: FetchSession, with_data: Iterable[Wanted]) -> None:
        """Partitions that just got data go to the end, so that busy ones cannot starve the others."""
        for entry in with_data:
            key = (entry.topic, entry.index)
            if key in session.partitions:
                session.partitions.move_to_end(key)

    def _make_room(self, partitions: int, now_ms: int) -> bool:
        """Evict sessions that nobody used for long until one more fits."""
        while len(self._sessions) >= self.slots or self.partition_count + partitions > PARTITIONS_OF_ALL_MAX:
            if not self._sessions:
                return False
            oldest = next(iter(self._sessions.values()))
            if now_ms - oldest.last_used_ms < EVICTION_MS:
                return False
            self._close(oldest.id)
        return True

    def _close(self, session_id: int) -> None:
        session = self._sessions.pop(session_id, None)
        if session is not None:
            self.partition_count -= len(session.partitions)


def _wanted(request: FetchRequest, by_id: bool) -> list[Wanted]:
    return [
        Wanted(topic.topic_id if by_id else topic.topic, data)
        for topic in request.topics
        for data in topic.partitions
    ]
