"""Producer state of a log: what makes a retry a duplicate and not a second copy (KIP-98, KIP-360).

State is a pure function of the log's prefix: `replay` of every batch rebuilds it, a `.snapshot` file is a shortcut.
Kafka's keeps the last batch of each producer; ours keeps the four before it too, behind what Kafka reads, so that a
retry is recognised as well after a restart as before. Checks are for what a client sends to a leader; replicated and
recovered batches were checked once and are only replayed.
"""

from __future__ import annotations

from bisect import bisect_left
from operator import itemgetter
from struct import Struct
from struct import error as struct_error

from crc32c import crc32c

from odradek.ports.disk import Buffer
from odradek.storage.batch import SEQUENCE_MAX
from odradek.storage.txn_index import AbortedTxn
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.records import (
    CODEC_MASK,
    CONTROL_FLAG,
    HEADER_SIZE,
    TRANSACTIONAL_FLAG,
    BatchHeader,
    ControlType,
    EndTxnMarker,
    parse_end_txn_marker,
    read_records,
)

BATCHES_RETAINED = 5
_SNAPSHOT_VERSION = 1
_SNAPSHOT_HEAD = Struct(">hII")
_SNAPSHOT_ENTRY = Struct(">qhiqiqiq")
_CRC_FROM = 6
_OLDER_MAGIC = b"older"
_OLDER_HEAD = Struct(">5sI")
_OLDER_BATCH = Struct(">qiiqqq")
"""Producer id and a `Batch`."""
_ENDED_MAGIC = b"ended"
_ENDED = Struct(">qq")
_ABORTED_MAGIC = b"abort"
_ABORTED = Struct(">q")
_MARKER = Struct(">5shhBhiB").unpack_from
"""Behind the header: what comes before the key, its version and type; the value's length, version, coordinator epoch;
the number of headers.
"""
_MARKER_SIZE = HEADER_SIZE + 17
_MARKER_FRAME = (b"\x20\0\0\0\x08", 0, 12, 0, 0)
"""16 bytes, no attributes nor deltas, a key of 4 bytes of version 0; a value of 6 bytes of version 0; no headers."""
_MARKER_BYTES_MAX = 4096
"""Bound on the records of a batch that ends a transaction, decompressed."""

Batch = tuple[int, int, int, int, int]
"""(first sequence, last sequence, first offset, last offset, max timestamp) of a batch written."""


_marker_offset = itemgetter(1)


class SnapshotError(ValueError):
    """A producer snapshot is damaged; an older one and a replay take its place."""


class ProducerEntry:
    """What is known of one producer id. `next_sequence` is -1 when any sequence is in order."""

    __slots__ = ("batches", "coordinator_epoch", "epoch", "last_timestamp", "next_sequence", "producer_id",
                 "transaction_start")  # fmt: skip

    def __init__(self, producer_id: int, epoch: int = -1) -> None:
        self.producer_id = producer_id
        self.epoch = epoch
        self.coordinator_epoch = -1
        self.last_timestamp = -1
        self.transaction_start = -1
        """First offset of the transaction under way, or -1."""
        self.batches: list[Batch] = []
        self.next_sequence = -1

    def copy(self) -> ProducerEntry:
        other = ProducerEntry(self.producer_id, self.epoch)
        other.coordinator_epoch = self.coordinator_epoch
        other.last_timestamp = self.last_timestamp
        other.transaction_start = self.transaction_start
        other.batches = self.batches.copy()
        other.next_sequence = self.next_sequence
        return other

    @property
    def last_sequence(self) -> int:
        return self.batches[-1][1] if self.batches else -1

    @property
    def last_offset(self) -> int:
        return self.batches[-1][3] if self.batches else -1

    def duplicate_of(self, header: BatchHeader) -> Batch | None:
        """The retained batch with exactly the same epoch and sequences."""
        if header.producer_epoch == self.epoch:
            last = header.last_sequence
            for batch in self.batches:
                if batch[0] == header.base_sequence and batch[1] == last:
                    return batch
        return None

    def add(self, epoch: int, first: int, last: int, offset: int, last_offset: int, timestamp: int) -> None:
        """A data batch was written. Keeps the last five of this epoch."""
        if epoch != self.epoch:
            self.epoch = epoch
            self.batches.clear()
        elif len(self.batches) >= BATCHES_RETAINED:
            del self.batches[0]
        self.batches.append((first, last, offset, last_offset, timestamp))
        self.next_sequence = (last + 1) & SEQUENCE_MAX
        self.last_timestamp = timestamp

    def check(self, header: BatchHeader, where: str, *, sequences: bool = True) -> None:
        """Kafka's rules for a data batch that is not replicated. Offset commits of the coordinator carry no sequences.

        KafkaError INVALID_PRODUCER_EPOCH, OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_TXN_STATE.
        """
        epoch, sequence = header.producer_epoch, header.base_sequence
        if epoch < self.epoch:
            raise self._stale(epoch, where, 0)
        if epoch != self.epoch:
            in_order = sequence == 0 or self.epoch == -1
        else:
            in_order = sequence == (self.next_sequence if self.batches else 0)
        if sequences and not in_order:
            expected = 0 if epoch != self.epoch else self.next_sequence if self.batches else 0
            raise KafkaError(
                ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
                f"Out of order sequence number for producer {self.producer_id} {where}: {sequence} (incoming seq. "
                f"number), {expected} (expected)",
            )
        if self.transaction_start >= 0 and not header.is_transactional:
            raise KafkaError(
                ErrorCode.INVALID_TXN_STATE,
                f"Expected transactional write from producer {self.producer_id} {where}",
            )

    def check_marker(
        self, header: BatchHeader, coordinator_epoch: int, where: str, transaction_version: int = 0
    ) -> None:
        """Kafka's rules for an end-of-transaction marker that is not replicated.

        From transaction version 2 on a marker has a higher epoch than the transaction that it ends, so that a late one
        of an earlier transaction ends none (KIP-890). The same once more, with nothing left to end, changes nothing.
        """
        epoch = header.producer_epoch
        repeated = epoch == self.epoch and self.transaction_start < 0
        if epoch < self.epoch or (transaction_version >= 2 and epoch == self.epoch and not repeated):
            raise self._stale(epoch, where, transaction_version)
        if coordinator_epoch < self.coordinator_epoch:
            raise KafkaError(
                ErrorCode.TRANSACTION_COORDINATOR_FENCED,
                f"Invalid coordinator epoch for producer {self.producer_id} {where}: {coordinator_epoch} (zombie), "
                f"{self.coordinator_epoch} (current)",
            )

    def _stale(self, epoch: int, where: str, transaction_version: int) -> KafkaError:
        rule = "<=" if transaction_version >= 2 else "<"
        return KafkaError(
            ErrorCode.INVALID_PRODUCER_EPOCH,
            f"Epoch of producer {self.producer_id} {where} is {epoch}, which is {rule} the last seen epoch "
            f"{self.epoch} (TV{transaction_version})",
        )


class Verification:
    """The question under way whether the transaction of a producer is open. See `ProducerStates.verifying`."""

    __slots__ = ("lowest_sequence", "was_seen")

    def __init__(self, sequence: int) -> None:
        self.lowest_sequence = sequence
        """Of the batches that wait for the answer: the first one to be taken."""
        self.was_seen = False
        """By `expire`: what it sees twice nobody waits for any more."""


class ProducerStates:
    """All producers of a log, its transactions under way, and those completed but not yet replicated."""

    __slots__ = ("aborted", "completed", "entries", "ongoing", "verifying")

    def __init__(self) -> None:
        self.aborted = 0
        """How many transactions were aborted: between two snapshots, whether the segment needs a transaction index."""
        self.entries: dict[int, ProducerEntry] = {}
        self.ongoing: dict[int, int] = {}
        """Producer id → first offset of its transaction, in the order of these offsets."""
        self.completed: list[tuple[int, int]] = []
        """(first offset, marker offset) of ended transactions, in the order of the markers: all whose marker may lie
        above the high watermark, which after a restart is an older one (`forget_completed`).
        """
        self.verifying: dict[int, Verification] = {}
        """Producer id → the question under way whether its transaction is known to its coordinator (KIP-890). A marker
        takes it away: what the answer was about is over then.
        """

    def clear(self) -> None:
        self.aborted = 0
        self.entries.clear()
        self.ongoing.clear()
        self.completed.clear()
        self.verifying.clear()

    def replay(self, header: BatchHeader, base_offset: int, batch: Buffer) -> AbortedTxn | None:
        """Apply a batch that is in the log. What belongs into the transaction index, if it aborted a transaction."""
        producer_id = header.producer_id
        if producer_id < 0:
            return None
        entry = self.entries.get(producer_id)
        if entry is None:
            entry = self.entries[producer_id] = ProducerEntry(producer_id)
        if header.attributes & CONTROL_FLAG:
            return self._end(entry, header, base_offset, batch)
        last = base_offset + header.last_offset_delta
        entry.add(header.producer_epoch, header.base_sequence, header.last_sequence, base_offset, last,
                  header.max_timestamp)  # fmt: skip
        if header.attributes & TRANSACTIONAL_FLAG and entry.transaction_start < 0:
            self.begin_transaction(entry, base_offset)
        return None

    def begin_transaction(self, entry: ProducerEntry, offset: int) -> None:
        """The producer's first batch of a transaction is at `offset`."""
        entry.transaction_start = offset
        self.ongoing[entry.producer_id] = offset
        self.verifying.pop(entry.producer_id, None)

    def _end(
        self, entry: ProducerEntry, header: BatchHeader, offset: int, batch: Buffer
    ) -> AbortedTxn | None:
        marker = end_transaction_marker(header, batch)
        if marker is None:
            return None
        if header.producer_epoch != entry.epoch:
            entry.epoch = header.producer_epoch
            entry.batches.clear()
            entry.next_sequence = -1
        entry.coordinator_epoch = marker.coordinator_epoch
        entry.last_timestamp = header.max_timestamp
        start, entry.transaction_start = entry.transaction_start, -1
        self.ongoing.pop(entry.producer_id, None)
        self.verifying.pop(entry.producer_id, None)
        if start < 0:
            return None
        self.completed.append((start, offset))
        if marker.commit:
            return None
        self.aborted += 1
        return AbortedTxn(entry.producer_id, start, offset, next(iter(self.ongoing.values()), offset + 1))

    def first_unstable_offset(self, high_watermark: int) -> int | None:
        """The earliest transactional offset whose outcome is unknown, or known only above the high watermark."""
        first = next(iter(self.ongoing.values()), None)
        completed = self.completed
        for begun, _ in completed[bisect_left(completed, high_watermark, key=_marker_offset) :]:
            if first is None or begun < first:
                first = begun
        return first

    def oldest_transaction_write(self) -> int:
        """When the transaction under way that was silent for longest was last written to, ms since 1970."""
        return min(self.entries[producer_id].last_timestamp for producer_id in self.ongoing)

    def forget_completed(self, high_watermark: int) -> None:
        """A high watermark was noted that this replica will not go back behind, restarts included."""
        del self.completed[: bisect_left(self.completed, high_watermark, key=_marker_offset)]

    def begin_verification(self, producer_id: int, sequence: int) -> Verification:
        """A batch waits for the answer. It may be taken as long as this very object is in `verifying`."""
        known = self.verifying.get(producer_id)
        if known is None:
            known = self.verifying[producer_id] = Verification(sequence)
        elif sequence < known.lowest_sequence:
            known.lowest_sequence = sequence
        return known

    def expire(self, wall_ms: int, expiration_ms: int) -> None:
        """Forget producers that wrote nothing for `producer.id.expiration.ms`, unless in a transaction."""
        idle = [
            producer_id
            for producer_id, entry in self.entries.items()
            if entry.transaction_start < 0 and wall_ms - entry.last_timestamp >= expiration_ms
        ]
        for producer_id in idle:
            del self.entries[producer_id]
        for producer_id in [key for key, each in self.verifying.items() if each.was_seen]:
            del self.verifying[producer_id]
        for verification in self.verifying.values():
            verification.was_seen = True

    def encode_snapshot(self) -> bytes:
        """Kafka's producer snapshot, version 1, and behind its entries the retained batches before each last one."""
        body = [
            _SNAPSHOT_ENTRY.pack(
                entry.producer_id,
                entry.epoch,
                entry.last_sequence,
                entry.last_offset,
                (entry.batches[-1][3] - entry.batches[-1][2]) if entry.batches else 0,
                entry.last_timestamp,
                entry.coordinator_epoch,
                entry.transaction_start,
            )
            for entry in self.entries.values()
        ]
        older = [
            _OLDER_BATCH.pack(entry.producer_id, *batch)
            for entry in self.entries.values()
            for batch in entry.batches[:-1]
        ]
        data = bytearray(_SNAPSHOT_HEAD.pack(_SNAPSHOT_VERSION, 0, len(body)) + b"".join(body))
        if older:
            data += _OLDER_HEAD.pack(_OLDER_MAGIC, len(older)) + b"".join(older)
        if self.completed:
            data += _OLDER_HEAD.pack(_ENDED_MAGIC, len(self.completed))
            data += b"".join(_ENDED.pack(*pair) for pair in self.completed)
        if self.aborted:
            data += _OLDER_HEAD.pack(_ABORTED_MAGIC, 1) + _ABORTED.pack(self.aborted)
        data[2:6] = crc32c(memoryview(data)[_CRC_FROM:]).to_bytes(4, "big")
        return bytes(data)

    def load_snapshot(self, data: bytes) -> None:
        """Replace everything by what a snapshot says. SnapshotError leaves the state as it was."""
        try:
            version, crc, count = _SNAPSHOT_HEAD.unpack_from(data)
        except struct_error:
            raise SnapshotError(f"{len(data)} bytes") from None
        if version != _SNAPSHOT_VERSION:
            raise SnapshotError(f"version {version}")
        if crc32c(memoryview(data)[_CRC_FROM:]) != crc:
            raise SnapshotError("the CRC does not match")
        end = _SNAPSHOT_HEAD.size + count * _SNAPSHOT_ENTRY.size
        if len(data) < end:
            raise SnapshotError(f"{count} entries in {len(data)} bytes")
        after, older = _older_batches(data, end)
        after, completed = _ended(data, after)
        aborted = _aborted(data, after)
        self.clear()
        self.aborted = aborted
        self.completed = completed
        for fields in _SNAPSHOT_ENTRY.iter_unpack(data[_SNAPSHOT_HEAD.size : end]):
            producer_id, epoch, sequence, offset, delta, timestamp, coordinator_epoch, start = fields
            entry = ProducerEntry(producer_id, epoch)
            entry.coordinator_epoch = coordinator_epoch
            entry.last_timestamp = timestamp
            entry.transaction_start = start
            if offset >= 0:
                first = (sequence - delta) & SEQUENCE_MAX
                entry.batches = older.get(producer_id, [])
                entry.batches.append((first, sequence, offset - delta, offset, timestamp))
                entry.next_sequence = (sequence + 1) & SEQUENCE_MAX
            self.entries[producer_id] = entry
        begun = [entry for entry in self.entries.values() if entry.transaction_start >= 0]
        for entry in sorted(begun, key=lambda each: each.transaction_start):
            self.ongoing[entry.producer_id] = entry.transaction_start


def _older_batches(data: bytes, at: int) -> tuple[int, dict[int, list[Batch]]]:
    """(where they end, by producer id) what `encode_snapshot` wrote behind Kafka's entries; Kafka's end there."""
    found: dict[int, list[Batch]] = {}
    end = _section(data, at, _OLDER_MAGIC, _OLDER_BATCH)
    for producer_id, *batch in _OLDER_BATCH.iter_unpack(data[at + _OLDER_HEAD.size : end]):
        found.setdefault(producer_id, []).append((batch[0], batch[1], batch[2], batch[3], batch[4]))
    return end, found


def _ended(data: bytes, at: int) -> tuple[int, list[tuple[int, int]]]:
    """(where they end, they) the ended transactions behind that."""
    end = _section(data, at, _ENDED_MAGIC, _ENDED)
    return end, [(first, marker) for first, marker in _ENDED.iter_unpack(data[at + _OLDER_HEAD.size : end])]


def _aborted(data: bytes, at: int) -> int:
    """How many transactions were aborted, behind that, to the end of the snapshot; 0 where it does not say."""
    end = _section(data, at, _ABORTED_MAGIC, _ABORTED)
    if end != len(data):
        raise SnapshotError(f"{len(data) - end} bytes behind everything")
    return sum(count for (count,) in _ABORTED.iter_unpack(data[at + _OLDER_HEAD.size : end]))


def _section(data: bytes, at: int, magic: bytes, entry: Struct) -> int:
    """Where the section that begins at `at` ends; there, if it is another one or none."""
    if len(data) - at < _OLDER_HEAD.size or data[at : at + len(magic)] != magic:
        return at
    _, count = _OLDER_HEAD.unpack_from(data, at)
    end: int = at + _OLDER_HEAD.size + count * entry.size
    if end > len(data):
        raise SnapshotError(f"{count} entries of {magic!r} in {len(data) - at} bytes")
    return end


def end_transaction_marker(header: BatchHeader, batch: Buffer) -> EndTxnMarker | None:
    """What a control batch ends; None for other control records."""
    if header.count == 1 and not header.attributes & CODEC_MASK and len(batch) == _MARKER_SIZE:
        # As we and Kafka write it: read at once, in a tenth of the time.
        head, key_version, kind, between, value_version, epoch, end = _MARKER(batch, HEADER_SIZE)
        if (head, key_version, between, value_version, end) == _MARKER_FRAME and kind in (0, 1):
            return EndTxnMarker(kind == ControlType.COMMIT, epoch)
    try:
        (record,) = read_records(batch, header, limit=_MARKER_BYTES_MAX)
        return parse_end_txn_marker(record)
    except (KafkaError, ValueError):
        return None
