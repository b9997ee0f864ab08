"""A fault at a chosen write point of a disk in memory: every kind of fault at every point of a scenario, in turn.

A scenario runs once undisturbed, which counts its points; then once for each point and each fault that can happen
there. What must hold afterwards is the scenario's own matter.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Any

from odradek.storage.memory_disk import MemoryDisk, WritePoint

EVERY_POINT = os.environ.get("ODRADEK_WRITE_POINTS") == "all"
"""Every point with every fault, instead of a part that is chosen by number."""


class After(Enum):
    """How the life ends in which it happened."""

    KILL = "the process is killed"
    NOTHING_UNSYNCED = "power is lost, and all that no fsync had covered"
    SOME_UNSYNCED = "power is lost, and some of what no fsync had covered"


class Crash(BaseException):
    """The process ends at this very point. No handler of errors sees it."""


@dataclass(frozen=True)
class Fault:
    """`error` 0: the process does not live to see one. `share` of a write is done before it."""

    name: str
    error: int
    after: tuple[After, ...]
    points: frozenset[WritePoint] = frozenset(WritePoint)
    lasting: bool = False
    """Everything below the same data directory fails from here on."""
    share: float = 0.0


_GROWS = frozenset(
    (WritePoint.WRITE, WritePoint.CREATE, WritePoint.MKDIR, WritePoint.RENAME, WritePoint.FSYNC)
)
_WRITE = frozenset((WritePoint.WRITE,))
_ERROR_ENDS = (After.KILL, After.NOTHING_UNSYNCED)
FAULTS = (
    Fault("one error", errno.EIO, _ERROR_ENDS),
    Fault("dead disk", errno.EIO, _ERROR_ENDS, lasting=True),
    Fault("full disk", errno.ENOSPC, _ERROR_ENDS, _GROWS, lasting=True),
    Fault(
        "read-only disk", errno.EROFS, (After.KILL,), frozenset(WritePoint) - {WritePoint.FSYNC}, lasting=True
    ),
    Fault("short write", errno.ENOSPC, _ERROR_ENDS, _WRITE, share=0.5),
    Fault("crash", 0, tuple(After)),
    Fault("torn write", 0, (After.KILL, After.SOME_UNSYNCED), _WRITE, share=0.6),
)


class Striker:
    """The watch of a disk: counts its write points while `armed`, and lets the fault happen at one of them."""

    def __init__(self, at: int = -1, fault: Fault | None = None) -> None:
        self._at = at
        self._fault = fault
        self.armed = False
        self.met: list[WritePoint] = []
        self.struck_path: str | None = None
        self.struck: BaseException | None = None
        self.failed: set[WritePoint] = set()

    def __call__(self, point: WritePoint, path: str, partly: Callable[[float], None]) -> None:
        if not self.armed:
            return
        number = len(self.met)
        self.met.append(point)
        fault = self._fault
        if fault is None:
            return
        again = fault.lasting and self.struck_path is not None and point in fault.points
        if number != self._at and not (again and data_dir_of(path) == data_dir_of(self.struck_path or "")):
            return
        self.struck_path = self.struck_path or path
        self.failed.add(point)
        if number == self._at:
            partly(fault.share)
        self.struck = OSError(fault.error, os.strerror(fault.error), path) if fault.error else Crash()
        if not fault.error:
            self.armed = False
        raise self.struck


def data_dir_of(path: str) -> str:
    """`/data/d0` of anything in it."""
    return "/".join(path.split("/")[:3])


class _Loses(Random):
    """Draws the worst: of what was not synced, nothing stays."""

    def random(self) -> float:
        return 0.0

    def randint(self, a: int, b: int) -> int:
        return a

    def choice(self, seq: Any) -> Any:
        return seq[0]


def end_life(disk: MemoryDisk, after: After, seed: int) -> None:
    """The process is gone, and what the fault's end takes with it. The disk is sound from here on."""
    disk.faults.watch = None
    if after is After.KILL:
        disk.kill()
        return
    disk.rng = _Loses() if after is After.NOTHING_UNSYNCED else Random(seed)
    disk.crash()
    disk.rng = Random(seed)


Case = tuple[int, Fault, After]


def cases(met: list[WritePoint], part: int) -> Iterator[Case]:
    """Everything that can go wrong at these points; without ODRADEK_WRITE_POINTS=all, `part` of it, evenly."""
    found = [
        (number, fault, after)
        for number, point in enumerate(met)
        for fault in FAULTS
        if point in fault.points
        for after in fault.after
    ]
    step = 1 if EVERY_POINT else max(1, len(found) / part)
    at = 0.0
    while at < len(found):
        yield found[int(at)]
        at += step
