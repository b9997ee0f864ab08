import dataclasses

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odradek.metadata import records
from odradek.metadata.records import BadRecord, PartitionChangeRecord, Record, TopicRecord, decode

INTS = st.integers(-(2**31), 2**63 - 1)
UUID = st.binary(min_size=16, max_size=16)
VALUES = {
    "int": INTS,
    "bool": st.booleans(),
    "str": st.text(max_size=30),
    "bytes": UUID,
    "Ints": st.lists(INTS, max_size=5).map(tuple),
    "Uuids": st.lists(UUID, max_size=5).map(tuple),
    "tuple[Endpoint, ...]": st.lists(st.tuples(st.text(), st.text(), INTS, INTS), max_size=3).map(tuple),
    "tuple[FeatureRange, ...]": st.lists(st.tuples(st.text(), INTS, INTS), max_size=3).map(tuple),
}
CLASSES = [
    cls
    for cls in vars(records).values()
    if isinstance(cls, type) and issubclass(cls, Record) and cls is not Record
]


def any_record(cls: type[Record]) -> st.SearchStrategy[Record]:
    arguments = {}
    for item in dataclasses.fields(cls):
        values = VALUES[str(item.type).removesuffix(" | None")]
        arguments[item.name] = st.none() | values if "| None" in str(item.type) else values
    return st.builds(cls, **arguments)


@given(st.one_of([any_record(cls) for cls in CLASSES]))
def test_a_record_is_the_same_after_encode_and_decode(record: Record) -> None:
    assert decode(record.encode()) == record


@given(st.one_of([any_record(cls) for cls in CLASSES]), st.data())
def test_cut_or_random_bytes_are_a_bad_record(record: Record, data: st.DataObject) -> None:
    encoded = record.encode()
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(BadRecord):
        decode(encoded[:cut])


@given(st.binary(max_size=60))
def test_random_bytes_never_raise_anything_but_bad_record(data: bytes) -> None:
    try:
        decode(data)
    except BadRecord:
        pass
    else:
        assert msgpack.unpackb(data)["t"] in range(100)


def test_every_class_has_its_own_type_number_and_every_field_its_own_key() -> None:
    assert len({cls.TYPE for cls in CLASSES}) == len(CLASSES)
    for cls in CLASSES:
        keys = [item.metadata["key"] for item in dataclasses.fields(cls)]
        assert len(set(keys)) == len(keys)
        assert not {"t", "v"} & set(keys)


def test_the_encoding_of_a_topic_is_what_it_was() -> None:
    """Written logs hold this: a change here breaks every existing cluster."""
    encoded = msgpack.packb({"t": 2, "v": 0, "n": "orders", "i": b"0123456789abcdef"})
    assert TopicRecord("orders", b"0123456789abcdef").encode() == encoded


def test_fields_at_their_default_take_no_room() -> None:
    change = PartitionChangeRecord(topic_id=bytes(16), partition_id=3, leader=1)
    assert msgpack.unpackb(change.encode()).keys() == {"t", "v", "i", "p", "l"}


def test_an_unknown_key_is_skipped() -> None:
    encoded = msgpack.packb({"t": 2, "v": 0, "n": "orders", "i": bytes(16), "later": [1, {"a": 2}]})
    assert decode(encoded) == TopicRecord("orders", bytes(16))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"t": 99}, "unknown record type 99"),
        ({"t": "2"}, "unknown record type '2'"),
        ({"v": 1}, "version 1, this node knows up to 0"),
        ({"v": None}, "version None"),
        ({"n": None}, "name is None"),
        ({"n": b"orders"}, "name is b'orders'"),
        ({"i": b"short"}, "topic_id is b'short'"),
        ({"i": True}, "topic_id is True"),
    ],
)
def test_what_cannot_be_applied_is_a_bad_record(change: dict[str, object], reason: str) -> None:
    encoded = msgpack.packb({"t": 2, "v": 0, "n": "orders", "i": bytes(16)} | change)
    with pytest.raises(BadRecord, match=reason):
        decode(encoded)


def test_a_missing_field_is_a_bad_record() -> None:
    with pytest.raises(BadRecord, match="topic_id is missing"):
        decode(msgpack.packb({"t": 2, "v": 0, "n": "orders"}))


def test_a_list_in_place_of_a_map_is_a_bad_record() -> None:
    with pytest.raises(BadRecord, match="not a msgpack map"):
        decode(msgpack.packb([1, 2]))
