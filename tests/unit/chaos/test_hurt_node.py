"""The handles of a node that can be hurt: what its own file says is wrong with its disk and its clock."""

from __future__ import annotations

import errno
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from odradek.chaos import node
from odradek.storage import real_disk


@pytest.fixture
def hurt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A container's process as `main` leaves it; where its faults are told."""
    monkeypatch.setattr(node, "CONTAINER_PLACE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["odradek"])
    for name in ("time", "time_ns"):
        monkeypatch.setattr(time, name, getattr(time, name))
    monkeypatch.setattr(real_disk, "RealDisk", real_disk.RealDisk)
    ran: list[str] = []
    monkeypatch.setattr(runpy, "run_module", lambda name, run_name: ran.append(f"{name} {run_name}"))
    node.main(["container"])
    assert ran == ["odradek.cli.main __main__"] and sys.argv == ["odradek", "container"]
    return tmp_path


def await_true(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(node.LOOK_S)


def fails_with(number: int, step: Callable[[], object]) -> bool:
    try:
        step()
    except OSError as error:
        return error.errno == number
    return False


def test_a_container_looks_for_its_faults_in_a_volume_of_their_own(hurt: Path) -> None:
    disk = real_disk.RealDisk()
    path = str(hurt / "x")
    disk.write_file_atomic(path, b"1", durable=True)
    node.tell(hurt, {"disk": {"mode": "failing"}, "clock_offset_s": -3600})
    await_true(lambda: fails_with(errno.EIO, lambda: disk.write_file_atomic(path, b"1", durable=True)))
    await_true(lambda: time.time_ns() // 10**9 < Path(path).stat().st_mtime - 3500)
    node.tell(hurt, {"disk": {"mode": "full"}})
    await_true(lambda: fails_with(errno.ENOSPC, lambda: disk.write_file_atomic(path, b"1", durable=True)))
    assert Path(path).read_bytes() == b"1"
    node.tell(hurt, {})
    await_true(lambda: not fails_with(errno.ENOSPC, lambda: disk.write_file_atomic(path, b"3", durable=True)))
    assert Path(path).read_bytes() == b"3"
