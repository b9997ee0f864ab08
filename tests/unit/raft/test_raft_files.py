"""Control records and snapshot files: round trips, and damage at every byte."""

from __future__ import annotations

import pytest

from odradek.raft.config import RaftConfig
from odradek.raft.control_records import (
    CorruptBatch,
    decode_batches,
    encode_batch,
    read_batches,
    read_control,
    read_values,
)
from odradek.raft.log_index import SnapshotId
from odradek.raft.messages import Batch, ControlKind, LeaderChange
from odradek.raft.snapshots import SnapshotContent, decode, encode, parse_name
from odradek.raft.voters import Endpoint, ReplicaKey, Voter, VoterSet
from odradek.wire.messages.leader_change_message import LeaderChangeMessage
from odradek.wire.records import ControlType, control_batch, simple_batch

WALL_MS = 1_700_000_000_000
KEYS = [ReplicaKey(i, bytes([i]) * 16) for i in (1, 2, 3)]
VOTERS = VoterSet.of(Voter(key, (Endpoint("CONTROLLER", f"host{key.id}", 9090 + key.id),)) for key in KEYS)
SNAPSHOT = SnapshotId(1000, 7)


def test_the_first_batch_of_a_leader_says_who_leads_and_who_votes() -> None:
    change = LeaderChange(KEYS[1], VOTERS, (KEYS[0], KEYS[1]))
    data = encode_batch(Batch(10, 3, 4, change, ControlKind.LEADER_CHANGE, VOTERS), WALL_MS)
    (batch,) = decode_batches(data)
    assert (batch.base_offset, batch.end_offset, batch.epoch, batch.voters) == (10, 13, 4, VOTERS)
    ((header, view),) = read_batches(data)
    (kind, value), *rest = read_control(header, view)
    message = LeaderChangeMessage.decode(value, 0)
    assert (kind, message.leader_id) == (ControlType.LEADER_CHANGE, 2)
    assert [voter.voter_id for voter in message.voters] == [1, 2, 3]
    assert [voter.voter_id for voter in message.granting_voters] == [1, 2]
    assert [kind for kind, _ in rest] == [ControlType.KRAFT_VERSION, ControlType.KRAFT_VOTERS]


def test_a_voter_change_is_one_record() -> None:
    data = encode_batch(Batch(5, 1, 2, None, ControlKind.VOTERS, VOTERS), WALL_MS)
    (batch,) = decode_batches(data)
    assert (batch.count, batch.voters) == (1, VOTERS)


def test_controller_records_come_back_as_they_were() -> None:
    values = [b"", b"one", b"\0" * 1000]
    data = encode_batch(Batch(5, 3, 2, values), WALL_MS)
    ((header, view),) = read_batches(data)
    assert read_values(header, view) == values
    assert (header.base_offset, header.leader_epoch, header.max_timestamp) == (5, 2, WALL_MS)


@pytest.mark.parametrize("records", [[], [b"one"], [b"%d" % i * 1000 for i in range(2000)]], ids=len)
@pytest.mark.parametrize("voters", [None, VOTERS], ids=["static", "voters"])
def test_a_snapshot_file_comes_back_as_it_was(records: list[bytes], voters: VoterSet | None) -> None:
    batches = list(encode(SNAPSHOT, voters, records, WALL_MS))
    assert all(len(batch) < 300_000 for batch in batches)
    content = decode(b"".join(batches))
    assert (content.records, content.voters) == (records, voters)


def sample() -> bytes:
    return b"".join(encode(SNAPSHOT, VOTERS, [b"a", b"bc"], WALL_MS))


def test_a_snapshot_cut_off_anywhere_is_refused() -> None:
    for length in range(len(sample())):
        with pytest.raises(CorruptBatch):
            decode(sample()[:length])


def test_a_snapshot_with_a_flipped_byte_anywhere_is_refused_or_the_same() -> None:
    """The leader epoch is not under the checksum; it is not used either."""
    survived = [position for position in range(len(sample())) if flipped(position) == decode(sample())]
    assert len(survived) == 3 * 4


def flipped(position: int) -> SnapshotContent | None:
    data = bytearray(sample())
    data[position] ^= 0x41
    try:
        return decode(data)
    except CorruptBatch:
        return None


def test_what_is_no_snapshot_is_refused() -> None:
    header, body, footer = (bytes(batch) for batch in encode(SNAPSHOT, None, [b"a"], WALL_MS))
    for parts in (
        [header, footer, footer],
        [body],
        [footer],
        [header, body],
        [body, footer],
        [header, body, body, footer],
    ):
        with pytest.raises(CorruptBatch):
            decode(b"".join(parts))


def test_voters_that_cannot_be_read_are_refused() -> None:
    data = control_batch([(ControlType.KRAFT_VOTERS, b"\0\0\xff")], base_offset=0, timestamp=WALL_MS)
    with pytest.raises(CorruptBatch, match="voters record"):
        decode_batches(data)


def test_a_batch_with_gaps_is_refused() -> None:
    data = simple_batch([(None, b"a"), (None, b"b")], base_offset=0, timestamp=WALL_MS)
    data[23:27] = (5).to_bytes(4, "big")
    from odradek.wire.records import seal

    seal(data)
    with pytest.raises(CorruptBatch, match="has 2 records"):
        decode_batches(data)


@pytest.mark.parametrize(
    "name",
    [
        "00000000000000001000-0000000007.checkpoint.part",
        "00000000000000001000-0000000007.checkpoint.deleted",
        "00000000000000001000_0000000007.checkpoint",
        "0000000000000000100x-0000000007.checkpoint",
        "٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠١٠٠٠-0000000007.checkpoint",
        "00000000000000001000.log",
        "leader-epoch-checkpoint",
        "",
    ],
)
def test_other_files_are_no_snapshots(name: str) -> None:
    assert parse_name(name) is None


def test_a_snapshot_is_known_by_its_name() -> None:
    assert parse_name(SNAPSHOT.file_name) == SNAPSHOT


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("election_timeout_ms", 0),
        ("fetch_timeout_jitter_ms", -1),
        ("snapshots_retained", 0),
        ("fetch_max_bytes", 1 << 31),
        ("fetch_max_wait_ms", 600),
    ],
)
def test_a_setting_out_of_bounds_is_named(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=field):
        RaftConfig(**{field: value})
