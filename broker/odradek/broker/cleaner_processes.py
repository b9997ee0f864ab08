"""Processes that compact logs for this node: started when there is something to do, ended when there has been nothing
for a while, and with the node. One that is killed, runs out of memory, or hangs, is replaced with the next job.

For each of them a thread waits, which is where a process is started and where its answers are read.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import subprocess
import sys
import threading
from collections.abc import Callable

from odradek.storage.cleaner import CleaningJob, Outcome
from odradek.storage.cleaning_messages import ALIVE, decode_outcome, encode_job, encode_rate
from odradek.storage.log_cleaner import Workers

IDLE_S = 30.0
"""Without a job for so long, a process ends: it holds some 20 MB."""
SILENT_S = 300.0
"""Without a sign of life for so long, a process hangs: on a disk that does not answer, or stopped by somebody. It is
killed, for retention waits for it, and so do the other logs.
"""
_ENDS_S = 10.0
"""Nor does one end at once that waits for a disk: it is left to its fate."""
_COMMAND = (sys.executable, "-P", "-m", "odradek.storage.cleaner_worker")

Done = Callable[[Outcome], None]


class CleanerProcesses(Workers):
    """As many as there are jobs at a time."""

    def __init__(
        self,
        call_soon_threadsafe: Callable[..., object],
        after: Callable[[], object],
        idle_s: float = IDLE_S,
        silent_s: float = SILENT_S,
    ) -> None:
        """`after`: called after each `done`, for what it has staged."""
        self._call_soon = call_soon_threadsafe
        self._after = after
        self._idle_s = idle_s
        self._silent_s = silent_s
        self._free: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._rate = float("inf")
        self._closed = False

    def clean(self, job: CleaningJob, done: Done) -> None:
        while self._free:
            worker = self._free.pop()
            if worker.offer((job, done)):
                return
            self._all.discard(worker)
        worker = _Worker(self, self._rate)
        self._all.add(worker)
        worker.offer((job, done))

    def limit(self, bytes_per_second: float) -> None:
        if bytes_per_second != self._rate:
            self._rate = bytes_per_second
            for worker in self._all:
                worker.limit(bytes_per_second)

    def close(self) -> None:
        """End all of them, whatever they are at; nothing is told of their jobs any more."""
        self._closed = True
        for worker in self._all:
            worker.close()
        self._all.clear()

    @property
    def pids(self) -> list[int]:
        """Of those that run now."""
        return [pid for worker in self._all if (pid := worker.pid) is not None]

    def _finished(self, worker: _Worker, done: Done, outcome: Outcome) -> None:
        """On the worker's thread."""
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody is left to be told
            self._call_soon(self._tell, worker, done, outcome)

    def _tell(self, worker: _Worker, done: Done, outcome: Outcome) -> None:
        if not self._closed:
            self._free.append(worker)
            done(outcome)
            self._after()


class _Worker:
    """One process, and the thread that waits for it. Other processes take its place when it dies."""

    def __init__(self, owner: CleanerProcesses, rate: float) -> None:
        self._owner = owner
        self._rate = rate
        self._jobs: queue.SimpleQueue[tuple[CleaningJob, Done] | None] = queue.SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        """Around whether there is a process, and who takes another job."""
        self._over = False
        threading.Thread(target=self._run, name="odradek-cleaner", daemon=True).start()

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None else None

    def offer(self, job: tuple[CleaningJob, Done]) -> bool:
        """False if it has ended for want of jobs."""
        with self._lock:
            if not self._over:
                self._jobs.put(job)
            return not self._over

    def limit(self, rate: float) -> None:
        with self._lock:
            self._rate = rate
            if self._process is not None:
                self._send(self._process, encode_rate(rate))

    def close(self) -> None:
        with self._lock:
            self._over = True
            self._jobs.put(None)
            if self._process is not None:
                self._process.kill()

    def _run(self) -> None:
        while True:
            try:
                request = self._jobs.get(timeout=self._owner._idle_s)
            except queue.Empty:
                with self._lock:
                    if not self._jobs.empty():
                        continue
                    self._over = True
                self._end()
                return
            if request is None:
                self._end()
                return
            job, done = request
            self._owner._finished(self, done, self._clean(job))

    def _clean(self, job: CleaningJob) -> Outcome:
        try:
            process = self._started()
            if process is None:
                return Outcome(died="the node stops")
        except OSError as error:
            return Outcome(died=f"it could not be started: {error}")
        self._send(process, encode_job(job))
        try:
            return decode_outcome(self._answer(process))
        except TimeoutError:
            self._end()
            return Outcome(died=f"no sign of life for {self._owner._silent_s:g} s")
        except (ValueError, KeyError, TypeError):
            code = self._end()
            return Outcome(died=f"signal {-code}" if code < 0 else f"exit code {code}")

    def _answer(self, process: subprocess.Popen[bytes]) -> bytes:
        """The line that is no sign of life; empty if the process has ended. TimeoutError: it is silent."""
        assert process.stdout is not None
        source, rest = process.stdout.fileno(), b""
        poll = select.poll()
        poll.register(source, select.POLLIN)
        while poll.poll(self._owner._silent_s * 1_000):
            data = os.read(source, 1 << 16)
            if not data:
                return b""
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if line != ALIVE:
                    return line
        raise TimeoutError

    def _started(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._over:
                return None
            if self._process is None:
                self._process = subprocess.Popen(
                    _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=-1
                )
                self._send(self._process, encode_rate(self._rate))
            return self._process

    def _send(self, process: subprocess.Popen[bytes], line: bytes) -> None:
        """Whoever waits for the answer finds out if it is not there any more."""
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.write(line)
            process.stdin.flush()

    def _end(self) -> int:
        """Its exit code; 0 if there was none. Not under the lock, which the node takes too: this may last."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return 0
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.stdout.close()
        process.kill()
        try:
            return process.wait(_ENDS_S)
        except subprocess.TimeoutExpired:
            return 0
