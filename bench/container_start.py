"""How soon a container is ready: `python -m bench.container_start`. Needs a container engine and the image.

Each time a new container, on a new volume and then again on what that left there. Counted from the start of its first
process, as the engine tells it, to the node's own line `ready`; and from `docker run` to the same, which includes what
the engine does before.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from statistics import median

TARGET_S = 1.5
READY_WITHIN_S = 60.0
LOOK_S = 0.05
HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


def docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise SystemExit(f"docker {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextmanager
def volume() -> Iterator[str]:
    name = docker("volume", "create", f"odradek-start-{uuid.uuid4().hex[:8]}")
    try:
        yield name
    finally:
        docker("volume", "rm", name)


def seconds(text: str) -> float:
    """Of a time in ISO 8601; the engine tells nanoseconds."""
    head, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{head}+00:00").timestamp() + float(f"0.{fraction or 0}")


def start(image: str, data: str) -> tuple[float, float]:
    """From the start of process 1, and from `docker run`, to ready."""
    asked = time.time()
    container = docker("run", "-d", *HARDENED, "-v", f"{data}:/var/lib/kafka/data", image)
    try:
        ready = await_ready(container)
        began = seconds(docker("inspect", "-f", "{{.State.StartedAt}}", container))
        docker("stop", "-t", "30", container)
    finally:
        docker("rm", "-f", "-v", container)
    return ready - began, ready - asked


def await_ready(container: str) -> float:
    """When the node said so."""
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        for line in docker("logs", container).splitlines():
            told = json.loads(line) if line.startswith("{") else {}
            if told.get("message") == "ready":
                return seconds(told["time"])
        time.sleep(LOOK_S)
    raise SystemExit(f"{container} was not ready after {READY_WITHIN_S:.0f} s: {docker('logs', container)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", default="odradek", help="(default: odradek)")
    parser.add_argument("--times", type=int, default=10, help="(default: 10)")
    options = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {"new volume": [], "used volume": []}
    for _ in range(options.times):
        with volume() as data:
            for times in found.values():
                times.append(start(options.image, data))
    print(f"load {os.getloadavg()[0]:.1f}; wanted: process 1 to ready within {TARGET_S} s")
    print("| | median s | worst s |\n|---|---:|---:|")
    for name, times in found.items():
        for what, values in zip(
            ("process 1 to ready", "docker run to ready"), zip(*times, strict=True), strict=True
        ):
            print(f"| {name}: {what} | {median(values):.2f} | {max(values):.2f} |")


if __name__ == "__main__":
    main()
