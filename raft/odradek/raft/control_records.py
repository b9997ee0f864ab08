"""Between record batches on disk and the core's batches: control records encoded and read, checksums
verified.

The formats are Kafka's (KIP-595, 630, 853), so that its dump tool reads the metadata log and its snapshots.
"""

from __future__ import annotations

from collections.abc import Sequence

from odradek.raft.messages import Batch, ControlKind, LeaderChange
from odradek.raft.voters import Endpoint, ReplicaKey, Voter, VoterSet
from odradek.wire.errors import KafkaError, MalformedMessage
from odradek.wire.messages import kraft_version_record, leader_change_message, voters_record
from odradek.wire.records import (
    BatchHeader,
    ControlType,
    Record,
    control_batch,
    control_type,
    crc_ok,
    iter_batches,
    read_records,
    simple_batch,
)

Buffer = bytes | bytearray | memoryview

KRAFT_VERSION = 1
"""Voters live in the log, with directory ids."""
BATCH_BYTES_MAX = 8 * 1024 * 1024
"""The largest batch of the metadata log, as in Kafka; also the bound of what is decompressed."""


class CorruptBatch(ValueError):  # noqa: N818 - named after what was found
    """Bytes that are no sound record batch; the text says where and why."""


# Writing


def encode_batch(batch: Batch, wall_ms: int) -> bytearray:
    """The record batch that the leader appends. Controller records have no key; the core gave offset and
    epoch.
    """
    if batch.control is ControlKind.NONE:
        assert isinstance(batch.data, list)
        encoded = simple_batch(
            [(None, value) for value in batch.data],
            base_offset=batch.base_offset,
            timestamp=wall_ms,
            leader_epoch=batch.epoch,
        )
    else:
        encoded = control_batch(
            _control_items(batch),
            base_offset=batch.base_offset,
            timestamp=wall_ms,
            leader_epoch=batch.epoch,
        )
    return encoded


def _control_items(batch: Batch) -> list[tuple[ControlType, bytes]]:
    items: list[tuple[ControlType, bytes]] = []
    if batch.control is ControlKind.LEADER_CHANGE:
        assert isinstance(batch.data, LeaderChange)
        items.append((ControlType.LEADER_CHANGE, _encode_leader_change(batch.data)))
        if batch.voters is not None:
            items += voters_items(batch.voters)
    else:
        assert batch.voters is not None
        items += voters_items(batch.voters)[1:]
    assert len(items) == batch.count
    return items


def voters_items(voters: VoterSet) -> list[tuple[ControlType, bytes]]:
    """The kraft.version record and the voters record after it."""
    version = kraft_version_record.KRaftVersionRecord(kraft_version=KRAFT_VERSION)
    record = voters_record.VotersRecord(voters=[_voter_struct(voter) for voter in voters.voters])
    return [(ControlType.KRAFT_VERSION, version.encode(0)), (ControlType.KRAFT_VOTERS, record.encode(0))]


def _voter_struct(voter: Voter) -> voters_record.Voter:
    return voters_record.Voter(
        voter.key.id,
        voter.key.directory_id,
        [voters_record.Endpoint(*endpoint) for endpoint in voter.endpoints],
        voters_record.KRaftVersionFeature(0, KRAFT_VERSION),
    )


def _encode_leader_change(change: LeaderChange) -> bytes:
    """Version 0, as Kafka writes it to this day: ids alone, the directories are in the voters record."""
    return leader_change_message.LeaderChangeMessage(
        0,
        change.leader.id,
        [leader_change_message.Voter(voter_id) for voter_id in change.voters.ids],
        [leader_change_message.Voter(key.id) for key in change.granted],
    ).encode(0)


# Reading


def read_batches(data: Buffer) -> list[tuple[BatchHeader, memoryview]]:
    """All batches of `data`, which must hold whole ones only. CorruptBatch if anything is damaged or left
    over.
    """
    view = memoryview(data)
    batches: list[tuple[BatchHeader, memoryview]] = []
    end = 0
    try:
        for position, header in iter_batches(view):
            batch = view[position : position + header.size]
            if not crc_ok(batch):
                raise CorruptBatch(f"the checksum of the batch at offset {header.base_offset} is wrong")
            if header.count < 1 or header.count != header.last_offset_delta + 1:
                raise CorruptBatch(f"the batch at offset {header.base_offset} has {header.count} records")
            batches.append((header, batch))
            end = position + header.size
    except (KafkaError, MalformedMessage) as error:
        raise CorruptBatch(f"at byte {end}: {error}") from error
    if end != len(view):
        raise CorruptBatch(f"at byte {end}: {len(view) - end} bytes are no whole batch")
    return batches


def decode_batches(data: Buffer) -> tuple[Batch, ...]:
    """The core's view of batches from a peer or from the disk. CorruptBatch."""
    return tuple(
        Batch(
            header.base_offset,
            header.count,
            header.leader_epoch,
            batch,
            voters=read_voters(header, batch) if header.is_control else None,
        )
        for header, batch in read_batches(data)
    )


def read_values(header: BatchHeader, batch: memoryview) -> list[bytes]:
    """What the controller wrote, record by record. CorruptBatch."""
    return [record.value or b"" for record in _records(header, batch)]


def read_voters(header: BatchHeader, batch: memoryview) -> VoterSet | None:
    """The voters that a control batch puts in force, if it does. CorruptBatch."""
    voters: VoterSet | None = None
    for kind, value in read_control(header, batch):
        if kind is ControlType.KRAFT_VOTERS:
            voters = _decode_voters(value)
    return voters


def read_control(header: BatchHeader, batch: memoryview) -> list[tuple[ControlType, bytes]]:
    """Types and values of a control batch. CorruptBatch."""
    try:
        return [(control_type(record.key), record.value or b"") for record in _records(header, batch)]
    except KafkaError as error:
        raise CorruptBatch(f"control batch at offset {header.base_offset}: {error}") from error


def _records(header: BatchHeader, batch: memoryview) -> Sequence[Record]:
    try:
        return read_records(batch, header, limit=BATCH_BYTES_MAX)
    except KafkaError as error:
        raise CorruptBatch(f"batch at offset {header.base_offset}: {error}") from error


def _decode_voters(value: bytes) -> VoterSet:
    try:
        record = voters_record.VotersRecord.decode(value, 0)
    except MalformedMessage as error:
        raise CorruptBatch(f"voters record: {error}") from error
    voters = [
        Voter(
            ReplicaKey(voter.voter_id, voter.voter_directory_id),
            tuple(Endpoint(end.name, end.host, end.port) for end in voter.endpoints),
        )
        for voter in record.voters
    ]
    if len({voter.id for voter in voters}) != len(voters):
        raise CorruptBatch(f"voters record: ids are not unique: {[voter.id for voter in voters]}")
    return VoterSet.of(voters)
