"""Metadata (key 3), versions 0-13.

Topics that do not exist are created when the client allows it and `auto.create.topics.enable` is on; unlike Kafka,
the answer waits for the creation instead of sending the client away to ask again.

The answer to "all topics" and to one topic is what clients ask for most and is large, so topics are written by hand,
one `struct.pack` per partition (the generated codec is the oracle in the tests): 1,000 partitions in half a
millisecond. Whole encoded answers are kept until the image changes.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING, Any

from odradek.broker.dispatch import check_elements
from odradek.broker.pending import Pending, Response
from odradek.controller.topic_names import topic_name_error
from odradek.wire.apis import ApiKey
from odradek.wire.errors import ErrorCode, MalformedMessage
from odradek.wire.frame import encode_response
from odradek.wire.messages.metadata import MetadataRequest
from odradek.wire.primitives import uvarint
from odradek.wire.uuid import ZERO_UUID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from odradek.broker.connection import Connection
    from odradek.broker.node import Node
    from odradek.metadata.image import MetadataImage, PartitionImage, TopicImage

FLEXIBLE_FROM = 9
TOPIC_IDS_FROM = 10
CLUSTER_OPERATIONS = range(8, 11)
"""Versions that carry the cluster's authorized operations."""
NOT_ASKED = -(2**31)
ALL_TOPIC_OPERATIONS = 0b1101_1111_1000
"""Every operation on a topic: without an authorizer, everything is allowed (bits are Kafka's AclOperation codes)."""
ALL_CLUSTER_OPERATIONS = 0b1_1111_1010_0000
CACHED_REQUEST_BYTES = 512
"""Answers to longer requests are not kept."""
CACHED_MAX = 64
"""Encoded answers kept per image."""

REPLICAS_MAX = 126
"""More replicas than this do not fit the one-byte counts of the packed layout."""

_i16 = Struct(">h").pack
_i32 = Struct(">i").pack


def handler(node: Node) -> Any:
    """The Metadata handler of `node`."""
    cache: dict[tuple[object, ...], bytes] = {}
    cached_image: list[object] = [None]

    def handle(
        connection: Connection, view: memoryview, start: int, end: int, version: int, correlation_id: int
    ) -> Response | Pending | None:
        if not 0 <= version <= MetadataRequest.MAX_VERSION:
            raise MalformedMessage(f"Metadata version {version} is not served")
        pos = connection.skip_header(view, start, version >= FLEXIBLE_FROM)
        asked = bytes(view[pos:end])
        listener = connection.listener
        pending = Pending()

        def reply(body: bytes) -> None:
            pending.complete(encode_response(ApiKey.METADATA, version, correlation_id, body))

        if node.doubts.hold_ms and len(node.image.brokers) > 1:
            request = _read(
                asked, version
            )  # what cannot be read must be found while its connection is being served
            node.doubts.after_hold(lambda: answer(asked, request, version, listener, reply))
        else:
            answer(asked, None, version, listener, reply)
        return pending.response if pending.done else pending

    def answer(
        asked: bytes,
        request: MetadataRequest | None,
        version: int,
        listener: str,
        reply: Callable[[bytes], None],
    ) -> None:
        if cached_image[0] is not node.image:
            cached_image[0] = node.image
            cache.clear()
        key = (version, listener, asked)
        body = cache.get(key)
        if body is not None:
            reply(body)
            return
        read = _read(asked, version) if request is None else request
        missing = _creatable(node, read, version)
        if missing:
            node.create_topics_automatically(
                missing, lambda: reply(encode_body(node, read, version, listener))
            )
            return
        body = encode_body(node, read, version, listener)
        if len(asked) <= CACHED_REQUEST_BYTES and len(cache) < CACHED_MAX and not node.somebody_has_gone:
            cache[key] = body
        reply(body)

    return handle


def _read(asked: bytes, version: int) -> MetadataRequest:
    """MalformedMessage."""
    request = MetadataRequest.decode(asked, version)
    check_elements(request, len(asked))
    return request


def _creatable(node: Node, request: MetadataRequest, version: int) -> list[str]:
    """Names to create on the way."""
    allowed = version < 4 or request.allow_auto_topic_creation
    if not allowed or not request.topics or not node.auto_create_topics:
        return []
    topics = node.image.topics
    return [
        topic.name
        for topic in request.topics
        if topic.name is not None and topic.name not in topics and topic.topic_id == ZERO_UUID
    ]


def encode_body(node: Node, request: MetadataRequest, version: int, listener: str) -> bytes:
    """The response body for one request, from the current image."""
    image = node.image
    flexible = version >= FLEXIBLE_FROM
    count = _compact_count if flexible else _i32
    string = _compact_string if flexible else _string
    tags = b"\0" if flexible else b""
    live = node.brokers_on(listener)
    brokers = live + node.just_gone(listener)
    parts = [_i32(0)] if version >= 3 else []
    parts.append(count(len(brokers)))
    for broker in brokers:
        parts += (_i32(broker.id), string(broker.host), _i32(broker.port))
        if version >= 1:
            parts.append(string(broker.rack))
        parts.append(tags)
    if version >= 2:
        parts.append(string(image.cluster_id))
    if version >= 1:
        parts.append(_i32(node.controller_to_tell(live)))
    live_ids = {broker.id for broker in live}
    topics = list(_topics(image, request, version))
    parts.append(count(len(topics)))
    operations = ALL_TOPIC_OPERATIONS if request.include_topic_authorized_operations else NOT_ASKED
    for error, name, topic_id, topic in topics:
        parts += (_i16(error), string(name))
        if version >= TOPIC_IDS_FROM:
            parts.append(topic_id)
        if version >= 1:
            parts.append(b"\1" if name in node.internal_topics else b"\0")
        if topic is None:
            parts.append(count(0))
        else:
            parts.append(count(len(topic.partitions)))
            parts += encode_partitions(topic, version, live_ids)
        if version >= 8:
            parts.append(_i32(operations))
        parts.append(tags)
    if version in CLUSTER_OPERATIONS:
        parts.append(
            _i32(ALL_CLUSTER_OPERATIONS if request.include_cluster_authorized_operations else NOT_ASKED)
        )
    if version >= 13:
        parts.append(_i16(0))
    parts.append(tags)
    return b"".join(parts)


def _topics(
    image: MetadataImage, request: MetadataRequest, version: int
) -> Iterable[tuple[int, str | None, bytes, TopicImage | None]]:
    """(error, name, id, topic) in the order asked for, each once; all topics for null (and for none, in version 0)."""
    if request.topics is None or (version == 0 and not request.topics):
        for topic in image.topics.values():
            yield 0, topic.name, topic.id, topic
        return
    seen = set()
    for wanted in request.topics:
        if (asked := (wanted.topic_id, wanted.name)) in seen:
            continue  # a long list of one large topic is a small request for a huge answer
        seen.add(asked)
        if wanted.topic_id != ZERO_UUID:
            name = image.topic_names.get(wanted.topic_id)
            if name is None:
                yield ErrorCode.UNKNOWN_TOPIC_ID, None if version >= 12 else "", wanted.topic_id, None
            else:
                yield 0, name, wanted.topic_id, image.topics[name]
        else:
            name = wanted.name
            found = image.topics.get(name) if name is not None else None
            if found is not None:
                yield 0, name, found.id, found
            else:
                yield _why_missing(name), name, ZERO_UUID, None


def _why_missing(name: str | None) -> ErrorCode:
    if name is None or topic_name_error(name) is not None:
        return ErrorCode.INVALID_TOPIC_EXCEPTION
    return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def encode_partitions(topic: TopicImage, version: int, live: set[int]) -> list[bytes]:
    """Every partition of a topic. A dead leader is shown as none, as Kafka does."""
    layout = _layouts(version)
    plus = 1 if version >= FLEXIBLE_FROM else 0
    # What stands behind the in-sync replicas: no offline replicas, and in flexible versions no tagged fields.
    end: tuple[int, ...] = (1, 0) if plus else (0,) if version >= 5 else ()
    with_epoch = version >= 7
    out = []
    for index, partition in topic.partitions.items():
        replicas, isr = partition.replicas, partition.isr
        leader = partition.leader
        if leader not in live or not live.issuperset(replicas) or len(replicas) > REPLICAS_MAX:
            out.append(_partition_in_general(index, partition, version, live))
            continue
        pack = layout(len(replicas), len(isr))
        if with_epoch:
            out.append(
                pack(
                    0,
                    index,
                    leader,
                    partition.leader_epoch,
                    len(replicas) + plus,
                    *replicas,
                    len(isr) + plus,
                    *isr,
                    *end,
                )
            )
        else:
            out.append(pack(0, index, leader, len(replicas) + plus, *replicas, len(isr) + plus, *isr, *end))
    return out


def _layouts(version: int) -> Callable[[int, int], Callable[..., bytes]]:
    if version >= FLEXIBLE_FROM:
        return _flexible_layout
    if version >= 7:
        return _layout_v7
    return _layout_v5 if version >= 5 else _layout_v0


@lru_cache(maxsize=256)
def _flexible_layout(replicas: int, isr: int) -> Callable[..., bytes]:
    return Struct(f">hiiiB{replicas}iB{isr}iBB").pack


@lru_cache(maxsize=256)
def _layout_v7(replicas: int, isr: int) -> Callable[..., bytes]:
    return Struct(f">hiiii{replicas}ii{isr}ii").pack


@lru_cache(maxsize=256)
def _layout_v5(replicas: int, isr: int) -> Callable[..., bytes]:
    return Struct(f">hiii{replicas}ii{isr}ii").pack


@lru_cache(maxsize=256)
def _layout_v0(replicas: int, isr: int) -> Callable[..., bytes]:
    return Struct(f">hiii{replicas}ii{isr}i").pack


def _partition_in_general(index: int, partition: PartitionImage, version: int, live: set[int]) -> bytes:
    """Some replica, perhaps the leader, is not alive."""
    flexible = version >= FLEXIBLE_FROM
    count = _compact_count if flexible else _i32
    leader = partition.leader if partition.leader in live else -1
    error = ErrorCode.NONE if leader >= 0 else ErrorCode.LEADER_NOT_AVAILABLE
    parts = [_i16(error), _i32(index), _i32(leader)]
    if version >= 7:
        parts.append(_i32(partition.leader_epoch))
    lists: list[Iterable[int]] = [partition.replicas, partition.isr]
    if version >= 5:
        lists.append([replica for replica in partition.replicas if replica not in live])
    for numbers in map(tuple, lists):
        parts.append(count(len(numbers)))
        parts += map(_i32, numbers)
    if flexible:
        parts.append(b"\0")
    return b"".join(parts)


def _string(value: str | None) -> bytes:
    if value is None:
        return b"\xff\xff"
    raw = value.encode()
    return len(raw).to_bytes(2, "big") + raw


def _compact_string(value: str | None) -> bytes:
    if value is None:
        return b"\0"
    raw = value.encode()
    return _compact_count(len(raw)) + raw


def _compact_count(value: int) -> bytes:
    return uvarint(value + 1)
