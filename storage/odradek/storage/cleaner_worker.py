"""A process that cleans logs for a node: `python -m odradek.storage.cleaner_worker`, jobs in, outcomes out.

It ends with its node, also when that is killed: the pipe it reads its jobs from ends then. Until it has, it holds the
log's directory locked, so that the worker of the next process of the node waits for it. What it leaves behind are
`.cleaned` files, which the next start, or the next cleaning of that log, removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from odradek.ports.disk import Buffer
from odradek.storage.cleaner import CleaningJob, Outcome, attempt
from odradek.storage.cleaning_messages import ALIVE, decode, encode_outcome
from odradek.storage.real_disk import RealDisk, RealFile

NICENESS = 10
"""Requests go before."""
_PAUSE_MIN_S = 0.01
_PAUSE_MAX_S = 0.5
"""Looked at again whether the rate is still the same."""
SIGN_S = 5.0
"""A node that hears nothing for much longer takes the process for hung, and kills it."""


class Throttle:
    """`log.cleaner.io.max.bytes.per.second`: on average, what is read and what is written together."""

    def __init__(self, alive: Callable[[], object] = lambda: None) -> None:
        """`alive`: called now and then while there is progress, or a reason for there being none."""
        self.rate = float("inf")
        self._paid_until = 0.0
        self._alive = alive

    def spend(self, count: int) -> None:
        """So many bytes were read or written: wait until they are paid for."""
        self._alive()
        if self.rate == float("inf"):
            return
        now = time.monotonic()
        self._paid_until = max(self._paid_until, now) + count / self.rate
        rate = self.rate
        while self.rate == rate and (ahead := self._paid_until - time.monotonic()) > _PAUSE_MIN_S:
            time.sleep(min(ahead, _PAUSE_MAX_S))
            self._alive()
        if self.rate != rate:
            self._paid_until = time.monotonic()


class Signs:
    """Tells the node now and then that this process is at its work."""

    def __init__(self, answers: BinaryIO) -> None:
        self._answers = answers
        self._next = 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + SIGN_S
            self._answers.write(ALIVE + b"\n")
            self._answers.flush()


class ThrottledFile(RealFile):
    """A file whose reads and appends are paid for."""

    __slots__ = ("_throttle",)

    def __init__(self, fd: int, path: str, throttle: Throttle) -> None:
        super().__init__(fd, path)
        self._throttle = throttle

    def append(self, buffers: Sequence[Buffer]) -> int:
        written = super().append(buffers)
        self._throttle.spend(written)
        return written

    def pread(self, length: int, position: int) -> bytes:
        data = super().pread(length, position)
        self._throttle.spend(len(data))
        return data


class ThrottledDisk(RealDisk):
    """The file system of this machine, at a limited rate."""

    def __init__(self, throttle: Throttle) -> None:
        self._throttle = throttle

    def open(self, path: str, *, create: bool = False, exclusive: bool = False) -> RealFile:
        return ThrottledFile(self.descriptor(path, create=create, exclusive=exclusive), path, self._throttle)


@contextlib.contextmanager
def locked(directory: str) -> Iterator[None]:
    """Wait for a worker of a node that was killed meanwhile. OSError if there is no such directory."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: the other one will be gone by now
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def clean(job: CleaningJob, disk: RealDisk) -> Outcome:
    try:
        with locked(job.directory):
            return attempt(job, disk)
    except OSError as error:
        return Outcome(error=error)


def _read(source: BinaryIO, jobs: queue.SimpleQueue[CleaningJob], throttle: Throttle) -> None:
    """Until the node closes the pipe, or dies; then this process ends, whatever it is at. What a node that died in the
    middle of it has said is no message.
    """
    try:
        for line in source:
            message = decode(line)
            if isinstance(message, CleaningJob):
                jobs.put(message)
            else:
                throttle.rate = message
    finally:
        os._exit(0)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the node, which ends this
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints something must not answer
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    throttle = Throttle(Signs(answers))
    disk = ThrottledDisk(throttle)
    jobs: queue.SimpleQueue[CleaningJob] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, jobs, throttle), daemon=True).start()
    while True:
        answers.write(encode_outcome(clean(jobs.get(), disk)))
        answers.flush()


if __name__ == "__main__":
    main()
