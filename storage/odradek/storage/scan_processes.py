"""Scans of segments in processes of their own, where there is enough to scan: one core takes some 2 s per GB.

A process is started for a scan and ends with it: a node that was stopped cleanly never has one. `python -m
odradek.storage.scan_processes FD` is such a process; jobs and findings go over a socket pair. What a process that dies
has left undone is done here.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait

from odradek.storage.real_disk import RealDisk
from odradek.storage.scan import Finding, ScanJob, scan_file, scan_files

WORTH_BYTES = 128 << 20
"""Less than this is scanned here: it takes no longer than a process to start (0.1 s of CPU each)."""
LARGE_BYTES = 1 << 20
"""Smaller segments are scanned here in any case."""
AHEAD = 8
"""Segments that are scanned before their turn, per process: a finding can be some MB."""
QUEUED = 2
"""Jobs a process has: one under way, and the next."""
END_S = 10.0
_MODULE = "odradek.storage.scan_processes"


def scan_in_processes(disk: RealDisk, processes_max: int, jobs: Sequence[ScanJob]) -> Generator[Finding]:
    """A `Scan` with at most so many processes; none if they would not pay off."""
    large = [job.size for job in jobs if job.size >= LARGE_BYTES]
    count = min(processes_max, len(large), os.cpu_count() or 1)
    if count < 2 or sum(large) < WORTH_BYTES:
        return scan_files(disk, jobs)
    return _Scans(disk, jobs).run(count)


class _Process:
    """A child and what it has been given. OSError if it cannot be started."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", "-m", _MODULE, str(theirs.fileno())]
            try:
                # A group of its own: the SIGINT of a terminal is for the node. It ends when its connection does.
                self._child = subprocess.Popen(
                    command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, process_group=0
                )
            except OSError:
                ours.close()
                raise
        self.connection = Connection(ours.detach())
        self.jobs: dict[int, ScanJob] = {}

    def give(self, number: int, job: ScanJob) -> None:
        self.jobs[number] = job
        with suppress(OSError):  # it has died: `receive` will say so
            self.connection.send((number, job))

    def receive(self) -> tuple[int, Finding] | None:
        """A finding; None if it has died."""
        try:
            number, finding = self.connection.recv()
        except (EOFError, OSError):
            return None
        del self.jobs[number]
        return number, finding

    def end(self) -> None:
        self.connection.close()
        try:
            self._child.wait(END_S if not self.jobs else 0)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


class _Scans:
    """Large segments go to processes, some of them before their turn; small ones are done when it comes."""

    def __init__(self, disk: RealDisk, jobs: Sequence[ScanJob]) -> None:
        self._disk = disk
        self._jobs = jobs
        self._waiting = deque(number for number, job in enumerate(jobs) if job.size >= LARGE_BYTES)
        self._found: dict[int, Finding] = {}
        self._processes: list[_Process] = []

    def run(self, count: int) -> Generator[Finding]:
        try:
            with suppress(OSError):  # with fewer, or none, it takes longer
                for _ in range(count):
                    self._processes.append(_Process())
            for number, job in enumerate(self._jobs):
                yield scan_file(self._disk, job) if job.size < LARGE_BYTES else self._finding(number)
        finally:
            for process in self._processes:
                process.end()

    def _finding(self, number: int) -> Finding:
        while self._processes:
            self._feed()
            if number in self._found:
                return self._found.pop(number)
            for ready in wait([process.connection for process in self._processes]):
                self._receive(next(each for each in self._processes if each.connection is ready))
        finding = self._found.pop(number, None)
        return scan_file(self._disk, self._jobs[number]) if finding is None else finding

    def _feed(self) -> None:
        ahead = AHEAD * len(self._processes)
        for process in self._processes:
            while self._waiting and len(process.jobs) < QUEUED and len(self._found) < ahead:
                number = self._waiting.popleft()
                process.give(number, self._jobs[number])

    def _receive(self, process: _Process) -> None:
        received = process.receive()
        if received is not None:
            self._found[received[0]] = received[1]
            return
        self._processes.remove(process)
        process.end()
        for number, job in process.jobs.items():
            self._found[number] = scan_file(self._disk, job)
        process.jobs.clear()


def serve(descriptor: int) -> None:
    """Do what comes until the other side is gone."""
    connection = Connection(descriptor)
    disk = RealDisk()
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            number, job = connection.recv()
            connection.send((number, scan_file(disk, job)))


if __name__ == "__main__":
    serve(int(sys.argv[1]))
