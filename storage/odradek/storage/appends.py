"""Appending to a log: validate, assign offsets in place, stage; one gathered write per readable event.

`append_as_leader` is the hottest function of the product and breaks the rules on size in return: a single batch of
default rules takes one flat path through it, 1.1 µs at 1 KB and 1.5 µs if idempotent or in a transaction (CPython 3.11,
of which CRC-32C 0.15 µs); everything else goes to `_append_checked`, 4 to 5 µs. `write_staged` adds 0.4 µs a batch
when it gathers 64.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from crc32c import crc32c

from odradek.storage.batch import ASSIGN, CODEC_MAX, CRC_FIELD, CRC_START, SEQUENCE_MAX
from odradek.storage.config import LOG_APPEND_TIME, LogConfig
from odradek.storage.conversion import convert, must_open
from odradek.storage.producers import ProducerEntry, end_transaction_marker
from odradek.storage.reads import LogReads
from odradek.storage.segment import NEVER, RELATIVE_OFFSET_MAX, Segment
from odradek.storage.state import NO_LIMIT
from odradek.storage.validation import Parsed, check_batch, split_batches
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.record_body import RECORD_SIZE_MIN
from odradek.wire.records import (
    ATTRIBUTES_AT,
    CRC_AT,
    HEADER,
    HEADER_SIZE,
    LOG_APPEND_TIME_FLAG,
    LOG_OVERHEAD,
    MAX_TIMESTAMP_AT,
    TRANSACTIONAL_FLAG,
    BatchHeader,
)

_unpack = HEADER.unpack_from
_assign = ASSIGN.pack_into


class AppendResult:
    """Where the batches went. `duplicate`: nowhere, they are there since an earlier try (of the same sequences)."""

    __slots__ = ("base_offset", "batch_count", "duplicate", "last_offset", "log_append_time")

    def __init__(
        self, base_offset: int, last_offset: int, log_append_time: int = -1, duplicate: bool = False,
        batch_count: int = 1,
    ) -> None:  # fmt: skip
        self.base_offset = base_offset
        self.last_offset = last_offset
        self.log_append_time = log_append_time
        """ms if the topic stamps records itself, else -1."""
        self.duplicate = duplicate
        self.batch_count = batch_count

    def __repr__(self) -> str:
        return f"AppendResult([{self.base_offset}, {self.last_offset}], duplicate={self.duplicate})"


class LogAppends(LogReads):
    """The appending half of a log."""

    __slots__ = ()

    def append_as_leader(
        self, batches: memoryview, leader_epoch: int, wall_ms: int, *, allow_control: bool = False,
        trusted: bool = False, transaction_version: int = 0, transactional: bool = False,
    ) -> AppendResult:  # fmt: skip
        """Take one or more whole batches: assign offsets and leader epoch in place, stage them for `write_staged`.

        `batches` must be writable and stay untouched until `write_staged`. `allow_control`: the caller is the
        broker itself (markers, Raft control records, offset commits without sequences). `trusted`: its records
        are known to have keys, and not to be compressed. `transaction_version`: of a marker (KIP-890).
        `transactional`: a client's batch may be part of a transaction, which is known to be open. KafkaError: nothing
        of it was staged.
        """
        size = len(batches)
        if HEADER_SIZE < size <= (self._fast_limit_own if trusted else self._fast_limit):
            (_, length, _, magic, crc, attributes, delta, _, timestamp, producer_id, producer_epoch, sequence,
             count) = _unpack(batches)  # fmt: skip
            if (
                magic == 2
                and length + LOG_OVERHEAD == size
                and 0
                <= (codec := attributes & ~TRANSACTIONAL_FLAG if transactional else attributes)
                <= CODEC_MAX
                and 0 < count == delta + 1
                and (codec or count * RECORD_SIZE_MIN <= size - HEADER_SIZE)
                and leader_epoch == self.epochs.latest
                and timestamp <= wall_ms + self._after_ms
                and crc32c(batches[CRC_START:]) == crc
            ):
                entry: ProducerEntry | None = None
                if producer_id >= 0:
                    entry = self.producers.entries.get(producer_id)
                    if (
                        entry is None
                        or (entry.next_sequence != sequence and (sequence or entry.batches))
                        or entry.epoch != producer_epoch
                        or sequence < 0
                        or producer_epoch < 0
                        or (entry.transaction_start >= 0 and codec == attributes)
                    ):
                        return self._append_checked(
                            batches, leader_epoch, wall_ms, allow_control, trusted, 0, transactional
                        )
                elif codec != attributes:
                    return self._append_checked(
                        batches, leader_epoch, wall_ms, allow_control, trusted, 0, transactional
                    )
                segment = self._segments[-1]
                base = self.log_end_offset
                last = base + delta
                position = segment.size
                if (
                    position + size <= self.config.segment_bytes
                    and timestamp <= segment.roll_after_timestamp
                    and last <= segment.offset_max
                ):
                    _assign(batches, 0, base, length, leader_epoch)
                    self._staged.append(batches)
                    if timestamp > segment.max_timestamp:
                        segment.max_timestamp = timestamp
                        segment.max_timestamp_offset = last
                    since = segment.since_index
                    if since > self._interval:
                        segment.add_index_entry(last, position)
                        since = 0
                        if segment.index_is_full(self.config.segment_index_bytes):
                            segment.roll_after_timestamp = (
                                NEVER  # the next batch goes the complete way, and rolls
                            )
                    segment.since_index = since + size
                    segment.size = position + size
                    self.size_bytes += size
                    self.log_end_offset = last + 1
                    if entry is not None:
                        entry.add(
                            producer_epoch, sequence, (sequence + delta) & SEQUENCE_MAX, base, last, timestamp
                        )
                        if codec != attributes and entry.transaction_start < 0:
                            self.producers.begin_transaction(entry, base)
                    return AppendResult(base, last)
        return self._append_checked(
            batches, leader_epoch, wall_ms, allow_control, trusted, transaction_version, transactional
        )

    def _append_checked(
        self, batches: memoryview, leader_epoch: int, wall_ms: int, allow_control: bool, trusted: bool,
        transaction_version: int, transactional: bool,
    ) -> AppendResult:  # fmt: skip
        """The same for everything: several batches, transactions, LogAppendTime, refusals, a segment to roll."""
        self._check_writable()
        if leader_epoch < self.epochs.latest:
            raise KafkaError(
                ErrorCode.FENCED_LEADER_EPOCH,
                f"Leader epoch {leader_epoch} is older than {self.epochs.latest}.",
            )
        parsed = split_batches(batches)
        where = f"{self.topic}-{self.partition}"
        for header, batch in parsed:
            check_batch(header, batch, self.config, wall_ms, where, allow_control=allow_control)
            if header.is_transactional and not (transactional or allow_control):
                raise KafkaError(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
        duplicate = self._check_producers(parsed, allow_control, transaction_version)
        if duplicate is not None:
            return duplicate
        for at, (header, batch) in enumerate(parsed):
            if must_open(header, self.config, keyed=trusted):
                parsed[at] = convert(header, batch, self.config, wall_ms, where, keyed=trusted)
        stamp = wall_ms if self.config.timestamp_type == LOG_APPEND_TIME else -1
        first = self.log_end_offset
        try:
            self._ready()
            if leader_epoch > self.epochs.latest and leader_epoch >= 0:
                self.epochs.assign(leader_epoch, first)
            for header, batch in parsed:
                if stamp >= 0:
                    header = _stamp(header, batch, stamp)
                _assign(batch, 0, self.log_end_offset, header.length, leader_epoch)
                self._stage(header._replace(base_offset=self.log_end_offset), batch, wall_ms)
        except OSError as error:
            self.fail(error)
            raise self._storage_error(error) from error
        return AppendResult(first, self.log_end_offset - 1, stamp, False, len(parsed))

    def append_as_follower(self, batches: memoryview, wall_ms: int = 0) -> int:
        """Take batches whose offsets and epochs a leader has assigned; the new log end offset minus one.

        They must continue this log (gaps of a compacted leader are fine). KafkaError CORRUPT_MESSAGE,
        KAFKA_STORAGE_ERROR; nothing of it was staged.
        """
        self._check_writable()
        parsed = split_batches(batches)
        expected = self.log_end_offset
        for header, _ in parsed:
            if header.base_offset < expected or header.last_offset_delta < 0:
                raise KafkaError(
                    ErrorCode.CORRUPT_MESSAGE,
                    f"Batch [{header.base_offset}, {header.last_offset}] does not follow a log end of {expected}",
                )
            expected = header.last_offset + 1
        try:
            self._ready()
            for header, batch in parsed:
                if header.leader_epoch > self.epochs.latest:
                    # Not durable: the batch itself names the epoch, and recovery reads it from there.
                    self.epochs.assign(header.leader_epoch, header.base_offset, durable=False)
                self._stage(header, batch, wall_ms)
        except OSError as error:
            self.fail(error)
            raise self._storage_error(error) from error
        return self.log_end_offset - 1

    def write_staged(self) -> None:
        """Hand everything staged to the kernel in one gathered write; from here on readers see it.

        To be called before the staged buffers are reused. OSError: the log is offline, nothing of it was acknowledged.
        """
        staged = self._staged
        if not staged:
            if self.offline and self.log_end_offset != self.written_end_offset:
                raise OSError(errno.EIO, "the log is offline", self.dir)
            return
        segment = self._segments[-1]
        try:
            file = segment.file or self._pool.open(segment)
            file.append(staged)
        except OSError as error:
            self.fail(error)
            raise
        staged.clear()
        segment.used = segment.dirty = True
        segment.written = segment.size
        self.written_end_offset = self.log_end_offset

    def set_config(self, config: LogConfig) -> None:
        super().set_config(config)
        if self._segments:
            segment = self._segments[-1]
            if segment.first_timestamp is not None and segment.roll_after_timestamp != NEVER:
                self._set_roll_time(segment, segment.first_timestamp)

    # Parts ------------------------------------------------------------------------------------------------------

    def _check_writable(self) -> None:
        if self.offline:
            raise KafkaError(
                ErrorCode.KAFKA_STORAGE_ERROR,
                f"The log directory of {self.topic}-{self.partition} is offline.",
            )
        if self.readable_end != NO_LIMIT:
            raise KafkaError(
                ErrorCode.KAFKA_STORAGE_ERROR,
                f"The log of {self.topic}-{self.partition} is damaged at offset {self.readable_end} and takes no more.",
            )

    def _check_producers(
        self, parsed: Sequence[Parsed], allow_control: bool, transaction_version: int
    ) -> AppendResult | None:
        """Idempotence and fencing for the whole set, on copies; a result if it is a duplicate."""
        updated: dict[int, ProducerEntry] = {}
        offset = self.log_end_offset
        for header, batch in parsed:
            producer_id = header.producer_id
            if producer_id >= 0:
                entry = updated.get(producer_id)
                if entry is None:
                    known = self.producers.entries.get(producer_id)
                    if known is not None and not header.is_control and header.base_sequence >= 0:
                        written = known.duplicate_of(header)
                        if written is not None:
                            stamped = self.config.timestamp_type == LOG_APPEND_TIME
                            return AppendResult(written[2], written[3], written[4] if stamped else -1, True)
                    entry = known.copy() if known is not None else ProducerEntry(producer_id)
                    updated[producer_id] = entry
                where = f"at offset {offset} in partition {self.topic}-{self.partition}"
                if header.is_control:
                    if (marker := end_transaction_marker(header, batch)) is not None:
                        entry.check_marker(header, marker.coordinator_epoch, where, transaction_version)
                        entry.transaction_start = -1
                else:
                    sequences = header.base_sequence >= 0 or not allow_control
                    entry.check(header, where, sequences=sequences)
                    entry.add(header.producer_epoch, header.base_sequence, header.last_sequence, offset,
                              offset + header.last_offset_delta, header.max_timestamp)  # fmt: skip
                    if header.is_transactional and entry.transaction_start < 0:
                        entry.transaction_start = offset
            offset += header.last_offset_delta + 1
        return None

    def _stage(self, header: BatchHeader, batch: memoryview, wall_ms: int) -> None:
        """Queue one batch at the end, in a new segment if the active one has had enough."""
        size, timestamp = header.size, header.max_timestamp
        last = header.last_offset
        segment = self._segments[-1]
        if self._must_roll(segment, size, last, timestamp, wall_ms):
            self.write_staged()
            # Named by where the log ends, not by the batch: a gap between segments then means that something is lost.
            segment = self.roll(wall_ms, max(self.log_end_offset, last - RELATIVE_OFFSET_MAX))
        if segment.roll_after_timestamp == NEVER:
            first = segment.first_timestamp
            self._set_roll_time(segment, timestamp if first is None or segment.size == 0 else first)
        self._staged.append(batch)
        segment.note_batch(last, timestamp, segment.size, size, self._interval)
        segment.size += size
        self.size_bytes += size
        self.log_end_offset = last + 1
        if header.producer_id >= 0:
            aborted = self.producers.replay(header, header.base_offset, batch)
            if aborted is not None:
                self._note_aborted(segment, aborted)

    def _must_roll(self, segment: Segment, size: int, last_offset: int, timestamp: int, wall_ms: int) -> bool:
        """Kafka's rules: size, time (of records, or of the segment if they have none), full index, offset range."""
        if segment.size == 0:
            return last_offset > segment.offset_max
        config = self.config
        if segment.size + size > config.segment_bytes or last_offset > segment.offset_max:
            return True
        if segment.roll_after_timestamp == NEVER + 1:
            late = wall_ms > segment.created_ms + config.roll_ms
        else:
            late = timestamp > segment.roll_after_timestamp > NEVER
        return late or segment.index_is_full(config.segment_index_bytes)

    def _set_roll_time(self, segment: Segment, first_timestamp: int) -> None:
        """From the first batch of a segment, and again when the configuration changes. Jitter is drawn from the name,
        so that it needs no randomness.
        """
        segment.first_timestamp = first_timestamp
        if first_timestamp < 0:
            segment.roll_after_timestamp = (
                NEVER + 1
            )  # no time to go by: the clock decides, on the complete path
            return
        jitter = min(self.config.segment_jitter_ms, self.config.segment_ms)
        if jitter:
            jitter = crc32c(f"{self.topic}-{self.partition}@{segment.base_offset}".encode()) % jitter
        segment.roll_after_timestamp = min(first_timestamp + self.config.roll_ms - jitter, NO_LIMIT)

    def _ready(self) -> None:
        """Make an active segment that was opened after a clean stop writable."""
        if self._segments[-1].index is None:
            self.activate()

    def activate(self) -> None:
        raise NotImplementedError

    def roll(self, wall_ms: int, base_offset: int | None = None) -> Segment:
        raise NotImplementedError


def _stamp(header: BatchHeader, batch: memoryview, wall_ms: int) -> BatchHeader:
    """LogAppendTime: attributes and largest timestamp rewritten in place, CRC anew."""
    attributes = header.attributes | LOG_APPEND_TIME_FLAG
    batch[ATTRIBUTES_AT : ATTRIBUTES_AT + 2] = attributes.to_bytes(2, "big")
    batch[MAX_TIMESTAMP_AT : MAX_TIMESTAMP_AT + 8] = wall_ms.to_bytes(8, "big", signed=True)
    CRC_FIELD.pack_into(batch, CRC_AT, crc32c(batch[CRC_START:]))
    return header._replace(attributes=attributes, max_timestamp=wall_ms)
