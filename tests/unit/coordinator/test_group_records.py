"""The formats of `__consumer_offsets`, against bytes that Apache Kafka 4.3.1 has written."""

from __future__ import annotations

import pytest

from odradek.coordinator.group.classic.group import STABLE, ClassicGroup, GroupState, subscribed_topics
from odradek.coordinator.group.classic.member import Member
from odradek.coordinator.group.classic.records import (
    group_from_record,
    group_record,
    group_tombstone,
    new_group_record,
)
from odradek.coordinator.group.decode import decode
from odradek.coordinator.group.offset_codec import offset_tombstone
from odradek.coordinator.group.record import GroupRecord
from odradek.wire.errors import MalformedMessage
from odradek.wire.messages.group_metadata_key import GroupMetadataKey
from odradek.wire.messages.group_metadata_value import GroupMetadataValue, MemberMetadata
from odradek.wire.messages.offset_commit_key import OffsetCommitKey
from odradek.wire.messages.offset_commit_value import OffsetCommitValue
from unit.coordinator.group_harness import subscription

OFFSET_KEY = "0001000367727000066f726465727300000000"
OFFSET_VALUE_4 = "0004000000000000004d0000000301000001a1f79e633701001058fbf0d4a4c144a8aac261991cede723"
OFFSET_VALUE_1 = "000100000000000000010000000001a1f79e8465000001a1f7a00b05"
GROUP_KEY = "00020003677270"
GROUP_VALUE_3 = "0003000000000000ffffffff000001a1f79e76d900000000"


def test_an_offset_is_written_as_kafka_writes_it() -> None:
    record = decode(bytes.fromhex(OFFSET_KEY), bytes.fromhex(OFFSET_VALUE_4))
    assert record is not None
    assert record.key == OffsetCommitKey("grp", "orders", 0)
    assert isinstance(record.value, OffsetCommitValue)
    assert (record.value.offset, record.value.leader_epoch, record.value.expire_timestamp) == (77, 3, -1)
    assert record.value.topic_id.hex() == "58fbf0d4a4c144a8aac261991cede723"
    assert record.encode() == (bytes.fromhex(OFFSET_KEY), bytes.fromhex(OFFSET_VALUE_4))


def test_an_offset_with_its_own_retention_is_written_in_version_1() -> None:
    record = decode(bytes.fromhex(OFFSET_KEY), bytes.fromhex(OFFSET_VALUE_1))
    assert record is not None
    assert isinstance(record.value, OffsetCommitValue)
    assert record.value.expire_timestamp - record.value.commit_timestamp == 100_000
    assert record.encode() == (bytes.fromhex(OFFSET_KEY), bytes.fromhex(OFFSET_VALUE_1))


def test_a_new_group_is_written_as_kafka_writes_it() -> None:
    group = ClassicGroup("grp", GroupState.EMPTY, 0x01A1F79E76D9)
    assert new_group_record(group).encode() == (bytes.fromhex(GROUP_KEY), bytes.fromhex(GROUP_VALUE_3))


def test_a_group_survives_its_record() -> None:
    group = ClassicGroup("grp", STABLE, 5)
    group.restore(7, None, "range", None)
    for number in range(2):
        member = Member(
            f"m{number}", f"i{number}", "client", "/host", 60, 10, "consumer", [("range", subscription("t"))]
        )
        group.add(member)
    record = group_record(group, {"m0": b"assigned"})
    again = decode(*record.encode())
    assert again == record
    assert isinstance(record.value, GroupMetadataValue)
    loaded = group_from_record("grp", record.value)
    assert loaded.state is STABLE
    assert (loaded.generation, loaded.protocol, loaded.leader_id) == (7, "range", "m0")
    assert loaded.static_members == {"i0": "m0", "i1": "m1"}
    assert [member.assignment for member in loaded.members.values()] == [b"assigned", b""]
    assert loaded.subscribed_topics == frozenset({"t"})
    assert loaded.rebalance_timeout_ms == 60


@pytest.mark.parametrize("version", range(5))
def test_every_version_of_group_metadata_is_read(version: int) -> None:
    value = GroupMetadataValue("consumer", 3, "range", "m", -1, [MemberMetadata("m", session_timeout=10)])
    data = version.to_bytes(2, "big") + value.encode(version)
    record = decode(bytes.fromhex(GROUP_KEY), data)
    assert record is not None
    assert isinstance(record.value, GroupMetadataValue)
    group = group_from_record("grp", record.value)
    assert group.generation == 3
    assert group.members["m"].rebalance_timeout_ms == 10
    assert group.state_since_wall_ms is None


@pytest.mark.parametrize("version", range(5))
def test_every_version_of_an_offset_is_read(version: int) -> None:
    data = version.to_bytes(2, "big") + OffsetCommitValue(9, metadata="x", commit_timestamp=4).encode(version)
    record = decode(bytes.fromhex(OFFSET_KEY), data)
    assert record is not None
    assert isinstance(record.value, OffsetCommitValue)
    assert (record.value.offset, record.value.metadata, record.value.commit_timestamp) == (9, "x", 4)


def test_the_oldest_offset_keys_are_read_as_new_ones() -> None:
    key = b"\0\0" + OffsetCommitKey("grp", "t", 2).encode(0)
    value = b"\0\0" + (5).to_bytes(8, "big") + b"\0\1m" + (6).to_bytes(8, "big")
    record = decode(key, value)
    assert record == GroupRecord(
        OffsetCommitKey("grp", "t", 2), OffsetCommitValue(offset=5, metadata="m", commit_timestamp=6)
    )
    tombstone = decode(key, None)
    assert tombstone is not None
    assert tombstone.value is None


def test_tombstones_have_no_value() -> None:
    assert decode(*offset_tombstone("g", "t", 1).encode()) == offset_tombstone("g", "t", 1)
    assert decode(*group_tombstone("g").encode()) == GroupRecord(GroupMetadataKey("g"), None)


def test_record_types_of_other_kinds_of_group_are_skipped() -> None:
    assert decode(b"\0\x0b\0\3grp", b"\0\0\0\0\0\0") is None  # a share group's
    assert decode(b"\x7f\xff", None) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"", None),
        (b"\0", None),
        (b"\0\1\0\3gr", b""),
        (bytes.fromhex(OFFSET_KEY), b"\0"),
        (bytes.fromhex(OFFSET_KEY), b"\0\5" + b"\0" * 40),
        (bytes.fromhex(OFFSET_KEY), b"\0\4\0\0"),
        (bytes.fromhex(GROUP_KEY), b"\0\3\0\5consu"),
        (bytes.fromhex(GROUP_KEY), bytes.fromhex(GROUP_VALUE_3)[:-4] + b"\x7f\xff\xff\xff"),
    ],
)
def test_damaged_records_are_value_errors(key: bytes, value: bytes | None) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(key, value)


def test_a_group_with_a_member_twice_or_without_a_protocol_is_damaged() -> None:
    twice = GroupMetadataValue("consumer", 1, "range", "m", -1, [MemberMetadata("m"), MemberMetadata("m")])
    with pytest.raises(MalformedMessage):
        group_from_record("grp", twice)
    without = GroupMetadataValue("consumer", 1, None, "m", -1, [MemberMetadata("m")])
    with pytest.raises(MalformedMessage):
        group_from_record("grp", without)


@pytest.mark.parametrize("version", range(4))
def test_subscriptions_of_all_versions_are_read_as_the_oldest(version: int) -> None:
    assert list(subscribed_topics(subscription("a", "b", version=version))) == ["a", "b"]


@pytest.mark.parametrize("data", [b"", b"\0", b"\xff\xff\0\0\0\0", b"\0\1\0\0\0\1", b"\0\1\x7f\xff\xff\xff"])
def test_metadata_that_is_no_subscription_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        subscribed_topics(data)
