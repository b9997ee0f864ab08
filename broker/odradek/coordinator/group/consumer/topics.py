"""What consumer groups know of topics: which exist, of how many partitions, and whether that has changed.

A change is found by a hash (KIP-1101): each group's record keeps one over the metadata of all topics it subscribes to.
Topic: a zero byte, id, name, number of partitions, and of each partition its number and the sorted racks of its
replicas. Group: the hashes of its topics that exist, by name; without any it is 0. The function is XXH3 with 64 bits;
numbers are little endian, and a string is its UTF-16 units and then their number. The same bytes as in Kafka, so
that a group does not rebalance because another kind of broker coordinates it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

import xxhash

from odradek.coordinator.group.context import TopicResolver

MATCHES_MAX = 100
"""Expressions whose topics are remembered until the next change."""

_INT32 = struct.Struct("<i")
_INT64 = struct.Struct("<q")


class TopicCatalog:
    """The topics of the broker's metadata image, with the hashes that were asked for."""

    def __init__(self, resolver: TopicResolver) -> None:
        self._resolver = resolver
        self._hashes: dict[str, int] = {}
        self._matches: dict[str, tuple[int, frozenset[str]]] = {}
        self.version = 0
        """Rises with every change: who has seen this one need not look again."""
        self.created_at = -1
        """Version of the metadata image when a topic last came into being."""

    def changed(self, names: Iterable[str], *, created: bool) -> None:
        """Topics were created (`created`), deleted, or got other partitions or replicas."""
        for name in names:
            self._hashes.pop(name, None)
        self.version += 1
        if created or self.created_at < 0:
            self.created_at = self._resolver.metadata_version()

    @property
    def metadata_version(self) -> int:
        return self._resolver.metadata_version()

    def names(self) -> Iterable[str]:
        """All topics, internal ones included."""
        return self._resolver.topic_names()

    def known_matches(self, regex: str) -> frozenset[str] | None:
        """What some group has found out about an expression since the last change of topics."""
        known = self._matches.get(regex)
        return known[1] if known is not None and known[0] == self.version else None

    def remember_matches(self, regex: str, version: int, names: frozenset[str]) -> None:
        if len(self._matches) >= MATCHES_MAX:
            self._matches.clear()
        self._matches[regex] = version, names

    def ids_of(self, names: Iterable[str]) -> frozenset[bytes]:
        """Ids of those that exist."""
        ids = (self._resolver.topic_id(name) for name in names)
        return frozenset(topic_id for topic_id in ids if topic_id is not None)

    def id_of(self, name: str) -> bytes | None:
        return self._resolver.topic_id(name)

    def name_of(self, topic_id: bytes) -> str | None:
        return self._resolver.topic_name(topic_id)

    def partitions_of(self, topic_id: bytes) -> int:
        """How many; 0 if there is no such topic."""
        name = self._resolver.topic_name(topic_id)
        return 0 if name is None else self._resolver.partition_count(name)

    def hash_of(self, names: Iterable[str]) -> int:
        """The hash of a group that subscribes to these topics."""
        digest = xxhash.xxh3_64()
        any_topic = False
        for name in sorted(names, key=_java_order):
            topic = self._topic_hash(name)
            if topic is not None:
                digest.update(_INT64.pack(topic))
                any_topic = True
        return _signed(digest.intdigest()) if any_topic else 0

    def _topic_hash(self, name: str) -> int | None:
        known = self._hashes.get(name)
        if known is not None:
            return known
        topic_id = self._resolver.topic_id(name)
        if topic_id is None:
            return None
        digest = self._hashes[name] = topic_hash(name, topic_id, self._resolver.partition_racks(name))
        return digest


def topic_hash(name: str, topic_id: bytes, racks: list[list[str]]) -> int:
    """`racks`: of each partition, the racks of its replicas' brokers, as far as they have one."""
    out = bytearray(1)
    out += topic_id[7::-1] + topic_id[:7:-1]  # two longs, which are big endian in an id
    out += _string(name)
    out += _INT32.pack(len(racks))
    for index, of_partition in enumerate(racks):
        out += _INT32.pack(index)
        for rack in sorted(of_partition, key=_java_order):
            out += _INT32.pack(len(rack.encode("utf-16-le")) // 2)
            out += _string(rack)
    return _signed(xxhash.xxh3_64_intdigest(out))


def _string(text: str) -> bytes:
    units = text.encode("utf-16-le", "surrogatepass")
    return units + _INT32.pack(len(units) // 2)


def _java_order(text: str) -> bytes:
    """Java compares strings by UTF-16 units."""
    return text.encode("utf-16-be", "surrogatepass")


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number
