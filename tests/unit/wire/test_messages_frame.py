"""Headers and frames, and the table of APIs."""

import pytest

from odradek.wire import apis, frame
from odradek.wire.apis import APIS, ApiKey
from odradek.wire.errors import MalformedMessage
from odradek.wire.frame import encode_answer
from odradek.wire.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsResponse,
    ReassignablePartitionResponse,
    ReassignableTopicResponse,
)
from odradek.wire.messages.request_header import RequestHeader
from odradek.wire.messages.response_header import ResponseHeader


@pytest.mark.parametrize("client_id", [None, "", "client", "Łódź"])
@pytest.mark.parametrize("version", [8, 12])
def test_a_request_frame_carries_the_header_that_the_generated_class_writes(
    client_id: str | None, version: int
) -> None:
    data = frame.encode_request(ApiKey.METADATA, version, 77, client_id, b"body")
    header_version = apis.request_header_version(ApiKey.METADATA, version)
    header = RequestHeader(3, version, 77, client_id).encode(header_version)
    assert data == (len(header) + 4).to_bytes(4, "big") + header + b"body"


@pytest.mark.parametrize("version", [8, 12])
def test_a_response_frame_carries_the_header_that_the_generated_class_writes(version: int) -> None:
    data = frame.encode_response(ApiKey.METADATA, version, 77, b"body")
    header = ResponseHeader(77).encode(apis.response_header_version(ApiKey.METADATA, version))
    assert data == (len(header) + 4).to_bytes(4, "big") + header + b"body"
    assert frame.decode_response_header(data, ApiKey.METADATA, version, 4) == (77, 4 + len(header))


def test_the_response_header_of_api_versions_is_always_the_old_one() -> None:
    assert [apis.response_header_version(ApiKey.API_VERSIONS, version) for version in (0, 3, 4, 99)] == [
        0
    ] * 4
    assert [apis.request_header_version(ApiKey.API_VERSIONS, version) for version in (0, 2, 3, 99)] == [
        1,
        1,
        2,
        2,
    ]


def test_apis_that_were_never_flexible_have_old_headers_in_all_versions() -> None:
    assert apis.request_header_version(ApiKey.SASL_HANDSHAKE, 1) == 1
    assert apis.response_header_version(ApiKey.OFFSET_DELETE, 0) == 0


def test_a_response_header_cut_at_any_byte_is_malformed() -> None:
    for end in range(5):
        with pytest.raises(MalformedMessage):
            frame.decode_response_header(bytes(end), ApiKey.METADATA, 12)


def test_every_api_has_both_classes_with_the_ranges_of_the_table() -> None:
    assert len(APIS) == len(ApiKey) > 75
    for key, api in APIS.items():
        for cls in (apis.request_class(key), apis.response_class(key)):
            assert (key, api.min_version, api.max_version) == (cls.API_KEY, cls.MIN_VERSION, cls.MAX_VERSION)
            assert api.flexible_from == cls.FLEXIBLE_FROM
            assert len(cls.READERS) == len(cls.WRITERS) == cls.MAX_VERSION - cls.MIN_VERSION + 1
        assert apis.request_class(key).__name__ == api.name + "Request"
        assert set(api.listeners) <= {"broker", "controller"} and api.listeners
        assert ApiKey(key).name.replace("_", "").lower() == api.name.lower()


def test_a_latest_version_that_kafka_calls_unstable_is_marked() -> None:
    assert [api.name for api in APIS.values() if api.stable_max_version != api.max_version] == [
        "InitProducerId"
    ]


@pytest.mark.parametrize(("name", "cut"), [("x" * 32767, 32767), ("é" * 16383, 32766)])
def test_an_error_message_that_quotes_too_much_is_cut_wherever_it_stands(name, cut):
    answer = AlterPartitionReassignmentsResponse(
        error_message=f"Unable to find {name}.",
        responses=[
            ReassignableTopicResponse(name, [ReassignablePartitionResponse(0, 3, f"é find {name}.")]),
        ],
    )
    read = AlterPartitionReassignmentsResponse.decode(encode_answer(answer, 1), 1)
    assert read.responses[0].name == name
    assert read.error_message is not None and read.error_message.startswith("Unable to find ")
    inner = read.responses[0].partitions[0].error_message
    assert inner is not None and inner.startswith("é find ") and cut - 1 <= len(inner.encode()) <= 32767


def test_any_other_string_that_is_too_long_is_an_error():
    with pytest.raises(ValueError, match="at most 32767 fit"):
        encode_answer(
            AlterPartitionReassignmentsResponse(responses=[ReassignableTopicResponse("x" * 32768)]), 1
        )
