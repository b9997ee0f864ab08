"""What it costs a client of `odradek chaos` to write down all it does: `python -m bench.history_overhead`.

One idempotent producer sends as fast as it can to a node of its own: without a history, with one that goes nowhere, and
with one on disk, in turns. CPU time of the client per record, which other work on the machine does not change; and
records per second, which it does.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TextIO

from confluent_kafka import Producer

from odradek.chaos.clients import Client, Sends, Topic, World
from odradek.chaos.history import Recorder
from odradek.chaos.local import LocalTarget
from odradek.chaos.run import create_topics
from odradek.chaos.scenario import parse
from odradek.chaos.workload import PLAIN

RECORDS = 30_000
VALUE = "writer-0.1:12345"


class Nowhere(io.StringIO):
    """Keeps nothing."""

    def write(self, text: str, /) -> int:
        return len(text)


def plain(bootstrap: str, _: Path) -> None:
    producer = Producer(
        _world(bootstrap, Nowhere()).settings(enable_idempotence=True, acks="all", linger_ms=2)
    )
    for index in range(RECORDS):
        _send(producer, PLAIN, index % PLAIN.partitions)
    producer.flush(60)


def _send(producer: Producer, topic: Topic, partition: int) -> None:
    while True:
        try:
            producer.produce(topic.name, VALUE.encode(), partition=partition, on_delivery=lambda *_: None)
            return
        except BufferError:
            producer.poll(0.05)


def nowhere(bootstrap: str, _: Path) -> None:
    _with_history(bootstrap, Nowhere())


def on_disk(bootstrap: str, place: Path) -> None:
    with (place / "history.jsonl").open("w", buffering=1) as file:
        _with_history(bootstrap, file)


def _with_history(bootstrap: str, file: TextIO) -> None:
    world = _world(bootstrap, file)
    client = Client("writer-0", "writer-0.1", world, 1)
    producer = Producer(world.settings(enable_idempotence=True, acks="all", linger_ms=2))
    sends = Sends(client, producer)
    for index in range(RECORDS):
        sends.send(PLAIN, index % PLAIN.partitions)
    producer.flush(60)


def _world(bootstrap: str, file: TextIO) -> World:
    return World(bootstrap, Recorder(file), threading.Event())


SIDES: dict[str, Callable[[str, Path], None]] = {
    "without a history": plain,
    "with one that goes nowhere": nowhere,
    "with one on disk": on_disk,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--base-port", type=int, default=19_392)
    options = parser.parse_args()
    scenario = parse(
        {"description": "none", "cluster": {"nodes": 1}, "faults": [{"kind": "kill"}]}, "bench", "bench"
    )
    costs: dict[str, list[float]] = {name: [] for name in SIDES}
    rates: dict[str, list[float]] = {name: [] for name in SIDES}
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        target = LocalTarget(place / "cluster", scenario, options.base_port)
        stack.callback(target.stop)
        target.start()
        create_topics(_world(target.bootstrap, Nowhere()), 1)
        for _ in range(options.rounds):
            for name, side in SIDES.items():
                began, cpu = time.perf_counter(), time.process_time()
                side(target.bootstrap, place)
                costs[name].append((time.process_time() - cpu) / RECORDS * 1e6)
                rates[name].append(RECORDS / (time.perf_counter() - began))
    for name in SIDES:
        print(
            f"{name:<28} {median(costs[name]):6.1f} µs of CPU per record  {median(rates[name]):10,.0f} records/s"
        )


if __name__ == "__main__":
    main()
