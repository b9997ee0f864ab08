"""The quick way of loading committed offsets reads what the generated codec reads, and leaves it the rest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from odradek.coordinator.group.classic.records import group_tombstone
from odradek.coordinator.group.decode import decode
from odradek.coordinator.group.offset_codec import offset_record, offset_tombstone, read_offset
from odradek.wire.messages.offset_commit_key import OffsetCommitKey
from odradek.wire.messages.offset_commit_value import OffsetCommitValue
from odradek.wire.uuid import ZERO_UUID

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
VALUES = st.builds(
    OffsetCommitValue,
    INT64,
    INT32,
    st.text(max_size=200),
    INT64,
    st.sampled_from([-1, -1, 5]),
    st.one_of(st.just(ZERO_UUID), st.binary(min_size=16, max_size=16)),
)


@given(st.text(max_size=40), st.text(max_size=40), INT32, VALUES)
def test_it_reads_what_the_generated_codec_reads(
    group: str, topic: str, partition: int, value: OffsetCommitValue
) -> None:
    if value.expire_timestamp != -1:
        value.topic_id = ZERO_UUID  # a version that can expire knows no topic id
        value.leader_epoch = -1
    key_bytes, value_bytes = offset_record(group, topic, partition, value).encode()
    found = read_offset(key_bytes, value_bytes)
    record = decode(key_bytes, value_bytes)
    assert record is not None
    if found is None:
        assert value.expire_timestamp != -1 or len(value.metadata.encode()) > 126
    else:
        assert found == (group, topic, partition, record.value)
        assert record.key == OffsetCommitKey(group, topic, partition)


@given(st.data())
def test_what_is_damaged_or_cut_off_is_left_to_the_generated_codec(data: st.DataObject) -> None:
    value = OffsetCommitValue(7, 1, "metadata", 99, -1, b"i" * 16)
    key_bytes, value_bytes = offset_record("group", "topic", 3, value).encode()
    assert value_bytes is not None
    key_end = data.draw(st.integers(0, len(key_bytes) - 1))
    value_end = data.draw(st.integers(0, len(value_bytes) - 1))
    assert read_offset(key_bytes[:key_end], value_bytes) is None
    assert read_offset(key_bytes, value_bytes[:value_end]) is None
    assert read_offset(key_bytes + b"\0", value_bytes) is None
    assert read_offset(key_bytes, value_bytes + b"\0") is None


def test_other_records_are_left_to_the_generated_codec() -> None:
    for record in (offset_tombstone("group", "topic", 3), group_tombstone("group")):
        assert read_offset(*record.encode()) is None
