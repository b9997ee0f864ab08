"""What Apache Kafka answered, in virtual time."""

from __future__ import annotations

from pathlib import Path

import pytest

from odradek.wire.apis import response_class
from odradek.wire.primitives import Message
from transcripts.groups.group_transcript import CONFIG, TOPICS, Request, Symbols, run
from unit.coordinator.group_harness import Harness, context

FILES = sorted((Path(__file__).parents[2] / "transcripts" / "groups").glob("*.txt"))


class VirtualBroker:
    """Our coordinator, with every answer encoded and decoded in its version."""

    def __init__(self) -> None:
        self.harness = Harness(**CONFIG)
        self.harness.topics.__init__(**TOPICS)  # type: ignore[misc]
        self.answers: list[tuple[str, str, Message]] = []

    def send(self, request: Request) -> None:
        coordinator = self.harness.coordinator
        handler = {
            "join": coordinator.join_group,
            "sync": coordinator.sync_group,
            "heartbeat": coordinator.heartbeat,
            "leave": coordinator.leave_group,
            "commit": coordinator.commit_offsets,
            "fetch": coordinator.fetch_offsets,
            "deloffsets": coordinator.delete_offsets,
            "describe": coordinator.describe_groups,
            "list": coordinator.list_groups,
            "delete": coordinator.delete_groups,
            "beat": coordinator.consumer_group_heartbeat,
            "cdescribe": coordinator.describe_consumer_groups,
        }[request.verb]
        version = request.version
        sent = type(request.body).decode(request.body.encode(version), version)

        def done(response: Message) -> None:
            received = response_class(request.api_key).decode(response.encode(version), version)
            self.answers.append((request.label, request.verb, received))

        handler(context(version, request.label), sent, done)  # type: ignore[operator]

    def collect(self, ms: int) -> list[tuple[str, str, Message]]:
        self.harness.advance(ms)
        answers, self.answers = self.answers, []
        return answers


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_answers_are_those_of_kafka(path: Path) -> None:
    recorded = path.read_text().splitlines()
    broker = VirtualBroker()
    symbols = Symbols(broker.harness.topics.ids)
    assert list(run(recorded, symbols, broker.send, broker.collect)) == recorded
