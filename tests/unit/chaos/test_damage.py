"""Damage at rest is what it says: half a batch behind sound ones, one bit, an empty directory."""

from __future__ import annotations

import random
import struct
from pathlib import Path

from odradek.chaos.damage import do, flip_byte, tear_tail, wipe


def batch(offset: int, records: int, body: bytes) -> bytes:
    """A header as far as damage looks at it."""
    rest = struct.pack(">iBIhi", 0, 2, 0, 0, records - 1) + bytes(34) + body
    return struct.pack(">qi", offset, len(rest)) + rest


def log(data: Path, name: str) -> Path:
    directory = data / name
    directory.mkdir(parents=True)
    path = directory / f"{0:020}.log"
    path.write_bytes(batch(0, 3, b"a" * 100) + batch(3, 2, b"b" * 200))
    return path


def test_torn_tail_is_the_beginning_of_one_more_batch(tmp_path: Path) -> None:
    path = log(tmp_path, "t-0")
    sound = path.read_bytes()
    assert tear_tail(tmp_path, random.Random(1)) == [f"t-0/{path.name}"]
    torn = path.read_bytes()
    assert torn.startswith(sound)
    rest = torn[len(sound) :]
    whole = batch(5, 2, b"b" * 200)
    assert 0 < len(rest) < len(whole) and whole.startswith(rest)


def test_a_flipped_byte_is_one_bit_in_the_first_half(tmp_path: Path) -> None:
    path, other = log(tmp_path, "t-0"), log(tmp_path, "u-0")
    sound = path.read_bytes()
    (said,) = flip_byte(tmp_path, random.Random(2), "t")
    changed = [at for at, (old, new) in enumerate(zip(sound, path.read_bytes(), strict=True)) if old != new]
    assert len(changed) == 1 and said == f"t-0/{path.name} byte {changed[0]}"
    assert 61 <= changed[0] < len(sound) // 2 + 1
    assert bin(sound[changed[0]] ^ path.read_bytes()[changed[0]]).count("1") == 1
    assert other.read_bytes() == sound


def test_metadata_is_left_alone_and_a_topic_that_is_not_there_too(tmp_path: Path) -> None:
    path = log(tmp_path, "__cluster_metadata-0")
    sound = path.read_bytes()
    assert not tear_tail(tmp_path, random.Random(1)) and not flip_byte(tmp_path, random.Random(1), "t")
    assert path.read_bytes() == sound


def test_wiped_is_empty_and_still_there(tmp_path: Path) -> None:
    log(tmp_path, "t-0")
    (tmp_path / "meta.properties").write_text("x")
    assert wipe(tmp_path) == ["2 entries"]
    assert tmp_path.is_dir() and not list(tmp_path.iterdir())


def test_what_was_done_is_told_shortly(tmp_path: Path) -> None:
    for index in range(4):
        log(tmp_path, f"t-{index}")
    assert do(tmp_path, "torn-tail", "t", random.Random(1)) == "4 segments"
    assert do(tmp_path, "flipped-byte", "t", random.Random(1)).startswith("t-")
    assert do(tmp_path, "wiped-disk", "t", random.Random(1)) == "4 entries"
