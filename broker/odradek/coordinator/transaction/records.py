"""The records of `__transaction_state`, in Kafka's own format: TransactionLogKey and TransactionLogValue.

A key is its version (int16, 0) and the transactional id; a value its version (int16) and the message: version 1, whose
tagged fields hold the other producer ids, from transaction.version 1 on, else version 0. No value: a tombstone.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from sys import intern

from odradek.coordinator.transaction.state import BY_NUMBER, EMPTY, Partitions, Transaction
from odradek.wire.errors import MalformedMessage
from odradek.wire.messages.transaction_log_key import TransactionLogKey
from odradek.wire.messages.transaction_log_value import PartitionsSchema, TransactionLogValue

KEY_VERSION = 0
TRANSACTION_VERSION_MAX = 2

_INT16 = struct.Struct(">h")


@dataclass(slots=True)
class TransactionRecord:
    """One decoded record. A None value is a tombstone."""

    transactional_id: str
    value: Transaction | None
    version: int = 1
    """Of the value as it is written."""

    def encode(self) -> tuple[bytes, bytes | None]:
        """ValueError if the id is longer than the format can hold (32767 bytes)."""
        key = bytearray(_INT16.pack(KEY_VERSION))
        TransactionLogKey(self.transactional_id).write(key, KEY_VERSION)
        if self.value is None:
            return bytes(key), None
        value = bytearray(_INT16.pack(self.version))
        _message(self.value, self.version).write(value, self.version)
        return bytes(key), bytes(value)


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


def _message(value: Transaction, version: int) -> TransactionLogValue:
    topics: dict[str, list[int]] | None = None
    if value.state is not EMPTY:
        topics = {}
        for topic, partition in value.partitions:
            topics.setdefault(topic, []).append(partition)
    message = TransactionLogValue(
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
    if version >= 1:
        message.previous_producer_id = value.previous_producer_id
        message.next_producer_id = value.next_producer_id
        message.client_transaction_version = value.client_version
    return message


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
