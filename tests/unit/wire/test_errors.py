"""The error enum against Kafka 4.3's table of numbers and retriable codes, and the two exceptions."""

import pickle

import pytest

from odradek.wire.errors import ErrorCode, KafkaError, MalformedMessage

# From org.apache.kafka.common.protocol.Errors of kafka-clients 4.3.1: the codes whose exception is a
# RetriableException.
RETRIABLE = {
    2, 3, 5, 6, 7, 9, 13, 14, 15, 16, 19, 20, 41, 51, 56, 70, 71, 72, 74, 75, 78, 80, 83, 84, 88, 89, 100,
    103, 106, 122, 123, 133,
}  # fmt: skip


def test_every_code_of_kafka_4_3_is_there_once() -> None:
    assert sorted(ErrorCode) == list(range(-1, 134))


def test_retriable_codes_are_those_of_the_java_client() -> None:
    assert {code.value for code in ErrorCode if code.retriable} == RETRIABLE


@pytest.mark.parametrize("code", ErrorCode, ids=lambda code: code.name)
def test_each_code_has_a_sentence_for_people(code: ErrorCode) -> None:
    assert code.message.endswith(".")
    assert code.message[0].isupper()


def test_a_code_is_its_number_and_found_by_it() -> None:
    assert ErrorCode(35) is ErrorCode.UNSUPPORTED_VERSION
    assert ErrorCode.UNSUPPORTED_VERSION == 35
    assert ErrorCode.UNKNOWN_SERVER_ERROR == -1
    with pytest.raises(ValueError, match="134"):
        ErrorCode(134)
    assert ErrorCode.told(35) is ErrorCode.UNSUPPORTED_VERSION
    assert ErrorCode.told(134) is ErrorCode.UNKNOWN_SERVER_ERROR


def test_kafka_error_carries_code_and_detail() -> None:
    error = KafkaError(ErrorCode.INVALID_CONFIG, "retention.ms must be a number")
    assert error.code is ErrorCode.INVALID_CONFIG
    assert error.message == "retention.ms must be a number"
    assert str(error) == "INVALID_CONFIG: retention.ms must be a number"
    assert not error.retriable


def test_kafka_error_without_detail_reads_as_its_code() -> None:
    error = KafkaError(ErrorCode.NOT_CONTROLLER)
    assert error.message is None
    assert str(error) == f"NOT_CONTROLLER: {ErrorCode.NOT_CONTROLLER.message}"
    assert error.retriable


def test_kafka_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(KafkaError(ErrorCode.CORRUPT_MESSAGE, "at 17")))
    assert (error.code, error.message) == (ErrorCode.CORRUPT_MESSAGE, "at 17")


def test_malformed_message_is_not_an_answer_to_a_peer() -> None:
    assert issubclass(MalformedMessage, ValueError)
    assert not issubclass(MalformedMessage, KafkaError)
