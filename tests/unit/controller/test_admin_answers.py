"""Our answers to admin requests beside those of Apache Kafka 4.3.1 (see admin_cases.py)."""

import json
from typing import Any

import pytest

from odradek.wire.errors import ErrorCode
from odradek.wire.primitives import Message
from unit.controller.admin_cases import ANSWERS, CASES, plain
from unit.controller.controller_harness import Harness

RECORDED = json.loads(ANSWERS.read_text())
DEVIATIONS = {
    "only supports versions 7-30": "only supports versions 30",  # we write records of the newest level only
}


def same_but_for_general_texts(ours: Any, kafka: Any) -> Any:
    """Kafka's answer, with our own words for what merely explains an error code."""
    if isinstance(ours, dict) and isinstance(kafka, dict):
        merged = {name: same_but_for_general_texts(ours.get(name), value) for name, value in kafka.items()}
        code = ours.get("error_code", 0)
        if code == kafka.get("error_code") and ours.get("error_message") == ErrorCode(code).message:
            merged["error_message"] = ours["error_message"]
        return merged
    if isinstance(ours, list) and isinstance(kafka, list) and len(ours) == len(kafka):
        return [same_but_for_general_texts(*pair) for pair in zip(ours, kafka, strict=True)]
    if isinstance(kafka, str):
        for theirs, our_own in DEVIATIONS.items():
            kafka = kafka.replace(theirs, our_own)
    return kafka


@pytest.fixture(scope="module")
def ours() -> list[Any]:
    harness = Harness(node_id=1)
    harness.start_broker(1)
    return [plain(through_the_wire(harness, request, version)) for request, version in CASES]


def through_the_wire(harness: Harness, request: Message, version: int) -> Message:
    received = type(request).decode(request.encode(version), version)
    response: Message = harness.call(received, version)
    return type(response).decode(response.encode(version), version)


@pytest.mark.parametrize(
    "number", range(len(CASES)), ids=lambda number: f"{number}-{type(CASES[number][0]).__name__}"
)
def test_the_answer_is_kafkas(ours: list[Any], number: int) -> None:
    assert ours[number] == same_but_for_general_texts(ours[number], RECORDED[number])
