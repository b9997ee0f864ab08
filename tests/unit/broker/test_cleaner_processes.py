"""Processes that clean: what they do, how they end, and what is told of those that did not live to finish."""

from __future__ import annotations

import fcntl
import io
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from interop.cluster import PATIENCE_S, eventually
from odradek.broker.cleaner_processes import CleanerProcesses
from odradek.cli.cluster_processes import process_status
from odradek.storage.cleaner import CleaningJob, LastOfProducer, Outcome, SourceSegment, run
from odradek.storage.cleaner_worker import SIGN_S, Signs, Throttle
from odradek.storage.cleaning_messages import (
    ALIVE,
    decode,
    decode_outcome,
    encode_job,
    encode_outcome,
    encode_rate,
)
from odradek.storage.compaction import Compaction, measure
from odradek.storage.config import LogConfig
from odradek.storage.log import Log
from odradek.storage.real_disk import RealDisk
from odradek.storage.txn_index import AbortedTxn
from odradek.wire.records import simple_batch

NOW = 1_700_000_000_000
COMPACT = LogConfig(cleanup_compact=True, cleanup_delete=False)


def filled(directory: Path, batches: int = 400) -> Log:
    log = Log.open(RealDisk(), str(directory), COMPACT, topic="t", partition=0, wall_ms=NOW)
    for at in range(batches):
        items = [(b"k%d" % (at % 7), bytes(1000)), (b"l%d" % (at % 11), b"%d" % at)]
        log.append_as_leader(memoryview(simple_batch(items, base_offset=0, timestamp=NOW)), 0, NOW)
        log.write_staged()
    log.roll(NOW)
    log.flush_blocking()
    return log


def job_of(log: Log) -> CleaningJob:
    dirty = measure(log, 0, log.log_end_offset, NOW)
    assert dirty is not None
    return Compaction.begin(log, dirty, NOW, 1 << 20).job


class Loop:
    """Runs what comes from other threads when asked to."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]]] = queue.SimpleQueue()

    def call_soon_threadsafe(self, function: Callable[..., object], *args: Any) -> None:
        self.calls.put((function, args))

    def run_one(self) -> None:
        function, args = self.calls.get(timeout=PATIENCE_S)
        function(*args)


class Owner:
    """What the node is to its processes."""

    def __init__(self, idle_s: float = 30.0, silent_s: float = 60.0) -> None:
        self.loop = Loop()
        self.settled = 0
        self.outcomes: list[Outcome] = []
        self.processes = CleanerProcesses(self.loop.call_soon_threadsafe, self._settle, idle_s, silent_s)

    def _settle(self) -> None:
        self.settled += 1

    def begin(self, job: CleaningJob) -> None:
        self.processes.clean(job, self.outcomes.append)

    def clean(self, job: CleaningJob) -> Outcome:
        self.begin(job)
        self.loop.run_one()
        return self.outcomes.pop()

    def pid(self) -> int:
        return eventually(lambda: self.processes.pids, PATIENCE_S, "no process was started")[0]


@pytest.fixture
def owner() -> Iterator[Owner]:
    owner = Owner()
    yield owner
    owner.processes.close()


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.suffix == ".cleaned"}


def is_locked(directory: str) -> bool:
    """Whether a process is at work on the log there."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def is_gone(pid: int) -> bool:
    """It has ended; in a container nobody may ask an orphan how."""
    return process_status(pid) in (None, "Z")


def test_a_process_leaves_the_files_that_this_one_would(owner: Owner, tmp_path: Path) -> None:
    job = job_of(filled(tmp_path / "t-0"))
    assert not owner.processes.pids
    outcome = owner.clean(job)
    theirs = contents(tmp_path / "t-0")
    assert outcome == Outcome(run(job, RealDisk()))
    assert theirs == contents(tmp_path / "t-0")
    assert len(theirs) == 3
    assert owner.settled == 1


def test_one_process_does_one_job_after_the_other(owner: Owner, tmp_path: Path) -> None:
    first = owner.clean(job_of(filled(tmp_path / "t-0", 20)))
    pid = owner.pid()
    second = owner.clean(job_of(filled(tmp_path / "t-1", 20)))
    assert first.cleaned == second.cleaned
    assert owner.processes.pids == [pid]


def test_a_process_that_is_killed_is_told_of_and_replaced(owner: Owner, tmp_path: Path) -> None:
    job = job_of(filled(tmp_path / "t-0"))
    owner.processes.limit(1000.0)
    owner.begin(job)
    os.kill(owner.pid(), signal.SIGKILL)
    owner.loop.run_one()
    assert owner.outcomes.pop() == Outcome(died="signal 9")
    assert not owner.processes.pids
    owner.processes.limit(float("inf"))
    assert owner.clean(job).cleaned is not None


def test_a_process_that_hangs_is_killed_and_replaced(tmp_path: Path) -> None:
    owner = Owner(silent_s=1.0)
    try:
        owner.processes.limit(1000.0)
        owner.begin(job_of(filled(tmp_path / "t-0")))
        pid = owner.pid()
        os.kill(pid, signal.SIGSTOP)
        owner.loop.run_one()
        assert owner.outcomes.pop() == Outcome(died="no sign of life for 1 s")
        assert is_gone(pid) and not owner.processes.pids
    finally:
        owner.processes.close()


def test_the_node_goes_on_while_a_killed_process_takes_its_time_to_end(
    owner: Owner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends, node_went_on = threading.Event(), threading.Event()
    in_time = []
    wait = subprocess.Popen.wait

    def wait_for_a_disk(process: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        ends.set()
        in_time.append(node_went_on.wait(20))
        return wait(process, timeout)

    owner.processes.limit(1000.0)
    owner.begin(job_of(filled(tmp_path / "t-0")))
    monkeypatch.setattr(subprocess.Popen, "wait", wait_for_a_disk)
    os.kill(owner.pid(), signal.SIGKILL)
    assert ends.wait(PATIENCE_S)
    owner.processes.limit(2000.0)
    node_went_on.set()
    owner.loop.run_one()
    assert in_time == [True]


def test_a_process_that_works_or_waits_because_of_the_rate_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    now, said = 100.0, io.BytesIO()

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr("odradek.storage.cleaner_worker.time.monotonic", lambda: now)
    monkeypatch.setattr("odradek.storage.cleaner_worker.time.sleep", sleep)
    throttle = Throttle(Signs(said))
    for _ in range(1000):
        throttle.spend(1 << 20)
    assert said.getvalue() == ALIVE + b"\n"
    throttle.rate = 1e6
    throttle.spend(60_000_000)
    assert said.getvalue().count(b"\n") == pytest.approx(60 / SIGN_S, abs=2)


def test_damage_and_a_failing_disk_are_told_as_what_they_are(owner: Owner, tmp_path: Path) -> None:
    log = filled(tmp_path / "t-0")
    job = job_of(log)
    with Path(log.segments[0].path(".log")).open("r+b") as file:
        file.seek(5000)
        file.write(b"rot")
    assert "CRC" in (owner.clean(job).problem or "")
    assert not contents(tmp_path / "t-0")
    Path(log.segments[0].path(".log")).unlink()
    error = owner.clean(job).error
    assert isinstance(error, FileNotFoundError)
    assert str(tmp_path) in str(error)


def test_a_process_without_work_ends_and_the_next_job_has_another(tmp_path: Path) -> None:
    owner = Owner(idle_s=0.05)
    job = job_of(filled(tmp_path / "t-0", 20))
    for _ in range(2):
        assert owner.clean(job).cleaned is not None
        eventually(lambda: not owner.processes.pids, PATIENCE_S, "the process stays")
    owner.processes.close()


def test_closing_ends_a_process_whatever_it_is_at(owner: Owner, tmp_path: Path) -> None:
    owner.processes.limit(1000.0)
    owner.begin(job_of(filled(tmp_path / "t-0")))
    pid = owner.pid()
    owner.processes.close()
    eventually(lambda: is_gone(pid), PATIENCE_S, "the process lives on")
    owner.loop.run_one()
    assert not owner.outcomes


def test_a_process_ends_with_its_node_however_that_ends(tmp_path: Path) -> None:
    """Another process plays the node: it hands out a job that takes hours, and is killed."""
    job = job_of(filled(tmp_path / "t-0"))
    script = """
import sys, time
from odradek.broker.cleaner_processes import CleanerProcesses
from odradek.cli.cluster_processes import process_status
from odradek.storage.cleaning_messages import decode
processes = CleanerProcesses(lambda *call: None, lambda: None)
processes.limit(1000.0)
processes.clean(decode(sys.stdin.buffer.readline()), print)
while not processes.pids:
    time.sleep(0.01)
print(processes.pids[0], flush=True)
time.sleep(60)
"""
    node = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert node.stdin is not None and node.stdout is not None
    node.stdin.write(encode_job(job))
    node.stdin.flush()
    pid = int(node.stdout.readline())
    eventually(lambda: is_locked(job.directory), PATIENCE_S, "nothing is being cleaned")
    assert not is_gone(pid)
    node.kill()
    node.wait()
    node.stdin.close()
    node.stdout.close()
    eventually(lambda: is_gone(pid), PATIENCE_S, "the worker has survived its node")


@pytest.mark.parametrize("said", [b"", b'{"clean": {"direc', b'{"rate": 5}\n{"rate"'])
def test_a_process_ends_when_its_node_dies_in_the_middle_of_a_word(said: bytes) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-m", "odradek.storage.cleaner_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert worker.communicate(said, timeout=PATIENCE_S) == (b"", None)
    assert worker.returncode == 0


def test_a_process_waits_for_one_of_an_earlier_life_of_the_node(owner: Owner, tmp_path: Path) -> None:
    job = job_of(filled(tmp_path / "t-0", 20))
    held = os.open(job.directory, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    owner.begin(job)
    owner.pid()
    with pytest.raises(queue.Empty):
        owner.loop.calls.get(timeout=0.5)
    assert not contents(tmp_path / "t-0")
    os.close(held)
    owner.loop.run_one()
    assert owner.outcomes.pop().cleaned is not None


def test_the_rate_holds_on_average_and_a_new_one_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    throttle = Throttle()

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        if now > 130.0:
            throttle.rate = 1e9

    monkeypatch.setattr("odradek.storage.cleaner_worker.time.monotonic", lambda: now)
    monkeypatch.setattr("odradek.storage.cleaner_worker.time.sleep", sleep)
    throttle.spend(1 << 40)
    assert now == 100.0
    throttle.rate = 1e6
    for _ in range(20):
        throttle.spend(500_000)
    assert now == pytest.approx(110.0, abs=0.05)
    throttle.spend(100_000_000)
    assert now == pytest.approx(130.0, abs=1.0)


def test_messages_come_out_as_they_went_in() -> None:
    job = CleaningJob(
        directory="/data/ünd \udcff-0",
        segments=(SourceSegment(0, 10, 1000), SourceSegment(10, 1 << 40, 5)),
        first_dirty_offset=3,
        aborted=(AbortedTxn(1, 2, 3, 4),),
        producers={1 << 40: LastOfProducer(3, -1)},
        now_ms=NOW,
        delete_retention_ms=5,
        segment_bytes=6,
        index_interval_bytes=7,
        keys_max=8,
    )
    assert decode(encode_job(job)) == job
    for rate in (float("inf"), 17.5):
        assert decode(encode_rate(rate)) == rate
    for outcome in (Outcome(problem="no\nway"), Outcome(died="signal 9")):
        assert decode_outcome(encode_outcome(outcome)) == outcome
    error = decode_outcome(encode_outcome(Outcome(error=OSError(28, "full", "/data/x")))).error
    assert error is not None
    assert (error.errno, error.strerror, error.filename) == (28, "full", "/data/x")
