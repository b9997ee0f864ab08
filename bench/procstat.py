"""What the kernel knows about a process and about the machine: CPU time, resident memory. Linux only."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
MB = 1_000_000


class ProcessMeter:
    """CPU seconds and memory of one process with all its threads (not its children)."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._proc = Path("/proc") / str(pid)

    def cpu_s(self) -> float:
        """User and system time since its start; 10 ms resolution."""
        return sum(self._times()[:2]) / TICKS_PER_S

    def cpu_with_children_s(self) -> float:
        """The same with that of its children that have ended."""
        return sum(self._times()) / TICKS_PER_S

    def _times(self) -> list[int]:
        """User, system; user, system of ended children."""
        # The name in the second field may hold spaces: count from the closing bracket.
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return [int(field) for field in fields[11:15]]

    def rss_mb(self) -> float:
        """Resident memory now, in 10^6 bytes."""
        return self._status_mb("VmRSS")

    def peak_rss_mb(self) -> float:
        """Highest resident memory since `reset_peak`: the kernel's own high-water mark, nothing is sampled."""
        return self._status_mb("VmHWM")

    def pss_mb(self) -> float:
        """Proportional share of resident memory now: shared pages count by the number of their users."""
        with contextlib.suppress(OSError):
            for line in (self._proc / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024 / MB
        return float("nan")

    def reset_peak(self) -> None:
        with contextlib.suppress(OSError):  # another user's process: the peak is then that of its whole life
            (self._proc / "clear_refs").write_text("5")

    def _status_mb(self, name: str) -> float:
        for line in (self._proc / "status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024 / MB
        return float("nan")


@dataclass(frozen=True, slots=True)
class MachineTime:
    """CPU seconds of the whole machine since boot."""

    busy_s: float
    steal_s: float

    @classmethod
    def now(cls) -> MachineTime:
        first = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in first[:8])
        return cls((user + nice + system + irq + softirq) / TICKS_PER_S, steal / TICKS_PER_S)


@dataclass(frozen=True, slots=True)
class Cpus:
    """Which CPUs the node and the clients run on. Empty sets: wherever the kernel likes."""

    node: frozenset[int]
    client: frozenset[int]

    @classmethod
    def split(cls) -> Cpus:
        """The first CPU for the node, the second for the clients; no pinning where there is only one."""
        allowed = sorted(os.sched_getaffinity(0))
        if len(allowed) < 2:
            return cls(frozenset(), frozenset())
        return cls(frozenset(allowed[:1]), frozenset(allowed[1:2]))


@contextlib.contextmanager
def on_cpus(cpus: frozenset[int]) -> Iterator[None]:
    """Children that are started inside inherit these CPUs; the caller gets its own back afterwards."""
    before = os.sched_getaffinity(0)
    if cpus:
        os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
