"""A disk fails at a chosen point: the next append, the next roll, the next vote that is noted, the next checkpoint.

What fails, how and for how long is drawn; until it happens, all is well. Somebody looks after the disk later and starts
the process anew, unless it has stopped itself.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from odradek.raft.quorum_state import FILE_NAME as QUORUM_STATE
from odradek.storage import layout
from odradek.storage.memory_disk import WritePoint

if TYPE_CHECKING:
    from odradek.simulation.machine import Machine

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)
CALLS_MAX = 4
"""How many of such calls pass before one fails."""
_GROWS = frozenset((WritePoint.WRITE, WritePoint.CREATE, WritePoint.RENAME))
_SYNCS = frozenset((WritePoint.FSYNC, WritePoint.DIRSYNC))
_CHECKPOINTS = (
    layout.RECOVERY_POINT_CHECKPOINT,
    layout.LOG_START_OFFSET_CHECKPOINT,
    layout.HIGH_WATERMARK_CHECKPOINT,
    layout.CLEANER_CHECKPOINT,
)
_SWAPPED = (layout.CLEANED_SUFFIX, layout.SWAP_SUFFIX)
_SWAPPED_LOG = tuple(f"{layout.LOG_SUFFIX}{suffix}" for suffix in _SWAPPED)
_CLEANER_NOTES = (layout.CLEANER_CHECKPOINT, layout.COMPACTED)
_DERIVED = (layout.INDEX_SUFFIX, layout.TIME_INDEX_SUFFIX, layout.TXN_INDEX_SUFFIX)
Match = Callable[[WritePoint, str], bool]


def _name(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(layout.TEMPORARY_SUFFIX)


def _of_metadata(path: str) -> bool:
    return f"/{layout.METADATA_LOG_DIR}/" in path


def _is_log(path: str) -> bool:
    return path.endswith(layout.LOG_SUFFIX)


def _is_read(path: str) -> bool:
    """Not what the simulator itself looks at."""
    return path.endswith((layout.LOG_SUFFIX, *_DERIVED, layout.SNAPSHOT_SUFFIX)) and not _of_metadata(path)


TARGETS: dict[str, Match] = {
    "append": lambda point, path: point is WritePoint.WRITE and _is_log(path) and not _of_metadata(path),
    "fsync of a log": lambda point, path: point in _SYNCS and _is_log(path) and not _of_metadata(path),
    "roll": lambda point, path: point is WritePoint.CREATE and _is_log(path) and not _of_metadata(path),
    "index": lambda point, path: point in _GROWS and path.endswith(_DERIVED),
    "producer snapshot": lambda point, path: point in _GROWS and path.endswith(layout.SNAPSHOT_SUFFIX),
    "checkpoint": lambda point, path: point in _GROWS and _name(path) in _CHECKPOINTS,
    "leader epochs": lambda point, path: (
        point in _GROWS | _SYNCS and _name(path) in (layout.LEADER_EPOCH_CHECKPOINT, layout.EPOCH_STARTS)
    ),
    "new directory": lambda point, path: point is WritePoint.MKDIR,
    "deletion": lambda point, path: (
        path.endswith((layout.DELETED_SUFFIX, layout.DELETE_DIR_SUFFIX)) or point is WritePoint.TRUNCATE
    ),
    "metadata append": lambda point, path: point is WritePoint.WRITE and _is_log(path) and _of_metadata(path),
    "metadata fsync": lambda point, path: point in _SYNCS and _of_metadata(path),
    "metadata snapshot": lambda point, path: (
        point in _GROWS | _SYNCS and _of_metadata(path) and path.endswith((".checkpoint", ".checkpoint.part"))
    ),
    "quorum state": lambda point, path: point in _GROWS | _SYNCS and _name(path) == QUORUM_STATE,
    "registration": lambda point, path: _name(path) in (layout.REGISTRATION, layout.CLEAN_SHUTDOWN_MARKER),
}
READ = "read"
COMPACTION: dict[str, Match] = {
    "cleaned segment": lambda point, path: (
        path.endswith(layout.CLEANED_SUFFIX) and point is not WritePoint.RENAME
    ),
    "swap": lambda point, path: point is WritePoint.RENAME and path.endswith(_SWAPPED),
    "swap of a log": lambda point, path: point is WritePoint.RENAME and path.endswith(_SWAPPED_LOG),
    "finished swap": lambda point, path: point is WritePoint.DIRSYNC and not _of_metadata(f"{path}/"),
    "cleaner's notes": lambda point, path: point in _GROWS | _SYNCS and _name(path) in _CLEANER_NOTES,
    "log start": lambda point, path: point in _GROWS and _name(path) == layout.LOG_START_OFFSET_CHECKPOINT,
}
"""Where logs are compacted and deleted."""


class Ends(BaseException):
    """The process, or the machine, ends at this very call: nothing that it was at goes on."""


def end_at(machine: Machine, rng: Random, told: Callable[[str], None]) -> str:
    """Arm the end of this life of the process, where logs are compacted; what it waits for. `told` when it comes."""
    name = rng.choice((*COMPACTION, "swap", "swap of a log", "deletion"))
    left, partial = rng.randrange(CALLS_MAX * 2), rng.random()
    matches = COMPACTION.get(name) or TARGETS[name]

    def watch(point: WritePoint, path: str, partly: Callable[[float], None]) -> None:
        nonlocal left
        if not matches(point, path):
            return
        if left > 0:
            left -= 1
            return
        if left == 0:
            left = -1
            told(name)
            partly(partial)
        raise Ends(f"{point.value} of {path}")

    machine.disk.faults.watch = watch
    return name


def strike(machine: Machine, rng: Random, told: Callable[[str], None]) -> str:
    """Arm one fault of this life of the machine's disk; what it waits for. `told` when it strikes first."""
    targets = {**TARGETS, **COMPACTION} if machine.cluster.scenario.compaction else TARGETS
    name = rng.choice((*targets, READ))
    error = rng.choice(ERRORS) if name != READ else errno.EIO
    left, lasting, partial = rng.randrange(CALLS_MAX), rng.random() < 0.5, rng.random()
    struck = False

    def fail(path: str, partly: Callable[[float], None]) -> None:
        nonlocal left, struck
        if not struck and left > 0:
            left -= 1
            return
        if struck and not lasting:
            return
        if not struck:
            struck = True
            told(name)
        partly(partial)
        raise OSError(error, "injected", path)

    def watch(point: WritePoint, path: str, partly: Callable[[float], None]) -> None:
        if targets[name](point, path):
            fail(path, partly)

    faults = machine.disk.faults
    if name == READ:
        faults.on_read = lambda path: fail(path, lambda _: None) if _is_read(path) else None
    else:
        faults.watch = watch
    return name


def mend(machine: Machine) -> None:
    """The disk is sound again."""
    machine.disk.faults.watch = machine.disk.faults.on_read = None
