"""Snapshot files of the metadata log: `<end offset>-<epoch>.checkpoint`, a run of record batches (KIP-630).

The first batch holds the snapshot header and, if the log has them, kraft.version and voters; the last one
the footer. Each batch has its CRC, and a file without a footer is not one. Offsets inside count from 0, the
epoch is the snapshot's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from odradek.raft.control_records import (
    BATCH_BYTES_MAX,
    Buffer,
    CorruptBatch,
    read_batches,
    read_control,
    read_values,
    read_voters,
    voters_items,
)
from odradek.raft.log_index import SnapshotId
from odradek.raft.voters import VoterSet
from odradek.wire.messages.snapshot_footer_record import SnapshotFooterRecord
from odradek.wire.messages.snapshot_header_record import SnapshotHeaderRecord
from odradek.wire.records import ControlType, control_batch, simple_batch

SUFFIX = ".checkpoint"
PARTIAL_SUFFIX = ".checkpoint.part"
_BATCH_BYTES = 256 * 1024
_NAME_LENGTH = 20 + 1 + 10 + len(SUFFIX)


class SnapshotContent(NamedTuple):
    records: list[bytes]
    voters: VoterSet | None
    """None if no record of the prefix had set any."""


def parse_name(name: str) -> SnapshotId | None:
    """The id in a complete snapshot's file name; None for any other file."""
    offset, epoch = name[:20], name[21:31]
    if len(name) != _NAME_LENGTH or name[20] != "-" or not name.endswith(SUFFIX):
        return None
    if not (offset.isascii() and offset.isdigit() and epoch.isascii() and epoch.isdigit()):
        return None
    return SnapshotId(int(offset), int(epoch))


def encode(
    snapshot: SnapshotId, voters: VoterSet | None, records: Sequence[bytes], wall_ms: int
) -> Iterator[bytearray]:
    """The batches of the file, one by one, so that a large image never exists twice in memory."""
    header = SnapshotHeaderRecord(last_contained_log_timestamp=wall_ms)
    first = [(ControlType.SNAPSHOT_HEADER, header.encode(0))]
    if voters is not None:
        first += voters_items(voters)
    yield _control(first, 0, snapshot, wall_ms)
    offset = len(first)
    for chunk in _chunks(records):
        yield simple_batch(
            [(None, value) for value in chunk],
            base_offset=offset,
            timestamp=wall_ms,
            leader_epoch=snapshot.epoch,
        )
        offset += len(chunk)
    footer = SnapshotFooterRecord()
    yield _control([(ControlType.SNAPSHOT_FOOTER, footer.encode(0))], offset, snapshot, wall_ms)


def _control(
    items: list[tuple[ControlType, bytes]], offset: int, snapshot: SnapshotId, wall_ms: int
) -> bytearray:
    return control_batch(items, base_offset=offset, timestamp=wall_ms, leader_epoch=snapshot.epoch)


def _chunks(records: Sequence[bytes]) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    size = 0
    for value in records:
        if chunk and size + len(value) > _BATCH_BYTES:
            yield chunk
            chunk, size = [], 0
        assert len(value) < BATCH_BYTES_MAX
        chunk.append(value)
        size += len(value) + 16
    if chunk:
        yield chunk


def decode(data: Buffer) -> SnapshotContent:
    """Read and check a whole file. CorruptBatch if it is damaged or has no header or footer."""
    batches = read_batches(data)
    records: list[bytes] = []
    voters: VoterSet | None = None
    kinds: list[ControlType] = []
    expected = 0
    for header, batch in batches:
        if header.base_offset != expected:
            raise CorruptBatch(f"offset {expected} is missing, the next batch begins at {header.base_offset}")
        expected = header.last_offset + 1
        if header.is_control:
            kinds += (kind for kind, _ in read_control(header, batch))
            voters = read_voters(header, batch) or voters
        else:
            records += read_values(header, batch)
    ends_well = bool(batches) and batches[-1][0].is_control and kinds[-1:] == [ControlType.SNAPSHOT_FOOTER]
    if kinds[:1] != [ControlType.SNAPSHOT_HEADER] or not batches[0][0].is_control or not ends_well:
        raise CorruptBatch("the snapshot header or footer is missing")
    return SnapshotContent(records, voters)
