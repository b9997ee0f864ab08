"""Transcripts of group requests: a line per request, a line per answer, in files that Apache Kafka has written.

    > a join g=grp protocols=range:m1          request, on a connection (and client id) of its own named `a`
    < a join UNKNOWN_MEMBER_ID                 what came back until things were quiet, sorted by name
    > wait 500                                 milliseconds
    # anything else

A request may name its version (`join/4`); else the newest. Member ids are told by order of appearance (`<M1>`), topic
ids by their topic (`<orders>`). Only fields that differ from the message's defaults are shown.

`record.py` runs a file against a real Kafka and writes down its answers; the unit tests run it against ours in
virtual time and compare.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from odradek.wire.apis import ApiKey, request_class
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.consumer_group_describe import ConsumerGroupDescribeRequest
from odradek.wire.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatRequestTopicPartitions,
)
from odradek.wire.messages.consumer_protocol_assignment import ConsumerProtocolAssignment
from odradek.wire.messages.consumer_protocol_assignment import TopicPartition as AssignedTopic
from odradek.wire.messages.consumer_protocol_subscription import ConsumerProtocolSubscription, TopicPartition
from odradek.wire.messages.delete_groups import DeleteGroupsRequest
from odradek.wire.messages.describe_groups import DescribeGroupsRequest
from odradek.wire.messages.heartbeat import HeartbeatRequest
from odradek.wire.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from odradek.wire.messages.leave_group import LeaveGroupRequest, MemberIdentity
from odradek.wire.messages.list_groups import ListedGroup, ListGroupsRequest
from odradek.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from odradek.wire.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
)
from odradek.wire.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
)
from odradek.wire.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment
from odradek.wire.primitives import Message, Struct

STEP_MS = 300
"""How long a step lasts: what Kafka needs to become quiet."""

CONFIG = {
    "group_initial_rebalance_delay_ms": 1_500,
    "group_min_session_timeout_ms": 100,
    "group_max_session_timeout_ms": 60_000,
    "group_max_size": 3,
    "offset_metadata_max_bytes": 16,
    "group_consumer_min_heartbeat_interval_ms": 1_000,
    "group_consumer_heartbeat_interval_ms": 1_000,
    "group_consumer_min_session_timeout_ms": 3_000,
    "group_consumer_session_timeout_ms": 6_000,
    "group_consumer_max_size": 3,
}
"""What the recorded Kafka ran with; 4 partitions of the offsets topic."""

TOPICS = {"orders": 8, "users": 4}

API_KEYS = {
    "join": ApiKey.JOIN_GROUP,
    "sync": ApiKey.SYNC_GROUP,
    "heartbeat": ApiKey.HEARTBEAT,
    "leave": ApiKey.LEAVE_GROUP,
    "commit": ApiKey.OFFSET_COMMIT,
    "fetch": ApiKey.OFFSET_FETCH,
    "deloffsets": ApiKey.OFFSET_DELETE,
    "describe": ApiKey.DESCRIBE_GROUPS,
    "list": ApiKey.LIST_GROUPS,
    "delete": ApiKey.DELETE_GROUPS,
    "beat": ApiKey.CONSUMER_GROUP_HEARTBEAT,
    "cdescribe": ApiKey.CONSUMER_GROUP_DESCRIBE,
}


_GENERATED = re.compile(r"-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-|^[A-Za-z0-9_-]{22}$")
"""Member ids of classic groups, and of consumer groups."""


class Symbols:
    """What differs in each run, by names that do not: member ids, and groups if `group_prefix` is given."""

    def __init__(self, topic_ids: dict[str, bytes], group_prefix: str = "") -> None:
        self.topic_ids = topic_ids
        self.group_prefix = group_prefix
        self._members: dict[str, str] = {}

    def groups(self, names: str) -> str:
        """The ids of groups in this run. The empty id stays empty."""
        return ",".join(name and self.group_prefix + name for name in names.split(","))

    def name(self, member_id: str) -> str:
        """The symbol of a generated member id; anything else stands for itself."""
        if not _GENERATED.search(member_id):
            return member_id
        return self._members.setdefault(member_id, f"<M{len(self._members) + 1}>")

    def resolve(self, text: str) -> str:
        """The text with symbols replaced by the ids of this run."""
        for member_id, symbol in self._members.items():
            text = text.replace(symbol, member_id)
        return text

    def topic(self, topic_id: bytes) -> str:
        known = {value: name for name, value in self.topic_ids.items()}
        return f"<{known[topic_id]}>" if topic_id in known else topic_id.hex()[:8]


class Request:
    """One parsed request line."""

    def __init__(self, line: str, symbols: Symbols) -> None:
        _, self.label, verb, *words = line.split(" ")
        self.verb, _, version = verb.partition("/")
        self.api_key = API_KEYS[self.verb]
        cls = request_class(self.api_key)
        self.version = int(version) if version else cls.MAX_VERSION
        pairs = (symbols.resolve(word).partition("=") for word in words)
        arguments = {key: value for key, _, value in pairs}
        arguments["g"] = symbols.groups(arguments.get("g", "grp"))
        self.body: Message = BUILDERS[self.verb](arguments, self.version, symbols.topic_ids)


def _split(text: str, separator: str = ",") -> list[str]:
    return [part for part in text.split(separator) if part]


def _metadata(text: str) -> bytes:
    """`topics(a;b)` is a consumer's subscription, `topics(a;b|a/0;a/1)` that of one which has partitions already;
    anything else itself.
    """
    match = re.fullmatch(r"topics\((.*)\)", text)
    if match is None:
        return text.encode()
    wanted, _, had = match[1].partition("|")
    owned: dict[str, list[int]] = {}
    for name, _, number in (part.partition("/") for part in _split(had, ";")):
        owned.setdefault(name, []).append(int(number))
    subscription = ConsumerProtocolSubscription(
        topics=_split(wanted, ";"), owned_partitions=[TopicPartition(*entry) for entry in owned.items()]
    )
    return b"\0\3" + subscription.encode(3)


def _join(a: dict[str, str], version: int, topic_ids: dict[str, bytes]) -> Message:
    protocols = [part.partition(":") for part in _split(a.get("protocols", "range:m"))]
    return JoinGroupRequest(
        group_id=a["g"],
        session_timeout_ms=int(a.get("session", "10000")),
        rebalance_timeout_ms=int(a.get("rebalance", "5000")),
        member_id=a.get("m", ""),
        group_instance_id=a.get("i"),
        protocol_type=a.get("type", "consumer"),
        protocols=[JoinGroupRequestProtocol(name, _metadata(data)) for name, _, data in protocols],
    )


def _assignment(text: str) -> bytes:
    """`parts(a/0;a/1)` is a consumer's assignment, anything else itself."""
    match = re.fullmatch(r"parts\((.*)\)", text)
    if match is None:
        return text.encode()
    topics: dict[str, list[int]] = {}
    for name, _, number in (part.partition("/") for part in _split(match[1], ";")):
        topics.setdefault(name, []).append(int(number))
    assigned = ConsumerProtocolAssignment([AssignedTopic(*entry) for entry in topics.items()])
    return b"\0\3" + assigned.encode(3)


def _sync(a: dict[str, str], version: int, topic_ids: dict[str, bytes]) -> Message:
    named = version >= 5 and "unnamed" not in a
    assignments = [part.partition(":") for part in _split(a.get("assign", ""))]
    return SyncGroupRequest(
        group_id=a["g"],
        generation_id=int(a.get("gen", "1")),
        member_id=a.get("m", ""),
        group_instance_id=a.get("i"),
        protocol_type=a.get("type", "consumer") if named else None,
        protocol_name=a.get("name", "range") if named else None,
        assignments=[
            SyncGroupRequestAssignment(member, _assignment(data)) for member, _, data in assignments
        ],
    )


def _heartbeat(a: dict[str, str], version: int, topic_ids: dict[str, bytes]) -> Message:
    return HeartbeatRequest(a["g"], int(a.get("gen", "1")), a.get("m", ""), a.get("i"))


def _leave(a: dict[str, str], version: int, topic_ids: dict[str, bytes]) -> Message:
    members = [
        MemberIdentity(member, instance or None)
        for member, _, instance in (part.partition(":") for part in a.get("members", "").split(","))
    ]
    if version < 3:
        return LeaveGroupRequest(a["g"], members[0].member_id)
    return LeaveGroupRequest(a["g"], members=members)


def _topic_id(name: str, topic_ids: dict[str, bytes]) -> bytes:
    return topic_ids.get(name, b"\x11" * 16)


def _commit(a: dict[str, str], version: int, topic_ids: dict[str, bytes]) -> Message:
    topics: dict[str, OffsetCommitRequestTopic] = {}
    for part in _split(a.get("o", "")):
        place, _, offset = part.partition(":")
        name, _, partition = place.partition("/")
        known = OffsetCommitRequestTopic("" if version >= 10 else name, _topic_id(name, topic_ids))
        entry = OffsetCommitRequestPartition(int(partition), int(offset), -1, a.get("meta", ""))
        if version >= 6:
            entry.committed_leader_epoch = 3
        topics.setdefault(name, known).partitions.append(entry)
    return OffsetCommitRequest(
        group_id=a["g"],
        generation_id_or_member_epoch=int(a.get("gen", "-1")),
        member_id=a.get("m", ""),
        group_instance_id=a.get("i"),
        retention_time_ms=int(a.get("retention", "-1")),
        topics=list(topics.values()),
    )


def _fetch(a: dict[str, str], version: int, topic_ids: dict[str, bytes]) -> Message:
    places = [part.partition("/") for part in _split(a.get("p", ""))]
    stable = "stable" in a
    if version < 8:
        old = [OffsetFetchRequestTopic(name, [int(partition)]) for name, _, partition in places]
        return OffsetFetchRequest(a["g"], old if "p" in a else None, require_stable=stable)
    topics = [
        OffsetFetchRequestTopics("" if version >= 10 else name, _topic_id(name, topic_ids), [int(partition)])
        for name, _, partition in places
    ]
    groups = [
        OffsetFetchRequestGroup(group, a.get("m"), int(a.get("e", "-1")), topics if "p" in a else None)
        for group in a["g"].split(",")
    ]
    return OffsetFetchRequest(groups=groups, require_stable=stable)


def _deloffsets(a: dict[str, str], version: int, topic_ids: dict[str, bytes]) -> Message:
    topics = [
        OffsetDeleteRequestTopic(name, [OffsetDeleteRequestPartition(int(partition))])
        for name, _, partition in (part.partition("/") for part in _split(a.get("p", "")))
    ]
    return OffsetDeleteRequest(a["g"], topics)


def _describe(a: dict[str, str], version: int, topic_ids: dict[str, bytes]) -> Message:
    return DescribeGroupsRequest(a["g"].split(","), "ops" in a)


def _list(a: dict[str, str], version: int, topic_ids: dict[str, bytes]) -> Message:
    return ListGroupsRequest(_split(a.get("states", "")), _split(a.get("types", "")))


def _beat(a: dict[str, str], version: int, topic_ids: dict[str, bytes]) -> Message:
    """`e=0` says what a join has to; `t=` names topics (`t=none` not even none), `owned=orders:0;1,users:`."""
    joins = a.get("e", "1") == "0"
    owned = a.get("owned", "" if joins else None)
    names = a.get("t")
    return ConsumerGroupHeartbeatRequest(
        group_id=a["g"],
        member_id=a.get("m", ""),
        member_epoch=int(a.get("e", "1")),
        instance_id=a.get("i"),
        rack_id=a.get("rack"),
        rebalance_timeout_ms=int(a.get("rebalance", "2000" if joins else "-1")),
        subscribed_topic_names=None if names in (None, "none") else _split(names or ""),
        subscribed_topic_regex=a.get("regex"),
        server_assignor=a.get("assignor"),
        topic_partitions=None
        if owned in (None, "none")
        else [
            ConsumerGroupHeartbeatRequestTopicPartitions(
                _topic_id(name, topic_ids), [int(number) for number in _split(numbers, ";")]
            )
            for name, _, numbers in (part.partition(":") for part in _split(owned or ""))
        ],
    )


def _cdescribe(a: dict[str, str], version: int, topic_ids: dict[str, bytes]) -> Message:
    return ConsumerGroupDescribeRequest(a["g"].split(","), "ops" in a)


def _delete(a: dict[str, str], version: int, topic_ids: dict[str, bytes]) -> Message:
    return DeleteGroupsRequest(a["g"].split(","))


BUILDERS: dict[str, Callable[[dict[str, str], int, dict[str, bytes]], Message]] = {
    "join": _join,
    "sync": _sync,
    "heartbeat": _heartbeat,
    "leave": _leave,
    "commit": _commit,
    "fetch": _fetch,
    "deloffsets": _deloffsets,
    "describe": _describe,
    "list": _list,
    "delete": _delete,
    "beat": _beat,
    "cdescribe": _cdescribe,
}

_SILENT = {"throttle_time_ms", "unknown_tagged_fields"}
_SORTED = {"members", "topics", "groups", "results", "partitions", "topic_partitions"}


def show(response: Struct, symbols: Symbols) -> str:
    """The fields that differ from their defaults, on one line."""
    default = type(response)()
    words: list[str] = []
    for field in type(response).__slots__:
        value = getattr(response, field)
        if field == "groups" and value and isinstance(value[0], ListedGroup):
            value = [listed for listed in value if listed.group_id.startswith(symbols.group_prefix)]
        if field in _SILENT or value == getattr(default, field):
            continue
        if field == "error_code":
            words.insert(0, ErrorCode(value).name)
        else:
            words.append(f"{field}={_text(field, value, symbols)}")
    return " ".join(words) or "ok"


def _text(field: str, value: Any, symbols: Symbols) -> str:
    if isinstance(value, list):
        texts = [
            f"{{{show(entry, symbols)}}}" if isinstance(entry, Struct) else str(entry) for entry in value
        ]
        return f"[{' '.join(sorted(texts) if field in _SORTED else texts)}]"
    if isinstance(value, Struct):
        return f"{{{show(value, symbols)}}}"
    if field in ("assignment", "member_assignment") and value[:2] == b"\0\3":
        assigned = ConsumerProtocolAssignment.decode(value, 3, 2).assigned_partitions
        return (
            ",".join(sorted(f"{topic.topic}:{sorted(topic.partitions)}" for topic in assigned)) or "nothing"
        )
    if isinstance(value, bytes):
        return symbols.topic(value) if field == "topic_id" else repr(value)[1:]
    if isinstance(value, str):
        if field in ("member_id", "leader"):
            return symbols.name(value)
        return repr(value.replace(symbols.group_prefix, "") if symbols.group_prefix else value)
    return str(value)


Send = Callable[[Request], None]
Collect = Callable[[int], list[tuple[str, str, Message]]]


def run(lines: list[str], symbols: Symbols, send: Send, collect: Collect) -> Iterator[str]:
    """Send each request and note what comes: `collect(ms)` lets time pass and gives (label, verb, response)s."""
    for line in lines:
        if line.startswith("<"):
            continue
        yield line
        if not line.startswith(">"):
            continue
        words = line.split(" ")
        if words[1] == "wait":
            answers = collect(int(words[2]))
        else:
            send(Request(line, symbols))
            answers = collect(STEP_MS)
        for label, verb, response in sorted(answers, key=lambda answer: answer[0]):
            yield f"< {label} {verb} {show(response, symbols)}"
