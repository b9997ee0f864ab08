"""Metadata records: what the log `__cluster_metadata-0` and its snapshots hold.

A record is one msgpack map: `t` its type, `v` its version, and short stable keys for the fields. Names and
type numbers are Kafka's (`metadata/src/main/resources/common/metadata`). A field at its default is not
written. Keys are never reused.

Compatibility: an unknown key is skipped, so a field may be added without a new version as long as it is
safe to ignore. A version above what this code knows means that ignoring is *not* safe: that, an unknown
type, a missing field or a field of the wrong type is a `BadRecord`, and a node that cannot apply a
committed record stops (publisher.py adds the offset).

Sequences are tuples, so that records, images and what msgpack gives back compare and share without copies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, TypeAlias

import msgpack  # type: ignore[import-untyped]

Ints: TypeAlias = tuple[int, ...]
Uuids: TypeAlias = tuple[bytes, ...]
Endpoint: TypeAlias = tuple[str, str, int, int]
"""(listener name, host, port, security protocol as Kafka numbers it)."""
FeatureRange: TypeAlias = tuple[str, int, int]
"""(feature name, lowest, highest supported level)."""

NO_LEADER = -1
NO_LEADER_CHANGE = -2

RECOVERED = 0
RECOVERING = 1


class BadRecord(ValueError):  # noqa: N818 - the word says what it is
    """A metadata record that cannot be understood or contradicts the state it is applied to."""


def key(short: str) -> dict[str, str]:
    return {"key": short}


class Record:
    """Base of all metadata records. `TYPE` and `VERSION` go into every encoded record."""

    __slots__ = ()
    TYPE: ClassVar[int]
    VERSION: ClassVar[int] = 0

    def encode(self) -> bytes:
        return encode(self)


@dataclass(slots=True)
class RegisterBrokerRecord(Record):
    """A broker came, or came back as a new incarnation, or amended its registration."""

    TYPE: ClassVar[int] = 0

    broker_id: int = field(metadata=key("b"))
    incarnation_id: bytes = field(metadata=key("i"))
    broker_epoch: int = field(metadata=key("e"))
    """Offset of the record that began the incarnation: larger than every earlier epoch of any broker."""
    endpoints: tuple[Endpoint, ...] = field(default=(), metadata=key("l"))
    features: tuple[FeatureRange, ...] = field(default=(), metadata=key("f"))
    rack: str | None = field(default=None, metadata=key("r"))
    fenced: bool = field(default=True, metadata=key("n"))
    in_controlled_shutdown: bool = field(default=False, metadata=key("s"))
    directories: Uuids = field(default=(), metadata=key("d"))
    complete_epoch: int = field(default=-1, metadata=key("c"))
    """Epoch for which the broker's data is known to be complete, -1 if it may have lost some; -1 too once
    the incarnation has been unfenced.
    """
    lost_directories: bool = field(default=False, metadata=key("o"))
    """A directory of this incarnation has failed."""
    cordoned: Uuids = field(default=(), metadata=key("k"))


@dataclass(slots=True)
class UnregisterBrokerRecord(Record):
    TYPE: ClassVar[int] = 1

    broker_id: int = field(metadata=key("b"))
    broker_epoch: int = field(metadata=key("e"))


@dataclass(slots=True)
class TopicRecord(Record):
    TYPE: ClassVar[int] = 2

    name: str = field(metadata=key("n"))
    topic_id: bytes = field(metadata=key("i"))


@dataclass(slots=True)
class PartitionRecord(Record):
    """A partition with its whole state: a new one, or any one in a snapshot."""

    TYPE: ClassVar[int] = 3

    topic_id: bytes = field(metadata=key("i"))
    partition_id: int = field(metadata=key("p"))
    replicas: Ints = field(metadata=key("r"))
    isr: Ints = field(metadata=key("s"))
    leader: int = field(metadata=key("l"))
    leader_epoch: int = field(default=0, metadata=key("e"))
    partition_epoch: int = field(default=0, metadata=key("c"))
    directories: Uuids = field(default=(), metadata=key("d"))
    adding_replicas: Ints = field(default=(), metadata=key("a"))
    removing_replicas: Ints = field(default=(), metadata=key("m"))
    elr: Ints = field(default=(), metadata=key("x"))
    last_known_elr: Ints = field(default=(), metadata=key("k"))
    leader_recovery_state: int = field(default=RECOVERED, metadata=key("y"))


@dataclass(slots=True)
class ConfigRecord(Record):
    """One configuration value of a resource; None removes it."""

    TYPE: ClassVar[int] = 4

    resource_type: int = field(metadata=key("r"))
    resource_name: str = field(metadata=key("o"))
    name: str = field(metadata=key("n"))
    value: str | None = field(default=None, metadata=key("u"))


@dataclass(slots=True)
class PartitionChangeRecord(Record):
    """What changes of a partition. None (or NO_LEADER_CHANGE) leaves a field alone.

    Applying it raises the partition epoch, and the leader epoch too when `leader` is given, even if it
    names the same broker.
    """

    TYPE: ClassVar[int] = 5

    topic_id: bytes = field(metadata=key("i"))
    partition_id: int = field(metadata=key("p"))
    leader: int = field(default=NO_LEADER_CHANGE, metadata=key("l"))
    isr: Ints | None = field(default=None, metadata=key("s"))
    replicas: Ints | None = field(default=None, metadata=key("r"))
    directories: Uuids | None = field(default=None, metadata=key("d"))
    adding_replicas: Ints | None = field(default=None, metadata=key("a"))
    removing_replicas: Ints | None = field(default=None, metadata=key("m"))
    elr: Ints | None = field(default=None, metadata=key("x"))
    last_known_elr: Ints | None = field(default=None, metadata=key("k"))
    leader_recovery_state: int | None = field(default=None, metadata=key("y"))


@dataclass(slots=True)
class RemoveTopicRecord(Record):
    """The topic, its partitions and its configuration are gone."""

    TYPE: ClassVar[int] = 9

    topic_id: bytes = field(metadata=key("i"))


@dataclass(slots=True)
class FeatureLevelRecord(Record):
    """A finalized feature; level 0 takes it out."""

    TYPE: ClassVar[int] = 12

    name: str = field(metadata=key("n"))
    level: int = field(metadata=key("l"))


@dataclass(slots=True)
class ProducerIdsRecord(Record):
    """All producer ids below `next_producer_id` have been handed out, the last block to this broker."""

    TYPE: ClassVar[int] = 15

    broker_id: int = field(metadata=key("b"))
    broker_epoch: int = field(metadata=key("e"))
    next_producer_id: int = field(metadata=key("n"))


@dataclass(slots=True)
class BrokerRegistrationChangeRecord(Record):
    """A change of a registered broker's state; None leaves a field alone."""

    TYPE: ClassVar[int] = 17

    broker_id: int = field(metadata=key("b"))
    broker_epoch: int = field(metadata=key("e"))
    fenced: bool | None = field(default=None, metadata=key("n"))
    in_controlled_shutdown: bool | None = field(default=None, metadata=key("s"))
    directories: Uuids | None = field(default=None, metadata=key("d"))
    cordoned: Uuids | None = field(default=None, metadata=key("k"))


@dataclass(slots=True)
class NoOpRecord(Record):
    TYPE: ClassVar[int] = 20


def encode(record: Record) -> bytes:
    """The msgpack map of a record."""
    out: dict[str, Any] = {"t": record.TYPE, "v": record.VERSION}
    for attribute, short, default, _ in _LAYOUTS[record.TYPE]:
        value = getattr(record, attribute)
        if value != default:
            out[short] = value
    return bytes(msgpack.packb(out))


def decode(data: bytes | memoryview) -> Record:
    """Read one record. BadRecord when it is not one that this code can apply."""
    try:
        fields_by_key = msgpack.unpackb(data, use_list=False, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise BadRecord(f"not a msgpack map: {error}") from error
    if not isinstance(fields_by_key, dict):
        raise BadRecord(f"not a msgpack map but a {type(fields_by_key).__name__}")
    number, version = fields_by_key.get("t"), fields_by_key.get("v")
    if type(number) is not int or number not in _CLASSES:
        raise BadRecord(f"unknown record type {number!r}; written by a newer version?")
    cls = _CLASSES[number]
    if type(version) is not int or not 0 <= version <= cls.VERSION:
        raise BadRecord(f"{cls.__name__} version {version!r}, this node knows up to {cls.VERSION}")
    return cls(**_arguments(cls, fields_by_key))


def _arguments(cls: type[Record], fields_by_key: dict[str, Any]) -> dict[str, Any]:
    """Constructor arguments, each checked against the type of its field. The work is that of the keys
    present.
    """
    known = _FIELDS[cls.TYPE]
    arguments = {}
    for short, value in fields_by_key.items():
        if short in known:
            attribute, default, check = known[short]
            if value is not default and not check(value):
                raise BadRecord(f"{cls.__name__}: {attribute} is {value!r}")
            arguments[attribute] = value
    for attribute in _REQUIRED[cls.TYPE]:
        if attribute not in arguments:
            raise BadRecord(f"{cls.__name__}: {attribute} is missing")
    return arguments


def _is_int(value: object) -> bool:
    return type(value) is int


def _is_bool(value: object) -> bool:
    return type(value) is bool


def _is_str(value: object) -> bool:
    return type(value) is str


def _is_uuid(value: object) -> bool:
    return type(value) is bytes and len(value) == 16


def _is_ints(value: object) -> bool:
    return type(value) is tuple and all(type(item) is int for item in value)


def _is_uuids(value: object) -> bool:
    return type(value) is tuple and all(_is_uuid(item) for item in value)


def _is_endpoints(value: object) -> bool:
    return type(value) is tuple and all(
        type(item) is tuple and [type(part) for part in item] == [str, str, int, int] for item in value
    )


def _is_features(value: object) -> bool:
    return type(value) is tuple and all(
        type(item) is tuple and [type(part) for part in item] == [str, int, int] for item in value
    )


_CHECKS: dict[str, Callable[[object], bool]] = {
    "int": _is_int,
    "bool": _is_bool,
    "str": _is_str,
    "bytes": _is_uuid,
    "Ints": _is_ints,
    "Uuids": _is_uuids,
    "tuple[Endpoint, ...]": _is_endpoints,
    "tuple[FeatureRange, ...]": _is_features,
}

_CLASSES: dict[int, type[Record]] = {
    cls.TYPE: cls
    for cls in (
        RegisterBrokerRecord,
        UnregisterBrokerRecord,
        TopicRecord,
        PartitionRecord,
        ConfigRecord,
        PartitionChangeRecord,
        RemoveTopicRecord,
        FeatureLevelRecord,
        ProducerIdsRecord,
        BrokerRegistrationChangeRecord,
        NoOpRecord,
    )
}


Check = Callable[[object], bool]


def _layout(cls: type[Any]) -> list[tuple[str, str, Any, Check]]:
    """(attribute, key, default or MISSING, check) of every field; `X | None` takes X's check, None being
    the default.
    """
    return [
        (item.name, item.metadata["key"], item.default, _CHECKS[str(item.type).removesuffix(" | None")])
        for item in fields(cls)
    ]


_LAYOUTS = {number: _layout(cls) for number, cls in _CLASSES.items()}
_FIELDS = {
    number: {key: (name, default, check) for name, key, default, check in layout}
    for number, layout in _LAYOUTS.items()
}
_REQUIRED = {
    number: tuple(name for name, _, default, _ in layout if default is MISSING)
    for number, layout in _LAYOUTS.items()
}
