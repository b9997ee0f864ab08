"""One life of a client: `python -m odradek.chaos.client_process PLACE NAME LIFE`. Exit code 3: begin anew."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from confluent_kafka import KafkaException

from odradek.chaos.clients import TroubleError, World, now
from odradek.chaos.history import CLIENT_ERROR, CLIENT_OVERDUE, Note, Recorder
from odradek.chaos.workload import build

BEGIN_ANEW = 3
BROKER_HANDLE_DESTROYED = -137
"""librdkafka forgot a broker that metadata does not name while it is down, with a request to it under way."""
GIVES_UP_S = 45.0
"""After SIGTERM; see `Client.overdue`."""


def main(place: str, name: str, life: str) -> int:
    """`place` has `run.json`; the history goes to `history/<name>.<life>.jsonl` there."""
    settings = json.loads((Path(place) / "run.json").read_text())
    stop = threading.Event()
    # Waited for by a thread: a handler would run inside a call of the client, which may be about to raise.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_await_sigterm, args=(stop,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    process = f"{name}.{life}"
    with (Path(place) / "history" / f"{process}.jsonl").open("w", buffering=1) as file:
        recorder = Recorder(file)
        world = World(settings["bootstrap"], recorder, stop, settings["timeout_s"])
        client = build(
            name, process, world, settings["seed"], per_s=settings["per_s"], hasty=settings["hasty"]
        )
        try:
            client.live()
        except KafkaException as problem:
            print(f"{process} begins anew: {problem}", file=sys.stderr)
            if not stop.is_set():  # else it was interrupted in the middle of something
                librarys_doing = client.overdue or problem.args[0].code() == BROKER_HANDLE_DESTROYED
                kind = CLIENT_OVERDUE if librarys_doing else CLIENT_ERROR
                recorder.add(Note(now(), kind, process, {"error": str(problem)}))
            return BEGIN_ANEW
        except TroubleError as problem:
            print(f"{process}: {problem}", file=sys.stderr)
            return 1
    return 0


def _await_sigterm(stop: threading.Event) -> None:
    signal.sigwait({signal.SIGTERM})
    stop.set()
    time.sleep(GIVES_UP_S)
    print("a call of the library does not return", file=sys.stderr, flush=True)
    os._exit(BEGIN_ANEW)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
