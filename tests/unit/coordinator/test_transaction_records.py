"""Records of `__transaction_state`: bytes that Apache Kafka 4.3.1 wrote, and bytes that nobody should write."""

from __future__ import annotations

import pytest

from odradek.coordinator.transaction.records import TransactionRecord, decode
from odradek.coordinator.transaction.state import Transaction, TransactionState
from odradek.wire.errors import MalformedMessage
from odradek.wire.messages.transaction_log_value import PartitionsSchema, TransactionLogValue

KAFKAS = {
    "a new id": (
        TransactionState.EMPTY,
        "000100000000000000000000000027100000000001a1f838f582ffffffffffffffff0100080000000000000000",
    ),
    "partitions that a client added": (
        TransactionState.ONGOING,
        "000100000000000000090000000027100103076f726465727303000000000000000100067573657273020000"
        "000000000001a1f83964d6000001a1f83964d60100080000000000000009",
    ),
    "partitions that a broker added": (
        TransactionState.ONGOING,
        "000100000000000000240000000027100103076f726465727303000000000000000100067573657273020000"
        "000300000001a1f83a1b8b000001a1f83a1b8b020008000000000000002402020002",
    ),
    "a commit": (
        TransactionState.PREPARE_COMMIT,
        "000100000000000000180002000027100202076f7264657273020000000000000001a1f8397a42000001a1f8"
        "3979110100080000000000000018",
    ),
    "a commit that bumps the epoch": (
        TransactionState.PREPARE_COMMIT,
        "0001000000000000000d0003000027100203076f726465727302000000000006757365727302000000000000"
        "0001a1f839709b000001a1f8396c73020008000000000000000d02020002",
    ),
    "an abort without partitions": (
        TransactionState.PREPARE_ABORT,
        "0001000000000000000d0001000027100301000001a1f83964ec000001a1f83964ec020008000000000000000d02020002",
    ),
    "a commit with the last epoch": (
        TransactionState.PREPARE_COMMIT,
        "0001000000000000001c7fff000027100202076f7264657273020000000000000001a1f839e4ba000001a1f8"
        "39e383030008000000000000001c0108000000000000001d02020002",
    ),
    "its end, with the next producer id": (
        TransactionState.COMPLETE_COMMIT,
        "0001000000000000001d0000000027100401000001a1f839e4bb000001a1f839e383020008000000000000001c02020002",
    ),
    "an aborted one": (
        TransactionState.COMPLETE_ABORT,
        "000100000000000000180001000027100501000001a1f8397430000001a1f8397300020008000000000000001802020002",
    ),
}
KEY = b"\0\0\0\2tx"


@pytest.mark.parametrize(("state", "text"), KAFKAS.values(), ids=KAFKAS)
def test_a_record_of_kafka_is_understood_and_written_just_so(state: TransactionState, text: str) -> None:
    value = bytes.fromhex(text)
    record = decode(KEY, value)
    assert record is not None
    assert record.value is not None
    assert (record.transactional_id, record.value.state) == ("tx", state)
    assert record.encode() == (KEY, value)


def test_what_a_record_holds() -> None:
    record = decode(KEY, bytes.fromhex(KAFKAS["a commit with the last epoch"][1]))
    assert record is not None
    known = record.value
    assert known is not None
    assert (known.producer_id, known.producer_epoch, known.next_producer_id) == (28, 32_767, 29)
    assert (known.previous_producer_id, known.client_version, known.timeout_ms) == (28, 2, 10_000)
    assert list(known.partitions) == [("orders", 0)]
    assert (known.start_ms, known.update_ms) == (1_795_165_905_795, 1_795_165_906_106)


@pytest.mark.parametrize("previous", [-1, 2**40])
@pytest.mark.parametrize("following", [-1, 7])
@pytest.mark.parametrize("client_version", [0, 2])
@pytest.mark.parametrize(
    "topics", [{}, {"orders": [0]}, {"ö" * 100: list(range(200)), "users": [9, 2**31 - 1]}]
)
def test_what_is_written_by_hand_is_what_the_generated_codec_writes(
    previous: int, following: int, client_version: int, topics: dict[str, list[int]]
) -> None:
    partitions = {(topic, index): None for topic, indexes in topics.items() for index in indexes}
    known = Transaction(
        TransactionState.ONGOING, 5, 32_767, 10_000, 9, previous_producer_id=previous,
        next_producer_id=following, partitions=partitions, start_ms=8, client_version=client_version,
    )  # fmt: skip
    generated = TransactionLogValue(
        producer_id=5, producer_epoch=32_767, previous_producer_id=previous, next_producer_id=following,
        client_transaction_version=client_version, transaction_timeout_ms=10_000, transaction_status=1,
        transaction_partitions=[PartitionsSchema(*each) for each in topics.items()],
        transaction_last_update_timestamp_ms=9, transaction_start_timestamp_ms=8,
    )  # fmt: skip
    assert TransactionRecord("tx", known).encode() == (KEY, b"\0\1" + generated.encode(1))


def test_an_id_longer_than_the_format_can_hold_is_refused() -> None:
    assert TransactionRecord("x" * 32_767, None).encode()[0][:4] == b"\0\0\x7f\xff"
    with pytest.raises(ValueError, match="32768 bytes"):
        TransactionRecord("x" * 32_768, None).encode()


def test_version_0_has_no_other_producer_ids() -> None:
    record = decode(KEY, bytes.fromhex(KAFKAS["a commit with the last epoch"][1]))
    assert record is not None
    old = TransactionRecord("tx", record.value, 0).encode()[1]
    assert old is not None
    assert old[:2] == b"\0\0"
    again = decode(KEY, old)
    assert again is not None
    assert again.value is not None
    assert (again.value.next_producer_id, again.value.client_version) == (-1, 0)
    assert again.value.partitions == {("orders", 0): None}


def test_a_tombstone() -> None:
    record = TransactionRecord("tx", None)
    assert record.encode() == (KEY, None)
    assert decode(KEY, None) == record


@pytest.mark.parametrize(
    "key, value",
    [
        (b"", b""),
        (b"\0", b""),
        (b"\0\0\0\\9tx", None),
        (KEY, b""),
        (KEY, b"\0\1\0\0"),
        (KEY, bytes.fromhex(KAFKAS["a new id"][1])[:-1]),
        (KEY, bytes.fromhex(KAFKAS["a new id"][1]).replace(b"\x27\x10\0", b"\x27\x10\x63")),
        (KEY, bytes.fromhex(KAFKAS["an aborted one"][1])[:-1] + b"\x63"),
    ],
    ids=[
        "no key",
        "half a version",
        "key cut off",
        "no value",
        "value cut off",
        "tag cut off",
        "state",
        "version",
    ],
)
def test_damage_is_told_from_what_is_merely_new(key: bytes, value: bytes | None) -> None:
    with pytest.raises(MalformedMessage):
        decode(key, value)
