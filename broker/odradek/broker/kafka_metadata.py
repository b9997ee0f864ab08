"""The metadata log of an Apache Kafka (KRaft): told apart from ours, and read as far as a node of its own needs it.

Both have the same files with the same batches; what differs is the records. Kafka's begin with the version of a frame:

    record => frame version: varint (1), type: varint, version: varint, fields

Read are topics, partitions, configurations and producer ids. What else there is, is counted by type, so that somebody
can be told what was left behind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from struct import Struct

from odradek.ports.disk import Disk
from odradek.raft import snapshots
from odradek.raft.control_records import CorruptBatch, read_values
from odradek.storage.batch import Damage, scan_batches
from odradek.storage.layout import LOG_SUFFIX, METADATA_LOG_DIR, file_offset

FRAME = 1
TOPIC, PARTITION, CONFIG, REMOVE_TOPIC, PRODUCER_IDS = 2, 3, 4, 9, 15
_OF_NO_USE = frozenset((0, 1, 5, 12, 17, 20, 21, 23, 24, 27, 28))
"""Brokers, changes of partitions, features, NoOp, transactions of the log, controllers: a node says all that itself."""
_NAMES = {
    6: "access control entries", 18: "access control entries", 10: "delegation tokens", 11: "SCRAM credentials",
    14: "client quotas",
}  # fmt: skip
_INT32 = Struct(">i")
_INT64 = Struct(">q")


class KafkaMetadata:
    """What the log says, up to its end: committed or not cannot be told without other nodes."""

    def __init__(self) -> None:
        self.topics: dict[bytes, str] = {}
        """Topic id → name."""
        self.replicas: dict[tuple[bytes, int], tuple[int, ...]] = {}
        """(topic id, partition) → the brokers that were given it when it was made."""
        self.configs: dict[tuple[int, str, str], str] = {}
        """(resource type, resource, key) → value."""
        self.next_producer_id = 0
        self.left_out: Counter[str] = Counter()
        """What is not read, in words."""


class BadKafkaRecord(ValueError):  # noqa: N818 - what was found
    """Bytes that are no metadata record of Kafka's."""


def is_kafkas(disk: Disk, metadata_dir: str) -> bool:
    """Whether Apache Kafka wrote the metadata log there: the first record tells. OSError, CorruptBatch, Damage."""
    directory = f"{metadata_dir}/{METADATA_LOG_DIR}"
    for name in disk.listdir(directory) if disk.isdir(directory) else ():
        if name.endswith((LOG_SUFFIX, snapshots.SUFFIX)):
            for value in _values_of_file(disk, f"{directory}/{name}", 0, is_last=True):
                return value[:1] == bytes((FRAME,))
    return False


def read(disk: Disk, metadata_dir: str) -> KafkaMetadata:
    """All of it. OSError; CorruptBatch, Damage and BadKafkaRecord for what is damaged."""
    found = KafkaMetadata()
    for value in _values(disk, f"{metadata_dir}/{METADATA_LOG_DIR}"):
        replay(found, value)
    return found


def _values(disk: Disk, directory: str) -> Iterator[bytes]:
    """Values of the newest snapshot, and of what follows it in the log."""
    if not disk.isdir(directory):
        return
    names = disk.listdir(directory)
    kept = max((found for name in names if (found := snapshots.parse_name(name)) is not None), default=None)
    start = 0
    if kept is not None:
        yield from snapshots.decode(disk.read_file(f"{directory}/{kept.file_name}")).records
        start = kept.offset
    segments = [name for name in names if name.endswith(LOG_SUFFIX) and file_offset(name) is not None]
    for number, name in enumerate(segments):
        following = file_offset(segments[number + 1]) if number + 1 < len(segments) else None
        if following is not None and following <= start:
            continue
        yield from _values_of_file(disk, f"{directory}/{name}", start, is_last=following is None)


def _values_of_file(disk: Disk, path: str, start: int, *, is_last: bool) -> Iterator[bytes]:
    file = disk.open(path)
    try:
        for _, header, batch in scan_batches(file, 0, file.size()):
            if not header.is_control and header.base_offset >= start:
                yield from read_values(header, batch)
    except Damage:
        if not is_last:  # the end of the last one may be torn
            raise
    finally:
        file.close()


def replay(found: KafkaMetadata, value: bytes) -> None:
    """Apply one record."""
    reader = _Reader(value)
    if reader.varint() != FRAME:
        raise BadKafkaRecord(f"a record begins with {value[:4].hex()}")
    kind = reader.varint()
    reader.varint()  # version: fields are only ever added behind those that are read here
    apply = _RECORDS.get(kind)
    if apply is not None:
        apply(found, reader)
    elif kind not in _OF_NO_USE:
        found.left_out[_NAMES.get(kind, f"records of type {kind}")] += 1


def _topic(found: KafkaMetadata, reader: _Reader) -> None:
    name = reader.string() or ""
    found.topics[reader.take(16)] = name


def _partition(found: KafkaMetadata, reader: _Reader) -> None:
    index = reader.int32()
    topic_id = reader.take(16)
    found.replicas[topic_id, index] = tuple(reader.int32() for _ in range(reader.varint() - 1))


def _config(found: KafkaMetadata, reader: _Reader) -> None:
    kind = reader.take(1)[0]
    key = kind, reader.string() or "", reader.string() or ""
    value = reader.string()
    if value is None:
        found.configs.pop(key, None)
    else:
        found.configs[key] = value


def _remove_topic(found: KafkaMetadata, reader: _Reader) -> None:
    topic_id = reader.take(16)
    name = found.topics.pop(topic_id, None)
    for each in [each for each in found.replicas if each[0] == topic_id]:
        del found.replicas[each]
    for key in [key for key in found.configs if key[:2] == (2, name)]:
        del found.configs[key]


def _producer_ids(found: KafkaMetadata, reader: _Reader) -> None:
    reader.take(12)  # broker id and epoch
    found.next_producer_id = max(found.next_producer_id, _INT64.unpack(reader.take(8))[0])


_RECORDS: dict[int, Callable[[KafkaMetadata, _Reader], None]] = {
    TOPIC: _topic, PARTITION: _partition, CONFIG: _config, REMOVE_TOPIC: _remove_topic, PRODUCER_IDS: _producer_ids,
}  # fmt: skip


class _Reader:
    """Kafka's flexible encoding, as far as these records have it. BadKafkaRecord at the end of the bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        end = self._at + size
        if size < 0 or end > len(self._data):
            raise BadKafkaRecord(f"{len(self._data)} bytes end too early")
        taken, self._at = self._data[self._at : end], end
        return taken

    def varint(self) -> int:
        value = shift = 0
        while shift < 35:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        raise BadKafkaRecord("a number is too long")

    def int32(self) -> int:
        number: int = _INT32.unpack(self.take(4))[0]
        return number

    def string(self) -> str | None:
        length = self.varint()
        return None if length == 0 else self.take(length - 1).decode("utf-8", "replace")


__all__ = ["BadKafkaRecord", "CorruptBatch", "KafkaMetadata", "is_kafkas", "read", "replay"]
