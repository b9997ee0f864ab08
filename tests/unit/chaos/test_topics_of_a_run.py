"""A chaos run makes its topics first."""

from __future__ import annotations

import io
import threading
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from odradek.chaos import run
from odradek.chaos.clients import World
from odradek.chaos.history import Recorder


def create_with(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Admin:
        def __init__(self, settings: dict[str, Any]) -> None:
            pass

        def create_topics(self, topics: list[Any], **_: Any) -> dict[str, Future[None]]:
            answers: dict[str, Future[None]] = {topic.topic: Future() for topic in topics}
            for answer in answers.values():
                answer.set_exception(KafkaException(KafkaError(code)))
            return answers

    monkeypatch.setattr(run, "AdminClient", Admin)
    run.create_topics(World("localhost:1", Recorder(io.StringIO()), threading.Event()), 3)


def test_topics_that_an_earlier_try_of_the_client_created_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    create_with(KafkaError.TOPIC_ALREADY_EXISTS, monkeypatch)


def test_topics_that_cannot_be_created_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(run.ChaosError, match="cannot be created"):
        create_with(KafkaError.POLICY_VIOLATION, monkeypatch)
