"""What Apache Kafka answered, in virtual time."""

from __future__ import annotations

from pathlib import Path

import pytest

from odradek.wire.apis import response_class
from odradek.wire.primitives import Message
from transcripts.transactions.transaction_transcript import CONFIG, TOPICS, Request, Symbols, run
from unit.coordinator.transaction_harness import TransactionHarness

FILES = sorted((Path(__file__).parents[2] / "transcripts" / "transactions").glob("*.txt"))


class VirtualBroker:
    """Our coordinator, with every answer encoded and decoded in its version."""

    def __init__(self) -> None:
        self.harness = TransactionHarness(
            max_timeout_ms=CONFIG["transaction.max.timeout.ms"],
            abort_interval_ms=CONFIG["transaction.abort.timed.out.transaction.cleanup.interval.ms"],
        )
        self.harness.topics.partitions.update(TOPICS)
        self.answers: list[tuple[str, str, Message]] = []

    def send(self, request: Request) -> None:
        coordinator = self.harness.coordinator
        handler = {
            "init": coordinator.init_producer_id,
            "add": coordinator.add_partitions_to_txn,
            "offsets": coordinator.add_offsets_to_txn,
            "end": coordinator.end_txn,
            "describe": coordinator.describe_transactions,
            "list": coordinator.list_transactions,
        }[request.verb]
        version = request.version
        sent = type(request.body).decode(request.body.encode(version), version)

        def done(response: Message) -> None:
            received = response_class(request.api_key).decode(response.encode(version), version)
            self.answers.append((request.label, request.verb, received))

        handler(version, sent, done)  # type: ignore[operator]

    def collect(self, ms: int, count: int) -> list[tuple[str, str, Message]]:
        self.harness.advance(ms)
        answers, self.answers = self.answers, []
        return answers


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_answers_are_those_of_kafka(path: Path) -> None:
    recorded = path.read_text().splitlines()
    broker = VirtualBroker()
    symbols = Symbols()
    assert list(run(recorded, symbols, broker.send, broker.collect)) == recorded
