"""The records of `__transaction_state`, in Kafka's own format: TransactionLogKey and TransactionLogValue.

A key is its version (int16, 0) and the transactional id; a value its version (int16) and the message: version 1, whose
tagged fields hold the other producer ids, from transaction.version 1 on, else version 0. No value: a tombstone.

Each transaction writes three, so version 1 is written by hand, in a fifth of the generated codec's time, which is the
oracle of the tests.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from sys import intern

from odradek.coordinator.transaction.state import BY_NUMBER, EMPTY, NO_PRODUCER_ID, Partitions, Transaction
from odradek.wire.errors import MalformedMessage
from odradek.wire.messages.transaction_log_key import TransactionLogKey
from odradek.wire.messages.transaction_log_value import PartitionsSchema, TransactionLogValue
from odradek.wire.primitives import STRING_LENGTH_MAX, write_compact_string, write_uvarint

KEY_VERSION = 0
TRANSACTION_VERSION_MAX = 2

_INT16 = struct.Struct(">h")
_KEY_HEAD = struct.Struct(">hh")
"""Version, length of the id."""
_VALUE_HEAD = struct.Struct(">hqhib")
"""Version, producer id and epoch, timeout, state."""
_TIMES = struct.Struct(">qq")
_USUAL_TAGS = struct.Struct(">BBBqBBh")
"""Of the two tagged fields that nearly every value has: number of fields; tag, size and value of each."""


@dataclass(slots=True)
class TransactionRecord:
    """One decoded record. A None value is a tombstone."""

    transactional_id: str
    value: Transaction | None
    version: int = 1
    """Of the value as it is written."""

    def encode(self) -> tuple[bytes, bytes | None]:
        """ValueError if the id is longer than the format can hold (32767 bytes)."""
        raw = self.transactional_id.encode()
        if len(raw) > STRING_LENGTH_MAX:
            raise ValueError(f"a transactional id of {len(raw)} bytes")
        key = _KEY_HEAD.pack(KEY_VERSION, len(raw)) + raw
        if self.value is None:
            return key, None
        if self.version == 1:
            return key, _version_1(self.value)
        value = bytearray(_INT16.pack(self.version))
        _message(self.value).write(value, self.version)
        return key, bytes(value)


def decode(key: bytes, value: bytes | None) -> TransactionRecord | None:
    """The record, or None if its versions are not known, as Kafka skips those. MalformedMessage if it is damaged."""
    key_version, key_bytes = _split(key)
    if key_version != KEY_VERSION:
        return None
    transactional_id = TransactionLogKey.decode(key_bytes, KEY_VERSION).transactional_id
    if value is None:
        return TransactionRecord(transactional_id, None)
    version, body = _split(value)
    if not TransactionLogValue.MIN_VERSION <= version <= TransactionLogValue.MAX_VERSION:
        return None
    message = TransactionLogValue.decode(body, version)
    return TransactionRecord(transactional_id, _transaction(message), version)


def _version_1(value: Transaction) -> bytes:
    out = bytearray(
        _VALUE_HEAD.pack(1, value.producer_id, value.producer_epoch, value.timeout_ms, value.state.number)
    )
    topics = _topics(value)
    if topics is None:
        out.append(0)
    else:
        write_uvarint(out, len(topics) + 1)
        for topic, partitions in topics.items():
            write_compact_string(out, topic)
            write_uvarint(out, len(partitions) + 1)
            for partition in partitions:
                out += partition.to_bytes(4, "big")
            out.append(0)
    out += _TIMES.pack(value.update_ms, value.start_ms)
    previous, following = value.previous_producer_id, value.next_producer_id
    client_version = value.client_version
    if previous != NO_PRODUCER_ID and following == NO_PRODUCER_ID and client_version:
        out += _USUAL_TAGS.pack(2, 0, 8, previous, 2, 2, client_version)
        return bytes(out)
    tags = []
    if previous != NO_PRODUCER_ID:
        tags.append(struct.pack(">BBq", 0, 8, previous))
    if following != NO_PRODUCER_ID:
        tags.append(struct.pack(">BBq", 1, 8, following))
    if client_version:
        tags.append(struct.pack(">BBh", 2, 2, client_version))
    out.append(len(tags))
    return bytes(out) + b"".join(tags)


def _topics(value: Transaction) -> dict[str, list[int]] | None:
    """Partitions by topic; None where no transaction was ever open."""
    if value.state is EMPTY:
        return None
    topics: dict[str, list[int]] = {}
    for topic, partition in value.partitions:
        topics.setdefault(topic, []).append(partition)
    return topics


def _message(value: Transaction) -> TransactionLogValue:
    """What version 0 has of it."""
    topics = _topics(value)
    return TransactionLogValue(
        producer_id=value.producer_id,
        producer_epoch=value.producer_epoch,
        transaction_timeout_ms=value.timeout_ms,
        transaction_status=value.state.number,
        transaction_partitions=None
        if topics is None
        else [PartitionsSchema(topic, partitions) for topic, partitions in topics.items()],
        transaction_last_update_timestamp_ms=value.update_ms,
        transaction_start_timestamp_ms=value.start_ms,
    )


def _transaction(message: TransactionLogValue) -> Transaction:
    state = BY_NUMBER.get(message.transaction_status)
    if state is None:
        raise MalformedMessage(f"unknown transaction state {message.transaction_status}")
    if not 0 <= message.client_transaction_version <= TRANSACTION_VERSION_MAX:
        raise MalformedMessage(f"unknown transaction.version {message.client_transaction_version}")
    partitions: Partitions = {}
    if state is not EMPTY:
        for topic in message.transaction_partitions or ():
            name = intern(topic.topic)
            partitions.update(dict.fromkeys((name, index) for index in topic.partition_ids))
    return Transaction(
        state,
        message.producer_id,
        message.producer_epoch,
        message.transaction_timeout_ms,
        message.transaction_last_update_timestamp_ms,
        previous_producer_id=message.previous_producer_id,
        next_producer_id=message.next_producer_id,
        partitions=partitions,
        start_ms=message.transaction_start_timestamp_ms,
        client_version=message.client_transaction_version,
    )


def _split(data: bytes) -> tuple[int, bytes]:
    if len(data) < 2:
        raise MalformedMessage("a coordinator record begins with its version")
    (number,) = _INT16.unpack_from(data)
    return number, data[2:]
