"""A broker tells the controller where its replicas are (KIP-858)."""

from __future__ import annotations

from typing import Any

from odradek.broker import directory_assignments
from odradek.broker.directory_assignments import DirectoryAssignments
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.assign_replicas_to_dirs import AssignReplicasToDirsResponse

TOPIC, OTHER = b"t" * 16, b"u" * 16
HERE, THERE, GONE = b"h" * 16, b"i" * 16, b"g" * 16


class Controller:
    def __init__(self) -> None:
        self.asked: list[tuple[Any, Any]] = []

    def ask(self, request: Any, done: Any) -> None:
        self.asked.append((request, done))

    def said(self) -> list[list[tuple[bytes, bytes, list[int]]]]:
        return [
            [
                (directory.id, topic.topic_id, [each.partition_index for each in topic.partitions])
                for directory in request.directories
                for topic in directory.topics
            ]
            for request, _ in self.asked
        ]

    def answer(self, code: ErrorCode = ErrorCode.NONE) -> None:
        self.asked[-1][1](AssignReplicasToDirsResponse(error_code=code))


def make(epoch: int = 7) -> tuple[DirectoryAssignments, Controller]:
    assignments, controller = DirectoryAssignments(1), Controller()
    assignments.ask, assignments.broker_epoch = controller.ask, epoch
    return assignments, controller


def test_what_metadata_has_right_is_not_told() -> None:
    assignments, controller = make()
    assignments.note((TOPIC, 0), HERE, HERE)
    assignments.send()
    assert controller.asked == []


def test_what_it_has_wrong_is_told_once() -> None:
    assignments, controller = make()
    for index in (0, 1):
        assignments.note((TOPIC, index), GONE, HERE)
    assignments.note((OTHER, 0), GONE, THERE)
    assignments.send()
    assignments.send()
    assert controller.said() == [[(HERE, TOPIC, [0, 1]), (THERE, OTHER, [0])]]
    assert (controller.asked[0][0].broker_id, controller.asked[0][0].broker_epoch) == (1, 7)
    controller.answer()
    assignments.send()
    assert len(controller.asked) == 1


def test_what_failed_is_told_again() -> None:
    assignments, controller = make()
    assignments.note((TOPIC, 0), GONE, HERE)
    assignments.send()
    controller.answer(ErrorCode.NOT_CONTROLLER)
    assert len(controller.asked) == 1  # not at once
    assignments.send()
    assert len(controller.asked) == 2


def test_what_changed_while_an_answer_was_waited_for_is_told_too() -> None:
    assignments, controller = make()
    assignments.note((TOPIC, 0), GONE, HERE)
    assignments.send()
    assignments.note((TOPIC, 0), GONE, THERE)
    controller.answer()
    assert controller.said()[1] == [(THERE, TOPIC, [0])]


def test_nothing_is_told_before_the_broker_is_registered_or_of_a_replica_that_is_gone() -> None:
    assignments, controller = make(epoch=-1)
    assignments.note((TOPIC, 0), GONE, HERE)
    assignments.send()
    assignments.broker_epoch = 3
    assignments.forget((TOPIC, 0))
    assignments.send()
    assert controller.asked == []


def test_many_are_told_in_several_requests(monkeypatch: Any) -> None:
    monkeypatch.setattr(directory_assignments, "PER_REQUEST_MAX", 2)
    assignments, controller = make()
    for index in range(5):
        assignments.note((TOPIC, index), GONE, HERE)
    assignments.send()
    for _ in range(3):
        controller.answer()
    assert [told[0][2] for told in controller.said()] == [[0, 1], [2, 3], [4]]
