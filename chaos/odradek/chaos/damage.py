"""Bytes that are damaged while their node is down: segments that end in half a batch, bytes that flip, empty disks."""

from __future__ import annotations

import random
import shutil
import struct
from pathlib import Path

BATCH_HEADER = 61
_LENGTH_AT = 8
_LENGTH_FROM = 12
"""A batch is this much longer than its length field says."""


def do(data: Path, kind: str, topic: str, rng: random.Random) -> str:
    """`torn-tail`, `flipped-byte` in a partition of `topic`, or `wiped-disk`. What was done, for people."""
    if kind == "torn-tail":
        done = tear_tail(data, rng)
    elif kind == "flipped-byte":
        done = flip_byte(data, rng, topic)
    else:
        done = wipe(data)
    return ", ".join(done) if len(done) < 3 else f"{len(done)} segments"


def logs(data: Path) -> list[Path]:
    """The newest segment of each partition that has a batch, metadata apart."""
    found = []
    for directory in sorted(data.iterdir()):
        if directory.is_dir() and not directory.name.startswith("__cluster_metadata"):
            segments = sorted(directory.glob("*.log"))
            if segments and segments[-1].stat().st_size > BATCH_HEADER:
                found.append(segments[-1])
    return found


def tear_tail(data: Path, rng: random.Random) -> list[str]:
    """Every newest segment gets the beginning of one more batch, as a kill in the middle of a write leaves it: nobody
    was told of it. What was done, for people.
    """
    done = []
    for segment in logs(data):
        last = _last_batch(segment)
        if last is None:
            continue
        offset, content = last
        (count,) = struct.unpack_from(">i", content, 23)
        torn = struct.pack(">q", offset + count + 1) + content[8:]
        with segment.open("ab") as file:
            file.write(torn[: rng.randrange(1, len(torn))])
        done.append(f"{segment.parent.name}/{segment.name}")
    return done


def flip_byte(data: Path, rng: random.Random, topic: str) -> list[str]:
    """One bit in the first half of one segment of the topic, with sound batches behind it."""
    chosen = [each for each in logs(data) if each.parent.name.rpartition("-")[0] == topic]
    if not chosen:
        return []
    segment = rng.choice(chosen)
    size = segment.stat().st_size
    at = rng.randrange(BATCH_HEADER, max(BATCH_HEADER + 1, size // 2))
    with segment.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ (1 << rng.randrange(8))]))
    return [f"{segment.parent.name}/{segment.name} byte {at}"]


def wipe(data: Path) -> list[str]:
    """Everything in the directory, which stays (it may be a mount)."""
    names = sorted(each.name for each in data.iterdir())
    for each in data.iterdir():
        if each.is_dir():
            shutil.rmtree(each)
        else:
            each.unlink()
    return [f"{len(names)} entries"]


def _last_batch(segment: Path) -> tuple[int, bytes] | None:
    """Its base offset and bytes."""
    content = segment.read_bytes()
    at, found = 0, None
    while at + BATCH_HEADER <= len(content):
        (length,) = struct.unpack_from(">i", content, at + _LENGTH_AT)
        end = at + _LENGTH_FROM + length
        if length <= 0 or end > len(content):
            break
        found = struct.unpack_from(">q", content, at)[0], content[at:end]
        at = end
    return found
