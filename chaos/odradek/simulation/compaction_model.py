"""What may be missing of a compacted partition: every record that was committed to it, and why a log need not hold it.

A replica's log is right if each record in it is what was committed at its offset, and each that is missing is of no use
to anybody who reads on to the last stable offset: superseded by a later one of its key, aborted, or a tombstone whose
retention is over. Replicas are compacted each in its own time, so two of them agree in what both still have.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from odradek.simulation.trace import InvariantViolation
from odradek.wire.records import CONTROL_FLAG, DELETE_HORIZON_FLAG, TRANSACTIONAL_FLAG, read_records

if TYPE_CHECKING:
    from odradek.simulation.partition_model import BatchInfo, Mirror, PartitionModel
    from odradek.simulation.transaction_model import PartitionTransactions

_BYTES_MAX = 1 << 20
CLOCKS_DIFFER = 0.02
"""Two machines' clocks drift apart by this share of the time that has passed."""


class Row(NamedTuple):
    """One record as it was committed."""

    offset: int
    key: bytes
    value: bytes | None
    base: int
    """Of its batch."""
    seen_us: int
    """When it was committed."""


class CommittedRecords:
    """Of one partition; fed with committed batches in order."""

    def __init__(self, name: str, transactions: PartitionTransactions, delete_retention_ms: int) -> None:
        self._name = name
        self._transactions = transactions
        self._retention_ms = delete_retention_ms
        self._rows: dict[int, Row] = {}
        self._by_key: dict[bytes, list[Row]] = {}
        self._open: dict[int, list[BatchInfo]] = {}
        self._ended: dict[int, list[BatchInfo]] = {}
        """Base offset of a marker → the batches of the transaction that it ended."""

    def add(self, batch: BatchInfo, now_us: int) -> None:
        if batch.attributes & CONTROL_FLAG:
            self._ended[batch.base] = self._open.pop(batch.producer_id, [])
            return
        if batch.attributes & TRANSACTIONAL_FLAG:
            self._open.setdefault(batch.producer_id, []).append(batch)
        for offset, key, value in rows_of(batch.data):
            row = self._rows[offset] = Row(offset, key, value, batch.base, now_us)
            self._by_key.setdefault(key, []).append(row)

    def rows(self, start: int, end: int) -> Iterator[Row]:
        """Everything that was committed in a range of offsets."""
        return (self._rows[offset] for offset in range(start, end) if offset in self._rows)

    def keys(self) -> Iterable[bytes]:
        return self._by_key

    def last_of(self, key: bytes, below: int) -> Row | None:
        """The newest that counts, below the last stable offset."""
        for row in reversed(self._by_key[key]):
            if row.offset < below and self._transactions.outcome.get(row.base, True) is True:
                return row
        return None

    # -- what is missing -----------------------------------------------------------------------------------------

    def why_missing(self, row: Row, stable_end: int, now_us: int) -> str | None:
        """What explains that a log does not hold this record; None if nothing does."""
        if self._transactions.outcome.get(row.base, True) is False:
            return "aborted"
        last = self.last_of(row.key, stable_end)
        if last is not None and last.offset > row.offset:
            return "superseded"
        passed_us = now_us - row.seen_us + int(now_us * CLOCKS_DIFFER)
        if row.value is None and passed_us >= self._retention_ms * 1_000:
            return "tombstone"
        return None

    def check_missing(self, rows: Iterable[Row], stable_end: int, now_us: int, where: str) -> list[Row]:
        """Each of them is explained; tombstones that have gone, which nothing supersedes."""
        tombstones = []
        for row in rows:
            why = self.why_missing(row, stable_end, now_us)
            if why is None:
                last = self.last_of(row.key, stable_end)
                raise InvariantViolation(
                    f"C1: {where} lacks {_tell(row)} of {self._name}, although the last below {stable_end} is "
                    f"{_tell(last)}"
                )
            if why == "tombstone":
                tombstones.append(row)
        return tombstones

    def check_batch(self, batch: BatchInfo, original: BatchInfo, where: str) -> list[Row]:
        """What is left of a batch is what was committed; the records that are missing."""
        if not _is_of(batch, original):
            raise InvariantViolation(
                f"C2: {where} holds {_short(batch)} of {self._name}, where {_short(original)} is committed"
            )
        if batch.crc == original.crc or batch.attributes & CONTROL_FLAG:
            return []
        held = {}
        for offset, key, value in rows_of(batch.data):
            row = self._rows.get(offset)
            if row is None or (row.key, row.value) != (key, value):
                raise InvariantViolation(
                    f"C2: {where} holds {key!r} = {value!r} at {offset} of {self._name}; committed is {_tell(row)}"
                )
            held[offset] = row
        return [row for row in self.rows(original.base, original.end) if row.offset not in held]

    def check_marker_gone(self, marker: BatchInfo, held: Iterable[BatchInfo | None], where: str) -> None:
        """A marker goes after everything that it ended. `held`: what a log has of that."""
        for batch in held:
            if batch is not None and batch.records:
                raise InvariantViolation(
                    f"C3: {where} has lost the marker at {marker.base} of {self._name} and still has records of its "
                    f"transaction at {batch.base}"
                )

    def ended_by(self, marker: BatchInfo) -> list[BatchInfo]:
        return self._ended.get(marker.base, [])

    def check_view(self, view: dict[bytes, bytes | None], start: int, stable_end: int, who: str) -> int:
        """What somebody has read from the start to the end; how many keys there were."""
        for key in self.keys():
            last = self.last_of(key, stable_end)
            if last is None or last.offset < start:
                continue
            found = view.get(key)
            if found != last.value:
                raise InvariantViolation(
                    f"C4: {who} ends with {key!r} = {found!r} of {self._name}; committed is {_tell(last)}"
                )
        return len(self._by_key)

    def older_left(self, tombstone: Row, log: Mirror) -> Row | None:
        """A value that a log still has of a key whose tombstone it has lost: it would come back."""
        for row in self._by_key[tombstone.key]:
            if row.offset >= tombstone.offset:
                break
            batch = log.at(row.base)
            if batch is None or self._transactions.outcome.get(row.base, True) is not True:
                continue
            if any(offset == row.offset for offset, *_ in rows_of(batch.data)):
                return row
        return None


def check_log(model: PartitionModel, log: Mirror, end: int, where: str) -> int:
    """The log of one replica against everything that is committed below `end`; how many tombstones it has lost.

    Only what was not looked at before: a log that has got other segments is looked at anew.
    """
    records = model.records
    assert records is not None
    start = max(log.checked_below, log.log.log_start_offset)
    stable_end, now_us = model.stable_end, model.now_us()
    for batch in log.batches[bisect_left(log.bases, start) :]:
        if batch.base >= end:
            break
        original = model.at(batch.base)
        if original is None:
            raise InvariantViolation(
                f"C2: {where} holds {_short(batch)} of {model.name}, which nobody has committed"
            )
    gone: list[Row] = []
    for original in model.batches[bisect_left(model.bases, start) :]:
        if original.base >= end:
            break
        held = log.at(original.base)
        missing = [] if held is None else records.check_batch(held, original, where)
        if (held is None or held.records == 0) and original.attributes & CONTROL_FLAG:
            records.check_marker_gone(
                original, [log.at(each.base) for each in records.ended_by(original)], where
            )
        elif held is None:
            missing = list(records.rows(original.base, original.end))
        gone += records.check_missing(missing, stable_end, now_us, where)
    for tombstone in gone:
        left = records.older_left(tombstone, log)
        if left is not None and left.offset >= log.log.log_start_offset:
            raise InvariantViolation(
                f"C5: {where} has lost the tombstone {_tell(tombstone)} of {model.name}, not {_tell(left)}"
            )
    log.checked_below = max(log.checked_below, end)
    return len(gone)


def check_read(model: PartitionModel, start: int, batch: BatchInfo, where: str) -> None:
    """Somebody who has read up to `start` is given this batch next."""
    records, original = model.records, model.at(batch.base)
    assert records is not None
    if original is None:
        raise InvariantViolation(
            f"C2: {where} is {_short(batch)} of {model.name}, which nobody has committed"
        )
    missing = [*records.rows(start, batch.base), *records.check_batch(batch, original, where)]
    records.check_missing(
        (row for row in missing if row.offset >= start), model.stable_end, model.now_us(), where
    )


def rows_of(batch: bytes) -> Iterator[tuple[int, bytes, bytes | None]]:
    """(offset, key, value) of each record."""
    for record in read_records(batch, limit=_BYTES_MAX):
        yield record.offset, record.key or b"", record.value


def _is_of(batch: BatchInfo, original: BatchInfo) -> bool:
    """Offsets, leader epoch, producer and sequence stay when records go."""
    flags = ~DELETE_HORIZON_FLAG
    return (
        (batch.base, batch.end, batch.epoch) == (original.base, original.end, original.epoch)
        and (batch.producer_id, batch.producer_epoch) == (original.producer_id, original.producer_epoch)
        and batch.sequence == original.sequence
        and (batch.records == 0 or batch.commits == original.commits)
        and batch.attributes & flags == original.attributes & flags
    )


def _tell(row: Row | None) -> str:
    return "nothing" if row is None else f"{row.key!r} = {row.value!r} at {row.offset}"


def _short(batch: BatchInfo) -> str:
    return (
        f"[{batch.base}, {batch.end}) epoch {batch.epoch} producer {batch.producer_id}/{batch.producer_epoch} sequence "
        f"{batch.sequence} attributes {batch.attributes} records {batch.records} commits {batch.commits}"
    )
