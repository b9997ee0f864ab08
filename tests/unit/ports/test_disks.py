"""One suite for both disks: what everything above may expect of the port."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from odradek.storage import real_disk
from odradek.storage.memory_disk import PAGE, MemoryDisk, StepSyncer
from odradek.storage.real_disk import RealDisk, ThreadSyncer


@pytest.fixture(params=["memory", "real"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, str]:
    if request.param == "real":
        return RealDisk(), str(tmp_path)
    disk = MemoryDisk()
    disk.makedirs("/tmp")
    return disk, "/tmp"


def test_appends_gather_and_reads_find_them(place: tuple[Any, str]) -> None:
    disk, root = place
    file = disk.open(f"{root}/a", create=True)
    assert file.append([b"abc", bytearray(b"de"), memoryview(b"xfgx")[1:3]]) == 7
    assert file.append([b"h"]) == 1
    assert file.append([]) == 0
    assert file.append([b""]) == 0
    assert file.size() == disk.size(f"{root}/a") == 8
    assert file.pread(3, 2) == b"cde"
    assert file.pread(100, 6) == b"gh"
    assert file.pread(1, 8) == b""
    assert file.is_cached(0, 8)
    file.close()
    file.close()
    with pytest.raises(OSError, match=r".") as error:
        file.pread(1, 0)
    assert error.value.errno == errno.EBADF


def test_more_buffers_than_one_call_takes(place: tuple[Any, str]) -> None:
    disk, root = place
    file = disk.open(f"{root}/a", create=True)
    buffers = [str(number % 10).encode() * (number % 7) for number in range(5000)]
    whole = b"".join(buffers)
    assert file.append(buffers) == len(whole)
    assert disk.read_file(f"{root}/a") == whole


def test_a_reopened_file_appends_at_its_end(place: tuple[Any, str]) -> None:
    disk, root = place
    file = disk.open(f"{root}/a", create=True)
    file.append([b"one"])
    file.close()
    again = disk.open(f"{root}/a")
    again.append([b"two"])
    assert disk.read_file(f"{root}/a") == b"onetwo"


def test_truncating_and_overwriting(place: tuple[Any, str]) -> None:
    disk, root = place
    file = disk.open(f"{root}/a", create=True)
    file.append([b"0123456789"])
    file.truncate(4)
    file.append([b"X"])
    file.pwrite(b"ab", 1)
    file.append([b"Y"])
    assert disk.read_file(f"{root}/a") == b"0ab3XY"
    file.truncate(8)
    assert disk.read_file(f"{root}/a") == b"0ab3XY\0\0"


def test_opening_what_is_and_is_not_there(place: tuple[Any, str]) -> None:
    disk, root = place
    with pytest.raises(FileNotFoundError):
        disk.open(f"{root}/a")
    with pytest.raises(FileNotFoundError):
        disk.open(f"{root}/none/a", create=True)
    disk.open(f"{root}/a", create=True, exclusive=True).append([b"x"])
    with pytest.raises(FileExistsError):
        disk.open(f"{root}/a", exclusive=True)
    assert disk.open(f"{root}/a", create=True).size() == 1
    with pytest.raises(IsADirectoryError):
        disk.open(root)
    for call in (disk.size, disk.unlink, disk.read_file, disk.listdir):
        with pytest.raises(FileNotFoundError):
            call(f"{root}/none")


def test_directories(place: tuple[Any, str]) -> None:
    disk, root = place
    disk.makedirs(f"{root}/d/e/f")
    disk.makedirs(f"{root}/d/e/f")
    disk.open(f"{root}/d/z", create=True)
    disk.open(f"{root}/d/b", create=True)
    assert disk.listdir(f"{root}/d") == ["b", "e", "z"]
    assert disk.isdir(f"{root}/d") and not disk.isdir(f"{root}/d/b") and not disk.isdir(f"{root}/q")
    assert disk.exists(f"{root}/d/b") and not disk.exists(f"{root}/d/q")
    disk.sync_dir(f"{root}/d")
    disk.rename(f"{root}/d", f"{root}/g")
    assert disk.listdir(f"{root}/g") == ["b", "e", "z"]
    disk.rmtree(f"{root}/g")
    assert not disk.exists(f"{root}/g")
    with pytest.raises(FileNotFoundError):
        disk.rmtree(f"{root}/g")


def test_renaming_replaces_files_and_open_handles_follow(place: tuple[Any, str]) -> None:
    disk, root = place
    file = disk.open(f"{root}/a", create=True)
    file.append([b"a"])
    disk.open(f"{root}/b", create=True).append([b"old"])
    disk.rename(f"{root}/a", f"{root}/b")
    file.append([b"!"])
    assert disk.listdir(root) == ["b"]
    assert disk.read_file(f"{root}/b") == b"a!"
    disk.unlink(f"{root}/b")
    file.append([b"?"])
    assert file.pread(10, 0) == b"a!?"
    with pytest.raises(FileNotFoundError):
        disk.rename(f"{root}/a", f"{root}/c")


@pytest.mark.parametrize("durable", [True, False])
def test_atomic_writes_leave_old_or_new_and_no_litter(place: tuple[Any, str], durable: bool) -> None:
    disk, root = place
    for text in (b"one", b"", b"three"):
        disk.write_file_atomic(f"{root}/a", text, durable=durable)
        assert disk.read_file(f"{root}/a") == text
    assert disk.listdir(root) == ["a"]
    with pytest.raises(FileNotFoundError):
        disk.write_file_atomic(f"{root}/none/a", b"x", durable=durable)


def test_a_lock_is_held_once_until_released(place: tuple[Any, str]) -> None:
    disk, root = place
    release = disk.lock(f"{root}/.lock")
    assert release is not None
    assert disk.lock(f"{root}/.lock") is None
    release()
    release()
    again = disk.lock(f"{root}/.lock")
    assert again is not None
    release()
    assert disk.lock(f"{root}/.lock") is None
    again()


def test_another_process_cannot_take_the_lock(tmp_path: Path) -> None:
    path = str(tmp_path / ".lock")
    release = RealDisk().lock(path)
    assert release is not None
    code = f"from odradek.storage.real_disk import RealDisk; print(RealDisk().lock({path!r}) is None)"
    run = [sys.executable, "-c", code]
    assert subprocess.run(run, capture_output=True, text=True, timeout=60, check=True).stdout == "True\n"
    release()
    assert subprocess.run(run, capture_output=True, text=True, timeout=60, check=True).stdout == "False\n"


# The syncer's threads


def test_the_thread_syncer_completes_on_the_loop_in_groups(tmp_path: Path) -> None:
    disk = RealDisk()
    first, second = (disk.open(str(tmp_path / name), create=True) for name in "ab")
    results: list[Any] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        syncer = ThreadSyncer(loop.call_soon_threadsafe)
        all_done = loop.create_future()

        def done(error: OSError | None) -> None:
            results.append(error)
            if len(results) == 21:
                all_done.set_result(None)

        for _ in range(10):
            syncer.sync(first, done)
            syncer.sync(second, done)
        syncer.run(lambda: disk.makedirs(str(tmp_path / "made")), done)
        await asyncio.wait_for(all_done, 30)
        syncer.close()

    asyncio.run(main())
    assert results == [None] * 21
    assert disk.isdir(str(tmp_path / "made"))


def test_the_thread_syncer_reports_failures_and_survives_them(tmp_path: Path) -> None:
    disk = RealDisk()
    file = disk.open(str(tmp_path / "a"), create=True)
    file.close()
    results: list[Any] = []

    def fail() -> None:
        raise ValueError("a bug")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        syncer = ThreadSyncer(loop.call_soon_threadsafe)
        all_done = loop.create_future()

        def done(error: OSError | None) -> None:
            results.append(error)
            if len(results) == 4:
                all_done.set_result(None)

        syncer.sync(file, done)
        syncer.run(fail, done)
        syncer.run(lambda: disk.unlink(str(tmp_path / "none")), done)
        syncer.run(lambda: None, done)
        await asyncio.wait_for(all_done, 30)
        syncer.close()

    asyncio.run(main())
    assert sorted(str(type(result).__name__) for result in results) == [
        "FileNotFoundError", "NoneType", "OSError", "OSError",
    ]  # fmt: skip


def test_closing_the_syncer_finishes_what_is_queued(tmp_path: Path) -> None:
    called: list[Any] = []
    syncer = ThreadSyncer(lambda callback, *args: called.append(args))
    path = tmp_path / "a"
    syncer.run(path.touch, lambda error: None)
    syncer.close()
    assert path.exists()
    assert len(called) == 1
    syncer.close()


def test_the_step_syncer_works_when_told_to() -> None:
    disk, syncer, results = MemoryDisk(), StepSyncer(), []
    file = disk.open("/a", create=True)
    syncer.sync(file, results.append)
    syncer.run(lambda: disk.unlink("/none"), results.append)
    assert (len(syncer), results) == (2, [])
    assert syncer.step()
    assert results == [None]
    syncer.drain()
    assert isinstance(results[1], FileNotFoundError)
    assert not syncer.step()


# What only the disk in memory can do


def crashed(seed: int) -> MemoryDisk:
    """A synced file with an unsynced tail, a synced directory with unsynced changes, then power loss."""
    disk = MemoryDisk(seed)
    disk.makedirs("/d")
    disk.sync_dir("/")
    file = disk.open("/d/kept", create=True)
    file.append([b"S" * 100])
    file.sync()
    disk.sync_dir("/d")
    file.append([b"U" * 100])
    disk.open("/d/new", create=True).append([b"n"])
    disk.rename("/d/new", "/d/newer")
    disk.crash()
    return disk


def test_power_loss_keeps_what_was_synced_and_a_prefix_of_the_rest() -> None:
    sizes, names = set(), set()
    for seed in range(200):
        disk = crashed(seed)
        data = disk.read_file("/d/kept")
        assert data[:100] == b"S" * 100
        assert set(data[100:]) <= {ord("U")}
        sizes.add(len(data))
        names.add(tuple(disk.listdir("/d")))
    assert {100, 200} <= sizes and len(sizes) > 20
    assert names == {("kept",), ("kept", "new"), ("kept", "newer")}


def test_power_loss_is_a_function_of_the_seed() -> None:
    def shape(seed: int) -> Any:
        disk = crashed(seed)
        return [(name, disk.read_file(f"/d/{name}")) for name in disk.listdir("/d")]

    assert [shape(seed) for seed in range(20)] == [shape(seed) for seed in range(20)]


def test_power_loss_may_drop_pages_from_the_middle_of_what_was_not_synced() -> None:
    holes = 0
    for seed in range(100):
        disk = MemoryDisk(seed)
        file = disk.open("/a", create=True)
        disk.sync_dir("/")
        file.append([b"x" * (10 * PAGE)])
        disk.crash()
        holes += b"\0x" in disk.read_file("/a")
    assert holes > 5


def test_power_loss_after_a_truncation_keeps_either_content() -> None:
    seen = set()
    for seed in range(50):
        disk = MemoryDisk(seed)
        file = disk.open("/a", create=True)
        file.append([b"0123456789"])
        file.sync()
        disk.sync_dir("/")
        file.truncate(5)
        file.append([b"ab"])
        disk.crash()
        seen.add(disk.read_file("/a"))
    assert seen == {b"0123456789", b"01234ab"}


def test_the_death_of_the_process_alone_loses_nothing_but_handles_and_locks() -> None:
    disk = MemoryDisk()
    file = disk.open("/a", create=True)
    file.append([b"unsynced"])
    assert disk.lock("/.lock") is not None
    disk.kill()
    assert disk.read_file("/a") == b"unsynced"
    assert disk.lock("/.lock") is not None
    with pytest.raises(OSError, match="closed"):
        file.append([b"x"])


def test_every_change_can_be_made_to_fail() -> None:
    def work(disk: MemoryDisk) -> None:
        disk.makedirs("/d")
        file = disk.open("/d/a", create=True)
        file.append([b"abc"])
        file.truncate(1)
        file.pwrite(b"z", 0)
        disk.rename("/d/a", "/d/b")
        disk.unlink("/d/b")
        disk.rmtree("/d")

    disk = MemoryDisk()
    work(disk)
    changes = disk.faults.changes
    assert changes == 8
    for number in range(changes):
        disk = MemoryDisk()
        disk.faults.fail_change_at = number
        disk.faults.error = errno.ENOSPC
        with pytest.raises(OSError, match="injected") as error:
            work(disk)
        assert error.value.errno == errno.ENOSPC
        assert disk.faults.changes == number + 1


def test_a_range_is_what_was_there_and_outlives_its_file(place: tuple[Any, str]) -> None:
    disk, root = place
    file = disk.open(f"{root}/a", create=True)
    file.append([b"0123456789"])
    found = file.range(2, 5)
    assert (len(found), found.read()) == (5, b"23456")
    file.append([b"more"])
    file.close()
    disk.unlink(f"{root}/a")
    assert found.read() == b"23456"
    with pytest.raises(OSError, match=r".") as error:
        file.range(0, 1)
    assert error.value.errno == errno.EBADF


def test_a_range_of_a_file_that_was_cut_is_refused(place: tuple[Any, str]) -> None:
    disk, root = place
    file = disk.open(f"{root}/a", create=True)
    file.append([b"0123456789"])
    before = file.range(2, 5)
    file.truncate(8)
    file.append([b"XY"])
    with pytest.raises(OSError, match="cut") as error:
        before.read()
    assert error.value.errno == errno.ESTALE
    assert file.range(6, 4).read() == b"67XY"


@pytest.fixture
def real_file(tmp_path: Path) -> Any:
    file = RealDisk().open(f"{tmp_path}/a", create=True)
    yield file
    file.close()


def test_a_range_goes_to_a_socket_in_pieces(real_file: Any) -> None:
    content = bytes(range(256)) * 4000
    real_file.append([content])
    found = real_file.range(1000, 900_000)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        received = bytearray()
        sent = 0
        blocked = 0
        while sent < len(found):
            try:
                sent += found.send(ours.fileno(), sent, 1 << 20)
            except BlockingIOError:
                blocked += 1
                received += theirs.recv(1 << 20)
        ours.close()
        while more := theirs.recv(1 << 20):
            received += more
    assert received == content[1000:901_000]
    assert blocked
    real_file.truncate(10)
    with pytest.raises(OSError, match="cut"):
        found.send(0, 0, 1)


def test_a_range_that_is_not_there_is_not_sent(real_file: Any) -> None:
    """Somebody else has shortened the file."""
    real_file.append([b"0123456789"])
    found = real_file.range(2, 5)
    os.truncate(real_file.path, 2)
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(OSError, match="shorter"):
        found.send(ours.fileno(), 0, 10)


def test_the_page_cache_tells_of_every_page(real_file: Any) -> None:
    if not real_disk._page_cache.works:
        pytest.skip("no cachestat(2) here")
    size = 16 << 20
    real_file.append([bytes(size)])
    assert real_file.is_cached(0, size)
    assert real_file.is_cached(4095, 2)
    assert not real_file.is_cached(size - 4096, 8192), "beyond the end there is nothing"
    real_file.sync()
    os.posix_fadvise(real_file._fd, 0, 0, os.POSIX_FADV_DONTNEED)
    if real_file.is_cached(0, size):
        pytest.skip("a file system in memory")
    real_file.pread(4096, 0)
    real_file.pread(4096, size - 4096)
    assert real_file.is_cached(0, 4096)
    assert real_file.is_cached(size - 4096, 4096)
    assert not real_file.is_cached(0, size), "the ends are there, the middle is not"


def test_without_cachestat_the_ends_are_probed(real_file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = real_disk.PageCache()
    monkeypatch.setattr(real_disk, "_page_cache", cache)
    monkeypatch.setattr(cache, "_syscall", lambda *_: -1)
    real_file.append([b"0123456789" * 1000])
    assert real_file.is_cached(0, 10_000)
    assert not cache.works, "asked once"
    assert cache.holds(real_file._fd, 0, 10) is None
