"""The disk port on the operating system, and the threads behind its syncer."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import queue
import shutil
import sys
import threading
from collections.abc import Callable, Sequence

from odradek.ports.disk import Buffer, Disk, File, FileRange, Syncer

_IOV_MAX = 1024
_NOWAIT = getattr(os, "RWF_NOWAIT", 0)
_FULL_FSYNC = getattr(fcntl, "F_FULLFSYNC", None)
_fdatasync = getattr(os, "fdatasync", os.fsync)


def _flush(fd: int) -> None:
    """To the medium. macOS' fsync stops at the drive's cache; F_FULLFSYNC does not, but some file systems lack it."""
    if _FULL_FSYNC is not None:
        try:
            fcntl.fcntl(fd, _FULL_FSYNC)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):
                raise
            os.fsync(fd)
        return
    _fdatasync(fd)


class _ByteRange(ctypes.Structure):
    _fields_ = (("position", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _CacheStatus(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64) for name in ("cached", "dirty", "writeback", "evicted", "recently_evicted")
    )


class PageCache:
    """How much of a file is in the page cache: cachestat(2), since Linux 6.5. 2 µs for 1 MB (ctypes included)."""

    SYSCALL = 451
    """The same on every architecture that Python runs on but Alpha."""
    PAGE = os.sysconf("SC_PAGE_SIZE")
    LOOKS = 3
    """Pages that the kernel is moving about in memory are not counted (seen once in a thousand looks at 1 MB)."""

    def __init__(self) -> None:
        self._range = _ByteRange()
        self._status = _CacheStatus()
        self._arguments = ctypes.byref(self._range), ctypes.byref(self._status), 0
        self._syscall = ctypes.PyDLL(None).syscall  # keeps the interpreter lock: shorter than giving it up
        self.works = sys.platform == "linux"

    def holds(self, fd: int, position: int, length: int) -> bool | None:
        """Whether every page of the range is there; None where the system cannot tell."""
        if not self.works:
            return None
        self._range.position, self._range.length = position, length
        pages = (position + length - 1) // self.PAGE - position // self.PAGE + 1
        for _ in range(self.LOOKS):
            if self._syscall(self.SYSCALL, fd, *self._arguments) != 0:
                self.works = False  # an older kernel, or a sandbox that does not know the call
                return None
            if self._status.cached >= pages:
                return True
        return False


_page_cache = PageCache()


class _Descriptor:
    """Closed by whoever lets go of it last: the file, or a range of it that is still being sent."""

    __slots__ = ("cuts", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.cuts = 0
        """How often the file was cut: who was promised bytes before may find others."""

    def __del__(self) -> None:
        os.close(self.fd)


class RealRange(FileRange):
    """Sent with sendfile(2): from the page cache to the socket, without a copy in between."""

    __slots__ = ("_cuts", "_descriptor", "_length", "_position")

    def __init__(self, descriptor: _Descriptor, position: int, length: int) -> None:
        self._descriptor = descriptor
        self._cuts = descriptor.cuts
        self._position = position
        self._length = length

    def __len__(self) -> int:
        return self._length

    def read(self) -> bytes:
        self._check()
        return os.pread(self._descriptor.fd, self._length, self._position)

    def send(self, socket: int, skip: int, length_max: int) -> int:
        descriptor = self._descriptor
        if self._cuts != descriptor.cuts:
            self._check()
        left = self._length - skip
        if left > length_max:
            left = length_max
        sent = os.sendfile(socket, descriptor.fd, self._position + skip, left)
        if sent == 0:
            raise OSError(errno.ESTALE, "the file has become shorter")
        return sent

    def _check(self) -> None:
        if self._cuts != self._descriptor.cuts:
            raise OSError(errno.ESTALE, "the file was cut")


class RealFile(File):
    """A file descriptor whose write position stays at the end."""

    __slots__ = ("_descriptor", "_fd", "path")

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._descriptor: _Descriptor | None = _Descriptor(fd)
        self.path = path
        os.lseek(fd, 0, os.SEEK_END)

    def append(self, buffers: Sequence[Buffer]) -> int:
        if len(buffers) == 1:
            size = len(buffers[0])
            written = os.write(self._fd, buffers[0])
            if written == size:
                return size
        else:
            size = sum(map(len, buffers))
            written = os.writev(self._fd, buffers if len(buffers) <= _IOV_MAX else buffers[:_IOV_MAX])
            if written == size:
                return size
        self._append_rest(buffers, written)
        return size

    def _append_rest(self, buffers: Sequence[Buffer], written: int) -> None:
        """After a short write: a full disk says so on the next one."""
        rest = [memoryview(buffer) for buffer in buffers]
        while True:
            while rest and written >= len(rest[0]):
                written -= len(rest.pop(0))
            if not rest:
                return
            if written:
                rest[0] = rest[0][written:]
            written = os.writev(self._fd, rest[:_IOV_MAX])
            if written == 0:
                raise OSError(errno.EIO, "a write took no bytes", self.path)

    def pread(self, length: int, position: int) -> bytes:
        return os.pread(self._fd, length, position)

    def is_cached(self, position: int, length: int) -> bool:
        """Every page where the system tells (`PageCache`), else one byte at either end; True where it cannot."""
        if length <= 0:
            return True
        held = _page_cache.holds(self._fd, position, length)
        if held is not None:
            return held
        if not _NOWAIT:
            return True
        probe = [bytearray(1)]
        try:
            os.preadv(self._fd, probe, position, _NOWAIT)
            if length > 4096:
                os.preadv(self._fd, probe, position + length - 1, _NOWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def range(self, position: int, length: int) -> RealRange:
        if self._descriptor is None:
            raise OSError(errno.EBADF, "the file is closed", self.path)
        return RealRange(self._descriptor, position, length)

    def pwrite(self, data: Buffer, position: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, position)
            view, position = view[written:], position + written
        os.lseek(self._fd, 0, os.SEEK_END)

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def truncate(self, size: int) -> None:
        if self._descriptor is not None:
            self._descriptor.cuts += 1
        os.ftruncate(self._fd, size)
        os.lseek(self._fd, 0, os.SEEK_END)

    def sync(self) -> None:
        _flush(self._fd)

    def close(self) -> None:
        self._fd = -1
        self._descriptor = None


class RealDisk(Disk):
    """The file system of this machine."""

    def open(self, path: str, *, create: bool = False, exclusive: bool = False) -> RealFile:
        return RealFile(self.descriptor(path, create=create, exclusive=exclusive), path)

    def descriptor(self, path: str, *, create: bool, exclusive: bool) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC
        if create:
            flags |= os.O_CREAT
        if exclusive:
            flags |= os.O_CREAT | os.O_EXCL
        return os.open(path, flags, 0o644)

    def listdir(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def isdir(self, path: str) -> bool:
        return os.path.isdir(path)

    def size(self, path: str) -> int:
        return os.stat(path).st_size

    def makedirs(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def rmtree(self, path: str) -> None:
        shutil.rmtree(path)

    def sync_dir(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def settle(self, path: str) -> None:
        """syncfs(2) where there is one: 10,000 logs are then synced in seconds, not in a minute."""
        with contextlib.suppress(OSError, AttributeError):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                ctypes.CDLL(None).syncfs(fd)
            finally:
                os.close(fd)

    def read_file(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def write_file_atomic(self, path: str, data: bytes, *, durable: bool) -> None:
        temporary = path + ".tmp"
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    _flush(file.fileno())
            os.rename(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        if durable:
            self.sync_dir(os.path.dirname(path))

    def lock(self, path: str) -> Callable[[], None] | None:
        """A POSIX record lock, as Kafka's JVM takes it, so that the two exclude each other.

        Such a lock does not exclude the same process, hence the table beside it.
        """
        real = os.path.realpath(path)
        with _locked_guard:
            if real in _locked:
                return None
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                os.close(fd)
                return None
            except BaseException:
                os.close(fd)
                raise
            _locked.add(real)

        held = [fd]

        def release() -> None:
            with _locked_guard:
                if held:
                    _locked.discard(real)
                    os.close(held.pop())

        return release


_locked: set[str] = set()
_locked_guard = threading.Lock()

_Done = Callable[[OSError | None], None]


class ThreadSyncer(Syncer):
    """Two daemon threads, started on first use: one commits fsyncs in groups, one does other slow disk work.

    The two are apart so that the unlink of a large file (0.15 s per GB) never delays an acknowledgement. Whatever
    has queued up while an fsync ran is one group: each file in it is synced once, and all completions of the
    group go to the owner's loop in one `call_soon_threadsafe`.
    """

    def __init__(self, call_soon_threadsafe: Callable[..., object]) -> None:
        self._call_soon = call_soon_threadsafe
        self._syncs: queue.SimpleQueue[tuple[File, _Done] | None] = queue.SimpleQueue()
        self._works: queue.SimpleQueue[tuple[Callable[[], None], _Done] | None] = queue.SimpleQueue()
        self._threads: dict[str, threading.Thread] = {}

    def sync(self, file: File, done: _Done) -> None:
        if "sync" not in self._threads:
            self._start("sync", self._run_syncs)
        self._syncs.put((file, done))

    def run(self, work: Callable[[], None], done: _Done) -> None:
        """In submission order among `run`s; not ordered against `sync`s."""
        if "work" not in self._threads:
            self._start("work", self._run_works)
        self._works.put((work, done))

    def close(self, timeout_s: float = 30.0) -> None:
        """Finish what is queued and end the threads. Completions still go to the loop."""
        for name, tasks in (("sync", self._syncs), ("work", self._works)):
            if (thread := self._threads.pop(name, None)) is not None:
                tasks.put(None)
                thread.join(timeout_s)

    def _start(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=f"odradek-disk-{name}", daemon=True)
        self._threads[name] = thread
        thread.start()

    def _post(self, completions: list[tuple[_Done, OSError | None]]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody is left to be told
            self._call_soon(_complete, completions)

    def _run_syncs(self) -> None:
        while True:
            group = [self._syncs.get()]
            with contextlib.suppress(queue.Empty):
                while True:
                    group.append(self._syncs.get_nowait())
            results: dict[int, OSError | None] = {}
            completions: list[tuple[_Done, OSError | None]] = []
            for request in group:
                if request is None:
                    continue
                file, done = request
                if id(file) not in results:
                    results[id(file)] = _attempt(file.sync)
                completions.append((done, results[id(file)]))
            if completions:
                self._post(completions)
            if group[-1] is None:
                return

    def _run_works(self) -> None:
        while (request := self._works.get()) is not None:
            work, done = request
            self._post([(done, _attempt(work))])


def _attempt(work: Callable[[], None]) -> OSError | None:
    try:
        work()
    except OSError as error:
        return error
    except Exception as error:  # noqa: BLE001 - a worker that died would leave every later caller waiting
        return OSError(errno.EIO, f"disk work failed: {error!r}")
    return None


def _complete(completions: list[tuple[_Done, OSError | None]]) -> None:
    for done, error in completions:
        done(error)
