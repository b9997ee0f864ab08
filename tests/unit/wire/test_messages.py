"""The generated messages: Kafka's rules for versions, defaults, nulls and tags; bounds on hostile input."""

import subprocess
import sys
import tracemalloc
from random import Random
from typing import Any

import pytest

from odradek.wire.errors import MalformedMessage
from odradek.wire.messages._schema import MESSAGES, FieldInfo
from odradek.wire.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse, SupportedFeatureKey
from odradek.wire.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatResponse
from odradek.wire.messages.consumer_group_member_metadata_value import ConsumerGroupMemberMetadataValue
from odradek.wire.messages.create_topics import CreatableTopic, CreateTopicsRequest
from odradek.wire.messages.fetch import FetchableTopicResponse, FetchRequest, FetchResponse, PartitionData
from odradek.wire.messages.heartbeat import HeartbeatRequest
from odradek.wire.messages.metadata import MetadataRequest, MetadataRequestTopic
from odradek.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from odradek.wire.messages.request_header import RequestHeader
from odradek.wire.messages.vote import VoteRequest
from odradek.wire.primitives import UnsupportedVersion, read_uvarint, write_uvarint
from support.message_samples import Sampler, all_versions, message_class, within


def test_known_bytes_of_a_request_before_and_after_flexible_versions() -> None:
    request = HeartbeatRequest(group_id="g", generation_id=7, member_id="m")
    assert request.encode(0).hex() == "0001670000000700016d"
    assert request.encode(3).hex() == "0001670000000700016dffff"
    assert request.encode(4).hex() == "026700000007026d0000"


def test_the_client_id_of_a_flexible_request_header_keeps_the_old_encoding() -> None:
    header = RequestHeader(request_api_key=3, request_api_version=12, correlation_id=5, client_id="c")
    assert header.encode(2).hex() == "0003000c0000000500016300"


def test_versions_outside_the_range_are_refused_in_both_directions() -> None:
    for version in (-1, 3, 19, 32767):
        with pytest.raises(UnsupportedVersion, match="FetchRequest has versions 4 to 18"):
            FetchRequest().encode(version)
        with pytest.raises(UnsupportedVersion):
            FetchRequest.decode(b"", version)


def non_default(field: FieldInfo, name: str) -> Any:
    """A value that differs from the field's default."""
    if field.is_array:
        return [Sampler(Random(1)).value(MESSAGES[name], field, field.versions[0])]
    if field.is_struct:
        cls = getattr(sys.modules[message_class(name).__module__], field.type)
        return cls(unknown_tagged_fields={200: b""})
    if field.type in ("string", "bytes"):
        return "set" if field.type == "string" else b"set"
    if field.type == "bool":
        return not field.default
    return bytes(15) + b"\1" if field.type == "uuid" else field.default + 1


def absent_fields() -> list[tuple[str, int, FieldInfo]]:
    return [
        (name, version, field)
        for name, version in all_versions()
        for field in MESSAGES[name].structs[name]
        if not within(field.versions, version) and field.type != "records"
    ]


def test_a_field_that_the_version_lacks_is_refused_unless_it_is_ignorable() -> None:
    refused = dropped = 0
    for name, version, field in absent_fields():
        cls = message_class(name)
        message = cls(**{field.name: non_default(field, name)})  # type: ignore[call-arg]
        if field.ignorable:
            dropped += 1
            assert message.encode(version) == cls().encode(version), (name, version, field.name)
            continue
        refused += 1
        with pytest.raises(UnsupportedVersion, match=f"{name}.{field.name}"):
            message.encode(version)
    assert refused > 100
    assert dropped > 100


def test_null_is_refused_in_versions_that_have_no_null() -> None:
    checked = 0
    for name, version in all_versions():
        for field in MESSAGES[name].structs[name]:
            if field.nullable == (0, -1) or within(field.nullable, version):
                continue
            if within(field.versions, version):
                checked += 1
                message = message_class(name)(**{field.name: None})  # type: ignore[call-arg]
                with pytest.raises(ValueError, match=f"{name}.{field.name} is None"):
                    message.encode(version)
    assert checked > 5


def test_null_and_empty_topics_of_a_metadata_request_are_different_things() -> None:
    assert MetadataRequest.decode(MetadataRequest(topics=None).encode(12), 12).topics is None
    assert MetadataRequest.decode(MetadataRequest(topics=[]).encode(12), 12).topics == []


def test_defaults_are_kafkas() -> None:
    request = FetchRequest()
    assert (request.replica_id, request.max_bytes, request.session_epoch) == (-1, 0x7FFFFFFF, -1)
    assert CreatableTopic().num_partitions == 0
    assert ConsumerGroupHeartbeatResponse().assignment is None
    assert ConsumerGroupMemberMetadataValue().classic_member_metadata is not None  # JSON null is not "null"


def test_each_instance_has_lists_and_structures_of_its_own() -> None:
    one, other = CreateTopicsRequest(), CreateTopicsRequest()
    one.topics.append(CreatableTopic())
    assert other.topics == []
    assert PartitionData().current_leader is not PartitionData().current_leader


def test_tagged_fields_are_written_only_where_they_differ_from_the_default() -> None:
    empty = ApiVersionsResponse()
    assert empty.encode(3).hex() == "0000010000000000"
    response = ApiVersionsResponse(
        supported_features=[SupportedFeatureKey("f", 1, 2)],
        zk_migration_ready=True,
        unknown_tagged_fields={1000: b"x"},
    )
    data = response.encode(3)
    assert data[7:].hex() == "0300 08 02 02 66 0001 0002 0003 01 01e807 01 78".replace(" ", "")
    assert ApiVersionsResponse.decode(data, 3) == response


def test_tagged_fields_are_read_in_any_order_and_of_a_repeated_one_the_last_counts() -> None:
    fields = b"\x03" + b"\x03\x01\x00" + b"\x02\x01\x01" + b"\x03\x01\x01"
    response = ApiVersionsResponse.decode(ApiVersionsResponse().encode(3)[:-1] + fields, 3)
    assert response.zk_migration_ready
    assert response.finalized_features == []


def test_a_tagged_field_of_the_wrong_size_is_malformed() -> None:
    for size in (0, 2):
        fields = b"\x01\x03" + bytes([size]) + b"\x01\x00"
        with pytest.raises(MalformedMessage):
            ApiVersionsResponse.decode(ApiVersionsResponse().encode(3)[:-1] + fields, 3)


def test_a_known_tag_among_the_unknown_ones_is_refused() -> None:
    response = ApiVersionsResponse(zk_migration_ready=True, unknown_tagged_fields={3: b"x"})
    with pytest.raises(ValueError, match="tag 3"):
        response.encode(3)


def test_unknown_tagged_fields_cannot_go_into_a_version_without_tags() -> None:
    with pytest.raises(UnsupportedVersion, match="unknown_tagged_fields"):
        ApiVersionsRequest(unknown_tagged_fields={1: b""}).encode(2)


def test_values_outside_the_range_of_their_type_are_value_errors() -> None:
    for request in (
        HeartbeatRequest(generation_id=1 << 31),
        HeartbeatRequest(group_id="x" * 32768),
        MetadataRequest(topics=[MetadataRequestTopic(topic_id=b"short")]),
    ):
        with pytest.raises(ValueError):
            request.encode(request.MAX_VERSION - (type(request) is HeartbeatRequest))


def test_records_are_slices_of_the_buffer_and_any_buffer_is_written() -> None:
    for records in (b"batch", bytearray(b"batch"), memoryview(b"batch")):
        data = ProduceRequest(
            acks=1,
            topic_data=[TopicProduceData(name="t", partition_data=[PartitionProduceData(records=records)])],
        ).encode(9)
        buffer = bytearray(data)
        got = ProduceRequest.decode(buffer, 9).topic_data[0].partition_data[0].records
        assert isinstance(got, memoryview)
        assert got == b"batch"
        buffer[buffer.index(b"batch")] = ord("m")
        assert got == b"match"


HUGE_COUNTS = ("7fffffff", "80000000", "fffffffe", "00100000")


@pytest.mark.parametrize("count", HUGE_COUNTS)
def test_hostile_counts_of_old_arrays_raise_before_anything_is_allocated(count: str) -> None:
    data = bytes.fromhex(count) + bytes(64)
    if int(count, 16) < 1 << 31:
        assert_malformed_without_allocation(MetadataRequest, data, 4)
    assert_malformed_without_allocation(CreateTopicsRequest, data, 2)


@pytest.mark.parametrize("length", ["ffffffff0f", "ffffffff07", "8080808008", "ffffff7f"])
def test_hostile_compact_lengths_raise_before_anything_is_allocated(length: str) -> None:
    data = bytes.fromhex(length) + bytes(64)
    assert_malformed_without_allocation(MetadataRequest, data, 12)  # array
    assert_malformed_without_allocation(HeartbeatRequest, data, 4)  # string
    assert_malformed_without_allocation(VoteRequest, data, 0)  # nullable string
    assert_malformed_without_allocation(ApiVersionsResponse, bytes(2) + b"\1" + bytes(4) + data, 3)  # tags


def assert_malformed_without_allocation(cls: Any, data: bytes, version: int) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(MalformedMessage):
            cls.decode(data, version)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("length", ["ffff", "8000", "7fff", "0003"])
def test_strings_that_are_null_or_too_long_are_malformed(length: str) -> None:
    with pytest.raises(MalformedMessage):
        HeartbeatRequest.decode(bytes.fromhex(length) + b"ab", 0)


def test_strings_that_are_not_utf8_are_malformed() -> None:
    with pytest.raises(MalformedMessage, match="HeartbeatRequest version 0"):
        HeartbeatRequest.decode(b"\0\2\xc3\x28" + bytes(8), 0)


def test_any_negative_length_of_a_nullable_field_is_null_as_in_kafka() -> None:
    assert MetadataRequest.decode(b"\xff\xff\xff\xfe\1\1\1", 8).topics is None


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16383, 16384, 2**31 - 1, 2**32 - 1])
def test_unsigned_varints_survive_a_round_trip(value: int) -> None:
    out = bytearray()
    write_uvarint(out, value)
    assert read_uvarint(bytes(out), 0) == (value, len(out))


@pytest.mark.parametrize("data", ["808080808001", "ffffffff10"])
def test_unsigned_varints_of_more_than_32_bits_are_malformed(data: str) -> None:
    with pytest.raises(MalformedMessage):
        read_uvarint(bytes.fromhex(data), 0)


def test_equality_is_by_value_and_the_representation_shows_the_fields() -> None:
    topic = CreatableTopic(name="orders", num_partitions=3)
    assert topic == CreatableTopic(name="orders", num_partitions=3)
    assert topic != CreatableTopic(name="orders", num_partitions=4)
    assert topic != FetchableTopicResponse()
    assert repr(topic).startswith("CreatableTopic(name='orders', num_partitions=3, ")


def test_a_response_of_a_version_before_a_tagged_structure_refuses_it() -> None:
    partition = PartitionData()
    partition.current_leader.leader_id = 1
    response = FetchResponse(responses=[FetchableTopicResponse(topic="t", partitions=[partition])])
    assert FetchResponse.decode(response.encode(12), 12) == response
    with pytest.raises(UnsupportedVersion, match="current_leader"):
        response.encode(11)


def test_importing_one_message_imports_no_other() -> None:
    code = (
        "import sys, odradek.wire.messages.fetch, odradek.wire.apis;"
        "print(sorted(m for m in sys.modules if m.startswith('odradek.wire.messages.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "['odradek.wire.messages._registry', 'odradek.wire.messages.fetch']"
