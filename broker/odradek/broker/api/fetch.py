"""Fetch (key 1), versions 4-18, for consumers.

The request goes through the generated codec, the response is written by hand so that record bytes are handed from the
log to the socket without a copy. A fetch that finds fewer than `min_bytes` waits in the purgatory of its partitions
until enough has been committed or `max_wait_ms` is over (KIP-227 sessions, KIP-320 epochs, KIP-516 topic ids).

A fetch takes no more than there is room for in the node's memory of responses (`Node.response_room`): when many
peers do not read, the others find nothing for a while, which is an answer every client knows.

A read that would wait for the medium never runs here: the range is first pulled into the page cache off the loop
(`Node.warm`), then the fetch is tried again.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any

from odradek.broker.dispatch import check_elements
from odradek.broker.fetch_session import FetchContext, Wanted
from odradek.broker.pending import Pending, Response
from odradek.wire.apis import ApiKey
from odradek.wire.errors import ErrorCode, KafkaError, MalformedMessage
from odradek.wire.messages.fetch import FetchRequest
from odradek.wire.primitives import uvarint

if TYPE_CHECKING:
    from odradek.broker.connection import Connection
    from odradek.broker.node import Node
    from odradek.broker.partition import Partition
    from odradek.broker.pending import Part
    from odradek.ports.timers import Timer
    from odradek.storage.log import Location, Log

SESSIONS_FROM = 7
RACKS_FROM = 11
"""From here on consumers say in which rack they are, and may read from followers (KIP-392)."""
FLEXIBLE_FROM = 12
TOPIC_IDS_FROM = 13
LEADER_HINT_FROM = 16
READ_COMMITTED = 1
WAIT_MS_MAX = 300_000
"""A longer wait is answered empty before its time: a peer that is gone may not be noticed while it waits."""
WARM_TRIES_MAX = 4
"""How often a fetch is sent to the disk thread before it reads in place, page cache or not."""

_i32 = Struct(">i").pack
_i16 = Struct(">h").pack
_partition_v4 = Struct(">ihqq").pack
_partition_v5 = Struct(">ihqqq").pack
_aborted = Struct(">qq").pack


class Served:
    """What one partition of a fetch got."""

    __slots__ = (
        "aborted",
        "data",
        "diverging",
        "error",
        "high_watermark",
        "last_stable",
        "log_start",
        "preferred",
        "wanted",
    )

    def __init__(self, wanted: Wanted, error: int = 0) -> None:
        self.wanted = wanted
        self.error = error
        self.high_watermark = -1
        self.last_stable = -1
        self.log_start = -1
        self.data: Part = b""
        self.aborted: list[tuple[int, int]] = []
        """(producer id, first offset) of aborted transactions in `data`: what a read_committed reader leaves out."""
        self.diverging: tuple[int, int] | None = None
        self.preferred = -1
        """The broker that this consumer should rather read from."""


def handler(node: Node) -> Any:
    """The Fetch handler of `node`."""

    def handle(
        connection: Connection, view: memoryview, start: int, end: int, version: int, correlation_id: int
    ) -> Response | Pending | None:
        if not FetchRequest.MIN_VERSION <= version <= FetchRequest.MAX_VERSION:
            raise MalformedMessage(f"Fetch version {version} is not served")
        pos = connection.skip_header(view, start, version >= FLEXIBLE_FROM)
        request = FetchRequest.decode(view[:end], version, pos)
        check_elements(request, end - pos)
        try:
            context = node.fetch_sessions.context(request, version, node.monotonic_ms())
        except KafkaError as error:
            nothing = FetchContext([], None, False)
            return _encode(node, connection.listener, version, correlation_id, error.code, nothing, [])
        return _Operation(node, connection, version, correlation_id, request, context).begin()

    return handle


class _Operation:
    """One fetch, from the first look to its answer."""

    __slots__ = (
        "began_ns", "bytes_max", "cold", "connection", "context", "correlation_id", "deadline_ms", "missing", "node",
        "pending", "read_committed", "request", "timer", "version", "warm_tries", "watched",
    )  # fmt: skip

    def __init__(
        self,
        node: Node,
        connection: Connection,
        version: int,
        correlation_id: int,
        request: FetchRequest,
        context: FetchContext,
    ) -> None:
        self.node = node
        self.connection = connection
        self.version = version
        self.correlation_id = correlation_id
        self.request = request
        self.context = context
        self.bytes_max = min(request.max_bytes, node.fetch_bytes_max)
        self.read_committed = context.read_committed = request.isolation_level == READ_COMMITTED
        self.began_ns = node.clock.monotonic_ns()
        self.deadline_ms = 0
        self.missing = 0
        self.pending: Pending | None = None
        self.timer: Timer | None = None
        self.watched: dict[Partition, tuple[int, int]] = {}
        """Bytes appended and last stable offset when they were last looked at."""
        self.warm_tries = 0
        self.cold: list[Location] = []

    def begin(self) -> Response | Pending:
        served, size, urgent = self._read_all()
        if self._warm():
            return self._later()
        if (
            urgent
            or size >= self.request.min_bytes
            or self.request.max_wait_ms <= 0
            or not self.context.wanted
        ):
            return self._answer(served)
        self._later()
        self._wait(size)
        assert self.pending is not None
        return self.pending

    # -- reading -------------------------------------------------------------------------------------------------

    def _read_all(self) -> tuple[list[Served], int, bool]:
        """What every wanted partition has now; the bytes; whether the answer must not wait (an error).

        What is only on the medium is left out and put into `cold`.
        """
        served = []
        cold = self.cold
        cold.clear()
        seen = 0
        room = left = self._room()
        urgent = False
        nothing_yet = room > 0
        for wanted in self.context.wanted:
            entry = self._read(wanted, left, nothing_yet)
            if entry.error or entry.diverging is not None or entry.preferred >= 0:
                urgent = True
            elif entry.data:
                nothing_yet = False
                left = max(0, left - len(entry.data))
            elif len(cold) > seen:
                seen += 1
                left = max(0, left - cold[-1].length)
            served.append(entry)
        return served, room - left, urgent

    def _room(self) -> int:
        return self.node.response_room(self.connection, self.bytes_max)

    def _read(self, wanted: Wanted, left: int, min_one: bool) -> Served:
        entry = Served(wanted)
        try:
            partition = self._partition(wanted)
            log = partition.log
            entry.high_watermark = partition.high_watermark
            entry.last_stable = partition.last_stable_offset
            entry.log_start = log.log_start_offset
            limit = entry.last_stable if self.read_committed else entry.high_watermark
            offset = wanted.fetch_offset
            if wanted.last_fetched_epoch >= 0:
                epoch, end_offset = log.end_offset_for_epoch(wanted.last_fetched_epoch)
                if epoch < 0:
                    raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE)
                if epoch < wanted.last_fetched_epoch or end_offset < offset:
                    entry.diverging = (epoch, end_offset)
                    return entry
            if offset < log.log_start_offset or offset > log.log_end_offset:
                raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE)
            if self.request.rack_id:
                entry.preferred = self.node.replicas.preferred_read_replica(
                    partition, self.request.rack_id, offset
                )
                if entry.preferred >= 0:
                    return entry
            if offset < limit and (left > 0 or min_one):
                entry.data, end = self._records(log, offset, min(left, wanted.max_bytes), limit, min_one)
                if self.read_committed and log.has_aborted:
                    entry.aborted = log.aborted_transactions(offset, end)
        except KafkaError as error:
            if error.code == ErrorCode.CORRUPT_MESSAGE:  # the client cannot do anything about it
                self.node.ports.log.limited_warning("a damaged batch is not served", reason=error.message)
            entry.error = error.code
            entry.high_watermark = -1
            entry.last_stable = -1
            entry.log_start = -1
        return entry

    def _records(
        self, log: Log, offset: int, bytes_max: int, end_offset: int, min_one: bool
    ) -> tuple[Part, int]:
        """(records, offset after them): part of the file where that saves a copy and a check, else copied, checked."""
        if self.connection.sends_files:
            found = log.read_range(offset, bytes_max, end_offset=end_offset)
            if found is not None:
                return found.data, found.next_offset
        if self.warm_tries < WARM_TRIES_MAX:
            where = log.locate(offset, bytes_max, end_offset)
            if not where.cached:
                self.cold.append(where)
                return b"", offset
        result = log.read(offset, bytes_max, end_offset=end_offset, min_one=min_one)
        return result.data, result.next_offset

    def _partition(self, wanted: Wanted) -> Partition:
        topic = wanted.topic
        if isinstance(topic, bytes):
            name = self.node.topic_name(topic)
            if name is None:
                raise KafkaError(ErrorCode.UNKNOWN_TOPIC_ID)
            topic = name
        if self.version >= RACKS_FROM:
            partition = self.node.replicas.readable(topic, wanted.index)
            partition.check_replica_epoch(wanted.current_leader_epoch)
        else:
            partition = self.node.leader_of(topic, wanted.index)
            partition.check_leader_epoch(wanted.current_leader_epoch)
        return partition

    def _warm(self) -> bool:
        """Whether the disk thread first has to bring in what the last look found only on the medium."""
        if not self.cold:
            return False
        self.warm_tries += 1
        cold, self.cold = self.cold, []
        self.node.warm([where.warm for where in cold], self._warmed)
        return True

    def _warmed(self) -> None:
        if self.pending is None or self.pending.done:
            return
        served, size, urgent = self._read_all()
        if self._warm():
            return
        if urgent or size >= self.request.min_bytes:
            self.pending.complete(self._answer(served))
        else:
            self._wait(size)

    # -- waiting -------------------------------------------------------------------------------------------------

    def _later(self) -> Pending:
        self.pending = Pending()
        self.pending.on_abandoned = self._leave
        self.deadline_ms = self.node.monotonic_ms() + min(max(self.request.max_wait_ms, 0), WAIT_MS_MAX)
        return self.pending

    def _wait(self, size: int) -> None:
        self.missing = self.request.min_bytes - size
        self.timer = self.node.timers.at(self.deadline_ms, lambda _now: self._finish())
        for wanted in self.context.wanted:
            try:
                partition = self._partition(wanted)
            except KafkaError:
                continue
            self.watched[partition] = partition.bytes_appended, partition.last_stable_offset
            partition.watch_data(self, self._woken)

    def _woken(self, partition: Partition) -> None:
        """More has been committed to a partition that is waited for, or it moved away."""
        before, was_stable = self.watched[partition]
        stable = partition.last_stable_offset
        if self.read_committed and stable == was_stable and partition.is_leader:
            return  # the records of an open transaction, which this reader does not see yet
        self.watched[partition] = partition.bytes_appended, stable
        self.missing -= partition.bytes_appended - before
        if self.missing <= 0 or not partition.is_leader:
            self._finish()

    def _finish(self) -> None:
        self._leave()
        if self.pending is not None and not self.pending.done:
            self.warm_tries = WARM_TRIES_MAX  # its time is over: in place, page cache or not
            served, _, _ = self._read_all()
            self.pending.complete(self._answer(served))

    def _leave(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        for partition in self.watched:
            partition.unwatch_data(self)
        self.watched.clear()

    # -- answering -----------------------------------------------------------------------------------------------

    def _answer(self, served: list[Served]) -> Response:
        session = self.context.session
        if session is not None:
            if self.context.incremental:
                served = [entry for entry in served if _is_news(entry)]
            for entry in served:
                entry.wanted.sent_high_watermark = entry.high_watermark
                entry.wanted.sent_log_start = entry.log_start
            self.node.fetch_sessions.served(session, [entry.wanted for entry in served if entry.data])
        for entry in served:
            metrics = self.node.topic_metrics_of(entry.wanted.topic)
            if metrics is not None:
                metrics.fetch_requests += 1
                metrics.bytes_out += len(entry.data)
                metrics.failed_fetch += entry.error != 0
        self.node.metrics.api(ApiKey.FETCH).observe(self.node.clock.monotonic_ns() - self.began_ns)
        listener, version = self.connection.listener, self.version
        return _encode(
            self.node, listener, version, self.correlation_id, ErrorCode.NONE, self.context, served
        )


def _is_news(entry: Served) -> bool:
    """Whether an incremental answer must name this partition (KIP-227)."""
    wanted = entry.wanted
    return bool(
        entry.data
        or entry.error
        or entry.diverging is not None
        or entry.preferred >= 0
        or entry.high_watermark != wanted.sent_high_watermark
        or entry.log_start != wanted.sent_log_start
    )


def _encode(
    node: Node, listener: str, version: int, correlation_id: int, error: int, context: FetchContext,
    served: list[Served],
) -> Response:  # fmt: skip
    """The response as buffers; record bytes stay where they are."""
    flexible = version >= FLEXIBLE_FROM
    head = bytearray(8)
    if flexible:
        head += b"\0"
    head += b"\0\0\0\0"
    if version >= SESSIONS_FROM:
        head += _i16(error) + _i32(context.session_id)
    topics = _group_by_topic(served)
    head += uvarint(len(topics) + 1) if flexible else _i32(len(topics))
    buffers: list[Part] = []
    hints: dict[int, Any] = {}
    for topic, entries in topics:
        if isinstance(topic, bytes):
            head += topic
        elif flexible:
            name = topic.encode()
            head += uvarint(len(name) + 1) + name
        else:
            name = topic.encode()
            head += len(name).to_bytes(2, "big") + name
        head += uvarint(len(entries) + 1) if flexible else _i32(len(entries))
        for entry in entries:
            _partition_head(head, version, entry, flexible, context.read_committed)
            if entry.data:
                buffers.append(head)
                buffers.append(entry.data)
                head = bytearray()
            if flexible:
                head += _partition_tags(node, listener, version, entry, hints)
        if flexible:
            head += b"\0"
    if flexible:
        head += _node_endpoints(hints) if hints else b"\0"
    buffers.append(head)
    size = sum(map(len, buffers)) - 4
    first = buffers[0]
    assert isinstance(first, bytearray)
    first[0:8] = _i32(size) + _i32(correlation_id)
    return bytes(first) if len(buffers) == 1 else buffers


def _partition_head(
    head: bytearray, version: int, entry: Served, flexible: bool, read_committed: bool
) -> None:
    """One partition up to its record bytes. Aborted transactions: null unless the reader asked for read_committed."""
    aborted = entry.aborted
    index = entry.wanted.index
    if version >= 5:
        head += _partition_v5(index, entry.error, entry.high_watermark, entry.last_stable, entry.log_start)
    else:
        head += _partition_v4(index, entry.error, entry.high_watermark, entry.last_stable)
    size = len(entry.data)
    if flexible:
        head += uvarint(len(aborted) + 1) if read_committed else b"\0"
        for producer_id, first_offset in aborted:
            head += _aborted(producer_id, first_offset) + b"\0"
        head += _i32(entry.preferred) + uvarint(size + 1)
    else:
        head += _i32(len(aborted) if read_committed else -1)
        for producer_id, first_offset in aborted:
            head += _aborted(producer_id, first_offset)
        head += (_i32(entry.preferred) if version >= RACKS_FROM else b"") + _i32(size)


def _partition_tags(node: Node, listener: str, version: int, entry: Served, hints: dict[int, Any]) -> bytes:
    """Diverging epoch (tag 0) and current leader (tag 1, KIP-951)."""
    tags = []
    if entry.diverging is not None:
        epoch, end_offset = entry.diverging
        tags.append(b"\0\x0d" + _i32(epoch) + end_offset.to_bytes(8, "big", signed=True) + b"\0")
    moved = entry.error in (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.FENCED_LEADER_EPOCH)
    if moved and version >= LEADER_HINT_FROM:
        topic = entry.wanted.topic
        name = node.topic_name(topic) if isinstance(topic, bytes) else topic
        hint = node.leader_hint(name, entry.wanted.index, listener) if name is not None else None
        if hint is not None:
            broker, epoch = hint
            hints[broker.id] = broker
            tags.append(b"\x01\x09" + _i32(broker.id) + _i32(epoch) + b"\0")
    return bytes([len(tags)]) + b"".join(tags)


def _node_endpoints(hints: dict[int, Any]) -> bytes:
    body = bytearray(uvarint(len(hints) + 1))
    for broker in hints.values():
        host = broker.host.encode()
        body += _i32(broker.id) + uvarint(len(host) + 1) + host + _i32(broker.port)
        rack = None if broker.rack is None else broker.rack.encode()
        body += b"\0" if rack is None else uvarint(len(rack) + 1) + rack
        body += b"\0"
    return b"\x01\0" + uvarint(len(body)) + bytes(body)


def _group_by_topic(served: list[Served]) -> list[tuple[str | bytes, list[Served]]]:
    """Neighbours of one topic together, in request order."""
    groups: list[tuple[str | bytes, list[Served]]] = []
    for entry in served:
        if not groups or groups[-1][0] != entry.wanted.topic:
            groups.append((entry.wanted.topic, []))
        groups[-1][1].append(entry)
    return groups
