"""Idempotence: retries, gaps, wraps, epochs; transactions' unstable offsets; snapshots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from odradek.storage.config import LogConfig
from odradek.storage.producers import (
    ProducerEntry,
    ProducerStates,
    SnapshotError,
    end_transaction_marker,
)
from odradek.wire.records import ControlType, EndTxnMarker, control_batch, end_txn_marker, parse_header


def produce(
    bench: Any, log: Any, sequence: int, *, pid: int = 5, epoch: int = 0, count: int = 1, **options: Any
) -> Any:
    values = [f"p{pid}e{epoch}s{sequence + at}" for at in range(count)]
    batch = bench.batch(*values, producer_id=pid, producer_epoch=epoch, base_sequence=sequence, **options)
    result = log.append_as_leader(batch, 0, bench.now, transactional=True)
    log.write_staged()
    return result


def mark(
    bench: Any, log: Any, *, pid: int = 5, epoch: int = 0, commit: bool = True, coordinator: int = 0
) -> int:
    marker = end_txn_marker(
        pid, epoch, commit=commit, coordinator_epoch=coordinator, base_offset=0, timestamp=bench.now
    )
    result = log.append_as_leader(memoryview(marker), 0, bench.now, allow_control=True)
    log.write_staged()
    return int(result.base_offset)


def test_a_retry_of_the_last_five_batches_gets_its_first_offsets_again(
    bench: Any, refused: Callable[..., Any]
) -> None:
    log = bench.open()
    written = [produce(bench, log, number * 2, count=2) for number in range(7)]
    for number in range(2, 7):
        again = produce(bench, log, number * 2, count=2)
        assert again.duplicate
        assert (again.base_offset, again.last_offset) == (
            written[number].base_offset,
            written[number].last_offset,
        )
    assert log.log_end_offset == 14
    for number in range(2):
        with refused("OUT_OF_ORDER_SEQUENCE_NUMBER"):
            produce(bench, log, number * 2, count=2)


def test_a_gap_in_sequences_is_refused(bench: Any, refused: Callable[..., Any]) -> None:
    log = bench.open()
    produce(bench, log, 0)
    with refused("OUT_OF_ORDER_SEQUENCE_NUMBER"):
        produce(bench, log, 2)
    with refused("OUT_OF_ORDER_SEQUENCE_NUMBER"):
        produce(bench, log, 0, count=2)
    assert not produce(bench, log, 1).duplicate


def test_an_unknown_producer_may_begin_anywhere(bench: Any) -> None:
    log = bench.open()
    assert not produce(bench, log, 17).duplicate
    assert not produce(bench, log, 18).duplicate


def test_sequences_wrap_to_zero(bench: Any) -> None:
    log = bench.open()
    last = (1 << 31) - 1
    produce(bench, log, last - 1)
    across = produce(bench, log, last, count=3)
    assert produce(bench, log, last, count=3).duplicate
    assert not produce(bench, log, 2).duplicate
    assert log.log_end_offset == across.last_offset + 2


def test_a_new_epoch_begins_at_zero_and_fences_the_old_one(bench: Any, refused: Callable[..., Any]) -> None:
    log = bench.open()
    produce(bench, log, 0)
    with refused("OUT_OF_ORDER_SEQUENCE_NUMBER"):
        produce(bench, log, 1, epoch=1)
    produce(bench, log, 0, epoch=1)
    with refused("INVALID_PRODUCER_EPOCH"):
        produce(bench, log, 1, epoch=0)
    assert produce(bench, log, 0, epoch=1).duplicate


def test_sequences_missing_from_a_client_are_refused(bench: Any, refused: Callable[..., Any]) -> None:
    log = bench.open()
    with refused("INVALID_RECORD"):
        produce(bench, log, -1)
    with refused("INVALID_RECORD"):
        produce(bench, log, 0, epoch=-1)
    commit = bench.batch("offset", producer_id=5, producer_epoch=0, base_sequence=-1, transactional=True)
    log.append_as_leader(commit, 0, bench.now, allow_control=True)


@pytest.mark.parametrize("how", ["clean", "crash", "no-snapshot", "torn-snapshot"])
def test_retries_are_recognised_after_a_restart(bench: Any, how: str) -> None:
    config = LogConfig(segment_bytes=600)
    log = bench.open(config)
    for number in range(20):
        produce(bench, log, number)
    end = log.log_end_offset
    if how == "crash":
        log.close_files()
        log = bench.open(config)
    else:
        log.close()
        for name in bench.disk.listdir(bench.dir):
            if name.endswith(".snapshot") and how != "clean":
                if how == "no-snapshot":
                    bench.disk.unlink(bench.path(name))
                else:
                    data = bench.disk.read_file(bench.path(name))
                    bench.disk.write_file_atomic(bench.path(name), data[:-3], durable=False)
        log = bench.open(config, clean=True, recovery_point=end)
    for number in range(15, 20):
        assert produce(bench, log, number).duplicate
    assert log.log_end_offset == end
    assert not produce(bench, log, 20).duplicate


def test_several_batches_of_one_producer_in_one_append(bench: Any, refused: Callable[..., Any]) -> None:
    log = bench.open()
    options = {"producer_id": 5, "producer_epoch": 0}
    good = bytes(bench.batch("a", base_sequence=0, **options)) + bytes(
        bench.batch("b", base_sequence=1, **options)
    )
    bad = bytes(bench.batch("c", base_sequence=2, **options)) + bytes(
        bench.batch("d", base_sequence=4, **options)
    )
    log.append_as_leader(memoryview(bytearray(good)), 0, bench.now)
    with refused("OUT_OF_ORDER_SEQUENCE_NUMBER"):
        log.append_as_leader(memoryview(bytearray(bad)), 0, bench.now)
    log.write_staged()
    assert bench.values(log) == ["a", "b"]
    assert not produce(bench, log, 2).duplicate


def test_a_transaction_holds_the_last_stable_offset_until_its_marker_is_replicated(bench: Any) -> None:
    log = bench.open()
    bench.append(log, "plain")
    assert log.last_stable_offset(1) == 1
    produce(bench, log, 0, transactional=True)
    produce(bench, log, 0, pid=6, transactional=True)
    bench.append(log, "plain")
    assert log.last_stable_offset(4) == 1
    assert log.last_stable_offset(1) == 1
    marker = mark(bench, log)
    assert marker == 4
    assert log.last_stable_offset(4) == 1  # the marker is not replicated
    assert log.last_stable_offset(5) == 2
    mark(bench, log, pid=6, commit=False)
    assert log.last_stable_offset(6) == 6


def test_markers_fence_producers_and_coordinators(bench: Any, refused: Callable[..., Any]) -> None:
    log = bench.open()
    produce(bench, log, 0, transactional=True)
    mark(bench, log, epoch=1, coordinator=3)
    with refused("INVALID_PRODUCER_EPOCH"):
        produce(bench, log, 1, epoch=0, transactional=True)
    with refused("TRANSACTION_COORDINATOR_FENCED"):
        mark(bench, log, epoch=1, coordinator=2)
    produce(bench, log, 0, epoch=1, transactional=True)


def test_behind_a_marker_the_next_transaction_begins_at_zero(bench: Any, refused: Callable[..., Any]) -> None:
    log = bench.open()
    produce(bench, log, 0, transactional=True)
    mark(bench, log, epoch=1)
    for sequence, error in ((1, "OUT_OF_ORDER_SEQUENCE_NUMBER"), (-1, "INVALID_RECORD")):
        with refused(error):
            produce(bench, log, sequence, epoch=1, transactional=True)
        with refused(error):
            produce(bench, log, sequence, epoch=1)
    assert (log.last_stable_offset(2), log.producers.ongoing) == (2, {})
    produce(bench, log, 0, epoch=1, transactional=True)
    produce(bench, log, 1, epoch=1, transactional=True)
    assert (log.last_stable_offset(4), log.producers.ongoing) == (2, {5: 2})
    assert produce(bench, log, 0, epoch=1, transactional=True).duplicate


def test_a_transaction_without_a_producer_is_refused(bench: Any, refused: Callable[..., Any]) -> None:
    log = bench.open()
    bench.append(log, "plain")  # the segment has its time: what follows takes the short way
    with refused("INVALID_RECORD"):
        produce(bench, log, -1, pid=-1, epoch=-1, transactional=True)


@pytest.mark.parametrize("value_size", [6, 10], ids=["as it is written today", "with more behind"])
@pytest.mark.parametrize("commit", [True, False])
def test_a_marker_is_read_whatever_stands_behind_its_known_fields(commit: bool, value_size: int) -> None:
    kind = ControlType.COMMIT if commit else ControlType.ABORT
    value = (b"\0\0" + (7).to_bytes(4, "big")).ljust(value_size, b"\x01")
    batch = control_batch(
        [(kind, value)], base_offset=3, timestamp=9, producer_id=5, producer_epoch=1, transactional=True
    )
    assert end_transaction_marker(parse_header(batch), batch) == EndTxnMarker(commit, 7)


def test_what_only_looks_like_a_marker_ends_nothing() -> None:
    batch = control_batch([(ControlType.LEADER_CHANGE, bytes(6))], base_offset=0, timestamp=9)
    assert end_transaction_marker(parse_header(batch), batch) is None


def test_plain_writes_inside_a_transaction_are_refused(bench: Any, refused: Callable[..., Any]) -> None:
    log = bench.open()
    produce(bench, log, 0, transactional=True)
    with refused("INVALID_TXN_STATE"):
        produce(bench, log, 1)


@pytest.mark.parametrize("clean", [True, False])
def test_an_open_transaction_survives_a_restart(bench: Any, clean: bool) -> None:
    log = bench.open()
    bench.append(log, "plain")
    produce(bench, log, 0, transactional=True)
    bench.append(log, "plain")
    log.close() if clean else log.close_files()
    log = bench.open(clean=clean, recovery_point=3 if clean else 0)
    assert log.last_stable_offset(3) == 1
    mark(bench, log)
    assert log.last_stable_offset(4) == 4


def test_idle_producers_are_forgotten_but_not_in_a_transaction(bench: Any) -> None:
    log = bench.open()
    produce(bench, log, 0)
    produce(bench, log, 0, pid=6, transactional=True)
    log.producers.expire(bench.now + 999, 1000)
    assert sorted(entry.producer_id for entry in log.active_producers()) == [5, 6]
    log.producers.expire(bench.now + 1000, 1000)
    assert [entry.producer_id for entry in log.active_producers()] == [6]


def test_a_snapshot_keeps_what_it_promises() -> None:
    states = ProducerStates()
    entry = states.entries[1 << 40] = ProducerEntry(1 << 40)
    entry.add(3, (1 << 31) - 4, (1 << 31) - 3, 98, 99, 12344)
    entry.add(3, (1 << 31) - 2, 1, 100, 103, 12345)
    entry.coordinator_epoch = 9
    states.entries[7] = ProducerEntry(7)
    other = ProducerStates()
    other.load_snapshot(states.encode_snapshot())
    assert other.entries[1 << 40].batches == entry.batches
    assert other.entries[1 << 40].next_sequence == 2
    assert other.entries[7].batches == []
    assert other.encode_snapshot() == states.encode_snapshot()


def test_a_snapshot_of_kafka_ends_with_its_entries() -> None:
    states = ProducerStates()
    entry = states.entries[1] = ProducerEntry(1)
    entry.add(0, 7, 9, 70, 72, 5)
    data = states.encode_snapshot()
    assert len(data) == 10 + 46
    other = ProducerStates()
    other.load_snapshot(data)
    assert other.entries[1].batches == entry.batches


@pytest.mark.parametrize("batches", [0, 3])
def test_a_damaged_snapshot_is_noticed_at_every_byte(batches: int) -> None:
    states = ProducerStates()
    entry = states.entries[1] = ProducerEntry(1)
    for number in range(batches):
        entry.add(0, number, number, number, number, 5)
    data = states.encode_snapshot()
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        with pytest.raises(SnapshotError):
            ProducerStates().load_snapshot(bytes(damaged))
        with pytest.raises(SnapshotError):
            ProducerStates().load_snapshot(data[:position])


def test_a_batch_of_a_transaction_that_nobody_vouches_for_is_refused(
    bench: Any, refused: Callable[..., Any]
) -> None:
    log = bench.open()
    batch = bench.batch("v", producer_id=5, producer_epoch=0, base_sequence=0, transactional=True)
    with refused("TRANSACTIONAL_ID_AUTHORIZATION_FAILED"):
        log.append_as_leader(batch, 0, bench.now)
    assert log.log_end_offset == 0
