"""Record batches of format v2 (KIP-98): header, checksum, building, reading, control records.

    RecordBatch => baseOffset:int64 batchLength:int32 partitionLeaderEpoch:int32 magic:int8 crc:uint32
                   attributes:int16 lastOffsetDelta:int32 baseTimestamp:int64 maxTimestamp:int64
                   producerId:int64 producerEpoch:int16 baseSequence:int32 recordCount:int32 records

`batchLength` counts from the leader epoch on, the CRC-32C covers everything from the attributes on: base
offset and leader epoch can be set in place without a new checksum. Compression covers the records alone.
Message sets of the formats v0 and v1 are refused, as by Kafka since 4.0.

The produce and fetch paths touch batches by the offsets below and never parse records; `read_records` and
`build_batch` serve the logs that the node writes for itself, and whoever has to open a batch.
"""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from struct import Struct, error
from typing import NamedTuple

from crc32c import crc32c

from odradek.wire.compression import Codec, compress, decompress
from odradek.wire.errors import ErrorCode, KafkaError, MalformedMessage
from odradek.wire.record_body import Header, Record, append_record, parse_records

__all__ = [
    "BatchHeader",
    "Codec",
    "ControlType",
    "EndTxnMarker",
    "Header",
    "Record",
    "build_batch",
    "control_batch",
    "control_type",
    "crc_ok",
    "empty_batch",
    "end_txn_marker",
    "increment_sequence",
    "iter_batches",
    "parse_end_txn_marker",
    "parse_header",
    "read_records",
    "seal",
    "simple_batch",
]

MAGIC = 2

BASE_OFFSET_AT = 0
LENGTH_AT = 8
LEADER_EPOCH_AT = 12
MAGIC_AT = 16
CRC_AT = 17
ATTRIBUTES_AT = 21
LAST_OFFSET_DELTA_AT = 23
BASE_TIMESTAMP_AT = 27
MAX_TIMESTAMP_AT = 35
PRODUCER_ID_AT = 43
PRODUCER_EPOCH_AT = 51
BASE_SEQUENCE_AT = 53
COUNT_AT = 57
HEADER_SIZE = 61

LOG_OVERHEAD = 12
"""Base offset and length: the part of a batch that its length does not count. The same in all formats."""
LENGTH_MIN = HEADER_SIZE - LOG_OVERHEAD
"""What the length of a batch is at least."""

HEADER = Struct(">qiibIhiqqqhii")
"""The fields of `BatchHeader`."""

CODEC_MASK = 0x07
LOG_APPEND_TIME_FLAG = 0x08
TRANSACTIONAL_FLAG = 0x10
CONTROL_FLAG = 0x20
DELETE_HORIZON_FLAG = 0x40

NO_TIMESTAMP = -1
NO_PRODUCER_ID = -1
NO_SEQUENCE = -1

_LEGACY_LENGTH_MIN = 14  # of a message of format v0: crc, magic, attributes, key and value length
_SEQUENCE_MODULUS = 1 << 31

_new = tuple.__new__  # half the time of the class's own constructor
_INT32 = Struct(">i")
_UINT32 = Struct(">I")
_CONTROL_KEY = Struct(">hh")
_END_TXN_VALUE = Struct(">hi")

_Buffer = bytes | bytearray | memoryview


class BatchHeader(NamedTuple):
    """The 61 bytes in front of the records of a batch. Timestamps in ms since 1970."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls on a header

    @property
    def size(self) -> int:
        """Bytes of the whole batch."""
        return self.length + LOG_OVERHEAD

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def last_sequence(self) -> int:
        """The sequence of the last record, -1 without sequences."""
        if self.base_sequence < 0:
            return NO_SEQUENCE
        return increment_sequence(self.base_sequence, self.last_offset_delta)

    @property
    def codec(self) -> Codec:
        """KafkaError UNSUPPORTED_COMPRESSION_TYPE when Kafka knows no codec of this number."""
        number = self.attributes & CODEC_MASK
        if number > Codec.ZSTD:
            raise KafkaError(ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, f"unknown compression type {number}")
        return Codec(number)

    @property
    def is_log_append_time(self) -> bool:
        """True when all records have `max_timestamp`, the time at which the broker appended them."""
        return bool(self.attributes & LOG_APPEND_TIME_FLAG)

    @property
    def is_transactional(self) -> bool:
        return bool(self.attributes & TRANSACTIONAL_FLAG)

    @property
    def is_control(self) -> bool:
        return bool(self.attributes & CONTROL_FLAG)

    @property
    def delete_horizon_ms(self) -> int | None:
        """When compaction may drop the tombstones; it takes the base timestamp's place (KIP-534)."""
        return self.base_timestamp if self.attributes & DELETE_HORIZON_FLAG else None


def increment_sequence(sequence: int, increment: int) -> int:
    """Add to a producer's sequence number, which wraps from 2^31 - 1 to 0."""
    return (sequence + increment) % _SEQUENCE_MODULUS


# Reading


def parse_header(buf: _Buffer, pos: int = 0) -> BatchHeader:
    """Read the header of the batch at `pos`.

    MalformedMessage when fewer than 61 bytes are there; KafkaError UNSUPPORTED_FOR_MESSAGE_FORMAT for a
    message of format v0 or v1, CORRUPT_MESSAGE for a magic that never was and for a length shorter than a
    header.
    """
    try:
        header = _new(BatchHeader, HEADER.unpack_from(buf, pos))
    except error:
        _check_magic(buf, pos)
        raise MalformedMessage(f"a batch header has {HEADER_SIZE} bytes, {len(buf) - pos} are left") from None
    if header.magic != MAGIC:
        _check_magic(buf, pos)
    if header.length < LENGTH_MIN:
        raise KafkaError(
            ErrorCode.CORRUPT_MESSAGE, f"a batch of {header.size} bytes is shorter than its header"
        )
    return header


def _check_magic(buf: _Buffer, pos: int) -> None:
    """Magic is at the same place in all formats."""
    if len(buf) - pos <= MAGIC_AT or buf[pos + MAGIC_AT] == MAGIC:
        return
    magic = buf[pos + MAGIC_AT]
    if magic < MAGIC:
        raise KafkaError(
            ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT,
            f"messages of the old format v{magic} are not supported, only record batches of format v2",
        )
    raise KafkaError(ErrorCode.CORRUPT_MESSAGE, f"there is no message format v{magic}")


def iter_batches(buf: _Buffer) -> Iterator[tuple[int, BatchHeader]]:
    """Go through the batches that lie one behind the other in `buf`: (position, header) of each.

    Stops before a batch that is not complete. KafkaError as `parse_header` for bytes that are no batch.
    """
    pos = 0
    end = len(buf)
    while end - pos >= LOG_OVERHEAD:
        (length,) = _INT32.unpack_from(buf, pos + LENGTH_AT)
        if length < _LEGACY_LENGTH_MIN:
            raise KafkaError(
                ErrorCode.CORRUPT_MESSAGE, f"a message of {length} bytes is shorter than its header"
            )
        _check_magic(buf, pos)
        if pos + LOG_OVERHEAD + length > end:
            return
        yield pos, parse_header(buf, pos)
        pos += LOG_OVERHEAD + length


def read_records(batch: _Buffer, header: BatchHeader | None = None, *, limit: int) -> list[Record]:
    """Read the records of the one batch in `batch`, decompressing at most `limit` bytes.

    The checksum is not looked at: see `crc_ok`. KafkaError: CORRUPT_MESSAGE when the batch is cut off or does
    not decompress, MESSAGE_TOO_LARGE over the limit, INVALID_RECORD when the records are not what the header
    says, and what `parse_header` and `BatchHeader.codec` raise.
    """
    if header is None:
        header = parse_header(batch)
    if len(batch) < header.size:
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, f"a batch of {header.size} bytes, {len(batch)} are there")
    if header.count == 0:  # compaction leaves such a batch to keep a producer's last sequence
        return []
    payload = memoryview(batch)[HEADER_SIZE : header.size]
    codec = header.codec
    return parse_records(
        bytes(payload) if codec is Codec.NONE else decompress(codec, payload, limit),
        header.count,
        header.base_offset,
        header.base_timestamp,
        header.max_timestamp if header.is_log_append_time else None,
    )


def crc_ok(batch: _Buffer) -> bool:
    """Say whether the checksum of the one batch in `batch` is right."""
    if len(batch) < HEADER_SIZE:
        return False
    (crc,) = _UINT32.unpack_from(batch, CRC_AT)
    return bool(crc32c(memoryview(batch)[ATTRIBUTES_AT:]) == crc)


# Building


def build_batch(
    records: Sequence[Record],
    *,
    codec: Codec = Codec.NONE,
    level: int | None = None,
    leader_epoch: int = -1,
    producer_id: int = NO_PRODUCER_ID,
    producer_epoch: int = -1,
    base_sequence: int = NO_SEQUENCE,
    transactional: bool = False,
    control: bool = False,
    log_append_time: int | None = None,
    base_offset: int | None = None,
    last_offset: int | None = None,
    delete_horizon_ms: int | None = None,
) -> bytearray:
    """Build a sealed batch of at least one record, in the order given.

    Base and last offset are those of the first and last record unless they are named, as compaction does,
    which keeps the range of a batch that it thins out. With `log_append_time` (ms) the batch carries that
    time for all its records. `delete_horizon_ms`: see `BatchHeader`. ValueError for a level that the codec does not
    have.
    """
    assert records, "a batch has at least one record"
    first = records[0]
    base = first.offset if base_offset is None else base_offset
    last = records[-1].offset if last_offset is None else last_offset
    assert base <= first.offset and records[-1].offset <= last < base + (1 << 31), "records outside the batch"

    batch = bytearray(HEADER_SIZE)
    body = batch if codec is Codec.NONE else bytearray()
    max_timestamp = first.timestamp
    base_timestamp = first.timestamp if delete_horizon_ms is None else delete_horizon_ms
    for record in records:
        if record.timestamp > max_timestamp:
            max_timestamp = record.timestamp
        append_record(
            body,
            record.offset - base,
            record.timestamp - base_timestamp,
            record.key,
            record.value,
            record.headers,
        )
    if codec is not Codec.NONE:
        batch += compress(codec, body, level)

    attributes = codec | (TRANSACTIONAL_FLAG if transactional else 0) | (CONTROL_FLAG if control else 0)
    if log_append_time is not None:
        attributes |= LOG_APPEND_TIME_FLAG
        max_timestamp = log_append_time
    if delete_horizon_ms is not None:
        attributes |= DELETE_HORIZON_FLAG
    HEADER.pack_into(
        batch,
        0,
        base,
        len(batch) - LOG_OVERHEAD,
        leader_epoch,
        MAGIC,
        0,
        attributes,
        last - base,
        base_timestamp,
        max_timestamp,
        producer_id,
        producer_epoch,
        base_sequence,
        len(records),
    )
    seal(batch)
    return batch


def empty_batch(header: BatchHeader) -> bytearray:
    """What compaction leaves of a batch without its records: offsets, times, and the producer's sequence."""
    batch = bytearray(HEADER_SIZE)
    attributes = header.attributes & (LOG_APPEND_TIME_FLAG | TRANSACTIONAL_FLAG | CONTROL_FLAG)
    emptied = header._replace(length=LENGTH_MIN, attributes=attributes, base_timestamp=NO_TIMESTAMP, count=0)
    HEADER.pack_into(batch, 0, *emptied)
    seal(batch)
    return batch


def simple_batch(
    items: Sequence[tuple[bytes | None, bytes | None]],
    *,
    base_offset: int,
    timestamp: int,
    codec: Codec = Codec.NONE,
    leader_epoch: int = -1,
    producer_id: int = NO_PRODUCER_ID,
    producer_epoch: int = -1,
    base_sequence: int = NO_SEQUENCE,
    transactional: bool = False,
    control: bool = False,
) -> bytearray:
    """Build a sealed batch of (key, value) pairs with consecutive offsets and one timestamp (ms)."""
    assert items, "a batch has at least one record"
    batch = bytearray(HEADER_SIZE)
    body = batch if codec is Codec.NONE else bytearray()
    for delta, (key, value) in enumerate(items):
        append_record(body, delta, 0, key, value)
    if codec is not Codec.NONE:
        batch += compress(codec, body)
    HEADER.pack_into(
        batch,
        0,
        base_offset,
        len(batch) - LOG_OVERHEAD,
        leader_epoch,
        MAGIC,
        0,
        codec | (TRANSACTIONAL_FLAG if transactional else 0) | (CONTROL_FLAG if control else 0),
        len(items) - 1,
        timestamp,
        timestamp,
        producer_id,
        producer_epoch,
        base_sequence,
        len(items),
    )
    seal(batch)
    return batch


def seal(batch: bytearray) -> None:
    """Write the checksum anew, after a change behind it: attributes, timestamps, producer or records."""
    _UINT32.pack_into(batch, CRC_AT, crc32c(memoryview(batch)[ATTRIBUTES_AT:]))


# Control records: key => version:int16 type:int16, value => by type


class ControlType(IntEnum):
    """What a control record says. Those after COMMIT occur in the metadata log and its snapshots only."""

    UNKNOWN = -1
    ABORT = 0
    COMMIT = 1
    LEADER_CHANGE = 2
    SNAPSHOT_HEADER = 3
    SNAPSHOT_FOOTER = 4
    KRAFT_VERSION = 5
    KRAFT_VOTERS = 6


class EndTxnMarker(NamedTuple):
    """The end of a producer's transaction in one partition."""

    commit: bool
    coordinator_epoch: int


def control_type(key: bytes | None) -> ControlType:
    """Read the key of a control record: UNKNOWN for a later type, KafkaError INVALID_RECORD for no key."""
    if key is None or len(key) < _CONTROL_KEY.size:
        raise KafkaError(ErrorCode.INVALID_RECORD, "the key of a control record is too short")
    version, number = _CONTROL_KEY.unpack_from(key)
    if version < 0:
        raise KafkaError(ErrorCode.INVALID_RECORD, f"a control record of version {version}")
    return (
        ControlType(number)
        if ControlType.ABORT <= number <= ControlType.KRAFT_VOTERS
        else ControlType.UNKNOWN
    )


def control_batch(
    items: Sequence[tuple[ControlType, bytes]],
    *,
    base_offset: int,
    timestamp: int,
    leader_epoch: int = -1,
    producer_id: int = NO_PRODUCER_ID,
    producer_epoch: int = -1,
    transactional: bool = False,
) -> bytearray:
    """Build a sealed control batch of (type, encoded value) records; the keys follow from the types."""
    return simple_batch(
        [(_CONTROL_KEY.pack(0, number), value) for number, value in items],
        base_offset=base_offset,
        timestamp=timestamp,
        leader_epoch=leader_epoch,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        transactional=transactional,
        control=True,
    )


def end_txn_marker(
    producer_id: int,
    producer_epoch: int,
    *,
    commit: bool,
    coordinator_epoch: int,
    base_offset: int,
    timestamp: int,
    leader_epoch: int = -1,
) -> bytearray:
    """Build the control batch that commits or aborts a producer's transaction in a partition (KIP-98)."""
    marker = ControlType.COMMIT if commit else ControlType.ABORT
    return control_batch(
        [(marker, _END_TXN_VALUE.pack(0, coordinator_epoch))],
        base_offset=base_offset,
        timestamp=timestamp,
        leader_epoch=leader_epoch,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        transactional=True,
    )


def parse_end_txn_marker(record: Record) -> EndTxnMarker:
    """Read the record of an end marker. KafkaError INVALID_RECORD when it is none."""
    kind = control_type(record.key)
    if kind not in (ControlType.ABORT, ControlType.COMMIT):
        raise KafkaError(ErrorCode.INVALID_RECORD, f"{kind.name} does not end a transaction")
    if record.value is None or len(record.value) < _END_TXN_VALUE.size:
        raise KafkaError(ErrorCode.INVALID_RECORD, "the value of an end marker is too short")
    version, coordinator_epoch = _END_TXN_VALUE.unpack_from(record.value)
    if version < 0:
        raise KafkaError(ErrorCode.INVALID_RECORD, f"an end marker of version {version}")
    return EndTxnMarker(kind is ControlType.COMMIT, coordinator_epoch)
