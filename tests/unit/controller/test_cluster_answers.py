"""Our controller beside that of Apache Kafka 4.3.1: what it answers to five brokers, and what becomes of partitions
(see cluster_cases.py). Known differences: World.ahead.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from odradek.wire.messages.alter_partition import AlterPartitionRequest
from unit.controller.admin_cases import plain
from unit.controller.cluster_cases import ANSWERS, STEPS, Ids, World
from unit.controller.test_admin_answers import same_but_for_general_texts

ROWS = json.loads(ANSWERS.read_text())
DRAWN = ("broker_epoch", "topic_id", "id")


def comparable(value: Any) -> Any:
    """Without what differs from cluster to cluster."""
    if isinstance(value, dict):
        return {name: comparable(each) for name, each in value.items() if name not in DRAWN}
    return [comparable(each) for each in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def ours() -> list[tuple[Any, dict[str, Any]]]:
    """Our answer to every step, and all partitions after it."""
    world = World()
    rows = []
    for step in STEPS:
        request = step(Ids(world, world.epochs))
        answer = plain(world.step(step))
        if isinstance(request, AlterPartitionRequest):
            behind(world, request, answer)
        rows.append((answer, world.partitions()))
    return rows


def behind(world: World, request: AlterPartitionRequest, answer: Any) -> None:
    """Partition epochs as Kafka counts them."""
    for topic, answered in zip(request.topics, answer["topics"], strict=True):
        name = world.harness.image.topic_names[topic.topic_id]
        for partition in answered["partitions"]:
            if partition["error_code"] == 0:
                partition["partition_epoch"] -= world.ahead[name, partition["partition_index"]]


def test_there_is_a_recording_of_every_step() -> None:
    assert len(ROWS) == len(STEPS)


@pytest.mark.parametrize("number", range(len(STEPS)))
def test_answer_and_partitions_are_kafkas(ours: list[tuple[Any, dict[str, Any]]], number: int) -> None:
    answer, partitions = ours[number]
    kafka = comparable(ROWS[number]["answer"])
    assert comparable(answer) == same_but_for_general_texts(comparable(answer), kafka)
    expected: dict[str, Any] = {}
    for row in ROWS[: number + 1]:
        expected |= row["partitions"]
    assert partitions == expected
