"""Produce (key 0), versions 3-13.

Versions 0-2 are advertised, because librdkafka turns compression off without them (KAFKA-18659), and answered with
UNSUPPORTED_VERSION when used. One batch per partition and request, as Kafka has it since version 3. The first batch of
a transaction in a partition takes the general path, and may have to wait for the coordinator's word
(`produce_transactional`).

The hot path is one topic and one partition per request, which is what a producer that keeps up sends: everything
from the client id to the partition index is the same bytes in every such request of a connection, so it is looked up
instead of parsed (`Plan`), and its response is one `struct.pack`. Everything else goes through the generated codec.
Measured (one core, CPython 3.11, 1 KB batches): see bench/results.
"""

from __future__ import annotations

from functools import partial
from struct import Struct
from struct import error as struct_error
from typing import TYPE_CHECKING, Any, TypeAlias

from odradek.broker.api import produce_transactional
from odradek.broker.api.produce_behind import error_to_tell
from odradek.broker.pending import Pending, Response
from odradek.storage.conversion import InvalidRecords
from odradek.wire.apis import ApiKey
from odradek.wire.errors import ErrorCode, KafkaError, MalformedMessage
from odradek.wire.frame import encode_response
from odradek.wire.messages.produce import (
    BatchIndexAndErrorMessage,
    LeaderIdAndEpoch,
    NodeEndpoint,
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceResponse,
)
from odradek.wire.primitives import read_uvarint, uvarint

if TYPE_CHECKING:
    from odradek.broker.connection import Connection
    from odradek.broker.node import Node
    from odradek.broker.partition import Partition
    from odradek.ports.disk import Buffer
    from odradek.ports.timers import Timer
    from odradek.storage.log import AppendResult

    Open: TypeAlias = tuple[PartitionProduceResponse, Partition, int]

OLDEST_SERVED = 3
FLEXIBLE_FROM = 9
TOPIC_IDS_FROM = 13
LEADER_HINT_FROM = 10
ACKS_ALL = -1
UNCHECKED_BYTES = 64 * 1024
"""A request of this size cannot hold so many empty topics that decoding them takes long."""
PARTITIONS_MAX = 20_000
"""Topics, partitions and tagged fields of one request. A batch has at least 61 bytes, so more of them would not fit
into the requests that producers send."""
PREFIX_BYTES_MAX = 512
"""Longer client ids and names are parsed every time: plans live as long as their connection."""
PLANS_MAX = 256
"""Plans one connection may hold; beyond, they are learned anew."""

_i16 = Struct(">h").unpack_from
_i32 = Struct(">i").unpack_from
_NO_TAGS = b"\0\0\0"


class Plan:
    """How to answer a produce request whose bytes up to the partition index were seen before."""

    __slots__ = (
        "acks", "append", "pack", "partition", "prefix", "size", "suffix", "timeout_ms", "transactional", "version",
        "with_log_start",
    )  # fmt: skip

    def __init__(
        self, version: int, acks: int, timeout_ms: int, partition: Partition, transactional: bool
    ) -> None:
        self.version = version
        self.transactional = transactional
        self.append = partition.append_transactional if transactional else partition.append
        self.acks = acks
        self.timeout_ms = max(timeout_ms, 0)
        self.partition = partition
        name = partition.topic.encode()
        index = partition.index.to_bytes(4, "big")
        if version >= FLEXIBLE_FROM:
            topic = partition.topic_id if version >= TOPIC_IDS_FROM else uvarint(len(name) + 1) + name
            self.prefix = b"\0\x02" + topic + b"\x02" + index
            # no record errors, null message, three empty tag sections around throttle_time_ms = 0
            self.suffix = b"\x01\0\0\0\0\0\0\0\0"
        else:
            self.prefix = b"\0\0\0\x01" + len(name).to_bytes(2, "big") + name + b"\0\0\0\x01" + index
            self.suffix = (b"\0\0\0\0\xff\xff" if version >= 8 else b"") + b"\0\0\0\0"
        self.with_log_start = version >= 5
        layout = f">ii{len(self.prefix)}shqq{'q' if self.with_log_start else ''}{len(self.suffix)}s"
        response = Struct(layout)
        self.pack = response.pack
        self.size = response.size - 4


def handler(node: Node) -> Any:
    """The Produce handler of `node`."""

    def handle(
        connection: Connection, view: memoryview, start: int, end: int, version: int, correlation_id: int
    ) -> Response | Pending | None:
        connection.produced += 1
        length = connection.produce_prefix_length
        body = start + 8
        plan = connection.produce_cache.get(bytes(view[body : body + length])) if length else None
        if plan is None or plan.version != version:
            if version < OLDEST_SERVED:
                return _refuse_old(view, start, end, version, correlation_id)
            if version > ProduceRequest.MAX_VERSION:
                raise MalformedMessage(f"Produce version {version} is not served")
            length = _single_partition_prefix(view, body, end, version)
            if not length:
                return _handle_any(node, connection, view, start, end, version, correlation_id)
            prefix = bytes(view[body : body + length])
            plan = connection.produce_cache.get(prefix)
            if plan is None or plan.version != version or not plan.partition.is_leader:
                plan = _learn(node, connection, view, start, end, version, prefix)
                if plan is None:
                    return _handle_any(node, connection, view, start, end, version, correlation_id)
            connection.produce_prefix_length = length

        partition = plan.partition
        pos = body + length
        try:
            if version >= FLEXIBLE_FROM:
                size = view[pos]
                pos += 1
                if size > 127:
                    size &= 127
                    shift = 7
                    while (byte := view[pos]) > 127 and shift < 28:
                        size |= (byte & 127) << shift
                        shift += 7
                        pos += 1
                    size |= byte << shift
                    pos += 1
                size -= 1
                tail = pos + size
                simple = tail + 3 == end and view[tail:end] == _NO_TAGS
            else:
                (size,) = _i32(view, pos)
                pos += 4
                simple = pos + size == end
        except (IndexError, struct_error):
            raise MalformedMessage("the request ends before its records") from None
        if (
            not simple
            or not partition.is_leader
            or (partition.sync_before_ack and plan.acks == 1)
            or (plan.transactional and not produce_transactional.is_open(partition, view, pos))
            or size < 61
            or _i32(view, pos + 8)[0] + 12 != size
        ):
            if not partition.is_leader:
                connection.produce_prefix_length = 0  # the topic may have been created anew: learn again
            return _handle_any(node, connection, view, start, end, version, correlation_id)

        metrics = partition.metrics
        metrics.produce_requests += 1
        waits = plan.acks < 0 and not partition.commits_at_once
        try:
            if waits:
                partition.refuse_if_too_few_in_sync()
            result = plan.append(view[pos : pos + size], node.wall_ms)
        except KafkaError as error:
            metrics.failed_produce += 1
            if error.code is ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT:
                error = _old_magic(view[pos + 16])
            batch = view[pos : pos + size]
            error = error_to_tell(connection.refused_batches, partition, batch, error)
            return _answer_one(connection, plan, correlation_id, error)
        if plan.acks == 0:
            return None
        if plan.with_log_start:
            response = plan.pack(
                plan.size, correlation_id, plan.prefix, 0, result.base_offset, result.log_append_time,
                partition.log.log_start_offset, plan.suffix,
            )  # fmt: skip
        else:
            response = plan.pack(
                plan.size, correlation_id, plan.prefix, 0, result.base_offset, result.log_append_time, plan.suffix
            )  # fmt: skip
        if waits:
            return _until_committed(node, connection, plan, correlation_id, result, response)
        return response

    return handle


def _until_committed(
    node: Node, connection: Connection, plan: Plan, correlation_id: int, result: AppendResult, response: bytes
) -> Pending:
    """acks=all on the hot path: the response is ready, and leaves when the high watermark has passed."""
    pending = Pending()

    def expire(_now_ms: int) -> None:
        error = KafkaError(ErrorCode.REQUEST_TIMED_OUT)
        pending.complete(_answer_one(connection, plan, correlation_id, error))

    timer = node.timers.at(node.monotonic_ms() + plan.timeout_ms, expire)
    pending.on_abandoned = timer.cancel

    def committed(error: ErrorCode) -> None:
        timer.cancel()
        if error is ErrorCode.NONE:
            pending.complete(response)
        elif not pending.done:
            pending.complete(_answer_one(connection, plan, correlation_id, KafkaError(error)))

    plan.partition.when_committed(result.last_offset + 1, committed, pending)
    return pending


def _single_partition_prefix(view: memoryview, body: int, end: int, version: int) -> int:
    """Bytes from the client id to the partition index of a one-partition request, or 0 for any other shape."""
    try:
        client_id = _i16(view, body)[0]
        pos = body + 2 + max(client_id, 0)
        if version >= FLEXIBLE_FROM:
            # no header tags, transactional id (null, or of up to 126 bytes), acks and timeout, one topic
            if view[pos] or view[pos + 1] > 127:
                return 0
            pos += max(view[pos + 1], 1)
            if view[pos + 7] != 2:
                return 0
            pos += 8
            if version >= TOPIC_IDS_FROM:
                pos += 16
            else:
                if view[pos] > 127:  # topic names of up to 126 bytes; longer ones take the general path
                    return 0
                pos += view[pos]
            if view[pos] != 2:
                return 0
            pos += 5
        else:
            pos += 2 + max(_i16(view, pos)[0], 0)  # the transactional id
            if _i32(view, pos + 6)[0] != 1:
                return 0
            pos += 10
            pos += 2 + max(_i16(view, pos)[0], 0)
            if _i32(view, pos)[0] != 1:
                return 0
            pos += 8
    except (IndexError, struct_error):
        return 0
    return pos - body if pos < end and pos - body <= PREFIX_BYTES_MAX else 0


def _learn(
    node: Node, connection: Connection, view: memoryview, start: int, end: int, version: int, prefix: bytes
) -> Plan | None:
    """Parse once in full; the plan for later requests with the same prefix, or None if there is an error to tell."""
    request = _decode(connection, view, start, end, version)
    topic = request.topic_data[0]
    index = topic.partition_data[0].index
    name = node.topic_name(topic.topic_id) if version >= TOPIC_IDS_FROM else topic.name
    partition = node.partitions.get((name, index)) if name is not None else None
    if (
        partition is None
        or not partition.is_leader
        or request.acks not in (-1, 0, 1)
        or name in node.internal_topics
    ):
        return None
    if len(connection.produce_cache) >= PLANS_MAX:
        connection.produce_cache.clear()
    plan = connection.produce_cache[prefix] = Plan(
        version, request.acks, request.timeout_ms, partition, request.transactional_id is not None
    )
    return plan


def _decode(connection: Connection, view: memoryview, start: int, end: int, version: int) -> ProduceRequest:
    pos = connection.skip_header(view, start, version >= FLEXIBLE_FROM)
    if end - pos > UNCHECKED_BYTES:
        try:
            _check_size(view[:end], pos, version)
        except (IndexError, struct_error):
            raise MalformedMessage("the request ends too early") from None
    return ProduceRequest.decode(view[:end], version, pos)


def _check_size(view: memoryview, pos: int, version: int) -> None:
    """Walk over a large request: it may be full of records, but not of a million empty topics or tagged fields."""
    flexible = version >= FLEXIBLE_FROM
    left = PARTITIONS_MAX

    def count(pos: int) -> tuple[int, int]:
        nonlocal left
        if flexible:
            number, pos = read_uvarint(view, pos)
            number -= 1
        else:
            number, pos = _i32(view, pos)[0], pos + 4
        left -= number
        if number < 0 or left < 0:
            raise MalformedMessage(f"{number} topics or partitions, at most {PARTITIONS_MAX} in all")
        return number, pos

    def string(pos: int) -> int:
        if flexible:
            length, pos = read_uvarint(view, pos)
            return pos + max(length - 1, 0)
        (length,) = _i16(view, pos)
        return pos + 2 + max(int(length), 0)

    def tags(pos: int) -> int:
        nonlocal left
        if not flexible:
            return pos
        number, pos = read_uvarint(view, pos)
        left -= number
        if left < 0:
            raise MalformedMessage(f"more than {PARTITIONS_MAX} tagged fields")
        for _ in range(number):
            _, pos = read_uvarint(view, pos)
            size, pos = read_uvarint(view, pos)
            pos += size
        return pos

    topics, pos = count(string(pos) + 6)
    for _ in range(topics):
        partitions, pos = count(pos + 16 if version >= TOPIC_IDS_FROM else string(pos))
        for _ in range(partitions):
            pos += 4
            if flexible:
                size, pos = read_uvarint(view, pos)
                pos = tags(pos + max(size - 1, 0))
            else:
                pos += 4 + max(_i32(view, pos)[0], 0)
        pos = tags(pos)
    tags(pos)


def _answer_one(
    connection: Connection, plan: Plan, correlation_id: int, error: KafkaError
) -> Response | None:
    """The error of a request on the hot path, through the generated codec. Without the new leader's name (KIP-951): a
    client that comes to it before it leads may get one request refused and the next one out of order, and librdkafka
    then sends what was written already once more, under another epoch.
    """
    if plan.acks == 0:
        connection.close()
        return None
    partition = plan.partition
    response = ProduceResponse(
        responses=[
            TopicProduceResponse(
                name=partition.topic if plan.version < TOPIC_IDS_FROM else "",
                topic_id=partition.topic_id if plan.version >= TOPIC_IDS_FROM else bytes(16),
                partition_responses=[_failed(partition.index, error)],
            )
        ]
    )
    return encode_response(ApiKey.PRODUCE, plan.version, correlation_id, response.encode(plan.version))


def _tell_leader(
    node: Node, listener: str, response: ProduceResponse, topic: str, answer: PartitionProduceResponse
) -> None:
    """Who leads a partition that moved, so that the client need not ask (KIP-951)."""
    if answer.error_code != ErrorCode.NOT_LEADER_OR_FOLLOWER:
        return
    hint = node.leader_hint(topic, answer.index, listener)
    if hint is None:
        return
    broker, epoch = hint
    answer.current_leader = LeaderIdAndEpoch(leader_id=broker.id, leader_epoch=epoch)
    endpoint = NodeEndpoint(node_id=broker.id, host=broker.host, port=broker.port, rack=broker.rack)
    if endpoint not in response.node_endpoints:
        response.node_endpoints.append(endpoint)


def _failed(index: int, error: KafkaError) -> PartitionProduceResponse:
    return PartitionProduceResponse(
        index=index,
        error_code=error.code,
        base_offset=-1,
        log_append_time_ms=-1,
        log_start_offset=-1,
        record_errors=_record_errors(error),
        error_message=error.message,
    )


def _record_errors(error: KafkaError) -> list[BatchIndexAndErrorMessage]:
    """Which records of the batch were refused, and why (KIP-467)."""
    if not isinstance(error, InvalidRecords):
        return []
    return [
        BatchIndexAndErrorMessage(batch_index=at, batch_index_error_message=why)
        for at, why in error.record_errors
    ]


def _handle_any(
    node: Node,
    connection: Connection,
    view: memoryview,
    start: int,
    end: int,
    version: int,
    correlation_id: int,
) -> Response | Pending | None:
    """Any shape of request: several partitions, errors, waiting for fsync or for replicas."""
    request = _decode(connection, view, start, end, version)
    operation = _Operation(node, connection, version, correlation_id, request)
    operation.append_all()
    if request.acks == 0:
        if operation.failed:
            connection.close()  # a producer with acks=0 learns of an error only by a lost connection
        return None
    return operation.answer()


class _Operation:
    """One produce request on the general path, until each of its partitions has an answer."""

    def __init__(
        self, node: Node, connection: Connection, version: int, correlation_id: int, request: ProduceRequest
    ) -> None:
        self.node = node
        self.connection = connection
        self.version = version
        self.correlation_id = correlation_id
        self.request: ProduceRequest | None = request
        self.acks = request.acks
        self.transactional_id = request.transactional_id
        self.timeout_ms = max(request.timeout_ms, 0)
        self.failed = False
        self.response = ProduceResponse()
        self.timer: Timer | None = None
        self.open: dict[int, Open] = {}
        """Answers that wait for the high watermark to reach an end offset, by identity."""
        self.unverified: dict[int, PartitionProduceResponse] = {}
        """Answers that wait for the coordinator of their transaction, by identity."""
        self.pending: Pending | None = None

    def append_all(self) -> None:
        assert self.request is not None
        bad_acks = self.request.acks not in (-1, 0, 1)
        for topic in self.request.topic_data:
            by_id = self.version >= TOPIC_IDS_FROM
            name = self.node.topic_name(topic.topic_id) if by_id else topic.name
            answers = []
            for data in topic.partition_data:
                try:
                    if bad_acks:
                        raise KafkaError(ErrorCode.INVALID_REQUIRED_ACKS)
                    answers.append(self._append_one(name, data.index, data.records))
                except KafkaError as error:
                    self.failed = True
                    answers.append(self._failure(name, data, error))
            self.response.responses.append(
                TopicProduceResponse(
                    name="" if by_id else topic.name, topic_id=topic.topic_id, partition_responses=answers
                )
            )
        self.request = None  # its records keep the connection's buffer, which an answer may wait for long

    def _append_one(self, name: str | None, index: int, records: Buffer | None) -> PartitionProduceResponse:
        if name is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_ID)
        partition = self.node.leader_of(name, index)
        if name in self.node.internal_topics:
            raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, f"{name} is written by the cluster only")
        metrics = partition.metrics
        metrics.produce_requests += 1
        acks_all = self.acks == ACKS_ALL
        try:
            batch = _one_batch(records)
            if acks_all:
                partition.refuse_if_too_few_in_sync()
            answer = PartitionProduceResponse(index=index)
            if produce_transactional.is_transactional(batch):
                later = partial(self._verified, partition, answer)
                maybe = produce_transactional.append(
                    self.node, self.transactional_id, partition, batch, self.version, later
                )
                if maybe is None:
                    self.unverified[id(answer)] = answer
                    return answer
                result = maybe
            else:
                result = partition.append(batch, self.node.wall_ms)
        except KafkaError:
            metrics.failed_produce += 1
            raise
        self._appended(partition, answer, result)
        # A duplicate waits too: what an earlier try appended need not be committed yet.
        if partition.sync_before_ack or (acks_all and not partition.commits_at_once):
            self.open[id(answer)] = answer, partition, result.last_offset + 1
        return answer

    def _verified(
        self, partition: Partition, answer: PartitionProduceResponse, result: AppendResult | KafkaError
    ) -> None:
        """The coordinator of a transaction has answered; the batch was appended, or refused."""
        if self.unverified.pop(id(answer), None) is None:
            return  # its time was over before
        if not isinstance(result, KafkaError):
            self._appended(partition, answer, result)
            entry = self.open[id(answer)] = answer, partition, result.last_offset + 1
            self._wait_for(entry)
            return
        partition.metrics.failed_produce += 1
        if self.acks == 0:
            self.connection.close()
        self._refuse(answer, partition.topic, result)
        self._complete_if_all_are()

    def _appended(self, partition: Partition, answer: PartitionProduceResponse, result: AppendResult) -> None:
        answer.base_offset = result.base_offset
        answer.log_append_time_ms = result.log_append_time
        answer.log_start_offset = partition.log.log_start_offset

    def _failure(
        self, name: str | None, data: PartitionProduceData, error: KafkaError
    ) -> PartitionProduceResponse:
        answer = PartitionProduceResponse(index=data.index)
        if name is not None:
            partition = self.node.partitions.get((name, data.index))
            error = error_to_tell(self.connection.refused_batches, partition, data.records, error)
        self._refuse(answer, name, error)
        return answer

    def _refuse(self, answer: PartitionProduceResponse, name: str | None, error: KafkaError) -> None:
        answer.error_code = error.code
        answer.error_message = error.message
        answer.record_errors = _record_errors(error)
        answer.base_offset = answer.log_append_time_ms = answer.log_start_offset = -1
        if name is not None and self.version >= LEADER_HINT_FROM:
            _tell_leader(self.node, self.connection.listener, self.response, name, answer)

    def answer(self) -> Response | Pending:
        if not self.open and not self.unverified:
            return self._encode()
        self.pending = Pending()
        deadline_ms = self.node.monotonic_ms() + self.timeout_ms
        self.timer = self.node.timers.at(deadline_ms, lambda _now: self._expire())
        self.pending.on_abandoned = self.timer.cancel
        for entry in list(self.open.values()):
            self._wait_for(entry)
        return self.pending

    def _wait_for(self, entry: Open) -> None:
        """Until the high watermark has passed, or it is certain that it will not."""

        def committed(error: ErrorCode) -> None:
            if self.open.pop(id(entry[0]), None) is None:
                return  # its time was over before
            if error is not ErrorCode.NONE:
                entry[0].error_code = error
                entry[0].base_offset = -1  # and nothing of the new leader: see `_answer_one`
            self._complete_if_all_are()

        entry[1].when_committed(entry[2], committed, self.pending)

    def _expire(self) -> None:
        for answer in (*(each for each, _, _ in self.open.values()), *self.unverified.values()):
            answer.error_code = ErrorCode.REQUEST_TIMED_OUT
            answer.base_offset = -1
        self.open.clear()
        self.unverified.clear()
        self._complete_if_all_are()

    def _complete_if_all_are(self) -> None:
        if self.pending is not None and not self.open and not self.unverified and not self.pending.done:
            assert self.timer is not None
            self.timer.cancel()
            self.pending.complete(self._encode())

    def _encode(self) -> bytes:
        body = self.response.encode(self.version)
        return encode_response(ApiKey.PRODUCE, self.version, self.correlation_id, body)


def _one_batch(records: Buffer | None) -> memoryview:
    """The records of a partition are exactly one batch of magic 2 (INVALID_RECORD otherwise, as Kafka)."""
    if records is None or len(records) == 0:
        raise KafkaError(
            ErrorCode.INVALID_RECORD, "Produce requests must have exactly one record batch per partition"
        )
    if len(records) >= 17 and records[16] < 2:
        raise _old_magic(records[16])
    if len(records) < 61:
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, f"{len(records)} bytes are less than a batch header")
    size = _i32(records, 8)[0] + 12
    if size < 61 or size > len(records):
        raise KafkaError(
            ErrorCode.CORRUPT_MESSAGE, f"batch of {size} bytes in {len(records)} bytes of records"
        )
    if size < len(records):
        raise KafkaError(
            ErrorCode.INVALID_RECORD, "Produce requests must have exactly one record batch per partition"
        )
    return memoryview(records)


def _old_magic(magic: int) -> KafkaError:
    return KafkaError(
        ErrorCode.INVALID_RECORD,
        f"Message sets of magic {magic} are not accepted: producers write magic 2 since Kafka 0.11",
    )


def _refuse_old(view: memoryview, start: int, end: int, version: int, correlation_id: int) -> Response | None:
    """Versions 0-2: UNSUPPORTED_VERSION for every partition, in that version's own layout."""
    view = view[:end]
    left = PARTITIONS_MAX
    try:
        pos = start + 8
        pos += 2 + max(_i16(view, pos)[0], 0)
        acks, topic_count = _i16(view, pos)[0], _i32(view, pos + 6)[0]
        pos += 10
        out = bytearray(topic_count.to_bytes(4, "big"))
        for _ in range(topic_count):
            (length,) = _i16(view, pos)
            name_end = pos + 2 + max(length, 0)
            out += view[pos : name_end + 4]
            (partition_count,) = _i32(view, name_end)
            pos = name_end + 4
            left -= 1 + partition_count
            if not 0 <= partition_count <= end - pos or left < 0:
                raise MalformedMessage(f"{partition_count} partitions in {end - pos} bytes")
            for _ in range(partition_count):
                index, size = view[pos : pos + 4], _i32(view, pos + 4)[0]
                pos += 8 + max(size, 0)
                if pos > end:
                    raise MalformedMessage("records run over the request")
                append_time = b"\xff" * 8 if version >= 2 else b""
                out += (
                    bytes(index)
                    + int(ErrorCode.UNSUPPORTED_VERSION).to_bytes(2, "big")
                    + b"\xff" * 8
                    + append_time
                )
    except (struct_error, IndexError, OverflowError) as error:
        raise MalformedMessage(str(error)) from None
    if version >= 1:
        out += bytes(4)
    if acks == 0:
        return None
    return (len(out) + 4).to_bytes(4, "big") + correlation_id.to_bytes(4, "big", signed=True) + bytes(out)
