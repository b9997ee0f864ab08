"""Run transcripts against a real Kafka and write its answers into them.

    python tests/transcripts/transactions/record.py localhost:9092 tests/transcripts/transactions/*.txt

The broker must be configured as `transaction_transcript.CONFIG` says, and the topics of
`transaction_transcript.TOPICS` must exist. Transactional ids are made unique for each run behind the scenes, so that
one broker serves any number of runs.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from odradek.wire.apis import ApiKey
from odradek.wire.messages.find_coordinator import FindCoordinatorRequest
from odradek.wire.primitives import Message
from transcripts.groups.record import Broker
from transcripts.transactions.transaction_transcript import Symbols, run

TRANSACTION = 1
ANSWER_S_MAX = 60.0


class TransactionBroker(Broker):
    def wake(self) -> None:
        """Make the broker create its internal topics and load them."""
        super().wake()
        body = FindCoordinatorRequest("x", TRANSACTION).encode(1)
        self.connection("metadata").send("find", ApiKey.FIND_COORDINATOR, 1, body)
        self.collect(2_000)

    def collect_some(self, ms: int, count: int) -> list[tuple[str, str, Message]]:
        """Until there are `count` answers, and then what comes within `ms`."""
        answers: list[tuple[str, str, Message]] = []
        deadline = time.monotonic() + ANSWER_S_MAX
        while len(answers) < count and time.monotonic() < deadline:
            for key, _ in self.selector.select(1):
                answers += key.data.receive()
        return answers + (self.collect(ms) if ms else [])


def record(address: tuple[str, int], path: Path) -> None:
    """Rewrite one transcript."""
    broker = TransactionBroker(address)
    broker.wake()
    symbols = Symbols(f"run{time.time_ns()}-")
    lines = path.read_text().splitlines()
    path.write_text("\n".join(run(lines, symbols, broker.send, broker.collect_some)) + "\n")
    broker.close()


def main() -> None:
    host, _, port = sys.argv[1].partition(":")
    with ThreadPoolExecutor(len(sys.argv)) as threads:
        for done in [threads.submit(record, (host, int(port)), Path(name)) for name in sys.argv[2:]]:
            done.result()


if __name__ == "__main__":
    main()
